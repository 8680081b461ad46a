"""Tag metadata (aliases and hidden tags) in one sealed record, and undo of the latest changes."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Any, TypeVar

from llamora.persistence.connection import NotFound, Row, Step, Transaction
from llamora.persistence.entries import encode_record
from llamora.persistence.schema import TAG_CHANGES, TAG_HASH, TAG_META
from llamora.text import tag_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

MAX_UNDO = 20  # of a user: so many can be undone
MAX_RECENT_CHANGES = 16  # changes of which the metadata says what they touched
MAX_TOUCHED = 64  # tags and entries of one of them; after a larger change everything is read again
EntryTag = tuple[bytes, bytes]
"""A tag's hash and the id of an entry that has the tag."""
AliasTarget = TypeVar("AliasTarget", bound=tuple[str, str] | None)


def tag_hash(keys: Keyring, name: str) -> bytes:
    """Return the keyed hash of a tag's name, the same for every spelling of it (text.tag_key)."""
    # With blanks, as the first schema's names were hashed: what has them is found by the same hash.
    return keys.blind(TAG_HASH, tag_key(name).replace("-", " ").encode("utf-8", "surrogatepass"))


@dataclass(slots=True, frozen=True)
class TouchedItems:
    """The tags and entries touched by the change that made a revision of the metadata."""

    revision: int
    tag_ids: frozenset[bytes]
    entry_ids: frozenset[bytes]


@dataclass(slots=True, frozen=True)
class TagMeta:
    """The metadata of a user's tags, beside their names.

    `aliases` maps the hash of an alias to the alias as it was written and the name of the tag it
    stands for; `hidden` are tags that no list shows. `revision` grows with every change of a name,
    a link or this record; `recent_changes` says what the latest changes touched, for a process that
    holds a copy.
    """

    revision: int = 0
    aliases: Mapping[bytes, tuple[str, str]] = field(default_factory=dict[bytes, tuple[str, str]])
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


@dataclass(slots=True, frozen=True)
class TagDelta:
    """One change of tags. Names that no entry has any more are deleted without being listed.

    `names` are names to store, `linked` and `unlinked` links to add and to remove; `aliases` has
    None for an alias to remove, `hidden` has False for a tag to show again. In the inverse of a
    change, `expected_aliases` has the aliases as the change left them.
    """

    names: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    linked: frozenset[EntryTag] = frozenset()
    unlinked: frozenset[EntryTag] = frozenset()
    aliases: Mapping[bytes, tuple[str, str] | None] = field(
        default_factory=dict[bytes, tuple[str, str] | None]
    )
    hidden: Mapping[bytes, bool] = field(default_factory=dict[bytes, bool])
    expected_aliases: Mapping[bytes, tuple[str, str] | None] = field(
        default_factory=dict[bytes, tuple[str, str] | None]
    )

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


async def read_meta(tx: Transaction, keys: Keyring) -> TagMeta:
    """Return the tag metadata as a transaction sees it."""
    return open_meta(
        keys,
        await tx.fetch("SELECT revision, sealed FROM tag_meta WHERE user_id=?", (keys.user_id,)),
    )


def open_meta(keys: Keyring, rows: Sequence[Row]) -> TagMeta:
    """Return the tag metadata of these (revision, sealed) rows; empty where there is none."""
    if not rows:
        return TagMeta()
    revision, sealed = rows[0]
    try:
        record = json.loads(TAG_META.open(keys, keys.user_id, revision, sealed))
    except SealError as error:
        # Names and links are records of their own: what is lost are aliases and what was hidden.
        logger.error("the book of traces could not be opened (%s)", type(error).__name__)
        return TagMeta(revision)
    return TagMeta(
        revision,
        {
            bytes.fromhex(alias): (name, target)
            for alias, (name, target) in record["aliases"].items()
        },
        frozenset(bytes.fromhex(tag_id) for tag_id in record["hidden"]),
        tuple(
            TouchedItems(
                change_revision,
                frozenset(map(bytes.fromhex, tag_ids)),
                frozenset(map(bytes.fromhex, entry_ids)),
            )
            for change_revision, tag_ids, entry_ids in record.get("latest", ())
        ),
    )


async def save_meta(tx: Transaction, keys: Keyring, meta: TagMeta) -> None:
    """Store the tag metadata under its revision."""
    record = encode_record(
        {
            "aliases": {alias.hex(): list(target) for alias, target in meta.aliases.items()},
            "hidden": sorted(tag_id.hex() for tag_id in meta.hidden),
            "latest": [
                [
                    touched.revision,
                    sorted(map(bytes.hex, touched.tag_ids)),
                    sorted(map(bytes.hex, touched.entry_ids)),
                ]
                for touched in meta.recent_changes
            ],
        }
    )
    sealed = TAG_META.seal(keys, keys.user_id, meta.revision, record)
    await tx.execute(
        "INSERT INTO tag_meta (user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, keys.epoch, meta.revision, sealed),
    )


async def save_undo(tx: Transaction, keys: Keyring, undo_id: bytes, inverse: TagDelta) -> None:
    """Store the inverse of a change and delete the oldest beyond MAX_UNDO.

    The record's revision tells its age.
    """
    rows = await tx.fetch("SELECT id, revision FROM tag_changes WHERE user_id=?", (keys.user_id,))
    latest_revision = max((revision for _, revision in rows), default=0)
    sealed = TAG_CHANGES.seal(keys, undo_id, latest_revision + 1, _encode_delta(inverse))
    await tx.execute(
        "INSERT INTO tag_changes (id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)",
        (undo_id, keys.user_id, keys.epoch, latest_revision + 1, sealed),
    )
    await tx.execute(
        "DELETE FROM tag_changes WHERE user_id=? AND revision<=?",
        (keys.user_id, latest_revision + 1 - MAX_UNDO),
    )


