"""Embeddings, sealed like text: a vector gives most of a short text away (Morris et al., 2023)."""

import json
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from llamora.persistence.connection import Connections, Row
from llamora.persistence.entries import BATCH_SIZE
from llamora.persistence.schema import VECTORS
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class EntryVectors:
    """The embeddings of one entry at one revision.

    `data` holds float32, little-endian, chunks x `dim`; it is empty when there was nothing to
    embed. `model` names the model that made them: vectors of two models are never compared.
    """

    entry_id: bytes
    entry_revision: int
    model: str
    dim: int
    data: bytes

    def to_bytes(self) -> bytes:
        """Return the plaintext of the record: u16 length of a JSON header, header, floats."""
        header = json.dumps(
            [self.entry_revision, self.model, self.dim], separators=(",", ":")
        ).encode()
        return struct.pack(">H", len(header)) + header + self.data

    @classmethod
    def from_bytes(cls, entry_id: bytes, record: bytes) -> "EntryVectors":
        """Return the vectors of a plaintext made by `to_bytes`."""
        (length,) = struct.unpack_from(">H", record)
        revision, model, dim = json.loads(record[2 : 2 + length])
        return cls(entry_id, revision, model, dim, record[2 + length :])


class Vectors:
    """The store of embeddings, reached as `db.vectors`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def save(self, keys: Keyring, vectors: Iterable[EntryVectors]) -> None:
        """Store the vectors of entries over older ones; vectors of erased entries are dropped."""
        rows = [
            (
                int.from_bytes(v.entry_id[:8], "big") >> 1,
                keys.epoch,
                v.entry_revision,
                self._seal(keys, v),
                v.entry_id,
                keys.user_id,
            )
            for v in vectors
        ]
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute_many(
                "INSERT OR REPLACE INTO vectors (rid, entry_id, user_id, epoch, revision, sealed)"
                " SELECT ?1, id, user_id, ?2, ?3, ?4 FROM entries WHERE id=?5 AND user_id=?6",
                rows,
            )

    async def get(self, keys: Keyring, ids: Sequence[bytes]) -> list[EntryVectors]:
        """Return the vectors of these entries, in no order, without missing and unreadable ones."""
        vectors: list[EntryVectors] = []
        for start in range(0, len(ids), BATCH_SIZE):
            for row in await self.get_sealed(keys.user_id, ids[start : start + BATCH_SIZE]):
                with suppress(SealError):
                    vectors.append(self.open_record(keys, *row))
        return vectors

    async def iter_all(self, keys: Keyring) -> AsyncIterator[list[EntryVectors]]:
        """Yield all vectors of the user in batches."""
        ids = [
            row[0]
            for row in await self._db.fetch(
                "SELECT entry_id FROM vectors WHERE user_id=?", (keys.user_id,)
            )
        ]
        for start in range(0, len(ids), BATCH_SIZE):
            yield await self.get(keys, ids[start : start + BATCH_SIZE])

    async def revisions(self, user_id: bytes) -> dict[bytes, int]:
        """Return the entry revision that each stored row was made from."""
        return dict(
            await self._db.fetch(
                "SELECT entry_id, revision FROM vectors WHERE user_id=?", (user_id,)
            )
        )

    async def delete(self, user_id: bytes, ids: Sequence[bytes]) -> None:
        """Delete the vectors of these entries; the bytes are overwritten in the file."""
        async with self._db.write(search_unaffected=True) as tx:
            await tx.execute_many(
                "DELETE FROM vectors WHERE user_id=? AND entry_id=?",
                [(user_id, entry_id) for entry_id in ids],
            )
        await self._db.checkpoint()

    async def get_sealed(self, user_id: bytes, ids: Sequence[bytes]) -> list[Row]:
        """Return (entry id, revision, envelope) of a batch of rows, to be opened on a thread."""
        placeholders = ",".join("?" * len(ids))
        return await self._db.fetch(
            f"SELECT entry_id, revision, sealed FROM vectors WHERE +user_id=? AND entry_id IN ({placeholders})",
            (user_id, *ids),
        )

    @staticmethod
    def open_record(keys: Keyring, entry_id: bytes, revision: int, sealed: bytes) -> EntryVectors:
        """Open one envelope. Raise vault.envelope.SealError."""
        record = VECTORS.open(keys, entry_id, revision, sealed)
        return EntryVectors.from_bytes(entry_id, record)

    @staticmethod
    def _seal(keys: Keyring, vectors: EntryVectors) -> bytes:
        return VECTORS.seal(keys, vectors.entry_id, vectors.entry_revision, vectors.to_bytes())
