"""One entry: edit it, delete it, bring it back, answer it."""

from asyncio import to_thread

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import gettext as _
from llamora.app.markdown import render, ticked
from llamora.app.pages import (
    entry_id,
    field,
    is_fragment,
    model_hidden,
    number_field,
    page,
    posted_pen,
    profile,
    see_other,
    today,
)
from llamora.app.services.container import get_services
from llamora.app.views import EntryView, entry_view, message_view, part_view
from llamora.journal.entries import EditConflict, EntryError
from llamora.journal.replies import SOURCE_DELETED
from llamora.llm.client import ModelError
from llamora.persistence.connection import DiskFull, NotFound, StorageError

blueprint = Blueprint("entries", __name__)


@blueprint.get("/e/<text>")
async def show(text: str) -> Response:
    """An entry as it stands on its page."""
    view = await _view(text)
    return await page("components/entry.html", entry=view) if is_fragment() else see_other(_place(view))


@blueprint.get("/e/<text>/edit")
async def edit_form(text: str) -> Response:
    """An entry in a form."""
    view = await _view(text)
    if view.role != "me":
        raise NotFound("What the model wrote stays as it wrote it.")
    return await _edit(view)


@blueprint.post("/e/<text>")
async def edit(text: str) -> Response:
    """Keep the new text of an entry; when it changed meanwhile, show both."""
    keys = security.session().keys
    wanted = entry_id(text)
    words, revision = await field("text"), await number_field("revision")
    try:
        await get_services().journal.edit(keys, wanted, words, revision, await posted_pen())
    except EditConflict as conflict:
        error = "This entry was changed elsewhere in the meantime. Both are here; nothing is lost."
        view = await _view(text)
        return await _edit(view, status=409, error=error, theirs=conflict.current.text, text=words)
    except (EntryError, StorageError) as error:
        if isinstance(error, NotFound):
            raise
        view = await _view(text)
        view.revision = revision  # the next try is still compared with what this writer saw
        return await _edit(view, status=_status(error), error=str(error), text=words)
    view = await _view(text)
    return await page("components/entry.html", entry=view) if is_fragment() else see_other(_place(view))


@blueprint.post("/e/<text>/tasks")
async def tick(text: str) -> Response:
    """Tick the boxes of an entry as they are in the form: an edit like any other."""
    keys, wanted = security.session().keys, entry_id(text)
    entry = await get_services().journal.get(keys, wanted)
    boxes = {int(number) for number in await security.form_fields("box") if number.isascii() and number.isdigit()}
    status, problem = 200, ""
    try:
        if entry.revision != await number_field("revision"):
            raise EditConflict(entry)
        await get_services().journal.edit(keys, wanted, ticked(entry.text, boxes), entry.revision)
    except EditConflict:
        status = 409
        problem = _(
            "This entry was changed elsewhere in the meantime. This is how it stands now; tick the box once more."
        )
    view = await _view(text)
    if not is_fragment():
        if problem:
            return await page(
                "pages/error.html", status=status, title=_("Changed elsewhere"), sentence=problem, what_to_do=""
            )
        return see_other(_place(view))
    return await page("components/ticked.html", status=status, entry=view, untouched=problem)


@blueprint.get("/e/<text>/more")
async def more(text: str) -> Response:
    """What else can be done with an entry."""
    view = await _view(text)
    return await page("components/more.html" if is_fragment() else "pages/entry.html", entry=view, opened=True)


@blueprint.get("/e/<text>/parts/<number>")
async def read_on(text: str, number: str) -> Response:
    """A later part of a long entry."""
    part = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
    if part < 2:
        raise NotFound("There is no such part of this entry.")
    view = await part_view(security.session().keys, entry_id(text), part)
    return await page("components/prose.html" if is_fragment() else "pages/part.html", entry=view)


@blueprint.get("/e/<text>/versions")
async def versions(text: str) -> Response:
    """What an entry said before it was edited."""
    return await _versions(text)


@blueprint.post("/e/<text>/versions/<version>")
async def bring_back(text: str, version: str) -> Response:
    """Put an earlier text in the place of the one of now."""
    keys, revision = security.session().keys, await number_field("revision")
    try:
        await get_services().journal.restore_version(keys, entry_id(text), entry_id(version), revision)
    except EditConflict:
        error = "This entry was changed elsewhere in the meantime. This is how it stands now; bring it back once more."
        return await _versions(text, status=409, error=error)
    return see_other(_place(await _view(text)))


@blueprint.post("/e/<text>/delete")
async def delete(text: str) -> Response:
    """Take an entry off its page; the way back stands in its place."""
    services, keys = get_services(), security.session().keys
    view = await _view(text)
    if view.state == "streaming":
        await services.replies.stop(keys, entry_id(text))
    services.replies.cancel_for([entry_id(text)], SOURCE_DELETED)
    await services.journal.delete(keys, entry_id(text))
    if is_fragment():
        return await page("components/entry_deleted.html", entry=view)
    return await page("pages/deleted.html", entry=view)


@blueprint.post("/e/<text>/restore")
async def restore(text: str) -> Response:
    """Bring a deleted entry back."""
    await get_services().journal.restore(security.session().keys, entry_id(text))
    view = await _view(text)
    return await page("components/entry.html", entry=view) if is_fragment() else see_other(_place(view))


@blueprint.post("/e/<text>/answers")
async def answer(text: str) -> Response:
    """Answer a reply, and ask for the next one if that button was pressed."""
    services, keys = get_services(), security.session().keys
    words = await field("text")
    writer = await profile()
    try:
        kept = await services.journal.answer(keys, entry_id(text), words, writer.zone, await posted_pen())
    except (EntryError, StorageError) as error:
        if isinstance(error, NotFound):
            raise
        status = _status(error)
        place = _place(await _view(text))
        again = await security.sent_with("text")
        return await page("pages/not_kept.html", status, sentence=str(error), words=words, path=place, **again)
    view = await message_view(keys, kept.id)
    shown = [view]
    problem = ""
    if await field("ask") and not await model_hidden():
        try:
            reply = await services.replies.ask(keys, kept.id, writer.zone, await today(), endpoint=writer.endpoint)
            shown.append(await entry_view(reply, bytes.fromhex(view.root)))
        except (ModelError, EntryError, StorageError) as error:
            problem = str(error)  # the answer is kept all the same
    if not is_fragment():
        return see_other(_place(shown[-1]))
    return await page("components/messages.html", messages=shown, problem=problem, answered=text)


async def _view(text: str) -> EntryView:
    await get_services().journal.get(security.session().keys, entry_id(text))
    return await message_view(security.session().keys, entry_id(text))


async def _versions(text: str, status: int = 200, error: str = "") -> Response:
    view = await _view(text)
    found = await get_services().journal.list_versions(security.session().keys, entry_id(text))
    shown = [
        {"id": version.id.hex(), "at": version.at, "html": await to_thread(render, version.text)} for version in found
    ]
    return await page("pages/versions.html", status=status, entry=view, versions=shown, error=error)


async def _edit(view: EntryView, status: int = 200, **context: object) -> Response:
    template = "components/entry_edit.html" if is_fragment() else "pages/edit.html"
    context.setdefault("error", "")
    context.setdefault("theirs", None)
    return await page(template, status=status, entry=view, **context)


def _status(error: EntryError | StorageError) -> int:
    return 422 if isinstance(error, EntryError) else 507 if isinstance(error, DiskFull) else 503


def _place(view: EntryView) -> str:
    return f"/d/{view.day}#e-{view.id}"
