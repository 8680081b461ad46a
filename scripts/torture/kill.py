"""Kill what writes to a journal: `python -m scripts.torture.kill --kills 2000`.

Each round starts a process that does one kind of work, four writers at once, and sends it SIGKILL at a random moment:
the work of the store (writing, editing, deleting, restoring, erasing, tagging; the same while keys are changed,
or while backups and copies are made), migrations of older schemas, restores over a journal; and one round in ten a
whole server, written to over HTTP. After each kill everything that was acknowledged must be there as it was
acknowledged, nothing half done, and no file may hold a word of it. Prints one JSON object.
"""

import asyncio
import random
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from llamora.journal import rotation
from llamora.journal.rotation import Rotation
from llamora.persistence.backups import write_backup
from llamora.persistence.doctor import run_checks
from llamora.persistence.migrations import migration_status
from llamora.settings import resource
from scripts.command import run
from scripts.torture import harness, invariants
from scripts.torture.jobs import Events, Job, Store, run_until_killed
from scripts.torture.served import ServedJournal
from tests.fixtures.make_fixture import load
from tests.scan import find_words

FIXTURES = Path(__file__).parents[2] / "tests/fixtures"
ROUNDS_PER_STORE = 40  # then a new one is begun
MAX_SECONDS_TO_KILL = {
    "entries": 0.25,
    "rotate": 0.5,
    "backup": 0.4,
    "migrate": 0.12,
    "restore": 0.25,
}
# The share of the kinds in a hundred kills.
SHARES = {"entries": 30, "rotate": 15, "backup": 15, "migrate": 15, "restore": 15, "served": 10}

Contents = list[dict[bytes, invariants.ExpectedEntry]]


def check_work(store: Store, folder: Path, events: Events) -> dict[str, int]:
    """Count what is wrong in `folder` after what was told of work on a store."""
    acknowledged_before = store.expected.acknowledged
    store.expected.replay(events)
    counts = store.check(folder / "llamora.sqlite3")
    counts["acknowledged"] = store.expected.acknowledged - acknowledged_before
    for _, event_name, *rest in events:
        if event_name == "file":
            counts["acknowledged"] += 1
            counts["lost"] += not (folder / rest[0].relative_to(store.folder)).exists()
    broken_count, counts["files"] = invariants.count_broken_files(folder, store.recovery_code)
    counts["half"] += broken_count
    return counts


def _run_work_round(
    kind: str, store: Store, rng: random.Random, delay: float, *, is_first: bool
) -> dict[str, int]:
    job = store.new_job(rng.randrange(2**31))
    events = run_until_killed(kind, job, delay, after_first_acknowledgement=is_first)
    counts = check_work(store, store.folder, events)
    for copy_path in (store.folder / "backups").glob("copy-*"):
        copy_path.unlink()
    return counts


def _finish_rotation(store: Store) -> int:
    """Bring a change of keys that was interrupted to its end; 0 when one epoch is left, else 1."""

    async def finish() -> int:
        async with harness.opened(store.database) as db:
            if await db.key_rotation.count_data_keys(store.user_id) > 1:
                await Rotation(db).finish(store.keys())
            return int(await db.key_rotation.count_data_keys(store.user_id) != 1)

    # There are no other workers that would have to notice.
    with mock.patch.object(rotation, "NOTICE_SECONDS", 0.01):
        return asyncio.run(finish())


# -- migrations ----------------------------------------------------------------------------------------


def copy_older_journal(folder: Path, rng: random.Random) -> Job:
    """Put there a journal of an earlier schema; none at all while there is only one."""
    job = Job(folder, b"", {}, 0)
    folder.mkdir()
    if kept := sorted(FIXTURES.glob("schema-*.sql"))[:-1]:
        load(rng.choice(kept).stem, job.database)
    return job


def check_migration(
    database: Path, before: harness.Rows, newest: list[tuple[str, str]], events: Events
) -> dict[str, int]:
    """Count what is wrong after what was told of a migration; bring it to its end."""
    is_acknowledged = any(event_name == "migrated" for _, event_name in events)
    applied = [
        each.applied_on is not None for each in migration_status(database, resource("migrations"))
    ]
    half_done = int(applied != sorted(applied, reverse=True))
    lost = int(is_acknowledged and not all(applied))
    after = harness.all_rows(database)
    half_done += any(after[table] != content for table, content in before.items())
    for copy in (database.parent / "backups").glob("*.sqlite3"):
        half_done += (
            not invariants.is_whole(copy) or harness.all_rows(copy).keys() - after.keys() != set()
        )
    half_done += harness.read_schema(harness.new_database(database)) != newest
    damaged = len(run_checks(database, resource("migrations")).damage)
    acknowledged = int(is_acknowledged)
    return {"acknowledged": acknowledged, "lost": lost, "half": half_done, "damaged": damaged}


# -- restores ------------------------------------------------------------------------------------------


def make_two_backups(store: Store, rng: random.Random) -> tuple[tuple[Path, ...], Contents]:
    """Make two backups of a user with different contents; return what is in each, too."""
    files, contents = list[Path](), Contents()
    for number in range(2):
        job = store.new_job(rng.randrange(2**31))
        events = run_until_killed("entries", job, 0.3, after_first_acknowledgement=True)
        store.expected.replay(events)
        assert not any(store.check().values())
        files.append(store.folder / f"{number}.llamora")
        write_backup(store.database, store.keys(), files[-1])
        contents.append(invariants.load_entries(store.database, store.keys()))
    return tuple(files), contents


