"""How long a writer waits: `uv run python -m scripts.bench.latency`, one JSON object on the last line.

Everything goes through the door a person uses: a `llamora-server prod` of its own, HTTP on loopback, a real
SQLite file with `synchronous=FULL`, the packaged embedding model, a scripted model server with known delays.
Times are in milliseconds, medians after a warm-up; `over` figures have the cost that no program avoids (the
KDF, the fsync, the model's own delay), measured in the same run, taken off. Goals and the reference's figures
are those of the project's issue; the reference was measured at its production setting on such a machine.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from llamora.persistence.entries import Entry
from llamora.services import AppLifecycle, AppServices
from llamora.settings import load_settings
from llamora.vault.kdf import Argon2Params, kdf_milliseconds
from tests.scripted_model import RecordedRequest, Reply, ScriptedModel
from tests.server_process import HttpUser, Server

PASSPHRASE = "a bench is for sitting and measuring"
MODEL_DELAY = 0.1
PIECES = tuple(f"word{number} " for number in range(40))
SEED = 1660
DAY = date(2026, 3, 14)

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


class TimestampedChunks(list[str]):
    """The pieces of a reply with the moment each was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_at: list[float] = []

    def append(self, piece: str, /) -> None:
        """Add a piece, now."""
        self.sent_at.append(time.monotonic())
        super().append(piece)


