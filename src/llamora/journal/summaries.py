"""A day or a trace summed up, on request only: kept under a digest of its entries, and dropped when they change."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import date
from itertools import chain, zip_longest
from typing import Literal

from llamora.journal.citations import cited_sentences, whole_sentences
from llamora.journal.entries import EntryError, Journal, Thread
from llamora.journal.quotations import QuoteVerifier
from llamora.journal.retrieval import content_words, excerpt
from llamora.llm.client import ModelClient, ModelError, ModelInfo
from llamora.llm.model import Model
from llamora.llm.prompts import Passage, Prompt, PromptBuilder, Turn
from llamora.llm.queue import Turns
from llamora.llm.reasoning import REASONING_END
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring

MAX_TOKENS = 200  # three sentences at most
TRACE_TOKENS = 320  # four sentences, each with a number
PASSAGES = 12  # entries that the summary of a trace is drawn from
CHANGED = "What this is about was changed while the model read it. Ask again."
NOTHING = "The model had nothing to say of it. Ask again later."
NOTHING_CITED = "The model said nothing that your entries bear out, so nothing was kept. Ask again later."
AT_LENGTH = "The model said more than fits here."
UNREADABLE = "There is nothing under this trace that the model may read."


@dataclass(slots=True, frozen=True)
class Summary:
    """What a model said of a trace, and the entries that it cites by their places from 1."""

    digest: StoredSummary
    entries: tuple[Entry, ...]


Line = Literal["opening", "recap"]

EMPTY: Mapping[Line, str] = {
    "recap": "There is nothing on this page that the model may read.",
    "opening": "There is nothing on the last days that the model may read.",
}


@dataclass(slots=True, frozen=True)
class Asked:
    """A prompt, and who would get it."""

    prompt: Prompt
    client: ModelClient
    info: ModelInfo
    max_tokens: int


class Digests:
    """Asks the model for a few sentences about a day or a trace, and keeps them as long as these stay as they were."""

    def __init__(self, db: LocalDB, journal: Journal, model: Model, prompts: PromptBuilder, turns: Turns) -> None:
        self._db = db
        self._journal = journal
        self._model = model
        self._prompts = prompts
        self._turns = turns

    async def recap(self, keys: Keyring, day: date, page: Sequence[Thread]) -> StoredSummary | None:
        """The summary of a page as it stands; one of what has changed since is removed."""
        kept = await self._db.summaries.get(keys, "recap", day)
        if kept is not None and kept.content_hash != made_of(readable(page)):
            with suppress(StorageError):  # a full disk keeps nobody from reading
                await self._db.summaries.delete(keys, "recap", day)
            return None
        return kept

    async def sum_up(self, keys: Keyring, day: date, endpoint: str = "") -> StoredSummary:
        """Sum a day up now. Raises EntryError when there is nothing to sum up, ModelError, StorageError."""
        entries = readable(await self._journal.page(keys, day))
        if not entries:
            raise EntryError(EMPTY["recap"])
        return await self.say(keys, "recap", day, entries, endpoint)

    async def preview(self, keys: Keyring, day: date, endpoint: str = "") -> "Asked":
        """What would be sent to sum a day up, exactly. Raises as `sum_up`."""
        return await self.would_say("recap", day, readable(await self._journal.page(keys, day)), endpoint)

    async def would_say(self, kind: Line, day: date, entries: Sequence[Entry], endpoint: str) -> "Asked":
        """What `say` would send. Raises EntryError where there is nothing to send, ModelError."""
        if not entries:
            raise EntryError(EMPTY[kind])
        if why_not := self._model.unavailable_reason(endpoint):
            raise ModelError("unreachable", why_not)
        return await self._asked(kind, day, entries, endpoint)

    async def _asked(self, kind: Line, day: date, entries: Sequence[Entry], endpoint: str) -> "Asked":
        client = await self._model.client(endpoint)
        written = [Turn("me", entry.text, entry.day) for entry in entries]
        prompt = await self._prompts.build_line(client, kind, day=day, turns=written)
        return Asked(prompt, client, await client.describe(), MAX_TOKENS)

    async def say(self, keys: Keyring, kind: Line, day: date, entries: Sequence[Entry], endpoint: str) -> StoredSummary:
        """Ask for a line about `entries`, and keep it.

        Raises EntryError when one of them has changed: then nothing is sent, or what was said is not kept.
        """
        read = {entry.id: entry.revision for entry in entries}
        if why_not := self._model.unavailable_reason(endpoint):
            raise ModelError("unreachable", why_not)
        async with self._turns.turn(keys.user_id, lambda _: None):
            asked = await self._asked(kind, day, entries, endpoint)
            prompt = asked.prompt
            said, cut = await self._said(keys, asked, read)
        text = said.strip()
        if kind == "opening":
            text = text.partition("\n")[0].strip()
        if not text:
            raise ModelError("broken", NOTHING)
        digest = StoredSummary(
            kind,
            day,
            text,
            tuple(entry.id for entry in entries),
            made_of(entries),
            "small built-in model" if asked.info.is_embedded else asked.info.name,
            cut,
            QuoteVerifier(prompt.user_texts).verified(text),
        )
        try:
            await self._db.summaries.save(keys, digest, [self._db.entries.require_revisions(keys.user_id, read)])
        except StaleRevision:
            raise EntryError(CHANGED) from None
        return digest

    async def trace(self, keys: Keyring, trace: bytes) -> Summary | None:
        """The summary of a trace, as long as all that bears it is as it was; otherwise it is removed."""
        kept = await self._db.summaries.get(keys, "trace", trace)
        if kept is None:
            return None
        found = {entry.id: entry for entry in await self._db.entries.get_many(keys, kept.sources)}
        entries = tuple(found[source] for source in kept.sources if source in found)
        if not all(map(_open_to_the_model, entries)) or kept.content_hash != await self._state(keys, trace, entries):
            with suppress(StorageError):
                await self._db.summaries.delete(keys, "trace", trace)
            return None
        return Summary(kept, entries)

    async def sum_up_trace(self, keys: Keyring, trace: bytes, endpoint: str = "") -> Summary:
        """Sum up what is written under a trace, now: of it only the sentences that cite an entry.

        Raises EntryError when there is nothing to read or something changed meanwhile, NotFound, ModelError and
        StorageError.
        """
        entries, passages = await self._passages(keys, trace, endpoint)
        made_of = await self._state(keys, trace, entries)
        read = {entry.id: entry.revision for entry in entries}
        async with self._turns.turn(keys.user_id, lambda _: None):
            asked = await self._asked_of_trace(keys, trace, passages, endpoint)
            said, cut = await self._said(keys, asked, read)
        prompt, info = asked.prompt, asked.info
        text = cited_sentences(said, [passage.number for passage in prompt.passages])
        if not text:
            raise ModelError("broken", NOTHING_CITED)
        model = "small built-in model" if info.is_embedded else info.name
        quoted = QuoteVerifier(passage.text for passage in prompt.passages).verified(text)
        digest = StoredSummary("trace", trace, text, tuple(entry.id for entry in entries), made_of, model, cut, quoted)
        try:
            await self._db.summaries.save(keys, digest, [self._db.entries.require_revisions(keys.user_id, read)])
        except StaleRevision:
            raise EntryError(CHANGED) from None
        kept = await self.trace(keys, trace)
        if kept is None:  # what bears the trace is not what it was
            raise EntryError(CHANGED)
        return kept

    async def preview_trace(self, keys: Keyring, trace: bytes, endpoint: str = "") -> Asked:
        """What would be sent to sum a trace up, exactly. Raises as `sum_up_trace`."""
        _, passages = await self._passages(keys, trace, endpoint)
        return await self._asked_of_trace(keys, trace, passages, endpoint)

    async def _asked_of_trace(self, keys: Keyring, trace: bytes, passages: Sequence[Passage], endpoint: str) -> Asked:
        name = (await self._journal.traces.get(keys, trace)).name
        client = await self._model.client(endpoint)
        prompt = await self._prompts.build_tag_summary(client, name, passages)
        return Asked(prompt, client, await client.describe(), TRACE_TOKENS)

    async def _passages(self, keys: Keyring, trace: bytes, endpoint: str) -> tuple[list[Entry], list[Passage]]:
        """The entries that the summary of a trace is drawn from, by day, and what of them is read, strongest first."""
        name = (await self._journal.traces.get(keys, trace)).name
        if why_not := self._model.unavailable_reason(endpoint):
            raise ModelError("unreachable", why_not)
        entries, strongest = await self._chosen(keys, trace)
        if not entries:
            raise EntryError(UNREADABLE)
        numbers = {entry.id: number for number, entry in enumerate(entries, 1)}
        words = content_words(name)
        return entries, [Passage(numbers[each.id], each.day, excerpt(each.text, -1, words)) for each in strongest]

    async def _said(self, keys: Keyring, asked: Asked, read: Mapping[bytes, int]) -> tuple[str, str]:
        """What the model says, in whole sentences, and what was cut of prompt and answer, in words.

        Nothing is sent when one of the entries that it is to read has changed: EntryError.
        """
        if await self._db.entries.revisions_of(keys.user_id, read) != read:
            raise EntryError(CHANGED)
        said, cut = "", [asked.prompt.omitted] if asked.prompt.omitted else []
        pieces = asked.client.stream(
            asked.prompt.messages,
            max_tokens=asked.max_tokens,
            on_length_limit=lambda: cut.append(AT_LENGTH),
        )
        async with aclosing(pieces):
            async for piece in pieces:
                said = REASONING_END.split(said + piece)[-1]
        return whole_sentences(said) if AT_LENGTH in cut else said, " ".join(cut)

    async def _chosen(self, keys: Keyring, trace: bytes) -> tuple[list[Entry], list[Entry]]:
        """Entries that bear a trace and may be read, as many from the newest as from the oldest.

        By day, and again in the order in which they should be kept where room is short.
        """
        ids = [entry_id for entry_id, _ in await self._journal.traces.entries(keys, trace)]
        half = (len(ids) + 1) // 2
        ends = zip_longest(ids[:half], reversed(ids[half:]))
        order = [entry_id for entry_id in chain.from_iterable(ends) if entry_id is not None]
        found: list[Entry] = []
        for start in range(0, len(order), PASSAGES):
            part = order[start : start + PASSAGES]
            opened = {entry.id: entry for entry in await self._db.entries.get_many(keys, part)}
            found += [opened[each] for each in part if each in opened and _open_to_the_model(opened[each])]
            if len(found) >= PASSAGES:
                break
        found = found[:PASSAGES]
        return sorted(found, key=lambda entry: (entry.day, entry.at, entry.id)), found

    async def _state(self, keys: Keyring, trace: bytes, entries: Sequence[Entry]) -> str:
        """A digest, in hex, of the texts that were read and of which records bear the trace, at which revisions."""
        digest = hashlib.sha256(bytes.fromhex(made_of(entries)))
        bearing = await self._db.entries.revisions_of(keys.user_id, await self._journal.traces.bearing(keys, trace))
        for entry_id, revision in sorted(bearing.items()):
            digest.update(entry_id + revision.to_bytes(8, "big"))
        return digest.hexdigest()


def _open_to_the_model(entry: Entry) -> bool:
    return entry.role == "me" and entry.deleted is None and not entry.withheld and entry.state == "done"


def readable(page: Sequence[Thread]) -> list[Entry]:
    """What the writer wrote on a page and does not keep from the model, oldest first."""
    found = [
        entry
        for thread in page
        if not thread.root.withheld
        for entry in (thread.root, *thread.later)
        if _open_to_the_model(entry)
    ]
    return sorted(found, key=lambda entry: (entry.at, entry.id))


def made_of(entries: Sequence[Entry]) -> str:
    """A digest of entries and their texts, in hex: another one once any of them changes, comes or goes."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.id):
        digest.update(entry.id + hashlib.sha256(entry.text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
