"""Search: a form whose words travel in the body, never in an address."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import current, day_words, month_words
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    entry_id,
    field,
    is_fragment,
    model_hidden,
    number_field,
    page,
    profile,
    save_profile,
    see_other,
    today,
)
from llamora.app.services.container import get_services
from llamora.dates import utc_now
from llamora.journal.citations import redact_erased
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.entries import Role
from llamora.search.rank import MAX_QUERY, Query, excerpt, filter_chips, strip_markdown
from llamora.search.service import Hit

blueprint = Blueprint("search", __name__)

QUERY_CHARACTERS = MAX_QUERY + 1  # one more than is read, so that search says that it cut
DEEPEST = 10_000_000  # more than any journal holds
RECENT = 8
RELATED = 5


@blueprint.get("/search")
async def form() -> Response:
    """An empty form, and what was searched for lately."""
    return await _empty()


@blueprint.post("/search")
async def submit() -> Response:
    """Search: the answer stands at an address of its own, so that coming back to it asks for nothing."""
    query, offset = await _query(), await _offset()
    if not query:
        return await _empty()
    if offset:
        return await _found(query, offset)
    if not is_fragment():
        return see_other(await _remembered(query))
    # What was found does not wait for the disk.
    response, address = await asyncio.gather(_found(query, 0), _remembered(query))
    response.headers["HX-Replace-Url"] = address
    return response


@blueprint.post("/search/typing")
async def typing() -> Response:
    """What is found while the query is being typed; it is remembered in memory alone, for the way back."""
    query = await _query()
    if not query:
        return await _empty()
    name = get_services().search.remember_query(security.session().keys, query, is_typing=True)
    response = await _found(query, 0, typing=True)
    response.headers["HX-Replace-Url"] = f"/search/{name.hex()}"
    return response


@blueprint.get("/search/<text>")
async def results(text: str) -> Response:
    """What was found for a query that is named by its place in memory or in the sealed history."""
    services, keys = get_services(), security.session().keys
    try:
        name = entry_id(text)
    except NotFound:
        return see_other("/search")
    query, unfinished = services.search.query_for(keys, name)
    query = query or await services.db.search_history.get(keys, name)
    return await _found(query, 0, typing=unfinished) if query else see_other("/search")


@blueprint.post("/search/forget")
async def forget() -> Response:
    """Forget what was searched for."""
    keys = security.session().keys
    services = get_services()
    services.search.forget_queries(keys.user_id)
    await services.db.search_history.clear(keys.user_id)
    return see_other("/search")


@blueprint.post("/search/remember")
async def remember() -> Response:
    """Switch remembering on, or off; what is remembered goes when it is switched off."""
    services, keys = get_services(), security.session().keys
    wanted = await field("remember") == "yes"
    await save_profile(searches=wanted)
    if not wanted:
        services.search.forget_queries(keys.user_id)
        await services.db.search_history.clear(keys.user_id)
    return see_other("/search")


@blueprint.post("/e/<text>/related")
async def related(text: str) -> Response:
    """What the writer also wrote that is near to an entry."""
    return await show_related(text)


async def show_related(text: str, *, unanswered: bool = False) -> Response:
    """Show what is near to an entry; `unanswered`: a reply was asked for and no model is there to give one."""
    services, keys = get_services(), security.session().keys
    entry = await services.journal.get(keys, entry_id(text))
    here = {
        e.id for thread in await services.journal.get_page(keys, entry.day) for e in (thread.root, *thread.descendants)
    }
    hits = await services.search.find_related(keys, entry, limit=RELATED, excluded_ids=here)
    template = "components/related.html" if is_fragment() else "pages/related.html"
    return await page(
        template,
        entry_id=text,
        day=entry.day,
        hits=[_hit(hit, marks=False) for hit in await _as_shown(hits)],
        unanswered=unanswered,
    )


async def _remembered(query: str) -> str:
    """The address of a query's results: its place in the sealed history, or in memory alone."""
    services, keys = get_services(), security.session().keys
    name = None
    if (await profile()).searches:
        with suppress(StorageError):  # a full disk keeps the query from being remembered, not from being answered
            name = await services.db.search_history.add(keys, query, utc_now())
    return f"/search/{(name or services.search.remember_query(keys, query)).hex()}"


async def _query() -> str:
    return (await field("q"))[:QUERY_CHARACTERS].strip()


async def _offset() -> int:
    return min(await number_field("offset"), DEEPEST)


