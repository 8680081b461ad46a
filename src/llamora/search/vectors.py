"""The vectors of all passages of one writer, searched exactly or through a graph. The only door to hnswlib."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamora.search.arrays import grow_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamora.search.arrays import Slots, Vectors

NOT_COMPARED = -2.0  # the cosine of what was not compared
GRAPH_POOL = 400  # so many nearest passages a graph is asked for
GRAPH_M, GRAPH_EF_CONSTRUCTION, GRAPH_EF = (
    24,
    200,
    400,
)  # M, ef_construction, ef: top-10 overlap with exact >= 0.99
GRAPH_STEP = (
    100  # passages linked before the thread looks for other work: a search may wait for that long
)
MEAN_SHARE = (
    0.3  # share of the mean of an entry's passages in its cosine; the rest is its best passage
)

# A sketch holds the numbers of every vector along the directions in which the vectors of this journal differ most. To
# compare them all by it reads a third of the memory, and the nearest are then compared in full.
SKETCH_MIN_ROWS = 8_192  # rows; fewer are compared in full in a millisecond or two
SKETCH_WIDTH = 128  # directions
SKETCH_POOL = 1_600  # so many nearest entries are compared in full: top-10 overlap with exact 0.992 of 100,000
SKETCH_STEP = 4_096  # rows sketched before the thread looks for other work
SKETCH_REBUILD_FACTOR = (
    8  # as many times more rows than the directions were found in: they are looked for anew
)
SKETCH_PRODUCT_ROWS = 4  # rows sketched in one product
BLOCK_ROWS = 4_096  # rows made floats of at a time


class VectorIndex:
    """The vectors of all passages, each with the slot of its entry.

    A vector is kept as one byte a number and a scale, which moves a cosine by less than 0.001. Few are compared in
    full, many by a sketch first, or through an HNSW graph once `graph_above` rows are there and the graph is whole. A
    removed row is left empty; `compact` closes the gaps.
    """

    def __init__(self, dim: int, graph_above: int) -> None:
        import numpy as np

        self.dim = dim
        self.row_count = 0
        self.removed_count = 0
        self._codes: NDArray[np.int8] = np.zeros((0, dim), dtype=np.int8)
        self._scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._first_rows: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: its first row
        self._row_counts: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # per slot: how many rows
        self._entry_starts: Slots | None = (
            None  # the first row of each entry, the rows of an entry stand together
        )
        self._sketch: Vectors = np.zeros((0, min(dim, SKETCH_WIDTH)), dtype=np.float32)
        self._directions: Vectors | None = None  # [SKETCH_WIDTH, dim]
        self._sketched_count = 0
        self._directions_row_count = (
            0  # so many rows were there when the directions were looked for
        )
        self._graph_above = graph_above
        self._graph: Any = None
        self._linked_count = 0

    def put(self, slot: int, vectors: "Vectors") -> None:
        """Set the vectors of an entry, in place of older ones."""
        self.drop(slot)
        first, last = self.row_count, self.row_count + len(vectors)
        self._reserve_rows(last)
        self._first_rows = grow_array(self._first_rows, slot + 1)
        self._row_counts = grow_array(self._row_counts, slot + 1)
        self._codes[first:last], self._scales[first:last] = _quantize(vectors)
        self._owners[first:last] = slot
        self._first_rows[slot], self._row_counts[slot] = first, len(vectors)
        self.row_count = last
        if self._directions is not None and self._sketched_count == first:
            self._sketch_rows(last)

    def drop(self, slot: int) -> None:
        """Remove the vectors of an entry; they are overwritten."""
        if not self.has_vectors(slot):
            return
        first, count = int(self._first_rows[slot]), int(self._row_counts[slot])
        self._codes[first : first + count] = 0
        self._sketch[first : first + count] = 0
        self._owners[first : first + count] = -1
        self._entry_starts = None
        self._row_counts[slot] = 0
        self.removed_count += count
        if self._graph is not None:
            # hnswlib keeps the vector of a deleted element; compact() makes a new graph without it.
            for row in range(first, min(first + count, self._linked_count)):
                self._graph.mark_deleted(row)

    def has_vectors(self, slot: int) -> bool:
        """Whether the entry has vectors."""
        return slot < len(self._row_counts) and bool(self._row_counts[slot])

    def compact(self) -> bool:
        """Close the gaps when a third of the rows are gone. True when rows moved."""
        import numpy as np

        if self.removed_count <= max(256, self.row_count // 3):
            return False
        used_rows = np.flatnonzero(self._owners[: self.row_count] >= 0)
        self._codes, self._scales, self._owners = (
            self._codes[used_rows],
            self._scales[used_rows],
            self._owners[used_rows],
        )
        self.row_count, self.removed_count, self._entry_starts = len(used_rows), 0, None
        self._sketch, self._directions, self._sketched_count = self._sketch[:0], None, 0
        self._row_counts[:] = 0
        slots, firsts, counts = np.unique(self._owners, return_index=True, return_counts=True)
        self._first_rows[slots], self._row_counts[slots] = firsts, counts
        self._graph, self._linked_count = None, 0
        return True

    def extend_sketch(self) -> bool:
        """Sketch the next SKETCH_STEP rows. True while there are more."""
        import numpy as np

        if self.row_count < SKETCH_MIN_ROWS:
            return False
        if (
            self._directions is None
            or self.row_count > SKETCH_REBUILD_FACTOR * self._directions_row_count
        ):
            sample = self._decode_rows(
                np.linspace(0, self.row_count - 1, SKETCH_MIN_ROWS).astype(np.intp)
            )
            # In ascending order: the last directions are those in which the vectors differ most.
            _, directions = np.linalg.eigh(sample.T @ sample)
            self._directions = np.ascontiguousarray(directions[:, -SKETCH_WIDTH:].T)
            self._sketched_count, self._directions_row_count = 0, self.row_count
        if self._sketched_count < self.row_count:
            self._sketch_rows(min(self.row_count, self._sketched_count + SKETCH_STEP))
        return self._sketched_count < self.row_count

    def extend_graph(self) -> bool:
        """Bring the next GRAPH_STEP rows into the graph. True while there are more."""
        if self.row_count <= self._graph_above or self._linked_count == self.row_count:
            return False
        if self._graph is None:
            self._graph = _create_graph(self.dim, self.row_count)
            if self._graph is None:
                return False
        last = min(self.row_count, self._linked_count + GRAPH_STEP)
        if last > self._graph.get_max_elements():
            self._graph.resize_index(max(last, 2 * self._graph.get_max_elements()))
        import numpy as np

        rows = np.arange(self._linked_count, last)
        self._graph.add_items(self._decode_rows(rows), rows, num_threads=1)
        for row in rows[self._owners[rows] < 0]:
            self._graph.mark_deleted(int(row))
        self._linked_count = last
        return last < self.row_count

    @property
    def is_graph_complete(self) -> bool:
        """Whether the graph holds every row, so that it can be searched."""
        return self._graph is not None and self._linked_count == self.row_count

    def nearest_cosines(
        self, vector: "Vectors", slot_count: int, allowed_mask: "NDArray[np.bool_] | None"
    ) -> "NDArray[np.float32]":
        """Per slot its likeness to `vector`: its best passage, and a little of all; UNKNOWN without vectors.

        Of many, only the nearest that are `allowed` (all without it) are known.
        """
        import numpy as np

        cosines = np.full(slot_count, NOT_COMPARED, dtype=np.float32)
        if not self.row_count:
            return cosines
        # A filter would starve the graph: what it lets through may be far from all that is near.
        if self.is_graph_complete and allowed_mask is None:
            neighbour_count = min(self.row_count - self.removed_count, GRAPH_POOL)
            labels, _ = self._graph.knn_query(vector, k=neighbour_count, num_threads=1)
            nearest_slots = np.unique(self._owners[labels[0]]).astype(np.intp)
            nearest_slots = nearest_slots[nearest_slots >= 0]
        elif self._directions is not None and self._sketched_count == self.row_count:
            cosines = self._cosines_by_slot(
                _dot_products(
                    self._sketch[: self.row_count], _dot_products(self._directions, vector)
                ),
                slot_count,
            )
            if allowed_mask is not None:
                cosines[~allowed_mask] = NOT_COMPARED
            nearest_slots = (
                np.argpartition(-cosines, SKETCH_POOL)[:SKETCH_POOL]
                if slot_count > SKETCH_POOL
                else np.arange(slot_count)
            )
            nearest_slots = nearest_slots[cosines[nearest_slots] != NOT_COMPARED]
            cosines[:] = NOT_COMPARED
        else:
            blocks = (
                slice(start, min(start + BLOCK_ROWS, self.row_count))
                for start in range(0, self.row_count, BLOCK_ROWS)
            )
            return self._cosines_by_slot(
                np.concatenate([self._row_cosines(rows, vector) for rows in blocks]), slot_count
            )
        cosines[nearest_slots] = self.slot_cosines(nearest_slots, vector)
        return cosines

    def slot_cosines(self, slots: "Slots", vector: "Vectors") -> "NDArray[np.float32]":
        """The same for these slots, in full; UNKNOWN for those without vectors."""
        import numpy as np

        cosines = np.full(len(slots), NOT_COMPARED, dtype=np.float32)
        if not len(self._row_counts):
            return cosines
        present = np.flatnonzero(
            (slots < len(self._row_counts))
            & (self._row_counts[np.minimum(slots, len(self._row_counts) - 1)] > 0)
        )
        if len(present):
            counts = self._row_counts[slots[present]]
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            rows = np.arange(int(counts.sum())) + np.repeat(
                self._first_rows[slots[present]] - starts, counts
            )
            cosines[present] = _blend_cosines(self._row_cosines(rows, vector), starts)
        return cosines

    def nearest_passage(self, slot: int, vector: "Vectors") -> int:
        """The number of the entry's nearest passage; -1 when it has none."""
        if not self.has_vectors(slot):
            return -1
        first = int(self._first_rows[slot])
        return int(
            self._row_cosines(slice(first, first + int(self._row_counts[slot])), vector).argmax()
        )

    def vectors_of(self, slot: int) -> "Vectors":
        """The vectors of an entry, [passages, dim]; none when it has none."""
        if not self.has_vectors(slot):
            return self._decode_rows(slice(0, 0))
        first, count = int(self._first_rows[slot]), int(self._row_counts[slot])
        return self._decode_rows(slice(first, first + count))

    def iter_blocks(
        self,
    ) -> "Iterator[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]]":
        """All rows in turn, BLOCK at a time: owners, scales and codes."""
        for start in range(0, self.row_count, BLOCK_ROWS):
            end = min(self.row_count, start + BLOCK_ROWS)
            yield self._owners[start:end], self._scales[start:end], self._codes[start:end]

    def restore_block(
        self, owners: "NDArray[np.int32]", scales: "NDArray[np.float32]", codes: "NDArray[np.int8]"
    ) -> None:
        """Take rows over as `blocks` gave them, after those that are there."""
        import numpy as np

        first, last = self.row_count, self.row_count + len(owners)
        self._reserve_rows(last)
        self._codes[first:last], self._scales[first:last], self._owners[first:last] = (
            codes,
            scales,
            owners,
        )
        self.row_count = last
        self.removed_count += int((owners < 0).sum())
        used_rows = np.flatnonzero(owners >= 0)
        if len(used_rows):
            self._first_rows = grow_array(self._first_rows, int(owners.max()) + 1)
            self._row_counts = grow_array(self._row_counts, int(owners.max()) + 1)
            slots, offsets, counts = np.unique(
                owners[used_rows], return_index=True, return_counts=True
            )
            is_new = self._row_counts[slots] == 0  # the rows of an entry may lie in two blocks
            self._first_rows[slots[is_new]] = first + used_rows[offsets[is_new]]
            self._row_counts[slots] += counts.astype(np.int32)

    def _reserve_rows(self, rows: int) -> None:
        self._codes, self._scales = grow_array(self._codes, rows), grow_array(self._scales, rows)
        self._owners = grow_array(self._owners, rows, -1)
        self._entry_starts = None

    def _decode_rows(self, rows: "Slots | slice") -> "Vectors":
        """Rows as floats."""
        import numpy as np

        return self._codes[rows].astype(np.float32) * self._scales[rows, None]

    def _row_cosines(self, rows: "Slots | slice", vector: "Vectors") -> "NDArray[np.float32]":
        """The product of each of these rows with a vector.

        The scale comes last, to one number a row: rows made floats first took ten times as long.
        """
        return _dot_products(self._codes[rows], vector) * self._scales[rows]

    def _sketch_rows(self, last: int) -> None:
        """Sketch the rows up to `last`."""
        if self._directions is None:
            return
        self._sketch = grow_array(self._sketch, last)
        rows = slice(self._sketched_count, last)
        vectors = self._decode_rows(rows)
        # In products so small that BLAS does not share them out: see _products.
        aligned = len(vectors) - len(vectors) % SKETCH_PRODUCT_ROWS
        products = vectors[:aligned].reshape(-1, SKETCH_PRODUCT_ROWS, self.dim) @ self._directions.T
        self._sketch[rows][:aligned] = products.reshape(aligned, self._sketch.shape[1])
        self._sketch[rows][aligned:] = vectors[aligned:] @ self._directions.T
        self._sketched_count = last

    def _cosines_by_slot(
        self, cosines: "NDArray[np.float32]", slot_count: int
    ) -> "NDArray[np.float32]":
        """Per slot the likeness that the cosines of all rows make."""
        import numpy as np

        owners = self._owners[: self.row_count]
        if self._entry_starts is None:
            self._entry_starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
        cosines_by_slot = np.full(slot_count, NOT_COMPARED, dtype=np.float32)
        entry_slots = owners[self._entry_starts]
        is_used = entry_slots >= 0
        cosines_by_slot[entry_slots[is_used]] = _blend_cosines(cosines, self._entry_starts)[is_used]
        return cosines_by_slot


