"""Read and show the address of a model server."""

import ipaddress
from urllib.parse import urlsplit


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


def server_root(address: str) -> str:
    """Return an address without its `/v1`."""
    return address.strip().rstrip("/").removesuffix("/v1").rstrip("/")
