"""Notice that records were put back, removed or added by something other than this program."""

import asyncio
from dataclasses import replace
from logging import getLogger

import msgspec

from llamora.journal.profile import load_profile, serialize_profile
from llamora.journal.session_keys import OpenSession
from llamora.persistence.checksums import ChecksumState, SeenChange
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.local_db import LocalDB
from llamora.vault.envelope import SealError, VaultError
from llamora.vault.keys import Keyring
from llamora.vault.session_keys import open_seen, seal_seen

logger = getLogger(__name__)


class Integrity:
    """Check the sum over a user's records when they come, and tell browsers of the latest change.

    Nothing waits for the check, and nobody is kept out by what it finds.
    """

    def __init__(self, db: LocalDB) -> None:
        self._db = db
        self._checks: dict[bytes, asyncio.Task[ChecksumState]] = {}
        self._told: dict[bytes, dict[bytes, SeenChange]] = {}  # by user and session

    async def compare(self, keys: Keyring, seen: bytes) -> None:
        """Compare what a browser has `seen` with the store at sign-in; a difference is kept there."""
        change: SeenChange | None = None
        if seen:
            try:
                change = msgspec.json.decode(open_seen(keys, seen), type=SeenChange)
            except (SealError, msgspec.MsgspecError):  # another user's, or of a former journal
                logger.info("what a browser has seen did not open")
        try:
            if not await self._db.checksums.compare(keys, change):
                logger.warning("a browser has seen a later change than there is")
        except StorageError as error:  # a full disk must not keep anybody out
            logger.warning("a browser's latest change was not compared (%s)", type(error).__name__)

    def unlock(self, keys: Keyring) -> None:
        """Start the check of a user who came, once, in the background."""
        if keys.user_id not in self._checks:
            task = asyncio.create_task(self._check(keys), name="check the sum")
            self._checks[keys.user_id] = task

    async def get_state(self, keys: Keyring) -> ChecksumState:
        """Return what the check of a user found, after its end."""
        self.unlock(keys)
        return await asyncio.shield(self._checks[keys.user_id])

    def mark_for(self, session: OpenSession) -> bytes:
        """Return the latest change, sealed, if the session's browser was not told of it yet.

        It was committed, so a browser can only be behind the store.
        """
        user_id, told = session.user.id, self._told.setdefault(session.user.id, {})
        latest = self._db.checksums.latest(user_id)
        if latest is None or told.get(session.id) == latest or session.keys.closed:
            return b""
        told[session.id] = latest
        return seal_seen(session.keys, msgspec.json.encode(latest))

    def lock(self, user_id: bytes) -> None:
        """Forget a user who left."""
        self._told.pop(user_id, None)
        self._db.checksums.forget(user_id)
        if (check := self._checks.pop(user_id, None)) is not None:
            check.cancel()

    async def close(self) -> None:
        checks = list(self._checks.values())
        for user_id in list(self._checks):
            self.lock(user_id)
        await asyncio.gather(*checks, return_exceptions=True)

    async def _check(self, keys: Keyring) -> ChecksumState:
        try:
            state = await self._db.checksums.check(keys)
            if state == "missing":
                await self._db.checksums.create(keys)
                state = "right"
            if state == "right":
                await self._require_sum(keys)
        except (StorageError, VaultError) as error:
            logger.warning("the sum was not checked (%s)", type(error).__name__)
            return "unknown"
        if state != "right":
            logger.error("records are not as they were written (%s)", state)
        return state

    async def _require_sum(self, keys: Keyring) -> None:
        """Note with the settings that there is a sum, so that its absence is noticed."""
        profile = await load_profile(self._db, keys)
        if profile.summed or profile.damaged or not profile.revision:
            return
        try:
            record = serialize_profile(replace(profile, summed=True))
            await self._db.profiles.save(keys, record, revision=profile.revision)
        except StaleRevision:  # saved meanwhile; the next sign-in notes it
            return
