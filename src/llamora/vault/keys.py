"""Keys: from the user master key to the subkey that seals one record.

The master key opens one data key per epoch, the key of the blind indexes and the list of living
slots; a data key gives a subkey per purpose. llamora.vault.slots derives the master key. Every HKDF
label is written out in docs/encryption.md.
"""

import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.backends.openssl.backend import backend

from llamora.vault.envelope import (
    KEY,
    KEY_BYTES,
    Context,
    Purpose,
    SealError,
    VaultError,
    WrongKey,
    hkdf,
    open_key,
    open_sealed,
    seal,
    sealed_epoch,
)
from llamora.vault.memory import Key, KeyMemory, wipe


class MissingEpoch(SealError):
    """The record names a key epoch that this keyring does not hold."""


class KeyringClosed(VaultError):
    """The keys were forgotten (lock, sign-out, idle) before or while they were used."""


def cipher_library() -> str:
    """Return the library under `cryptography` and its version: "OpenSSL 3.5.4 30 Sep 2025"."""
    return backend.openssl_version_text()


@dataclass(frozen=True, slots=True)
class SealedDataKey:
    """The data key of one epoch, sealed under the master key."""

    epoch: int
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedKeys:
    """The stored keys of a user besides the slots, all of them sealed under one master key.

    `slots` is the list of the living slots with their public keys, `index_key` the key of the blind
    indexes.
    """

    data_keys: tuple[SealedDataKey, ...]
    slots: bytes = field(repr=False)
    index_key: bytes = field(repr=False)

    @property
    def epoch(self) -> int:
        """Return the newest epoch, or 0 without a data key.

        It is the master key's epoch too: each new master key brings a new data key.
        """
        return max((key.epoch for key in self.data_keys), default=0)


# Column of the table `keyrings` and the label of the key that seals it.
SLOTS = ("slots", "master/slots")
INDEX_KEY = ("index_key", "master/index-key")


def seal_under_master(
    user_id: bytes,
    master: Key,
    epoch: int,
    what: tuple[str, str],
    text: Key,
    *,
    _salt: bytes | None = None,
) -> bytes:
    """Seal :data:`SLOTS` or :data:`INDEX_KEY` under the master key of `epoch`."""
    column, label = what
    subkey = hkdf(master, user_id, label)
    try:
        return seal(
            subkey, KEY, epoch, Context(user_id, "keyrings", column, b"", 0), text, _salt=_salt
        )
    finally:
        wipe(subkey)


def open_under_master(
    user_id: bytes, master: Key, what: tuple[str, str], sealed: bytes
) -> bytearray:
    """Open :data:`SLOTS` or :data:`INDEX_KEY`; the caller wipes it. Raise :class:`SealError`."""
    column, label = what
    subkey = hkdf(master, user_id, label)
    try:
        return open_key(
            subkey, KEY, sealed_epoch(sealed), Context(user_id, "keyrings", column, b"", 0), sealed
        )
    finally:
        wipe(subkey)


def _data_key_context(user_id: bytes, epoch: int) -> Context:
    return Context(user_id, "data_keys", "sealed", epoch.to_bytes(4, "big"), 0)


def new_data_key(
    user_id: bytes, master: Key, epoch: int, *, _key: Key | None = None, _salt: bytes | None = None
) -> SealedDataKey:
    """Make a random data key for `epoch` (1 ..) and seal it under the master key."""
    subkey = hkdf(master, user_id, "master/data-keys")
    key = bytearray(os.urandom(KEY_BYTES) if _key is None else _key)
    sealed = seal(subkey, KEY, epoch, _data_key_context(user_id, epoch), key, _salt=_salt)
    wipe(subkey, key)
    return SealedDataKey(epoch, sealed)


