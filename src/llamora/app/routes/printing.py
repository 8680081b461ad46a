"""Print a range of days as one document."""

from datetime import date, timedelta

from quart import Blueprint, Response, request

from llamora.app.addresses import parse_iso_day
from llamora.app.i18n import gettext as _
from llamora.app.pages import current_user, render_template
from llamora.app.services.container import get_services
from llamora.app.views.entries import EntryView, page_views

blueprint = Blueprint("printing", __name__)

MOST_DAYS = 366


@blueprint.get("/print")
async def print_pages() -> Response:
    """Show the form for a range of days, or the entries of the range given by `from` and `to`."""
    user = await current_user()
    from_text, to_text = request.args.get("from", ""), request.args.get("to", "")
    with_replies = "replies" in request.args
    if not from_text and not to_text:
        return await _page(user.today.replace(day=1), user.today)
    try:
        first, last = parse_iso_day(from_text), parse_iso_day(to_text)
    except ValueError:
        error = _("Choose the first day and the last.")
        return await _page(user.today, user.today, error, replies=with_replies)
    if error := _range_error(first, last):
        return await _page(first, last, error, replies=with_replies)
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    _fingerprint, stored = await get_services().days.read(user.keys, days)
    pages = [(day, await page_views(user, threads, full_text=True)) for day, threads in stored]
    if not with_replies:
        for entry in (entry for _day, entries in pages for entry in entries):
            entry.thread = [message for message in entry.thread if message.role == "me"]
    return await _page(first, last, pages=pages, replies=with_replies)


async def _page(
    first: date,
    last: date,
    error: str = "",
    *,
    pages: list[tuple[date, list[EntryView]]] | None = None,
    replies: bool = True,
) -> Response:
    return await render_template(
        "pages/print.html",
        422 if error else 200,
        first=first,
        last=last,
        pages=pages,
        error=error,
        replies=replies,
    )


def _range_error(first: date, last: date) -> str:
    if last < first:
        return _("The last day comes before the first. Change one of them.")
    if (last - first).days >= MOST_DAYS:
        return _("That is more than a year. Print it year by year.")
    return ""
