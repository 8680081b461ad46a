"""How late the event loop is while pages are rendered: `python -m scripts.bench.loop`, one JSON object.

In one process: a user asks at once for four pages of 200 short entries and one text of 20,000 words, none of them
rendered before; a second user saves an entry every 20 ms meanwhile. A ticker on the loop tells how late it comes.
Then the CPU time of a day page of 16 entries is taken. Times are in milliseconds.
"""

import asyncio
import contextlib
import random
import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path

from quart.typing import TestClientProtocol

from llamora.app import create_app
from llamora.services import AppServices
from scripts.bench import harness
from scripts.command import run

PAGES, WORDS, LONG_WORDS = 4, 100, 20_000


def _make_text(rng: random.Random, words: int) -> str:
    """Prose with the Markdown that people write."""
    parts = [f"word{rng.randrange(5000)}" for _ in range(words)]
    for position in range(0, words, 25):
        parts[position] = f"**{parts[position]}**"
    return " ".join(
        part + (".\n\n" if number % 60 == 59 else "") for number, part in enumerate(parts)
    )


def _cookie(client: TestClientProtocol, name: str) -> str:
    assert client.cookie_jar is not None
    return next((each.value or "" for each in client.cookie_jar if each.name == name), "")


async def _sign_up(client: TestClientProtocol, name: str) -> str:
    """Register a user; returns the token of their forms."""
    await client.get("/register")
    form = {"csrf": _cookie(client, "llamora_csrf"), "name": name, "passphrase": harness.PASSPHRASE}
    await client.post("/register", form={**form, "zone": "UTC"})
    await client.get("/d/today")
    return _cookie(client, "llamora_csrf")


async def _fill(services: AppServices, entries: int) -> list[str]:
    """Write the entries of the first user; returns the paths of their days."""
    rng = random.Random(harness.SEED)
    keys = next(iter(services.sessions.open_keyrings()))
    days = [harness.DAY + timedelta(days=number) for number in range(PAGES + 1)]
    for day in days:
        sizes = [WORDS] * entries if day != days[-1] else [LONG_WORDS]
        await harness.add_entries(
            services, keys, [harness.entry_on(day, _make_text(rng, size)) for size in sizes]
        )
    return [f"/d/{day}" for day in days]


async def _tick(lateness: list[float]) -> None:
    """Collect by how much the loop comes late to a sleep of 2 ms."""
    while True:
        due = time.perf_counter() + 0.002
        await asyncio.sleep(0.002)
        lateness.append(1000 * (time.perf_counter() - due))


async def _save(
    client: TestClientProtocol, token: str, times: list[float], saved: asyncio.Event
) -> None:
    """Save an entry every 20 ms."""
    while True:
        began = time.perf_counter()
        answer = await client.post(
            f"/d/{harness.BUSY_DAY}/entries",
            form={"csrf": token, "text": "A short line."},
            headers={"HX-Request": "true"},
        )
        assert answer.status_code == 200, answer.status_code
        times.append(1000 * (time.perf_counter() - began))
        saved.set()
        await asyncio.sleep(0.02)


async def measure(folder: Path, entries: int) -> dict[str, object]:
    """Return the figures of pages with so many entries."""
    app = create_app(harness.make_settings(folder, embedding={"enabled": False}))
    lateness, saves, saved = list[float](), list[float](), asyncio.Event()
    async with app.test_app():
        reader, saver = app.test_client(), app.test_client()
        await _sign_up(reader, "Reader")
        token = await _sign_up(saver, "Saver")
        paths = await _fill(app.extensions["llamora"], entries)
        tasks = [
            asyncio.create_task(_tick(lateness)),
            asyncio.create_task(_save(saver, token, saves, saved)),
        ]
        await asyncio.sleep(1)
        lateness.clear()
        saves.clear()
        saved.clear()
        began = time.perf_counter()
        for answer in await asyncio.gather(*map(reader.get, paths)):
            assert answer.status_code == 200
        seconds = time.perf_counter() - began
        await saved.wait()  # one that may have been held up for as long as the pages took
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return {
        "loop_late_max_ms": round(max(lateness), 1),
        "save_median_ms": round(statistics.median(saves), 1),
        "save_p95_ms": round(sorted(saves)[int(0.95 * (len(saves) - 1) + 0.5)], 1),
        "save_max_ms": round(max(saves), 1),
        "saves": len(saves),
        "pages_seconds": round(seconds, 2),
    }


async def measure_day_page(folder: Path, views: int = 200) -> dict[str, object]:
    """Return the CPU milliseconds of a page of 16 entries: HTML of entries not cached, and cached.

    They are medians of the CPU time of the whole process, threads included, through the test client.
    """
    app = create_app(harness.make_settings(folder, embedding={"enabled": False}))
    async with app.test_app():
        client = app.test_client()
        await _sign_up(client, "Reader")
        services, renderer = app.extensions["llamora"], app.extensions["llamora.renderer"]
        keys = next(iter(services.sessions.open_keyrings()))
        rng = random.Random(harness.SEED)
        texts = [_make_text(rng, 60) for _ in range(16)]
        entries = [harness.entry_on(harness.DAY, text) for text in texts]
        await harness.add_entries(services, keys, entries)
        times: dict[str, list[float]] = {"cold": [], "warm": []}
        for number in range(2 * views + 20):
            kind = "cold" if number % 2 else "warm"
            if kind == "cold":
                renderer.lock(keys.user_id)
            began = time.process_time()
            answer = await client.get(f"/d/{harness.DAY}")
            if number >= 20:
                times[kind].append(1000 * (time.process_time() - began))
            assert answer.status_code == 200
    return {
        f"day_page_16_{kind}_cpu_ms": round(statistics.median(each), 2)
        for kind, each in times.items()
    }


async def measure_both(folder: Path, entries: int) -> dict[str, object]:
    """Return the figures of many entries at once, and of a day page by itself."""
    late = await measure(folder / "late", entries)
    return late | await measure_day_page(folder / "cpu")


if __name__ == "__main__":
    sys.exit(run(measure_both, entries=200))
