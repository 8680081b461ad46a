"""A new data key for a writer: at once for what is written, in the background for what was."""

import asyncio
from logging import getLogger

from llamora.persistence.connection import StorageError
from llamora.persistence.epochs import BATCH, SEALED, Unreadable
from llamora.persistence.local_db import LocalDB
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring, new_data_key
from llamora.vault.memory import wipe

logger = getLogger(__name__)

NOTICE_SECONDS = 2.0
"""After which every worker knows a new key (it looks twice a second), so that none meets a record it cannot open."""
PASSES = 20
PAUSE_SECONDS = 0.05


class Rotation:
    """Changes data keys. What was begun goes on while the writer is signed in, and at the next sign-in."""

    def __init__(self, db: LocalDB) -> None:
        self._db = db
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    async def begin(self, keys: Keyring, only_session: bytes = b"") -> None:
        """Seal what is written from now on under a new key, and end every session but one.

        Raises StaleRevision while an earlier change is under way, and StorageError.
        """
        master = keys.master
        key = new_data_key(keys.user_id, master, keys.epoch + 1)
        wipe(master)
        await self._db.epochs.begin(keys.user_id, key, only_session)
        keys.take(await self._db.users.data_keys(keys.user_id))

    async def finish(self, keys: Keyring) -> list[Unreadable]:
        """Put what was written before under the newest key, then erase the older ones; what did not open.

        Raises StorageError; KeyringClosed when the writer locked meanwhile.
        """
        await asyncio.sleep(NOTICE_SECONDS)
        for number in range(PASSES):
            unreadable: list[Unreadable] = []
            for kind in SEALED:
                ids = await self._db.epochs.waiting(keys, kind)
                for start in range(0, len(ids), BATCH):
                    unreadable += await self._db.epochs.seal_anew(keys, kind, ids[start : start + BATCH])
                    await asyncio.sleep(0)  # whoever waits to write comes first
            if await self._db.epochs.retire(keys, unreadable):
                keys.take(await self._db.users.data_keys(keys.user_id))
                return unreadable
            await asyncio.sleep(number * PAUSE_SECONDS)  # somebody still wrote under the old one
        raise StorageError("Records keep being written under the old key. The change goes on at the next sign-in.")

    async def tend(self, keys: Keyring) -> None:
        """Go on with a change that is under way, in the background."""
        user_id = keys.user_id
        if user_id not in self._tasks and await self._db.epochs.count(user_id) > 1:
            keys.take(await self._db.users.data_keys(user_id))
            task = asyncio.create_task(self._finish(keys), name="rotation")
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

    async def _finish(self, keys: Keyring) -> None:
        try:
            unreadable = await self.finish(keys)
        except (StorageError, VaultError) as error:
            logger.warning("the change of a data key was interrupted (%s)", type(error).__name__)
            return
        if unreadable:
            logger.error("%d records did not open when their key was changed", len(unreadable))
