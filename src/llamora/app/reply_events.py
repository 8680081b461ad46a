"""The events of a growing reply."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from logging import getLogger

from markupsafe import Markup

from llamora.app.edge import sessions
from llamora.app.i18n import describe
from llamora.app.pages import render_to_string
from llamora.app.rendering import get_renderer
from llamora.app.services.container import get_services
from llamora.app.streams import format_event
from llamora.app.views.entries import entry_view, message_view
from llamora.app.views.model import model_view
from llamora.errors import Notice
from llamora.journal.context import UserContext
from llamora.persistence.connection import NotFound

logger = getLogger(__name__)

RENDER_INTERVAL_SECONDS = 0.08  # between renderings of a growing reply; nobody reads faster

TEXT_PARTIAL = Markup('<hx-partial hx-target="#r-{} > .prose" hx-swap="innerMorph">{}</hx-partial>')
WAITING = Markup('<p class="waiting">{}</p>')


async def reply_events(
    user: UserContext, reply_id: bytes, shown_length: int
) -> AsyncGenerator[bytes]:
    """Yield a reply as partials: its text whenever it has grown, and at last with its actions.

    The id of an event is that of the reply, with the length of its text; a text of `shown_length`
    is on the pages already. The last event is `done`; it is empty if there is no such reply.
    """
    html = ""
    try:
        user.require_replies()
        await get_services().asking.get_reply(user.keys, reply_id)
        async with aclosing(_growth_events(user, reply_id, shown_length)) as events:
            async for event in events:
                yield event
        if not get_services().sessions.is_session_open(sessions.require_session()):
            return
        html = await _whole_reply(user, reply_id)
    except NotFound:
        pass
    except Exception as error:  # of this reply alone: the stream is for all
        logger.error("a reply could not be followed (%s)", type(error).__name__)
        return
    yield format_event(html, name="done", event_id=reply_id.hex())


async def _growth_events(
    user: UserContext, reply_id: bytes, shown_length: int
) -> AsyncGenerator[bytes]:
    services, session, hex_id = get_services(), sessions.require_session(), reply_id.hex()
    last_render = -RENDER_INTERVAL_SECONDS
    last_waiting: Notice | None = None
    async with aclosing(services.replies.follow(user.keys, reply_id)) as states:
        async for reply, waiting in states:
            if not services.sessions.is_session_open(session):
                return  # signed out in another tab: send no more text
            if reply.state != "streaming":
                return
            if reply.text and len(reply.text) != shown_length:
                pause = RENDER_INTERVAL_SECONDS - (time.monotonic() - last_render)
                if pause > 0:
                    await asyncio.sleep(pause)
                last_render = time.monotonic()
                html = (await entry_view(user.keys, reply, reply.id)).html
            elif not reply.text and waiting and waiting != last_waiting:
                last_waiting = waiting
                html = WAITING.format(describe(waiting))
            else:
                continue
            shown_length = len(reply.text)
            yield format_event(
                TEXT_PARTIAL.format(hex_id, html), name="reply", event_id=f"{hex_id}-{shown_length}"
            )


async def _whole_reply(user: UserContext, reply_id: bytes) -> str:
    view = await message_view(user, reply_id)
    view.is_collapsed = False  # keep it open for the user, even if another is preferred
    model = await model_view(
        get_services().model, name=user.endpoint, is_disabled=not user.profile.replies
    )
    return await get_renderer().run(
        render_to_string, "views/reply_done.html", entry=view, model=model
    )
