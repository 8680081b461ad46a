"""Request security: host allow-list, origin and CSRF, session cookies, headers, throttling."""

import asyncio
import hmac
import re
import secrets
import struct
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, cast
from urllib.parse import parse_qsl

from markupsafe import Markup
from quart import Quart, Request, Response, g, request

from llamora.app.services.container import get_services
from llamora.errors import Problem
from llamora.journal.session_keys import OpenSession

SESSION_COOKIE = "llamora"
VISIT_COOKIE = "llamora_visit"
CSRF_COOKIE = "llamora_csrf"  # read by our script, which sends it back as a header
CSRF_HEADER = "X-CSRF-Token"
HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::[0-9]+)?")
LARGE_BODY_PATHS = re.compile(r"/d/[^/]+/entries|/e/[0-9a-f]+(?:/answers)?|/drafts")
# Requests that an open page makes by itself do not keep the session alive.
BACKGROUND_PATHS = re.compile(r"/session/events|/r/[0-9a-f]+/events|/d/[^/]+/entries")
SMALL_BODY_BYTES = 65_536
MAX_FIELDS = 300  # a day of 200 marked entries, and the rest of the form
PUBLIC_PATHS = frozenset(
    {"/healthz", "/favicon.ico", "/sw.js", "/offline"}
)  # the same for everybody
UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SIGN_IN_PATHS = frozenset({"/sign-in", "/register", "/reset"})
SIGNED_OUT_PATHS = frozenset(
    {"/sign-in", "/sign-out", "/register", "/register/strength", "/reset"}
)  # forms for signed-out users

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
}


class SignInRequired(Exception):
    """The page needs a signed-in user."""


class AlreadySignedIn(Exception):
    """A form for signed-out users was sent by a signed-in one."""


class RequestRejected(Problem):
    """The request does not come from a page of this app; `status` is the HTTP status to answer."""

    def __init__(self, code: str, /, status: int, *, is_body_readable: bool = True) -> None:
        super().__init__(code)
        self.status = status
        self.is_body_readable = is_body_readable
        """The body may be read, to give its text back."""


def init_app(app: Quart) -> None:
    """Install the security checks before and after every request of `app`."""
    app.request_class = FormRequest
    app.before_request(_before_request)
    app.after_request(_after_request)


def require_session() -> OpenSession:
    """Return the session of this request. Raises SignInRequired."""
    session = get_session()
    if session is None:
        raise SignInRequired
    return session


def get_session() -> OpenSession | None:
    """Return the session of this request, or None if no user is signed in."""
    return cast("OpenSession | None", g.get("session"))


def set_session_cookie(cookie: str, session: OpenSession) -> None:
    """Set the cookie of a new session on the response of this request."""
    g.session = session
    g.session_cookie = cookie
    _drop_csrf_token()  # it was bound to the session before


def clear_session_cookie() -> None:
    """Delete the session cookie with the response of this request."""
    g.session = None
    g.session_cookie = ""
    _drop_csrf_token()


def _drop_csrf_token() -> None:
    g.pop("csrf", None)
    g.pop("csrf_field", None)


