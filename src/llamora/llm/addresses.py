"""Read and show the address of a model server."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_ENDPOINT: Final = re.compile(r"/(?:chat/completions|completions|responses|embeddings|models)\Z")
_VERSION: Final = re.compile(r"/v\d+[a-z0-9]*(?=/|\Z)", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class ServerAddress:
    """Hold where the routes of a server lie.

    `base` is that of the OpenAI dialect, `root` that of llama.cpp's own; `query` goes with each.
    """

    root: str
    base: str
    query: str = ""

    @property
    def takes_key_header(self) -> bool:
        """Return whether it is Azure's older interface, which wants the key in a header of its own."""
        return "api-version=" in self.query


def is_loopback(address: str) -> bool:
    """Return whether the host of a URL names this machine; no name is resolved."""
    host = (urlsplit(address).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def display_address(address: str) -> str:
    """Return scheme, host and port of a URL; the user name or query may be a secret."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def display_endpoint(address: str, path: str = "chat/completions") -> str:
    """Return the URL of a route as it may be shown: without user name or query."""
    where = read_address(address)
    base = where.root if path.startswith("/") else where.base + "/"
    return display_address(base) + urlsplit(base).path + path if base.strip("/") else ""


def read_address(address: str) -> ServerAddress:
    """Read an address as it was given: a server, a base with a version in it, or a whole endpoint.

    `/v1` is put behind one that names neither version nor endpoint.
    """
    address, _, query = address.strip().partition("#")[0].partition("?")
    address = address.rstrip("/")
    whole = _ENDPOINT.search(address)
    base = _ENDPOINT.sub("", address).rstrip("/")
    start = base.find("//") + 2 if "//" in base else 0
    version = _VERSION.search(base, start)
    root = base[: version.start()] if version else base
    if not (base and (whole or version or "api-version=" in query)):
        base = f"{base}/v1" if base else ""
    return ServerAddress(root, base, query)
