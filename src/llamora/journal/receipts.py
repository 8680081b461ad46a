"""The receipts of replies: from which model and sources each was made."""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from llamora.journal.citations import redact_erased
from llamora.llm.client import ModelClient
from llamora.llm.probe import ModelInfo
from llamora.llm.prompts import Prompt
from llamora.persistence.entries import BUILT_IN_MODEL, Entry, Omitted, Receipt, UsedPassage


def build_receipt(
    info: ModelInfo,
    client: ModelClient,
    prompt: Prompt,
    prompt_version: str,
    passages: tuple[UsedPassage, ...] = (),
) -> Receipt:
    """Return the receipt of a text by the model as far as it is known before it is asked."""
    return Receipt(
        model=BUILT_IN_MODEL if info.is_embedded else info.name,
        model_file=info.file or (info.name if info.is_embedded else ""),
        endpoint="" if info.is_embedded else info.endpoint,
        left_machine=not info.is_local,
        prompt_version=prompt_version,
        passages=passages,
        tokens_in=prompt.tokens,
        tokens_counted=client.tokens.has_tokenizer and not prompt.is_estimated,
        omitted=Omitted(*prompt.omitted),
    )


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
