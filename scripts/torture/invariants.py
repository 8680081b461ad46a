"""What a store has acknowledged, and whether it holds it: the book that the kills and power cuts are checked against.

A hand says what it is about to do, does it, and says that it is done. After the crash every entry must stand as the
last deed on it that was done left it; the one deed that each hand had under way may have happened or not, but wholly.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from llamora.persistence.backup_format import BackupError, Header, read_header
from llamora.persistence.backups import verify_backup
from llamora.persistence.connection import StorageError
from llamora.persistence.doctor import run_checks
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RECORD_KINDS
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.versions import Version
from llamora.settings import resource
from llamora.text import find_tags
from llamora.vault.envelope import SealError, VaultError
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.slots import KeySlot, open_slots

KIND_BY_TABLE = {kind.table: kind for kind in RECORD_KINDS}


@dataclass(frozen=True, slots=True)
class ExpectedEntry:
    """An entry as its writer knows it. `before` are the earlier texts, newest first."""

    text: str
    revision: int = 1
    deleted: bool = False
    earlier_texts: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()

    def after_edit(self, text: str) -> "ExpectedEntry":
        """After an edit: what the text named as traces goes with it."""
        tags = (self.tags - set(find_tags(self.text))) | set(find_tags(text))
        return replace(
            self,
            text=text,
            revision=self.revision + 1,
            earlier_texts=(self.text, *self.earlier_texts),
            tags=tags,
        )

    def with_deleted(self, *, deleted: bool) -> "ExpectedEntry":
        """After it was deleted or brought back."""
        return replace(self, deleted=deleted, revision=self.revision + 1)


@dataclass(slots=True)
class ExpectedState:
    """What was acknowledged; None stands for an entry that was erased."""

    expected: dict[bytes, ExpectedEntry | None] = field(
        default_factory=dict[bytes, "ExpectedEntry | None"]
    )
    in_progress: dict[int, dict[bytes, ExpectedEntry | None]] = field(
        default_factory=dict[int, "dict[bytes, ExpectedEntry | None]"]
    )
    acknowledged: int = 0

    def begin(
        self,
        writer_number: int,
        entry: bytes,
        expected: ExpectedEntry | None,
        also_changed: Mapping[bytes, ExpectedEntry] = MappingProxyType({}),
    ) -> None:
        """A hand is about to bring an entry into the state `after`, and by the same action others `beside` it."""
        self.in_progress[writer_number] = {entry: expected, **also_changed}

    def done(self, writer_number: int) -> None:
        """What that hand was about to do is acknowledged."""
        self.expected.update(self.in_progress.pop(writer_number))
        self.acknowledged += 1

    def refused(self, writer_number: int) -> None:
        """What that hand was about to do was refused, with a sentence: nothing of it happened."""
        self.in_progress.pop(writer_number)

    def replay(self, events: Iterable[tuple[Any, ...]]) -> None:
        """Enter what a process told, each with the place of the disk's log before it."""
        for _, event_name, *rest in events:
            if event_name in ("begin", "done", "refused"):
                getattr(self, event_name)(*rest)

    def entries(self) -> dict[bytes, ExpectedEntry]:
        """The entries that there are."""
        return {entry: line for entry, line in self.expected.items() if line is not None}

    def reconcile(self, actual: dict[bytes, ExpectedEntry]) -> tuple[int, int]:
        """(acknowledged deeds that are lost, deeds that half happened); takes what was found as the new truth."""
        lost = half_done = 0
        targets: dict[bytes, ExpectedEntry | None] = {}
        for targets_of_writer in self.in_progress.values():
            targets |= targets_of_writer
            changed = {
                actual.get(entry) == target
                for entry, target in targets_of_writer.items()
                if target != self.expected.get(entry)
            }
            half_done += len(changed) > 1  # some of what one action does, and not all of it
        for entry in self.expected.keys() | targets.keys() | actual.keys():
            actual_entry, before = actual.get(entry), self.expected.get(entry)
            if actual_entry == before or (entry in targets and actual_entry == targets[entry]):
                continue
            if entry in targets and actual_entry is not None and before is not None:
                half_done += 1
            else:
                lost += 1
        self.expected = dict(actual)
        self.in_progress.clear()
        return lost, half_done


