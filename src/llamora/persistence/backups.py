"""Backups: everything of one user in one sealed file, and a copy of the whole database.

Everything here blocks: call it on a thread.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace as changed
from pathlib import Path
from typing import cast

from llamora.dates import utc_now
from llamora.persistence.atomic_file import open_atomic, write_atomically
from llamora.persistence.backup_format import (
    BackupError,
    BackupRecord,
    ChunkWriter,
    Header,
    Manifest,
    build_header,
    read_contents,
)
from llamora.persistence.blocking import (
    locked_connection,
    open_connection,
    read_transaction,
    write_transaction,
)
from llamora.persistence.checksums import renew as renew_checksum
from llamora.persistence.connection import (
    NotFound,
    Row,
    StorageError,
    storage_error,
)
from llamora.persistence.schema import BACKUP_KINDS, DATA_KEY
from llamora.persistence.users import INSERT_SLOT, NameTaken, name_key, slot_row
from llamora.vault.envelope import WrongKey
from llamora.vault.keys import Keyring, KeyringClosed, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.slots import KeySlot

# -- making ----------------------------------------------------------------------------------------


def write_backup(database: Path, keys: Keyring, target: Path) -> Manifest:
    """Write everything of one user, as of one instant, to `target`, replacing it when complete.

    Raise StorageError (NotFound when the account was deleted, also meanwhile), and
    vault.keys.KeyringClosed when the user locked meanwhile.
    """
    user_check = _require_user(database, keys.user_id)
    with (
        open_atomic(target, user_check) as out,
        read_transaction(database) as connection,
        _keys_at_snapshot(connection, keys) as snapshot_keys,
    ):
        query = "SELECT name, recovery_confirmed FROM users WHERE id=?"
        name, confirmed = connection.execute(query, (keys.user_id,)).fetchone()
        (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        chunks = ChunkWriter(out, snapshot_keys, _header(connection, keys.user_id))
        counts = {kind.table: 0 for kind in BACKUP_KINDS}
        unreadable = 0
        for record in _read_records(connection, snapshot_keys):
            if keys.closed:
                raise KeyringClosed("the keys were locked")
            counts[record.kind.table] += 1
            unreadable += record.unreadable
            chunks.write(record)
        manifest = Manifest(name, utc_now(), bool(confirmed), schema, counts, unreadable)
        chunks.write_last(manifest)
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
    with locked_connection(database) as connection:
        if not connection.execute("SELECT 1 FROM users WHERE id=?", (user_id,)).fetchone():
            raise NotFound("user_not_found")
        yield


def _header(connection: sqlite3.Connection, user_id: bytes) -> bytes:
    slots = connection.execute(
        "SELECT id, kind, salt, params, sealed FROM key_slots WHERE user_id=?", (user_id,)
    )
    keys = sealed_keys(connection, user_id)
    return build_header(user_id, tuple(KeySlot(*row) for row in slots), keys)


def sealed_keys(connection: sqlite3.Connection, user_id: bytes) -> SealedKeys:
    """Return a user's sealed keys as this connection sees them. Raise NotFound."""
    rows = connection.execute(
        f"SELECT epoch, CAST(sealed AS BLOB) FROM data_keys WHERE user_id=? AND {DATA_KEY}"
        " ORDER BY epoch",
        (user_id,),
    )
    data_keys = tuple(SealedDataKey(*row) for row in rows)
    ring = connection.execute(
        "SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)
    ).fetchone()
    if ring is None:
        raise NotFound("user_not_found")
    return SealedKeys(data_keys, *ring)


def _read_records(connection: sqlite3.Connection, keys: Keyring) -> Iterator[BackupRecord]:
    for kind in BACKUP_KINDS:
        sealed = ", sealed" if kind.purpose else ""
        rows = connection.execute(
            f"SELECT {', '.join(kind.columns)}{sealed} FROM {kind.table} WHERE user_id=?",
            (keys.user_id,),
        )
        for row in cast("Iterator[Row]", rows):
            columns = {
                name: value if isinstance(value, int) else _as_bytes(value)
                for name, value in zip(kind.columns, row, strict=False)
            }
            record = BackupRecord(kind, columns, _as_bytes(row[-1]) if kind.purpose else b"")
            yield record if record.can_open(keys) else changed(record, unreadable=True)


def _as_bytes(value: object) -> bytes:
    """Return a cell as the format can carry it; of a text as many bytes as it has characters."""
    return value if isinstance(value, bytes) else str(value).encode()[: len(str(value))]


# -- restoring -------------------------------------------------------------------------------------


def verify_backup(path: Path, header: Header, keys: Keyring) -> Manifest:
    """Open every chunk and record of a backup and count them; nothing is changed.

    Raise BackupError.
    """
    counts = {kind.table: 0 for kind in BACKUP_KINDS}
    unreadable = 0
    for content in read_contents(path, header, keys):
        if isinstance(content, Manifest):
            # A table that the backup does not know is newer than it.
            stated = {**dict.fromkeys(counts, 0), **content.records}
            if (stated, content.unreadable) != (counts, unreadable):
                raise BackupError("backup_counts_differ")
            return content
        counts[content.kind.table] += 1
        unreadable += content.unreadable
        if not content.unreadable and not content.can_open(keys):
            raise BackupError("backup_record_damaged")
    raise BackupError("backup_cut_short")


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
        _make_room(connection, manifest, header.user_id, user_name, replace=replace)
        connection.execute(
            "INSERT INTO users (id, name, name_key, recovery_confirmed) VALUES (?, ?, ?, ?)",
            (header.user_id, user_name, name_key(user_name), manifest.recovery_confirmed),
        )
        connection.executemany(
            INSERT_SLOT, [slot_row(header.user_id, slot) for slot in header.slots]
        )
        for content in read_contents(path, header, keys):
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
        renew_checksum(keys, connection)
    return manifest


def _make_room(
    connection: sqlite3.Connection, manifest: Manifest, user_id: bytes, name: str, *, replace: bool
) -> None:
    """Refuse a backup that does not fit in, and delete the data that it replaces."""
    (schema,) = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
    if manifest.schema > schema:
        raise BackupError("backup_newer_to_restore")
    if connection.execute("SELECT 1 FROM users WHERE id=?", (user_id,)).fetchone():
        if not replace:
            raise BackupError("user_here_already")
        connection.execute("DELETE FROM users WHERE id=?", (user_id,))
    if connection.execute("SELECT 1 FROM users WHERE name_key=?", (name_key(name),)).fetchone():
        raise NameTaken("name_taken_by_other")


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
            with open_connection(database) as source, closing(sqlite3.connect(temp_path)) as copy:
                source.backup(copy)
                if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                    raise StorageError("copy_damaged")
        except sqlite3.Error as error:
            raise storage_error(error) from None

    write_atomically(target, write_copy)
