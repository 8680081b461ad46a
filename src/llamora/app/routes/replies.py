"""Replies: ask for, preview, stream, stop and prefer them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import date

from markupsafe import escape
from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    parse_day_or_404,
    parse_entry_id,
    parse_tag_id,
    redirect_303,
    render_template,
    render_to_string,
    replies_disabled,
    today,
)
from llamora.app.rendering import get_renderer
from llamora.app.routes.search import related_page
from llamora.app.services.container import get_services
from llamora.app.streams import event_stream, format_event
from llamora.app.views import (
    describe_omitted,
    entry_view,
    message_view,
    model_view,
    page_views,
    tag_path,
)
from llamora.errors import Notice
from llamora.journal.composing import ComposedPrompt
from llamora.journal.entries import EntryError
from llamora.journal.reading import model_may_read
from llamora.journal.replies import SOURCE_WITHHELD
from llamora.journal.summaries import PreparedPrompt
from llamora.llm.errors import ModelError
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import BUILT_IN_MODEL, Entry, Receipt

blueprint = Blueprint("replies", __name__)

MAX_ENTRIES_PER_REPLY = 200  # entries that one reply may answer
RENDER_INTERVAL_SECONDS = 0.08  # between renderings of a growing reply; nobody reads faster


@blueprint.post("/e/<entry_hex>/replies")
async def ask_for_reply(entry_hex: str) -> Response:
    """Ask the model for a reply, or another one, to an entry.

    Without a model, show related entries instead.
    """
    entry_id = parse_entry_id(entry_hex)
    keys = security.require_session().keys
    await require_replies_enabled()
    if get_services().model.unavailable_reason((await get_profile()).endpoint):
        return await related_page(entry_hex, unanswered=True)
    try:
        reply = await _ask_model(entry_id)
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    if not is_fragment():
        return redirect_303(f"/d/{reply.day}#e-{reply.id.hex()}")
    # A growing reply is shown alone: reading its page again would delay the model.
    if reply.state == "streaming":
        return await render_template(
            "components/reply.html", entry=await entry_view(keys, reply, reply.id)
        )
    return await render_template("components/reply.html", entry=await message_view(keys, reply.id))


@blueprint.get("/d/<day_text>/whole")
async def show_ask_day(day_text: str) -> Response:
    """Show the form to ask about a whole day, with as many entries marked as a reply may answer."""
    await require_replies_enabled()
    keys, day = security.require_session().keys, parse_day_or_404(day_text)
    views = await page_views(
        keys, await get_services().journal.get_page(keys, day), with_replies=True
    )
    template = "components/ask_day.html" if is_fragment() else "pages/ask_day.html"
    return await render_template(
        template,
        day=day,
        askable_entries=[view for view in views if view.is_askable],
        max_entries=MAX_ENTRIES_PER_REPLY,
    )


@blueprint.post("/d/<day_text>/replies")
async def ask_about_day(day_text: str) -> Response:
    """Ask for one reply to the marked entries of a day."""
    services, keys = get_services(), security.require_session().keys
    requested = await security.form_fields("entry")
    if len(requested) > MAX_ENTRIES_PER_REPLY:
        return await _no_reply_page(EntryError("too_many_entries", most=MAX_ENTRIES_PER_REPLY))
    requested_ids = [parse_entry_id(each) for each in requested]
    roots = [
        thread.root for thread in await services.journal.get_page(keys, parse_day_or_404(day_text))
    ]
    askable_ids = [
        root.id
        for root in roots
        if root.id in requested_ids and root.role == "me" and model_may_read(root, root)
    ]
    if not askable_ids:
        return await _no_reply_page(EntryError("no_entries_marked"))
    try:
        reply = await _ask_model(askable_ids[-1], askable_ids[:-1])
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    return redirect_303(f"/d/{reply.day}#e-{reply.id.hex()}")


@blueprint.get("/e/<entry_hex>/prompt")
async def preview_reply(entry_hex: str) -> Response:
    """Show the exact prompt that a reply to this entry would send now."""
    await require_replies_enabled()
    return await _preview_page(parse_entry_id(entry_hex))


@blueprint.get("/r/<reply_hex>/prompt")
async def preview_another_reply(reply_hex: str) -> Response:
    """Show the exact prompt that another reply to the same entries would send now."""
    await require_replies_enabled()
    reply = await _find_reply(parse_entry_id(reply_hex))
    return await _preview_page(reply.parent_id or reply.id, reply.also_answers)


async def _preview_page(parent_id: bytes, also_answers: Sequence[bytes] = ()) -> Response:
    services, keys, endpoint = (
        get_services(),
        security.require_session().keys,
        (await get_profile()).endpoint,
    )
    entry = await services.journal.get(keys, parent_id)
    try:
        composed = await services.replies.composer.preview(
            keys, parent_id, await today(), also_answers=also_answers, endpoint=endpoint
        )
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    return await _prompt_page("reply", entry.day, composed, composed.receipt, parent_id.hex())


@blueprint.get("/d/<day_text>/recap/prompt")
async def preview_day_summary(day_text: str) -> Response:
    """Show the exact prompt that a summary of the day would send now."""
    services, day = get_services(), parse_day_or_404(day_text)
    await require_replies_enabled()
    try:
        prepared = await services.summaries.preview_day(
            security.require_session().keys, day, (await get_profile()).endpoint
        )
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    return await _prompt_page(
        "recap",
        day,
        prepared,
        services.replies.composer.build_receipt(prepared.info, prepared.client, prepared.prompt),
    )


@blueprint.get("/d/today/opening/prompt")
async def preview_opening() -> Response:
    """Show the exact prompt that today's opening line would send now."""
    services, day = get_services(), await today()
    await require_replies_enabled()
    try:
        prepared = await services.openings.preview(
            security.require_session().keys, day, (await get_profile()).endpoint
        )
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    receipt = services.replies.composer.build_receipt(
        prepared.info, prepared.client, prepared.prompt
    )
    return await _prompt_page("opening", day, prepared, receipt)


