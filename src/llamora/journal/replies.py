"""Request, stream, stop and recover replies.

Generation belongs to the server process, and does not depend on an open browser tab.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from logging import getLogger

from msgspec.structs import replace

from llamora.errors import Notice
from llamora.events import ChangeSignal, EventBus
from llamora.journal.composing import Composer
from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.generation import MAX_RETRIES, Generator, stop_reason, store_reply
from llamora.journal.live import INTERRUPTED, READING, SOURCE_ERASED, STOPPED, LiveReply
from llamora.journal.profile import parse_profile
from llamora.journal.reading import model_may_read
from llamora.journal.threads import Thread, build_threads, find_thread
from llamora.llm.model import Model
from llamora.persistence.connection import (
    AlreadyExists,
    NotFound,
    StaleRevision,
    StorageError,
    Transaction,
)
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

WATCH_SECONDS = 1.0  # between two looks at the store when no event says that it changed
STOP_TIMEOUT_SECONDS = 2.0  # after which a worker that does not stop is presumed dead
LOCK_TIMEOUT_SECONDS = 0.5  # in which a lock lets replies be stored

Asked = tuple[bytes | None, tuple[bytes, ...]]
"""The entries that a reply answers: the one that it belongs below, and the others."""


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
        worker_id: str,
        changes: ChangeSignal | None = None,
        is_worker_alive: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._db = db
        self._journal = journal
        self._model = model
        self.composer = Composer(db, journal, search, model)
        self._worker_id = worker_id
        self._live_replies: dict[bytes, LiveReply] = {}
        self._watch_task: asyncio.Task[None] | None = None
        self._is_worker_alive = is_worker_alive
        self._generator = Generator(db, search, model, self.composer, self._forget)
        self._changes = changes or ChangeSignal(EventBus())

    async def ask(
        self, user: UserContext, parent_id: bytes, also_answers: Sequence[bytes] = ()
    ) -> Entry:
        """Start a reply to an entry and return it, still empty, or the one already in progress.

        With `also_answers` it answers these entries of the same page too, and belongs below
        `parent_id`. Raises ModelError if there is no model, EntryError if the parent is a reply or
        withheld from the model, NotFound, also if the user has turned the model off, and
        StorageError.
        """
        user.require_replies()
        keys, asked = user.keys, (parent_id, tuple(also_answers))
        self._model.require(user.endpoint)
        parent = await self._journal.get(keys, parent_id)
        if parent.role != "me":
            raise EntryError("reply_to_reply")
        known_ids: set[bytes] | None = None  # on its page at the time of the request
        for _ in range(MAX_RETRIES):
            day_entries = await self._db.entries.list_day(keys, parent.day)
            known_ids = {entry.id for entry in day_entries} if known_ids is None else known_ids
            page = build_threads(day_entries)
            thread = await self._readable_thread(keys, page, parent_id)
            if (other := await self._find_running(thread, asked, known_ids)) is not None:
                return other
            asked_ids = {parent_id, thread.root.id, *also_answers}
            asked_revisions = {e.id: e.revision for e in day_entries if e.id in asked_ids}
            live = LiveReply(self._new_reply(user, parent.day, asked), keys, page)
            # Retry if another worker was faster, or if what is asked about was changed.
            with suppress(AlreadyExists, StaleRevision):
                return await self._start(user, live, known_ids, asked_revisions)
        raise StaleRevision("reply_busy")

    async def _readable_thread(self, keys: Keyring, page: list[Thread], parent_id: bytes) -> Thread:
        thread = find_thread(page, parent_id)
        parent = next(entry for entry in thread.messages if entry.id == parent_id)
        if not model_may_read(parent, thread.root):
            await self._journal.get(keys, parent_id)  # raises NotFound if it was deleted
            raise EntryError("entry_withheld")
        return thread

    async def _find_running(
        self, thread: Thread, asked: Asked, known_ids: set[bytes]
    ) -> Entry | None:
        for live in list(self._live_replies.values()):
            if (
                _is_reply_to(live.entry, asked)
                and not live.is_finished
                and await asyncio.shield(live.stored)
            ):  # a reply without a record is not shown
                return live.snapshot()
        for other in thread.descendants:
            if _is_reply_to(other, asked) and (
                other.id not in known_ids
                or (other.state == "streaming" and self._is_being_written(other))
            ):
                return other  # started by another worker
        return None

    def _new_reply(self, user: UserContext, day: date, asked: Asked) -> Entry:
        return Entry(
            secrets.token_bytes(16),
            day,
            "reply",
            "",
            self._journal.now(),
            user.profile.zone,
            parent_id=asked[0],
            state="streaming",
            boot=self._worker_id,
            also_answers=asked[1],
        )

    async def _start(
        self,
        user: UserContext,
        live: LiveReply,
        known_ids: set[bytes],
        asked_revisions: Mapping[bytes, int],
    ) -> Entry:
        """Store the record of a reply, and start generating it.

        Raises AlreadyExists if a reply like it exists that is not in `known_ids`, and StaleRevision
        if what it answers is no longer at `asked_revisions`, say because it was withheld.
        """
        reply, keys = live.entry, user.keys
        self._live_replies[reply.id] = live
        keys.hold()

        async def mark_unique(_: Transaction) -> None:
            live.is_unique.set()

        require_no_new = self._db.entries.require_no_new(
            keys,
            reply.day,
            {*known_ids, reply.id},
            lambda e: _is_reply_to(e, (reply.parent_id, reply.also_answers)),
        )
        # Composing the prompt overlaps with the write; nothing is shown before that is done.
        live.task = asyncio.create_task(self._generator.generate(user, live), name="reply")
        try:
            require_revisions = self._db.entries.require_revisions(keys.user_id, asked_revisions)
            await self._db.entries.add(
                keys, reply, steps=[require_no_new, require_revisions, mark_unique]
            )
        except BaseException:
            live.stored.set_result(False)
            live.task.cancel()
            self._forget(reply.id)
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
            live.cancel(STOPPED)
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
        return await store_reply(
            self._db,
            keys,
            replace(entry, state="stopped", note=INTERRUPTED, boot="", stopping=False),
        )

    def cancel_for(self, entry_ids: Iterable[bytes], reason: Notice = SOURCE_ERASED) -> None:
        """Stop generating these entries, which are about to be erased, and what draws on them.

        Call it also when they are deleted or withheld, with that `reason`, so that no further text
        is stored.
        """
        affected_ids = set(entry_ids)
        for reply_id, live in self._live_replies.items():
            if reply_id in affected_ids:
                live.cancel(STOPPED)
            elif not affected_ids.isdisjoint(live.texts_used):
                live.cancel(reason)

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
            return await store_reply(self._db, keys, interrupted)
        except StorageError:
            return interrupted  # a full disk must not prevent reading; it is marked next time

    async def close(self) -> None:
        """Stop all replies of this worker, storing their text so far as interrupted."""
        if self._watch_task is not None:
            self._watch_task.cancel()
        running = [live for live in self._live_replies.values() if live.task is not None]
        for live in running:
            live.cancel(INTERRUPTED)
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

    def _forget(self, reply_id: bytes) -> None:
        if live := self._live_replies.pop(reply_id, None):
            live.keys.release()

    def _cancel_all(self, user_id: bytes, reason: Notice) -> list[LiveReply]:
        user_replies = [
            live for live in self._live_replies.values() if live.keys.user_id == user_id
        ]
        for live in user_replies:
            live.cancel(reason)
        return user_replies

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
                lives = list(self._live_replies.values())
                for keys in {live.keys.user_id: live.keys for live in lives}.values():
                    if not await self._is_enabled(keys):
                        self._cancel_all(keys.user_id, Notice("reply_turned_off"))
                for live in lives:
                    if live.is_finished or not live.stored.done():
                        continue
                    stored = await self._db.entries.get_many(live.keys, [live.entry.id])
                    if live.is_finished:
                        continue
                    if not stored or stored[0].stopping:
                        live.cancel(STOPPED)
                    elif stored[0].state != "streaming":
                        live.cancel(stored[0].note or STOPPED)
                    elif reason := await stop_reason(self._db, live):
                        live.cancel(reason)
            except Exception as error:
                logger.warning("replies could not be watched (%s)", type(error).__name__)
                counter = -1  # check again what was missed


def _is_reply_to(entry: Entry, asked: Asked) -> bool:
    return (
        entry.role == "reply"
        and entry.deleted is None
        and (entry.parent_id, entry.also_answers) == asked
    )