def check_restore(
    store: Store, database: Path, contents: Contents, current: int | None, events: Events
) -> tuple[dict[str, int], int | None]:
    """Count what is wrong after what was told of restores over the contents `current`; return what is there now.

    None is an empty journal, -1 one that is neither of the backups.
    """
    allowed = {current}
    for _, event_name, number in events:
        allowed = {number} if event_name == "restored" else allowed | {number}
    acknowledged = sum(event_name == "restored" for _, event_name, _ in events)
    counts = {"lost": 0, "half": 0, "damaged": 0, "acknowledged": acknowledged}
    restored: int | None = None
    if harness.fetch(database, "SELECT 1 FROM users"):
        keys = invariants.load_keys(database, store.user_id, store.recovery_code)
        lines = invariants.load_entries(database, keys)
        counts["damaged"] = len(run_checks(database, resource("migrations"), keys).damage)
        restored = next((number for number, content in enumerate(contents) if content == lines), -1)
    counts["half"] = int(restored == -1)
    counts["lost"] = int(restored != -1 and restored not in allowed)
    return counts, restored


def _run_restore_round(
    store: Store, files: tuple[Path, ...], contents: Contents, rng: random.Random, delay: float
) -> dict[str, int]:
    """Kill a restore, every third time one into an empty folder."""
    empty = rng.random() < 0.33
    folder = store.folder.with_name("empty") if empty else store.folder
    job = replace(store.new_job(rng.randrange(2**31), files=files), folder=folder)
    harness.new_database(job.database)
    current = None if empty else contents.index(store.expected.entries())
    events = run_until_killed("restore", job, delay)
    counts, restored = check_restore(store, job.database, contents, current, events)
    if empty:
        shutil.rmtree(folder)
    elif restored is not None and restored >= 0:
        store.expected = invariants.ExpectedState(dict(contents[restored]))
    return counts


# -- all of it -------------------------------------------------------------------------------------------


@dataclass
class Rounds:
    """All rounds of a run: what they work on, and what they found."""

    folder: Path
    cache: Path
    rng: random.Random
    newest: list[tuple[str, str]] = field(default_factory=harness.newest_schema)
    totals: harness.Totals = field(default_factory=harness.Totals)
    stores: dict[str, Store] = field(default_factory=dict[str, Store])
    backups: tuple[tuple[Path, ...], Contents] = ((), [])
    served: ServedJournal | None = None

    def run(self, kind: str) -> None:
        """Do one kind of work, kill it and look; most of what matters is soon over."""
        delay = MAX_SECONDS_TO_KILL.get(kind, 0.0) * self.rng.random() ** 2
        if kind == "served":
            self.served = self.served or ServedJournal.start(self.folder / "served", self.cache)
            counts = self.served.run_round(self.rng)
        elif kind == "migrate":
            counts = self._migrate(delay)
        elif kind == "restore":
            store = self._store_for(kind)
            counts = _run_restore_round(store, *self.backups, self.rng, delay)
        else:
            is_first = not self.totals.kills[kind]
            store = self._store_for(kind)
            counts = _run_work_round(kind, store, self.rng, delay, is_first=is_first)
        self.totals.add(kind, **counts)

    def _migrate(self, delay: float) -> dict[str, int]:
        job = copy_older_journal(self.folder / "migrated", self.rng)
        before = harness.all_rows(job.database)
        events = run_until_killed("migrate", job, delay)
        counts = check_migration(job.database, before, self.newest, events)
        shutil.rmtree(job.folder)
        return counts

    def _store_for(self, kind: str) -> Store:
        if kind not in self.stores or self.totals.kills[kind] % ROUNDS_PER_STORE == 0:
            if kind in self.stores:
                self._finish(self.stores.pop(kind))
            self.stores[kind] = Store.create(self.folder / kind)
            if kind == "restore":
                self.backups = make_two_backups(self.stores[kind], self.rng)
        return self.stores[kind]

    def _finish(self, store: Store) -> None:
        """Bring a store to its end: change of keys ended, no word in any file of it."""
        self.totals.found["two_epochs"] += _finish_rotation(store)
        self.totals.found["damaged"] += sum(store.check().values())
        self.totals.found["plain"] += len(find_words(store.folder, [harness.WORD]))
        shutil.rmtree(store.folder)

    def finish(self) -> None:
        """Bring all to its end."""
        for store in self.stores.values():
            self._finish(store)
        if self.served is not None:
            self.served.server.stop()
            self.totals.found["plain"] += len(find_words(self.served.server.folder, [harness.WORD]))


def torture(
    folder: Path, kills: int, seed: int, seconds: float = harness.FOREVER, cache: Path | None = None
) -> dict[str, Any]:
    """Run all rounds, or as many as fit into `seconds`; each kind once first."""
    rng = random.Random(seed)
    work = Rounds(folder, cache or folder / "cache", rng)
    kinds = tuple(SHARES)
    for number in harness.rounds(kills, seconds):
        drawn = rng.choices(kinds, list(SHARES.values()))[0]
        work.run(kinds[number] if number < len(kinds) else drawn)
    work.finish()
    totals = work.totals
    return {
        "kills": totals.kills.total(),
        "by_kind": dict(totals.kills),
        **totals.figures(),
        "two_epochs": totals.found["two_epochs"],
        "seed": seed,
        "wrong": dict(totals.errors),
    }


if __name__ == "__main__":
    failed = harness.any_of("lost", "half", "damaged", "plain", "two_epochs")
    sys.exit(run(torture, failed=failed, kills=2000, seconds=harness.FOREVER, seed=1))
