"""Register and sign in users, open their keys, and manage their sessions."""

import asyncio
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from logging import getLogger
from typing import ParamSpec, TypeVar

from llamora.dates import utc_now
from llamora.errors import Problem
from llamora.journal.profile import Profile, parse_profile, serialize_profile, zone_or_utc
from llamora.journal.rotation import KeptSession, renew_keys
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.local_db import LocalDB
from llamora.persistence.sessions import Session
from llamora.persistence.users import MAX_NAME_CHARACTERS, User, name_key
from llamora.settings import CryptoSettings, SessionSettings
from llamora.vault.envelope import SealError
from llamora.vault.kdf import Argon2Params, BadParameters, burn_kdf, calibrate
from llamora.vault.key_renewal import create_keys, replace_slot
from llamora.vault.keys import Keyring, SealedKeys, open_keyring
from llamora.vault.memory import Key, wipe
from llamora.vault.recovery_code import WrongSecret, check_recovery_code, new_recovery_code
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import (
    PASSPHRASE,
    RECOVERY,
    KeySlot,
    SlotKey,
    open_slot,
    passphrase_slot_key,
    recovery_slot_key,
)

logger = getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
MAX_PASSPHRASE_CHARACTERS = 1024
ZXCVBN_MAX_CHARACTERS = 72  # zxcvbn accepts no more, its time being quadratic in the length
MIN_STRENGTH_SCORE = (
    3  # zxcvbn: "safely unguessable: moderate protection from offline slow-hash scenario"
)
MAX_CONCURRENT_KDF = 2  # each takes 64 MiB or more
STRENGTH_CODES = (
    "strength_seconds",
    "strength_hours",
    "strength_weeks",
    "strength_hard",
    "strength_very_hard",
)
TOKEN_BYTES = 32
LOCK_TIMEOUT_SECONDS = (
    0.5  # for replies being stored when a journal is locked, which must take less than a second
)


class AccountError(Problem):
    """A request about an account that cannot be fulfilled."""


class WrongCredentials(AccountError):
    """A wrong name or secret.

    The error never says which of the two, so that names cannot be probed.
    """

    status = 403


class TooManyAttempts(AccountError):
    """Too many attempts; `params` holds the `seconds` until the next one is accepted."""

    status = 429


class Throttle:
    """Slow down guessing of secrets.

    From attempt FREE_ATTEMPTS on, each further one doubles the wait, up to MAX_WAIT_SECONDS.
    """

    FREE_ATTEMPTS = 5
    MAX_WAIT_SECONDS = 300
    MAX_SUBJECTS = 10_000

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def record_attempt(self, *subjects: str) -> None:
        """Count an attempt against each subject (a name, an address).

        Call it before the secret is checked, so that concurrent guesses are not all let through.
        Raises TooManyAttempts, and counts nothing, while one of the subjects has to wait.
        """
        now = time.monotonic()
        wait = max(
            (self._failures.get(subject, (0, 0.0))[1] - now for subject in subjects), default=0.0
        )
        if wait > 0:
            raise TooManyAttempts("too_many_attempts", seconds=int(wait) + 1)
        if len(self._failures) > self.MAX_SUBJECTS:
            self._failures = {key: value for key, value in self._failures.items() if value[1] > now}
        for subject in subjects:
            count = self._failures.get(subject, (0, 0.0))[0] + 1
            wait = (
                min(2 ** (count - self.FREE_ATTEMPTS), self.MAX_WAIT_SECONDS)
                if count >= self.FREE_ATTEMPTS
                else 0
            )
            self._failures[subject] = (count, now + wait)

    def clear_attempts(self, *subjects: str) -> None:
        """Forget the attempts of these subjects."""
        for subject in subjects:
            self._failures.pop(subject, None)


@dataclass(slots=True, frozen=True)
class Strength:
    """The strength of a passphrase.

    `score` is that of zxcvbn, 0 to 4; `code` is the message code that describes it.
    """

    score: int
    code: str

    @property
    def is_sufficient(self) -> bool:
        """Return True if the passphrase can protect a file that is kept for decades."""
        return self.score >= MIN_STRENGTH_SCORE


