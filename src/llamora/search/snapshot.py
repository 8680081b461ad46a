"""Write an index as parts small enough to seal one by one, and read it back. Pure.

The first part is JSON: the format, and the name, type and shape of every section. The others hold
the bytes of all sections in a row, cut every PART_BYTES. That a snapshot can be read proves
nothing: the caller compares the revision of every entry with the store.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from llamora.search.fulltext import TOKENIZER
from llamora.search.index import UserIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 5  # raise when indexes change so that older snapshots are of no use
PART_BYTES = 2_000_000
MAX_SECTION_BYTES = 2**31  # more is damage


class UnusableSnapshot(Exception):
    """Report that a snapshot is of another format, incomplete or inconsistent."""


class _Header(msgspec.Struct):
    """`unindexed` are revisions of records that are not indexed, `tags` those of entries."""

    version: tuple[int, str]
    sections: list[tuple[str, str, tuple[int, ...]]]
    unindexed: dict[bytes, int]
    tags: Mapping[bytes, frozenset[bytes]]


class SnapshotWriter:
    """Cut an index into parts, on its thread; `header` is complete once all parts are written."""

    def __init__(
        self,
        index: UserIndex,
        unindexed: dict[bytes, int],
        tags: Mapping[bytes, frozenset[bytes]],
    ) -> None:
        self._index = index
        self._unindexed = unindexed
        self._tags = tags
        self._sections: list[tuple[str, str, tuple[int, ...]]] = []

    def iter_parts(self) -> Iterator[bytes]:
        """Yield the parts from 1 on."""
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
        """Return part 0."""
        version = (FORMAT, TOKENIZER)
        return msgspec.json.encode(_Header(version, self._sections, self._unindexed, self._tags))


class SnapshotReader:
    """Fill an empty index from parts.

    Methods raise UnusableSnapshot, or what SQLite and numpy raise for damaged content.
    """

    def __init__(self, index: UserIndex, header: bytes) -> None:
        import numpy as np

        fields = msgspec.json.decode(header, type=_Header)
        if fields.version != (FORMAT, TOKENIZER):
            raise UnusableSnapshot
        self._index = index
        self._sections = fields.sections
        sizes = [np.dtype(kind).itemsize * int(np.prod(shape)) for _, kind, shape in self._sections]
        self.part_count = -(-sum(sizes) // PART_BYTES)
        self._current: NDArray[Any] | None = None
        self._filled = 0
        self._begin_section()
        self.unindexed, self.tags = fields.unindexed, fields.tags

    @property
    def is_complete(self) -> bool:
        return self._current is None

    def feed(self, part: bytes) -> None:
        """Read the next part."""
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
