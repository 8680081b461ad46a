"""Compare the vectors of one user's passages, exactly or by a graph. The only door to hnswlib."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamora.search.arrays import grow_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamora.search.arrays import Mask, Slots, Vectors

NOT_COMPARED = -2.0  # in place of a cosine
MEAN_SHARE = 0.3  # of the mean of all passages in an entry's cosine; the rest is the best passage
BLOCK_ROWS = 4_096  # decoded at a time

GRAPH_POOL = 400  # nearest passages that a graph is asked for
# M, ef_construction and ef of HNSW: top-10 overlap with exact comparison is 0.99 or more.
GRAPH_M, GRAPH_EF_CONSTRUCTION, GRAPH_EF = 24, 200, 400
GRAPH_STEP = 100  # rows linked in one step, for which a search may have to wait

# A sketch has the components of every vector along the directions in which this journal's vectors
# differ most. Comparing sketches reads a third of the memory; the nearest are compared in full.
SKETCH_MIN_ROWS = 8_192  # fewer are compared in full in a millisecond or two
SKETCH_WIDTH = 128  # directions
SKETCH_POOL = 1_600  # entries compared in full: top-10 overlap with exact is 0.992 of 100,000
SKETCH_STEP = 4_096  # rows sketched in one step
SKETCH_REBUILD_FACTOR = 8  # with so many times more rows new directions are found
SKETCH_PRODUCT_ROWS = 4  # rows in one product, which BLAS does not share out: see _dot_products


class VectorIndex:
    """Keep the vectors of all passages, each with the slot of its entry.

    A number of a vector takes one byte, with a scale per vector, which moves cosines by less than
    0.001. Few vectors are compared in full, many by a sketch first, or by an HNSW graph once there
    are `graph_above` rows and all are linked. Removed rows stay empty until `compact`.
    """

    def __init__(self, dim: int, graph_above: int) -> None:
        import numpy as np

        self.dim = dim
        self.row_count = 0
        self.removed_count = 0
        self._codes: NDArray[np.int8] = np.zeros((0, dim), dtype=np.int8)
        self._scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._first_rows: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # by slot
        self._row_counts: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # by slot
        self._entry_starts: Slots | None = None  # first row of each run of an entry's rows
        self._sketch: Vectors = np.zeros((0, min(dim, SKETCH_WIDTH)), dtype=np.float32)
        self._directions: Vectors | None = None  # [SKETCH_WIDTH, dim]
        self._sketched_count = 0
        self._directions_row_count = 0  # rows when the directions were found
        self._graph_above = graph_above
        self._graph: Any = None
        self._linked_count = 0

    def put(self, slot: int, vectors: "Vectors") -> None:
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
            # hnswlib keeps the vector of a deleted element until compact() drops the graph.
            for row in range(first, min(first + count, self._linked_count)):
                self._graph.mark_deleted(row)

    def has_vectors(self, slot: int) -> bool:
        return slot < len(self._row_counts) and bool(self._row_counts[slot])

    def compact(self) -> bool:
        """Close the gaps when a third of the rows are removed; return whether rows moved."""
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
        """Sketch the next SKETCH_STEP rows; return whether there are more."""
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
            # Ascending: the vectors differ most in the last directions.
            _, directions = np.linalg.eigh(sample.T @ sample)
            self._directions = np.ascontiguousarray(directions[:, -SKETCH_WIDTH:].T)
            self._sketched_count, self._directions_row_count = 0, self.row_count
        if self._sketched_count < self.row_count:
            self._sketch_rows(min(self.row_count, self._sketched_count + SKETCH_STEP))
        return self._sketched_count < self.row_count

    def extend_graph(self) -> bool:
        """Link the next GRAPH_STEP rows into the graph; return whether there are more."""
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
        """Return whether all rows are linked, so that the graph can be searched."""
        return self._graph is not None and self._linked_count == self.row_count

    def nearest_cosines(
        self, vector: "Vectors", slot_count: int, allowed: "Mask | None"
    ) -> "NDArray[np.float32]":
        """Return each slot's cosine to `vector`, that of its best passage with a share of the mean.

        NOT_COMPARED without vectors, and, of many, for all but the nearest that are allowed.
        """
        import numpy as np

        cosines = np.full(slot_count, NOT_COMPARED, dtype=np.float32)
        if not self.row_count:
            return cosines
        # What a filter allows may be far from all that the graph finds near.
        if self.is_graph_complete and allowed is None:
            nearest_slots = self._nearest_by_graph(vector)
        elif self._directions is not None and self._sketched_count == self.row_count:
            nearest_slots = self._nearest_by_sketch(self._directions, vector, slot_count, allowed)
        else:
            blocks = (
                slice(start, min(start + BLOCK_ROWS, self.row_count))
                for start in range(0, self.row_count, BLOCK_ROWS)
            )
            products = np.concatenate([self._row_cosines(rows, vector) for rows in blocks])
            return self._cosines_by_slot(products, slot_count)
        cosines[nearest_slots] = self.slot_cosines(nearest_slots, vector)
        return cosines

    def _nearest_by_graph(self, vector: "Vectors") -> "Slots":
        import numpy as np

        neighbour_count = min(self.row_count - self.removed_count, GRAPH_POOL)
        labels, _ = self._graph.knn_query(vector, k=neighbour_count, num_threads=1)
        slots = np.unique(self._owners[labels[0]]).astype(np.intp)
        return slots[slots >= 0]

    def _nearest_by_sketch(
        self, directions: "Vectors", vector: "Vectors", slot_count: int, allowed: "Mask | None"
    ) -> "Slots":
        import numpy as np

        products = _dot_products(self._sketch[: self.row_count], _dot_products(directions, vector))
        cosines = self._cosines_by_slot(products, slot_count)
        if allowed is not None:
            cosines[~allowed] = NOT_COMPARED
        slots = np.arange(slot_count)
        if slot_count > SKETCH_POOL:
            slots = np.argpartition(-cosines, SKETCH_POOL)[:SKETCH_POOL]
        return slots[cosines[slots] != NOT_COMPARED]

    def slot_cosines(self, slots: "Slots", vector: "Vectors") -> "NDArray[np.float32]":
        """Return the cosines of these slots, compared in full; NOT_COMPARED without vectors."""
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
        """Return the number of an entry's nearest passage, -1 without vectors."""
        if not self.has_vectors(slot):
            return -1
        first = int(self._first_rows[slot])
        return int(
            self._row_cosines(slice(first, first + int(self._row_counts[slot])), vector).argmax()
        )

    def vectors_of(self, slot: int) -> "Vectors":
        if not self.has_vectors(slot):
            return self._decode_rows(slice(0, 0))
        first, count = int(self._first_rows[slot]), int(self._row_counts[slot])
        return self._decode_rows(slice(first, first + count))

    def iter_blocks(
        self,
    ) -> "Iterator[tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]]":
        """Yield all rows, BLOCK_ROWS at a time: owners, scales and codes."""
        for start in range(0, self.row_count, BLOCK_ROWS):
            end = min(self.row_count, start + BLOCK_ROWS)
            yield self._owners[start:end], self._scales[start:end], self._codes[start:end]

    def restore_block(
        self, owners: "NDArray[np.int32]", scales: "NDArray[np.float32]", codes: "NDArray[np.int8]"
    ) -> None:
        """Append rows as `iter_blocks` yields them."""
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
            is_new = self._row_counts[slots] == 0  # an entry may be in two blocks
            self._first_rows[slots[is_new]] = first + used_rows[offsets[is_new]]
            self._row_counts[slots] += counts.astype(np.int32)

    def _reserve_rows(self, rows: int) -> None:
        self._codes, self._scales = grow_array(self._codes, rows), grow_array(self._scales, rows)
        self._owners = grow_array(self._owners, rows, -1)
        self._entry_starts = None

    def _decode_rows(self, rows: "Slots | slice") -> "Vectors":
        import numpy as np

        return self._codes[rows].astype(np.float32) * self._scales[rows, None]

    def _row_cosines(self, rows: "Slots | slice", vector: "Vectors") -> "NDArray[np.float32]":
        """Return the product of each row with a vector.

        Scaling the products takes a tenth of the time of scaling the rows.
        """
        return _dot_products(self._codes[rows], vector) * self._scales[rows]

    def _sketch_rows(self, last: int) -> None:
        if self._directions is None:
            return
        self._sketch = grow_array(self._sketch, last)
        rows = slice(self._sketched_count, last)
        vectors = self._decode_rows(rows)
        aligned = len(vectors) - len(vectors) % SKETCH_PRODUCT_ROWS
        products = vectors[:aligned].reshape(-1, SKETCH_PRODUCT_ROWS, self.dim) @ self._directions.T
        self._sketch[rows][:aligned] = products.reshape(aligned, self._sketch.shape[1])
        self._sketch[rows][aligned:] = vectors[aligned:] @ self._directions.T
        self._sketched_count = last

    def _cosines_by_slot(
        self, cosines: "NDArray[np.float32]", slot_count: int
    ) -> "NDArray[np.float32]":
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
    """Return vectors as integers from -127 to 127, and what 1 stands for in each."""
    import numpy as np

    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    codes = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
    return codes.astype(np.int8), scales.astype(np.float32)


def _dot_products(rows: "Vectors | NDArray[np.int8]", vector: "Vectors") -> "NDArray[np.float32]":
    """Return the product of each row with a vector.

    BLAS would share it out among threads that spin while they wait for one another, which on a busy
    machine took ten times as long.
    """
    import numpy as np

    return np.einsum("ij,j->i", rows, vector)


def _blend_cosines(cosines: "NDArray[np.float32]", starts: "Slots") -> "NDArray[np.float32]":
    """Return one cosine for each run of passages, which begin at `starts`."""
    import numpy as np

    counts = np.diff(np.append(starts, len(cosines)))
    means = np.add.reduceat(cosines, starts) / counts
    return ((1 - MEAN_SHARE) * np.maximum.reduceat(cosines, starts) + MEAN_SHARE * means).astype(
        np.float32
    )


def _create_graph(dim: int, size: int) -> Any:
    """Return an empty HNSW graph, None where hnswlib is not installed."""
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
