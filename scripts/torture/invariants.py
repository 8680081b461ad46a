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

from llamora.persistence.backups import BackupError, Header, read_header, verify_backup
from llamora.persistence.connection import StorageError
from llamora.persistence.doctor import run_checks
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RECORD_KINDS
from llamora.settings import resource
from llamora.text import find_tags
from llamora.vault.envelope import SealError, VaultError
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.slots import KeySlot, open_slots

KIND = {kind.table: kind for kind in RECORD_KINDS}


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as its writer knows it. `before` are the earlier texts, newest first."""

    text: str
    revision: int = 1
    deleted: bool = False
    before: tuple[str, ...] = ()
    traces: frozenset[str] = frozenset()

    def edited(self, text: str) -> "Line":
        """After an edit: what the text named as traces goes with it."""
        traces = (self.traces - set(find_tags(self.text))) | set(find_tags(text))
        return replace(self, text=text, revision=self.revision + 1, before=(self.text, *self.before), traces=traces)

    def marked(self, *, deleted: bool) -> "Line":
        """After it was deleted or brought back."""
        return replace(self, deleted=deleted, revision=self.revision + 1)


@dataclass(slots=True)
class Promises:
    """What was acknowledged; None stands for an entry that was erased."""

    kept: dict[bytes, Line | None] = field(default_factory=dict[bytes, "Line | None"])
    under_way: dict[int, dict[bytes, Line | None]] = field(default_factory=dict[int, "dict[bytes, Line | None]"])
    acknowledged: int = 0

    def begin(
        self, hand: int, entry: bytes, after: Line | None, beside: Mapping[bytes, Line] = MappingProxyType({})
    ) -> None:
        """A hand is about to bring an entry into the state `after`, and by the same action others `beside` it."""
        self.under_way[hand] = {entry: after, **beside}

    def done(self, hand: int) -> None:
        """What that hand was about to do is acknowledged."""
        self.kept.update(self.under_way.pop(hand))
        self.acknowledged += 1

    def refused(self, hand: int) -> None:
        """What that hand was about to do was refused, with a sentence: nothing of it happened."""
        self.under_way.pop(hand)

    def take(self, told: Iterable[tuple[Any, ...]]) -> None:
        """Enter what a process told, each with the place of the disk's log before it."""
        for _, word, *rest in told:
            if word in ("begin", "done", "refused"):
                getattr(self, word)(*rest)

    def lines(self) -> dict[bytes, Line]:
        """The entries that there are."""
        return {entry: line for entry, line in self.kept.items() if line is not None}

    def settle(self, found: dict[bytes, Line]) -> tuple[int, int]:
        """(acknowledged deeds that are lost, deeds that half happened); takes what was found as the new truth."""
        lost = half = 0
        targets: dict[bytes, Line | None] = {}
        for after in self.under_way.values():
            targets |= after
            changed = {found.get(entry) == line for entry, line in after.items() if line != self.kept.get(entry)}
            half += len(changed) > 1  # some of what one action does, and not all of it
        for entry in self.kept.keys() | targets.keys() | found.keys():
            there, before = found.get(entry), self.kept.get(entry)
            if there == before or (entry in targets and there == targets[entry]):
                continue
            if entry in targets and there is not None and before is not None:
                half += 1
            else:
                lost += 1
        self.kept = dict(found)
        self.under_way.clear()
        return lost, half


def keys_of(database: Path, user_id: bytes, code: str) -> Keyring:
    """Open the user's keys as the file has them now, with the recovery code."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN")  # one instant
        slots = connection.execute(
            "SELECT id, kind, salt, params, sealed FROM key_slots WHERE user_id=?", (user_id,)
        ).fetchall()
        rows = connection.execute("SELECT epoch, sealed FROM data_keys WHERE user_id=?", (user_id,)).fetchall()
        ring = connection.execute("SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)).fetchone()
    sealed = SealedKeys(tuple(SealedDataKey(*row) for row in rows), *ring)
    return open_keyring(user_id, open_slots(user_id, [KeySlot(*slot) for slot in slots], code), sealed)


def lines_of(database: Path, keys: Keyring) -> dict[bytes, Line]:
    """Every entry of a writer as the file has it. Raises vault.envelope.SealError for a record that does not open."""
    with closing(sqlite3.connect(database)) as connection:

        def rows(table: str, *columns: str) -> Iterable[tuple[Any, ...]]:
            names = ", ".join((KIND[table].id_column, KIND[table].revision_column, "sealed", *columns))
            return connection.execute(f"SELECT {names} FROM {table} WHERE user_id=?", (keys.user_id,))  # noqa: S608

        before: dict[bytes, list[tuple[int, str]]] = {}
        for version, revision, sealed, entry in rows("versions", "entry_id"):
            record = json.loads(KIND["versions"].open(keys, version, revision, sealed))
            before.setdefault(entry, []).append((record["revision"], record["text"]))
        names = {row[0]: KIND["tags"].open(keys, *row).decode() for row in rows("tags")}
        traces: dict[bytes, set[str]] = {}
        links = connection.execute("SELECT entry_id, tag FROM entry_tags WHERE user_id=?", (keys.user_id,))
        for entry, trace in links:
            traces.setdefault(entry, set()).add(names[trace])
        found: dict[bytes, Line] = {}
        for entry, revision, sealed in rows("entries"):
            record = Entry.from_bytes(entry, revision, KIND["entries"].open(keys, entry, revision, sealed))
            found[entry] = Line(
                record.text,
                revision,
                record.deleted is not None,
                tuple(text for _, text in sorted(before.pop(entry, []), reverse=True)),
                frozenset(traces.pop(entry, ())),
            )
        listed: set[bytes] = set()
        for row in rows("trash"):
            listed = {bytes.fromhex(item["id"]) for item in json.loads(KIND["trash"].open(keys, *row))}
    if before or traces or listed != {entry for entry, line in found.items() if line.deleted}:
        raise HalfDone("versions, traces or the list of deleted entries do not go with the entries")
    return found


class HalfDone(Exception):
    """Two records that one action writes do not go together."""


def check(database: Path, user_id: bytes, code: str, promises: Promises) -> dict[str, int]:
    """Look at a store after a crash: what is lost, what is half done, what is damaged."""
    try:
        keys = keys_of(database, user_id, code)
        damage = run_checks(database, resource("migrations"), keys).damage
        lost, half = promises.settle(lines_of(database, keys))
    except HalfDone:
        return {"lost": 0, "half": 1, "damaged": 0}
    except (SealError, StorageError, sqlite3.Error, KeyError):
        return {"lost": 0, "half": 0, "damaged": 1}
    return {"lost": lost, "half": half, "damaged": len(damage)}


def broken_files(folder: Path, code: str) -> tuple[int, int]:
    """(backups and copies under their names that are not whole, how many there are)."""
    broken = total = 0
    for file in folder.rglob("*.llamora"):
        total += 1
        try:
            header: Header = read_header(file)
            verify_backup(file, header, header.unlock(code))
        except (BackupError, VaultError):
            broken += 1
    for file in folder.rglob("*.sqlite3"):
        if file.parent.name == "backups":
            total += 1
            broken += not is_whole(file)
    return broken, total


def is_whole(copy: Path) -> bool:
    """Whether a copy of the database passes its check and has a writer in it."""
    try:
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",) and bool(
                connection.execute("SELECT 1 FROM users").fetchone()
            )
    except sqlite3.Error:
        return False
