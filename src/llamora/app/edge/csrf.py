"""Proof that a request comes from a page of this app: its origin, and a token.

A token is i64 Unix seconds and an HMAC-SHA256, as Base64. It is bound to the session, or to a
random id of a signed-out browser.
"""

import hmac
import secrets
import struct
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import cast

from markupsafe import Markup
from quart import g, request

from llamora.app.edge.forms import form_field
from llamora.app.edge.hosts import VISIT_COOKIE, is_own_origin, read_cookie
from llamora.app.edge.rules import FORM_TYPES, RequestRejected, RouteRules
from llamora.app.edge.sessions import AlreadySignedIn, SignInRequired, get_session
from llamora.app.services.container import get_services

CSRF_HEADER = "X-CSRF-Token"


def csrf_token() -> str:
    """Return the token of this request; it changes with the session."""
    session = get_session()
    binding = session.id if session else None
    if g.get("csrf", (0,))[0] != binding:
        timestamp = struct.pack(">q", int(time.time()))
        g.csrf = (binding, urlsafe_b64encode(timestamp + _mac(timestamp)).decode())
        g.pop("csrf_field", None)
    return cast(str, g.csrf[1])


def csrf_field() -> Markup:
    """Return the hidden field that every form carries."""
    token = csrf_token()
    if "csrf_field" not in g:  # a long page has hundreds of forms
        g.csrf_field = Markup('<input type="hidden" name="csrf" value="{}">').format(token)
    return cast(Markup, g.csrf_field)


def check_origin() -> None:
    """Raise RequestRejected for a request from a page of another site."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise RequestRejected("request_foreign", 403)
    origin = request.headers.get("Origin")
    if origin is not None and not is_own_origin(origin):
        # The browser knows better than the server: a proxy does not pass on what it was asked for.
        raise RequestRejected("proxy_silent" if site == "same-origin" else "request_foreign", 403)


async def check_token(rules: RouteRules) -> None:
    """Check the token in the header, or in the form.

    Raises RequestRejected, SignInRequired if it was bound to a session that has ended, and
    AlreadySignedIn if a form to sign in was sent again.
    """
    token = request.headers.get(CSRF_HEADER)
    if token is None:
        token = await form_field("csrf") if request.mimetype in FORM_TYPES else ""
    if is_token_fresh(token, get_services().settings.session.csrf_ttl):
        return
    if get_session() is not None and rules.begins_session:
        raise AlreadySignedIn
    if get_session() is None and not rules.signed_out:
        raise SignInRequired
    raise RequestRejected("page_too_old", 403)


def is_token_fresh(token: str, max_age: int) -> bool:
    """Return True for a token of this session that is at most `max_age` seconds old."""
    try:
        decoded = urlsafe_b64decode(token)
    except ValueError:
        return False
    if len(decoded) != 8 + 32 or not hmac.compare_digest(decoded[8:], _mac(decoded[:8])):
        return False
    # The MAC is ours, so a time in the future means that the clock was set back.
    return time.time() - struct.unpack(">q", decoded[:8])[0] <= max_age


def _mac(timestamp: bytes) -> bytes:
    session = get_session()
    binding = session.id if session else b"visit" + _visitor_id().encode()
    key = hmac.digest(get_services().boot_secret, b"llamora/1/csrf", sha256)
    return hmac.digest(key, binding + timestamp, sha256)


def _visitor_id() -> str:
    if "visit" not in g:
        g.visit = read_cookie(VISIT_COOKIE) or secrets.token_urlsafe(18)
    return cast(str, g.visit)
