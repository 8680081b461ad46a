"""The page of a day, and new entries on it."""

from contextlib import suppress
from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app.edge import sessions
from llamora.app.edge.rules import background, large_body
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    parse_day_or_404,
    posted_form_token,
    redirect_303,
    render_template,
    replies_disabled,
    today,
)
from llamora.app.services.container import get_services
from llamora.app.views import entry_view, page_views, summary_view
from llamora.dates import day_edges, day_of, parse_zone, utc_now
from llamora.journal.entries import EntryError
from llamora.journal.profile import Profile
from llamora.journal.threads import Thread
from llamora.journal.years import list_on_this_day
from llamora.llm.errors import ModelError
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.drafts import day_draft_key
from llamora.search.snippets import excerpt
from llamora.text import strip_markdown
from llamora.vault.keys import Keyring

blueprint = Blueprint("days", __name__)


@blueprint.get("/d/today")
async def show_today() -> Response:
    """Show today's page, in the user's time zone."""
    return await _day_page(await today())


@blueprint.get("/d/<day_text>")
async def show_day(day_text: str) -> Response:
    """Show the page of a day."""
    return await _day_page(parse_day_or_404(day_text))


@blueprint.get("/d/<day_text>/entries")
@background
async def show_entries(day_text: str) -> Response:
    """Show the messages of a day whose ids are in `e`, after a change in another window."""
    day, wanted_ids = parse_day_or_404(day_text), set(request.args.getlist("e"))
    if not is_fragment():
        return redirect_303(f"/d/{day}")
    threads = await get_services().journal.get_page(sessions.require_session().keys, day)
    threads_shown = [
        thread
        for thread in threads
        if wanted_ids & {entry.id.hex() for entry in (thread.root, *thread.descendants)}
    ]
    roots = await page_views(
        sessions.require_session().keys, threads_shown, with_replies=(await get_profile()).replies
    )
    views = [view for root in roots for view in (root, *root.thread)]
    return await render_template(
        "views/entries.html", entries=[view for view in views if view.id in wanted_ids]
    )


@blueprint.post("/d/<day_text>/entries")
@large_body
async def create_entry(day_text: str) -> Response:
    """Save a new entry on a day."""
    keys = sessions.require_session().keys
    day = None if day_text == "today" else parse_day_or_404(day_text)
    text = await field("text")
    try:
        zone_name = (await get_profile()).zone
        entry = await get_services().journal.write(
            keys, day, text, zone_name, await field("draft_key"), await posted_form_token()
        )
    except (EntryError, StorageError) as error:
        return await _not_saved(day, text, describe(error), error.status)
    if not is_fragment():
        return redirect_303(f"/d/{entry.day}#e-{entry.id.hex()}")
    tags_by_entry = await get_services().journal.tags.entry_tags(keys, {entry.id: entry.text})
    view = await entry_view(keys, entry, entry.id, tags=tags_by_entry.get(entry.id))
    return await render_template(
        "views/entry_saved.html", entry=view, suggest_on_load=(await get_profile()).suggestions
    )


async def _not_saved(day: date | None, text: str, error: str, status: int) -> Response:
    """Show the composer again with the text that could not be saved."""
    day = day or await today()
    if is_fragment():
        composer = {
            "day": day,
            "text": text,
            "error": error,
            "form_token": await field("form_token"),
        }
        return await render_template("views/composer.html", status=status, composer=composer)
    return await _day_page(day, text, error, status)


@blueprint.post("/d/today/opening")
async def make_opening() -> Response:
    """Show the line that opens today, and write it first if it is due.

    It is written once a day, and only for users who turned it on.
    """
    services, keys = get_services(), sessions.require_session().keys
    profile, day = await get_profile(), await today()
    line = None
    if profile.replies and profile.openings:
        with suppress(ModelError):  # the page works without it
            line = await services.openings.generate_line(keys, day, profile.endpoint)
    if not is_fragment():
        return redirect_303("/d/today")
    return await render_template(
        "views/opening.html", opening=summary_view(line) if line else None, opening_due=False
    )


@blueprint.post("/d/<day_text>/recap")
async def summarize_day(day_text: str) -> Response:
    """Write and show a summary of a day."""
    day = parse_day_or_404(day_text)
    if await replies_disabled():
        raise NotFound("page_not_found")
    try:
        day_summary = await get_services().summaries.summarize_day(
            sessions.require_session().keys, day, (await get_profile()).endpoint
        )
    except (ModelError, EntryError) as error:
        return await render_template(
            "pages/error.html",
            status=error.status,
            title=_("No summary"),
            sentence=describe(error),
            advice="",
        )
    if not is_fragment():
        return redirect_303(f"/d/{day}#recap")
    return await render_template(
        "views/day_summary.html", day_summary=summary_view(day_summary), day=day
    )


@blueprint.post("/d/<day_text>/recap/delete")
async def delete_day_summary(day_text: str) -> Response:
    """Delete the summary of a day."""
    day = parse_day_or_404(day_text)
    await get_services().db.summaries.delete(sessions.require_session().keys, "recap", day)
    return (
        await render_template("views/day_summary.html", day_summary=None, day=day)
        if is_fragment()
        else redirect_303(f"/d/{day}")
    )


async def _model_context(
    keys: Keyring, day: date, threads: list[Thread], profile: Profile, *, is_today: bool
) -> dict[str, object]:
    """Return the stored opening line and summary of a day; no model is asked."""
    services = get_services()
    context: dict[str, object] = {"opening": None, "opening_due": False, "day_summary": None}
    if profile.replies:
        opening = await services.openings.get_line(keys, day) if profile.openings else None
        day_summary = await services.summaries.get_day_summary(keys, day, threads)
        context["opening"] = summary_view(opening) if opening else None
        context["opening_due"] = (
            is_today
            and profile.openings
            and opening is None
            and await services.openings.is_due(keys, day)
            and not services.model.unavailable_reason(profile.endpoint)
        )
        context["day_summary"] = summary_view(day_summary) if day_summary else None
    return context


async def _day_page(day: date, text: str = "", error: str = "", status: int = 200) -> Response:
    keys = sessions.require_session().keys
    threads = await get_services().journal.get_page(keys, day)
    profile = await get_profile()
    draft = (await get_services().drafts.get_many(keys, [day_draft_key(day)])).get(
        day_draft_key(day)
    )
    now, tz = utc_now(), parse_zone(profile.zone)
    return await render_template(
        "pages/day.html",
        status=status,
        day=day,
        is_today=day == day_of(now, tz),
        # Milliseconds, as in JavaScript: the server's clock decides when the day is over.
        now=int(now.timestamp() * 1000),
        ends=int(day_edges(day, tz)[1].timestamp() * 1000),
        first_run=not threads
        and not (await get_services().db.entries.fingerprint(keys.user_id))[0],
        previous_day=day - timedelta(1) if day > date.min else None,
        next_day=day + timedelta(1) if day < date.max else None,
        entries=await page_views(keys, threads, with_replies=profile.replies),
        **await _model_context(keys, day, threads, profile, is_today=day == day_of(now, tz)),
        on_this_day=[
            (entry.day, excerpt(strip_markdown(entry.text)))
            for entry in await list_on_this_day(
                get_services().db, get_services().journal, keys, day
            )
        ],
        composer={
            "day": day,
            "text": text or (draft.text if draft else ""),
            "error": error,
            "draft": draft,
        },
    )
