"""Slow down guessing of secrets, for all workers of a server together."""

import asyncio
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

from llamora.dates import utc_now
from llamora.events import Channel, EventBus, Service
from llamora.journal.credentials import AccountError
from llamora.persistence.connection import StorageError
from llamora.persistence.local_db import LocalDB

FREE_ATTEMPTS = 5
FREE_ATTEMPTS_AT_NAME = 20  # from all addresses together: one alone makes nobody else wait
FREE_REGISTRATIONS = 10
MAX_WAIT_SECONDS = 300
MAX_SUBJECTS = 10_000
MAX_STORED_COUNT = 1_000
_RECORD, _TAKE_BACK, _CLEAR = b"+", b"-", b"0"
_SUBJECT = struct.Struct(">16sIhh")  # digest, attempts that the store knows of, free, share


class TooManyAttempts(AccountError):
    """Too many attempts; `params` holds the `seconds` until the next one is accepted."""

    status = 429


@dataclass(slots=True, frozen=True)
class Subject:
    """Name what attempts are counted by. The wait begins at attempt number `free`.

    Of what one stranger tries, at most `share` attempts count here; 0 is all of them.
    `stored_bytes` of a hash name it in the store, so that its count survives a restart; 0 is none.
    """

    kind: str
    value: str
    free: int
    share: int = 0
    stored_bytes: int = 0

    @property
    def stored_as(self) -> bytes:
        """Return its key in the store.

        For names it is one byte, whether they exist or not: a passphrase that was typed into the
        wrong field must not be guessed from it.
        """
        digest = sha256(f"{self.kind} {self.value}".encode("utf-8", "surrogatepass")).digest()
        return self.kind[:1].encode() + digest[: self.stored_bytes]


Subjects = tuple[Subject, ...]


def stranger(name: str, address: str) -> Subjects:
    """Return what attempts at a name count by, from an address and a browser not known."""
    network = network_of(address)
    return (
        Subject("pair", f"{network} {name}", FREE_ATTEMPTS, stored_bytes=1),
        Subject("name", name, FREE_ATTEMPTS_AT_NAME, share=FREE_ATTEMPTS, stored_bytes=1),
        Subject("address", network, FREE_ATTEMPTS),
    )


def known_device(device_id: bytes) -> Subjects:
    """Return what attempts count by in a browser where the user once got in: nothing else."""
    return (Subject("device", device_id.hex(), FREE_ATTEMPTS, stored_bytes=8),)


def open_session(session_id: bytes) -> Subjects:
    """Return what checks of a signed-in user count by: nothing else."""
    return (Subject("session", session_id.hex(), FREE_ATTEMPTS),)


