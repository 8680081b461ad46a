"""Sealed records: the one format in which anything private reaches the disk.

Layout (big-endian, 90 bytes over the padded text; in full, with test vectors, in
docs/encryption.md)::

    "LL" | version 1 | suite 1 | purpose 1 | flags 1 | epoch 4 | salt 32 | commitment 32
         | ciphertext | tag 16

    ctx        = for each of (user id, table, column, record id, revision): u16 length | bytes
    km         = HKDF-Expand-SHA256(subkey, header | salt | ctx, 64)
    key        = km[:32];  commitment = km[32:]
    ciphertext = AES-256-GCM(key, nonce = 0^12, aad = header | salt | commitment | ctx)

The text is padded inside: u32 length | text | zeros, to a Padmé size of at least 256 bytes.
Everything here is pure but for the random salt.
"""

import hmac
import os
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from llamora.vault.memory import Key, wipe

VERSION = 1
SUITE = 1
"""HKDF-Expand-SHA256 and AES-256-GCM with a fresh key per record."""

KEY_BYTES = 32
OVERHEAD_BYTES = 90
"""Header 10, salt 32, commitment 32, tag 16."""

PADDING_FLOOR = 256
MAX_TEXT_BYTES = 1 << 30
"""Far over any record, and with padding below the 2^31 - 1 bytes that one AEAD call takes."""

_HEADER = struct.Struct(">2sBBBBI")
_LENGTH = struct.Struct(">I")
_MAGIC = b"LL"
_SALT_AT = _HEADER.size
_COMMITMENT_AT = _SALT_AT + 32
_BODY_AT = _COMMITMENT_AT + 32
# A key is used for one record only, so a constant nonce never repeats under a key.
_NONCE = bytes(12)
_SHA256 = SHA256()


@dataclass(frozen=True, slots=True)
class Purpose:
    """The kind of a record: the number in its header (0 .. 255) and its subkey's ASCII label.

    Both are on the disk: never change one, never use a number again. All but those of the vault
    itself are declared in llamora.persistence.schema.
    """

    number: int
    label: str


KEY = Purpose(10, "key")
SESSION = Purpose(11, "session")


class VaultError(Exception):
    """Any refusal of the vault. Messages never hold text, names or key bytes."""


class SealError(VaultError):
    """A sealed record could not be opened."""


class UnknownFormat(SealError):
    """Not a sealed record, cut short, or of a version, suite or flag this program does not know."""


class WrongKey(SealError):
    """The key commitment does not hold: another key, or a record moved from another place."""


class WrongHeader(WrongKey):
    """The record was sealed for another purpose or epoch than the one asked for."""


class Damaged(SealError):
    """Key and place are right, but the text or its padding was changed."""


@dataclass(frozen=True, slots=True)
class Context:
    """The place of a record. A record opened anywhere else is refused with :class:`WrongKey`.

    `user_id` and `record_id` are raw bytes; `revision` is 0 .. 2^64 - 1.
    """

    user_id: bytes
    table: str
    column: str
    record_id: bytes
    revision: int

    def encode(self) -> bytes:
        """Return the bytes bound into key and tag: u16 length | bytes for each of five fields."""
        table = self.table.encode()
        column = self.column.encode()
        return b"".join(
            (
                len(self.user_id).to_bytes(2, "big"),
                self.user_id,
                len(table).to_bytes(2, "big"),
                table,
                len(column).to_bytes(2, "big"),
                column,
                len(self.record_id).to_bytes(2, "big"),
                self.record_id,
                b"\x00\x08",
                self.revision.to_bytes(8, "big"),
            )
        )


def padded_size(text_bytes: int) -> int:
    """Return the bytes a text of this length takes inside the envelope, with its length field.

    Padmé leaks O(log log n) bits of the length for at most 12 % of growth (Nikitin, Barman, Lueks,
    Underwood, Hubaux, Ford, "Reducing Metadata Leakage from Encrypted Files and Communication with
    PURBs", PETS 2019, §4). The floor of 256 makes short entries, tags and keys alike.
    """
    size = text_bytes + _LENGTH.size
    if size <= PADDING_FLOOR:
        return PADDING_FLOOR
    exponent = size.bit_length() - 1
    free_bits = exponent - exponent.bit_length()
    mask = (1 << free_bits) - 1
    return (size + mask) & ~mask


def hkdf(
    key_material: Key, salt: bytes, label: str, into: bytearray | memoryview | None = None
) -> bytearray | memoryview:
    """Derive 32 bytes with HKDF-SHA256 (RFC 5869), in `into` if given, else in a new buffer.

    Every label starts with the name and version of this scheme.
    """
    key = bytearray(KEY_BYTES) if into is None else into
    HKDF(_SHA256, KEY_BYTES, salt, b"llamora/1/" + label.encode()).derive_into(key_material, key)
    return key


