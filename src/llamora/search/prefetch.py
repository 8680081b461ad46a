"""Fetch the next item while the caller works on the one before."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")


async def prefetch(
    keys: Iterable[K], fetch: Callable[[K], Coroutine[Any, Any, T]]
) -> AsyncGenerator[tuple[K, T]]:
    """Yield each key with what `fetch` returns for it; the next is fetched meanwhile."""
    pending: tuple[K, asyncio.Task[T]] | None = None
    try:
        for key in keys:
            upcoming = (key, asyncio.create_task(fetch(key)))
            if pending is not None:
                current, pending = pending, upcoming
                yield current[0], await current[1]
            pending = upcoming
        if pending is not None:
            yield pending[0], await pending[1]
    finally:
        if pending is not None:
            pending[1].cancel()
