"""Traces: the index of them, the page of one, and what is done to them. Names travel in bodies, never in addresses."""

from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.charts import year_of
from llamora.app.i18n import gettext as _
from llamora.app.pages import entry_id, field, is_fragment, model_hidden, page, profile, see_other, trace_id
from llamora.app.services.container import get_services
from llamora.app.views import DigestView, message_view, summary_view, trace_path, traces_mark
from llamora.journal.entries import EntryError
from llamora.journal.tags import Tag, TagError, Tags
from llamora.llm.client import ModelError
from llamora.persistence.connection import NotFound
from llamora.search.rank import excerpt, strip_markdown
from llamora.text import tag_key, tag_name
from llamora.vault.keys import Keyring

blueprint = Blueprint("traces", __name__)

PAGE_SIZE = 20
LAST = 3  # entries that the popover shows
NAMED = 6  # names that completion offers
SUGGESTED = 6
NEVER = date.min

SORTED: dict[str, Callable[[Tag], tuple[object, ...]]] = {
    "name": lambda trace: (trace.name.casefold(), trace.name),
    "count": lambda trace: (-trace.entry_count, trace.name.casefold()),
    "recent": lambda trace: (-(trace.last_day or NEVER).toordinal(), trace.name.casefold()),
    "first": lambda trace: ((trace.first_day or NEVER).toordinal(), trace.name.casefold()),
}


def _traces() -> tuple[Tags, Keyring]:
    return get_services().journal.tags, security.session().keys


# -- all of them -----------------------------------------------------------------------------------


@blueprint.get("/traces")
async def index() -> Response:
    """Every trace; `sort` and `hidden` are in the address, what is looked for is posted."""
    undo = request.args.get("undo", "")
    return await _index("", request.args.get("sort", ""), hidden=request.args.get("hidden") == "yes", undo=undo)


@blueprint.post("/traces")
async def filtered() -> Response:
    """The traces whose name has what is looked for in it."""
    hidden = await field("hidden") == "yes"
    return await _index(await field("q"), await field("sort"), hidden=hidden)


async def _index(wanted: str, sort: str, *, hidden: bool, undo: str = "") -> Response:
    traces, keys = _traces()
    sort = sort if sort in SORTED else "name"
    found = await traces.list_tags(keys, hidden=hidden)
    there = len(found)
    if key := tag_key(wanted.strip().removeprefix("#")):
        found = [trace for trace in found if key in tag_key(trace.name)]
    return await page(
        "components/trace_list.html" if is_fragment() else "pages/traces.html",
        traces=found if sort == "name" else sorted(found, key=SORTED[sort]),
        there=there,
        wanted=wanted,
        sort=sort,
        hidden=hidden,
        some_hidden=hidden or bool(await traces.list_tags(keys, hidden=True)),
        undo=undo,
    )


@blueprint.post("/traces/names")
async def names() -> Response:
    """The writer's names that begin with what is being typed, the most used first: for completion."""
    traces, keys = _traces()
    key = tag_key((await field("q")).strip())
    found = [trace for trace in await traces.list_tags(keys) if tag_key(trace.name).startswith(key)] if key else []
    found.sort(key=SORTED["count"])
    return await page("components/trace_names.html", traces=found[:NAMED])


@blueprint.post("/traces/undo")
async def undo() -> Response:
    """Take the latest change back."""
    traces, keys = _traces()
    await traces.undo(keys, entry_id(await field("change")))
    try:
        back = trace_path((await traces.get(keys, trace_id(await field("trace")))).id)
    except NotFound:
        back = "/traces"
    return see_other(back)


# -- one of them -----------------------------------------------------------------------------------


@blueprint.get("/traces/<text>")
async def show(text: str) -> Response:
    """The page of one trace; as a part, the entries from `from` on."""
    return await _show(trace_id(text))


async def _show(trace: bytes, status: int = 200, error: str = "", about: str = "") -> Response:
    traces, keys = _traces()
    start = request.args.get("from", "0")
    offset = int(start) if start.isascii() and start.isdigit() and len(start) < 8 else 0
    found = await traces.entries_with_tag(keys, trace)
    shown = await _entries(keys, [each for each, _day in found[offset : offset + PAGE_SIZE]])
    more = offset + PAGE_SIZE if offset + PAGE_SIZE < len(found) else None
    if is_fragment():
        return await page("components/trace_entries.html", trace_id=trace.hex(), entries=shown, more=more)
    return await page(
        "pages/trace.html",
        status,
        trace=await traces.get(keys, trace),
        trace_id=trace.hex(),
        aliases=await traces.list_aliases(keys, trace),
        beside=await traces.list_related(keys, trace),
        entries=shown,
        more=more,
        error=error,
        about=about,
        undo=request.args.get("undo", ""),
        was=request.args.get("was", "") or trace.hex(),
        summary=await _summary(keys, trace),
        **await _year(found),
    )


