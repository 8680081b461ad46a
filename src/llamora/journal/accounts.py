"""Register and sign in users, open their keys, and change what opens them."""

import secrets
import time
from dataclasses import replace

from llamora.journal.credentials import (
    MAX_PASSPHRASE_CHARACTERS,
    AccountError,
    Credentials,
    Strength,
    WrongCredentials,
)
from llamora.journal.profile import (
    MAX_ZONE_CHARACTERS,
    Profile,
    load_profile,
    serialize_profile,
    zone_or_utc,
)
from llamora.journal.rotation import renew_keys
from llamora.journal.sessions import OpenSession, Sessions
from llamora.persistence.connection import StaleRevision
from llamora.persistence.local_db import LocalDB
from llamora.persistence.users import MAX_NAME_CHARACTERS, User, name_key
from llamora.settings import CryptoSettings
from llamora.vault.envelope import SealError
from llamora.vault.kdf import burn_kdf
from llamora.vault.key_renewal import create_keys, replace_slot
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.recovery_code import WrongSecret, check_recovery_code, new_recovery_code
from llamora.vault.slots import PASSPHRASE, RECOVERY, passphrase_slot_key, recovery_slot_key


class Accounts:
    """Manage registration, sign-in, recovery and what opens an account."""

    def __init__(self, db: LocalDB, crypto_settings: CryptoSettings, sessions: Sessions) -> None:
        self._db = db
        self._credentials = Credentials(db, crypto_settings)
        self.sessions = sessions

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
        await self._credentials.validate_new(passphrase, display_name)
        params = await self._credentials.kdf_params()
        user = User(secrets.token_bytes(16), display_name, recovery_confirmed=False)
        new_keys = await self._credentials.run_kdf(create_keys, user.id, passphrase, params)
        await self._db.users.add(user, new_keys.slots, new_keys.sealed)
        keys = open_keyring(user.id, new_keys.master, new_keys.sealed)
        wipe(new_keys.master)
        zone = zone_or_utc(zone_name)
        unknown_zone = "" if zone == zone_name else zone_name[:MAX_ZONE_CHARACTERS]
        await self.save_profile(keys, Profile(zone=zone, unknown_zone=unknown_zone, summed=True))
        return user, keys, new_keys.recovery_code

    async def measure_strength(self, passphrase: str, name: str) -> Strength:
        """Measure the strength of a new passphrase of a user. Raises TooBusy."""
        return await self._credentials.measure_strength(passphrase, name)

    async def sign_in(self, name: str, passphrase: str) -> tuple[User, Keyring]:
        """Open a user's keys with their passphrase.

        Raises WrongCredentials, at the same cost for an unknown name as for a wrong passphrase.
        """
        params = await self._credentials.kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._credentials.slots(user, PASSPHRASE)
        credentials_error = WrongCredentials("credentials_wrong")
        if user is None or not slots or len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
            await self._credentials.run_kdf(burn_kdf, params)
            raise credentials_error
        try:
            slot, master = await self._credentials.open_first(user.id, slots, passphrase)
        except WrongSecret:
            raise credentials_error from None
        except SealError:
            raise AccountError("passphrase_slot_changed") from None
        sealed = await self._db.users.keys(user.id)
        keys = open_keyring(user.id, master, sealed)
        if params.work > slot.argon2.work:
            # The instance was recalibrated: upgrade this slot while the passphrase is available.
            # Never downgrade: the file's cost may have been lowered by somebody who can write it.
            new_slot = await self._credentials.run_kdf(
                passphrase_slot_key, user.id, passphrase, params
            )
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
        await self._credentials.validate_new(passphrase, name)
        params = await self._credentials.kdf_params()
        user = await self._db.users.find_by_name(name)
        slots = await self._credentials.slots(user, RECOVERY)
        credentials_error = WrongCredentials("recovery_credentials_wrong")
        if user is None or not slots:
            await self._credentials.run_kdf(burn_kdf, params)
            raise credentials_error
        sealed = await self._db.users.keys(user.id)
        try:
            _, master = await self._credentials.open_first(user.id, slots, recovery_code)
        except WrongSecret:
            await self._credentials.run_kdf(burn_kdf, params)
            raise credentials_error from None
        keys = open_keyring(user.id, master, sealed)
        wipe(master)
        new_code = new_recovery_code()
        added = (
            await self._credentials.run_kdf(passphrase_slot_key, user.id, passphrase, params),
            recovery_slot_key(user.id, new_code),
        )
        await renew_keys(
            self._db,
            keys,
            sealed,
            add=added,
            keep=lambda slot: slot.kind not in (PASSPHRASE, RECOVERY),
        )
        self.sessions.close_other_sessions(user.id)
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
        slot = await self._credentials.verify_passphrase(session.user, old_passphrase)
        if new_passphrase == old_passphrase:
            raise AccountError("passphrase_unchanged")
        await self._credentials.validate_new(new_passphrase, session.user.name)
        params = await self._credentials.kdf_params()
        new_slot = await self._credentials.run_kdf(
            passphrase_slot_key, session.user.id, new_passphrase, params
        )
        return await self.sessions.renew(
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
        await self._credentials.verify_passphrase(session.user, passphrase)
        code = new_recovery_code()
        new_slot = recovery_slot_key(session.user.id, code)
        return await self.sessions.renew(
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
        return await self.sessions.renew(session, stored)

    async def verify_secret(self, session: OpenSession, secret: str) -> None:
        """Check that `secret` is the user's passphrase or recovery code.

        Raises WrongCredentials.
        """
        codes = (
            await self._credentials.slots(session.user, RECOVERY)
            if check_recovery_code(secret)
            else []
        )
        try:
            wipe((await self._credentials.open_first(session.user.id, codes, secret))[1])
        except WrongSecret:  # a passphrase may have the form of a code
            await self._credentials.verify_passphrase(session.user, secret)

    async def confirm_recovery(self, user_id: bytes) -> None:
        """Store that the user has confirmed the recovery code."""
        await self._db.users.confirm_recovery(user_id)

    async def get_profile(self, keys: Keyring) -> Profile:
        """Return the user's settings; the defaults if none are stored."""
        return await load_profile(self._db, keys)

    async def save_profile(self, keys: Keyring, profile: Profile) -> Profile:
        """Store the settings over the revision they were read at, and return them as stored.

        Raises StaleRevision.
        """
        old_idle_ttl = await self.sessions.get_idle_ttl(keys)
        await self._db.profiles.save(keys, serialize_profile(profile), revision=profile.revision)
        new_idle_ttl = await self.sessions.get_idle_ttl(keys, refresh=True)
        if new_idle_ttl != old_idle_ttl:
            await self._db.sessions.shift_idle(
                keys.user_id, new_idle_ttl - old_idle_ttl, int(time.time())
            )
        return replace(profile, revision=profile.revision + 1, damaged=False)
