"""Score entries by BM25, from postings that are arrays and cached. Pure.

A score is half BM25 of the entry and half BM25 of its best window, since words of a query that
stand close together are about one thing. Each half alone measured worse, on long dated
conversations and on abstracts.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamora.search.arrays import Mask, Scores, Slots

    Ints = NDArray[np.int32]

K1 = 1.2  # of BM25
B = 0.4  # of BM25; low, because long entries are about more, not only longer
WINDOW_STEP = 20  # tokens; a window is two steps long and begins at each
CORRECTED_SHARE = 0.1  # of a corrected word, in the weight of the least word found as it was typed
PROXIMITY_SHARE = 0.5  # of the best window in a score
COMMON_TERM_SHARE = 0.3  # a word in more entries says how a question is asked, not what about
COMMON_TERM_MIN_ENTRIES = 200
CACHE_BYTES = 48_000_000  # of postings; the least recently used go first


@dataclass(slots=True)
class Posting:
    """Hold where a term occurs: slot and position of each token, and slots with it in metadata.

    Metadata are the date and the tags. `slots` and `counts` sum up whole entries. `pending` is what
    was added since the posting was read. Scores of the term are multiplied by `weight`.
    """

    body_slots: "Ints"
    body_positions: "Ints"
    metadata_slots: "Ints"
    weight: float = 1.0
    slots: "Ints" = field(init=False)
    counts: "NDArray[np.float32]" = field(init=False)
    pending: list[tuple[list[int], list[int], list[int]]] = field(
        init=False, default_factory=list[tuple[list[int], list[int], list[int]]]
    )

    def __post_init__(self) -> None:
        import numpy as np

        slots, counts = np.unique(
            np.concatenate([self.body_slots, self.metadata_slots]), return_counts=True
        )
        self.slots, self.counts = slots.astype(np.int32), counts.astype(np.float32)

    @property
    def nbytes(self) -> int:
        return (
            self.body_slots.nbytes
            + self.body_positions.nbytes
            + self.metadata_slots.nbytes
            + self.slots.nbytes
            + self.counts.nbytes
        )

    def merged(self) -> "Posting":
        """Return the posting with what is pending."""
        import numpy as np

        if not self.pending:
            return self
        parts = [
            np.array([n for part in self.pending for n in part[which]], dtype=np.int32)
            for which in range(3)
        ]
        body, numbers, about = (
            np.concatenate([old, new])
            for old, new in zip(
                (self.body_slots, self.body_positions, self.metadata_slots), parts, strict=True
            )
        )
        return Posting(body, numbers, about)


class PostingCache:
    """Keep recently used postings, up to CACHE_BYTES."""

    def __init__(self, read_posting: Callable[[str], Posting]) -> None:
        self._read_posting = read_posting
        self._cached: OrderedDict[str, Posting] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self._cached)

    def __contains__(self, term: str) -> bool:
        return term in self._cached

    def get(self, term: str) -> Posting:
        """Return the posting of a term, or of all that it begins when it ends in `*`."""
        posting = self._cached.pop(term, None)
        if posting is None:
            posting = self._read_posting(term)
        else:
            self._cached_bytes -= posting.nbytes
            posting = posting.merged()
        self._cached[term] = posting
        self._cached_bytes += posting.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cached) > 1:
            self._cached_bytes -= self._cached.popitem(last=False)[1].nbytes
        return posting

    def add(self, slot: int, tokens: Iterable[tuple[str, bool, int]]) -> None:
        """Add the tokens of a new entry: (term, is in the body, position)."""
        prefixes = [term for term in self._cached if term.endswith("*")]
        for term in prefixes:  # rare, and cheap to read again
            self._cached_bytes -= self._cached.pop(term).nbytes
        added_by_term: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for term, in_body, position in tokens:
            if term in self._cached:
                added = added_by_term.setdefault(term, ([], [], []))
                if in_body:
                    added[0].append(slot)
                    added[1].append(position)
                elif slot not in added[2]:
                    added[2].append(slot)
        for term, added in added_by_term.items():
            self._cached[term].pending.append(added)

    def clear(self) -> None:
        self._cached.clear()
        self._cached_bytes = 0


def weigh_corrected(found: Sequence[tuple[Posting, bool]], entry_count: int) -> list[Posting]:
    """Return the postings, those of corrected words (True) below every word found as typed."""
    least = min(
        (
            _idf(posting, entry_count)
            for posting, is_corrected in found
            if not is_corrected and len(posting.slots)
        ),
        default=None,
    )
    if least is None:
        return [posting for posting, _ in found]
    return [
        replace(posting, weight=CORRECTED_SHARE * least / _idf(posting, entry_count))
        if is_corrected
        else posting
        for posting, is_corrected in found
    ]


def drop_common_terms(postings: list[Posting], entry_count: int) -> list[Posting]:
    """Return the postings without those of words that are in very many entries.

    Such words, in any language, do not tell entries apart. All are kept when no other is left, or
    where there are few entries: there they may be what the query is about.
    """
    if entry_count < COMMON_TERM_MIN_ENTRIES:
        return postings
    return [
        posting for posting in postings if len(posting.slots) <= COMMON_TERM_SHARE * entry_count
    ] or postings


def bm25_scores(
    postings: Sequence[Posting], lengths: "Ints", live: "Mask", entry_count: int
) -> "Scores":
    """Return BM25 of every slot, 0 without a match; `lengths` are in tokens."""
    import numpy as np

    scores = np.zeros(len(live))
    mean = float(lengths[live].mean()) if entry_count else 1.0
    for posting in postings:
        counts = posting.counts
        weight = counts + K1 * (1 - B + B * lengths[posting.slots] / max(mean, 1.0))
        scores[posting.slots] += _idf(posting, entry_count) * counts * (K1 + 1) / weight
    scores[~live] = 0
    return scores


def proximity_scores(
    postings: Sequence[Posting], slots: "Slots", slot_count: int, entry_count: int
) -> "Scores":
    """Return BM25 of the best window of each of `slots`."""
    import numpy as np

    index_of_slot = np.full(slot_count, -1, dtype=np.int64)
    index_of_slot[slots] = np.arange(len(slots))
    located: list[tuple[Posting, NDArray[np.int64], Ints]] = []
    for posting in postings:
        indexes = index_of_slot[posting.body_slots]
        is_candidate = indexes >= 0
        located.append(
            (posting, indexes[is_candidate], posting.body_positions[is_candidate] // WINDOW_STEP)
        )
    # A window is two steps long, so a token is in that of its step and in the one before.
    width = max((int(steps.max(initial=0)) for _, _, steps in located), default=0) + 2
    windows = [indexes * width + steps + shift for _, indexes, steps in located for shift in (0, 1)]
    window_ids = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *windows]))
    scores = np.zeros(len(window_ids))
    best = np.zeros(len(slots))
    for posting, indexes, steps in located:
        rarity = _idf(posting, entry_count)
        term_windows = np.concatenate([indexes * width + steps, indexes * width + steps + 1])
        unique_windows, counts = np.unique(term_windows, return_counts=True)
        scores[np.searchsorted(window_ids, unique_windows)] += (
            rarity * counts * (K1 + 1) / (counts + K1)
        )
    owners = (window_ids // width).astype(np.intp)
    np.maximum.at(best, owners, scores)
    for posting, _, _ in located:  # metadata count for every window
        indexes = index_of_slot[posting.metadata_slots]
        best[indexes[indexes >= 0]] += _idf(posting, entry_count)
    return best


def phrase_match(terms: "Sequence[tuple[int, Posting]]") -> "Slots":
    """Return the slots whose bodies hold a phrase, given as (offset in it, posting)."""
    import numpy as np

    starts: NDArray[np.int64] | None = None  # slot << 32 | position of the phrase's first token
    for offset, posting in sorted(terms, key=lambda term: len(term[1].body_slots)):
        candidates = (posting.body_slots.astype(np.int64) << 32) + (posting.body_positions - offset)
        if starts is None:
            starts = candidates
        elif len(candidates):
            # Postings are sorted, so the shorter is looked up in the longer.
            indexes = np.minimum(np.searchsorted(candidates, starts), len(candidates) - 1)
            starts = starts[candidates[indexes] == starts]
        else:
            starts = candidates
        if not len(starts):
            break
    starts = np.zeros(0, dtype=np.int64) if starts is None else starts
    # A phrase that would begin before the text borrows from the slot: such are left out.
    return np.unique(starts[(starts & 0xFFFFFFFF) < 2**31] >> 32).astype(np.intp)


def _idf(posting: Posting, entry_count: int) -> float:
    import math

    matches = min(len(posting.slots), entry_count)
    return posting.weight * math.log(1 + (entry_count - matches + 0.5) / (matches + 0.5))
