"""Let users into their journals, change what opens them, and end them."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from llamora.dates import utc_now
from llamora.errors import Problem
from llamora.journal import throttle
from llamora.journal.accounts import Accounts
from llamora.journal.backups import Backups
from llamora.journal.credentials import (
    AccountError,
    Strength,
    TooBusy,
    WrongCredentials,
    is_known_client,
)
from llamora.journal.integrity import Integrity
from llamora.journal.rotation import Rotation
from llamora.journal.session_keys import OpenSession, SessionInfo
from llamora.journal.sessions import Sessions
from llamora.journal.throttle import Throttle, TooManyAttempts
from llamora.journal.trash import Trash
from llamora.persistence.checksums import ChecksumState
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.local_db import LocalDB
from llamora.persistence.schema import RECOVERY_GROUPS
from llamora.persistence.users import User, name_key
from llamora.search.service import SearchService
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring
from llamora.vault.recovery_code import recovery_groups, same_group
from llamora.vault.session_keys import device_id_of

MAX_GROUPS = 8  # of a recovery code


class RegistrationClosed(AccountError):
    """Nobody new may register; whoever runs the server decides that."""

    status = 403


@dataclass(slots=True, frozen=True)
class Client:
    """The client of a request: its address, the name of its device, and its browser's token.

    `browser` is random and held by a cookie of that browser only, b"" without one. `seen` is the
    latest change that the browser was told of, sealed.
    """

    address: str
    device: str = ""
    browser: bytes = field(default=b"", repr=False)
    seen: bytes = field(default=b"", repr=False)


@dataclass(slots=True, frozen=True)
class GroupQuestion:
    """The group of a recovery code to type back, from 0, and the token that checks it."""

    index: int
    token: str


@dataclass(slots=True, frozen=True)
class AccountState:
    """The state of a user's account; `unreadable_count` is of records that no key opens any more."""

    user: User
    sessions: list[SessionInfo]
    is_changing_key: bool
    unreadable_count: int
    checksum: ChecksumState
    latest_backup: date | None


