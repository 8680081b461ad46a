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
from llamora.search.bm25 import NEARNESS, bm25, nearness, telling
from llamora.search.fulltext import Lexicon, Row
from llamora.search.rank import (
    DENSE_FLOOR,
    EXACT,
    IN_TIME,
    LOOKUP_WORDS,
    OWN_WORDS,
    QUOTED,
    WHOLE_PHRASE,
    Query,
    folded,
    fused,
    lexical_weight,
    match_phrase,
    normalised,
    spaced,
)
from llamora.search.vectors import UNKNOWN, Passages, grown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Places = NDArray[np.intp]
    Mask = NDArray[np.bool_]
    Scores = NDArray[np.float64]

DENSE_POOL = 200  # so many nearest entries are weighed against those found by word
LEXICAL_POOL = 1000  # so many best matches by word are weighed against meaning; the others follow by word alone
LOOKED_AT = 200  # the best matches of a look-up whose text is looked at for words that very many entries hold
MOVES_KEPT = 4096  # ids of entries whose day was set or taken last
STATE = ("revisions", "live", "mine", "days", "at", "lengths")  # what is kept of every slot


Mark = tuple[object, int]
"""A moment of an index: see UserIndex.moved_since."""


@dataclass(slots=True, frozen=True)
class Document:
    """What is indexed of an entry."""

    entry_id: bytes
    revision: int
    day: date
    at: datetime
    mine: bool
    text: str
    traces: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Match:
    """An entry that was found: `passage` is the number of its nearest passage, -1 without vectors.

    `likeness` is its cosine to the question, UNKNOWN without.
    """

    entry_id: bytes
    score: float
    passage: int
    likeness: float = UNKNOWN


@dataclass(slots=True, frozen=True)
class Matches:
    """The matches asked for, best first, and how many there are in all."""

    page: tuple[Match, ...]
    total: int
    meaning: bool