@blueprint.get("/traces/<tag_hex>/summary/prompt")
async def preview_tag_summary(tag_hex: str) -> Response:
    """Show the exact prompt that a summary of a tag would send now."""
    services, keys, tag_id = get_services(), security.require_session().keys, parse_tag_id(tag_hex)
    await require_replies_enabled()
    try:
        prepared = await services.summaries.preview_tag(
            keys, tag_id, (await get_profile()).endpoint
        )
    except (ModelError, EntryError) as error:
        return await _no_reply_page(error)
    receipt = services.replies.composer.build_receipt(
        prepared.info, prepared.client, prepared.prompt
    )
    return await _prompt_page("trace", await today(), prepared, receipt, back_path=tag_path(tag_id))


async def _prompt_page(
    kind: str,
    day: date,
    prepared: ComposedPrompt | PreparedPrompt,
    receipt: Receipt,
    entry_hex: str = "",
    back_path: str = "",
) -> Response:
    parameters = prepared.client.request_parameters(prepared.max_tokens)
    return await render_template(
        "pages/prompt.html",
        kind=kind,
        day=day,
        entry=entry_hex,
        back_path=back_path,
        messages=prepared.prompt.messages,
        options=json.dumps(parameters, ensure_ascii=False, indent=1),
        receipt=receipt,
        reader=_("the small built-in model") if receipt.model == BUILT_IN_MODEL else receipt.model,
        omitted=describe_omitted(receipt.omitted),
    )


