"""Ask for replies: about an entry, about a day, and in a conversation."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from llamora.errors import Notice
from llamora.journal.composing import ComposedPrompt
from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.reading import model_may_read
from llamora.journal.replies import Replies
from llamora.journal.searches import Searches
from llamora.llm.errors import ModelError
from llamora.llm.model import Model
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.drafts import FormToken
from llamora.persistence.entries import Entry
from llamora.search.results import Hit
from llamora.vault.keys import Keyring

MAX_ENTRIES_PER_REPLY = 200  # entries that one reply may answer


@dataclass(slots=True, frozen=True)
class Related:
    """The answer when there is no model: an entry, and others that are related to it."""

    entry: Entry
    hits: list[Hit]


@dataclass(slots=True, frozen=True)
class Answered:
    """A saved answer; the reply to it if one was asked for, or why there is none."""

    answer: Entry
    reply: Entry | None = None
    problem: Notice | None = None


@dataclass(slots=True, frozen=True)
class Asking:
    """Ask the model, or without one show what is related."""

    _journal: Journal
    _replies: Replies
    _searches: Searches
    _model: Model

    async def ask(self, user: UserContext, entry_id: bytes) -> Entry | Related:
        """Start a reply to an entry and return it; without a model return related entries.

        Raises as `Replies.ask`.
        """
        user.require_replies()
        if self._model.unavailable_reason(user.endpoint):
            return Related(*await self._searches.find_related(user.keys, entry_id))
        return await self._replies.ask(user, entry_id)

    async def ask_about_day(
        self, user: UserContext, day: date, entry_ids: Collection[bytes]
    ) -> Entry:
        """Start one reply to entries of a day, those that the model may read; return it.

        Raises EntryError for none or too many, and as `Replies.ask`.
        """
        user.require_replies()
        if len(entry_ids) > MAX_ENTRIES_PER_REPLY:
            raise EntryError("too_many_entries", most=MAX_ENTRIES_PER_REPLY)
        roots = [thread.root for thread in await self._journal.get_page(user.keys, day)]
        asked = [
            root.id
            for root in roots
            if root.id in entry_ids and root.role == "me" and model_may_read(root, root)
        ]
        if not asked:
            raise EntryError("no_entries_marked")
        return await self._replies.ask(user, asked[-1], asked[:-1])

    async def answer(
        self,
        user: UserContext,
        reply_id: bytes,
        text: str,
        form_token: FormToken | None = None,
        *,
        ask: bool = False,
    ) -> Answered:
        """Save an answer to a reply, and `ask` for the next reply unless the model is off.

        The answer is saved even if there is no reply. Raises as `Journal.answer`.
        """
        answer = await self._journal.answer(user, reply_id, text, form_token)
        if not (ask and user.profile.replies):
            return Answered(answer)
        try:
            return Answered(answer, await self._replies.ask(user, answer.id))
        except (ModelError, EntryError, StorageError) as error:
            return Answered(answer, problem=error.notice)

    async def preview(self, user: UserContext, entry_id: bytes) -> tuple[Entry, ComposedPrompt]:
        """Return the entry that a reply would answer, and the exact prompt that asks for it.

        For a reply these are those of another one to the same entries. Raises as
        `Composer.preview`.
        """
        entry = await self._journal.get(user.keys, entry_id)
        if entry.role != "reply":
            return entry, await self._replies.composer.preview(user, entry.id)
        parent = await self._journal.get(user.keys, entry.parent_id or entry.id)
        return parent, await self._replies.composer.preview(user, parent.id, entry.also_answers)

    async def get_reply(self, keys: Keyring, reply_id: bytes) -> Entry:
        """Return a reply. Raises NotFound, also for an id of another kind of message."""
        entry = await self._journal.get(keys, reply_id)
        if entry.role != "reply":
            raise NotFound("reply_not_found")
        return entry
