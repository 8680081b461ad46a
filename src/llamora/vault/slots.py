"""Key slots: from a passphrase or a recovery code to the user master key.

A passphrase (Argon2id) or a recovery code (HKDF) gives a key pair, and the master key is sealed to
its public half: so a new master key can be sealed for every living slot without their secrets. The
formats are written out in docs/encryption.md. The KDF blocks for hundreds of milliseconds with the
GIL released: call it on a thread.
"""

import hashlib
import hmac
import json
import os
import secrets
import struct
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw

from llamora.vault import hybrid
from llamora.vault.envelope import KEY, KEY_BYTES, VERSION, Context, UnknownFormat, VaultError, hkdf
from llamora.vault.memory import Buffer, Key, wipe

SALT_BYTES = 32


class BadParameters(VaultError):
    """KDF parameters that cannot be read, or that lie outside the bounds."""


class KdfUnavailable(VaultError):
    """The machine did not give the KDF its memory. Says nothing about the passphrase."""

    def __init__(self, mebibytes: int) -> None:
        super().__init__("not enough free memory")
        self.mebibytes = mebibytes


class WrongSecret(VaultError):
    """The passphrase or recovery code does not open this slot."""


class RecoveryCodeError(WrongSecret):
    """Not a recovery code: wrong length, foreign character, or check characters that do not hold.

    `str()` is a code of `llamora.messages`.
    """


# --- Argon2id -----------------------------------------------------------------------------------

# RFC 9106 §4, the second recommended option, is the floor.
_FLOOR = (65536, 3, 4)
# A row that a thief edited must not make the server allocate 64 GiB or compute for an hour: each
# parameter has a ceiling, and so has memory x passes, which is what the time is proportional to.
_CEILING = (1024 * 1024, 32, 16)
_MAX_KIB_PASSES = 8 * 1024 * 1024
# Calibration stops adding memory here and adds passes instead: a household's small machine has to
# find this much again at every sign-in, or its owner is locked out.
_CALIBRATED_MEMORY_KIB = 256 * 1024
_MEMORY_STEP_KIB = 16 * 1024


@dataclass(frozen=True, slots=True)
class Argon2Params:
    """The cost of Argon2id: memory in KiB, passes, lanes.

    Memory is 65,536 .. 1,048,576 KiB, passes 3 .. 32, lanes 4 .. 16, and memory x passes at most 8
    GiB; anything else raises :class:`BadParameters`. The floor is RFC 9106 §4's option for machines
    with little memory.
    """

    memory_kib: int
    time_cost: int
    parallelism: int

    def __post_init__(self) -> None:
        values = (self.memory_kib, self.time_cost, self.parallelism)
        for value, low, high, name in zip(
            values, _FLOOR, _CEILING, ("memory", "passes", "lanes"), strict=True
        ):
            if not low <= value <= high:
                raise BadParameters(f"Argon2id {name} must be {low} to {high}, not {value}")
        if self.work > _MAX_KIB_PASSES:
            raise BadParameters("Argon2id memory times passes must be at most 8 GiB")

    @property
    def work(self) -> int:
        """Return memory x passes in KiB, to which the time of a guess is proportional."""
        return self.memory_kib * self.time_cost

    def to_text(self) -> str:
        """Return `m=65536,t=3,p=4`: the form kept beside a slot and bound into its seal."""
        return f"m={self.memory_kib},t={self.time_cost},p={self.parallelism}"

    @classmethod
    def from_text(cls, text: str) -> "Argon2Params":
        """Read exactly what :meth:`to_text` writes. Raise :class:`BadParameters`."""
        # Ten digits hold every allowed value and keep int() cheap on a hostile row.
        parts = text[:64].split(",")
        if len(parts) == 3 and all(
            part[:2] == name and part[2:].isascii() and part[2:].isdigit() and len(part) <= 12
            for part, name in zip(parts, ("m=", "t=", "p="), strict=True)
        ):
            params = cls(int(parts[0][2:]), int(parts[1][2:]), int(parts[2][2:]))
            if params.to_text() == text:
                return params
        raise BadParameters("Argon2id parameters must read like m=65536,t=3,p=4")


