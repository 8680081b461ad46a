"""Which entries are deleted and since when: one sealed list for each writer, so that the file does not say."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from logging import getLogger

from llamora.persistence.connection import Connections, Row, Step, Transaction
from llamora.persistence.entries import instant, micros, record_bytes
from llamora.persistence.schema import TRASH
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Deleted:
    """An entry that was deleted at `at` (UTC), and what of its thread went with it."""

    id: bytes
    at: datetime
    others: tuple[bytes, ...] = ()


class Trash:
    """`db.trash`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def all(self, keys: Keyring) -> list[Deleted] | None:
        """What is deleted, in the order in which it was; None when there is no list yet, or none that opens."""
        rows = await self._db.fetch("SELECT revision, sealed FROM trash WHERE user_id=?", (keys.user_id,))
        try:
            return _open(keys, rows)[1]
        except SealError as error:
            logger.error("the list of deleted entries could not be opened (%s)", type(error).__name__)
            return None

    async def begin(self, keys: Keyring, deleted: Iterable[Deleted]) -> None:
        """Store the first list, unless somebody else has; one that does not open is replaced."""
        async with self._db.write() as tx:
            rows = await _rows(tx, keys)
            try:
                if _open(keys, rows)[1] is not None:
                    return
            except SealError:
                pass
            await _put(tx, keys, rows[0][0] if rows else 0, deleted)

    def changing(self, keys: Keyring, change: Callable[[list[Deleted]], list[Deleted]]) -> Step:
        """The step that puts `change(list)` in place of the list."""

        async def step(tx: Transaction) -> None:
            revision, deleted = _open(keys, await _rows(tx, keys))
            await _put(tx, keys, revision, change(deleted or []))

        return step


async def _rows(tx: Transaction, keys: Keyring) -> list[Row]:
    return await tx.fetch("SELECT revision, sealed FROM trash WHERE user_id=?", (keys.user_id,))


def _open(keys: Keyring, rows: list[Row]) -> tuple[int, list[Deleted] | None]:
    if not rows:
        return 0, None
    revision, sealed = rows[0]
    record = json.loads(TRASH.open(keys, keys.user_id, revision, sealed))
    return revision, [
        Deleted(bytes.fromhex(item["id"]), instant(item["at"]), tuple(bytes.fromhex(other) for other in item["with"]))
        for item in record
    ]


async def _put(tx: Transaction, keys: Keyring, revision: int, deleted: Iterable[Deleted]) -> None:
    record = record_bytes(
        [
            {"id": item.id.hex(), "at": micros(item.at), "with": [other.hex() for other in item.others]}
            for item in deleted
        ]
    )
    sealed = TRASH.seal(keys, keys.user_id, revision + 1, record)
    await tx.execute(
        "INSERT INTO trash (user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, keys.epoch, revision + 1, sealed),
    )
