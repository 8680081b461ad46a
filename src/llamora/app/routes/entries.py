"""Show, edit, delete, restore and answer an entry."""

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.markdown import render, set_checkboxes
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    number_field,
    parse_entry_id,
    posted_form_token,
    redirect_303,
    render_template,
    replies_disabled,
    today,
)
from llamora.app.rendering import get_renderer
from llamora.app.services.container import get_services
from llamora.app.views import EntryView, entry_view, message_view, part_view
from llamora.journal.entries import EditConflict, EntryError
from llamora.journal.replies import SOURCE_DELETED
from llamora.llm.errors import ModelError
from llamora.persistence.connection import NotFound, StorageError

blueprint = Blueprint("entries", __name__)


@blueprint.get("/e/<entry_hex>")
async def show_entry(entry_hex: str) -> Response:
    """Show an entry as its page does."""
    view = await _view(entry_hex)
    return (
        await render_template("components/entry.html", entry=view)
        if is_fragment()
        else redirect_303(_entry_path(view))
    )


@blueprint.get("/e/<entry_hex>/edit")
async def edit_form(entry_hex: str) -> Response:
    """Show the form to edit an entry."""
    view = await _view(entry_hex)
    if view.role != "me":
        raise NotFound("reply_not_editable")
    return await _edit_page(view)


@blueprint.post("/e/<entry_hex>")
async def edit_entry(entry_hex: str) -> Response:
    """Save the new text of an entry; if it was changed elsewhere meanwhile, show both texts."""
    keys = security.require_session().keys
    entry_id = parse_entry_id(entry_hex)
    text, revision = await field("text"), await number_field("revision")
    try:
        await get_services().journal.edit(keys, entry_id, text, revision, await posted_form_token())
    except EditConflict as conflict:
        error = _(
            "This entry was changed elsewhere in the meantime. Both are here; nothing is lost."
        )
        view = await _view(entry_hex)
        return await _edit_page(
            view, status=409, error=error, theirs=conflict.current.text, text=text
        )
    except (EntryError, StorageError) as error:
        if isinstance(error, NotFound):
            raise
        view = await _view(entry_hex)
        view.revision = revision  # so the next try is compared with the revision this user saw
        return await _edit_page(view, status=error.status, error=describe(error), text=text)
    view = await _view(entry_hex)
    return (
        await render_template("components/entry.html", entry=view)
        if is_fragment()
        else redirect_303(_entry_path(view))
    )


@blueprint.post("/e/<entry_hex>/tasks")
async def set_tasks(entry_hex: str) -> Response:
    """Save the checkboxes of an entry as an edit."""
    keys, entry_id = security.require_session().keys, parse_entry_id(entry_hex)
    entry = await get_services().journal.get(keys, entry_id)
    checked_numbers = {
        int(number)
        for number in await security.form_fields("box")
        if number.isascii() and number.isdigit()
    }
    status, problem = 200, ""
    try:
        if entry.revision != await number_field("revision"):
            raise EditConflict(entry)
        await get_services().journal.edit(
            keys, entry_id, set_checkboxes(entry.text, checked_numbers), entry.revision
        )
    except EditConflict:
        status = 409
        problem = _(
            "This entry was changed elsewhere in the meantime. This is how it stands now; tick the box once more."
        )
    view = await _view(entry_hex)
    if not is_fragment():
        if problem:
            return await render_template(
                "pages/error.html",
                status=status,
                title=_("Changed elsewhere"),
                sentence=problem,
                advice="",
            )
        return redirect_303(_entry_path(view))
    return await render_template(
        "components/tasks_saved.html", status=status, entry=view, tasks_problem=problem
    )


@blueprint.get("/e/<entry_hex>/more")
async def show_more(entry_hex: str) -> Response:
    """Show the other actions for an entry."""
    view = await _view(entry_hex)
    return await render_template(
        "components/more.html" if is_fragment() else "pages/entry.html",
        entry=view,
        is_more_open=True,
    )


@blueprint.get("/e/<entry_hex>/parts/<number>")
async def show_part(entry_hex: str, number: str) -> Response:
    """Show a later part of a long entry."""
    part = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
    if part < 2:
        raise NotFound("entry_part_not_found")
    view = await part_view(security.require_session().keys, parse_entry_id(entry_hex), part)
    return await render_template(
        "components/prose.html" if is_fragment() else "pages/part.html", entry=view
    )


