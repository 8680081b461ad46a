"""Backups: everything of one user in one sealed file, and a copy of the whole database.

The format is written out in docs/encryption.md; scripts/open_backup.py reads it without this
program. Everything here blocks: call it on a thread.
"""

import errno
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
    DiskFull,
    NotFound,
    Row,
    StorageError,
    connect,
    fsync_folder,
    lock_error,
    os_reason,
    prepare_file,
    storage_error,
    write_lock,
)
from llamora.persistence.entries import from_micros, to_micros
from llamora.persistence.schema import (
    BACKUP_CHUNK,
    BACKUP_LAST,
    OPENS_UNRELEASED,
    RECORD_KINDS,
    RecordKind,
)
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
LOCK_TIMEOUT_SECONDS = 30.0
MAX_HEADER_BYTES = 1 << 20
USER_ID_BYTES = 16
_LENGTH = struct.Struct(">I")


class BackupError(StorageError):
    """The file is no backup, or not a whole and unchanged one; nothing was changed."""


@dataclass(slots=True, frozen=True)
class Manifest:
    """The description of a backup in its last chunk. `records` counts by table.

    `unreadable` of them did not open when the backup was made; they are in it as they were.
    `schema` is the number of the last migration of the database it was made from.
    """

    name: str
    made: datetime
    recovery_confirmed: bool
    schema: int
    records: dict[str, int]
    unreadable: int

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON; `made` in microseconds since 1970."""
        return json.dumps(
            {**asdict(self), "made": to_micros(self.made)}, ensure_ascii=False
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Return the manifest that `to_bytes` wrote."""
        fields: dict[str, Any] = json.loads(data)
        fields["made"] = from_micros(fields["made"])
        return cls(**fields)


@dataclass(slots=True, frozen=True)
class BackupRecord:
    """One row of a backup: bytes or whole numbers by column. `sealed` is empty for a link."""

    kind: RecordKind
    columns: dict[str, bytes | int]
    sealed: bytes
    unreadable: bool = False

    def to_bytes(self) -> bytes:
        """Return u32 length | JSON | u32 length | envelope."""
        hex_columns = {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in self.columns.items()
        }
        fields: dict[str, object] = {"table": self.kind.table, "columns": hex_columns}
        if self.unreadable:
            fields["unreadable"] = True
        encoded = json.dumps(fields, separators=(",", ":")).encode()
        return _LENGTH.pack(len(encoded)) + encoded + _LENGTH.pack(len(self.sealed)) + self.sealed


@dataclass(slots=True, frozen=True)
class Header:
    """The part of a backup before its chunks: the owner and the sealed keys.

    `digest` is bound into every chunk.
    """

    user_id: bytes
    slots: tuple[KeySlot, ...]
    keys: SealedKeys
    digest: bytes
    end_offset: int

    def unlock(self, secret: str) -> Keyring:
        """Open the user's keys by passphrase or recovery code as of the backup. Blocks for the KDF.

        Raise vault.recovery_code.WrongSecret, SealError and KdfUnavailable.
        """
        master = open_slots(self.user_id, self.slots, secret)
        try:
            return open_keyring(self.user_id, master, self.keys)
        finally:
            wipe(master)


# -- making ----------------------------------------------------------------------------------------