class Keyring:
    """The unlocked keys of one user: in memory only, never pickled, forgotten with :meth:`close`.

    Safe to use from several threads. Made by :func:`open_keyring`.
    """

    __slots__ = (
        "_blind_keys",
        "_closed",
        "_data_keys",
        "_holder_count",
        "_index_key",
        "_master",
        "_memory",
        "_subkeys",
        "_unreadable",
        "epoch",
        "user_id",
    )

    def __init__(
        self,
        user_id: bytes,
        master: Key,
        data_keys: dict[int, bytearray],
        index_key: Key,
        unreadable: Iterable[SealedDataKey] = (),
    ) -> None:
        self.user_id = user_id
        self._unreadable = frozenset(unreadable)
        self.epoch = max(data_keys)
        self._memory = KeyMemory()
        self._master = self._memory.keep(master)
        self._index_key = self._memory.keep(index_key)
        self._data_keys = {epoch: self._memory.keep(key) for epoch, key in data_keys.items()}
        self._subkeys: dict[tuple[int, int], memoryview] = {}
        self._blind_keys: dict[str, memoryview] = {}
        self._closed = False
        self._holder_count = 0

    @property
    def master(self) -> bytearray:
        """Return a copy of the master key (32 bytes); the caller wipes it.

        Raise :class:`KeyringClosed`.
        """
        master = bytearray(self._master)
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
        """Seal a text for this place under the current epoch. Raise :class:`KeyringClosed`."""
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
        """Return the text of a record of any epoch held here.

        Raise :class:`MissingEpoch`, :class:`KeyringClosed` and what
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
        """Return 32 bytes that equal values of one label share: HMAC-SHA256 under an index subkey.

        Stable over new master and data keys, different for every user and label. Raise
        :class:`KeyringClosed`.
        """
        key = self._blind_keys.get(label)
        if key is None:
            key = self._memory.place(KEY_BYTES)
            hkdf(self._index_key, self.user_id, f"blind/{label}", key)
            self._check_again(key)
            self._blind_keys[label] = key
        digest = hmac.digest(key, value, "sha256")
        self._check_open()
        return digest

    def take(self, data_keys: Iterable[SealedDataKey], master: Key | None = None) -> bool:
        """Take over the data keys as stored now: open new ones, forget those that are gone.

        `master` is the master key they are sealed under if that is a new one. Return False, with
        nothing changed, when they are sealed under a key not known here. A list older than the one
        held changes nothing either. What another thread was sealing under a key forgotten here may
        come out under zeros: the store refuses records of a key that is gone. Raise
        :class:`SealError` and :class:`KeyringClosed`.
        """
        stored = {key.epoch: key for key in data_keys if key not in self._unreadable}
        if not stored or max(stored) < self.epoch:
            return True
        new = [key for epoch, key in stored.items() if epoch not in self._data_keys]
        if new:
            known = self.master if master is None else bytearray(master)
            try:
                opened = open_data_keys(self.user_id, known, new)
            except SealError:
                if max(stored) not in self._data_keys:
                    return False
                opened = {}  # an older key that was damaged or put there
            finally:
                wipe(known)
            self._data_keys.update({epoch: self._memory.keep(key) for epoch, key in opened.items()})
            wipe(*opened.values())
            if master is not None:  # it opened them, so it is the present one
                self._master[:] = master
        self.epoch = max(stored.keys() & self._data_keys.keys())
        for epoch in self._data_keys.keys() - stored.keys():
            gone = [self._data_keys.pop(epoch)]
            gone += [self._subkeys.pop(place) for place in list(self._subkeys) if place[0] == epoch]
            wipe(*gone)
        if self._closed:
            self.close()  # closed meanwhile: nothing that was opened may stay
            self._check_open()
        return True

    def hold(self) -> None:
        """Keep the keys open until as many calls of :meth:`release` as of this."""
        self._holder_count += 1

    def release(self) -> None:
        """Close the keys if nobody else holds them."""
        self._holder_count -= 1
        if self._holder_count <= 0:
            self.close()

    def close(self) -> None:
        """Forget the keys: overwrite our copies and refuse every later use. May be called again."""
        # The flag first: a thread in the middle of sealing sees it before its result gets out.
        self._closed = True
        self._memory.clear()
        for keys in (self._subkeys, self._data_keys, self._blind_keys):
            keys.clear()

    @property
    def closed(self) -> bool:
        return self._closed

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled")

    def _check_open(self) -> None:
        if self._closed:
            raise KeyringClosed("the keys were locked")

    def _check_again(self, key: memoryview) -> None:
        """Wipe a key that was derived while close() ran and did not see it."""
        if self._closed:
            wipe(key)
            self._check_open()

    def _subkey(self, epoch: int, purpose: Purpose) -> memoryview:
        place = (epoch, purpose.number)
        subkey = self._subkeys.get(place)
        if subkey is None:
            data_key = self._data_keys.get(epoch)
            if data_key is None:
                self._check_open()
                raise MissingEpoch("no data key of this epoch is known")
            subkey = self._memory.place(KEY_BYTES)
            hkdf(data_key, self.user_id, f"purpose/{purpose.label}", subkey)
            self._check_again(subkey)
            self._subkeys[place] = subkey
        return subkey


def open_keyring(user_id: bytes, master: Key, sealed: SealedKeys) -> Keyring:
    """Open the data keys and the blind-index key; the highest epoch is the one that seals.

    Raise :class:`SealError` when none opens (:class:`MissingEpoch` when there is none at all).
    """
    opened = open_data_keys(user_id, master, sealed.data_keys)
    if not opened:
        raise MissingEpoch("there is no data key")
    index_key = open_under_master(user_id, master, INDEX_KEY, sealed.index_key)
    try:
        unreadable = [key for key in sealed.data_keys if key.epoch not in opened]
        return Keyring(user_id, master, opened, index_key, unreadable)
    finally:
        wipe(index_key, *opened.values())


def open_data_keys(
    user_id: bytes, master: Key, data_keys: Iterable[SealedDataKey]
) -> dict[int, bytearray]:
    """Open data keys, by epoch; the caller wipes them.

    One that does not open is left out, and takes only its own records with it. Raise
    :class:`SealError` when none opens.
    """
    subkey = hkdf(master, user_id, "master/data-keys")
    opened: dict[int, bytearray] = {}
    failure: SealError | None = None
    try:
        for each in data_keys:
            context = _data_key_context(user_id, each.epoch)
            try:
                opened[each.epoch] = open_key(subkey, KEY, each.epoch, context, each.sealed)
            except SealError as error:
                failure = error
    finally:
        wipe(subkey)
    if failure is not None and not opened:
        raise failure
    return opened
