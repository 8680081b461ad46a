"""Tags: list, show and change them. Names are posted and never part of an address."""

from collections.abc import Callable
from datetime import date
from typing import Any

from quart import Blueprint, Response, request

from llamora.app.addresses import parse_entry_id, parse_tag_id, tag_path
from llamora.app.edge.rules import titled, with_replies
from llamora.app.i18n import describe, gettext_noop
from llamora.app.pages import (
    current_user,
    field,
    is_fragment,
    parse_number,
    redirect_303,
    render_template,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.entries import message_view
from llamora.app.views.model import model_name
from llamora.app.views.summaries import tag_summary_view
from llamora.app.views.tags import entry_excerpts, entry_tags_context, tag_context, year_context
from llamora.errors import Problem
from llamora.journal.tag_cache import Tag
from llamora.journal.tags import TagError
from llamora.persistence.connection import NotFound
from llamora.text import tag_key, tag_name

blueprint = Blueprint("tags", __name__)
(NO_SUMMARY,) = gettext_noop("No summary")

BRIEF_ENTRIES = 3  # entries that the popover shows
MAX_NAMES = 6  # names that completion offers
MAX_SUGGESTIONS = 6
NEVER = date.min

SORT_KEYS: dict[str, Callable[[Tag], tuple[object, ...]]] = {
    "name": lambda tag: (tag.name.casefold(), tag.name),
    "count": lambda tag: (-tag.entry_count, tag.name.casefold()),
    "recent": lambda tag: (-(tag.last_day or NEVER).toordinal(), tag.name.casefold()),
    "first": lambda tag: ((tag.first_day or NEVER).toordinal(), tag.name.casefold()),
}


# -- all of them -----------------------------------------------------------------------------------


@blueprint.get("/traces")
async def show_tags() -> Response:
    """Show all tags; `sort` and `hidden` are in the address, a filter is posted."""
    args = request.args
    hidden = args.get("hidden") == "yes"
    return await _tags_page("", args.get("sort", ""), hidden=hidden, undo=args.get("undo", ""))


@blueprint.post("/traces")
async def filter_tags() -> Response:
    hidden = await field("hidden") == "yes"
    return await _tags_page(await field("q"), await field("sort"), hidden=hidden)


async def _tags_page(query: str, sort: str, *, hidden: bool, undo: str = "") -> Response:
    keys = (await current_user()).keys
    sort = sort if sort in SORT_KEYS else "name"
    all_tags = await get_services().journal.tags.list_tags(keys, hidden=None)
    listed = [tag for tag in all_tags if tag.hidden == hidden]
    key = tag_key(query.strip().removeprefix("#"))
    matches = [tag for tag in listed if key in tag_key(tag.name)]
    return await respond(
        view="views/tag_list.html",
        page="pages/tags.html",
        tags=matches if sort == "name" else sorted(matches, key=SORT_KEYS[sort]),
        total=len(listed),
        query=query,
        sort=sort,
        hidden=hidden,
        some_hidden=hidden or any(tag.hidden for tag in all_tags),
        undo=undo,
    )


@blueprint.post("/traces/names")
async def suggest_names() -> Response:
    """Show tag names that begin with `q`, the most used first, for completion."""
    key = tag_key((await field("q")).strip())
    tags = await get_services().journal.tags.list_tags((await current_user()).keys)
    matches = [tag for tag in tags if key and tag_key(tag.name).startswith(key)]
    matches.sort(key=SORT_KEYS["count"])
    return await render_template("views/tag_names.html", tags=matches[:MAX_NAMES])


@blueprint.post("/traces/undo")
async def undo_change() -> Response:
    keys, change_id = (await current_user()).keys, await _posted_change()
    try:
        tag_id = parse_tag_id(await field("tag"))
    except ValueError:
        tag_id = b""
    is_in_use = await get_services().journal.tags.undo(keys, change_id, tag_id)
    return redirect_303(tag_path(tag_id) if is_in_use else "/traces")


# -- one of them -----------------------------------------------------------------------------------


@blueprint.get("/traces/<tag_id:tag_id>")
async def show_tag(tag_id: bytes) -> Response:
    """Show the page of a tag; for HTMX, its entries from the offset `from` on."""
    offset = parse_number(request.args.get("from", "0"))
    return await _tag_page(tag_id, offset=offset)


async def _tag_page(
    tag_id: bytes, problem: Problem | None = None, about: str = "", *, offset: int = 0
) -> Response:
    context = await tag_context(await current_user(), tag_id, offset, request.args)
    return await respond(
        problem.status if problem else 200,
        view="views/tag_entries.html",
        page="pages/tag.html",
        error=describe(problem),
        about=about,
        **context,
    )


@blueprint.get("/traces/<tag_id:tag_id>/years")
async def show_year(tag_id: bytes) -> Response:
    user = await current_user()
    uses = await get_services().journal.tags.entries_with_tag(user.keys, tag_id)
    if not uses:
        raise NotFound("tag_not_found")
    return await respond(
        view="views/tag_year.html",
        to=f"{tag_path(tag_id)}?{request.query_string.decode()}",
        tag_id=tag_id.hex(),
        **year_context(uses, request.args.get("year", ""), user.profile.week_start),
    )


@blueprint.post("/traces/<tag_id:tag_id>/summary")
@with_replies
@titled(NO_SUMMARY)
async def summarize_tag(tag_id: bytes) -> Response:
    summary = await get_services().summaries.summarize_tag(await current_user(), tag_id)
    return await respond(
        view="views/tag_summary.html",
        to=f"{tag_path(tag_id)}#summary",
        summary=await tag_summary_view(summary),
        tag_id=tag_id.hex(),
    )


@blueprint.post("/traces/<tag_id:tag_id>/summary/delete")
async def delete_summary(tag_id: bytes) -> Response:
    await get_services().summaries.delete_tag_summary((await current_user()).keys, tag_id)
    return await respond(
        view="views/tag_summary.html", to=tag_path(tag_id), summary=None, tag_id=tag_id.hex()
    )


@blueprint.get("/traces/<tag_id:tag_id>/brief")
async def show_brief(tag_id: bytes) -> Response:
    """Show the popover of a tag on the entry `e`, without asking a model."""
    entry_hex = request.args.get("e", "")
    try:
        entry_id = parse_entry_id(entry_hex) if entry_hex else b""
    except ValueError:
        raise NotFound("entry_not_found") from None
    tag, entries, is_on_entry = await get_services().tag_pages.get_brief(
        (await current_user()).keys, tag_id, entry_id, BRIEF_ENTRIES
    )
    return await render_template(
        "views/tag_brief.html",
        tag=tag,
        entries=await entry_excerpts(entries),
        entry_id=entry_hex if is_on_entry else "",
    )


@blueprint.post("/traces/<tag_id:tag_id>/name")
async def rename_tag(tag_id: bytes) -> Response:
    keys, name = (await current_user()).keys, await field("name")
    try:
        new_id, change = await get_services().journal.tags.rename(keys, tag_id, name)
    except TagError as error:
        return await _tag_page(tag_id, error, "name")
    return _redirect_to_tag(new_id, change, tag_id)


@blueprint.post("/traces/<tag_id:tag_id>/merge")
async def merge_tag(tag_id: bytes) -> Response:
    keys, name = (await current_user()).keys, await field("into")
    try:
        target_id, change = await get_services().journal.tags.merge_into(keys, tag_id, name)
    except TagError as error:
        return await _tag_page(tag_id, error, "into")
    return _redirect_to_tag(target_id, change, tag_id)


@blueprint.post("/traces/<tag_id:tag_id>/aliases")
async def add_alias(tag_id: bytes) -> Response:
    keys, name = (await current_user()).keys, await field("name")
    try:
        change = await get_services().journal.tags.add_alias(keys, tag_id, name)
    except TagError as error:
        return await _tag_page(tag_id, error, "alias")
    return _redirect_to_tag(tag_id, change)


@blueprint.post("/traces/<tag_id:tag_id>/aliases/<tag_id:alias_id>/delete")
async def remove_alias(tag_id: bytes, alias_id: bytes) -> Response:
    keys = (await current_user()).keys
    return _redirect_to_tag(tag_id, await get_services().journal.tags.remove_alias(keys, alias_id))


@blueprint.post("/traces/<tag_id:tag_id>/hidden")
async def set_hidden(tag_id: bytes) -> Response:
    keys, hidden = (await current_user()).keys, await field("hidden") == "yes"
    change = await get_services().journal.tags.set_hidden(keys, tag_id, hidden=hidden)
    return _redirect_to_tag(tag_id, change)


@blueprint.post("/traces/<tag_id:tag_id>/delete")
async def delete_tag(tag_id: bytes) -> Response:
    change = await get_services().journal.tags.delete((await current_user()).keys, tag_id)
    return redirect_303(f"/traces?undo={change.hex()}")


def _redirect_to_tag(tag_id: bytes, change: bytes, old_tag_id: bytes = b"") -> Response:
    """Redirect to the page of a tag; `was` in its address is the tag to return to after undo."""
    was = f"&was={old_tag_id.hex()}" if old_tag_id else ""
    return redirect_303(f"{tag_path(tag_id)}?undo={change.hex()}{was}")


async def _posted_change() -> bytes:
    try:
        return parse_entry_id(await field("change"))
    except ValueError:
        raise NotFound("entry_not_found") from None


# -- on an entry -----------------------------------------------------------------------------------


@blueprint.post("/e/<entry_id:entry_id>/traces")
async def add_tag(entry_id: bytes) -> Response:
    user, name = await current_user(), await field("name")
    try:
        await get_services().journal.tags.add(user.keys, entry_id, name)
    except TagError as error:
        view = await message_view(user, entry_id)
        return await render_template(
            "pages/entry_tags.html", error.status, entry=view, error=describe(error)
        )
    return await _entry_tags(entry_id, suggested=await _remaining_suggestions())


@blueprint.post("/e/<entry_id:entry_id>/traces/<tag_id:tag_id>/remove")
async def remove_tag(entry_id: bytes, tag_id: bytes) -> Response:
    keys = (await current_user()).keys
    change = await get_services().journal.tags.remove(keys, entry_id, tag_id)
    return await _entry_tags(entry_id, change)


@blueprint.post("/e/<entry_id:entry_id>/traces/undo")
async def undo_on_entry(entry_id: bytes) -> Response:
    keys = (await current_user()).keys
    await get_services().journal.tags.undo(keys, await _posted_change())
    return await _entry_tags(entry_id)


@blueprint.post("/e/<entry_id:entry_id>/traces/suggested")
async def suggest_tags(entry_id: bytes) -> Response:
    suggestions = await get_services().suggestions.suggest(await current_user(), entry_id)
    return await _entry_tags(
        entry_id,
        suggested=list(suggestions.names),
        suggested_by=model_name(suggestions.model),
        suggested_note=describe(suggestions.note),
        show_page=True,
    )


@blueprint.post("/e/<entry_id:entry_id>/traces/refused")
async def refuse_suggestion(entry_id: bytes) -> Response:
    keys, name = (await current_user()).keys, await field("name")
    await get_services().suggestions.reject(keys, entry_id, name)
    return await _entry_tags(entry_id, suggested=await _remaining_suggestions())


async def _remaining_suggestions() -> list[str] | None:
    used_key = tag_key(await field("name"))
    names = [
        name
        for name in (await field("rest")).splitlines()[:MAX_SUGGESTIONS]
        if tag_name(name) == name
    ]
    return [name for name in names if tag_key(name) != used_key] or None


async def _entry_tags(
    entry_id: bytes, change: bytes = b"", *, show_page: bool = False, **suggestions: Any
) -> Response:
    """Show the current tags of an entry.

    `show_page`: show a page rather than redirect when there is no script.
    """
    user = await current_user()
    if is_fragment():
        entry = await entry_tags_context(user.keys, entry_id)
        return await render_template("views/tags.html", entry=entry, undo=change, **suggestions)
    view = await message_view(user, entry_id)
    if not (change or show_page or suggestions.get("suggested")):
        return redirect_303(view.path)
    return await render_template("pages/entry_tags.html", entry=view, undo=change, **suggestions)
