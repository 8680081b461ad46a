"""The views of how a reply was made."""

from dataclasses import dataclass
from datetime import date

from llamora.app import i18n
from llamora.app.i18n import gettext as _
from llamora.app.i18n import ngettext
from llamora.app.views.model import model_name
from llamora.persistence.entries import Omitted, Receipt


@dataclass(slots=True, frozen=True)
class SourceView:
    """A passage from the prompt of a reply.

    `cited`: the reply refers to it; `from_tag`: a tag brought it into the prompt.
    """

    number: int
    path: str
    day: date
    text: str
    score: float
    cited: bool
    from_tag: bool


@dataclass(slots=True, frozen=True)
class ReceiptView:
    """The details of how a reply was made, in words where they are always shown."""

    model: str
    sources_summary: str
    omitted: str
    model_file: str
    endpoint: str
    left_machine: bool
    prompt_version: str
    tokens_in: int
    tokens_out: int
    tokens_counted: bool
    verified: int
    """Quotations found word for word in the prompt; `not_found` counts the others."""
    not_found: int
    first_token_seconds: float
    """-1 when no token came."""


def describe_omitted(omitted: Omitted) -> str:
    """Describe what was left out of a prompt for lack of room; return "" for nothing."""
    notes, passages, turns = omitted.notes, omitted.passages, omitted.turns
    counted = (
        (notes, ngettext("%(num)s note of the day", "%(num)s notes of the day", notes)),
        (passages, ngettext("%(num)s earlier passage", "%(num)s earlier passages", passages)),
        (
            turns,
            ngettext(
                "%(num)s turn of the conversation", "%(num)s turns of the conversation", turns
            ),
        ),
    )
    parts = [words % {"num": count} for count, words in counted if count]
    if omitted.shortened:
        parts.append(_("the middle of the entry"))
    return (
        _("Left out for lack of room: %(what)s.") % {"what": i18n.join_list(parts)} if parts else ""
    )


def receipt_view(
    receipt: Receipt, has_hidden_sources: bool, verified: int, not_found: int
) -> ReceiptView:
    """Return the view of a receipt; `verified` and `not_found` count quotations."""
    days = len({p.day for p in receipt.passages})
    if not days:
        sources_summary = _("drew on this page alone")
    else:
        sources_summary = ngettext(
            "drew on %(num)s earlier day", "drew on %(num)s earlier days", days
        ) % {"num": days}
    if receipt.erased_count:
        sources_summary = _("%(sources)s and on what was erased since") % {
            "sources": sources_summary if days else _("drew on this page")
        }
    elif has_hidden_sources:
        sources_summary = _("%(sources)s and on what is shown no more") % {
            "sources": sources_summary if days else _("drew on this page")
        }
    return ReceiptView(
        model=model_name(receipt.model),
        sources_summary=sources_summary,
        omitted=describe_omitted(receipt.omitted),
        model_file=receipt.model_file,
        endpoint=receipt.endpoint,
        left_machine=receipt.left_machine,
        prompt_version=receipt.prompt_version,
        tokens_in=receipt.tokens_in,
        tokens_out=receipt.tokens_out,
        tokens_counted=receipt.tokens_counted,
        verified=verified,
        not_found=not_found,
        first_token_seconds=receipt.first_token_ms / 1000 if receipt.first_token_ms >= 0 else -1,
    )
