"""How traces hold up as a journal grows: `uv run python -m scripts.bench.tags`.

A journal of short made-up entries over thirty years, two traces on each (a few traces are used often, most seldom, as
words are), a `llamora-server prod` of its own, everything through HTTP. The last line printed is one JSON object;
times are milliseconds, `p50` and `p95` of the requests after those that warm up, and `cpu`, what the server's processor
needed for each, which other work on the machine does not lengthen as much.
"""

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import quantiles

from llamora.persistence.entries import Entry
from llamora.persistence.tag_changes import TagDelta, tag_hash
from llamora.persistence.tag_operations import TagSnapshot
from llamora.services import AppLifecycle, AppServices
from llamora.settings import load_settings
from tests.server_process import HttpUser, Server

PASSPHRASE = "correct horse battery staple 42"
SEED = 8
YEARS = 30
WARM_UP = 5
INDEX_TIMEOUT = 120.0  # seconds in which the index has to be whole


def make_names(count: int) -> list[str]:
    """Names made of syllables, each once."""
    rng = random.Random(SEED)
    tag_names: dict[str, None] = {}
    while len(tag_names) < count:
        tag_names[
            "".join(
                rng.choice("bdfgklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(2, 4))
            )
        ] = None
    return list(tag_names)


async def seed(server: Server, entries: int, tag_count: int) -> None:
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
    rng = random.Random(SEED)
    tag_names = make_names(tag_count)
    weights = [1 / (index + 10) for index in range(tag_count)]
    last_day = date.today() - timedelta(days=1)  # noqa: DTZ011 -- the day on this machine
    try:
        _, keys, _ = await services.accounts.register("Alice", PASSPHRASE, "UTC")
        hashes = {name: tag_hash(keys, name) for name in tag_names}
        entries_by_tag: dict[str, set[bytes]] = {name: set() for name in tag_names}
        for start in range(0, entries, 1000):
            batch: list[Entry] = []
            for index in range(start, min(entries, start + 1000)):
                day = last_day - timedelta(days=index * 365 * YEARS // entries)
                at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
                text = " ".join(rng.choices(tag_names, k=12)).capitalize() + "."
                batch.append(Entry(secrets.token_bytes(16), day, "me", text, at, "UTC"))
                for name in rng.choices(tag_names, weights, k=2):
                    entries_by_tag[name].add(batch[-1].id)
            await services.db.entries.add(keys, *batch)
        for start in range(0, tag_count, 100):
            names_batch = tag_names[start : start + 100]

            async def plan(_: TagSnapshot, names_batch: list[str] = names_batch) -> TagDelta:
                links = frozenset(
                    (hashes[name], entry) for name in names_batch for entry in entries_by_tag[name]
                )
                return TagDelta(
                    {hashes[name]: name for name in names_batch if entries_by_tag[name]}, links
                )

            await services.db.tags.change(keys, plan, undoable=False)
    finally:
        await lifecycle.stop()


def used_seconds(server: Server) -> float:
    """Seconds of a processor that the server has used."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(server: Server, work: Callable[[], object], count: int) -> dict[str, float]:
    """Milliseconds of something done `count` times after it is warm; `cpu`: of a processor's time, a mean."""
    durations: list[float] = []
    used = 0.0
    for number in range(WARM_UP + count):
        if number == WARM_UP:
            used = used_seconds(server)
        started = time.perf_counter()
        work()
        if number >= WARM_UP:
            durations.append(1000 * (time.perf_counter() - started))
    percentiles = quantiles(durations, n=100)
    cpu_ms = 1000 * (used_seconds(server) - used) / count
    return {
        "p50": round(percentiles[49], 1),
        "p95": round(percentiles[94], 1),
        "cpu": round(cpu_ms, 1),
    }


def measure(server: Server, tag_count: int, request_count: int) -> dict[str, object]:
    """Everything that is asked of a server over its journal."""
    server.start(timeout=120)
    user = HttpUser(server.url, passphrase=PASSPHRASE)
    user.sign_in()
    started = time.perf_counter()
    while "Older pages are still" in user.post("/search", {"q": "kanu"}, fragment=True).text:
        assert time.perf_counter() - started < INDEX_TIMEOUT
        time.sleep(0.2)
    result: dict[str, object] = {"index_whole_after_s": round(time.perf_counter() - started, 1)}
    page = user.get("/traces").text
    paths = re.findall(r'href="(/traces/[0-9a-f]+)">', page)
    counts = [int(count) for count in re.findall(r'<span class="used">(\d+)', page)]
    paths_by_use = [path for _, path in sorted(zip(counts, paths, strict=True), reverse=True)]
    rng = random.Random(SEED)
    result["traces"], result["links"], result["most_used"] = len(paths), sum(counts), max(counts)

    def get(path: str) -> None:
        response = user.get(path)
        assert response.status_code == 200, response.status_code

    def get_fragment(path: str) -> None:
        response = user.http.get(path, headers={"HX-Request": "true"})
        assert response.status_code == 200, response.status_code

    result["index_page"] = timed(server, lambda: get("/traces"), request_count)
    result["index_filtered"] = timed(
        server, lambda: user.post("/traces", {"q": "ba"}, fragment=True), request_count
    )
    result["one_trace"] = timed(server, lambda: get(rng.choice(paths)), request_count)
    result["most_used_trace"] = timed(server, lambda: get(paths_by_use[0]), request_count)
    result["heatmap"] = timed(
        server, lambda: get_fragment(f"{rng.choice(paths_by_use[:200])}/years"), request_count
    )
    result["popover"] = timed(
        server, lambda: get_fragment(f"{rng.choice(paths)}/brief"), request_count
    )
    entry = user.write("A page to be labelled.")
    tag_names = make_names(tag_count)
    new_names = iter(rng.sample(tag_names, WARM_UP + request_count))
    result["adding"] = timed(
        server,
        lambda: user.post(f"/e/{entry}/traces", {"name": next(new_names)}, fragment=True),
        request_count,
    )
    pages = [user.write(f"Page {number}.") for number in range(WARM_UP + request_count)]
    new_entries = iter(pages)
    result["adding_to_a_new_page"] = timed(
        server,
        lambda: user.post(
            f"/e/{next(new_entries)}/traces", {"name": rng.choice(tag_names)}, fragment=True
        ),
        request_count,
    )
    number = iter(range(1000))
    result["writing_with_two"] = timed(
        server,
        lambda: user.write(
            f"Entry {next(number)}, #{rng.choice(tag_names)} and #{rng.choice(tag_names)}."
        ),
        request_count,
    )

    def write_and_get() -> None:
        user.write(f"Entry {next(number)}, #{rng.choice(tag_names)}.")
        nonlocal started
        started = time.perf_counter()
        get("/traces")
        durations_after_write.append(1000 * (time.perf_counter() - started))

    durations_after_write: list[float] = []
    timed(server, write_and_get, request_count)
    percentiles = quantiles(durations_after_write, n=100)
    result["index_page_after_writing"] = {
        "p50": round(percentiles[49], 1),
        "p95": round(percentiles[94], 1),
    }
    return result


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.tags", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--traces", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llamora-bench-") as name:
        env = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
        server = Server(Path(name), load_settings().data.cache, mode="prod", env=env)
        asyncio.run(seed(server, options.entries, options.traces))
        try:
            result = measure(server, options.traces, options.requests)
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
    load = [round(number, 1) for number in os.getloadavg()] if hasattr(os, "getloadavg") else []
    print(json.dumps({"entries": options.entries, **result, "load": load}))


if __name__ == "__main__":
    main()
