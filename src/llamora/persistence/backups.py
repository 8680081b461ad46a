"""Backups: everything of one writer in one sealed file, and the whole database copied as it is.

The format of the file is written out in docs/encryption.md; scripts/open_backup.py reads it without this program.
Everything here blocks: call it on a thread.
"""

import json
import os
import secrets
import sqlite3
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import Timeout

from llamora.dates import utc_now
from llamora.persistence.connection import (
    NotFound,
    Row,
    StorageError,
    connect,
    lock_error,
    prepare_file,
    storage_error,
    sync_folder,
    write_lock,
)
from llamora.persistence.entries import instant, micros
from llamora.persistence.schema import BACKUP_CHUNK, BACKUP_LAST, KINDS, OPENS_UNRELEASED, Kind
from llamora.persistence.users import NameTaken, name_key
from llamora.vault.envelope import OVERHEAD_BYTES, SealError, UnknownFormat, WrongKey
from llamora.vault.keys import Keyring, KeyringClosed, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.slots import KeySlot, open_slots

MAGIC = b"LLBACKUP"
VERSION = 2
"""1 is of the schemas before the first release."""
CHUNK_BYTES = 1 << 20
"""A chunk ends with the record that takes it to this size."""
LOCK_SECONDS = 30.0
MOST_HEADER_BYTES = 1 << 20
USER_ID_BYTES = 16
_LENGTH = struct.Struct(">I")


class BackupError(StorageError):
    """The file is no backup, or not a whole and unchanged one; nothing was changed."""


@dataclass(slots=True, frozen=True)
class Manifest:
    """What a backup says of itself in its last chunk. `records` counts by table.

    `unreadable` of them did not open when the backup was made; they are in it as they were. `schema` is the last
    migration of the database it was made from.
    """

    name: str
    made: datetime
    recovery_confirmed: bool
    schema: int
    records: dict[str, int]
    unreadable: int

    def packed(self) -> bytes:
        """As JSON; `made` in microseconds since 1970."""
        return json.dumps({**asdict(self), "made": micros(self.made)}, ensure_ascii=False).encode()

    @classmethod
    def unpacked(cls, packed: bytes) -> "Manifest":
        """The manifest of `packed`."""
        fields: dict[str, Any] = json.loads(packed)
        fields["made"] = instant(fields["made"])
        return cls(**fields)


@dataclass(slots=True, frozen=True)
class Record:
    """One row of a backup; bytes or whole numbers by column. `sealed` is empty for a link."""

    kind: Kind
    columns: dict[str, bytes | int]
    sealed: bytes
    unreadable: bool = False

    def packed(self) -> bytes:
        """u32 length | JSON | u32 length | envelope."""
        shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in self.columns.items()}
        head: dict[str, object] = {"table": self.kind.table, "columns": shown}
        if self.unreadable:
            head["unreadable"] = True
        text = json.dumps(head, separators=(",", ":")).encode()
        return _LENGTH.pack(len(text)) + text + _LENGTH.pack(len(self.sealed)) + self.sealed


@dataclass(slots=True, frozen=True)
class Header:
    """What stands before the chunks: whose the file is and the sealed keys to it. `digest` goes into every chunk."""

    user_id: bytes
    slots: tuple[KeySlot, ...]
    keys: SealedKeys
    digest: bytes
    ends_at: int

    def unlock(self, secret: str) -> Keyring:
        """The writer's keys, by passphrase or recovery code of the day of the backup. Blocks for the KDF.

        Raises vault.slots.WrongSecret, SealError and KdfUnavailable.
        """
        master = open_slots(self.user_id, self.slots, secret)
        try:
            return open_keyring(self.user_id, master, self.keys)
        finally:
            wipe(master)


# -- making ------------------------------------------------------------------------------------------


