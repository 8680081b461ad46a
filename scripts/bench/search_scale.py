"""Measure search as a journal grows: `uv run python -m scripts.bench.search_scale --entries 10000`.

A journal of Pepys' days (`--data`, the folder with his diary) and, beyond them, entries of his sentences recombined,
spread over the years before; a `llamora-server prod` of its own; everything asked through HTTP. Half of the queries
are natural questions (a few words of a sentence, asked for in another order), a quarter single words, a quarter
six-word phrases. `--vectors synthetic` stores random unit vectors for all but the newest REAL entries, since to embed
100,000 takes a quarter of an hour: then speed and memory are those of real ones, and what is found by meaning is not.
The last line printed is one JSON object; times are milliseconds unless named otherwise.
"""

import asyncio
import html
import json
import random
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from llamora.persistence.entries import Entry
from llamora.persistence.vectors import EntryVectors
from llamora.search.chunks import CHUNKING_VERSION, chunk_text
from llamora.search.packaged_model import PACKAGED_DIM, PACKAGED_MODEL
from llamora.text import STOP_WORDS, strip_markdown
from scripts.bench import harness
from scripts.command import run
from scripts.processes import cpu_seconds, load_average, memory_mb
from tests.server_process import HttpUser, Server

Days = list[tuple[date, str]]

REAL_VECTORS = 64  # entries whose vectors are real when the others' are not
WORDS = 50  # of a recombined entry at least, some 65 on average
SENTENCE = re.compile(r"(?<=[.!?])\s+")
OLDEST = "quinquereme"  # a word of the oldest entry alone
QUERY_KINDS = ("question", "question", "word", "phrase")
INCOMPLETE_INDEX_TEXT = "Older pages are still being read"


def read_pepys(folder: Path) -> Days:
    """Return his days, oldest first, without notes."""
    days: Days = []
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


