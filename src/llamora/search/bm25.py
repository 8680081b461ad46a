"""BM25 over the words of one writer: postings in arrays, cached as they are asked for. Pure.

An entry's score is half BM25 of the entry, half BM25 of its best window: where the words of a question stand close
together, they speak of one thing. Measured on long dated conversations and on abstracts, each half alone finds less.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Slots = NDArray[np.int32]
    Scores = NDArray[np.float64]
    Mask = NDArray[np.bool_]

K1, B = (
    1.2,
    0.4,
)  # BM25; B is low because long entries speak of more, they do not only say it at more length
WINDOW_STEP = 20  # tokens; a window is two steps long and begins at each
PROXIMITY_SHARE = 0.5  # the share of the best window
COMMON_TERM_SHARE = 0.3  # a word in more than this part of all entries says how a question is asked, not what it is about
COMMON_TERM_MIN_ENTRIES = 200
CACHE_BYTES = 48_000_000  # postings kept, the least used go first


@dataclass(slots=True)
class Posting:
    """Where a term stands: for each token of a body its slot and number, and the slots whose date or traces name it.

    `slots` and `counts` are what follows for whole entries. `later` holds what came since it was read.
    """

    body_slots: "Slots"
    body_positions: "NDArray[np.int32]"
    metadata_slots: "Slots"
    slots: "Slots" = field(init=False)
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
        """The memory it takes."""
        return (
            self.body_slots.nbytes
            + self.body_positions.nbytes
            + self.metadata_slots.nbytes
            + self.slots.nbytes
            + self.counts.nbytes
        )

    def merged(self) -> "Posting":
        """The posting with what came later."""
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
    """The postings asked for lately; `read` fetches one that is not here."""

    def __init__(self, read_posting: Callable[[str], Posting]) -> None:
        self._read_posting = read_posting
        self._cached: OrderedDict[str, Posting] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self._cached)

    def __contains__(self, term: str) -> bool:
        return term in self._cached

    def get(self, term: str) -> Posting:
        """The posting of a term, or of all that begin with it when it ends in `*`."""
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
        """Take over the tokens of a new entry: (term, whether in the body, its number)."""
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
        """Forget all of them."""
        self._cached.clear()
        self._cached_bytes = 0


def drop_common_terms(postings: list[Posting], entry_count: int) -> list[Posting]:
    """Those of the postings that tell entries apart.

    Words that the writer uses all the time, whatever their language, are left out, unless there are no others. Where
    there are few entries a word that many of them hold may be what they are about.
    """
    if entry_count < COMMON_TERM_MIN_ENTRIES:
        return postings
    return [
        posting for posting in postings if len(posting.slots) <= COMMON_TERM_SHARE * entry_count
    ] or postings


def bm25_scores(
    postings: Sequence[Posting], lengths: "NDArray[np.int32]", live: "Mask", entry_count: int
) -> "Scores":
    """BM25 of every slot, 0 without a match; `lengths` are in tokens, `entries` is how many slots are live."""
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
    postings: Sequence[Posting], slots: "NDArray[np.intp]", slot_count: int, entry_count: int
) -> "Scores":
    """BM25 of the best window of each of `slots`; `size` is how many slots there are in all."""
    import numpy as np

    index_of_slot = np.full(slot_count, -1, dtype=np.int64)
    index_of_slot[slots] = np.arange(len(slots))
    located: list[tuple[Posting, NDArray[np.int64], Slots]] = []
    for posting in postings:
        indexes = index_of_slot[posting.body_slots]
        is_candidate = indexes >= 0
        located.append(
            (posting, indexes[is_candidate], posting.body_positions[is_candidate] // WINDOW_STEP)
        )
    # A window begins at each step and is two long: a token is in the one of its step and in the one before.
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
    for posting, _, _ in located:  # the date and the traces belong to every window alike
        indexes = index_of_slot[posting.metadata_slots]
        best[indexes[indexes >= 0]] += _idf(posting, entry_count)
    return best


def phrase_match(terms: "Sequence[tuple[int, Posting]]") -> "NDArray[np.intp]":
    """The slots whose bodies hold terms at places (of tokens, in a phrase) that fit together."""
    import numpy as np

    starts: NDArray[np.int64] | None = (
        None  # the slot and the token at which such a phrase begins, in one number
    )
    for offset, posting in sorted(terms, key=lambda term: len(term[1].body_slots)):
        candidates = (posting.body_slots.astype(np.int64) << 32) + (posting.body_positions - offset)
        if starts is None:
            starts = candidates
        elif len(candidates):
            # Postings are in order, so each is looked up in the next longer one.
            indexes = np.minimum(np.searchsorted(candidates, starts), len(candidates) - 1)
            starts = starts[candidates[indexes] == starts]
        else:
            starts = candidates
        if not len(starts):
            break
    starts = np.zeros(0, dtype=np.int64) if starts is None else starts
    # A phrase would begin before the text: such a number belongs to the slot before.
    return np.unique(starts[(starts & 0xFFFFFFFF) < 2**31] >> 32).astype(np.intp)


def _idf(posting: Posting, entry_count: int) -> float:
    import math

    matches = min(len(posting.slots), entry_count)
    return math.log(1 + (entry_count - matches + 0.5) / (matches + 0.5))
