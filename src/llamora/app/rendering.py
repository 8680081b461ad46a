"""The thread that renders, and its cache of the HTML of signed-in users."""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar, cast

from quart import current_app

from llamora.vault.keys import Keyring

EXTENSION = "llamora.renderer"
MAX_CACHED_CHARACTERS = 4_000_000
"""Characters of HTML per user."""
SWITCH_SECONDS = 0.0005
"""Time for which a thread may keep the interpreter from the event loop; Python's own is ten-fold."""
SLICE_SECONDS = 0.003
"""Time after which a long job lets the others come first."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class EntryCache:
    """A cache of one user's rendered entries that drops the least recently used."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Hashable, ...], tuple[object, int]] = OrderedDict()
        self._characters = 0

    def get(
        self,
        key: tuple[Hashable, ...],
        render: Callable[[], Result],
        measure: Callable[[Result], int],
    ) -> Result:
        """Return the cached value of `key`, or that of `render`; `measure` counts characters."""
        if (cached := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            return cached[0]  # type: ignore[return-value] -- the key decides the type
        result = render()
        self._entries[key] = (result, measure(result))
        self._characters += self._entries[key][1]
        while self._characters > MAX_CACHED_CHARACTERS:
            self._characters -= self._entries.popitem(last=False)[1][1]
        return result

    def forget(self, entry_ids: Collection[bytes]) -> None:
        """Drop what was rendered of these entries; a key begins with the id of its entry."""
        for key in [key for key in self._entries if key[0] in entry_ids]:
            self._characters -= self._entries.pop(key)[1]


class Renderer:
    """A single thread that renders, off the event loop.

    More threads would take the interpreter from the loop for longer. Long jobs are drawn in slices,
    so a page with many entries lets other requests in between.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")
        self._caches: dict[bytes, EntryCache] = {}
        self._later_slice = asyncio.Lock()  # so that a short job waits for one of them at most

    async def run(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Call `function` on the thread, in the context of the request, and return its result."""
        job = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def run_in_slices(self, results: Iterator[Result]) -> list[Result]:
        """Draw an iterator on the thread, SLICE_SECONDS at a time, and return what it yields.

        However many long jobs there are, a short one waits for the present slice of one only.
        """
        drawn: list[Result] = []

        def draw_slice() -> bool:
            end = time.perf_counter() + SLICE_SECONDS
            for result in results:
                drawn.append(result)
                if time.perf_counter() >= end:
                    return False
            return True

        # The same context each time: what the iterator sets is there when it goes on.
        job, loop = partial(copy_context().run, draw_slice), asyncio.get_running_loop()
        is_done = await loop.run_in_executor(self._executor, job)
        while not is_done:
            async with self._later_slice:
                is_done = await loop.run_in_executor(self._executor, job)
        return drawn

    def cache_for(self, keys: Keyring) -> EntryCache:
        """Return the cache for a user's entries.

        A user whose keys are locked gets an empty one that is not kept.
        """
        return EntryCache() if keys.closed else self._caches.setdefault(keys.user_id, EntryCache())

    def lock(self, user_id: bytes) -> None:
        """Drop a user's cache."""
        self._caches.pop(user_id, None)

    def forget(self, user_id: bytes, entry_ids: Collection[bytes]) -> None:
        """Drop what was rendered of a user's entries, after the jobs that are under way."""
        if (cache := self._caches.get(user_id)) is not None:
            self._executor.submit(cache.forget, frozenset(entry_ids))

    def close(self) -> None:
        """End the thread and cancel the jobs that wait for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)


async def favour_event_loop() -> None:
    """Let the event loop have the interpreter sooner, in all of this process.

    After each thing that it waits for it has to take the interpreter from the thread that computes.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def get_renderer() -> Renderer:
    """Return the renderer of the app that serves the current request."""
    return cast(Renderer, current_app.extensions[EXTENSION])
