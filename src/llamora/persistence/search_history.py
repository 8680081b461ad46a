"""Recent searches, sealed: what somebody looks for says as much as what they wrote."""

import json
import secrets
from datetime import datetime
from logging import getLogger

from llamora.persistence.connection import Connections
from llamora.vault.envelope import Purpose, SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

KEPT = 50


class SearchHistory:
    """`db.search_history`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, keys: Keyring, query: str, at: datetime) -> bytes:
        """Note a query and return its id; the same one again moves to the front, and beyond KEPT the oldest go."""
        known = await self._all(keys)
        gone = [row_id for row_id, _, text in known if text == query]
        gone += [row_id for row_id, _, text in known if text != query][KEPT - 1 :]
        row_id = secrets.token_bytes(16)
        record = json.dumps([at.timestamp(), query]).encode()
        sealed = keys.seal(Purpose.QUERY, "search_history", "sealed", row_id, 1, record)
        async with self._db.write(aside=True) as tx:
            await tx.execute_many("DELETE FROM search_history WHERE id=?", [(old,) for old in gone])
            await tx.execute(
                "INSERT INTO search_history (id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, 1, ?)",
                (row_id, keys.user_id, keys.epoch, sealed),
            )
        return row_id

    async def get(self, keys: Keyring, row_id: bytes) -> str:
        """One query, "" when it is not remembered."""
        return next((text for known, _, text in await self._all(keys) if known == row_id), "")

    async def recent(self, keys: Keyring, limit: int = 10) -> list[str]:
        """The latest queries, newest first."""
        return [text for _, _, text in (await self._all(keys))[:limit] if text]

    async def clear(self, user_id: bytes) -> None:
        """Forget all queries of a writer; the bytes are overwritten in the file."""
        async with self._db.write(aside=True) as tx:
            await tx.execute("DELETE FROM search_history WHERE user_id=?", (user_id,))
        await self._db.checkpoint()

    async def _all(self, keys: Keyring) -> list[tuple[bytes, float, str]]:
        rows = await self._db.fetch("SELECT id, revision, sealed FROM search_history WHERE user_id=?", (keys.user_id,))
        opened: list[tuple[bytes, float, str]] = []
        for row_id, revision, sealed in rows:
            try:
                at, text = json.loads(keys.open(Purpose.QUERY, "search_history", "sealed", row_id, revision, sealed))
            except SealError as error:
                # A damaged query must not take search away; it is the oldest of all, so new ones push it out.
                logger.error("a query could not be opened (%s)", type(error).__name__)
                at, text = float("-inf"), ""
            opened.append((row_id, at, text))
        return sorted(opened, key=lambda row: row[1], reverse=True)