def make_journal(folder: Path, count: int) -> Days:
    """Make `count` entries, oldest first, the last on the day before yesterday."""
    rng = random.Random(harness.SEED)
    diary = read_pepys(folder)
    sentences = [each for _, text in diary for each in SENTENCE.split(text)]
    sentences = [each for each in sentences if len(each.split()) > 4]
    texts = [text for _, text in diary][-count:]
    while len(texts) < count:
        parts: list[str] = []
        while len(" ".join(parts).split()) < WORDS:
            parts.append(rng.choice(sentences))
        texts.insert(0, " ".join(parts))
    texts[0] += f" And saw a {OLDEST}."
    last_day = date.today() - timedelta(days=2)  # noqa: DTZ011 -- the day on this machine
    span = min(25_000, count)
    ages = [(count - 1 - place) * span // count for place in range(count)]
    days = [last_day - timedelta(days=age) for age in ages]
    return list(zip(days, texts, strict=True))


def make_queries(entries: Days, count: int) -> list[str]:
    """Make half questions, a quarter words, a quarter phrases."""
    rng = random.Random(harness.SEED)
    queries: list[str] = []
    while len(queries) < count:
        sentence = rng.choice(SENTENCE.split(rng.choice(entries)[1]))
        words = re.findall(r"[A-Za-z']+", sentence)
        content = [word for word in words if word.lower() not in STOP_WORDS and len(word) > 3]
        if len(words) < 8 or len(content) < 4:
            continue
        kind = QUERY_KINDS[len(queries) % 4]
        if kind == "question":
            a, b, c, d = rng.sample(content, 4)
            queries.append(f"When did I have {a.lower()} and {b.lower()} with {c} at {d}?")
        elif kind == "word":
            queries.append(rng.choice(content).lower())
        else:
            start = rng.randrange(len(words) - 6)
            queries.append('"' + " ".join(words[start : start + 6]) + '"')
    return queries


def _random_vectors(entries: list[Entry]) -> list[EntryVectors]:
    """Unit vectors for all but the newest few."""
    rng = np.random.default_rng(harness.SEED)
    vectors: list[EntryVectors] = []
    for entry in entries[:-REAL_VECTORS]:
        chunk_count = len(chunk_text(strip_markdown(entry.text)))
        rows = rng.normal(size=(chunk_count, PACKAGED_DIM)).astype("<f4")
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        name = f"{PACKAGED_MODEL}/{CHUNKING_VERSION}"
        vectors.append(EntryVectors(entry.id, 1, name, PACKAGED_DIM, rows.tobytes()))
    return vectors


async def _seed(server: Server, days: Days, synthetic: bool) -> None:
    settings = harness.make_settings(server.data, server.cache, embedding={"enabled": False})
    entries = [harness.entry_on(day, text) for day, text in days]
    async with harness.started_services(settings) as services:
        keys = await harness.register(services)
        await harness.add_entries(services, keys, entries)
        vectors = _random_vectors(entries) if synthetic else []
        for start in range(0, len(vectors), 500):
            await services.db.vectors.save(keys, vectors[start : start + 500])


def _search(user: HttpUser, query: str) -> str:
    """The results as HTMX gets them."""
    response = user.post("/search", {"q": query}, fragment=True)
    assert response.status_code == 200, response.status_code
    return response.text


def _time_unlock(server: Server, user: HttpUser) -> dict[str, float]:
    """Sign in, and measure until the oldest entry is found and until everything is read."""
    timings: dict[str, float] = {}
    cpu_before = cpu_seconds(server)
    user.sign_in()
    started_at = time.perf_counter()
    while "complete_s" not in timings:
        page = _search(user, OLDEST)
        if f"<mark>{OLDEST}</mark>" in page:
            timings.setdefault("oldest_word_s", round(time.perf_counter() - started_at, 3))
        if "first_result_s" not in timings and 'class="hit"' in _search(user, "my wife"):
            timings["first_result_s"] = round(time.perf_counter() - started_at, 3)
        if "oldest_word_s" in timings and INCOMPLETE_INDEX_TEXT not in page:
            timings["complete_s"] = round(time.perf_counter() - started_at, 3)
        time.sleep(0.01)
    return timings | {"cpu_s": round(cpu_seconds(server) - cpu_before, 2)}


def _delay_ms(user: HttpUser, text: str, query: str) -> float:
    """From the answer to a write until a search finds it."""
    entry, timer = user.write(text), harness.Timer()
    with timer.lap():
        deadline = time.perf_counter() + 60
        while f"e-{entry}" not in _search(user, query):
            time.sleep(0.005)
            assert time.perf_counter() < deadline
    return timer.median_ms


def _number(server: Server, sql: str) -> int:
    """One number out of the server's file."""
    address = f"file:{server.data / 'llamora.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        return int(connection.execute(sql).fetchone()[0] or 0)


def _wait_for(server: Server, sql: str, minimum: int, seconds: float) -> float:
    """Seconds until the store says at least so many; nan when it never did."""
    started_at = time.perf_counter()
    while _number(server, sql) < minimum:
        if time.perf_counter() - started_at > seconds:
            return float("nan")
        time.sleep(0.5)
    return round(time.perf_counter() - started_at, 1)


def _ask(server: Server, user: HttpUser, entries: Days, count: int) -> dict[str, object]:
    for query in make_queries(entries[:1000], 12):
        _search(user, query)
    timers = {kind: harness.Timer() for kind in QUERY_KINDS}
    cpu_before = cpu_seconds(server)
    for number, query in enumerate(make_queries(entries, count)):
        with timers[QUERY_KINDS[number % 4]].lap():
            _search(user, query)
    everything = harness.Timer(
        seconds=[each for timer in timers.values() for each in timer.seconds]
    )
    return {
        "cpu_ms_per_query": round(1000 * (cpu_seconds(server) - cpu_before) / count, 1),
        "load": load_average(),
        **everything.percentiles(),
        **{kind: timer.percentiles() for kind, timer in timers.items()},
    }


@contextmanager
def _warm(server: Server) -> Iterator[HttpUser]:
    """A server whose embedding model is up, and nobody signed in."""
    with harness.started(server, sign_in=False) as user:
        time.sleep(8)
        yield user


def _without_snapshot(server: Server, entries: Days, queries: int) -> dict[str, object]:
    result: dict[str, object] = {"entries": len(entries)}
    with _warm(server) as user:
        rss_before = memory_mb(server)
        result["without_snapshot"] = _time_unlock(server, user)
        result["file_mb"] = round((server.data / "llamora.sqlite3").stat().st_size / 1e6, 1)
        vectors = "SELECT count(*) FROM vectors"
        result["embedded_s"] = _wait_for(server, vectors, len(entries), 3600)
        snapshots = "SELECT count(*) FROM search_snapshots WHERE part=0"
        result["snapshot_after_s"] = _wait_for(server, snapshots, 1, 120)
        snapshot_size = _number(server, "SELECT sum(length(sealed)) FROM search_snapshots")
        result["snapshot_mb"] = round(snapshot_size / 1e6, 1)
        result["rss_mb_per_user"] = round(memory_mb(server) - rss_before, 1)
        result |= _ask(server, user, entries, queries)
        result["rss_mb_after_queries"] = round(memory_mb(server) - rss_before, 1)
        result["found_by_word"] = _delay_ms(user, "A xenolith lay on the shelf.", "xenolith")
        text, query = "The blimp drifted over the cathedral.", "zeppelin basilica"
        result["found_by_meaning"] = _delay_ms(user, text, query)
    print(f"so far: {json.dumps(result)}", flush=True)
    return result


def _write_while_indexing(server: Server) -> dict[str, float]:
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM search_snapshots")
    timer = harness.Timer()
    with _warm(server) as user:
        user.sign_in()
        for number in range(20):
            with timer.lap():
                user.write(f"Written while the index is built, {number}.")
    return {"p50": timer.median_ms, "max": timer.quantiles()["most_ms"]}


def measure(
    folder: Path, data: Path, entries: int, queries: int, vectors: str
) -> dict[str, object]:
    """Return what is asked of a server over its journal."""
    journal = make_journal(data, entries)
    server = Server(folder, harness.shared_cache(), mode="prod", env=harness.WITHOUT_MODEL)
    asyncio.run(_seed(server, journal, vectors == "synthetic"))
    print(f"{len(journal)} entries written; vectors are {vectors}")
    result = _without_snapshot(server, journal, queries)
    with _warm(server) as user:
        result["with_snapshot"] = _time_unlock(server, user)
    result["write_while_indexing"] = _write_while_indexing(server)
    return result | {"vectors": vectors}


if __name__ == "__main__":
    vectors = {"choices": ["real", "synthetic"], "default": "real"}
    sys.exit(run(measure, data=harness.PEPYS, entries=10_000, queries=200, vectors=vectors))
