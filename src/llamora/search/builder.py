"""How an index comes to be and stays true: from a snapshot, from the records that differ, and back into a snapshot."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from logging import getLogger
from typing import Any, TypeVar

from llamora.dates import utc_now
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.snapshots import Snapshots
from llamora.search.embed_queue import EmbedQueue
from llamora.search.index import Document, UserIndex
from llamora.search.snapshot import Reader, Unusable, Writer
from llamora.search.state import Unlocked, findable, opened_entries
from llamora.settings import SearchSettings
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)
P = TypeVar("P")
T = TypeVar("T")

READ_BATCH = 250  # records opened in one go: some 15 ms of an index's thread, for which a query may have to wait
RECENT_DAYS = (31, 1096)  # an index goes newest first through the last month and three years, then takes the rest
SNAPSHOT_FROM = 1_000  # entries; fewer are read as fast as a snapshot would be
SNAPSHOT_SHARE = 0.05  # of the entries must have changed before a snapshot is written anew
SNAPSHOT_QUIET = 20.0  # seconds without a change before it is


class Builder:
    """Builds the indexes of the `users` whose journals are open. One for each SearchService."""

    def __init__(
        self, db: LocalDB, queue: EmbedQueue, users: Mapping[bytes, Unlocked], settings: SearchSettings
    ) -> None:
        self._db = db
        self._queue = queue
        self._users = users
        self._settings = settings

    async def build(self, user: Unlocked) -> None:
        """Read all that is in the store and differs from the index; again when others wrote meanwhile."""
        try:
            counter = await self._db.search_version()
            first = not user.loaded
            if first:
                await self._load(user)
                user.loaded = True
            read: list[bytes] = []
            at, traces, differing = await self._traces(user)
            if await self._db.entries.fingerprint(user.user_id) != (len(user.seen), user.total):
                read = await self._catch_up(user, traces, differing)
            elif differing:
                read = [entry_id for entry_id in differing if entry_id in user.seen]
                await self._read(user, read, traces)
            user.traces_at = max(at, user.traces_at)  # a change meanwhile may have moved it on
            user.complete = True
            user.counter = None if user.retraced else counter  # what came too late for this build is for the next
            if not first and not await self._db.snapshots.exists(user.user_id):
                user.unsaved = len(user.seen)  # an erasure took the snapshot with it
            missing = await user.run(user.index.without_vectors, self._queue.model()) if first else read
            for start in range(0, len(missing), READ_BATCH):
                await self._read_vectors(user, missing[start : start + READ_BATCH])
            while await user.run(user.index.tidy):
                pass
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.error("an index could not be built (%s)", type(error).__name__)
            user.counter = None
            user.traces_at = -1

    async def _traces(self, user: Unlocked) -> tuple[int, dict[bytes, frozenset[bytes]], list[bytes]]:
        """The traces of every entry by now, at which revision of their book, and the entries whose traces differ.

        What changed here is known by `user.retraced`, what others changed lately by the book; only after more than the
        book tells of are all links read.
        """
        revision = await self._db.tags.get_revision(user.user_id)
        touched = set(user.retraced)
        user.retraced -= touched
        told = (
            (await self._db.tags.get_meta(user.keys)).touched_since(user.traces_at)
            if revision != user.traces_at
            else None
        )
        if told is not None:
            touched |= told.entry_ids
        elif revision != user.traces_at:
            traces = await self._db.tags.tag_ids_by_entry(user.user_id)
            return revision, traces, _differing(traces, user.traces, {*traces, *user.traces})
        if not touched:
            return revision, user.traces, []
        fresh = await self._db.tags.tag_ids_of(user.user_id, touched)
        traces = {**user.traces, **fresh}
        for entry_id in touched - fresh.keys():
            traces.pop(entry_id, None)
        return revision, traces, _differing(traces, user.traces, touched)

    async def _catch_up(
        self, user: Unlocked, traces: dict[bytes, frozenset[bytes]], other: Sequence[bytes]
    ) -> list[bytes]:
        """Read the records that differ from what is known of them, and return which they were."""
        known = dict(user.seen)  # before the store is read: what is written meanwhile is read twice, never taken out
        revisions = await self._db.entries.revisions(user.user_id)
        changed, gone = await asyncio.to_thread(_changes, revisions, known)
        if gone:
            self.drop(user, gone)
        changed += [
            entry_id for entry_id in other if entry_id in revisions and revisions[entry_id] == known.get(entry_id)
        ]
        if len(changed) > READ_BATCH:
            changed = await self._newest_first(user, changed)
        await self._read(user, changed, traces)
        return changed

    async def _read(self, user: Unlocked, ids: Sequence[bytes], traces: dict[bytes, frozenset[bytes]]) -> None:
        spoken_of = {trace for entry_id in ids for trace in traces.get(entry_id, ())}
        names = await self._db.tags.names_of(user.keys, spoken_of)
        parts = [ids[start : start + READ_BATCH] for start in range(0, len(ids), READ_BATCH)]
        async for part, rows in _ahead(parts, lambda part: self._db.entries.get_sealed(user.user_id, part)):
            spoken = {i: tuple(sorted(names[t] for t in traces[i] if t in names)) for i in part if i in traces}
            await user.run(self._index_entries, user, rows, spoken)
            for entry_id, revision, _ in rows:
                user.know(entry_id, revision)
                if entry_id in traces:
                    user.traces[entry_id] = traces[entry_id]
                else:
                    user.traces.pop(entry_id, None)
            user.changed(len(rows))

    async def _newest_first(self, user: Unlocked, ids: Sequence[bytes]) -> list[bytes]:
        tomorrow = utc_now().date() + timedelta(days=1)
        ordered: dict[bytes, None] = {}
        wanted = set(ids)
        done = 0
        for days in RECENT_DAYS:
            span = [tomorrow - timedelta(days=back) for back in range(done, days)]
            recent = await self._db.entries.ids_on_days(user.keys, span)
            ordered.update((entry_id, None) for entry_id in recent if entry_id in wanted)
            done = days
        ordered.update((entry_id, None) for entry_id in ids)
        return list(ordered)

    async def _read_vectors(self, user: Unlocked, ids: Sequence[bytes]) -> None:
        """Take over the stored vectors of entries and queue the others for embedding."""
        rows = await self._db.vectors.get_sealed(user.user_id, ids)
        taken = await user.run(self._index_vectors, user, rows)
        self._queue.put(
            user, [entry_id for entry_id in reversed(ids) if entry_id not in taken and entry_id in user.seen]
        )

    def drop(self, user: Unlocked, gone: Sequence[bytes]) -> None:
        """Take entries out of the index."""
        for entry_id in gone:
            user.forget(entry_id)
            user.traces.pop(entry_id, None)
            user.unembedded.pop(entry_id, None)
        user.changed(len(gone))
        user.later(user.index.drop, gone)

    # --- Snapshots

    async def _load(self, user: Unlocked) -> None:
        """Begin with the writer's snapshot, where there is one that can be used."""
        latest = await self._db.snapshots.get_latest(user.user_id)
        if latest is None:
            return
        generation, sealed = latest
        fresh = UserIndex(self._settings.hnsw_above)
        try:
            header = await user.run(Snapshots.open_part, user.keys, generation, 0, sealed)
            reader = await user.run(Reader, fresh, header)
            fetch = partial(self._db.snapshots.get_part, user.user_id, generation)
            async for part, sealed in _ahead(range(1, reader.parts + 1), fetch):
                await user.run(_feed, reader, user.keys, generation, part, sealed)
            if not reader.done:
                raise Unusable
            revisions = await user.run(lambda: fresh.revisions)
        except asyncio.CancelledError:
            fresh.close()
            raise
        except Exception as error:  # whatever was put there: it is made anew from the records
            fresh.close()
            logger.warning("the snapshot of an index was not used (%s)", type(error).__name__)
            await self._db.snapshots.delete_all(user.user_id)
            return
        # What was written meanwhile went into the old index, and is read again: the store has a later revision.
        old, user.index = user.index, fresh
        await user.run(old.close)
        user.forget_all()
        for entry_id, revision in (revisions | reader.others).items():
            user.know(entry_id, revision)
        user.traces = {
            entry_id: frozenset(bytes.fromhex(trace) for trace in traces) for entry_id, traces in reader.traces.items()
        }
        user.traces_at = -1
        user.unsaved = 0

    def worth_saving(self, user: Unlocked) -> bool:
        """Whether a snapshot should be written now."""
        busy = user.saving is not None or user.build is None or not user.build.done() or user.running
        return (
            user.complete
            and not busy
            and not user.unembedded
            and len(user.seen) >= SNAPSHOT_FROM
            and user.unsaved > SNAPSHOT_SHARE * len(user.seen)
            and time.monotonic() - user.changed_at >= SNAPSHOT_QUIET
        )

    async def save(self, user_id: bytes) -> bool:
        """Seal the writer's index as it is into the store. False when it changed meanwhile, or is not unlocked."""
        user = self._users.get(user_id)
        if user is None or not user.complete:
            return False
        keys, index = user.keys, user.index
        version, unsaved = index.version, user.unsaved
        latest = await self._db.snapshots.get_latest(user_id)
        kept = latest[0] if latest else 0
        generation = await self._db.snapshots.begin(keys)
        try:
            while await user.run(index.purge):
                pass
            indexed = await user.run(lambda: index.revisions)
            others = {entry_id: revision for entry_id, revision in user.seen.items() if entry_id not in indexed}
            traces = {entry_id: tuple(trace.hex() for trace in marks) for entry_id, marks in user.traces.items()}
            writer = Writer(index, others, traces)
            parts = writer.parts()
            part = 0
            while True:
                sealed = await user.run(_next_part, parts, keys, generation, part + 1)
                if index.version != version or self._users.get(user_id) is not user:
                    return False
                if not sealed:
                    break
                part += 1
                await self._db.snapshots.add(keys, generation, part, sealed)
            header = Snapshots.seal_part(keys, generation, 0, writer.header)
            if await self._db.snapshots.finish(keys, generation, part, header):
                kept = generation
                user.unsaved -= unsaved
            return kept == generation
        finally:
            if kept != generation:
                await self._db.snapshots.delete_others(user_id, kept)

    async def save_quietly(self, user: Unlocked) -> None:
        """Write a snapshot; a failure is logged."""
        try:
            await self.save(user.user_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.warning("a snapshot could not be written (%s)", type(error).__name__)
            user.changed_at = time.monotonic()
        finally:
            user.saving = None

    # --- On the index's thread

    def _index_entries(
        self,
        user: Unlocked,
        rows: Sequence[tuple[bytes, int, bytes]],
        traces: Mapping[bytes, tuple[str, ...]],
    ) -> None:
        entries, damaged = opened_entries(self._db, user.keys, rows)
        if damaged:
            logger.error("%d records could not be opened for the index", damaged)
        user.index.put([document(entry, traces.get(entry.id, ())) for entry in entries if findable(entry)])
        user.index.drop([entry.id for entry in entries if not findable(entry)])

    def _index_vectors(self, user: Unlocked, rows: Sequence[tuple[bytes, int, bytes]]) -> set[bytes]:
        """Put stored vectors in; returns whose were of the model in use, the others serve until they are made anew."""
        import numpy as np

        taken: set[bytes] = set()
        for entry_id, revision, sealed in rows:
            try:
                record = self._db.vectors.open_record(user.keys, entry_id, revision, sealed)
            except (SealError, ValueError, KeyError):
                continue  # made anew, like a missing one
            embedder = self._queue.embedder_of(record.model)
            if embedder is None or len(record.data) % (4 * record.dim or 1):
                continue
            if embedder.dim and record.dim != embedder.dim:
                continue  # the same name, another model
            vectors = np.frombuffer(record.data, dtype="<f4").reshape(-1, record.dim or 1)
            placed = user.index.put_vectors(entry_id, record.entry_revision, vectors, record.model)
            if placed and record.model == self._queue.model():
                taken.add(entry_id)
        return taken


def document(entry: Entry, traces: tuple[str, ...] = ()) -> Document:
    """What is indexed of an entry that bears these traces."""
    return Document(entry.id, entry.revision, entry.day, entry.at, entry.role == "me", entry.text, traces)


def _changes(revisions: dict[bytes, int], known: dict[bytes, int]) -> tuple[list[bytes], list[bytes]]:
    """The records of the store that differ from what is known, and what is known and not there."""
    changed = [entry_id for entry_id, revision in revisions.items() if known.get(entry_id) != revision]
    return changed, [entry_id for entry_id in known if entry_id not in revisions]


def _differing(
    traces: dict[bytes, frozenset[bytes]], known: dict[bytes, frozenset[bytes]], among: Iterable[bytes]
) -> list[bytes]:
    return [entry_id for entry_id in among if traces.get(entry_id) != known.get(entry_id)]


async def _ahead(places: Iterable[P], fetch: Callable[[P], Coroutine[Any, Any, T]]) -> AsyncGenerator[tuple[P, T]]:
    """What `fetch` finds at each place; while the caller works on one, the next is under way."""
    waiting: tuple[P, asyncio.Task[T]] | None = None
    try:
        for place in places:
            following = (place, asyncio.create_task(fetch(place)))
            if waiting is not None:
                here, waiting = waiting, following
                yield here[0], await here[1]
            waiting = following
        if waiting is not None:
            yield waiting[0], await waiting[1]
    finally:
        if waiting is not None:
            waiting[1].cancel()


def _feed(reader: Reader, keys: Keyring, generation: int, part: int, sealed: bytes) -> None:
    if not sealed:
        raise Unusable
    reader.feed(Snapshots.open_part(keys, generation, part, sealed))


def _next_part(parts: Iterator[bytes], keys: Keyring, generation: int, part: int) -> bytes:
    content = next(parts, b"")
    return Snapshots.seal_part(keys, generation, part, content) if content else b""
