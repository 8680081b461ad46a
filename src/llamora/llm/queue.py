"""Whose turn it is: a fair queue over the model's slots in each process, and one count of slots for all of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

LOOK_SECONDS = 0.05  # between two looks for a slot that another worker holds


@dataclass(slots=True, eq=False)
class _Place:
    """Somebody's place in the queue."""

    who: bytes
    moved: Callable[[int], None]
    called: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """Gives out `slots` places at the model: next is who has the fewest running, of them who was called longest ago.

    Ten requests of one writer so never stand before the first one of another. `files` (see `slot_files`) are locked
    for the slots that are in use, where several workers share them: never are more in use than there are, any worker
    may have all that are free, and those of a worker that dies are free at once.
    """

    def __init__(self, slots: int, files: Sequence[Path] = ()) -> None:
        self._free = slots
        self._shared = [FileLock(path, timeout=0, mode=0o600) for path in files]
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
        held: FileLock | None = None
        try:
            held = await self._slot(moved)
            yield
        finally:
            if held is not None:
                held.release()
            self._leave(who)

    async def _slot(self, moved: Callable[[int], None]) -> FileLock | None:
        """A slot that no other worker has, waited for; None where there is but one worker."""
        while self._shared:
            for lock in self._shared:
                if lock.is_locked:
                    continue
                try:
                    return lock.acquire().lock
                except Timeout:
                    continue
                except OSError:
                    return None  # where no lock file can be had, the model server's own queue must do
            moved(0)
            await asyncio.sleep(LOOK_SECONDS)
        return None

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


def slot_files(database: Path, slots: int, workers: int) -> list[Path]:
    """The files beside the database that stand for the model's slots; none are needed for a single worker."""
    return [database.with_name(f"{database.name}.model-slot-{n}") for n in range(slots if workers > 1 else 0)]
