"""Changes of tags: planned from what a transaction sees, applied, and undone as far as may be."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from msgspec import structs

from llamora.persistence.connection import NotFound, Transaction
from llamora.persistence.summaries import summary_hash
from llamora.persistence.table import fetch_in
from llamora.persistence.tag_changes import (
    UNUSED_TAG,
    EntryTag,
    TagDelta,
    TagMeta,
    TagRecords,
    resolve_aliases,
    tag_hash,
)
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class TagChangeResult:
    """The outcome of a change, for a caller that holds a copy of the tags.

    `undo_id` names it for `Tags.undo`, `added` and `removed` are links, `names` has the present
    name of each tag (None: the tag no longer exists), `meta` is the metadata as stored.
    """

    undo_id: bytes
    added: frozenset[EntryTag]
    removed: frozenset[EntryTag]
    names: Mapping[bytes, str | None]
    meta: TagMeta


class TagSnapshot:
    """The tags of a user as one transaction sees them, from which a change is planned."""

    def __init__(self, tx: Transaction, keys: Keyring, meta: TagMeta, records: TagRecords) -> None:
        self._tx = tx
        self._records = records
        self.keys = keys
        self.meta = meta

    async def get_name(self, tag_id: bytes) -> str | None:
        return await self._records.names.get_value(self.keys, tag_id, self._tx)

    async def require_name(self, tag_id: bytes) -> str:
        """Return the name of a tag. Raise NotFound."""
        if (name := await self.get_name(tag_id)) is None:
            raise NotFound("tag_not_found")
        return name

    async def entries_with_tag(self, tag_id: bytes) -> frozenset[bytes]:
        query = "SELECT entry_id FROM entry_tags WHERE user_id=? AND tag=?"
        return frozenset(row[0] for row in await self._tx.fetch(query, (self.keys.user_id, tag_id)))

    async def has_entry(self, entry_id: bytes) -> bool:
        return bool(await _existing_entries(self._tx, self.keys, [entry_id]))

    async def missing_names(self, names: Mapping[bytes, str]) -> dict[bytes, str]:
        """Return those of these names that no tag has yet: the first spelling stays shown."""
        stored = await self._records.get_names(self.keys, names, self._tx)
        return {tag_id: name for tag_id, name in names.items() if tag_id not in stored}

    def canonical(self, name: str) -> tuple[bytes, str]:
        """Return the hash and the name of the tag that a written name stands for."""
        tag_id = tag_hash(self.keys, name)
        if tag_id not in self.meta.aliases:
            return tag_id, name
        canonical_name = self.meta.canonical(name, tag_id)
        return tag_hash(self.keys, canonical_name), canonical_name


TagOperation = Callable[[TagSnapshot], Awaitable[TagDelta]]


def adding_tag(entry_id: bytes, name: str, added_names: dict[bytes, str]) -> TagOperation:
    """Return the operation that adds a tag to an entry and puts its hash and name in `added_names`.

    It raises NotFound when the entry is missing.
    """

    async def operation(snapshot: TagSnapshot) -> TagDelta:
        added_names.update([snapshot.canonical(name)])
        if not await snapshot.has_entry(entry_id):
            raise NotFound("entry_not_found")
        return TagDelta(
            await snapshot.missing_names(added_names),
            frozenset((tag_id, entry_id) for tag_id in added_names),
        )

    return operation


def removing_tag(entry_id: bytes, tag_id: bytes) -> TagOperation:
    """Return the operation that removes a tag from an entry.

    It raises NotFound when the entry is missing.
    """

    async def operation(snapshot: TagSnapshot) -> TagDelta:
        if not await snapshot.has_entry(entry_id):
            raise NotFound("entry_not_found")
        return TagDelta(unlinked=frozenset({(tag_id, entry_id)}))

    return operation


async def merge_delta(
    snapshot: TagSnapshot, tag_id: bytes, old_name: str, target_id: bytes, target_name: str
) -> TagDelta:
    """Return the change that merges a tag into another one.

    Its name and aliases become aliases of the other.
    """
    entry_ids = await snapshot.entries_with_tag(tag_id)
    aliases: dict[bytes, tuple[str, str] | None] = {
        alias: (snapshot.meta.aliases[alias][0], target_name)
        for alias in snapshot.meta.aliases_of(old_name)
    }
    aliases[tag_id] = (old_name, target_name)
    aliases[target_id] = None
    hidden = {tag_id: False}
    if tag_id in snapshot.meta.hidden and await snapshot.get_name(target_id) is None:
        hidden[target_id] = True
    return TagDelta(
        await snapshot.missing_names({target_id: target_name}),
        frozenset((target_id, entry_id) for entry_id in entry_ids),
        frozenset((tag_id, entry_id) for entry_id in entry_ids),
        aliases,
        hidden,
    )


async def remaining_undo(snapshot: TagSnapshot, inverse: TagDelta) -> TagDelta:
    """Return what is left to undo of a change after later ones.

    The result makes no name of a tag in use point at another tag.
    """
    keys, meta = snapshot.keys, snapshot.meta
    aliases = await _remaining_aliases(snapshot, inverse)
    resolved = resolve_aliases(keys, {**meta.aliases, **aliases})

    def current_id(tag_id: bytes) -> bytes:
        return tag_hash(keys, resolved[tag_id][1]) if tag_id in resolved else tag_id

    moved_ids = inverse.linked_tag_ids | {tag_id for tag_id, _ in inverse.unlinked}
    names = {
        current_id(tag_id): resolved[tag_id][1] if tag_id in resolved else name
        for tag_id, name in inverse.names.items()
    }
    respelled = {
        tag_id: name
        for tag_id, name in inverse.names.items()
        if tag_id not in moved_ids and tag_id not in resolved
    }
    only_hidden = not (
        moved_ids or inverse.aliases
    )  # only what is hidden changes, and that follows a tag to its new name
    return TagDelta(
        await snapshot.missing_names(names) | respelled,
        frozenset((current_id(tag_id), entry_id) for tag_id, entry_id in inverse.linked),
        inverse.unlinked,
        aliases,
        {
            current_id(tag_id): is_hidden
            for tag_id, is_hidden in inverse.hidden.items()
            if only_hidden or tag_id not in resolved
        },
    )


async def _remaining_aliases(
    snapshot: TagSnapshot, inverse: TagDelta
) -> dict[bytes, tuple[str, str] | None]:
    present = snapshot.meta.aliases
    aliases = {
        alias: target
        for alias, target in inverse.aliases.items()
        if alias in inverse.linked_tag_ids
        or present.get(alias) == inverse.expected_aliases.get(alias, present.get(alias))
    }
    for alias, target in list(aliases.items()):
        if target and any(
            (alias, entry_id) not in inverse.unlinked
            for entry_id in await snapshot.entries_with_tag(alias)
        ):
            del aliases[alias]
    return aliases


async def apply_delta(
    tx: Transaction, keys: Keyring, records: TagRecords, meta: TagMeta, delta: TagDelta
) -> tuple[TagChangeResult, TagDelta]:
    """Apply a change; return its result and its inverse.

    Entries that are missing or another user's are passed over.
    """
    wanted = delta.linked - delta.unlinked
    stored = await _existing_links(tx, keys, wanted | delta.unlinked)
    entry_ids = await _existing_entries(tx, keys, {entry_id for _, entry_id in wanted - stored})
    added = frozenset(link for link in wanted - stored if link[1] in entry_ids)
    removed = stored & delta.unlinked
    tag_ids = {tag_id for tag_id, _ in added | removed} | delta.names.keys()
    names_before = await records.get_names(keys, tag_ids, tx)
    # A tag that an entry is to get has a name: one without a name by now cannot come back.
    added = frozenset(link for link in added if link[0] in names_before or link[0] in delta.names)
    await records.save_names(tx, keys, delta.names)
    await _change_links(tx, keys, added, removed, tag_ids)
    new_meta = _apply_to_meta(keys, meta, delta, tag_ids, {entry for _, entry in added | removed})
    await records.save_meta(tx, keys, new_meta)
    changed_aliases = {alias for alias, _ in new_meta.aliases.items() ^ meta.aliases.items()}
    inverse = TagDelta(
        names_before,
        removed,
        added,
        {alias: meta.aliases.get(alias) for alias in changed_aliases},
        {tag_id: tag_id in meta.hidden for tag_id in delta.hidden},
        {alias: new_meta.aliases.get(alias) for alias in changed_aliases},
    )
    names = await records.get_names(keys, tag_ids, tx)
    return TagChangeResult(
        b"", added, removed, {tag_id: names.get(tag_id) for tag_id in tag_ids}, new_meta
    ), inverse


async def _change_links(
    tx: Transaction,
    keys: Keyring,
    added: frozenset[EntryTag],
    removed: frozenset[EntryTag],
    tag_ids: Collection[bytes],
) -> None:
    await tx.execute_many(
        "INSERT INTO entry_tags (user_id, tag, entry_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(keys.user_id, *link) for link in added],
    )
    await tx.execute_many(
        "DELETE FROM entry_tags WHERE user_id=? AND tag=? AND entry_id=?",
        [(keys.user_id, *link) for link in removed],
    )
    await tx.execute_many(
        f"DELETE FROM tags WHERE user_id=? AND tag=? AND {UNUSED_TAG}",
        [(keys.user_id, tag_id) for tag_id in tag_ids],
    )
    # The summary of a tag was drawn from other entries than have it now.
    changed_ids = {tag_id for tag_id, _ in added | removed}
    await tx.execute_many(
        "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
        [(keys.user_id, summary_hash(keys, "tag", tag_id)) for tag_id in changed_ids],
    )


def _apply_to_meta(
    keys: Keyring,
    meta: TagMeta,
    delta: TagDelta,
    tag_ids: Collection[bytes],
    entry_ids: Collection[bytes],
) -> TagMeta:
    aliases = meta.aliases
    if delta.aliases:
        aliases = resolve_aliases(keys, {**aliases, **delta.aliases})
    hidden = dict.fromkeys(meta.hidden, True) | dict(delta.hidden)
    return structs.replace(
        meta.with_revision(tag_ids, entry_ids),
        aliases=aliases,
        hidden=frozenset(tag_id for tag_id, is_hidden in hidden.items() if is_hidden),
    )


async def _existing_links(
    tx: Transaction, keys: Keyring, links: Collection[EntryTag]
) -> frozenset[EntryTag]:
    """Return those of these links that exist, asking by tag or by entry, whichever are fewer."""
    by_entry = len({entry_id for _, entry_id in links}) < len({tag_id for tag_id, _ in links})
    group_column, value_column = ("entry_id", "tag") if by_entry else ("tag", "entry_id")
    query = (
        f"SELECT tag, entry_id FROM entry_tags WHERE user_id=? AND {group_column}=?"
        f" AND {value_column} IN (*)"
    )
    groups: dict[bytes, list[bytes]] = {}
    for tag_id, entry_id in links:
        group_id, value = (entry_id, tag_id) if by_entry else (tag_id, entry_id)
        groups.setdefault(group_id, []).append(value)
    rows = [
        row
        for group_id, values in groups.items()
        for row in await fetch_in(tx, query, values, keys.user_id, group_id)
    ]
    return frozenset((row[0], row[1]) for row in rows)


async def _existing_entries(tx: Transaction, keys: Keyring, ids: Collection[bytes]) -> set[bytes]:
    query = "SELECT id FROM entries WHERE +user_id=? AND id IN (*)"
    return {row[0] for row in await fetch_in(tx, query, ids, keys.user_id)}
