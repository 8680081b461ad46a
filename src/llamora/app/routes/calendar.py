"""The calendar: a month, the days that have something on them, and the way to any date."""

from calendar import Calendar
from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.languages import weekday_names
from llamora.app.pages import field, is_fragment, page, profile, see_other, today
from llamora.app.services.container import get_services
from llamora.clock import UnknownDay, parse_day, parse_phrase
from llamora.persistence.connection import NotFound

blueprint = Blueprint("calendar", __name__)

WORDS = 200
NO_DATE = "That is not a date the calendar knows. Try “12 March 2024”, “last Friday” or “2024-03-12”."


@blueprint.get("/calendar")
async def this_month() -> Response:
    """The month it is for the writer."""
    return await _month(await today())


@blueprint.get("/calendar/<text>")
async def show_month(text: str) -> Response:
    """Any month."""
    try:
        month = parse_day(f"{text}-01")
    except UnknownDay:
        raise NotFound("There is no such month. A month's address looks like /calendar/2026-11.") from None
    return await _month(month)


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
    place = _place(words, now)
    return see_other(place) if place else await _month(now, words=words, error=NO_DATE, about="when", status=422)


def _place(words: str, now: date) -> str:
    """Where a typed date leads: to its day, and for a longer time to the month it begins in; "" for none."""
    # "Friday" and "March" alone are dates here, though not in a sentence.
    for phrase in (words, f"on {words}", f"in {words}"):
        found = parse_phrase(phrase, now)
        if found is None:
            continue
        if found.start == found.end:
            return f"/d/{found.start}"
        start = found.end if found.start == date.min else found.start
        return f"/calendar/{start.isoformat()[:7]}"
    return ""


async def _month(month: date, *, words: str = "", error: str = "", about: str = "", status: int = 200) -> Response:
    keys = security.session().keys
    first, week_start = month.replace(day=1), (await profile()).week_start
    weeks = [
        [first.replace(day=number) if number else None for number in week]
        for week in Calendar(week_start).monthdayscalendar(first.year, first.month)
    ]
    days = [day for week in weeks for day in week if day]
    return await page(
        "components/calendar.html" if is_fragment() else "pages/calendar.html",
        status=status,
        month=first,
        weeks=weeks,
        weekdays=weekday_names(week_start),
        written=await get_services().journal.written_days(keys, days),
        now=await today(),
        previous_month=first - timedelta(1) if first > date.min else None,
        next_month=days[-1] + timedelta(1) if days[-1] < date.max else None,
        fragment=is_fragment(),
        words=words,
        error=error,
        about=about,
    )
