"""What a reply is asked with: which entries it may draw on, fitted into the model's context, and its receipt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from llamora.dates import format_time
from llamora.dates import parse_zone as zone_named
from llamora.journal.entries import EntryError, Journal, Thread, threads
from llamora.journal.profile import known_zone
from llamora.journal.retrieval import recalled, related
from llamora.llm.client import ModelClient, ModelInfo
from llamora.llm.model import Model
from llamora.llm.prompts import Passage, Prompt, PromptBuilder, Turn
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry, Receipt, UsedPassage
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.vault.keys import Keyring

WITHHELD = "This entry is kept from the model. Let the model read it first, then ask."


@dataclass(slots=True, frozen=True)
class Composed:
    """A prompt, and what a receipt says of it before the model was asked.

    `read` are the texts of its page, by id; `seen` the revisions of all that is in it; `quoted` what earlier replies
    of the thread quoted letter by letter.
    """

    prompt: Prompt
    client: ModelClient
    receipt: Receipt
    read: Mapping[bytes, str]
    seen: Mapping[bytes, int]
    max_tokens: int
    quoted: tuple[str, ...]


class Composer:
    """Gathers what a model is asked with."""

    def __init__(
        self,
        db: LocalDB,
        journal: Journal,
        search: SearchService,
        model: Model,
        prompts: PromptBuilder,
        max_tokens: int,
    ) -> None:
        self._db = db
        self._journal = journal
        self._search = search
        self._model = model
        self._prompts = prompts
        self._max_tokens = max_tokens

    async def preview(
        self, keys: Keyring, to: bytes, today: date, *, also: Sequence[bytes] = (), endpoint: str = ""
    ) -> Composed:
        """What would be sent for a reply to an entry, exactly. Raises as `compose`."""
        asked = await self._journal.get(keys, to)
        page = threads(await self._db.entries.list_day(keys, asked.day))
        return await self.compose(keys, page, asked.day, to, also, today, endpoint, exact=True)

    async def compose(
        self,
        keys: Keyring,
        page: list[Thread],
        day: date,
        to: bytes,
        also: Sequence[bytes],
        today: date,
        endpoint: str,
        *,
        exact: bool = False,
    ) -> Composed:
        """Gather what a reply may draw on, and fit it into the model's context; `exact`: with all tokens counted.

        Raises EntryError for an entry that is kept from the model, ModelError, NotFound and StorageError.
        """
        client = await self._model.client(endpoint)
        path, notes = _page_for(page, to, also)
        path = await self._still_true(keys, page, path)
        if not path:
            await self._journal.get(keys, to)  # raises NotFound when it was deleted meanwhile
            raise EntryError(WITHHELD)
        turns = [Turn(e.role, e.text) for e in path]
        if also:
            asked = [e for e in path if e.role == "me"]
            text = "\n\n".join(f"{format_time(e.at, zone_named(known_zone(e.zone)))}\n{e.text}" for e in asked)
            turns = [Turn("me", text)]
        here = {entry.id for thread in page for entry in (thread.root, *thread.later)}
        drawn = await related(self._search, self._db, keys, turns[-1].text, today, here)
        drawn = await recalled(self._journal.traces, self._db, keys, [to, *also], turns[-1].text, day, here, drawn)
        found = [each.used for each in drawn]
        passages = [Passage(number, used.day, used.text) for number, used in enumerate(found, 1)]
        prompt = await self._prompts.build_reply(
            client,
            day=day,
            thread=turns,
            rest_of_day=[Turn("me", e.text) for e in notes],
            passages=passages,
            count_exactly=exact,
        )
        info = await client.describe()
        used = tuple(replace(found[p.number - 1], number=p.number, text=p.text) for p in prompt.passages)
        receipt = replace(self.receipt(info, client, prompt, used), same_page_ids=tuple(e.id for e in notes))
        read, seen = {e.id: e.text for e in (*path, *notes)}, {e.id: e.revision for e in (*path, *notes)}
        seen |= {used.entry_id: revision for used, revision in drawn}
        quoted = tuple(words for e in path if e.receipt is not None for words in e.receipt.quoted)
        return Composed(prompt, client, receipt, read, seen, self._max_tokens, quoted)

    async def _still_true(self, keys: Keyring, page: list[Thread], path: list[Entry]) -> list[Entry]:
        """The messages without replies that may hold words of what the model may not read, or may read no longer.

        From the first such reply on all of them go: the later ones were made with the earlier ones in the prompt.
        """
        open_to_it = {e.id for e in _readable(page)}
        behind = {i for e in path if e.role == "reply" for i in _drawn_on(e)} - open_to_it
        found = await self._db.entries.get_many(keys, list(behind))
        open_to_it |= {e.id for e in found if e.role == "me" and e.deleted is None and not e.withheld}
        kept: list[Entry] = []
        trusted = True
        for entry in path:
            if entry.role == "reply":
                trusted = (
                    trusted and not (entry.receipt and entry.receipt.erased_count) and _drawn_on(entry) <= open_to_it
                )
            if entry.role == "me" or trusted:
                kept.append(entry)
        return kept

    def receipt(
        self, info: ModelInfo, client: ModelClient, prompt: Prompt, used: tuple[UsedPassage, ...] = ()
    ) -> Receipt:
        """What is known of a reply before the model is asked."""
        return Receipt(
            model="small built-in model" if info.is_embedded else info.name,
            model_file=info.file or (info.name if info.is_embedded else ""),
            endpoint="" if info.is_embedded else info.endpoint,
            left_machine=not info.is_local,
            prompt_version=self._prompts.version,
            passages=used,
            tokens_in=prompt.tokens,
            tokens_counted=client.has_tokenizer and not prompt.is_estimated,
            omitted=prompt.omitted,
        )


def _drawn_on(reply: Entry) -> set[bytes]:
    """All entries that a reply answers or whose words were in its prompt, but for those before it in its thread."""
    beside = reply.receipt.same_page_ids if reply.receipt else ()
    passages = [used.entry_id for used in reply.receipt.passages] if reply.receipt else []
    return {*([reply.parent_id] if reply.parent_id else []), *reply.also_answers, *reply.sources, *beside, *passages}


def _readable(page: list[Thread]) -> list[Entry]:
    """What the writer wrote on a page that is neither deleted nor kept from the model."""
    return [
        entry
        for thread in page
        if thread.root.deleted is None and not thread.root.withheld
        for entry in (thread.root, *thread.later)
        if entry.role == "me" and entry.deleted is None and not entry.withheld
    ]


def _page_for(page: list[Thread], to: bytes, also: Sequence[bytes]) -> tuple[list[Entry], list[Entry]]:
    """What leads to the entry that is asked about (or all that are asked about), and the rest of its page.

    Both are without what is kept from the model; nothing leads to an entry that is.
    """
    thread = next((t for t in page if to in {e.id for e in (t.root, *t.later)}), None)
    if thread is None:
        raise NotFound("There is no such entry.")
    withheld = {e.id for t in page for e in (t.root, *t.later) if e.withheld or t.root.withheld}
    together = {to, *also} - withheld
    path = thread.leading_to(to)
    if to in withheld or not path or path[-1].id != to:
        return [], []
    roots = [t.root for t in page if t.root.deleted is None and t.root.role == "me"]
    notes = [root for root in roots if root.id not in together | withheld and root.id != thread.root.id]
    if also:
        return [root for root in roots if root.id in together], notes
    return [e for e in path if e.id not in withheld], notes
