"""Cache a user's tags while they are signed in: names, links, and the use of each tag."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from itertools import chain, islice

from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import TagMeta
from llamora.persistence.tag_operations import TagChangeResult
from llamora.search.index import DayCursor
from llamora.search.service import SearchService
from llamora.text import is_emoji
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Tag:
    """A tag and its use.

    `id` is the keyed hash of its name; `entry_count` counts entries that are not deleted.
    """

    id: bytes
    name: str
    entry_count: int = 0
    first_day: date | None = None
    last_day: date | None = None
    hidden: bool = False

    @property
    def hex_id(self) -> str:
        """Return the id as used in URLs.

        It is a property because a call in a template costs more than the rest of a list item.
        """
        return self.id.hex()

    @property
    def display_name(self) -> str:
        """Return the name as it is shown: an emoji as it is, anything else after a `#`."""
        return self.name if is_emoji(self.name) else f"#{self.name}"


@dataclass(slots=True)
class TagCache:
    """A user's tags as stored at one revision, cached while the user is signed in."""

    meta: TagMeta
    names: dict[bytes, str]
    by_tag: dict[bytes, set[bytes]]
    by_entry: dict[bytes, set[bytes]]
    usage: dict[bytes, Tag] = field(default_factory=dict[bytes, Tag])
    outdated: set[bytes] = field(default_factory=set[bytes])  # tags whose `usage` may be outdated
    index_mark: DayCursor | None = None  # state of the index at which `usage` was counted
    count_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def apply(self, result: TagChangeResult) -> None:
        for tag_id, entry_id in result.removed:
            self.by_tag.get(tag_id, set()).discard(entry_id)
            self.by_entry.get(entry_id, set()).discard(tag_id)
        for tag_id, entry_id in result.added:
            self.by_tag.setdefault(tag_id, set()).add(entry_id)
            self.by_entry.setdefault(entry_id, set()).add(tag_id)
        for tag_id, name in result.names.items():
            if name is None:
                self.names.pop(tag_id, None)
            else:
                self.names[tag_id] = name
        changed_ids = {tag_id for tag_id, _ in result.removed | result.added}
        self.outdated |= changed_ids | result.names.keys() | (result.meta.hidden ^ self.meta.hidden)
        self.meta = result.meta


class TagCaches:
    """The tags of signed-in users, brought up to date with the store and the index when asked."""

    def __init__(self, db: LocalDB, search: SearchService) -> None:
        self._db = db
        self._search = search
        self._caches: dict[bytes, TagCache] = {}

    def lock(self, user_id: bytes) -> None:
        self._caches.pop(user_id, None)

    def apply(self, keys: Keyring, result: TagChangeResult) -> None:
        self._search.mark_tags_changed(
            keys.user_id,
            result.meta.revision,
            {entry_id for _, entry_id in result.added | result.removed},
        )
        cache = self._caches.get(keys.user_id)
        if cache is not None and result.meta.revision == cache.meta.revision + 1:
            cache.apply(result)
        else:
            self._caches.pop(keys.user_id, None)

    async def load(self, keys: Keyring) -> TagCache:
        cache = self._caches.get(keys.user_id)
        if cache is not None and cache.meta.revision != await self._db.tags.get_revision(
            keys.user_id
        ):
            cache = await self._refresh(keys, cache)
        if cache is None:
            meta = await self._db.tags.get_meta(keys)
            names = await self._db.tags.names(keys)
            by_entry = await self._db.tags.tag_ids_by_entry(keys.user_id)
            cache = TagCache(
                meta, names, {}, {entry_id: set(tag_ids) for entry_id, tag_ids in by_entry.items()}
            )
            for entry_id, tag_ids in by_entry.items():
                for tag_id in tag_ids:
                    cache.by_tag.setdefault(tag_id, set()).add(entry_id)
            self._caches[keys.user_id] = cache
        return cache

    async def _refresh(self, keys: Keyring, cache: TagCache) -> TagCache | None:
        """Return the cache with the changes of other processes applied.

        Returns None if they are too many to apply one by one.
        """
        old_revision = cache.meta.revision
        meta = await self._db.tags.get_meta(keys)
        touched = meta.touched_since(old_revision)
        if touched is None:
            return None
        names = await self._db.tags.names_of(keys, touched.tag_ids)
        links = await self._db.tags.tag_ids_of(keys.user_id, touched.entry_ids)
        if cache.meta.revision != old_revision:  # refreshed or changed by another task meanwhile
            return cache if cache.meta.revision >= meta.revision else None
        stored_links = {
            (tag_id, entry_id) for entry_id, tag_ids in links.items() for tag_id in tag_ids
        }
        cached_links = {
            (tag_id, entry_id)
            for entry_id in touched.entry_ids
            for tag_id in cache.by_entry.get(entry_id, ())
        }
        current_names = {tag_id: names.get(tag_id) for tag_id in touched.tag_ids}
        cache.apply(
            TagChangeResult(
                b"",
                frozenset(stored_links - cached_links),
                frozenset(cached_links - stored_links),
                current_names,
                meta,
            )
        )
        return cache

    async def with_days(self, keys: Keyring, ids: Iterable[bytes]) -> list[tuple[bytes, date]]:
        """Return those of these entries that are not deleted, as (id, day), newest day first."""
        entry_ids = list(ids)
        days = await self._search.days_of(keys, entry_ids)
        dated = [(entry_id, day) for entry_id, day in zip(entry_ids, days, strict=True) if day]
        dated.sort(key=lambda pair: (-pair[1], pair[0]))
        return [(entry_id, date.fromordinal(day)) for entry_id, day in dated]

    async def load_usage(self, keys: Keyring) -> TagCache:
        cache = await self.load(keys)
        async with cache.count_lock:
            cache.index_mark, moved_ids = await self._search.days_changed_since(
                keys, cache.index_mark
            )
            if moved_ids is None:
                cache.outdated.update(cache.names, cache.usage)
            else:
                cache.outdated.update(
                    tag_id for entry_id in moved_ids for tag_id in cache.by_entry.get(entry_id, ())
                )
            to_count, cache.outdated = cache.outdated, set()
            try:
                entries_by_tag = {tag_id: list(cache.by_tag.get(tag_id, ())) for tag_id in to_count}
                days = iter(
                    await self._search.days_of(
                        keys, list(chain.from_iterable(entries_by_tag.values()))
                    )
                )
            except BaseException:
                cache.outdated |= to_count
                raise
            for tag_id, ids in entries_by_tag.items():
                if tag := usage_of(tag_id, cache, islice(days, len(ids))):
                    cache.usage[tag_id] = tag
                else:
                    cache.usage.pop(tag_id, None)
        return cache


def usage_of(tag_id: bytes, cache: TagCache, days: Iterable[int]) -> Tag | None:
    """Return a tag with its use on these days, given as ordinals; 0 stands for no page.

    Returns None for a tag that is not in use.
    """
    used_days = [day for day in days if day]
    if not used_days or tag_id not in cache.names:
        return None
    first_day, last_day = date.fromordinal(min(used_days)), date.fromordinal(max(used_days))
    return Tag(
        tag_id,
        cache.names[tag_id],
        len(used_days),
        first_day,
        last_day,
        tag_id in cache.meta.hidden,
    )
