"""The making of keys: for a new user, and anew for every living slot of an old one."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from llamora.vault.envelope import KEY_BYTES
from llamora.vault.kdf import Argon2Params
from llamora.vault.keys import (
    INDEX_KEY,
    SLOTS,
    SealedKeys,
    new_data_key,
    open_data_keys,
    open_under_master,
    seal_under_master,
)
from llamora.vault.memory import Key, wipe
from llamora.vault.recovery_code import new_recovery_code
from llamora.vault.slots import (
    KeySlot,
    SlotKey,
    pack_slot_keys,
    passphrase_slot_key,
    recovery_slot_key,
    seal_slot,
    unpack_slot_keys,
)


@dataclass(frozen=True, slots=True)
class NewKeys:
    """A new master key and what is sealed with it. Never store `master` or `recovery_code`.

    `recovery_code` is empty where none was made.
    """

    master: bytearray = field(repr=False)
    slots: tuple[KeySlot, ...]
    sealed: SealedKeys
    recovery_code: str = field(default="", repr=False)


def create_keys(user_id: bytes, passphrase: str, params: Argon2Params) -> NewKeys:
    """Make a new user's keys: a master key in its two slots and the data key of epoch 1.

    Blocks for one KDF.
    """
    master = bytearray(os.urandom(KEY_BYTES))
    code = new_recovery_code()
    slots = (passphrase_slot_key(user_id, passphrase, params), recovery_slot_key(user_id, code))
    sealed = seal_new_keys(user_id, master, slots)
    return NewKeys(
        master, tuple(seal_slot(user_id, 1, slot, master) for slot in slots), sealed, code
    )


def seal_new_keys(user_id: bytes, master: Key, slots: Iterable[SlotKey] = ()) -> SealedKeys:
    """Make the first data key and the blind-index key, and seal them and the list of slots."""
    index_key = bytearray(os.urandom(KEY_BYTES))
    try:
        return SealedKeys(
            (new_data_key(user_id, master, 1),),
            seal_under_master(user_id, master, 1, SLOTS, pack_slot_keys(slots)),
            seal_under_master(user_id, master, 1, INDEX_KEY, index_key),
        )
    finally:
        wipe(index_key)


def renew_keys(
    user_id: bytes,
    master: Key,
    stored: SealedKeys,
    *,
    add: Iterable[SlotKey] = (),
    keep: Callable[[SlotKey], bool] = lambda _: True,
) -> NewKeys:
    """Make a new master key and the next epoch's data key, for the slots to `keep` and to `add`.

    Needs no secret of a slot: the new master key is sealed to their public keys, which the old one
    opens. Older data keys, which records still need, and the key of the blind indexes are sealed
    anew under the new one; the caller erases what only the old one opened. Raise
    :class:`SealError`.
    """
    slots = [slot for slot in living_slots(user_id, master, stored) if keep(slot)] + list(add)
    epoch, fresh = stored.epoch + 1, bytearray(os.urandom(KEY_BYTES))
    index_key = open_under_master(user_id, master, INDEX_KEY, stored.index_key)
    older = open_data_keys(user_id, master, stored.data_keys)
    try:
        sealed = SealedKeys(
            (
                *(
                    new_data_key(user_id, fresh, number, _key=key)
                    for number, key in sorted(older.items())
                ),
                new_data_key(user_id, fresh, epoch),
            ),
            seal_under_master(user_id, fresh, epoch, SLOTS, pack_slot_keys(slots)),
            seal_under_master(user_id, fresh, epoch, INDEX_KEY, index_key),
        )
        return NewKeys(
            fresh, tuple(seal_slot(user_id, epoch, slot, fresh) for slot in slots), sealed
        )
    finally:
        wipe(index_key, *older.values())


def replace_slot(
    user_id: bytes, master: Key, stored: SealedKeys, old: bytes, new: SlotKey
) -> tuple[KeySlot, SealedKeys]:
    """Replace the slot with the id `old` by a slot of the same secret; the master key stays.

    Raise :class:`SealError`.
    """
    slots = [slot for slot in living_slots(user_id, master, stored) if slot.id != old] + [new]
    packed = seal_under_master(user_id, master, stored.epoch, SLOTS, pack_slot_keys(slots))
    return seal_slot(user_id, stored.epoch, new, master), replace(stored, slots=packed)


def living_slots(user_id: bytes, master: Key, stored: SealedKeys) -> list[SlotKey]:
    """Open the list of the slots that open to this master key. Raise :class:`SealError`."""
    return unpack_slot_keys(bytes(open_under_master(user_id, master, SLOTS, stored.slots)))
