"""Rank the entries of an index for a query: filters, lexical and dense scores, boosts, pages."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llamora.search.bm25 import (
    PROXIMITY_SHARE,
    bm25_scores,
    drop_common_terms,
    proximity_scores,
    weigh_corrected,
)
from llamora.search.fulltext import FulltextIndex
from llamora.search.fusion import LOOKUP_MAX_WORDS, fuse_scores, lexical_weight
from llamora.search.query import Query
from llamora.search.slots import SlotTable
from llamora.search.tokens import TOKEN_SEPARATOR, fold, phrase_literal, separate_letters
from llamora.search.vectors import NOT_COMPARED, VectorIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamora.search.arrays import Mask, Scores, Slots, Vectors

DENSE_POOL = 200  # nearest entries that are fused with those found by word
LEXICAL_POOL = 1000  # best lexical matches that are fused; the others follow by lexical score alone
EXACT_FORM_POOL = 200  # best matches whose text is searched for words that very many entries hold
MIN_COSINE = 0.2  # an entry that shares no word with the query and is further off is no result

# Added to fused scores, which are from 0 to 1.
WHOLE_QUERY_BOOST = 1.0  # has the whole question word for word: comes first
EXACT_FORM_BOOST = 1.0  # has the words of a look-up as they are typed, not other forms of them
QUOTED_BOOST = 0.2  # has a quotation that is part of a question
DATE_BOOST = 0.2  # is of the days that a question mentions
OWN_ENTRY_BOOST = 0.05  # is the user's: comes before a reply that is as good


@dataclass(slots=True, frozen=True)
class Match:
    """Hold a match: its nearest passage by number, and its cosine to the query.

    They are -1 and NOT_COMPARED where vectors were not compared.
    """

    entry_id: bytes
    score: float
    passage: int
    cosine: float = NOT_COMPARED


@dataclass(slots=True, frozen=True)
class Matches:
    """Hold one page of matches, best first, and the number of all of them.

    `corrected` are the words that no entry holds, with those that were searched for them.
    """

    matches: tuple[Match, ...]
    total: int
    is_semantic: bool
    corrected: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


class Ranker:
    """Rank the entries of one index, whose parts it shares. For the index's thread."""

    def __init__(
        self, slots: SlotTable, fulltext: FulltextIndex, vector_indexes: Mapping[str, VectorIndex]
    ) -> None:
        self._slots = slots
        self._fulltext = fulltext
        self._vector_indexes = vector_indexes

    def search(
        self,
        query: Query,
        query_vectors: "Mapping[str, Vectors]",
        weight: float,
        limit: int,
        offset: int,
        allowed_ids: AbstractSet[bytes] | None = None,
    ) -> Matches:
        """Return the matches from `offset` on, best first, newest first among equals.

        `query_vectors` holds the query's vector by model, the one in use first. `weight` is that
        of lexical scores, 0..1. Only `allowed_ids`, where given, can be results.
        """
        import numpy as np

        allowed = self._allowed_mask(query, allowed_ids)
        if not query.terms:
            slots = np.zeros(0, dtype=np.intp) if allowed is None else np.flatnonzero(allowed)
            is_written = np.isin(slots, self._written_slots(query)).astype(np.float64)
            return self._build_page(slots, is_written, {}, limit, offset)
        literals = self._fulltext.literals(query, self._slots.live)
        slots, lexical, tail, tail_scores = self._score_lexical(query, literals, allowed)
        vectors = self._comparable(query_vectors)
        if vectors:
            slots, scores = self._fuse_nearest(query, slots, lexical, vectors, weight, allowed)
            is_new = ~np.isin(tail, slots)
            tail, tail_scores = tail[is_new], tail_scores[is_new]
        else:
            scores = fuse_scores(lexical, None, 1.0)
        scores = self._boost_scores(query, slots, scores)
        slots, scores = _append_tail(slots, scores, tail, tail_scores)
        page = self._build_page(slots, scores, vectors, limit, offset)
        return replace(page, corrected=_corrections(literals))

    def find_nearest(
        self,
        query_vectors: "Mapping[str, Vectors]",
        limit: int,
        excluded_ids: AbstractSet[bytes],
    ) -> tuple[Match, ...]:
        """Return the user's own entries nearest to vectors, best first, whatever their words."""
        import numpy as np

        vectors = self._comparable(query_vectors)
        allowed = (self._slots.live & self._slots.mine)[: len(self._slots)]
        allowed[self._slots.find(excluded_ids)] = False
        cosines = self._compute_cosines(vectors, np.zeros(0, dtype=np.intp), allowed)
        slots = np.flatnonzero(cosines >= MIN_COSINE)
        scores = cosines[slots].astype(np.float64)
        return self._build_page(slots, scores, vectors, limit, 0).matches

    def _allowed_mask(self, query: Query, allowed_ids: AbstractSet[bytes] | None) -> "Mask | None":
        """Return the mask of the slots that pass all filters, None when there is no filter."""
        if not query.is_filtered and allowed_ids is None:
            return None
        table, fulltext = self._slots, self._fulltext
        slot_count = len(table)
        mask = table.live[:slot_count].copy()
        if query.is_impossible:
            mask[:] = False
        if query.role is not None:
            mask &= table.mine[:slot_count] == (query.role == "me")
        mask &= self._day_mask(query)
        if allowed_ids is not None:
            mask &= table.mask_of(table.find(allowed_ids))
        for phrase in filter(None, map(phrase_literal, query.phrases)):
            mask &= table.mask_of(fulltext.matching_slots(phrase, table.live))
        for excluded in filter(None, map(_excluded_literal, query.excluded)):
            mask &= ~table.mask_of(fulltext.matching_slots(excluded, table.live))
        return mask

    def _day_mask(self, query: Query) -> "Mask":
        import numpy as np

        days = self._slots.days[: len(self._slots)]
        mask = np.ones(len(days), dtype=np.bool_)
        if query.after is not None:
            mask &= days >= query.after.toordinal()
        if query.before is not None:
            mask &= days <= query.before.toordinal()
        mask[self._written_slots(query)] = True
        return mask

    def _written_slots(self, query: Query) -> "Slots":
        import numpy as np

        literal = phrase_literal(query.written_date)
        return self._fulltext.body_slots(literal) if literal else np.zeros(0, dtype=np.intp)

    def _comparable(self, query_vectors: "Mapping[str, Vectors]") -> "dict[str, Vectors]":
        # A model's folder may hold another model by now, with vectors of another size.
        sizes = {model: vector_index.dim for model, vector_index in self._vector_indexes.items()}
        return {
            model: vector
            for model, vector in query_vectors.items()
            if sizes.get(model) == len(vector)
        }

    def _score_lexical(
        self, query: Query, literals: Mapping[str, str], allowed: "Mask | None"
    ) -> "tuple[Slots, Scores, Slots, Scores]":
        """Return the best LEXICAL_POOL slots with scores, 0..1, and the tail with BM25 alone.

        The split is the same for every page, so paging neither repeats nor skips results.
        """
        table = self._slots
        slot_count, entry_count = len(table), len(table.slot_of)
        found = [
            (posting, bool(misspelt))
            for literal, misspelt in literals.items()
            if (posting := self._fulltext.posting(literal)) is not None
        ]
        postings = weigh_corrected(found, entry_count)
        postings = drop_common_terms(postings, entry_count)
        scores = bm25_scores(
            postings, table.lengths[:slot_count], table.live[:slot_count], entry_count
        )
        if allowed is not None:
            scores[~allowed] = 0
        best, tail = self._split_pool(query, scores)
        if not len(best):
            return best, scores[best], tail, scores[tail]
        window_scores = proximity_scores(postings, best, slot_count, entry_count)
        windows = window_scores / (float(window_scores.max()) or 1.0)
        blended = scores[best] / scores[best].max()
        blended = (1 - PROXIMITY_SHARE) * blended + PROXIMITY_SHARE * windows
        return best, blended, tail, scores[tail]

    def _split_pool(self, query: Query, scores: "Scores") -> "tuple[Slots, Slots]":
        import numpy as np

        matching = np.flatnonzero(scores)
        if len(matching) <= LEXICAL_POOL:
            return matching, matching[:0]
        best = matching[np.argpartition(-scores[matching], LEXICAL_POOL)[:LEXICAL_POOL]]
        exact_slots = [
            slots
            for word in _lookup_words(query)
            if (slots := self._fulltext.exact_form_slots(word)) is not None
        ]
        if exact_slots:
            best = np.union1d(best, np.intersect1d(matching, np.concatenate(exact_slots)))
        return best, np.setdiff1d(matching, best, assume_unique=True)

    def _fuse_nearest(
        self,
        query: Query,
        lexical_slots: "Slots",
        lexical_scores: "Scores",
        vectors: "Mapping[str, Vectors]",
        weight: float,
        allowed: "Mask | None",
    ) -> "tuple[Slots, Scores]":
        """Return the lexical matches and the nearest entries, with fused scores."""
        import numpy as np

        cosines = self._compute_cosines(vectors, lexical_slots, allowed)
        nearest = np.flatnonzero(cosines >= MIN_COSINE)
        if len(nearest) > DENSE_POOL:
            nearest = nearest[np.argpartition(-cosines[nearest], DENSE_POOL)[:DENSE_POOL]]
        slots = np.concatenate([lexical_slots, np.setdiff1d(nearest, lexical_slots)])
        lexical = np.zeros(len(slots))
        lexical[: len(lexical_slots)] = lexical_scores
        dense = cosines[slots].astype(np.float64)
        return slots, fuse_scores(lexical, dense, lexical_weight(query, weight))

    def _compute_cosines(
        self,
        vectors: "Mapping[str, Vectors]",
        required_slots: "Slots",
        allowed: "Mask | None",
    ) -> "NDArray[np.float32]":
        """Return the cosine of each slot, by a former model where the one in use has no vector.

        Cosines of two models are not the same measure, but near enough while one replaces the
        other. Those of `required_slots` are known even where only the nearest are compared.
        """
        import numpy as np

        slot_count = len(self._slots)
        merged = np.full(slot_count, NOT_COMPARED, dtype=np.float32)
        for model, vector in vectors.items():
            vector_index = self._vector_indexes[model]
            cosines = vector_index.nearest_cosines(vector, slot_count, allowed)
            missing = required_slots[cosines[required_slots] == NOT_COMPARED]
            cosines[missing] = vector_index.slot_cosines(missing, vector)
            merged = np.where(merged == NOT_COMPARED, cosines, merged)
        if allowed is not None:
            merged[~allowed] = NOT_COMPARED
        return merged

    def _boost_scores(self, query: Query, slots: "Slots", scores: "Scores") -> "Scores":
        import numpy as np

        table, fulltext = self._slots, self._fulltext
        scores = scores + OWN_ENTRY_BOOST * table.mine[slots]
        if query.whole_phrase and (phrase := phrase_literal(query.whole_phrase)):
            holding = fulltext.matching_slots(phrase, table.live)
            scores = scores + WHOLE_QUERY_BOOST * np.isin(slots, holding)
        if words := _lookup_words(query):
            scores = scores + EXACT_FORM_BOOST * self._exact_form_share(words, slots, scores)
        for quoted in filter(None, map(phrase_literal, query.quoted)):
            holding = fulltext.matching_slots(quoted, table.live)
            scores = scores + QUOTED_BOOST * np.isin(slots, holding)
        if (mentioned := query.mentioned_dates) is not None:
            days = table.days[slots]
            is_mentioned = (days >= mentioned.start.toordinal()) & (
                days <= mentioned.end.toordinal()
            )
            scores = scores + DATE_BOOST * is_mentioned
        return scores

    def _exact_form_share(self, words: Sequence[str], slots: "Slots", scores: "Scores") -> "Scores":
        """Return the share of the words that each entry holds as typed: a stem stands for many.

        For a form that very many entries hold, only the EXACT_FORM_POOL best are looked at.
        """
        import numpy as np

        share = np.zeros(len(slots))
        common: list[tuple[str, re.Pattern[str]]] = []
        for word in words:
            if (holding := self._fulltext.exact_form_slots(word)) is not None:
                share += np.isin(slots, holding)
            else:
                form = separate_letters(fold(word.rstrip("*"))).strip(TOKEN_SEPARATOR).lower()
                boundary = "" if word.endswith("*") else r"(?!\w)"
                common.append((form, re.compile(rf"(?<!\w){re.escape(form)}{boundary}")))
        order = np.argsort(-scores, kind="stable")[: EXACT_FORM_POOL if common else 0].tolist()
        bodies = self._fulltext.get_bodies([int(slots[index]) for index in order])
        for index in order:
            body = bodies[int(slots[index])].lower()
            share[index] += sum(
                form in body and exact.search(body) is not None for form, exact in common
            )
        return share / len(words)

    def _build_page(
        self,
        slots: "Slots",
        scores: "Scores",
        vectors: "Mapping[str, Vectors]",
        limit: int,
        offset: int,
    ) -> Matches:
        import numpy as np

        order = np.lexsort((-self._slots.at[slots], -scores))[offset : offset + limit]
        page_slots = slots[order]
        cosines = np.full(len(page_slots), NOT_COMPARED, dtype=np.float32)
        for model, vector in vectors.items():
            model_cosines = self._vector_indexes[model].slot_cosines(page_slots, vector)
            cosines = np.where(cosines == NOT_COMPARED, model_cosines, cosines)
        page: list[Match] = []
        for number, score, cosine in zip(page_slots, scores[order], cosines, strict=True):
            slot = int(number)
            passages = (
                self._vector_indexes[model].nearest_passage(slot, vector)
                for model, vector in vectors.items()
            )
            passage = next((passage for passage in passages if passage >= 0), -1)
            page.append(Match(self._slots.ids[slot], float(score), passage, float(cosine)))
        return Matches(tuple(page), len(slots), bool(vectors))


def _corrections(literals: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    corrected: dict[str, tuple[str, ...]] = {}
    for literal, misspelt in literals.items():
        if misspelt:
            corrected[misspelt] = (*corrected.get(misspelt, ()), literal.strip('"'))
    return corrected


def _append_tail(
    slots: "Slots", scores: "Scores", tail: "Slots", tail_scores: "Scores"
) -> "tuple[Slots, Scores]":
    import numpy as np

    if not len(tail):
        return slots, scores
    # Scaled to -2..-1, behind all fused scores.
    tail_scores = tail_scores / tail_scores.max() - 2
    return np.concatenate([slots, tail]), np.concatenate([scores, tail_scores])


def _lookup_words(query: Query) -> Sequence[str]:
    return query.words if len(query.words) <= LOOKUP_MAX_WORDS and not query.phrases else ()


def _excluded_literal(term: str) -> str:
    literal = phrase_literal(term)
    return f"{literal}*" if literal and term.endswith("*") else literal
