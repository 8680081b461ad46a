"""Deleted entries and their times in one sealed list per user, so the file does not show them."""

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from llamora.persistence.connection import Connections, Step, Transaction
from llamora.persistence.schema import TRASH
from llamora.persistence.table import SealedTable, UnknownContent
from llamora.vault.keys import Keyring


class DeletedEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry that was deleted at `deleted_at` (UTC), and what of its thread went with it."""

    id: bytes
    deleted_at: datetime
    thread_ids: tuple[bytes, ...] = ()


class Trash:
    """The list of deleted entries, reached as `db.trash`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, TRASH, list[DeletedEntry])

    async def list_all(self, keys: Keyring) -> list[DeletedEntry] | None:
        """Return the deleted entries in order of deletion, or None when no list exists or opens."""
        return await self._table.get_value(keys, keys.user_id)

    async def initialize(self, keys: Keyring, deleted: Iterable[DeletedEntry]) -> None:
        """Store the first list unless one exists; a list that does not open is replaced."""
        async with self._db.write(keys=keys) as tx:
            if await self._table.get_value(keys, keys.user_id, tx) is None:
                await self._table.put(tx, keys, {keys.user_id: list(deleted)})

    def updating(
        self, keys: Keyring, update: Callable[[list[DeletedEntry]], list[DeletedEntry]]
    ) -> Step:
        """Return the step that replaces the list with `update(list)`."""

        async def step(tx: Transaction) -> None:
            stored = await self._table.get(keys, keys.user_id, tx)
            if stored is not None and stored.value is None:
                raise UnknownContent("the list of deleted entries does not open")
            deleted = (stored.value if stored else None) or []
            await self._table.put(tx, keys, {keys.user_id: update(deleted)})

        return step
