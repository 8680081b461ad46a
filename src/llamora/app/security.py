"""The edge: who may ask what. Host allow-list, origin and CSRF, sessions in cookies, headers, throttling."""

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
from llamora.journal.accounts import OpenSession

SESSION_COOKIE = "llamora"
VISIT_COOKIE = "llamora_visit"
CSRF_COOKIE = "llamora_csrf"  # readable by our own script, which sends it back as a header
CSRF_HEADER = "X-CSRF-Token"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::[0-9]+)?")
TAKES_TEXT = re.compile(r"/d/[^/]+/entries|/e/[0-9a-f]+(?:/answers)?|/drafts")
# What an open page asks for by itself is no sign of the writer.
BY_ITSELF = re.compile(r"/session/events|/r/[0-9a-f]+/events|/d/[^/]+/entries")
SMALL_BODY = 65_536
FIELDS = 300  # a day of 200 entries, all of them marked, and what else a form has
OPEN = frozenset({"/healthz", "/favicon.ico", "/sw.js", "/offline"})  # the same for everybody
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ENTRANCES = frozenset({"/sign-in", "/register", "/reset"})
DOORS = frozenset({"/sign-in", "/sign-out", "/register", "/register/strength", "/reset"})  # forms of the signed-out

HEADERS = {
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


class SignInNeeded(Exception):
    """The page is for somebody who is signed in."""


class AlreadyIn(Exception):
    """Somebody who is signed in asked to be let in."""


class Refused(Exception):
    """The request does not come from a page of ours; `status` is what it is answered with."""

    def __init__(self, status: int, sentence: str, *, readable: bool = True) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.readable = readable
        """Whether the body may be read, to show its words again."""


def install(app: Quart) -> None:
    """Put the edge rules before and after every request of `app`."""
    app.request_class = FormRequest
    app.before_request(_admit)
    app.after_request(_dress)


def session() -> OpenSession:
    """The session of this request. Raises SignInNeeded."""
    found = maybe_session()
    if found is None:
        raise SignInNeeded
    return found


def maybe_session() -> OpenSession | None:
    """The session of this request, if somebody is signed in."""
    return cast("OpenSession | None", g.get("session"))


def begin(cookie: str, opened: OpenSession) -> None:
    """Give the browser the cookie of a new session with this response."""
    g.session = opened
    g.session_cookie = cookie
    _forget_token()  # it was bound to what was before


def end() -> None:
    """Take the session's cookie away with this response."""
    g.session = None
    g.session_cookie = ""
    _forget_token()


def _forget_token() -> None:
    g.pop("csrf", None)
    g.pop("csrf_field", None)


class FormRequest(Request):
    """A request whose body may be as large as its path has a use for."""

    def __init__(self, method: str, scheme: str, path: str, *more: Any, **named: Any) -> None:
        if not TAKES_TEXT.fullmatch(path):
            named["max_content_length"] = SMALL_BODY
        super().__init__(method, scheme, path, *more, **named)


async def form_field(name: str) -> str:
    """A field of the posted form, empty when it was not sent."""
    return next(iter(await form_fields(name)), "")


async def form_fields(name: str) -> list[str]:
    """All fields of this name in the posted form. Raises Refused for more fields than any page of ours sends."""
    if "form" not in g:
        body = cast(bytes, await request.get_data())
        if body.count(b"&") >= FIELDS:
            raise Refused(413, "This form came with more fields than any page here sends.", readable=False)
        # A megabyte of letters that are three bytes each takes a second to decode.
        g.form = await asyncio.to_thread(_parsed, body) if len(body) > SMALL_BODY else _parsed(body)
    return [value for key, value in cast("list[tuple[str, str]]", g.form) if key == name]


async def sent_with(text: str) -> dict[str, object]:
    """What a page needs to offer a refused form again: where it went, and all but its token and the field `text`."""
    await form_fields(text)
    sent = [(key, value) for key, value in cast("list[tuple[str, str]]", g.form) if key not in (text, "csrf")]
    return {"action": request.path, "sent": sent}


def _parsed(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def csrf_token() -> str:
    """The token of this request's browser, made once per request: u64 Unix seconds and an HMAC-SHA256."""
    if "csrf" not in g:
        stamp = struct.pack(">Q", int(time.time()))
        g.csrf = urlsafe_b64encode(stamp + _mac(stamp)).decode()
    return cast(str, g.csrf)


def csrf_field() -> Markup:
    """The hidden field that every form of ours carries."""
    if "csrf_field" not in g:
        g.csrf_field = Markup('<input type="hidden" name="csrf" value="{}">').format(csrf_token())
    return cast(Markup, g.csrf_field)


def client_address() -> str:
    """Where the request came from, for throttling; behind a proxy, what the proxy says."""
    if get_services().settings.server.behind_proxy:
        forwarded = request.headers.get("X-Forwarded-For", "")
        if forwarded:
            return forwarded.split(",")[-1].strip()
    return request.remote_addr or ""


def is_https(req: Request) -> bool:
    """Whether the browser came over TLS, to us or to the proxy before us."""
    if get_services().settings.server.behind_proxy:
        return req.headers.get("X-Forwarded-Proto", "").split(",")[-1].strip() == "https"
    return req.is_secure


def _is_public(path: str) -> bool:
    return path in OPEN or path.startswith("/static/")


async def _admit() -> None:
    _check_host()
    g.admitted = True
    if _is_public(request.path):
        return
    services = get_services()
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        by_itself = request.method == "GET" and BY_ITSELF.fullmatch(request.path)
        opened = await services.accounts.resume(cookie, extend_idle=not by_itself)
        g.session = opened
        if opened is None:
            g.session_cookie = ""
        else:
            await services.search.unlock(opened.keys)
    if request.method in UNSAFE:
        _check_origin()
        if request.mimetype not in ("application/x-www-form-urlencoded", ""):
            # A multipart body could be spooled to a temporary file in plain text; no page of ours sends one.
            raise Refused(415, "This form came in a shape that no page here sends.", readable=False)
        await _check_csrf()


def _check_host() -> None:
    settings = get_services().settings.server
    host = HOST.fullmatch(request.headers.get("Host", ""))
    name = host[1] if host else ""
    if name.lower() not in {allowed.lower() for allowed in (*settings.hosts, settings.host)}:
        raise Refused(400, "This name is not one the journal answers to. Add it to server.hosts in the settings.")


def _check_origin() -> None:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        raise Refused(403, "This request came from another site and was not carried out.")
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != request.headers["Host"].lower():
        raise Refused(403, "This request came from another site and was not carried out.")


async def _check_csrf() -> None:
    sent = request.headers.get(CSRF_HEADER)
    if sent is None:
        sent = await form_field("csrf")
    if not _token_age_ok(sent, get_services().settings.session.csrf_ttl):
        if maybe_session() is not None and request.path in ENTRANCES:
            raise AlreadyIn  # a page that let somebody in was sent again
        if maybe_session() is None and request.path not in DOORS:
            raise SignInNeeded  # the token went with the session that it was bound to
        raise Refused(403, "This page had been open too long, so nothing was changed yet. Do that once more.")


def _token_age_ok(token: str, oldest: int) -> bool:
    try:
        held = urlsafe_b64decode(token)
    except ValueError:
        return False
    if len(held) != 8 + 32 or not hmac.compare_digest(held[8:], _mac(held[:8])):
        return False
    # Only we make tokens: one from the future means that the clock was put back since.
    return time.time() - struct.unpack(">Q", held[:8])[0] <= oldest


def _mac(stamp: bytes) -> bytes:
    opened = maybe_session()
    bound = opened.id if opened else b"visit" + _visit().encode()
    key = hmac.digest(get_services().boot_secret, b"llamora/1/csrf", sha256)
    return hmac.digest(key, bound + stamp, sha256)


def _visit() -> str:
    """A random name for a browser that nobody has signed in with, so that its token is its own."""
    if "visit" not in g:
        g.visit = request.cookies.get(VISIT_COOKIE, "") or secrets.token_urlsafe(18)
    return cast(str, g.visit)


async def _dress(response: Response) -> Response:
    for name, value in HEADERS.items():
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
    fresh = g.get("session_cookie")
    if fresh:
        response.set_cookie(SESSION_COOKIE, fresh, httponly=True, samesite="Lax", secure=secure, path="/")
    elif fresh == "":
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Lax", secure=secure, path="/")
    half_life = get_services().settings.session.csrf_ttl // 2
    if not _token_age_ok(request.cookies.get(CSRF_COOKIE, ""), half_life):
        response.set_cookie(CSRF_COOKIE, csrf_token(), samesite="Strict", secure=secure, path="/")
    if "visit" in g and request.cookies.get(VISIT_COOKIE) != g.visit:
        response.set_cookie(VISIT_COOKIE, g.visit, httponly=True, samesite="Strict", secure=secure, path="/")
