"""Queries that an address names while they are not remembered: sealed, in memory that the workers of a server share."""

import secrets
import struct
from typing import Any

from llamora.persistence.schema import PENDING_QUERIES
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

PLACES = 512  # queries of all writers together; the oldest make room
PLACE_BYTES = 8_400  # name, owner, length, padded envelope: rank.MAX_QUERY letters take 4 bytes each at most
BYTES = 8 + PLACES * PLACE_BYTES
_HEAD = struct.Struct("=16s16sI")


class Noted:
    """A ring of sealed queries in a buffer of BYTES, which several processes may write to at once.

    There is no lock: of two that take a place at the same instant the later stays, and what is written while it is
    read does not open, which is as if it were not known.
    """

    def __init__(self, memory: Any = None) -> None:
        """`memory` is a multiprocessing.RawArray of the type "c" that other processes hold too; None for one alone."""
        self._memory = memoryview(bytearray(BYTES) if memory is None else memory).cast("B")

    def add(self, keys: Keyring, query: str) -> bytes:
        """Give a query a random name of 16 bytes."""
        name = secrets.token_bytes(16)
        sealed = PENDING_QUERIES.seal(keys, name, 1, query.encode("utf-8", "replace"))
        if len(sealed) <= PLACE_BYTES - _HEAD.size:
            number = int.from_bytes(self._memory[:8], "big")
            self._memory[:8] = ((number + 1) % 2**64).to_bytes(8, "big")
            place = self._place(number % PLACES)
            place[_HEAD.size : _HEAD.size + len(sealed)] = sealed
            place[: _HEAD.size] = _HEAD.pack(name, keys.user_id, len(sealed))
        return name

    def get(self, keys: Keyring, name: bytes) -> str:
        """The writer's query of that name, "" when it is not known any more."""
        for number in range(PLACES):
            place = self._place(number)
            known, owner, length = _HEAD.unpack(place[: _HEAD.size])
            if known == name and owner == keys.user_id and length <= PLACE_BYTES - _HEAD.size:
                sealed = bytes(place[_HEAD.size : _HEAD.size + length])
                try:
                    return PENDING_QUERIES.open(keys, name, 1, sealed).decode()
                except (SealError, ValueError):
                    return ""
        return ""

    def forget(self, user_id: bytes) -> None:
        """Forget all queries of a writer, on every worker."""
        for number in range(PLACES):
            place = self._place(number)
            if _HEAD.unpack(place[: _HEAD.size])[1] == user_id:
                place[:] = bytes(PLACE_BYTES)

    def _place(self, number: int) -> memoryview:
        start = 8 + number * PLACE_BYTES
        return self._memory[start : start + PLACE_BYTES]
