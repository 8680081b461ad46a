"""Deleted entries: list and erase them (routes/entries.py restores them)."""

from datetime import timedelta
from typing import Any

from quart import Blueprint, Response

from llamora.app.i18n import ngettext
from llamora.app.pages import current_user, render_template, respond
from llamora.app.services.container import get_services
from llamora.app.views.entries import excerpt_view
from llamora.dates import day_of, utc_now
from llamora.journal.trash import TRASH_RETENTION
from llamora.persistence.trash import DeletedEntry

blueprint = Blueprint("trash", __name__)


@blueprint.get("/deleted")
async def show_trash() -> Response:
    user = await current_user()
    items: list[dict[str, object]] = [
        {
            "entry": await excerpt_view(user.keys, entry),
            "deleted": day_of(item.deleted_at, user.zone),
            "days_left": _days_left(item),
            "others": _describe_others(item),
        }
        for entry, item in await get_services().trash.list_shown(user)
    ]
    return await render_template("pages/trash.html", items=items)


@blueprint.get("/e/<entry_id:entry_id>/deleted")
async def show_deleted_entry(entry_id: bytes) -> Response:
    """Show what stands in the place of a deleted entry."""
    context = await _deleted_context(entry_id)
    return await respond(
        view="views/entry_deleted.html", page="pages/entry_deleted.html", **context
    )


@blueprint.get("/e/<entry_id:entry_id>/erase")
async def confirm_erase(entry_id: bytes) -> Response:
    context = await _deleted_context(entry_id)
    return await respond(view="views/entry_erase.html", page="pages/erase.html", **context)


@blueprint.post("/e/<entry_id:entry_id>/erase")
async def erase(entry_id: bytes) -> Response:
    await get_services().trash.erase((await current_user()).keys, entry_id)
    return await respond(view="views/entry_erased.html", to="/deleted", id=entry_id.hex())


async def _deleted_context(entry_id: bytes) -> dict[str, Any]:
    user = await current_user()
    entry, item = await get_services().trash.get_shown(user, entry_id)
    return {
        "entry": await excerpt_view(user.keys, entry),
        "others": _describe_others(item),
        "others_count": len(item.thread_ids),
    }


def _describe_others(item: DeletedEntry) -> str:
    if not item.thread_ids:
        return ""
    count = len(item.thread_ids)
    return ngettext("the message under it", "the %(num)s messages under it", count) % {"num": count}


def _days_left(item: DeletedEntry) -> str:
    days = -((utc_now() - item.deleted_at - TRASH_RETENTION) // timedelta(days=1))
    return ngettext("erased within a day", "erased in %(num)s days", max(days, 1)) % {"num": days}
