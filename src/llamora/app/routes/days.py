"""The page of a day, and new entries on it."""

from contextlib import suppress
from datetime import date

from quart import Blueprint, Response, request

from llamora.app.addresses import day_path, entry_path
from llamora.app.edge.rules import background, large_body, titled, with_replies
from llamora.app.i18n import describe, gettext_noop
from llamora.app.pages import (
    current_user,
    field,
    is_fragment,
    posted_form_token,
    redirect_303,
    render_template,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.days import day_context
from llamora.app.views.entries import own_entry_view, page_views
from llamora.app.views.summaries import summary_view
from llamora.errors import Problem
from llamora.journal.entries import EntryError
from llamora.llm.errors import ModelError
from llamora.persistence.connection import StorageError

blueprint = Blueprint("days", __name__)
(NO_SUMMARY,) = gettext_noop("No summary")


@blueprint.get("/d/today")
async def show_today() -> Response:
    return await _day_page((await current_user()).today)


@blueprint.get("/d/<day:day>")
async def show_day(day: date) -> Response:
    return await _day_page(day)


@blueprint.get("/d/<day:day>/entries")
@background
async def show_entries(day: date) -> Response:
    user, wanted_ids = await current_user(), set(request.args.getlist("e"))
    if not is_fragment():
        return redirect_303(day_path(day))
    threads = await get_services().journal.get_page(user.keys, day)
    threads_shown = [
        thread for thread in threads if wanted_ids & {entry.id.hex() for entry in thread.messages}
    ]
    roots = await page_views(user, threads_shown)
    views = [view for root in roots for view in (root, *root.thread)]
    return await render_template(
        "views/entries.html", entries=[view for view in views if view.id in wanted_ids]
    )


@blueprint.post("/d/today/entries")
@large_body
async def create_entry_today() -> Response:
    return await _create_entry(None)


@blueprint.post("/d/<day:day>/entries")
@large_body
async def create_entry(day: date) -> Response:
    return await _create_entry(day)


async def _create_entry(day: date | None) -> Response:
    user, text = await current_user(), await field("text")
    draft_key, form_token = await field("draft_key"), await posted_form_token()
    try:
        entry = await get_services().journal.write(user, day, text, draft_key, form_token)
    except (EntryError, StorageError) as error:
        return await _not_saved(day or user.today, text, error)
    if not is_fragment():
        return redirect_303(entry_path(entry, entry.id))
    return await render_template(
        "views/entry_saved.html",
        entry=await own_entry_view(user, entry),
        suggest_on_load=user.profile.suggestions,
    )


async def _not_saved(day: date, text: str, error: Problem) -> Response:
    if not is_fragment():
        return await _day_page(day, text, error)
    composer = {
        "day": day,
        "text": text,
        "error": describe(error),
        "form_token": await field("form_token"),
    }
    return await render_template("views/composer.html", error.status, composer=composer)


@blueprint.post("/d/today/opening")
async def make_opening() -> Response:
    """Show the line that opens today, and write it first if it is due.

    It is written once a day, and only for users who turned it on.
    """
    line = None
    with suppress(ModelError):  # the page works without it
        line = await get_services().openings.generate_line(await current_user())
    return await respond(
        view="views/opening.html",
        to="/d/today",
        opening=await summary_view(line) if line else None,
        opening_due=False,
    )


@blueprint.post("/d/<day:day>/recap")
@with_replies
@titled(NO_SUMMARY)
async def summarize_day(day: date) -> Response:
    summary = await get_services().summaries.summarize_day(await current_user(), day)
    return await respond(
        view="views/day_summary.html",
        to=f"{day_path(day)}#recap",
        day_summary=await summary_view(summary),
        day=day,
    )


@blueprint.post("/d/<day:day>/recap/delete")
async def delete_day_summary(day: date) -> Response:
    await get_services().summaries.delete_day_summary((await current_user()).keys, day)
    return await respond(view="views/day_summary.html", to=day_path(day), day_summary=None, day=day)


async def _day_page(day: date, text: str = "", problem: Problem | None = None) -> Response:
    context = await day_context(await current_user(), day, text, problem)
    return await render_template("pages/day.html", problem.status if problem else 200, **context)
