"""Print a range of days as one document."""

from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app.edge import sessions
from llamora.app.i18n import gettext as _
from llamora.app.pages import get_profile, render_template, today
from llamora.app.services.container import get_services
from llamora.app.views import page_views
from llamora.dates import UnknownDay, parse_day

blueprint = Blueprint("printing", __name__)

MOST_DAYS = 366


@blueprint.get("/print")
async def print_pages() -> Response:
    """Show the form for a range of days, or the entries of the range given by `from` and `to`."""
    keys, today_date = sessions.require_session().keys, await today()
    from_and_to = request.args.get("from", ""), request.args.get("to", "")
    if not any(from_and_to):
        return await render_template(
            "pages/print.html",
            first=today_date.replace(day=1),
            last=today_date,
            pages=None,
            error="",
            replies=True,
        )
    with_replies = "replies" in request.args
    try:
        first, last = parse_day(from_and_to[0]), parse_day(from_and_to[1])
    except UnknownDay:
        error = _("Choose the first day and the last.")
        return await render_template(
            "pages/print.html",
            422,
            first=today_date,
            last=today_date,
            pages=None,
            error=error,
            replies=with_replies,
        )
    error = _range_error(first, last)
    if error:
        return await render_template(
            "pages/print.html",
            422,
            first=first,
            last=last,
            pages=None,
            error=error,
            replies=with_replies,
        )
    journal = get_services().journal
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    days_with_entries = await journal.find_written_days(keys, days)
    replies_enabled = (await get_profile()).replies
    threads_by_day = [
        (day, await journal.get_page(keys, day)) for day in days if day in days_with_entries
    ]
    pages = [
        (day, await page_views(keys, threads, with_replies=replies_enabled, full_text=True))
        for day, threads in threads_by_day
    ]
    if not with_replies:
        for _day, entries in pages:
            for entry in entries:
                entry.thread = [message for message in entry.thread if message.role == "me"]
    return await render_template(
        "pages/print.html", first=first, last=last, pages=pages, error="", replies=with_replies
    )


def _range_error(first: date, last: date) -> str:
    if last < first:
        return _("The last day comes before the first. Change one of them.")
    if (last - first).days >= MOST_DAYS:
        return _("That is more than a year. Print it year by year.")
    return ""
