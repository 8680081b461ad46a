"""Queries that an address names while they are not remembered: sealed, in memory that the workers of a server share."""

import secrets
import struct
from typing import Any

from llamora.persistence.schema import PENDING_QUERIES
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

SLOTS = 512  # queries of all writers together; the oldest make room
SLOT_BYTES = (
    8_400  # name, owner, length, padded envelope: rank.MAX_QUERY letters take 4 bytes each at most
)
BUFFER_BYTES = 8 + SLOTS * SLOT_BYTES
_HEADER = struct.Struct("=16s16sI")


class PendingQueries:
    """A ring of sealed queries in a buffer of BYTES, which several processes may write to at once.

    There is no lock: of two that take a place at the same instant the later stays, and what is written while it is
    read does not open, which is as if it were not known.
    """

    def __init__(self, memory: Any = None) -> None:
        """`memory` is a multiprocessing.RawArray of the type "c" that other processes hold too; None for one alone."""
        self._memory = memoryview(bytearray(BUFFER_BYTES) if memory is None else memory).cast("B")

    def add(self, keys: Keyring, query: str) -> bytes:
        """Give a query a random name of 16 bytes."""
        name = secrets.token_bytes(16)
        sealed = PENDING_QUERIES.seal(keys, name, 1, query.encode("utf-8", "replace"))
        if len(sealed) <= SLOT_BYTES - _HEADER.size:
            counter = int.from_bytes(self._memory[:8], "big")
            self._memory[:8] = ((counter + 1) % 2**64).to_bytes(8, "big")
            slot = self._slot(counter % SLOTS)
            slot[_HEADER.size : _HEADER.size + len(sealed)] = sealed
            slot[: _HEADER.size] = _HEADER.pack(name, keys.user_id, len(sealed))
        return name

    def get(self, keys: Keyring, name: bytes) -> str:
        """The writer's query of that name, "" when it is not known any more."""
        for index in range(SLOTS):
            slot = self._slot(index)
            stored_name, owner, length = _HEADER.unpack(slot[: _HEADER.size])
            if (
                stored_name == name
                and owner == keys.user_id
                and length <= SLOT_BYTES - _HEADER.size
            ):
                sealed = bytes(slot[_HEADER.size : _HEADER.size + length])
                try:
                    return PENDING_QUERIES.open(keys, name, 1, sealed).decode()
                except (SealError, ValueError):
                    return ""
        return ""

    def forget(self, user_id: bytes) -> None:
        """Forget all queries of a writer, on every worker."""
        for index in range(SLOTS):
            slot = self._slot(index)
            if _HEADER.unpack(slot[: _HEADER.size])[1] == user_id:
                slot[:] = bytes(SLOT_BYTES)

    def _slot(self, index: int) -> memoryview:
        start = 8 + index * SLOT_BYTES
        return self._memory[start : start + SLOT_BYTES]
