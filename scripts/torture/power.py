"""Cuts the power: `python -m scripts.torture.power --cuts 300`.

The same work as in scripts.torture.kill is done on a disk that is watched (disk.py). From the log of each run many
cuts are reckoned, at any moment and above all just after something was acknowledged; each leaves what was synced, and
of the rest nothing, any part, or all. On what is left everything acknowledged must be there and nothing half done,
and the next start must succeed. Prints one JSON object.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llamora.persistence import run_db_migrations
from llamora.settings import resource
from scripts.torture.disk import Disk, How, NoShim, Watched, build, records
from scripts.torture.invariants import Line, Promises
from scripts.torture.kill import (
    QUIET,
    Found,
    Served,
    Store,
    judge_migration,
    judge_restore,
    judge_work,
    killed,
    older_journal,
    rows,
    schema,
    two_backups,
)
from scripts.torture.writers import HANDS, WORD
from tests.scan import find_words

CUTS_OF_A_RUN = 25
SECONDS_OF_A_RUN = {"entries": 1.0, "rotate": 1.5, "backup": 1.5, "migrate": 3.0, "restore": 1.0, "served": 2.0}
HOW: tuple[How, ...] = ("nothing", "nothing", "some", "some", "some", "some", "all")

Told = list[tuple[Any, ...]]
Judge = Callable[[Path, Told], dict[str, int]]


@dataclass(slots=True)
class Run:
    """One run on a watched disk: what was told, each with its place in the log, and how what is left is judged."""

    root: Path
    disk: Disk
    log: bytes
    told: Told
    judge: Judge


@dataclass(slots=True)
class Placed(Promises):
    """A book of promises that notes at which place of the log each was made."""

    log: Path = Path()
    told: Told = field(default_factory=list["tuple[Any, ...]"])
    turn: threading.Lock = field(default_factory=threading.Lock)

    def _note(self, *words: Any) -> None:
        with self.turn:
            self.told.append((self.log.stat().st_size, *words))

    def begin(
        self, hand: int, entry: bytes, after: Line | None, beside: Mapping[bytes, Line] = MappingProxyType({})
    ) -> None:
        """Before it is sent."""
        self._note("begin", hand, entry, after, dict(beside))
        Promises.begin(self, hand, entry, after, beside)

    def done(self, hand: int) -> None:
        """After the answer has come."""
        self._note("done", hand)
        Promises.done(self, hand)

    def refused(self, hand: int) -> None:
        """After it was refused."""
        self._note("refused", hand)
        Promises.refused(self, hand)


def a_run(kind: str, folder: Path, library: Path, rng: random.Random, share: float) -> Run:
    """Let something work on a watched disk until it is killed."""
    root = folder / "disk"
    root.mkdir(parents=True)
    watched = Watched(library, root, log=folder / "log")
    if kind == "served":
        return served(folder, watched, share)
    seconds = SECONDS_OF_A_RUN[kind] * share
    if kind == "migrate":
        order = older_journal(root / "data", rng)
        before, newest = rows(order.database), _newest(folder)
        disk = Disk(root)
        told = killed(kind, order, seconds, watched.env, late=True)
        return Run(
            root,
            disk,
            _read(watched),
            told,
            lambda data, t: judge_migration(data / "llamora.sqlite3", before, newest, t),
        )
    store = Store.new(root / "data")
    if kind == "restore":
        files, contents = two_backups(store, rng)
        there = contents.index(store.promises.lines())
        disk = Disk(root)
        told = killed(kind, store.order(rng.randrange(2**31), files=files), seconds, watched.env, late=True)
        return Run(
            root,
            disk,
            _read(watched),
            told,
            lambda data, t: judge_restore(store, data / "llamora.sqlite3", contents, there, t)[0],
        )
    disk = Disk(root)
    told = killed(kind, store.order(rng.randrange(2**31)), seconds, watched.env, late=True)

    def judge(data: Path, until: Told) -> dict[str, int]:
        return judge_work(replace(store, promises=Promises()), data, until)

    return Run(root, disk, _read(watched), told, judge)


def served(folder: Path, watched: Watched, share: float) -> Run:
    """A whole server from its first start on, a writer who registers, and four hands that post."""
    assert watched.log is not None
    disk = Disk(watched.root)
    promises = Placed(log=watched.log)
    one = Served.begin(watched.root, folder / "cache", {**QUIET, **watched.env})
    promises.told.append((watched.log.stat().st_size, "registered"))
    one.store.promises = promises
    process = one.server.process
    assert process is not None
    hands = [threading.Thread(target=one.post, args=(n, random.Random(n), {})) for n in range(HANDS)]
    for hand in hands:
        hand.start()
    time.sleep(SECONDS_OF_A_RUN["served"] * share)
    process.kill()
    process.wait()
    for hand in hands:
        hand.join()

    def judge(data: Path, until: Told) -> dict[str, int]:
        if any(words[1] == "registered" for words in until):
            return judge_work(replace(one.store, promises=Promises()), data, until)
        if (data / "llamora.sqlite3").exists():
            run_db_migrations(data / "llamora.sqlite3", resource("migrations"))
        return {}

    return Run(watched.root, disk, _read(watched), promises.told, judge)


def _newest(folder: Path) -> list[tuple[str, str]]:
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    return schema(folder / "newest.sqlite3")


def _read(watched: Watched) -> bytes:
    assert watched.log is not None
    return watched.log.read_bytes()


def moments(run: Run, count: int, rng: random.Random) -> list[int]:
    """Where the power is cut: half of the times just after something was acknowledged, else anywhere."""
    anywhere = [0, *(end for end, *_ in records(run.log))]
    acknowledged = [place for place, word, *_ in run.told if word not in ("begin", "restoring")] or anywhere
    return sorted(rng.choice(acknowledged if rng.random() < 0.5 else anywhere) for _ in range(count))


def cuts(run: Run, count: int, folder: Path, rng: random.Random) -> Iterator[dict[str, int]]:
    """Cut the power of a run so often, each time at another moment, and judge what is left."""
    for moment in moments(run, count, rng):
        run.disk.forward(run.log, moment)
        left = folder / "left"
        run.disk.leave(left, rng.choice(HOW), rng)
        until = [words for words in run.told if words[0] <= moment]
        found = run.judge(left / "data", until)
        found["plain"] = len(find_words(left, [WORD]))
        yield found
        shutil.rmtree(left)


def torture(
    count: int,
    folder: Path,
    seed: int,
    kinds: tuple[str, ...] = tuple(SECONDS_OF_A_RUN),
    seconds: float = 1e9,
    share: float = 1.0,
) -> dict[str, Any]:
    """Cut so often, or as often as fits into `seconds`; `share` shortens the runs. Raises NoShim."""
    library = build(folder)
    rng, found, end = random.Random(seed), Found(), time.monotonic() + seconds
    each = min(CUTS_OF_A_RUN, -(-count // len(kinds)))
    number = 0
    while (done := sum(found.kills.values())) < count and time.monotonic() < end:
        kind = kinds[number % len(kinds)]
        place = folder / f"run-{number}"
        for one in cuts(a_run(kind, place, library, rng, share), min(each, count - done), place, rng):
            found.add(kind, **one)
        with suppress(OSError):
            shutil.rmtree(place)
        number += 1
    counts = {name: getattr(found, name) for name in ("acknowledged", "lost", "half", "damaged", "plain", "files")}
    total = sum(found.kills.values())
    return {"cuts": total, "by_kind": dict(found.kills), **counts, "wrong": dict(found.wrong), "seed": seed}


def main() -> int:
    """Run, print, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; the number reached is printed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-", ignore_cleanup_errors=True) as name:
        try:
            result = torture(options.cuts, Path(name), options.seed, seconds=options.seconds)
        except NoShim as reason:
            print(json.dumps({"skipped": str(reason)}))
            return 0
    print(json.dumps(result))
    return int(any(result[name] for name in ("lost", "half", "damaged", "plain")))


if __name__ == "__main__":
    sys.exit(main())
