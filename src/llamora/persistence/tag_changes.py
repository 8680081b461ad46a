"""Tag metadata (aliases and hidden tags) in one sealed record, and undo of the latest changes."""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from llamora.persistence.connection import Connections, NotFound, Step, Transaction
from llamora.persistence.schema import TAG_CHANGES, TAG_HASH, TAG_META, TAGS
from llamora.persistence.table import Opened, Reader, SealedTable
from llamora.text import tag_key
from llamora.vault.keys import Keyring

MAX_UNDO = 20  # of a user: so many can be undone
MAX_RECENT_CHANGES = 16  # changes of which the metadata says what they touched
MAX_TOUCHED = 64  # tags and entries of one of them; after a larger change everything is read again
UNUSED_TAG = "NOT EXISTS (SELECT 1 FROM entry_tags WHERE user_id=tags.user_id AND tag=tags.tag)"
"""The SQL condition for the name of a tag that no entry has."""
EntryTag = tuple[bytes, bytes]
"""A tag's hash and the id of an entry that has the tag."""
AliasTarget = TypeVar("AliasTarget", bound=tuple[str, str] | None)


def tag_hash(keys: Keyring, name: str) -> bytes:
    """Return the keyed hash of a tag's name, the same for every spelling of it (text.tag_key)."""
    # With blanks, as the first schema's names were hashed: what has them is found by the same hash.
    return keys.blind(TAG_HASH, tag_key(name).replace("-", " ").encode("utf-8", "replace"))


class TouchedItems(msgspec.Struct, frozen=True):
    """The tags and entries touched by the change that made a revision of the metadata."""

    revision: int
    tag_ids: frozenset[bytes]
    entry_ids: frozenset[bytes]


class TagMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a user's tags, beside their names.

    `aliases` maps the hash of an alias to the alias as it was written and the name of the tag it
    stands for; `hidden` are tags that no list shows. `revision` grows with every change of a name,
    a link or this record; `recent_changes` says what the latest changes touched, for a process that
    holds a copy.
    """

    revision: int = 0
    aliases: Mapping[bytes, tuple[str, str]] = {}
    hidden: frozenset[bytes] = frozenset()
    recent_changes: tuple[TouchedItems, ...] = ()

    def touched_since(self, revision: int) -> TouchedItems | None:
        """Return everything touched after an earlier revision, or None if no longer known."""
        later_changes = [touched for touched in self.recent_changes if touched.revision > revision]
        if revision > self.revision or len(later_changes) != self.revision - revision:
            return None
        return TouchedItems(
            self.revision,
            frozenset[bytes]().union(*(touched.tag_ids for touched in later_changes)),
            frozenset[bytes]().union(*(touched.entry_ids for touched in later_changes)),
        )

    def with_revision(self, tag_ids: Collection[bytes], entry_ids: Collection[bytes]) -> "TagMeta":
        """Return the metadata at its next revision, made by a change of these tags and entries."""
        is_recorded = len(tag_ids) + len(entry_ids) <= MAX_TOUCHED
        touched = TouchedItems(self.revision + 1, frozenset(tag_ids), frozenset(entry_ids))
        return replace(
            self,
            revision=self.revision + 1,
            recent_changes=(*self.recent_changes, touched)[-MAX_RECENT_CHANGES:]
            if is_recorded
            else (),
        )

    def canonical(self, name: str, tag_id: bytes) -> str:
        """Return the name of the tag that a name stands for."""
        return self.aliases[tag_id][1] if tag_id in self.aliases else name

    def aliases_of(self, name: str) -> list[bytes]:
        """Return the hashes of the aliases of a tag."""
        key = tag_key(name)
        return [alias for alias, (_, target) in self.aliases.items() if tag_key(target) == key]


class TagDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of tags. Names that no entry has any more are deleted without being listed.

    `names` are names to store, `linked` and `unlinked` links to add and to remove; `aliases` has
    None for an alias to remove, `hidden` has False for a tag to show again. In the inverse of a
    change, `expected_aliases` has the aliases as the change left them.
    """

    names: Mapping[bytes, str] = {}
    linked: frozenset[EntryTag] = frozenset()
    unlinked: frozenset[EntryTag] = frozenset()
    aliases: Mapping[bytes, tuple[str, str] | None] = {}
    hidden: Mapping[bytes, bool] = {}
    expected_aliases: Mapping[bytes, tuple[str, str] | None] = {}

    @property
    def linked_tag_ids(self) -> set[bytes]:
        """Return the tags that entries are to get."""
        return {tag_id for tag_id, _ in self.linked}


