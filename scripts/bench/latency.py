"""Measure how long a user waits: `uv run python -m scripts.bench.latency`, one JSON object on the last line.

Everything goes through the door a person uses: a `llamora-server prod` of its own, HTTP on loopback, a real
SQLite file with `synchronous=FULL`, the packaged embedding model, a scripted model server with known delays.
Times are in milliseconds, medians after a warm-up; `over` figures have the cost that no program avoids (the
KDF, the fsync, the model's own delay), measured in the same run, taken off. Goals and the reference's figures
are those of the project's issue; the reference was measured at its production setting on such a machine.
"""

import asyncio
import itertools
import random
import sqlite3
import statistics
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from scripts import processes
from scripts.bench import harness
from scripts.command import run
from tests.scripted_model import Reply
from tests.server_process import HttpUser, Server

MODEL_DELAY = 0.1
PIECES = tuple(f"word{number} " for number in range(40))

GOALS: dict[str, tuple[str, float | str]] = {
    "cold_start_ms": ("3400", 1500.0),
    "rss_mb_without_embedding": ("", 150.0),
    "rss_mb_with_embedding": ("288", 280.0),
    "sign_in_over_kdf_ms": ("540 with the KDF", 30.0),
    "day_page_16_ms": ("18.2", 8.0),
    "write_over_fsync_ms": ("7.1, not durable", 4.0),
    "search_5000_ms": ("76", 15.0),
    "index_one_entry_ms": ("15.8", 12.0),
    "first_token_over_model_ms": ("18 to 60", 20.0),
    "relay_ms": ("", 5.0),
    "first_page_requests": ("28", 12.0),
    "first_page_kb": ("747", 150.0),
}


def _cold_starts(folder: Path, cache: Path, runs: int) -> dict[str, float]:
    """From nothing to the first 200, and the memory right after."""
    timer, memory = harness.Timer(), list[float]()
    for number in range(runs):
        env = harness.WITHOUT_EMBEDDED_MODEL | harness.WITHOUT_EMBEDDING
        server = Server(folder / f"cold{number}", cache, mode="prod", env=env)
        with timer.lap():
            server.start()
        time.sleep(1)
        memory.append(processes.memory_mb(server))
        server.stop()
    return {"cold_start_ms": timer.median_ms, "rss_mb_without_embedding": statistics.median(memory)}


