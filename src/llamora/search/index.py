"""Keep one user's unlocked index: words, vectors and metadata, in memory only."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from llamora.dates import format_day, format_weekday
from llamora.search.arrays import grow_array
from llamora.search.fulltext import FulltextIndex, FulltextRow
from llamora.search.query import Query
from llamora.search.ranking import Ranker
from llamora.search.slots import COLUMNS, SlotTable
from llamora.search.tokens import fold, separate_letters
from llamora.search.vectors import VectorIndex
from llamora.text import normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamora.search.arrays import Vectors

MAX_DAY_CHANGES = 4096  # latest entries whose day was set or removed

DayCursor = tuple[object, int]
"""A state of an index, opaque: see UserIndex.days_changed_since."""


@dataclass(slots=True, frozen=True)
class Document:
    """Hold what is indexed of an entry."""

    entry_id: bytes
    revision: int
    day: date
    at: datetime
    by_user: bool
    text: str
    tags: tuple[str, ...] = ()


class UserIndex:
    """Index the entries of one user. All methods are for one thread, the index's own.

    FTS5 cuts, stems and stores the words, but entries are ranked from arrays, which at 100,000
    entries is ten times faster. Everything known of an entry is kept by its slot.
    """

    def __init__(self, graph_above: int) -> None:
        import numpy as np

        self._slots = SlotTable()
        self._fulltext = FulltextIndex()
        self._graph_above = graph_above
        self._vector_indexes: dict[str, VectorIndex] = {}
        self.ranker = Ranker(self._slots, self._fulltext, self._vector_indexes)
        self._word_counts: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # of bodies; -1: unknown
        self.version = 0  # differs after every change
        self._day_changes = 0  # entries that came, went, or came again on what may be another day
        self._changed_day_ids: deque[bytes] = deque(maxlen=MAX_DAY_CHANGES)
        self._identity = object()  # of the cursors of this index
        # The block that is being restored: its owners and scales.
        self._block_owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._block_scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def __len__(self) -> int:
        return len(self._slots.slot_of)

    def close(self) -> None:
        self._fulltext.close()
        self._slots.slot_of.clear()
        self._changed_day_ids.clear()
        self._vector_indexes.clear()

    def put(self, documents: Iterable[Document]) -> None:
        """Index entries, or index them anew; a revision older than the indexed one is ignored."""
        self.version += 1
        with self._fulltext.transaction():
            latest = {document.entry_id: document for document in documents}
            rows = [
                row
                for document in latest.values()
                if (row := self._prepare_row(document)) is not None
            ]
            for (slot, _, _), length in zip(rows, self._fulltext.add(rows), strict=True):
                self._slots.lengths[slot] = length
                if slot < len(self._word_counts):
                    self._word_counts[slot] = -1
        self._fulltext.update_postings(rows)

    def _prepare_row(self, document: Document) -> FulltextRow | None:
        """Fill the columns of an entry; return what FTS5 is to index, None when nothing changed."""
        table = self._slots
        metadata = _metadata_text(document)
        slot = table.slot_of.get(document.entry_id)
        if slot is not None:
            if table.revisions[slot] > document.revision:
                return None
            if table.revisions[slot] < document.revision:
                self._release_slot(slot)
                slot = None
            elif self._fulltext.get_text(slot)[0] == metadata:
                return None
            else:  # the tags changed, not the text
                self._fulltext.remove(slot)
                self._fulltext.clear_postings()
        if slot is None:
            slot = self._allocate_slot(document.entry_id)
            self._record_day_change(document.entry_id)
        table.revisions[slot] = document.revision
        table.live[slot] = True
        table.mine[slot] = document.by_user
        table.days[slot] = document.day.toordinal()
        table.at[slot] = document.at.timestamp()
        return slot, metadata, separate_letters(fold(normalize(document.text)))

    def _allocate_slot(self, entry_id: bytes) -> int:
        # Cached postings may still name a free slot, so it is reused only once they are dropped.
        if self._slots.has_many_free:
            self._fulltext.clear_postings()
        return self._slots.allocate(entry_id, reuse=not self._fulltext.has_postings)

    def _release_slot(self, slot: int) -> None:
        self._fulltext.remove(slot)
        for vector_index in self._vector_indexes.values():
            vector_index.drop(slot)
        self._slots.release(slot)

    def _record_day_change(self, entry_id: bytes) -> None:
        self._day_changes += 1
        self._changed_day_ids.append(entry_id)

    def drop(self, entry_ids: Iterable[bytes]) -> None:
        self.version += 1
        with self._fulltext.transaction():
            for entry_id in entry_ids:
                slot = self._slots.slot_of.get(entry_id)
                if slot is not None:
                    self._release_slot(slot)
                    self._record_day_change(entry_id)

    def put_vectors(
        self, entry_id: bytes, revision: int, vectors: "Vectors", model: str = ""
    ) -> bool:
        """Set the vectors of an entry, [passages, dim], in place of those of any other model.

        Returns False when the entry is gone or at another revision by now.
        """
        slot = self._slots.slot_of.get(entry_id)
        if slot is None or self._slots.revisions[slot] != revision:
            return False
        self.version += 1
        for name, vector_index in list(self._vector_indexes.items()):
            if name != model:
                vector_index.drop(slot)
                if vector_index.row_count == vector_index.removed_count:
                    del self._vector_indexes[name]
        if len(vectors):
            target = self._vector_indexes.get(model)
            if target is None or target.dim != vectors.shape[1]:
                target = self._vector_indexes[model] = VectorIndex(
                    vectors.shape[1], self._graph_above
                )
            target.put(slot, vectors)
        return True

    def vectors_of(self, entry_id: bytes, model: str) -> "Vectors | None":
        """Return the vectors of an entry by a model, [passages, dim], or None."""
        slot, vector_index = self._slots.slot_of.get(entry_id), self._vector_indexes.get(model)
        return (
            vector_index.vectors_of(slot)
            if slot is not None and vector_index is not None and vector_index.has_vectors(slot)
            else None
        )

    def days_of(self, ids: Iterable[bytes]) -> list[int]:
        """Return the day of each entry as date.toordinal() gives it, 0 for one not indexed."""
        import numpy as np

        slots = np.fromiter(
            (self._slots.slot_of.get(entry_id, -1) for entry_id in ids), dtype=np.intp
        )
        if not len(self._slots.days):
            return [0] * len(slots)
        return np.where(slots < 0, 0, self._slots.days[slots]).tolist()

    def days_changed_since(self, cursor: DayCursor | None) -> tuple[DayCursor, list[bytes] | None]:
        """Return the cursor of now, and whose day may differ since `cursor`; None means any."""
        now = (self._identity, self._day_changes)
        if cursor is None or cursor[0] is not self._identity:
            return now, None
        missed = self._day_changes - cursor[1]
        if missed > len(self._changed_day_ids):
            return now, None
        return now, list(islice(reversed(self._changed_day_ids), missed))

    def ids_without_vectors(self, model: str) -> list[bytes]:
        """Return the entries without vectors by a model, newest first."""
        vector_index = self._vector_indexes.get(model)
        missing = [
            (self._slots.at[slot], i)
            for i, slot in self._slots.slot_of.items()
            if vector_index is None or not vector_index.has_vectors(slot)
        ]
        return [entry_id for _, entry_id in sorted(missing, reverse=True)]

    @property
    def models(self) -> set[str]:
        return set(self._vector_indexes)

    def optimize_step(self) -> bool:
        """Do one step of what makes searching faster; return whether there is more to do."""
        for vector_index in self._vector_indexes.values():
            if vector_index.compact():
                self.version += 1
                return True
            if vector_index.extend_sketch() or vector_index.extend_graph():
                return True
        return self._fulltext.prefetch(len(self))

    def merge_step(self) -> bool:
        """Do one step of removing words no entry holds; return whether there is more to do."""
        return self._fulltext.merge_step()

    @property
    def uses_graph(self) -> bool:
        """Return whether vectors are searched through the graph."""
        return any(index.is_graph_complete for index in self._vector_indexes.values())

    def word_counts_by_day(self, first: date, last: date) -> dict[date, int]:
        """Return the words of the user's own entries by day, for days with entries only."""
        import numpy as np

        slot_count = len(self._slots)
        self._word_counts = grow_array(self._word_counts, slot_count, -1)
        days = self._slots.days[:slot_count]
        is_own = self._slots.live[:slot_count] & self._slots.mine[:slot_count]
        selected = np.flatnonzero(is_own & (days >= first.toordinal()) & (days <= last.toordinal()))
        uncounted = selected[self._word_counts[selected] < 0]
        for slot, word_count in self._fulltext.body_word_counts(uncounted.tolist()).items():
            self._word_counts[slot] = word_count
        counts = np.bincount(
            days[selected] - first.toordinal(), weights=self._word_counts[selected]
        )
        ordinals = np.unique(days[selected]).tolist()
        return {date.fromordinal(day): int(counts[day - first.toordinal()]) for day in ordinals}

    def build_snippets(self, query: Query, texts: Sequence[str]) -> list[str]:
        """Return the best matching part of each text, matches marked; "" where none matches."""
        return self._fulltext.build_snippets(query, texts, self._slots.live)

    def iter_sections(self) -> "Iterator[tuple[str, NDArray[Any]]]":
        """Yield the index as named arrays, for `restore_section` in this order."""
        import numpy as np

        table = self._slots
        yield "words", np.frombuffer(self._fulltext.serialize(), dtype=np.uint8)
        ids = b"".join(entry_id or bytes(16) for entry_id in table.ids)
        yield "ids", np.frombuffer(ids, dtype=np.uint8)
        for name in COLUMNS:
            yield name, getattr(table, name)[: len(table)]
        for model, vector_index in self._vector_indexes.items():
            for owners, scales, codes in vector_index.iter_blocks():
                yield f"owners {model}", owners
                yield f"scales {model}", scales
                yield f"vectors {model}", codes

    def restore_section(self, name: str, array: "NDArray[Any]") -> None:
        """Take over a section of `iter_sections`, into an empty index and in the same order.

        Raises ValueError or sqlite3.Error for a damaged one.
        """
        if name == "words":
            self._fulltext.restore(array.data)
        elif name == "ids":
            self._slots.restore_ids(array.tobytes())
        elif name in COLUMNS:
            self._slots.restore_column(name, array)
        elif name.startswith("owners "):
            self._block_owners = array
        elif name.startswith("scales "):
            self._block_scales = array
        elif name.startswith("vectors "):
            self._restore_block(name.removeprefix("vectors "), array)
        else:
            raise ValueError("a section of another format")

    def _restore_block(self, model: str, codes: "NDArray[Any]") -> None:
        owners, scales = self._block_owners, self._block_scales
        shape = codes.shape[:1]
        if (
            owners.shape != shape
            or scales.shape != shape
            or owners.max(initial=-1) >= len(self._slots)
        ):
            raise ValueError("a section does not fit the others")
        vector_index = self._vector_indexes.setdefault(
            model, VectorIndex(codes.shape[1], self._graph_above)
        )
        vector_index.restore_block(owners, scales, codes)

    @property
    def revisions(self) -> dict[bytes, int]:
        numbers = self._slots.revisions.tolist()
        return {entry_id: numbers[slot] for entry_id, slot in self._slots.slot_of.items()}


def _metadata_text(document: Document) -> str:
    """Return what is indexed beside the text: the day in words, and the tags."""
    day = document.day
    tags = " ".join(separate_letters(fold(normalize(tag))) for tag in document.tags)
    return f"{format_weekday(day)} {format_day(day)} {day.isoformat()} {tags}".rstrip()
