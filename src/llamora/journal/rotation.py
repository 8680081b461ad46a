"""Rotate the keys of a user: new records at once, old ones in the background."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import getLogger

from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.key_rotation import BATCH_SIZE, UnreadableRecord
from llamora.persistence.local_db import LocalDB
from llamora.persistence.schema import RESEALED_KINDS
from llamora.vault import key_renewal
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring, SealedKeys
from llamora.vault.memory import Key, wipe
from llamora.vault.slots import RECOVERY, SlotKey

logger = getLogger(__name__)

NOTICE_SECONDS = 2.0
"""The time after which every worker has a new key (it looks twice a second).

Resealing any earlier would leave workers with records they cannot open.
"""
MAX_PASSES = 20
PAUSE_SECONDS = 0.05


@dataclass(slots=True, frozen=True)
class KeptSession:
    """The session that a change of keys does not end.

    `seal` seals the new master key for its row; None if the row holds no key (`cookie` mode).
    """

    id: bytes
    seal: Callable[[Key], bytes | None]


async def renew_keys(
    db: LocalDB,
    keys: Keyring,
    stored: SealedKeys,
    *,
    add: Iterable[SlotKey] = (),
    keep: Callable[[SlotKey], bool] = lambda _: True,
    session: KeptSession | None = None,
) -> None:
    """Create a new master key and data key, and end every session except `session`.

    They are sealed for the slots in `add` and for those that `keep` accepts. `stored` must be the
    sealed keys as read before any check; StaleRevision is raised if they have changed since. Older
    records are resealed by :meth:`Rotation.resume_pending`. Raises SealError and KeyringClosed.
    """
    if stored.epoch != keys.epoch:
        raise StaleRevision("key_changed_elsewhere")
    added, master = tuple(add), keys.master
    new = key_renewal.renew_keys(keys.user_id, master, stored, add=added, keep=keep)
    try:
        await db.users.renew_keys(
            keys.user_id,
            stored,
            new,
            only_session=session.id if session else b"",
            session_key=session.seal(new.master) if session else None,
            code_changed=any(slot.kind == RECOVERY for slot in added),
        )
        keys.take(new.sealed.data_keys, new.master)
    finally:
        wipe(master, new.master)


class Rotation:
    """Rotate data keys.

    A change that was begun continues while the user is signed in, and at the next sign-in.
    """

    def __init__(self, db: LocalDB) -> None:
        self._db = db
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    async def start(self, keys: Keyring) -> None:
        """Seal new records under new keys, and end every session of the user.

        Raises StaleRevision while an earlier change is running, and StorageError.
        """
        stored = await self._db.users.keys(keys.user_id)
        if len(stored.data_keys) > 1:
            raise StaleRevision("rotation_running")
        await renew_keys(self._db, keys, stored)

    async def finish(self, keys: Keyring) -> list[UnreadableRecord]:
        """Reseal older records under the newest key, then erase the older keys.

        Returns the records that did not open. Raises StorageError, and KeyringClosed if the user
        locked meanwhile.
        """
        await asyncio.sleep(NOTICE_SECONDS)
        for attempt in range(MAX_PASSES):
            unreadable: list[UnreadableRecord] = []
            for kind in RESEALED_KINDS:
                ids = await self._db.key_rotation.pending_ids(keys, kind)
                for start in range(0, len(ids), BATCH_SIZE):
                    unreadable += await self._db.key_rotation.reseal(
                        keys, kind, ids[start : start + BATCH_SIZE]
                    )
                    await asyncio.sleep(0)  # lets pending writes go first
            if await self._db.key_rotation.drop_old_keys(keys, unreadable):
                keys.take(await self._db.users.get_data_keys(keys.user_id))
                return unreadable
            await asyncio.sleep(attempt * PAUSE_SECONDS)  # a write still used the old key
        raise StorageError("rotation_delayed")

    async def resume_pending(self, keys: Keyring) -> None:
        """Continue a change that is under way, in the background."""
        user_id = keys.user_id
        try:
            if user_id in self._tasks or await self._db.key_rotation.count_data_keys(user_id) == 1:
                return
            known = keys.take(await self._db.users.get_data_keys(user_id))
        except StorageError as error:  # the next maintenance run tries again
            logger.warning(
                "whether keys are being changed could not be read (%s)", type(error).__name__
            )
            return
        if known:  # else another process changed them, and continues there
            task = asyncio.create_task(self._finish_in_background(keys), name="rotation")
            self._tasks[user_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(user_id, None))

    def lock(self, user_id: bytes) -> None:
        """Stop resealing, as the user's keys are being closed.

        Each batch is complete or untouched; the rest is resumed later.
        """
        if (task := self._tasks.get(user_id)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all changes, after the batches that are being written."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish_in_background(self, keys: Keyring) -> None:
        try:
            unreadable = await self.finish(keys)
        except (StorageError, VaultError) as error:
            logger.warning("the change of a data key was interrupted (%s)", type(error).__name__)
            return
        if unreadable:
            logger.error("%d records did not open when their key was changed", len(unreadable))
