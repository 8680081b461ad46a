"""New keys for a user: at once for what is written from then on, in the background for what was written before."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import getLogger

from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.key_rotation import BATCH_SIZE, SEALED_KINDS, UnreadableRecord
from llamora.persistence.local_db import LocalDB
from llamora.vault import keys as vault_keys
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring, SealedKeys
from llamora.vault.memory import Key, wipe
from llamora.vault.slots import RECOVERY, SlotKey

logger = getLogger(__name__)

NOTICE_SECONDS = 2.0
"""After which every worker knows a new key (it looks twice a second), so that none meets a record it cannot open."""
MAX_PASSES = 20
PAUSE_SECONDS = 0.05


@dataclass(slots=True, frozen=True)
class KeptSession:
    """The session that a change of keys does not end.

    `seal` seals the new master key for its row; None where the row holds no key (`cookie` mode).
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
    """Make a new master key and a new data key, sealed for the slots to keep and to add, and end the other sessions.

    `stored` are the sealed keys as they were before anything was checked: when they changed since, StaleRevision is
    raised. What was written before is sealed anew by :meth:`Rotation.tend`. Raises SealError and KeyringClosed.
    """
    if stored.epoch != keys.epoch:
        raise StaleRevision("key_changed_elsewhere")
    added, master = tuple(add), keys.master
    new = vault_keys.renew_keys(keys.user_id, master, stored, add=added, keep=keep)
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
    """Changes data keys. What was begun goes on while the writer is signed in, and at the next sign-in."""

    def __init__(self, db: LocalDB) -> None:
        self._db = db
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    async def start(self, keys: Keyring, session: KeptSession | None = None) -> None:
        """Seal what is written from now on under new keys, and end every session but one.

        Raises StaleRevision while an earlier change is under way, and StorageError.
        """
        stored = await self._db.users.keys(keys.user_id)
        if len(stored.data_keys) > 1:
            raise StaleRevision("rotation_running")
        await renew_keys(self._db, keys, stored, session=session)

    async def finish(self, keys: Keyring) -> list[UnreadableRecord]:
        """Put what was written before under the newest key, then erase the older ones; what did not open.

        Raises StorageError; KeyringClosed when the writer locked meanwhile.
        """
        await asyncio.sleep(NOTICE_SECONDS)
        for attempt in range(MAX_PASSES):
            unreadable: list[UnreadableRecord] = []
            for kind in SEALED_KINDS:
                ids = await self._db.key_rotation.pending_ids(keys, kind)
                for start in range(0, len(ids), BATCH_SIZE):
                    unreadable += await self._db.key_rotation.reseal(
                        keys, kind, ids[start : start + BATCH_SIZE]
                    )
                    await asyncio.sleep(0)  # whoever waits to write comes first
            if await self._db.key_rotation.drop_old_keys(keys, unreadable):
                keys.take(await self._db.users.get_data_keys(keys.user_id))
                return unreadable
            await asyncio.sleep(attempt * PAUSE_SECONDS)  # somebody still wrote under the old one
        raise StorageError("rotation_delayed")

    async def resume_pending(self, keys: Keyring) -> None:
        """Go on with a change that is under way, in the background."""
        user_id = keys.user_id
        try:
            if user_id in self._tasks or await self._db.key_rotation.count_data_keys(user_id) == 1:
                return
            known = keys.take(await self._db.users.get_data_keys(user_id))
        except StorageError as error:  # the next sweep tries again
            logger.warning(
                "whether keys are being changed could not be read (%s)", type(error).__name__
            )
            return
        if known:  # else they were changed elsewhere, and that goes on there
            task = asyncio.create_task(self._finish_in_background(keys), name="rotation")
            self._tasks[user_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(user_id, None))

    def lock(self, user_id: bytes) -> None:
        """Stop: the writer's keys are no longer at hand. Whole batches are whole, the rest waits."""
        if (task := self._tasks.get(user_id)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop everything, after the batches that are being written."""
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
