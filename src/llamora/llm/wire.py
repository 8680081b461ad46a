"""Limit what goes to a model server and what may come back.

Importing it imports `httpx2`, which is kept out of the server's cold start.
"""

import re
from collections.abc import AsyncIterator
from typing import Final, cast

import httpx2

MAX_LINE_BYTES: Final = 1 << 20
"""Of an event stream, where a piece of text takes a few hundred bytes."""

MAX_BODY_BYTES: Final = 32 << 20
"""Of one answer, streamed or not."""

DONE_MARK: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\][ \t]*(?:[\r\n]|\Z)")
"""The last line of an event stream; the same letters may also be text of the reply."""

_REQUEST_HEADERS: Final = frozenset(
    {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "connection",
        "transfer-encoding",
    }
)
# The SDK also sends the operating system, its version and that of Python, and headers from
# OPENAI_* variables: none of that is the model server's business.


class ResponseTooLarge(Exception):
    """Report a line or body beyond the ceilings above."""


class UnexpectedEncoding(Exception):
    """Report an answer that is compressed although asked not to be: it could expand without end."""


class GuardedStream(httpx2.AsyncByteStream):
    """Read a response body up to a ceiling. Raises ResponseTooLarge.

    `is_finished` tells whether the closing `[DONE]` of an OpenAI-style event stream was seen.
    """

    def __init__(self, inner: httpx2.AsyncByteStream, *, limit_lines: bool) -> None:
        self._inner = inner
        self._limit_lines = limit_lines
        self._tail = b""
        self.is_finished = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total_bytes = line_bytes = 0
        async for chunk in self._inner:
            total_bytes += len(chunk)
            if total_bytes > MAX_BODY_BYTES:
                raise ResponseTooLarge
            if self._limit_lines:
                line_end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
                line_bytes = line_bytes + len(chunk) if line_end < 0 else len(chunk) - line_end - 1
                if line_bytes > MAX_LINE_BYTES:
                    raise ResponseTooLarge
                self._tail = (self._tail + chunk)[-64:]
                self.is_finished = self.is_finished or DONE_MARK.search(self._tail) is not None
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
    response.stream = GuardedStream(stream, limit_lines=is_event_stream(response))


def is_event_stream(response: httpx2.Response) -> bool:
    """Return whether an answer is Server-Sent Events, as the server says."""
    return (
        response.headers.get("content-type", "").split(";")[0].strip().lower()
        == "text/event-stream"
    )


def open_http_client(
    *, connect_seconds: float, read_seconds: float, connections: int
) -> httpx2.AsyncClient:
    """Return an HTTP client without redirects, proxies, environment or `.netrc`."""
    return httpx2.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(read_seconds, connect=connect_seconds),
        # One connection per request: llama.cpp closes some after a stream without saying so, and
        # repeating a request that failed on such a one could ask for two replies.
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=0),
        event_hooks={"request": [_strip_headers], "response": [_guard_response]},
    )
