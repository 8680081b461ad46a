"""Search: queries are posted and never part of an address."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.i18n import current_language, day_words, describe, month_words
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    number_field,
    parse_entry_id,
    redirect_303,
    render_template,
    replies_disabled,
    save_profile,
    today,
)
from llamora.app.services.container import get_services
from llamora.dates import utc_now
from llamora.journal.citations import redact_erased
from llamora.persistence.connection import NotFound, StorageError
from llamora.search.query import MAX_QUERY, Query, filter_chips
from llamora.search.results import Hit
from llamora.search.snippets import excerpt
from llamora.text import Role, strip_markdown

blueprint = Blueprint("search", __name__)

MAX_QUERY_CHARACTERS = MAX_QUERY + 1  # one more than is read, so that search reports the cut
MAX_OFFSET = 10_000_000  # more than any journal holds
RECENT_QUERIES = 8
RELATED_ENTRIES = 5


@blueprint.get("/search")
async def show_search() -> Response:
    """Show an empty form and recent queries."""
    return await _empty_page()


@blueprint.post("/search")
async def search() -> Response:
    """Show the results of a query.

    They get an address of their own, so that going back to them does not post the form again.
    """
    query, offset = await _query(), await _offset()
    if not query:
        return await _empty_page()
    if offset:
        return await _results_page(query, offset)
    if not is_fragment():
        return redirect_303(await _remember_query(query))
    # The results need not wait for the history to be written.
    response, address = await asyncio.gather(_results_page(query, 0), _remember_query(query))
    response.headers["HX-Replace-Url"] = address
    return response


@blueprint.post("/search/typing")
async def search_while_typing() -> Response:
    """Show the results of an unfinished query.

    It is remembered in memory only, for going back.
    """
    query = await _query()
    if not query:
        return await _empty_page()
    query_id = await get_services().search.remember_query(
        security.require_session().keys, query, is_typing=True
    )
    response = await _results_page(query, 0, typing=True)
    response.headers["HX-Replace-Url"] = f"/search/{query_id.hex()}"
    return response


@blueprint.get("/search/<query_hex>")
async def show_results(query_hex: str) -> Response:
    """Show the results of a query, named by its id in memory or in the sealed history."""
    services, keys = get_services(), security.require_session().keys
    try:
        query_id = parse_entry_id(query_hex)
    except NotFound:
        return redirect_303("/search")
    query, is_unfinished = await services.search.query_for(keys, query_id)
    query = query or await services.db.search_history.get(keys, query_id)
    return await _results_page(query, 0, typing=is_unfinished) if query else redirect_303("/search")


@blueprint.post("/search/forget")
async def clear_history() -> Response:
    """Delete the search history."""
    keys = security.require_session().keys
    services = get_services()
    services.search.forget_queries(keys.user_id)
    await services.db.search_history.clear(keys.user_id)
    return redirect_303("/search")


@blueprint.post("/search/remember")
async def set_history() -> Response:
    """Turn the search history on, or turn it off and delete it."""
    services, keys = get_services(), security.require_session().keys
    is_enabled = await field("remember") == "yes"
    await save_profile(searches=is_enabled)
    if not is_enabled:
        services.search.forget_queries(keys.user_id)
        await services.db.search_history.clear(keys.user_id)
    return redirect_303("/search")


@blueprint.post("/e/<entry_hex>/related")
async def show_related(entry_hex: str) -> Response:
    """Show entries that are related to an entry."""
    return await related_page(entry_hex)


async def related_page(entry_hex: str, *, unanswered: bool = False) -> Response:
    """Show entries of other days that are related to an entry.

    `unanswered`: a reply was asked for and there is no model to give one.
    """
    services, keys = get_services(), security.require_session().keys
    entry = await services.journal.get(keys, parse_entry_id(entry_hex))
    here = {
        e.id
        for thread in await services.journal.get_page(keys, entry.day)
        for e in (thread.root, *thread.descendants)
    }
    hits = await services.search.find_related(keys, entry, limit=RELATED_ENTRIES, excluded_ids=here)
    template = "components/related.html" if is_fragment() else "pages/related.html"
    return await render_template(
        template,
        entry_id=entry_hex,
        day=entry.day,
        hits=[_hit_context(hit, with_marks=False) for hit in await _redact_hits(hits)],
        unanswered=unanswered,
    )


async def _remember_query(query: str) -> str:
    """Return the path of the results of a query, stored in the history or in memory only."""
    services, keys = get_services(), security.require_session().keys
    query_id = None
    if (await get_profile()).searches:
        with suppress(StorageError):  # with a full disk, results are shown all the same
            query_id = await services.db.search_history.add(keys, query, utc_now())
    return f"/search/{(query_id or await services.search.remember_query(keys, query)).hex()}"


async def _query() -> str:
    return (await field("q"))[:MAX_QUERY_CHARACTERS].strip()


async def _offset() -> int:
    return min(await number_field("offset"), MAX_OFFSET)


async def _recent_context() -> dict[str, object]:
    services, keys = get_services(), security.require_session().keys
    is_enabled = (await get_profile()).searches
    recent = await services.db.search_history.recent(keys, RECENT_QUERIES) if is_enabled else []
    return {
        "results": None,
        "next_offset": None,
        "recent": recent,
        "is_history_enabled": is_enabled,
    }


async def _empty_page() -> Response:
    if not is_fragment():
        return await render_template("pages/search.html", 200, query="", **await _recent_context())
    response = await render_template(
        "components/results.html", 200, query="", **await _recent_context()
    )
    response.headers["HX-Replace-Url"] = "/search"
    return response


async def _results_page(query: str, offset: int, *, typing: bool = False) -> Response:
    services, keys = get_services(), security.require_session().keys
    size = services.settings.search.page_size
    day = await today()
    role: Role | None = (
        "me" if await replies_disabled() else None
    )  # users who turned replies off see no old ones either
    language = current_language().code
    results = await services.search.search(
        keys,
        query,
        today=day,
        limit=size,
        offset=offset,
        is_typing=typing,
        role=role,
        language=language,
    )
    next_offset = offset + size
    context: dict[str, object] = {
        "query": query,
        "results": {
            "hits": [_hit_context(hit) for hit in await _redact_hits(results.hits)],
            "total": results.total,
            "complete": results.is_complete,
            "hint": " ".join(map(describe, results.hints)),
            "meaning": results.is_semantic,
            "description": describe_query(results.query),
            "impossible": results.query.is_impossible and bool(results.hints),
            "days": describe_days(results.query.after, results.query.before),
            "chips": filter_chips(query, day, language),
        },
        "offset": offset,
        "next_offset": next_offset if next_offset < results.total else None,
    }
    return await render_template(
        "components/results.html" if is_fragment() else "pages/search.html", 200, **context
    )


def describe_query(query: Query) -> str:
    """Describe a query in words."""
    parts: list[str] = []
    if query.words:
        parts.append(", ".join(word.removesuffix("*") for word in query.words))
    parts += [f"“{phrase}”" for phrase in query.phrases + query.quoted]
    parts += [_("the trace %(name)s") % {"name": tag} for tag in query.tags]
    if query.role is not None:
        parts.append(_("by you") if query.role == "me" else _("in replies"))
    if days := describe_days(query.after, query.before):
        parts.append(days)
    if query.excluded:
        parts.append(_("without %(words)s") % {"words": ", ".join(query.excluded)})
    return "; ".join(parts)


def describe_days(after: date | None, before: date | None) -> str:
    """Describe a range of days: `on 3 May 2024`, `in 2024`, `until 5 May 2024`.

    Both days are included; None leaves an end open. Returns "" for all days.
    """
    first, last = after or date.min, before or date.max
    if first > last or (first == date.min and last == date.max):
        return ""
    if first == date.min:
        return _("until %(day)s") % {"day": day_words(last)}
    if last == date.max:
        return _("from %(day)s on") % {"day": day_words(first)}
    if first == last:
        return _("on %(day)s") % {"day": day_words(first)}
    whole_months = (
        first.day == 1 and (last + timedelta(days=1)).day == 1 and first.year == last.year
    )
    if whole_months and first.month == last.month:
        return _("in %(month)s") % {"month": month_words(first)}
    if whole_months and (first.month, last.month) == (1, 12):
        return _("in %(year)s") % {"year": first.year}
    return _("from %(first)s to %(last)s") % {"first": day_words(first), "last": day_words(last)}


async def _redact_hits(hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits without the words of deleted and withheld sources of replies."""
    services, keys = get_services(), security.require_session().keys
    reply_ids = [hit.entry_id for hit in hits if hit.role == "reply"]
    replies = await services.db.entries.get_many(keys, reply_ids) if reply_ids else []
    hidden = await services.journal.find_hidden_sources(keys, replies)
    excerpts: dict[bytes, str] = {}
    for reply in replies:
        if (
            redacted := redact_erased(reply, hidden, filter(None, hidden.values()))
        ) is not None and redacted.text != reply.text:
            excerpts[reply.id] = excerpt(strip_markdown(redacted.text))
    return [
        replace(hit, snippet=((excerpts[hit.entry_id], False),))
        if hit.entry_id in excerpts
        else hit
        for hit in hits
    ]


def _hit_context(hit: Hit, *, with_marks: bool = True) -> dict[str, object]:
    path = f"/d/{hit.day}#e-{hit.entry_id.hex()}"
    snippet = hit.snippet if with_marks else (("".join(text for text, _ in hit.snippet), False),)
    return {
        "id": hit.entry_id.hex(),
        "path": path,
        "day": hit.day,
        "role": hit.role,
        "snippet": snippet,
    }
