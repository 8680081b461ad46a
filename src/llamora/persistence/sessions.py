"""Rows of open sessions. `session` mode keeps the master key here, sealed under a secret that RAM alone holds."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from llamora.persistence.connection import Connections

BATCH = 500


@dataclass(slots=True, frozen=True)
class Session:
    """One open session. `id` is the SHA-256 of the cookie's token; times are Unix seconds.

    `sealed` is None in `cookie` mode, where the browser carries the sealed key. `epoch` is that of the writer's
    newest data key, where `get` read the session.
    """

    id: bytes
    user_id: bytes
    sealed: bytes | None
    idle_until: int
    expires_at: int
    epoch: int = field(default=0, compare=False)


class Sessions:
    """`db.sessions`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, session: Session, day: date) -> None:
        """Store a new session and note the day as that of the writer's last sign-in."""
        async with self._db.write() as tx:
            await tx.execute("UPDATE users SET signed_in_on=? WHERE id=?", (day.isoformat(), session.user_id))
            await tx.execute(
                "INSERT INTO dek_sessions (id, user_id, sealed, idle_until, expires_at) VALUES (?, ?, ?, ?, ?)",
                (session.id, session.user_id, session.sealed, session.idle_until, session.expires_at),
            )

    async def get(self, session_id: bytes) -> Session | None:
        """The session of that id, whether its time is up or not."""
        rows = await self._db.fetch(
            "SELECT id, user_id, sealed, idle_until, expires_at,"
            " (SELECT max(epoch) FROM data_keys WHERE data_keys.user_id=dek_sessions.user_id)"
            " FROM dek_sessions WHERE id=?",
            (session_id,),
        )
        return Session(*rows[0]) if rows else None

    async def of_user(self, user_id: bytes) -> list[Session]:
        """All sessions of a writer."""
        rows = await self._db.fetch(
            "SELECT id, user_id, sealed, idle_until, expires_at FROM dek_sessions WHERE user_id=?", (user_id,)
        )
        return [Session(*row) for row in rows]

    async def alive(self, ids: Iterable[bytes]) -> set[bytes]:
        """Which of these sessions have a row, whether its time is up or not."""
        wanted = list(ids)
        found: set[bytes] = set()
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            marks = ",".join("?" * len(part))
            found.update(
                row[0] for row in await self._db.fetch(f"SELECT id FROM dek_sessions WHERE id IN ({marks})", part)
            )
        return found

    async def touch(self, session_id: bytes, idle_until: int) -> None:
        """Move the end of idleness on."""
        async with self._db.write(aside=True) as tx:
            await tx.execute("UPDATE dek_sessions SET idle_until=? WHERE id=?", (idle_until, session_id))

    async def end(self, session_id: bytes) -> None:
        """End one session."""
        async with self._db.write() as tx:
            await tx.execute("DELETE FROM dek_sessions WHERE id=?", (session_id,))

    async def end_others(self, user_id: bytes, keep: bytes = b"") -> None:
        """End every session of a writer but the one to keep."""
        async with self._db.write() as tx:
            await tx.execute("DELETE FROM dek_sessions WHERE user_id=? AND id<>?", (user_id, keep))

    async def end_expired(self, now: int) -> list[bytes]:
        """End the sessions whose time is up; returns the writers who lost one."""
        async with self._db.write() as tx:
            due = await tx.fetch(
                "DELETE FROM dek_sessions WHERE idle_until<=? OR expires_at<=? RETURNING user_id", (now, now)
            )
        return [row[0] for row in due]

    async def clear(self) -> None:
        """End all sessions: the secret that opened them is gone with the last start."""
        async with self._db.write() as tx:
            await tx.execute("DELETE FROM dek_sessions")
