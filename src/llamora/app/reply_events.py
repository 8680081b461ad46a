"""The events of a growing reply."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from markupsafe import escape

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

RENDER_INTERVAL_SECONDS = 0.08  # between renderings of a growing reply; nobody reads faster


async def reply_events(user: UserContext, reply_id: bytes) -> AsyncGenerator[bytes]:
    """Yield a reply as HTML whenever it has grown, and at last with its actions."""
    services, session = get_services(), sessions.require_session()
    last_render = -RENDER_INTERVAL_SECONDS
    last_waiting: Notice | None = None
    async with aclosing(services.replies.follow(user.keys, reply_id)) as states:
        async for reply, waiting in states:
            if not services.sessions.is_session_open(session):
                return  # signed out in another tab: send no more text
            if reply.state != "streaming":
                break
            if not reply.text:
                if waiting and waiting != last_waiting:
                    last_waiting = waiting
                    yield format_event(f'<p class="waiting">{escape(describe(waiting))}</p>')
                continue
            pause = RENDER_INTERVAL_SECONDS - (time.monotonic() - last_render)
            if pause > 0:
                await asyncio.sleep(pause)
            last_render = time.monotonic()
            view = await entry_view(user.keys, reply, reply.id)
            yield format_event(view.html, event_id=str(len(reply.text)))
    view = await message_view(user, reply_id)
    view.is_collapsed = False  # keep it open for the user, even if another is preferred
    model = await model_view(
        services.model, name=user.endpoint, is_disabled=not user.profile.replies
    )
    html = await get_renderer().run(
        render_to_string, "views/reply_done.html", entry=view, model=model
    )
    yield format_event(html)
    yield format_event("", name="done")
