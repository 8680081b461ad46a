"""Keep pending queries, which a URL names, sealed in memory that all workers share."""

import secrets
import struct
from typing import Any

from llamora.persistence.schema import PENDING_QUERIES
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

SLOTS = 512  # queries of all users together; the oldest make room
SLOT_BYTES = 8_400  # header and padded envelope: a character of MAX_QUERY takes 4 bytes at most
BUFFER_BYTES = 8 + SLOTS * SLOT_BYTES
_HEADER = struct.Struct("=16s16sI")  # name, user, length


class PendingQueries:
    """Keep sealed queries in a ring buffer that several processes may write to at once.

    There is no lock: of two queries put into a slot at the same time one stays, and one that is
    written while it is read does not open, as if it were unknown.
    """

    def __init__(self, memory: Any = None) -> None:
        """Use `memory`, a multiprocessing.RawArray of BUFFER_BYTES "c", or memory of its own."""
        self._memory = memoryview(bytearray(BUFFER_BYTES) if memory is None else memory).cast("B")

    def add(self, keys: Keyring, query: str) -> bytes:
        """Keep a query; return its random name of 16 bytes."""
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
        """Return the user's query of a name, "" when it is not known (any more)."""
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
        """Forget a user's queries, for every worker."""
        for index in range(SLOTS):
            slot = self._slot(index)
            if _HEADER.unpack(slot[: _HEADER.size])[1] == user_id:
                slot[:] = bytes(SLOT_BYTES)

    def _slot(self, index: int) -> memoryview:
        start = 8 + index * SLOT_BYTES
        return self._memory[start : start + SLOT_BYTES]