def resolve_aliases(
    keys: Keyring, aliases: Mapping[bytes, tuple[str, str] | None]
) -> dict[bytes, tuple[str, str]]:
    """Return the aliases, each pointing at a tag and none at another alias, without cycles."""
    targets = {
        alias: canonical_name
        for alias, canonical_name in aliases.items()
        if canonical_name is not None
    }
    resolved: dict[bytes, tuple[str, str]] = {}
    for alias, (name, target) in targets.items():
        visited, canonical_name = {alias}, target
        while (tag_id := tag_hash(keys, canonical_name)) in targets and tag_id not in visited:
            visited.add(tag_id)
            canonical_name = targets[tag_id][1]
        if tag_id not in visited:
            resolved[alias] = (name, canonical_name)
    return resolved


class TagRecords:
    """The sealed records of tags: their names, the metadata, and what undoes a change."""

    def __init__(self, connections: Connections) -> None:
        self.names = SealedTable(connections, TAGS, str)
        self._meta = SealedTable(connections, TAG_META, TagMeta)
        self._changes = SealedTable(connections, TAG_CHANGES, TagDelta)

    async def get_names(
        self, keys: Keyring, tag_ids: Collection[bytes], reader: Reader | None = None
    ) -> dict[bytes, str]:
        """Return the names of these tags; missing and unreadable ones are left out."""
        return names_by_id(await self.names.fetch_in(keys, tag_ids, reader))

    async def save_names(self, tx: Transaction, keys: Keyring, names: Mapping[bytes, str]) -> None:
        """Store names where there are none; a respelling by a rename replaces the old name."""
        stored = await self.get_names(keys, names, tx)
        changed = {tag_id: name for tag_id, name in names.items() if stored.get(tag_id) != name}
        await self.names.put(tx, keys, changed)

    async def get_meta(self, keys: Keyring, reader: Reader | None = None) -> TagMeta:
        """Return the tag metadata, empty where there is none.

        Of metadata that does not open aliases and what was hidden are lost: names and links are
        records of their own.
        """
        stored = await self._meta.get(keys, keys.user_id, reader)
        if stored is None:
            return TagMeta()
        return stored.value or TagMeta(stored.revision)

    async def save_meta(self, tx: Transaction, keys: Keyring, meta: TagMeta) -> None:
        """Store the tag metadata under its revision."""
        await self._meta.replace(tx, [self._meta.seal(keys, keys.user_id, meta.revision, meta)])

    async def save_undo(
        self, tx: Transaction, keys: Keyring, undo_id: bytes, inverse: TagDelta
    ) -> None:
        """Store the inverse of a change and delete the oldest beyond MAX_UNDO.

        The record's revision tells its age.
        """
        query = "SELECT max(revision) FROM tag_changes WHERE user_id=?"
        age = ((await tx.fetch(query, (keys.user_id,)))[0][0] or 0) + 1
        await self._changes.insert(tx, self._changes.seal(keys, undo_id, age, inverse))
        await tx.execute(
            "DELETE FROM tag_changes WHERE user_id=? AND revision<=?",
            (keys.user_id, age - MAX_UNDO),
        )

    async def take_undo(self, tx: Transaction, keys: Keyring, undo_id: bytes) -> TagDelta:
        """Return the inverse of a change and delete it. Raise NotFound and SealError."""
        rows = await self._changes.get_sealed(keys.user_id, [undo_id], tx)
        if not rows:
            raise NotFound("undo_expired")
        await self._changes.delete(tx, keys.user_id, [undo_id])
        return self._changes.open(keys, *rows[0])

    def purging_erased(
        self, keys: Keyring, erased_ids: Collection[bytes], erased_tag_ids: Collection[bytes]
    ) -> Step:
        """Return the step that removes erased entries, and tags only they had, from what is stored.

        It belongs in the transaction that erased them. `erased_tag_ids` are the tags they had: a
        tag that no entry has since leaves no name behind, neither in the metadata nor in what could
        be undone.
        """

        async def purge(tx: Transaction) -> None:
            stored = await self._changes.fetch(keys, reader=tx)
            deltas = {record.id: record.value or TagDelta() for record in stored}
            unused_tag_ids = await _unused_tags(
                tx, keys, deltas.values(), erased_ids, erased_tag_ids
            )
            await self._purge_meta(tx, keys, erased_ids, unused_tag_ids)
            for record in stored:
                delta = deltas[record.id]
                remaining = _drop_erased_entries(keys, delta, erased_ids, unused_tag_ids)
                if remaining == TagDelta():
                    await self._changes.delete(tx, keys.user_id, [record.id])
                elif remaining != delta:
                    row = self._changes.seal(keys, record.id, record.revision, remaining)
                    await self._changes.replace(tx, [row])

        return purge

    async def _purge_meta(
        self,
        tx: Transaction,
        keys: Keyring,
        erased_ids: Collection[bytes],
        unused_tag_ids: Collection[bytes],
    ) -> None:
        meta = await self.get_meta(keys, tx)
        remaining = replace(
            meta,
            aliases=_drop_aliases(keys, meta.aliases, unused_tag_ids),
            hidden=meta.hidden - frozenset(unused_tag_ids),
        )
        if remaining != meta:
            revised = replace(remaining, revision=meta.revision + 1, recent_changes=())
            await self.save_meta(tx, keys, revised)
        elif any(not touched.entry_ids.isdisjoint(erased_ids) for touched in meta.recent_changes):
            await self.save_meta(tx, keys, replace(meta, recent_changes=()))


