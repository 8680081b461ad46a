"""Server-sent events: responses with a heartbeat and no time limit that end with the server."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from contextvars import Context, copy_context
from logging import getLogger

from quart import Response, g, has_app_context

logger = getLogger(__name__)

HEARTBEAT_SECONDS = 15.0


def format_event(data: str = "", *, name: str = "", event_id: str = "") -> bytes:
    """Encode one event for a text/event-stream.

    Format: https://html.spec.whatwg.org/multipage/server-sent-events.html.
    """
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
    more: Iterable[AsyncGenerator[bytes]] = (),
) -> Response:
    """Return a response that sends `events` until they, the session or the server ends.

    What the generators of `more` yield is sent meanwhile; when one of them fails, all end.
    `server_stopping` and `session_ended` are set when the server stops and when the session ends;
    `final_event` is sent only in the latter case. The generators run in the context of the request
    that asked for them, so they may render templates.
    """
    sources = (events, *more)
    if has_app_context():
        g.is_followed = True
    response = Response(
        _with_heartbeat(sources, server_stopping, session_ended, final_event, copy_context()),
        mimetype="text/event-stream",
    )
    response.timeout = None  # Quart cuts a response off after a minute
    response.headers["X-Accel-Buffering"] = "no"  # nginx would buffer the events
    return response


async def _with_heartbeat(
    sources: tuple[AsyncGenerator[bytes], ...],
    server_stopping: asyncio.Event,
    session_ended: asyncio.Event,
    final_event: bytes,
    context: Context,
) -> AsyncGenerator[bytes]:
    # One at a time: a slow reader holds the generators back, which then send the newest state.
    ready: asyncio.Queue[bytes | None] = asyncio.Queue(1)
    loop = asyncio.get_running_loop()
    pump_tasks = [
        loop.create_task(_pump(events, ready, is_main=not number), context=context)
        for number, events in enumerate(sources)
    ]
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
        tasks = [get_task, *pump_tasks, *end_tasks]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        context.run(forget_request)


def forget_request() -> None:
    """Drop what this request sent: a timer may refer to its context for another minute."""
    for name in list(g) if has_app_context() else ():
        g.pop(name)


async def _pump(
    events: AsyncGenerator[bytes], ready: "asyncio.Queue[bytes | None]", *, is_main: bool
) -> None:
    try:
        async with aclosing(events):
            async for item in events:
                await ready.put(item)
    except Exception as error:
        # The browser reconnects by itself and then gets the full state.
        logger.error("a stream of events failed (%s)", type(error).__name__)
        is_main = True
    if is_main:
        await ready.put(None)
