"""One writer's unlocked index: words in tables in memory, passages in matrices. Nothing touches the disk."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from llamora.dates import format_day, format_weekday
from llamora.search.bm25 import PROXIMITY_SHARE, bm25_scores, drop_common_terms, proximity_scores
from llamora.search.fulltext import FulltextIndex, FulltextRow
from llamora.search.rank import (
    DATE_BOOST,
    EXACT_FORM_BOOST,
    LOOKUP_MAX_WORDS,
    MIN_COSINE,
    OWN_ENTRY_BOOST,
    QUOTED_BOOST,
    WHOLE_QUERY_BOOST,
    Query,
    fold,
    fuse_scores,
    lexical_weight,
    phrase_literal,
    separate_letters,
)
from llamora.search.vectors import NOT_COMPARED, VectorIndex, grow_array
from llamora.text import normalize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Slots = NDArray[np.intp]
    Mask = NDArray[np.bool_]
    Scores = NDArray[np.float64]

DENSE_POOL = 200  # so many nearest entries are weighed against those found by word
LEXICAL_POOL = 1000  # so many best matches by word are weighed against meaning; the others follow by word alone
EXACT_FORM_POOL = 200  # the best matches of a look-up whose text is looked at for words that very many entries hold
MAX_DAY_CHANGES = 4096  # ids of entries whose day was set or taken last
SLOT_ARRAYS = ("revisions", "live", "mine", "days", "at", "lengths")  # what is kept of every slot


DayCursor = tuple[object, int]
"""A moment of an index: see UserIndex.moved_since."""


@dataclass(slots=True, frozen=True)
class Document:
    """What is indexed of an entry."""

    entry_id: bytes
    revision: int
    day: date
    at: datetime
    by_user: bool
    text: str
    tags: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Match:
    """An entry that was found: `passage` is the number of its nearest passage, -1 without vectors.

    `likeness` is its cosine to the question, UNKNOWN without.
    """

    entry_id: bytes
    score: float
    passage: int
    cosine: float = NOT_COMPARED


@dataclass(slots=True, frozen=True)
class Matches:
    """The matches asked for, best first, and how many there are in all."""

    matches: tuple[Match, ...]
    total: int
    is_semantic: bool


class UserIndex:
    """Words and vectors of one writer. All methods are for one thread, the index's own.

    Every entry has a slot, by which all is kept that is known of it. FTS5 cuts, stems and stores the words (`lexicon`);
    which entry is best is reckoned from arrays (`words`), which at 100,000 entries is ten times faster.
    """

    def __init__(self, graph_above: int) -> None:
        import numpy as np

        self._fulltext = FulltextIndex()
        self._slots: dict[bytes, int] = {}
        self._free_slots: list[int] = []
        self._ids: list[bytes] = []
        self._revisions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._live: Mask = np.zeros(0, dtype=np.bool_)
        self._mine: Mask = np.zeros(0, dtype=np.bool_)
        self._days: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._at: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self._lengths: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._word_counts: NDArray[np.int32] = np.zeros(
            0, dtype=np.int32
        )  # of the text alone; -1: not asked for yet
        self._graph_above = graph_above
        self._vector_indexes: dict[str, VectorIndex] = {}
        self._section_owners: NDArray[np.int32] = np.zeros(
            0, dtype=np.int32
        )  # of the block that is being taken over
        self._section_scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self.version = 0  # another one after every change
        self._day_changes = (
            0  # how often an entry came, went, or came anew on what may be another day
        )
        self._changed_day_ids: deque[bytes] = deque(maxlen=MAX_DAY_CHANGES)
        self._identity = object()  # what marks of this index bear, and those of no other

    def __len__(self) -> int:
        return len(self._slots)

    def close(self) -> None:
        """Forget everything."""
        self._fulltext.close()
        self._slots.clear()
        self._changed_day_ids.clear()
        self._vector_indexes.clear()

    def put(self, documents: Iterable[Document]) -> None:
        """Index entries, or index them anew; one of an older revision than is there is passed over."""
        rows: list[FulltextRow] = []
        self.version += 1
        with self._fulltext.transaction():
            for document in {document.entry_id: document for document in documents}.values():
                metadata = _metadata_text(document)
                slot = self._slots.get(document.entry_id)
                if slot is not None:
                    if self._revisions[slot] > document.revision:
                        continue
                    if self._revisions[slot] == document.revision:
                        # The text is the same; its traces may not be.
                        if self._fulltext.get_text(slot)[0] == metadata:
                            continue
                        self._fulltext.remove(slot)
                        self._fulltext.clear_postings()
                    else:
                        self._release_slot(slot)
                        slot = None
                if slot is None:
                    slot = self._allocate_slot(document.entry_id)
                    self._record_day_change(document.entry_id)
                self._revisions[slot] = document.revision
                self._live[slot] = True
                self._mine[slot] = document.by_user
                self._days[slot] = document.day.toordinal()
                self._at[slot] = document.at.timestamp()
                rows.append((slot, metadata, separate_letters(fold(normalize(document.text)))))
            for (slot, _, _), length in zip(rows, self._fulltext.add(rows), strict=True):
                self._lengths[slot] = length
                if slot < len(self._word_counts):
                    self._word_counts[slot] = -1
        self._fulltext.update_postings(rows)

    def drop(self, entry_ids: Iterable[bytes]) -> None:
        """Take entries out: their words, their text and their vectors."""
        self.version += 1
        with self._fulltext.transaction():
            for entry_id in entry_ids:
                slot = self._slots.get(entry_id)
                if slot is not None:
                    self._release_slot(slot)
                    self._record_day_change(entry_id)

    def put_vectors(
        self, entry_id: bytes, revision: int, vectors: "Vectors", model: str = ""
    ) -> bool:
        """Set the vectors of an entry by a model, [passages, dim], in place of those by another.

        False when the entry is gone or at another revision by now.
        """
        slot = self._slots.get(entry_id)
        if slot is None or self._revisions[slot] != revision:
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
        """The vectors of an entry by a model, or None."""
        slot, vector_index = self._slots.get(entry_id), self._vector_indexes.get(model)
        return (
            vector_index.vectors_of(slot)
            if slot is not None and vector_index is not None and vector_index.has_vectors(slot)
            else None
        )

    def days_of(self, ids: Iterable[bytes]) -> list[int]:
        """The day of each entry as date.toordinal() gives it, 0 for one that is not here."""
        import numpy as np

        slots = np.fromiter((self._slots.get(entry_id, -1) for entry_id in ids), dtype=np.intp)
        if not len(self._days):
            return [0] * len(slots)
        return np.where(slots < 0, 0, self._days[slots]).tolist()

    def days_changed_since(self, cursor: DayCursor | None) -> tuple[DayCursor, list[bytes] | None]:
        """Whose day `days_of` may give otherwise than at a mark, and the mark of now; None: anybody's."""
        now = (self._identity, self._day_changes)
        missed = (
            self._day_changes - cursor[1]
            if cursor and cursor[0] is self._identity
            else MAX_DAY_CHANGES + 1
        )
        return now, list(islice(reversed(self._changed_day_ids), missed)) if missed <= len(
            self._changed_day_ids
        ) else None

    def ids_without_vectors(self, model: str) -> list[bytes]:
        """The entries that have no vectors by a model, newest first."""
        vector_index = self._vector_indexes.get(model)
        missing = [
            (self._at[slot], i)
            for i, slot in self._slots.items()
            if vector_index is None or not vector_index.has_vectors(slot)
        ]
        return [entry_id for _, entry_id in sorted(missing, reverse=True)]

    @property
    def models(self) -> set[str]:
        """The models whose vectors are here."""
        return set(self._vector_indexes)

    def optimize_step(self) -> bool:
        """Do one step of what makes searching faster. True while there is more to do."""
        for vector_index in self._vector_indexes.values():
            if vector_index.compact():
                self.version += 1
                return True
            if vector_index.extend_sketch() or vector_index.extend_graph():
                return True
        return self._fulltext.prefetch(len(self))

    def merge_step(self) -> bool:
        """Take a step towards having no word in memory that no entry holds. True while there is more to do."""
        return self._fulltext.merge_step()

    @property
    def uses_graph(self) -> bool:
        """Whether meaning is searched through the graph."""
        return any(passages.is_graph_complete for passages in self._vector_indexes.values())

    def search(
        self,
        query: Query,
        query_vectors: "Mapping[str, Vectors]",
        weight: float,
        limit: int,
        offset: int,
        allowed_ids: AbstractSet[bytes] | None = None,
    ) -> Matches:
        """The matches `offset` .. `offset + limit`, best first, newest first among equals.

        `asked` holds the question's vector by each model, the one in use first; `only`, where it is given, rules out
        all other entries.
        """
        import numpy as np

        slot_count = len(self._ids)
        allowed_mask = self._allowed_mask(query, allowed_ids)
        if not query.terms:
            candidates = np.flatnonzero(
                self._live[:slot_count] if allowed_mask is None else allowed_mask
            )
            scores = np.zeros(len(candidates))
            if allowed_mask is None:
                candidates, scores = candidates[:0], scores[:0]
            return self._build_page(candidates, scores, {}, limit, offset, len(candidates))
        lexical_slots, word_scores, tail, tail_scores = self._score_lexical(query, allowed_mask)
        comparable = self._comparable(query_vectors)
        if not comparable:
            scores = self._boost_scores(query, lexical_slots, fuse_scores(word_scores, None, 1.0))
            return self._build_page(
                *_append_tail(lexical_slots, scores, tail, tail_scores),
                {},
                limit,
                offset,
                len(lexical_slots) + len(tail),
            )
        cosines = self._compute_cosines(comparable, lexical_slots, allowed_mask)
        if allowed_mask is not None:
            cosines[~allowed_mask] = NOT_COMPARED
        nearest = np.flatnonzero(cosines >= MIN_COSINE)
        if len(nearest) > DENSE_POOL:
            nearest = nearest[np.argpartition(-cosines[nearest], DENSE_POOL)[:DENSE_POOL]]
        candidates = np.concatenate([lexical_slots, np.setdiff1d(nearest, lexical_slots)])
        lexical_scores = np.zeros(len(candidates))
        lexical_scores[: len(lexical_slots)] = word_scores
        scores = fuse_scores(
            lexical_scores, cosines[candidates].astype(np.float64), lexical_weight(query, weight)
        )
        is_new = ~np.isin(tail, candidates)
        tail, tail_scores = tail[is_new], tail_scores[is_new]
        total = len(candidates) + len(tail)
        scores = self._boost_scores(query, candidates, scores)
        return self._build_page(
            *_append_tail(candidates, scores, tail, tail_scores), comparable, limit, offset, total
        )

    def find_nearest(
        self, query_vectors: "Mapping[str, Vectors]", limit: int, excluded_ids: AbstractSet[bytes]
    ) -> list[Match]:
        """The writer's own entries that are nearest to vectors, best first, with no regard to words."""
        import numpy as np

        comparable = self._comparable(query_vectors)
        allowed_mask = (self._live & self._mine)[: len(self._ids)]
        allowed_mask[
            [self._slots[entry_id] for entry_id in excluded_ids if entry_id in self._slots]
        ] = False
        cosines = self._compute_cosines(comparable, np.zeros(0, dtype=np.intp), allowed_mask)
        cosines[~allowed_mask] = NOT_COMPARED
        candidates = np.flatnonzero(cosines >= MIN_COSINE)
        return list(
            self._build_page(
                candidates, cosines[candidates].astype(np.float64), comparable, limit, 0, 0
            ).matches
        )

    def word_counts_by_day(self, first: date, last: date) -> dict[date, int]:
        """How many words the writer's own entries have on each day from `first` to `last` that has any."""
        import numpy as np

        slot_count = len(self._ids)
        self._word_counts = grow_array(self._word_counts, slot_count, -1)
        days = self._days[:slot_count]
        is_own = self._live[:slot_count] & self._mine[:slot_count]
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
        """Per text the stretch that matches best, with START and STOP around each match; "" where none matches."""
        return self._fulltext.build_snippets(query, texts, self._live)

    def iter_sections(self) -> "Iterator[tuple[str, NDArray[Any]]]":
        """All that is needed to be as this index is now, as named arrays; the vectors in blocks."""
        import numpy as np

        slot_count = len(self._ids)
        yield "words", np.frombuffer(self._fulltext.serialize(), dtype=np.uint8)
        ids = b"".join(entry_id or bytes(16) for entry_id in self._ids)
        yield "ids", np.frombuffer(ids, dtype=np.uint8)
        for name in SLOT_ARRAYS:
            yield name, getattr(self, f"_{name}")[:slot_count]
        for model, vector_index in self._vector_indexes.items():
            for owners, scales, codes in vector_index.iter_blocks():
                yield f"owners {model}", owners
                yield f"scales {model}", scales
                yield f"vectors {model}", codes

    def restore_section(self, name: str, array: "NDArray[Any]") -> None:
        """Take over one section, in the order of `sections`. Raises ValueError and sqlite3.Error for a damaged one."""
        if name == "words":
            self._fulltext.restore(array.data)
        elif name == "ids":
            raw = array.tobytes()
            self._ids = [raw[place : place + 16] for place in range(0, len(raw), 16)]
        elif name in SLOT_ARRAYS:
            if array.shape != (len(self._ids),):
                raise ValueError("a section does not fit the others")
            setattr(self, f"_{name}", array)
            if name == SLOT_ARRAYS[-1]:
                live = self._live.tolist()
                self._slots = {
                    entry_id: slot for slot, entry_id in enumerate(self._ids) if live[slot]
                }
                self._free_slots = [slot for slot, used in enumerate(live) if not used]
        elif name.startswith("owners "):
            self._section_owners = array
        elif name.startswith("scales "):
            self._section_scales = array
        elif name.startswith("vectors "):
            shape = array.shape[:1]
            if (
                self._section_owners.shape != shape
                or self._section_scales.shape != shape
                or self._section_owners.max(initial=-1) >= len(self._ids)
            ):
                raise ValueError("a section does not fit the others")
            vector_index = self._vector_indexes.setdefault(
                name.removeprefix("vectors "), VectorIndex(array.shape[1], self._graph_above)
            )
            vector_index.restore_block(self._section_owners, self._section_scales, array)
        else:
            raise ValueError("a section of another format")

    @property
    def revisions(self) -> dict[bytes, int]:
        """The revision of every entry that is here."""
        numbers = self._revisions.tolist()
        return {entry_id: numbers[slot] for entry_id, slot in self._slots.items()}

    # --- Inside

    def _allocate_slot(self, entry_id: bytes) -> int:
        # A slot is used again only together with postings that are read again.
        if len(self._free_slots) > max(256, len(self._ids) // 4):
            self._fulltext.clear_postings()
        if self._free_slots and not self._fulltext.has_postings:
            slot = self._free_slots.pop()
            self._ids[slot] = entry_id
        else:
            slot = len(self._ids)
            self._ids.append(entry_id)
            for name in ("_revisions", "_live", "_mine", "_days", "_at", "_lengths"):
                setattr(self, name, grow_array(getattr(self, name), slot + 1))
        self._slots[entry_id] = slot
        return slot

    def _record_day_change(self, entry_id: bytes) -> None:
        self._day_changes += 1
        self._changed_day_ids.append(entry_id)

    def _release_slot(self, slot: int) -> None:
        self._fulltext.remove(slot)
        for vector_index in self._vector_indexes.values():
            vector_index.drop(slot)
        self._slots.pop(self._ids[slot], None)
        self._live[slot] = False
        self._lengths[slot] = 0
        self._ids[slot] = b""
        self._free_slots.append(slot)

    def _allowed_mask(self, query: Query, allowed_ids: AbstractSet[bytes] | None) -> "Mask | None":
        """Which slots the filters let through; None when there are none."""
        import numpy as np

        if not query.is_filtered and allowed_ids is None:
            return None
        slot_count = len(self._ids)
        mask = self._live[:slot_count].copy()
        if query.is_impossible:
            mask[:] = False
        if query.role is not None:
            mask &= self._mine[:slot_count] == (query.role == "me")
        if query.after is not None:
            mask &= self._days[:slot_count] >= query.after.toordinal()
        if query.before is not None:
            mask &= self._days[:slot_count] <= query.before.toordinal()
        if allowed_ids is not None:
            mask &= self._mask_of(
                np.array([self._slots[i] for i in allowed_ids if i in self._slots], dtype=np.intp)
            )
        for phrase in filter(None, map(phrase_literal, query.phrases)):
            mask &= self._mask_of(self._fulltext.matching_slots(phrase, self._live))
        for excluded in filter(None, map(_excluded_literal, query.excluded)):
            mask &= ~self._mask_of(self._fulltext.matching_slots(excluded, self._live))
        return mask

    def _comparable(self, query_vectors: "Mapping[str, Vectors]") -> "dict[str, Vectors]":
        """The question's vectors that vectors here can be compared with: a folder may hold another model by now."""
        sizes = {model: passages.dim for model, passages in self._vector_indexes.items()}
        return {
            model: vector
            for model, vector in query_vectors.items()
            if sizes.get(model) == len(vector)
        }

    def _mask_of(self, slots: "Slots") -> "Mask":
        import numpy as np

        mask = np.zeros(len(self._ids), dtype=np.bool_)
        mask[slots] = True
        return mask

    def _score_lexical(
        self, query: Query, allowed_mask: "Mask | None"
    ) -> "tuple[Slots, Scores, Slots, Scores]":
        """The best LEXICAL_POOL slots by word with their scores, 0..1, and all others with BM25 of the whole entry.

        Which are which does not depend on the page asked for: else going on would show some twice and others never.
        """
        import numpy as np

        literals = self._fulltext.literals(query, self._live)
        postings = [
            posting
            for literal in literals
            if (posting := self._fulltext.posting(literal)) is not None
        ]
        postings = drop_common_terms(postings, len(self))
        slot_count = len(self._ids)
        scores = bm25_scores(
            postings, self._lengths[:slot_count], self._live[:slot_count], len(self)
        )
        if allowed_mask is not None:
            scores[~allowed_mask] = 0
        best = np.flatnonzero(scores)
        tail = best[:0]
        if len(best) > LEXICAL_POOL:
            matching = best
            best = best[np.argpartition(-scores[best], LEXICAL_POOL)[:LEXICAL_POOL]]
            exact_slots = [
                form
                for word in _lookup_words(query)
                if (form := self._fulltext.exact_form_slots(word)) is not None
            ]
            if exact_slots:
                best = np.union1d(best, np.intersect1d(matching, np.concatenate(exact_slots)))
            tail = np.setdiff1d(matching, best, assume_unique=True)
        if not len(best):
            return best, scores[best], tail, scores[tail]
        window_scores = proximity_scores(postings, best, slot_count, len(self))
        top_window_score = float(window_scores.max()) or 1.0
        blended = (1 - PROXIMITY_SHARE) * scores[best] / scores[
            best
        ].max() + PROXIMITY_SHARE * window_scores / top_window_score
        return best, blended, tail, scores[tail]

    def _compute_cosines(
        self,
        query_vectors: "Mapping[str, Vectors]",
        required_slots: "Slots",
        allowed_mask: "Mask | None",
    ) -> "NDArray[np.float32]":
        """Per slot its cosine, by a former model where the one in use has not been there yet.

        Those of two models are not one measure, but near enough while the one replaces the other. Of `needed` it is
        known even where the nearest only are compared.
        """
        import numpy as np

        slot_count = len(self._ids)
        merged = np.full(slot_count, NOT_COMPARED, dtype=np.float32)
        for model, vector in query_vectors.items():
            vector_index = self._vector_indexes[model]
            cosines = vector_index.nearest_cosines(vector, slot_count, allowed_mask)
            missing = required_slots[cosines[required_slots] == NOT_COMPARED]
            cosines[missing] = vector_index.slot_cosines(missing, vector)
            merged = np.where(merged == NOT_COMPARED, cosines, merged)
        return merged

    def _boost_scores(self, query: Query, candidates: "Slots", scores: "Scores") -> "Scores":
        """Scores with what the question as a whole adds: word for word in an entry, or of the days it speaks of."""
        import numpy as np

        scores = scores + OWN_ENTRY_BOOST * self._mine[candidates]
        if query.whole_phrase and (phrase := phrase_literal(query.whole_phrase)):
            scores = scores + WHOLE_QUERY_BOOST * np.isin(
                candidates, self._fulltext.matching_slots(phrase, self._live)
            )
        if words := _lookup_words(query):
            scores = scores + EXACT_FORM_BOOST * self._exact_form_share(words, candidates, scores)
        for quoted in filter(None, map(phrase_literal, query.quoted)):
            scores = scores + QUOTED_BOOST * np.isin(
                candidates, self._fulltext.matching_slots(quoted, self._live)
            )
        if query.mentioned_dates is not None:
            days = self._days[candidates]
            is_in_range = (days >= query.mentioned_dates.start.toordinal()) & (
                days <= query.mentioned_dates.end.toordinal()
            )
            scores = scores + DATE_BOOST * is_in_range
        return scores

    def _exact_form_share(
        self, words: Sequence[str], candidates: "Slots", scores: "Scores"
    ) -> "Scores":
        """The share of the words that `found` hold in the very form asked for: a stem stands for many.

        For a form that very many entries hold, the best of `found` are looked at only.
        """
        import numpy as np

        share = np.zeros(len(candidates))
        common: list[tuple[str, re.Pattern[str]]] = []
        for word in words:
            if (slots := self._fulltext.exact_form_slots(word)) is not None:
                share += np.isin(candidates, slots)
            else:
                form, boundary = (
                    fold(word.rstrip("*")).lower(),
                    "" if word.endswith("*") else r"(?!\w)",
                )
                common.append((form, re.compile(rf"(?<!\w){re.escape(form)}{boundary}")))
        order = np.argsort(-scores, kind="stable")[: EXACT_FORM_POOL if common else 0].tolist()
        bodies = self._fulltext.get_bodies([int(candidates[index]) for index in order])
        for index in order:
            body = bodies[int(candidates[index])].lower()
            share[index] += sum(
                form in body and exact.search(body) is not None for form, exact in common
            )
        return share / len(words)

    def _build_page(
        self,
        candidates: "Slots",
        scores: "Scores",
        query_vectors: "Mapping[str, Vectors]",
        limit: int,
        offset: int,
        total: int,
    ) -> Matches:
        import numpy as np

        order = np.lexsort((-self._at[candidates], -scores))[offset : offset + limit]
        slots = candidates[order]
        cosines = np.full(len(slots), NOT_COMPARED, dtype=np.float32)
        for model, vector in query_vectors.items():
            cosines = np.where(
                cosines == NOT_COMPARED,
                self._vector_indexes[model].slot_cosines(slots, vector),
                cosines,
            )
        page: list[Match] = []
        for number, score, cosine in zip(slots, scores[order], cosines, strict=True):
            slot = int(number)
            passages = (
                self._vector_indexes[model].nearest_passage(slot, vector)
                for model, vector in query_vectors.items()
            )
            passage = next((part for part in passages if part >= 0), -1)
            page.append(Match(self._ids[slot], float(score), passage, float(cosine)))
        return Matches(tuple(page), total, bool(query_vectors))


def _append_tail(
    candidates: "Slots", scores: "Scores", tail: "Slots", tail_scores: "Scores"
) -> "tuple[Slots, Scores]":
    """Slots with their scores, and behind them all the rest in the order of what they are worth, above 0."""
    import numpy as np

    if not len(tail):
        return candidates, scores
    return np.concatenate([candidates, tail]), np.concatenate(
        [scores, tail_scores / tail_scores.max() - 2]
    )


def _lookup_words(query: Query) -> Sequence[str]:
    """The words of a query that is a look-up rather than a question."""
    return query.words if len(query.words) <= LOOKUP_MAX_WORDS and not query.phrases else ()


def _metadata_text(document: Document) -> str:
    """What is indexed beside the text: the day in words, and the traces."""
    day = document.day
    tags = " ".join(separate_letters(fold(normalize(trace))) for trace in document.tags)
    return f"{format_weekday(day)} {format_day(day)} {day.isoformat()} {tags}".rstrip()


def _excluded_literal(term: str) -> str:
    literal = phrase_literal(term)
    return f"{literal}*" if literal and term.endswith("*") else literal