class TimedModel(ScriptedModel):
    """A scripted model that notes when it sent what."""

    async def _respond_to_chat(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        request.sent = TimestampedChunks()
        return await super()._respond_to_chat(request, reader, writer)


def print_progress(text: str) -> None:
    """Progress, away from the JSON."""
    sys.stderr.write(text + "\n")


def median_ms(seconds: list[float]) -> float:
    """The median of some seconds, in milliseconds."""
    return round(statistics.median(seconds) * 1000, 2)


async def timed(work: Callable[[], Awaitable[object]], runs: int, warm: int = 5) -> float:
    """Median milliseconds of `runs` calls after `warm` ones that do not count."""
    durations: list[float] = []
    for number in range(runs + warm):
        start = time.perf_counter()
        await work()
        if number >= warm:
            durations.append(time.perf_counter() - start)
    return median_ms(durations)


def sentences(count: int) -> list[str]:
    """Plain English of about eighty tokens each, the same in every run."""
    rng = random.Random(SEED)
    words = (Path(__file__).parent / "words.txt").read_text().split()
    return [" ".join(rng.choice(words) for _ in range(60)).capitalize() + "." for _ in range(count)]


async def seed(server: Server, entries: int, *, vectors: bool = True) -> None:
    """A writer with a journal, its index and snapshot, made through the service API before the server starts."""
    settings = load_settings(
        overrides={
            "data": {"folder": str(server.data), "cache": str(server.cache)},
            "crypto": {"kdf_target_ms": 0},
            "llm": {"enabled": False},
            "embedding": {"enabled": vectors},
        }
    )
    services = AppServices.create(settings)
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    user, keys, _ = await services.accounts.register("Bench", PASSPHRASE, "UTC")
    await services.sessions.open_session(
        user, keys
    )  # what nobody is signed in for is locked after a while
    texts = sentences(entries)
    first = DAY - timedelta(entries // 4)
    entries_made: list[Entry] = []
    rng = random.Random(SEED)
    for number, text in enumerate(texts):
        day = first + timedelta(number // 4)
        at = datetime(day.year, day.month, day.day, 6 + number % 4 * 3, tzinfo=UTC)
        entries_made.append(Entry(rng.randbytes(16), day, "me", text, at, "UTC"))
    busy_day = datetime(2026, 6, 1, 8, tzinfo=UTC)
    entries_made += [
        replace(
            entry,
            id=rng.randbytes(16),
            day=busy_day.date(),
            at=busy_day + timedelta(minutes=30 * number),
        )
        for number, entry in enumerate(entries_made[:16])
    ]
    for start in range(0, len(entries_made), 500):
        await services.db.entries.add(keys, *entries_made[start : start + 500])
    print_progress(f"seeded {len(entries_made)} entries")
    await services.search.unlock(keys)
    if not vectors:
        await services.search.wait_until_idle(keys.user_id)
        assert await services.search.save_snapshot(keys.user_id)
        await lifecycle.stop()
        return
    await services.embedder.warm_up()
    start = time.perf_counter()
    await services.search.wait_until_idle(
        keys.user_id
    )  # a search beside embedding is another figure
    assert len(await services.db.vectors.revisions(keys.user_id)) == len(entries_made)
    print_progress(
        f"vectors: {(time.perf_counter() - start) / len(entries_made) * 1000:.1f} ms an entry, in bulk"
    )
    await lifecycle.stop()


def rss_mb(server: Server) -> float:
    """Resident memory of the server's own process."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


async def cold_starts(folder: Path, cache: Path, runs: int) -> tuple[float, float]:
    """Median milliseconds from nothing to the first 200, and the memory right after, without embedding."""
    durations: list[float] = []
    memory: list[float] = []
    for number in range(runs):
        server = Server(
            folder / f"cold{number}",
            cache,
            mode="prod",
            env={"LLAMORA_EMBEDDING__ENABLED": "false", **NO_MODEL},
        )
        start = time.perf_counter()
        server.start()
        durations.append(time.perf_counter() - start)
        await asyncio.sleep(1)
        memory.append(rss_mb(server))
        server.stop()
    return median_ms(durations), statistics.median(memory)


NO_MODEL = {"LLAMORA_LLM__EMBEDDED": "false"}


def fsync_ms(folder: Path, runs: int) -> float:
    """What one durable insert costs SQLite itself here, without any of us around it."""
    path = folder / "plain.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (b BLOB)")
    durations: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?)", (bytes(900),))
        durations.append(time.perf_counter() - start)
    connection.close()
    return median_ms(durations)


async def measure_replies(
    client: httpx.AsyncClient, model: TimedModel, token: str, runs: int
) -> tuple[float, float]:
    """(send to first word beyond the model's own delay, model's send to our reader's receipt), in ms."""
    over_model: list[float] = []
    relayed: list[float] = []
    for number in range(runs + 2):
        response = await client.post(
            "/d/2026-07-01/entries", data={"csrf": token, "text": f"What about this {number}?"}
        )
        entry = response.text.split('id="e-')[1][:32]
        start = time.monotonic()
        reply_response = await client.post(f"/e/{entry}/replies", data={"csrf": token})
        reply = reply_response.text.split("/r/")[1][:32]
        first = 0.0
        async with client.stream("GET", f"/r/{reply}/events") as stream:
            async for line in stream.aiter_lines():
                if "word0" in line and not first:
                    first = time.monotonic()
        if number >= 2:
            sent = model.chat_requests[-1].sent
            assert isinstance(sent, TimestampedChunks)
            over_model.append(first - start - MODEL_DELAY)
            relayed.append(first - sent.sent_at[0])
    return median_ms(over_model), median_ms(relayed)


def first_page(url: str) -> tuple[int, float] | None:
    """(requests, kB over the wire) of the first page in a fresh Chromium, or None where there is none."""
    try:
        from playwright.sync_api import sync_playwright

        from scripts.browser import find_browser
    except ImportError:
        return None
    path = find_browser()
    if path is None:
        return None
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
    return len(sizes), round(sum(sizes.values()) / 1000, 1)


async def measure_indexing(folder: Path, cache: Path, runs: int) -> float:
    """Milliseconds to index one entry of about eighty tokens, words and meaning, one after another."""
    settings = load_settings(
        overrides={
            "data": {"folder": str(folder / "index"), "cache": str(cache)},
            "crypto": {"kdf_target_ms": 0},
            "llm": {"enabled": False},
        }
    )
    services = AppServices.create(settings)
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    await services.embedder.warm_up()
    _, keys, _ = await services.accounts.register("Bench", PASSPHRASE, "UTC")
    await services.search.unlock(keys)
    await services.search.wait_until_idle(keys.user_id)
    durations: list[float] = []
    for number, text in enumerate(sentences(runs + 5)):
        entry = await services.journal.write(keys, DAY, text, "UTC")
        start = time.perf_counter()
        await services.search.wait_until_idle(keys.user_id)
        if number >= 5:
            durations.append(time.perf_counter() - start)
        assert entry.id
    await lifecycle.stop()
    return median_ms(durations)


async def measure(entries: int, runs: int) -> dict[str, Any]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cache = folder / "cache"
        figures: dict[str, Any] = {}
        server = Server(folder / "main", cache, mode="prod")
        server.folder.mkdir()
        await seed(server, entries)
        print_progress("cold starts")
        figures["cold_start_ms"], figures["rss_mb_without_embedding"] = await cold_starts(
            folder, cache, 5
        )
        async with TimedModel() as model:
            model.default_reply = Reply(pieces=PIECES, header_delay=MODEL_DELAY, piece_delay=0.02)
            server.env = {"LLAMORA_LLM__UPSTREAM__HOST": model.url}
            await asyncio.to_thread(server.start)
            try:
                figures |= await through_http(server, model, folder, runs)
            finally:
                await asyncio.to_thread(server.stop)
        print_progress("index one entry")
        figures["index_one_entry_ms"] = await measure_indexing(folder, cache, 60)
    return figures


async def through_http(
    server: Server, model: TimedModel, folder: Path, runs: int
) -> dict[str, Any]:
    """What is measured on a running server."""
    figures: dict[str, Any] = {}
    print_progress("sign-in")
    params = Argon2Params(65_536, 3, 4)
    kdf: list[float] = []
    sign_in_durations: list[float] = []
    user = HttpUser(server.url, "Bench", PASSPHRASE)
    for _ in range(12):
        # Each sign-in finds the journal locked, its index gone, as on a morning.
        user.post("/sign-out", {})
        user.http.cookies.clear()
        await asyncio.sleep(0.5)
        kdf.append(await asyncio.to_thread(kdf_milliseconds, params))
        user.get("/sign-in")
        start = time.perf_counter()
        response = await asyncio.to_thread(
            user.post, "/sign-in", {"name": "Bench", "passphrase": PASSPHRASE}
        )
        sign_in_durations.append(time.perf_counter() - start)
        assert response.status_code == 303
    figures["sign_in_ms"] = median_ms(sign_in_durations)
    figures["kdf_ms"] = round(statistics.median(kdf), 2)
    figures["sign_in_over_kdf_ms"] = round(figures["sign_in_ms"] - figures["kdf_ms"], 2)
    cookies = user.http.cookies
    token = cookies.get("llamora_csrf") or ""
    headers = {"HX-Request": "true"}
    async with httpx.AsyncClient(
        base_url=server.url, cookies=cookies, headers=headers, trust_env=False, timeout=60
    ) as client:
        await asyncio.sleep(12)  # the index of the sign-in is built and the machine is quiet again
        results_page = await client.post("/search", data={"csrf": token, "q": "river"})
        assert 'class="hit"' in results_page.text
        figures["rss_mb_with_embedding"] = rss_mb(server)
        print_progress("pages, writes, searches")

        async def fetch() -> None:
            (await client.get("/d/2026-06-01")).raise_for_status()

        async def healthz() -> None:
            await client.get("/healthz")

        figures["healthz_ms"] = await timed(healthz, runs)
        figures["day_page_16_ms"] = await timed(fetch, runs)
        counter = iter(range(1_000_000))

        async def write() -> None:
            data = {
                "csrf": token,
                "text": f"A line to keep, number {next(counter)}, of an ordinary length.",
            }
            (
                await client.post(f"/d/{DAY + timedelta(next(counter))}/entries", data=data)
            ).raise_for_status()

        figures["fsync_ms"] = fsync_ms(folder, runs)
        figures["write_ms"] = await timed(write, runs)
        figures["write_over_fsync_ms"] = round(figures["write_ms"] - figures["fsync_ms"], 2)
        await asyncio.sleep(6)
        words = (Path(__file__).parent / "words.txt").read_text().split()
        rng = random.Random(SEED + 1)

        async def search() -> None:
            kind = rng.randrange(4)
            if kind < 2:
                query = "what did I think about the " + " ".join(rng.sample(words, 3))
            elif kind == 2:
                query = rng.choice(words)
            else:
                query = '"' + " ".join(rng.sample(words, 2)) + '"'
            (await client.post("/search", data={"csrf": token, "q": query})).raise_for_status()

        figures["search_5000_ms"] = await timed(search, runs)
        print_progress("replies")
        over, relayed = await measure_replies(client, model, token, 15)
        figures["first_token_over_model_ms"], figures["relay_ms"] = over, relayed
    page_weight = await asyncio.to_thread(first_page, server.url)
    if page_weight is not None:
        figures["first_page_requests"], figures["first_page_kb"] = page_weight
    return figures


def main() -> int:
    """Measure, print what was found beside the goals, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--entries", type=int, default=5000, help="entries of the journal that is searched"
    )
    parser.add_argument("--runs", type=int, default=100, help="counted runs of each request")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.entries, options.runs))
    rows = {
        name: {"measured": figures.get(name, "not measured"), "goal": goal, "reference": reference}
        for name, (reference, goal) in GOALS.items()
    }
    for name, row in rows.items():
        print_progress(
            f"{name:28} {row['measured']!s:>12}   goal {row['goal']!s:>8}   reference {row['reference']}"
        )
    print(json.dumps({"figures": figures, "against": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
