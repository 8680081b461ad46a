"""Recent searches, sealed: a query says as much about somebody as an entry."""

import secrets
from datetime import datetime

import msgspec

from llamora.persistence.connection import Connections
from llamora.persistence.schema import SEARCH_HISTORY
from llamora.persistence.table import SealedTable, values_of
from llamora.vault.keys import Keyring

MAX_QUERIES = 50


class PastQuery(msgspec.Struct, frozen=True):
    """A query as it was typed, and when."""

    at: datetime
    text: str


class SearchHistory:
    """The store of recent queries, reached as `db.search_history`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, SEARCH_HISTORY, PastQuery)

    async def add(self, keys: Keyring, query: str, at: datetime) -> bytes:
        """Save a query and return its id; the same query again moves to the front.

        Above MAX_QUERIES the oldest are deleted. What does not open is left alone: another process
        may have it under a newer key.
        """
        row_id = secrets.token_bytes(16)
        row = self._table.seal(keys, row_id, 1, PastQuery(at, query))
        async with self._db.write(search_unaffected=True) as tx:
            stored = await self._table.fetch(keys, reader=tx)
            past = sorted(
                ((record.value, record.id) for record in stored if record.value is not None),
                key=lambda pair: pair[0].at,
                reverse=True,
            )
            others = [past_id for value, past_id in past if value.text != query]
            kept = set(others[: MAX_QUERIES - 1])
            outdated = [past_id for _, past_id in past if past_id not in kept]
            await self._table.delete(tx, keys.user_id, outdated)
            await self._table.insert(tx, row)
        return row_id

    async def get(self, keys: Keyring, row_id: bytes) -> str:
        """Return one query, or "" when it is not stored."""
        query = await self._table.get_value(keys, row_id)
        return query.text if query else ""

    async def recent(self, keys: Keyring, limit: int = 10) -> list[str]:
        """Return the latest queries, newest first."""
        queries = values_of(await self._table.fetch(keys))
        queries.sort(key=lambda query: query.at, reverse=True)
        return [query.text for query in queries][:limit]

    async def clear(self, user_id: bytes) -> None:
        """Delete all queries of a user; the bytes are overwritten in the file."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM search_history WHERE user_id=?", (user_id,))
        await self._db.checkpoint()
