"""The one thread that renders, and the HTML it remembers of entries of users who are signed in."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from llamora.vault.keys import Keyring

MAX_CACHED_CHARACTERS = 4_000_000
"""Of HTML, for each user."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class EntryCache:
    """Remember what rendering one user's entries made, the most recently used of it."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._characters = 0

    def get(
        self, key: Hashable, render: Callable[[], Result], measure: Callable[[Result], int]
    ) -> Result:
        """Return what is remembered under `key`, or what `render` makes; `measure` counts its characters."""
        if (cached := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            return cached[0]  # type: ignore[return-value] -- the key says what it is of
        result = render()
        self._entries[key] = (result, measure(result))
        self._characters += self._entries[key][1]
        while self._characters > MAX_CACHED_CHARACTERS:
            self._characters -= self._entries.popitem(last=False)[1][1]
        return result


class Renderer:
    """Render off the event loop.

    One thread, since more of them take the interpreter from the loop for longer. Jobs are short (an entry, a
    template), so that a page of many entries lets others in between.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")
        self._caches: dict[bytes, EntryCache] = {}

    async def run(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call a function on the thread, in the context of the request."""
        job = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def cache_for(self, keys: Keyring) -> EntryCache:
        """Return what is remembered of a user's entries; of a user who was locked nothing is, nor will be."""
        return EntryCache() if keys.closed else self._caches.setdefault(keys.user_id, EntryCache())

    def lock(self, user_id: bytes) -> None:
        """Forget what was rendered of a user's entries."""
        self._caches.pop(user_id, None)

    def close(self) -> None:
        """End the thread, without what waits for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)
