"""Drafts: unsaved text, sealed until it is saved or discarded."""

from quart import Blueprint, Response

from llamora.app.edge import sessions
from llamora.app.edge.rules import large_body
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
@large_body
async def save_draft() -> Response:
    """Save a draft and answer 204.

    Answers 205 when the same form has been saved as an entry meanwhile, or has sent a later draft.
    Raises NotFound for a missing or malformed form token.
    """
    keys, form_token = sessions.require_session().keys, await posted_form_token()
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
        saved = await get_services().drafts.save(keys, draft)
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
    # Browsers read no body after 205; without a length, Hypercorn would send an empty chunk that
    # ends up before the next response.
    return Response(status=205, headers={"Content-Length": "0"})


@blueprint.post("/e/<entry_hex>/leave")
async def discard_edit(entry_hex: str) -> Response:
    """Discard the draft of an edit; the entry stays as it is."""
    journal, keys, entry_id = (
        get_services().journal,
        sessions.require_session().keys,
        parse_entry_id(entry_hex),
    )
    await journal.get(keys, entry_id)
    await get_services().drafts.discard(keys, edit_draft_key(entry_id))
    view = await message_view(keys, entry_id)
    if is_fragment():
        return await render_template("views/entry.html", entry=view)
    return redirect_303(f"/d/{view.day}#e-{view.id}")
