"""Replies: ask for, preview, stream, stop and prefer them."""

from datetime import date

from quart import Blueprint, Response

from llamora.app.addresses import entry_path, parse_entry_id, tag_path
from llamora.app.edge.forms import form_fields
from llamora.app.edge.rules import titled, with_replies
from llamora.app.i18n import gettext_noop
from llamora.app.pages import (
    current_user,
    field,
    is_fragment,
    redirect_303,
    render_template,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.entries import entry_view, message_view, page_views
from llamora.app.views.prompts import prompt_context
from llamora.app.views.related import related_context
from llamora.journal.asking import MAX_ENTRIES_PER_REPLY, Related
from llamora.journal.composing import ComposedPrompt
from llamora.journal.summaries import PreparedPrompt
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry

blueprint = Blueprint("replies", __name__)
(NO_REPLY,) = gettext_noop("No reply just now")


@blueprint.post("/e/<entry_id:entry_id>/replies")
@with_replies
@titled(NO_REPLY)
async def ask_for_reply(entry_id: bytes) -> Response:
    """Ask the model for a reply, or another one, to an entry.

    Without a model, show related entries instead.
    """
    user = await current_user()
    answer = await get_services().asking.ask(user, entry_id)
    if isinstance(answer, Related):
        context = related_context(answer.entry, answer.hits, unanswered=True)
        return await respond(view="views/related.html", page="pages/related.html", **context)
    if not is_fragment():
        return redirect_303(entry_path(answer, answer.id))
    # A growing reply is shown alone: reading its page again would delay the model.
    growing = answer.state == "streaming"
    view = (
        await entry_view(user.keys, answer, answer.id)
        if growing
        else await message_view(user, answer.id)
    )
    return await render_template("views/reply.html", entry=view)


@blueprint.get("/d/<day:day>/whole")
@with_replies
async def show_ask_day(day: date) -> Response:
    """Show the form to ask about a whole day, with as many entries marked as a reply may answer."""
    user = await current_user()
    views = await page_views(user, await get_services().journal.get_page(user.keys, day))
    return await respond(
        view="views/ask_day.html",
        page="pages/ask_day.html",
        day=day,
        askable_entries=[view for view in views if view.is_askable],
        max_entries=MAX_ENTRIES_PER_REPLY,
    )


@blueprint.post("/d/<day:day>/replies")
@with_replies
@titled(NO_REPLY)
async def ask_about_day(day: date) -> Response:
    try:
        entry_ids = [parse_entry_id(each) for each in await form_fields("entry")]
    except ValueError:
        raise NotFound("entry_not_found") from None
    reply = await get_services().asking.ask_about_day(await current_user(), day, entry_ids)
    return redirect_303(entry_path(reply, reply.id))


@blueprint.get("/e/<entry_id:entry_id>/prompt")
@with_replies
@titled(NO_REPLY)
async def preview_reply(entry_id: bytes) -> Response:
    return await _preview_reply(entry_id)


@blueprint.get("/r/<entry_id:reply_id>/prompt")
@with_replies
@titled(NO_REPLY)
async def preview_another_reply(reply_id: bytes) -> Response:
    return await _preview_reply(reply_id)


async def _preview_reply(entry_id: bytes) -> Response:
    entry, composed = await get_services().asking.preview(await current_user(), entry_id)
    return await _prompt_page("reply", entry.day, composed, entry=entry.id.hex())


@blueprint.get("/d/<day:day>/recap/prompt")
@with_replies
@titled(NO_REPLY)
async def preview_day_summary(day: date) -> Response:
    prepared = await get_services().summaries.preview_day(await current_user(), day)
    return await _prompt_page("recap", day, prepared)


@blueprint.get("/d/today/opening/prompt")
@with_replies
@titled(NO_REPLY)
async def preview_opening() -> Response:
    user = await current_user()
    return await _prompt_page("opening", user.today, await get_services().openings.preview(user))


@blueprint.get("/traces/<tag_id:tag_id>/summary/prompt")
@with_replies
@titled(NO_REPLY)
async def preview_tag_summary(tag_id: bytes) -> Response:
    user = await current_user()
    prepared = await get_services().summaries.preview_tag(user, tag_id)
    return await _prompt_page("trace", user.today, prepared, back_path=tag_path(tag_id))


async def _prompt_page(
    kind: str,
    day: date,
    prepared: ComposedPrompt | PreparedPrompt,
    *,
    entry: str = "",
    back_path: str = "",
) -> Response:
    return await render_template(
        "pages/prompt.html",
        kind=kind,
        day=day,
        entry=entry,
        back_path=back_path,
        **prompt_context(prepared),
    )


@blueprint.post("/r/<entry_id:reply_id>/prefer")
@with_replies
async def prefer_reply(reply_id: bytes) -> Response:
    keys, preferred = (await current_user()).keys, await field("preferred") == "yes"
    reply = await get_services().journal.set_preferred(keys, reply_id, preferred=preferred)
    return redirect_303(entry_path(reply, reply.id))


@blueprint.post("/e/<entry_id:entry_id>/withheld")
@with_replies
async def set_withheld(entry_id: bytes) -> Response:
    keys, withheld = (await current_user()).keys, await field("withheld") == "yes"
    entry = await get_services().withholding.set_withheld(keys, entry_id, withheld=withheld)
    return await _message("views/entry.html", entry)


@blueprint.post("/r/<entry_id:reply_id>/stop")
async def stop_reply(reply_id: bytes) -> Response:
    reply = await get_services().replies.stop((await current_user()).keys, reply_id)
    return await _message("views/reply.html", reply)


async def _message(template: str, entry: Entry) -> Response:
    if not is_fragment():
        return redirect_303(entry_path(entry, entry.id))
    view = await message_view(await current_user(), entry.id)
    return await render_template(template, entry=view)
