"""Queue for the slots of the model, fairly between users."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from llamora.events import Channel, ChannelClosed, EventBus, Service
from llamora.llm.errors import ModelError

GRANTED = b""


class SlotQueue(Protocol):
    """A queue for the slots of the model."""

    def slot(
        self, user_id: bytes, on_position: Callable[[int], None]
    ) -> AbstractAsyncContextManager[None]:
        """Wait for a slot and hold it; `on_position` gets the number of those before."""
        ...


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
    that ten requests of one user never delay the first of another.
    """

    def __init__(self, slots: int) -> None:
        self._free_slots = slots
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
        try:
            yield
        finally:
            self._release(user_id)

    async def serve(self, channel: Channel, user_id: bytes) -> None:
        """Queue for a worker until it closes the channel; see `SharedModelQueue`."""

        def on_position(position: int) -> None:
            channel.send(position.to_bytes(4, "big"))

        async with self.slot(user_id, on_position):
            channel.send(GRANTED)
            await channel.receive()  # until the channel is closed

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


class SharedModelQueue:
    """The queue of the broker's process, as its workers use it."""

    def __init__(self, events: EventBus) -> None:
        self._events = events

    @asynccontextmanager
    async def slot(
        self, user_id: bytes, on_position: Callable[[int], None]
    ) -> AsyncGenerator[None]:
        """Wait for a slot and hold it; see `ModelQueue.slot`. Raises ModelError."""
        try:
            async with self._events.open(Service.MODEL_SLOTS, user_id) as channel:
                while (message := await channel.receive()) != GRANTED:
                    on_position(int.from_bytes(message, "big"))
                yield
        except ChannelClosed:  # the server is ending
            raise ModelError("reply_interrupted") from None
