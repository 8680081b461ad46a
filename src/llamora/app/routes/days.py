"""A day: read it, write on it."""

from contextlib import suppress
from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.i18n import gettext as _
from llamora.app.pages import field, is_fragment, known_day, model_hidden, page, posted_pen, profile, see_other, today
from llamora.app.services.container import get_services
from llamora.app.views import digest_view, entry_view, page_views
from llamora.dates import day_edges, day_of, parse_zone, utc_now
from llamora.journal.entries import EntryError, Thread
from llamora.journal.profile import Profile
from llamora.journal.years import list_on_this_day
from llamora.llm.client import ModelError
from llamora.persistence.connection import DiskFull, NotFound, StorageError
from llamora.persistence.drafts import day_draft_key
from llamora.search.rank import excerpt, strip_markdown
from llamora.vault.keys import Keyring

blueprint = Blueprint("days", __name__)


@blueprint.get("/d/today")
async def show_today() -> Response:
    """Today's page, in the writer's own zone."""
    return await _day(await today())


@blueprint.get("/d/<text>")
async def show_day(text: str) -> Response:
    """The page of any day."""
    return await _day(known_day(text))


@blueprint.get("/d/<text>/entries")
async def show_entries(text: str) -> Response:
    """Some messages of a day as its page shows them, by their ids (`e`): what another window changed."""
    day, wanted = known_day(text), set(request.args.getlist("e"))
    if not is_fragment():
        return see_other(f"/d/{day}")
    threads = await get_services().journal.get_page(security.session().keys, day)
    asked = [thread for thread in threads if wanted & {entry.id.hex() for entry in (thread.root, *thread.descendants)}]
    roots = await page_views(security.session().keys, asked, with_replies=(await profile()).replies)
    views = [view for root in roots for view in (root, *root.thread)]
    return await page("components/entries.html", entries=[view for view in views if view.id in wanted])


@blueprint.post("/d/<text>/entries")
async def keep(text: str) -> Response:
    """Keep what was written on a day."""
    keys = security.session().keys
    day = None if text == "today" else known_day(text)
    words = await field("text")
    try:
        zone_name = (await profile()).zone
        entry = await get_services().journal.write(
            keys, day, words, zone_name, await field("place"), await posted_pen()
        )
    except EntryError as error:
        return await _not_kept(day, words, str(error), 422)
    except DiskFull as error:
        return await _not_kept(day, words, str(error), 507)
    except StorageError as error:
        return await _not_kept(day, words, str(error), 503)
    if not is_fragment():
        return see_other(f"/d/{entry.day}#e-{entry.id.hex()}")
    borne = await get_services().journal.tags.entry_tags(keys, {entry.id: entry.text})
    view = await entry_view(entry, entry.id, borne=borne.get(entry.id))
    return await page("components/kept.html", entry=view, suggesting=(await profile()).suggestions)


async def _not_kept(day: date | None, words: str, error: str, status: int) -> Response:
    """The composer with every word still in it."""
    day = day or await today()
    if is_fragment():
        composer = {"day": day, "text": words, "error": error, "pen": await field("pen")}
        return await page("components/composer.html", status=status, composer=composer)
    return await _day(day, words, error, status)


@blueprint.post("/d/today/opening")
async def open_day() -> Response:
    """The line that opens today, made now if it is not there: once a day, and only where it is switched on."""
    services, keys = get_services(), security.session().keys
    writer, day = await profile(), await today()
    line = None
    if writer.replies and writer.openings:
        with suppress(ModelError):  # the day is as good without it
            line = await services.openings.generate_line(keys, day, writer.endpoint)
    if not is_fragment():
        return see_other("/d/today")
    return await page("components/opening.html", opening=digest_view(line) if line else None, opening_due=False)


@blueprint.post("/d/<text>/recap")
async def sum_up(text: str) -> Response:
    """Sum a day up, now."""
    day = known_day(text)
    if await model_hidden():
        raise NotFound("There is no page at this address.")
    try:
        recap = await get_services().digests.summarize_day(security.session().keys, day, (await profile()).endpoint)
    except (ModelError, EntryError) as error:
        status = 503 if isinstance(error, ModelError) else 422
        return await page("pages/error.html", status=status, title=_("No summary"), sentence=str(error), what_to_do="")
    if not is_fragment():
        return see_other(f"/d/{day}#recap")
    return await page("components/recap.html", recap=digest_view(recap), day=day)


@blueprint.post("/d/<text>/recap/delete")
async def forget_recap(text: str) -> Response:
    """Let a summary go."""
    day = known_day(text)
    await get_services().db.summaries.delete(security.session().keys, "recap", day)
    return await page("components/recap.html", recap=None, day=day) if is_fragment() else see_other(f"/d/{day}")


async def _of_the_model(
    keys: Keyring, day: date, threads: list[Thread], writer: Profile, *, is_today: bool
) -> dict[str, object]:
    """What a model said of the day; nothing is made here."""
    services = get_services()
    found: dict[str, object] = {"opening": None, "opening_due": False, "recap": None}
    if writer.replies:
        opening = await services.openings.get_line(keys, day) if writer.openings else None
        recap = await services.digests.get_day_summary(keys, day, threads)
        found["opening"] = digest_view(opening) if opening else None
        found["opening_due"] = (
            is_today
            and writer.openings
            and opening is None
            and await services.openings.is_due(keys, day)
            and not services.model.unavailable_reason(writer.endpoint)
        )
        found["recap"] = digest_view(recap) if recap else None
    return found


async def _day(day: date, words: str = "", error: str = "", status: int = 200) -> Response:
    keys = security.session().keys
    threads = await get_services().journal.get_page(keys, day)
    writer = await profile()
    draft = (await get_services().journal.get_drafts(keys, [day_draft_key(day)])).get(day_draft_key(day))
    now, here = utc_now(), parse_zone(writer.zone)
    return await page(
        "pages/day.html",
        status=status,
        day=day,
        is_today=day == day_of(now, here),
        # In milliseconds, as the script of the page reckons: the server's clock says when the day is over.
        now=int(now.timestamp() * 1000),
        ends=int(day_edges(day, here)[1].timestamp() * 1000),
        first_run=not threads and not (await get_services().db.entries.fingerprint(keys.user_id))[0],
        previous_day=day - timedelta(1) if day > date.min else None,
        next_day=day + timedelta(1) if day < date.max else None,
        entries=await page_views(keys, threads, with_replies=writer.replies),
        **await _of_the_model(keys, day, threads, writer, is_today=day == day_of(now, here)),
        again=[
            (entry.day, excerpt(strip_markdown(entry.text)))
            for entry in await list_on_this_day(get_services().db, get_services().journal, keys, day)
        ],
        composer={"day": day, "text": words or (draft.text if draft else ""), "error": error, "draft": draft},
    )
