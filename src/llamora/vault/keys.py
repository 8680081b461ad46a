"""Keys: from what a person knows to the subkey that seals one record.

A passphrase (Argon2id) or a recovery code (HKDF) gives a KEK, which opens its slot and finds the user
master key. The master key opens one data key per epoch and gives the subkeys of the blind index; a
data key gives a subkey per purpose.

Every HKDF label, slot and session format is written out in docs/encryption.md. The KDF blocks for
hundreds of milliseconds with the GIL released: call it on a thread.
"""

import hashlib
import hmac
import os
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from llamora.vault.envelope import (
    KEY_BYTES,
    Context,
    Purpose,
    SealError,
    UnknownFormat,
    VaultError,
    WrongKey,
    open_sealed,
    seal,
    sealed_epoch,
)

SALT_BYTES = 32
BOOT_SECRET_BYTES = 32
MIN_TOKEN_BYTES = 16


class BadParameters(VaultError):
    """KDF parameters that cannot be read, or that lie outside the bounds."""


class KdfUnavailable(VaultError):
    """The machine did not give the KDF its memory. Says nothing about the passphrase."""


class WrongSecret(VaultError):
    """This passphrase or recovery code does not open this slot."""


class RecoveryCodeError(WrongSecret):
    """Not a recovery code: a wrong length, a foreign character, or check characters that do not hold."""


class MissingEpoch(SealError):
    """The record names a key epoch that this keyring does not hold."""


class KeyringClosed(VaultError):
    """The keys were forgotten (lock, sign-out, idle) before or while they were used."""


def cipher_library() -> str:
    """The library under `cryptography` and its version, such as "OpenSSL 3.5.4 30 Sep 2025"."""
    return backend.openssl_version_text()


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
    """Argon2id cost: memory in KiB, passes, lanes. Outside the bounds raises :class:`BadParameters`.

    Bounds: memory 65,536 .. 1,048,576 KiB, passes 3 .. 32, lanes 4 .. 16, and memory x passes at most
    8 GiB. The floor is RFC 9106 §4's option for machines with little memory.
    """

    memory_kib: int
    time_cost: int
    parallelism: int

    def __post_init__(self) -> None:
        values = (self.memory_kib, self.time_cost, self.parallelism)
        for value, low, high, name in zip(values, _FLOOR, _CEILING, ("memory", "passes", "lanes"), strict=True):
            if not low <= value <= high:
                raise BadParameters(f"Argon2id {name} must be {low} to {high}, not {value}")
        if self.work > _MAX_KIB_PASSES:
            raise BadParameters("Argon2id memory times passes must be at most 8 GiB")

    @property
    def work(self) -> int:
        """Memory x passes in KiB, which the time of a guess is proportional to."""
        return self.memory_kib * self.time_cost

    def to_text(self) -> str:
        """`m=65536,t=3,p=4`: the form kept beside a slot, and bound into its seal."""
        return f"m={self.memory_kib},t={self.time_cost},p={self.parallelism}"

    @classmethod
    def from_text(cls, text: str) -> "Argon2Params":
        """Reads exactly what :meth:`to_text` writes. Raises :class:`BadParameters`."""
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
        raise KdfUnavailable(
            f"There is not enough free memory for the passphrase check ({params.memory_kib // 1024} MiB)."
        ) from None


def burn_kdf(params: Argon2Params) -> None:
    """Costs what :func:`open_slot` costs with these parameters: for a user name nobody has."""
    _argon2id(bytes(16), bytes(SALT_BYTES), params)


def kdf_milliseconds(params: Argon2Params) -> float:
    """How long one key derivation takes on this machine now, in ms."""
    start = time.perf_counter()
    burn_kdf(params)
    return (time.perf_counter() - start) * 1000


def calibrate(
    target_ms: int,
    floor: Argon2Params,
    *,
    _measure: Callable[[Argon2Params], float] = kdf_milliseconds,
) -> Argon2Params:
    """Parameters that take about `target_ms` here: never below `floor`; `floor` itself when 0.

    Memory is raised first, passes after: per millisecond of ours, memory costs an attacker's hardware
    area as well as time, and RFC 9106 §4 likewise settles memory before passes. Memory stops at
    256 MiB so that the parameters still work on a busy small machine. A result that measures over
    4/3 of the target is stepped down again.
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
    """`floor` with memory x passes grown by `scale`, rounded down, within the bounds."""
    budget = floor.memory_kib * floor.time_cost * max(scale, 1.0)
    wanted = int(budget / floor.time_cost) // _MEMORY_STEP_KIB * _MEMORY_STEP_KIB
    memory = max(floor.memory_kib, min(wanted, _CALIBRATED_MEMORY_KIB))
    passes = min(int(budget / memory), _CEILING[1], _MAX_KIB_PASSES // memory)
    return Argon2Params(memory, max(floor.time_cost, passes), floor.parallelism)


# --- HKDF ---------------------------------------------------------------------------------------


def _hkdf(key_material: bytes | bytearray, salt: bytes, label: str) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869). Every label starts with the name and version of this scheme."""
    return HKDF(SHA256(), KEY_BYTES, salt, b"llamora/1/" + label.encode()).derive(key_material)


