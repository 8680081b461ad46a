"""Drafts: what is being written is kept, sealed, until it is kept for good or let go."""

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import gettext as _
from llamora.app.pages import entry_id, field, is_fragment, number_field, page, posted_pen, see_other
from llamora.app.services.container import get_services
from llamora.app.views import message_view
from llamora.journal.entries import EntryError
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, edit_draft_key

blueprint = Blueprint("drafts", __name__)


@blueprint.post("/drafts")
async def save() -> Response:
    """Keep what is being written somewhere; 204, and 205 when the same pen has kept it for good meanwhile."""
    keys, pen = security.session().keys, await posted_pen()
    if pen is None:
        raise NotFound("There is no such place to write.")
    draft = Draft(
        await field("place"), await field("text"), pen.id, await number_field("count"), await number_field("revision")
    )
    try:
        saved = await get_services().journal.save_draft(keys, draft)
    except EntryError as error:
        return await page(
            "pages/error.html", status=422, title=_("Not kept as a draft"), sentence=str(error), what_to_do=""
        )
    if saved:
        return Response(status=204)
    # A browser reads no body after 205, and Hypercorn would send an empty chunk, which stands before the next answer.
    return Response(status=205, headers={"Content-Length": "0"})


@blueprint.post("/e/<text>/leave")
async def leave(text: str) -> Response:
    """Let the edit of an entry go: it stays as it is."""
    journal, keys, wanted = get_services().journal, security.session().keys, entry_id(text)
    await journal.get(keys, wanted)
    await journal.discard_draft(keys, edit_draft_key(wanted))
    view = await message_view(keys, wanted)
    if is_fragment():
        return await page("components/entry.html", entry=view)
    return see_other(f"/d/{view.day}#e-{view.id}")