@blueprint.post("/r/<reply_hex>/prefer")
async def prefer_reply(reply_hex: str) -> Response:
    """Prefer one of several replies to an entry over the others, or none of them."""
    await require_replies_enabled()
    keys = security.require_session().keys
    await _find_reply(parse_entry_id(reply_hex))
    reply = await get_services().journal.set_preferred(
        keys, parse_entry_id(reply_hex), preferred=await field("preferred") == "yes"
    )
    return redirect_303(f"/d/{reply.day}#e-{reply.id.hex()}")


@blueprint.post("/e/<entry_hex>/withheld")
async def set_withheld(entry_hex: str) -> Response:
    """Withhold an entry from the model, or let the model read it again."""
    await require_replies_enabled()
    keys, withheld = security.require_session().keys, await field("withheld") == "yes"
    if withheld:
        get_services().replies.cancel_for([parse_entry_id(entry_hex)], SOURCE_WITHHELD)
    entry = await get_services().journal.set_withheld(
        keys, parse_entry_id(entry_hex), withheld=withheld
    )
    if not is_fragment():
        return redirect_303(f"/d/{entry.day}#e-{entry.id.hex()}")
    return await render_template("components/entry.html", entry=await message_view(keys, entry.id))


@blueprint.get("/r/<reply_hex>/events")
async def reply_events(reply_hex: str) -> Response:
    """Stream a reply as it grows.

    Each event holds the whole text so far, so nothing is lost or repeated on a new connection.
    """
    await require_replies_enabled()
    reply_id = parse_entry_id(reply_hex)
    await _find_reply(reply_id)
    return event_stream(
        _stream_reply(reply_id), get_services().shutting_down, security.require_session().ended
    )


@blueprint.post("/r/<reply_hex>/stop")
async def stop_reply(reply_hex: str) -> Response:
    """Stop a reply; its text so far is saved."""
    keys = security.require_session().keys
    await _find_reply(parse_entry_id(reply_hex))
    reply = await get_services().replies.stop(keys, parse_entry_id(reply_hex))
    if not is_fragment():
        return redirect_303(f"/d/{reply.day}#e-{reply.id.hex()}")
    return await render_template("components/reply.html", entry=await message_view(keys, reply.id))


async def require_replies_enabled() -> None:
    """Raise NotFound if the user has turned the model off."""
    if await replies_disabled():
        raise NotFound("page_not_found")


async def _find_reply(reply_id: bytes) -> Entry:
    """Return a reply. Raises NotFound, also for an id of another kind of message."""
    entry = await get_services().journal.get(security.require_session().keys, reply_id)
    if entry.role != "reply":
        raise NotFound("reply_not_found")
    return entry


async def _ask_model(parent_id: bytes, also_answers: Sequence[bytes] = ()) -> Entry:
    await require_replies_enabled()
    profile = await get_profile()
    return await get_services().replies.ask(
        security.require_session().keys,
        parent_id,
        profile.zone,
        await today(),
        also_answers=also_answers,
        endpoint=profile.endpoint,
    )


async def _no_reply_page(error: ModelError | EntryError) -> Response:
    return await render_template(
        "pages/error.html",
        status=error.status,
        title=_("No reply just now"),
        sentence=describe(error),
        advice="",
    )


async def _stream_reply(reply_id: bytes) -> AsyncGenerator[bytes]:
    services, session = get_services(), security.require_session()
    keys = session.keys
    last_render = -RENDER_INTERVAL_SECONDS
    last_waiting: Notice | None = None
    async with aclosing(services.replies.follow(keys, reply_id)) as states:
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
            yield format_event(
                (await entry_view(keys, reply, reply.id)).html, event_id=str(len(reply.text))
            )
    view = await message_view(keys, reply_id)
    view.is_collapsed = False  # keep it open for the user, even if another is preferred
    model = await model_view(
        services.model, name=(await get_profile()).endpoint, is_disabled=await replies_disabled()
    )
    html = await get_renderer().run(
        render_to_string, "components/reply_done.html", entry=view, model=model
    )
    yield format_event(html)
    yield format_event("", name="done")
