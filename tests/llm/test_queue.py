"""The queue over the model's slots: fair among writers, in order for each, and nobody is forgotten."""

import asyncio

import pytest

from llamora.events import Broker, Service
from llamora.llm.queue import ModelQueue, SharedModelQueue, SlotQueue


class Log:
    """Who was let in, and where those who wait stand."""

    def __init__(self, slots: int) -> None:
        self.turns = ModelQueue(slots)
        self.order: list[str] = []
        self.ahead: dict[str, int] = {}
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str) -> None:
        """`name` is the writer's letter and a number."""
        end = self.ends[name] = asyncio.Event()

        async def work() -> None:
            async with self.turns.slot(
                name[0].encode(), lambda ahead: self.ahead.update({name: ahead})
            ):
                self.order.append(name)
                await end.wait()

        self.tasks[name] = asyncio.create_task(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self.ends[name].set()
        for _ in range(4):
            await asyncio.sleep(0)


async def test_the_first_of_another_comes_before_the_second_of_one() -> None:
    log = Log(1)
    for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        await log.ask(name)
    assert log.order == ["a1"]
    assert [log.ahead[name] for name in ("b1", "c1", "a2", "b2", "a3", "a4")] == [0, 1, 2, 3, 4, 5]
    for name in ("a1", "b1", "c1", "a2", "b2", "a3"):
        await log.end(name)
    assert log.order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_writer_with_a_running_reply_waits_for_one_with_none() -> None:
    log = Log(2)
    for name in ("a1", "b1", "a2", "c1"):
        await log.ask(name)
    assert log.order == ["a1", "b1"]
    await log.end("b1")
    assert log.order == ["a1", "b1", "c1"]
    await log.end("a1")
    assert log.order[-1] == "a2"


@pytest.mark.parametrize("gone", ["a2", "b1"])
async def test_who_leaves_the_queue_holds_nobody_up(gone: str) -> None:
    log = Log(1)
    for name in ("a1", "a2", "b1"):
        await log.ask(name)
    log.tasks[gone].cancel()
    await asyncio.gather(log.tasks[gone], return_exceptions=True)
    left = ({"a2", "b1"} - {gone}).pop()
    assert log.ahead[left] == 0
    await log.end("a1")
    assert log.order == ["a1", left]


async def test_a_cancellation_in_the_moment_of_the_call_gives_the_slot_back() -> None:
    log = Log(1)
    await log.ask("a1")
    await log.ask("b1")
    log.ends["a1"].set()
    await asyncio.sleep(0)  # a1 leaves and b1 is called, but has not run yet
    log.tasks["b1"].cancel()
    await asyncio.gather(log.tasks["b1"], return_exceptions=True)
    await log.ask("c1")
    assert log.order[-1] == "c1"
    log.tasks["c1"].cancel()
    await asyncio.gather(*log.tasks.values(), return_exceptions=True)
    assert log.turns._free_slots == 1


async def _taken(turns: SlotQueue, told: list[int]) -> None:
    async with turns.slot(b"carol", told.append):
        pass


def workers(slots: int) -> tuple[SharedModelQueue, SharedModelQueue]:
    """The queue as two workers of a server have it."""
    broker = Broker({Service.MODEL_SLOTS: ModelQueue(slots).serve})
    here, there = (SharedModelQueue(broker.connect_in_memory()) for _ in range(2))
    return here, there


async def test_workers_share_the_slots_and_never_have_more() -> None:
    here, there = workers(2)
    positions: list[int] = []
    async with here.slot(b"alice", lambda _: None):
        async with here.slot(b"bob", lambda _: None):  # one worker may have all that are free
            waiting = asyncio.create_task(_taken(there, positions))
            while not positions:  # noqa: ASYNC110 -- the slots are another worker's
                await asyncio.sleep(0.01)
            assert set(positions) == {0}
            assert not waiting.done()
        await asyncio.wait_for(waiting, 30)


async def test_who_gives_up_waiting_for_another_workers_slot_leaves_nothing() -> None:
    here, there = workers(1)
    positions: list[int] = []
    async with here.slot(b"alice", lambda _: None):
        waiting = asyncio.create_task(_taken(there, positions))
        while not positions:  # noqa: ASYNC110 -- the slot is another worker's
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(_taken(there, positions), 30)
    await asyncio.wait_for(_taken(here, positions), 30)
