"""The names of this server."""

import re

from quart import request

from llamora.app.edge.rules import RequestRejected
from llamora.app.services.container import get_services

HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::[0-9]+)?")


def check_host() -> None:
    """Raise RequestRejected for a name that is not in the allow-list."""
    settings = get_services().settings.server
    host = HOST_PATTERN.fullmatch(request.headers.get("Host", ""))
    name = host[1] if host else ""
    if name.lower() not in {allowed.lower() for allowed in (*settings.hosts, settings.host)}:
        raise RequestRejected("host_unknown", 400)


def is_https() -> bool:
    """Return True if the browser used TLS, to this server or to the proxy in front of it."""
    if get_services().settings.server.behind_proxy:
        return request.headers.get("X-Forwarded-Proto", "").split(",")[-1].strip() == "https"
    return request.is_secure