# --- Recovery code ------------------------------------------------------------------------------

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_SYMBOLS = 26
_CODE_BITS = 130
_GROUP = 4
_FORGIVEN = str.maketrans({"I": "1", "L": "1", "O": "0"})


def _gf32_double(value: int) -> int:
    """Times alpha in GF(2^5) with x^5 + x^2 + 1."""
    value <<= 1
    return value ^ 0b100101 if value & 32 else value


def _check_symbols(symbols: list[int]) -> list[int]:
    """The remainder of the code as a polynomial over GF(32), divided by (x + 1)(x + alpha).

    A Reed-Solomon code of distance 3 and length 28 <= 31: every one or two wrong symbols show, and so
    does every exchange of two symbols, adjacent or not.
    """
    first = second = 0
    for symbol in symbols:
        feedback = symbol ^ first
        doubled = _gf32_double(feedback)
        first, second = second ^ feedback ^ doubled, doubled
    return [first, second]


def new_recovery_code() -> str:
    """130 random bits: 26 Crockford base32 symbols and 2 check symbols in 7 groups of 4."""
    return _format_code(secrets.randbits(_CODE_BITS))


def _format_code(value: int) -> str:
    symbols = [value >> 5 * place & 31 for place in reversed(range(_CODE_SYMBOLS))]
    text = "".join(_CROCKFORD[symbol] for symbol in symbols + _check_symbols(symbols))
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _compact(typed: str) -> str:
    """Only the symbols of what was typed, in upper case, with I, L and O read as 1, 1 and 0."""
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", typed[:1000]).upper()
        # Any kind of space, line end, dash or invisible mark may stand between the symbols.
        if not (character.isspace() or unicodedata.category(character) in {"Pd", "Cf", "Cc"})
        and character not in "_.\u2212"
    ).translate(_FORGIVEN)


def _parse_code(text: str) -> int:
    """The 130 bits of a code as typed. Raises :class:`RecoveryCodeError`, which quotes nothing."""
    compact = _compact(text)
    if len(compact) != _CODE_SYMBOLS + 2:
        raise RecoveryCodeError("A recovery code has 28 letters and digits.")
    symbols = [_CROCKFORD.find(character) for character in compact]
    if -1 in symbols:
        raise RecoveryCodeError("A recovery code has only the digits and the letters A to Z without U.")
    if _check_symbols(symbols[:_CODE_SYMBOLS]) != symbols[_CODE_SYMBOLS:]:
        raise RecoveryCodeError("The recovery code has a mistyped or swapped character.")
    value = 0
    for symbol in symbols[:_CODE_SYMBOLS]:
        value = value << 5 | symbol
    return value


def check_recovery_code(text: str) -> bool:
    """Whether this reads as a recovery code: case, I, L, O, spaces and dashes forgiven, check symbols not."""
    try:
        _parse_code(text)
    except RecoveryCodeError:
        return False
    return True


def recovery_groups(code: str) -> list[str]:
    """The seven groups of four, in upper case, of a code however typed. Raises :class:`RecoveryCodeError`."""
    return _format_code(_parse_code(code)).split("-")


def same_group(group: str, typed: str) -> bool:
    """Whether `typed` is this group of a recovery code, with the same forgiveness as the whole code."""
    return hmac.compare_digest(_compact(typed).encode("utf-8", "surrogatepass"), group.encode())


# --- Slots --------------------------------------------------------------------------------------

SlotKind = Literal["passphrase", "recovery"]


@dataclass(frozen=True, slots=True)
class KeySlot:
    """The master key, sealed under what a person knows. `params` is None for a recovery slot."""

    kind: SlotKind
    salt: bytes
    params: Argon2Params | None
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedDataKey:
    """The data key of one epoch, sealed under the master key."""

    epoch: int
    sealed: bytes = field(repr=False)


