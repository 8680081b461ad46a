"""The store of tags: sealed names under keyed hashes, the entries that have them, and undo."""

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound, Row, Step, Transaction
from llamora.persistence.entries import encode_record
from llamora.persistence.schema import TAG_REJECTIONS, TAGS
from llamora.persistence.summaries import summary_hash
from llamora.persistence.tag_changes import (
    EntryTag,
    TagDelta,
    TagMeta,
    open_meta,
    read_meta,
    resolve_aliases,
    save_meta,
    tag_hash,
    take_undo,
)
from llamora.persistence.tag_changes import save_undo as keep_undo
from llamora.text import tag_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

BATCH_SIZE = 500
_UNUSED_TAG = "NOT EXISTS (SELECT 1 FROM entry_tags WHERE user_id=tags.user_id AND tag=tags.tag)"


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

    def __init__(self, tx: Transaction, keys: Keyring, meta: TagMeta) -> None:
        self._tx = tx
        self.keys = keys
        self.meta = meta

    async def get_name(self, tag_id: bytes) -> str | None:
        """Return the name of a tag, or None when it does not exist or its name does not open."""
        rows = await self._tx.fetch(
            "SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag=?",
            (self.keys.user_id, tag_id),
        )
        return _open_name(self.keys, *rows[0]) if rows else None

    async def entries_with_tag(self, tag_id: bytes) -> frozenset[bytes]:
        """Return the entries that have a tag."""
        rows = await self._tx.fetch(
            "SELECT entry_id FROM entry_tags WHERE user_id=? AND tag=?", (self.keys.user_id, tag_id)
        )
        return frozenset(row[0] for row in rows)

    async def has_entry(self, entry_id: bytes) -> bool:
        """Return True if the user has this entry."""
        return bool(await _existing_entries(self._tx, self.keys, [entry_id]))

    async def missing_names(self, names: Mapping[bytes, str]) -> dict[bytes, str]:
        """Return those of these names that no tag has yet: the first spelling stays shown."""
        stored_names = await _fetch_names(self._tx, self.keys, names)
        return {tag_id: name for tag_id, name in names.items() if tag_id not in stored_names}

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
    """Return the operation that removes a tag from an entry."""

    async def operation(_: TagSnapshot) -> TagDelta:
        return TagDelta(unlinked=frozenset({(tag_id, entry_id)}))

    return operation


