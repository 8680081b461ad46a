"""Processes that work on a store until they are killed, and the journal that they work on.

A new kind of work is a function that does it, named in JOBS.
"""

import asyncio
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from llamora.journal import rotation
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, restore_backup
from llamora.services import AppLifecycle, AppServices
from llamora.vault.keys import Keyring
from scripts.bench.harness import make_settings
from scripts.torture.harness import add_user, new_database, opened
from scripts.torture.invariants import ExpectedEntry, ExpectedState, check_store, load_keys
from scripts.torture.writers import WRITER_COUNT, ConcurrentWriter, Report, own_entries, run_actions

Events = list[tuple[Any, ...]]
"""What a process told: (place in the log of a watched disk, what, details...)."""


@dataclass(frozen=True, slots=True)
class Job:
    """Tell a process where to work, whose entries they are, and how they should be now."""

    folder: Path
    user_id: bytes
    entries: dict[bytes, ExpectedEntry]
    seed: int
    files: tuple[Path, ...] = ()
    recovery_code: str = ""

    @property
    def database(self) -> Path:
        """The store."""
        return self.folder / "llamora.sqlite3"


async def _run_writers(
    job: Job, report: Report, alongside: Callable[[AppServices, Keyring], Awaitable[None]] | None
) -> None:
    """Run the whole server but its web: all writers, and something beside them, until the kill."""
    cache, off = job.folder.parent / "cache", {"enabled": False}
    services = AppServices.create(make_settings(job.folder, cache, embedding=off))
    await AppLifecycle(services).start()
    keys = load_keys(job.database, job.user_id, job.recovery_code)
    writers: list[ConcurrentWriter] = []
    for number in range(WRITER_COUNT):
        own = own_entries(job.entries, number)
        rng = random.Random(job.seed + number)
        writers.append(ConcurrentWriter(number, services, keys, rng, own))
    report("ready")
    extra_tasks = [alongside(services, keys)] if alongside else []
    await asyncio.gather(*(run_actions(writer, report) for writer in writers), *extra_tasks)


def work_on_entries(job: Job, report: Report) -> None:
    """Write, edit, delete, restore, erase, tag, change tags and undo that."""
    asyncio.run(_run_writers(job, report, None))


def work_with_rotation(job: Job, report: Report) -> None:
    """Do the same while the data key is changed, again and again."""
    rotation.NOTICE_SECONDS = 0.01  # there is no other worker that has to notice

    async def change(services: AppServices, keys: Keyring) -> None:
        while True:
            if await services.db.key_rotation.count_data_keys(keys.user_id) == 1:
                await services.rotation.start(keys)
            await services.rotation.finish(keys)
            report("rotated")

    asyncio.run(_run_writers(job, report, change))


def work_with_backups(job: Job, report: Report) -> None:
    """Do the same while backups of the user and copies of everything are made."""

    async def make_backups(services: AppServices, keys: Keyring) -> None:
        for number in range(10_000):
            backup_path = await services.backups.create(keys)
            report("file", backup_path)
            copy_path = job.folder / "backups" / f"copy-{job.seed}-{number}.sqlite3"
            await asyncio.to_thread(copy_database, job.database, copy_path)
            report("file", copy_path)

    asyncio.run(_run_writers(job, report, make_backups))


def work_on_migration(job: Job, report: Report) -> None:
    """Bring an older schema up."""
    report("ready")
    new_database(job.database)
    report("migrated")


def work_on_restores(job: Job, report: Report) -> None:
    """Put one backup and then the other in the journal's place, again and again."""
    backups = []
    for file in job.files:
        header = read_header(file)
        backups.append((file, header, header.unlock(job.recovery_code)))
    report("ready")
    rng = random.Random(job.seed)
    while True:
        number = rng.randrange(len(backups))
        file, header, keys = backups[number]
        report("restoring", number)
        restore_backup(job.database, file, header, keys, replace=True)
        report("restored", number)


JOBS: dict[str, Callable[[Job, Report], None]] = {
    "entries": work_on_entries,
    "rotate": work_with_rotation,
    "backup": work_with_backups,
    "migrate": work_on_migration,
    "restore": work_on_restores,
}


def run_job(kind: str, job: Job, connection: Any) -> None:
    """Work in a process, telling each step through a pipe, with the place in the log of a watched disk."""
    log = os.environ.get("TORTURE_LOG")

    def report(*words: object) -> None:
        connection.send((Path(log).stat().st_size if log else 0, *words))

    JOBS[kind](job, report)


def _context(*, is_own: bool) -> Any:
    if is_own or sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.torture.jobs"])
    return context


def run_until_killed(
    kind: str,
    job: Job,
    delay: float,
    env: Mapping[str, str] | None = None,
    *,
    after_first_acknowledgement: bool = False,
) -> Events:
    """Let a process work and kill it `delay` seconds after it is ready; return what it told until then.

    With `env`, a process of its own has that in its environment too.
    """
    context = _context(is_own=env is not None)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=run_job, args=(kind, job, send), daemon=True)
    with mock.patch.dict(os.environ, env or {}):
        process.start()
    send.close()
    events: Events = []
    with suppress(EOFError, OSError):
        assert receive.poll(60), "the process did not come up"
        events.append(receive.recv())
        waiting = ("ready", "begin", "restoring") if after_first_acknowledgement else ()
        while events[-1][1] in waiting and receive.poll(60):
            events.append(receive.recv())
        deadline = time.monotonic() + delay
        while (seconds_left := deadline - time.monotonic()) > 0:
            if receive.poll(seconds_left):
                events.append(receive.recv())
    process.kill()
    process.join()
    with suppress(EOFError, OSError):
        while receive.poll():
            events.append(receive.recv())
    receive.close()
    assert [words[1] for words in events[:1]] == ["ready"], events[:1]
    return events[1:]


@dataclass(slots=True)
class Store:
    """A journal of one user, and what it has acknowledged."""

    folder: Path
    user_id: bytes
    recovery_code: str
    expected: ExpectedState = field(default_factory=ExpectedState)

    @property
    def database(self) -> Path:
        """Its file."""
        return self.folder / "llamora.sqlite3"

    @classmethod
    def create(cls, folder: Path) -> "Store":
        """Make a journal with nothing in it."""

        async def add() -> "Store":
            async with opened(new_database(folder / "llamora.sqlite3")) as db:
                added = await add_user(db, "Alice")
            return cls(folder, added.user.id, added.new_keys.recovery_code)

        return asyncio.run(add())

    def new_job(self, seed: int, **more: Any) -> Job:
        """Say what a process needs to know to work on it."""
        entries, code = self.expected.entries(), self.recovery_code
        return Job(self.folder, self.user_id, entries, seed, recovery_code=code, **more)

    def keys(self) -> Keyring:
        """Open its keys with the recovery code."""
        return load_keys(self.database, self.user_id, self.recovery_code)

    def check(self, database: Path | None = None) -> dict[str, int]:
        """Count what of the expected is lost, half done or damaged, there or in another database."""
        file = database or self.database
        return check_store(file, self.user_id, self.recovery_code, self.expected)
