"""Server-sent events: responses without a time limit, with a heartbeat, that end when the server does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context, copy_context
from logging import getLogger

from quart import Response

logger = getLogger(__name__)

HEARTBEAT_SECONDS = 15.0


class Pulse:
    """Wakes everybody who waits whenever something was committed to the store, by whichever process."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Set at the next beat. Take it before you look, so that nothing is missed between looking and waiting."""
        return self._next

    def beat(self) -> None:
        """Wake who waits."""
        beaten, self._next = self._next, asyncio.Event()
        beaten.set()


def event(data: str = "", *, name: str = "", event_id: str = "") -> bytes:
    """One event in the format of https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    lines = [f"event: {name}"] if name else []
    if event_id:
        lines.append(f"id: {event_id}")
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def event_stream(
    events: AsyncGenerator[bytes], ending: asyncio.Event, ended: asyncio.Event, last: bytes = b""
) -> Response:
    """A response that sends `events` as they come, until they end, or the server does, or the session.

    `ending` is set when the server ends, `ended` when the session does; then, and only then, `last` is sent.
    The generator runs in the context of the request that asked for it, so it may render templates.
    """
    response = Response(_beating(events, ending, ended, last, copy_context()), mimetype="text/event-stream")
    response.timeout = None  # Quart cuts a response off after a minute
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the words back
    return response


async def _beating(
    events: AsyncGenerator[bytes], ending: asyncio.Event, ended: asyncio.Event, last: bytes, context: Context
) -> AsyncGenerator[bytes]:
    # One at a time: who reads slowly holds the generator back, and it then sends the newest state.
    ready: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    async def pump() -> None:
        try:
            async with aclosing(events):
                async for item in events:
                    await ready.put(item)
        except Exception as error:
            # The browser asks again by itself and is then told all there is.
            logger.error("a stream of events failed (%s)", type(error).__name__)
        await ready.put(None)

    loop = asyncio.get_running_loop()
    pumping = loop.create_task(pump(), context=context)
    endings = [loop.create_task(each.wait()) for each in (ending, ended)]
    getting = loop.create_task(ready.get())
    try:
        while True:
            await asyncio.wait([getting, *endings], timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                item = getting.result()
                if item is None:
                    return
                yield item
                getting = loop.create_task(ready.get())
            elif ending.is_set() or ended.is_set():
                if last and not ending.is_set():
                    yield last
                return
            else:
                yield b": still here\n\n"
    finally:
        for task in (getting, pumping, *endings):
            task.cancel()
        await asyncio.wait([getting, pumping, *endings])
