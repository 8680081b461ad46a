"""Replies: asked for, streamed, stopped, resumed. Generation belongs to the server, not to the browser's tab."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import date
from logging import getLogger

from llamora.journal.composing import WITHHELD, Composed, Composer
from llamora.journal.entries import EntryError, Journal, Thread, threads, without_erased
from llamora.journal.live import READING, LiveReply
from llamora.journal.profile import read_profile
from llamora.llm.client import ModelError, estimate_tokens
from llamora.llm.model import Model
from llamora.llm.prompts import MESSAGE_TOKENS, PromptBuilder
from llamora.llm.queue import Turns
from llamora.persistence.connection import AlreadyExists, NotFound, StaleRevision, StorageError, Transaction
from llamora.persistence.entries import Entry, Receipt, State
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.settings import LlmSettings
from llamora.text import error_location
from llamora.vault.keys import Keyring, KeyringClosed

logger = getLogger(__name__)

SAVE_SECONDS = 0.4  # and what a save takes: after a crash all but the last half second of shown text is there
FOLLOW_SECONDS = 0.1  # how often a reply that another worker writes is looked at
WATCH_SECONDS = 0.1  # how often a worker looks whether another one was asked to stop its reply
HEED_SECONDS = 2.0  # after which a worker that was asked to stop is taken for dead
RETRY_SECONDS = 2.0
LOCK_SECONDS = 0.5  # for which a lock waits until what a model said so far is stored
TRIES = 5
CUT_SHORT = "Cut short when the server stopped."
NOTHING_SAID = "The model had nothing to say. Ask again, or ask in other words."
UNSAID = (
    "The model reached the longest length of a reply before it said a word, perhaps while it thought."
    " Raise llm.max_reply_tokens, or let it think less (reasoning_effort)."
)
AT_LENGTH = "It reached the longest length of a reply and ends here."
ERASED_MEANWHILE = "Stopped, since something it drew on was erased."
DELETED_MEANWHILE = "Stopped, since something it drew on was deleted."
KEPT_MEANWHILE = "Stopped, since something it drew on is now kept from the model."
TURNED_OFF = "Stopped, since replies were turned off."


class Replies:
    """Asks the model and keeps what it says.

    `boot` names this worker in this run of the server, and `writes` tells whether a name is that of another worker
    which is alive.
    """

    def __init__(
        self,
        db: LocalDB,
        journal: Journal,
        search: SearchService,
        model: Model,
        prompts: PromptBuilder,
        settings: LlmSettings,
        boot: str,
        turns: Turns | None = None,
        writes: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._db = db
        self._journal = journal
        self._search = search
        self._model = model
        self.composer = Composer(db, journal, search, model, prompts, settings.max_reply_tokens)
        self._settings = settings
        self._boot = boot
        self._live: dict[bytes, LiveReply] = {}
        self._keys: dict[bytes, Keyring] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._writes = writes
        self.turns = turns or Turns(settings.slots)

    async def ask(
        self, keys: Keyring, to: bytes, zone: str, today: date, *, also: Sequence[bytes] = (), endpoint: str = ""
    ) -> Entry:
        """Begin a reply to an entry and return it, still empty; one that is being written already is returned.

        With `also` it answers these entries of the same page too, and stands under `to`. `endpoint` names the one
        that answers. Raises ModelError when there is no model, EntryError for a reply and for an entry that is kept
        from it, NotFound and StorageError.
        """
        if why_not := self._model.unavailable_reason(endpoint):
            raise ModelError("unreachable", why_not)
        asked = await self._journal.get(keys, to)
        if asked.role != "me":
            raise EntryError("A reply is asked for to what you wrote. Answer the reply first.")
        known: set[bytes] | None = None  # what stood on its page when it was asked
        for _ in range(TRIES):
            there = await self._db.entries.list_day(keys, asked.day)
            known = {entry.id for entry in there} if known is None else known
            page = threads(there)
            thread = next((thread for thread in page if to in {e.id for e in (thread.root, *thread.later)}), None)
            if thread is None:
                raise NotFound("There is no such entry.")
            if asked.withheld or thread.root.withheld:
                raise EntryError(WITHHELD)
            for live in list(self._live.values()):
                same = (live.entry.parent_id, live.entry.also_answers) == (to, tuple(also))
                if same and not live.finished and await asyncio.shield(live.placed):  # what has no record is not shown
                    return live.now()
            for other in (each for each in thread.later if _answers(each, to, also)):
                if other.id not in known or (other.state == "streaming" and self._is_written(other)):
                    return other  # another worker began it
            reply = Entry(
                secrets.token_bytes(16),
                asked.day,
                "reply",
                "",
                self._journal.now(),
                zone,
                parent_id=to,
                state="streaming",
                boot=self._boot,
                also_answers=tuple(also),
            )
            with suppress(AlreadyExists):  # another worker was asked the same at the same moment, and was first
                return await self._begin(keys, LiveReply(reply, endpoint), page, known, today)
        raise StaleRevision("This reply is being changed elsewhere. Try again in a moment.")

    async def _begin(self, keys: Keyring, live: LiveReply, page: list[Thread], known: set[bytes], today: date) -> Entry:
        """Give a reply its record, and start it. Raises AlreadyThere where one like it came since `known` was read."""
        reply = live.entry
        self._live[reply.id], self._keys[reply.id] = live, keys
        live.page = page

        async def alone(_: Transaction) -> None:
            live.alone.set()

        to, also = reply.parent_id or reply.id, reply.also_answers
        first = self._db.entries.require_no_new(keys, reply.day, {*known, reply.id}, lambda e: _answers(e, to, also))
        # The prompt is made while the disk is busy; nothing is shown before the reply has its place there.
        live.task = asyncio.create_task(self._write(keys, live, today), name="reply")
        try:
            await self._db.entries.add(keys, reply, steps=[first, alone])
        except BaseException:
            live.placed.set_result(False)
            live.task.cancel()
            self._forget(reply.id)
            raise
        live.placed.set_result(True)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="stops of replies")
        return reply

    async def stop(self, keys: Keyring, reply_id: bytes) -> Entry:
        """End a reply, whichever worker writes it; what came is kept."""
        live = self._live.get(reply_id)
        if live is not None and live.task is not None:
            self._cancel(live, "stopped")
            while not live.finished:  # the task itself may go on trying to store it
                await live.changed.wait()
            return live.entry
        entry = await self.settle(keys, await self._journal.get(keys, reply_id))
        if entry.state != "streaming":
            return entry
        for _ in range(TRIES):
            with suppress(StaleRevision):  # it grew meanwhile
                await self._db.entries.update(keys, replace(entry, stopping=True))
                break
            entry = await self._journal.get(keys, reply_id)
            if entry.state != "streaming":
                return entry
        until = time.monotonic() + HEED_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(WATCH_SECONDS / 4)
            entry = await self._journal.get(keys, reply_id)
            if entry.state != "streaming":
                return entry
        return await self._store(keys, replace(entry, state="stopped", note=CUT_SHORT, boot="", stopping=False))

    def give_up(self, entry_ids: Iterable[bytes], because: str = ERASED_MEANWHILE) -> None:
        """End what is being written of these entries, which are about to be erased, and what draws on them.

        Deleted or kept from the model they end at once too, so that no word that comes after is stored.
        """
        gone = set(entry_ids)
        for reply_id, live in self._live.items():
            if reply_id in gone:
                self._cancel(live, "stopped")
            elif not gone.isdisjoint(live.read):
                self._cancel(live, because)

    async def follow(self, keys: Keyring, reply_id: bytes) -> AsyncGenerator[tuple[Entry, str]]:
        """Yield the reply each time it has grown, as it then stands, and in words what it waits for, or "".

        The last one is no longer streaming. Nothing is lost or repeated however late or often this begins.
        """
        live = self._live.get(reply_id)
        while live is not None:
            changed = live.changed
            yield live.now(), live.waiting
            if live.finished:
                return
            await changed.wait()
        while True:
            entry = await self.settle(keys, await self._journal.get(keys, reply_id))
            yield entry, "" if entry.text else READING
            if entry.state != "streaming":
                return
            await asyncio.sleep(FOLLOW_SECONDS)

    def _is_written(self, reply: Entry) -> bool:
        """Whether a worker that is alive has begun a reply and not ended it yet.

        One of this worker's that is not here any more could not be stored at its end.
        """
        return reply.id in self._live or self._writes(reply.boot)

    def waiting(self, reply_id: bytes) -> str:
        """What a reply that has no words yet waits for, in words."""
        live = self._live.get(reply_id)
        return live.waiting if live is not None else READING

    async def settle(self, keys: Keyring, entry: Entry) -> Entry:
        """The entry as it truly stands: with what has streamed since it was stored, or marked as cut short."""
        if entry.state != "streaming":
            return entry
        live = self._live.get(entry.id)
        if live is not None:
            return live.now()
        if self._is_written(entry):
            return entry  # by another worker
        cut = replace(entry, state="stopped", note=CUT_SHORT, boot="", stopping=False)
        try:
            return await self._store(keys, cut)
        except StorageError:
            return cut  # a full disk keeps nobody from reading; it is marked the next time

    async def close(self) -> None:
        """End all replies; what came is kept and marked."""
        if self._watcher is not None:
            self._watcher.cancel()
        running = [live for live in self._live.values() if live.task is not None]
        for live in running:
            self._cancel(live, CUT_SHORT)
        tasks = [live.task for live in running if live.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def lock(self, user_id: bytes) -> None:
        """End the replies of one writer; what came is kept and marked, while the keys are still there."""
        tasks = [live.task for live in self._end_all(user_id, CUT_SHORT) if live.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=LOCK_SECONDS)

    # -- one reply ---------------------------------------------------------------------------------

    @staticmethod
    def _cancel(live: LiveReply, because: str) -> None:
        # Once a reply is being stored for good there is nothing to cancel but its safety.
        if live.task is not None and not live.finishing and not live.stopped_because:
            live.task.cancel()
        live.stopped_because = because

    def _end_all(self, user_id: bytes, because: str) -> list[LiveReply]:
        mine = [self._live[reply_id] for reply_id, keys in self._keys.items() if keys.user_id == user_id]
        for live in mine:
            self._cancel(live, because)
        return mine

    async def _write(self, keys: Keyring, live: LiveReply, today: date) -> None:
        state: State = "done"
        note = ""
        try:
            async with self.turns.turn(keys.user_id, live.moved):
                live.moved(-1)
                await self._stream(keys, live, today)
            if not live.text.strip():
                state, note = "failed", UNSAID if live.at_length else NOTHING_SAID
            elif live.at_length:
                state, note = "stopped", AT_LENGTH
        except asyncio.CancelledError:
            state, note = "stopped", "" if live.stopped_because == "stopped" else live.stopped_because
        except ModelError as error:
            state, note = "failed", error.sentence
        except EntryError as error:
            state, note = "failed", str(error)
        except StorageError as error:
            state, note = "failed", str(error)
        except KeyringClosed:
            state, note = "stopped", CUT_SHORT
        except Exception as error:
            logger.error("a reply failed (%s at %s)", type(error).__name__, error_location(error))
            state, note = "failed", "Something went wrong inside Llamora. Ask again."
        live.finishing = True
        if await live.placed:
            await self._finish(keys, live, state, note)

    async def _stream(self, keys: Keyring, live: LiveReply, today: date) -> None:
        entry = live.entry
        page, live.page = live.page, None  # what went meanwhile `_why_end` sees
        page = threads(await self._db.entries.list_day(keys, entry.day)) if page is None else page
        composed = await self.composer.compose(
            keys, page, entry.day, entry.parent_id or entry.id, entry.also_answers, today, live.endpoint
        )
        prompt, receipt = composed.prompt, composed.receipt
        live.begin(prompt, composed.quoted)
        sources = tuple(p.entry_id for p in receipt.passages)
        live.entry = replace(entry, model=receipt.model, sources=sources, receipt=receipt)
        live.read = {**{p.entry_id: p.text for p in receipt.passages}, **composed.read}
        live.seen = composed.seen
        if why := await self._why_end(keys, live):  # while the prompt was made
            self._cancel(live, why)
            await asyncio.sleep(0)  # ends here, before anything is sent
        await live.alone.wait()
        pieces = composed.client.stream(
            prompt.messages,
            max_tokens=composed.max_tokens,
            on_length_limit=live.reached_length,
            on_reasoning=live.thinks,
        )
        asked = time.monotonic()
        came: asyncio.Queue[str | None] = asyncio.Queue()
        reading = asyncio.create_task(_read(pieces, came), name="reading a reply")
        try:
            await asyncio.shield(live.placed)
            await self._take(keys, live, came)
            await reading  # raises what the model server did wrong
            receipt = await _counted(receipt, composed, live.text)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            receipt = replace(
                receipt,
                tokens_out=receipt.tokens_out or (estimate_tokens(live.text) if live.text else 0),
                quoted=live.quoted(),
                first_token_ms=round((live.first - asked) * 1000) if live.first >= 0 else -1,
            )
            live.entry = replace(live.entry, receipt=receipt)

    async def _take(self, keys: Keyring, live: LiveReply, came: "asyncio.Queue[str | None]") -> None:
        """Show what comes at once, and store it within SAVE_SECONDS, also when nothing follows."""
        due: float | None = None  # when what came first since the last time has to be stored
        while True:
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - time.monotonic())):
                    piece = await came.get()
            except TimeoutError:
                piece = ""
            if piece is None:
                return
            now = time.monotonic()
            if piece:
                live.first = live.first if live.first >= 0 else now
                live.feed(piece)
                live.tell()
                due = due or now + SAVE_SECONDS
            if due is not None and now >= due:
                live.entry = await self._store(keys, live.now(), live.read)
                due = None
                if live.entry.state != "streaming":  # another worker was asked to stop it, and took this one for dead
                    self._cancel(live, live.entry.note or "stopped")
                    await asyncio.sleep(0)  # ends here

    async def _finish(self, keys: Keyring, live: LiveReply, state: State, note: str) -> None:
        wanted = replace(
            live.entry, text=live.text.strip(), state=state, note=note or live.entry.note, boot="", stopping=False
        )
        while True:
            try:
                live.entry = await self._store(keys, wanted, live.read)
                break
            except NotFound:
                live.entry = replace(wanted, text="")  # erased while it was written: nothing of it stays
                break
            except StorageError as error:
                # The text is in RAM only now: show it with the reason, and try until there is room.
                live.entry = replace(wanted, note=str(error))
                live.finished = True
                live.tell()
                if live.stopped_because == CUT_SHORT:
                    break
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # the keys were locked before the disk was done: `settle` sees to it
                logger.warning("the end of a reply was not stored (%s)", type(error).__name__)
                live.entry = replace(wanted, state="stopped", note=CUT_SHORT)
                break
        live.finished = True
        live.tell()
        self._forget(live.entry.id)
        if live.entry.text and live.entry.deleted is None and not keys.closed:
            self._search.put(keys, live.entry)

    def _forget(self, reply_id: bytes) -> None:
        self._live.pop(reply_id, None)
        self._keys.pop(reply_id, None)

    async def _store(self, keys: Keyring, entry: Entry, read: Mapping[bytes, str] | None = None) -> Entry:
        """Store a reply in the same transaction that sees all it drew on still there; what was erased, it forgets.

        `read` is what was in its prompt, known to who writes it: for anybody else a reply that has ended meanwhile
        stays as it is. Who deleted, restored, preferred or ended it meanwhile is heeded.
        """
        texts = read or {}
        gone = set[bytes]()
        for _ in range(TRIES):
            drawn_on = {*entry.sources, *entry.also_answers, *texts} - gone
            try:
                standing = self._db.entries.require_revisions(keys.user_id, dict.fromkeys(drawn_on))
                return await self._db.entries.update(keys, entry, [standing])
            except StaleRevision:
                stored = await self._db.entries.get(keys, entry.id)
                if stored.state != "streaming":
                    if read is None:
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
                gone |= drawn_on - set(await self._db.entries.revisions_of(keys.user_id, drawn_on))
                entry = without_erased(entry, gone, [texts[i] for i in gone if texts.get(i)]) or entry
        raise StaleRevision("This reply is being changed elsewhere. Try again in a moment.")

    async def _why_end(self, keys: Keyring, live: LiveReply) -> str:
        """Why a reply may not go on: what it drew on was erased, deleted or is now kept from the model; or ""."""
        found = await self._db.entries.revisions_of(keys.user_id, live.read)
        if live.read.keys() - found.keys():
            return ERASED_MEANWHILE
        changed = [entry_id for entry_id, revision in found.items() if live.seen.get(entry_id) != revision]
        now = await self._db.entries.get_many(keys, changed)
        if any(entry.withheld for entry in now):
            return KEPT_MEANWHILE
        if any(entry.deleted is not None for entry in now):
            return DELETED_MEANWHILE
        live.seen = found
        return ""

    async def _wanted(self, keys: Keyring) -> bool:
        """Whether the writer has not turned replies off."""
        stored = await self._db.profiles.get(keys)
        return stored is None or read_profile(*stored).replies

    async def _watch(self) -> None:
        """Heed what was asked here or of other workers: a reply is to stop, all are, what it drew on was erased."""
        counter = -1
        while self._live:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if counter == (counter := await self._db.data_version()):
                    continue
                for keys in {keys.user_id: keys for keys in self._keys.values()}.values():
                    if not await self._wanted(keys):
                        self._end_all(keys.user_id, TURNED_OFF)
                for reply_id, live in [item for item in self._live.items() if item[1].placed.done()]:
                    if (keys := self._keys.get(reply_id)) is None:
                        continue  # it ended while another one was looked at
                    stored = await self._db.entries.get_many(keys, [reply_id])
                    if live.finished:
                        continue
                    if not stored or stored[0].stopping:
                        self._cancel(live, "stopped")
                    elif stored[0].state != "streaming":
                        self._cancel(live, stored[0].note or "stopped")
                    elif why := await self._why_end(keys, live):
                        self._cancel(live, why)
            except Exception as error:
                logger.warning("replies could not be watched (%s)", type(error).__name__)
                counter = -1  # what it was told of is looked at again


async def _counted(receipt: Receipt, composed: Composed, text: str) -> Receipt:
    """The receipt with how many tokens were written, and where that was only estimated, how many were read."""
    client, asked = composed.client, composed.prompt.messages if composed.prompt.is_estimated else ()
    written, *read = await client.count_many([text, *(message.content for message in asked)])
    receipt = replace(receipt, tokens_out=written)
    if not read or not client.has_tokenizer:
        return receipt
    return replace(receipt, tokens_in=sum(read) + MESSAGE_TOKENS * len(read), tokens_counted=True)


async def _read(pieces: AsyncGenerator[str], came: "asyncio.Queue[str | None]") -> None:
    """Put what the model says into a queue, and None when it ends, well or not."""
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                came.put_nowait(piece)
    finally:
        came.put_nowait(None)


def _answers(entry: Entry, to: bytes, also: Sequence[bytes]) -> bool:
    return (
        entry.role == "reply" and entry.deleted is None and (entry.parent_id, entry.also_answers) == (to, tuple(also))
    )
