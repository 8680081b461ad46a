"""Deleted entries: list and erase them (routes/entries.py restores them)."""

from datetime import timedelta

from msgspec.structs import replace
from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import ngettext
from llamora.app.pages import (
    get_profile,
    is_fragment,
    parse_entry_id,
    redirect_303,
    render_template,
    replies_disabled,
)
from llamora.app.services.container import get_services
from llamora.app.views import EntryView, entry_view
from llamora.dates import day_of, parse_zone, utc_now
from llamora.journal.citations import redact_erased
from llamora.journal.entries import TRASH_RETENTION
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry
from llamora.persistence.trash import DeletedEntry

blueprint = Blueprint("trash", __name__)

EXCERPT_CHARACTERS = 420  # about six lines


@blueprint.get("/deleted")
async def show_trash() -> Response:
    """Show the deleted entries that can still be restored."""
    tz = parse_zone((await get_profile()).zone)
    items: list[dict[str, object]] = []
    hide_replies = await replies_disabled()
    for entry, item in await get_services().journal.list_deleted(security.require_session().keys):
        if hide_replies and entry.role == "reply":
            continue
        deleted_on = day_of(item.deleted_at, tz)
        items.append(
            {
                "entry": await _excerpt_view(entry),
                "deleted": deleted_on,
                "days_left": _days_left(item),
                "others": _describe_others(item),
            }
        )
    return await render_template("pages/trash.html", items=items)


@blueprint.get("/e/<entry_hex>/deleted")
async def show_deleted_entry(entry_hex: str) -> Response:
    """Show what stands in the place of a deleted entry."""
    entry, _ = await _find_deleted(entry_hex)
    return await render_template(
        "components/entry_deleted.html" if is_fragment() else "pages/entry_deleted.html",
        entry=await _excerpt_view(entry),
    )


@blueprint.get("/e/<entry_hex>/erase")
async def confirm_erase(entry_hex: str) -> Response:
    """Ask for confirmation before an entry is erased for good."""
    entry, item = await _find_deleted(entry_hex)
    template = "components/entry_erase.html" if is_fragment() else "pages/erase.html"
    return await render_template(
        template,
        entry=await _excerpt_view(entry),
        others=_describe_others(item),
        others_count=len(item.thread_ids),
    )


@blueprint.post("/e/<entry_hex>/erase")
async def erase(entry_hex: str) -> Response:
    """Erase a deleted entry for good."""
    services, keys, entry_id = (
        get_services(),
        security.require_session().keys,
        parse_entry_id(entry_hex),
    )
    _, item = await services.journal.get_deleted(keys, entry_id)
    services.replies.cancel_for([item.id, *item.thread_ids])
    await services.journal.erase(keys, entry_id)
    return (
        await render_template("components/entry_erased.html", id=entry_hex)
        if is_fragment()
        else redirect_303("/deleted")
    )


async def _find_deleted(entry_hex: str) -> tuple[Entry, DeletedEntry]:
    """Return a deleted entry. Raises NotFound, also for a reply if replies are turned off."""
    entry, item = await get_services().journal.get_deleted(
        security.require_session().keys, parse_entry_id(entry_hex)
    )
    if entry.role == "reply" and await replies_disabled():
        raise NotFound("entry_not_found")
    return entry, item


async def _excerpt_view(entry: Entry) -> EntryView:
    """Return the view of the beginning of a deleted entry.

    A reply shows no text that its page would hide.
    """
    keys = security.require_session().keys
    hidden = await get_services().journal.find_hidden_sources(keys, [entry])
    entry = redact_erased(entry, hidden, filter(None, hidden.values())) or entry
    text = entry.text
    if len(text) > EXCERPT_CHARACTERS:
        text = text[:EXCERPT_CHARACTERS].rsplit(None, 1)[0] + " …"
    return await entry_view(
        keys, replace(entry, text=text), entry.id if entry.parent_id is None else b""
    )


def _describe_others(item: DeletedEntry) -> str:
    """Describe the messages of the thread that are deleted with an entry."""
    if not item.thread_ids:
        return ""
    count = len(item.thread_ids)
    return ngettext("the message under it", "the %(num)s messages under it", count) % {"num": count}


def _days_left(item: DeletedEntry) -> str:
    days = -((utc_now() - item.deleted_at - TRASH_RETENTION) // timedelta(days=1))
    return ngettext("erased within a day", "erased in %(num)s days", max(days, 1)) % {"num": days}
