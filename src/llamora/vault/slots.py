"""Key slots: from a passphrase or a recovery code to the user master key.

A passphrase (Argon2id) or a recovery code (HKDF) gives a key pair, and the master key is sealed to
its public half: so a new master key can be sealed for every living slot without their secrets. The
formats are written out in docs/encryption.md.
"""

import hashlib
import hmac
import json
import os
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from llamora.vault import hybrid, kdf
from llamora.vault.envelope import KEY, KEY_BYTES, VERSION, Context, SealError, UnknownFormat, hkdf
from llamora.vault.kdf import Argon2Params, BadParameters
from llamora.vault.memory import Buffer, Key, wipe
from llamora.vault.recovery_code import WrongSecret, check_recovery_code, parse_code

SALT_BYTES = 32
PASSPHRASE = "passphrase"  # noqa: S105 -- the kind, not one
RECOVERY = "recovery"

SLOT_ID_BYTES = 16
_SUITE_HPKE = 2
_HEADER = struct.Struct(">2sBBBBI")
_CHECK_AT = _HEADER.size
_BODY_AT = _CHECK_AT + 32
_SLOT_BYTES = _BODY_AT + hybrid.OVERHEAD_BYTES + KEY_BYTES
_LABEL = b"llamora/1/slot"


@dataclass(frozen=True, slots=True)
class SlotKey:
    """The public half of a slot: enough to seal a master key for it without its secret.

    `kind` is open; :data:`PASSPHRASE` and :data:`RECOVERY` are those that open here. `params` is
    what the kind keeps beside its salt: the cost of Argon2id as text, or None.
    """

    id: bytes
    kind: str
    salt: bytes
    params: str | None
    public_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySlot:
    """The master key, sealed to the key pair of a secret. Fields as in :class:`SlotKey`."""

    id: bytes
    kind: str
    salt: bytes
    params: str | None
    sealed: bytes = field(repr=False)

    @property
    def argon2(self) -> Argon2Params:
        """Return the cost of a passphrase slot. Raise :class:`BadParameters`."""
        return Argon2Params.from_text(self.params or "")


def _passphrase_kek(passphrase: str, salt: bytes, params: Argon2Params) -> Key:
    # NFKC: the same words typed on another system or keyboard are the same bytes. surrogatepass: no
    # exception that carries the passphrase for a string that is not proper Unicode.
    normal = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return kdf.argon2id(normal, salt, params)


def _recovery_kek(code: str, salt: bytes) -> Key:
    return hkdf(parse_code(code).to_bytes(17, "big"), salt, "kek/recovery")


def passphrase_slot_key(
    user_id: bytes,
    passphrase: str,
    params: Argon2Params,
    *,
    _salt: bytes | None = None,
    _id: bytes | None = None,
) -> SlotKey:
    """Make a new slot for this passphrase, with a fresh id and salt. Blocks for the KDF.

    `_salt` and `_id` are for the published vectors only.
    """
    salt = _salt or os.urandom(SALT_BYTES)
    seed = hkdf(_passphrase_kek(passphrase, salt, params), user_id, "slot/key-pair")
    return _slot_key(_id, PASSPHRASE, salt, params.to_text(), seed)


def recovery_slot_key(
    user_id: bytes, code: str, *, _salt: bytes | None = None, _id: bytes | None = None
) -> SlotKey:
    """Make a new slot for this recovery code. Raise :class:`RecoveryCodeError`."""
    salt = _salt or os.urandom(SALT_BYTES)
    return _slot_key(
        _id, RECOVERY, salt, None, hkdf(_recovery_kek(code, salt), user_id, "slot/key-pair")
    )


def _slot_key(
    slot_id: bytes | None, kind: str, salt: bytes, params: str | None, seed: Buffer
) -> SlotKey:
    public = hybrid.public_key(seed)
    wipe(seed)
    return SlotKey(slot_id or os.urandom(SLOT_ID_BYTES), kind, salt, params, public)


def seal_slot(user_id: bytes, epoch: int, key: SlotKey, master: Key) -> KeySlot:
    """Seal the master key of `epoch` to a slot, without the slot's secret."""
    header = _HEADER.pack(b"LL", VERSION, _SUITE_HPKE, KEY.number, 0, epoch)
    prefix = header + _check(header, user_id, key, key.public_key)
    sealed = prefix + hybrid.seal_to(key.public_key, _LABEL + prefix, master)
    return KeySlot(key.id, key.kind, key.salt, key.params, sealed)


