"""The calendar: a month, a year, the days with entries, and the way to any date."""

import re
from bisect import bisect_right
from calendar import Calendar, monthrange
from datetime import date, timedelta
from hashlib import blake2b

from quart import Blueprint, Response, request

from llamora.app.edge import sessions
from llamora.app.i18n import current_language, weekday_names
from llamora.app.i18n import gettext as _
from llamora.app.pages import field, get_profile, is_fragment, redirect_303, render_template, today
from llamora.app.services.container import get_services
from llamora.app.views import page_views
from llamora.dates import UnknownDay, parse_day, parse_phrase
from llamora.persistence.connection import NotFound
from llamora.vault.keys import Keyring

blueprint = Blueprint("calendar", __name__)

MAX_PHRASE_CHARACTERS = 200
SHADE_WORD_COUNTS = (
    1,
    100,
    300,
    700,
)  # words from which a day gets the next darker shade


@blueprint.get("/calendar")
async def show_current_month() -> Response:
    """Show the current month in the user's time zone."""
    return await _month_page(await today())


@blueprint.get("/calendar/<period>")
async def show_month(period: str) -> Response:
    """Show a month (`2026-11`) or a year (`2026`)."""
    if re.fullmatch(r"[0-9]{4}", period) and int(period):
        return await _year_page(int(period))
    return await _month_page(parse_month_or_404(period))


@blueprint.get("/m/<month_text>")
async def read_month(month_text: str) -> Response:
    """Show all entries of a month on one page."""
    first = parse_month_or_404(month_text)
    services, keys = get_services(), sessions.require_session().keys
    days = _days_of_month(first)
    fingerprint = await month_fingerprint(
        keys, first
    )  # before reading, so that later changes are noticed
    threads_by_day = [(day, await services.journal.get_page(keys, day)) for day in days]
    with_replies = (await get_profile()).replies
    pages = [
        (day, await page_views(keys, threads, with_replies=with_replies))
        for day, threads in threads_by_day
        if threads
    ]
    previous_month, next_month = _adjacent_months(days)
    return await render_template(
        "views/month.html" if is_fragment() else "pages/month.html",
        month=first,
        fingerprint=fingerprint,
        pages=pages,
        previous_month=previous_month,
        next_month=next_month,
    )


async def month_fingerprint(keys: Keyring, month: date) -> str:
    """Return a hash that changes with any entry or tag of a month."""
    db = get_services().db
    revisions = (
        await db.entries.revisions_on(keys, _days_of_month(month)),
        await db.tags.get_revision(keys.user_id),
    )
    return blake2b(
        repr((sorted(revisions[0].items()), revisions[1])).encode(), digest_size=8
    ).hexdigest()


def parse_month_or_404(month_text: str) -> date:
    """Return the first day of the month in an address. Raises NotFound if malformed."""
    try:
        return parse_day(f"{month_text}-01")
    except UnknownDay:
        raise NotFound("month_not_found") from None


def _days_of_month(month: date) -> list[date]:
    return [
        month.replace(day=number) for number in range(1, monthrange(month.year, month.month)[1] + 1)
    ]


def _adjacent_months(days: list[date]) -> tuple[date | None, date | None]:
    """Return a day of the previous month and one of the next; None beyond the calendar."""
    previous_month = days[0] - timedelta(1) if days[0] > date.min else None
    return previous_month, days[-1] + timedelta(1) if days[-1] < date.max else None


def _weeks_of_month(month: date, week_start: int) -> list[list[date | None]]:
    weeks = Calendar(week_start).monthdayscalendar(month.year, month.month)
    return [[month.replace(day=number) if number else None for number in week] for week in weeks]


async def _year_page(year: int) -> Response:
    """Show a year, with its days shaded by the number of words written."""
    first, last = date(year, 1, 1), date(year, 12, 31)
    words, complete = await get_services().search.word_counts_by_day(
        sessions.require_session().keys, first, last
    )
    months = [date(year, number, 1) for number in range(1, 13)]
    week_start = (await get_profile()).week_start
    return await render_template(
        "pages/year.html",
        year=first,
        months=[
            (
                month,
                _weeks_of_month(month, week_start),
                sum(words.get(day, 0) for day in _days_of_month(month)),
            )
            for month in months
        ],
        weekdays=weekday_names(week_start),
        words=words,
        levels={day: bisect_right(SHADE_WORD_COUNTS, count) for day, count in words.items()},
        complete=complete,
        now=await today(),
    )


@blueprint.get("/go")
async def go_to_day() -> Response:
    """Redirect to a day picked from the browser's date field."""
    today_date = await today()
    try:
        return redirect_303(f"/d/{parse_day(request.args.get('day', ''))}")
    except UnknownDay:
        return await _month_page(
            today_date, error=_("Choose a day first."), about="day", status=422
        )


@blueprint.post("/go")
async def go_to_phrase() -> Response:
    """Redirect to a typed day or month; the phrase itself stays out of every address."""
    today_date = await today()
    phrase = (await field("when"))[:MAX_PHRASE_CHARACTERS].strip()
    if path := path_for_date(phrase, today_date):
        return redirect_303(path)
    error = _(
        "That is not a date the calendar knows. Try “12 March 2024”, “last Friday” or “2024-03-12”."
    )
    return await _month_page(today_date, phrase=phrase, error=error, about="when", status=422)


def path_for_date(phrase: str, today_date: date) -> str:
    """Return the path for a typed date; "" if it is not one.

    A day leads to its page, a longer span to its year or to the month in which it begins.
    """
    # "Friday" and "March" alone are dates here, though not within a sentence.
    for candidate in (phrase, f"on {phrase}", f"in {phrase}"):
        span = parse_phrase(candidate, today_date, current_language().code)
        if span is None:
            continue
        if span.start == span.end:
            return f"/d/{span.start}"
        start = span.end if span.start == date.min else span.start
        if (span.start, span.end) == (date(start.year, 1, 1), date(start.year, 12, 31)):
            return f"/calendar/{start.year:04}"
        return f"/calendar/{start.isoformat()[:7]}"
    return ""


async def _month_page(
    month: date, *, phrase: str = "", error: str = "", about: str = "", status: int = 200
) -> Response:
    keys = sessions.require_session().keys
    first, week_start = month.replace(day=1), (await get_profile()).week_start
    days = _days_of_month(first)
    previous_month, next_month = _adjacent_months(days)
    return await render_template(
        "views/calendar.html" if is_fragment() else "pages/calendar.html",
        status=status,
        month=first,
        weeks=_weeks_of_month(first, week_start),
        weekdays=weekday_names(week_start),
        days_with_entries=await get_services().journal.find_written_days(keys, days),
        now=await today(),
        previous_month=previous_month,
        next_month=next_month,
        fragment=is_fragment(),
        words=phrase,
        error=error,
        about=about,
    )
