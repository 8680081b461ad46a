"""An index as bytes and back: sections of arrays in parts small enough to be sealed one by one. Pure.

The first part holds JSON: the format, and name, type and shape of every section. The others hold the sections' bytes
one after the other, cut every PART_BYTES. Nothing here is trusted because it can be read: the caller compares the
revision of every entry with the store.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamora.search.fulltext import TOKENIZER
from llamora.search.index import UserIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 3  # raise when an index of before would not do
PART_BYTES = 2_000_000
MAX_SECTION_BYTES = 2**31  # bytes of one section; more is damage


class UnusableSnapshot(Exception):
    """The snapshot is of another format, not whole, or does not hold together."""


class SnapshotWriter:
    """Cuts an index into parts; `header` is complete once `parts` is used up. For the index's thread."""

    def __init__(
        self, index: UserIndex, unindexed: "dict[bytes, int]", tags: dict[bytes, tuple[str, ...]]
    ) -> None:
        self._index = index
        self._unindexed = unindexed
        self._tags = tags
        self._sections: list[tuple[str, str, tuple[int, ...]]] = []

    def iter_parts(self) -> Iterator[bytes]:
        """The parts from 1 on."""
        pending = bytearray()
        for name, array in self._index.iter_sections():
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            self._sections.append((name, little_endian.dtype.str, little_endian.shape))
            content = little_endian.reshape(-1).view("u1").data
            for start in range(0, len(content), PART_BYTES):
                pending += content[start : start + PART_BYTES]
                while len(pending) >= PART_BYTES:
                    yield bytes(pending[:PART_BYTES])
                    del pending[:PART_BYTES]
        if pending:
            yield bytes(pending)

    @property
    def header(self) -> bytes:
        """Part 0. `others` are records that are known and not indexed, `traces` what entries bore."""
        return json.dumps(
            {
                "format": [FORMAT, TOKENIZER],
                "sections": self._sections,
                "others": {
                    entry_id.hex(): revision for entry_id, revision in self._unindexed.items()
                },
                "traces": {entry_id.hex(): names for entry_id, names in self._tags.items()},
            }
        ).encode()


class SnapshotReader:
    """Makes an index of parts. Every method raises Unusable, or what damaged content makes SQLite and numpy raise."""

    def __init__(self, index: UserIndex, header: bytes) -> None:
        import numpy as np

        fields = json.loads(header)
        if fields["format"] != [FORMAT, TOKENIZER]:
            raise UnusableSnapshot
        self._index = index
        self._sections: list[tuple[str, str, list[int]]] = fields["sections"]
        sizes = [np.dtype(kind).itemsize * int(np.prod(shape)) for _, kind, shape in self._sections]
        self.part_count = -(-sum(sizes) // PART_BYTES)
        self._current: NDArray[Any] | None = None
        self._filled = 0
        self._begin_section()
        self.unindexed = {
            bytes.fromhex(entry_id): int(revision)
            for entry_id, revision in fields["others"].items()
        }
        self.tags = {
            bytes.fromhex(entry_id): tuple(names) for entry_id, names in fields["traces"].items()
        }

    @property
    def is_complete(self) -> bool:
        """Whether every section is whole."""
        return self._current is None

    def feed(self, part: bytes) -> None:
        """Take over the next part."""
        remaining = memoryview(part)
        while remaining:
            if self._current is None:
                raise UnusableSnapshot
            free = self._current.reshape(-1).view("u1")[self._filled :]
            copied = min(len(free), len(remaining))
            free[:copied] = remaining[:copied]
            remaining = remaining[copied:]
            self._filled += copied
            if copied == len(free):
                self._finish_section()

    def _finish_section(self) -> None:
        if self._current is not None:
            self._index.restore_section(self._sections.pop(0)[0], self._current)
            self._begin_section()

    def _begin_section(self) -> None:
        import numpy as np

        self._current, self._filled = None, 0
        if self._sections:
            _, kind, shape = self._sections[0]
            dtype = np.dtype(kind)
            if (
                dtype.hasobject
                or any(size < 0 for size in shape)
                or dtype.itemsize * int(np.prod(shape)) > MAX_SECTION_BYTES
            ):
                raise UnusableSnapshot
            self._current = np.zeros(shape, dtype=dtype)
            if not self._current.size:
                self._finish_section()
