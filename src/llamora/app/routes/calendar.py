"""The calendar: a month, a year, the days with entries, and the way to any date."""

import re
from bisect import bisect_right
from datetime import date

from quart import Blueprint, Response, request

from llamora.app.addresses import NoSuchAddress, day_path, parse_iso_day, parse_month, path_for_date
from llamora.app.i18n import gettext as _
from llamora.app.i18n import weekday_names
from llamora.app.pages import (
    current_user,
    field,
    is_fragment,
    redirect_303,
    render_template,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.entries import page_views
from llamora.app.views.months import adjacent_months, days_of_month, month_context, weeks_of_month

blueprint = Blueprint("calendar", __name__)

MAX_PHRASE_CHARACTERS = 200
SHADE_WORD_COUNTS = (1, 100, 300, 700)  # words from which a day gets the next darker shade


@blueprint.get("/calendar")
async def show_current_month() -> Response:
    return await _month_page((await current_user()).today)


@blueprint.get("/calendar/<period>")
async def show_month(period: str) -> Response:
    if re.fullmatch(r"[0-9]{4}", period) and int(period):
        return await _year_page(int(period))
    try:
        return await _month_page(parse_month(period))
    except ValueError:
        raise NoSuchAddress("month_not_found") from None


@blueprint.get("/m/<month:month>")
async def read_month(month: date) -> Response:
    user = await current_user()
    fingerprint, pages = await get_services().days.read(user.keys, days_of_month(month))
    return await respond(
        view="views/month.html",
        page="pages/month.html",
        month=month,
        fingerprint=fingerprint,
        pages=[(day, await page_views(user, threads)) for day, threads in pages],
        **adjacent_months(month),
    )


async def _year_page(year: int) -> Response:
    user, first, last = await current_user(), date(year, 1, 1), date(year, 12, 31)
    words, complete = await get_services().search.word_counts_by_day(user.keys, first, last)
    months = [date(year, number, 1) for number in range(1, 13)]
    week_start = user.profile.week_start
    return await render_template(
        "pages/year.html",
        year=first,
        months=[
            (
                month,
                weeks_of_month(month, week_start),
                sum(words.get(day, 0) for day in days_of_month(month)),
            )
            for month in months
        ],
        weekdays=weekday_names(week_start),
        words=words,
        levels={day: bisect_right(SHADE_WORD_COUNTS, count) for day, count in words.items()},
        complete=complete,
        now=user.today,
    )


@blueprint.get("/go")
async def go_to_day() -> Response:
    try:
        return redirect_303(day_path(parse_iso_day(request.args.get("day", ""))))
    except ValueError:
        today = (await current_user()).today
        return await _month_page(today, 422, error=_("Choose a day first."), about="day")


@blueprint.post("/go")
async def go_to_phrase() -> Response:
    """Redirect to a typed day or month; the phrase itself stays out of every address."""
    today = (await current_user()).today
    phrase = (await field("when"))[:MAX_PHRASE_CHARACTERS].strip()
    if path := path_for_date(phrase, today):
        return redirect_303(path)
    error = _(
        "That is not a date the calendar knows. Try “12 March 2024”, “last Friday” or “2024-03-12”."
    )
    return await _month_page(today, 422, phrase=phrase, error=error, about="when")


async def _month_page(
    month: date, status: int = 200, *, phrase: str = "", error: str = "", about: str = ""
) -> Response:
    return await respond(
        status,
        view="views/calendar.html",
        page="pages/calendar.html",
        fragment=is_fragment(),
        words=phrase,
        error=error,
        about=about,
        **await month_context(await current_user(), month),
    )
