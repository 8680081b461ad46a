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
from scripts.torture.disk import (
    ShimUnavailable,
    SimulatedDisk,
    UnsyncedLoss,
    WatchedFolder,
    build_shim,
    read_records,
)
from scripts.torture.invariants import ExpectedEntry, ExpectedState
from scripts.torture.kill import (
    WITHOUT_MODELS,
    ServedJournal,
    Store,
    Totals,
    all_rows,
    check_migration,
    check_restore,
    check_work,
    copy_older_journal,
    make_two_backups,
    read_schema,
    run_until_killed,
)
from scripts.torture.writers import WORD, WRITER_COUNT
from tests.scan import find_words

CUTS_OF_A_RUN = 25
SECONDS_OF_A_RUN = {
    "entries": 1.0,
    "rotate": 1.5,
    "backup": 1.5,
    "migrate": 3.0,
    "restore": 1.0,
    "served": 2.0,
}
LOSS_CHOICES: tuple[UnsyncedLoss, ...] = (
    "nothing",
    "nothing",
    "some",
    "some",
    "some",
    "some",
    "all",
)

Events = list[tuple[Any, ...]]
Judge = Callable[[Path, Events], dict[str, int]]


@dataclass(slots=True)
class Recording:
    """One run on a watched disk: what was told, each with its place in the log, and how what is left is judged."""

    root: Path
    disk: SimulatedDisk
    log: bytes
    events: Events
    judge: Judge


@dataclass(slots=True)
class RecordedState(ExpectedState):
    """A book of promises that notes at which place of the log each was made."""

    log: Path = Path()
    events: Events = field(default_factory=list["tuple[Any, ...]"])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _record(self, *words: Any) -> None:
        with self.lock:
            self.events.append((self.log.stat().st_size, *words))

    def begin(
        self,
        writer_number: int,
        entry: bytes,
        expected: ExpectedEntry | None,
        also_changed: Mapping[bytes, ExpectedEntry] = MappingProxyType({}),
    ) -> None:
        """Before it is sent."""
        self._record("begin", writer_number, entry, expected, dict(also_changed))
        ExpectedState.begin(self, writer_number, entry, expected, also_changed)

    def done(self, writer_number: int) -> None:
        """After the answer has come."""
        self._record("done", writer_number)
        ExpectedState.done(self, writer_number)

    def refused(self, writer_number: int) -> None:
        """After it was refused."""
        self._record("refused", writer_number)
        ExpectedState.refused(self, writer_number)


def record_run(
    kind: str, folder: Path, library: Path, rng: random.Random, share: float
) -> Recording:
    """Let something work on a watched disk until it is killed."""
    root = folder / "disk"
    root.mkdir(parents=True)
    watched = WatchedFolder(library, root, log=folder / "log")
    if kind == "served":
        return record_server_run(folder, watched, share)
    seconds = SECONDS_OF_A_RUN[kind] * share
    if kind == "migrate":
        order = copy_older_journal(root / "data", rng)
        before, newest = all_rows(order.database), _newest_schema(folder)
        disk = SimulatedDisk(root)
        events = run_until_killed(
            kind, order, seconds, watched.env, after_first_acknowledgement=True
        )
        return Recording(
            root,
            disk,
            _read_log(watched),
            events,
            lambda data, t: check_migration(data / "llamora.sqlite3", before, newest, t),
        )
    store = Store.create(root / "data")
    if kind == "restore":
        files, contents = make_two_backups(store, rng)
        current = contents.index(store.expected.entries())
        disk = SimulatedDisk(root)
        events = run_until_killed(
            kind,
            store.new_job(rng.randrange(2**31), files=files),
            seconds,
            watched.env,
            after_first_acknowledgement=True,
        )
        return Recording(
            root,
            disk,
            _read_log(watched),
            events,
            lambda data, t: check_restore(store, data / "llamora.sqlite3", contents, current, t)[0],
        )
    disk = SimulatedDisk(root)
    events = run_until_killed(
        kind,
        store.new_job(rng.randrange(2**31)),
        seconds,
        watched.env,
        after_first_acknowledgement=True,
    )

    def judge(data: Path, events: Events) -> dict[str, int]:
        return check_work(replace(store, expected=ExpectedState()), data, events)

    return Recording(root, disk, _read_log(watched), events, judge)