def _fsync_ms(folder: Path, runs: int) -> float:
    """What one durable insert costs SQLite itself here, without any of us around it."""
    with closing(sqlite3.connect(folder / "plain.sqlite3", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (b BLOB)")
        insert = "INSERT INTO t VALUES (?)"
        return harness.timed(lambda: connection.execute(insert, (bytes(900),)), runs, 0).median_ms


def _sign_ins(user: HttpUser) -> dict[str, float]:
    """Each finds the journal locked, its index gone, as on a morning."""
    rounds = [harness.time_sign_in(user, 0.5) for _ in range(12)]
    kdf, sign_in = (round(statistics.median(each), 2) for each in zip(*rounds, strict=True))
    return {"sign_in_ms": sign_in, "kdf_ms": kdf, "sign_in_over_kdf_ms": round(sign_in - kdf, 2)}


def _requests(user: HttpUser, folder: Path, runs: int) -> dict[str, float]:
    counter, rng = itertools.count(), random.Random(harness.SEED + 1)

    def write() -> None:
        text = f"A line to keep, number {next(counter)}, of an ordinary length."
        user.write(text, str(harness.DAY + timedelta(next(counter))))

    def search() -> None:
        query = (
            "what did I think about the " + " ".join(rng.sample(harness.COMMON_WORDS, 3)),
            "what did I think about the " + " ".join(rng.sample(harness.COMMON_WORDS, 3)),
            rng.choice(harness.COMMON_WORDS),
            '"' + " ".join(rng.sample(harness.COMMON_WORDS, 2)) + '"',
        )[rng.randrange(4)]
        user.post("/search", {"q": query}, fragment=True).raise_for_status()

    figures = {
        "healthz_ms": harness.timed(lambda: user.get("/healthz"), runs).median_ms,
        "day_page_16_ms": harness.timed(
            lambda: user.get(f"/d/{harness.BUSY_DAY}").raise_for_status(), runs
        ).median_ms,
        "fsync_ms": _fsync_ms(folder, runs),
        "write_ms": harness.timed(write, runs).median_ms,
    }
    figures["write_over_fsync_ms"] = round(figures["write_ms"] - figures["fsync_ms"], 2)
    time.sleep(6)
    return figures | {"search_5000_ms": harness.timed(search, runs).median_ms}


def _replies(user: HttpUser, model: harness.TimedModel, runs: int) -> dict[str, float]:
    """Send to first word beyond the model's own delay; model's send to our reader's receipt."""
    over_model, relayed = harness.Timer(warm_up=2), harness.Timer(warm_up=2)
    for number in range(runs + 2):
        entry = user.write(f"What about this {number}?", "2026-07-01")
        start = time.monotonic()
        first = harness.follow_reply(user, user.ask(entry))
        over_model.add(first - start - MODEL_DELAY)
        relayed.add(first - model.first_sent_at())
    return {"first_token_over_model_ms": over_model.median_ms, "relay_ms": relayed.median_ms}


def _first_page(url: str) -> dict[str, float]:
    """Requests and kB over the wire in a fresh Chromium; nothing where there is none."""
    try:
        from playwright.sync_api import sync_playwright

        from scripts.browser import find_browser
    except ImportError:
        return {}
    path = find_browser()
    if path is None:
        return {}
    sizes: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-quic"]
        )
        page = browser.new_page()
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on(
            "Network.loadingFinished",
            lambda e: sizes.update({e["requestId"]: e["encodedDataLength"]}),
        )
        page.goto(url + "/register", wait_until="networkidle")
        browser.close()
    return {
        "first_page_requests": len(sizes),
        "first_page_kb": round(sum(sizes.values()) / 1000, 1),
    }


async def _index_one_entry(folder: Path, cache: Path, runs: int) -> float:
    """Words and meaning of about eighty tokens, one entry after another."""
    timer = harness.Timer(warm_up=5)
    settings = harness.make_settings(folder / "index", cache, embedding={"enabled": True})
    async with harness.started_services(settings) as services:
        await services.embedder.warm_up()
        keys = await harness.register(services)
        await services.search.unlock(keys)
        await services.search.wait_until_idle(keys.user_id)
        for text in harness.make_texts(runs + 5):
            await services.journal.write(harness.context_of(keys), harness.DAY, text)
            with timer.lap():
                await services.search.wait_until_idle(keys.user_id)
    return timer.median_ms


def _through_http(
    server: Server, model: harness.TimedModel, folder: Path, runs: int
) -> dict[str, Any]:
    with harness.started(server) as user:
        harness.print_progress("sign-in")
        figures = _sign_ins(user)
        time.sleep(12)  # the index of the sign-in is built and the machine is quiet again
        assert 'class="hit"' in user.post("/search", {"q": "river"}, fragment=True).text
        figures["rss_mb_with_embedding"] = processes.memory_mb(server)
        harness.print_progress("pages, writes, searches")
        figures |= _requests(user, folder, runs)
        harness.print_progress("replies")
        return figures | _replies(user, model, 15) | _first_page(server.url)


def measure(folder: Path, entries: int, runs: int) -> dict[str, Any]:
    """Return all figures, and each beside its goal and the reference's."""
    cache = folder / "cache"
    server = Server(folder / "main", cache, mode="prod")
    harness.seed(server, entries)
    harness.print_progress("cold starts")
    figures: dict[str, Any] = _cold_starts(folder, cache, 5)
    with harness.timed_model() as model:
        model.default_reply = Reply(pieces=PIECES, header_delay=MODEL_DELAY, piece_delay=0.02)
        server.env = {"LLAMORA_LLM__UPSTREAM__HOST": model.url}
        figures |= _through_http(server, model, folder, runs)
    harness.print_progress("index one entry")
    figures["index_one_entry_ms"] = asyncio.run(_index_one_entry(folder, cache, 60))
    rows = {
        name: {"measured": figures.get(name, "not measured"), "goal": goal, "reference": reference}
        for name, (reference, goal) in GOALS.items()
    }
    for name, (reference, goal) in GOALS.items():
        measured = rows[name]["measured"]
        harness.print_progress(
            f"{name:28} {measured!s:>12}   goal {goal!s:>8}   reference {reference}"
        )
    return {"figures": figures, "against": rows}


if __name__ == "__main__":
    sys.exit(run(measure, entries=5000, runs=100))