def _slot_context(user_id: bytes, kind: SlotKind, salt: bytes, params: Argon2Params | None) -> Context:
    # Salt and parameters are part of the place, so that a row with either exchanged is refused even
    # by a KEK that would be right. The salt's length is fixed: salt and text read in one way only.
    if len(salt) != SALT_BYTES:
        raise UnknownFormat("the salt of a key slot has 32 bytes")
    text = params.to_text() if params else ""
    return Context(user_id, "key_slots", kind, hashlib.sha256(salt + text.encode()).digest(), 0)


def _passphrase_kek(passphrase: str, salt: bytes, params: Argon2Params) -> bytes:
    # NFKC: the same words typed on another system or keyboard are the same bytes. surrogatepass: no
    # exception that carries the passphrase for a string that is not proper Unicode.
    normal = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    return _argon2id(normal, salt, params)


def _recovery_kek(code: str, salt: bytes) -> bytes:
    return _hkdf(_parse_code(code).to_bytes(17, "big"), salt, "kek/recovery")


def seal_passphrase_slot(
    user_id: bytes, master: bytes, passphrase: str, params: Argon2Params, *, _salt: bytes | None = None
) -> KeySlot:
    """A new slot with a fresh salt. Blocks for the KDF. `_salt` is for the published vectors only."""
    salt = _salt or os.urandom(SALT_BYTES)
    kek = _passphrase_kek(passphrase, salt, params)
    context = _slot_context(user_id, "passphrase", salt, params)
    return KeySlot("passphrase", salt, params, seal(kek, Purpose.KEY, 0, context, master, _salt=_salt))


def seal_recovery_slot(user_id: bytes, master: bytes, code: str, *, _salt: bytes | None = None) -> KeySlot:
    """A new slot for this recovery code. Raises :class:`RecoveryCodeError`."""
    salt = _salt or os.urandom(SALT_BYTES)
    kek = _recovery_kek(code, salt)
    context = _slot_context(user_id, "recovery", salt, None)
    return KeySlot("recovery", salt, None, seal(kek, Purpose.KEY, 0, context, master, _salt=_salt))


def open_slot(user_id: bytes, slot: KeySlot, secret: str) -> bytes:
    """The master key. Blocks for the KDF of a passphrase slot.

    Raises :class:`WrongSecret` (or its kind :class:`RecoveryCodeError`), :class:`SealError` for a
    slot that is damaged, :class:`BadParameters` and :class:`KdfUnavailable`.
    """
    context = _slot_context(user_id, slot.kind, slot.salt, slot.params)
    if slot.kind == "recovery":
        kek = _recovery_kek(secret, slot.salt)
    elif slot.params is not None:
        kek = _passphrase_kek(secret, slot.salt, slot.params)
    else:
        raise BadParameters("a passphrase slot needs Argon2id parameters")
    try:
        return open_sealed(kek, Purpose.KEY, 0, context, slot.sealed)
    except WrongKey:
        raise WrongSecret(f"the {slot.kind} slot does not open with this") from None


def open_slots(user_id: bytes, slots: Iterable[KeySlot], secret: str) -> bytes:
    """The master key, with whichever slot this passphrase or recovery code opens. Blocks for the KDF.

    Raises :class:`WrongSecret` when none does, and what else :func:`open_slot` raises.
    """
    by_kind: dict[SlotKind, KeySlot] = {slot.kind: slot for slot in slots}
    # A code costs no KDF, and a passphrase that reads as one is a passphrase all the same.
    kinds: tuple[SlotKind, ...] = ("recovery", "passphrase") if check_recovery_code(secret) else ("passphrase",)
    for kind in kinds:
        if kind in by_kind:
            with suppress(WrongSecret):
                return open_slot(user_id, by_kind[kind], secret)
    raise WrongSecret("That is neither the passphrase nor the recovery code.")


# --- Master key and data keys -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Everything made at registration. `master` and `recovery_code` must never be stored."""

    master: bytes = field(repr=False)
    slots: tuple[KeySlot, ...]
    data_key: SealedDataKey
    recovery_code: str = field(repr=False)


def create_keys(user_id: bytes, passphrase: str, params: Argon2Params) -> NewKeys:
    """A new master key in its two slots, and the data key of epoch 1. Blocks for one KDF."""
    master = os.urandom(KEY_BYTES)
    code = new_recovery_code()
    slots = (
        seal_passphrase_slot(user_id, master, passphrase, params),
        seal_recovery_slot(user_id, master, code),
    )
    return NewKeys(master, slots, new_data_key(user_id, master, 1), code)


def _data_key_context(user_id: bytes, epoch: int) -> Context:
    return Context(user_id, "data_keys", "sealed", epoch.to_bytes(4, "big"), 0)