@dataclass(slots=True, frozen=True)
class Access:
    """Sign users in and out, and carry out what needs their secret.

    Guesses at a secret are counted by name and address, in a browser where the user once got in by
    that browser, and those of a session by that session. Whoever is signed in has their index open
    and their maintenance running.
    """

    _db: LocalDB
    _accounts: Accounts
    _sessions: Sessions
    _throttle: Throttle
    _search: SearchService
    _trash: Trash
    _backups: Backups
    _rotation: Rotation
    _integrity: Integrity
    _registration: bool

    # -- coming and going --------------------------------------------------------------------------

    async def has_users(self) -> bool:
        return await self._db.users.has_any()

    async def require_registration(self) -> None:
        """Raise RegistrationClosed unless a new user may register, as the first one always may."""
        if not self._registration and await self._db.users.has_any():
            raise RegistrationClosed("registration_closed")

    async def register(
        self, name: str, passphrase: str, zone: str, client: Client, previous: OpenSession | None
    ) -> tuple[OpenSession, str]:
        """Create a user and sign them in; return the session and the recovery code.

        `previous` is the session of the same client, which ends. Raises AccountError, also
        for too many from one address, and NameTaken.
        """
        await self.require_registration()
        subjects = throttle.registration(client.address)
        await self._throttle.record_attempt(subjects)
        try:
            user, keys, code = await self._accounts.register(name, passphrase, zone)
        except Problem:
            await self._throttle.take_back_attempt(subjects)  # nobody was made
            raise
        return await self._open(user, keys, client, previous), code

    async def sign_in(
        self, name: str, passphrase: str, client: Client, previous: OpenSession | None
    ) -> OpenSession:
        """Unlock a user's keys and start a session; `previous` is that of the same client.

        Raises WrongCredentials, TooManyAttempts, TooBusy and StorageError.
        """
        async with self._attempt_at(name, client):
            user, keys = await self._accounts.sign_in(name, passphrase)
        return await self._open(user, keys, client, previous)

    async def reset(
        self, name: str, code: str, passphrase: str, client: Client, previous: OpenSession | None
    ) -> tuple[OpenSession, str]:
        """Set a new passphrase with the recovery code; return the session and the new code.

        Raises AccountError and StorageError.
        """
        async with self._attempt_at(name, client):
            user, keys, new_code = await self._accounts.reset_passphrase(name, code, passphrase)
        return await self._open(user, keys, client, previous), new_code

    async def measure_strength(
        self, passphrase: str, name: str, client: Client, session: OpenSession | None
    ) -> Strength:
        """Measure the strength of a new passphrase. Raises TooBusy."""
        known = session is not None or await self._known_device(name, client) is not None
        with _served_first(known):
            return await self._accounts.measure_strength(passphrase, name)

    async def resume(self, cookie: str, *, extend_idle: bool = True) -> OpenSession | None:
        """Return the session of a cookie with the user's index open; None if it has ended.

        `extend_idle` postpones its idle timeout.
        """
        session = await self._sessions.resume(cookie, extend_idle=extend_idle)
        if session is not None:
            await self._search.unlock(session.keys)
            self._integrity.unlock(session.keys)
        return session

    async def end_sessions(self, session: OpenSession, which: str) -> None:
        """End the session whose id is `which` in hex, or for "others" all but this one."""
        if which == "others":
            await self._sessions.end_other_sessions(session)
        for other in await self._sessions.list_sessions(session):
            if other.id != session.id and which == other.id.hex():
                await self._sessions.end_session(session.user.id, other.id)

    # -- what opens a journal ----------------------------------------------------------------------

    async def change_passphrase(
        self, session: OpenSession, old: str, new: str, client: Client
    ) -> OpenSession:
        """Replace the passphrase and end the user's other sessions; return the renewed session.

        Raises AccountError and StaleRevision.
        """
        subjects = throttle.open_session(session.id)
        try:
            async with self._attempt(subjects, known=True):
                renewed = await self._accounts.change_passphrase(session, old, new)
        except (WrongCredentials, TooManyAttempts, TooBusy):
            raise
        except (AccountError, StaleRevision):
            await self._throttle.clear_attempts(subjects)  # it was right
            raise
        return await self._renewed(renewed, client)

    async def renew_recovery_code(
        self, session: OpenSession, passphrase: str, client: Client
    ) -> tuple[OpenSession, str]:
        """Replace the recovery code; return the renewed session and the new code.

        Ends the user's other sessions. Raises AccountError and StaleRevision.
        """
        async with self._attempt(throttle.open_session(session.id), known=True):
            renewed, code = await self._accounts.renew_recovery_code(session, passphrase)
        return await self._renewed(renewed, client), code

    def ask_for_group(self, session: OpenSession, code: str) -> GroupQuestion:
        """Choose a group of a new recovery code that the user has to type back.

        The group is sealed in the question, so that any worker can check it without remembering it.
        """
        groups = recovery_groups(code)
        index = secrets.randbelow(len(groups))
        sealed = RECOVERY_GROUPS.seal(session.keys, session.user.id, index, groups[index].encode())
        return GroupQuestion(index, f"{index}.{urlsafe_b64encode(sealed).decode()}")

    async def confirm_recovery(self, session: OpenSession, token: str, group: str) -> int:
        """Store that the user has written the code down, if they typed the group of `token`.

        Returns the index of the group if another one was typed, else -1; that is also returned for
        a token that does not open.
        """
        number, _separator, sealed = token.partition(".")
        index = int(number) if number in map(str, range(MAX_GROUPS)) else 0
        try:
            expected = RECOVERY_GROUPS.open(
                session.keys, session.user.id, index, urlsafe_b64decode(sealed)
            ).decode()
        except (SealError, ValueError):
            return -1
        if not same_group(expected, group):
            return index
        await self._accounts.confirm_recovery(session.user.id)
        return -1

    async def change_key(self, session: OpenSession, secret: str, client: Client) -> OpenSession:
        """Replace the keys, after a backup; records are sealed again in the background.

        Ends the user's other sessions; returns the renewed session. Raises AccountError and
        StorageError.
        """
        await self._verify(session, secret)
        await self._backups.create(session.keys)  # in case the change goes wrong
        return await self._renewed(await self._accounts.change_key(session), client)

    async def create_backup(self, session: OpenSession, secret: str) -> Path:
        """Create a backup for a user who proves to be there; return its file.

        Raises AccountError and StorageError.
        """
        await self._verify(session, secret)
        return await self._backups.create(session.keys)

    async def end_journal(self, session: OpenSession, secret: str) -> None:
        """Erase a user and all their data, backups included.

        Raises AccountError and StorageError.
        """
        await self._verify(session, secret)
        user_id = session.user.id
        await self._backups.delete_all(user_id)
        await self._sessions.lock(user_id)
        await self._db.users.erase(user_id)
        with suppress(StorageError):  # a backup may have been under way during the first call
            await self._backups.delete_all(user_id)

    async def get_state(self, session: OpenSession) -> AccountState:
        user_id = session.user.id
        return AccountState(
            await self._db.users.get(user_id),
            await self._sessions.list_sessions(session),
            await self._db.key_rotation.count_data_keys(user_id) > 1,
            await self._db.key_rotation.unreadable_count(user_id),
            await self._integrity.get_state(session.keys),
            await self._backups.find_latest_day(user_id),
        )

    def mark_for(self, session: OpenSession) -> bytes:
        """Return what the session's browser is to keep of the latest change, b"" if it has it."""
        return self._integrity.mark_for(session)

    # -- internal ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _attempt(
        self, subjects: throttle.Subjects, *, known: bool = False
    ) -> AsyncGenerator[None]:
        await self._throttle.record_attempt(subjects)
        try:
            with _served_first(known):
                yield
        except TooBusy:
            await self._throttle.take_back_attempt(subjects)
            raise
        await self._throttle.clear_attempts(subjects)

    @asynccontextmanager
    async def _attempt_at(self, name: str, client: Client) -> AsyncGenerator[None]:
        """Count an attempt at a name: in a browser known to that user, by the browser alone."""
        device_id = await self._known_device(name, client)
        subjects = (
            throttle.known_device(device_id)
            if device_id
            else throttle.stranger(name_key(name), client.address)
        )
        async with self._attempt(subjects, known=device_id is not None):
            yield

    async def _known_device(self, name: str, client: Client) -> bytes | None:
        user = await self._db.users.find_by_name(name)
        # An unknown name costs the same two queries as a known one.
        device_id = device_id_of(client.browser, user.id if user else bytes(16))
        is_known = await self._db.known_devices.is_known(device_id, utc_now().date())
        return device_id if is_known else None

    async def _verify(self, session: OpenSession, secret: str) -> None:
        async with self._attempt(throttle.open_session(session.id), known=True):
            await self._accounts.verify_secret(session, secret)

    async def _open(
        self, user: User, keys: Keyring, client: Client, previous: OpenSession | None
    ) -> OpenSession:
        if previous is not None:
            await self._sessions.sign_out(previous)
        _cookie, session = await self._sessions.open_session(user, keys, client.device)
        await self._search.unlock(session.keys)
        await self._integrity.compare(session.keys, client.seen)
        self._integrity.unlock(session.keys)
        self._trash.run_maintenance(session.keys)
        self._backups.start_daily_backup(session.keys)
        return await self._renewed(session, client)

    async def _renewed(self, session: OpenSession, client: Client) -> OpenSession:
        await self._rotation.resume_pending(session.keys)
        if client.browser:
            device_id = device_id_of(client.browser, session.user.id)
            with suppress(StorageError):  # a full disk must not keep anybody out
                await self._db.known_devices.remember(session.user.id, device_id, utc_now().date())
        return session


@contextmanager
def _served_first(known: bool) -> Generator[None]:
    """Let costly work in here pass strangers by, for who is known."""
    token = is_known_client.set(known)
    try:
        yield
    finally:
        is_known_client.reset(token)
