"""The words of one writer: FTS5 tables in memory that cut, stem and store them, and the postings read from them.

Outside `persistence` the only place that opens SQLite: `:memory:` only.
"""

import json
import sqlite3
import unicodedata
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llamora.search.bm25 import Posting, Postings, in_a_row
from llamora.search.rank import (
    JOINT,
    START,
    STOP,
    STOP_WORDS,
    Query,
    folded,
    match_phrase,
    match_terms,
    spaced,
    unfolded,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Places = NDArray[np.intp]
    Mask = NDArray[np.bool_]

Row = tuple[int, str, str]
"""What is indexed of an entry: its slot, its date and traces, its text; both as `rank` folds and spaces them."""

CUTTER = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
TOKENIZER = f"porter {CUTTER}"
SNIPPET_TOKENS = 40  # about 240 letters; SQLite allows 64
STRETCH = 3000  # characters; a snippet of that many takes under a millisecond
STRETCH_OVERLAP = 300  # so that a phrase over the edge is whole in one of two
RARE_FORM = 2_000  # entries; a word that so many hold as it is written is not looked up for all of them
FEW = 64  # so many candidates of a phrase are looked at one by one
COMPRESSED_FROM = 1_000  # letters
BULK = 32  # from so many new entries on, cached postings are read again instead of brought along
COMMON_FROM = 5_000  # entries; below, no word is so common that reading its posting is felt
COMMON = 0.02  # a word in more than this part of all entries has its posting read before it is asked for
SCAN_TERMS = 500  # words looked through for that before the thread looks for other work
STEMS_KEPT = 4096
FINISHED = 16  # words that a prefix is taken for, where it is none of a stem
MERGE = {table: f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)" for table in ("words", "forms")}  # noqa: S608
MERGE_PAGES = 64  # of FTS5, written in one step of purging: some 20 ms

READ = (
    "SELECT group_concat(CASE col WHEN 'body' THEN doc - 1 END),"
    " group_concat(CASE col WHEN 'body' THEN offset END),"
    " group_concat(CASE col WHEN 'about' THEN doc - 1 END) FROM terms WHERE "
)


class Lexicon:
    """Words by slot. All methods are for one thread, that of the index which it belongs to.

    A slot's row in the FTS5 tables is `slot + 1`. They keep no text ("contentless"), but to take an entry out of them
    FTS5 needs its text again, so that lies beside them, compressed. Postings may hold slots that were removed since:
    `live` tells which were not.
    """

    def __init__(self) -> None:
        self._db = _empty()
        self._db.execute(f'CREATE VIRTUAL TABLE words USING fts5(about, body, content="", tokenize="{TOKENIZER}")')
        # The words as they are written, beside their stems: "busying" is one word among thousands of "business".
        self._db.execute(
            f'CREATE VIRTUAL TABLE forms USING fts5(body, content="", detail=none, columnsize=0, tokenize="{CUTTER}")'
        )
        self._db.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, about TEXT NOT NULL, body NOT NULL)")
        self._views()
        self._postings = Postings(self._read)
        self._stems: dict[str, list[str]] = {}
        self._common = {term for terms in self._terms([f'"{word}"' for word in STOP_WORDS]) for term in terms}
        self._marked: dict[str, bool] = {}  # tables with words that are only marked as gone; whether purging began
        self._scanned: str | None = ""  # the last word looked at for being common; None: all were

    def _views(self) -> None:
        self._db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, instance)")
        self._db.execute("CREATE VIRTUAL TABLE temp.spelt USING fts5vocab(main, forms, row)")
        self._db.execute("CREATE VIRTUAL TABLE temp.counts USING fts5vocab(main, words, row)")
        self._db.execute(f'CREATE VIRTUAL TABLE temp.shown USING fts5(about, body, tokenize="{TOKENIZER}")')
        self._db.execute("CREATE VIRTUAL TABLE temp.cut USING fts5vocab(temp, shown, instance)")

    def close(self) -> None:
        """Forget everything."""
        self._db.close()
        self._postings.clear()

    @contextmanager
    def changing(self) -> Generator[None]:
        """Do all changes of the block, or none when it raises."""
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def add(self, rows: Sequence[Row]) -> list[int]:
        """Index entries in free slots, inside `changing`; returns how many words each has."""
        numbered = [(slot + 1, about, body) for slot, about, body in rows]
        self._db.executemany("INSERT INTO words (rowid, about, body) VALUES (?, ?, ?)", numbered)
        self._db.executemany("INSERT INTO forms (rowid, body) VALUES (?, ?)", [(row, b) for row, _, b in numbered])
        self._db.executemany(
            "INSERT INTO texts (id, about, body) VALUES (?, ?, ?)",
            [(row, about, _packed(body)) for row, about, body in numbered],
        )
        sizes = [
            self._db.execute("SELECT sz FROM words_docsize WHERE id=?", (row,)).fetchone()[0] for row, _, _ in numbered
        ]
        return [sum(_varints(size)) for size in sizes]

    def bring_along(self, rows: Sequence[Row]) -> None:
        """After `changing`: tell cached postings what was added, or forget them where reading them again is cheaper."""
        if not len(self._postings) or not rows:
            return
        if len(rows) > BULK or sum(len(body) for _, _, body in rows) > 100_000:
            self._postings.clear()
            self._scanned = ""
            return
        for row, about, body in rows:
            self._postings.add(row, self._cut([(about, body)])[0])

    def remove(self, slot: int) -> None:
        """Take an entry out, inside `changing`."""
        about, body = self.text(slot)
        self._db.execute(
            "INSERT INTO words (words, rowid, about, body) VALUES ('delete', ?, ?, ?)", (slot + 1, about, body)
        )
        self._db.execute("INSERT INTO forms (forms, rowid, body) VALUES ('delete', ?, ?)", (slot + 1, body))
        self._marked = {"words": False, "forms": False}
        self._db.execute("DELETE FROM texts WHERE id=?", (slot + 1,))

    def text(self, slot: int) -> tuple[str, str]:
        """What was indexed of an entry: its date and traces, its text."""
        about, body = self._db.execute("SELECT about, body FROM texts WHERE id=?", (slot + 1,)).fetchone()
        return about, _unpacked(body)

    def bodies(self, slots: Sequence[int]) -> dict[int, str]:
        """The texts of entries, of those that are here."""
        wanted = "SELECT id - 1, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        rows = self._db.execute(wanted, (json.dumps(slots),))
        return {slot: _unpacked(body) for slot, body in rows}

    def own_words(self, slots: Sequence[int]) -> dict[int, int]:
        """How many words the texts of entries have, without their dates and traces."""
        query = "SELECT id - 1, sz FROM words_docsize WHERE id IN (SELECT value + 1 FROM json_each(?))"
        return {slot: list(_varints(size))[-1] for slot, size in self._db.execute(query, (json.dumps(slots),))}

    @property
    def cached(self) -> bool:
        """Whether there are postings that may hold what was removed since."""
        return bool(len(self._postings))

    def forget_postings(self) -> None:
        """Read postings again when they are asked for."""
        self._postings.clear()

    def purge(self) -> bool:
        """Take a step towards having no word in memory that no entry holds. True while there is more to do.

        FTS5 only marks what is deleted, until it merges (https://www.sqlite.org/fts5.html#the_merge_command).
        """
        for table, began in list(self._marked.items()):
            before = self._db.total_changes
            pages = MERGE_PAGES if began else -MERGE_PAGES
            self._db.execute(MERGE[table], (pages,))
            self._marked[table] = True
            if began and self._db.total_changes - before < 2:
                del self._marked[table]
            return True
        return False

    def foresee(self, entries: int) -> bool:
        """Read the posting of one more word that is common among so many entries. True while there may be more."""
        if self._scanned is None or entries < COMMON_FROM:
            return False
        words = self._db.execute(
            "SELECT term, doc FROM temp.counts WHERE term>? LIMIT ?", (self._scanned, SCAN_TERMS)
        ).fetchall()
        for term, holding in words:
            self._scanned = term
            if term in self._common:
                continue
            if holding > COMMON * entries and term not in self._postings:
                self._postings.get(term)
                return True
        if len(words) < SCAN_TERMS:
            self._scanned = None
        return self._scanned is not None

    def image(self) -> bytes:
        """All of it, as `restore` takes it."""
        return self._db.serialize()

    def restore(self, image: "memoryview | bytes") -> None:
        """Be as another was at its `image`. Raises sqlite3.Error for a damaged one."""
        self._db.close()
        self._db = _empty()
        self._db.deserialize(image)
        self._views()

    def posting(self, literal: str) -> Posting | None:
        """What an FTS5 string literal finds."""
        import numpy as np

        (terms,) = self._terms([literal])
        if not terms:
            return None
        if len(terms) == 1:
            return self._postings.get(terms[0])
        slots = self._phrase(terms, literal).astype(np.int32)
        return Posting(slots, np.zeros_like(slots), slots[:0])

    def slots(self, literal: str, live: "Mask") -> "Places":
        """The live slots that an FTS5 string literal finds."""
        import numpy as np

        posting = self.posting(literal)
        slots = np.zeros(0, dtype=np.intp) if posting is None else posting.slots.astype(np.intp)
        return slots[live[slots]]

    def literals(self, query: Query, live: "Mask") -> list[str]:
        """What a query's words and phrases are found by. Where no stem begins as a prefix does, words that do."""
        found: dict[str, None] = {}
        for literal in _any(query.terms):
            unfinished = literal.endswith("*") and not len(self.slots(literal, live))
            found.update(dict.fromkeys((unfinished and self._finished(literal)) or [literal]))
        return list(found)

    def form(self, word: str) -> "Places | None":
        """The slots that hold a word as it is written; None for one of several tokens, or in more than RARE_FORM."""
        import numpy as np

        literals = match_terms(word)
        if len(literals) != 1 or " " in literals[0]:
            return None
        rows = self._db.execute(
            "SELECT rowid - 1 FROM forms WHERE forms MATCH ? LIMIT ?", (literals[0], RARE_FORM + 1)
        ).fetchall()
        return None if len(rows) > RARE_FORM else np.array([row[0] for row in rows], dtype=np.intp)

    def snippets(self, query: Query, texts: Sequence[str], live: "Mask") -> list[str]:
        """Per text the stretch that matches best, with START and STOP around each match; "" where none matches."""
        expression = " OR ".join(self.literals(query, live))
        found = [""] * len(texts)
        if not expression:
            return found
        self._db.execute("BEGIN")
        try:
            # FTS5 takes time by the square of the matches for a snippet, so a long text goes in by stretches and
            # only the best of them is looked at.
            rows = [(i, stretch) for i, text in enumerate(texts) for stretch in _stretches(text)]
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, body) VALUES (?, ?)",
                [(row, spaced(folded(stretch))) for row, (_, stretch) in enumerate(rows)],
            )
            best: dict[int, int] = {}
            ranked: list[tuple[int]] = self._db.execute(
                "SELECT rowid FROM shown WHERE shown MATCH ? ORDER BY rank", (expression,)
            ).fetchall()
            for (row,) in ranked:
                best.setdefault(rows[row][0], row)
            for text, row in best.items():
                (marked,) = self._db.execute(
                    "SELECT snippet(shown, 1, ?, ?, '…', ?) FROM shown WHERE shown MATCH ? AND rowid=?",
                    (START, STOP, SNIPPET_TOKENS, expression, row),
                ).fetchone()
                marked, stretch = marked.replace(JOINT, ""), rows[row][1]
                found[text] = marked if stretch.isascii() else unfolded(marked, stretch)
        finally:
            self._db.execute("ROLLBACK")
        return found

    # --- Inside

    def _cut(self, texts: Sequence[tuple[str, str]]) -> list[list[tuple[str, bool, int]]]:
        """The tokens of texts as FTS5 cuts and stems them: (term, whether in the body, its number)."""
        found: list[list[tuple[str, bool, int]]] = [[] for _ in texts]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, about, body) VALUES (?, ?, ?)",
                [(row, about, body) for row, (about, body) in enumerate(texts)],
            )
            rows: Iterable[tuple[str, int, str, int]] = self._db.execute("SELECT term, doc, col, offset FROM temp.cut")
            for term, row, column, number in rows:
                if term:  # of a mark without a letter nothing is left
                    found[row] += [(term, column == "body", number)]
        finally:
            self._db.execute("ROLLBACK")
        return found

    def _terms(self, literals: Sequence[str]) -> list[list[str]]:
        """The stems of FTS5 string literals, in order; that of a prefix ends in `*`."""
        new = [literal for literal in literals if literal not in self._stems]
        if new:
            if len(self._stems) > STEMS_KEPT:
                self._stems.clear()
                new = list(literals)
            for literal, tokens in zip(new, self._cut([("", literal.strip('*"')) for literal in new]), strict=True):
                terms = [term for term, _, _ in sorted(tokens, key=lambda token: token[2])]
                if terms and literal.endswith("*"):
                    terms[-1] += "*"
                self._stems[literal] = terms
        return [self._stems[literal] for literal in literals]

    def _read(self, term: str) -> Posting:
        """The posting of a term, read in one step of SQLite, which holds no other thread up."""
        import numpy as np

        if term.endswith("*"):
            where, bounds = "term>=? AND term<?", (term[:-1], term[:-1] + "\U0010ffff")
        else:
            where, bounds = "term=?", (term,)
        row = self._db.execute(READ + where, bounds).fetchone()
        return Posting(*(np.fromstring(text or "", dtype=np.int32, sep=",") for text in row))

    def _phrase(self, terms: Sequence[str], literal: str) -> "Places":
        """The slots that hold the words of a literal one after the other: its rarer words say where to look."""
        import numpy as np

        placed = [
            (place, self._postings.get(term))
            for place, term in enumerate(terms)
            if term not in self._common and not term.endswith("*")
        ]
        if not placed:
            return self._matching(literal)
        found = in_a_row(placed)
        about = placed[0][1].about
        for _, posting in placed[1:]:
            about = np.intersect1d(about, posting.about)
        if len(placed) == len(terms) and not len(about):
            return found
        found = np.union1d(found, about).astype(np.intp)
        return self._holding(literal, found) if len(found) <= FEW else self._matching(literal)

    def _matching(self, literal: str) -> "Places":
        """The slots that FTS5 finds for a literal."""
        import numpy as np

        rows = self._db.execute("SELECT rowid - 1 FROM words WHERE words MATCH ?", (literal,))
        return np.array([row[0] for row in rows], dtype=np.intp)

    def _holding(self, literal: str, slots: "Places") -> "Places":
        """Those of a few slots that FTS5 finds for a literal when it is shown their texts alone."""
        import numpy as np

        wanted = "SELECT id, about, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        texts = self._db.execute(wanted, (json.dumps(slots.tolist()),)).fetchall()
        self._db.execute("BEGIN")
        try:
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, about, body) VALUES (?, ?, ?)",
                [(row, about, _unpacked(body)) for row, about, body in texts],
            )
            rows = self._db.execute("SELECT rowid - 1 FROM temp.shown WHERE shown MATCH ?", (literal,)).fetchall()
        finally:
            self._db.execute("ROLLBACK")
        return np.array([row[0] for row in rows], dtype=np.intp)

    def _finished(self, literal: str) -> list[str]:
        """Words that begin as a literal does: "busyin*" is no beginning of the stem "busi", but of "busying"."""
        letters = unicodedata.normalize("NFD", literal.strip('*"').lower())
        start = "".join(letter for letter in letters if not unicodedata.combining(letter))
        rows = self._db.execute(
            "SELECT term FROM temp.spelt WHERE term>=? AND term<? LIMIT ?", (start, start + "\U0010ffff", FINISHED)
        )
        return [f'"{term}"' for (term,) in rows]


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _stretches(text: str) -> list[str]:
    """A text in overlapping stretches."""
    last = max(len(text) - STRETCH_OVERLAP, 1)
    return [text[start : start + STRETCH] for start in range(0, last, STRETCH - STRETCH_OVERLAP)]


def _packed(body: str) -> str | bytes:
    """A text as it is kept: a long one compressed, for a short one that gains little and takes long."""
    return zlib.compress(body.encode(), 1) if len(body) > COMPRESSED_FROM else body


def _unpacked(kept: str | bytes) -> str:
    return zlib.decompress(kept).decode() if isinstance(kept, bytes) else kept


def _varints(blob: bytes) -> Iterable[int]:
    """The integers of an FTS5 docsize record: one for each column, as SQLite writes varints."""
    value = 0
    for byte in blob:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            yield value
            value = 0


def _any(terms: Iterable[str]) -> list[str]:
    """The literals of which one must match, each once."""
    found: list[str] = []
    for term in terms:
        found += [match_phrase(term)] if " " in term else match_terms(term)
    return list(dict.fromkeys(filter(None, found)))
