"""The commands that write, in a process on a failing disk, and what must hold after each.

What each command needs stands ready anew before it, on a journal of its own.
"""

import multiprocessing
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from llamora.messages import sentence
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, restore_backup, sealed_keys, write_backup
from llamora.persistence.connection import StorageError
from llamora.vault.keys import open_keyring
from scripts.torture import kill
from scripts.torture.disk import WatchedFolder
from scripts.torture.harness import Rows, all_rows, new_database, newest_schema, read_schema
from scripts.torture.invariants import is_whole
from scripts.torture.jobs import Events, Store


def run_commands(connection: Any) -> None:
    """Do in a process on a failing disk what is told, and say how it went."""
    while True:
        command, *rest = connection.recv()
        try:
            if command == "migrate":
                new_database(rest[0])
            elif command == "copy":
                copy_database(*rest)
            elif command == "backup":
                database, user_id, master, sealed, target = rest
                write_backup(database, open_keyring(user_id, master, sealed), target)
            elif command == "restore":
                database, file, code = rest
                header = read_header(file)
                restore_backup(database, file, header, header.unlock(code), replace=True)
            connection.send(("good", ""))
        except StorageError as error:
            connection.send(("told", sentence(error)))
        except Exception as error:
            connection.send((type(error).__name__, str(error)))


@contextmanager
def command_process(watched: WatchedFolder) -> Iterator[Any]:
    """Open the pipe to such a process."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=run_commands, args=(child_end,), daemon=True)
    with mock.patch.dict(os.environ, watched.env):
        process.start()
    try:
        yield parent_end
    finally:
        process.kill()
        process.join()


@dataclass
class Command:
    """One command: what makes the place ready, what to tell the process, and what must hold after a failure."""

    name: str
    prepare: Callable[[], tuple[Any, ...]]
    find_problems: Callable[[bool], list[str]]


def _names(problems: dict[str, int]) -> list[str]:
    return [name for name, count in problems.items() if count and name != "acknowledged"]


@dataclass
class Migrations:
    """A journal of an earlier schema, or none at all, that is brought up."""

    folder: Path
    rng: random.Random
    newest: list[tuple[str, str]] = field(default_factory=newest_schema)
    before: Rows = field(default_factory=dict[str, list[tuple[Any, ...]]])

    def prepare(self) -> tuple[Any, ...]:
        """Put an older journal there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        job = kill.copy_older_journal(self.folder, self.rng)
        self.before = all_rows(job.database)
        return "migrate", job.database

    def find_problems(self, good: bool) -> list[str]:
        """Bring it to its end and look."""
        events: Events = [(0, "migrated")] if good else []
        database = self.folder / "llamora.sqlite3"
        return _names(kill.check_migration(database, self.before, self.newest, events))

    def prepare_first_start(self) -> tuple[Any, ...]:
        """Leave nothing there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        return "migrate", self.folder / "llamora.sqlite3"

    def find_problems_of_first_start(self, _: bool) -> list[str]:
        """Start once more and look."""
        database = new_database(self.folder / "llamora.sqlite3")
        return [] if read_schema(database) == self.newest else ["half"]


@dataclass
class WrittenFiles:
    """Backups and copies, in a folder that is removed before each."""

    folder: Path
    recovery_code: str

    def preparing(self, command: str, *arguments: Any, name: str) -> Callable[[], tuple[Any, ...]]:
        """Return what makes ready for a command that writes a file of this name."""

        def prepare() -> tuple[Any, ...]:
            shutil.rmtree(self.folder, ignore_errors=True)
            return command, *arguments, self.folder / name

        return prepare

    def find_problems(self, good: bool) -> list[str]:
        """Look whether each is whole, and there if it was acknowledged."""
        files = [file for file in self.folder.glob("*") if ".part" not in file.name]
        problems = [] if not good or files else ["lost"]
        for file in files:
            if file.suffix == ".sqlite3":
                problems += [] if is_whole(file) else ["half"]
            else:
                read_header(file).unlock(self.recovery_code)
        return problems


@dataclass
class Restores:
    """Two backups, one of which takes the place of the other. `current` is what is there."""

    store: Store
    files: tuple[Path, ...]
    contents: kill.Contents
    current: int | None
    wanted: int = 0

    def prepare(self) -> tuple[Any, ...]:
        """Choose the other one."""
        self.wanted = 1 - (self.current or 0)
        return "restore", self.store.database, self.files[self.wanted], self.store.recovery_code

    def find_problems(self, good: bool) -> list[str]:
        """Look which one is there."""
        events: Events = [(0, "restoring", self.wanted)]
        events += [(0, "restored", self.wanted)] if good else []
        problems, self.current = kill.check_restore(
            self.store, self.store.database, self.contents, self.current, events
        )
        return _names(problems)


def make_commands(folder: Path, rng: random.Random) -> list[Command]:
    """Make every command that writes, on a journal of its own below `folder`."""
    store = Store.create(folder / "data")
    backup_files, contents = kill.make_two_backups(store, rng)
    migrations = Migrations(folder / "older", rng)
    files = WrittenFiles(folder / "made", store.recovery_code)
    current = contents.index(store.expected.entries())
    restores = Restores(store, backup_files, contents, current)
    with closing(sqlite3.connect(store.database)) as connection:
        sealed = sealed_keys(connection, store.user_id)
    keys = (store.database, store.user_id, bytes(store.keys().master), sealed)
    copying = files.preparing("copy", store.database, name="copy.sqlite3")
    backing_up = files.preparing("backup", *keys, name="one.llamora")
    return [
        Command(
            "first start", migrations.prepare_first_start, migrations.find_problems_of_first_start
        ),
        Command("migrate", migrations.prepare, migrations.find_problems),
        Command("copy", copying, files.find_problems),
        Command("backup", backing_up, files.find_problems),
        Command("restore", restores.prepare, restores.find_problems),
    ]