async def _recent() -> dict[str, object]:
    services, keys = get_services(), security.session().keys
    kept = (await profile()).searches
    recent = await services.db.search_history.recent(keys, RECENT) if kept else []
    return {"results": None, "next_offset": None, "recent": recent, "remembers": kept}


async def _empty() -> Response:
    """Nothing was asked for: what was lately, at the address of the form."""
    if not is_fragment():
        return await page("pages/search.html", 200, query="", **await _recent())
    response = await page("components/results.html", 200, query="", **await _recent())
    response.headers["HX-Replace-Url"] = "/search"
    return response


async def _found(query: str, offset: int, *, typing: bool = False) -> Response:
    services, keys = get_services(), security.session().keys
    size = services.settings.search.page_size
    day = await today()
    role: Role | None = "me" if await model_hidden() else None  # who turned replies off sees none, old ones neither
    language = current().code
    found = await services.search.search(
        keys, query, today=day, limit=size, offset=offset, is_typing=typing, role=role, language=language
    )
    following = offset + size
    context: dict[str, object] = {
        "query": query,
        "results": {
            "hits": [_hit(hit) for hit in await _as_shown(found.hits)],
            "total": found.total,
            "complete": found.is_complete,
            "hint": found.hint,
            "meaning": found.is_semantic,
            "said": said(found.query),
            "impossible": found.query.is_impossible and bool(found.hint),
            "days": days_said(found.query.after, found.query.before),
            "chips": filter_chips(query, day, language),
        },
        "offset": offset,
        "next_offset": following if following < found.total else None,
    }
    return await page("components/results.html" if is_fragment() else "pages/search.html", 200, **context)


def said(query: Query) -> str:
    """What a query asks for, in words."""
    parts: list[str] = []
    if query.words:
        parts.append(", ".join(word.removesuffix("*") for word in query.words))
    parts += [f"“{phrase}”" for phrase in query.phrases + query.quoted]
    parts += [_("the trace %(name)s") % {"name": tag} for tag in query.tags]
    if query.role is not None:
        parts.append(_("by you") if query.role == "me" else _("in replies"))
    if days := days_said(query.after, query.before):
        parts.append(days)
    if query.excluded:
        parts.append(_("without %(words)s") % {"words": ", ".join(query.excluded)})
    return "; ".join(parts)


def days_said(after: date | None, before: date | None) -> str:
    """The days from the one to the other in words: `on 3 May 2024`, `in 2024`, `until 5 May 2024`; "" for all days."""
    first, last = after or date.min, before or date.max
    if first > last or (first == date.min and last == date.max):
        return ""
    if first == date.min:
        return _("until %(day)s") % {"day": day_words(last)}
    if last == date.max:
        return _("from %(day)s on") % {"day": day_words(first)}
    if first == last:
        return _("on %(day)s") % {"day": day_words(first)}
    whole = first.day == 1 and (last + timedelta(days=1)).day == 1 and first.year == last.year
    if whole and first.month == last.month:
        return _("in %(month)s") % {"month": month_words(first)}
    if whole and (first.month, last.month) == (1, 12):
        return _("in %(year)s") % {"year": first.year}
    return _("from %(first)s to %(last)s") % {"first": day_words(first), "last": day_words(last)}


async def _as_shown(hits: Sequence[Hit]) -> list[Hit]:
    """What was found without what pages hide of replies: the words of sources deleted or kept from the model."""
    services, keys = get_services(), security.session().keys
    found = [hit.entry_id for hit in hits if hit.role == "reply"]
    replies = await services.db.entries.get_many(keys, found) if found else []
    hidden = await services.journal.find_hidden_sources(keys, replies)
    left: dict[bytes, str] = {}
    for reply in replies:
        if (
            shown := redact_erased(reply, hidden, filter(None, hidden.values()))
        ) is not None and shown.text != reply.text:
            left[reply.id] = excerpt(strip_markdown(shown.text))
    return [replace(hit, snippet=((left[hit.entry_id], False),)) if hit.entry_id in left else hit for hit in hits]


def _hit(hit: Hit, *, marks: bool = True) -> dict[str, object]:
    path = f"/d/{hit.day}#e-{hit.entry_id.hex()}"
    snippet = hit.snippet if marks else (("".join(text for text, _ in hit.snippet), False),)
    return {"id": hit.entry_id.hex(), "path": path, "day": hit.day, "role": hit.role, "snippet": snippet}
