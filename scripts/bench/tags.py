"""Measure tags as a journal grows: `uv run python -m scripts.bench.tags`.

A journal of short made-up entries over thirty years, two tags on each (a few are used often, most seldom, as
words are), a `llamora-server prod` of its own, everything through HTTP. The last line printed is one JSON object;
times are milliseconds, `p50` and `p95` of the requests after those that warm up, and `cpu`, what the server's processor
needed for each, which other work on the machine does not lengthen as much.
"""

import asyncio
import random
import re
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from itertools import count
from pathlib import Path

from llamora.persistence.entries import Entry
from llamora.persistence.tag_changes import TagDelta, tag_hash
from llamora.persistence.tag_operations import TagSnapshot
from llamora.services import AppServices
from llamora.vault.keys import Keyring
from scripts.bench import harness
from scripts.command import run
from scripts.processes import load_average
from tests.server_process import HttpUser, Server

YEARS = 30
WARM_UP = 5
INDEX_TIMEOUT = 120.0  # seconds in which the index has to be whole


def make_names(count: int) -> list[str]:
    """Return names made of syllables, each once."""
    rng = random.Random(harness.SEED)
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = range(rng.randint(2, 4))
        name = "".join(rng.choice("bdfgklmnprstvw") + rng.choice("aeiou") for _ in syllables)
        names[name] = None
    return list(names)


def _make_entries(
    entry_count: int, tag_names: list[str]
) -> tuple[list[Entry], dict[str, set[bytes]]]:
    """Entries, newest first, and which of them bear each tag."""
    rng, last_day = random.Random(harness.SEED), date.today() - timedelta(days=1)  # noqa: DTZ011 -- this machine's
    weights = [1 / (index + 10) for index in range(len(tag_names))]
    entries: list[Entry] = []
    bearers: dict[str, set[bytes]] = {name: set() for name in tag_names}
    for index in range(entry_count):
        text = " ".join(rng.choices(tag_names, k=12)).capitalize() + "."
        day = last_day - timedelta(days=index * 365 * YEARS // entry_count)
        entries.append(harness.entry_on(day, text))
        for name in rng.choices(tag_names, weights, k=2):
            bearers[name].add(entries[-1].id)
    return entries, bearers


async def _add_tags(services: AppServices, keys: Keyring, bearers: dict[str, set[bytes]]) -> None:
    hashes = {name: tag_hash(keys, name) for name in bearers}
    names = list(bearers)
    for start in range(0, len(names), 100):
        batch = names[start : start + 100]

        async def plan(_: TagSnapshot, batch: list[str] = batch) -> TagDelta:
            links = frozenset((hashes[name], entry) for name in batch for entry in bearers[name])
            return TagDelta({hashes[name]: name for name in batch if bearers[name]}, links)

        await services.db.tags.change(keys, plan, undoable=False)


async def _seed(server: Server, entry_count: int, tag_names: list[str]) -> None:
    settings = harness.make_settings(server.data, server.cache, embedding={"enabled": False})
    entries, bearers = _make_entries(entry_count, tag_names)
    async with harness.started_services(settings) as services:
        keys = await harness.register(services)
        await harness.add_entries(services, keys, entries)
        await _add_tags(services, keys, bearers)


def _wait_for_index(user: HttpUser) -> float:
    """Seconds until it is whole."""
    started_at = time.perf_counter()
    while "Older pages are still" in user.post("/search", {"q": "kanu"}, fragment=True).text:
        assert time.perf_counter() - started_at < INDEX_TIMEOUT
        time.sleep(0.2)
    return round(time.perf_counter() - started_at, 1)


def _requests(user: HttpUser, tag_names: list[str], runs: int) -> dict[str, object]:
    """What the journal holds, and what is asked of the server, by name."""
    page, rng, number = user.get("/traces").text, random.Random(harness.SEED), count()
    paths = re.findall(r'href="(/traces/[0-9a-f]+)">', page)
    uses = [int(count) for count in re.findall(r'<span class="used">(\d+)', page)]
    by_use = [path for _, path in sorted(zip(uses, paths, strict=True), reverse=True)]
    entry = user.write("A page to be labelled.")
    new_names = iter(rng.sample(tag_names, WARM_UP + runs))
    new_entries = iter([user.write(f"Page {n}.") for n in range(WARM_UP + runs)])

    def get(path: str, **headers: str) -> None:
        response = user.http.get(path, headers=headers)
        assert response.status_code == 200, response.status_code

    def add(entry: str, name: str) -> None:
        user.post(f"/e/{entry}/traces", {"name": name}, fragment=True)

    def some() -> str:
        return rng.choice(tag_names)

    fragment = {"HX-Request": "true"}
    work: dict[str, Callable[[], object]] = {
        "index_page": lambda: get("/traces"),
        "index_filtered": lambda: user.post("/traces", {"q": "ba"}, fragment=True),
        "one_trace": lambda: get(rng.choice(paths)),
        "most_used_trace": lambda: get(by_use[0]),
        "heatmap": lambda: get(f"{rng.choice(by_use[:200])}/years", **fragment),
        "popover": lambda: get(f"{rng.choice(paths)}/brief", **fragment),
        "adding": lambda: add(entry, next(new_names)),
        "adding_to_a_new_page": lambda: add(next(new_entries), some()),
        "writing_with_two": lambda: user.write(f"Entry {next(number)}, #{some()} and #{some()}."),
    }
    return {"traces": len(paths), "links": sum(uses), "most_used": max(uses), **work}


def _read_after_writing(user: HttpUser, tag_names: list[str], runs: int) -> dict[str, float]:
    timer, rng = harness.Timer(WARM_UP), random.Random(harness.SEED)
    for number in range(WARM_UP + runs):
        user.write(f"Entry {number}, #{rng.choice(tag_names)}.")
        with timer.lap():
            assert user.get("/traces").status_code == 200
    return timer.percentiles()


def measure(folder: Path, entries: int, traces: int, requests: int) -> dict[str, object]:
    """Return what is asked of a server over its journal."""
    tag_names = make_names(traces)
    env = harness.WITHOUT_MODEL | harness.WITHOUT_EMBEDDING
    server = Server(folder, harness.shared_cache(), mode="prod", env=env)
    asyncio.run(_seed(server, entries, tag_names))
    with harness.started(server) as user:
        result: dict[str, object] = {"index_whole_after_s": _wait_for_index(user)}
        for name, figure in _requests(user, tag_names, requests).items():
            is_work = callable(figure)
            result[name] = (
                harness.timed_on(server, figure, requests, WARM_UP) if is_work else figure
            )
        result["index_page_after_writing"] = _read_after_writing(user, tag_names, requests)
    return {"entries": entries, **result, "load": load_average()}


if __name__ == "__main__":
    sys.exit(run(measure, entries=100_000, traces=2_000, requests=40))