def new_data_key(
    user_id: bytes,
    master: bytes | bytearray,
    epoch: int,
    *,
    _key: bytes | None = None,
    _salt: bytes | None = None,
) -> SealedDataKey:
    """A fresh random data key for `epoch` (1 ..), sealed under the master key."""
    subkey = _hkdf(master, user_id, "master/data-keys")
    key = _key or os.urandom(KEY_BYTES)
    sealed = seal(subkey, Purpose.KEY, epoch, _data_key_context(user_id, epoch), key, _salt=_salt)
    return SealedDataKey(epoch, sealed)


class Keyring:
    """The unlocked keys of one user: in memory only, never pickled, forgotten with :meth:`close`.

    Safe to use from several threads. Made by :func:`open_keyring`.
    """

    __slots__ = ("_blind_keys", "_closed", "_data_keys", "_master", "_subkeys", "epoch", "user_id")

    def __init__(self, user_id: bytes, master: bytes, data_keys: dict[int, bytearray]) -> None:
        self.user_id = user_id
        self.epoch = max(data_keys)
        self._master = bytearray(master)
        self._data_keys = data_keys
        self._subkeys: dict[tuple[int, int], bytearray] = {}
        self._blind_keys: dict[str, bytearray] = {}
        self._closed = False

    @property
    def master(self) -> bytes:
        """The user master key (32 bytes). Raises :class:`KeyringClosed`."""
        master = bytes(self._master)
        self._check_open()
        return master

    def seal(
        self,
        purpose: Purpose,
        table: str,
        column: str,
        record_id: bytes,
        revision: int,
        plaintext: bytes,
    ) -> bytes:
        """Seal a text for this place under the current epoch. Raises :class:`KeyringClosed`."""
        epoch = self.epoch  # read once: another thread may take a new key meanwhile
        subkey = self._subkey(epoch, purpose)
        context = Context(self.user_id, table, column, record_id, revision)
        sealed = seal(subkey, purpose, epoch, context, plaintext)
        # close() may have zeroed the subkey meanwhile: nothing sealed under zeros may get out.
        self._check_open()
        return sealed

    def open(
        self,
        purpose: Purpose,
        table: str,
        column: str,
        record_id: bytes,
        revision: int,
        sealed: bytes,
    ) -> bytes:
        """The text of a record of any epoch held here.

        Raises :class:`MissingEpoch`, :class:`KeyringClosed` and what
        :func:`~llamora.vault.envelope.open_sealed` raises.
        """
        epoch = sealed_epoch(sealed)
        subkey = self._subkey(epoch, purpose)
        context = Context(self.user_id, table, column, record_id, revision)
        try:
            return open_sealed(subkey, purpose, epoch, context, sealed)
        except WrongKey:
            self._check_open()
            raise

    def blind(self, label: str, value: bytes) -> bytes:
        """32 bytes that equal values of one label share: HMAC-SHA256 under a subkey of the master key.

        Stable over data key rotation, different for every user and label. Raises :class:`KeyringClosed`.
        """
        key = self._blind_keys.get(label)
        if key is None:
            key = bytearray(_hkdf(self._master, self.user_id, f"blind/{label}"))
            self._check_open()
            self._blind_keys[label] = key
        digest = hmac.digest(key, value, "sha256")
        self._check_open()
        return digest

    def take(self, data_keys: Iterable[SealedDataKey]) -> None:
        """Take up the data keys as they are stored now: open new ones, forget those that are gone.

        A list that is older than what is held changes nothing. What another thread was sealing under a key that is
        forgotten here may come out under zeros: the store refuses records of a key that is gone. Raises
        :class:`SealError` and :class:`KeyringClosed`.
        """
        stored = {key.epoch: key for key in data_keys}
        if not stored or max(stored) < self.epoch:
            return
        new = [key for epoch, key in stored.items() if epoch not in self._data_keys]
        if new:
            self._data_keys.update(_open_data_keys(self.user_id, self.master, new))
        self.epoch = max(stored)
        for epoch in self._data_keys.keys() - stored.keys():
            gone = [self._data_keys.pop(epoch)]
            gone += [self._subkeys.pop(place) for place in list(self._subkeys) if place[0] == epoch]
            for key in gone:
                key[:] = bytes(len(key))
        if self._closed:
            self.close()  # it was closed meanwhile: nothing of what was opened may stay
            self._check_open()

    def close(self) -> None:
        """Forgets the keys: overwrites our copies and refuses every later use. May be called again."""
        # The flag first: a thread in the middle of sealing sees it before its result gets out.
        self._closed = True
        for keys in (self._subkeys, self._data_keys, self._blind_keys):
            for key in list(keys.values()):
                key[:] = bytes(len(key))
            keys.clear()
        self._master[:] = bytes(len(self._master))

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled")

    def _check_open(self) -> None:
        if self._closed:
            raise KeyringClosed("the keys were locked")

    def _subkey(self, epoch: int, purpose: Purpose) -> bytearray:
        place = (epoch, int(purpose))
        subkey = self._subkeys.get(place)
        if subkey is None:
            data_key = self._data_keys.get(epoch)
            if data_key is None:
                self._check_open()
                raise MissingEpoch("no data key of this epoch is known")
            subkey = bytearray(_hkdf(data_key, self.user_id, f"purpose/{purpose.name.lower()}"))
            self._check_open()
            self._subkeys[place] = subkey
        return subkey