def write_backup(database: Path, keys: Keyring, target: Path) -> Manifest:
    """Write everything of one user, as of one instant, to `target`, replacing it when complete.

    Raise StorageError (NotFound when the account was deleted, also meanwhile), and
    vault.keys.KeyringClosed when the user locked meanwhile.
    """
    user_check = _require_user(database, keys.user_id)
    with (
        _open_atomic(target, user_check) as out,
        read_transaction(database) as connection,
        _keys_at_snapshot(connection, keys) as snapshot_keys,
    ):
        query = "SELECT name, recovery_confirmed FROM users WHERE id=?"
        name, confirmed = connection.execute(query, (keys.user_id,)).fetchone()
        (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        header = _build_header(connection, keys.user_id)
        out.write(header)
        chunks = _ChunkWriter(out, snapshot_keys, sha256(header).digest())
        counts = {kind.table: 0 for kind in RECORD_KINDS if not kind.derived}
        unreadable = 0
        for record in _read_records(connection, snapshot_keys):
            if keys.closed:
                raise KeyringClosed("the keys were locked")
            counts[record.kind.table] += 1
            unreadable += record.unreadable
            chunks.write(record.to_bytes())
        manifest = Manifest(name, utc_now(), bool(confirmed), schema, counts, unreadable)
        chunks.write_last(manifest.to_bytes())
    return manifest


@contextmanager
def _keys_at_snapshot(connection: sqlite3.Connection, keys: Keyring) -> Generator[Keyring]:
    """Open the user's keys as of the instant that `connection` sees.

    The keys of the session change when the keys are rotated meanwhile: what they seal then names a
    key that the header does not hold.
    """
    sealed, master = sealed_keys(connection, keys.user_id), keys.master
    try:
        snapshot_keys = open_keyring(keys.user_id, master, sealed)
    except WrongKey:
        raise StorageError("key_changed_elsewhere") from None
    finally:
        wipe(master)
    try:
        yield snapshot_keys
    finally:
        snapshot_keys.close()


@contextmanager
def _require_user(database: Path, user_id: bytes) -> Generator[None]:
    """Hold a moment in which the user exists and nobody can delete the account.

    Whoever deletes it next deletes this file too.
    """
    try:
        with (
            write_lock(database).acquire(timeout=LOCK_TIMEOUT_SECONDS),
            closing(connect(database)) as connection,
        ):
            if not connection.execute("SELECT 1 FROM users WHERE id=?", (user_id,)).fetchone():
                raise NotFound("user_not_found")
            yield
    except Timeout:
        raise StorageError("journal_busy") from None
    except sqlite3.Error as error:
        raise storage_error(error) from None


class _ChunkWriter:
    """A writer that seals what is added in chunks, each for its number in this one file."""

    def __init__(self, file: BinaryIO, keys: Keyring, digest: bytes) -> None:
        self._file = file
        self._keys = keys
        self._digest = digest
        self._buffer = bytearray()
        self._chunk_number = 0

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            self._flush(BACKUP_CHUNK)

    def write_last(self, manifest: bytes) -> None:
        if self._buffer:
            self._flush(BACKUP_CHUNK)
        self._buffer += manifest
        self._flush(BACKUP_LAST)

    def _flush(self, kind: RecordKind) -> None:
        sealed = kind.seal(self._keys, self._digest, self._chunk_number, bytes(self._buffer))
        self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        self._buffer.clear()
        self._chunk_number += 1


def _build_header(connection: sqlite3.Connection, user_id: bytes) -> bytes:
    slots = connection.execute(
        "SELECT id, kind, salt, params, sealed FROM key_slots WHERE user_id=?", (user_id,)
    )
    keys = sealed_keys(connection, user_id)
    fields = {
        "id": secrets.token_hex(
            16
        ),  # no two backups have a header in common, so no chunk of one fits another
        "user": user_id.hex(),
        "slots": [
            {
                "id": slot_id.hex(),
                "kind": kind,
                "salt": salt.hex(),
                "params": params,
                "sealed": sealed.hex(),
            }
            for slot_id, kind, salt, params, sealed in slots
        ],
        "data_keys": [{"epoch": key.epoch, "sealed": key.sealed.hex()} for key in keys.data_keys],
        "keyring": {"slots": keys.slots.hex(), "index_key": keys.index_key.hex()},
    }
    header_json = json.dumps(fields).encode()
    return MAGIC + bytes([VERSION]) + _LENGTH.pack(len(header_json)) + header_json


def sealed_keys(connection: sqlite3.Connection, user_id: bytes) -> SealedKeys:
    """Return a user's sealed keys as this connection sees them. Raise NotFound."""
    rows = connection.execute(
        "SELECT epoch, sealed FROM data_keys WHERE user_id=? ORDER BY epoch", (user_id,)
    )
    data_keys = tuple(SealedDataKey(*row) for row in rows)
    ring = connection.execute(
        "SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)
    ).fetchone()
    if ring is None:
        raise NotFound("user_not_found")
    return SealedKeys(data_keys, *ring)


def _read_records(connection: sqlite3.Connection, keys: Keyring) -> Iterator[BackupRecord]:
    for kind in RECORD_KINDS:
        if kind.derived:
            continue
        sealed = ", sealed" if kind.purpose else ""
        rows = connection.execute(
            f"SELECT {', '.join(kind.columns)}{sealed} FROM {kind.table} WHERE user_id=?",
            (keys.user_id,),
        )
        for row in cast("Iterator[Row]", rows):
            columns = dict(zip(kind.columns, row, strict=False))
            envelope: bytes = row[-1] if kind.purpose else b""
            yield BackupRecord(
                kind, columns, envelope, not _can_open(keys, kind, columns, envelope)
            )


def _can_open(
    keys: Keyring, kind: RecordKind, columns: dict[str, bytes | int], sealed: bytes
) -> bool:
    if kind.purpose is None:
        return True
    record_id = columns.get(kind.id_column, keys.user_id)
    try:
        kind.open(keys, record_id, cast(int, columns[kind.revision_column]), sealed)
        return True
    except (SealError, OverflowError):
        return False


# -- reading ---------------------------------------------------------------------------------------


def read_header(path: Path) -> Header:
    """Read the part of a backup that needs no keys. Raise BackupError."""
    try:
        with path.open("rb") as file:
            prefix = file.read(len(MAGIC) + 1 + _LENGTH.size)
            if prefix[: len(MAGIC)] != MAGIC:
                raise BackupError("backup_foreign")
            if len(prefix) < len(MAGIC) + 1 + _LENGTH.size:
                raise BackupError("backup_cut_short")
            if prefix[len(MAGIC)] == 1:
                raise BackupError("backup_unreleased", version=OPENS_UNRELEASED)
            if prefix[len(MAGIC)] != VERSION:
                raise BackupError("backup_newer")
            (length,) = _LENGTH.unpack(prefix[-_LENGTH.size :])
            header_json = file.read(min(length, MAX_HEADER_BYTES))
    except OSError as error:
        raise BackupError("file_unreadable", reason=os_reason(error)) from None
    if len(header_json) < length:
        raise BackupError("backup_cut_short")
    try:
        fields = json.loads(header_json)
        slots = tuple(_parse_slot(slot_fields) for slot_fields in fields["slots"])
        data_keys = tuple(
            SealedDataKey(int(key["epoch"]), bytes.fromhex(key["sealed"]))
            for key in fields["data_keys"]
        )
        ring = fields["keyring"]
        keys = SealedKeys(data_keys, bytes.fromhex(ring["slots"]), bytes.fromhex(ring["index_key"]))
        user_id = bytes.fromhex(fields["user"])
        if len(user_id) != USER_ID_BYTES or not all(0 < key.epoch < 1 << 32 for key in data_keys):
            raise ValueError
    # A stranger's file may hold anything that JSON can say: brackets without end, numbers without
    # end.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise BackupError("backup_header_damaged") from None
    return Header(user_id, slots, keys, sha256(prefix + header_json).digest(), len(prefix) + length)


def _parse_slot(fields: dict[str, Any]) -> KeySlot:
    kind, params = fields["kind"], fields["params"]
    if not isinstance(kind, str) or not isinstance(params, str | None):
        raise TypeError
    unhex = bytes.fromhex
    return KeySlot(
        unhex(fields["id"]), kind, unhex(fields["salt"]), params, unhex(fields["sealed"])
    )


def verify_backup(path: Path, header: Header, keys: Keyring) -> Manifest:
    """Open every chunk and record of a backup and count them; nothing is changed.

    Raise BackupError.
    """
    counts = {kind.table: 0 for kind in RECORD_KINDS if not kind.derived}
    unreadable = 0
    for content in _read_contents(path, header, keys):
        if isinstance(content, Manifest):
            # A table that the backup does not know is newer than it.
            if {
                **dict.fromkeys(counts, 0),
                **content.records,
            } != counts or content.unreadable != unreadable:
                raise BackupError("backup_counts_differ")
            return content
        counts[content.kind.table] += 1
        unreadable += content.unreadable
        if not content.unreadable and not _can_open(
            keys, content.kind, content.columns, content.sealed
        ):
            raise BackupError("backup_record_damaged")
    raise BackupError("backup_cut_short")


def _read_contents(path: Path, header: Header, keys: Keyring) -> Iterator[BackupRecord | Manifest]:
    """Yield the records of a backup, and its manifest last. Raise BackupError."""
    try:
        with path.open("rb") as file:
            file.seek(header.end_offset)
            remaining = path.stat().st_size - header.end_offset
            chunk_number = 0
            while remaining:
                prefix = file.read(_LENGTH.size)
                length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else -1
                remaining -= _LENGTH.size + length
                if length < OVERHEAD_BYTES or remaining < 0:
                    raise BackupError("backup_cut_short")
                content = _open_chunk(
                    keys, header.digest, chunk_number, file.read(length), is_last=remaining == 0
                )
                if remaining == 0:
                    yield _parse_manifest(content)
                    return
                yield from _parse_records(content)
                chunk_number += 1
    except OSError as error:
        raise BackupError("backup_unreadable", reason=os_reason(error)) from None
    raise BackupError("backup_cut_short")


def _open_chunk(
    keys: Keyring, digest: bytes, chunk_number: int, sealed: bytes, *, is_last: bool
) -> bytes:
    kind, other = (BACKUP_LAST, BACKUP_CHUNK) if is_last else (BACKUP_CHUNK, BACKUP_LAST)
    try:
        return kind.open(keys, digest, chunk_number, sealed)
    except UnknownFormat:
        raise BackupError("backup_damaged_or_short") from None
    except SealError:
        try:
            other.open(keys, digest, chunk_number, sealed)
        except SealError:
            raise BackupError("backup_part_changed") from None
        raise BackupError("backup_cut_short" if is_last else "backup_has_more") from None


def _parse_manifest(content: bytes) -> Manifest:
    try:
        return Manifest.from_bytes(content)
    except (ValueError, LookupError, TypeError):
        raise BackupError("backup_newer") from None


def _parse_records(content: bytes) -> Iterator[BackupRecord]:
    kinds = {kind.table: kind for kind in RECORD_KINDS if not kind.derived}
    offset = 0
    try:
        while offset < len(content):
            head_json, offset = _read_block(content, offset)
            sealed, offset = _read_block(content, offset)
            fields: dict[str, Any] = json.loads(head_json)
            kind = kinds[fields["table"]]
            columns = {
                name: bytes.fromhex(value) if isinstance(value, str) else int(value)
                for name, value in fields["columns"].items()
            }
            if not set(columns) <= set(kind.columns):
                raise KeyError
            yield BackupRecord(kind, columns, sealed, bool(fields.get("unreadable")))
    except (ValueError, LookupError, TypeError, struct.error):
        # The chunk is as it was made, so it is this program that does not know what is in it.
        raise BackupError("backup_newer") from None


def _read_block(content: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(content, offset)
    start = offset + _LENGTH.size
    return content[start : start + length], start + length


# -- putting back ----------------------------------------------------------------------------------


def restore_backup(
    database: Path,
    path: Path,
    header: Header,
    keys: Keyring,
    *,
    name: str = "",
    replace: bool = False,
) -> Manifest:
    """Restore a backup, all or nothing, once every record of it was opened; end the sessions.

    With `replace` the same user's present data gives way to it; otherwise a user who exists is
    refused. `name` is a new name to sign in with. Raise BackupError, NameTaken and StorageError.
    """
    manifest = verify_backup(path, header, keys)
    user_name = name or manifest.name
    with write_transaction(database) as connection:
        (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        if manifest.schema > schema:
            raise BackupError("backup_newer_to_restore")
        if connection.execute("SELECT 1 FROM users WHERE id=?", (header.user_id,)).fetchone():
            if not replace:
                raise BackupError("user_here_already")
            connection.execute("DELETE FROM users WHERE id=?", (header.user_id,))
        if connection.execute(
            "SELECT 1 FROM users WHERE name_key=?", (name_key(user_name),)
        ).fetchone():
            raise NameTaken("name_taken_by_other")
        connection.execute(
            "INSERT INTO users (id, name, name_key, recovery_confirmed) VALUES (?, ?, ?, ?)",
            (header.user_id, user_name, name_key(user_name), manifest.recovery_confirmed),
        )
        connection.executemany(
            "INSERT INTO key_slots (id, user_id, kind, salt, params, sealed) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (slot.id, header.user_id, slot.kind, slot.salt, slot.params, slot.sealed)
                for slot in header.slots
            ],
        )
        for content in _read_contents(path, header, keys):
            if isinstance(content, BackupRecord):
                _insert_record(connection, header.user_id, content)
        connection.execute(
            "INSERT INTO keyrings (user_id, slots, index_key) VALUES (?, ?, ?)",
            (header.user_id, header.keys.slots, header.keys.index_key),
        )
        # Last: while there are no keys, a record whose own key is gone is let in too.
        connection.executemany(
            "INSERT INTO data_keys (user_id, epoch, sealed) VALUES (?, ?, ?)",
            [(header.user_id, key.epoch, key.sealed) for key in header.keys.data_keys],
        )
    return manifest


def _insert_record(connection: sqlite3.Connection, user_id: bytes, record: BackupRecord) -> None:
    values: dict[str, object] = {"user_id": user_id, **record.columns}
    if record.kind.purpose:
        values["sealed"] = record.sealed
    placeholders = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO {record.kind.table} ({', '.join(values)}) VALUES ({placeholders})",
        list(values.values()),
    )


# -- the whole database ----------------------------------------------------------------------------


def copy_database(database: Path, target: Path) -> None:
    """Copy the database beside a running server, still sealed, and check the copy.

    An existing file is never replaced. Raise StorageError.
    """
    if target.exists():
        raise StorageError("target_exists", target=str(target))
    if not database.exists():
        raise StorageError("journal_missing", database=str(database))

    def write_copy(temp_path: Path) -> None:
        try:
            with _open_connection(database) as source, closing(sqlite3.connect(temp_path)) as copy:
                source.backup(copy)
                if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise StorageError("copy_damaged")
        except sqlite3.Error as error:
            raise storage_error(error) from None

    write_atomically(target, write_copy)


# -- files and connections -------------------------------------------------------------------------


@contextmanager
def _open_atomic(target: Path, name_guard: AbstractContextManager[None]) -> Generator[BinaryIO]:
    """Open a file that appears at `target` only once the block is done and it is on the disk.

    It gets its name inside `name_guard`.
    """
    temp_path = _create_temp_file(target)
    try:
        with temp_path.open("r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with name_guard:
            _replace_file(temp_path, target)
    except OSError as error:
        raise _write_error(target, error) from None
    finally:
        _remove_temp_file(temp_path)


def write_atomically(target: Path, write_file: Callable[[Path], None]) -> None:
    """Call `write_file` on a temporary file and move it to `target` once it is on the disk.

    Raise StorageError, and what `write_file` raises.
    """
    temp_path = _create_temp_file(target)
    try:
        write_file(temp_path)
        with temp_path.open("r+b") as file:
            os.fsync(file.fileno())
        _replace_file(temp_path, target)
    except OSError as error:
        raise _write_error(target, error) from None
    finally:
        _remove_temp_file(temp_path)


def _create_temp_file(target: Path) -> Path:
    temp_path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        prepare_file(temp_path)
    except StorageError:
        _remove_temp_file(temp_path)
        raise
    return temp_path


def _remove_temp_file(temp_path: Path) -> None:
    """Remove an incomplete file and what SQLite put beside it, ignoring what the disk refuses."""
    with suppress(OSError):
        for leftover in temp_path.parent.glob(f"{escape(temp_path.name)}*"):
            leftover.unlink(missing_ok=True)


def _replace_file(temp_path: Path, target: Path) -> None:
    temp_path.replace(target)
    fsync_folder(target.parent)  # the name too must be on the disk


def _write_error(target: Path, error: OSError) -> StorageError:
    kind = DiskFull if error.errno == errno.ENOSPC else StorageError
    return kind("file_unwritable", file=str(target), reason=os_reason(error))


@contextmanager
def _open_connection(database: Path) -> Generator[sqlite3.Connection]:
    """Open a connection that is closed under the write lock: the last one to close checkpoints."""
    connection = connect(database)
    try:
        yield connection
    finally:
        try:
            with write_lock(database).acquire(timeout=LOCK_TIMEOUT_SECONDS):
                connection.close()
        except OSError:  # the lock was not to be had in time, or at all
            connection.close()


@contextmanager
def read_transaction(database: Path) -> Generator[sqlite3.Connection]:
    """Open a connection that sees the database as of one instant."""
    try:
        with _open_connection(database) as connection:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise storage_error(error) from None


@contextmanager
def write_transaction(database: Path) -> Generator[sqlite3.Connection]:
    """Run one transaction beside a running server, all or nothing.

    Afterwards nothing is left in the log of what it deleted.
    """
    try:
        with (
            write_lock(database).acquire(timeout=LOCK_TIMEOUT_SECONDS),
            closing(connect(database)) as connection,
        ):
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
        raise StorageError("journal_busy") from None
    except OSError as error:
        raise lock_error(error) from None
    except sqlite3.Error as error:
        raise storage_error(error) from None
