"""The page of a day."""

from datetime import date, timedelta
from typing import Any

from markupsafe import Markup

from llamora.app.i18n import describe
from llamora.app.services.container import get_services
from llamora.app.views.entries import page_views
from llamora.app.views.summaries import summary_view
from llamora.app.views.tags import entry_excerpts
from llamora.dates import day_edges, utc_now
from llamora.errors import Problem
from llamora.journal.context import UserContext


async def day_context(
    user: UserContext, day: date, text: str = "", problem: Problem | None = None
) -> dict[str, Any]:
    """Return what the page of a day shows; `text` could not be saved because of `problem`."""
    page = await get_services().days.get(user, day)
    draft = page.draft
    return {
        "day": day,
        "is_today": day == user.today,
        # Milliseconds, as in JavaScript: the server's clock decides when the day is over.
        "now": int(utc_now().timestamp() * 1000),
        "ends": int(day_edges(day, user.zone, user.profile.day_ends_at)[1].timestamp() * 1000),
        "zones": user.profile,
        "here_mark": Markup("<span data-here></span>"),
        "first_run": page.is_first,
        "previous_day": day - timedelta(1) if day > date.min else None,
        "next_day": day + timedelta(1) if day < date.max else None,
        "entries": await page_views(user, page.threads),
        "opening": await summary_view(page.opening) if page.opening else None,
        "opening_due": page.is_opening_due,
        "day_summary": await summary_view(page.summary) if page.summary else None,
        "on_this_day": await entry_excerpts(page.on_this_day),
        "composer": {
            "day": day,
            "text": text or (draft.text if draft else ""),
            "error": describe(problem),
            "draft": draft,
        },
    }
