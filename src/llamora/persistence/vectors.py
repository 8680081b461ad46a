"""Embeddings, sealed like text: a vector gives most of a short text away (Morris et al., 2023)."""

import struct
from collections.abc import Collection, Iterable, Sequence

import msgspec

from llamora.persistence.connection import Connections
from llamora.persistence.schema import VECTORS
from llamora.persistence.table import Sealed, SealedTable, UnknownContent, fetch_in
from llamora.vault.keys import Keyring


class EntryVectors(msgspec.Struct, frozen=True):
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
        header = msgspec.json.encode((self.entry_revision, self.model, self.dim))
        return struct.pack(">H", len(header)) + header + self.data

    @classmethod
    def from_bytes(cls, entry_id: bytes, record: bytes) -> "EntryVectors":
        """Return the vectors of a plaintext made by `to_bytes`. Raise UnknownContent."""
        try:
            (length,) = struct.unpack_from(">H", record)
            header = msgspec.json.decode(record[2 : 2 + length], type=tuple[int, str, int])
        except (struct.error, msgspec.MsgspecError):
            raise UnknownContent("the embeddings are of another form") from None
        return cls(entry_id, *header, record[2 + length :])


class Vectors:
    """The store of embeddings, reached as `db.vectors`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, VECTORS, bytes)

    async def save(self, keys: Keyring, vectors: Iterable[EntryVectors]) -> None:
        """Store the vectors of entries over older ones; vectors of erased entries are dropped."""
        rows = [
            self._table.seal(keys, each.entry_id, each.entry_revision, each.to_bytes())
            for each in vectors
        ]
        async with self._db.write(search_unaffected=True) as tx:
            query = "SELECT id FROM entries WHERE +user_id=? AND id IN (*)"
            ids = [row.id for row in rows]
            existing = {row[0] for row in await fetch_in(tx, query, ids, keys.user_id)}
            await self._table.replace(tx, [row for row in rows if row.id in existing])

    async def get(self, keys: Keyring, ids: Collection[bytes]) -> list[EntryVectors]:
        opened = await self._table.fetch_in(keys, ids)
        return [
            EntryVectors.from_bytes(record.id, record.value)
            for record in opened
            if record.value is not None
        ]

    async def revisions(self, user_id: bytes) -> dict[bytes, int]:
        """Return the entry revision that each stored row was made from."""
        query = "SELECT entry_id, revision FROM vectors WHERE user_id=?"
        return dict(await self._db.fetch(query, (user_id,)))

    async def get_sealed(self, user_id: bytes, ids: Sequence[bytes]) -> list[Sealed]:
        return await self._table.get_sealed(user_id, ids)

    @staticmethod
    def open_record(keys: Keyring, entry_id: bytes, revision: int, sealed: bytes) -> EntryVectors:
        """Open one envelope. Raise vault.envelope.SealError."""
        return EntryVectors.from_bytes(entry_id, VECTORS.open(keys, entry_id, revision, sealed))
