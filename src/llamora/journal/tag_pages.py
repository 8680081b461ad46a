"""The pages of tags: the entries with one, and what else is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from llamora.journal.context import UserContext
from llamora.journal.summaries import Summaries, TagSummary
from llamora.journal.tag_cache import Tag
from llamora.journal.tags import Tags
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class TagPage:
    """A tag with its uses as (entry id, day), newest day first, and some of their entries.

    `related` are the tags used on the same entries, with the number of these.
    """

    tag: Tag
    aliases: list[Tag]
    related: list[tuple[Tag, int]]
    uses: list[tuple[bytes, date]]
    entries: list[Entry]
    summary: TagSummary | None


@dataclass(slots=True, frozen=True)
class TagPages:
    """Read the pages of tags; no model is asked."""

    _db: LocalDB
    _tags: Tags
    _summaries: Summaries

    async def get(self, user: UserContext, tag_id: bytes, offset: int, limit: int) -> TagPage:
        """Return a tag with `limit` of its entries from `offset` on. Raises NotFound."""
        keys = user.keys
        uses = await self._tags.entries_with_tag(keys, tag_id)
        return TagPage(
            await self._tags.get(keys, tag_id),
            await self._tags.list_aliases(keys, tag_id),
            await self._tags.list_related(keys, tag_id),
            uses,
            await self._list_entries(keys, [each for each, _ in uses[offset : offset + limit]]),
            await self._summaries.get_tag_summary(keys, tag_id) if user.profile.replies else None,
        )

    async def get_brief(
        self, keys: Keyring, tag_id: bytes, entry_id: bytes, limit: int
    ) -> tuple[Tag, list[Entry], bool]:
        """Return a tag, its latest other entries, and True if it is on this entry.

        Raises NotFound.
        """
        tag = await self._tags.get(keys, tag_id)
        ids = [each for each, _ in await self._tags.entries_with_tag(keys, tag_id)]
        others = [each for each in ids if each != entry_id][:limit]
        return tag, await self._list_entries(keys, others), entry_id in ids

    async def _list_entries(self, keys: Keyring, ids: Sequence[bytes]) -> list[Entry]:
        entries = {entry.id: entry for entry in await self._db.entries.get_many(keys, list(ids))}
        return [entries[i] for i in ids if i in entries and entries[i].deleted is None]
