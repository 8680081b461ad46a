"""The master key of an open session, sealed for its row or for its cookie.

Formats are written out in docs/encryption.md.
"""

import hashlib

from llamora.vault.envelope import SESSION, Context, hkdf, open_key, open_sealed, seal
from llamora.vault.keys import Keyring
from llamora.vault.memory import Key

BOOT_SECRET_BYTES = 32
MIN_TOKEN_BYTES = 16


def session_id_of(token: bytes) -> bytes:
    """Return the id of a session row: SHA-256 of the random token in the cookie."""
    return hashlib.sha256(b"llamora/1/session-id" + token).digest()


def device_id_of(token: bytes, user_id: bytes) -> bytes:
    """Return the id of a browser where a user got in: SHA-256 of its random token and the user."""
    return hashlib.sha256(b"llamora/1/known-device" + user_id + token).digest()


def seal_for_session(
    user_id: bytes,
    session_id: bytes,
    token: bytes,
    boot_secret: bytes,
    master: Key,
    *,
    _salt: bytes | None = None,
) -> bytes:
    """Seal the master key for the session row (`session` mode).

    The key is HKDF(token || boot secret).
    """
    key = _session_key(user_id, token, boot_secret)
    context = Context(user_id, "dek_sessions", "session", session_id, 0)
    return seal(key, SESSION, 0, context, master, _salt=_salt)


def open_from_session(
    user_id: bytes, session_id: bytes, token: bytes, boot_secret: bytes, sealed: bytes
) -> bytearray:
    """Open the master key of a session row; the caller wipes it. Raise :class:`SealError`."""
    key = _session_key(user_id, token, boot_secret)
    context = Context(user_id, "dek_sessions", "session", session_id, 0)
    return open_key(key, SESSION, 0, context, sealed)


def seal_for_cookie(
    user_id: bytes,
    session_id: bytes,
    boot_secret: bytes,
    master: Key,
    *,
    _salt: bytes | None = None,
) -> bytes:
    """Seal the master key for the cookie (`cookie` mode), under HKDF(boot secret). 346 bytes.

    It holds no expiry: expiry and revocation are the session row's, checked on the server before
    this is opened.
    """
    key = _cookie_key(session_id, boot_secret)
    context = Context(user_id, "dek_sessions", "cookie", session_id, 0)
    return seal(key, SESSION, 0, context, master, _salt=_salt)


def open_from_cookie(
    user_id: bytes, session_id: bytes, boot_secret: bytes, sealed: bytes
) -> bytearray:
    """Open the master key in a cookie; the caller wipes it. Raise :class:`SealError`."""
    key = _cookie_key(session_id, boot_secret)
    context = Context(user_id, "dek_sessions", "cookie", session_id, 0)
    return open_key(key, SESSION, 0, context, sealed)


def seal_seen(keys: Keyring, text: bytes) -> bytes:
    """Seal what a user's browsers keep of the latest change. Raise :class:`KeyringClosed`.

    The key stays the same when the keys are renewed, as those of the blind indexes do.
    """
    return seal(keys.blind("seen", b""), SESSION, 0, _seen_context(keys), text)


def open_seen(keys: Keyring, sealed: bytes) -> bytes:
    """Open it. Raise :class:`SealError` and :class:`KeyringClosed`."""
    return open_sealed(keys.blind("seen", b""), SESSION, 0, _seen_context(keys), sealed)


def _seen_context(keys: Keyring) -> Context:
    return Context(keys.user_id, "known_devices", "seen", b"", 0)


def _session_key(user_id: bytes, token: bytes, boot_secret: bytes) -> Key:
    # The boot secret has a fixed length, so the concatenation reads in one way only.
    if len(token) < MIN_TOKEN_BYTES or len(boot_secret) != BOOT_SECRET_BYTES:
        raise ValueError("a session needs a token of 16 bytes or more and a boot secret of 32")
    return hkdf(token + boot_secret, user_id, "session/row")


def _cookie_key(session_id: bytes, boot_secret: bytes) -> Key:
    if len(boot_secret) != BOOT_SECRET_BYTES:
        raise ValueError("a boot secret has 32 bytes")
    return hkdf(boot_secret, session_id, "session/cookie")
