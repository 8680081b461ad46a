"""Recent searches, sealed: what somebody looks for says as much as what they wrote."""

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

KEPT = 50
SPARE = 10  # so many more may be there before the oldest are looked for: that opens every one of them
OF_WRITER = "SELECT id, revision, sealed FROM search_history WHERE user_id=?"


class SearchHistory:
    """`db.search_history`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._rows: dict[bytes, dict[bytes, bytes]] = {}  # by writer: the row of a query, by a keyed hash of it

    async def add(self, keys: Keyring, query: str, at: datetime) -> bytes:
        """Note a query and return its id; the same one again moves to the front.

        When there are more than KEPT and SPARE the oldest go, to KEPT. A query that another process noted as well may
        be there twice until then, and is shown once.
        """
        if keys.user_id not in self._rows:
            known = await self._db.fetch(OF_WRITER, (keys.user_id,))
            self._rows[keys.user_id] = {_hash(keys, text): row_id for row_id, _, text in _newest_first(keys, known)}
        own = self._rows[keys.user_id]
        hashed, row_id = _hash(keys, query), secrets.token_bytes(16)
        record = json.dumps([at.timestamp(), query]).encode()
        sealed = SEARCH_HISTORY.seal(keys, row_id, 1, record)
        async with self._db.write(aside=True) as tx:
            if hashed in own:
                await tx.execute("DELETE FROM search_history WHERE user_id=? AND id=?", (keys.user_id, own[hashed]))
            await tx.execute(
                "INSERT INTO search_history (id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, 1, ?)",
                (row_id, keys.user_id, keys.epoch, sealed),
            )
            if len(own) >= KEPT + SPARE:
                rows = await tx.fetch(OF_WRITER, (keys.user_id,))
                own = {_hash(keys, text): kept for kept, _, text in _newest_first(keys, rows)[:KEPT]}
                gone = {row[0] for row in rows} - set(own.values())
                await tx.execute_many("DELETE FROM search_history WHERE id=?", [(old,) for old in gone])
        self._rows[keys.user_id] = {**own, hashed: row_id}
        return row_id

    async def get(self, keys: Keyring, row_id: bytes) -> str:
        """One query, "" when it is not remembered."""
        rows = await self._db.fetch(OF_WRITER + " AND id=?", (keys.user_id, row_id))
        return next((text for _, _, text in _newest_first(keys, rows)), "")

    async def recent(self, keys: Keyring, limit: int = 10) -> list[str]:
        """The latest queries, newest first."""
        rows = await self._db.fetch(OF_WRITER, (keys.user_id,))
        return list(dict.fromkeys(text for _, _, text in _newest_first(keys, rows)))[:limit]

    async def clear(self, user_id: bytes) -> None:
        """Forget all queries of a writer; the bytes are overwritten in the file."""
        async with self._db.write(aside=True) as tx:
            await tx.execute("DELETE FROM search_history WHERE user_id=?", (user_id,))
        self._rows.pop(user_id, None)
        await self._db.checkpoint()


def _hash(keys: Keyring, query: str) -> bytes:
    """For memory only: on the disk it would tell that a query came again."""
    return keys.blind(QUERY_HASH, query.encode("utf-8", "surrogatepass"))


def _newest_first(keys: Keyring, rows: Sequence[Row]) -> list[tuple[bytes, float, str]]:
    """What opens of some rows: id, time and query."""
    found: list[tuple[bytes, float, str]] = []
    for row_id, revision, sealed in rows:
        try:
            at, text = json.loads(SEARCH_HISTORY.open(keys, row_id, revision, sealed))
        except SealError as error:  # a damaged query must not take search away; in time it goes as the oldest do
            logger.error("a query could not be opened (%s)", type(error).__name__)
            continue
        found.append((row_id, at, text))
    return sorted(found, key=lambda row: row[1], reverse=True)
