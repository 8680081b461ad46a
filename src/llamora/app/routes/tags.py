"""Tags: list, show and change them. Names are posted and never part of an address."""

from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.charts import year_chart
from llamora.app.i18n import describe
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    parse_entry_id,
    parse_tag_id,
    redirect_303,
    render_template,
    replies_disabled,
)
from llamora.app.services.container import get_services
from llamora.app.views import (
    SummaryView,
    message_view,
    model_name,
    tag_path,
    tag_summary_view,
    tags_fingerprint,
)
from llamora.journal.entries import EntryError
from llamora.journal.tags import Tag, TagError, Tags
from llamora.llm.errors import ModelError
from llamora.persistence.connection import NotFound
from llamora.search.snippets import excerpt
from llamora.text import strip_markdown, tag_key, tag_name
from llamora.vault.keys import Keyring

blueprint = Blueprint("tags", __name__)

PAGE_SIZE = 20
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


def _tags_and_keys() -> tuple[Tags, Keyring]:
    return get_services().journal.tags, security.require_session().keys


# -- all of them -----------------------------------------------------------------------------------


@blueprint.get("/traces")
async def show_tags() -> Response:
    """Show all tags; `sort` and `hidden` are in the address, a filter is posted."""
    undo = request.args.get("undo", "")
    return await _tags_page(
        "", request.args.get("sort", ""), hidden=request.args.get("hidden") == "yes", undo=undo
    )


@blueprint.post("/traces")
async def filter_tags() -> Response:
    """Show the tags whose name contains `q`."""
    hidden = await field("hidden") == "yes"
    return await _tags_page(await field("q"), await field("sort"), hidden=hidden)


async def _tags_page(query: str, sort: str, *, hidden: bool, undo: str = "") -> Response:
    tags, keys = _tags_and_keys()
    sort = sort if sort in SORT_KEYS else "name"
    matches = await tags.list_tags(keys, hidden=hidden)
    total = len(matches)
    if key := tag_key(query.strip().removeprefix("#")):
        matches = [tag for tag in matches if key in tag_key(tag.name)]
    return await render_template(
        "components/tag_list.html" if is_fragment() else "pages/tags.html",
        tags=matches if sort == "name" else sorted(matches, key=SORT_KEYS[sort]),
        total=total,
        query=query,
        sort=sort,
        hidden=hidden,
        some_hidden=hidden or bool(await tags.list_tags(keys, hidden=True)),
        undo=undo,
    )


@blueprint.post("/traces/names")
async def suggest_names() -> Response:
    """Show tag names that begin with `q`, the most used first, for completion."""
    tags, keys = _tags_and_keys()
    key = tag_key((await field("q")).strip())
    matches = (
        [tag for tag in await tags.list_tags(keys) if tag_key(tag.name).startswith(key)]
        if key
        else []
    )
    matches.sort(key=SORT_KEYS["count"])
    return await render_template("components/tag_names.html", tags=matches[:MAX_NAMES])


@blueprint.post("/traces/undo")
async def undo_change() -> Response:
    """Undo a change to the tags and redirect to the page of the tag."""
    tags, keys = _tags_and_keys()
    await tags.undo(keys, parse_entry_id(await field("change")))
    try:
        path = tag_path((await tags.get(keys, parse_tag_id(await field("tag")))).id)
    except NotFound:
        path = "/traces"
    return redirect_303(path)


# -- one of them -----------------------------------------------------------------------------------


@blueprint.get("/traces/<tag_hex>")
async def show_tag(tag_hex: str) -> Response:
    """Show the page of a tag; for HTMX, its entries from the offset `from` on."""
    return await _tag_page(parse_tag_id(tag_hex))


