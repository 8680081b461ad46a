"""A range of days as one document, to be printed."""

from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.pages import page, profile, today
from llamora.app.services.container import get_services
from llamora.app.views import page_views
from llamora.dates import UnknownDay, parse_day

blueprint = Blueprint("printing", __name__)

MOST_DAYS = 366


@blueprint.get("/print")
async def show() -> Response:
    """Ask for the days; with both of them, show what is on them."""
    keys, now = security.session().keys, await today()
    asked = request.args.get("from", ""), request.args.get("to", "")
    if not any(asked):
        return await page("pages/print.html", first=now.replace(day=1), last=now, pages=None, error="", replies=True)
    replies = "replies" in request.args
    try:
        first, last = parse_day(asked[0]), parse_day(asked[1])
    except UnknownDay:
        error = "Choose the first day and the last."
        return await page("pages/print.html", 422, first=now, last=now, pages=None, error=error, replies=replies)
    error = _wrong(first, last)
    if error:
        return await page("pages/print.html", 422, first=first, last=last, pages=None, error=error, replies=replies)
    journal = get_services().journal
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    written = await journal.find_written_days(keys, days)
    shown = (await profile()).replies
    read = [(day, await journal.get_page(keys, day)) for day in days if day in written]
    found = [(day, await page_views(keys, threads, with_replies=shown, whole=True)) for day, threads in read]
    if not replies:
        for _day, entries in found:
            for entry in entries:
                entry.thread = [message for message in entry.thread if message.role == "me"]
    return await page("pages/print.html", first=first, last=last, pages=found, error="", replies=replies)


def _wrong(first: date, last: date) -> str:
    if last < first:
        return "The last day comes before the first. Change one of them."
    if (last - first).days >= MOST_DAYS:
        return "That is more than a year. Print it year by year."
    return ""