@dataclass(slots=True, frozen=True)
class OpenSession:
    """A session that is open in this process, with its user and their keys.

    `id` is the key of its row. `token` is held by the browser only, apart from this process;
    `sealed_key` is the sealed master key that the cookie carries in `cookie` mode, else empty.
    `ended` is set once this process knows that the session is closed; streams end with it.
    """

    user: User
    keys: Keyring
    id: bytes
    token: bytes = field(repr=False)
    sealed_key: bytes = field(default=b"", repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    @property
    def cookie(self) -> str:
        """Return the value that the session cookie must have from now on."""
        return _encode_cookie(self.token + self.sealed_key)


@dataclass(slots=True, frozen=True)
class SessionInfo:
    """A session as it is listed for its user.

    `device` is the name its browser gave, "" if unknown. `last_used_at` is accurate to a minute.
    """

    id: bytes
    device: str
    started_at: datetime
    last_used_at: datetime


class Accounts:
    """Manage registration, sign-in, recovery and sessions.

    `boot_secret` is in RAM only and shared with the worker processes: without it no session row
    and no cookie can be opened. `on_last_session_closed` is called with a user's id when their
    last session in this process has closed. `before_lock` is awaited before a user's keys are
    overwritten, so that work in progress can be stored with them.
    """

    def __init__(
        self,
        db: LocalDB,
        crypto_settings: CryptoSettings,
        session_settings: SessionSettings,
        boot_secret: bytes,
        on_last_session_closed: Callable[[bytes], None],
        before_lock: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._db = db
        self._crypto_settings = crypto_settings
        self._session_settings = session_settings
        self._boot_secret = boot_secret
        self._on_last_session_closed = on_last_session_closed
        self._before_lock = before_lock
        self._open_sessions: dict[bytes, OpenSession] = {}
        self._expiry_times: dict[
            bytes, int
        ] = {}  # Unix time at which each session expires, as far as known here
        self._idle_ttls: dict[bytes, int] = {}  # by user id, in seconds
        self._kdf_semaphore = asyncio.Semaphore(MAX_CONCURRENT_KDF)
        self._kdf_params_cache: Argon2Params | None = None

    # -- sign-in -----------------------------------------------------------------------------------

    async def register(
        self, name: str, passphrase: str, zone_name: str
    ) -> tuple[User, Keyring, str]:
        """Create a user; return them, their keys and the recovery code, which is not stored.

        Raises AccountError (unusable name or passphrase) and users.NameTaken.
        """
        display_name = " ".join(name.split())
        if not name_key(display_name):
            raise AccountError("name_missing")
        if len(display_name) > MAX_NAME_CHARACTERS or not display_name.isprintable():
            raise AccountError("name_invalid", most=MAX_NAME_CHARACTERS)
        await self._validate_new_passphrase(passphrase, display_name)
        params = await self._load_kdf_params()
        user = User(secrets.token_bytes(16), display_name, recovery_confirmed=False)
        new_keys = await self._run_kdf(create_keys, user.id, passphrase, params)
        await self._db.users.add(user, new_keys.slots, new_keys.sealed)
        keys = open_keyring(user.id, new_keys.master, new_keys.sealed)
        wipe(new_keys.master)
        await self.save_profile(keys, Profile(zone=zone_or_utc(zone_name)))
        return user, keys, new_keys.recovery_code

    async def sign_in(self, name: str, passphrase: str) -> tuple[User, Keyring]:
        """Open a user's keys with their passphrase.

        Raises WrongCredentials, at the same cost for an unknown name as for a wrong passphrase.
        """
        params = await self._load_kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._slots(user, PASSPHRASE)
        credentials_error = WrongCredentials("credentials_wrong")
        if user is None or not slots or len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            await self._run_kdf(burn_kdf, params)
            raise credentials_error
        try:
            slot, master = await self._open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise credentials_error from None
        sealed = await self._db.users.keys(user.id)
        keys = open_keyring(user.id, master, sealed)
        if params.work > slot.argon2.work:
            # The instance was recalibrated: upgrade this slot while the passphrase is available.
            # Never downgrade: the file's cost may have been lowered by somebody who can write it.
            new_slot = await self._run_kdf(passphrase_slot_key, user.id, passphrase, params)
            await self._db.users.replace_slot(
                user.id, sealed, slot.id, *replace_slot(user.id, master, sealed, slot.id, new_slot)
            )
        wipe(master)
        return user, keys

    async def reset_passphrase(
        self, name: str, recovery_code: str, passphrase: str
    ) -> tuple[User, Keyring, str]:
        """Set a new passphrase by means of the recovery code, under new keys.

        Returns the user, their keys and a new recovery code; the old one stops working. Ends every
        session of the user. Raises WrongCredentials and AccountError (unusable passphrase).
        """
        await self._validate_new_passphrase(passphrase, name)
        params = await self._load_kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._slots(user, RECOVERY)
        credentials_error = WrongCredentials("recovery_credentials_wrong")
        if user is None or not slots:
            await self._run_kdf(burn_kdf, params)
            raise credentials_error
        sealed = await self._db.users.keys(user.id)
        try:
            _, master = await self._open_first(user.id, slots, recovery_code)
        except WrongSecret:
            await self._run_kdf(burn_kdf, params)
            raise credentials_error from None
        keys = open_keyring(user.id, master, sealed)
        wipe(master)
        new_code = new_recovery_code()
        added = (
            await self._run_kdf(passphrase_slot_key, user.id, passphrase, params),
            recovery_slot_key(user.id, new_code),
        )
        await renew_keys(
            self._db,
            keys,
            sealed,
            add=added,
            keep=lambda slot: slot.kind not in (PASSPHRASE, RECOVERY),
        )
        self._close_other_sessions(user.id)
        return user, keys, new_code

    async def change_passphrase(
        self, session: OpenSession, old_passphrase: str, new_passphrase: str
    ) -> OpenSession:
        """Replace the passphrase, under new keys, and end every other session of the user.

        Returns the session with the cookie that the browser must now have. Raises WrongCredentials
        (`old_passphrase` is wrong), AccountError (`new_passphrase` is unusable) and StaleRevision
        (changed elsewhere meanwhile).
        """
        stored = await self._db.users.keys(session.user.id)
        slot = await self._verify_passphrase(session.user, old_passphrase)
        if new_passphrase == old_passphrase:
            raise AccountError("passphrase_unchanged")
        await self._validate_new_passphrase(new_passphrase, session.user.name)
        params = await self._load_kdf_params()
        new_slot = await self._run_kdf(passphrase_slot_key, session.user.id, new_passphrase, params)
        return await self._renew(
            session, stored, add=[new_slot], keep=lambda each: each.id != slot.id
        )

    async def renew_recovery_code(
        self, session: OpenSession, passphrase: str
    ) -> tuple[OpenSession, str]:
        """Replace the recovery code, under new keys; the old one stops working.

        Ends every other session of the user, since more than the old code may have been lost.
        Returns the session with the cookie that the browser must now have, and the code. Raises
        WrongCredentials and StaleRevision.
        """
        stored = await self._db.users.keys(session.user.id)
        await self._verify_passphrase(session.user, passphrase)
        code = new_recovery_code()
        new_slot = recovery_slot_key(session.user.id, code)
        return await self._renew(
            session, stored, add=[new_slot], keep=lambda each: each.kind != RECOVERY
        ), code

    async def change_key(self, session: OpenSession) -> OpenSession:
        """Seal everything written from now on under new keys, and end the user's other sessions.

        Returns the session with the cookie that the browser must now have. Raises StaleRevision,
        also while an earlier change is still running.
        """
        stored = await self._db.users.keys(session.user.id)
        if len(stored.data_keys) > 1:
            raise StaleRevision("rotation_running")
        return await self._renew(session, stored)

    async def _renew(
        self,
        session: OpenSession,
        stored: SealedKeys,
        *,
        add: Iterable[SlotKey] = (),
        keep: Callable[[SlotKey], bool] = lambda _: True,
    ) -> OpenSession:
        renewed = session

        def seal(master: Key) -> bytes | None:
            nonlocal renewed
            row, carried = self._sealed_for(session.user.id, session.id, session.token, master)
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
        self._close_other_sessions(session.user.id, except_session=session.id)
        if session.id in self._open_sessions:
            self._open_sessions[session.id] = renewed
        return renewed

    async def verify_secret(self, session: OpenSession, secret: str) -> None:
        """Check that `secret` is the user's passphrase or recovery code.

        Raises WrongCredentials.
        """
        codes = await self._slots(session.user, RECOVERY) if check_recovery_code(secret) else []
        try:
            wipe((await self._open_first(session.user.id, codes, secret))[1])
        except WrongSecret:  # a passphrase may have the form of a code
            await self._verify_passphrase(session.user, secret)

    async def measure_strength(self, passphrase: str, name: str) -> Strength:
        """Measure the strength of a passphrase, off the event loop."""
        return await asyncio.to_thread(_measure_strength, passphrase, name)

    # -- sessions ----------------------------------------------------------------------------------

    async def open_session(
        self, user: User, keys: Keyring, device: str = ""
    ) -> tuple[str, OpenSession]:
        """Open a session; return the cookie value and the session.

        `device` is the name of the browser, "" if unknown.
        """
        token = secrets.token_bytes(TOKEN_BYTES)
        session = OpenSession(user, await self._share_keyring(keys), session_id_of(token), token)
        now = int(time.time())
        master = session.keys.master
        sealed_key, carried = self._sealed_for(user.id, session.id, token, master)
        session = replace(session, sealed_key=carried)
        wipe(master)
        idle_ttl = await self._get_idle_ttl(session.keys, refresh=True)
        row = Session(
            session.id,
            user.id,
            sealed_key,
            now + idle_ttl,
            now + self._session_settings.absolute_ttl,
        )
        await self._db.sessions.add(row, utc_now().date(), (session.keys, device))
        self._open_sessions[session.id] = session
        self._expiry_times[session.id] = min(row.idle_until, row.expires_at)
        return session.cookie, session

    async def resume(self, cookie: str, *, extend_idle: bool = True) -> OpenSession | None:
        """Return the session of a cookie, or None if it ended, timed out or never existed.

        `extend_idle` postpones its idle timeout.
        """
        try:
            raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        except (Base64Error, ValueError):
            return None
        token = raw[:TOKEN_BYTES]
        # Base64 decodes several texts to the same bytes; accept only the one that was issued.
        if len(token) < TOKEN_BYTES or _encode_cookie(raw) != cookie:
            return None
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
            self._open_sessions[row.id] = session
        if session.keys.epoch != row.epoch:
            session = await self._refresh(session, row, raw[TOKEN_BYTES:])
        if session is None or session.sealed_key != raw[TOKEN_BYTES:]:
            return None  # the whole cookie must match, even if this process has the key open
        idle_ttl = await self._get_idle_ttl(session.keys)
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

    async def sign_out(self, session: OpenSession) -> None:
        """End a session."""
        self._close_session(session.id)
        await self._db.sessions.end(session.id)

    async def list_sessions(self, session: OpenSession) -> list[SessionInfo]:
        """List the user's sessions that have not expired, last used first."""
        now, idle_ttl = time.time(), await self._get_idle_ttl(session.keys)
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
        """End every session of the user except this one."""
        await self._db.sessions.end_others(session.user.id, session.id)
        self._close_other_sessions(session.user.id, except_session=session.id)

    async def lock(self, user_id: bytes) -> None:
        """End a user's sessions and everything being generated for them, and overwrite their keys.

        Other workers notice within half a second and do the same.
        """
        try:
            await self._db.sessions.lock(user_id, int(time.time()))
        finally:
            await self._lock_in_process(user_id)

    async def _lock_in_process(self, user_id: bytes) -> None:
        keyrings = {
            id(session.keys): session.keys
            for session in self._open_sessions.values()
            if session.user.id == user_id
        }
        self._close_other_sessions(user_id)
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

    def _close_other_sessions(self, user_id: bytes, except_session: bytes = b"") -> None:
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
            await self._get_idle_ttl(session.keys, refresh=True)
        self._expiry_times.update(
            {
                open_id: expires_at
                for open_id, expires_at in expiry_times.items()
                if open_id in self._open_sessions
            }
        )

    def close(self) -> None:
        """Forget all keys."""
        for session_id in list(self._open_sessions):
            self._close_session(session_id)

    # -- the profile -------------------------------------------------------------------------------

    async def get_profile(self, keys: Keyring) -> Profile:
        """Return the user's settings; the defaults if none are stored."""
        stored = await self._db.profiles.get(keys)
        return parse_profile(*stored) if stored else Profile()

    async def save_profile(self, keys: Keyring, profile: Profile) -> Profile:
        """Store the settings over the revision they were read at, and return them as stored.

        Raises StaleRevision.
        """
        old_idle_ttl = await self._get_idle_ttl(keys)
        await self._db.profiles.save(keys, serialize_profile(profile), revision=profile.revision)
        new_idle_ttl = await self._get_idle_ttl(keys, refresh=True)
        if new_idle_ttl != old_idle_ttl:
            await self._db.sessions.shift_idle(
                keys.user_id, new_idle_ttl - old_idle_ttl, int(time.time())
            )
        return replace(profile, revision=profile.revision + 1, damaged=False)

    async def _get_idle_ttl(self, keys: Keyring, *, refresh: bool = False) -> int:
        """Return the seconds without activity after which the user's sessions end."""
        if refresh or keys.user_id not in self._idle_ttls:
            minutes = (await self.get_profile(keys)).lock_after
            max_ttl = self._session_settings.idle_ttl
            self._idle_ttls[keys.user_id] = min(max_ttl, minutes * 60) if minutes else max_ttl
        return self._idle_ttls[keys.user_id]

    async def confirm_recovery(self, user_id: bytes) -> None:
        """Store that the user has confirmed the recovery code."""
        await self._db.users.confirm_recovery(user_id)

    # -- internal ----------------------------------------------------------------------------------

    def _sealed_for(
        self, user_id: bytes, session_id: bytes, token: bytes, master: Key
    ) -> tuple[bytes | None, bytes]:
        """Seal the master key for a session, as (for its row, for its cookie).

        Depending on the mode one of the two is None or empty.
        """
        if self._session_settings.mode == "cookie":
            return None, seal_for_cookie(user_id, session_id, self._boot_secret, master)
        return seal_for_session(user_id, session_id, token, self._boot_secret, master), b""

    def _master_of(self, row: Session, token: bytes, carried: bytes) -> bytearray:
        if row.sealed_key is not None:
            return open_from_session(row.user_id, row.id, token, self._boot_secret, row.sealed_key)
        return open_from_cookie(row.user_id, row.id, self._boot_secret, carried)

    async def _reopen_session(
        self, row: Session, token: bytes, sealed_key: bytes
    ) -> OpenSession | None:
        try:
            master = self._master_of(row, token, sealed_key)
            keys = open_keyring(row.user_id, master, await self._db.users.keys(row.user_id))
            wipe(master)
        except SealError as error:
            logger.warning("a session did not open (%s)", type(error).__name__)
            return None
        user, keys = await self._db.users.get(row.user_id), await self._share_keyring(keys)
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
            master = self._master_of(row, session.token, carried)
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

    async def _share_keyring(self, keys: Keyring) -> Keyring:
        """Return the keyring of this user that is open here, brought up to date, or else `keys`.

        All sessions of a user share one, so that a new key reaches everything done for them.
        """
        existing = next(
            (
                other
                for other in self.open_keyrings()
                if other.user_id == keys.user_id and not other.closed
            ),
            None,
        )
        if existing is None or existing is keys:
            return keys
        stored_keys, master = await self._db.users.get_data_keys(keys.user_id), keys.master
        known = existing.take(stored_keys, master)
        wipe(master)
        # After a restored backup the keyring held here would seal under a key that is gone.
        return (
            keys
            if not known or not stored_keys or stored_keys[-1].epoch < existing.epoch
            else existing
        )

    def _close_session(self, session_id: bytes) -> None:
        session = self._open_sessions.pop(session_id, None)
        self._expiry_times.pop(session_id, None)
        # A reply in progress may still need the keyring, so it is dropped rather than closed:
        # its memory is overwritten once nothing refers to it. A lock does not wait for that.
        if session is None:
            return
        session.ended.set()
        if not self.is_signed_in(session.user.id):
            self._idle_ttls.pop(session.user.id, None)
            self._on_last_session_closed(session.user.id)

    async def _verify_passphrase(self, user: User, passphrase: str) -> KeySlot:
        slots = await self._slots(user, PASSPHRASE)
        credentials_error = WrongCredentials("passphrase_wrong")
        if len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            raise credentials_error
        try:
            slot, master = await self._open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise credentials_error from None
        wipe(master)
        return slot

    async def _open_first(
        self, user_id: bytes, slots: Iterable[KeySlot], secret: str
    ) -> tuple[KeySlot, bytearray]:
        """Return the first of these slots that a secret opens, and the master key.

        Raises WrongSecret.
        """
        for slot in slots:
            with suppress(WrongSecret):
                return slot, await self._run_kdf(open_slot, user_id, slot, secret)
        raise WrongSecret("none of the slots opens with this")

    async def _validate_new_passphrase(self, passphrase: str, name: str) -> None:
        if len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            raise AccountError("passphrase_too_long", most=MAX_PASSPHRASE_CHARACTERS)
        strength = await self.measure_strength(passphrase, name)
        if not strength.is_sufficient:
            raise AccountError(strength.code)

    async def _slots(self, user: User | None, kind: str) -> list[KeySlot]:
        # An unknown name must cost the same two queries as a known one.
        slots = await self._db.users.get_slots(user.id if user else bytes(16), kind)
        try:
            if kind == PASSPHRASE:
                _ = [slot.argon2 for slot in slots]
        except BadParameters:
            raise AccountError("passphrase_slot_changed") from None
        return slots

    async def _load_kdf_params(self) -> Argon2Params:
        """Return the parameters of this instance.

        They are calibrated once, for the first user.
        """
        if self._kdf_params_cache is None:
            text = await self._db.users.get_instance_fact("kdf")
            crypto_settings = self._crypto_settings
            floor = Argon2Params(
                crypto_settings.kdf_memory_kib,
                crypto_settings.kdf_time_cost,
                crypto_settings.kdf_parallelism,
            )
            if text is None:
                params = (
                    await self._run_kdf(calibrate, crypto_settings.kdf_target_ms, floor)
                    if crypto_settings.kdf_target_ms
                    else floor
                )
                text = await self._db.users.set_instance_fact("kdf", params.to_text())
            try:
                self._kdf_params_cache = Argon2Params.from_text(text)
            except (
                BadParameters
            ):  # a damaged row must neither lock users out nor lower the cost of new slots
                logger.error(
                    "the cost of the KDF in the journal's file is out of bounds; the floor is used"
                )
                self._kdf_params_cache = floor
        return self._kdf_params_cache

    async def _run_kdf(
        self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        async with self._kdf_semaphore:
            return await asyncio.to_thread(function, *arguments, **keywords)


def _encode_cookie(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _measure_strength(passphrase: str, name: str) -> Strength:
    from zxcvbn import zxcvbn  # takes 100 ms to import, needed for new passphrases only

    if not passphrase:
        return Strength(0, "strength_advice")
    score = int(zxcvbn(passphrase[:ZXCVBN_MAX_CHARACTERS], user_inputs=[name, "llamora"])["score"])
    return Strength(score, STRENGTH_CODES[score])
