"""Queue for the slots of the model, fairly in a process, and count them across processes."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 0.05  # between two tries for a slot that other workers hold


@dataclass(slots=True, eq=False)
class _Ticket:
    user_id: bytes
    on_position: Callable[[int], None]
    granted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ModelQueue:
    """Give out the slots of the model.

    Next is the user with the fewest running, of those the one whose last grant is longest ago, so
    that ten requests of one user never delay the first of another. Workers that share the slots
    lock `lock_paths` (see `slot_lock_paths`) for those in use: never are more in use than there
    are, any worker may use all that are free, and those of a worker that dies are free at once.
    """

    def __init__(self, slots: int, lock_paths: Sequence[Path] = ()) -> None:
        self._free_slots = slots
        self._slot_locks = [FileLock(path, timeout=0, mode=0o600) for path in lock_paths]
        self._running: Counter[bytes] = Counter()
        self._waiting: list[_Ticket] = []
        self._grant_count = 0
        self._last_grants: dict[bytes, int] = {}  # the number of a user's latest grant

    @asynccontextmanager
    async def slot(
        self, user_id: bytes, on_position: Callable[[int], None]
    ) -> AsyncGenerator[None]:
        """Wait for a slot and hold it.

        `on_position` is called with the number of those before, each time it changes.
        """
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
        while self._slot_locks:
            for lock in self._slot_locks:
                if lock.is_locked:
                    continue
                try:
                    return lock.acquire().lock
                except Timeout:
                    continue
                except OSError:
                    return None  # without lock files, the model server's own queue must do
            on_position(0)
            await asyncio.sleep(POLL_SECONDS)
        return None

    def _release(self, user_id: bytes) -> None:
        self._free_slots += 1
        self._running[user_id] -= 1
        self._running += Counter()  # drops those at nought
        self._grant_next()

    def _grant_next(self) -> None:
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
    """Return the lock files of the slots, beside the database; a single worker needs none."""
    return [
        database.with_name(f"{database.name}.model-slot-{n}")
        for n in range(slots if workers > 1 else 0)
    ]