def _argon2id(secret: bytes, salt: bytes, params: Argon2Params) -> bytes:
    try:
        return hash_secret_raw(
            secret,
            salt,
            time_cost=params.time_cost,
            memory_cost=params.memory_kib,
            parallelism=params.parallelism,
            hash_len=KEY_BYTES,
            type=Type.ID,
            version=0x13,
        )
    except (HashingError, MemoryError):
        raise KdfUnavailable(params.memory_kib // 1024) from None


def burn_kdf(params: Argon2Params) -> None:
    """Spend what :func:`open_slot` costs with these parameters, for a name that no user has."""
    _argon2id(bytes(16), bytes(SALT_BYTES), params)


def kdf_milliseconds(params: Argon2Params) -> float:
    """Measure one key derivation on this machine, in milliseconds."""
    start = time.perf_counter()
    burn_kdf(params)
    return (time.perf_counter() - start) * 1000


def calibrate(
    target_ms: int,
    floor: Argon2Params,
    *,
    _measure: Callable[[Argon2Params], float] = kdf_milliseconds,
) -> Argon2Params:
    """Return parameters that take about `target_ms` here, never below `floor`.

    A target of 0 gives `floor` itself. Memory is raised first, passes after: per millisecond of
    ours, memory costs an attacker's hardware area as well as time, and RFC 9106 §4 likewise settles
    memory before passes. Memory stops at 256 MiB so that the parameters still work on a busy small
    machine. A result that measures over 4/3 of the target is stepped down again.
    """
    if target_ms <= 0:
        return floor
    # The quietest of three runs: a machine that starts up is noisy, and noise only adds.
    floor_ms = min(_measure(floor) for _ in range(3))
    scale = target_ms / max(floor_ms, 0.001)
    for _ in range(4):
        candidate = _scaled(floor, scale)
        if candidate == floor:
            break
        try:
            measured = _measure(candidate)
        except KdfUnavailable:
            measured = target_ms * 2.0
        if measured <= target_ms * 4 / 3:
            return candidate
        scale *= target_ms / measured
    return floor


def _scaled(floor: Argon2Params, scale: float) -> Argon2Params:
    """Return `floor` with memory x passes grown by `scale`, rounded down, within the bounds."""
    budget = floor.memory_kib * floor.time_cost * max(scale, 1.0)
    wanted = int(budget / floor.time_cost) // _MEMORY_STEP_KIB * _MEMORY_STEP_KIB
    memory = max(floor.memory_kib, min(wanted, _CALIBRATED_MEMORY_KIB))
    passes = min(int(budget / memory), _CEILING[1], _MAX_KIB_PASSES // memory)
    return Argon2Params(memory, max(floor.time_cost, passes), floor.parallelism)


# --- Recovery code ------------------------------------------------------------------------------

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_SYMBOLS = 26
_CODE_BITS = 130
_GROUP = 4
_FORGIVEN = str.maketrans({"I": "1", "L": "1", "O": "0"})


def _gf32_double(value: int) -> int:
    """Multiply by alpha in GF(2^5) with x^5 + x^2 + 1."""
    value <<= 1
    return value ^ 0b100101 if value & 32 else value


def _check_symbols(symbols: list[int]) -> list[int]:
    """Return the remainder of the code, a polynomial over GF(32), by (x + 1)(x + alpha).

    A Reed-Solomon code of distance 3 and length 28 <= 31: every one or two wrong symbols show, and
    so does every exchange of two symbols, adjacent or not.
    """
    first = second = 0
    for symbol in symbols:
        feedback = symbol ^ first
        doubled = _gf32_double(feedback)
        first, second = second ^ feedback ^ doubled, doubled
    return [first, second]


def new_recovery_code() -> str:
    """Return 130 random bits as 26 Crockford base32 and 2 check symbols, in 7 groups of 4."""
    return _format_code(secrets.randbits(_CODE_BITS))


def _format_code(value: int) -> str:
    symbols = [value >> 5 * place & 31 for place in reversed(range(_CODE_SYMBOLS))]
    text = "".join(_CROCKFORD[symbol] for symbol in symbols + _check_symbols(symbols))
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _compact(typed: str) -> str:
    """Return only the symbols of what was typed, in upper case, I, L and O read as 1, 1 and 0."""
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", typed[:1000]).upper()
        # Any kind of space, line end, dash or invisible mark may stand between the symbols.
        if not (character.isspace() or unicodedata.category(character) in {"Pd", "Cf", "Cc"})
        and character not in "_.\u2212"
    ).translate(_FORGIVEN)


def _parse_code(text: str) -> int:
    """Return the 130 bits of a code as typed.

    Raise :class:`RecoveryCodeError`, which quotes nothing.
    """
    compact = _compact(text)
    if len(compact) != _CODE_SYMBOLS + 2:
        raise RecoveryCodeError("recovery_code_length")
    symbols = [_CROCKFORD.find(character) for character in compact]
    if -1 in symbols:
        raise RecoveryCodeError("recovery_code_letters")
    if _check_symbols(symbols[:_CODE_SYMBOLS]) != symbols[_CODE_SYMBOLS:]:
        raise RecoveryCodeError("recovery_code_mistyped")
    value = 0
    for symbol in symbols[:_CODE_SYMBOLS]:
        value = value << 5 | symbol
    return value


def check_recovery_code(text: str) -> bool:
    """Return True if a text reads as a recovery code.

    Case, I, L, O, spaces and dashes are forgiven, wrong check symbols are not.
    """
    try:
        _parse_code(text)
    except RecoveryCodeError:
        return False
    return True


def recovery_groups(code: str) -> list[str]:
    """Return the seven groups of four of a code, in upper case, however it was typed.

    Raise :class:`RecoveryCodeError`.
    """
    return _format_code(_parse_code(code)).split("-")


def same_group(group: str, typed: str) -> bool:
    """Return True if `typed` is this group of a recovery code, as forgiving as the whole code."""
    return hmac.compare_digest(_compact(typed).encode("utf-8", "surrogatepass"), group.encode())


# --- Slots --------------------------------------------------------------------------------------

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


def _passphrase_kek(passphrase: str, salt: bytes, params: Argon2Params) -> bytes:
    # NFKC: the same words typed on another system or keyboard are the same bytes. surrogatepass: no
    # exception that carries the passphrase for a string that is not proper Unicode.
    normal = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return _argon2id(normal, salt, params)


def _recovery_kek(code: str, salt: bytes) -> Key:
    return hkdf(_parse_code(code).to_bytes(17, "big"), salt, "kek/recovery")


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

    Blocks for the KDF. A slot whose parameters are out of bounds is passed over. Raise
    :class:`WrongSecret` when none opens, and what else :func:`open_slot` raises.
    """
    there = list(slots)
    # A code costs no KDF, and a passphrase that reads as one is a passphrase all the same.
    kinds = (RECOVERY, PASSPHRASE) if check_recovery_code(secret) else (PASSPHRASE,)
    for kind in kinds:
        for slot in there:
            if slot.kind == kind:
                with suppress(WrongSecret, BadParameters):
                    return open_slot(user_id, slot, secret)
    raise WrongSecret("no slot opens with this")


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