def seal(
    subkey: Key,
    purpose: Purpose,
    epoch: int,
    context: Context,
    plaintext: Key,
    *,
    _salt: bytes | None = None,
) -> bytes:
    """Seal `plaintext` for exactly this place.

    `subkey` is 32 uniform bytes; `epoch` 0 .. 2^32 - 1. `_salt` exists for the published test
    vectors only: two texts under one subkey, context and salt would share a key and nonce.
    """
    if len(subkey) != KEY_BYTES:
        raise ValueError("a subkey has 32 bytes")
    size = len(plaintext)
    if size > MAX_TEXT_BYTES:
        raise ValueError("a sealed record holds at most 1 GiB")
    header = _HEADER.pack(_MAGIC, VERSION, SUITE, purpose.number, 0, epoch)
    salt = os.urandom(32) if _salt is None else _salt
    ctx = context.encode()
    km = _expand(subkey, header + salt + ctx)
    prefix = header + salt + km[32:]
    padded = bytearray(padded_size(size))
    _LENGTH.pack_into(padded, 0, size)
    padded[_LENGTH.size : _LENGTH.size + size] = plaintext
    body = AESGCM(memoryview(km)[:32]).encrypt(_NONCE, padded, prefix + ctx)
    wipe(km, padded)
    return prefix + body


def open_sealed(
    subkey: Key, purpose: Purpose, epoch: int, context: Context, sealed: bytes
) -> bytes:
    """Return the text of a record sealed for this purpose, epoch and place.

    Raise :class:`UnknownFormat`, :class:`WrongHeader`, :class:`WrongKey` or :class:`Damaged`, in
    this order: each check runs only when the ones before it held.
    """
    padded, end = _open(subkey, purpose, epoch, context, sealed)
    return bytes(memoryview(padded)[_LENGTH.size : end])


def open_key(
    subkey: Key, purpose: Purpose, epoch: int, context: Context, sealed: bytes
) -> bytearray:
    """Open a sealed key into a buffer that the caller wipes.

    Raise what :func:`open_sealed` does.
    """
    padded, end = _open(subkey, purpose, epoch, context, sealed)
    key = padded[_LENGTH.size : end]
    wipe(padded)
    return key


def _open(
    subkey: Key, purpose: Purpose, epoch: int, context: Context, sealed: bytes
) -> tuple[bytearray, int]:
    """Return the padded text of a record and the end of the text in it."""
    found_purpose, found_epoch = _read_header(sealed)
    if found_purpose != purpose.number:
        raise WrongHeader("the record was sealed for another purpose")
    if found_epoch != epoch:
        raise WrongHeader("the record was sealed in another key epoch")
    ctx = context.encode()
    prefix = sealed[:_BODY_AT]
    km = _expand(subkey, prefix[:_COMMITMENT_AT] + ctx)
    if not hmac.compare_digest(memoryview(km)[32:], prefix[_COMMITMENT_AT:]):
        raise WrongKey("the record was sealed with another key or moved from another place")
    padded = bytearray(len(sealed) - OVERHEAD_BYTES)
    try:
        AESGCM(memoryview(km)[:32]).decrypt_into(
            _NONCE, memoryview(sealed)[_BODY_AT:], prefix + ctx, padded
        )
    except InvalidTag:
        raise Damaged("the record was changed after it was sealed") from None
    finally:
        wipe(km)
    (size,) = _LENGTH.unpack_from(padded)
    end = _LENGTH.size + size
    # Sealing always pads to the one size that fits: anything else was not made by this program.
    if len(padded) != padded_size(size) or padded.count(0, end) != len(padded) - end:
        raise Damaged("the padding of the record is wrong")
    return padded, end


def _expand(subkey: Key, info: bytes) -> bytearray:
    """Derive the key of one record and its commitment, 32 bytes each."""
    km = bytearray(64)
    HKDFExpand(_SHA256, 64, info).derive_into(subkey, km)
    return km


def sealed_epoch(sealed: bytes) -> int:
    """Return the key epoch a record names. The format is checked; nothing is authenticated."""
    return _read_header(sealed)[1]


def _read_header(sealed: bytes) -> tuple[int, int]:
    """Return (purpose, epoch) of a record. Raise :class:`UnknownFormat`."""
    if len(sealed) < OVERHEAD_BYTES + PADDING_FLOOR:
        raise UnknownFormat("the record is cut short")
    magic, version, suite, purpose, flags, epoch = _HEADER.unpack_from(sealed)
    if magic != _MAGIC:
        raise UnknownFormat("this is not a sealed record")
    if version != VERSION:
        raise UnknownFormat("the record has a version this program does not know")
    if suite != SUITE:
        raise UnknownFormat("the record uses a cipher suite this program does not know")
    if flags != 0:
        raise UnknownFormat("the record sets a flag this program does not know")
    return purpose, epoch
