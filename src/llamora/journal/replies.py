"""Request, stream, stop and recover replies.

Generation belongs to the server process, and does not depend on an open browser tab.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from logging import getLogger

from msgspec.structs import replace

from llamora.errors import Notice, Problem
from llamora.events import ChangeSignal, EventBus
from llamora.journal.composing import ComposedPrompt, Composer
from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.live import READING, LiveReply
from llamora.journal.profile import parse_profile
from llamora.journal.reading import keep_readable, model_may_read
from llamora.journal.receipts import strip_references
from llamora.journal.threads import Thread, build_threads
from llamora.llm.budget import MESSAGE_TOKENS
from llamora.llm.errors import ModelError
from llamora.llm.model import Model
from llamora.llm.prompts import PromptBuilder
from llamora.llm.queue import ModelQueue, SlotQueue
from llamora.llm.tokens import estimate_tokens
from llamora.persistence.connection import (
    AlreadyExists,
    NotFound,
    StaleRevision,
    StorageError,
    Transaction,
)
from llamora.persistence.entries import Entry, Receipt, State
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.settings import LlmSettings
from llamora.text import error_location
from llamora.vault.keys import Keyring, KeyringClosed

logger = getLogger(__name__)

SAVE_SECONDS = 0.4  # plus the time of a save: a crash loses at most half a second of shown text
WATCH_SECONDS = 1.0  # between two looks at the store when no event says that it changed
STOP_TIMEOUT_SECONDS = 2.0  # after which a worker that does not stop is presumed dead
RETRY_SECONDS = 2.0
LOCK_TIMEOUT_SECONDS = 0.5  # in which a lock lets replies be stored
MAX_RETRIES = 5
STOPPED = Notice("reply_stopped")
INTERRUPTED = Notice("reply_interrupted")
SOURCE_ERASED = Notice("reply_source_erased")
SOURCE_DELETED = Notice("reply_source_deleted")
SOURCE_WITHHELD = Notice("reply_source_withheld")


class Replies:
    """Ask the model for replies and store them.

    `worker_id` identifies this worker in this run of the server; `is_worker_alive` tells if an id
    belongs to another worker that is alive.
    """

    def __init__(
        self,
        db: LocalDB,
        journal: Journal,
        search: SearchService,
        model: Model,
        prompts: PromptBuilder,
        settings: LlmSettings,
        worker_id: str,
        queue: SlotQueue | None = None,
        changes: ChangeSignal | None = None,
        is_worker_alive: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._db = db
        self._journal = journal
        self._search = search
        self._model = model
        self.composer = Composer(db, journal, search, model, prompts, settings.max_reply_tokens)
        self._settings = settings
        self._worker_id = worker_id
        self._live_replies: dict[bytes, LiveReply] = {}
        self._keyrings: dict[bytes, Keyring] = {}
        self._watch_task: asyncio.Task[None] | None = None
        self._is_worker_alive = is_worker_alive
        self.queue: SlotQueue = queue or ModelQueue(settings.slots)
        self._changes = changes or ChangeSignal(EventBus())

    async def ask(
        self,
        user: UserContext,
        parent_id: bytes,
        also_answers: Sequence[bytes] = (),
    ) -> Entry:
        """Start a reply to an entry and return it, still empty, or the one already in progress.

        With `also_answers` it answers these entries of the same page too, and belongs below
        `parent_id`. Raises ModelError if there is no model, EntryError if the parent is a reply or
        withheld from the model, NotFound, also if the user has turned the model off, and
        StorageError.
        """
        user.require_replies()
        keys = user.keys
        if why_not := self._model.unavailable_reason(user.endpoint):
            raise ModelError(why_not)
        parent = await self._journal.get(keys, parent_id)
        if parent.role != "me":
            raise EntryError("reply_to_reply")
        known_ids: set[bytes] | None = None  # on its page at the time of the request
        for _ in range(MAX_RETRIES):
            day_entries = await self._db.entries.list_day(keys, parent.day)
            known_ids = {entry.id for entry in day_entries} if known_ids is None else known_ids
            page = build_threads(day_entries)
            thread = next(
                (thread for thread in page if parent_id in {e.id for e in thread.messages}),
                None,
            )
            if thread is None:
                raise NotFound("entry_not_found")
            parent = next(e for e in thread.messages if e.id == parent_id)
            if not model_may_read(parent, thread.root):
                await self._journal.get(keys, parent_id)  # raises NotFound if it was deleted
                raise EntryError("entry_withheld")
            asked_ids = {parent_id, thread.root.id, *also_answers}
            asked_revisions = {e.id: e.revision for e in day_entries if e.id in asked_ids}
            for live in list(self._live_replies.values()):
                is_same = (live.entry.parent_id, live.entry.also_answers) == (
                    parent_id,
                    tuple(also_answers),
                )
                if (
                    is_same and not live.is_finished and await asyncio.shield(live.stored)
                ):  # a reply without a record is not shown
                    return live.snapshot()
            for other in (
                candidate
                for candidate in thread.descendants
                if _is_reply_to(candidate, parent_id, also_answers)
            ):
                if other.id not in known_ids or (
                    other.state == "streaming" and self._is_being_written(other)
                ):
                    return other  # started by another worker
            reply = Entry(
                secrets.token_bytes(16),
                parent.day,
                "reply",
                "",
                self._journal.now(),
                user.profile.zone,
                parent_id=parent_id,
                state="streaming",
                boot=self._worker_id,
                also_answers=tuple(also_answers),
            )
            # Retry if another worker was faster, or if what is asked about was changed.
            with suppress(AlreadyExists, StaleRevision):
                return await self._start(user, LiveReply(reply), page, known_ids, asked_revisions)
        raise StaleRevision("reply_busy")

    async def _start(
        self,
        user: UserContext,
        live: LiveReply,
        page: list[Thread],
        known_ids: set[bytes],
        asked_revisions: Mapping[bytes, int],
    ) -> Entry:
        """Store the record of a reply, and start generating it.

        Raises AlreadyExists if a reply like it exists that is not in `known_ids`, and StaleRevision
        if what it answers is no longer at `asked_revisions`, say because it was withheld.
        """
        reply, keys = live.entry, user.keys
        self._live_replies[reply.id], self._keyrings[reply.id] = live, keys
        live.cached_page = page

        async def mark_unique(_: Transaction) -> None:
            live.is_unique.set()

        parent_id, also_answers = reply.parent_id or reply.id, reply.also_answers
        require_no_new = self._db.entries.require_no_new(
            keys,
            reply.day,
            {*known_ids, reply.id},
            lambda e: _is_reply_to(e, parent_id, also_answers),
        )
        # Composing the prompt overlaps with the write; nothing is shown before that is done.
        live.task = asyncio.create_task(self._generate(user, live), name="reply")
        try:
            require_revisions = self._db.entries.require_revisions(keys.user_id, asked_revisions)
            await self._db.entries.add(
                keys, reply, steps=[require_no_new, require_revisions, mark_unique]
            )
        except BaseException:
            live.stored.set_result(False)
            live.task.cancel()
            self._discard(reply.id)
            raise
        live.stored.set_result(True)
        if self._watch_task is None or self._watch_task.done():
            self._watch_task = asyncio.create_task(self._watch(), name="stops of replies")
        return reply

    async def stop(self, keys: Keyring, reply_id: bytes) -> Entry:
        """Stop a reply in whichever worker generates it, keeping its text so far.

        Returns it as stored. Raises NotFound and StorageError.
        """
        entry = await self._journal.get(keys, reply_id)  # also checks whose it is
        if entry.role != "reply":
            raise NotFound("reply_not_found")
        live = self._live_replies.get(reply_id)
        if live is not None and live.task is not None:
            self._cancel(live, STOPPED)
            while not live.is_finished:  # the task itself may still retry storing it
                await live.changed.wait()
            return live.entry
        entry = await self.reconcile(keys, entry)
        if entry.state != "streaming":
            return entry
        for _ in range(MAX_RETRIES):
            with suppress(StaleRevision):  # it has grown meanwhile
                await self._db.entries.update(keys, replace(entry, stopping=True))
                break
            entry = await self._journal.get(keys, reply_id)
            if entry.state != "streaming":
                return entry
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            change = self._changes.next_change
            entry = await self._journal.get(keys, reply_id)
            if entry.state != "streaming":
                return entry
            await self._changes.wait(change, min(WATCH_SECONDS, deadline - time.monotonic()))
        return await self._store(
            keys, replace(entry, state="stopped", note=INTERRUPTED, boot="", stopping=False)
        )

    def cancel_for(self, entry_ids: Iterable[bytes], reason: Notice = SOURCE_ERASED) -> None:
        """Stop generating these entries, which are about to be erased, and what draws on them.

        Call it also when they are deleted or withheld, with that `reason`, so that no further text
        is stored.
        """
        affected_ids = set(entry_ids)
        for reply_id, live in self._live_replies.items():
            if reply_id in affected_ids:
                self._cancel(live, STOPPED)
            elif not affected_ids.isdisjoint(live.texts_used):
                self._cancel(live, reason)

    async def follow(
        self, keys: Keyring, reply_id: bytes
    ) -> AsyncGenerator[tuple[Entry, Notice | None]]:
        """Yield the reply each time it has grown, and the notice to show while it waits.

        Each item has the whole text so far, so a caller may start late or again. The last one is no
        longer streaming. Raises NotFound and StorageError.
        """
        live = self._live_replies.get(reply_id)
        while live is not None:
            changed = live.changed
            yield live.snapshot(), live.waiting_message
            if live.is_finished:
                return
            await changed.wait()
        while True:
            change = self._changes.next_change
            entry = await self.reconcile(keys, await self._journal.get(keys, reply_id))
            yield entry, None if entry.text else READING
            if entry.state != "streaming":
                return
            await self._changes.wait(change, WATCH_SECONDS)

    def _is_being_written(self, reply: Entry) -> bool:
        """Return True if a living worker is still generating a reply.

        False for one of this worker that is not live here: storing its end must have failed.
        """
        return reply.id in self._live_replies or self._is_worker_alive(reply.boot)

    def waiting_message(self, reply_id: bytes) -> Notice | None:
        """Return the notice to show for a reply that has no text yet."""
        live = self._live_replies.get(reply_id)
        return live.waiting_message if live is not None else READING

    async def reconcile(self, keys: Keyring, entry: Entry) -> Entry:
        """Return an entry in its true state.

        A streaming reply gets the text that is not stored yet, or is marked as interrupted if no
        worker generates it any more.
        """
        if entry.state != "streaming":
            return entry
        live = self._live_replies.get(entry.id)
        if live is not None:
            return live.snapshot()
        if self._is_being_written(entry):
            return entry  # by another worker
        interrupted = replace(entry, state="stopped", note=INTERRUPTED, boot="", stopping=False)
        try:
            return await self._store(keys, interrupted)
        except StorageError:
            return interrupted  # a full disk must not prevent reading; it is marked next time

    async def close(self) -> None:
        """Stop all replies of this worker, storing their text so far as interrupted."""
        if self._watch_task is not None:
            self._watch_task.cancel()
        running = [live for live in self._live_replies.values() if live.task is not None]
        for live in running:
            self._cancel(live, INTERRUPTED)
        tasks = [live.task for live in running if live.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def lock(self, user_id: bytes) -> None:
        """Stop the replies of a user and store their text so far, before their keys are closed.

        Waits LOCK_TIMEOUT_SECONDS at most.
        """
        tasks = [
            live.task for live in self._cancel_all(user_id, INTERRUPTED) if live.task is not None
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=LOCK_TIMEOUT_SECONDS)

    # -- one reply ---------------------------------------------------------------------------------

    @staticmethod
    def _cancel(live: LiveReply, reason: Notice) -> None:
        # Cancelling during the final save could only lose the reply.
        if live.task is not None and not live.is_finishing and not live.stop_reason:
            live.task.cancel()
        live.stop_reason = reason

    def _cancel_all(self, user_id: bytes, reason: Notice) -> list[LiveReply]:
        user_replies = [
            self._live_replies[reply_id]
            for reply_id, keys in self._keyrings.items()
            if keys.user_id == user_id
        ]
        for live in user_replies:
            self._cancel(live, reason)
        return user_replies

    async def _generate(self, user: UserContext, live: LiveReply) -> None:
        keys = user.keys
        state: State = "done"
        note: Notice | None = None
        try:
            async with self.queue.slot(keys.user_id, live.on_position):
                live.on_position(-1)
                await self._stream(user, live)
            if not live.text.strip():
                state, note = (
                    "failed",
                    Notice("reply_length_before_text" if live.is_length_limited else "reply_empty"),
                )
            elif live.is_length_limited:
                state, note = "stopped", Notice("reply_length_reached")
        except asyncio.CancelledError:
            state, note = "stopped", live.stop_reason
        except Problem as error:
            state, note = "failed", error.notice
        except KeyringClosed:
            state, note = "stopped", INTERRUPTED
        except Exception as error:
            logger.error("a reply failed (%s at %s)", type(error).__name__, error_location(error))
            state, note = "failed", Notice("reply_failed")
        live.is_finishing = True
        if await live.stored:
            await self._store_final(keys, live, state, note)

    async def _stream(self, user: UserContext, live: LiveReply) -> None:
        entry, keys = live.entry, user.keys
        page, live.cached_page = live.cached_page, None  # `_stop_reason` notices later changes
        page = (
            build_threads(await self._db.entries.list_day(keys, entry.day))
            if page is None
            else page
        )
        composed = await self.composer.compose(
            user, page, entry.day, entry.parent_id or entry.id, entry.also_answers
        )
        prompt, receipt = composed.prompt, composed.receipt
        live.set_prompt(prompt, composed.quoted)
        sources = tuple(p.entry_id for p in receipt.passages)
        live.entry = replace(entry, model=receipt.model, sources=sources, receipt=receipt)
        live.texts_used = {**{p.entry_id: p.text for p in receipt.passages}, **composed.texts_used}
        live.revisions = composed.revisions
        await live.is_unique.wait()
        if reason := await self._stop_reason(keys, live):  # changed during composing
            self._cancel(live, reason)
            await asyncio.sleep(0)  # raises CancelledError, before anything is sent
        chunks = composed.client.stream(
            prompt.messages,
            max_tokens=composed.max_tokens,
            on_length_limit=live.on_length_limit,
            on_reasoning=live.on_reasoning,
        )
        requested_at = time.monotonic()
        chunk_queue: asyncio.Queue[str | None] = asyncio.Queue()
        reader = asyncio.create_task(_read_chunks(chunks, chunk_queue), name="reading a reply")
        try:
            await asyncio.shield(live.stored)
            await self._consume(keys, live, chunk_queue)
            await reader  # raises the errors of the model server
            receipt = await _count_tokens(receipt, composed, live.text)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            receipt = replace(
                receipt,
                tokens_out=receipt.tokens_out or (estimate_tokens(live.text) if live.text else 0),
                quoted=live.quoted(),
                first_token_ms=round((live.first_word_at - requested_at) * 1000)
                if live.first_word_at >= 0
                else -1,
            )
            live.entry = replace(live.entry, receipt=receipt)

    async def _consume(
        self, keys: Keyring, live: LiveReply, chunk_queue: "asyncio.Queue[str | None]"
    ) -> None:
        """Show each chunk at once, and store it within SAVE_SECONDS even if nothing follows."""
        save_at: float | None = None  # deadline for the oldest text not stored yet
        while True:
            try:
                async with asyncio.timeout(
                    None if save_at is None else max(0.0, save_at - time.monotonic())
                ):
                    chunk = await chunk_queue.get()
            except TimeoutError:
                chunk = ""
            if chunk is None:
                return
            now = time.monotonic()
            if chunk:
                live.first_word_at = live.first_word_at if live.first_word_at >= 0 else now
                live.feed(chunk)
                live.notify()
                save_at = save_at or now + SAVE_SECONDS
            if save_at is not None and now >= save_at:
                live.entry = await self._store(keys, live.snapshot(), live.texts_used)
                save_at = None
                if (
                    live.entry.state != "streaming"
                ):  # another worker stopped it, presuming this one dead
                    self._cancel(live, live.entry.note or STOPPED)
                    await asyncio.sleep(0)  # raises CancelledError

    async def _store_final(
        self, keys: Keyring, live: LiveReply, state: State, note: Notice | None
    ) -> None:
        final = replace(
            live.entry,
            text=live.text.strip(),
            state=state,
            note=note or live.entry.note,
            boot="",
            stopping=False,
        )
        while True:
            try:
                live.entry = await self._store(keys, final, live.texts_used)
                break
            except NotFound:
                live.entry = replace(final, text="")  # erased meanwhile: nothing of it may stay
                break
            except StorageError as error:
                # The text is in RAM only: show it with the reason, and retry until there is room.
                live.entry = replace(final, note=error.notice)
                live.is_finished = True
                live.notify()
                if live.stop_reason == INTERRUPTED:
                    break
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # locked before it was stored: `reconcile` marks it later
                logger.warning("the end of a reply was not stored (%s)", type(error).__name__)
                live.entry = replace(final, state="stopped", note=INTERRUPTED)
                break
        live.is_finished = True
        live.notify()
        self._discard(live.entry.id)
        if live.entry.text and live.entry.deleted is None and not keys.closed:
            self._search.put(keys, live.entry)

    def _discard(self, reply_id: bytes) -> None:
        self._live_replies.pop(reply_id, None)
        self._keyrings.pop(reply_id, None)

    async def _store(
        self, keys: Keyring, entry: Entry, texts_used: Mapping[bytes, str] | None = None
    ) -> Entry:
        """Store a reply, after checking in the same transaction that its sources still exist.

        Erased sources are redacted from it. `texts_used` are the texts in its prompt, passed by the
        worker that generates it: without them a reply that has ended meanwhile is left as it is.
        Concurrent changes of its state by others are kept.
        """
        texts = texts_used or {}
        erased_ids = set[bytes]()
        for _ in range(MAX_RETRIES):
            source_ids = {*entry.sources, *entry.also_answers, *texts} - erased_ids
            try:
                require_sources = self._db.entries.require_revisions(
                    keys.user_id, dict.fromkeys(source_ids)
                )
                return await self._db.entries.update(keys, entry, [require_sources])
            except StaleRevision:
                stored = await self._db.entries.get(keys, entry.id)
                if stored.state != "streaming":
                    if texts_used is None:
                        return stored
                    if entry.state == "streaming":
                        entry = replace(entry, state=stored.state, note=stored.note, boot="")
                entry = replace(
                    entry,
                    revision=stored.revision,
                    parent_id=stored.parent_id,
                    also_answers=stored.also_answers,
                    deleted=stored.deleted,
                    preferred=stored.preferred,
                    withheld=stored.withheld,
                    stopping=stored.stopping and entry.state == "streaming",
                )
                erased_ids |= source_ids - set(
                    await self._db.entries.revisions_of(keys.user_id, source_ids)
                )
                entry = (
                    strip_references(
                        entry, erased_ids, [texts[i] for i in erased_ids if texts.get(i)]
                    )
                    or entry
                )
        raise StaleRevision("reply_busy")

    async def _stop_reason(self, keys: Keyring, live: LiveReply) -> Notice | None:
        """Return a notice if a reply must stop, else None.

        It must if a source was erased, deleted or withheld from the model.
        """
        revisions = await self._db.entries.revisions_of(keys.user_id, live.texts_used)
        if live.texts_used.keys() - revisions.keys():
            return SOURCE_ERASED
        changed_ids = [
            entry_id
            for entry_id, revision in revisions.items()
            if live.revisions.get(entry_id) != revision
        ]
        entries = await self._db.entries.get_many(keys, changed_ids)
        readable = await keep_readable(self._db, keys, entries)
        if unreadable := [entry for entry in entries if entry.id not in readable]:
            return (
                SOURCE_DELETED
                if all(e.deleted is not None for e in unreadable)
                else SOURCE_WITHHELD
            )
        live.revisions = revisions
        return None

    async def _is_enabled(self, keys: Keyring) -> bool:
        stored = await self._db.profiles.get(keys)
        return stored is None or parse_profile(*stored).replies

    async def _watch(self) -> None:
        """Watch for changes made by any worker that end a reply of this one.

        These are stop requests, replies being turned off, and sources becoming unreadable.
        """
        counter, change = -1, self._changes.next_change
        while self._live_replies:
            await self._changes.wait(change, WATCH_SECONDS)
            change = self._changes.next_change
            try:
                if counter == (counter := await self._db.data_version()):
                    continue
                for keys in {keys.user_id: keys for keys in self._keyrings.values()}.values():
                    if not await self._is_enabled(keys):
                        self._cancel_all(keys.user_id, Notice("reply_turned_off"))
                for reply_id, live in [
                    item for item in self._live_replies.items() if item[1].stored.done()
                ]:
                    if (keys := self._keyrings.get(reply_id)) is None:
                        continue  # it ended while another one was checked
                    stored = await self._db.entries.get_many(keys, [reply_id])
                    if live.is_finished:
                        continue
                    if not stored or stored[0].stopping:
                        self._cancel(live, STOPPED)
                    elif stored[0].state != "streaming":
                        self._cancel(live, stored[0].note or STOPPED)
                    elif reason := await self._stop_reason(keys, live):
                        self._cancel(live, reason)
            except Exception as error:
                logger.warning("replies could not be watched (%s)", type(error).__name__)
                counter = -1  # check again what was missed


async def _count_tokens(receipt: Receipt, composed: ComposedPrompt, text: str) -> Receipt:
    """Return the receipt with the number of tokens written.

    Tokens read are counted too if they were only estimated.
    """
    client, messages = (
        composed.client,
        composed.prompt.messages if composed.prompt.is_estimated else (),
    )
    tokens_out, *message_tokens = await client.tokens.count_many(
        [text, *(message.content for message in messages)]
    )
    receipt = replace(receipt, tokens_out=tokens_out)
    if not message_tokens or not client.tokens.has_tokenizer:
        return receipt
    return replace(
        receipt,
        tokens_in=sum(message_tokens) + MESSAGE_TOKENS * len(message_tokens),
        tokens_counted=True,
    )


async def _read_chunks(
    chunks: AsyncGenerator[str], chunk_queue: "asyncio.Queue[str | None]"
) -> None:
    """Put the model's output into a queue, then None at its end, even after an error."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                chunk_queue.put_nowait(chunk)
    finally:
        chunk_queue.put_nowait(None)


def _is_reply_to(entry: Entry, parent_id: bytes, also_answers: Sequence[bytes]) -> bool:
    return (
        entry.role == "reply"
        and entry.deleted is None
        and (entry.parent_id, entry.also_answers) == (parent_id, tuple(also_answers))
    )
