"""The session of a request, and its cookie."""

import hmac
from hashlib import sha256
from typing import cast

from quart import g

from llamora.app.edge.hosts import SESSION_COOKIE, read_cookie
from llamora.app.services.container import get_services
from llamora.journal.session_keys import OpenSession


class SignInRequired(Exception):
    """The page needs a signed-in user."""


class AlreadySignedIn(Exception):
    """A form for signed-out users was sent by a signed-in one."""


async def resume(*, extend_idle: bool) -> None:
    """Open the session of the cookie; the cookie of one that has ended is deleted."""
    cookie = read_cookie(SESSION_COOKIE)
    if not cookie:
        return
    g.session = await get_services().access.resume(cookie, extend_idle=extend_idle)
    if g.session is None:
        g.session_cookie = ""


def require_session() -> OpenSession:
    """Return the session of this request. Raises SignInRequired."""
    session = get_session()
    if session is None:
        raise SignInRequired
    return session


def get_session() -> OpenSession | None:
    """Return the session of this request, or None if no user is signed in."""
    return cast("OpenSession | None", g.get("session"))


def window_group(session: OpenSession) -> str:
    """Return the name under which the windows of a session find each other in the browser.

    It tells nothing of the session to whoever cannot read a page of it.
    """
    key = hmac.digest(get_services().boot_secret, b"llamora/1/windows", sha256)
    return hmac.digest(key, session.id, sha256)[:16].hex()


def set_session(session: OpenSession) -> None:
    """Set the cookie of a new or renewed session on the response of this request."""
    g.session = session
    g.session_cookie = session.cookie


def clear_session() -> None:
    """Delete the session cookie with the response of this request."""
    g.session = None
    g.session_cookie = ""