def open_keyring(user_id: bytes, master: bytes, data_keys: Iterable[SealedDataKey]) -> Keyring:
    """Opens every data key; the highest epoch is the one that seals.

    Raises :class:`SealError` (:class:`MissingEpoch` when there is no data key at all).
    """
    opened = _open_data_keys(user_id, master, data_keys)
    if not opened:
        raise MissingEpoch("there is no data key")
    return Keyring(user_id, master, opened)


def _open_data_keys(user_id: bytes, master: bytes, data_keys: Iterable[SealedDataKey]) -> dict[int, bytearray]:
    subkey = _hkdf(master, user_id, "master/data-keys")
    return {
        each.epoch: bytearray(
            open_sealed(subkey, Purpose.KEY, each.epoch, _data_key_context(user_id, each.epoch), each.sealed)
        )
        for each in data_keys
    }


# --- Sessions -----------------------------------------------------------------------------------


def session_id_of(token: bytes) -> bytes:
    """The id of a session row: SHA-256 of its random token, which alone the cookie holds."""
    return hashlib.sha256(b"llamora/1/session-id" + token).digest()


def seal_for_session(
    user_id: bytes,
    session_id: bytes,
    token: bytes,
    boot_secret: bytes,
    master: bytes,
    *,
    _salt: bytes | None = None,
) -> bytes:
    """`session` mode: the master key for the session row, under HKDF(token || boot secret)."""
    key = _session_key(user_id, token, boot_secret)
    context = Context(user_id, "dek_sessions", "session", session_id, 0)
    return seal(key, Purpose.SESSION, 0, context, master, _salt=_salt)


def open_from_session(user_id: bytes, session_id: bytes, token: bytes, boot_secret: bytes, sealed: bytes) -> bytes:
    """The master key of a session row. Raises :class:`SealError`."""
    key = _session_key(user_id, token, boot_secret)
    context = Context(user_id, "dek_sessions", "session", session_id, 0)
    return open_sealed(key, Purpose.SESSION, 0, context, sealed)


def seal_for_cookie(
    user_id: bytes, session_id: bytes, boot_secret: bytes, master: bytes, *, _salt: bytes | None = None
) -> bytes:
    """`cookie` mode: the master key for the cookie itself, under HKDF(boot secret). 346 bytes.

    Nothing in it says how long it is good for: expiry and revocation are the session row's, checked
    on the server before this is opened.
    """
    key = _cookie_key(session_id, boot_secret)
    context = Context(user_id, "dek_sessions", "cookie", session_id, 0)
    return seal(key, Purpose.SESSION, 0, context, master, _salt=_salt)


def open_from_cookie(user_id: bytes, session_id: bytes, boot_secret: bytes, sealed: bytes) -> bytes:
    """The master key out of a cookie. Raises :class:`SealError`."""
    key = _cookie_key(session_id, boot_secret)
    context = Context(user_id, "dek_sessions", "cookie", session_id, 0)
    return open_sealed(key, Purpose.SESSION, 0, context, sealed)


def _session_key(user_id: bytes, token: bytes, boot_secret: bytes) -> bytes:
    # The boot secret has a fixed length, so the concatenation reads in one way only.
    if len(token) < MIN_TOKEN_BYTES or len(boot_secret) != BOOT_SECRET_BYTES:
        raise ValueError("a session needs a token of 16 bytes or more and a boot secret of 32")
    return _hkdf(token + boot_secret, user_id, "session/row")


def _cookie_key(session_id: bytes, boot_secret: bytes) -> bytes:
    if len(boot_secret) != BOOT_SECRET_BYTES:
        raise ValueError("a boot secret has 32 bytes")
    return _hkdf(boot_secret, session_id, "session/cookie")