async def take_undo(tx: Transaction, keys: Keyring, undo_id: bytes) -> TagDelta:
    """Return the inverse of a change and delete it. Raise NotFound and SealError."""
    rows = await tx.fetch(
        "SELECT revision, sealed FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, undo_id)
    )
    if not rows:
        raise NotFound("undo_expired")
    await tx.execute("DELETE FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, undo_id))
    return _decode_delta(TAG_CHANGES.open(keys, undo_id, *rows[0]))


def purging_erased(
    keys: Keyring, erased_ids: Collection[bytes], erased_tag_ids: Collection[bytes]
) -> Step:
    """Return the step that removes erased entries, and tags only they had, from what is stored.

    It belongs in the transaction that erased them. `erased_tag_ids` are the tags they had: a tag
    that no entry has since leaves no name behind, neither in the metadata nor in what could be
    undone.
    """

    async def purge(tx: Transaction) -> None:
        stored_tag_ids = {
            row[0]
            for row in await tx.fetch("SELECT tag FROM tags WHERE user_id=?", (keys.user_id,))
        }
        rows = await tx.fetch(
            "SELECT id, revision, sealed FROM tag_changes WHERE user_id=?", (keys.user_id,)
        )
        deltas = {row[0]: _open_delta(keys, *row) for row in rows}
        links = {link for undo_id in deltas.values() for link in undo_id.linked | undo_id.unlinked}
        unused_tag_ids = {tag_id for tag_id, entry_id in links if entry_id in erased_ids} | set(
            erased_tag_ids
        )
        unused_tag_ids -= stored_tag_ids | {
            link[0]
            for undo_id in deltas.values()
            for link in undo_id.linked
            if link[1] not in erased_ids
        }
        meta = await read_meta(tx, keys)
        remaining_meta = replace(
            meta,
            aliases=_drop_aliases(keys, meta.aliases, unused_tag_ids),
            hidden=meta.hidden - unused_tag_ids,
        )
        if remaining_meta != meta:
            await save_meta(
                tx, keys, replace(remaining_meta, revision=meta.revision + 1, recent_changes=())
            )
        elif any(not touched.entry_ids.isdisjoint(erased_ids) for touched in meta.recent_changes):
            await save_meta(tx, keys, replace(meta, recent_changes=()))
        for undo_id, revision, _ in rows:
            stored_delta = deltas[undo_id]
            remaining_delta = _drop_erased_entries(keys, stored_delta, erased_ids, unused_tag_ids)
            if remaining_delta == TagDelta():
                await tx.execute(
                    "DELETE FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, undo_id)
                )
            elif remaining_delta != stored_delta:
                resealed = TAG_CHANGES.seal(keys, undo_id, revision, _encode_delta(remaining_delta))
                await tx.execute(
                    "UPDATE tag_changes SET epoch=?, sealed=? WHERE user_id=? AND id=?",
                    (keys.epoch, resealed, keys.user_id, undo_id),
                )

    return purge


def _open_delta(keys: Keyring, undo_id: bytes, revision: int, sealed: bytes) -> TagDelta:
    """Return the inverse of a change, empty where it does not open."""
    try:
        return _decode_delta(TAG_CHANGES.open(keys, undo_id, revision, sealed))
    except SealError as error:
        logger.error(
            "what undoes a change of traces could not be opened (%s)", type(error).__name__
        )
        return TagDelta()


def _drop_erased_entries(
    keys: Keyring, delta: TagDelta, erased_ids: Collection[bytes], unused_tag_ids: Collection[bytes]
) -> TagDelta:
    """Return a change without erased entries and the names that only they had."""
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


def _encode_delta(delta: TagDelta) -> bytes:
    return encode_record(
        {
            "named": {tag_id.hex(): name for tag_id, name in delta.names.items()},
            "linked": sorted((tag_id.hex(), entry_id.hex()) for tag_id, entry_id in delta.linked),
            "unlinked": sorted(
                (tag_id.hex(), entry_id.hex()) for tag_id, entry_id in delta.unlinked
            ),
            "aliases": {alias.hex(): target for alias, target in delta.aliases.items()},
            "hidden": {tag_id.hex(): is_hidden for tag_id, is_hidden in delta.hidden.items()},
            "over": {alias.hex(): target for alias, target in delta.expected_aliases.items()},
        }
    )


def _decode_delta(record: bytes) -> TagDelta:
    fields: dict[str, Any] = json.loads(record)
    return TagDelta(
        {bytes.fromhex(tag_id): name for tag_id, name in fields["named"].items()},
        frozenset(
            (bytes.fromhex(tag_id), bytes.fromhex(entry_id))
            for tag_id, entry_id in fields["linked"]
        ),
        frozenset(
            (bytes.fromhex(tag_id), bytes.fromhex(entry_id))
            for tag_id, entry_id in fields["unlinked"]
        ),
        _decode_aliases(fields["aliases"]),
        {bytes.fromhex(tag_id): is_hidden for tag_id, is_hidden in fields["hidden"].items()},
        _decode_aliases(fields.get("over", {})),
    )


def _decode_aliases(
    fields: Mapping[str, Sequence[str] | None],
) -> dict[bytes, tuple[str, str] | None]:
    return {
        bytes.fromhex(alias): (target[0], target[1]) if target else None
        for alias, target in fields.items()
    }
