"""Queries in words, and pages of results."""

from datetime import date, timedelta
from typing import Any

from llamora.app.i18n import day_words, describe, month_words
from llamora.app.i18n import gettext as _
from llamora.app.services.container import get_services
from llamora.app.views.related import hit_context
from llamora.journal.context import UserContext
from llamora.search.query import Query, filter_chips


async def recent_context(user: UserContext) -> dict[str, Any]:
    """Return what the search page shows without a query."""
    return {
        "query": "",
        "results": None,
        "next_offset": None,
        "recent": await get_services().searches.list_recent(user),
        "is_history_enabled": user.profile.searches,
    }


async def results_context(
    user: UserContext, query: str, offset: int = 0, *, is_typing: bool = False
) -> dict[str, Any]:
    """Return what the search page shows of the results of a query from `offset` on."""
    searches = get_services().searches
    results = await searches.run(user, query, offset, is_typing=is_typing)
    next_offset = offset + searches.page_size
    return {
        "query": query,
        "results": {
            "hits": [hit_context(hit) for hit in results.hits],
            "total": results.total,
            "complete": results.is_complete,
            "hint": " ".join(map(describe, results.hints)),
            "meaning": results.is_semantic,
            "description": describe_query(results.query),
            "impossible": results.query.is_impossible and bool(results.hints),
            "days": describe_days(results.query.after, results.query.before),
            "chips": filter_chips(query, user.today, user.language),
        },
        "offset": offset,
        "next_offset": next_offset if next_offset < results.total else None,
    }


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
