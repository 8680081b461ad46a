"""Search: queries are posted and never part of an address."""

import asyncio

from quart import Blueprint, Response

from llamora.app.addresses import parse_entry_id
from llamora.app.pages import (
    change_profile,
    current_user,
    field,
    is_fragment,
    number_field,
    redirect_303,
    respond,
)
from llamora.app.services.container import get_services
from llamora.app.views.queries import recent_context, results_context
from llamora.app.views.related import related_context
from llamora.search.query import MAX_QUERY

blueprint = Blueprint("search", __name__)

MAX_QUERY_CHARACTERS = MAX_QUERY + 1  # one more than is read, so that search reports the cut
MAX_OFFSET = 10_000_000  # more than any journal holds


@blueprint.get("/search")
async def show_search() -> Response:
    return await _empty_page()


@blueprint.post("/search")
async def search() -> Response:
    """Show the results of a query.

    They get an address of their own, so that going back to them does not post the form again.
    """
    query, offset = await _query(), min(await number_field("offset"), MAX_OFFSET)
    if not query:
        return await _empty_page()
    if offset:
        return await _results_page(query, offset)
    remembering = get_services().searches.remember(await current_user(), query)
    if not is_fragment():
        return redirect_303(f"/search/{(await remembering).hex()}")
    # The results need not wait for the history to be written.
    response, query_id = await asyncio.gather(_results_page(query), remembering)
    response.headers["HX-Replace-Url"] = f"/search/{query_id.hex()}"
    return response


@blueprint.post("/search/typing")
async def search_while_typing() -> Response:
    """Show the results of an unfinished query.

    It is remembered in memory only, for going back.
    """
    query = await _query()
    if not query:
        return await _empty_page()
    keys = (await current_user()).keys
    query_id = await get_services().search.remember_query(keys, query, is_typing=True)
    response = await _results_page(query, is_typing=True)
    response.headers["HX-Replace-Url"] = f"/search/{query_id.hex()}"
    return response


@blueprint.get("/search/<query_hex>")
async def show_results(query_hex: str) -> Response:
    """Show the results of a query, named by its id in memory or in the sealed history."""
    try:
        query_id = parse_entry_id(query_hex)
    except ValueError:
        return redirect_303("/search")
    keys = (await current_user()).keys
    query, is_unfinished = await get_services().searches.find_query(keys, query_id)
    return await _results_page(query, is_typing=is_unfinished) if query else redirect_303("/search")


@blueprint.post("/search/forget")
async def clear_history() -> Response:
    await get_services().preferences.clear_search_history((await current_user()).keys)
    return redirect_303("/search")


@blueprint.post("/search/remember")
async def set_history() -> Response:
    await change_profile(searches=await field("remember") == "yes")
    return redirect_303("/search")


@blueprint.post("/e/<entry_id:entry_id>/related")
async def show_related(entry_id: bytes) -> Response:
    keys = (await current_user()).keys
    entry, hits = await get_services().searches.find_related(keys, entry_id)
    context = related_context(entry, hits)
    return await respond(view="views/related.html", page="pages/related.html", **context)


async def _query() -> str:
    return (await field("q"))[:MAX_QUERY_CHARACTERS].strip()


async def _empty_page() -> Response:
    context = await recent_context(await current_user())
    response = await respond(view="views/results.html", page="pages/search.html", **context)
    if is_fragment():
        response.headers["HX-Replace-Url"] = "/search"
    return response


async def _results_page(query: str, offset: int = 0, *, is_typing: bool = False) -> Response:
    context = await results_context(await current_user(), query, offset, is_typing=is_typing)
    return await respond(view="views/results.html", page="pages/search.html", **context)
