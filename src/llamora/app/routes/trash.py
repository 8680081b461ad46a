"""What is deleted: see it, bring it back (routes/entries.py), erase it for good."""

from dataclasses import replace
from datetime import timedelta

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import ngettext
from llamora.app.pages import entry_id, is_fragment, model_hidden, page, profile, see_other
from llamora.app.services.container import get_services
from llamora.app.views import EntryView, entry_view
from llamora.dates import day_of, parse_zone, utc_now
from llamora.journal.citations import redact_erased
from llamora.journal.entries import TRASH_RETENTION
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry
from llamora.persistence.trash import DeletedEntry

blueprint = Blueprint("deleted", __name__)

OPENING = 420  # characters, some six lines


@blueprint.get("/deleted")
async def show_deleted() -> Response:
    """What can still be brought back."""
    here = parse_zone((await profile()).zone)
    items: list[dict[str, object]] = []
    hidden = await model_hidden()
    for entry, item in await get_services().journal.list_deleted(security.session().keys):
        if hidden and entry.role == "reply":
            continue
        deleted = day_of(item.deleted_at, here)
        items.append({"entry": await _view(entry), "deleted": deleted, "left": _left(item), "others": _others(item)})
    return await page("pages/trash.html", items=items)


@blueprint.get("/e/<text>/deleted")
async def show_way_back(text: str) -> Response:
    """What stands in the place of a deleted entry."""
    entry, _ = await _deleted(text)
    return await page(
        "components/entry_deleted.html" if is_fragment() else "pages/deleted.html", entry=await _view(entry)
    )


@blueprint.get("/e/<text>/erase")
async def ask_to_erase(text: str) -> Response:
    """The question before an entry is erased for good."""
    entry, item = await _deleted(text)
    template = "components/entry_erase.html" if is_fragment() else "pages/erase.html"
    return await page(template, entry=await _view(entry), others=_others(item), others_count=len(item.thread_ids))


@blueprint.post("/e/<text>/erase")
async def erase(text: str) -> Response:
    """Erase a deleted entry for good."""
    services, keys, wanted = get_services(), security.session().keys, entry_id(text)
    _, item = await services.journal.get_deleted(keys, wanted)
    services.replies.cancel_for([item.id, *item.thread_ids])
    await services.journal.erase(keys, wanted)
    return await page("components/entry_erased.html", id=text) if is_fragment() else see_other("/deleted")


async def _deleted(text: str) -> tuple[Entry, DeletedEntry]:
    """A deleted entry that may be shown: no reply where they are turned off. Raises NotFound."""
    entry, item = await get_services().journal.get_deleted(security.session().keys, entry_id(text))
    if entry.role == "reply" and await model_hidden():
        raise NotFound("There is no such entry.")
    return entry, item


async def _view(entry: Entry) -> EntryView:
    """A deleted entry by its opening, enough to know it again; of a reply, without what its page would hide."""
    hidden = await get_services().journal.find_hidden_sources(security.session().keys, [entry])
    entry = redact_erased(entry, hidden, filter(None, hidden.values())) or entry
    text = entry.text
    if len(text) > OPENING:
        text = text[:OPENING].rsplit(None, 1)[0] + " …"
    return await entry_view(replace(entry, text=text), entry.id if entry.parent_id is None else b"")


def _others(item: DeletedEntry) -> str:
    """What goes with an entry, in words."""
    if not item.thread_ids:
        return ""
    count = len(item.thread_ids)
    return ngettext("the message under it", "the %(num)s messages under it", count) % {"num": count}


def _left(item: DeletedEntry) -> str:
    days = -((utc_now() - item.deleted_at - TRASH_RETENTION) // timedelta(days=1))
    return ngettext("erased within a day", "erased in %(num)s days", max(days, 1)) % {"num": days}
