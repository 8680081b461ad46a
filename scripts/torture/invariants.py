"""Compare what a store has acknowledged with what it holds, after kills and power cuts.

A writer says what it is about to do, does it, and says that it is done. After the crash every entry must stand as the
last action on it that was done left it; the one action that each writer had in progress may have happened or not, but
wholly.
"""

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
    """Hold an entry as its writer knows it; the earlier texts are newest first."""

    text: str
    revision: int = 1
    deleted: bool = False
    earlier_texts: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()

    def after_edit(self, text: str) -> "ExpectedEntry":
        """Return it after an edit: what the text named as tags goes with it."""
        tags = (self.tags - set(find_tags(self.text))) | set(find_tags(text))
        earlier = (self.text, *self.earlier_texts)
        return ExpectedEntry(text, self.revision + 1, self.deleted, earlier, tags)

    def with_deleted(self, *, deleted: bool) -> "ExpectedEntry":
        """Return it after it was deleted or restored."""
        return replace(self, deleted=deleted, revision=self.revision + 1)


@dataclass(slots=True)
class ExpectedState:
    """Keep what was acknowledged; None stands for an entry that was erased."""

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
        """Note that a writer is about to bring an entry into a state, and by the same action others."""
        self.in_progress[writer_number] = {entry: expected, **also_changed}

    def done(self, writer_number: int) -> None:
        """Note that what that writer was about to do is acknowledged."""
        self.expected.update(self.in_progress.pop(writer_number))
        self.acknowledged += 1

    def refused(self, writer_number: int) -> None:
        """Note that what that writer was about to do was refused: nothing of it happened."""
        self.in_progress.pop(writer_number)

    def replay(self, events: Iterable[tuple[Any, ...]]) -> None:
        """Enter what a process told, each with the place of the disk's log before it."""
        for _, event_name, *rest in events:
            if event_name in ("begin", "done", "refused"):
                getattr(self, event_name)(*rest)

    def entries(self) -> dict[bytes, ExpectedEntry]:
        """Return the entries that there are."""
        return {entry: line for entry, line in self.expected.items() if line is not None}

    def reconcile(self, actual: dict[bytes, ExpectedEntry]) -> tuple[int, int]:
        """Count acknowledged actions that are lost, and half done ones; take what was found as the new truth."""
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

        def rows(columns: str, table: str) -> list[Any]:
            sql = f"SELECT {columns} FROM {table} WHERE user_id=?"  # noqa: S608
            return connection.execute(sql, (user_id,)).fetchall()

        slots = [KeySlot(*row) for row in rows("id, kind, salt, params, sealed", "key_slots")]
        data_keys = tuple(SealedDataKey(*row) for row in rows("epoch, sealed", "data_keys"))
        ((packed_slots, index_key),) = rows("slots, index_key", "keyrings")
    sealed = SealedKeys(data_keys, packed_slots, index_key)
    return open_keyring(user_id, open_slots(user_id, slots, code), sealed)


def _read(
    connection: sqlite3.Connection, keys: Keyring, table: str, *columns: str
) -> Iterable[Any]:
    """(id, revision, what is sealed, columns...) of each record. Raises vault.envelope.SealError."""
    kind = KIND_BY_TABLE[table]
    names = ", ".join((kind.id_column, kind.revision_column, "sealed", *columns))
    sql = f"SELECT {names} FROM {table} WHERE user_id=?"  # noqa: S608
    for record_id, revision, sealed, *others in connection.execute(sql, (keys.user_id,)):
        yield record_id, revision, kind.open(keys, record_id, revision, sealed), *others


def load_entries(database: Path, keys: Keyring) -> dict[bytes, ExpectedEntry]:
    """Return every entry of a user as the file has it.

    Raises vault.envelope.SealError for a record that does not open, HalfDoneError where records do not fit.
    """
    decode = msgspec.json.decode
    earlier_texts: dict[bytes, list[tuple[int, str]]] = {}
    tags: dict[bytes, set[str]] = {}
    entries: dict[bytes, ExpectedEntry] = {}
    with closing(sqlite3.connect(database)) as connection:
        for _, _, opened, entry in _read(connection, keys, "versions", "entry_id"):
            version = decode(opened, type=Version)
            earlier_texts.setdefault(entry, []).append((version.revision, version.text))
        names = {tag_id: decode(opened) for tag_id, _, opened in _read(connection, keys, "tags")}
        links = "SELECT entry_id, tag FROM entry_tags WHERE user_id=?"
        for entry, tag_id in connection.execute(links, (keys.user_id,)):
            tags.setdefault(entry, set()).add(names[tag_id])
        for entry, revision, opened in _read(connection, keys, "entries"):
            record = decode(opened, type=Entry)
            texts = tuple(text for _, text in sorted(earlier_texts.pop(entry, []), reverse=True))
            tag_names = frozenset(tags.pop(entry, ()))
            deleted = record.deleted is not None
            entries[entry] = ExpectedEntry(record.text, revision, deleted, texts, tag_names)
        trashed_ids: set[bytes] = set()
        for _, _, opened in _read(connection, keys, "trash"):
            trashed_ids = {item.id for item in decode(opened, type=list[DeletedEntry])}
    deleted_ids = {entry for entry, line in entries.items() if line.deleted}
    if earlier_texts or tags or trashed_ids != deleted_ids:
        raise HalfDoneError("versions, tags or the list of deleted entries do not go with entries")
    return entries


class HalfDoneError(Exception):
    """Say that two records that one action writes do not go together."""


def check_store(
    database: Path, user_id: bytes, code: str, expected: ExpectedState
) -> dict[str, int]:
    """Look at a store after a crash: count what is lost, half done or damaged."""
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
    """Count the backups and copies under their names that are not whole, and all of them."""
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
    """Tell whether a copy of the database passes its check and has a user in it."""
    try:
        with closing(sqlite3.connect(f"file:{copy_path}?mode=ro", uri=True)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",) and bool(
                connection.execute("SELECT 1 FROM users").fetchone()
            )
    except sqlite3.Error:
        return False