def names_by_id(stored: Iterable[Opened[str]]) -> dict[bytes, str]:
    """Return the names of the records that opened, by the hash of the tag."""
    return {record.id: record.value for record in stored if record.value is not None}


async def _unused_tags(
    tx: Transaction,
    keys: Keyring,
    deltas: Collection[TagDelta],
    erased_ids: Collection[bytes],
    erased_tag_ids: Collection[bytes],
) -> set[bytes]:
    """Return the tags that only erased entries had, neither stored nor to be had back by undo."""
    rows = await tx.fetch("SELECT tag FROM tags WHERE user_id=?", (keys.user_id,))
    linked = {link for delta in deltas for link in delta.linked | delta.unlinked}
    restorable = {
        tag_id
        for delta in deltas
        for tag_id, entry_id in delta.linked
        if entry_id not in erased_ids
    }
    unused = {tag_id for tag_id, entry_id in linked if entry_id in erased_ids}
    return (unused | set(erased_tag_ids)) - {row[0] for row in rows} - restorable


def _drop_erased_entries(
    keys: Keyring, delta: TagDelta, erased_ids: Collection[bytes], unused_tag_ids: Collection[bytes]
) -> TagDelta:
    return TagDelta(
        {tag_id: name for tag_id, name in delta.names.items() if tag_id not in unused_tag_ids},
        frozenset(link for link in delta.linked if link[1] not in erased_ids),
        frozenset(link for link in delta.unlinked if link[1] not in erased_ids),
        _drop_aliases(keys, delta.aliases, unused_tag_ids),
        {
            tag_id: is_hidden
            for tag_id, is_hidden in delta.hidden.items()
            if tag_id not in unused_tag_ids
        },
        _drop_aliases(keys, delta.expected_aliases, unused_tag_ids),
    )


def _drop_aliases(
    keys: Keyring, aliases: Mapping[bytes, AliasTarget], unused_tag_ids: Collection[bytes]
) -> dict[bytes, AliasTarget]:
    return {
        alias: target
        for alias, target in aliases.items()
        if target is None or tag_hash(keys, target[1]) not in unused_tag_ids
    }
