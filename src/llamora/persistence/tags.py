"""The store of tags: sealed names under keyed hashes, the entries that have them, and undo."""

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import msgspec

from llamora.persistence.connection import Connections, NotFound, Row, Step, Transaction
from llamora.persistence.schema import TAG_REJECTIONS
from llamora.persistence.table import SealedTable, fetch_in
from llamora.persistence.tag_changes import TagDelta, TagMeta, TagRecords, names_by_id, tag_hash
from llamora.persistence.tag_operations import (
    TagChangeResult,
    TagOperation,
    TagSnapshot,
    adding_tag,
    apply_delta,
    remaining_undo,
    removing_tag,
)
from llamora.text import tag_key
from llamora.vault.keys import Keyring


class RefusedNames(msgspec.Struct, frozen=True):
    """The keys (text.tag_key) of the names that are not to be suggested for an entry."""

    names: list[str]


class Tags:
    """The store of tags, reached as `db.tags`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._records = TagRecords(connections)
        self._rejections = SealedTable(connections, TAG_REJECTIONS, RefusedNames)

    # -- changing ----------------------------------------------------------------------------------

    async def change(
        self, keys: Keyring, operation: TagOperation, *, undoable: bool = True
    ) -> TagChangeResult:
        """Apply in one transaction the change that `operation` plans from what is stored.

        With `undoable` its inverse is stored, sealed. Entries that are missing or another user's
        are passed over. Raise StorageError and what `operation` raises.
        """
        undo_id = secrets.token_bytes(16) if undoable else b""
        async with self._db.write(keys=keys) as tx:
            snapshot = await self._snapshot(tx, keys)
            result, inverse = await apply_delta(
                tx, keys, self._records, snapshot.meta, await operation(snapshot)
            )
            if undoable:
                await self._records.save_undo(tx, keys, undo_id, inverse)
        if result.removed:
            await self._db.checkpoint()
        return replace(result, undo_id=undo_id)

    async def undo(self, keys: Keyring, undo_id: bytes) -> TagChangeResult:
        """Undo one of the latest changes, once, as far as what it touched still exists.

        Raise NotFound for one that is no longer known, StorageError and SealError.
        """
        async with self._db.write(keys=keys) as tx:
            snapshot = await self._snapshot(tx, keys)
            inverse = await self._records.take_undo(tx, keys, undo_id)
            delta = await remaining_undo(snapshot, inverse)
            result, _ = await apply_delta(tx, keys, self._records, snapshot.meta, delta)
        await self._db.checkpoint()
        return result

    def updating_entry_tags(
        self,
        keys: Keyring,
        entry_id: bytes,
        added: Sequence[str],
        removed: Collection[str],
        retained: Collection[str],
        on_commit: Callable[[TagChangeResult], None],
    ) -> Step:
        """Return the step that adds tags to an entry and removes others as the entry is saved.

        A tag that one of the `retained` names means is not removed, whatever its aliases.
        `on_commit` is called with the result once the transaction is committed.
        """

        async def step(tx: Transaction) -> None:
            snapshot = await self._snapshot(tx, keys)
            added_names = dict(snapshot.canonical(name) for name in added)
            removed_ids = {snapshot.canonical(name)[0] for name in removed} - {
                snapshot.canonical(name)[0] for name in retained
            }
            delta = TagDelta(
                await snapshot.missing_names(added_names),
                frozenset((tag_id, entry_id) for tag_id in added_names),
                frozenset((tag_id, entry_id) for tag_id in removed_ids),
            )
            result, _ = await apply_delta(tx, keys, self._records, snapshot.meta, delta)
            tx.on_commit.append(lambda: on_commit(result))

        return step

    async def add(self, keys: Keyring, entry_id: bytes, name: str) -> bytes:
        """Add a tag to an entry and return its hash; the first spelling stays the shown one.

        Raise NotFound for an entry that is missing or another user's.
        """
        added_names: dict[bytes, str] = {}
        await self.change(keys, adding_tag(entry_id, name, added_names), undoable=False)
        return next(iter(added_names))

    async def remove(self, keys: Keyring, entry_id: bytes, tag_id: bytes) -> None:
        """Remove a tag from an entry; the name goes with its last entry. It can be undone."""
        await self.change(keys, removing_tag(entry_id, tag_id))

    # -- refused suggestions -----------------------------------------------------------------------

    async def refuse_suggestions(
        self, keys: Keyring, entry_id: bytes, names: Iterable[str]
    ) -> None:
        """Note that these names are not to be suggested for an entry again.

        Raise NotFound and StorageError.
        """
        async with self._db.write(keys=keys) as tx:
            if not await (await self._snapshot(tx, keys)).has_entry(entry_id):
                raise NotFound("entry_not_found")
            stored = await self._rejections.get_value(keys, entry_id, tx)
            refused = {*(stored.names if stored else ()), *map(tag_key, names)}
            await self._rejections.put(tx, keys, {entry_id: RefusedNames(sorted(refused))})

    async def refused_names(self, keys: Keyring, entry_id: bytes) -> set[str]:
        """Return the keys (text.tag_key) of the names that are not to be suggested for an entry."""
        stored = await self._rejections.get_value(keys, entry_id)
        return set(stored.names) if stored else set()

    def purging_erased(
        self, keys: Keyring, erased_ids: Collection[bytes], erased_tag_ids: Collection[bytes]
    ) -> Step:
        """Return the step described at `TagRecords.purging_erased`."""
        return self._records.purging_erased(keys, erased_ids, erased_tag_ids)

    # -- reading -----------------------------------------------------------------------------------

    async def get_meta(self, keys: Keyring) -> TagMeta:
        return await self._records.get_meta(keys)

    async def get_revision(self, user_id: bytes) -> int:
        """Return a number that grows with every change of a name or a link; 0 before the first."""
        rows = await self._db.fetch("SELECT revision FROM tag_meta WHERE user_id=?", (user_id,))
        return rows[0][0] if rows else 0

    async def names(self, keys: Keyring) -> dict[bytes, str]:
        """Return every tag of the user, name by hash; unreadable ones are left out."""
        return names_by_id(await self._records.names.fetch(keys))

    async def tags_of_entries(
        self, keys: Keyring, ids: Sequence[bytes]
    ) -> dict[bytes, dict[bytes, str]]:
        """Return the tags of each of these entries that has any, by hash, in alphabetical order."""
        links = await self.tag_ids_of(keys.user_id, ids)
        names = await self.names_of(keys, {tag_id for tags in links.values() for tag_id in tags})
        tags_by_entry = {
            entry_id: {tag_id: names[tag_id] for tag_id in tags if tag_id in names}
            for entry_id, tags in links.items()
        }
        return {
            entry_id: dict(sorted(tags.items(), key=lambda item: item[1].casefold()))
            for entry_id, tags in tags_by_entry.items()
            if tags
        }

    async def names_of(self, keys: Keyring, tag_ids: Collection[bytes]) -> dict[bytes, str]:
        return await self._records.get_names(keys, tag_ids)

    async def tag_ids_by_entry(self, user_id: bytes) -> dict[bytes, frozenset[bytes]]:
        """Return the hashes of the tags of every tagged entry of a user."""
        rows = await self._db.fetch(
            "SELECT entry_id, tag FROM entry_tags WHERE user_id=?", (user_id,)
        )
        return _group_links(rows)

    async def tag_ids_of(
        self, user_id: bytes, ids: Iterable[bytes]
    ) -> dict[bytes, frozenset[bytes]]:
        """Return the hashes of the tags of those of these entries that have any."""
        # The "+" keeps SQLite from walking all links of the user.
        query = "SELECT entry_id, tag FROM entry_tags WHERE +user_id=? AND entry_id IN (*)"
        return _group_links(await fetch_in(self._db, query, ids, user_id))

    async def entries_with_tags(self, keys: Keyring, names: Iterable[str]) -> set[bytes]:
        """Return the ids of the entries that have all of these tags, under any of their names."""
        meta = await self.get_meta(keys)
        matching_ids: set[bytes] | None = None
        for name in names:
            tag_id = tag_hash(keys, meta.canonical(name, tag_hash(keys, name)))
            rows = await self._db.fetch(
                "SELECT entry_id FROM entry_tags WHERE user_id=? AND tag=?", (keys.user_id, tag_id)
            )
            ids = {row[0] for row in rows}
            matching_ids = ids if matching_ids is None else matching_ids & ids
        return matching_ids or set()

    async def _snapshot(self, tx: Transaction, keys: Keyring) -> TagSnapshot:
        return TagSnapshot(tx, keys, await self._records.get_meta(keys, tx), self._records)


def _group_links(rows: Iterable[Row]) -> dict[bytes, frozenset[bytes]]:
    tag_ids_by_entry: dict[bytes, set[bytes]] = {}
    for entry_id, tag_id in rows:
        tag_ids_by_entry.setdefault(entry_id, set()).add(tag_id)
    return {entry_id: frozenset(tag_ids) for entry_id, tag_ids in tag_ids_by_entry.items()}
