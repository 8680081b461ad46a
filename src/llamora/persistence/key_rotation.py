"""The change from one data key to the next: every record sealed anew, then the old key erased.

Which key a record was sealed with is read from its envelope (bytes 7 to 10), not from the column beside it: a
writer that began before the change may have stored the two apart.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llamora.persistence.connection import Connections, Transaction
from llamora.persistence.schema import KINDS, SEARCH_SNAPSHOTS, Kind
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

SEALED = tuple(kind for kind in KINDS if kind.purpose is not None and kind is not SEARCH_SNAPSHOTS)
BATCH = 50
# Compared as bytes, which big-endian numbers allow. Newer ones are of a change that is not known here yet.
OLD = "substr(sealed, 7, 4) < ?"


@dataclass(slots=True, frozen=True)
class Unreadable:
    """A record that did not open when its turn came; it stays where it is, as it is."""

    kind: Kind
    id: bytes
    sealed: bytes


class Epochs:
    """`db.epochs`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def count(self, user_id: bytes) -> int:
        """How many data keys a writer has: one, or more while the change from one to the next goes on."""
        return int((await self._db.fetch("SELECT count(*) FROM data_keys WHERE user_id=?", (user_id,)))[0][0])

    async def waiting(self, keys: Keyring, kind: Kind) -> list[bytes]:
        """The ids of the records of one kind that are still under an older key."""
        rows = await self._db.fetch(
            f"SELECT {kind.id} FROM {kind.table} WHERE user_id=? AND {OLD}", (keys.user_id, _bytes(keys.epoch))
        )
        return [row[0] for row in rows]

    async def seal_anew(self, keys: Keyring, kind: Kind, ids: Sequence[bytes]) -> list[Unreadable]:
        """Put at most BATCH records under the newest key, each only while it is as it was read; what did not open.

        Raises StorageError, vault.keys.KeyringClosed.
        """
        marks = ",".join("?" * len(ids))
        rows = await self._db.fetch(
            f"SELECT {kind.id}, {kind.revision}, sealed FROM {kind.table}"
            f" WHERE user_id=? AND {kind.id} IN ({marks}) AND {OLD}",
            (keys.user_id, *ids, _bytes(keys.epoch)),
        )
        changed, unreadable = await asyncio.to_thread(_sealed_anew, keys, kind, rows)
        async with self._db.write() as tx:
            await tx.execute_many(
                f"UPDATE {kind.table} SET epoch=?, sealed=? WHERE user_id=? AND {kind.id}=? AND sealed=?",
                [(keys.epoch, new, keys.user_id, record_id, old) for record_id, old, new in changed],
            )
        return unreadable

    async def retire(self, keys: Keyring, unreadable: Sequence[Unreadable]) -> bool:
        """Erase the older keys when no record but these needs them; False when one does.

        The bytes of the keys are overwritten in the file and gone from its log.
        """
        known = {(each.kind.table, each.id, each.sealed) for each in unreadable}
        async with self._db.write() as tx:
            if await self._needed(tx, keys, known):
                return False
            await tx.execute(
                "DELETE FROM search_snapshots WHERE user_id=? AND length(sealed) > 0 AND " + OLD,
                (keys.user_id, _bytes(keys.epoch)),
            )
            # What is made again is made again.
            await tx.execute_many(
                "DELETE FROM vectors WHERE user_id=? AND entry_id=? AND sealed=?",
                [(keys.user_id, each.id, each.sealed) for each in unreadable if each.kind.table == "vectors"],
            )
            await tx.execute("DELETE FROM data_keys WHERE user_id=? AND epoch<?", (keys.user_id, keys.epoch))
        await self._db.checkpoint()
        return True

    async def set_aside(self, user_id: bytes) -> int:
        """How many records are left whose key was erased because they did not open with it."""
        total = 0
        for kind in SEALED:
            rows = await self._db.fetch(
                f"SELECT count(*) FROM {kind.table} WHERE user_id=? AND substr(sealed, 7, 4) NOT IN"
                " (SELECT substr(sealed, 7, 4) FROM data_keys WHERE user_id=?)",
                (user_id, user_id),
            )
            total += int(rows[0][0])
        return total

    @staticmethod
    async def _needed(tx: Transaction, keys: Keyring, known: set[tuple[str, bytes, bytes]]) -> bool:
        for kind in SEALED:
            rows = await tx.fetch(
                f"SELECT {kind.id}, sealed FROM {kind.table} WHERE user_id=? AND {OLD}",
                (keys.user_id, _bytes(keys.epoch)),
            )
            if any((kind.table, row[0], row[1]) not in known for row in rows):
                return True
        return False


def _bytes(epoch: int) -> bytes:
    return epoch.to_bytes(4, "big")


def _sealed_anew(
    keys: Keyring, kind: Kind, rows: Sequence[tuple[bytes, int, bytes]]
) -> tuple[list[tuple[bytes, bytes, bytes]], list[Unreadable]]:
    changed: list[tuple[bytes, bytes, bytes]] = []
    unreadable: list[Unreadable] = []
    for record_id, revision, sealed in rows:
        try:
            text = kind.open(keys, record_id, revision, sealed)
        except (SealError, OverflowError):
            unreadable.append(Unreadable(kind, record_id, sealed))
            continue
        changed.append((record_id, sealed, kind.seal(keys, record_id, revision, text)))
    return changed, unreadable
