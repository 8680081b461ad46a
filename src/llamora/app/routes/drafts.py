"""Drafts: unsaved text, sealed until it is saved or discarded."""

from quart import Blueprint, Response

from llamora.app.edge.rules import large_body, titled
from llamora.app.i18n import gettext_noop
from llamora.app.pages import current_user, field, number_field, posted_form_token, respond
from llamora.app.services.container import get_services
from llamora.app.views.entries import message_view
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, edit_draft_key

blueprint = Blueprint("drafts", __name__)
(NOT_KEPT,) = gettext_noop("Not kept as a draft")


@blueprint.post("/drafts")
@large_body
@titled(NOT_KEPT)
async def save_draft() -> Response:
    """Save a draft and answer 204.

    Answers 205 when the same form has been saved as an entry meanwhile, or has sent a later draft.
    Raises NotFound for a missing or malformed form token.
    """
    keys, form_token = (await current_user()).keys, await posted_form_token()
    if form_token is None:
        raise NotFound("draft_place_unknown")
    draft = Draft(
        await field("draft_key"),
        await field("text"),
        form_token.id,
        await number_field("count"),
        await number_field("revision"),
    )
    if await get_services().drafts.save(keys, draft):
        return Response(status=204)
    # Browsers read no body after 205; without a length, Hypercorn would send an empty chunk that
    # ends up before the next response.
    return Response(status=205, headers={"Content-Length": "0"})


@blueprint.post("/e/<entry_id:entry_id>/leave")
async def discard_edit(entry_id: bytes) -> Response:
    user = await current_user()
    await get_services().drafts.discard(user.keys, edit_draft_key(entry_id))
    view = await message_view(user, entry_id)
    return await respond(view="views/entry.html", to=view.path, entry=view)