class Tags:
    """The store of tags, reached as `db.tags`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    # -- changing ----------------------------------------------------------------------------------

    async def change(
        self, keys: Keyring, operation: TagOperation, *, undoable: bool = True
    ) -> TagChangeResult:
        """Apply in one transaction the change that `operation` plans from what is stored.

        With `undoable` its inverse is stored, sealed. Entries that are missing or another user's
        are passed over. Raise StorageError and what `operation` raises.
        """
        undo_id = secrets.token_bytes(16) if undoable else b""
        async with self._db.write() as tx:
            meta = await read_meta(tx, keys)
            result, inverse = await _apply_delta(
                tx, keys, meta, await operation(TagSnapshot(tx, keys, meta))
            )
            if undoable:
                await keep_undo(tx, keys, undo_id, inverse)
        if result.removed:
            await self._db.checkpoint()
        return replace(result, undo_id=undo_id)

    async def undo(self, keys: Keyring, undo_id: bytes) -> TagChangeResult:
        """Undo one of the latest changes, once, as far as what it touched still exists.

        Raise NotFound for one that is no longer known, StorageError and SealError.
        """
        async with self._db.write() as tx:
            snapshot = TagSnapshot(tx, keys, await read_meta(tx, keys))
            delta = await _remaining_undo(snapshot, await take_undo(tx, keys, undo_id))
            result, _ = await _apply_delta(tx, keys, snapshot.meta, delta)
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
            meta = await read_meta(tx, keys)
            snapshot = TagSnapshot(tx, keys, meta)
            added_names = dict(snapshot.canonical(name) for name in added)
            removed_ids = {snapshot.canonical(name)[0] for name in removed} - {
                snapshot.canonical(name)[0] for name in retained
            }
            delta = TagDelta(
                await snapshot.missing_names(added_names),
                frozenset((tag_id, entry_id) for tag_id in added_names),
                frozenset((tag_id, entry_id) for tag_id in removed_ids),
            )
            result, _ = await _apply_delta(tx, keys, meta, delta)
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
        async with self._db.write() as tx:
            if not await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=? AND id=?", (keys.user_id, entry_id)
            ):
                raise NotFound("entry_not_found")
            revision, refused = await _read_refused(keys, tx.fetch, entry_id)
            refused_keys = sorted(refused | {tag_key(name) for name in names})
            sealed = TAG_REJECTIONS.seal(
                keys, entry_id, revision + 1, encode_record({"names": refused_keys})
            )
            await tx.execute(
                "INSERT INTO tag_rejections (entry_id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
                (entry_id, keys.user_id, keys.epoch, revision + 1, sealed),
            )

    async def refused_names(self, keys: Keyring, entry_id: bytes) -> set[str]:
        """Return the keys (text.tag_key) of the names that are not to be suggested for an entry."""
        return (await _read_refused(keys, self._db.fetch, entry_id))[1]

    # -- reading -----------------------------------------------------------------------------------

    async def get_meta(self, keys: Keyring) -> TagMeta:
        """Return the metadata of the user's tags."""
        return open_meta(
            keys,
            await self._db.fetch(
                "SELECT revision, sealed FROM tag_meta WHERE user_id=?", (keys.user_id,)
            ),
        )

    async def get_revision(self, user_id: bytes) -> int:
        """Return a number that grows with every change of a name or a link; 0 before the first."""
        rows = await self._db.fetch("SELECT revision FROM tag_meta WHERE user_id=?", (user_id,))
        return rows[0][0] if rows else 0

    async def names(self, keys: Keyring) -> dict[bytes, str]:
        """Return every tag of the user, name by hash; unreadable ones are left out."""
        rows = await self._db.fetch(
            "SELECT tag, revision, sealed FROM tags WHERE user_id=?", (keys.user_id,)
        )
        return _open_names(keys, rows)

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
        """Return the names of these tags; missing and unreadable ones are left out."""
        wanted_ids = list(tag_ids)
        names: dict[bytes, str] = {}
        for start in range(0, len(wanted_ids), BATCH_SIZE):
            batch = wanted_ids[start : start + BATCH_SIZE]
            placeholders = ",".join("?" * len(batch))
            names |= _open_names(
                keys,
                await self._db.fetch(
                    f"SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag IN ({placeholders})",
                    (keys.user_id, *batch),
                ),
            )
        return names

    async def tag_ids_by_entry(self, user_id: bytes) -> dict[bytes, frozenset[bytes]]:
        """Return the hashes of the tags of every tagged entry of a user."""
        rows = await self._db.fetch(
            "SELECT entry_id, tag FROM entry_tags WHERE user_id=?", (user_id,)
        )
        tag_ids_by_entry: dict[bytes, set[bytes]] = {}
        for entry_id, tag_id in rows:
            tag_ids_by_entry.setdefault(entry_id, set()).add(tag_id)
        return {entry_id: frozenset(tag_ids) for entry_id, tag_ids in tag_ids_by_entry.items()}

    async def tag_ids_of(
        self, user_id: bytes, ids: Iterable[bytes]
    ) -> dict[bytes, frozenset[bytes]]:
        """Return the hashes of the tags of those of these entries that have any."""
        entry_ids = list(ids)
        tag_ids_by_entry: dict[bytes, set[bytes]] = {}
        for start in range(0, len(entry_ids), BATCH_SIZE):
            batch = entry_ids[start : start + BATCH_SIZE]
            placeholders = ",".join("?" * len(batch))
            # The "+" keeps SQLite from walking all links of the user.
            rows = await self._db.fetch(
                f"SELECT entry_id, tag FROM entry_tags WHERE +user_id=? AND entry_id IN ({placeholders})",
                (user_id, *batch),
            )
            for entry_id, tag_id in rows:
                tag_ids_by_entry.setdefault(entry_id, set()).add(tag_id)
        return {entry_id: frozenset(tag_ids) for entry_id, tag_ids in tag_ids_by_entry.items()}

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


