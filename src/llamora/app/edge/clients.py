"""The client of a request: an address, the name of a browser, and the token it is known by."""

import re
import secrets

from quart import g, request

from llamora.app.edge.hosts import DEVICE_COOKIE, read_cookie
from llamora.app.services.container import get_services
from llamora.journal.access import Client
from llamora.journal.session_keys import TOKEN_BYTES, decode_cookie

# User-agent patterns in the order to try: most browsers also claim to be others
# (https://www.rfc-editor.org/rfc/rfc9110#name-user-agent sets no order).
_BROWSERS = (
    (r"Firefox/|FxiOS/", "Firefox"),
    (r"Edg(?:e|A|iOS)?/", "Edge"),
    (r"OPR/|Opera", "Opera"),
    (r"SamsungBrowser/", "Samsung Internet"),
    (r"Chrome/|CriOS/|Chromium/", "Chrome"),
    (r"Safari/", "Safari"),
)
_SYSTEMS = (
    (r"Android", "Android"),
    (r"iPhone|iPod", "iPhone"),
    (r"iPad", "iPad"),
    (r"CrOS", "ChromeOS"),
    (r"Windows", "Windows"),
    (r"Macintosh|Mac OS X", "Mac"),
    (r"Linux|X11", "Linux"),
)


def device_name(user_agent: str) -> str:
    """Return a name for a browser such as "Firefox on Linux", or "" for an unknown one."""
    browser, system = (
        next((name for pattern, name in known if re.search(pattern, user_agent[:500])), "")
        for known in (_BROWSERS, _SYSTEMS)
    )
    return f"{browser} on {system}" if browser and system else browser or system


def client_address() -> str:
    """Return the address to throttle by; behind a proxy, the last of X-Forwarded-For."""
    if get_services().settings.server.behind_proxy:
        forwarded = request.headers.get("X-Forwarded-For", "")
        if forwarded:
            return forwarded.split(",")[-1].strip()
    return request.remote_addr or ""


def this_client() -> Client:
    """Return who makes this request."""
    token, seen = read_device_cookie()
    g.browser = token or secrets.token_bytes(TOKEN_BYTES)
    return Client(client_address(), device_name(request.user_agent.string), g.browser, seen)


def read_device_cookie() -> tuple[bytes, bytes]:
    """Return the random token of this browser, and the sealed change that it was told of last."""
    raw = decode_cookie(read_cookie(DEVICE_COOKIE)) or b""
    return raw[:TOKEN_BYTES], raw[TOKEN_BYTES:]
