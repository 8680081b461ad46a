"""Key rotation: every record sealed anew under the newest data key, then the old key erased.

The epoch of a record is read from its envelope (bytes 7 to 10), not from the column beside it: a
process that began writing before the rotation may have stored the two apart.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llamora.persistence.connection import Connections, Transaction
from llamora.persistence.schema import DATA_KEY, RESEALED_KINDS, RecordKind
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

BATCH_SIZE = 50
# Compared as bytes, which big-endian numbers allow. Newer epochs are of a rotation not known here
# yet.
OLD_KEY_CONDITION = "substr(sealed, 7, 4) < ?"


@dataclass(slots=True, frozen=True)
class UnreadableRecord:
    """A record that did not open when its turn came; it stays as it is."""

    kind: RecordKind
    id: bytes
    sealed: bytes


class KeyRotation:
    """The steps of key rotation, reached as `db.key_rotation`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def count_data_keys(self, user_id: bytes) -> int:
        """Return how many data keys a user has: one, or more while a rotation goes on."""
        return int(
            (
                await self._db.fetch(
                    f"SELECT count(*) FROM data_keys WHERE user_id=? AND {DATA_KEY}", (user_id,)
                )
            )[0][0]
        )

    async def pending_ids(self, keys: Keyring, kind: RecordKind) -> list[bytes]:
        """Return the ids of the records of one kind that are still under an older key."""
        rows = await self._db.fetch(
            f"SELECT {kind.id_column} FROM {kind.table} WHERE user_id=? AND {OLD_KEY_CONDITION}",
            (keys.user_id, _epoch_bytes(keys.epoch)),
        )
        return [row[0] for row in rows]

    async def reseal(
        self, keys: Keyring, kind: RecordKind, ids: Sequence[bytes]
    ) -> list[UnreadableRecord]:
        """Seal at most BATCH_SIZE records under the newest key; return those that did not open.

        Each is stored only if it did not change since it was read. Raise StorageError and
        vault.keys.KeyringClosed.
        """
        placeholders = ",".join("?" * len(ids))
        rows = await self._db.fetch(
            f"SELECT {kind.id_column}, {kind.revision_column}, sealed FROM {kind.table}"
            f" WHERE user_id=? AND {kind.id_column} IN ({placeholders}) AND {OLD_KEY_CONDITION}",
            (keys.user_id, *ids, _epoch_bytes(keys.epoch)),
        )
        resealed, unreadable = await asyncio.to_thread(_reseal_rows, keys, kind, rows)
        async with self._db.write() as tx:
            await tx.execute_many(
                f"UPDATE {kind.table} SET epoch=?, sealed=?"
                f" WHERE user_id=? AND {kind.id_column}=? AND sealed=?",
                [
                    (keys.epoch, new_sealed, keys.user_id, record_id, old_sealed)
                    for record_id, old_sealed, new_sealed in resealed
                ],
            )
        return unreadable

    async def drop_old_keys(self, keys: Keyring, unreadable: Sequence[UnreadableRecord]) -> bool:
        """Erase the older keys and return True, or False when other records still need them.

        `unreadable` records are given up. The bytes of the keys are overwritten in the file and
        gone from its log.
        """
        known_unreadable = {(record.kind.table, record.id, record.sealed) for record in unreadable}
        async with self._db.write() as tx:
            if await self._are_old_keys_needed(tx, keys, known_unreadable):
                return False
            await tx.execute(
                "DELETE FROM search_snapshots WHERE user_id=? AND length(sealed) > 0 AND "
                + OLD_KEY_CONDITION,
                (keys.user_id, _epoch_bytes(keys.epoch)),
            )
            for record in unreadable:
                if record.kind.derived:  # it is made again
                    await tx.execute(
                        f"DELETE FROM {record.kind.table}"
                        f" WHERE user_id=? AND {record.kind.id_column}=? AND sealed=?",
                        (keys.user_id, record.id, record.sealed),
                    )
            await tx.execute(
                f"DELETE FROM data_keys WHERE user_id=? AND (epoch<? OR NOT ({DATA_KEY}))",
                (keys.user_id, keys.epoch),
            )
        await self._db.checkpoint()
        return True

    async def unreadable_count(self, user_id: bytes) -> int:
        """Return how many unreadable records are left whose key was erased."""
        total = 0
        for kind in RESEALED_KINDS:
            rows = await self._db.fetch(
                f"SELECT count(*) FROM {kind.table} WHERE user_id=? AND substr(sealed, 7, 4) NOT IN"
                " (SELECT substr(sealed, 7, 4) FROM data_keys WHERE user_id=?)",
                (user_id, user_id),
            )
            total += int(rows[0][0])
        return total

    @staticmethod
    async def _are_old_keys_needed(
        tx: Transaction, keys: Keyring, known_unreadable: set[tuple[str, bytes, bytes]]
    ) -> bool:
        for kind in RESEALED_KINDS:
            rows = await tx.fetch(
                f"SELECT {kind.id_column}, sealed FROM {kind.table}"
                f" WHERE user_id=? AND {OLD_KEY_CONDITION}",
                (keys.user_id, _epoch_bytes(keys.epoch)),
            )
            if any((kind.table, row[0], row[1]) not in known_unreadable for row in rows):
                return True
        return False


def _epoch_bytes(epoch: int) -> bytes:
    return epoch.to_bytes(4, "big")


def _reseal_rows(
    keys: Keyring, kind: RecordKind, rows: Sequence[tuple[bytes, int, bytes]]
) -> tuple[list[tuple[bytes, bytes, bytes]], list[UnreadableRecord]]:
    resealed: list[tuple[bytes, bytes, bytes]] = []
    unreadable: list[UnreadableRecord] = []
    for record_id, revision, sealed in rows:
        try:
            plaintext = kind.open(keys, record_id, revision, sealed)
        except SealError:
            unreadable.append(UnreadableRecord(kind, record_id, sealed))
            continue
        resealed.append((record_id, sealed, kind.seal(keys, record_id, revision, plaintext)))
    return resealed, unreadable
