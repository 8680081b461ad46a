"""Build indexes from the store and keep them up to date with it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from logging import getLogger

from llamora.dates import utc_now
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.table import Sealed
from llamora.search.embed_queue import EmbedQueue
from llamora.search.index import Document
from llamora.search.prefetch import prefetch
from llamora.search.snapshot_store import SnapshotStore
from llamora.search.state import UserIndexState, is_searchable
from llamora.vault.envelope import SealError

logger = getLogger(__name__)

READ_BATCH = 250  # records opened in one go: some 15 ms, for which a query may have to wait
LOAD_ORDER_DAYS = (31, 1096)  # load the last month first, then three years, then everything


class IndexBuilder:
    """Build the indexes of unlocked users. One for each SearchService."""

    def __init__(self, db: LocalDB, queue: EmbedQueue, snapshots: SnapshotStore) -> None:
        self._db = db
        self._queue = queue
        self._snapshots = snapshots

    async def build(self, state: UserIndexState) -> None:
        """Read what is in the store and differs from the index.

        Raises nothing but CancelledError: a failure is logged, and the next build reads more.
        """
        try:
            await self._build(state)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.error("an index could not be built (%s)", type(error).__name__)
            state.search_counter = None
            state.tags_revision = -1

    async def _build(self, state: UserIndexState) -> None:
        counter = await self._db.search_version()
        is_first_build = not state.is_loaded
        if is_first_build:
            await self._snapshots.load(state)
            state.is_loaded = True
        read_ids: list[bytes] = []
        tags_revision, tags, retagged_ids = await self._read_tags(state)
        known_fingerprint = (len(state.revisions), state.fingerprint_weight)
        if await self._db.entries.fingerprint(state.user_id) != known_fingerprint:
            read_ids = await self._read_changed(state, tags, retagged_ids)
        elif retagged_ids:
            read_ids = [entry_id for entry_id in retagged_ids if entry_id in state.revisions]
            await self._read_entries(state, read_ids, tags)
        # A change during this build may have moved the revision on, or left tags to the next one.
        state.tags_revision = max(tags_revision, state.tags_revision)
        state.is_complete = True
        state.search_counter = None if state.tags_changed else counter
        if not is_first_build and not await self._db.snapshots.exists(state.user_id):
            state.unsaved_count = len(state.revisions)  # erasing deletes the snapshot
        missing = read_ids
        if is_first_build:
            missing = await state.run_in_thread(
                state.index.ids_without_vectors, self._queue.current_model()
            )
        for start in range(0, len(missing), READ_BATCH):
            await self._read_vectors(state, missing[start : start + READ_BATCH])
        while await state.run_in_thread(state.index.optimize_step):
            pass

    async def _read_tags(
        self, state: UserIndexState
    ) -> tuple[int, dict[bytes, frozenset[bytes]], list[bytes]]:
        """Return the revision of the tags, the tags of every entry, and whose tags differ.

        `state.tags_changed` names what this process changed, the tags' metadata the latest changes
        of any; only after more than those are the tags of all entries read.
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
        """Read the records that differ from what is known of them; return their ids."""
        # Copied before the store is read: what is written meanwhile is read twice, never dropped.
        known_revisions = dict(state.revisions)
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
        tag_ids = {tag_id for entry_id in ids for tag_id in tags.get(entry_id, ())}
        tag_names = await self._db.tags.names_of(state.keys, tag_ids)
        batches = [ids[start : start + READ_BATCH] for start in range(0, len(ids), READ_BATCH)]
        async for part, rows in prefetch(
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
        """Take over the stored vectors of entries, and queue the others for embedding."""
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
        for entry_id in entry_ids:
            state.remove_revision(entry_id)
            state.tags.pop(entry_id, None)
            state.unembedded.pop(entry_id, None)
        state.mark_changed(len(entry_ids))
        state.submit(state.index.drop, entry_ids)

    # What follows runs on the index's thread.

    def _index_entries(
        self,
        state: UserIndexState,
        rows: Sequence[Sealed],
        tag_names: Mapping[bytes, tuple[str, ...]],
    ) -> None:
        entries = self._db.entries.open_sealed(state.keys, rows)
        state.index.put(
            [
                make_document(entry, tag_names.get(entry.id, ()))
                for entry in entries
                if is_searchable(entry)
            ]
        )
        state.index.drop([entry.id for entry in entries if not is_searchable(entry)])

    def _index_vectors(self, state: UserIndexState, rows: Sequence[Sealed]) -> set[bytes]:
        """Take vectors over; return whose are of the model in use. The others serve meanwhile."""
        import numpy as np

        current_ids: set[bytes] = set()
        for entry_id, revision, sealed in rows:
            try:
                record = self._db.vectors.open_record(state.keys, entry_id, revision, sealed)
            except SealError:
                continue  # embedded again, as if missing
            embedder = self._queue.embedder_for(record.model)
            if embedder is None or len(record.data) % (4 * record.dim or 1):
                continue
            if embedder.dim and record.dim != embedder.dim:
                continue  # another model of the same name
            vectors = np.frombuffer(record.data, dtype="<f4").reshape(-1, record.dim or 1)
            was_stored = state.index.put_vectors(
                entry_id, record.entry_revision, vectors, record.model
            )
            if was_stored and record.model == self._queue.current_model():
                current_ids.add(entry_id)
        return current_ids


def make_document(entry: Entry, tags: tuple[str, ...] = ()) -> Document:
    """Return what is indexed of an entry with these tag names."""
    return Document(
        entry.id, entry.revision, entry.day, entry.at, entry.role == "me", entry.text, tags
    )


def _compare_revisions(
    revisions: dict[bytes, int], known_revisions: dict[bytes, int]
) -> tuple[list[bytes], list[bytes]]:
    """Return the ids that differ or are new in the store, and the ids that are gone from it."""
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