@blueprint.get("/e/<entry_hex>/versions")
async def show_versions(entry_hex: str) -> Response:
    """Show the earlier versions of an entry."""
    return await _versions_page(entry_hex)


@blueprint.post("/e/<entry_hex>/versions/<version_hex>")
async def restore_version(entry_hex: str, version_hex: str) -> Response:
    """Replace the text of an entry by that of an earlier version."""
    keys, revision = security.require_session().keys, await number_field("revision")
    try:
        await get_services().journal.restore_version(
            keys, parse_entry_id(entry_hex), parse_entry_id(version_hex), revision
        )
    except EditConflict:
        error = _(
            "This entry was changed elsewhere in the meantime. This is how it stands now; bring it back once more."
        )
        return await _versions_page(entry_hex, status=409, error=error)
    return redirect_303(_entry_path(await _view(entry_hex)))


@blueprint.post("/e/<entry_hex>/delete")
async def delete_entry(entry_hex: str) -> Response:
    """Delete an entry and offer to restore it in its place."""
    services, keys = get_services(), security.require_session().keys
    view = await _view(entry_hex)
    if view.state == "streaming":
        await services.replies.stop(keys, parse_entry_id(entry_hex))
    services.replies.cancel_for([parse_entry_id(entry_hex)], SOURCE_DELETED)
    await services.journal.delete(keys, parse_entry_id(entry_hex))
    if is_fragment():
        return await render_template("components/entry_deleted.html", entry=view)
    return await render_template("pages/entry_deleted.html", entry=view)


@blueprint.post("/e/<entry_hex>/restore")
async def restore_entry(entry_hex: str) -> Response:
    """Restore a deleted entry."""
    await get_services().journal.restore(security.require_session().keys, parse_entry_id(entry_hex))
    view = await _view(entry_hex)
    return (
        await render_template("components/entry.html", entry=view)
        if is_fragment()
        else redirect_303(_entry_path(view))
    )


@blueprint.post("/e/<entry_hex>/answers")
async def add_answer(entry_hex: str) -> Response:
    """Save an answer to a reply, and ask for the next reply if requested."""
    services, keys = get_services(), security.require_session().keys
    text = await field("text")
    profile = await get_profile()
    try:
        saved = await services.journal.answer(
            keys, parse_entry_id(entry_hex), text, profile.zone, await posted_form_token()
        )
    except (EntryError, StorageError) as error:
        if isinstance(error, NotFound):
            raise
        path = _entry_path(await _view(entry_hex))
        form = await security.replayable_form("text")
        return await render_template(
            "pages/not_saved.html",
            error.status,
            sentence=describe(error),
            words=text,
            path=path,
            **form,
        )
    view = await message_view(keys, saved.id)
    messages = [view]
    problem = ""
    if await field("ask") and not await replies_disabled():
        try:
            reply = await services.replies.ask(
                keys, saved.id, profile.zone, await today(), endpoint=profile.endpoint
            )
            messages.append(await entry_view(keys, reply, bytes.fromhex(view.root)))
        except (ModelError, EntryError, StorageError) as error:
            problem = describe(error)  # the answer is saved all the same
    if not is_fragment():
        return redirect_303(_entry_path(messages[-1]))
    return await render_template(
        "components/messages.html", messages=messages, problem=problem, answered_id=entry_hex
    )


async def _view(entry_hex: str) -> EntryView:
    await get_services().journal.get(security.require_session().keys, parse_entry_id(entry_hex))
    return await message_view(security.require_session().keys, parse_entry_id(entry_hex))


async def _versions_page(entry_hex: str, status: int = 200, error: str = "") -> Response:
    view = await _view(entry_hex)
    services, keys = get_services(), security.require_session().keys
    stored = await services.journal.list_versions(keys, parse_entry_id(entry_hex))
    version_views = [
        {
            "id": version.id.hex(),
            "at": version.at,
            "html": await get_renderer().run(render, version.text),
        }
        for version in stored
    ]
    return await render_template(
        "pages/versions.html", status=status, entry=view, versions=version_views, error=error
    )


async def _edit_page(view: EntryView, status: int = 200, **context: object) -> Response:
    template = "components/entry_edit.html" if is_fragment() else "pages/edit.html"
    context.setdefault("error", "")
    context.setdefault("theirs", None)
    return await render_template(template, status=status, entry=view, **context)


def _entry_path(view: EntryView) -> str:
    return f"/d/{view.day}#e-{view.id}"
