"""Cut the power: `python -m scripts.torture.power --cuts 300`.

The same work as in scripts.torture.kill is done on a disk that is watched (disk.py). From the log of each run many
cuts are computed, at any moment and above all just after something was acknowledged; each leaves what was synced, and
of the rest nothing, any part, or all. On what is left everything acknowledged must be there and nothing half done,
and the next start must succeed. Prints one JSON object.
"""

import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

from scripts.command import run
from scripts.torture import harness, kill
from scripts.torture.disk import (
    SimulatedDisk,
    UnsyncedLoss,
    WatchedFolder,
    build_shim,
    read_records,
)
from scripts.torture.invariants import ExpectedEntry, ExpectedState
from scripts.torture.jobs import Events, Job, Store, run_until_killed
from scripts.torture.served import ServedJournal
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
LOSS_CHOICES: list[UnsyncedLoss] = ["nothing", "nothing", "some", "some", "some", "some", "all"]

Judge = Callable[[Path, Events], dict[str, int]]


@dataclass(slots=True)
class Recording:
    """One run on a watched disk: what was told, each with its place in the log, and how what is left is judged."""

    disk: SimulatedDisk
    log: bytes
    events: Events
    judge: Judge


@dataclass(slots=True)
class RecordedState(ExpectedState):
    """Note at which place of the log something was told."""

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
        """Note it before it is sent."""
        self._record("begin", writer_number, entry, expected, dict(also_changed))
        ExpectedState.begin(self, writer_number, entry, expected, also_changed)

    def done(self, writer_number: int) -> None:
        """Note it after the answer has come."""
        self._record("done", writer_number)
        ExpectedState.done(self, writer_number)

    def refused(self, writer_number: int) -> None:
        """Note it after it was refused."""
        self._record("refused", writer_number)
        ExpectedState.refused(self, writer_number)


def _record(kind: str, watched: WatchedFolder, job: Job, seconds: float, judge: Judge) -> Recording:
    """Let a process work on a watched disk until it is killed."""
    assert watched.log is not None
    disk = SimulatedDisk(watched.root)
    events = run_until_killed(kind, job, seconds, watched.env, after_first_acknowledgement=True)
    return Recording(disk, watched.log.read_bytes(), events, judge)


def _judge_work(store: Store, data: Path, events: Events) -> dict[str, int]:
    return kill.check_work(replace(store, expected=ExpectedState()), data, events)


def record_run(
    kind: str, folder: Path, library: Path, rng: random.Random, share: float
) -> Recording:
    """Let something work on a watched disk until it is killed, for a share of its usual time."""
    root, seconds = folder / "disk", SECONDS_OF_A_RUN[kind] * share
    root.mkdir(parents=True)
    watched = WatchedFolder(library, root, log=folder / "log")
    if kind == "served":
        return _record_server(folder, watched, seconds)
    if kind == "migrate":
        job = kill.copy_older_journal(root / "data", rng)
        before, newest = harness.all_rows(job.database), harness.newest_schema()

        def judge(data: Path, events: Events) -> dict[str, int]:
            return kill.check_migration(data / "llamora.sqlite3", before, newest, events)

        return _record(kind, watched, job, seconds, judge)
    store = Store.create(root / "data")
    files, contents = kill.make_two_backups(store, rng) if kind == "restore" else ((), [])
    job = store.new_job(rng.randrange(2**31), files=files)
    if kind != "restore":
        return _record(kind, watched, job, seconds, partial(_judge_work, store))
    current = contents.index(store.expected.entries())

    def judge_restore(data: Path, events: Events) -> dict[str, int]:
        return kill.check_restore(store, data / "llamora.sqlite3", contents, current, events)[0]

    return _record(kind, watched, job, seconds, judge_restore)


def _record_server(folder: Path, watched: WatchedFolder, seconds: float) -> Recording:
    """A whole server from its first start on, a user who registers, and four clients that post."""
    assert watched.log is not None
    disk = SimulatedDisk(watched.root)
    expected = RecordedState(log=watched.log)
    served = ServedJournal.start(
        watched.root, folder / "cache", {**harness.WITHOUT_MODELS, **watched.env}
    )
    expected.events.append((watched.log.stat().st_size, "registered"))
    served.store.expected = expected
    served.post_and_kill(random.Random(0), seconds)

    def judge(data: Path, events: Events) -> dict[str, int]:
        if any(words[1] == "registered" for words in events):
            return _judge_work(served.store, data, events)
        if (data / harness.database_of(served.server).name).exists():
            harness.new_database(data / harness.database_of(served.server).name)
        return {}

    return Recording(disk, watched.log.read_bytes(), expected.events, judge)


def _choose_moments(recording: Recording, cuts: int, rng: random.Random) -> list[int]:
    """Half of the times just after something was acknowledged, else anywhere."""
    ends = [0, *(end for end, *_ in read_records(recording.log))]
    unacknowledged = ("begin", "restoring")
    acknowledged = [at for at, word, *_ in recording.events if word not in unacknowledged] or ends
    return sorted(rng.choice(acknowledged if rng.random() < 0.5 else ends) for _ in range(cuts))


def cut_power(
    recording: Recording, cuts: int, folder: Path, rng: random.Random
) -> Iterator[dict[str, int]]:
    """Cut the power of a run so often, each time at another moment, and judge what is left."""
    for moment in _choose_moments(recording, cuts, rng):
        recording.disk.replay(recording.log, moment)
        remains = folder / "left"
        recording.disk.write_after_cut(remains, rng.choice(LOSS_CHOICES), rng)
        counts = recording.judge(
            remains / "data", [words for words in recording.events if words[0] <= moment]
        )
        counts["plain"] = len(find_words(remains, [harness.WORD]))
        yield counts
        shutil.rmtree(remains)


def torture(
    folder: Path, cuts: int, seed: int, seconds: float = harness.FOREVER, share: float = 1.0
) -> dict[str, Any]:
    """Cut so often, or as often as fits into `seconds`; `share` shortens the runs. Raises ShimUnavailable."""
    library = build_shim(folder)
    rng, totals, deadline = random.Random(seed), harness.Totals(), monotonic() + seconds
    kinds = tuple(SECONDS_OF_A_RUN)
    cuts_per_run = min(CUTS_OF_A_RUN, -(-cuts // len(kinds)))
    for number in count():
        left = cuts - totals.kills.total()
        if not left or monotonic() > deadline:
            break
        kind, run_folder = kinds[number % len(kinds)], folder / f"run-{number}"
        recording = record_run(kind, run_folder, library, rng, share)
        for counts in cut_power(recording, min(cuts_per_run, left), run_folder, rng):
            totals.add(kind, **counts)
        with suppress(OSError):
            shutil.rmtree(run_folder)
    return {
        "cuts": totals.kills.total(),
        "by_kind": dict(totals.kills),
        **totals.figures(),
        "wrong": dict(totals.errors),
        "seed": seed,
    }


if __name__ == "__main__":
    failed = harness.any_of("lost", "half", "damaged", "plain")
    sys.exit(run(torture, failed=failed, cuts=300, seconds=harness.FOREVER, seed=1))
