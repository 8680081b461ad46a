"""Slow down guessing of secrets, for all workers of a server together."""

import asyncio
import struct
import time
from dataclasses import dataclass
from hashlib import sha256

from llamora.dates import utc_now
from llamora.events import Channel, EventBus, Service
from llamora.journal.credentials import AccountError
from llamora.persistence.connection import StorageError
from llamora.persistence.local_db import LocalDB

FREE_ATTEMPTS = 5
MAX_WAIT_SECONDS = 300
MAX_SUBJECTS = 10_000
MAX_STORED_COUNT = 1_000
_RECORD, _CLEAR = b"+", b"-"
_SUBJECT = struct.Struct(">16sI")  # digest, attempts that the store knows of
_ANSWER = struct.Struct(">II")  # seconds to wait, attempts at the first subject


class TooManyAttempts(AccountError):
    """Too many attempts; `params` holds the `seconds` until the next one is accepted."""

    status = 429


@dataclass(slots=True, frozen=True)
class _Attempts:
    count: int
    wait_until: float  # on the monotonic clock


class AttemptLedger:
    """Count attempts by subject, in the memory of the broker's process.

    From attempt FREE_ATTEMPTS on, each further one doubles the wait, up to MAX_WAIT_SECONDS. What
    the store knows from before this run counts as if the last of them were made at its start.
    """

    def __init__(self) -> None:
        self._attempts: dict[bytes, _Attempts] = {}
        self._started_at = time.monotonic()

    async def serve(self, channel: Channel, message: bytes) -> None:
        """Record or clear attempts at the subjects of a message."""
        subjects = list(_SUBJECT.iter_unpack(message[1:]))
        if message[:1] == _CLEAR:
            (user, _), (address, _) = subjects
            self._attempts.pop(user, None)
            self._take_back(address)
            channel.send(_ANSWER.pack(0, 0))
        else:
            channel.send(_ANSWER.pack(*self.record(subjects)))

    def record(self, subjects: list[tuple[bytes, int]]) -> tuple[int, int]:
        """Count an attempt; return 0 and the attempts at the first subject.

        While one of the subjects has to wait, counts nothing and returns the seconds and 0.
        """
        now = time.monotonic()
        known = {digest: self._of(digest, stored) for digest, stored in subjects}
        wait = max(attempts.wait_until - now for attempts in known.values())
        if wait > 0:
            return int(wait) + 1, 0
        if len(self._attempts) > MAX_SUBJECTS:
            self._attempts = {
                digest: each for digest, each in self._attempts.items() if each.wait_until > now
            }
        for digest, attempts in known.items():
            count = attempts.count + 1
            self._attempts[digest] = _Attempts(count, now + _wait_after(count))
        return 0, known[subjects[0][0]].count + 1

    def _take_back(self, digest: bytes) -> None:
        # Of an address only the attempt that was right: who has an account of their own could
        # guess at others without end.
        attempts = self._attempts.pop(digest, None)
        if attempts is not None and attempts.count > 1:
            self._attempts[digest] = _Attempts(attempts.count - 1, 0.0)

    def _of(self, digest: bytes, stored_count: int) -> _Attempts:
        stored = _Attempts(stored_count, self._started_at + _wait_after(stored_count))
        return self._attempts.get(digest, stored)


def _wait_after(count: int) -> int:
    if not count or count < FREE_ATTEMPTS:
        return 0
    return min(2 ** min(count - FREE_ATTEMPTS, 30), MAX_WAIT_SECONDS)


class Throttle:
    """Slow down guessing at a user's secrets and from an address.

    Attempts at users are also in the store, and survive a restart; those from addresses are in
    memory only. Frames hold neither names nor addresses, but hashes under the boot secret.
    """

    def __init__(self, db: LocalDB, events: EventBus, boot_secret: bytes) -> None:
        self._db = db
        self._events = events
        self._boot_secret = boot_secret
        self._saves: set[asyncio.Task[None]] = set()

    async def record_attempt(self, name: str, address: str) -> None:
        """Count an attempt against a user's name and an address.

        Call it before the secret is checked, so that concurrent guesses are not all let through.
        Raises TooManyAttempts, and counts nothing, while one of the two has to wait.
        """
        user_id, stored = await self._db.users.failed_attempts(name)
        wait, count = await self._call(_RECORD, name, address, stored)
        if wait:
            raise TooManyAttempts("too_many_attempts", seconds=wait)
        if user_id is not None:
            # Not waited for: how long the answer takes must not tell whether a name is known.
            save = asyncio.create_task(self._save(user_id, min(count, MAX_STORED_COUNT)))
            self._saves.add(save)
            save.add_done_callback(self._saves.discard)

    async def clear_attempts(self, name: str, address: str) -> None:
        """Forget the attempts at a user, whose secret was right, and this one from an address."""
        await self._call(_CLEAR, name, address)
        await self.close()
        user_id, stored = await self._db.users.failed_attempts(name)
        if user_id is not None and stored:
            await self._save(user_id, 0)

    async def close(self) -> None:
        """Wait until what was counted is stored."""
        await asyncio.gather(*self._saves, return_exceptions=True)

    async def _call(
        self, action: bytes, name: str, address: str, stored: int = 0
    ) -> "tuple[int, int]":
        subjects = _SUBJECT.pack(self._digest("name", name), stored) + _SUBJECT.pack(
            self._digest("address", address), 0
        )
        wait, count = _ANSWER.unpack(await self._events.call(Service.GUESSES, action + subjects))
        return wait, count

    def _digest(self, kind: str, subject: str) -> bytes:
        return sha256(self._boot_secret + f"{kind} {subject}".encode()).digest()[:16]

    async def _save(self, user_id: bytes, count: int) -> None:
        try:
            await self._db.users.set_failed_attempts(user_id, count, utc_now().date())
        except StorageError:
            return  # a full disk must keep nobody out; the memory of the server still counts
