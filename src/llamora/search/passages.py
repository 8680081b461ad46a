"""The vectors of all passages of one writer, searched exactly or through a graph. The only door to hnswlib."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Slots = NDArray[np.intp]

UNKNOWN = -2.0  # the cosine of what was not compared
GRAPH_POOL = 400  # so many nearest passages a graph is asked for
GRAPH_LINKS, GRAPH_BUILD, GRAPH_SEARCH = 24, 200, 400  # M, ef_construction, ef: top-10 overlap with exact >= 0.99
GRAPH_STEP = 100  # passages linked before the thread looks for other work: a search may wait for that long
WHOLE = 0.3  # share of the mean of an entry's passages in its cosine; the rest is its best passage


def grown(array: Any, size: int, fill: float = 0) -> Any:
    """`array` with room for `size` rows: geometric growth keeps adding cheap."""
    import numpy as np

    if size <= len(array):
        return array
    shape = (max(size, len(array) + len(array) // 2, 256), *array.shape[1:])
    # Memory that was never written to is not taken from the machine.
    wider = np.full(shape, fill, dtype=array.dtype) if fill else np.zeros(shape, dtype=array.dtype)
    wider[: len(array)] = array
    return wider


class Passages:
    """The vectors of all passages, float32 [rows, dim], each with the slot of its entry.

    Searched exactly, or through an HNSW graph once `graph_above` rows are there and the graph is whole. A removed
    row is left empty; `compact` closes the gaps.
    """

    def __init__(self, dim: int, graph_above: int) -> None:
        import numpy as np

        self.dim = dim
        self.count = 0
        self.dead = 0
        self._matrix: Vectors = np.zeros((0, dim), dtype=np.float32)
        self._owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._first: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: its first row
        self._rows: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: how many rows
        self._graph_above = graph_above
        self._graph: Any = None
        self._linked = 0

    def put(self, slot: int, vectors: "Vectors") -> None:
        """Set the vectors of an entry, in place of older ones."""
        self.drop(slot)
        first, last = self.count, self.count + len(vectors)
        self._matrix = grown(self._matrix, last)
        self._owners = grown(self._owners, last, -1)
        self._first = grown(self._first, slot + 1)
        self._rows = grown(self._rows, slot + 1)
        self._matrix[first:last] = vectors
        self._owners[first:last] = slot
        self._first[slot], self._rows[slot] = first, len(vectors)
        self.count = last

    def drop(self, slot: int) -> None:
        """Remove the vectors of an entry; they are overwritten."""
        if not self.has(slot):
            return
        first, rows = int(self._first[slot]), int(self._rows[slot])
        self._matrix[first : first + rows] = 0
        self._owners[first : first + rows] = -1
        self._rows[slot] = 0
        self.dead += rows
        if self._graph is not None:
            # hnswlib keeps the vector of a deleted element; compact() makes a new graph without it.
            for row in range(first, min(first + rows, self._linked)):
                self._graph.mark_deleted(row)

    def has(self, slot: int) -> bool:
        """Whether the entry has vectors."""
        return slot < len(self._rows) and bool(self._rows[slot])

    def compact(self) -> bool:
        """Close the gaps when a third of the rows are gone. True when rows moved."""
        import numpy as np

        if self.dead <= max(256, self.count // 3):
            return False
        kept = np.flatnonzero(self._owners[: self.count] >= 0)
        self._matrix, self._owners = self._matrix[kept], self._owners[kept]
        self.count, self.dead = len(kept), 0
        self._rows[:] = 0
        slots, firsts, counts = np.unique(self._owners, return_index=True, return_counts=True)
        self._first[slots], self._rows[slots] = firsts, counts
        self._graph, self._linked = None, 0
        return True

    def link(self) -> bool:
        """Bring the next GRAPH_STEP rows into the graph. True while there are more."""
        if self.count <= self._graph_above or self._linked == self.count:
            return False
        if self._graph is None:
            self._graph = _new_graph(self.dim, self.count)
            if self._graph is None:
                return False
        last = min(self.count, self._linked + GRAPH_STEP)
        if last > self._graph.get_max_elements():
            self._graph.resize_index(max(last, 2 * self._graph.get_max_elements()))
        import numpy as np

        rows = np.arange(self._linked, last)
        self._graph.add_items(self._matrix[rows], rows, num_threads=1)
        for row in rows[self._owners[rows] < 0]:
            self._graph.mark_deleted(int(row))
        self._linked = last
        return last < self.count

    @property
    def linked(self) -> bool:
        """Whether the graph holds every row, so that it can be searched."""
        return self._graph is not None and self._linked == self.count

    def nearest(self, vector: "Vectors", slots: int, exact: bool) -> "NDArray[np.float32]":
        """Per slot its likeness to `vector`: its best passage, and a little of all; UNKNOWN without vectors.

        The graph, where there is one and `exact` does not forbid it, compares the nearest only.
        """
        import numpy as np

        likeness = np.full(slots, UNKNOWN, dtype=np.float32)
        if not self.count:
            return likeness
        if self.linked and not exact:
            wanted = min(self.count - self.dead, GRAPH_POOL)
            labels, _ = self._graph.knn_query(vector, k=wanted, num_threads=1)
            near = np.unique(self._owners[labels[0]]).astype(np.intp)
            near = near[near >= 0]
            likeness[near] = self.likeness(near, vector)
            return likeness
        owners = self._owners[: self.count]
        # The rows of an entry stand together.
        starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
        here = owners[starts] >= 0
        likeness[owners[starts][here]] = _blend(self._matrix[: self.count] @ vector, starts)[here]
        return likeness

    def likeness(self, slots: "Slots", vector: "Vectors") -> "NDArray[np.float32]":
        """The same for these slots; UNKNOWN for those without vectors."""
        import numpy as np

        found = np.full(len(slots), UNKNOWN, dtype=np.float32)
        known = np.flatnonzero((slots < len(self._rows)) & (self._rows[np.minimum(slots, len(self._rows) - 1)] > 0))
        if len(known):
            counts = self._rows[slots[known]]
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            rows = np.arange(int(counts.sum())) + np.repeat(self._first[slots[known]] - starts, counts)
            found[known] = _blend(self._matrix[rows] @ vector, starts)
        return found

    def passage(self, slot: int, vector: "Vectors") -> int:
        """The number of the entry's nearest passage; -1 when it has none."""
        if not self.has(slot):
            return -1
        return int((self.of(slot) @ vector).argmax())

    def of(self, slot: int) -> "Vectors":
        """The vectors of an entry, [passages, dim]; none when it has none."""
        if not self.has(slot):
            return self._matrix[:0]
        first, rows = int(self._first[slot]), int(self._rows[slot])
        return self._matrix[first : first + rows]

    def blocks(self, rows: int) -> "Iterator[tuple[NDArray[np.int32], NDArray[np.float16]]]":
        """All rows in turn, `rows` at a time: owners and vectors. Half precision moves a cosine by less than 0.001."""
        import numpy as np

        for start in range(0, self.count, rows):
            end = min(self.count, start + rows)
            yield self._owners[start:end], self._matrix[start:end].astype(np.float16)

    def restore(self, owners: "NDArray[np.int32]", vectors: "NDArray[np.float16]") -> None:
        """Take rows over as `blocks` gave them, after those that are there."""
        import numpy as np

        first, last = self.count, self.count + len(owners)
        self._matrix, self._owners = grown(self._matrix, last), grown(self._owners, last, -1)
        self._matrix[first:last] = vectors
        self._owners[first:last] = owners
        self.count = last
        self.dead += int((owners < 0).sum())
        here = np.flatnonzero(owners >= 0)
        if len(here):
            self._first = grown(self._first, int(owners.max()) + 1)
            self._rows = grown(self._rows, int(owners.max()) + 1)
            slots, places, counts = np.unique(owners[here], return_index=True, return_counts=True)
            began = self._rows[slots] == 0  # the rows of an entry may lie in two blocks
            self._first[slots[began]] = first + here[places[began]]
            self._rows[slots] += counts.astype(np.int32)


def _blend(cosines: "NDArray[np.float32]", starts: "Slots") -> "NDArray[np.float32]":
    """One likeness for each run of passages that begins at `starts`."""
    import numpy as np

    counts = np.diff(np.append(starts, len(cosines)))
    means = np.add.reduceat(cosines, starts) / counts
    return ((1 - WHOLE) * np.maximum.reduceat(cosines, starts) + WHOLE * means).astype(np.float32)


def _new_graph(dim: int, size: int) -> Any:
    """An empty HNSW graph, or None where hnswlib is not installed."""
    try:
        import hnswlib  # pyright: ignore[reportMissingTypeStubs] -- the package has no types
    except ImportError:
        return None
    graph: Any = hnswlib.Index(space="ip", dim=dim)
    graph.init_index(max_elements=max(size + size // 4, 1024), ef_construction=GRAPH_BUILD, M=GRAPH_LINKS)
    graph.set_ef(GRAPH_SEARCH)
    return graph
