"""Compose the prompt of a reply: select readable entries and fit them into the context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from msgspec.structs import replace

from llamora.dates import format_time
from llamora.dates import parse_zone as zone_named
from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.profile import zone_or_utc
from llamora.journal.reading import find_readable, model_may_read, readable_entries
from llamora.journal.receipts import build_receipt
from llamora.journal.retrieval import Candidate, from_search, from_tags
from llamora.journal.threads import Thread, build_threads, find_thread
from llamora.llm.budget import Passage, Turn
from llamora.llm.client import ModelClient
from llamora.llm.model import Model
from llamora.llm.prompts import Prompt
from llamora.persistence.entries import Entry, Receipt, UsedPassage
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class ComposedPrompt:
    """A prompt, and its receipt as far as it is known before the model is asked.

    `texts_used` are the texts of the page in it, by entry id; `revisions` those of all entries in
    it, passages included; `quoted` the verified quotations of earlier replies in the thread.
    """

    prompt: Prompt
    client: ModelClient
    receipt: Receipt
    texts_used: Mapping[bytes, str]
    revisions: Mapping[bytes, int]
    max_tokens: int
    quoted: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Composer:
    """Compose prompts for replies."""

    _db: LocalDB
    _journal: Journal
    _search: SearchService
    _model: Model

    async def preview(
        self, user: UserContext, parent_id: bytes, also_answers: Sequence[bytes] = ()
    ) -> ComposedPrompt:
        """Return the exact prompt of a reply to an entry.

        Raises as `compose`, and NotFound if the user has turned the model off.
        """
        user.require_replies()
        entry = await self._journal.get(user.keys, parent_id)
        page = build_threads(await self._db.entries.list_day(user.keys, entry.day))
        return await self.compose(user, page, entry.day, parent_id, also_answers, exact=True)

    async def compose(
        self,
        user: UserContext,
        page: list[Thread],
        day: date,
        parent_id: bytes,
        also_answers: Sequence[bytes],
        *,
        exact: bool = False,
    ) -> ComposedPrompt:
        """Gather the material of a reply, and fit it into the model's context.

        `exact` counts all tokens rather than estimating them. Raises EntryError for an entry that
        is withheld from the model, ModelError, NotFound and StorageError.
        """
        client = await self._model.client(user.endpoint)
        path, rest_of_page = _split_page(page, parent_id, also_answers)
        if not (path := await self._drop_untrusted_replies(user.keys, page, path)):
            await self._journal.get(user.keys, parent_id)  # raises NotFound if it was deleted
            raise EntryError("entry_withheld")
        turns, asked = _turns(path, is_joined=bool(also_answers)), [parent_id, *also_answers]
        candidates = await self._find_passages(user, page, day, asked, turns[-1].text)
        sources = [candidate.passage for candidate in candidates]
        prompt = await self._model.prompts.build_reply(
            client,
            day=day,
            thread=turns,
            rest_of_day=[Turn("me", e.text) for e in rest_of_page],
            passages=[Passage(used.number, used.day, used.text) for used in sources],
            count_exactly=exact,
        )
        return ComposedPrompt(
            prompt,
            client,
            await self._receipt(client, prompt, sources, rest_of_page),
            {e.id: e.text for e in (*path, *rest_of_page)},
            _revisions((*path, *rest_of_page), candidates),
            self._model.max_reply_tokens,
            tuple(words for e in path if e.receipt for words in e.receipt.quoted),
        )

    async def _receipt(
        self,
        client: ModelClient,
        prompt: Prompt,
        sources: Sequence[UsedPassage],
        rest_of_page: Sequence[Entry],
    ) -> Receipt:
        used = tuple(
            replace(sources[p.number - 1], number=p.number, text=p.text) for p in prompt.passages
        )
        info = await client.describe()
        receipt = build_receipt(info, client, prompt, self._model.prompts.version, used)
        return replace(receipt, same_page_ids=tuple(e.id for e in rest_of_page))

    async def _find_passages(
        self,
        user: UserContext,
        page: list[Thread],
        day: date,
        answered_ids: list[bytes],
        question: str,
    ) -> list[Candidate]:
        keys, tags = user.keys, self._journal.tags
        page_ids = {entry.id for thread in page for entry in thread.messages}
        found = await from_search(self._search, self._db, keys, question, user.today, page_ids)
        return await from_tags(tags, self._db, keys, answered_ids, question, day, page_ids, found)

    async def _drop_untrusted_replies(
        self, keys: Keyring, page: list[Thread], path: list[Entry]
    ) -> list[Entry]:
        """Return `path` without replies that may hold words of entries the model may not read.

        All replies from the first such one on are dropped: later ones had it in their prompts.
        """
        page_ids = {e.id for thread in page for e in thread.messages}
        path_ids = {e.id for e in path}
        readable_ids = {e.id for e in readable_entries(page)}
        source_ids = {i for e in path if e.role == "reply" for i in _source_ids(e)} - readable_ids
        readable_ids |= (await find_readable(self._db, keys, source_ids)).keys()
        trusted_path: list[Entry] = []
        is_trusted = True
        for entry in path:
            if entry.parent_id in page_ids - path_ids:  # a message in between was removed
                is_trusted = False
            if entry.role == "reply":
                is_trusted = (
                    is_trusted
                    and not (entry.receipt and entry.receipt.erased_count)
                    and _source_ids(entry) <= readable_ids
                )
            if entry.role == "me" or is_trusted:
                trusted_path.append(entry)
        return trusted_path


def _turns(path: list[Entry], *, is_joined: bool) -> list[Turn]:
    if not is_joined:
        return [Turn(entry.role, entry.text) for entry in path]
    text = "\n\n".join(
        f"{format_time(e.at, zone_named(zone_or_utc(e.zone)))}\n{e.text}"
        for e in path
        if e.role == "me"
    )
    return [Turn("me", text)]


def _revisions(entries: Sequence[Entry], candidates: Sequence[Candidate]) -> dict[bytes, int]:
    of_passages = {used.entry_id: revision for used, revision in candidates}
    return {entry.id: entry.revision for entry in entries} | of_passages


def _source_ids(reply: Entry) -> set[bytes]:
    """Return the ids of all entries that a reply answers or that were in its prompt.

    Those before it in its own thread are not included.
    """
    same_page_ids = reply.receipt.same_page_ids if reply.receipt else ()
    passage_ids = [passage.entry_id for passage in reply.receipt.passages] if reply.receipt else []
    return {
        *([reply.parent_id] if reply.parent_id else []),
        *reply.also_answers,
        *reply.sources,
        *same_page_ids,
        *passage_ids,
    }


def _split_page(
    page: list[Thread], parent_id: bytes, also_answers: Sequence[bytes]
) -> tuple[list[Entry], list[Entry]]:
    """Return the path to the answered entry (or all answered entries), and the rest of the page.

    Both omit entries that are withheld from the model; the path to such an entry is empty.
    Raises NotFound.
    """
    thread = find_thread(page, parent_id)
    path = [entry for entry in thread.path_to(parent_id) if model_may_read(entry, thread.root)]
    if not path or path[-1].id != parent_id:
        return [], []
    answered_ids = {parent_id, *also_answers}
    roots = [t.root for t in page if t.root.role == "me" and model_may_read(t.root, t.root)]
    rest_of_page = [root for root in roots if root.id not in {*answered_ids, thread.root.id}]
    if also_answers:
        return [root for root in roots if root.id in answered_ids], rest_of_page
    return path, rest_of_page
