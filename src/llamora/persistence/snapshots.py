"""Sealed copies of search indexes, so that an unlock need not open every record."""

from llamora.persistence.connection import Connections, Transaction
from llamora.persistence.schema import SEARCH_SNAPSHOTS
from llamora.vault.keys import Keyring

IN_PROGRESS_PART = -1  # stands for a snapshot while it is written; an erasure deletes it
DELETE_BATCH_SIZE = 8  # parts; SQLite overwrites them, and other writes wait that long


class Snapshots:
    """The store of index copies, reached as `db.snapshots`.

    Part 0 describes the others; it is written last, and nothing is read without it.
    """

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def begin(self, keys: Keyring) -> int:
        """Begin a new snapshot and return its generation. An erasure from now on invalidates it."""
        async with self._db.write(search_unaffected=True) as tx:
            rows = await tx.fetch(
                "SELECT max(generation) FROM search_snapshots WHERE user_id=?", (keys.user_id,)
            )
            generation = int(rows[0][0] or 0) + 1
            mark = self.seal_part(keys, generation, IN_PROGRESS_PART, b"")
            await self._insert_part(tx, keys, generation, IN_PROGRESS_PART, mark)
        return generation

    async def add(self, keys: Keyring, generation: int, part: int, sealed: bytes) -> None:
        """Store a part sealed by `seal_part`; parts count from 1."""
        async with self._db.write(search_unaffected=True) as tx:
            await self._insert_part(tx, keys, generation, part, sealed)

    async def finish(self, keys: Keyring, generation: int, part_count: int, sealed: bytes) -> bool:
        """Store part 0, which makes the snapshot valid, and delete older snapshots.

        Return False, and delete this one, when something was erased since `begin`.
        """
        params = (keys.user_id, generation)
        async with self._db.write(search_unaffected=True) as tx:
            removed = await tx.execute(
                "DELETE FROM search_snapshots WHERE user_id=? AND generation=? AND part=?",
                (*params, IN_PROGRESS_PART),
            )
            (row,) = await tx.fetch(
                "SELECT count(*) FROM search_snapshots WHERE user_id=? AND generation=?", params
            )
            is_complete = removed == 1 and row[0] == part_count
            if is_complete:
                await self._insert_part(tx, keys, generation, 0, sealed)
        await self._delete_all_except(keys.user_id, generation if is_complete else 0)
        return is_complete

    async def get_latest(self, user_id: bytes) -> tuple[int, bytes] | None:
        """Return the generation and sealed part 0 of the newest whole snapshot, or None."""
        rows = await self._db.fetch(
            "SELECT generation, sealed FROM search_snapshots WHERE user_id=? AND part=0"
            " ORDER BY generation DESC LIMIT 1",
            (user_id,),
        )
        return (rows[0][0], rows[0][1]) if rows else None

    async def exists(self, user_id: bytes) -> bool:
        """Return True if the user has a whole snapshot; nothing is opened."""
        return bool(
            await self._db.fetch(
                "SELECT 1 FROM search_snapshots WHERE user_id=? AND part=0 LIMIT 1", (user_id,)
            )
        )

    async def get_part(self, user_id: bytes, generation: int, part: int) -> bytes:
        """Return one sealed part, empty when it is missing."""
        rows = await self._db.fetch(
            "SELECT sealed FROM search_snapshots WHERE user_id=? AND generation=? AND part=?",
            (user_id, generation, part),
        )
        return rows[0][0] if rows else b""

    async def delete_others(self, user_id: bytes, generation: int) -> None:
        """Delete all snapshots of a user but this generation."""
        await self._delete_all_except(user_id, generation)

    async def delete_all(self, user_id: bytes) -> None:
        """Delete all snapshots of a user; the bytes are overwritten in the file."""
        await self._delete_all_except(user_id, 0)
        await self._db.checkpoint()

    @staticmethod
    def seal_part(keys: Keyring, generation: int, part: int, content: bytes) -> bytes:
        """Seal a part so that it opens in this place of this snapshot only."""
        return SEARCH_SNAPSHOTS.seal(keys, part, generation, content)

    @staticmethod
    def open_part(keys: Keyring, generation: int, part: int, sealed: bytes) -> bytes:
        """Open a sealed part. Raise vault.envelope.SealError."""
        return SEARCH_SNAPSHOTS.open(keys, part, generation, sealed)

    async def _delete_all_except(self, user_id: bytes, generation: int) -> None:
        while True:
            async with self._db.write(search_unaffected=True) as tx:
                deleted_count = await tx.execute(
                    "DELETE FROM search_snapshots WHERE rowid IN"
                    " (SELECT rowid FROM search_snapshots WHERE user_id=? AND generation<>?"
                    " ORDER BY part LIMIT ?)",
                    (user_id, generation, DELETE_BATCH_SIZE),
                )
            if deleted_count < DELETE_BATCH_SIZE:
                return

    @staticmethod
    async def _insert_part(
        tx: Transaction, keys: Keyring, generation: int, part: int, sealed: bytes
    ) -> None:
        await tx.execute(
            "INSERT INTO search_snapshots (user_id, generation, part, epoch, sealed)"
            " VALUES (?, ?, ?, ?, ?)",
            (keys.user_id, generation, part, keys.epoch, sealed),
        )
