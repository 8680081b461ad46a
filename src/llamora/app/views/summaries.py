"""The views of summaries and opening lines."""

from dataclasses import dataclass

from markupsafe import Markup

from llamora.app.addresses import entry_path
from llamora.app.i18n import gettext as _
from llamora.app.markdown import render_reply
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


def summary_view(summary: StoredSummary) -> SummaryView:
    """Return the view of a summary or an opening line of a day."""
    html = render_reply(summary.text, {}, marks(summary.text, summary.quoted))
    return SummaryView(html, model_name(summary.model), _describe_cut(summary))


def tag_summary_view(summary: TagSummary) -> SummaryView:
    """Return the view of a summary of a tag, with links to the entries it cites."""
    summary_record = summary.summary
    paths = {number: entry_path(entry, entry.id) for number, entry in enumerate(summary.entries, 1)}
    html = render_reply(
        summary_record.text, paths, marks(summary_record.text, summary_record.quoted)
    )
    return SummaryView(html, model_name(summary_record.model), _describe_cut(summary_record))


def _describe_cut(summary: StoredSummary) -> str:
    limit = _("The model said more than fits here.") if summary.length_limited else ""
    return " ".join(filter(None, (describe_omitted(summary.omitted), limit)))