@blueprint.get("/traces/<text>/years")
async def years(text: str) -> Response:
    """When a trace was used, by the days of a year."""
    traces, keys = _traces()
    trace = trace_id(text)
    found = await traces.entries_with_tag(keys, trace)
    if not found:
        raise NotFound("There is no such trace.")
    if not is_fragment():
        return see_other(f"{trace_path(trace)}?{request.query_string.decode()}")
    return await page("components/trace_year.html", trace_id=text, **await _year(found))


async def _year(found: list[tuple[bytes, date]]) -> dict[str, Any]:
    days = Counter(day for _id, day in found)
    used = sorted({day.year for day in days})
    asked = request.args.get("year", "")
    year = next((year for year in used if str(year) == asked), used[-1] if used else 1)
    return {
        "year": year_of(days, year, (await profile()).week_start),
        "year_before": max((other for other in used if other < year), default=None),
        "year_after": min((other for other in used if other > year), default=None),
    }


async def _entries(keys: Keyring, ids: list[bytes]) -> list[dict[str, object]]:
    """How entries begin, in the order of their ids."""
    opened = {entry.id: entry for entry in await get_services().db.entries.get_many(keys, ids)}
    return [
        {"id": each.hex(), "day": entry.day, "role": entry.role, "text": excerpt(strip_markdown(entry.text))}
        for each in ids
        if (entry := opened.get(each)) and entry.deleted is None
    ]


async def _summary(keys: Keyring, trace: bytes) -> DigestView | None:
    """What a model said of a trace; nothing is made here."""
    kept = None if await model_hidden() else await get_services().digests.get_tag_summary(keys, trace)
    return summary_view(kept) if kept else None


@blueprint.post("/traces/<text>/summary")
async def sum_up(text: str) -> Response:
    """Sum up what is written under a trace, now."""
    if await model_hidden():
        raise NotFound("There is no page at this address.")
    keys, trace = security.session().keys, trace_id(text)
    try:
        summary = await get_services().digests.summarize_tag(keys, trace, (await profile()).endpoint)
    except (ModelError, EntryError) as error:
        status = 503 if isinstance(error, ModelError) else 422
        return await page("pages/error.html", status=status, title=_("No summary"), sentence=str(error), what_to_do="")
    if not is_fragment():
        return see_other(f"{trace_path(trace)}#summary")
    return await page("components/trace_summary.html", summary=summary_view(summary), trace_id=text)


@blueprint.post("/traces/<text>/summary/delete")
async def forget_summary(text: str) -> Response:
    """Let a summary go."""
    trace = trace_id(text)
    await get_services().db.summaries.delete(security.session().keys, "trace", trace)
    if not is_fragment():
        return see_other(trace_path(trace))
    return await page("components/trace_summary.html", summary=None, trace_id=text)


@blueprint.get("/traces/<text>/brief")
async def brief(text: str) -> Response:
    """What the popover beside a trace says; `e` is the entry that it stands on. No model has a part in it."""
    traces, keys = _traces()
    trace = await traces.get(keys, trace_id(text))
    on = request.args.get("e", "")
    last = [each for each, _day in await traces.entries_with_tag(keys, trace.id) if each.hex() != on][:LAST]
    bears = bool(on) and trace.id in {
        other.id for other in (await traces.tags_of(keys, [entry_id(on)])).get(entry_id(on), [])
    }
    return await page(
        "components/trace_brief.html", trace=trace, entries=await _entries(keys, last), on=on if bears else ""
    )


@blueprint.post("/traces/<text>/name")
async def rename(text: str) -> Response:
    """Give a trace another name; under that of another one they become one."""
    traces, keys = _traces()
    try:
        trace, change = await traces.rename(keys, trace_id(text), await field("name"))
    except TagError as error:
        return await _show(trace_id(text), 422, str(error), "name")
    return _done(trace, change, text)


@blueprint.post("/traces/<text>/merge")
async def merge(text: str) -> Response:
    """Make a trace part of another."""
    traces, keys = _traces()
    try:
        into = await traces.find_by_name(keys, (await field("into")).strip().removeprefix("#"))
        change = await traces.merge(keys, trace_id(text), into.id)
    except NotFound as error:
        return await _show(trace_id(text), 422, str(error), "into")
    return _done(into.id, change, text)