def open_slot(user_id: bytes, slot: KeySlot, secret: str) -> bytearray:
    """Open a slot: return the master key, which the caller wipes.

    Blocks for the KDF of a passphrase slot. Raise :class:`WrongSecret` (or its kind
    :class:`RecoveryCodeError`), :class:`SealError` for a slot that is damaged,
    :class:`BadParameters` and :class:`KdfUnavailable`.
    """
    if (len(slot.id), len(slot.salt), len(slot.sealed)) != (SLOT_ID_BYTES, SALT_BYTES, _SLOT_BYTES):
        raise UnknownFormat("the key slot, its id or its salt has another length than all have")
    magic, version, suite, purpose, flags, _ = _HEADER.unpack_from(slot.sealed)
    if (magic, version, suite, purpose, flags) != (b"LL", VERSION, _SUITE_HPKE, KEY.number, 0):
        raise UnknownFormat("the key slot has a form this program does not know")
    if slot.kind == RECOVERY:
        kek: Key = _recovery_kek(secret, slot.salt)
    elif slot.kind == PASSPHRASE:
        kek = _passphrase_kek(secret, slot.salt, slot.argon2)
    else:
        raise WrongSecret("this slot opens with something else")
    seed = hkdf(kek, user_id, "slot/key-pair")
    try:
        prefix = slot.sealed[:_BODY_AT]
        check = _check(prefix[:_CHECK_AT], user_id, slot, hybrid.public_key(seed))
        if not hmac.compare_digest(check, prefix[_CHECK_AT:]):
            raise WrongSecret(f"the {slot.kind} slot does not open with this")
        return hybrid.open_with(seed, _LABEL + prefix, slot.sealed[_BODY_AT:])
    finally:
        wipe(seed)


def _check(header: bytes, user_id: bytes, slot: SlotKey | KeySlot, public: bytes) -> bytes:
    # Binds the slot to its place and key, and tells a wrong secret from a damaged slot. Id and salt
    # have fixed lengths, so that what is joined reads in one way only. Salt and parameters are part
    # of the place: a row with either exchanged is refused even by a secret that would be right.
    place = slot.id + slot.salt + (slot.params or "").encode()
    context = Context(user_id, "key_slots", slot.kind, place, 0).encode()
    return hashlib.sha256(_LABEL + header + context + public).digest()


def open_slots(user_id: bytes, slots: Iterable[KeySlot], secret: str) -> bytearray:
    """Return the master key from whichever slot this passphrase or recovery code opens.

    Blocks for the KDF. A slot that is damaged or whose parameters are out of bounds is passed over.
    Raise :class:`WrongSecret` when none opens, :class:`SealError` when all are damaged, and
    :class:`KdfUnavailable`.
    """
    there = list(slots)
    # A code costs no KDF, and a passphrase that reads as one is a passphrase all the same.
    kinds = (RECOVERY, PASSPHRASE) if check_recovery_code(secret) else (PASSPHRASE,)
    errors: list[Exception] = []
    for kind in kinds:
        for slot in there:
            if slot.kind == kind:
                try:
                    return open_slot(user_id, slot, secret)
                except BadParameters:
                    errors.append(WrongSecret("no slot opens with this"))
                except (WrongSecret, SealError) as error:
                    errors.append(error)
    errors.sort(key=lambda error: not isinstance(error, WrongSecret))
    raise errors[0] if errors else WrongSecret("no slot opens with this")


def pack_slot_keys(keys: Iterable[SlotKey]) -> bytes:
    """Return the list of living slots as bytes, to be sealed under the master key."""
    return json.dumps(
        [
            {
                "id": key.id.hex(),
                "kind": key.kind,
                "salt": key.salt.hex(),
                "params": key.params,
                "public_key": key.public_key.hex(),
            }
            for key in keys
        ],
        separators=(",", ":"),
    ).encode()


def unpack_slot_keys(packed: bytes) -> list[SlotKey]:
    """Read what :func:`pack_slot_keys` writes."""
    unhex = bytes.fromhex
    return [
        SlotKey(
            unhex(each["id"]),
            each["kind"],
            unhex(each["salt"]),
            each["params"],
            unhex(each["public_key"]),
        )
        for each in json.loads(packed)
    ]
