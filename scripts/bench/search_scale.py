"""How search holds up as a journal grows: `uv run python -m scripts.bench.search_scale --entries 10000`.

A journal of Pepys' days (`--data`, the folder with his diary) and, beyond them, entries of his sentences recombined,
spread over the years before; a `llamora-server prod` of its own; everything asked through HTTP. Half of the queries
are natural questions (a few words of a sentence, asked for in another order), a quarter single words, a quarter
six-word phrases. `--vectors synthetic` stores random unit vectors for all but the newest REAL entries, since to embed
100,000 takes a quarter of an hour: then speed and memory are those of real ones, and what is found by meaning is not.
The last line printed is one JSON object; times are milliseconds unless named otherwise.
"""

import argparse
import asyncio
import html
import json
import os
import random
import re
import secrets
import sqlite3
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import quantiles

import numpy as np

from llamora.persistence.entries import Entry
from llamora.persistence.vectors import EntryVectors
from llamora.search.chunks import CHUNKING_VERSION, chunk_text
from llamora.search.packaged_model import PACKAGED_DIM, PACKAGED_MODEL
from llamora.services import AppLifecycle, AppServices
from llamora.settings import load_settings
from llamora.text import STOP_WORDS, strip_markdown
from tests.server_process import HttpUser, Server

PASSPHRASE = "correct horse battery staple 42"
REAL_VECTORS = 64  # entries whose vectors are real when the others' are not
WORDS = 50  # of a recombined entry at least, some 65 on average
SEED = 1660
SENTENCE = re.compile(r"(?<=[.!?])\s+")
OLDEST = "quinquereme"  # a word of the oldest entry alone
INCOMPLETE_INDEX_TEXT = "Older pages are still being read"


def read_pepys(folder: Path) -> list[tuple[date, str]]:
    """His days, oldest first, without notes."""
    days: list[tuple[date, str]] = []
    for file in sorted(folder.rglob("*.xhtml")):
        for article in re.findall(
            r"<article[^>]*>(.*?)</article>", file.read_text("utf-8"), re.DOTALL
        ):
            day = re.search(r'<time datetime="(\d{4}-\d{2}-\d{2})', article)
            text = re.sub(r"<a [^>]*noteref[^>]*>.*?</a>", "", article, flags=re.DOTALL)
            text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
            if day and text:
                days.append((date.fromisoformat(day[1]), text))
    return sorted(days)


