"""Writers: how they come in, how their keys are opened, how long a session lasts."""

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
from llamora.journal.profile import Profile, known_zone, read_profile, write_profile
from llamora.journal.rotation import KeptSession, renew_keys
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.local_db import LocalDB
from llamora.persistence.sessions import Session
from llamora.persistence.users import MAX_NAME_CHARACTERS, User, name_key
from llamora.settings import CryptoSettings, SessionSettings
from llamora.vault.envelope import SealError
from llamora.vault.keys import (
    Keyring,
    SealedKeys,
    create_keys,
    open_from_cookie,
    open_from_session,
    open_keyring,
    replace_slot,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.memory import Key, wipe
from llamora.vault.slots import (
    PASSPHRASE,
    RECOVERY,
    Argon2Params,
    BadParameters,
    KeySlot,
    SlotKey,
    WrongSecret,
    burn_kdf,
    calibrate,
    check_recovery_code,
    new_recovery_code,
    open_slot,
    passphrase_slot_key,
    recovery_slot_key,
)

logger = getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
PASSPHRASE_CHARACTERS = 1024
STRENGTH_CHARACTERS = 72  # what zxcvbn takes: its time grows with the square of the length
STRENGTH_NEEDED = 3  # zxcvbn: "safely unguessable: moderate protection from offline slow-hash scenario"
KDF_AT_ONCE = 2  # each takes 64 MiB or more
TOKEN_BYTES = 32
STOP_SECONDS = 0.5  # for what is being written when a journal is locked: all is to be over within a second


class AccountError(Exception):
    """Something to tell the writer; `str()` is the sentence."""


class WrongCredentials(AccountError):
    """The name or the secret is wrong; which of them is not said."""


class TooOften(AccountError):
    """Too many wrong guesses; `seconds` until the next is looked at."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many tries. Wait {seconds} seconds, then try again.")
        self.seconds = seconds


class Throttle:
    """Slows down guessing: after FREE failures each further one doubles the wait, up to LONGEST seconds."""

    FREE = 5
    LONGEST = 300
    REMEMBERED = 10_000

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def attempt(self, *subjects: str) -> None:
        """Count a guess against each subject (a name, an address); raises TooOften while one has to wait.

        It counts before it is known to be wrong, so that many at once are not all let through.
        """
        now = time.monotonic()
        wait = max((self._failures.get(subject, (0, 0.0))[1] - now for subject in subjects), default=0.0)
        if wait > 0:
            raise TooOften(int(wait) + 1)
        if len(self._failures) > self.REMEMBERED:
            self._failures = {key: value for key, value in self._failures.items() if value[1] > now}
        for subject in subjects:
            count = self._failures.get(subject, (0, 0.0))[0] + 1
            wait = min(2 ** (count - self.FREE), self.LONGEST) if count >= self.FREE else 0
            self._failures[subject] = (count, now + wait)

    def succeeded(self, *subjects: str) -> None:
        """Forget the guesses of these subjects."""
        for subject in subjects:
            self._failures.pop(subject, None)


@dataclass(slots=True, frozen=True)
class Strength:
    """How hard a passphrase is to guess: zxcvbn's score 0 to 4, and the same in a sentence."""

    score: int
    sentence: str

    @property
    def ok(self) -> bool:
        """Whether it is enough for something that lies on a disk for decades."""
        return self.score >= STRENGTH_NEEDED


@dataclass(slots=True, frozen=True)
class OpenSession:
    """A signed-in writer: who, with which keys, and the session's id (its row in the store).

    `token` is what only the browser holds beside this; `carried` the sealed key that it carries in `cookie` mode, else
    empty. `ended` is set once the session is no longer open, as far as this process knows: what streams to the browser
    ends with it.
    """

    user: User
    keys: Keyring
    id: bytes
    token: bytes = field(repr=False)
    carried: bytes = field(default=b"", repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    @property
    def cookie(self) -> str:
        """What the browser is to hold from now on."""
        return _cookie_text(self.token + self.carried)


@dataclass(slots=True, frozen=True)
class SignedIn:
    """One session of a writer as they are told of it.

    `device` is what its browser calls itself, "" when that is not known. `used` is true to within a minute.
    """

    id: bytes
    device: str
    since: datetime
    used: datetime


class Accounts:
    """Registration, sign-in, recovery and sessions.

    `boot_secret` lives in RAM only and is shared with worker processes: without it no session row and
    no cookie opens anything. `left` is called with a writer's id when their last session here ended; `stop` when their
    keys are about to be overwritten, so that what is being written with them is stored.
    """

    def __init__(
        self,
        db: LocalDB,
        crypto: CryptoSettings,
        session: SessionSettings,
        boot_secret: bytes,
        left: Callable[[bytes], None],
        stop: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._db = db
        self._crypto = crypto
        self._session = session
        self._boot_secret = boot_secret
        self._left = left
        self._stop = stop
        self._open: dict[bytes, OpenSession] = {}
        self._until: dict[bytes, int] = {}  # when each of them runs out, as far as is known here
        self._idle: dict[bytes, int] = {}  # of the writers of the open ones: seconds without a sign of them
        self._kdf = asyncio.Semaphore(KDF_AT_ONCE)
        self._params: Argon2Params | None = None

    # -- coming in ---------------------------------------------------------------------------------

    async def register(self, name: str, passphrase: str, zone_name: str) -> tuple[User, Keyring, str]:
        """Make a writer and return them, their keys and the recovery code, which is kept nowhere.

        Raises AccountError (name or passphrase do not do) and users.NameTaken.
        """
        shown = " ".join(name.split())
        if not name_key(shown):
            raise AccountError("Choose a name to sign in with.")
        if len(shown) > MAX_NAME_CHARACTERS or not shown.isprintable():
            raise AccountError(f"A name has at most {MAX_NAME_CHARACTERS} characters, all of them visible.")
        await self._check_new(passphrase, shown)
        params = await self._kdf_params()
        user = User(secrets.token_bytes(16), shown, recovery_confirmed=False)
        made = await self._slowly(create_keys, user.id, passphrase, params)
        await self._db.users.add(user, made.slots, made.sealed)
        keys = open_keyring(user.id, made.master, made.sealed)
        wipe(made.master)
        await self.save_profile(keys, Profile(zone=known_zone(zone_name)))
        return user, keys, made.recovery_code

    async def sign_in(self, name: str, passphrase: str) -> tuple[User, Keyring]:
        """Open a writer's keys with their passphrase. Raises WrongCredentials, at the same cost either way."""
        params = await self._kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._slots(user, PASSPHRASE)
        wrong = WrongCredentials("That name and passphrase do not go together.")
        if user is None or not slots or len(passphrase) > PASSPHRASE_CHARACTERS:
            await self._slowly(burn_kdf, params)
            raise wrong
        try:
            slot, master = await self._open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise wrong from None
        sealed = await self._db.users.keys(user.id)
        keys = open_keyring(user.id, master, sealed)
        if params.work > slot.argon2.work:
            # The instance was calibrated anew: bring this slot along while the passphrase is at hand. Never down:
            # whoever can write to the file could have lowered what it says.
            fresh = await self._slowly(passphrase_slot_key, user.id, passphrase, params)
            await self._db.users.replace_slot(
                user.id, sealed, slot.id, *replace_slot(user.id, master, sealed, slot.id, fresh)
            )
        wipe(master)
        return user, keys

    async def reset(self, name: str, code: str, passphrase: str) -> tuple[User, Keyring, str]:
        """Set a new passphrase with the recovery code; returns a new code, the old one opens nothing any more.

        Every session of the writer ends. Raises WrongCredentials and AccountError.
        """
        await self._check_new(passphrase, name)
        params = await self._kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._slots(user, RECOVERY)
        wrong = WrongCredentials("That name and recovery code do not go together. Check both for a slip.")
        if user is None or not slots:
            await self._slowly(burn_kdf, params)
            raise wrong
        sealed = await self._db.users.keys(user.id)
        try:
            _, master = await self._open_first(user.id, slots, code)
        except WrongSecret:
            await self._slowly(burn_kdf, params)
            raise wrong from None
        keys = open_keyring(user.id, master, sealed)
        wipe(master)
        new_code = new_recovery_code()
        added = (
            await self._slowly(passphrase_slot_key, user.id, passphrase, params),
            recovery_slot_key(user.id, new_code),
        )
        await renew_keys(self._db, keys, sealed, add=added, keep=lambda slot: slot.kind not in (PASSPHRASE, RECOVERY))
        self._forget_others(user.id)
        return user, keys, new_code

    async def change_passphrase(self, session: OpenSession, old: str, new: str) -> OpenSession:
        """Put a new passphrase in the place of the old one, under new keys; every other session of the writer ends.

        Returns the session with the cookie that the browser is to have. Raises WrongCredentials (the old one is wrong),
        AccountError (the new one does not do) and StaleRevision (it was changed elsewhere meanwhile).
        """
        stored = await self._db.users.keys(session.user.id)
        slot = await self._check(session.user, old)
        if new == old:
            raise AccountError("That is the passphrase it has already. Choose another one.")
        await self._check_new(new, session.user.name)
        params = await self._kdf_params()
        fresh = await self._slowly(passphrase_slot_key, session.user.id, new, params)
        return await self._renew(session, stored, add=[fresh], keep=lambda each: each.id != slot.id)

    async def renew_recovery_code(self, session: OpenSession, passphrase: str) -> tuple[OpenSession, str]:
        """Replace the recovery code, after the passphrase, under new keys; the old one opens nothing any more.

        Every other session of the writer ends: who asks for a new code may have lost more than the old one. Returns the
        session with the cookie that the browser is to have. Raises WrongCredentials and StaleRevision.
        """
        stored = await self._db.users.keys(session.user.id)
        await self._check(session.user, passphrase)
        code = new_recovery_code()
        fresh = recovery_slot_key(session.user.id, code)
        return await self._renew(session, stored, add=[fresh], keep=lambda each: each.kind != RECOVERY), code

    async def change_key(self, session: OpenSession) -> OpenSession:
        """Seal what is written from now on under new keys; every other session of the writer ends.

        Returns the session with the cookie that the browser is to have. Raises StaleRevision, also while an earlier
        change is under way.
        """
        stored = await self._db.users.keys(session.user.id)
        if len(stored.data_keys) > 1:
            raise StaleRevision("The key is being changed already. That goes on by itself while you are signed in.")
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

        await renew_keys(self._db, session.keys, stored, add=add, keep=keep, session=KeptSession(session.id, seal))
        self._forget_others(session.user.id, keep=session.id)
        if session.id in self._open:
            self._open[session.id] = renewed
        return renewed

    async def check_secret(self, session: OpenSession, secret: str) -> None:
        """Whether this is the passphrase or the recovery code, before what matters. Raises WrongCredentials."""
        codes = await self._slots(session.user, RECOVERY) if check_recovery_code(secret) else []
        try:
            wipe((await self._open_first(session.user.id, codes, secret))[1])
        except WrongSecret:  # what reads as a code may be a passphrase all the same
            await self._check(session.user, secret)

    async def strength(self, passphrase: str, name: str) -> Strength:
        """Judge a passphrase, off the event loop."""
        return await asyncio.to_thread(_strength, passphrase, name)

    # -- sessions ----------------------------------------------------------------------------------

    async def open_session(self, user: User, keys: Keyring, device: str = "") -> tuple[str, OpenSession]:
        """Begin a session; the string is what the cookie holds. `device`: what its browser is called."""
        token = secrets.token_bytes(TOKEN_BYTES)
        session = OpenSession(user, await self._one_keyring(keys), session_id_of(token), token)
        now = int(time.time())
        master = session.keys.master
        sealed, carried = self._sealed_for(user.id, session.id, token, master)
        session = replace(session, sealed_key=carried)
        wipe(master)
        idle = await self._idle_of(session.keys, anew=True)
        row = Session(session.id, user.id, sealed, now + idle, now + self._session.absolute_ttl)
        await self._db.sessions.add(row, utc_now().date(), (session.keys, device))
        self._open[session.id] = session
        self._until[session.id] = min(row.idle_until, row.expires_at)
        return session.cookie, session

    async def resume(self, cookie: str, *, used: bool = True) -> OpenSession | None:
        """The session of a cookie; None when it ended, timed out or never was. `used`: its time is moved on."""
        try:
            held = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        except (Base64Error, ValueError):
            return None
        token = held[:TOKEN_BYTES]
        # Base64 reads several texts as the same bytes; a cookie is the one that was given out.
        if len(token) < TOKEN_BYTES or _cookie_text(held) != cookie:
            return None
        row = await self._db.sessions.get(session_id_of(token))
        now = int(time.time())
        if row is None:
            self._forget(session_id_of(token))
            return None
        if now >= min(row.idle_until, row.expires_at):
            await self._run_out([row.id])
            return None
        session = self._open.get(row.id)
        if session is None or session.keys.closed:  # closed: it began at the very moment of a lock
            session = await self._reopen(row, token, held[TOKEN_BYTES:])
            if session is None:
                return None
            self._open[row.id] = session
        if session.keys.epoch != row.epoch:
            session = await self._refresh(session, row, held[TOKEN_BYTES:])
        if session is None or session.carried != held[TOKEN_BYTES:]:
            return None  # the whole cookie counts, also where this process has the key open
        idle = await self._idle_of(session.keys)
        idle_until = now + idle
        # Either way: a limit further off than it can be was set before the clock was put back.
        if used and abs(idle_until - row.idle_until) >= min(self._session.cookie_touch_interval, idle // 10):
            with suppress(StorageError):  # a full disk must not keep anybody from reading
                await self._db.sessions.touch(row.id, idle_until, now)
            self._until[row.id] = min(idle_until, row.expires_at)
        else:
            self._until[row.id] = min(row.idle_until, row.expires_at)
        return session

    def idle_seconds(self, session: OpenSession) -> int:
        """How long a session goes on without a sign of the writer."""
        return self._idle.get(session.user.id, self._session.idle_ttl)

    async def end(self, session: OpenSession) -> None:
        """Sign out."""
        self._forget(session.id)
        await self._db.sessions.end(session.id)

    async def sessions(self, session: OpenSession) -> list[SignedIn]:
        """The sessions of a session's writer that have not run out, the last used first."""
        now, idle = time.time(), await self._idle_of(session.keys)
        devices = await self._db.sessions.device_names(session.keys)
        found = [
            SignedIn(
                row.id,
                devices.get(row.id, ""),
                datetime.fromtimestamp(row.expires_at - self._session.absolute_ttl, UTC),
                datetime.fromtimestamp(row.idle_until - idle, UTC),
            )
            for row in await self._db.sessions.list_for_user(session.user.id)
            if now < min(row.idle_until, row.expires_at)
        ]
        return sorted(found, key=lambda each: each.used, reverse=True)

    async def end_one(self, user_id: bytes, session_id: bytes) -> None:
        """End one session of a writer, wherever it is; another writer's is left alone."""
        if any(row.id == session_id for row in await self._db.sessions.list_for_user(user_id)):
            await self._db.sessions.end(session_id)
            self._forget(session_id)

    async def end_others(self, session: OpenSession) -> None:
        """End every session of the writer but this one."""
        await self._db.sessions.end_others(session.user.id, session.id)
        self._forget_others(session.user.id, keep=session.id)

    async def lock(self, user_id: bytes) -> None:
        """End every session of a writer, what is being written for them, and overwrite their keys.

        Other workers notice within half a second and do the same.
        """
        try:
            await self._db.sessions.lock(user_id, int(time.time()))
        finally:
            await self._lock_here(user_id)

    async def _lock_here(self, user_id: bytes) -> None:
        held = {id(session.keys): session.keys for session in self._open.values() if session.user.id == user_id}
        self._forget_others(user_id)
        if self._stop is not None:
            with suppress(StorageError, TimeoutError):
                await asyncio.wait_for(self._stop(user_id), STOP_SECONDS)
        for keys in held.values():
            keys.close()

    async def _run_out(self, session_ids: Collection[bytes]) -> None:
        """Let go of sessions whose time is up; who has no other one anywhere is locked."""
        writers = {self._open[each].user.id for each in session_ids if each in self._open}
        now = time.time()
        for user_id in writers:
            rows: list[Session] = []
            with suppress(StorageError):
                rows = await self._db.sessions.list_for_user(user_id)
            if not any(now < min(row.idle_until, row.expires_at) for row in rows):
                await self._lock_here(user_id)
        for session_id in session_ids:
            self._forget(session_id)

    def holds(self, session: OpenSession) -> bool:
        """Whether the session is still open, as far as this process knows."""
        return session.id in self._open

    def _forget_others(self, user_id: bytes, keep: bytes = b"") -> None:
        for session_id in [s.id for s in self._open.values() if s.user.id == user_id and s.id != keep]:
            self._forget(session_id)

    def open_keys(self) -> list[Keyring]:
        """The keys of everybody who is signed in here, once each."""
        return list({session.user.id: session.keys for session in self._open.values()}.values())

    def is_in(self, user_id: bytes) -> bool:
        """Whether a writer has a session that is open, as far as this process knows."""
        return any(session.user.id == user_id for session in self._open.values())

    def due(self) -> bool:
        """Whether the time of a session that is open here is up."""
        now = time.time()
        return any(until <= now for until in self._until.values())

    async def sweep(self) -> None:
        """End sessions that ran out, and forget their keys."""
        await self.catch_up()
        await self._db.sessions.end_expired(int(time.time()))

    async def catch_up(self) -> None:
        """Take notice of what time, another worker or a command did: sessions that ended, keys that changed."""
        here, now = list(self._open), time.time()
        try:
            limits = await self._db.sessions.expiry_times(here)
        except StorageError:  # time goes on all the same
            limits = dict(self._until)
        for session_id in here:
            if session_id not in limits:
                self._forget(session_id)
        await self._run_out([session_id for session_id, until in limits.items() if until <= now])
        for session in {session.user.id: session for session in self._open.values()}.values():
            row = await self._db.sessions.get(session.id)
            if row is not None and not await self._refresh(session, row, session.carried):
                continue  # in `cookie` mode its next request brings the new key
            await self._idle_of(session.keys, anew=True)
        self._until.update({each: until for each, until in limits.items() if each in self._open})

    def close(self) -> None:
        """Forget all keys."""
        for session_id in list(self._open):
            self._forget(session_id)

    # -- the profile -------------------------------------------------------------------------------

    async def profile(self, keys: Keyring) -> Profile:
        """The writer's settings."""
        stored = await self._db.profiles.get(keys)
        return read_profile(*stored) if stored else Profile()

    async def save_profile(self, keys: Keyring, profile: Profile) -> Profile:
        """Store the settings over the revision they were read at. Raises StaleRevision."""
        before = await self._idle_of(keys)
        await self._db.profiles.save(keys, write_profile(profile), revision=profile.revision)
        after = await self._idle_of(keys, anew=True)
        if after != before:
            await self._db.sessions.shift_idle(keys.user_id, after - before, int(time.time()))
        return replace(profile, revision=profile.revision + 1, damaged=False)

    async def _idle_of(self, keys: Keyring, *, anew: bool = False) -> int:
        """Seconds without a sign of the writer after which their sessions end."""
        if anew or keys.user_id not in self._idle:
            minutes = (await self.profile(keys)).lock_after
            most = self._session.idle_ttl
            self._idle[keys.user_id] = min(most, minutes * 60) if minutes else most
        return self._idle[keys.user_id]

    async def confirm_recovery(self, user_id: bytes) -> None:
        """The writer has typed back a part of the code."""
        await self._db.users.confirm_recovery(user_id)

    # -- inside ------------------------------------------------------------------------------------

    def _sealed_for(self, user_id: bytes, session_id: bytes, token: bytes, master: Key) -> tuple[bytes | None, bytes]:
        """The sealed master key for the row of a session and for its cookie, by the mode one of them."""
        if self._session.mode == "cookie":
            return None, seal_for_cookie(user_id, session_id, self._boot_secret, master)
        return seal_for_session(user_id, session_id, token, self._boot_secret, master), b""

    def _master_of(self, row: Session, token: bytes, carried: bytes) -> bytearray:
        if row.sealed_key is not None:
            return open_from_session(row.user_id, row.id, token, self._boot_secret, row.sealed_key)
        return open_from_cookie(row.user_id, row.id, self._boot_secret, carried)

    async def _reopen(self, row: Session, token: bytes, carried: bytes) -> OpenSession | None:
        try:
            master = self._master_of(row, token, carried)
            keys = open_keyring(row.user_id, master, await self._db.users.keys(row.user_id))
            wipe(master)
        except SealError as error:
            logger.warning("a session did not open (%s)", type(error).__name__)
            return None
        user, keys = await self._db.users.get(row.user_id), await self._one_keyring(keys)
        return OpenSession(user, keys, row.id, token, b"" if row.sealed_key is not None else carried)

    async def _refresh(self, session: OpenSession, row: Session, carried: bytes) -> OpenSession | None:
        """Bring the keys of a session to what is stored; None when they are sealed under a master key not known here.

        That of a change in another process is in the session's row or in its cookie.
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
        if row.id in self._open:
            self._open[row.id] = session
        return session

    async def _one_keyring(self, keys: Keyring) -> Keyring:
        """The keyring of this writer in this process: the one that is open already, up to date, or the given one.

        One for all their sessions, so that a new key reaches everything that is done for them.
        """
        held = next((each for each in self.open_keys() if each.user_id == keys.user_id and not each.closed), None)
        if held is None or held is keys:
            return keys
        stored, master = await self._db.users.get_data_keys(keys.user_id), keys.master
        known = held.take(stored, master)
        wipe(master)
        # A backup was put back a moment ago: what is still held here would seal under a key that is gone.
        return keys if not known or not stored or stored[-1].epoch < held.epoch else held

    def _forget(self, session_id: bytes) -> None:
        session = self._open.pop(session_id, None)
        self._until.pop(session_id, None)
        # A reply that is being written may still need the keyring, so it is let go rather than closed beneath it: its
        # memory is overwritten when nothing refers to it any more. A lock does not wait for that.
        if session is None:
            return
        session.ended.set()
        if not self.is_in(session.user.id):
            self._idle.pop(session.user.id, None)
            self._left(session.user.id)

    async def _check(self, user: User, passphrase: str) -> KeySlot:
        slots = await self._slots(user, PASSPHRASE)
        wrong = WrongCredentials("That is not the passphrase. Look for a slip and type it again.")
        if len(passphrase) > PASSPHRASE_CHARACTERS:
            raise wrong
        try:
            slot, master = await self._open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise wrong from None
        wipe(master)
        return slot

    async def _open_first(self, user_id: bytes, slots: Iterable[KeySlot], secret: str) -> tuple[KeySlot, bytearray]:
        """The first of these slots that a secret opens, and the master key. Raises WrongSecret."""
        for slot in slots:
            with suppress(WrongSecret):
                return slot, await self._slowly(open_slot, user_id, slot, secret)
        raise WrongSecret("none of the slots opens with this")

    async def _check_new(self, passphrase: str, name: str) -> None:
        if len(passphrase) > PASSPHRASE_CHARACTERS:
            raise AccountError(f"A passphrase has at most {PASSPHRASE_CHARACTERS} characters.")
        strength = await self.strength(passphrase, name)
        if not strength.ok:
            raise AccountError(strength.sentence)

    async def _slots(self, user: User | None, kind: str) -> list[KeySlot]:
        # An unknown name makes the same two queries as a known one.
        slots = await self._db.users.get_slots(user.id if user else bytes(16), kind)
        try:
            if kind == PASSPHRASE:
                _ = [slot.argon2 for slot in slots]
        except BadParameters:
            raise AccountError(
                "What checks the passphrase was changed by something other than Llamora, so it is not trusted. Set a"
                " new one with the recovery code."
            ) from None
        return slots

    async def _kdf_params(self) -> Argon2Params:
        """The one parameter set of the instance, calibrated when the first writer comes."""
        if self._params is None:
            text = await self._db.users.get_instance_fact("kdf")
            c = self._crypto
            floor = Argon2Params(c.kdf_memory_kib, c.kdf_time_cost, c.kdf_parallelism)
            if text is None:
                found = await self._slowly(calibrate, c.kdf_target_ms, floor) if c.kdf_target_ms else floor
                text = await self._db.users.set_instance_fact("kdf", found.to_text())
            try:
                self._params = Argon2Params.from_text(text)
            except BadParameters:  # a spoiled row must not lock anybody out, nor lower what new slots cost
                logger.error("the cost of the KDF in the journal's file is out of bounds; the floor is used")
                self._params = floor
        return self._params

    async def _slowly(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        async with self._kdf:
            return await asyncio.to_thread(work, *arguments, **named)


def _cookie_text(held: bytes) -> str:
    return urlsafe_b64encode(held).decode().rstrip("=")


def _strength(passphrase: str, name: str) -> Strength:
    from zxcvbn import zxcvbn  # 100 ms to import: only who registers pays for it

    if not passphrase:
        return Strength(0, "A passphrase of four or five unrelated words is easy to keep and hard to guess.")
    score = int(zxcvbn(passphrase[:STRENGTH_CHARACTERS], user_inputs=[name, "llamora"])["score"])
    sentences = (
        "Guessed at once. Try four or five unrelated words.",
        "Guessed within hours. A few unrelated words more would do.",
        "Guessed within weeks by somebody who has the disk. One or two words more.",
        "Hard to guess.",
        "Very hard to guess.",
    )
    return Strength(score, sentences[score])
