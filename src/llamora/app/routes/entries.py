"""Show, edit, delete, restore and answer an entry."""

from functools import partial
from typing import Any

from msgspec import structs
from quart import Blueprint, Response

from llamora.app.edge.forms import form_fields
from llamora.app.edge.rules import large_body
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.markdown import set_checkboxes
from llamora.app.pages import (
    current_user,
    field,
    is_fragment,
    number_field,
    parse_number,
    posted_form_token,
    redirect_303,
    render_template,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.entries import EntryView, entry_view, message_view, part_view, version_views
from llamora.journal.entries import EditConflict, EntryError
from llamora.persistence.connection import NotFound, StorageError

blueprint = Blueprint("entries", __name__)


@blueprint.get("/e/<entry_id:entry_id>")
async def show_entry(entry_id: bytes) -> Response:
    return await _entry(await _view(entry_id))


@blueprint.get("/e/<entry_id:entry_id>/edit")
async def edit_form(entry_id: bytes) -> Response:
    view = await _view(entry_id)
    if view.entry.role != "me":
        raise NotFound("reply_not_editable")
    return await _edit_page(view)


@blueprint.post("/e/<entry_id:entry_id>")
@large_body
async def edit_entry(entry_id: bytes) -> Response:
    """Save the new text of an entry; if it was changed elsewhere meanwhile, show both texts."""
    keys, text = (await current_user()).keys, await field("text")
    revision, form_token = await number_field("revision"), await posted_form_token()
    try:
        await get_services().journal.edit(keys, entry_id, text, revision, form_token)
    except EditConflict as conflict:
        error = _(
            "This entry was changed elsewhere in the meantime. Both are here; nothing is lost."
        )
        view = await _view(entry_id)
        return await _edit_page(view, 409, error=error, theirs=conflict.current.text, text=text)
    except NotFound:
        raise
    except (EntryError, StorageError) as error:
        view = await _view(entry_id)
        # So the next try is compared with the revision this user saw.
        view.entry = structs.replace(view.entry, revision=revision)
        return await _edit_page(view, error.status, error=describe(error), text=text)
    return await _entry(await _view(entry_id))


@blueprint.post("/e/<entry_id:entry_id>/tasks")
async def set_tasks(entry_id: bytes) -> Response:
    keys, revision = (await current_user()).keys, await number_field("revision")
    checked = {parse_number(number, -1) for number in await form_fields("box")}
    change = partial(set_checkboxes, checked_numbers=checked)
    status, problem = 200, ""
    try:
        await get_services().journal.rewrite(keys, entry_id, revision, change)
    except EditConflict:
        status = 409
        problem = _(
            "This entry was changed elsewhere in the meantime. This is how it stands now; tick the box once more."
        )
    view = await _view(entry_id)
    if problem and not is_fragment():
        title = _("Changed elsewhere")
        return await render_template(
            "pages/error.html", status, title=title, sentence=problem, advice=""
        )
    return await respond(
        status, view="views/tasks_saved.html", to=view.path, entry=view, tasks_problem=problem
    )


@blueprint.get("/e/<entry_id:entry_id>/more")
async def show_more(entry_id: bytes) -> Response:
    view = await _view(entry_id)
    return await respond(
        view="views/more.html", page="pages/entry.html", entry=view, is_more_open=True
    )


@blueprint.get("/e/<entry_id:entry_id>/parts/<number>")
async def show_part(entry_id: bytes, number: str) -> Response:
    part = parse_number(number)
    if part < 2:
        raise NotFound("entry_part_not_found")
    view = await part_view(await current_user(), entry_id, part)
    return await respond(view="views/prose.html", page="pages/part.html", entry=view)


@blueprint.get("/e/<entry_id:entry_id>/versions")
async def show_versions(entry_id: bytes) -> Response:
    return await _versions_page(entry_id)


@blueprint.post("/e/<entry_id:entry_id>/versions/<entry_id:version_id>")
async def restore_version(entry_id: bytes, version_id: bytes) -> Response:
    keys, revision = (await current_user()).keys, await number_field("revision")
    try:
        await get_services().versions.restore(keys, entry_id, version_id, revision)
    except EditConflict:
        error = _(
            "This entry was changed elsewhere in the meantime. This is how it stands now; bring it back once more."
        )
        return await _versions_page(entry_id, 409, error)
    return redirect_303((await _view(entry_id)).path)


@blueprint.post("/e/<entry_id:entry_id>/delete")
async def delete_entry(entry_id: bytes) -> Response:
    view = await _view(entry_id)
    await get_services().trash.delete((await current_user()).keys, entry_id)
    return await respond(
        view="views/entry_deleted.html", page="pages/entry_deleted.html", entry=view
    )


@blueprint.post("/e/<entry_id:entry_id>/restore")
async def restore_entry(entry_id: bytes) -> Response:
    await get_services().trash.restore((await current_user()).keys, entry_id)
    return await _entry(await _view(entry_id))


@blueprint.post("/e/<entry_id:entry_id>/answers")
@large_body
async def add_answer(entry_id: bytes) -> Response:
    user, text, ask = await current_user(), await field("text"), bool(await field("ask"))
    form_token = await posted_form_token()
    saved = await get_services().asking.answer(user, entry_id, text, form_token, ask=ask)
    messages = [await message_view(user, saved.answer.id)]
    if saved.reply:
        root = bytes.fromhex(messages[0].root)
        messages.append(await entry_view(user.keys, saved.reply, root))
    return await respond(
        view="views/messages.html",
        to=messages[-1].path,
        messages=messages,
        problem=describe(saved.problem),
        answered_id=entry_id.hex(),
    )


async def _view(entry_id: bytes) -> EntryView:
    return await message_view(await current_user(), entry_id)


async def _entry(view: EntryView) -> Response:
    return await respond(view="views/entry.html", to=view.path, entry=view)


async def _versions_page(entry_id: bytes, status: int = 200, error: str = "") -> Response:
    versions = await version_views(await current_user(), entry_id)
    view = await _view(entry_id)
    return await render_template(
        "pages/versions.html", status, entry=view, versions=versions, error=error
    )


async def _edit_page(view: EntryView, status: int = 200, **context: object) -> Response:
    shown: dict[str, Any] = {"error": "", "theirs": None, **context}
    return await respond(
        status, view="views/entry_edit.html", page="pages/edit.html", entry=view, **shown
    )
