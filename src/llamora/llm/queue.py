"""Whose turn it is: a fair queue over the model's slots in each process, and one count of slots for all of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 0.05  # between two looks for a slot that another worker holds


@dataclass(slots=True, eq=False)
class _Ticket:
    """Somebody's place in the queue."""

    user_id: bytes
    on_position: Callable[[int], None]
    granted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ModelQueue:
    """Gives out `slots` places at the model: next is who has the fewest running, of them who was called longest ago.

    Ten requests of one writer so never stand before the first one of another. `files` (see `slot_files`) are locked
    for the slots that are in use, where several workers share them: never are more in use than there are, any worker
    may have all that are free, and those of a worker that dies are free at once.
    """

    def __init__(self, slots: int, lock_paths: Sequence[Path] = ()) -> None:
        self._free_slots = slots
        self._slot_locks = [FileLock(path, timeout=0, mode=0o600) for path in lock_paths]
        self._running: Counter[bytes] = Counter()
        self._waiting: list[_Ticket] = []
        self._grant_count = 0
        self._last_grants: dict[bytes, int] = {}  # the number of each one's latest call

    @asynccontextmanager
    async def slot(
        self, user_id: bytes, on_position: Callable[[int], None]
    ) -> AsyncGenerator[None]:
        """Wait for a slot and hold it. `moved` is told how many come before, each time that changes."""
        ticket = _Ticket(user_id, on_position)
        self._waiting.append(ticket)
        self._grant_next()
        try:
            await ticket.granted
        except asyncio.CancelledError:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._grant_next()
            elif not ticket.granted.cancelled():
                self._release(user_id)
            raise
        slot_lock: FileLock | None = None
        try:
            slot_lock = await self._acquire_slot_lock(on_position)
            yield
        finally:
            if slot_lock is not None:
                slot_lock.release()
            self._release(user_id)

    async def _acquire_slot_lock(self, on_position: Callable[[int], None]) -> FileLock | None:
        """A slot that no other worker has, waited for; None where there is but one worker."""
        while self._slot_locks:
            for lock in self._slot_locks:
                if lock.is_locked:
                    continue
                try:
                    return lock.acquire().lock
                except Timeout:
                    continue
                except OSError:
                    return (
                        None  # where no lock file can be had, the model server's own queue must do
                    )
            on_position(0)
            await asyncio.sleep(POLL_SECONDS)
        return None

    def _release(self, user_id: bytes) -> None:
        self._free_slots += 1
        self._running[user_id] -= 1
        self._running += Counter()  # drops those at nought
        self._grant_next()

    def _grant_next(self) -> None:
        """Let in who is next while there is room, and tell the others where they stand."""
        order = self._waiting_order()
        while self._free_slots and order:
            ticket = order[0]
            self._waiting.remove(ticket)
            if ticket.granted.cancelled():
                order = self._waiting_order()
                continue
            self._free_slots -= 1
            self._running[ticket.user_id] += 1
            self._grant_count += 1
            self._last_grants[ticket.user_id] = self._grant_count
            ticket.granted.set_result(None)
            order = self._waiting_order()
        for position, ticket in enumerate(order):
            ticket.on_position(position)

    def _waiting_order(self) -> list[_Ticket]:
        """Those who wait, in the order in which they would be called if nobody else came."""
        waiting_by_user: dict[bytes, list[_Ticket]] = {}
        for ticket in self._waiting:
            waiting_by_user.setdefault(ticket.user_id, []).append(ticket)
        running, last_grants = self._running.copy(), dict(self._last_grants)
        order: list[_Ticket] = []
        while waiting_by_user:
            user_id = min(
                waiting_by_user, key=lambda user_id: (running[user_id], last_grants.get(user_id, 0))
            )  # of equals the first to come
            order.append(waiting_by_user[user_id].pop(0))
            running[user_id] += 1
            last_grants[user_id] = self._grant_count + len(order)
            if not waiting_by_user[user_id]:
                del waiting_by_user[user_id]
        return order


def slot_lock_paths(database: Path, slots: int, workers: int) -> list[Path]:
    """The files beside the database that stand for the model's slots; none are needed for a single worker."""
    return [
        database.with_name(f"{database.name}.model-slot-{n}")
        for n in range(slots if workers > 1 else 0)
    ]
