"""The headers and cookies of every response."""

from typing import Any

from quart import Response, g

from llamora.app.edge.clients import read_device_cookie
from llamora.app.edge.csrf import csrf_token, is_token_fresh
from llamora.app.edge.hosts import (
    CSRF_COOKIE,
    DEVICE_COOKIE,
    SESSION_COOKIE,
    VISIT_COOKIE,
    cookie_name,
    is_https,
    read_cookie,
)
from llamora.app.edge.rules import current_rules
from llamora.app.edge.sessions import get_session
from llamora.app.services.container import get_services
from llamora.journal.session_keys import encode_cookie
from llamora.persistence.attempts import MAX_DEVICE_DAYS

HSTS_SECONDS = 31_536_000  # a year, for this name alone: its owner may have others without TLS
DEVICE_SECONDS = MAX_DEVICE_DAYS * 86_400

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


async def finish(response: Response) -> Response:
    """Add what every response carries; pages of a user are stored by nobody."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if is_https():
        response.headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    if current_rules().public:
        return response
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Cookie, HX-Request"
    if g.get("admitted"):
        _set_cookies(response)
    return response


def _device_cookie() -> bytes:
    """Return what this browser is to keep, b"" if it has it or is not known by a cookie."""
    session = get_session()
    if session is None:
        return b""
    token, seen = read_device_cookie()
    mark = get_services().access.mark_for(session) if token or "browser" in g else b""
    if g.get("session_cookie") and "browser" in g:
        return g.browser + (mark or seen)
    return token + mark if mark else b""


def _set_cookies(response: Response) -> None:
    def put(name: str, value: str, *, script: bool = False, **more: Any) -> None:
        more = {"samesite": "Strict", **more}
        name = cookie_name(name)
        response.set_cookie(name, value, httponly=not script, secure=is_https(), path="/", **more)

    session_cookie = g.get("session_cookie")
    if session_cookie:
        put(SESSION_COOKIE, session_cookie, samesite="Lax")
    elif session_cookie == "":
        put(SESSION_COOKIE, "", samesite="Lax", expires=0, max_age=0)
    if device := _device_cookie():
        put(DEVICE_COOKIE, encode_cookie(device), max_age=DEVICE_SECONDS)
    half_life = get_services().settings.session.csrf_ttl // 2
    if not is_token_fresh(read_cookie(CSRF_COOKIE), half_life):
        put(CSRF_COOKIE, csrf_token(), script=True)
    if "visit" in g and read_cookie(VISIT_COOKIE) != g.visit:
        put(VISIT_COOKIE, g.visit)
