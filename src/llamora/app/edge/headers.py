"""The headers and cookies of every response."""

from quart import Response, g, request

from llamora.app.edge.csrf import CSRF_COOKIE, VISIT_COOKIE, csrf_token, is_token_fresh
from llamora.app.edge.hosts import is_https
from llamora.app.edge.rules import current_rules
from llamora.app.edge.sessions import SESSION_COOKIE
from llamora.app.services.container import get_services

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
    if current_rules().public:
        return response
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Cookie, HX-Request"
    if g.get("admitted"):
        _set_cookies(response)
    return response


def _set_cookies(response: Response) -> None:
    secure = is_https()
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
    if not is_token_fresh(request.cookies.get(CSRF_COOKIE, ""), half_life):
        response.set_cookie(CSRF_COOKIE, csrf_token(), samesite="Strict", secure=secure, path="/")
    if "visit" in g and request.cookies.get(VISIT_COOKIE) != g.visit:
        response.set_cookie(
            VISIT_COOKIE, g.visit, httponly=True, samesite="Strict", secure=secure, path="/"
        )
