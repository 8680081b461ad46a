"""How late the event loop is while pages are rendered: `python -m scripts.bench.loop`, one JSON object.

In one process: a user asks at once for four pages of 200 short entries and one text of 20,000 words, none of them
rendered before; a second user saves an entry every 20 ms meanwhile. A ticker on the loop tells how late it comes.
Times are in milliseconds.
"""

import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from quart.typing import TestClientProtocol

from llamora.app import create_app
from llamora.persistence.entries import Entry
from llamora.settings import load_settings
from llamora.vault.keys import Keyring

PASSPHRASE = "a bench is for sitting and measuring"
FIRST = date(2026, 3, 1)
PAGES, ENTRIES, WORDS, LONG_WORDS = 4, 200, 100, 20_000


def make_text(rng: random.Random, words: int) -> str:
    """Return prose with the Markdown that people write."""
    parts = [f"word{rng.randrange(5000)}" for _ in range(words)]
    for position in range(0, words, 25):
        parts[position] = f"**{parts[position]}**"
    return " ".join(
        part + (".\n\n" if number % 60 == 59 else "") for number, part in enumerate(parts)
    )


async def sign_up(client: TestClientProtocol, name: str) -> str:
    """Register a user; returns the token of their forms."""
    token = ""

    async def send(path: str, form: dict[str, str]) -> None:
        await client.post(path, form={"csrf": token, **form})

    await client.get("/register")
    token = cookie(client, "llamora_csrf")
    await send("/register", {"name": name, "passphrase": PASSPHRASE, "zone": "UTC"})
    await client.get("/d/today")
    return cookie(client, "llamora_csrf")


def cookie(client: TestClientProtocol, name: str) -> str:
    """Return what a cookie of the client holds."""
    assert client.cookie_jar is not None
    return next((each.value or "" for each in client.cookie_jar if each.name == name), "")


async def measure(folder: Path) -> dict[str, object]:
    """Return the figures, in milliseconds."""
    settings = load_settings(
        overrides={
            "data": {"folder": str(folder)},
            "crypto": {"kdf_target_ms": 0},
            "embedding": {"enabled": False},
            "llm": {"enabled": False},
        }
    )
    app = create_app(settings)
    async with app.test_app():
        reader, saver = app.test_client(), app.test_client()
        await sign_up(reader, "Reader")
        token = await sign_up(saver, "Saver")
        services = app.extensions["llamora"]
        keys = next(keys for keys in services.sessions.open_keyrings())
        days = await fill(services, keys)
        lateness: list[float] = []
        saves: list[float] = []
        saved = asyncio.Event()
        tasks = [
            asyncio.create_task(tick(lateness)),
            asyncio.create_task(save(saver, token, saves, saved)),
        ]
        await asyncio.sleep(1)
        lateness.clear()
        saves.clear()
        saved.clear()
        began = time.perf_counter()
        for answer in await asyncio.gather(*(reader.get(f"/d/{day}") for day in days)):
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


async def fill(services: object, keys: Keyring) -> list[date]:
    """Write the entries of the first user; returns their days."""
    rng = random.Random(1660)
    days = [FIRST + timedelta(days=number) for number in range(PAGES + 1)]
    for day in days:
        texts = (
            [make_text(rng, WORDS) for _ in range(ENTRIES)]
            if day != days[-1]
            else [make_text(rng, LONG_WORDS)]
        )
        at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        await services.db.entries.add(  # type: ignore[attr-defined]
            keys, *(Entry(rng.randbytes(16), day, "me", text, at, "UTC") for text in texts)
        )
    return days


async def measure_day_page(folder: Path, views: int = 200) -> dict[str, object]:
    """Return the CPU milliseconds of a page of 16 entries: HTML of entries not cached, and cached.

    They are medians of the CPU time of the whole process, threads included, through the test client.
    """
    app = create_app(
        load_settings(
            overrides={
                "data": {"folder": str(folder)},
                "crypto": {"kdf_target_ms": 0},
                "embedding": {"enabled": False},
            }
        )
    )
    async with app.test_app():
        client = app.test_client()
        await sign_up(client, "Reader")
        services, renderer = app.extensions["llamora"], app.extensions["llamora.renderer"]
        keys = next(keys for keys in services.sessions.open_keyrings())
        rng = random.Random(1660)
        at = datetime(FIRST.year, FIRST.month, FIRST.day, 9, tzinfo=UTC)
        texts = [make_text(rng, 60) for _ in range(16)]
        await services.db.entries.add(
            keys, *(Entry(rng.randbytes(16), FIRST, "me", text, at, "UTC") for text in texts)
        )
        times: dict[str, list[float]] = {"cold": [], "warm": []}
        for number in range(2 * views + 20):
            kind = "cold" if number % 2 else "warm"
            if kind == "cold":
                renderer.lock(keys.user_id)
            began = time.process_time()
            answer = await client.get(f"/d/{FIRST}")
            if number >= 20:
                times[kind].append(1000 * (time.process_time() - began))
            assert answer.status_code == 200
    return {
        f"day_page_16_{kind}_cpu_ms": round(statistics.median(each), 2)
        for kind, each in times.items()
    }


async def tick(lateness: list[float]) -> None:
    """Collect by how much the loop comes late to a sleep of 2 ms."""
    while True:
        due = time.perf_counter() + 0.002
        await asyncio.sleep(0.002)
        lateness.append(1000 * (time.perf_counter() - due))


async def save(
    client: TestClientProtocol, token: str, times: list[float], saved: asyncio.Event
) -> None:
    """Save an entry every 20 ms."""
    while True:
        began = time.perf_counter()
        form = {"csrf": token, "text": "A short line."}
        answer = await client.post(
            "/d/2026-06-01/entries", form=form, headers={"HX-Request": "true"}
        )
        assert answer.status_code == 200, answer.status_code
        times.append(1000 * (time.perf_counter() - began))
        saved.set()
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        late = asyncio.run(measure(Path(name, "late")))
        print(json.dumps(late | asyncio.run(measure_day_page(Path(name, "cpu")))))