def write_backup(database: Path, keys: Keyring, target: Path) -> Manifest:
    """Put everything of one writer, as it stands at one instant, into the file `target`, replacing it when whole.

    Raises StorageError with a sentence (NotFound when the journal was ended, also meanwhile), and
    vault.keys.KeyringClosed when the writer locked meanwhile.
    """
    here = _still_here(database, keys.user_id)
    with _whole_file(target, here) as out, reading(database) as connection, _as_stored(connection, keys) as stored:
        about = "SELECT name, recovery_confirmed FROM users WHERE id=?"
        name, confirmed = connection.execute(about, (keys.user_id,)).fetchone()
        (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        header = _header_bytes(connection, keys.user_id)
        out.write(header)
        chunks = _Chunks(out, stored, sha256(header).digest())
        counts = {kind.table: 0 for kind in KINDS if not kind.derived}
        unreadable = 0
        for record in _records(connection, stored):
            if keys.closed:
                raise KeyringClosed("the keys were locked")
            counts[record.kind.table] += 1
            unreadable += record.unreadable
            chunks.add(record.packed())
        manifest = Manifest(name, utc_now(), bool(confirmed), schema, counts, unreadable)
        chunks.finish(manifest.packed())
    return manifest


@contextmanager
def _as_stored(connection: sqlite3.Connection, keys: Keyring) -> Generator[Keyring]:
    """The writer's keys of the instant that `connection` sees, which a change of key meanwhile leaves alone.

    The keys of the session go with the change: what they seal then names a key that the header does not hold.
    """
    sealed, master = sealed_keys(connection, keys.user_id), keys.master
    try:
        stored = open_keyring(keys.user_id, master, sealed)
    except WrongKey:
        raise StorageError("The key was changed elsewhere in the meantime. Try again.") from None
    finally:
        wipe(master)
    try:
        yield stored
    finally:
        stored.close()


@contextmanager
def _still_here(database: Path, user_id: bytes) -> Generator[None]:
    """A moment in which a writer is here and nobody can end their journal: who ends it next removes this file too."""
    try:
        with write_lock(database).acquire(timeout=LOCK_SECONDS), closing(connect(database)) as connection:
            if not connection.execute("SELECT 1 FROM users WHERE id=?", (user_id,)).fetchone():
                raise NotFound("There is no such writer here.")
            yield
    except Timeout:
        raise StorageError("The journal’s file is in use by another program. Try again in a moment.") from None
    except sqlite3.Error as error:
        raise storage_error(error) from None


class _Chunks:
    """Seals what is added, a chunk at a time, each for its number in this one file."""

    def __init__(self, out: BinaryIO, keys: Keyring, digest: bytes) -> None:
        self._out = out
        self._keys = keys
        self._digest = digest
        self._pending = bytearray()
        self._number = 0

    def add(self, piece: bytes) -> None:
        self._pending += piece
        if len(self._pending) >= CHUNK_BYTES:
            self._write(BACKUP_CHUNK)

    def finish(self, last: bytes) -> None:
        if self._pending:
            self._write(BACKUP_CHUNK)
        self._pending += last
        self._write(BACKUP_LAST)

    def _write(self, kind: Kind) -> None:
        sealed = kind.seal(self._keys, self._digest, self._number, bytes(self._pending))
        self._out.write(_LENGTH.pack(len(sealed)) + sealed)
        self._pending.clear()
        self._number += 1


def _header_bytes(connection: sqlite3.Connection, user_id: bytes) -> bytes:
    slots = connection.execute("SELECT id, kind, salt, params, sealed FROM key_slots WHERE user_id=?", (user_id,))
    keys = sealed_keys(connection, user_id)
    fields = {
        "id": secrets.token_hex(16),  # no two backups have a header in common, so no chunk of one fits another
        "user": user_id.hex(),
        "slots": [
            {"id": slot_id.hex(), "kind": kind, "salt": salt.hex(), "params": params, "sealed": sealed.hex()}
            for slot_id, kind, salt, params, sealed in slots
        ],
        "data_keys": [{"epoch": key.epoch, "sealed": key.sealed.hex()} for key in keys.data_keys],
        "keyring": {"slots": keys.slots.hex(), "index_key": keys.index_key.hex()},
    }
    text = json.dumps(fields).encode()
    return MAGIC + bytes([VERSION]) + _LENGTH.pack(len(text)) + text


def sealed_keys(connection: sqlite3.Connection, user_id: bytes) -> SealedKeys:
    """Read a user's sealed keys as this connection sees them. Raises NotFound."""
    rows = connection.execute("SELECT epoch, sealed FROM data_keys WHERE user_id=? ORDER BY epoch", (user_id,))
    data_keys = tuple(SealedDataKey(*row) for row in rows)
    ring = connection.execute("SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)).fetchone()
    if ring is None:
        raise NotFound("There is no such writer here.")
    return SealedKeys(data_keys, *ring)


def _records(connection: sqlite3.Connection, keys: Keyring) -> Iterator[Record]:
    for kind in KINDS:
        if kind.derived:
            continue
        sealed = ", sealed" if kind.purpose else ""
        rows = connection.execute(
            f"SELECT {', '.join(kind.columns)}{sealed} FROM {kind.table} WHERE user_id=?", (keys.user_id,)
        )
        for row in cast("Iterator[Row]", rows):
            columns = dict(zip(kind.columns, row, strict=False))
            envelope: bytes = row[-1] if kind.purpose else b""
            yield Record(kind, columns, envelope, not _opens(keys, kind, columns, envelope))


def _opens(keys: Keyring, kind: Kind, columns: dict[str, bytes | int], sealed: bytes) -> bool:
    if kind.purpose is None:
        return True
    record_id = columns.get(kind.id, keys.user_id)
    try:
        kind.open(keys, record_id, cast(int, columns[kind.revision]), sealed)
        return True
    except (SealError, OverflowError):
        return False


# -- reading -----------------------------------------------------------------------------------------


def read_header(path: Path) -> Header:
    """The part of a backup that is read before its keys are known. Raises BackupError."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC) + 1 + _LENGTH.size)
            if start[: len(MAGIC)] != MAGIC:
                raise BackupError("This file is not a Llamora backup.")
            if len(start) < len(MAGIC) + 1 + _LENGTH.size:
                raise BackupError("This backup is cut short.")
            if start[len(MAGIC)] == 1:
                raise BackupError(
                    "This backup was made by a Llamora from before the first release. The last one that opens it is"
                    f" {OPENS_UNRELEASED}."
                )
            if start[len(MAGIC)] != VERSION:
                raise BackupError("This backup was made by a newer Llamora. Open it with that version or a newer one.")
            (length,) = _LENGTH.unpack(start[-_LENGTH.size :])
            text = file.read(min(length, MOST_HEADER_BYTES))
    except OSError as error:
        raise BackupError(f"The file cannot be read: {(error.strerror or 'it is not there').lower()}.") from None
    if len(text) < length:
        raise BackupError("This backup is cut short.")
    try:
        fields = json.loads(text)
        slots = tuple(_slot_of(each) for each in fields["slots"])
        data_keys = tuple(SealedDataKey(int(key["epoch"]), bytes.fromhex(key["sealed"])) for key in fields["data_keys"])
        ring = fields["keyring"]
        keys = SealedKeys(data_keys, bytes.fromhex(ring["slots"]), bytes.fromhex(ring["index_key"]))
        user_id = bytes.fromhex(fields["user"])
        if len(user_id) != USER_ID_BYTES or not all(0 < key.epoch < 1 << 32 for key in data_keys):
            raise ValueError
    # A stranger's file may hold anything that JSON can say: brackets without end, numbers without end.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise BackupError("This backup is damaged: its beginning cannot be read.") from None
    return Header(user_id, slots, keys, sha256(start + text).digest(), len(start) + length)


def _slot_of(fields: dict[str, Any]) -> KeySlot:
    kind, params = fields["kind"], fields["params"]
    if not isinstance(kind, str) or not isinstance(params, str | None):
        raise TypeError
    unhex = bytes.fromhex
    return KeySlot(unhex(fields["id"]), kind, unhex(fields["salt"]), params, unhex(fields["sealed"]))


def verify_backup(path: Path, header: Header, keys: Keyring) -> Manifest:
    """Open every chunk and every record of a backup and count them. Changes nothing. Raises BackupError."""
    counts = {kind.table: 0 for kind in KINDS if not kind.derived}
    unreadable = 0
    for item in _contents(path, header, keys):
        if isinstance(item, Manifest):
            # A table that the backup does not know is newer than it.
            if {**dict.fromkeys(counts, 0), **item.records} != counts or item.unreadable != unreadable:
                raise BackupError("This backup is damaged: it does not hold what it says it holds.")
            return item
        counts[item.kind.table] += 1
        unreadable += item.unreadable
        if not item.unreadable and not _opens(keys, item.kind, item.columns, item.sealed):
            raise BackupError("This backup is damaged: a record in it does not open.")
    raise BackupError("This backup is cut short.")


def _contents(path: Path, header: Header, keys: Keyring) -> Iterator[Record | Manifest]:
    """The records of a backup, and last of all its manifest. Raises BackupError."""
    try:
        with path.open("rb") as file:
            file.seek(header.ends_at)
            left = path.stat().st_size - header.ends_at
            number = 0
            while left:
                start = file.read(_LENGTH.size)
                length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else -1
                left -= _LENGTH.size + length
                if length < OVERHEAD_BYTES or left < 0:
                    raise BackupError("This backup is cut short.")
                content = _open_chunk(keys, header.digest, number, file.read(length), last=left == 0)
                if left == 0:
                    yield _manifest(content)
                    return
                yield from _unpacked(content)
                number += 1
    except OSError as error:
        raise BackupError(f"The backup cannot be read: {(error.strerror or 'no reason given').lower()}.") from None
    raise BackupError("This backup is cut short.")


def _open_chunk(keys: Keyring, digest: bytes, number: int, sealed: bytes, *, last: bool) -> bytes:
    kind, other = (BACKUP_LAST, BACKUP_CHUNK) if last else (BACKUP_CHUNK, BACKUP_LAST)
    try:
        return kind.open(keys, digest, number, sealed)
    except UnknownFormat:
        raise BackupError("This backup is damaged or cut short.") from None
    except SealError:
        try:
            other.open(keys, digest, number, sealed)
        except SealError:
            raise BackupError("This backup is damaged: a part of it was changed, moved or exchanged.") from None
        words = "This backup is cut short." if last else "This backup is damaged: something follows its end."
        raise BackupError(words) from None


def _manifest(content: bytes) -> Manifest:
    try:
        return Manifest.unpacked(content)
    except (ValueError, LookupError, TypeError):
        raise BackupError(
            "This backup was made by a newer Llamora. Open it with that version or a newer one."
        ) from None


def _unpacked(content: bytes) -> Iterator[Record]:
    kinds = {kind.table: kind for kind in KINDS if not kind.derived}
    at = 0
    try:
        while at < len(content):
            head, at = _piece(content, at)
            sealed, at = _piece(content, at)
            fields: dict[str, Any] = json.loads(head)
            kind = kinds[fields["table"]]
            columns = {
                name: bytes.fromhex(value) if isinstance(value, str) else int(value)
                for name, value in fields["columns"].items()
            }
            if not set(columns) <= set(kind.columns):
                raise KeyError
            yield Record(kind, columns, sealed, bool(fields.get("unreadable")))
    except (ValueError, LookupError, TypeError, struct.error):
        # The chunk is as it was made, so it is this program that does not know what is in it.
        raise BackupError(
            "This backup was made by a newer Llamora. Open it with that version or a newer one."
        ) from None


def _piece(content: bytes, at: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(content, at)
    start = at + _LENGTH.size
    return content[start : start + length], start + length


# -- putting back ------------------------------------------------------------------------------------


def restore_backup(
    database: Path, path: Path, header: Header, keys: Keyring, *, name: str = "", replace: bool = False
) -> Manifest:
    """Put a backup back, all or nothing, after every record of it was opened; the writer's sessions end.

    With `replace`, what the same writer has here gives way to it; else a writer who is here already is refused.
    `name` is a new name to sign in with. Raises BackupError, NameTaken and StorageError.
    """
    manifest = verify_backup(path, header, keys)
    shown = name or manifest.name
    with writing(database) as connection:
        (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        if manifest.schema > schema:
            raise BackupError("This backup was made by a newer Llamora. Restore it with that version or a newer one.")
        if connection.execute("SELECT 1 FROM users WHERE id=?", (header.user_id,)).fetchone():
            if not replace:
                raise BackupError("This writer is here already. With --replace, the backup takes the journal’s place.")
            connection.execute("DELETE FROM users WHERE id=?", (header.user_id,))
        if connection.execute("SELECT 1 FROM users WHERE name_key=?", (name_key(shown),)).fetchone():
            raise NameTaken("Somebody else here has that name. Give another with --name.")
        connection.execute(
            "INSERT INTO users (id, name, name_key, recovery_confirmed) VALUES (?, ?, ?, ?)",
            (header.user_id, shown, name_key(shown), manifest.recovery_confirmed),
        )
        connection.executemany(
            "INSERT INTO key_slots (id, user_id, kind, salt, params, sealed) VALUES (?, ?, ?, ?, ?, ?)",
            [(slot.id, header.user_id, slot.kind, slot.salt, slot.params, slot.sealed) for slot in header.slots],
        )
        for item in _contents(path, header, keys):
            if isinstance(item, Record):
                _insert(connection, header.user_id, item)
        connection.execute(
            "INSERT INTO keyrings (user_id, slots, index_key) VALUES (?, ?, ?)",
            (header.user_id, header.keys.slots, header.keys.index_key),
        )
        # Last: while there are no keys, also a record is let in whose own key is gone.
        connection.executemany(
            "INSERT INTO data_keys (user_id, epoch, sealed) VALUES (?, ?, ?)",
            [(header.user_id, key.epoch, key.sealed) for key in header.keys.data_keys],
        )
    return manifest


def _insert(connection: sqlite3.Connection, user_id: bytes, record: Record) -> None:
    values: dict[str, object] = {"user_id": user_id, **record.columns}
    if record.kind.purpose:
        values["sealed"] = record.sealed
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {record.kind.table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))


# -- the whole database --------------------------------------------------------------------------------


def copy_database(database: Path, target: Path) -> None:
    """Copy the database beside a running server, still sealed, and check the copy. Raises StorageError.

    An existing file is never replaced.
    """
    if target.exists():
        raise StorageError(f"{target} is there already. Choose another name.")
    if not database.exists():
        raise StorageError(f"There is no journal at {database}.")

    def fill(part: Path) -> None:
        try:
            with _connected(database) as source, closing(sqlite3.connect(part)) as copy:
                source.backup(copy)
                if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise StorageError("The copy did not pass its check. Run llamora-server doctor.")
        except sqlite3.Error as error:
            raise storage_error(error) from None

    put_in_place(target, fill)


# -- files and connections -----------------------------------------------------------------------------


@contextmanager
def _whole_file(target: Path, moment: AbstractContextManager[None]) -> Generator[BinaryIO]:
    """A file that stands at `target` once the block is through and it is on the disk, and not before.

    It gets its name at the `moment`.
    """
    part = _part_of(target)
    try:
        with part.open("r+b") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        with moment:
            _move(part, target)
    except OSError as error:
        raise _no_file(target, error) from None
    finally:
        _discard(part)


def put_in_place(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` make a file, which stands at `target` once it is whole and on the disk, and not before.

    Raises StorageError, and what `fill` raises.
    """
    part = _part_of(target)
    try:
        fill(part)
        with part.open("r+b") as out:
            os.fsync(out.fileno())
        _move(part, target)
    except OSError as error:
        raise _no_file(target, error) from None
    finally:
        _discard(part)


def _part_of(target: Path) -> Path:
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        prepare_file(part)
    except StorageError:
        _discard(part)
        raise
    return part


def _discard(part: Path) -> None:
    """Remove what is left of a file that did not become whole, and what SQLite laid beside it, where the disk lets."""
    with suppress(OSError):
        for left in part.parent.glob(f"{escape(part.name)}*"):
            left.unlink(missing_ok=True)


def _move(part: Path, target: Path) -> None:
    part.replace(target)
    sync_folder(target.parent)  # the name too must be on the disk


def _no_file(target: Path, error: OSError) -> StorageError:
    return StorageError(f"{target} could not be written: {(error.strerror or 'no reason given').lower()}.")


@contextmanager
def _connected(database: Path) -> Generator[sqlite3.Connection]:
    """A connection that is closed while nobody writes: the last one to close writes the log back."""
    connection = connect(database)
    try:
        yield connection
    finally:
        try:
            with write_lock(database).acquire(timeout=LOCK_SECONDS):
                connection.close()
        except OSError:  # it was not to be had in time, or at all
            connection.close()


@contextmanager
def reading(database: Path) -> Generator[sqlite3.Connection]:
    """A connection that sees the database as it is at one instant."""
    try:
        with _connected(database) as connection:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise storage_error(error) from None


@contextmanager
def writing(database: Path) -> Generator[sqlite3.Connection]:
    """One transaction beside a running server, all or nothing, after which nothing is left of what it removed."""
    try:
        with write_lock(database).acquire(timeout=LOCK_SECONDS), closing(connect(database)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except Timeout:
        raise StorageError("The journal’s file is in use by another program. Try again in a moment.") from None
    except OSError as error:
        raise lock_error(error) from None
    except sqlite3.Error as error:
        raise storage_error(error) from None
