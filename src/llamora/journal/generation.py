"""Generate a reply: ask the model, show what it writes, and store it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from logging import getLogger

from msgspec.structs import replace

from llamora.errors import Notice, Problem
from llamora.journal.composing import ComposedPrompt, Composer
from llamora.journal.context import UserContext
from llamora.journal.live import (
    INTERRUPTED,
    SOURCE_DELETED,
    SOURCE_ERASED,
    SOURCE_WITHHELD,
    STOPPED,
    LiveReply,
)
from llamora.journal.reading import keep_readable
from llamora.journal.receipts import strip_references
from llamora.journal.threads import build_threads
from llamora.llm.budget import MESSAGE_TOKENS
from llamora.llm.model import Model
from llamora.llm.tokens import estimate_tokens
from llamora.persistence.connection import NotFound, StaleRevision, StorageError
from llamora.persistence.entries import Entry, Receipt, State
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.text import error_location
from llamora.vault.keys import Keyring, KeyringClosed

logger = getLogger(__name__)

SAVE_SECONDS = 0.4  # plus the time of a save: a crash loses at most half a second of shown text
_EARLY_END_CODES: Mapping[str, str] = {
    "length": "reply_length_reached",
    "filter": "reply_ended_by_filter",
    "tool": "reply_ended_by_tool",
    "other": "reply_ended_early",
}
_CODES_WITHOUT_TEXT = {**_EARLY_END_CODES, "length": "reply_length_before_text"}
RETRY_SECONDS = 2.0
MAX_RETRIES = 5


@dataclass(slots=True, frozen=True)
class Generator:
    """Generate replies; `on_end` is called with the id of each that is stored in its last state."""

    _db: LocalDB
    _search: SearchService
    _model: Model
    _composer: Composer
    _on_end: Callable[[bytes], object]

    async def generate(self, user: UserContext, live: LiveReply) -> None:
        keys = user.keys
        state: State = "done"
        note: Notice | None = None
        try:
            async with self._model.queue.slot(keys.user_id, live.on_position):
                live.on_position(-1)
                await self._stream(user, live)
            if not live.text.strip():
                codes = _CODES_WITHOUT_TEXT
                state, note = "failed", Notice(codes.get(live.early_end or "", "reply_empty"))
            elif live.early_end is not None:
                state, note = "stopped", Notice(_EARLY_END_CODES[live.early_end])
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
            await self._store_final(live, state, note)

    async def _stream(self, user: UserContext, live: LiveReply) -> None:
        composed = await self._compose(user, live)
        await live.is_unique.wait()
        if reason := await stop_reason(self._db, live):  # changed during composing
            live.cancel(reason)
            await asyncio.sleep(0)  # raises CancelledError, before anything is sent
        chunks = composed.client.stream(
            composed.prompt.messages,
            max_tokens=composed.max_tokens,
            on_early_end=live.on_early_end,
            on_reasoning=live.on_reasoning,
        )
        requested_at, receipt = time.monotonic(), composed.receipt
        chunk_queue: asyncio.Queue[str | None] = asyncio.Queue()
        reader = asyncio.create_task(_read_chunks(chunks, chunk_queue), name="reading a reply")
        try:
            await asyncio.shield(live.stored)
            await self._consume(live, chunk_queue)
            await reader  # raises the errors of the model server
            receipt = await _count_tokens(receipt, composed, live.text)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            waited_ms = round((live.first_word_at - requested_at) * 1000)
            receipt = replace(
                receipt,
                tokens_out=receipt.tokens_out or (estimate_tokens(live.text) if live.text else 0),
                quoted=live.quoted(),
                first_token_ms=waited_ms if live.first_word_at >= 0 else -1,
            )
            live.entry = replace(live.entry, receipt=receipt)

    async def _compose(self, user: UserContext, live: LiveReply) -> ComposedPrompt:
        entry = live.entry
        page, live.cached_page = live.cached_page, None  # `stop_reason` notices later changes
        if page is None:
            page = build_threads(await self._db.entries.list_day(user.keys, entry.day))
        composed = await self._composer.compose(
            user, page, entry.day, entry.parent_id or entry.id, entry.also_answers
        )
        receipt = composed.receipt
        live.set_prompt(composed.prompt, composed.quoted)
        sources = tuple(p.entry_id for p in receipt.passages)
        live.entry = replace(entry, model=receipt.model, sources=sources, receipt=receipt)
        live.texts_used = {**{p.entry_id: p.text for p in receipt.passages}, **composed.texts_used}
        live.revisions = composed.revisions
        return composed

    async def _consume(self, live: LiveReply, chunk_queue: "asyncio.Queue[str | None]") -> None:
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
                live.entry = await store_reply(
                    self._db, live.keys, live.snapshot(), live.texts_used
                )
                save_at = None
                if (
                    live.entry.state != "streaming"
                ):  # another worker stopped it, presuming this one dead
                    live.cancel(live.entry.note or STOPPED)
                    await asyncio.sleep(0)  # raises CancelledError

    async def _store_final(self, live: LiveReply, state: State, note: Notice | None) -> None:
        keys = live.keys
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
                live.entry = await store_reply(self._db, keys, final, live.texts_used)
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
        self._on_end(live.entry.id)
        if live.entry.text and live.entry.deleted is None and not keys.closed:
            self._search.put(keys, live.entry)


async def store_reply(
    db: LocalDB, keys: Keyring, entry: Entry, texts_used: Mapping[bytes, str] | None = None
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
            require_sources = db.entries.require_revisions(keys.user_id, dict.fromkeys(source_ids))
            return await db.entries.update(keys, entry, [require_sources])
        except StaleRevision:
            stored = await db.entries.get(keys, entry.id)
            if stored.state != "streaming" and texts_used is None:
                return stored
            entry = _rebased(entry, stored)
            erased_ids |= source_ids - set(await db.entries.revisions_of(keys.user_id, source_ids))
            erased_texts = [texts[i] for i in erased_ids if texts.get(i)]
            entry = strip_references(entry, erased_ids, erased_texts) or entry
    raise StaleRevision("reply_busy")


def _rebased(entry: Entry, stored: Entry) -> Entry:
    """Return a reply with what others have changed in its record meanwhile."""
    if entry.state == "streaming" and stored.state != "streaming":
        entry = replace(entry, state=stored.state, note=stored.note, boot="")
    return replace(
        entry,
        revision=stored.revision,
        parent_id=stored.parent_id,
        also_answers=stored.also_answers,
        deleted=stored.deleted,
        preferred=stored.preferred,
        withheld=stored.withheld,
        stopping=stored.stopping and entry.state == "streaming",
    )


async def stop_reason(db: LocalDB, live: LiveReply) -> Notice | None:
    """Return a notice if a reply must stop, else None.

    It must if a source was erased, deleted or withheld from the model.
    """
    revisions = await db.entries.revisions_of(live.keys.user_id, live.texts_used)
    if live.texts_used.keys() - revisions.keys():
        return SOURCE_ERASED
    changed_ids = [
        entry_id
        for entry_id, revision in revisions.items()
        if live.revisions.get(entry_id) != revision
    ]
    entries = await db.entries.get_many(live.keys, changed_ids)
    readable = await keep_readable(db, live.keys, entries)
    if unreadable := [entry for entry in entries if entry.id not in readable]:
        return SOURCE_DELETED if all(e.deleted is not None for e in unreadable) else SOURCE_WITHHELD
    live.revisions = revisions
    return None


async def _count_tokens(receipt: Receipt, composed: ComposedPrompt, text: str) -> Receipt:
    """Return the receipt with the number of tokens written.

    Tokens read are counted too if they were only estimated.
    """
    client, prompt = composed.client, composed.prompt
    messages = prompt.messages if prompt.is_estimated else ()
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
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                chunk_queue.put_nowait(chunk)
    finally:
        chunk_queue.put_nowait(None)
