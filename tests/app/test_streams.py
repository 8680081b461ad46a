"""Server-sent events: the format, the heartbeat, and an end whenever the reader or the server goes."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.app import streams
from llamora.app.streams import event_stream, format_event


def parsed(stream: bytes) -> list[tuple[str, str, str]]:
    """(name, id, data) of each event, read as the standard says."""
    found: list[tuple[str, str, str]] = []
    name, number, data = "", "", list[str]()
    for line in stream.decode().split("\n"):
        if not line:
            if data:
                found.append((name, number, "\n".join(data)))
            name, data = "", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            data.append(value)
        elif key == "event":
            name = value
        elif key == "id":
            number = value
    return found


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_an_event_arrives_as_it_was_sent(texts: list[str]) -> None:
    sent = b"".join(
        format_event(text, name="part", event_id=str(number)) for number, text in enumerate(texts)
    )
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert parsed(sent) == [("part", str(number), text) for number, text in enumerate(expected)]


class Reading:
    """A generator of events that a test feeds, and whether it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.taken = 0
        self.closed = False

    async def events(self) -> AsyncGenerator[bytes]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self.taken += 1
                yield item
        finally:
            self.closed = True


def opened(reading: Reading, ending: asyncio.Event) -> AsyncGenerator[bytes]:
    response = event_stream(reading.events(), ending, asyncio.Event())
    assert response.mimetype == "text/event-stream"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.timeout is None
    return response.response.iter  # type: ignore[attr-defined,no-any-return]


async def test_events_come_in_order_and_end() -> None:
    reading = Reading()
    for item in (b"a", b"b", None):
        reading.queue.put_nowait(item)
    assert [item async for item in opened(reading, asyncio.Event())] == [b"a", b"b"]
    assert reading.closed


async def test_a_silent_stream_says_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    reading = Reading()
    stream = opened(reading, asyncio.Event())
    assert await anext(stream) == b": still here\n\n"
    reading.queue.put_nowait(b"a")
    while (item := await anext(stream)) == b": still here\n\n":
        pass
    assert item == b"a"  # nothing was lost to the beat
    assert parsed(b": still here\n\n") == []
    await stream.aclose()


async def test_it_ends_with_the_server() -> None:
    reading, ending = Reading(), asyncio.Event()
    stream = opened(reading, ending)
    reading.queue.put_nowait(b"a")
    assert await anext(stream) == b"a"
    ending.set()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert reading.closed


async def test_it_ends_with_its_reader() -> None:
    reading = Reading()
    stream = opened(reading, asyncio.Event())
    reading.queue.put_nowait(b"a")
    await anext(stream)
    await stream.aclose()
    assert reading.closed


async def test_a_slow_reader_holds_the_events_back() -> None:
    reading = Reading()
    for _ in range(50):
        reading.queue.put_nowait(b"x" * 1000)
    stream = opened(reading, asyncio.Event())
    await anext(stream)
    for _ in range(20):
        await asyncio.sleep(0)
    assert reading.taken <= 4
    await stream.aclose()


async def test_a_failure_ends_the_stream_without_its_words_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading = Reading()
    reading.queue.put_nowait(b"a")
    reading.queue.put_nowait(ValueError("a private word"))
    assert [item async for item in opened(reading, asyncio.Event())] == [b"a"]
    assert "ValueError" in caplog.text
    assert "private" not in caplog.text
