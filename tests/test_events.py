"""Events and channels between the processes of a server, over sockets as they have them."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from llamora.events import (
    Broker,
    ChangeSignal,
    Channel,
    ChannelClosed,
    Event,
    EventBus,
    Service,
    Topic,
)
from llamora.llm.errors import ModelError
from llamora.llm.queue import ModelQueue, SharedModelQueue

USER, ENTRY = b"u" * 16, b"e" * 16


class Workers:
    """Workers that are joined to one broker, each with a socket of its own."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.sockets: list[socket.socket] = []
        self.buses: list[EventBus] = []

    async def start(self) -> EventBus:
        here, there = socket.socketpair()
        self.sockets.append(there)
        bus = EventBus()
        adding = asyncio.create_task(self.broker.add_worker(len(self.sockets), here))
        await bus.connect(there)
        await adding
        self.buses.append(bus)
        return bus


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async def echo(channel: Channel, message: bytes) -> None:
        channel.send(message[::-1])

    queue = ModelQueue(1)
    made = Workers(Broker({Service.GUESSES: echo, Service.MODEL_SLOTS: queue.serve}))
    yield made
    for bus in made.buses:
        bus.close()
    made.broker.close()
    await asyncio.sleep(0.01)


async def _until(bus: EventBus, topic: Topic) -> Event:
    came: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    bus.subscribe(topic, lambda event: None if came.done() else came.set_result(event))
    return await asyncio.wait_for(came, 30)


async def test_an_event_reaches_every_other_worker_whole(workers: Workers) -> None:
    here, there, third = [await workers.start() for _ in range(3)]
    event = Event(Topic.REWRITTEN, USER, (ENTRY, b"f" * 16), -(2**40))
    seen: list[Event] = []
    here.subscribe(Topic.REWRITTEN, seen.append)
    waiting = [asyncio.create_task(_until(bus, Topic.REWRITTEN)) for bus in (there, third)]
    await asyncio.sleep(0)
    here.publish(event)
    assert seen == [event]  # at once here
    assert await asyncio.gather(*waiting) == [event, event]
    await here.call(Service.GUESSES, b"")
    assert seen == [event]  # and not a second time


async def test_what_concerns_one_process_stays_in_it(workers: Workers) -> None:
    here, there = [await workers.start() for _ in range(2)]
    seen: list[Event] = []
    there.subscribe(Topic.SIGNED_OUT, seen.append)
    changed = asyncio.create_task(_until(there, Topic.CHANGED))
    await asyncio.sleep(0)
    here.publish(Event(Topic.SIGNED_OUT, USER))
    here.publish(Event(Topic.CHANGED))
    await changed
    assert seen == []


async def test_a_call_is_answered_and_many_at_once_are_not_mixed_up(workers: Workers) -> None:
    here, there = [await workers.start() for _ in range(2)]
    sent = [f"{number}".encode() * 500 for number in range(100)]
    answers = await asyncio.gather(
        *((here, there)[n % 2].call(Service.GUESSES, text) for n, text in enumerate(sent))
    )
    assert answers == [text[::-1] for text in sent]


async def test_who_is_alive_is_known_to_all(workers: Workers) -> None:
    here, _there = [await workers.start() for _ in range(2)]
    while here.live_workers != {1, 2}:  # noqa: ASYNC110 -- the broker says it
        await asyncio.sleep(0)
    gone = asyncio.create_task(_until(here, Topic.WORKERS))
    await asyncio.sleep(0)
    workers.sockets[1].shutdown(socket.SHUT_RDWR)
    await gone
    assert here.live_workers == {1}


async def test_the_slots_of_a_dead_worker_are_free(workers: Workers) -> None:
    here, there = [await workers.start() for _ in range(2)]
    held = asyncio.Event()

    async def hold() -> None:
        async with SharedModelQueue(there).slot(USER, lambda _: None):
            held.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await held.wait()
    positions: list[int] = []

    async def take() -> None:
        async with SharedModelQueue(here).slot(USER, positions.append):
            pass

    taking = asyncio.create_task(take())
    while positions != [0]:  # noqa: ASYNC110 -- the broker says it
        await asyncio.sleep(0)
    workers.sockets[1].shutdown(socket.SHUT_RDWR)
    await asyncio.wait_for(taking, 30)
    holding.cancel()


async def test_a_worker_stops_when_the_broker_is_gone(workers: Workers) -> None:
    here = await workers.start()
    stopped = asyncio.create_task(_until(here, Topic.STOP))
    await asyncio.sleep(0)
    workers.sockets[0].shutdown(socket.SHUT_RDWR)
    await stopped
    with pytest.raises(ChannelClosed):
        await here.call(Service.GUESSES, b"x")
    with pytest.raises(ModelError, match="reply_interrupted"):
        async with SharedModelQueue(here).slot(USER, lambda _: None):
            pass


async def test_a_burst_of_commits_is_one_signal_at_once_and_one_after_it() -> None:
    bus = EventBus()
    changes, count = ChangeSignal(bus), 0
    for _ in range(50):
        bus.publish(Event(Topic.CHANGED))
    change = changes.next_change
    assert await changes.wait(change, 30)
    for _ in range(50):
        bus.publish(Event(Topic.CHANGED))
    change = changes.next_change
    while await changes.wait(change, 0.5):
        change, count = changes.next_change, count + 1
    assert count == 1