def registration(address: str) -> Subjects:
    """Return what new users count by."""
    return (Subject("registration", network_of(address), FREE_REGISTRATIONS),)


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, and of an IPv6 address the /64 that one household gets."""
    try:
        parsed = ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or f"{int(parsed) >> 64:x}::/64")
    return str(parsed)


@dataclass(slots=True, frozen=True)
class _Attempts:
    count: int
    wait_until: float  # on the monotonic clock


class AttemptLedger:
    """Count attempts by subject, in the memory of the broker's process.

    From attempt number `free` of a subject on, each further one doubles the wait, up to
    MAX_WAIT_SECONDS. What the store knows from before this run counts as if the last of them were
    made at its start.
    """

    def __init__(self) -> None:
        self._attempts: dict[bytes, _Attempts] = {}
        self._started_at = time.monotonic()

    async def serve(self, channel: Channel, message: bytes) -> None:
        """Record, take back or clear attempts at the subjects of a message."""
        subjects = list(_SUBJECT.iter_unpack(message[1:]))
        wait, counts = 0, [0] * len(subjects)
        if message[:1] == _RECORD:
            wait, counts = self.record(subjects)
        elif message[:1] == _TAKE_BACK:
            for subject in subjects:
                self._take_back(subject[0])
        else:
            for subject in subjects:
                self._attempts.pop(subject[0], None)
        channel.send(struct.pack(f">I{len(counts)}I", wait, *counts))

    def record(self, subjects: Sequence[tuple[bytes, int, int, int]]) -> tuple[int, list[int]]:
        """Count an attempt at (digest, stored count, free, share); return 0 and the new counts.

        While one of the subjects has to wait, counts nothing and returns the seconds and zeros.
        """
        now = time.monotonic()
        known = [self._of(digest, stored, free) for digest, stored, free, _share in subjects]
        wait = max(attempts.wait_until - now for attempts in known)
        if wait > 0:
            return int(wait) + 1, [0] * len(subjects)
        if len(self._attempts) > MAX_SUBJECTS:
            self._attempts = {
                digest: each for digest, each in self._attempts.items() if each.wait_until > now
            }
        counts = [attempts.count + 1 for attempts in known]
        for (digest, _stored, free, share), count in zip(subjects, counts, strict=True):
            if not share or counts[0] <= share:
                self._attempts[digest] = _Attempts(count, now + _wait_after(count, free))
        return 0, counts

    def _take_back(self, digest: bytes) -> None:
        attempts = self._attempts.pop(digest, None)
        if attempts is not None and attempts.count > 1:
            self._attempts[digest] = _Attempts(attempts.count - 1, 0.0)

    def _of(self, digest: bytes, stored_count: int, free: int) -> _Attempts:
        stored = _Attempts(stored_count, self._started_at + _wait_after(stored_count, free))
        return self._attempts.get(digest, stored)


def _wait_after(count: int, free: int) -> int:
    if not count or count < free:
        return 0
    return min(2 ** min(count - free, 30), MAX_WAIT_SECONDS)


class Throttle:
    """Slow down guessing at secrets.

    Waits survive a restart, but for those of addresses and sessions, which are in memory only.
    Frames hold neither names nor addresses, but hashes under the boot secret.
    """

    def __init__(self, db: LocalDB, events: EventBus, boot_secret: bytes) -> None:
        self._db = db
        self._events = events
        self._boot_secret = boot_secret
        self._saves: set[asyncio.Task[None]] = set()

    async def record_attempt(self, subjects: Subjects) -> None:
        """Count an attempt at each of the subjects.

        Call it before the secret is checked, so that concurrent guesses are not all let through.
        Raises TooManyAttempts, and counts nothing, while one of them has to wait.
        """
        wait, *counts = await self._call(_RECORD, subjects, await self._stored(subjects))
        if wait:
            raise TooManyAttempts("too_many_attempts", seconds=wait)
        failed = {
            subject.stored_as: min(count, MAX_STORED_COUNT)
            for subject, count in zip(subjects, counts, strict=True)
            if subject.stored_bytes and count >= subject.free
        }
        if failed:
            save = asyncio.create_task(self._save(failed))
            self._saves.add(save)
            save.add_done_callback(self._saves.discard)

    async def take_back_attempt(self, subjects: Subjects) -> None:
        """Forget one attempt, which was not looked at after all."""
        await self._call(_TAKE_BACK, subjects)

    async def clear_attempts(self, subjects: Subjects) -> None:
        """Forget the attempts at subjects whose secret was right.

        Of an address only this one: who has an account of their own could guess at others without
        end.
        """
        addresses = tuple(each for each in subjects if each.kind == "address")
        await self._call(_CLEAR, tuple(each for each in subjects if each not in addresses))
        await self.take_back_attempt(addresses)
        await self.close()
        if stored := await self._stored(subjects):
            with suppress(StorageError):
                await self._db.attempts.clear(stored)

    async def close(self) -> None:
        """Wait until what was counted is stored."""
        await asyncio.gather(*self._saves, return_exceptions=True)

    async def _stored(self, subjects: Subjects) -> dict[bytes, int]:
        keys = [subject.stored_as for subject in subjects if subject.stored_bytes]
        return await self._db.attempts.failed(keys, utc_now().date()) if keys else {}

    async def _call(
        self, action: bytes, subjects: Subjects, stored: "dict[bytes, int] | None" = None
    ) -> tuple[int, ...]:
        message = action + b"".join(
            _SUBJECT.pack(
                self._digest(each), (stored or {}).get(each.stored_as, 0), each.free, each.share
            )
            for each in subjects
        )
        answer = await self._events.call(Service.GUESSES, message)
        return struct.unpack(f">{len(answer) // 4}I", answer)

    def _digest(self, subject: Subject) -> bytes:
        text = f"{subject.kind} {subject.value}".encode("utf-8", "surrogatepass")
        return sha256(self._boot_secret + text).digest()[:16]

    async def _save(self, counts: dict[bytes, int]) -> None:
        with suppress(StorageError):  # a full disk keeps nobody out; the server's memory counts
            await self._db.attempts.save(counts, utc_now().date())
