"""The calendar: a month, a year, the days that have something on them, and the way to any date."""

import re
from bisect import bisect_right
from calendar import Calendar, monthrange
from datetime import date, timedelta
from hashlib import blake2b

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.i18n import current, weekday_names
from llamora.app.pages import field, is_fragment, page, profile, see_other, today
from llamora.app.services.container import get_services
from llamora.app.views import page_views
from llamora.dates import UnknownDay, parse_day, parse_phrase
from llamora.persistence.connection import NotFound
from llamora.vault.keys import Keyring

blueprint = Blueprint("calendar", __name__)

WORDS = 200
SHADES = (1, 100, 300, 700)  # words from which a day of the year is a shade darker; the same for every year
NO_DATE = "That is not a date the calendar knows. Try “12 March 2024”, “last Friday” or “2024-03-12”."


@blueprint.get("/calendar")
async def this_month() -> Response:
    """The month it is for the writer."""
    return await _month(await today())


@blueprint.get("/calendar/<text>")
async def show_month(text: str) -> Response:
    """Any month, or with four digits any year."""
    if re.fullmatch(r"[0-9]{4}", text) and int(text):
        return await _year(int(text))
    return await _month(known_month(text))


@blueprint.get("/m/<text>")
async def read_month(text: str) -> Response:
    """A month as one page to read."""
    first = known_month(text)
    services, keys = get_services(), security.session().keys
    days = _days(first)
    mark = await month_mark(keys, first)  # before it is read: what comes meanwhile makes another one
    found = [(day, await services.journal.get_page(keys, day)) for day in days]
    shown = (await profile()).replies
    pages = [(day, await page_views(keys, threads, with_replies=shown)) for day, threads in found if threads]
    before, after = _beside(days)
    return await page(
        "components/month.html" if is_fragment() else "pages/month.html",
        month=first,
        mark=mark,
        pages=pages,
        previous_month=before,
        next_month=after,
    )


async def month_mark(keys: Keyring, month: date) -> str:
    """A word that is another one once anything was written, changed, traced or deleted in a month."""
    db = get_services().db
    found = await db.entries.revisions_on(keys, _days(month)), await db.tags.get_revision(keys.user_id)
    return blake2b(repr((sorted(found[0].items()), found[1])).encode(), digest_size=8).hexdigest()


def known_month(text: str) -> date:
    """The first day of the month in an address. Raises NotFound for what is none."""
    try:
        return parse_day(f"{text}-01")
    except UnknownDay:
        raise NotFound("There is no such month. A month’s address looks like /calendar/2026-11.") from None


def _days(month: date) -> list[date]:
    return [month.replace(day=number) for number in range(1, monthrange(month.year, month.month)[1] + 1)]


def _beside(days: list[date]) -> tuple[date | None, date | None]:
    """The month before and the month after, by one of their days."""
    before = days[0] - timedelta(1) if days[0] > date.min else None
    return before, days[-1] + timedelta(1) if days[-1] < date.max else None


def _weeks(month: date, week_start: int) -> list[list[date | None]]:
    weeks = Calendar(week_start).monthdayscalendar(month.year, month.month)
    return [[month.replace(day=number) if number else None for number in week] for week in weeks]


async def _year(year: int) -> Response:
    """A year by the words that were written on each day."""
    first, last = date(year, 1, 1), date(year, 12, 31)
    words, complete = await get_services().search.word_counts_by_day(security.session().keys, first, last)
    months = [date(year, number, 1) for number in range(1, 13)]
    week_start = (await profile()).week_start
    return await page(
        "pages/year.html",
        year=first,
        months=[(month, _weeks(month, week_start), sum(words.get(day, 0) for day in _days(month))) for month in months],
        weekdays=weekday_names(week_start),
        words=words,
        levels={day: bisect_right(SHADES, count) for day, count in words.items()},
        complete=complete,
        now=await today(),
    )


@blueprint.get("/go")
async def go_to_day() -> Response:
    """To a day picked from the browser's own calendar."""
    now = await today()
    try:
        return see_other(f"/d/{parse_day(request.args.get('day', ''))}")
    except UnknownDay:
        return await _month(now, error="Choose a day first.", about="day", status=422)


@blueprint.post("/go")
async def go_to_words() -> Response:
    """To the day, or the month, that somebody typed; their words stay out of every address."""
    now = await today()
    words = (await field("when"))[:WORDS].strip()
    place = place_of(words, now)
    return see_other(place) if place else await _month(now, words=words, error=NO_DATE, about="when", status=422)


def place_of(words: str, now: date) -> str:
    """Where a typed date leads: to its day, and for a longer time to the month it begins in; "" for none."""
    # "Friday" and "March" alone are dates here, though not in a sentence.
    for phrase in (words, f"on {words}", f"in {words}"):
        found = parse_phrase(phrase, now, current().code)
        if found is None:
            continue
        if found.start == found.end:
            return f"/d/{found.start}"
        start = found.end if found.start == date.min else found.start
        if (found.start, found.end) == (date(start.year, 1, 1), date(start.year, 12, 31)):
            return f"/calendar/{start.year:04}"
        return f"/calendar/{start.isoformat()[:7]}"
    return ""


async def _month(month: date, *, words: str = "", error: str = "", about: str = "", status: int = 200) -> Response:
    keys = security.session().keys
    first, week_start = month.replace(day=1), (await profile()).week_start
    days = _days(first)
    before, after = _beside(days)
    return await page(
        "components/calendar.html" if is_fragment() else "pages/calendar.html",
        status=status,
        month=first,
        weeks=_weeks(first, week_start),
        weekdays=weekday_names(week_start),
        written=await get_services().journal.find_written_days(keys, days),
        now=await today(),
        previous_month=before,
        next_month=after,
        fragment=is_fragment(),
        words=words,
        error=error,
        about=about,
    )
