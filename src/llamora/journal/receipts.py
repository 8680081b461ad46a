"""The receipts of replies: from which model and sources each was made."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from llamora.journal.citations import redact_erased
from llamora.persistence.entries import Entry


def strip_references(
    reply: Entry, erased_ids: Collection[bytes], texts: Iterable[str]
) -> Entry | None:
    """Return a reply without erased entries, counting them in its receipt.

    `texts` are their texts, whose quoted words are redacted. Returns None if nothing changes.
    """
    if reply.role != "reply":
        return None
    stripped = redact_erased(reply, erased_ids, texts) or reply
    if (receipt := stripped.receipt) is not None:
        erased_sources = {*reply.also_answers, *reply.sources, *receipt.same_page_ids} & set(
            erased_ids
        )
        erased_count = len(erased_sources) or int(stripped.text != reply.text)
        same_page_ids = tuple(other for other in receipt.same_page_ids if other not in erased_ids)
        stripped = replace(
            stripped,
            receipt=replace(
                receipt,
                same_page_ids=same_page_ids,
                erased_count=receipt.erased_count + erased_count,
            ),
        )
    return stripped if stripped != reply else None
