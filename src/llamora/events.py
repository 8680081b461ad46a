"""Tell the parts of a server what happened, in a process and across its worker processes.

Each process has an `EventBus`. The buses of a server meet at one `Broker`: in the parent of several
workers, or in the only process. A bus also opens channels to what the broker's process keeps for
all: slots of the model, counts of guesses, queries of URLs.

Frames between processes, big-endian: u32 length of the rest, u8 kind, u32 channel, body. They hold
ids, numbers and sealed bytes only.
"""

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from logging import getLogger
from socket import socket

logger = getLogger(__name__)

CHANGE_GAP_SECONDS = 0.1  # between two signals of a change; the first comes at once
ID_BYTES = 16
_FRAME = struct.Struct(">IBI")  # length of what follows it, kind, channel
_LENGTH = struct.Struct(">I")
_EVENT = struct.Struct(">BqBH")  # topic, number, length of the user id, number of ids


class Topic(IntEnum):
    """The subject of an event. Those from CHANGED on reach every process of the server."""

    SIGNED_OUT = 1
    """The last session of `user_id` in this process has closed: forget what is open for them."""
    CHANGED = 10
    """Something was committed to the store."""
    LOCKED = 11
    """`user_id` has locked the journal: overwrite their keys."""
    REWRITTEN = 12
    """The entries `ids` of `user_id` were edited or erased: forget what was made of their texts."""
    QUERIES_FORGOTTEN = 13
    """The pending queries of `user_id` are to be forgotten."""
    WORKERS = 14
    """`ids` are the numbers of the workers that are alive."""
    MODEL_PORT = 15
    """The built-in model answers at the port `number` of this computer; 0 is nowhere."""
    STOP = 16
    """The server stops."""


class Service(IntEnum):
    """A thing that the broker's process keeps for all workers; each has a handler there."""

    MODEL_SLOTS = 1
    GUESSES = 2
    QUERIES = 3
    MODEL_SERVER = 4


@dataclass(slots=True, frozen=True)
class Event:
    """Something that happened. `ids` have ID_BYTES each, `user_id` too if there is one."""

    topic: Topic
    user_id: bytes = b""
    ids: tuple[bytes, ...] = ()
    number: int = 0

    def to_bytes(self) -> bytes:
        head = _EVENT.pack(self.topic, self.number, len(self.user_id), len(self.ids))
        return b"".join((head, self.user_id, *self.ids))

    @classmethod
    def from_bytes(cls, body: bytes) -> "Event":
        topic, number, user_length, count = _EVENT.unpack_from(body)
        start = _EVENT.size + user_length
        ids = [body[start + n * ID_BYTES : start + (n + 1) * ID_BYTES] for n in range(count)]
        return cls(Topic(topic), body[_EVENT.size : start], tuple(ids), number)


class ChannelClosed(ConnectionError):
    """The other end of a channel is closed, or its process is gone."""


