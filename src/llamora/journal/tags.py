"""Tag entries, and report when and with which others each tag is used."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from heapq import nsmallest

from llamora.errors import Problem
from llamora.journal.tag_cache import Tag, TagCaches, usage_of
from llamora.persistence.connection import NotFound, Step
from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import TagDelta, TagMeta, tag_hash
from llamora.persistence.tag_operations import (
    TagOperation,
    TagSnapshot,
    adding_tag,
    merge_delta,
    removing_tag,
)
from llamora.search.service import SearchService
from llamora.text import MAX_TAG_LENGTH, find_tags, tag_key, tag_name
from llamora.vault.keys import Keyring


class TagError(Problem):
    """A request about a tag that cannot be fulfilled."""


@dataclass(slots=True, frozen=True)
class TagsOfEntry:
    """The tags of one entry.

    `ids_by_key` maps the `text.tag_key` of each name in its text to the id of its tag.
    """

    tags: tuple[Tag, ...] = ()
    ids_by_key: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


class Tags:
    """Work with a user's tags; a method that changes them has committed the change to disk."""

    def __init__(self, db: LocalDB, search: SearchService) -> None:
        self._db = db
        self._search = search
        self.cache = TagCaches(db, search)

    # -- changing ----------------------------------------------------------------------------------

    async def add(self, keys: Keyring, entry_id: bytes, raw_name: str) -> Tag:
        """Put a tag on an entry.

        Raises TagError for an invalid name, NotFound and StorageError.
        """
        name = _parse_name(raw_name)
        entry = await self._db.entries.get(keys, entry_id)
        if entry.deleted is not None:
            raise NotFound("entry_deleted")
        if entry.role != "me":
            raise NotFound("entry_not_found")
        added: dict[bytes, str] = {}
        await self._change(keys, adding_tag(entry_id, name, added), undoable=False)
        return Tag(*next(iter(added.items())))

    async def remove(self, keys: Keyring, entry_id: bytes, tag_id: bytes) -> bytes:
        """Take a tag off an entry; return the id that undoes it."""
        return await self._change(keys, removing_tag(entry_id, tag_id))

    async def rename(self, keys: Keyring, tag_id: bytes, raw_name: str) -> tuple[bytes, bytes]:
        """Rename a tag and keep its old name as an alias; merge it if another tag has that name.

        Returns the id of the resulting tag, and the id that undoes the change. Raises TagError,
        NotFound and StorageError.
        """
        name = _parse_name(raw_name)
        target_id = tag_hash(keys, name)

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            nonlocal target_id
            old_name = await snapshot.require_name(tag_id)
            if target_id == tag_id:
                return TagDelta({tag_id: name})
            canonical_id, canonical_name = snapshot.canonical(name)
            if (
                canonical_id not in (target_id, tag_id)
                and await snapshot.get_name(canonical_id) is not None
            ):
                target_id = canonical_id
                return await merge_delta(snapshot, tag_id, old_name, canonical_id, canonical_name)
            return await merge_delta(snapshot, tag_id, old_name, target_id, name)

        undo = await self._change(keys, plan)
        return target_id, undo

    async def merge(self, keys: Keyring, tag_id: bytes, target_id: bytes) -> bytes:
        """Merge one tag into another, whose name is kept; return the id that undoes it.

        Raises NotFound and StorageError.
        """

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            old_name, target_name = (
                await snapshot.require_name(tag_id),
                await snapshot.require_name(target_id),
            )
            return (
                TagDelta()
                if tag_id == target_id
                else await merge_delta(snapshot, tag_id, old_name, target_id, target_name)
            )

        return await self._change(keys, plan)

    async def merge_into(self, keys: Keyring, tag_id: bytes, name: str) -> tuple[bytes, bytes]:
        """Merge a tag into the one of that name or alias; return the id of that, and of the undo.

        Raises TagError if one of them is not in use, and StorageError.
        """
        try:
            target = await self.find_by_name(keys, name.strip().removeprefix("#"))
            return target.id, await self.merge(keys, tag_id, target.id)
        except NotFound as error:
            raise TagError(error.code, **error.params) from None

    async def add_alias(self, keys: Keyring, tag_id: bytes, raw_name: str) -> bytes:
        """Add an alias to a tag, merging a tag of that name into it; return the id that undoes it.

        Raises TagError, NotFound and StorageError.
        """
        name = _parse_name(raw_name)
        alias_id = tag_hash(keys, name)

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            current_name = await snapshot.require_name(tag_id)
            if alias_id == tag_id:
                raise TagError("tag_name_unchanged")
            canonical_id, canonical_name = snapshot.canonical(name)
            if (
                canonical_id not in (alias_id, tag_id)
                and await snapshot.get_name(canonical_id) is not None
            ):
                raise TagError("tag_name_taken", name=canonical_name)
            if (old_name := await snapshot.get_name(alias_id)) is not None:
                return await merge_delta(snapshot, alias_id, old_name, tag_id, current_name)
            return TagDelta(aliases={alias_id: (name, current_name)})

        return await self._change(keys, plan)

    async def remove_alias(self, keys: Keyring, alias_id: bytes) -> bytes:
        """Remove an alias; return the id that undoes it. Raises NotFound and StorageError."""

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            if alias_id not in snapshot.meta.aliases:
                raise NotFound("tag_not_found")
            return TagDelta(aliases={alias_id: None})

        return await self._change(keys, plan)

    async def set_hidden(self, keys: Keyring, tag_id: bytes, *, hidden: bool) -> bytes:
        """Hide a tag from lists, or show it again; return the id that undoes it.

        Raises NotFound and StorageError.
        """

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            await snapshot.require_name(tag_id)
            return TagDelta(hidden={tag_id: hidden})

        return await self._change(keys, plan)

    async def delete(self, keys: Keyring, tag_id: bytes) -> bytes:
        """Take a tag off all entries and delete its aliases; return the id that undoes it.

        Raises NotFound and StorageError.
        """

        async def plan(snapshot: TagSnapshot) -> TagDelta:
            name = await snapshot.require_name(tag_id)
            return TagDelta(
                unlinked=frozenset(
                    (tag_id, entry_id) for entry_id in await snapshot.entries_with_tag(tag_id)
                ),
                aliases=dict.fromkeys(snapshot.meta.aliases_of(name)),
                hidden={tag_id: False},
            )

        return await self._change(keys, plan)

    async def undo(self, keys: Keyring, change_id: bytes, tag_id: bytes = b"") -> bool:
        """Undo one of the latest changes; return True if the tag `tag_id` is in use after it.

        Raises NotFound and StorageError.
        """
        self.cache.apply(keys, await self._db.tags.undo(keys, change_id))
        if not tag_id:
            return False
        try:
            await self.get(keys, tag_id)
        except NotFound:
            return False
        return True

    def steps_for_edit(self, keys: Keyring, entry_id: bytes, before: str, after: str) -> list[Step]:
        """Return the steps that update an entry's tags when its text changes.

        Names (`#like-this`) that are new in the text are added, those no longer in it are removed;
        for the others the user's own changes stand.
        """
        old = {tag_key(name): name for name in find_tags(before)}
        new = {tag_key(name): name for name in find_tags(after)}
        added = [name for key, name in new.items() if key not in old]
        removed = [name for key, name in old.items() if key not in new]
        if not added and not removed:
            return []
        remaining = list(new.values())
        return [
            self._db.tags.updating_entry_tags(
                keys,
                entry_id,
                added,
                removed,
                remaining,
                lambda result: self.cache.apply(keys, result),
            )
        ]

    # -- reading -----------------------------------------------------------------------------------

    async def tags_of(self, keys: Keyring, ids: Iterable[bytes]) -> dict[bytes, list[Tag]]:
        """Return the tags of each of these entries that has any, in alphabetical order.

        Hidden ones are included.
        """
        names_by_entry = await self._db.tags.tags_of_entries(keys, list(ids))
        return {
            entry_id: [Tag(tag_id, name) for tag_id, name in names.items()]
            for entry_id, names in names_by_entry.items()
        }

    async def entry_tags(
        self, keys: Keyring, texts: Mapping[bytes, str]
    ) -> dict[bytes, TagsOfEntry]:
        """Return the tags of each of these entries that has any, and the tags their texts refer to.

        `texts` maps entry ids to texts.
        """
        tags_by_entry: dict[bytes, TagsOfEntry] = {}
        meta: TagMeta | None = None
        for entry_id, tags in (await self.tags_of(keys, texts)).items():
            ids_by_key = {tag_key(tag.name): tag.id for tag in tags}
            own_ids = set(ids_by_key.values())
            for name in find_tags(texts[entry_id]):
                if (key := tag_key(name)) not in ids_by_key:
                    meta = meta or await self._db.tags.get_meta(keys)
                    tag = tag_hash(keys, meta.canonical(name, tag_hash(keys, name)))
                    ids_by_key.update({key: tag} if tag in own_ids else {})
            tags_by_entry[entry_id] = TagsOfEntry(tuple(tags), ids_by_key)
        return tags_by_entry

    async def find_by_name(self, keys: Keyring, raw_name: str) -> Tag:
        """Return the tag with this name or alias. Raises NotFound."""
        cache = await self.cache.load(keys)
        tag_id = tag_hash(keys, cache.meta.canonical(raw_name, tag_hash(keys, raw_name)))
        if tag_id not in cache.names:
            raise NotFound("tag_name_unknown")
        return Tag(tag_id, cache.names[tag_id], hidden=tag_id in cache.meta.hidden)

    async def list_tags(self, keys: Keyring, *, hidden: bool | None = False) -> list[Tag]:
        """List the tags in use, by name.

        Those that are not hidden, only the `hidden` ones, or all for None.
        """
        cache = await self.cache.load_usage(keys)
        tags = [usage for usage in cache.usage.values() if hidden in (None, usage.hidden)]
        return sorted(tags, key=lambda tag: (tag.name.casefold(), tag.name))

    async def get(self, keys: Keyring, tag_id: bytes) -> Tag:
        """Return a tag. Raises NotFound if it is not in use."""
        cache = await self.cache.load(keys)
        days = await self._search.days_of(keys, list(cache.by_tag.get(tag_id, ())))
        tag = usage_of(tag_id, cache, days)
        if tag is None:
            raise NotFound("tag_not_found")
        return tag

    async def list_aliases(self, keys: Keyring, tag_id: bytes) -> list[Tag]:
        cache = await self.cache.load(keys)
        alias_ids = cache.meta.aliases_of(cache.names.get(tag_id, ""))
        return [Tag(alias_id, cache.meta.aliases[alias_id][0]) for alias_id in alias_ids]

    async def entries_with_tag(self, keys: Keyring, tag_id: bytes) -> list[tuple[bytes, date]]:
        """List the entries with a tag that are not deleted, as (id, day), newest day first."""
        cache = await self.cache.load(keys)
        return await self.cache.with_days(keys, cache.by_tag.get(tag_id, ()))

    async def all_ids_with_tag(self, keys: Keyring, tag_id: bytes) -> frozenset[bytes]:
        """Return the ids of all entries with a tag, deleted ones included."""
        return frozenset((await self.cache.load(keys)).by_tag.get(tag_id, ()))

    async def list_related(
        self, keys: Keyring, tag_id: bytes, limit: int = 12
    ) -> list[tuple[Tag, int]]:
        """List the tags used on the same entries, with the number of these, most frequent first.

        Hidden tags are left out.
        """
        cache = await self.cache.load(keys)
        counts: Counter[bytes] = Counter()
        for entry_id, _ in await self.cache.with_days(keys, cache.by_tag.get(tag_id, ())):
            counts.update(cache.by_entry.get(entry_id, ()))
        del counts[tag_id]
        visible = [
            (Tag(other_id, cache.names[other_id]), count)
            for other_id, count in counts.items()
            if other_id in cache.names and other_id not in cache.meta.hidden
        ]
        return nsmallest(limit, visible, key=lambda pair: (-pair[1], pair[0].name.casefold()))

    async def entries_sharing_tags(
        self, keys: Keyring, ids: Sequence[bytes]
    ) -> list[tuple[bytes, int, date]]:
        """List other entries that share tags with these, as (id, number of shared tags, day).

        Those with the most come first, the newest among equals.
        """
        if not await self._db.tags.tag_ids_of(keys.user_id, ids):
            return []
        cache = await self.cache.load(keys)
        counts: Counter[bytes] = Counter()
        for tag_id in {tag_id for entry_id in ids for tag_id in cache.by_entry.get(entry_id, ())}:
            counts.update(cache.by_tag.get(tag_id, ()))
        for entry_id in ids:
            del counts[entry_id]
        dated = await self.cache.with_days(keys, counts)
        return sorted(
            ((other_id, counts[other_id], day) for other_id, day in dated),
            key=lambda shared: -shared[1],
        )

    # -- internal ----------------------------------------------------------------------------------

    async def _change(
        self, keys: Keyring, operation: TagOperation, *, undoable: bool = True
    ) -> bytes:
        result = await self._db.tags.change(keys, operation, undoable=undoable)
        self.cache.apply(keys, result)
        return result.undo_id


def _parse_name(raw_name: str) -> str:
    if not (name := tag_name(raw_name)):
        raise TagError("tag_name_invalid", most=MAX_TAG_LENGTH)
    return name
