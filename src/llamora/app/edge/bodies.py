"""Bodies of requests: their size is limited before they are read, and none is written to disk."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from quart import Quart, Request, request
from quart.asgi import ASGIHTTPConnection
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from llamora.app.edge.rules import SMALL_BODY_BYTES, RouteRules, current_rules, rules_of

QUEUE_EXTENSION = "llamora.queue"
MAX_QUEUED = 64


def request_class_for(app: Quart) -> type[Request]:
    """Return a request class that limits a body by the rules of its route."""

    class LimitedRequest(Request):
        def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
            # Before the first byte is received, and so before Quart has matched the path.
            max_bytes = _match_rules(app, method, path).max_bytes
            if max_bytes is not None:
                kwargs["max_content_length"] = max_bytes
            self.admitted = asyncio.Event()
            """Set once more than a small part of the body may be received, or none is wanted."""
            super().__init__(method, scheme, path, *args, **kwargs)

    return LimitedRequest


class RequestQueue:
    """The requests of an app that wait for one another."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.count = 0


class WaitingConnection(ASGIHTTPConnection):
    """A connection of which no more than a small body is held before its session is known.

    The rest stays with the sender, as nobody receives it. Requests of a route that is `queued` wait
    for one another, MAX_QUEUED at most; what is more is left to the route to refuse.
    """

    async def handle_request(self, request: Request, send: Any) -> None:
        queue: RequestQueue = self.app.extensions[QUEUE_EXTENSION]
        is_queued = _match_rules(self.app, request.method, request.path).queued
        if not is_queued or queue.count >= MAX_QUEUED:
            await super().handle_request(request, send)
            return
        queue.count += 1
        try:
            async with queue.turn:
                await super().handle_request(request, send)
        finally:
            queue.count -= 1

    async def handle_messages(self, request: Request, receive: Any) -> None:
        received = 0

        async def receive_when_admitted() -> Any:
            nonlocal received
            if received > SMALL_BODY_BYTES:
                await request.admitted.wait()  # type: ignore[attr-defined] -- ours
            message = await receive()
            received += len(message.get("body", b""))
            return message

        await super().handle_messages(request, receive_when_admitted)


def admit_body() -> None:
    """Receive the whole body of this request, as far as its route takes one."""
    request.admitted.set()  # type: ignore[attr-defined] -- ours


def refuse_large_body() -> None:
    """Hold no more of the body of this request than a small one. Raises RequestEntityTooLarge."""
    if (request.content_length or 0) > SMALL_BODY_BYTES:
        # What still comes is dropped, not left to wait: Hypercorn could not close the connection.
        request.body = request.body_class(request.content_length, SMALL_BODY_BYTES)
        admit_body()
        raise RequestEntityTooLarge
    # One that does not say its length is cut off at the same place.
    request.body._max_content_length = SMALL_BODY_BYTES  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _match_rules(app: Quart, method: str, path: str) -> RouteRules:
    if method in ("GET", "HEAD", "OPTIONS"):
        return RouteRules()
    try:
        endpoint, _values = app.url_map.bind("").match(path, method)
    except HTTPException:
        return RouteRules()
    return rules_of(app.view_functions.get(endpoint))


async def stream() -> AsyncGenerator[bytes]:
    """Yield the body of this request as it arrives. Raises RequestEntityTooLarge."""
    max_bytes, received = current_rules().max_bytes, 0
    async for chunk in request.body:
        received += len(chunk)
        if max_bytes is not None and received > max_bytes:
            raise RequestEntityTooLarge
        yield chunk
