"""Recent searches, sealed: a query says as much about somebody as an entry."""

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from logging import getLogger

from llamora.persistence.connection import Connections, Row
from llamora.persistence.schema import QUERY_HASH, SEARCH_HISTORY
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

MAX_QUERIES = 50
PRUNE_MARGIN = (
    10  # so many more may exist before the oldest are deleted: finding them opens every one
)
SELECT_OF_USER = "SELECT id, revision, sealed FROM search_history WHERE user_id=?"


class SearchHistory:
    """The store of recent queries, reached as `db.search_history`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._row_ids: dict[
            bytes, dict[bytes, bytes]
        ] = {}  # by user: the row of a query, by a keyed hash of it

    async def add(self, keys: Keyring, query: str, at: datetime) -> bytes:
        """Save a query and return its id; the same query again moves to the front.

        Above MAX_QUERIES and PRUNE_MARGIN the oldest are deleted, down to MAX_QUERIES. A query that
        another process saved as well may be there twice until then, and is shown once.
        """
        if keys.user_id not in self._row_ids:
            stored_rows = await self._db.fetch(SELECT_OF_USER, (keys.user_id,))
            self._row_ids[keys.user_id] = {
                _hash_query(keys, text): row_id
                for row_id, _, text in _open_newest_first(keys, stored_rows)
            }
        row_ids = self._row_ids[keys.user_id]
        query_hash, row_id = _hash_query(keys, query), secrets.token_bytes(16)
        record = json.dumps([at.timestamp(), query]).encode()
        sealed = SEARCH_HISTORY.seal(keys, row_id, 1, record)
        async with self._db.write(search_unaffected=True) as tx:
            if query_hash in row_ids:
                await tx.execute(
                    "DELETE FROM search_history WHERE user_id=? AND id=?",
                    (keys.user_id, row_ids[query_hash]),
                )
            await tx.execute(
                "INSERT INTO search_history (id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, 1, ?)",
                (row_id, keys.user_id, keys.epoch, sealed),
            )
            if len(row_ids) >= MAX_QUERIES + PRUNE_MARGIN:
                rows = await tx.fetch(SELECT_OF_USER, (keys.user_id,))
                row_ids = {
                    _hash_query(keys, text): stored_id
                    for stored_id, _, text in _open_newest_first(keys, rows)[:MAX_QUERIES]
                }
                expired_ids = {row[0] for row in rows} - set(row_ids.values())
                await tx.execute_many(
                    "DELETE FROM search_history WHERE id=?",
                    [(expired_id,) for expired_id in expired_ids],
                )
        self._row_ids[keys.user_id] = {**row_ids, query_hash: row_id}
        return row_id

    async def get(self, keys: Keyring, row_id: bytes) -> str:
        """Return one query, or "" when it is not stored."""
        rows = await self._db.fetch(SELECT_OF_USER + " AND id=?", (keys.user_id, row_id))
        return next((text for _, _, text in _open_newest_first(keys, rows)), "")

    async def recent(self, keys: Keyring, limit: int = 10) -> list[str]:
        """Return the latest queries, newest first."""
        rows = await self._db.fetch(SELECT_OF_USER, (keys.user_id,))
        return list(dict.fromkeys(text for _, _, text in _open_newest_first(keys, rows)))[:limit]

    async def clear(self, user_id: bytes) -> None:
        """Delete all queries of a user; the bytes are overwritten in the file."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute("DELETE FROM search_history WHERE user_id=?", (user_id,))
        self._row_ids.pop(user_id, None)
        await self._db.checkpoint()


def _hash_query(keys: Keyring, query: str) -> bytes:
    """Return a hash to keep in memory only: on the disk it would tell that a query came again."""
    return keys.blind(QUERY_HASH, query.encode("utf-8", "surrogatepass"))


def _open_newest_first(keys: Keyring, rows: Sequence[Row]) -> list[tuple[bytes, float, str]]:
    """Return id, time and query of the rows that open."""
    queries: list[tuple[bytes, float, str]] = []
    for row_id, revision, sealed in rows:
        try:
            at, text = json.loads(SEARCH_HISTORY.open(keys, row_id, revision, sealed))
        except (
            SealError
        ) as error:  # a damaged query must not break search; pruning deletes it in time
            logger.error("a query could not be opened (%s)", type(error).__name__)
            continue
        queries.append((row_id, at, text))
    return sorted(queries, key=lambda row: row[1], reverse=True)
