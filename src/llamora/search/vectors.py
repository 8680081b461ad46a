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

# A sketch holds the numbers of every vector along the directions in which the vectors of this journal differ most. To
# compare them all by it reads a third of the memory, and the nearest are then compared in full.
SKETCH_FROM = 8_192  # rows; fewer are compared in full in a millisecond or two
SKETCH_WIDTH = 128  # directions
SKETCH_POOL = 1_600  # so many nearest entries are compared in full: top-10 overlap with exact 0.992 of 100,000
SKETCH_STEP = 4_096  # rows sketched before the thread looks for other work
SKETCH_AGAIN = 8  # as many times more rows than the directions were found in: they are looked for anew
AT_ONCE = 4  # rows sketched in one product
BLOCK = 4_096  # rows made floats of at a time


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
    """The vectors of all passages, each with the slot of its entry.

    A vector is kept as one byte a number and a scale, which moves a cosine by less than 0.001. Few are compared in
    full, many by a sketch first, or through an HNSW graph once `graph_above` rows are there and the graph is whole. A
    removed row is left empty; `compact` closes the gaps.
    """

    def __init__(self, dim: int, graph_above: int) -> None:
        import numpy as np

        self.dim = dim
        self.count = 0
        self.dead = 0
        self._codes: NDArray[np.int8] = np.zeros((0, dim), dtype=np.int8)
        self._scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._first: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: its first row
        self._rows: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: how many rows
        self._starts: Slots | None = None  # the first row of each entry, the rows of an entry stand together
        self._sketch: Vectors = np.zeros((0, min(dim, SKETCH_WIDTH)), dtype=np.float32)
        self._directions: Vectors | None = None  # [SKETCH_WIDTH, dim]
        self._sketched = 0
        self._looked_at = 0  # so many rows were there when the directions were looked for
        self._graph_above = graph_above
        self._graph: Any = None
        self._linked = 0

    def put(self, slot: int, vectors: "Vectors") -> None:
        """Set the vectors of an entry, in place of older ones."""
        self.drop(slot)
        first, last = self.count, self.count + len(vectors)
        self._room_for(last)
        self._first = grown(self._first, slot + 1)
        self._rows = grown(self._rows, slot + 1)
        self._codes[first:last], self._scales[first:last] = _coded(vectors)
        self._owners[first:last] = slot
        self._first[slot], self._rows[slot] = first, len(vectors)
        self.count = last
        if self._directions is not None and self._sketched == first:
            self._sketch_rows(last)

    def drop(self, slot: int) -> None:
        """Remove the vectors of an entry; they are overwritten."""
        if not self.has(slot):
            return
        first, rows = int(self._first[slot]), int(self._rows[slot])
        self._codes[first : first + rows] = 0
        self._sketch[first : first + rows] = 0
        self._owners[first : first + rows] = -1
        self._starts = None
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
        self._codes, self._scales, self._owners = self._codes[kept], self._scales[kept], self._owners[kept]
        self.count, self.dead, self._starts = len(kept), 0, None
        self._sketch, self._directions, self._sketched = self._sketch[:0], None, 0
        self._rows[:] = 0
        slots, firsts, counts = np.unique(self._owners, return_index=True, return_counts=True)
        self._first[slots], self._rows[slots] = firsts, counts
        self._graph, self._linked = None, 0
        return True

    def sketch(self) -> bool:
        """Sketch the next SKETCH_STEP rows. True while there are more."""
        import numpy as np

        if self.count < SKETCH_FROM:
            return False
        if self._directions is None or self.count > SKETCH_AGAIN * self._looked_at:
            some = self._vectors(np.linspace(0, self.count - 1, SKETCH_FROM).astype(np.intp))
            # In ascending order: the last directions are those in which the vectors differ most.
            _, directions = np.linalg.eigh(some.T @ some)
            self._directions = np.ascontiguousarray(directions[:, -SKETCH_WIDTH:].T)
            self._sketched, self._looked_at = 0, self.count
        if self._sketched < self.count:
            self._sketch_rows(min(self.count, self._sketched + SKETCH_STEP))
        return self._sketched < self.count

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
        self._graph.add_items(self._vectors(rows), rows, num_threads=1)
        for row in rows[self._owners[rows] < 0]:
            self._graph.mark_deleted(int(row))
        self._linked = last
        return last < self.count

    @property
    def linked(self) -> bool:
        """Whether the graph holds every row, so that it can be searched."""
        return self._graph is not None and self._linked == self.count

    def nearest(self, vector: "Vectors", slots: int, allowed: "NDArray[np.bool_] | None") -> "NDArray[np.float32]":
        """Per slot its likeness to `vector`: its best passage, and a little of all; UNKNOWN without vectors.

        Of many, only the nearest that are `allowed` (all without it) are known.
        """
        import numpy as np

        likeness = np.full(slots, UNKNOWN, dtype=np.float32)
        if not self.count:
            return likeness
        # A filter would starve the graph: what it lets through may be far from all that is near.
        if self.linked and allowed is None:
            wanted = min(self.count - self.dead, GRAPH_POOL)
            labels, _ = self._graph.knn_query(vector, k=wanted, num_threads=1)
            near = np.unique(self._owners[labels[0]]).astype(np.intp)
            near = near[near >= 0]
        elif self._directions is not None and self._sketched == self.count:
            likeness = self._by_entry(_products(self._sketch[: self.count], _products(self._directions, vector)), slots)
            if allowed is not None:
                likeness[~allowed] = UNKNOWN
            near = np.argpartition(-likeness, SKETCH_POOL)[:SKETCH_POOL] if slots > SKETCH_POOL else np.arange(slots)
            near = near[likeness[near] != UNKNOWN]
            likeness[:] = UNKNOWN
        else:
            blocks = (slice(start, min(start + BLOCK, self.count)) for start in range(0, self.count, BLOCK))
            return self._by_entry(np.concatenate([self._cosines(rows, vector) for rows in blocks]), slots)
        likeness[near] = self.likeness(near, vector)
        return likeness

    def likeness(self, slots: "Slots", vector: "Vectors") -> "NDArray[np.float32]":
        """The same for these slots, in full; UNKNOWN for those without vectors."""
        import numpy as np

        found = np.full(len(slots), UNKNOWN, dtype=np.float32)
        if not len(self._rows):
            return found
        known = np.flatnonzero((slots < len(self._rows)) & (self._rows[np.minimum(slots, len(self._rows) - 1)] > 0))
        if len(known):
            counts = self._rows[slots[known]]
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            rows = np.arange(int(counts.sum())) + np.repeat(self._first[slots[known]] - starts, counts)
            found[known] = _blend(self._cosines(rows, vector), starts)
        return found

    def passage(self, slot: int, vector: "Vectors") -> int:
        """The number of the entry's nearest passage; -1 when it has none."""
        if not self.has(slot):
            return -1
        first = int(self._first[slot])
        return int(self._cosines(slice(first, first + int(self._rows[slot])), vector).argmax())

    def of(self, slot: int) -> "Vectors":
        """The vectors of an entry, [passages, dim]; none when it has none."""
        if not self.has(slot):
            return self._vectors(slice(0, 0))
        first, rows = int(self._first[slot]), int(self._rows[slot])
        return self._vectors(slice(first, first + rows))

    def blocks(self) -> "Iterator[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]]":
        """All rows in turn, BLOCK at a time: owners, scales and codes."""
        for start in range(0, self.count, BLOCK):
            end = min(self.count, start + BLOCK)
            yield self._owners[start:end], self._scales[start:end], self._codes[start:end]

    def restore(self, owners: "NDArray[np.int32]", scales: "NDArray[np.float32]", codes: "NDArray[np.int8]") -> None:
        """Take rows over as `blocks` gave them, after those that are there."""
        import numpy as np

        first, last = self.count, self.count + len(owners)
        self._room_for(last)
        self._codes[first:last], self._scales[first:last], self._owners[first:last] = codes, scales, owners
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

    def _room_for(self, rows: int) -> None:
        self._codes, self._scales = grown(self._codes, rows), grown(self._scales, rows)
        self._owners = grown(self._owners, rows, -1)
        self._starts = None

    def _vectors(self, rows: "Slots | slice") -> "Vectors":
        """Rows as floats."""
        import numpy as np

        return self._codes[rows].astype(np.float32) * self._scales[rows, None]

    def _cosines(self, rows: "Slots | slice", vector: "Vectors") -> "NDArray[np.float32]":
        """The product of each of these rows with a vector.

        The scale comes last, to one number a row: rows made floats first took ten times as long.
        """
        return _products(self._codes[rows], vector) * self._scales[rows]

    def _sketch_rows(self, last: int) -> None:
        """Sketch the rows up to `last`."""
        if self._directions is None:
            return
        self._sketch = grown(self._sketch, last)
        rows = slice(self._sketched, last)
        vectors = self._vectors(rows)
        # In products so small that BLAS does not share them out: see _products.
        even = len(vectors) - len(vectors) % AT_ONCE
        parts = vectors[:even].reshape(-1, AT_ONCE, self.dim) @ self._directions.T
        self._sketch[rows][:even] = parts.reshape(even, self._sketch.shape[1])
        self._sketch[rows][even:] = vectors[even:] @ self._directions.T
        self._sketched = last

    def _by_entry(self, cosines: "NDArray[np.float32]", slots: int) -> "NDArray[np.float32]":
        """Per slot the likeness that the cosines of all rows make."""
        import numpy as np

        owners = self._owners[: self.count]
        if self._starts is None:
            self._starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
        likeness = np.full(slots, UNKNOWN, dtype=np.float32)
        entries = owners[self._starts]
        here = entries >= 0
        likeness[entries[here]] = _blend(cosines, self._starts)[here]
        return likeness


def _coded(vectors: "Vectors") -> "tuple[NDArray[np.int8], NDArray[np.float32]]":
    """Each vector as whole numbers from -127 to 127, and what one of them stands for."""
    import numpy as np

    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    codes = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return codes.astype(np.int8), scales.astype(np.float32)


def _products(rows: "Vectors | NDArray[np.int8]", vector: "Vectors") -> "NDArray[np.float32]":
    """The product of each row with a vector.

    BLAS would share this out among threads that turn idly while they wait for one another: on a busy machine that took
    ten times as long.
    """
    import numpy as np

    return np.einsum("ij,j->i", rows, vector)


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