@blueprint.post("/traces/<text>/aliases")
async def alias(text: str) -> Response:
    """Let another name mean a trace."""
    traces, keys = _traces()
    try:
        change = await traces.add_alias(keys, trace_id(text), await field("name"))
    except TagError as error:
        return await _show(trace_id(text), 422, str(error), "alias")
    return _done(trace_id(text), change)


@blueprint.post("/traces/<text>/aliases/<other>/delete")
async def unalias(text: str, other: str) -> Response:
    """Let another name mean a trace no more."""
    traces, keys = _traces()
    return _done(trace_id(text), await traces.remove_alias(keys, trace_id(other)))


@blueprint.post("/traces/<text>/hidden")
async def hide(text: str) -> Response:
    """Leave a trace out of lists, or show it there again."""
    traces, keys = _traces()
    return _done(trace_id(text), await traces.set_hidden(keys, trace_id(text), hidden=await field("hidden") == "yes"))


@blueprint.post("/traces/<text>/delete")
async def delete(text: str) -> Response:
    """Take a trace off every entry."""
    traces, keys = _traces()
    change = await traces.delete(keys, trace_id(text))
    return see_other(f"/traces?undo={change.hex()}")


def _done(trace: bytes, change: bytes, was: str = "") -> Response:
    """To the page of what a trace is now; `was` is where it is once that is taken back."""
    return see_other(f"{trace_path(trace)}?undo={change.hex()}" + (f"&was={was}" if was else ""))


# -- on an entry -----------------------------------------------------------------------------------


@blueprint.post("/e/<text>/traces")
async def add(text: str) -> Response:
    """Put a trace on an entry."""
    traces, keys = _traces()
    try:
        await traces.add(keys, entry_id(text), await field("name"))
    except TagError as error:
        view = await message_view(keys, entry_id(text))
        return await page("pages/entry_traces.html", 422, entry=view, error=str(error))
    return await _changed(text, suggested=await _rest())


@blueprint.post("/e/<text>/traces/<trace>/remove")
async def remove(text: str, trace: str) -> Response:
    """Take a trace off an entry; the way back stands in its place."""
    traces, keys = _traces()
    return await _changed(text, await traces.remove(keys, entry_id(text), trace_id(trace)))


@blueprint.post("/e/<text>/traces/undo")
async def undo_on_entry(text: str) -> Response:
    """Put back what was taken off an entry."""
    traces, keys = _traces()
    await traces.undo(keys, entry_id(await field("change")))
    return await _changed(text)


@blueprint.post("/e/<text>/traces/suggested")
async def suggest(text: str) -> Response:
    """What an entry might bear; nothing is put on it."""
    keys = security.session().keys
    with_model = not await model_hidden()
    found = await get_services().suggestions.suggest(
        keys, entry_id(text), (await profile()).endpoint, with_model=with_model
    )
    return await _changed(
        text, suggested=list(found.names), suggested_by=found.model, suggested_note=found.note, stays=True
    )


@blueprint.post("/e/<text>/traces/refused")
async def refuse(text: str) -> Response:
    """Never suggest a name for an entry again."""
    await get_services().suggestions.reject(security.session().keys, entry_id(text), await field("name"))
    return await _changed(text, suggested=await _rest())


async def _rest() -> list[str] | None:
    """What else was suggested when one of the suggestions was taken or rejected."""
    taken = tag_key(await field("name"))
    names = [name for name in (await field("rest")).splitlines()[:SUGGESTED] if tag_name(name) == name]
    return [name for name in names if tag_key(name) != taken] or None


async def _changed(text: str, undo: bytes = b"", *, stays: bool = False, **suggested: Any) -> Response:
    """The traces of an entry as they are by now. `stays`: there is something to look at, also without a script."""
    traces, keys = _traces()
    if not is_fragment():
        view = await message_view(keys, entry_id(text))
        if undo or stays or suggested.get("suggested"):
            return await page("pages/entry_traces.html", entry=view, undo=undo, **suggested)
        return see_other(f"/d/{view.day}#e-{view.id}")
    on = (await traces.tags_of(keys, [entry_id(text)])).get(entry_id(text), [])
    entry = {"id": text, "traces": on, "traces_mark": traces_mark(on)}
    return await page("components/traces.html", entry=entry, undo=undo, **suggested)
