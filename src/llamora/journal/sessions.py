"""Open, resume and end sessions, and hold the keys of the users who have one."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from logging import getLogger

from llamora.dates import utc_now
from llamora.events import Event, EventBus, Topic
from llamora.journal.profile import load_profile
from llamora.journal.rotation import KeptSession, renew_keys
from llamora.journal.session_keys import (
    TOKEN_BYTES,
    KeySealer,
    OpenSession,
    SessionInfo,
    decode_cookie,
    share_keyring,
)
from llamora.persistence.connection import StorageError
from llamora.persistence.local_db import LocalDB
from llamora.persistence.sessions import Session
from llamora.persistence.users import User
from llamora.settings import SessionSettings
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring, SealedKeys, open_keyring
from llamora.vault.memory import Key, wipe
from llamora.vault.session_keys import session_id_of
from llamora.vault.slots import SlotKey

logger = getLogger(__name__)

LOCK_TIMEOUT_SECONDS = (
    0.5  # for replies being stored when a journal is locked, which must take less than a second
)


class Sessions:
    """The sessions of a server, as far as this process knows them.

    `boot_secret` is in RAM only and shared with the worker processes: without it no session row
    and no cookie can be opened. `Topic.SIGNED_OUT` is published once a user's last session in this
    process has closed. `before_lock` is awaited before a user's keys are overwritten, so that work
    in progress can be stored with them.
    """

    def __init__(
        self,
        db: LocalDB,
        settings: SessionSettings,
        boot_secret: bytes,
        events: EventBus,
        before_lock: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._db = db
        self._session_settings = settings
        self._sealer = KeySealer(settings.mode, boot_secret)
        self._events = events
        self._before_lock = before_lock
        self._open_sessions: dict[bytes, OpenSession] = {}
        # Unix time at which each session expires, as far as known here
        self._expiry_times: dict[bytes, int] = {}
        self._idle_ttls: dict[bytes, int] = {}  # by user id, in seconds
        self._locks: set[asyncio.Task[None]] = set()
        self.signed_in = asyncio.Event()
        """Set while a session is open in this process."""
        events.subscribe(Topic.LOCKED, self._on_locked)

    async def open_session(
        self, user: User, keys: Keyring, device: str = ""
    ) -> tuple[str, OpenSession]:
        """Return the cookie value and the session; `device` is the browser's name, "" if unknown."""
        token = secrets.token_bytes(TOKEN_BYTES)
        session = OpenSession(
            user,
            await share_keyring(self._db, self.open_keyrings(), keys),
            session_id_of(token),
            token,
        )
        session.keys.hold()  # until it is open: another session may end meanwhile
        try:
            row, session = await self._store(session, device)
            self._set_open(session)
        finally:
            session.keys.release()
        self._expiry_times[session.id] = min(row.idle_until, row.expires_at)
        return session.cookie, session

    async def _store(self, session: OpenSession, device: str) -> tuple[Session, OpenSession]:
        user_id, now, master = session.user.id, int(time.time()), session.keys.master
        sealed_key, carried = self._sealer.seal(user_id, session.id, session.token, master)
        wipe(master)
        idle_until = now + await self.get_idle_ttl(session.keys, refresh=True)
        expires_at = now + self._session_settings.absolute_ttl
        row = Session(session.id, user_id, sealed_key, idle_until, expires_at)
        await self._db.sessions.add(row, utc_now().date(), (session.keys, device))
        return row, replace(session, sealed_key=carried)

    async def resume(self, cookie: str, *, extend_idle: bool = True) -> OpenSession | None:
        """Return the session of a cookie, or None if it ended, timed out or never existed.

        `extend_idle` postpones its idle timeout.
        """
        if (raw := decode_cookie(cookie)) is None:
            return None
        token = raw[:TOKEN_BYTES]
        row = await self._db.sessions.get(session_id_of(token))
        now = int(time.time())
        if row is None:
            self._close_session(session_id_of(token))
            return None
        if now >= min(row.idle_until, row.expires_at):
            await self._expire_sessions([row.id])
            return None
        session = self._open_sessions.get(row.id)
        if session is None or session.keys.closed:  # closed: opened during a lock
            session = await self._reopen_session(row, token, raw[TOKEN_BYTES:])
            if session is None:
                return None
            self._set_open(session)
        if session.keys.epoch != row.epoch:
            session = await self._refresh(session, row, raw[TOKEN_BYTES:])
        if session is None or session.sealed_key != raw[TOKEN_BYTES:]:
            return None  # the whole cookie must match, even if this process has the key open
        idle_ttl = await self.get_idle_ttl(session.keys)
        idle_until = now + idle_ttl
        # abs: a limit too far ahead was set before the clock was put back.
        if extend_idle and abs(idle_until - row.idle_until) >= min(
            self._session_settings.cookie_touch_interval, idle_ttl // 10
        ):
            with suppress(StorageError):  # a full disk must not prevent reading
                await self._db.sessions.touch(row.id, idle_until, now)
            self._expiry_times[row.id] = min(idle_until, row.expires_at)
        else:
            self._expiry_times[row.id] = min(row.idle_until, row.expires_at)
        return session

    def idle_seconds(self, session: OpenSession) -> int:
        """Return the seconds without activity after which a session ends."""
        return self._idle_ttls.get(session.user.id, self._session_settings.idle_ttl)

    async def get_idle_ttl(self, keys: Keyring, *, refresh: bool = False) -> int:
        """Return the seconds without activity after which the user's sessions end."""
        if refresh or keys.user_id not in self._idle_ttls:
            minutes = (await load_profile(self._db, keys)).lock_after
            max_ttl = self._session_settings.idle_ttl
            self._idle_ttls[keys.user_id] = min(max_ttl, minutes * 60) if minutes else max_ttl
        return self._idle_ttls[keys.user_id]

    async def sign_out(self, session: OpenSession) -> None:
        self._close_session(session.id)
        await self._db.sessions.end(session.id)

    async def list_sessions(self, session: OpenSession) -> list[SessionInfo]:
        """List the user's sessions that have not expired, last used first."""
        now, idle_ttl = time.time(), await self.get_idle_ttl(session.keys)
        devices = await self._db.sessions.device_names(session.keys)
        active_sessions = [
            SessionInfo(
                row.id,
                devices.get(row.id, ""),
                datetime.fromtimestamp(row.expires_at - self._session_settings.absolute_ttl, UTC),
                datetime.fromtimestamp(row.idle_until - idle_ttl, UTC),
            )
            for row in await self._db.sessions.list_for_user(session.user.id)
            if now < min(row.idle_until, row.expires_at)
        ]
        return sorted(active_sessions, key=lambda info: info.last_used_at, reverse=True)

    async def end_session(self, user_id: bytes, session_id: bytes) -> None:
        """End one session of a user, in whichever process it is open.

        Does nothing if the session belongs to another user.
        """
        if any(row.id == session_id for row in await self._db.sessions.list_for_user(user_id)):
            await self._db.sessions.end(session_id)
            self._close_session(session_id)

    async def end_other_sessions(self, session: OpenSession) -> None:
        await self._db.sessions.end_others(session.user.id, session.id)
        self.close_other_sessions(session.user.id, except_session=session.id)

    async def renew(
        self,
        session: OpenSession,
        stored: SealedKeys,
        *,
        add: Iterable[SlotKey] = (),
        keep: Callable[[SlotKey], bool] = lambda _: True,
    ) -> OpenSession:
        """Put new keys in the place of `stored`, and end every other session of the user.

        New slots are those in `add` and the old ones that `keep` is true for. Returns the session
        with the cookie that the browser must now have. Raises StaleRevision.
        """
        renewed = session

        def seal(master: Key) -> bytes | None:
            nonlocal renewed
            row, carried = self._sealer.seal(session.user.id, session.id, session.token, master)
            renewed = replace(session, sealed_key=carried)
            return row

        await renew_keys(
            self._db,
            session.keys,
            stored,
            add=add,
            keep=keep,
            session=KeptSession(session.id, seal),
        )
        self.close_other_sessions(session.user.id, except_session=session.id)
        if session.id in self._open_sessions:
            self._open_sessions[session.id] = renewed
        return renewed

    async def lock(self, user_id: bytes) -> None:
        """End a user's sessions and everything being generated for them, and overwrite their keys.

        Other workers do the same at once.
        """
        try:
            await self._db.sessions.lock(user_id, int(time.time()))
        finally:
            self._events.publish(Event(Topic.LOCKED, user_id))
            await asyncio.gather(*self._locks)

    def _on_locked(self, event: Event) -> None:
        task = asyncio.create_task(self._lock_in_process(event.user_id), name="lock")
        self._locks.add(task)
        task.add_done_callback(self._locks.discard)

    async def _lock_in_process(self, user_id: bytes) -> None:
        keyrings = {
            id(session.keys): session.keys
            for session in self._open_sessions.values()
            if session.user.id == user_id
        }
        self.close_other_sessions(user_id)
        if self._before_lock is not None:
            with suppress(StorageError, TimeoutError):
                await asyncio.wait_for(self._before_lock(user_id), LOCK_TIMEOUT_SECONDS)
        for keys in keyrings.values():
            keys.close()

    async def _expire_sessions(self, session_ids: Collection[bytes]) -> None:
        """Close expired sessions, and lock each user who has no other one anywhere."""
        user_ids = {
            self._open_sessions[expired_id].user.id
            for expired_id in session_ids
            if expired_id in self._open_sessions
        }
        now = time.time()
        for user_id in user_ids:
            rows: list[Session] = []
            with suppress(StorageError):
                rows = await self._db.sessions.list_for_user(user_id)
            if not any(now < min(row.idle_until, row.expires_at) for row in rows):
                await self._lock_in_process(user_id)
        for session_id in session_ids:
            self._close_session(session_id)

    def is_session_open(self, session: OpenSession) -> bool:
        """Return True if the session is open, as far as this process knows."""
        return session.id in self._open_sessions

    def close_other_sessions(self, user_id: bytes, except_session: bytes = b"") -> None:
        """Close a user's sessions in this process, apart from `except_session`."""
        for session_id in [
            s.id
            for s in self._open_sessions.values()
            if s.user.id == user_id and s.id != except_session
        ]:
            self._close_session(session_id)

    def open_keyrings(self) -> list[Keyring]:
        """Return the keyring of each user who is signed in here, once each."""
        return list(
            {session.user.id: session.keys for session in self._open_sessions.values()}.values()
        )

    def is_signed_in(self, user_id: bytes) -> bool:
        """Return True if the user has an open session, as far as this process knows."""
        return any(session.user.id == user_id for session in self._open_sessions.values())

    def has_expired_session(self) -> bool:
        """Return True if a session that is open here has run out of time."""
        now = time.time()
        return any(expires_at <= now for expires_at in self._expiry_times.values())

    async def end_expired_sessions(self) -> None:
        """End expired sessions everywhere, and forget their keys."""
        await self.sync_with_database()
        await self._db.sessions.end_expired(int(time.time()))

    async def sync_with_database(self) -> None:
        """Apply changes made by time, another worker or a command.

        Closes sessions that ended, and refreshes keys and idle timeouts. Raises StorageError.
        """
        open_ids, now = list(self._open_sessions), time.time()
        try:
            expiry_times = await self._db.sessions.expiry_times(open_ids)
        except StorageError:  # sessions must expire even so
            expiry_times = dict(self._expiry_times)
        for session_id in open_ids:
            if session_id not in expiry_times:
                self._close_session(session_id)
        await self._expire_sessions(
            [session_id for session_id, expires_at in expiry_times.items() if expires_at <= now]
        )
        for session in {
            session.user.id: session for session in self._open_sessions.values()
        }.values():
            row = await self._db.sessions.get(session.id)
            if row is not None and not await self._refresh(session, row, session.sealed_key):
                continue  # in `cookie` mode the next request carries the new key
            await self.get_idle_ttl(session.keys, refresh=True)
        self._expiry_times.update(
            {
                open_id: expires_at
                for open_id, expires_at in expiry_times.items()
                if open_id in self._open_sessions
            }
        )

    def close(self) -> None:
        for session_id in list(self._open_sessions):
            self._close_session(session_id)

    async def _reopen_session(
        self, row: Session, token: bytes, sealed_key: bytes
    ) -> OpenSession | None:
        try:
            master = self._sealer.open(row, token, sealed_key)
            try:
                keys = open_keyring(row.user_id, master, await self._db.users.keys(row.user_id))
            finally:
                wipe(master)
        except SealError as error:
            logger.warning("a session did not open (%s)", type(error).__name__)
            return None
        user, keys = (
            await self._db.users.get(row.user_id),
            await share_keyring(self._db, self.open_keyrings(), keys),
        )
        return OpenSession(
            user, keys, row.id, token, b"" if row.sealed_key is not None else sealed_key
        )

    async def _refresh(
        self, session: OpenSession, row: Session, carried: bytes
    ) -> OpenSession | None:
        """Bring the keys of a session up to date with the stored ones.

        After a change in another process the new master key is in the session's row or cookie.
        Returns None if the stored keys are sealed under a master key that is not known here.
        """
        stored = await self._db.users.get_data_keys(row.user_id)
        if session.keys.take(stored):
            return session
        try:
            master = self._sealer.open(row, session.token, carried)
            known = session.keys.take(stored, master)
            wipe(master)
        except SealError:
            return None
        if not known:
            return None
        session = replace(session, sealed_key=b"" if row.sealed_key is not None else carried)
        if row.id in self._open_sessions:
            self._open_sessions[row.id] = session
        return session

    def _set_open(self, session: OpenSession) -> None:
        session.keys.hold()
        replaced = self._open_sessions.get(session.id)  # opened by another request meanwhile
        self._open_sessions[session.id] = session
        self.signed_in.set()
        if replaced is not None:
            replaced.keys.release()

    def _close_session(self, session_id: bytes) -> None:
        session = self._open_sessions.pop(session_id, None)
        self._expiry_times.pop(session_id, None)
        if session is None:
            return
        session.ended.set()
        session.keys.release()  # a reply in progress holds them too; a lock does not wait for it
        if not self._open_sessions:
            self.signed_in.clear()
        if not self.is_signed_in(session.user.id):
            self._idle_ttls.pop(session.user.id, None)
            self._events.publish(Event(Topic.SIGNED_OUT, session.user.id))
