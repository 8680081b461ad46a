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

from llamora.app.services.container import AppLifecycle, AppServices
from llamora.persistence.entries import Entry
from llamora.persistence.tags import TagDelta, TagSnapshot, tag_hash
from llamora.settings import load_settings
from tests.server_process import Server, Writer

PASSPHRASE = "correct horse battery staple 42"
SEED = 8
YEARS = 30
WARM_UP = 5
LATE = 120.0  # seconds in which the index has to be whole


def names(count: int) -> list[str]:
    """Names made of syllables, each once."""
    dice = random.Random(SEED)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(dice.choice("bdfgklmnprstvw") + dice.choice("aeiou") for _ in range(dice.randint(2, 4)))] = None
    return list(found)


async def seed(server: Server, entries: int, traces: int) -> None:
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
    dice = random.Random(SEED)
    called = names(traces)
    weights = [1 / (place + 10) for place in range(traces)]
    last = date.today() - timedelta(days=1)  # noqa: DTZ011 -- the day on this machine
    try:
        _, keys, _ = await services.accounts.register("Alice", PASSPHRASE, "UTC")
        hashes = {name: tag_hash(keys, name) for name in called}
        bearing: dict[str, set[bytes]] = {name: set() for name in called}
        for start in range(0, entries, 1000):
            made: list[Entry] = []
            for place in range(start, min(entries, start + 1000)):
                day = last - timedelta(days=place * 365 * YEARS // entries)
                at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
                text = " ".join(dice.choices(called, k=12)).capitalize() + "."
                made.append(Entry(secrets.token_bytes(16), day, "me", text, at, "UTC"))
                for name in dice.choices(called, weights, k=2):
                    bearing[name].add(made[-1].id)
            await services.db.entries.add(keys, *made)
        for start in range(0, traces, 100):
            part = called[start : start + 100]

            async def plan(_: TagSnapshot, part: list[str] = part) -> TagDelta:
                links = frozenset((hashes[name], entry) for name in part for entry in bearing[name])
                return TagDelta({hashes[name]: name for name in part if bearing[name]}, links)

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
    taken: list[float] = []
    used = 0.0
    for number in range(WARM_UP + count):
        if number == WARM_UP:
            used = used_seconds(server)
        began = time.perf_counter()
        work()
        if number >= WARM_UP:
            taken.append(1000 * (time.perf_counter() - began))
    cuts = quantiles(taken, n=100)
    spent = 1000 * (used_seconds(server) - used) / count
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "cpu": round(spent, 1)}


def measure(server: Server, traces: int, asked: int) -> dict[str, object]:
    """Everything that is asked of a server over its journal."""
    server.start(wait=120)
    writer = Writer(server.url, passphrase=PASSPHRASE)
    writer.sign_in()
    began = time.perf_counter()
    while "Older pages are still" in writer.post("/search", {"q": "kanu"}, fragment=True).text:
        assert time.perf_counter() - began < LATE
        time.sleep(0.2)
    result: dict[str, object] = {"index_whole_after_s": round(time.perf_counter() - began, 1)}
    page = writer.get("/traces").text
    paths = re.findall(r'href="(/traces/[0-9a-f]+)">', page)
    counts = [int(count) for count in re.findall(r'<span class="used">(\d+)', page)]
    by_use = [path for _, path in sorted(zip(counts, paths, strict=True), reverse=True)]
    dice = random.Random(SEED)
    result["traces"], result["links"], result["most_used"] = len(paths), sum(counts), max(counts)

    def get(path: str) -> None:
        answer = writer.get(path)
        assert answer.status_code == 200, answer.status_code

    def fragment(path: str) -> None:
        answer = writer.http.get(path, headers={"HX-Request": "true"})
        assert answer.status_code == 200, answer.status_code

    result["index_page"] = timed(server, lambda: get("/traces"), asked)
    result["index_filtered"] = timed(server, lambda: writer.post("/traces", {"q": "ba"}, fragment=True), asked)
    result["one_trace"] = timed(server, lambda: get(dice.choice(paths)), asked)
    result["most_used_trace"] = timed(server, lambda: get(by_use[0]), asked)
    result["heatmap"] = timed(server, lambda: fragment(f"{dice.choice(by_use[:200])}/years"), asked)
    result["popover"] = timed(server, lambda: fragment(f"{dice.choice(paths)}/brief"), asked)
    entry = writer.write("A page to be labelled.")
    called = names(traces)
    added = iter(dice.sample(called, WARM_UP + asked))
    result["adding"] = timed(
        server, lambda: writer.post(f"/e/{entry}/traces", {"name": next(added)}, fragment=True), asked
    )
    pages = [writer.write(f"Page {number}.") for number in range(WARM_UP + asked)]
    each = iter(pages)
    result["adding_to_a_new_page"] = timed(
        server, lambda: writer.post(f"/e/{next(each)}/traces", {"name": dice.choice(called)}, fragment=True), asked
    )
    number = iter(range(1000))
    result["writing_with_two"] = timed(
        server, lambda: writer.write(f"Entry {next(number)}, #{dice.choice(called)} and #{dice.choice(called)}."), asked
    )

    def changed() -> None:
        writer.write(f"Entry {next(number)}, #{dice.choice(called)}.")
        nonlocal began
        began = time.perf_counter()
        get("/traces")
        after.append(1000 * (time.perf_counter() - began))

    after: list[float] = []
    timed(server, changed, asked)
    cuts = quantiles(after, n=100)
    result["index_page_after_writing"] = {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1)}
    return result


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="scripts.bench.tags", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--traces", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llamora-bench-") as name:
        env = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
        server = Server(Path(name), load_settings().data.cache, mode="prod", env=env)
        asyncio.run(seed(server, given.entries, given.traces))
        try:
            result = measure(server, given.traces, given.requests)
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
    load = [round(number, 1) for number in os.getloadavg()] if hasattr(os, "getloadavg") else []
    print(json.dumps({"entries": given.entries, **result, "load": load}))


if __name__ == "__main__":
    main()
