"""Load indexes from their sealed snapshots in the store, and save them there."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from functools import partial
from logging import getLogger

from llamora.persistence.local_db import LocalDB
from llamora.persistence.snapshots import Snapshots
from llamora.search.index import UserIndex
from llamora.search.prefetch import prefetch
from llamora.search.snapshot import SnapshotReader, SnapshotWriter, UnusableSnapshot
from llamora.search.state import UserIndexState
from llamora.settings import SearchSettings
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

SNAPSHOT_MIN_ENTRIES = 1_000  # fewer are read from their records as fast as from a snapshot
SNAPSHOT_CHANGED_SHARE = 0.05  # of the entries must have changed before a new snapshot is saved
SNAPSHOT_QUIET_SECONDS = 20.0  # without a change before it is


class SnapshotStore:
    """Load and save the snapshots of the open indexes in `states`."""

    def __init__(
        self, db: LocalDB, states: Mapping[bytes, UserIndexState], settings: SearchSettings
    ) -> None:
        self._db = db
        self._states = states
        self._settings = settings

    async def load(self, state: UserIndexState) -> None:
        """Begin with the user's snapshot, if there is a usable one; an unusable one is deleted."""
        latest = await self._db.snapshots.get_latest(state.user_id)
        if latest is None:
            return
        index = UserIndex(self._settings.hnsw_above)
        try:
            reader = await self._read_parts(state, index, *latest)
            revisions = await state.run_in_thread(lambda: index.revisions)
        except asyncio.CancelledError:
            index.close()
            raise
        except Exception as error:  # whatever is there, the records have it all
            index.close()
            logger.warning("the snapshot of an index was not used (%s)", type(error).__name__)
            await self._db.snapshots.delete_all(state.user_id)
            return
        # Entries written meanwhile went into the old index; the store has later revisions of them,
        # so they are read again.
        old_index, state.index = state.index, index
        await state.run_in_thread(old_index.close)
        state.clear_revisions()
        for entry_id, revision in (revisions | reader.unindexed).items():
            state.set_revision(entry_id, revision)
        state.tags = dict(reader.tags)
        state.tags_revision = -1
        state.unsaved_count = 0

    async def _read_parts(
        self, state: UserIndexState, index: UserIndex, generation: int, sealed_header: bytes
    ) -> SnapshotReader:
        keys = state.keys
        header = await state.run_in_thread(Snapshots.open_part, keys, generation, 0, sealed_header)
        reader = await state.run_in_thread(SnapshotReader, index, header)
        fetch = partial(self._db.snapshots.get_part, state.user_id, generation)
        async for part, sealed in prefetch(range(1, reader.part_count + 1), fetch):
            await state.run_in_thread(_feed_part, reader, keys, generation, part, sealed)
        if not reader.is_complete:
            raise UnusableSnapshot
        return reader

    def is_due(self, state: UserIndexState) -> bool:
        """Return whether a snapshot should be saved now."""
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

    async def save(self, user_id: bytes) -> bool:
        """Seal a user's index into the store.

        Returns False when it changed meanwhile, is incomplete, or is not unlocked.
        """
        state = self._states.get(user_id)
        if state is None or not state.is_complete:
            return False
        keys, index = state.keys, state.index
        version, unsaved = index.version, state.unsaved_count
        latest = await self._db.snapshots.get_latest(user_id)
        stored_generation = latest[0] if latest else 0
        generation = await self._db.snapshots.begin(keys)
        try:
            writer = await self._create_writer(state)
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

    async def _create_writer(self, state: UserIndexState) -> SnapshotWriter:
        index = state.index
        while await state.run_in_thread(index.merge_step):
            pass
        indexed_revisions = await state.run_in_thread(lambda: index.revisions)
        unindexed = {
            entry_id: revision
            for entry_id, revision in state.revisions.items()
            if entry_id not in indexed_revisions
        }
        return SnapshotWriter(index, unindexed, dict(state.tags))

    async def try_save(self, state: UserIndexState) -> None:
        """Save a snapshot as the state's `save_task`; a failure is logged."""
        try:
            await self.save(state.user_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.warning("a snapshot could not be written (%s)", type(error).__name__)
            state.changed_at = time.monotonic()
        finally:
            state.save_task = None


def _feed_part(
    reader: SnapshotReader, keys: Keyring, generation: int, part: int, sealed: bytes
) -> None:
    if not sealed:
        raise UnusableSnapshot
    reader.feed(Snapshots.open_part(keys, generation, part, sealed))


def _seal_next_part(parts: Iterator[bytes], keys: Keyring, generation: int, part: int) -> bytes:
    content = next(parts, b"")
    return Snapshots.seal_part(keys, generation, part, content) if content else b""
