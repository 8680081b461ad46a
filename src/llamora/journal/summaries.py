"""Summarize a day or a tag on request.

A summary is stored with a hash of its entries, and deleted when they change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import date
from itertools import chain, zip_longest
from typing import Literal

from llamora.journal.citations import cited_sentences, whole_sentences
from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.quotations import QuoteVerifier
from llamora.journal.reading import find_readable, readable_entries
from llamora.journal.receipts import build_receipt
from llamora.journal.retrieval import content_words, excerpt
from llamora.journal.threads import Thread
from llamora.llm.budget import Passage, Turn
from llamora.llm.client import ModelClient
from llamora.llm.errors import ModelError
from llamora.llm.model import Model
from llamora.llm.prompts import Prompt
from llamora.llm.reasoning import without_reasoning
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.entries import Entry, Omitted, Receipt
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring

LINE_MAX_TOKENS = 200  # enough for three sentences
TAG_MAX_TOKENS = 320  # enough for four sentences with citations
MAX_PASSAGES = 12  # entries in the prompt of a tag summary


@dataclass(slots=True, frozen=True)
class TagSummary:
    """A summary of a tag, and the entries it cites by number, from 1."""

    summary: StoredSummary
    entries: tuple[Entry, ...]


LineKind = Literal["opening", "recap"]

NOTHING_TO_SUMMARIZE: Mapping[LineKind, str] = {
    "recap": "page_not_readable",
    "opening": "days_not_readable",
}


@dataclass(slots=True, frozen=True)
class PreparedPrompt:
    """A prompt, the model that would receive it, and the receipt so far."""

    prompt: Prompt
    client: ModelClient
    receipt: Receipt
    max_tokens: int


@dataclass(slots=True, frozen=True)
class Summaries:
    """Generate and store summaries, each valid as long as its entries do not change."""

    _db: LocalDB
    _journal: Journal
    _model: Model

    async def get_day_summary(
        self, keys: Keyring, day: date, page: Sequence[Thread]
    ) -> StoredSummary | None:
        """Return the summary of a day, or None if there is none for `page` as it is.

        One whose entries have changed is deleted.
        """
        stored = await self._db.summaries.get(keys, "recap", day)
        if stored is not None and stored.content_hash != content_hash(readable_entries(page)):
            with suppress(StorageError):  # a full disk must not prevent reading
                await self._db.summaries.delete(keys, "recap", day)
            return None
        return stored

    async def delete_day_summary(self, keys: Keyring, day: date) -> None:
        await self._db.summaries.delete(keys, "recap", day)

    async def delete_tag_summary(self, keys: Keyring, tag_id: bytes) -> None:
        await self._db.summaries.delete(keys, "tag", tag_id)

    async def summarize_day(self, user: UserContext, day: date) -> StoredSummary:
        """Summarize a day now.

        Raises EntryError if there is nothing to summarize or something changed meanwhile,
        ModelError, StorageError, and NotFound if the user has turned the model off.
        """
        user.require_replies()
        entries = readable_entries(await self._journal.get_page(user.keys, day))
        if not entries:
            raise EntryError(NOTHING_TO_SUMMARIZE["recap"])
        return await self.generate(user, "recap", day, entries)

    async def preview_day(self, user: UserContext, day: date) -> "PreparedPrompt":
        page = await self._journal.get_page(user.keys, day)
        return await self.preview_line(user, "recap", day, readable_entries(page))

    async def preview_line(
        self, user: UserContext, kind: LineKind, day: date, entries: Sequence[Entry]
    ) -> "PreparedPrompt":
        """Return the prompt that `generate` would send.

        Raises EntryError if `entries` is empty, ModelError, and NotFound if the user has turned the
        model off.
        """
        user.require_replies()
        if not entries:
            raise EntryError(NOTHING_TO_SUMMARIZE[kind])
        self._model.require(user.endpoint)
        return await self._prepare_line(user, kind, day, entries)

    async def _prepare_line(
        self, user: UserContext, kind: LineKind, day: date, entries: Sequence[Entry]
    ) -> "PreparedPrompt":
        client = await self._model.client(user.endpoint)
        turns = [Turn("me", entry.text, entry.day) for entry in entries]
        prompt = await self._model.prompts.build_line(client, kind, day=day, turns=turns)
        return await self._prepared(client, prompt, LINE_MAX_TOKENS)

    async def _prepared(
        self, client: ModelClient, prompt: Prompt, max_tokens: int
    ) -> PreparedPrompt:
        receipt = build_receipt(
            await client.describe(), client, prompt, self._model.prompts.version
        )
        return PreparedPrompt(prompt, client, receipt, max_tokens)

    async def generate(
        self, user: UserContext, kind: LineKind, day: date, entries: Sequence[Entry]
    ) -> StoredSummary:
        """Generate a text of this kind about `entries`, and store it.

        Raises EntryError if one of them has changed before the prompt is sent or before the text is
        stored, ModelError and StorageError.
        """
        keys, revisions = user.keys, {entry.id: entry.revision for entry in entries}
        self._model.require(user.endpoint)
        async with self._model.queue.slot(keys.user_id, lambda _: None):
            prepared = await self._prepare_line(user, kind, day, entries)
            prompt = prepared.prompt
            generated, length_limited = await self._generate_text(keys, prepared, revisions)
        text = generated.strip()
        if kind == "opening":
            text = text.partition("\n")[0].strip()
        if not text:
            raise ModelError("summary_empty", kind="broken")
        summary = StoredSummary(
            kind,
            day,
            text,
            tuple(entry.id for entry in entries),
            content_hash(entries),
            prepared.receipt.model,
            Omitted(*prompt.omitted),
            length_limited,
            QuoteVerifier(prompt.user_texts).verified(text),
        )
        return await self._save(keys, summary, revisions)

    async def get_tag_summary(self, keys: Keyring, tag_id: bytes) -> TagSummary | None:
        """Return the summary of a tag, or None if there is none for its entries as they are.

        One whose entries have changed is deleted.
        """
        stored = await self._db.summaries.get(keys, "tag", tag_id)
        if stored is None:
            return None
        entries_by_id = await find_readable(self._db, keys, stored.sources)
        entries = tuple(
            entries_by_id[source] for source in stored.sources if source in entries_by_id
        )
        if len(entries) < len(
            stored.sources
        ) or stored.content_hash != await self._tag_content_hash(keys, tag_id, entries):
            with suppress(StorageError):
                await self._db.summaries.delete(keys, "tag", tag_id)
            return None
        return TagSummary(stored, entries)

    async def summarize_tag(self, user: UserContext, tag_id: bytes) -> TagSummary:
        """Summarize the entries of a tag now, keeping only sentences that cite one of them.

        Raises EntryError if there is nothing to read or something changed meanwhile, NotFound,
        ModelError and StorageError.
        """
        keys = user.keys
        entries, passages = await self._read_passages(user, tag_id)
        tag_hash_before = await self._tag_content_hash(keys, tag_id, entries)
        revisions = {entry.id: entry.revision for entry in entries}
        async with self._model.queue.slot(keys.user_id, lambda _: None):
            prepared = await self._prepare_tag(user, tag_id, passages)
            generated, length_limited = await self._generate_text(keys, prepared, revisions)
        prompt = prepared.prompt
        text = cited_sentences(generated, [passage.number for passage in prompt.passages])
        if not text:
            raise ModelError("summary_uncited", kind="broken")
        summary = StoredSummary(
            "tag",
            None,
            text,
            tuple(entry.id for entry in entries),
            tag_hash_before,
            prepared.receipt.model,
            Omitted(*prompt.omitted),
            length_limited,
            QuoteVerifier(passage.text for passage in prompt.passages).verified(text),
            tag_id,
        )
        await self._save(keys, summary, revisions)
        stored = await self.get_tag_summary(keys, tag_id)
        if stored is None:  # the entries with this tag have changed
            raise EntryError("summary_sources_changed")
        return stored

    async def preview_tag(self, user: UserContext, tag_id: bytes) -> PreparedPrompt:
        _, passages = await self._read_passages(user, tag_id)
        return await self._prepare_tag(user, tag_id, passages)

    async def _prepare_tag(
        self, user: UserContext, tag_id: bytes, passages: Sequence[Passage]
    ) -> PreparedPrompt:
        name = (await self._journal.tags.get(user.keys, tag_id)).name
        client = await self._model.client(user.endpoint)
        prompt = await self._model.prompts.build_tag_summary(client, name, passages)
        return await self._prepared(client, prompt, TAG_MAX_TOKENS)

    async def _read_passages(
        self, user: UserContext, tag_id: bytes
    ) -> tuple[list[Entry], list[Passage]]:
        """Return the entries to summarize a tag from, by day, and their passages by importance.

        Raises NotFound, ModelError, and EntryError if the model may read none of them.
        """
        user.require_replies()
        name = (await self._journal.tags.get(user.keys, tag_id)).name
        self._model.require(user.endpoint)
        entries, strongest = await self._choose_entries(user.keys, tag_id)
        if not entries:
            raise EntryError("tag_not_readable")
        numbers = {entry.id: number for number, entry in enumerate(entries, 1)}
        name_words = content_words(name)
        return entries, [
            Passage(numbers[chosen.id], chosen.day, excerpt(chosen.text, -1, name_words))
            for chosen in strongest
        ]

    async def _generate_text(
        self, keys: Keyring, prepared: PreparedPrompt, revisions: Mapping[bytes, int]
    ) -> tuple[str, bool]:
        """Return the model's text in whole sentences, and True if it ended before the model was done.

        Raises EntryError, and sends nothing, if an entry is no longer at its revision in
        `revisions`.
        """
        if await self._db.entries.revisions_of(keys.user_id, revisions) != revisions:
            raise EntryError("summary_sources_changed")
        generated, early_ends = "", list[str]()
        chunks = prepared.client.stream(
            prepared.prompt.messages,
            max_tokens=prepared.max_tokens,
            on_early_end=early_ends.append,
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                generated = without_reasoning(generated + chunk)
        return (whole_sentences(generated) if early_ends else generated), bool(early_ends)

    async def _save(
        self, keys: Keyring, summary: StoredSummary, revisions: Mapping[bytes, int]
    ) -> StoredSummary:
        require = self._db.entries.require_revisions(keys.user_id, revisions)
        try:
            await self._db.summaries.save(keys, summary, [require])
        except StaleRevision:
            raise EntryError("summary_sources_changed") from None
        return summary

    async def _choose_entries(
        self, keys: Keyring, tag_id: bytes
    ) -> tuple[list[Entry], list[Entry]]:
        """Choose readable entries of a tag, as many from the newest as from the oldest.

        Returns them by day, and again in the order in which to keep them if room is short.
        """
        ids = [entry_id for entry_id, _ in await self._journal.tags.entries_with_tag(keys, tag_id)]
        half = (len(ids) + 1) // 2
        alternating = zip_longest(ids[:half], reversed(ids[half:]))
        order = [entry_id for entry_id in chain.from_iterable(alternating) if entry_id is not None]
        readable_so_far: list[Entry] = []
        for start in range(0, len(order), MAX_PASSAGES):
            batch = order[start : start + MAX_PASSAGES]
            entries_by_id = await find_readable(self._db, keys, batch)
            readable_so_far += [entries_by_id[i] for i in batch if i in entries_by_id]
            if len(readable_so_far) >= MAX_PASSAGES:
                break
        readable_so_far = readable_so_far[:MAX_PASSAGES]
        return sorted(
            readable_so_far, key=lambda entry: (entry.day, entry.at, entry.id)
        ), readable_so_far

    async def _tag_content_hash(
        self, keys: Keyring, tag_id: bytes, entries: Sequence[Entry]
    ) -> str:
        """Return the SHA-256, in hex, of these entries' texts and of all entries with the tag.

        Of the latter it covers the ids and revisions.
        """
        hasher = hashlib.sha256(bytes.fromhex(content_hash(entries)))
        tagged_revisions = await self._db.entries.revisions_of(
            keys.user_id, await self._journal.tags.all_ids_with_tag(keys, tag_id)
        )
        for entry_id, revision in sorted(tagged_revisions.items()):
            hasher.update(entry_id + revision.to_bytes(8, "big"))
        return hasher.hexdigest()


def content_hash(entries: Sequence[Entry]) -> str:
    """Return the SHA-256, in hex, of the ids and texts of these entries, in any order."""
    hasher = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.id):
        hasher.update(
            entry.id + hashlib.sha256(entry.text.encode("utf-8", "surrogatepass")).digest()
        )
    return hasher.hexdigest()
