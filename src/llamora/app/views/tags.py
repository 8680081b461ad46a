"""The views of tags on entries, and of entries with a tag."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from llamora.app.charts import year_chart
from llamora.app.rendering import get_renderer
from llamora.app.services.container import get_services
from llamora.app.views.entries import tags_fingerprint
from llamora.app.views.summaries import tag_summary_view
from llamora.journal.context import UserContext
from llamora.persistence.entries import Entry
from llamora.search.snippets import excerpt
from llamora.text import strip_markdown
from llamora.vault.keys import Keyring

PAGE_SIZE = 20  # entries that the page of a tag shows at a time


async def entry_excerpts(entries: Iterable[Entry]) -> list[dict[str, object]]:
    """Return the beginnings of entries as templates list them."""
    excerpts: Iterator[dict[str, object]] = (
        {
            "id": entry.id.hex(),
            "day": entry.day,
            "role": entry.role,
            "text": excerpt(strip_markdown(entry.text)),
        }
        for entry in entries
    )
    return await get_renderer().run_in_slices(excerpts)


def year_context(uses: list[tuple[bytes, date]], year_text: str, week_start: int) -> dict[str, Any]:
    """Return the chart of the days of a year on which a tag was used, and the years beside it.

    Any other `year_text` than a year of its use stands for the last one.
    """
    days = Counter(day for _id, day in uses)
    years_used = sorted({day.year for day in days})
    last = years_used[-1] if years_used else 1
    year = next((year for year in years_used if str(year) == year_text), last)
    return {
        "year": year_chart(days, year, week_start),
        "year_before": max((other for other in years_used if other < year), default=None),
        "year_after": min((other for other in years_used if other > year), default=None),
    }


async def entry_tags_context(keys: Keyring, entry_id: bytes) -> dict[str, Any]:
    """Return the tags of an entry, without the rest of it."""
    tags = (await get_services().journal.tags.tags_of(keys, [entry_id])).get(entry_id, [])
    return {"id": entry_id.hex(), "tags": tags, "tags_fingerprint": tags_fingerprint(tags)}


async def tag_context(
    user: UserContext, tag_id: bytes, offset: int, args: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page of a tag shows, with its entries from `offset` on. Raises NotFound."""
    page = await get_services().tag_pages.get(user, tag_id, offset, PAGE_SIZE)
    return {
        "tag": page.tag,
        "tag_id": tag_id.hex(),
        "aliases": page.aliases,
        "related_tags": page.related,
        "entries": await entry_excerpts(page.entries),
        "more": offset + PAGE_SIZE if offset + PAGE_SIZE < len(page.uses) else None,
        "undo": args.get("undo", ""),
        "old_tag": args.get("was", "") or tag_id.hex(),
        "summary": await tag_summary_view(page.summary) if page.summary else None,
        **year_context(page.uses, args.get("year", ""), user.profile.week_start),
    }
