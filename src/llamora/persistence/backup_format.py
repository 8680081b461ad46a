"""The file of a backup: its header, its sealed chunks, and the records and manifest in them.

The format is written out in docs/encryption.md; scripts/open_backup.py reads it without this
program.
"""

import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from llamora.persistence.connection import StorageError, os_reason
from llamora.persistence.schema import (
    BACKUP_CHUNK,
    BACKUP_KINDS,
    BACKUP_LAST,
    OPENS_FORMER_RECORDS,
    OPENS_UNRELEASED,
    RecordKind,
)
from llamora.vault.envelope import OVERHEAD_BYTES, SealError, UnknownFormat
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.slots import KeySlot, open_slots

MAGIC = b"LLBACKUP"
VERSION = 3
UNRELEASED = {1: OPENS_UNRELEASED, 2: OPENS_FORMER_RECORDS}
"""Versions from before the first release, and what opens them."""
CHUNK_BYTES = 1 << 20
"""A chunk ends with the record that takes it to this size."""
MAX_HEADER_BYTES = 1 << 20
USER_ID_BYTES = 16
_LENGTH = struct.Struct(">I")
_PREFIX_BYTES = len(MAGIC) + 1 + _LENGTH.size
_KINDS = {kind.table: kind for kind in BACKUP_KINDS}


class BackupError(StorageError):
    """The file is no backup, or not a whole and unchanged one; nothing was changed."""


class Manifest(msgspec.Struct, frozen=True):
    """The description of a backup in its last chunk. `records` counts by table.

    `unreadable` of them did not open when the backup was made; they are in it as they were.
    `schema` is the number of the last migration of the database it was made from.
    """

    name: str
    made: datetime
    recovery_confirmed: bool
    schema: int
    records: Mapping[str, int]
    unreadable: int


class _RecordHead(msgspec.Struct, frozen=True, omit_defaults=True):
    table: str
    columns: dict[str, bytes | int]
    unreadable: bool = False


class _HeaderFields(msgspec.Struct, frozen=True):
    id: bytes
    user: bytes
    slots: tuple[KeySlot, ...]
    data_keys: tuple[SealedDataKey, ...]
    keyring: dict[str, bytes]
    kinds: dict[str, tuple[int, str, str]]


@dataclass(slots=True, frozen=True)
class BackupRecord:
    """One row of a backup: bytes or whole numbers by column. `sealed` is empty for a link."""

    kind: RecordKind
    columns: dict[str, bytes | int]
    sealed: bytes
    unreadable: bool = False

    def to_bytes(self) -> bytes:
        """Return u32 length | JSON | u32 length | envelope."""
        head = msgspec.json.encode(_RecordHead(self.kind.table, self.columns, self.unreadable))
        return _LENGTH.pack(len(head)) + head + _LENGTH.pack(len(self.sealed)) + self.sealed

    def can_open(self, keys: Keyring) -> bool:
        """Return whether these keys open the record; a link always does."""
        if self.kind.purpose is None:
            return True
        return self.kind.try_open(keys, self.columns, self.sealed) is not None


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


# -- writing ---------------------------------------------------------------------------------------


def build_header(user_id: bytes, slots: tuple[KeySlot, ...], keys: SealedKeys) -> bytes:
    """Return the header of a new backup, which no other has: no chunk of one fits another."""
    keyring = {"slots": keys.slots, "index_key": keys.index_key}
    # What another program needs to open the records, whichever kinds there are by then.
    kinds = {
        kind.table: (kind.purpose.number, kind.purpose.label, kind.id_column)
        for kind in BACKUP_KINDS
        if kind.purpose
    }
    fields = _HeaderFields(secrets.token_bytes(16), user_id, slots, keys.data_keys, keyring, kinds)
    header = msgspec.json.encode(fields)
    return MAGIC + bytes([VERSION]) + _LENGTH.pack(len(header)) + header


class ChunkWriter:
    """A writer that seals what is added in chunks, each for its number in this one file."""

    def __init__(self, file: BinaryIO, keys: Keyring, header: bytes) -> None:
        file.write(header)
        self._file = file
        self._keys = keys
        self._digest = sha256(header).digest()
        self._buffer = bytearray()
        self._chunk_number = 0

    def write(self, record: BackupRecord) -> None:
        self._buffer += record.to_bytes()
        if len(self._buffer) >= CHUNK_BYTES:
            self._flush(BACKUP_CHUNK)

    def write_last(self, manifest: Manifest) -> None:
        """Add the last chunk, without which a backup is not whole."""
        if self._buffer:
            self._flush(BACKUP_CHUNK)
        self._buffer += msgspec.json.encode(manifest)
        self._flush(BACKUP_LAST)

    def _flush(self, kind: RecordKind) -> None:
        sealed = kind.seal(self._keys, self._digest, self._chunk_number, bytes(self._buffer))
        self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        self._buffer.clear()
        self._chunk_number += 1


# -- reading ---------------------------------------------------------------------------------------


def read_header(path: Path) -> Header:
    """Read the part of a backup that needs no keys. Raise BackupError."""
    try:
        with path.open("rb") as file:
            prefix = file.read(_PREFIX_BYTES)
            _check_prefix(prefix)
            (length,) = _LENGTH.unpack(prefix[-_LENGTH.size :])
            header = file.read(min(length, MAX_HEADER_BYTES))
    except OSError as error:
        raise BackupError("file_unreadable", reason=os_reason(error)) from None
    if len(header) < length:
        raise BackupError("backup_cut_short")
    # A stranger's file may hold anything that JSON can say, also brackets without end.
    try:
        fields = msgspec.json.decode(header, type=_HeaderFields)
        keys = SealedKeys(fields.data_keys, fields.keyring["slots"], fields.keyring["index_key"])
    except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
        raise BackupError("backup_header_damaged") from None
    epochs = [key.epoch for key in keys.data_keys]
    if len(fields.user) != USER_ID_BYTES or not all(0 < epoch < 1 << 32 for epoch in epochs):
        raise BackupError("backup_header_damaged")
    digest = sha256(prefix + header).digest()
    return Header(fields.user, fields.slots, keys, digest, len(prefix) + length)


def _check_prefix(prefix: bytes) -> None:
    if prefix[: len(MAGIC)] != MAGIC:
        raise BackupError("backup_foreign")
    if len(prefix) < _PREFIX_BYTES:
        raise BackupError("backup_cut_short")
    version = prefix[len(MAGIC)]
    if version in UNRELEASED:
        raise BackupError("backup_unreleased", version=UNRELEASED[version])
    if version != VERSION:
        raise BackupError("backup_newer")


def read_contents(path: Path, header: Header, keys: Keyring) -> Iterator[BackupRecord | Manifest]:
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
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError:
        raise BackupError("backup_newer") from None


def _parse_records(content: bytes) -> Iterator[BackupRecord]:
    offset = 0
    try:
        while offset < len(content):
            head_json, offset = _read_block(content, offset)
            sealed, offset = _read_block(content, offset)
            head = msgspec.json.decode(head_json, type=_RecordHead)
            kind = _KINDS[head.table]
            if not head.columns.keys() <= set(kind.columns):
                raise KeyError
            yield BackupRecord(kind, head.columns, sealed, head.unreadable)
    except (msgspec.MsgspecError, LookupError, struct.error):
        # The chunk is as it was made, so it is this program that does not know what is in it.
        raise BackupError("backup_newer") from None


def _read_block(content: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = _LENGTH.unpack_from(content, offset)
    start = offset + _LENGTH.size
    return content[start : start + length], start + length