async def _tag_page(tag_id: bytes, status: int = 200, error: str = "", about: str = "") -> Response:
    tags, keys = _tags_and_keys()
    start_text = request.args.get("from", "0")
    offset = (
        int(start_text)
        if start_text.isascii() and start_text.isdigit() and len(start_text) < 8
        else 0
    )
    uses = await tags.entries_with_tag(keys, tag_id)
    excerpts = await _excerpts(keys, [each for each, _day in uses[offset : offset + PAGE_SIZE]])
    next_offset = offset + PAGE_SIZE if offset + PAGE_SIZE < len(uses) else None
    if is_fragment():
        return await render_template(
            "components/tag_entries.html", tag_id=tag_id.hex(), entries=excerpts, more=next_offset
        )
    return await render_template(
        "pages/tag.html",
        status,
        tag=await tags.get(keys, tag_id),
        tag_id=tag_id.hex(),
        aliases=await tags.list_aliases(keys, tag_id),
        related_tags=await tags.list_related(keys, tag_id),
        entries=excerpts,
        more=next_offset,
        error=error,
        about=about,
        undo=request.args.get("undo", ""),
        old_tag=request.args.get("was", "") or tag_id.hex(),
        summary=await _summary_view(keys, tag_id),
        **await _year_context(uses),
    )


@blueprint.get("/traces/<tag_hex>/years")
async def show_year(tag_hex: str) -> Response:
    """Show the days of a year on which a tag was used."""
    tags, keys = _tags_and_keys()
    tag_id = parse_tag_id(tag_hex)
    uses = await tags.entries_with_tag(keys, tag_id)
    if not uses:
        raise NotFound("tag_not_found")
    if not is_fragment():
        return redirect_303(f"{tag_path(tag_id)}?{request.query_string.decode()}")
    return await render_template(
        "components/tag_year.html", tag_id=tag_hex, **await _year_context(uses)
    )


async def _year_context(uses: list[tuple[bytes, date]]) -> dict[str, Any]:
    days = Counter(day for _id, day in uses)
    years_used = sorted({day.year for day in days})
    year_text = request.args.get("year", "")
    year = next(
        (year for year in years_used if str(year) == year_text), years_used[-1] if years_used else 1
    )
    return {
        "year": year_chart(days, year, (await get_profile()).week_start),
        "year_before": max((other for other in years_used if other < year), default=None),
        "year_after": min((other for other in years_used if other > year), default=None),
    }


async def _excerpts(keys: Keyring, ids: list[bytes]) -> list[dict[str, object]]:
    """Return the beginnings of entries, in the order of `ids`, without those deleted."""
    entries_by_id = {
        entry.id: entry for entry in await get_services().db.entries.get_many(keys, ids)
    }
    return [
        {
            "id": each.hex(),
            "day": entry.day,
            "role": entry.role,
            "text": excerpt(strip_markdown(entry.text)),
        }
        for each in ids
        if (entry := entries_by_id.get(each)) and entry.deleted is None
    ]


async def _summary_view(keys: Keyring, tag_id: bytes) -> SummaryView | None:
    """Return the view of the stored summary of a tag; no model is asked."""
    summary = (
        None
        if await replies_disabled()
        else await get_services().summaries.get_tag_summary(keys, tag_id)
    )
    return tag_summary_view(summary) if summary else None


@blueprint.post("/traces/<tag_hex>/summary")
async def summarize_tag(tag_hex: str) -> Response:
    """Write and show a summary of the entries with a tag."""
    if await replies_disabled():
        raise NotFound("page_not_found")
    keys, tag_id = security.require_session().keys, parse_tag_id(tag_hex)
    try:
        summary = await get_services().summaries.summarize_tag(
            keys, tag_id, (await get_profile()).endpoint
        )
    except (ModelError, EntryError) as error:
        return await render_template(
            "pages/error.html",
            status=error.status,
            title=_("No summary"),
            sentence=describe(error),
            advice="",
        )
    if not is_fragment():
        return redirect_303(f"{tag_path(tag_id)}#summary")
    return await render_template(
        "components/tag_summary.html", summary=tag_summary_view(summary), tag_id=tag_hex
    )


