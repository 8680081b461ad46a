"""Deleted entries and their times in one sealed list per user, so the file does not show them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from logging import getLogger

from llamora.persistence.connection import Connections, Row, Step, Transaction
from llamora.persistence.entries import encode_record, from_micros, to_micros
from llamora.persistence.schema import TRASH
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


@dataclass(slots=True, frozen=True)
class DeletedEntry:
    """An entry that was deleted at `deleted_at` (UTC), and what of its thread went with it."""

    id: bytes
    deleted_at: datetime
    thread_ids: tuple[bytes, ...] = ()


class Trash:
    """The list of deleted entries, reached as `db.trash`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def list_all(self, keys: Keyring) -> list[DeletedEntry] | None:
        """Return the deleted entries in order of deletion, or None when no list exists or opens."""
        rows = await self._db.fetch(
            "SELECT revision, sealed FROM trash WHERE user_id=?", (keys.user_id,)
        )
        try:
            return _open(keys, rows)[1]
        except SealError as error:
            logger.error(
                "the list of deleted entries could not be opened (%s)", type(error).__name__
            )
            return None

    async def initialize(self, keys: Keyring, deleted: Iterable[DeletedEntry]) -> None:
        """Store the first list unless one exists; a list that does not open is replaced."""
        async with self._db.write() as tx:
            rows = await _fetch_rows(tx, keys)
            try:
                if _open(keys, rows)[1] is not None:
                    return
            except SealError:
                pass
            await _save(tx, keys, rows[0][0] if rows else 0, deleted)

    def updating(
        self, keys: Keyring, update: Callable[[list[DeletedEntry]], list[DeletedEntry]]
    ) -> Step:
        """Return the step that replaces the list with `update(list)`."""

        async def step(tx: Transaction) -> None:
            revision, deleted = _open(keys, await _fetch_rows(tx, keys))
            await _save(tx, keys, revision, update(deleted or []))

        return step


async def _fetch_rows(tx: Transaction, keys: Keyring) -> list[Row]:
    return await tx.fetch("SELECT revision, sealed FROM trash WHERE user_id=?", (keys.user_id,))


def _open(keys: Keyring, rows: list[Row]) -> tuple[int, list[DeletedEntry] | None]:
    if not rows:
        return 0, None
    revision, sealed = rows[0]
    record = json.loads(TRASH.open(keys, keys.user_id, revision, sealed))
    return revision, [
        DeletedEntry(
            bytes.fromhex(item["id"]),
            from_micros(item["at"]),
            tuple(bytes.fromhex(other_id) for other_id in item["with"]),
        )
        for item in record
    ]


async def _save(
    tx: Transaction, keys: Keyring, revision: int, deleted: Iterable[DeletedEntry]
) -> None:
    record = encode_record(
        [
            {
                "id": item.id.hex(),
                "at": to_micros(item.deleted_at),
                "with": [other_id.hex() for other_id in item.thread_ids],
            }
            for item in deleted
        ]
    )
    sealed = TRASH.seal(keys, keys.user_id, revision + 1, record)
    await tx.execute(
        "INSERT INTO trash (user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, keys.epoch, revision + 1, sealed),
    )
