"""Results of a search, and entries that are related to another."""

from collections.abc import Iterable
from typing import Any

from llamora.app.addresses import entry_path
from llamora.persistence.entries import Entry
from llamora.search.results import Hit


def hit_context(hit: Hit, *, with_marks: bool = True) -> dict[str, object]:
    """Return what a list shows of a hit; without `with_marks` no words are marked."""
    snippet = hit.snippet if with_marks else (("".join(text for text, _ in hit.snippet), False),)
    return {
        "id": hit.entry_id.hex(),
        "path": entry_path(hit, hit.entry_id),
        "day": hit.day,
        "role": hit.role,
        "snippet": snippet,
    }


def related_context(
    entry: Entry, hits: Iterable[Hit], *, unanswered: bool = False
) -> dict[str, Any]:
    """Return what shows entries of other days that are related to an entry.

    `unanswered`: a reply was asked for and there is no model to give one.
    """
    return {
        "entry_id": entry.id.hex(),
        "day": entry.day,
        "hits": [hit_context(hit, with_marks=False) for hit in hits],
        "unanswered": unanswered,
    }
