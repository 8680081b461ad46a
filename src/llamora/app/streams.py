"""Server-sent events: responses without a time limit, with a heartbeat, that end when the server does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context, copy_context
from logging import getLogger

from quart import Response

logger = getLogger(__name__)

HEARTBEAT_SECONDS = 15.0


class ChangeSignal:
    """Wakes everybody who waits whenever something was committed to the store, by whichever process."""

    def __init__(self) -> None:
        self._next_change = asyncio.Event()

    @property
    def next_change(self) -> asyncio.Event:
        """Set at the next beat. Take it before you look, so that nothing is missed between looking and waiting."""
        return self._next_change

    def notify(self) -> None:
        """Wake who waits."""
        current, self._next_change = self._next_change, asyncio.Event()
        current.set()


def format_event(data: str = "", *, name: str = "", event_id: str = "") -> bytes:
    """One event in the format of https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    lines = [f"event: {name}"] if name else []
    if event_id:
        lines.append(f"id: {event_id}")
    lines += [
        f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ]
    return ("\n".join(lines) + "\n\n").encode()


def event_stream(
    events: AsyncGenerator[bytes],
    server_stopping: asyncio.Event,
    session_ended: asyncio.Event,
    final_event: bytes = b"",
) -> Response:
    """A response that sends `events` as they come, until they end, or the server does, or the session.

    `ending` is set when the server ends, `ended` when the session does; then, and only then, `last` is sent.
    The generator runs in the context of the request that asked for it, so it may render templates.
    """
    response = Response(
        _with_heartbeat(events, server_stopping, session_ended, final_event, copy_context()),
        mimetype="text/event-stream",
    )
    response.timeout = None  # Quart cuts a response off after a minute
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the words back
    return response


async def _with_heartbeat(
    events: AsyncGenerator[bytes],
    server_stopping: asyncio.Event,
    session_ended: asyncio.Event,
    final_event: bytes,
    context: Context,
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
    pump_task = loop.create_task(pump(), context=context)
    end_tasks = [loop.create_task(each.wait()) for each in (server_stopping, session_ended)]
    get_task = loop.create_task(ready.get())
    try:
        while True:
            await asyncio.wait(
                [get_task, *end_tasks],
                timeout=HEARTBEAT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if get_task.done():
                item = get_task.result()
                if item is None:
                    return
                yield item
                get_task = loop.create_task(ready.get())
            elif server_stopping.is_set() or session_ended.is_set():
                if final_event and not server_stopping.is_set():
                    yield final_event
                return
            else:
                yield b": still here\n\n"
    finally:
        for task in (get_task, pump_task, *end_tasks):
            task.cancel()
        await asyncio.wait([get_task, pump_task, *end_tasks])
