"""Compose the prompt of a reply: select readable entries and fit them into the context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from msgspec.structs import replace

from llamora.dates import format_time
from llamora.dates import parse_zone as zone_named
from llamora.journal.entries import EntryError, Journal, Thread, build_threads
from llamora.journal.profile import zone_or_utc
from llamora.journal.reading import find_readable, model_may_read, readable_entries
from llamora.journal.retrieval import from_search, from_tags
from llamora.llm.budget import Passage, Turn
from llamora.llm.client import ModelClient
from llamora.llm.model import Model
from llamora.llm.probe import ModelInfo
from llamora.llm.prompts import Prompt, PromptBuilder
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import BUILT_IN_MODEL, Entry, Omitted, Receipt, UsedPassage
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


class Composer:
    """Compose prompts for replies."""

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
        self,
        keys: Keyring,
        parent_id: bytes,
        today: date,
        *,
        also_answers: Sequence[bytes] = (),
        endpoint: str = "",
    ) -> ComposedPrompt:
        """Return the exact prompt of a reply to an entry. Raises as `compose`."""
        entry = await self._journal.get(keys, parent_id)
        page = build_threads(await self._db.entries.list_day(keys, entry.day))
        return await self.compose(
            keys, page, entry.day, parent_id, also_answers, today, endpoint, exact=True
        )

    async def compose(
        self,
        keys: Keyring,
        page: list[Thread],
        day: date,
        parent_id: bytes,
        also_answers: Sequence[bytes],
        today: date,
        endpoint: str,
        *,
        exact: bool = False,
    ) -> ComposedPrompt:
        """Gather the material of a reply, and fit it into the model's context.

        `exact` counts all tokens rather than estimating them. Raises EntryError for an entry that
        is withheld from the model, ModelError, NotFound and StorageError.
        """
        client = await self._model.client(endpoint)
        path, rest_of_page = _split_page(page, parent_id, also_answers)
        path = await self._drop_untrusted_replies(keys, page, path)
        if not path:
            await self._journal.get(
                keys, parent_id
            )  # raises NotFound when it was deleted meanwhile
            raise EntryError("entry_withheld")
        turns = [Turn(e.role, e.text) for e in path]
        if also_answers:
            own_entries = [e for e in path if e.role == "me"]
            text = "\n\n".join(
                f"{format_time(e.at, zone_named(zone_or_utc(e.zone)))}\n{e.text}"
                for e in own_entries
            )
            turns = [Turn("me", text)]
        page_ids = {entry.id for thread in page for entry in (thread.root, *thread.descendants)}
        candidates = await from_search(
            self._search, self._db, keys, turns[-1].text, today, page_ids
        )
        candidates = await from_tags(
            self._journal.tags,
            self._db,
            keys,
            [parent_id, *also_answers],
            turns[-1].text,
            day,
            page_ids,
            candidates,
        )
        sources = [candidate.passage for candidate in candidates]
        passages = [Passage(number, used.day, used.text) for number, used in enumerate(sources, 1)]
        prompt = await self._prompts.build_reply(
            client,
            day=day,
            thread=turns,
            rest_of_day=[Turn("me", e.text) for e in rest_of_page],
            passages=passages,
            count_exactly=exact,
        )
        info = await client.describe()
        used = tuple(
            replace(sources[p.number - 1], number=p.number, text=p.text) for p in prompt.passages
        )
        receipt = replace(
            self.build_receipt(info, client, prompt, used),
            same_page_ids=tuple(e.id for e in rest_of_page),
        )
        texts_used, revisions = (
            {e.id: e.text for e in (*path, *rest_of_page)},
            {e.id: e.revision for e in (*path, *rest_of_page)},
        )
        revisions |= {used.entry_id: revision for used, revision in candidates}
        quoted = tuple(words for e in path if e.receipt is not None for words in e.receipt.quoted)
        return ComposedPrompt(
            prompt, client, receipt, texts_used, revisions, self._max_tokens, quoted
        )

    async def _drop_untrusted_replies(
        self, keys: Keyring, page: list[Thread], path: list[Entry]
    ) -> list[Entry]:
        """Return `path` without replies that may hold words of entries the model may not read.

        All replies from the first such one on are dropped: later ones had it in their prompts.
        """
        page_ids = {e.id for thread in page for e in (thread.root, *thread.descendants)}
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

    def build_receipt(
        self,
        info: ModelInfo,
        client: ModelClient,
        prompt: Prompt,
        passages: tuple[UsedPassage, ...] = (),
    ) -> Receipt:
        """Return the receipt of a reply as far as it is known before the model is asked."""
        return Receipt(
            model=BUILT_IN_MODEL if info.is_embedded else info.name,
            model_file=info.file or (info.name if info.is_embedded else ""),
            endpoint="" if info.is_embedded else info.endpoint,
            left_machine=not info.is_local,
            prompt_version=self._prompts.version,
            passages=passages,
            tokens_in=prompt.tokens,
            tokens_counted=client.tokens.has_tokenizer and not prompt.is_estimated,
            omitted=Omitted(*prompt.omitted),
        )


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
    thread = next((t for t in page if parent_id in {e.id for e in (t.root, *t.descendants)}), None)
    if thread is None:
        raise NotFound("entry_not_found")
    path = [entry for entry in thread.path_to(parent_id) if model_may_read(entry, thread.root)]
    if not path or path[-1].id != parent_id:
        return [], []
    answered_ids = {parent_id, *also_answers}
    roots = [t.root for t in page if t.root.role == "me" and model_may_read(t.root, t.root)]
    rest_of_page = [root for root in roots if root.id not in {*answered_ids, thread.root.id}]
    if also_answers:
        return [root for root in roots if root.id in answered_ids], rest_of_page
    return path, rest_of_page
