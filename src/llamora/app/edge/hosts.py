"""The names of this server, as a browser writes them, and those of its cookies."""

import re
from logging import getLogger

from quart import current_app, request

from llamora.app.edge.rules import RequestRejected
from llamora.app.services.container import get_services

logger = getLogger(__name__)

HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?")
FORWARDED_HEADERS = tuple(f"X-Forwarded-{name}" for name in ("Proto", "Host", "Port", "For"))
REPORTED_EXTENSION = "llamora.forwarded-reported"
DEFAULT_PORTS = {"http": "80", "https": "443"}

SESSION_COOKIE = "llamora"
VISIT_COOKIE = "llamora_visit"
CSRF_COOKIE = "llamora_csrf"  # read by our script, which sends it back as a header
DEVICE_COOKIE = "llamora_device"


def check_host() -> None:
    """Raise RequestRejected for a name that is not in the allow-list."""
    settings = get_services().settings.server
    sent = next((name for name in FORWARDED_HEADERS if name in request.headers), None)
    if sent and not settings.behind_proxy and not current_app.extensions.get(REPORTED_EXTENSION):
        current_app.extensions[REPORTED_EXTENSION] = True
        logger.warning("a request carries %s, which counts with server.behind_proxy only", sent)
    allowed = {split_host(each)[0] for each in (*settings.hosts, settings.host)}
    # The name that a proxy was asked for counts beside that of the request, never in its place:
    # where the server can be reached without the proxy, any page could send such a header.
    for host in {request.headers.get("Host", ""), public_host()}:
        if split_host(host)[0] not in allowed - {""}:
            raise RequestRejected("host_unknown", 400)


def split_host(host: str) -> tuple[str, str]:
    """Return the name in small letters, without a dot at its end, and the port, "" if none."""
    match = HOST_PATTERN.fullmatch(host)
    return (match[1].lower().removesuffix("."), match[2] or "") if match else ("", "")


def public_host() -> str:
    """Return the host that the browser asked for, as this server or its proxy was told."""
    return _forwarded("Host") or request.headers.get("Host", "")


def public_port() -> str:
    """Return the port that the browser asked for, "" if it is the default one or not told."""
    port = split_host(public_host())[1] or _forwarded("Port")
    return "" if port == DEFAULT_PORTS["https" if is_https() else "http"] else port


def is_own_origin(origin: str) -> bool:
    """Return True for an origin on the host and port that the browser asked for."""
    scheme, _, host = origin.partition("://")
    (name, port), (own_name, own_port) = split_host(host), split_host(public_host())
    if not name or name != own_name or scheme not in DEFAULT_PORTS:
        return False
    own_port = own_port or _forwarded("Port")
    if own_port:
        return (port or DEFAULT_PORTS[scheme]) == own_port
    if get_services().settings.server.behind_proxy and port:
        # The proxy leaves out the port: what the browser says of the site decides.
        return request.headers.get("Sec-Fetch-Site") == "same-origin"
    return port in ("", DEFAULT_PORTS[scheme])


def _forwarded(name: str) -> str:
    """Return the last value of X-Forwarded-`name`, "" without a proxy."""
    if not get_services().settings.server.behind_proxy:
        return ""
    return request.headers.get(f"X-Forwarded-{name}", "").rpartition(",")[2].strip()


def cookie_name(name: str) -> str:
    """Return the name of a cookie of this server.

    Browsers do not tell ports apart, so it holds the port. Over TLS the prefix `__Host-` says that
    no other host and no page in the clear has set it.
    """
    port = public_port()
    return ("__Host-" if is_https() else "") + name + (f"_{port}" if port.isdigit() else "")


def read_cookie(name: str) -> str:
    """Return the value of a cookie of this server, "" if there is none.

    Without one of this host and port, that counts which was set where the proxy was gone round.
    """
    port = get_services().settings.server.port
    names = (cookie_name(name), f"{name}_{port}", name)
    return next((request.cookies[each] for each in names if each in request.cookies), "")


def is_https() -> bool:
    """Return True if the browser used TLS, to this server or to the proxy in front of it."""
    if get_services().settings.server.behind_proxy:
        return _forwarded("Proto").lower() == "https"
    return request.is_secure
