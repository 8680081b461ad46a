"""Whose turn it is: a fair queue over the model's slots. Pure asyncio, one process."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class _Place:
    """Somebody's place in the queue."""

    who: bytes
    moved: Callable[[int], None]
    called: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """Gives out `slots` places at the model: next is who has the fewest running, of them who was called longest ago.

    Ten requests of one writer so never stand before the first one of another.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._running: Counter[bytes] = Counter()
        self._queue: list[_Place] = []
        self._calls = 0
        self._called: dict[bytes, int] = {}  # the number of each one's latest call

    @asynccontextmanager
    async def turn(self, who: bytes, moved: Callable[[int], None]) -> AsyncGenerator[None]:
        """Wait for a slot and hold it. `moved` is told how many come before, each time that changes."""
        place = _Place(who, moved)
        self._queue.append(place)
        self._call()
        try:
            await place.called
        except asyncio.CancelledError:
            if place in self._queue:
                self._queue.remove(place)
                self._call()
            elif not place.called.cancelled():
                self._leave(who)
            raise
        try:
            yield
        finally:
            self._leave(who)

    def _leave(self, who: bytes) -> None:
        self._free += 1
        self._running[who] -= 1
        self._running += Counter()  # drops those at nought
        self._call()

    def _call(self) -> None:
        """Let in who is next while there is room, and tell the others where they stand."""
        order = self._order()
        while self._free and order:
            place = order[0]
            self._queue.remove(place)
            if place.called.cancelled():
                order = self._order()
                continue
            self._free -= 1
            self._running[place.who] += 1
            self._calls += 1
            self._called[place.who] = self._calls
            place.called.set_result(None)
            order = self._order()
        for ahead, place in enumerate(order):
            place.moved(ahead)

    def _order(self) -> list[_Place]:
        """Those who wait, in the order in which they would be called if nobody else came."""
        waiting: dict[bytes, list[_Place]] = {}
        for place in self._queue:
            waiting.setdefault(place.who, []).append(place)
        running, called = self._running.copy(), dict(self._called)
        order: list[_Place] = []
        while waiting:
            who = min(waiting, key=lambda who: (running[who], called.get(who, 0)))  # of equals the first to come
            order.append(waiting[who].pop(0))
            running[who] += 1
            called[who] = self._calls + len(order)
            if not waiting[who]:
                del waiting[who]
        return order
