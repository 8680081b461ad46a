"""Rows of open sessions.

In `session` mode they hold the master key, sealed under a secret that is only in memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from llamora.persistence.connection import Connections
from llamora.persistence.schema import DATA_KEY, DEVICES
from llamora.persistence.table import SealedTable, fetch_in
from llamora.vault.keys import Keyring

EXPIRED_GRACE_SECONDS = 5
"""The time an expired session keeps its row.

Every worker sees the row within a second and can tell a lock from a sign-out, which deletes the row
at once.
"""


@dataclass(slots=True, frozen=True)
class Session:
    """One open session. `id` is the SHA-256 of the cookie's token; times are Unix seconds.

    `sealed_key` is None in `cookie` mode, where the browser carries the sealed key. `epoch` is that
    of the user's newest data key when `get` read the session.
    """

    id: bytes
    user_id: bytes
    sealed_key: bytes | None
    idle_until: int
    expires_at: int
    epoch: int = field(default=0, compare=False)


class Sessions:
    """The store of sessions, reached as `db.sessions`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._devices = SealedTable(connections, DEVICES, str)

    async def add(
        self, session: Session, day: date, device: tuple[Keyring, str] | None = None
    ) -> None:
        """Store a new session and record the day as that of the user's last sign-in.

        `device` is the browser's name and the keys to seal it with.
        """
        device_keys, name = device or (None, "")
        row = self._devices.seal(device_keys, session.id, 1, name) if device_keys and name else None
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "UPDATE users SET signed_in_on=? WHERE id=?", (day.isoformat(), session.user_id)
            )
            await tx.execute(
                "INSERT INTO dek_sessions (id, user_id, sealed, idle_until, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    session.id,
                    session.user_id,
                    session.sealed_key,
                    session.idle_until,
                    session.expires_at,
                ),
            )
            if row is not None:
                await self._devices.insert(tx, row)

    async def device_names(self, keys: Keyring) -> dict[bytes, str]:
        """Return the browser names of a user's sessions by session id, without unreadable ones."""
        stored = await self._devices.fetch(keys)
        return {record.id: record.value for record in stored if record.value is not None}

    async def get(self, session_id: bytes) -> Session | None:
        rows = await self._db.fetch(
            "SELECT id, user_id, sealed, idle_until, expires_at,"
            " (SELECT max(epoch) FROM data_keys WHERE data_keys.user_id=dek_sessions.user_id"
            f" AND {DATA_KEY})"
            " FROM dek_sessions WHERE id=?",
            (session_id,),
        )
        return Session(*rows[0]) if rows else None

    async def list_for_user(self, user_id: bytes) -> list[Session]:
        rows = await self._db.fetch(
            "SELECT id, user_id, sealed, idle_until, expires_at FROM dek_sessions WHERE user_id=?",
            (user_id,),
        )
        return [Session(*row) for row in rows]

    async def expiry_times(self, ids: Iterable[bytes]) -> dict[bytes, int]:
        """Return the expiry time of each of these sessions in Unix seconds, without ended ones."""
        query = "SELECT id, min(idle_until, expires_at) FROM dek_sessions WHERE id IN (*)"
        return {row[0]: int(row[1]) for row in await fetch_in(self._db, query, ids)}

    async def touch(self, session_id: bytes, idle_until: int, now: int) -> None:
        """Extend the idle time of a session, unless it has run out."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "UPDATE dek_sessions SET idle_until=? WHERE id=? AND idle_until>?",
                (idle_until, session_id, now),
            )

    async def end(self, session_id: bytes) -> None:
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM dek_sessions WHERE id=?", (session_id,))

    async def end_others(self, user_id: bytes, except_session: bytes) -> None:
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "DELETE FROM dek_sessions WHERE user_id=? AND id<>?", (user_id, except_session)
            )

    async def lock(self, user_id: bytes, now: int) -> None:
        """Expire every session of a user now and forget its key; `end_expired` deletes the rows."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM devices WHERE user_id=?", (user_id,))
            await tx.execute(
                "UPDATE dek_sessions SET sealed=NULL, idle_until=min(idle_until, ?)"
                " WHERE user_id=?",
                (now, user_id),
            )

    async def shift_idle(self, user_id: bytes, seconds: int, now: int) -> None:
        """Move the idle limit of every open session of a user by `seconds`, forth or back."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "UPDATE dek_sessions SET idle_until=idle_until+? WHERE user_id=? AND idle_until>?",
                (seconds, user_id, now),
            )

    async def end_expired(self, now: int) -> None:
        """Delete the sessions that expired more than EXPIRED_GRACE_SECONDS ago."""
        until = now - EXPIRED_GRACE_SECONDS
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute(
                "DELETE FROM dek_sessions WHERE idle_until<=? OR expires_at<=?", (until, until)
            )

    async def clear(self) -> None:
        """End all sessions: the secret that opened them went with the last run of the server."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM dek_sessions")
