"""Recent searches, sealed: a query says as much about somebody as an entry."""

import secrets
from datetime import datetime

import msgspec

from llamora.persistence.connection import Connections
from llamora.persistence.schema import QUERY_HASH, SEARCH_HISTORY
from llamora.persistence.table import Opened, SealedTable, values_of
from llamora.vault.keys import Keyring

MAX_QUERIES = 50
PRUNE_MARGIN = (
    10  # so many more may exist before the oldest are deleted: finding them opens every one
)


class PastQuery(msgspec.Struct, frozen=True):
    """A query as it was typed, and when."""

    at: datetime
    text: str


class SearchHistory:
    """The store of recent queries, reached as `db.search_history`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, SEARCH_HISTORY, PastQuery)
        # By user: the row of a query, by a keyed hash of it.
        self._row_ids: dict[bytes, dict[bytes, bytes]] = {}

    async def add(self, keys: Keyring, query: str, at: datetime) -> bytes:
        """Save a query and return its id; the same query again moves to the front.

        Above MAX_QUERIES and PRUNE_MARGIN the oldest are deleted, down to MAX_QUERIES. A query that
        another process saved as well may be there twice until then, and is shown once.
        """
        row_ids = self._row_ids.get(keys.user_id)
        if row_ids is None:
            row_ids = _row_ids(keys, await self._table.fetch(keys))
        query_hash, row_id = _hash_query(keys, query), secrets.token_bytes(16)
        row = self._table.seal(keys, row_id, 1, PastQuery(at, query))
        async with self._db.write(search_unaffected=True) as tx:
            if query_hash in row_ids:
                await self._table.delete(tx, keys.user_id, [row_ids[query_hash]])
            await self._table.insert(tx, row)
            if len(row_ids) >= MAX_QUERIES + PRUNE_MARGIN:
                stored = await self._table.fetch(keys, reader=tx)
                row_ids = _row_ids(keys, _newest_first(stored)[:MAX_QUERIES])
                expired_ids = {record.id for record in stored} - set(row_ids.values())
                await self._table.delete(tx, keys.user_id, expired_ids)
        self._row_ids[keys.user_id] = {**row_ids, query_hash: row_id}
        return row_id

    async def get(self, keys: Keyring, row_id: bytes) -> str:
        """Return one query, or "" when it is not stored."""
        query = await self._table.get_value(keys, row_id)
        return query.text if query else ""

    async def recent(self, keys: Keyring, limit: int = 10) -> list[str]:
        """Return the latest queries, newest first."""
        queries = values_of(_newest_first(await self._table.fetch(keys)))
        return list(dict.fromkeys(query.text for query in queries))[:limit]

    async def clear(self, user_id: bytes) -> None:
        """Delete all queries of a user; the bytes are overwritten in the file."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM search_history WHERE user_id=?", (user_id,))
        self._row_ids.pop(user_id, None)
        await self._db.checkpoint()


def _hash_query(keys: Keyring, query: str) -> bytes:
    """Return a hash to keep in memory only: on the disk it would tell that a query came again."""
    return keys.blind(QUERY_HASH, query.encode("utf-8", "replace"))


def _row_ids(keys: Keyring, stored: list[Opened[PastQuery]]) -> dict[bytes, bytes]:
    return {_hash_query(keys, record.value.text): record.id for record in stored if record.value}


def _newest_first(stored: list[Opened[PastQuery]]) -> list[Opened[PastQuery]]:
    """Return what opened; a damaged query is deleted when the oldest are."""
    opened = [(record.value.at, record) for record in stored if record.value is not None]
    return [record for _, record in sorted(opened, key=lambda pair: pair[0], reverse=True)]
