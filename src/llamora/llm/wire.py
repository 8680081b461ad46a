"""Limit what goes to a model server and what may come back.

Importing it imports `httpx2`, which is kept out of the server's cold start.
"""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, cast

import httpx2

from llamora.llm.dialect import ResponseTooLarge

MAX_BODY_BYTES: Final = 32 << 20
"""Of one answer, streamed or not."""

_REQUEST_HEADERS: Final = frozenset(
    {
        "host",
        "authorization",
        "api-key",
        "content-type",
        "content-length",
        "accept",
        "connection",
        "transfer-encoding",
    }
)
# The SDK also sends the operating system, its version and that of Python, and headers from
# OPENAI_* variables: none of that is the model server's business.


class UnexpectedEncoding(Exception):
    """Report an answer that is compressed although asked not to be: it could expand without end."""


class GuardedStream(httpx2.AsyncByteStream):
    """Read a response body up to a ceiling. Raises ResponseTooLarge."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total_bytes = 0
        async for chunk in self._inner:
            total_bytes += len(chunk)
            if total_bytes > MAX_BODY_BYTES:
                raise ResponseTooLarge
            yield chunk

    async def aclose(self) -> None:
        """Close the connection, or give it back if the body was read to its end."""
        await self._inner.aclose()


async def _strip_headers(request: httpx2.Request) -> None:
    for name in list(request.headers):
        if name.lower() not in _REQUEST_HEADERS:
            del request.headers[name]
    request.headers["accept-encoding"] = "identity"
    request.headers["connection"] = "close"


async def _guard_response(response: httpx2.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        await response.aclose()
        raise UnexpectedEncoding
    stream = cast(httpx2.AsyncByteStream, response.stream)
    response.stream = GuardedStream(stream)


def is_event_stream(response: httpx2.Response) -> bool:
    """Return whether an answer is Server-Sent Events, as the server says."""
    return (
        response.headers.get("content-type", "").split(";")[0].strip().lower()
        == "text/event-stream"
    )


def open_http_client(
    *,
    connect_seconds: float,
    read_seconds: float,
    connections: int,
    ca_file: Path | None = None,
    query: str = "",
) -> httpx2.AsyncClient:
    """Return an HTTP client without redirects, proxies, environment or `.netrc`.

    `ca_file` holds authorities to trust beside the public ones, `query` goes with each request.
    Raises OSError when that file cannot be read as certificates.
    """
    return httpx2.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        verify=_trust(ca_file) if ca_file else True,
        params=query or None,
        timeout=httpx2.Timeout(read_seconds, connect=connect_seconds),
        # One connection per request: llama.cpp closes some after a stream without saying so, and
        # repeating a request that failed on such a one could ask for two replies.
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=0),
        event_hooks={"request": [_strip_headers], "response": [_guard_response]},
    )


def _trust(ca_file: Path) -> ssl.SSLContext:
    context = httpx2.create_ssl_context(trust_env=False)
    context.load_verify_locations(ca_file)
    # What is named may be an authority below another, or the server's own certificate; and home-made ones rarely have
    # every extension that Python 3.13 asks for.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