@blueprint.post("/traces/<tag_hex>/summary/delete")
async def delete_summary(tag_hex: str) -> Response:
    """Delete the summary of a tag."""
    tag_id = parse_tag_id(tag_hex)
    await get_services().db.summaries.delete(security.require_session().keys, "tag", tag_id)
    if not is_fragment():
        return redirect_303(tag_path(tag_id))
    return await render_template("components/tag_summary.html", summary=None, tag_id=tag_hex)


@blueprint.get("/traces/<tag_hex>/brief")
async def show_brief(tag_hex: str) -> Response:
    """Show the popover of a tag on the entry `e`, without asking a model."""
    tags, keys = _tags_and_keys()
    tag = await tags.get(keys, parse_tag_id(tag_hex))
    entry_hex = request.args.get("e", "")
    recent_ids = [
        each for each, _day in await tags.entries_with_tag(keys, tag.id) if each.hex() != entry_hex
    ][:BRIEF_ENTRIES]
    is_on_entry = bool(entry_hex) and tag.id in {
        other.id
        for other in (await tags.tags_of(keys, [parse_entry_id(entry_hex)])).get(
            parse_entry_id(entry_hex), []
        )
    }
    return await render_template(
        "components/tag_brief.html",
        tag=tag,
        entries=await _excerpts(keys, recent_ids),
        entry_id=entry_hex if is_on_entry else "",
    )


@blueprint.post("/traces/<tag_hex>/name")
async def rename_tag(tag_hex: str) -> Response:
    """Rename a tag; if another tag has that name, merge the two."""
    tags, keys = _tags_and_keys()
    try:
        tag_id, change = await tags.rename(keys, parse_tag_id(tag_hex), await field("name"))
    except TagError as error:
        return await _tag_page(parse_tag_id(tag_hex), error.status, describe(error), "name")
    return _redirect_to_tag(tag_id, change, tag_hex)


@blueprint.post("/traces/<tag_hex>/merge")
async def merge_tag(tag_hex: str) -> Response:
    """Merge a tag into another."""
    tags, keys = _tags_and_keys()
    try:
        target = await tags.find_by_name(keys, (await field("into")).strip().removeprefix("#"))
        change = await tags.merge(keys, parse_tag_id(tag_hex), target.id)
    except NotFound as error:
        return await _tag_page(parse_tag_id(tag_hex), 422, describe(error), "into")
    return _redirect_to_tag(target.id, change, tag_hex)


@blueprint.post("/traces/<tag_hex>/aliases")
async def add_alias(tag_hex: str) -> Response:
    """Add another name for a tag."""
    tags, keys = _tags_and_keys()
    try:
        change = await tags.add_alias(keys, parse_tag_id(tag_hex), await field("name"))
    except TagError as error:
        return await _tag_page(parse_tag_id(tag_hex), error.status, describe(error), "alias")
    return _redirect_to_tag(parse_tag_id(tag_hex), change)


@blueprint.post("/traces/<tag_hex>/aliases/<alias_hex>/delete")
async def remove_alias(tag_hex: str, alias_hex: str) -> Response:
    """Remove another name for a tag."""
    tags, keys = _tags_and_keys()
    return _redirect_to_tag(
        parse_tag_id(tag_hex), await tags.remove_alias(keys, parse_tag_id(alias_hex))
    )


@blueprint.post("/traces/<tag_hex>/hidden")
async def set_hidden(tag_hex: str) -> Response:
    """Hide a tag in lists, or show it there again."""
    tags, keys = _tags_and_keys()
    return _redirect_to_tag(
        parse_tag_id(tag_hex),
        await tags.set_hidden(keys, parse_tag_id(tag_hex), hidden=await field("hidden") == "yes"),
    )


@blueprint.post("/traces/<tag_hex>/delete")
async def delete_tag(tag_hex: str) -> Response:
    """Delete a tag from every entry."""
    tags, keys = _tags_and_keys()
    change = await tags.delete(keys, parse_tag_id(tag_hex))
    return redirect_303(f"/traces?undo={change.hex()}")


