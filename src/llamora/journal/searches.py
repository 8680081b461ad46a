"""Search a user's entries, and remember their queries."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from llamora.dates import utc_now
from llamora.journal.citations import redact_erased
from llamora.journal.context import UserContext
from llamora.journal.entries import Journal
from llamora.persistence.connection import StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.search.results import Hit, SearchResults
from llamora.search.service import SearchService
from llamora.search.snippets import excerpt
from llamora.text import strip_markdown
from llamora.vault.keys import Keyring

RECENT_QUERIES = 8
RELATED_ENTRIES = 5


@dataclass(slots=True, frozen=True)
class Searches:
    """Run and remember queries; results show no words of sources that are hidden or gone."""

    _db: LocalDB
    _journal: Journal
    _search: SearchService
    page_size: int

    async def run(
        self, user: UserContext, query: str, offset: int = 0, *, is_typing: bool = False
    ) -> SearchResults:
        """Return a page of results. Users who turned replies off see no old ones either.

        Raises StorageError.
        """
        results = await self._search.search(
            user.keys,
            query,
            today=user.today,
            limit=self.page_size,
            offset=offset,
            is_typing=is_typing,
            role=None if user.profile.replies else "me",
            language=user.language,
        )
        return replace(results, hits=tuple(await self._redact(user.keys, results.hits)))

    async def remember(self, user: UserContext, query: str) -> bytes:
        """Remember a query, in the history or in memory only; return the id of its results."""
        query_id = None
        if user.profile.searches:
            with suppress(StorageError):  # with a full disk, results are shown all the same
                query_id = await self._db.search_history.add(user.keys, query, utc_now())
        return query_id or await self._search.remember_query(user.keys, query)

    async def find_query(self, keys: Keyring, query_id: bytes) -> tuple[str, bool]:
        """Return a remembered query, "" if there is none, and True for an unfinished one."""
        query, is_unfinished = await self._search.query_for(keys, query_id)
        return query or await self._db.search_history.get(keys, query_id) or "", is_unfinished

    async def list_recent(self, user: UserContext) -> list[str]:
        """List the latest queries, newest first; none for users who keep no history."""
        if not user.profile.searches:
            return []
        return await self._db.search_history.recent(user.keys, RECENT_QUERIES)

    async def find_related(self, keys: Keyring, entry_id: bytes) -> tuple[Entry, list[Hit]]:
        """Return an entry, and entries of other days that are related to it. Raises NotFound."""
        entry = await self._journal.get(keys, entry_id)
        here = {
            each.id
            for thread in await self._journal.get_page(keys, entry.day)
            for each in thread.messages
        }
        hits = await self._search.find_related(
            keys, entry, limit=RELATED_ENTRIES, excluded_ids=here
        )
        return entry, await self._redact(keys, hits)

    async def _redact(self, keys: Keyring, hits: Sequence[Hit]) -> list[Hit]:
        reply_ids = [hit.entry_id for hit in hits if hit.role == "reply"]
        replies = await self._db.entries.get_many(keys, reply_ids) if reply_ids else []
        hidden = await self._journal.find_hidden_sources(keys, replies)
        excerpts: dict[bytes, str] = {}
        for reply in replies:
            redacted = redact_erased(reply, hidden, filter(None, hidden.values()))
            if redacted is not None and redacted.text != reply.text:
                excerpts[reply.id] = excerpt(strip_markdown(redacted.text))
        return [
            replace(hit, snippet=((excerpts[hit.entry_id], False),))
            if hit.entry_id in excerpts
            else hit
            for hit in hits
        ]