def _quantize(vectors: "Vectors") -> "tuple[NDArray[np.int8], NDArray[np.float32]]":
    """Each vector as whole numbers from -127 to 127, and what one of them stands for."""
    import numpy as np

    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    codes = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return codes.astype(np.int8), scales.astype(np.float32)


def _dot_products(rows: "Vectors | NDArray[np.int8]", vector: "Vectors") -> "NDArray[np.float32]":
    """The product of each row with a vector.

    BLAS would share this out among threads that turn idly while they wait for one another: on a busy machine that took
    ten times as long.
    """
    import numpy as np

    return np.einsum("ij,j->i", rows, vector)


def _blend_cosines(cosines: "NDArray[np.float32]", starts: "Slots") -> "NDArray[np.float32]":
    """One likeness for each run of passages that begins at `starts`."""
    import numpy as np

    counts = np.diff(np.append(starts, len(cosines)))
    means = np.add.reduceat(cosines, starts) / counts
    return ((1 - MEAN_SHARE) * np.maximum.reduceat(cosines, starts) + MEAN_SHARE * means).astype(
        np.float32
    )


def _create_graph(dim: int, size: int) -> Any:
    """An empty HNSW graph, or None where hnswlib is not installed."""
    try:
        import hnswlib  # pyright: ignore[reportMissingTypeStubs] -- the package has no types
    except ImportError:
        return None
    graph: Any = hnswlib.Index(space="ip", dim=dim)
    graph.init_index(
        max_elements=max(size + size // 4, 1024), ef_construction=GRAPH_EF_CONSTRUCTION, M=GRAPH_M
    )
    graph.set_ef(GRAPH_EF)
    return graph