def _redirect_to_tag(tag_id: bytes, change: bytes, old_tag_hex: str = "") -> Response:
    """Redirect to the page of a tag; `was` in its address is the tag to return to after undo."""
    return redirect_303(
        f"{tag_path(tag_id)}?undo={change.hex()}" + (f"&was={old_tag_hex}" if old_tag_hex else "")
    )


# -- on an entry -----------------------------------------------------------------------------------


@blueprint.post("/e/<entry_hex>/traces")
async def add_tag(entry_hex: str) -> Response:
    """Add a tag to an entry."""
    tags, keys = _tags_and_keys()
    try:
        await tags.add(keys, parse_entry_id(entry_hex), await field("name"))
    except TagError as error:
        view = await message_view(keys, parse_entry_id(entry_hex))
        return await render_template(
            "pages/entry_tags.html", error.status, entry=view, error=describe(error)
        )
    return await _entry_tags_fragment(entry_hex, suggested=await _remaining_suggestions())


@blueprint.post("/e/<entry_hex>/traces/<tag_hex>/remove")
async def remove_tag(entry_hex: str, tag_hex: str) -> Response:
    """Remove a tag from an entry and offer to undo it in its place."""
    tags, keys = _tags_and_keys()
    return await _entry_tags_fragment(
        entry_hex, await tags.remove(keys, parse_entry_id(entry_hex), parse_tag_id(tag_hex))
    )


@blueprint.post("/e/<entry_hex>/traces/undo")
async def undo_on_entry(entry_hex: str) -> Response:
    """Restore a tag that was removed from an entry."""
    tags, keys = _tags_and_keys()
    await tags.undo(keys, parse_entry_id(await field("change")))
    return await _entry_tags_fragment(entry_hex)


@blueprint.post("/e/<entry_hex>/traces/suggested")
async def suggest_tags(entry_hex: str) -> Response:
    """Show tags that fit an entry, without adding them."""
    keys = security.require_session().keys
    with_model = not await replies_disabled()
    suggestions = await get_services().suggestions.suggest(
        keys, parse_entry_id(entry_hex), (await get_profile()).endpoint, with_model=with_model
    )
    return await _entry_tags_fragment(
        entry_hex,
        suggested=list(suggestions.names),
        suggested_by=model_name(suggestions.model),
        suggested_note=describe(suggestions.note),
        show_page=True,
    )


@blueprint.post("/e/<entry_hex>/traces/refused")
async def refuse_suggestion(entry_hex: str) -> Response:
    """Reject a suggested name for an entry for good."""
    await get_services().suggestions.reject(
        security.require_session().keys, parse_entry_id(entry_hex), await field("name")
    )
    return await _entry_tags_fragment(entry_hex, suggested=await _remaining_suggestions())


async def _remaining_suggestions() -> list[str] | None:
    """Return the other suggestions once one is added or rejected; None if there are none."""
    used_key = tag_key(await field("name"))
    names = [
        name
        for name in (await field("rest")).splitlines()[:MAX_SUGGESTIONS]
        if tag_name(name) == name
    ]
    return [name for name in names if tag_key(name) != used_key] or None


async def _entry_tags_fragment(
    entry_hex: str, change: bytes = b"", *, show_page: bool = False, **suggestion_context: Any
) -> Response:
    """Show the current tags of an entry.

    `show_page`: show a page rather than redirect when there is no script.
    """
    tags, keys = _tags_and_keys()
    if not is_fragment():
        view = await message_view(keys, parse_entry_id(entry_hex))
        if change or show_page or suggestion_context.get("suggested"):
            return await render_template(
                "pages/entry_tags.html", entry=view, undo=change, **suggestion_context
            )
        return redirect_303(f"/d/{view.day}#e-{view.id}")
    entry_tags = (await tags.tags_of(keys, [parse_entry_id(entry_hex)])).get(
        parse_entry_id(entry_hex), []
    )
    entry = {"id": entry_hex, "tags": entry_tags, "tags_fingerprint": tags_fingerprint(entry_tags)}
    return await render_template(
        "components/tags.html", entry=entry, undo=change, **suggestion_context
    )