async def _remaining_undo(snapshot: TagSnapshot, inverse: TagDelta) -> TagDelta:
    """Return what is left to undo of a change after later ones.

    The result makes no name of a tag in use point at another tag.
    """
    keys, meta = snapshot.keys, snapshot.meta
    aliases = {
        alias: target
        for alias, target in inverse.aliases.items()
        if alias in inverse.linked_tag_ids
        or meta.aliases.get(alias) == inverse.expected_aliases.get(alias, meta.aliases.get(alias))
    }
    for alias, target in list(aliases.items()):
        if target and any(
            (alias, entry_id) not in inverse.unlinked
            for entry_id in await snapshot.entries_with_tag(alias)
        ):
            del aliases[alias]
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


async def _apply_delta(
    tx: Transaction, keys: Keyring, meta: TagMeta, delta: TagDelta
) -> tuple[TagChangeResult, TagDelta]:
    """Apply a change; return its result and its inverse."""
    wanted_links = delta.linked - delta.unlinked
    stored_links = await _existing_links(tx, keys, wanted_links | delta.unlinked)
    entry_ids = await _existing_entries(
        tx, keys, {entry_id for _, entry_id in wanted_links - stored_links}
    )
    added = frozenset(link for link in wanted_links - stored_links if link[1] in entry_ids)
    removed = stored_links & delta.unlinked
    tag_ids = {tag_id for tag_id, _ in added | removed} | delta.names.keys()
    names_before = await _fetch_names(tx, keys, tag_ids)
    # A tag that an entry is to get has a name: one without a name by now cannot come back.
    added = frozenset(link for link in added if link[0] in names_before or link[0] in delta.names)
    await _save_names(tx, keys, delta.names)
    await tx.execute_many(
        "INSERT INTO entry_tags (user_id, tag, entry_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(keys.user_id, *link) for link in added],
    )
    await tx.execute_many(
        "DELETE FROM entry_tags WHERE user_id=? AND tag=? AND entry_id=?",
        [(keys.user_id, *link) for link in removed],
    )
    await tx.execute_many(
        f"DELETE FROM tags WHERE user_id=? AND tag=? AND {_UNUSED_TAG}",
        [(keys.user_id, tag_id) for tag_id in tag_ids],
    )
    # The summary of a tag was drawn from other entries than have it now.
    changed_ids = {tag_id for tag_id, _ in added | removed}
    await tx.execute_many(
        "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
        [(keys.user_id, summary_hash(keys, "trace", tag_id)) for tag_id in changed_ids],
    )
    aliases = (
        resolve_aliases(keys, {**meta.aliases, **delta.aliases}) if delta.aliases else meta.aliases
    )
    changed_aliases = {alias for alias, _ in aliases.items() ^ meta.aliases.items()}
    inverse = TagDelta(
        names_before,
        removed,
        added,
        {alias: meta.aliases.get(alias) for alias in changed_aliases},
        {tag_id: tag_id in meta.hidden for tag_id in delta.hidden},
        {alias: aliases.get(alias) for alias in changed_aliases},
    )
    hidden = dict.fromkeys(meta.hidden, True) | dict(delta.hidden)
    new_meta = replace(
        meta.with_revision(tag_ids, {entry_id for _, entry_id in added | removed}),
        aliases=aliases,
        hidden=frozenset(tag_id for tag_id, is_hidden in hidden.items() if is_hidden),
    )
    await save_meta(tx, keys, new_meta)
    names = await _fetch_names(tx, keys, tag_ids)
    return TagChangeResult(
        b"", added, removed, {tag_id: names.get(tag_id) for tag_id in tag_ids}, new_meta
    ), inverse


async def _existing_links(
    tx: Transaction, keys: Keyring, links: Collection[EntryTag]
) -> frozenset[EntryTag]:
    """Return those of these links that exist, asking by tag or by entry, whichever are fewer."""
    by_entry = len({entry_id for _, entry_id in links}) < len({tag_id for tag_id, _ in links})
    group_column, value_column = ("entry_id", "tag") if by_entry else ("tag", "entry_id")
    groups: dict[bytes, list[bytes]] = {}
    for tag_id, entry_id in links:
        group_id, values = (entry_id, tag_id) if by_entry else (tag_id, entry_id)
        groups.setdefault(group_id, []).append(values)
    stored_links: set[EntryTag] = set()
    for group_id, values in groups.items():
        for start in range(0, len(values), BATCH_SIZE):
            batch = values[start : start + BATCH_SIZE]
            placeholders = ",".join("?" * len(batch))
            query = (
                f"SELECT tag, entry_id FROM entry_tags WHERE user_id=? AND {group_column}=?"
                f" AND {value_column} IN ({placeholders})"
            )
            stored_links |= {
                (row[0], row[1]) for row in await tx.fetch(query, (keys.user_id, group_id, *batch))
            }
    return frozenset(stored_links)


