"""Attempts to get in: how many failed, and the browsers in which somebody once succeeded."""

from collections.abc import Collection, Mapping
from datetime import date, timedelta

from llamora.persistence.connection import Connections
from llamora.persistence.table import fetch_in

MAX_COUNT = 2**31 - 1
MAX_DEVICES = 20  # of one user; those seen longest ago are forgotten
MAX_DEVICE_DAYS = 400  # browsers keep no cookie for longer (RFC 6265bis, section 5.5)


class Attempts:
    """The store of failed attempts, reached as `db.attempts`. A subject is part of a hash."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def failed(self, subjects: Collection[bytes], today: date) -> dict[bytes, int]:
        """Return the failed attempts stored, without those from before yesterday."""
        rows = await fetch_in(
            self._db,
            "SELECT subject, count FROM failed_attempts"
            " WHERE CAST(last_on AS TEXT)>=? AND typeof(count)='integer' AND subject IN (*)",
            subjects,
            (today - timedelta(days=1)).isoformat(),
        )
        return {subject: min(max(count, 0), MAX_COUNT) for subject, count in rows}

    async def save(self, counts: Mapping[bytes, int], today: date) -> None:
        """Store how many attempts failed, the last of them today; drop what counts no more."""
        async with self._db.write(search_unaffected=True) as tx:
            since = (today - timedelta(days=1)).isoformat()
            await tx.execute("DELETE FROM failed_attempts WHERE last_on<?", (since,))
            await tx.execute_many(
                "INSERT INTO failed_attempts (subject, count, last_on) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET count=max(count, excluded.count),"
                " last_on=excluded.last_on",
                [(subject, count, today.isoformat()) for subject, count in counts.items()],
            )

    async def clear(self, subjects: Collection[bytes]) -> None:
        """Forget the failed attempts at these subjects."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute_many(
                "DELETE FROM failed_attempts WHERE subject=?", [(each,) for each in subjects]
            )


class KnownDevices:
    """The store of browsers in which a user got in, reached as `db.known_devices`.

    An id is a hash of the browser's random token and of the user's id.
    """

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def is_known(self, device_id: bytes, today: date) -> bool:
        """Return True if the user of this id got in with this browser."""
        since = (today - timedelta(days=MAX_DEVICE_DAYS)).isoformat()
        return bool(
            await self._db.fetch(
                "SELECT 1 FROM known_devices WHERE id=? AND seen_on>=?", (device_id, since)
            )
        )

    async def remember(self, user_id: bytes, device_id: bytes, today: date) -> None:
        """Store that a user got in with this browser today."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "INSERT INTO known_devices (id, user_id, seen_on) SELECT ?, id, ? FROM users"
                " WHERE id=? ON CONFLICT DO UPDATE SET seen_on=excluded.seen_on",
                (device_id, today.isoformat(), user_id),
            )
            await tx.execute(
                "DELETE FROM known_devices WHERE user_id=?1 AND id NOT IN (SELECT id FROM"
                " known_devices WHERE user_id=?1 ORDER BY id=?2 DESC, seen_on DESC LIMIT ?3)",
                (user_id, device_id, MAX_DEVICES),
            )
