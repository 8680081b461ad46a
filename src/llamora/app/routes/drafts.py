"""Drafts: what is being written is kept, sealed, until it is kept for good or let go."""

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    is_fragment,
    number_field,
    parse_entry_id,
    posted_form_token,
    redirect_303,
    render_template,
)
from llamora.app.services.container import get_services
from llamora.app.views import message_view
from llamora.journal.entries import EntryError
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, edit_draft_key

blueprint = Blueprint("drafts", __name__)


@blueprint.post("/drafts")
async def save_draft() -> Response:
    """Keep what is being written somewhere; 204, and 205 when the same pen has kept it for good meanwhile."""
    keys, form_token = security.require_session().keys, await posted_form_token()
    if form_token is None:
        raise NotFound("draft_place_unknown")
    draft = Draft(
        await field("draft_key"),
        await field("text"),
        form_token.id,
        await number_field("count"),
        await number_field("revision"),
    )
    try:
        saved = await get_services().journal.save_draft(keys, draft)
    except EntryError as error:
        return await render_template(
            "pages/error.html",
            status=error.status,
            title=_("Not kept as a draft"),
            sentence=describe(error),
            advice="",
        )
    if saved:
        return Response(status=204)
    # A browser reads no body after 205, and Hypercorn would send an empty chunk, which stands before the next answer.
    return Response(status=205, headers={"Content-Length": "0"})


@blueprint.post("/e/<entry_hex>/leave")
async def discard_edit(entry_hex: str) -> Response:
    """Let the edit of an entry go: it stays as it is."""
    journal, keys, entry_id = (
        get_services().journal,
        security.require_session().keys,
        parse_entry_id(entry_hex),
    )
    await journal.get(keys, entry_id)
    await journal.discard_draft(keys, edit_draft_key(entry_id))
    view = await message_view(keys, entry_id)
    if is_fragment():
        return await render_template("components/entry.html", entry=view)
    return redirect_303(f"/d/{view.day}#e-{view.id}")
