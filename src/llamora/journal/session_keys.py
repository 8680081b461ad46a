"""The session that a cookie stands for, and the seal on its master key."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from llamora.persistence.local_db import LocalDB
from llamora.persistence.sessions import Session
from llamora.persistence.users import User
from llamora.vault.keys import Keyring, KeyringClosed
from llamora.vault.memory import Key, wipe
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_cookie,
    seal_for_session,
)

TOKEN_BYTES = 32


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
        return encode_cookie(self.token + self.sealed_key)


@dataclass(slots=True, frozen=True)
class SessionInfo:
    """A session as it is listed for its user.

    `device` is the name its browser gave, "" if unknown. `last_used_at` is accurate to a minute.
    """

    id: bytes
    device: str
    started_at: datetime
    last_used_at: datetime


class KeySealer:
    """Seal the master keys of sessions under a secret that is in RAM only, so it ends with it."""

    def __init__(self, mode: Literal["session", "cookie"], boot_secret: bytes) -> None:
        self._mode = mode
        self._boot_secret = boot_secret

    def seal(
        self, user_id: bytes, session_id: bytes, token: bytes, master: Key
    ) -> tuple[bytes | None, bytes]:
        """Seal the master key for a session, as (for its row, for its cookie).

        Depending on the mode one of the two is None or empty.
        """
        if self._mode == "cookie":
            return None, seal_for_cookie(user_id, session_id, self._boot_secret, master)
        return seal_for_session(user_id, session_id, token, self._boot_secret, master), b""

    def open(self, row: Session, token: bytes, carried: bytes) -> bytearray:
        """Open the master key of a session, `carried` by its cookie if not in its row.

        Raises SealError.
        """
        if row.sealed_key is not None:
            return open_from_session(row.user_id, row.id, token, self._boot_secret, row.sealed_key)
        return open_from_cookie(row.user_id, row.id, self._boot_secret, carried)


def encode_cookie(raw: bytes) -> str:
    """Return the text of a cookie that holds these bytes."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


def decode_cookie(cookie: str) -> bytes | None:
    """Return the token of a cookie and what follows it, None for a cookie never issued."""
    try:
        raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
    except (Base64Error, ValueError):
        return None
    # Base64 decodes several texts to the same bytes; accept only the one that was issued.
    return raw if len(raw) >= TOKEN_BYTES and encode_cookie(raw) == cookie else None


async def share_keyring(db: LocalDB, open_keyrings: Iterable[Keyring], keys: Keyring) -> Keyring:
    """Return the keyring of this user that is open already, brought up to date, or else `keys`.

    All sessions of a user share one, so that a new key reaches everything done for them. The
    other one is closed.
    """
    existing = next(
        (other for other in open_keyrings if other.user_id == keys.user_id and not other.closed),
        None,
    )
    if existing is None or existing is keys:
        return keys
    stored_keys, master = await db.users.get_data_keys(keys.user_id), keys.master
    try:
        known = existing.take(stored_keys, master)
    except KeyringClosed:  # its last session ended meanwhile
        return keys
    finally:
        wipe(master)
    # After a restored backup the keyring held here would seal under a key that is gone.
    is_outdated = (
        existing.closed or not known or not stored_keys or stored_keys[-1].epoch < existing.epoch
    )
    if is_outdated:
        return keys
    keys.close()
    return existing
