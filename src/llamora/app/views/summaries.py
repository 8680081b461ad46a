"""The views of summaries and opening lines."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from llamora.app.addresses import entry_path
from llamora.app.i18n import gettext as _
from llamora.app.markdown import render_reply
from llamora.app.rendering import get_renderer
from llamora.app.views.model import model_name
from llamora.app.views.receipts import describe_omitted
from llamora.journal.quotations import marks
from llamora.journal.summaries import TagSummary
from llamora.persistence.summaries import StoredSummary


@dataclass(slots=True, frozen=True)
class SummaryView:
    """A summary of a day or a tag, or the opening line of a day."""

    html: Markup
    model: str
    omitted: str


async def summary_view(summary: StoredSummary) -> SummaryView:
    """Return the view of a summary or an opening line of a day."""
    return await get_renderer().run(_summary_view, summary, {})


async def tag_summary_view(summary: TagSummary) -> SummaryView:
    """Return the view of a summary of a tag, with links to the entries it cites."""
    paths = {number: entry_path(entry, entry.id) for number, entry in enumerate(summary.entries, 1)}
    return await get_renderer().run(_summary_view, summary.summary, paths)


def _summary_view(summary: StoredSummary, paths: Mapping[int, str]) -> SummaryView:
    html = render_reply(summary.text, paths, marks(summary.text, summary.quoted))
    return SummaryView(html, model_name(summary.model), _describe_cut(summary))


def _describe_cut(summary: StoredSummary) -> str:
    limit = _("The model said more than fits here.") if summary.length_limited else ""
    return " ".join(filter(None, (describe_omitted(summary.omitted), limit)))
