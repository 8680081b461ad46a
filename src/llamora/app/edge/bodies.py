"""Bodies of requests: their size is limited before they are read, and none is written to disk."""

from collections.abc import AsyncGenerator
from typing import Any

from quart import Quart, Request, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from llamora.app.edge.rules import RouteRules, current_rules, rules_of


def request_class_for(app: Quart) -> type[Request]:
    """Return a request class that limits a body by the rules of its route."""

    class LimitedRequest(Request):
        def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
            # Before the first byte is received, and so before Quart has matched the path.
            max_bytes = _match_rules(app, method, path).max_bytes
            if max_bytes is not None:
                kwargs["max_content_length"] = max_bytes
            super().__init__(method, scheme, path, *args, **kwargs)

    return LimitedRequest


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