class Channel:
    """One end of a conversation with a handler of the broker."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.send = send
        """Send a message to the other end, without waiting."""
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def receive(self) -> bytes:
        """Return the next message. Raises ChannelClosed."""
        message = await self._received.get()
        if message is None:
            self._received.put_nowait(None)
            raise ChannelClosed
        return message

    def put(self, message: bytes | None) -> None:
        """Hand over what the other end sent; None is its end."""
        self._received.put_nowait(message)


Subscriber = Callable[[Event], None]
Handler = Callable[[Channel, bytes], Awaitable[None]]
"""Serve a channel that was opened with a message; it is cancelled when the channel is closed."""


class _Kind(IntEnum):
    EVENT = 1
    OPEN = 2
    DATA = 3
    CLOSE = 4


class Connection(asyncio.Protocol):
    """One end of the line between a process and the broker, over a socket or in memory."""

    def __init__(
        self,
        on_event: Callable[["Connection", Event], None],
        on_lost: Callable[["Connection"], None] = lambda _: None,
        handlers: Mapping[Service, Handler] | None = None,
    ) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._handlers = handlers or {}
        self._buffer = bytearray()
        self._channels: dict[int, Channel] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._opened_count = 0
        self.write: Callable[[bytes], None] = lambda _: None
        """Send bytes to the other end, without waiting."""
        self.close: Callable[[], None] = lambda: None
        """Close the socket, if there is one."""
        self.is_lost = False

    def connect_in_memory(self, other: "Connection") -> None:
        """Join two ends that are in one process; what one sends the other gets a moment later."""
        for end, far_end in ((self, other), (other, self)):
            end.write = partial(_call_soon, far_end.data_received)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send over a transport from now on."""
        self.write = transport.write  # type: ignore[attr-defined] -- of a stream socket
        self.close = transport.close

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- of the base class
        """Close every channel: the other process is gone."""
        self.is_lost = True
        self.write = lambda _: None
        for number in list(self._channels):
            self._end_channel(number)
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Handle the frames that are complete."""
        self._buffer += data
        while len(self._buffer) >= _FRAME.size:
            length, kind, number = _FRAME.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_FRAME.size : end])
            del self._buffer[:end]
            self._handle(kind, number, body)

    def send(self, event: Event) -> None:
        self._send_frame(_Kind.EVENT, 0, event.to_bytes())

    @asynccontextmanager
    async def open(self, service: Service, message: bytes) -> AsyncGenerator[Channel]:
        """Open a channel to a service, until the end of the block. Raises ChannelClosed."""
        if self.is_lost:
            raise ChannelClosed
        self._opened_count += 1
        number = self._opened_count
        channel = self._channels[number] = self._new_channel(number)
        self._send_frame(_Kind.OPEN, number, bytes([service]) + message)
        try:
            yield channel
        finally:
            if self._channels.pop(number, None) is not None:
                self._send_frame(_Kind.CLOSE, number)

    def _new_channel(self, number: int) -> Channel:
        return Channel(lambda message: self._send_frame(_Kind.DATA, number, message))

    def _send_frame(self, kind: _Kind, number: int, body: bytes = b"") -> None:
        self.write(_FRAME.pack(_FRAME.size - _LENGTH.size + len(body), kind, number) + body)

    def _handle(self, kind: int, number: int, body: bytes) -> None:
        if kind == _Kind.EVENT:
            self._on_event(self, Event.from_bytes(body))
        elif kind == _Kind.OPEN:
            self._channels[number] = self._new_channel(number)
            handling = self._serve(number, self._handlers[Service(body[0])], body[1:])
            self._tasks[number] = asyncio.get_running_loop().create_task(handling)
        elif kind == _Kind.CLOSE:
            self._end_channel(number)
        elif (channel := self._channels.get(number)) is not None:
            channel.put(body)

    async def _serve(self, number: int, handler: Handler, message: bytes) -> None:
        try:
            await handler(self._channels[number], message)
        except Exception as error:
            logger.error("a service of the server failed (%s)", type(error).__name__)
        finally:
            self._tasks.pop(number, None)
            if self._channels.pop(number, None) is not None:
                self._send_frame(_Kind.CLOSE, number)

    def _end_channel(self, number: int) -> None:
        if (channel := self._channels.pop(number, None)) is not None:
            channel.put(None)
        if (task := self._tasks.pop(number, None)) is not None:
            task.cancel()


def _call_soon(callback: Callable[[bytes], None], data: bytes) -> None:
    asyncio.get_running_loop().call_soon(callback, data)


class EventBus:
    """Pass events to their subscribers, here at once and in other processes a moment later."""

    def __init__(self) -> None:
        self._subscribers: defaultdict[Topic, list[Subscriber]] = defaultdict(list)
        self._connection: Connection | None = None
        self.live_workers: frozenset[int] = frozenset()
        """The numbers of the workers that are alive, as the broker last said."""
        self.model_port = 0
        """The port of the built-in model of the parent; 0 while it does not answer."""

    def subscribe(self, topic: Topic, subscriber: Subscriber) -> None:
        """Call `subscriber` with every event of a topic, in the order of subscription."""
        self._subscribers[topic].append(subscriber)

    def publish(self, event: Event) -> None:
        """Call the subscribers of the event's topic; what they raise reaches the publisher."""
        self.deliver(event)
        if event.topic >= Topic.CHANGED and self._connection is not None:
            self._connection.send(event)

    def deliver(self, event: Event) -> None:
        """Call the subscribers of this process only."""
        if event.topic == Topic.WORKERS:
            self.live_workers = frozenset(int.from_bytes(number, "big") for number in event.ids)
        elif event.topic == Topic.MODEL_PORT:
            self.model_port = event.number
        for subscriber in self._subscribers[event.topic]:
            subscriber(event)

    async def connect(self, worker_socket: socket) -> None:
        """Join the broker at the other end of a socket; return once the living workers are known.

        Topic.STOP is delivered when it is gone. Raises ChannelClosed.
        """
        loop, greeted = asyncio.get_running_loop(), asyncio.Event()
        self.subscribe(Topic.WORKERS, lambda _: greeted.set())
        self.subscribe(Topic.STOP, lambda _: greeted.set())
        connection = Connection(
            lambda _, event: self.deliver(event), lambda _: self.deliver(Event(Topic.STOP))
        )
        self.use(connection)
        await loop.create_connection(lambda: connection, sock=worker_socket)
        await greeted.wait()
        if connection.is_lost:
            raise ChannelClosed

    def use(self, connection: Connection) -> None:
        """Send events, and open channels, over a connection."""
        self._connection = connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @asynccontextmanager
    async def open(self, service: Service, message: bytes) -> AsyncGenerator[Channel]:
        """Open a channel to a service of the broker, until the end of the block.

        Raises ChannelClosed.
        """
        if self._connection is None:
            raise ChannelClosed
        async with self._connection.open(service, message) as channel:
            yield channel

    async def call(self, service: Service, message: bytes = b"") -> bytes:
        """Return the answer of a service to one message. Raises ChannelClosed."""
        async with self.open(service, message) as channel:
            return await channel.receive()


