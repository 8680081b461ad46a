"""Replies: ask for one, watch it come, stop it."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import date

from markupsafe import escape
from quart import Blueprint, Response

from llamora.app import i18n, security
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    entry_id,
    field,
    is_fragment,
    known_day,
    model_hidden,
    page,
    profile,
    rendered,
    see_other,
    today,
    trace_id,
)
from llamora.app.routes.search import show_related
from llamora.app.services.container import get_services
from llamora.app.streams import event, event_stream
from llamora.app.views import cut_words, entry_view, message_view, model_view, page_views, trace_path
from llamora.journal.composing import ComposedPrompt
from llamora.journal.entries import EntryError
from llamora.journal.replies import SOURCE_WITHHELD
from llamora.journal.summaries import PreparedPrompt
from llamora.llm.client import ModelError
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry, Receipt

blueprint = Blueprint("replies", __name__)

MOST_TOGETHER = 200  # entries that one reply answers
RENDER_SECONDS = 0.08  # between two pictures of a growing reply; a person reads no faster


@blueprint.post("/e/<text>/replies")
async def ask(text: str) -> Response:
    """Ask the model for a reply to an entry, or for another one; without a model, show what is near to the entry."""
    wanted = entry_id(text)
    await _there()
    if get_services().model.unavailable_reason((await profile()).endpoint):
        return await show_related(text, unanswered=True)
    try:
        reply = await _asked(wanted)
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    if not is_fragment():
        return see_other(f"/d/{reply.day}#e-{reply.id.hex()}")
    # What is growing is shown by itself: its page is not read again while the model waits to be asked.
    if reply.state == "streaming":
        return await page("components/reply.html", entry=await entry_view(reply, reply.id))
    return await page("components/reply.html", entry=await message_view(security.session().keys, reply.id))


@blueprint.get("/d/<text>/whole")
async def ask_whole(text: str) -> Response:
    """What the model can be asked about a whole page; its newest entries are marked, as many as one reply answers."""
    await _there()
    keys, day = security.session().keys, known_day(text)
    views = await page_views(keys, await get_services().journal.get_page(keys, day), with_replies=True)
    template = "components/ask_day.html" if is_fragment() else "pages/whole.html"
    return await page(template, day=day, askable=[view for view in views if view.askable], most=MOST_TOGETHER)


@blueprint.post("/d/<text>/replies")
async def ask_about_day(text: str) -> Response:
    """Ask for one reply to several entries of a day: those that are marked."""
    services, keys = get_services(), security.session().keys
    sent = await security.form_fields("entry")
    if len(sent) > MOST_TOGETHER:
        return await _no_reply(EntryError("One reply can answer at most 200 entries. Mark fewer of them."))
    marked = [entry_id(each) for each in sent]
    roots = [thread.root for thread in await services.journal.get_page(keys, known_day(text))]
    chosen = [root.id for root in roots if root.id in marked and root.role == "me" and not root.withheld]
    if not chosen:
        return await _no_reply(EntryError("Mark at least one entry to ask about."))
    try:
        reply = await _asked(chosen[-1], chosen[:-1])
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    return see_other(f"/d/{reply.day}#e-{reply.id.hex()}")


@blueprint.get("/e/<text>/prompt")
async def preview(text: str) -> Response:
    """Exactly what would be sent if a reply to this entry were asked for now."""
    await _there()
    return await _preview(entry_id(text))


@blueprint.get("/r/<text>/prompt")
async def preview_again(text: str) -> Response:
    """Exactly what would be sent if another reply to what this one answers were asked for now."""
    await _there()
    reply = await _reply(entry_id(text))
    return await _preview(reply.parent_id or reply.id, reply.also_answers)


async def _preview(to: bytes, also: Sequence[bytes] = ()) -> Response:
    services, keys, endpoint = get_services(), security.session().keys, (await profile()).endpoint
    entry = await services.journal.get(keys, to)
    try:
        composed = await services.replies.composer.preview(
            keys, to, await today(), also_answers=also, endpoint=endpoint
        )
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    return await _previewed("reply", entry.day, composed, composed.receipt, to.hex())


@blueprint.get("/d/<text>/recap/prompt")
async def preview_recap(text: str) -> Response:
    """Exactly what would be sent if the day were summed up now."""
    services, day = get_services(), known_day(text)
    await _there()
    try:
        asked = await services.digests.preview_day(security.session().keys, day, (await profile()).endpoint)
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    return await _previewed(
        "recap", day, asked, services.replies.composer.build_receipt(asked.info, asked.client, asked.prompt)
    )


@blueprint.get("/d/today/opening/prompt")
async def preview_opening() -> Response:
    """Exactly what would be sent if today were to open with a line now."""
    services, day = get_services(), await today()
    await _there()
    try:
        asked = await services.openings.preview(security.session().keys, day, (await profile()).endpoint)
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    receipt = services.replies.composer.build_receipt(asked.info, asked.client, asked.prompt)
    return await _previewed("opening", day, asked, receipt)


@blueprint.get("/traces/<text>/summary/prompt")
async def preview_summary(text: str) -> Response:
    """Exactly what would be sent if what is written under a trace were summed up now."""
    services, keys, trace = get_services(), security.session().keys, trace_id(text)
    await _there()
    try:
        asked = await services.digests.preview_tag(keys, trace, (await profile()).endpoint)
    except (ModelError, EntryError) as error:
        return await _no_reply(error)
    receipt = services.replies.composer.build_receipt(asked.info, asked.client, asked.prompt)
    return await _previewed("trace", await today(), asked, receipt, back=trace_path(trace))


async def _previewed(
    what: str, day: date, asked: ComposedPrompt | PreparedPrompt, receipt: Receipt, entry: str = "", back: str = ""
) -> Response:
    parameters = asked.client.request_parameters(asked.max_tokens)
    return await page(
        "pages/prompt.html",
        what=what,
        day=day,
        entry=entry,
        back=back,
        messages=asked.prompt.messages,
        options=json.dumps(parameters, ensure_ascii=False, indent=1),
        receipt=receipt,
        cut=cut_words(receipt.omitted),
    )


@blueprint.post("/r/<text>/prefer")
async def prefer(text: str) -> Response:
    """Let one of several replies to an entry stand before the others, or none."""
    await _there()
    keys = security.session().keys
    await _reply(entry_id(text))
    reply = await get_services().journal.set_preferred(
        keys, entry_id(text), preferred=await field("preferred") == "yes"
    )
    return see_other(f"/d/{reply.day}#e-{reply.id.hex()}")


@blueprint.post("/e/<text>/withheld")
async def withhold(text: str) -> Response:
    """Keep an entry from the model, or let the model read it again."""
    await _there()
    keys, withheld = security.session().keys, await field("withheld") == "yes"
    if withheld:
        get_services().replies.cancel_for([entry_id(text)], SOURCE_WITHHELD)
    entry = await get_services().journal.set_withheld(keys, entry_id(text), withheld=withheld)
    if not is_fragment():
        return see_other(f"/d/{entry.day}#e-{entry.id.hex()}")
    return await page("components/entry.html", entry=await message_view(keys, entry.id))


@blueprint.get("/r/<text>/events")
async def events(text: str) -> Response:
    """The reply as it grows: each event holds all of it so far, so that nothing is lost or repeated."""
    await _there()
    reply_id = entry_id(text)
    await _reply(reply_id)
    return event_stream(_events(reply_id), get_services().shutting_down, security.session().ended)


@blueprint.post("/r/<text>/stop")
async def stop(text: str) -> Response:
    """End a reply; what came is kept."""
    keys = security.session().keys
    await _reply(entry_id(text))
    reply = await get_services().replies.stop(keys, entry_id(text))
    if not is_fragment():
        return see_other(f"/d/{reply.day}#e-{reply.id.hex()}")
    return await page("components/reply.html", entry=await message_view(keys, reply.id))


async def _there() -> None:
    """Where the model is turned off there is nothing to ask. Raises NotFound."""
    if await model_hidden():
        raise NotFound("There is no page at this address.")


async def _reply(reply_id: bytes) -> Entry:
    """What has the address of a reply must be one. Raises NotFound."""
    entry = await get_services().journal.get(security.session().keys, reply_id)
    if entry.role != "reply":
        raise NotFound("There is no such reply.")
    return entry


async def _asked(to: bytes, also: Sequence[bytes] = ()) -> Entry:
    await _there()
    writer = await profile()
    return await get_services().replies.ask(
        security.session().keys, to, writer.zone, await today(), also_answers=also, endpoint=writer.endpoint
    )


async def _no_reply(error: ModelError | EntryError) -> Response:
    status = 503 if isinstance(error, ModelError) else 422
    return await page(
        "pages/error.html", status=status, title=_("No reply just now"), sentence=str(error), what_to_do=""
    )


async def _events(reply_id: bytes) -> AsyncGenerator[bytes]:
    services, session = get_services(), security.session()
    keys = session.keys
    shown = -RENDER_SECONDS
    said = ""
    async with aclosing(services.replies.follow(keys, reply_id)) as states:
        async for reply, waiting in states:
            if not services.accounts.is_session_open(session):
                return  # signed out in another tab: this one gets no further word
            if reply.state != "streaming":
                break
            if not reply.text:
                if waiting and waiting != said:
                    said = waiting
                    yield event(f'<p class="waiting">{escape(i18n.said(waiting))}</p>')
                continue
            pause = RENDER_SECONDS - (time.monotonic() - shown)
            if pause > 0:
                await asyncio.sleep(pause)
            shown = time.monotonic()
            yield event((await entry_view(reply, reply.id)).html, event_id=str(len(reply.text)))
    view = await message_view(keys, reply_id)
    view.aside = False  # who watched it come reads on, also where another one is preferred
    model = await model_view(services.model, name=(await profile()).endpoint, hidden=await model_hidden())
    yield event(rendered("components/reply_done.html", entry=view, model=model))
    yield event("", name="done")