def make_journal(folder: Path, count: int) -> list[tuple[date, str]]:
    """`count` entries, oldest first, the last on the day before yesterday."""
    rng = random.Random(SEED)
    diary = read_pepys(folder)
    sentences = [
        sentence
        for _, text in diary
        for sentence in SENTENCE.split(text)
        if len(sentence.split()) > 4
    ]
    texts = [text for _, text in diary][-count:]
    while len(texts) < count:
        words = 0
        parts: list[str] = []
        while words < WORDS:
            parts.append(rng.choice(sentences))
            words += len(parts[-1].split())
        texts.insert(0, " ".join(parts))
    last_day = date.today() - timedelta(days=2)  # noqa: DTZ011 -- the day on this machine
    span = min(25_000, count)
    days = [
        last_day - timedelta(days=(count - 1 - place) * span // count) for place in range(count)
    ]
    texts[0] += f" And saw a {OLDEST}."
    return list(zip(days, texts, strict=True))


def make_queries(entries: list[tuple[date, str]], count: int) -> list[str]:
    """Half questions, a quarter words, a quarter phrases."""
    rng = random.Random(SEED)
    queries_made: list[str] = []
    while len(queries_made) < count:
        sentence = rng.choice(SENTENCE.split(rng.choice(entries)[1]))
        words = re.findall(r"[A-Za-z']+", sentence)
        content_words = [word for word in words if word.lower() not in STOP_WORDS and len(word) > 3]
        if len(words) < 8 or len(content_words) < 4:
            continue
        kind = len(queries_made) % 4
        if kind < 2:
            sampled_words = rng.sample(content_words, 4)
            queries_made.append(
                f"When did I have {sampled_words[0].lower()} and {sampled_words[1].lower()} "
                f"with {sampled_words[2]} at {sampled_words[3]}?"
            )
        elif kind == 2:
            queries_made.append(rng.choice(content_words).lower())
        else:
            start = rng.randrange(len(words) - 6)
            queries_made.append('"' + " ".join(words[start : start + 6]) + '"')
    return queries_made


async def seed(server: Server, entries: list[tuple[date, str]], synthetic: bool) -> None:
    """Put the journal into the server's store, through the services it is made of."""
    settings = load_settings(
        overrides={
            "data": {"folder": str(server.data), "cache": str(server.cache)},
            "crypto": {"kdf_target_ms": 0},
            "llm": {"enabled": False},
            "embedding": {"enabled": False},
        }
    )
    services = AppServices.create(settings)
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    rng = np.random.default_rng(SEED)
    try:
        _, keys, _ = await services.accounts.register("Alice", PASSPHRASE, "UTC")
        for start in range(0, len(entries), 500):
            batch = [
                Entry(
                    secrets.token_bytes(16),
                    day,
                    "me",
                    text,
                    datetime(day.year, day.month, day.day, 9, tzinfo=UTC),
                    "UTC",
                )
                for day, text in entries[start : start + 500]
            ]
            await services.db.entries.add(keys, *batch)
            if synthetic:
                vectors: list[EntryVectors] = []
                for index, entry in enumerate(batch, start):
                    if index < len(entries) - REAL_VECTORS:
                        rows = rng.normal(
                            size=(len(chunk_text(strip_markdown(entry.text))), PACKAGED_DIM)
                        ).astype("<f4")
                        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                        name = f"{PACKAGED_MODEL}/{CHUNKING_VERSION}"
                        vectors.append(
                            EntryVectors(entry.id, 1, name, PACKAGED_DIM, rows.tobytes())
                        )
                await services.db.vectors.save(keys, vectors)
    finally:
        await lifecycle.stop()


def rss_mb(server: Server) -> float:
    """Resident memory of the server."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else float("nan")


def cpu_ms(server: Server) -> float:
    """Processor time of the server so far: what a query costs, also on a machine that does other things."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def search(user: HttpUser, query: str) -> str:
    """The results as HTMX gets them."""
    response = user.post("/search", {"q": query}, fragment=True)
    assert response.status_code == 200, response.status_code
    return response.text


def measure_unlock(server: Server, timings: dict[str, float]) -> HttpUser:
    """Sign in, and measure until the oldest entry is found and until everything is read."""
    user = HttpUser(server.url, passphrase=PASSPHRASE)
    user.sign_in()
    started = time.perf_counter()
    is_oldest_found = False
    while True:
        page = search(user, OLDEST)
        if f"<mark>{OLDEST}</mark>" in page and not is_oldest_found:
            is_oldest_found = True
            timings["oldest_word_s"] = round(time.perf_counter() - started, 3)
        if "first_result_s" not in timings and 'class="hit"' in search(user, "my wife"):
            timings["first_result_s"] = round(time.perf_counter() - started, 3)
        if is_oldest_found and INCOMPLETE_INDEX_TEXT not in page:
            timings["complete_s"] = round(time.perf_counter() - started, 3)
            return user
        time.sleep(0.01)


def measure_delay(user: HttpUser, text: str, query: str) -> float:
    """Milliseconds from the answer to a write until a search finds it."""
    entry = user.write(text)
    started = time.perf_counter()
    while f"e-{entry}" not in search(user, query):
        time.sleep(0.005)
        assert time.perf_counter() - started < 60
    return round(1000 * (time.perf_counter() - started), 1)


def query_number(server: Server, sql: str) -> int:
    """One number out of the server's file."""
    with sqlite3.connect(f"file:{server.data / 'llamora.sqlite3'}?mode=ro", uri=True) as raw:
        (number,) = raw.execute(sql).fetchone()
    raw.close()
    return int(number or 0)


def wait_for(server: Server, sql: str, minimum: int, seconds: float) -> float:
    """Seconds until the store says at least `wanted`; nan when it never did."""
    started = time.perf_counter()
    while query_number(server, sql) < minimum:
        if time.perf_counter() - started > seconds:
            return float("nan")
        time.sleep(0.5)
    return round(time.perf_counter() - started, 1)


def measure(server: Server, entries: list[tuple[date, str]], query_count: int) -> dict[str, object]:
    """Everything that is asked of a server over its journal."""
    result: dict[str, object] = {"entries": len(entries)}
    server.start(timeout=120)
    time.sleep(8)  # the embedding model comes up
    rss_before = rss_mb(server)
    cold_timings: dict[str, float] = {}
    cpu_before = cpu_ms(server)
    user = measure_unlock(server, cold_timings)
    cold_timings["cpu_s"] = round((cpu_ms(server) - cpu_before) / 1000, 2)
    result["without_snapshot"] = cold_timings
    result["file_mb"] = round((server.data / "llamora.sqlite3").stat().st_size / 1e6, 1)
    result["embedded_s"] = wait_for(server, "SELECT count(*) FROM vectors", len(entries), 3600)
    size = "SELECT count(*) FROM search_snapshots WHERE part=0"
    result["snapshot_after_s"] = wait_for(server, size, 1, 120)
    result["snapshot_mb"] = round(
        query_number(server, "SELECT sum(length(sealed)) FROM search_snapshots") / 1e6, 1
    )
    result["rss_mb_per_user"] = round(rss_mb(server) - rss_before, 1)
    for query in make_queries(entries[:1000], 12):
        search(user, query)
    times: dict[str, list[float]] = {"question": [], "word": [], "phrase": []}
    cpu_before = cpu_ms(server)
    for number, query in enumerate(make_queries(entries, query_count)):
        started = time.perf_counter()
        search(user, query)
        times[("question", "question", "word", "phrase")[number % 4]].append(
            1000 * (time.perf_counter() - started)
        )
    percentiles = quantiles([value for values in times.values() for value in values], n=100)
    result["cpu_ms_per_query"] = round((cpu_ms(server) - cpu_before) / query_count, 1)
    result["load"] = [round(number, 1) for number in os.getloadavg()]
    result["p50"], result["p95"] = round(percentiles[49], 1), round(percentiles[94], 1)
    for kind, values in times.items():
        percentiles_of_kind = quantiles(values, n=100)
        result[kind] = {
            "p50": round(percentiles_of_kind[49], 1),
            "p95": round(percentiles_of_kind[94], 1),
        }
    result["rss_mb_after_queries"] = round(rss_mb(server) - rss_before, 1)
    result["found_by_word"] = measure_delay(user, "A xenolith lay on the shelf.", "xenolith")
    result["found_by_meaning"] = measure_delay(
        user, "The blimp drifted over the cathedral.", "zeppelin basilica"
    )
    print(f"so far: {json.dumps(result)}", flush=True)
    server.stop()
    server.start(timeout=120)
    time.sleep(8)
    snapshot_timings: dict[str, float] = {}
    cpu_before = cpu_ms(server)
    user = measure_unlock(server, snapshot_timings)
    snapshot_timings["cpu_s"] = round((cpu_ms(server) - cpu_before) / 1000, 2)
    result["with_snapshot"] = snapshot_timings
    server.stop()
    with sqlite3.connect(server.data / "llamora.sqlite3") as raw:
        raw.execute("DELETE FROM search_snapshots")
    raw.close()
    server.start(timeout=120)
    time.sleep(8)
    user = HttpUser(server.url, passphrase=PASSPHRASE)
    user.sign_in()
    write_durations: list[float] = []
    for number in range(20):
        started = time.perf_counter()
        user.write(f"Written while the index is built, {number}.")
        write_durations.append(1000 * (time.perf_counter() - started))
    result["write_while_indexing"] = {
        "p50": round(quantiles(write_durations, n=20)[9], 1),
        "max": round(max(write_durations), 1),
    }
    server.stop()
    return result


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.search_scale", description=(__doc__ or "").partition("\n")[0]
    )
    default_data = Path(os.environ.get("LLAMORA_EVAL_DATA", "../shared/data")) / "pepys"
    parser.add_argument(
        "--data", type=Path, default=default_data, help="the folder with Pepys' diary"
    )
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors", choices=["real", "synthetic"], default="real")
    options = parser.parse_args()
    entries = make_journal(options.data, options.entries)
    with tempfile.TemporaryDirectory(prefix="llamora-bench-") as name:
        folder = Path(name)
        server = Server(
            folder, load_settings().data.cache, mode="prod", env={"LLAMORA_LLM__ENABLED": "false"}
        )
        asyncio.run(seed(server, entries, options.vectors == "synthetic"))
        print(f"{len(entries)} entries written; vectors are {options.vectors}")
        try:
            result = measure(server, entries, options.queries)
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
    print(json.dumps(result | {"vectors": options.vectors}))


if __name__ == "__main__":
    main()