def record_server_run(folder: Path, watched: WatchedFolder, share: float) -> Recording:
    """A whole server from its first start on, a writer who registers, and four hands that post."""
    assert watched.log is not None
    disk = SimulatedDisk(watched.root)
    expected = RecordedState(log=watched.log)
    server = ServedJournal.start(watched.root, folder / "cache", {**WITHOUT_MODELS, **watched.env})
    expected.events.append((watched.log.stat().st_size, "registered"))
    server.store.expected = expected
    process = server.server.process
    assert process is not None
    threads = [
        threading.Thread(target=server.post_until_killed, args=(n, random.Random(n), {}))
        for n in range(WRITER_COUNT)
    ]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS_OF_A_RUN["served"] * share)
    process.kill()
    process.wait()
    for thread in threads:
        thread.join()

    def judge(data: Path, events: Events) -> dict[str, int]:
        if any(words[1] == "registered" for words in events):
            return check_work(replace(server.store, expected=ExpectedState()), data, events)
        if (data / "llamora.sqlite3").exists():
            run_db_migrations(data / "llamora.sqlite3", resource("migrations"))
        return {}

    return Recording(watched.root, disk, _read_log(watched), expected.events, judge)


def _newest_schema(folder: Path) -> list[tuple[str, str]]:
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    return read_schema(folder / "newest.sqlite3")


def _read_log(watched: WatchedFolder) -> bytes:
    assert watched.log is not None
    return watched.log.read_bytes()


def choose_moments(run: Recording, count: int, rng: random.Random) -> list[int]:
    """Where the power is cut: half of the times just after something was acknowledged, else anywhere."""
    record_ends = [0, *(end for end, *_ in read_records(run.log))]
    acknowledged_at = [
        place for place, word, *_ in run.events if word not in ("begin", "restoring")
    ] or record_ends
    return sorted(
        rng.choice(acknowledged_at if rng.random() < 0.5 else record_ends) for _ in range(count)
    )


def cut_power(
    run: Recording, count: int, folder: Path, rng: random.Random
) -> Iterator[dict[str, int]]:
    """Cut the power of a run so often, each time at another moment, and judge what is left."""
    for moment in choose_moments(run, count, rng):
        run.disk.replay(run.log, moment)
        remains = folder / "left"
        run.disk.write_after_cut(remains, rng.choice(LOSS_CHOICES), rng)
        events = [words for words in run.events if words[0] <= moment]
        counts = run.judge(remains / "data", events)
        counts["plain"] = len(find_words(remains, [WORD]))
        yield counts
        shutil.rmtree(remains)


def torture(
    count: int,
    folder: Path,
    seed: int,
    kinds: tuple[str, ...] = tuple(SECONDS_OF_A_RUN),
    seconds: float = 1e9,
    share: float = 1.0,
) -> dict[str, Any]:
    """Cut so often, or as often as fits into `seconds`; `share` shortens the runs. Raises NoShim."""
    library = build_shim(folder)
    rng, totals, deadline = random.Random(seed), Totals(), time.monotonic() + seconds
    cuts_per_run = min(CUTS_OF_A_RUN, -(-count // len(kinds)))
    number = 0
    while (cuts_done := sum(totals.kills.values())) < count and time.monotonic() < deadline:
        kind = kinds[number % len(kinds)]
        run_folder = folder / f"run-{number}"
        for cut_counts in cut_power(
            record_run(kind, run_folder, library, rng, share),
            min(cuts_per_run, count - cuts_done),
            run_folder,
            rng,
        ):
            totals.add(kind, **cut_counts)
        with suppress(OSError):
            shutil.rmtree(run_folder)
        number += 1
    counts = {
        name: getattr(totals, name)
        for name in ("acknowledged", "lost", "half", "damaged", "plain", "files")
    }
    total = sum(totals.kills.values())
    return {
        "cuts": total,
        "by_kind": dict(totals.kills),
        **counts,
        "wrong": dict(totals.errors),
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="stop after so long; the number reached is printed",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-", ignore_cleanup_errors=True) as name:
        try:
            result = torture(options.cuts, Path(name), options.seed, seconds=options.seconds)
        except ShimUnavailable as reason:
            print(json.dumps({"skipped": str(reason)}))
            return 0
    print(json.dumps(result))
    return int(any(result[name] for name in ("lost", "half", "damaged", "plain")))


if __name__ == "__main__":
    sys.exit(main())