def load_keys(database: Path, user_id: bytes, code: str) -> Keyring:
    """Open the user's keys as the file has them now, with the recovery code."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN")  # one instant
        slots = connection.execute(
            "SELECT id, kind, salt, params, sealed FROM key_slots WHERE user_id=?", (user_id,)
        ).fetchall()
        rows = connection.execute(
            "SELECT epoch, sealed FROM data_keys WHERE user_id=?", (user_id,)
        ).fetchall()
        ring = connection.execute(
            "SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)
        ).fetchone()
    sealed = SealedKeys(tuple(SealedDataKey(*row) for row in rows), *ring)
    return open_keyring(
        user_id, open_slots(user_id, [KeySlot(*slot) for slot in slots], code), sealed
    )


def load_entries(database: Path, keys: Keyring) -> dict[bytes, ExpectedEntry]:
    """Every entry of a writer as the file has it. Raises vault.envelope.SealError for a record that does not open."""
    with closing(sqlite3.connect(database)) as connection:

        def rows(table: str, *columns: str) -> Iterable[tuple[Any, ...]]:
            names = ", ".join(
                (
                    KIND_BY_TABLE[table].id_column,
                    KIND_BY_TABLE[table].revision_column,
                    "sealed",
                    *columns,
                )
            )
            return connection.execute(
                f"SELECT {names} FROM {table} WHERE user_id=?",  # noqa: S608
                (keys.user_id,),
            )

        earlier_texts: dict[bytes, list[tuple[int, str]]] = {}
        for version, revision, sealed, entry in rows("versions", "entry_id"):
            opened = KIND_BY_TABLE["versions"].open(keys, version, revision, sealed)
            record = msgspec.json.decode(opened, type=Version)
            earlier_texts.setdefault(entry, []).append((record.revision, record.text))
        names = {row[0]: json.loads(KIND_BY_TABLE["tags"].open(keys, *row)) for row in rows("tags")}
        tags: dict[bytes, set[str]] = {}
        links = connection.execute(
            "SELECT entry_id, tag FROM entry_tags WHERE user_id=?", (keys.user_id,)
        )
        for entry, tag_id in links:
            tags.setdefault(entry, set()).add(names[tag_id])
        entries: dict[bytes, ExpectedEntry] = {}
        for entry, revision, sealed in rows("entries"):
            opened = KIND_BY_TABLE["entries"].open(keys, entry, revision, sealed)
            record = msgspec.json.decode(opened, type=Entry)
            entries[entry] = ExpectedEntry(
                record.text,
                revision,
                record.deleted is not None,
                tuple(text for _, text in sorted(earlier_texts.pop(entry, []), reverse=True)),
                frozenset(tags.pop(entry, ())),
            )
        trashed_ids: set[bytes] = set()
        for row in rows("trash"):
            opened = KIND_BY_TABLE["trash"].open(keys, *row)
            trashed_ids = {item.id for item in msgspec.json.decode(opened, type=list[DeletedEntry])}
    if (
        earlier_texts
        or tags
        or trashed_ids != {entry for entry, line in entries.items() if line.deleted}
    ):
        raise HalfDoneError(
            "versions, traces or the list of deleted entries do not go with the entries"
        )
    return entries


class HalfDoneError(Exception):
    """Two records that one action writes do not go together."""


def check_store(
    database: Path, user_id: bytes, code: str, expected: ExpectedState
) -> dict[str, int]:
    """Look at a store after a crash: what is lost, what is half done, what is damaged."""
    try:
        keys = load_keys(database, user_id, code)
        damage = run_checks(database, resource("migrations"), keys).damage
        lost, half_done = expected.reconcile(load_entries(database, keys))
    except HalfDoneError:
        return {"lost": 0, "half": 1, "damaged": 0}
    except (SealError, StorageError, sqlite3.Error, KeyError):
        return {"lost": 0, "half": 0, "damaged": 1}
    return {"lost": lost, "half": half_done, "damaged": len(damage)}


def count_broken_files(folder: Path, recovery_code: str) -> tuple[int, int]:
    """(backups and copies under their names that are not whole, how many there are)."""
    broken = total = 0
    for file in folder.rglob("*.llamora"):
        total += 1
        try:
            header: Header = read_header(file)
            verify_backup(file, header, header.unlock(recovery_code))
        except (BackupError, VaultError):
            broken += 1
    for file in folder.rglob("*.sqlite3"):
        if file.parent.name == "backups":
            total += 1
            broken += not is_whole(file)
    return broken, total


def is_whole(copy_path: Path) -> bool:
    """Whether a copy of the database passes its check and has a writer in it."""
    try:
        with closing(sqlite3.connect(f"file:{copy_path}?mode=ro", uri=True)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",) and bool(
                connection.execute("SELECT 1 FROM users").fetchone()
            )
    except sqlite3.Error:
        return False
