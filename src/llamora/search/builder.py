"""How an index comes to be and stays true: from a snapshot, from the records that differ, and back into a snapshot."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
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
from llamora.search.snapshot import SnapshotReader, SnapshotWriter, UnusableSnapshot
from llamora.search.state import UserIndexState, is_searchable, open_entries
from llamora.settings import SearchSettings
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)
P = TypeVar("P")
T = TypeVar("T")

READ_BATCH = 250  # records opened in one go: some 15 ms of an index's thread, for which a query may have to wait
LOAD_ORDER_DAYS = (
    31,
    1096,
)  # an index goes newest first through the last month and three years, then takes the rest
SNAPSHOT_MIN_ENTRIES = 1_000  # entries; fewer are read as fast as a snapshot would be
SNAPSHOT_CHANGED_SHARE = 0.05  # of the entries must have changed before a snapshot is written anew
SNAPSHOT_QUIET_SECONDS = 20.0  # seconds without a change before it is


class IndexBuilder:
    """Builds the indexes of the `users` whose journals are open. One for each SearchService."""

    def __init__(
        self,
        db: LocalDB,
        queue: EmbedQueue,
        states: Mapping[bytes, UserIndexState],
        settings: SearchSettings,
    ) -> None:
        self._db = db
        self._queue = queue
        self._states = states
        self._settings = settings

    async def build(self, state: UserIndexState) -> None:
        """Read all that is in the store and differs from the index; again when others wrote meanwhile."""
        try:
            counter = await self._db.search_version()
            is_first_build = not state.is_loaded
            if is_first_build:
                await self._load_snapshot(state)
                state.is_loaded = True
            read_ids: list[bytes] = []
            tags_revision, tags, retagged_ids = await self._read_tags(state)
            if await self._db.entries.fingerprint(state.user_id) != (
                len(state.revisions),
                state.fingerprint_weight,
            ):
                read_ids = await self._read_changed(state, tags, retagged_ids)
            elif retagged_ids:
                read_ids = [entry_id for entry_id in retagged_ids if entry_id in state.revisions]
                await self._read_entries(state, read_ids, tags)
            state.tags_revision = max(
                tags_revision, state.tags_revision
            )  # a change meanwhile may have moved it on
            state.is_complete = True
            state.search_counter = (
                None if state.tags_changed else counter
            )  # what came too late for this build is for the next
            if not is_first_build and not await self._db.snapshots.exists(state.user_id):
                state.unsaved_count = len(state.revisions)  # an erasure took the snapshot with it
            missing = (
                await state.run_in_thread(
                    state.index.ids_without_vectors, self._queue.current_model()
                )
                if is_first_build
                else read_ids
            )
            for start in range(0, len(missing), READ_BATCH):
                await self._read_vectors(state, missing[start : start + READ_BATCH])
            while await state.run_in_thread(state.index.optimize_step):
                pass
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.error("an index could not be built (%s)", type(error).__name__)
            state.search_counter = None
            state.tags_revision = -1

    async def _read_tags(
        self, state: UserIndexState
    ) -> tuple[int, dict[bytes, frozenset[bytes]], list[bytes]]:
        """The traces of every entry by now, at which revision of their book, and the entries whose traces differ.

        What changed here is known by `user.retraced`, what others changed lately by the book; only after more than the
        book tells of are all links read.
        """
        revision = await self._db.tags.get_revision(state.user_id)
        touched_ids = set(state.tags_changed)
        state.tags_changed -= touched_ids
        changes = (
            (await self._db.tags.get_meta(state.keys)).touched_since(state.tags_revision)
            if revision != state.tags_revision
            else None
        )
        if changes is not None:
            touched_ids |= changes.entry_ids
        elif revision != state.tags_revision:
            tags = await self._db.tags.tag_ids_by_entry(state.user_id)
            return revision, tags, _retagged_ids(tags, state.tags, {*tags, *state.tags})
        if not touched_ids:
            return revision, state.tags, []
        updated = await self._db.tags.tag_ids_of(state.user_id, touched_ids)
        tags = {**state.tags, **updated}
        for entry_id in touched_ids - updated.keys():
            tags.pop(entry_id, None)
        return revision, tags, _retagged_ids(tags, state.tags, touched_ids)

    async def _read_changed(
        self,
        state: UserIndexState,
        tags: dict[bytes, frozenset[bytes]],
        retagged_ids: Sequence[bytes],
    ) -> list[bytes]:
        """Read the records that differ from what is known of them, and return which they were."""
        known_revisions = dict(
            state.revisions
        )  # before the store is read: what is written meanwhile is read twice, never taken out
        revisions = await self._db.entries.revisions(state.user_id)
        changed_ids, deleted_ids = await asyncio.to_thread(
            _compare_revisions, revisions, known_revisions
        )
        if deleted_ids:
            self.drop(state, deleted_ids)
        changed_ids += [
            entry_id
            for entry_id in retagged_ids
            if entry_id in revisions and revisions[entry_id] == known_revisions.get(entry_id)
        ]
        if len(changed_ids) > READ_BATCH:
            changed_ids = await self._newest_first(state, changed_ids)
        await self._read_entries(state, changed_ids, tags)
        return changed_ids

    async def _read_entries(
        self, state: UserIndexState, ids: Sequence[bytes], tags: dict[bytes, frozenset[bytes]]
    ) -> None:
        tag_ids = {trace for entry_id in ids for trace in tags.get(entry_id, ())}
        tag_names = await self._db.tags.names_of(state.keys, tag_ids)
        batches = [ids[start : start + READ_BATCH] for start in range(0, len(ids), READ_BATCH)]
        async for part, rows in _prefetch(
            batches, lambda part: self._db.entries.get_sealed(state.user_id, part)
        ):
            names_by_entry = {
                i: tuple(sorted(tag_names[t] for t in tags[i] if t in tag_names))
                for i in part
                if i in tags
            }
            await state.run_in_thread(self._index_entries, state, rows, names_by_entry)
            for entry_id, revision, _ in rows:
                state.set_revision(entry_id, revision)
                if entry_id in tags:
                    state.tags[entry_id] = tags[entry_id]
                else:
                    state.tags.pop(entry_id, None)
            state.mark_changed(len(rows))

    async def _newest_first(self, state: UserIndexState, ids: Sequence[bytes]) -> list[bytes]:
        tomorrow = utc_now().date() + timedelta(days=1)
        ordered: dict[bytes, None] = {}
        requested_ids = set(ids)
        previous_days = 0
        for days in LOAD_ORDER_DAYS:
            dates = [tomorrow - timedelta(days=back) for back in range(previous_days, days)]
            recent = await self._db.entries.ids_on_days(state.keys, dates)
            ordered.update((entry_id, None) for entry_id in recent if entry_id in requested_ids)
            previous_days = days
        ordered.update((entry_id, None) for entry_id in ids)
        return list(ordered)

    async def _read_vectors(self, state: UserIndexState, ids: Sequence[bytes]) -> None:
        """Take over the stored vectors of entries and queue the others for embedding."""
        rows = await self._db.vectors.get_sealed(state.user_id, ids)
        current_ids = await state.run_in_thread(self._index_vectors, state, rows)
        self._queue.enqueue(
            state,
            [
                entry_id
                for entry_id in reversed(ids)
                if entry_id not in current_ids and entry_id in state.revisions
            ],
        )

    def drop(self, state: UserIndexState, entry_ids: Sequence[bytes]) -> None:
        """Take entries out of the index."""
        for entry_id in entry_ids:
            state.remove_revision(entry_id)
            state.tags.pop(entry_id, None)
            state.unembedded.pop(entry_id, None)
        state.mark_changed(len(entry_ids))
        state.submit(state.index.drop, entry_ids)

    # --- Snapshots

    async def _load_snapshot(self, state: UserIndexState) -> None:
        """Begin with the writer's snapshot, where there is one that can be used."""
        latest = await self._db.snapshots.get_latest(state.user_id)
        if latest is None:
            return
        generation, sealed = latest
        new_index = UserIndex(self._settings.hnsw_above)
        try:
            header = await state.run_in_thread(
                Snapshots.open_part, state.keys, generation, 0, sealed
            )
            reader = await state.run_in_thread(SnapshotReader, new_index, header)
            fetch = partial(self._db.snapshots.get_part, state.user_id, generation)
            async for part, sealed in _prefetch(range(1, reader.part_count + 1), fetch):
                await state.run_in_thread(_feed_part, reader, state.keys, generation, part, sealed)
            if not reader.is_complete:
                raise UnusableSnapshot
            revisions = await state.run_in_thread(lambda: new_index.revisions)
        except asyncio.CancelledError:
            new_index.close()
            raise
        except Exception as error:  # whatever was put there: it is made anew from the records
            new_index.close()
            logger.warning("the snapshot of an index was not used (%s)", type(error).__name__)
            await self._db.snapshots.delete_all(state.user_id)
            return
        # What was written meanwhile went into the old index, and is read again: the store has a later revision.
        old_index, state.index = state.index, new_index
        await state.run_in_thread(old_index.close)
        state.clear_revisions()
        for entry_id, revision in (revisions | reader.unindexed).items():
            state.set_revision(entry_id, revision)
        state.tags = {
            entry_id: frozenset(bytes.fromhex(trace) for trace in traces)
            for entry_id, traces in reader.tags.items()
        }
        state.tags_revision = -1
        state.unsaved_count = 0

    def should_save_snapshot(self, state: UserIndexState) -> bool:
        """Whether a snapshot should be written now."""
        is_busy = (
            state.save_task is not None
            or state.build_task is None
            or not state.build_task.done()
            or state.running_count
        )
        return (
            state.is_complete
            and not is_busy
            and not state.unembedded
            and len(state.revisions) >= SNAPSHOT_MIN_ENTRIES
            and state.unsaved_count > SNAPSHOT_CHANGED_SHARE * len(state.revisions)
            and time.monotonic() - state.changed_at >= SNAPSHOT_QUIET_SECONDS
        )

    async def save_snapshot(self, user_id: bytes) -> bool:
        """Seal the writer's index as it is into the store. False when it changed meanwhile, or is not unlocked."""
        state = self._states.get(user_id)
        if state is None or not state.is_complete:
            return False
        keys, index = state.keys, state.index
        version, unsaved = index.version, state.unsaved_count
        latest = await self._db.snapshots.get_latest(user_id)
        stored_generation = latest[0] if latest else 0
        generation = await self._db.snapshots.begin(keys)
        try:
            while await state.run_in_thread(index.merge_step):
                pass
            indexed_revisions = await state.run_in_thread(lambda: index.revisions)
            unindexed = {
                entry_id: revision
                for entry_id, revision in state.revisions.items()
                if entry_id not in indexed_revisions
            }
            tags = {
                entry_id: tuple(trace.hex() for trace in marks)
                for entry_id, marks in state.tags.items()
            }
            writer = SnapshotWriter(index, unindexed, tags)
            parts = writer.iter_parts()
            part = 0
            while True:
                sealed = await state.run_in_thread(
                    _seal_next_part, parts, keys, generation, part + 1
                )
                if index.version != version or self._states.get(user_id) is not state:
                    return False
                if not sealed:
                    break
                part += 1
                await self._db.snapshots.add(keys, generation, part, sealed)
            header = Snapshots.seal_part(keys, generation, 0, writer.header)
            if await self._db.snapshots.finish(keys, generation, part, header):
                stored_generation = generation
                state.unsaved_count -= unsaved
            return stored_generation == generation
        finally:
            if stored_generation != generation:
                await self._db.snapshots.delete_others(user_id, stored_generation)

    async def try_save_snapshot(self, state: UserIndexState) -> None:
        """Write a snapshot; a failure is logged."""
        try:
            await self.save_snapshot(state.user_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.warning("a snapshot could not be written (%s)", type(error).__name__)
            state.changed_at = time.monotonic()
        finally:
            state.save_task = None

    # --- On the index's thread

    def _index_entries(
        self,
        state: UserIndexState,
        rows: Sequence[tuple[bytes, int, bytes]],
        tag_names: Mapping[bytes, tuple[str, ...]],
    ) -> None:
        entries, damaged = open_entries(self._db, state.keys, rows)
        if damaged:
            logger.error("%d records could not be opened for the index", damaged)
        state.index.put(
            [
                make_document(entry, tag_names.get(entry.id, ()))
                for entry in entries
                if is_searchable(entry)
            ]
        )
        state.index.drop([entry.id for entry in entries if not is_searchable(entry)])

    def _index_vectors(
        self, state: UserIndexState, rows: Sequence[tuple[bytes, int, bytes]]
    ) -> set[bytes]:
        """Put stored vectors in; returns whose were of the model in use, the others serve until they are made anew."""
        import numpy as np

        current_ids: set[bytes] = set()
        for entry_id, revision, sealed in rows:
            try:
                record = self._db.vectors.open_record(state.keys, entry_id, revision, sealed)
            except (SealError, ValueError, KeyError):
                continue  # made anew, like a missing one
            embedder = self._queue.embedder_for(record.model)
            if embedder is None or len(record.data) % (4 * record.dim or 1):
                continue
            if embedder.dim and record.dim != embedder.dim:
                continue  # the same name, another model
            vectors = np.frombuffer(record.data, dtype="<f4").reshape(-1, record.dim or 1)
            was_stored = state.index.put_vectors(
                entry_id, record.entry_revision, vectors, record.model
            )
            if was_stored and record.model == self._queue.current_model():
                current_ids.add(entry_id)
        return current_ids


def make_document(entry: Entry, tags: tuple[str, ...] = ()) -> Document:
    """What is indexed of an entry that bears these traces."""
    return Document(
        entry.id, entry.revision, entry.day, entry.at, entry.role == "me", entry.text, tags
    )


def _compare_revisions(
    revisions: dict[bytes, int], known_revisions: dict[bytes, int]
) -> tuple[list[bytes], list[bytes]]:
    """The records of the store that differ from what is known, and what is known and not there."""
    changed_ids = [
        entry_id
        for entry_id, revision in revisions.items()
        if known_revisions.get(entry_id) != revision
    ]
    return changed_ids, [entry_id for entry_id in known_revisions if entry_id not in revisions]


def _retagged_ids(
    tags: dict[bytes, frozenset[bytes]],
    known_tags: dict[bytes, frozenset[bytes]],
    entry_ids: Iterable[bytes],
) -> list[bytes]:
    return [entry_id for entry_id in entry_ids if tags.get(entry_id) != known_tags.get(entry_id)]


async def _prefetch(
    keys: Iterable[P], fetch: Callable[[P], Coroutine[Any, Any, T]]
) -> AsyncGenerator[tuple[P, T]]:
    """What `fetch` finds at each place; while the caller works on one, the next is under way."""
    pending: tuple[P, asyncio.Task[T]] | None = None
    try:
        for key in keys:
            upcoming = (key, asyncio.create_task(fetch(key)))
            if pending is not None:
                current, pending = pending, upcoming
                yield current[0], await current[1]
            pending = upcoming
        if pending is not None:
            yield pending[0], await pending[1]
    finally:
        if pending is not None:
            pending[1].cancel()


def _feed_part(
    reader: SnapshotReader, keys: Keyring, generation: int, part: int, sealed: bytes
) -> None:
    if not sealed:
        raise UnusableSnapshot
    reader.feed(Snapshots.open_part(keys, generation, part, sealed))


def _seal_next_part(parts: Iterator[bytes], keys: Keyring, generation: int, part: int) -> bytes:
    content = next(parts, b"")
    return Snapshots.seal_part(keys, generation, part, content) if content else b""