class FormRequest(Request):
    """A request that limits the size of its body by its path."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
        if not LARGE_BODY_PATHS.fullmatch(path):
            kwargs["max_content_length"] = SMALL_BODY_BYTES
        super().__init__(method, scheme, path, *args, **kwargs)


async def form_field(name: str) -> str:
    """Return the first posted field of that name, or "". Raises RequestRejected."""
    return next(iter(await form_fields(name)), "")


async def form_fields(name: str) -> list[str]:
    """Return all posted fields of that name.

    Raises RequestRejected for more than MAX_FIELDS fields in the form.
    """
    if "form" not in g:
        body = cast(bytes, await request.get_data())
        if body.count(b"&") >= MAX_FIELDS:
            raise RequestRejected("form_too_many_fields", 413, is_body_readable=False)
        # A megabyte of three-byte letters takes a second to decode.
        g.form = (
            await asyncio.to_thread(_parse_form, body)
            if len(body) > SMALL_BODY_BYTES
            else _parse_form(body)
        )
    return [value for key, value in cast("list[tuple[str, str]]", g.form) if key == name]


async def replayable_form(text_field: str) -> dict[str, object]:
    """Return `action` and `fields` to offer a rejected form again.

    Leaves out the CSRF token and the field named `text_field`.
    """
    await form_fields(text_field)
    fields = [
        (key, value)
        for key, value in cast("list[tuple[str, str]]", g.form)
        if key not in (text_field, "csrf")
    ]
    return {"action": request.path, "fields": fields}


def _parse_form(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def csrf_token() -> str:
    """Return the CSRF token of this request: u64 Unix seconds and an HMAC-SHA256, as Base64."""
    if "csrf" not in g:
        timestamp = struct.pack(">Q", int(time.time()))
        g.csrf = urlsafe_b64encode(timestamp + _csrf_mac(timestamp)).decode()
    return cast(str, g.csrf)


def csrf_field() -> Markup:
    """Return the hidden CSRF field that every form carries."""
    if "csrf_field" not in g:
        g.csrf_field = Markup('<input type="hidden" name="csrf" value="{}">').format(csrf_token())
    return cast(Markup, g.csrf_field)


def client_address() -> str:
    """Return the address to throttle by; behind a proxy, the last of X-Forwarded-For."""
    if get_services().settings.server.behind_proxy:
        forwarded = request.headers.get("X-Forwarded-For", "")
        if forwarded:
            return forwarded.split(",")[-1].strip()
    return request.remote_addr or ""


def is_https(request_: Request) -> bool:
    """Return True if the browser used TLS, to this server or to the proxy in front of it."""
    if get_services().settings.server.behind_proxy:
        return request_.headers.get("X-Forwarded-Proto", "").split(",")[-1].strip() == "https"
    return request_.is_secure


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith("/static/")


async def _before_request() -> None:
    _check_host()
    g.admitted = True
    if _is_public(request.path):
        return
    services = get_services()
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        is_background = request.method == "GET" and BACKGROUND_PATHS.fullmatch(request.path)
        session = await services.sessions.resume(cookie, extend_idle=not is_background)
        g.session = session
        if session is None:
            g.session_cookie = ""
        else:
            await services.search.unlock(session.keys)
    if request.method in UNSAFE_METHODS:
        _check_origin()
        if request.mimetype not in ("application/x-www-form-urlencoded", ""):
            # A multipart body could be spooled to disk in plain text; no page sends one.
            raise RequestRejected("form_unknown_shape", 415, is_body_readable=False)
        await _check_csrf()


def _check_host() -> None:
    settings = get_services().settings.server
    host = HOST_PATTERN.fullmatch(request.headers.get("Host", ""))
    name = host[1] if host else ""
    if name.lower() not in {allowed.lower() for allowed in (*settings.hosts, settings.host)}:
        raise RequestRejected("host_unknown", 400)


def _check_origin() -> None:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise RequestRejected("request_foreign", 403)
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != request.headers["Host"].lower():
        raise RequestRejected("request_foreign", 403)


async def _check_csrf() -> None:
    token = request.headers.get(CSRF_HEADER)
    if token is None:
        token = await form_field("csrf")
    if not _is_token_fresh(token, get_services().settings.session.csrf_ttl):
        if get_session() is not None and request.path in SIGN_IN_PATHS:
            raise AlreadySignedIn  # a sign-in page was sent again
        if get_session() is None and request.path not in SIGNED_OUT_PATHS:
            raise SignInRequired  # the token was bound to a session that ended
        raise RequestRejected("page_too_old", 403)


def _is_token_fresh(token: str, max_age: int) -> bool:
    try:
        decoded = urlsafe_b64decode(token)
    except ValueError:
        return False
    if len(decoded) != 8 + 32 or not hmac.compare_digest(decoded[8:], _csrf_mac(decoded[:8])):
        return False
    # The MAC is ours, so a time in the future means that the clock was set back.
    return time.time() - struct.unpack(">Q", decoded[:8])[0] <= max_age


def _csrf_mac(timestamp: bytes) -> bytes:
    session = get_session()
    binding = session.id if session else b"visit" + _visitor_id().encode()
    key = hmac.digest(get_services().boot_secret, b"llamora/1/csrf", sha256)
    return hmac.digest(key, binding + timestamp, sha256)


def _visitor_id() -> str:
    """Return a random id for a signed-out browser, to bind its CSRF token to."""
    if "visit" not in g:
        g.visit = request.cookies.get(VISIT_COOKIE, "") or secrets.token_urlsafe(18)
    return cast(str, g.visit)


async def _after_request(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if _is_public(request.path):
        return response
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Cookie, HX-Request"
    if g.get("admitted"):
        _set_cookies(response)
    return response


def _set_cookies(response: Response) -> None:
    secure = is_https(request)
    session_cookie = g.get("session_cookie")
    if session_cookie:
        response.set_cookie(
            SESSION_COOKIE, session_cookie, httponly=True, samesite="Lax", secure=secure, path="/"
        )
    elif session_cookie == "":
        response.delete_cookie(
            SESSION_COOKIE, httponly=True, samesite="Lax", secure=secure, path="/"
        )
    half_life = get_services().settings.session.csrf_ttl // 2
    if not _is_token_fresh(request.cookies.get(CSRF_COOKIE, ""), half_life):
        response.set_cookie(CSRF_COOKIE, csrf_token(), samesite="Strict", secure=secure, path="/")
    if "visit" in g and request.cookies.get(VISIT_COOKIE) != g.visit:
        response.set_cookie(
            VISIT_COOKIE, g.visit, httponly=True, samesite="Strict", secure=secure, path="/"
        )