class UserIndex:
    """Words and vectors of one writer. All methods are for one thread, the index's own.

    Every entry has a slot, by which all is kept that is known of it. FTS5 cuts, stems and stores the words (`lexicon`);
    which entry is best is reckoned from arrays (`words`), which at 100,000 entries is ten times faster.
    """

    def __init__(self, graph_above: int) -> None:
        import numpy as np

        self._lexicon = Lexicon()
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []
        self._ids: list[bytes] = []
        self._revisions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._live: Mask = np.zeros(0, dtype=np.bool_)
        self._mine: Mask = np.zeros(0, dtype=np.bool_)
        self._days: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._at: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self._lengths: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._words: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # of the text alone; -1: not asked for yet
        self._graph_above = graph_above
        self._passages: dict[str, Passages] = {}
        self._owners: NDArray[np.int32] = np.zeros(0, dtype=np.int32)  # of the block that is being taken over
        self._scales: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self.version = 0  # another one after every change
        self._moves = 0  # how often an entry came, went, or came anew on what may be another day
        self._moved: deque[bytes] = deque(maxlen=MOVES_KEPT)
        self._self = object()  # what marks of this index bear, and those of no other

    def __len__(self) -> int:
        return len(self._slots)

    def close(self) -> None:
        """Forget everything."""
        self._lexicon.close()
        self._slots.clear()
        self._moved.clear()
        self._passages.clear()

    def put(self, documents: Iterable[Document]) -> None:
        """Index entries, or index them anew; one of an older revision than is there is passed over."""
        rows: list[Row] = []
        self.version += 1
        with self._lexicon.changing():
            for document in {document.entry_id: document for document in documents}.values():
                about = _about(document)
                slot = self._slots.get(document.entry_id)
                if slot is not None:
                    if self._revisions[slot] > document.revision:
                        continue
                    if self._revisions[slot] == document.revision:
                        # The text is the same; its traces may not be.
                        if self._lexicon.text(slot)[0] == about:
                            continue
                        self._lexicon.remove(slot)
                        self._lexicon.forget_postings()
                    else:
                        self._vacate(slot)
                        slot = None
                if slot is None:
                    slot = self._new_slot(document.entry_id)
                    self._move(document.entry_id)
                self._revisions[slot] = document.revision
                self._live[slot] = True
                self._mine[slot] = document.mine
                self._days[slot] = document.day.toordinal()
                self._at[slot] = document.at.timestamp()
                rows.append((slot, about, spaced(folded(normalised(document.text)))))
            for (slot, _, _), length in zip(rows, self._lexicon.add(rows), strict=True):
                self._lengths[slot] = length
                if slot < len(self._words):
                    self._words[slot] = -1
        self._lexicon.bring_along(rows)

    def drop(self, entry_ids: Iterable[bytes]) -> None:
        """Take entries out: their words, their text and their vectors."""
        self.version += 1
        with self._lexicon.changing():
            for entry_id in entry_ids:
                slot = self._slots.get(entry_id)
                if slot is not None:
                    self._vacate(slot)
                    self._move(entry_id)

    def put_vectors(self, entry_id: bytes, revision: int, vectors: "Vectors", model: str = "") -> bool:
        """Set the vectors of an entry by a model, [passages, dim], in place of those by another.

        False when the entry is gone or at another revision by now.
        """
        slot = self._slots.get(entry_id)
        if slot is None or self._revisions[slot] != revision:
            return False
        self.version += 1
        for name, passages in list(self._passages.items()):
            if name != model:
                passages.drop(slot)
                if passages.count == passages.dead:
                    del self._passages[name]
        if len(vectors):
            known = self._passages.get(model)
            if known is None or known.dim != vectors.shape[1]:
                known = self._passages[model] = Passages(vectors.shape[1], self._graph_above)
            known.put(slot, vectors)
        return True

    def vectors_of(self, entry_id: bytes, model: str) -> "Vectors | None":
        """The vectors of an entry by a model, or None."""
        slot, passages = self._slots.get(entry_id), self._passages.get(model)
        return passages.of(slot) if slot is not None and passages is not None and passages.has(slot) else None

    def days_of(self, ids: Iterable[bytes]) -> list[int]:
        """The day of each entry as date.toordinal() gives it, 0 for one that is not here."""
        import numpy as np

        slots = np.fromiter((self._slots.get(entry_id, -1) for entry_id in ids), dtype=np.intp)
        if not len(self._days):
            return [0] * len(slots)
        return np.where(slots < 0, 0, self._days[slots]).tolist()

    def moved_since(self, mark: Mark | None) -> tuple[Mark, list[bytes] | None]:
        """Whose day `days_of` may give otherwise than at a mark, and the mark of now; None: anybody's."""
        now = (self._self, self._moves)
        behind = self._moves - mark[1] if mark and mark[0] is self._self else MOVES_KEPT + 1
        return now, list(islice(reversed(self._moved), behind)) if behind <= len(self._moved) else None

    def without_vectors(self, model: str) -> list[bytes]:
        """The entries that have no vectors by a model, newest first."""
        passages = self._passages.get(model)
        found = [(self._at[slot], i) for i, slot in self._slots.items() if passages is None or not passages.has(slot)]
        return [entry_id for _, entry_id in sorted(found, reverse=True)]

    @property
    def models(self) -> set[str]:
        """The models whose vectors are here."""
        return set(self._passages)

    def tidy(self) -> bool:
        """Do one step of what makes searching faster. True while there is more to do."""
        for passages in self._passages.values():
            if passages.compact():
                self.version += 1
                return True
            if passages.sketch() or passages.link():
                return True
        return self._lexicon.foresee(len(self))

    def purge(self) -> bool:
        """Take a step towards having no word in memory that no entry holds. True while there is more to do."""
        return self._lexicon.purge()

    @property
    def linked(self) -> bool:
        """Whether meaning is searched through the graph."""
        return any(passages.linked for passages in self._passages.values())

    def search(
        self,
        query: Query,
        asked: "Mapping[str, Vectors]",
        weight: float,
        limit: int,
        offset: int,
        only: AbstractSet[bytes] | None = None,
    ) -> Matches:
        """The matches `offset` .. `offset + limit`, best first, newest first among equals.

        `asked` holds the question's vector by each model, the one in use first; `only`, where it is given, rules out
        all other entries.
        """
        import numpy as np

        slots = len(self._ids)
        allowed = self._allowed(query, only)
        if not query.terms:
            found = np.flatnonzero(self._live[:slots] if allowed is None else allowed)
            scores = np.zeros(len(found))
            if allowed is None:
                found, scores = found[:0], scores[:0]
            return self._page(found, scores, {}, limit, offset, len(found))
        by_word, words, rest, worth = self._lexical(query, allowed)
        known = self._comparable(asked)
        if not known:
            scores = self._raised(query, by_word, fused(words, None, 1.0))
            return self._page(*_behind(by_word, scores, rest, worth), {}, limit, offset, len(by_word) + len(rest))
        likeness = self._likeness(known, by_word, allowed)
        if allowed is not None:
            likeness[~allowed] = UNKNOWN
        near = np.flatnonzero(likeness >= DENSE_FLOOR)
        if len(near) > DENSE_POOL:
            near = near[np.argpartition(-likeness[near], DENSE_POOL)[:DENSE_POOL]]
        found = np.concatenate([by_word, np.setdiff1d(near, by_word)])
        lexical = np.zeros(len(found))
        lexical[: len(by_word)] = words
        scores = fused(lexical, likeness[found].astype(np.float64), lexical_weight(query, weight))
        further = ~np.isin(rest, found)
        rest, worth = rest[further], worth[further]
        total = len(found) + len(rest)
        scores = self._raised(query, found, scores)
        return self._page(*_behind(found, scores, rest, worth), known, limit, offset, total)

    def nearest(self, asked: "Mapping[str, Vectors]", limit: int, leave_out: AbstractSet[bytes]) -> list[Match]:
        """The writer's own entries that are nearest to vectors, best first, with no regard to words."""
        import numpy as np

        known = self._comparable(asked)
        allowed = (self._live & self._mine)[: len(self._ids)]
        allowed[[self._slots[entry_id] for entry_id in leave_out if entry_id in self._slots]] = False
        likeness = self._likeness(known, np.zeros(0, dtype=np.intp), allowed)
        likeness[~allowed] = UNKNOWN
        found = np.flatnonzero(likeness >= DENSE_FLOOR)
        return list(self._page(found, likeness[found].astype(np.float64), known, limit, 0, 0).page)

    def words_on(self, first: date, last: date) -> dict[date, int]:
        """How many words the writer's own entries have on each day from `first` to `last` that has any."""
        import numpy as np

        slots = len(self._ids)
        self._words = grown(self._words, slots, -1)
        days = self._days[:slots]
        mine = self._live[:slots] & self._mine[:slots]
        found = np.flatnonzero(mine & (days >= first.toordinal()) & (days <= last.toordinal()))
        unknown = found[self._words[found] < 0]
        for slot, words in self._lexicon.own_words(unknown.tolist()).items():
            self._words[slot] = words
        counts = np.bincount(days[found] - first.toordinal(), weights=self._words[found])
        written = np.unique(days[found]).tolist()
        return {date.fromordinal(day): int(counts[day - first.toordinal()]) for day in written}

    def snippets(self, query: Query, texts: Sequence[str]) -> list[str]:
        """Per text the stretch that matches best, with START and STOP around each match; "" where none matches."""
        return self._lexicon.snippets(query, texts, self._live)

    def sections(self) -> "Iterator[tuple[str, NDArray[Any]]]":
        """All that is needed to be as this index is now, as named arrays; the vectors in blocks."""
        import numpy as np

        slots = len(self._ids)
        yield "words", np.frombuffer(self._lexicon.image(), dtype=np.uint8)
        ids = b"".join(entry_id or bytes(16) for entry_id in self._ids)
        yield "ids", np.frombuffer(ids, dtype=np.uint8)
        for name in STATE:
            yield name, getattr(self, f"_{name}")[:slots]
        for model, passages in self._passages.items():
            for owners, scales, codes in passages.blocks():
                yield f"owners {model}", owners
                yield f"scales {model}", scales
                yield f"vectors {model}", codes

    def take(self, name: str, array: "NDArray[Any]") -> None:
        """Take over one section, in the order of `sections`. Raises ValueError and sqlite3.Error for a damaged one."""
        if name == "words":
            self._lexicon.restore(array.data)
        elif name == "ids":
            raw = array.tobytes()
            self._ids = [raw[place : place + 16] for place in range(0, len(raw), 16)]
        elif name in STATE:
            if array.shape != (len(self._ids),):
                raise ValueError("a section does not fit the others")
            setattr(self, f"_{name}", array)
            if name == STATE[-1]:
                live = self._live.tolist()
                self._slots = {entry_id: slot for slot, entry_id in enumerate(self._ids) if live[slot]}
                self._free = [slot for slot, used in enumerate(live) if not used]
        elif name.startswith("owners "):
            self._owners = array
        elif name.startswith("scales "):
            self._scales = array
        elif name.startswith("vectors "):
            rows = array.shape[:1]
            if (
                self._owners.shape != rows
                or self._scales.shape != rows
                or self._owners.max(initial=-1) >= len(self._ids)
            ):
                raise ValueError("a section does not fit the others")
            known = self._passages.setdefault(
                name.removeprefix("vectors "), Passages(array.shape[1], self._graph_above)
            )
            known.restore(self._owners, self._scales, array)
        else:
            raise ValueError("a section of another format")

    @property
    def revisions(self) -> dict[bytes, int]:
        """The revision of every entry that is here."""
        numbers = self._revisions.tolist()
        return {entry_id: numbers[slot] for entry_id, slot in self._slots.items()}

    # --- Inside

    def _new_slot(self, entry_id: bytes) -> int:
        # A slot is used again only together with postings that are read again.
        if len(self._free) > max(256, len(self._ids) // 4):
            self._lexicon.forget_postings()
        if self._free and not self._lexicon.cached:
            slot = self._free.pop()
            self._ids[slot] = entry_id
        else:
            slot = len(self._ids)
            self._ids.append(entry_id)
            for name in ("_revisions", "_live", "_mine", "_days", "_at", "_lengths"):
                setattr(self, name, grown(getattr(self, name), slot + 1))
        self._slots[entry_id] = slot
        return slot

    def _move(self, entry_id: bytes) -> None:
        self._moves += 1
        self._moved.append(entry_id)

    def _vacate(self, slot: int) -> None:
        self._lexicon.remove(slot)
        for passages in self._passages.values():
            passages.drop(slot)
        self._slots.pop(self._ids[slot], None)
        self._live[slot] = False
        self._lengths[slot] = 0
        self._ids[slot] = b""
        self._free.append(slot)

    def _allowed(self, query: Query, only: AbstractSet[bytes] | None) -> "Mask | None":
        """Which slots the filters let through; None when there are none."""
        import numpy as np

        if not query.filtered and only is None:
            return None
        slots = len(self._ids)
        mask = self._live[:slots].copy()
        if query.impossible:
            mask[:] = False
        if query.role is not None:
            mask &= self._mine[:slots] == (query.role == "me")
        if query.after is not None:
            mask &= self._days[:slots] >= query.after.toordinal()
        if query.before is not None:
            mask &= self._days[:slots] <= query.before.toordinal()
        if only is not None:
            mask &= self._having(np.array([self._slots[i] for i in only if i in self._slots], dtype=np.intp))
        for phrase in filter(None, map(match_phrase, query.phrases)):
            mask &= self._having(self._lexicon.slots(phrase, self._live))
        for unwanted in filter(None, map(_excluded, query.excluded)):
            mask &= ~self._having(self._lexicon.slots(unwanted, self._live))
        return mask

    def _comparable(self, asked: "Mapping[str, Vectors]") -> "dict[str, Vectors]":
        """The question's vectors that vectors here can be compared with: a folder may hold another model by now."""
        sizes = {model: passages.dim for model, passages in self._passages.items()}
        return {model: vector for model, vector in asked.items() if sizes.get(model) == len(vector)}

    def _having(self, slots: "Places") -> "Mask":
        import numpy as np

        mask = np.zeros(len(self._ids), dtype=np.bool_)
        mask[slots] = True
        return mask

    def _lexical(self, query: Query, allowed: "Mask | None") -> "tuple[Places, Scores, Places, Scores]":
        """The best LEXICAL_POOL slots by word with their scores, 0..1, and all others with BM25 of the whole entry.

        Which are which does not depend on the page asked for: else going on would show some twice and others never.
        """
        import numpy as np

        literals = self._lexicon.literals(query, self._live)
        postings = [posting for literal in literals if (posting := self._lexicon.posting(literal)) is not None]
        postings = telling(postings, len(self))
        slots = len(self._ids)
        scores = bm25(postings, self._lengths[:slots], self._live[:slots], len(self))
        if allowed is not None:
            scores[~allowed] = 0
        found = np.flatnonzero(scores)
        rest = found[:0]
        if len(found) > LEXICAL_POOL:
            matching = found
            found = found[np.argpartition(-scores[found], LEXICAL_POOL)[:LEXICAL_POOL]]
            very = [form for word in _looked_up(query) if (form := self._lexicon.form(word)) is not None]
            if very:
                found = np.union1d(found, np.intersect1d(matching, np.concatenate(very)))
            rest = np.setdiff1d(matching, found, assume_unique=True)
        if not len(found):
            return found, scores[found], rest, scores[rest]
        near = nearness(postings, found, slots, len(self))
        nearest = float(near.max()) or 1.0
        worth = (1 - NEARNESS) * scores[found] / scores[found].max() + NEARNESS * near / nearest
        return found, worth, rest, scores[rest]

    def _likeness(
        self, asked: "Mapping[str, Vectors]", needed: "Places", allowed: "Mask | None"
    ) -> "NDArray[np.float32]":
        """Per slot its cosine, by a former model where the one in use has not been there yet.

        Those of two models are not one measure, but near enough while the one replaces the other. Of `needed` it is
        known even where the nearest only are compared.
        """
        import numpy as np

        slots = len(self._ids)
        merged = np.full(slots, UNKNOWN, dtype=np.float32)
        for model, vector in asked.items():
            passages = self._passages[model]
            found = passages.nearest(vector, slots, allowed)
            unknown = needed[found[needed] == UNKNOWN]
            found[unknown] = passages.likeness(unknown, vector)
            merged = np.where(merged == UNKNOWN, found, merged)
        return merged

    def _raised(self, query: Query, found: "Places", scores: "Scores") -> "Scores":
        """Scores with what the question as a whole adds: word for word in an entry, or of the days it speaks of."""
        import numpy as np

        scores = scores + OWN_WORDS * self._mine[found]
        if query.whole and (phrase := match_phrase(query.whole)):
            scores = scores + WHOLE_PHRASE * np.isin(found, self._lexicon.slots(phrase, self._live))
        if words := _looked_up(query):
            scores = scores + EXACT * self._exactly(words, found, scores)
        for quoted in filter(None, map(match_phrase, query.quoted)):
            scores = scores + QUOTED * np.isin(found, self._lexicon.slots(quoted, self._live))
        if query.when is not None:
            days = self._days[found]
            inside = (days >= query.when.start.toordinal()) & (days <= query.when.end.toordinal())
            scores = scores + IN_TIME * inside
        return scores

    def _exactly(self, words: Sequence[str], found: "Places", scores: "Scores") -> "Scores":
        """The share of the words that `found` hold in the very form asked for: a stem stands for many.

        For a form that very many entries hold, the best of `found` are looked at only.
        """
        import numpy as np

        share = np.zeros(len(found))
        common: list[tuple[str, re.Pattern[str]]] = []
        for word in words:
            if (slots := self._lexicon.form(word)) is not None:
                share += np.isin(found, slots)
            else:
                form, end = folded(word.rstrip("*")).lower(), "" if word.endswith("*") else r"(?!\w)"
                common.append((form, re.compile(rf"(?<!\w){re.escape(form)}{end}")))
        places = np.argsort(-scores, kind="stable")[: LOOKED_AT if common else 0].tolist()
        bodies = self._lexicon.bodies([int(found[place]) for place in places])
        for place in places:
            body = bodies[int(found[place])].lower()
            share[place] += sum(form in body and exact.search(body) is not None for form, exact in common)
        return share / len(words)

    def _page(
        self, found: "Places", scores: "Scores", asked: "Mapping[str, Vectors]", limit: int, offset: int, total: int
    ) -> Matches:
        import numpy as np

        order = np.lexsort((-self._at[found], -scores))[offset : offset + limit]
        slots = found[order]
        likeness = np.full(len(slots), UNKNOWN, dtype=np.float32)
        for model, vector in asked.items():
            likeness = np.where(likeness == UNKNOWN, self._passages[model].likeness(slots, vector), likeness)
        page: list[Match] = []
        for number, score, cosine in zip(slots, scores[order], likeness, strict=True):
            slot = int(number)
            parts = (self._passages[model].passage(slot, vector) for model, vector in asked.items())
            passage = next((part for part in parts if part >= 0), -1)
            page.append(Match(self._ids[slot], float(score), passage, float(cosine)))
        return Matches(tuple(page), total, bool(asked))


def _behind(found: "Places", scores: "Scores", rest: "Places", worth: "Scores") -> "tuple[Places, Scores]":
    """Slots with their scores, and behind them all the rest in the order of what they are worth, above 0."""
    import numpy as np

    if not len(rest):
        return found, scores
    return np.concatenate([found, rest]), np.concatenate([scores, worth / worth.max() - 2])


def _looked_up(query: Query) -> Sequence[str]:
    """The words of a query that is a look-up rather than a question."""
    return query.words if len(query.words) <= LOOKUP_WORDS and not query.phrases else ()


def _about(document: Document) -> str:
    """What is indexed beside the text: the day in words, and the traces."""
    day = document.day
    traces = " ".join(spaced(folded(normalised(trace))) for trace in document.traces)
    return f"{format_weekday(day)} {format_day(day)} {day.isoformat()} {traces}".rstrip()


def _excluded(term: str) -> str:
    literal = match_phrase(term)
    return f"{literal}*" if literal and term.endswith("*") else literal