class Broker:
    """Pass events on between the processes of a server, and serve their channels.

    Its own `bus` gets every event of theirs. What a process holds is given up when it is gone.
    """

    def __init__(self, handlers: dict[Service, Handler]) -> None:
        self.handlers = handlers
        self._workers: dict[Connection, int] = {}
        self.bus = EventBus()

    def connect_in_memory(self, number: int = 0) -> EventBus:
        """Return the bus of a process that is this one; with a `number` all hear that it lives."""
        bus = EventBus()
        near = Connection(lambda _, event: bus.deliver(event))
        far = Connection(self._relay, self._forget, self.handlers)
        near.connect_in_memory(far)
        bus.use(near)
        self._workers[far] = number
        if number:
            self._announce_workers()
        return bus

    async def add_worker(self, number: int, broker_socket: socket) -> None:
        """Serve the worker at the other end of a socket, and tell all that it is alive."""
        connection = Connection(self._relay, self._forget, self.handlers)
        self._workers[connection] = number
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=broker_socket)
        self.send_to_all(Event(Topic.MODEL_PORT, number=self.bus.model_port))
        self._announce_workers()

    def send_to_all(self, event: Event) -> None:
        """Send an event to every process, and to the bus of this one."""
        self.bus.deliver(event)
        for connection in self._workers:
            connection.send(event)

    def close(self) -> None:
        for connection in list(self._workers):
            connection.close()

    def _relay(self, source: Connection, event: Event) -> None:
        self.bus.deliver(event)
        for connection in self._workers:
            if connection is not source:
                connection.send(event)

    def _forget(self, connection: Connection) -> None:
        if self._workers.pop(connection, None) is not None:
            self._announce_workers()

    def _announce_workers(self) -> None:
        numbers = (number.to_bytes(ID_BYTES, "big") for number in self._workers.values())
        self.send_to_all(Event(Topic.WORKERS, ids=tuple(numbers)))


class ChangeSignal:
    """A signal that wakes all its waiters when any process has committed to the store.

    It also does when a worker came or went. Many commits in a row give a signal every
    CHANGE_GAP_SECONDS.
    """

    def __init__(self, events: EventBus) -> None:
        self._next_change = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._last_at = 0.0
        events.subscribe(Topic.CHANGED, self._notify_soon)
        events.subscribe(Topic.WORKERS, self._notify_soon)

    @property
    def next_change(self) -> asyncio.Event:
        """The event that the next change sets.

        Take it before reading the store, so that no change is missed between reading and waiting.
        """
        return self._next_change

    async def wait(self, change: asyncio.Event, seconds: float) -> bool:
        """Wait for a `next_change` that was taken, at most so long; return True if it came."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await change.wait()
        return change.is_set()

    def _notify_soon(self, _event: Event) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            delay = max(0.0, self._last_at + CHANGE_GAP_SECONDS - loop.time())
            self._timer = loop.call_later(delay, self._notify, loop)

    def _notify(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._last_at = None, loop.time()
        current, self._next_change = self._next_change, asyncio.Event()
        current.set()