async def _existing_entries(tx: Transaction, keys: Keyring, ids: Collection[bytes]) -> set[bytes]:
    entry_ids = list(ids)
    stored_ids: set[bytes] = set()
    for start in range(0, len(entry_ids), BATCH_SIZE):
        batch = entry_ids[start : start + BATCH_SIZE]
        placeholders = ",".join("?" * len(batch))
        rows = await tx.fetch(
            f"SELECT id FROM entries WHERE +user_id=? AND id IN ({placeholders})",
            (keys.user_id, *batch),
        )
        stored_ids |= {row[0] for row in rows}
    return stored_ids


async def _fetch_rows(tx: Transaction, keys: Keyring, tag_ids: Iterable[bytes]) -> list[Row]:
    wanted_ids = list(tag_ids)
    rows: list[Row] = []
    for start in range(0, len(wanted_ids), BATCH_SIZE):
        batch = wanted_ids[start : start + BATCH_SIZE]
        placeholders = ",".join("?" * len(batch))
        query = (
            f"SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag IN ({placeholders})"
        )
        rows += await tx.fetch(query, (keys.user_id, *batch))
    return rows


async def _fetch_names(
    tx: Transaction, keys: Keyring, tag_ids: Iterable[bytes]
) -> dict[bytes, str]:
    return _open_names(keys, await _fetch_rows(tx, keys, tag_ids))


async def _save_names(tx: Transaction, keys: Keyring, names: Mapping[bytes, str]) -> None:
    """Store names where there are none; a respelling by a rename replaces the old name."""
    rows = await _fetch_rows(tx, keys, names)
    revisions = {tag_id: revision for tag_id, revision, _ in rows}
    stored_names = _open_names(keys, rows)
    changed_rows: list[Row] = []
    for tag_id, name in names.items():
        if stored_names.get(tag_id) != name:
            revision = revisions.get(tag_id, 0) + 1
            plaintext = name.encode("utf-8", "surrogatepass")
            sealed = TAGS.seal(keys, tag_id, revision, plaintext)
            changed_rows.append((keys.user_id, tag_id, keys.epoch, revision, sealed))
    await tx.execute_many(
        "INSERT INTO tags (user_id, tag, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        changed_rows,
    )


async def _read_refused(
    keys: Keyring, fetch: Callable[[str, Sequence[object]], Awaitable[list[Row]]], entry_id: bytes
) -> tuple[int, set[str]]:
    rows = await fetch(
        "SELECT revision, sealed FROM tag_rejections WHERE user_id=? AND entry_id=?",
        (keys.user_id, entry_id),
    )
    if not rows:
        return 0, set()
    revision, sealed = rows[0]
    try:
        record = json.loads(TAG_REJECTIONS.open(keys, entry_id, revision, sealed))
    except SealError as error:
        logger.error(
            "what an entry is not to be given could not be opened (%s)", type(error).__name__
        )
        return revision, set()
    return revision, set(record["names"])


def _open_names(keys: Keyring, rows: Iterable[Row]) -> dict[bytes, str]:
    names = {
        tag_id: _open_name(keys, tag_id, revision, sealed) for tag_id, revision, sealed in rows
    }
    return {tag_id: name for tag_id, name in names.items() if name is not None}


def _open_name(keys: Keyring, tag_id: bytes, revision: int, sealed: bytes) -> str | None:
    try:
        name = TAGS.open(keys, tag_id, revision, sealed)
    except SealError as error:
        # One damaged name must not hide the others.
        logger.error("the name of a trace could not be opened (%s)", type(error).__name__)
        return None
    return name.decode("utf-8", "surrogatepass")
