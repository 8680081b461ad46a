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

K1, B = 1.2, 0.4  # BM25; B is low because long entries speak of more, they do not only say it at more length
STEP = 20  # tokens; a window is two steps long and begins at each
NEARNESS = 0.5  # the share of the best window
EVERYDAY = 0.3  # a word in more than this part of all entries says how a question is asked, not what it is about
FEW_ENTRIES = 200
CACHE_BYTES = 48_000_000  # postings kept, the least used go first


@dataclass(slots=True)
class Posting:
    """Where a term stands: for each token of a body its slot and number, and the slots whose date or traces name it.

    `slots` and `counts` are what follows for whole entries. `later` holds what came since it was read.
    """

    body: "Slots"
    numbers: "NDArray[np.int32]"
    about: "Slots"
    slots: "Slots" = field(init=False)
    counts: "NDArray[np.float32]" = field(init=False)
    later: list[tuple[list[int], list[int], list[int]]] = field(
        init=False, default_factory=list[tuple[list[int], list[int], list[int]]]
    )

    def __post_init__(self) -> None:
        import numpy as np

        slots, counts = np.unique(np.concatenate([self.body, self.about]), return_counts=True)
        self.slots, self.counts = slots.astype(np.int32), counts.astype(np.float32)

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return self.body.nbytes + self.numbers.nbytes + self.about.nbytes + self.slots.nbytes + self.counts.nbytes

    def settled(self) -> "Posting":
        """The posting with what came later."""
        import numpy as np

        if not self.later:
            return self
        parts = [np.array([n for part in self.later for n in part[which]], dtype=np.int32) for which in range(3)]
        body, numbers, about = (
            np.concatenate([old, new]) for old, new in zip((self.body, self.numbers, self.about), parts, strict=True)
        )
        return Posting(body, numbers, about)


class Postings:
    """The postings asked for lately; `read` fetches one that is not here."""

    def __init__(self, read: Callable[[str], Posting]) -> None:
        self._read = read
        self._kept: OrderedDict[str, Posting] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, term: str) -> bool:
        return term in self._kept

    def get(self, term: str) -> Posting:
        """The posting of a term, or of all that begin with it when it ends in `*`."""
        found = self._kept.pop(term, None)
        if found is None:
            found = self._read(term)
        else:
            self._bytes -= found.bytes
            found = found.settled()
        self._kept[term] = found
        self._bytes += found.bytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].bytes
        return found

    def add(self, slot: int, tokens: Iterable[tuple[str, bool, int]]) -> None:
        """Take over the tokens of a new entry: (term, whether in the body, its number)."""
        prefixes = [term for term in self._kept if term.endswith("*")]
        for term in prefixes:  # rare, and cheap to read again
            self._bytes -= self._kept.pop(term).bytes
        new: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for term, in_body, number in tokens:
            if term in self._kept:
                part = new.setdefault(term, ([], [], []))
                if in_body:
                    part[0].append(slot)
                    part[1].append(number)
                elif slot not in part[2]:
                    part[2].append(slot)
        for term, part in new.items():
            self._kept[term].later.append(part)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()
        self._bytes = 0


def telling(postings: list[Posting], entries: int) -> list[Posting]:
    """Those of the postings that tell entries apart.

    Words that the writer uses all the time, whatever their language, are left out, unless there are no others. Where
    there are few entries a word that many of them hold may be what they are about.
    """
    if entries < FEW_ENTRIES:
        return postings
    return [posting for posting in postings if len(posting.slots) <= EVERYDAY * entries] or postings


def bm25(postings: Sequence[Posting], lengths: "NDArray[np.int32]", live: "Mask", entries: int) -> "Scores":
    """BM25 of every slot, 0 without a match; `lengths` are in tokens, `entries` is how many slots are live."""
    import numpy as np

    scores = np.zeros(len(live))
    mean = float(lengths[live].mean()) if entries else 1.0
    for posting in postings:
        counts = posting.counts
        weight = counts + K1 * (1 - B + B * lengths[posting.slots] / max(mean, 1.0))
        scores[posting.slots] += _rarity(posting, entries) * counts * (K1 + 1) / weight
    scores[~live] = 0
    return scores


def nearness(postings: Sequence[Posting], slots: "NDArray[np.intp]", size: int, entries: int) -> "Scores":
    """BM25 of the best window of each of `slots`; `size` is how many slots there are in all."""
    import numpy as np

    place = np.full(size, -1, dtype=np.int64)
    place[slots] = np.arange(len(slots))
    found: list[tuple[Posting, NDArray[np.int64], Slots]] = []
    for posting in postings:
        at = place[posting.body]
        here = at >= 0
        found.append((posting, at[here], posting.numbers[here] // STEP))
    # A window begins at each step and is two long: a token is in the one of its step and in the one before.
    width = max((int(steps.max(initial=0)) for _, _, steps in found), default=0) + 2
    windows = [at * width + steps + shift for _, at, steps in found for shift in (0, 1)]
    keys = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *windows]))
    scores = np.zeros(len(keys))
    best = np.zeros(len(slots))
    for posting, at, steps in found:
        rarity = _rarity(posting, entries)
        mine = np.concatenate([at * width + steps, at * width + steps + 1])
        held, counts = np.unique(mine, return_counts=True)
        scores[np.searchsorted(keys, held)] += rarity * counts * (K1 + 1) / (counts + K1)
    owners = (keys // width).astype(np.intp)
    np.maximum.at(best, owners, scores)
    for posting, _, _ in found:  # the date and the traces belong to every window alike
        at = place[posting.about]
        best[at[at >= 0]] += _rarity(posting, entries)
    return best


def in_a_row(terms: "Sequence[tuple[int, Posting]]") -> "NDArray[np.intp]":
    """The slots whose bodies hold terms at places (of tokens, in a phrase) that fit together."""
    import numpy as np

    held: NDArray[np.int64] | None = None  # the slot and the token at which such a phrase begins, in one number
    for place, posting in sorted(terms, key=lambda term: len(term[1].body)):
        begins = (posting.body.astype(np.int64) << 32) + (posting.numbers - place)
        if held is None:
            held = begins
        elif len(begins):
            # Postings are in order, so each is looked up in the next longer one.
            at = np.minimum(np.searchsorted(begins, held), len(begins) - 1)
            held = held[begins[at] == held]
        else:
            held = begins
        if not len(held):
            break
    held = np.zeros(0, dtype=np.int64) if held is None else held
    # A phrase would begin before the text: such a number belongs to the slot before.
    return np.unique(held[(held & 0xFFFFFFFF) < 2**31] >> 32).astype(np.intp)


def _rarity(posting: Posting, entries: int) -> float:
    import math

    matches = min(len(posting.slots), entries)
    return math.log(1 + (entries - matches + 0.5) / (matches + 0.5))
