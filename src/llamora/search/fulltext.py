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

from llamora.search.bm25 import Posting, PostingCache, phrase_match
from llamora.search.rank import (
    MATCH_START,
    MATCH_STOP,
    TOKEN_SEPARATOR,
    Query,
    fold,
    phrase_literal,
    separate_letters,
    term_literals,
    unfold_snippet,
)
from llamora.text import STOP_WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Slots = NDArray[np.intp]
    Mask = NDArray[np.bool_]

FulltextRow = tuple[int, str, str]
"""What is indexed of an entry: its slot, its date and traces, its text; both as `rank` folds and spaces them."""

BASE_TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
TOKENIZER = f"porter {BASE_TOKENIZER}"
SNIPPET_TOKENS = 40  # about 240 letters; SQLite allows 64
SEGMENT_CHARS = 3000  # characters; a snippet of that many takes under a millisecond
SEGMENT_OVERLAP_CHARS = 300  # so that a phrase over the edge is whole in one of two
MAX_FORM_ENTRIES = (
    2_000  # entries; a word that so many hold as it is written is not looked up for all of them
)
PHRASE_CHECK_LIMIT = 64  # so many candidates of a phrase are looked at one by one
COMPRESS_ABOVE_CHARS = 1_000  # letters
BULK_ROWS = (
    32  # from so many new entries on, cached postings are read again instead of brought along
)
PREFETCH_MIN_ENTRIES = (
    5_000  # entries; below, no word is so common that reading its posting is felt
)
COMMON_TERM_SHARE = (
    0.02  # a word in more than this part of all entries has its posting read before it is asked for
)
PREFETCH_SCAN_TERMS = 500  # words looked through for that before the thread looks for other work
MAX_CACHED_STEMS = 4096
MAX_COMPLETIONS = 16  # words that a prefix is taken for, where it is none of a stem
MERGE_SQL = {
    table: f"INSERT INTO {table} ({table}, rank) VALUES ('merge', ?)"
    for table in ("words", "forms")
}  # noqa: S608
MERGE_PAGES = 64  # of FTS5, written in one step of purging: some 20 ms

POSTING_SQL = (
    "SELECT group_concat(CASE col WHEN 'body' THEN doc - 1 END),"
    " group_concat(CASE col WHEN 'body' THEN offset END),"
    " group_concat(CASE col WHEN 'about' THEN doc - 1 END) FROM terms WHERE "
)


class FulltextIndex:
    """Words by slot. All methods are for one thread, that of the index which it belongs to.

    A slot's row in the FTS5 tables is `slot + 1`. They keep no text ("contentless"), but to take an entry out of them
    FTS5 needs its text again, so that lies beside them, compressed. Postings may hold slots that were removed since:
    `live` tells which were not.
    """

    def __init__(self) -> None:
        self._db = _open_memory_db()
        self._db.execute(
            f'CREATE VIRTUAL TABLE words USING fts5(about, body, content="", tokenize="{TOKENIZER}")'
        )
        # The words as they are written, beside their stems: "busying" is one word among thousands of "business".
        self._db.execute(
            f'CREATE VIRTUAL TABLE forms USING fts5(body, content="", detail=none, columnsize=0, tokenize="{BASE_TOKENIZER}")'
        )
        self._db.execute(
            "CREATE TABLE texts (id INTEGER PRIMARY KEY, about TEXT NOT NULL, body NOT NULL)"
        )
        self._create_views()
        self._postings = PostingCache(self._read_posting)
        self._stems: dict[str, list[str]] = {}
        self._stop_terms = {
            term
            for terms in self._stem_literals([f'"{word}"' for word in STOP_WORDS])
            for term in terms
        }
        self._merge_started: dict[
            str, bool
        ] = {}  # tables with words that are only marked as gone; whether purging began
        self._last_scanned_term: str | None = (
            ""  # the last word looked at for being common; None: all were
        )

    def _create_views(self) -> None:
        self._db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, instance)")
        self._db.execute("CREATE VIRTUAL TABLE temp.spelt USING fts5vocab(main, forms, row)")
        self._db.execute("CREATE VIRTUAL TABLE temp.counts USING fts5vocab(main, words, row)")
        self._db.execute(
            f'CREATE VIRTUAL TABLE temp.shown USING fts5(about, body, tokenize="{TOKENIZER}")'
        )
        self._db.execute("CREATE VIRTUAL TABLE temp.cut USING fts5vocab(temp, shown, instance)")

    def close(self) -> None:
        """Forget everything."""
        self._db.close()
        self._postings.clear()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Do all changes of the block, or none when it raises."""
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def add(self, rows: Sequence[FulltextRow]) -> list[int]:
        """Index entries in free slots, inside `changing`; returns how many words each has."""
        numbered = [(slot + 1, about, body) for slot, about, body in rows]
        self._db.executemany("INSERT INTO words (rowid, about, body) VALUES (?, ?, ?)", numbered)
        self._db.executemany(
            "INSERT INTO forms (rowid, body) VALUES (?, ?)", [(row, b) for row, _, b in numbered]
        )
        self._db.executemany(
            "INSERT INTO texts (id, about, body) VALUES (?, ?, ?)",
            [(row, about, _compress(body)) for row, about, body in numbered],
        )
        docsizes = [
            self._db.execute("SELECT sz FROM words_docsize WHERE id=?", (row,)).fetchone()[0]
            for row, _, _ in numbered
        ]
        return [sum(_decode_varints(size)) for size in docsizes]

    def update_postings(self, rows: Sequence[FulltextRow]) -> None:
        """After `changing`: tell cached postings what was added, or forget them where reading them again is cheaper."""
        if not len(self._postings) or not rows:
            return
        if len(rows) > BULK_ROWS or sum(len(body) for _, _, body in rows) > 100_000:
            self._postings.clear()
            self._last_scanned_term = ""
            return
        for row, about, body in rows:
            self._postings.add(row, self._tokenize([(about, body)])[0])

    def remove(self, slot: int) -> None:
        """Take an entry out, inside `changing`."""
        about, body = self.get_text(slot)
        self._db.execute(
            "INSERT INTO words (words, rowid, about, body) VALUES ('delete', ?, ?, ?)",
            (slot + 1, about, body),
        )
        self._db.execute(
            "INSERT INTO forms (forms, rowid, body) VALUES ('delete', ?, ?)", (slot + 1, body)
        )
        self._merge_started = {"words": False, "forms": False}
        self._db.execute("DELETE FROM texts WHERE id=?", (slot + 1,))

    def get_text(self, slot: int) -> tuple[str, str]:
        """What was indexed of an entry: its date and traces, its text."""
        metadata, body = self._db.execute(
            "SELECT about, body FROM texts WHERE id=?", (slot + 1,)
        ).fetchone()
        return metadata, _decompress(body)

    def get_bodies(self, slots: Sequence[int]) -> dict[int, str]:
        """The texts of entries, of those that are here."""
        statement = (
            "SELECT id - 1, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        rows = self._db.execute(statement, (json.dumps(slots),))
        return {slot: _decompress(body) for slot, body in rows}

    def body_word_counts(self, slots: Sequence[int]) -> dict[int, int]:
        """How many words the texts of entries have, without their dates and traces."""
        statement = (
            "SELECT id - 1, sz FROM words_docsize WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        return {
            slot: list(_decode_varints(size))[-1]
            for slot, size in self._db.execute(statement, (json.dumps(slots),))
        }

    @property
    def has_postings(self) -> bool:
        """Whether there are postings that may hold what was removed since."""
        return bool(len(self._postings))

    def clear_postings(self) -> None:
        """Read postings again when they are asked for."""
        self._postings.clear()

    def merge_step(self) -> bool:
        """Take a step towards having no word in memory that no entry holds. True while there is more to do.

        FTS5 only marks what is deleted, until it merges (https://www.sqlite.org/fts5.html#the_merge_command).
        """
        for table, has_begun in list(self._merge_started.items()):
            changes_before = self._db.total_changes
            pages = MERGE_PAGES if has_begun else -MERGE_PAGES
            self._db.execute(MERGE_SQL[table], (pages,))
            self._merge_started[table] = True
            if has_begun and self._db.total_changes - changes_before < 2:
                del self._merge_started[table]
            return True
        return False

    def prefetch(self, entry_count: int) -> bool:
        """Read the posting of one more word that is common among so many entries. True while there may be more."""
        if self._last_scanned_term is None or entry_count < PREFETCH_MIN_ENTRIES:
            return False
        rows = self._db.execute(
            "SELECT term, doc FROM temp.counts WHERE term>? LIMIT ?",
            (self._last_scanned_term, PREFETCH_SCAN_TERMS),
        ).fetchall()
        for term, holding_count in rows:
            self._last_scanned_term = term
            if term in self._stop_terms:
                continue
            if holding_count > COMMON_TERM_SHARE * entry_count and term not in self._postings:
                self._postings.get(term)
                return True
        if len(rows) < PREFETCH_SCAN_TERMS:
            self._last_scanned_term = None
        return self._last_scanned_term is not None

    def serialize(self) -> bytes:
        """All of it, as `restore` takes it."""
        return self._db.serialize()

    def restore(self, image: "memoryview | bytes") -> None:
        """Be as another was at its `image`. Raises sqlite3.Error for a damaged one."""
        self._db.close()
        self._db = _open_memory_db()
        self._db.deserialize(image)
        self._create_views()

    def posting(self, literal: str) -> Posting | None:
        """What an FTS5 string literal finds."""
        import numpy as np

        (terms,) = self._stem_literals([literal])
        if not terms:
            return None
        if len(terms) == 1:
            return self._postings.get(terms[0])
        slots = self._phrase_slots(terms, literal).astype(np.int32)
        return Posting(slots, np.zeros_like(slots), slots[:0])

    def matching_slots(self, literal: str, live: "Mask") -> "Slots":
        """The live slots that an FTS5 string literal finds."""
        import numpy as np

        posting = self.posting(literal)
        slots = np.zeros(0, dtype=np.intp) if posting is None else posting.slots.astype(np.intp)
        return slots[live[slots]]

    def literals(self, query: Query, live: "Mask") -> list[str]:
        """What a query's words and phrases are found by. Where no stem begins as a prefix does, words that do."""
        unique: dict[str, None] = {}
        for literal in _match_literals(query.terms):
            is_unfinished = literal.endswith("*") and not len(self.matching_slots(literal, live))
            unique.update(
                dict.fromkeys((is_unfinished and self._complete_prefix(literal)) or [literal])
            )
        return list(unique)

    def exact_form_slots(self, word: str) -> "Slots | None":
        """The slots that hold a word as it is written; None for one of several tokens, or in more than RARE_FORM."""
        import numpy as np

        literals = term_literals(word)
        if len(literals) != 1 or " " in literals[0]:
            return None
        rows = self._db.execute(
            "SELECT rowid - 1 FROM forms WHERE forms MATCH ? LIMIT ?",
            (literals[0], MAX_FORM_ENTRIES + 1),
        ).fetchall()
        return (
            None
            if len(rows) > MAX_FORM_ENTRIES
            else np.array([row[0] for row in rows], dtype=np.intp)
        )

    def build_snippets(self, query: Query, texts: Sequence[str], live: "Mask") -> list[str]:
        """Per text the stretch that matches best, with START and STOP around each match; "" where none matches."""
        expression = " OR ".join(self.literals(query, live))
        snippets = [""] * len(texts)
        if not expression:
            return snippets
        self._db.execute("BEGIN")
        try:
            # FTS5 takes time by the square of the matches for a snippet, so a long text goes in by stretches and
            # only the best of them is looked at.
            rows = [
                (i, segment) for i, text in enumerate(texts) for segment in _split_segments(text)
            ]
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, body) VALUES (?, ?)",
                [(row, separate_letters(fold(segment))) for row, (_, segment) in enumerate(rows)],
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
                    (MATCH_START, MATCH_STOP, SNIPPET_TOKENS, expression, row),
                ).fetchone()
                marked, segment = marked.replace(TOKEN_SEPARATOR, ""), rows[row][1]
                snippets[text] = marked if segment.isascii() else unfold_snippet(marked, segment)
        finally:
            self._db.execute("ROLLBACK")
        return snippets

    # --- Inside

    def _tokenize(self, texts: Sequence[tuple[str, str]]) -> list[list[tuple[str, bool, int]]]:
        """The tokens of texts as FTS5 cuts and stems them: (term, whether in the body, its number)."""
        tokens: list[list[tuple[str, bool, int]]] = [[] for _ in texts]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, about, body) VALUES (?, ?, ?)",
                [(row, about, body) for row, (about, body) in enumerate(texts)],
            )
            rows: Iterable[tuple[str, int, str, int]] = self._db.execute(
                "SELECT term, doc, col, offset FROM temp.cut"
            )
            for term, row, column, position in rows:
                if term:  # of a mark without a letter nothing is left
                    tokens[row] += [(term, column == "body", position)]
        finally:
            self._db.execute("ROLLBACK")
        return tokens

    def _stem_literals(self, literals: Sequence[str]) -> list[list[str]]:
        """The stems of FTS5 string literals, in order; that of a prefix ends in `*`."""
        uncached = [literal for literal in literals if literal not in self._stems]
        if uncached:
            if len(self._stems) > MAX_CACHED_STEMS:
                self._stems.clear()
                uncached = list(literals)
            for literal, tokens in zip(
                uncached,
                self._tokenize([("", literal.strip('*"')) for literal in uncached]),
                strict=True,
            ):
                terms = [term for term, _, _ in sorted(tokens, key=lambda token: token[2])]
                if terms and literal.endswith("*"):
                    terms[-1] += "*"
                self._stems[literal] = terms
        return [self._stems[literal] for literal in literals]

    def _read_posting(self, term: str) -> Posting:
        """The posting of a term, read in one step of SQLite, which holds no other thread up."""
        import numpy as np

        if term.endswith("*"):
            condition, parameters = "term>=? AND term<?", (term[:-1], term[:-1] + "\U0010ffff")
        else:
            condition, parameters = "term=?", (term,)
        row = self._db.execute(POSTING_SQL + condition, parameters).fetchone()
        return Posting(*(np.fromstring(text or "", dtype=np.int32, sep=",") for text in row))

    def _phrase_slots(self, terms: Sequence[str], literal: str) -> "Slots":
        """The slots that hold the words of a literal one after the other: its rarer words say where to look."""
        import numpy as np

        positioned = [
            (place, self._postings.get(term))
            for place, term in enumerate(terms)
            if term not in self._stop_terms and not term.endswith("*")
        ]
        if not positioned:
            return self._query_slots(literal)
        slots = phrase_match(positioned)
        metadata_slots = positioned[0][1].metadata_slots
        for _, posting in positioned[1:]:
            metadata_slots = np.intersect1d(metadata_slots, posting.metadata_slots)
        if len(positioned) == len(terms) and not len(metadata_slots):
            return slots
        slots = np.union1d(slots, metadata_slots).astype(np.intp)
        return (
            self._verify_slots(literal, slots)
            if len(slots) <= PHRASE_CHECK_LIMIT
            else self._query_slots(literal)
        )

    def _query_slots(self, literal: str) -> "Slots":
        """The slots that FTS5 finds for a literal."""
        import numpy as np

        rows = self._db.execute("SELECT rowid - 1 FROM words WHERE words MATCH ?", (literal,))
        return np.array([row[0] for row in rows], dtype=np.intp)

    def _verify_slots(self, literal: str, slots: "Slots") -> "Slots":
        """Those of a few slots that FTS5 finds for a literal when it is shown their texts alone."""
        import numpy as np

        statement = (
            "SELECT id, about, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        texts = self._db.execute(statement, (json.dumps(slots.tolist()),)).fetchall()
        self._db.execute("BEGIN")
        try:
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, about, body) VALUES (?, ?, ?)",
                [(row, about, _decompress(body)) for row, about, body in texts],
            )
            rows = self._db.execute(
                "SELECT rowid - 1 FROM temp.shown WHERE shown MATCH ?", (literal,)
            ).fetchall()
        finally:
            self._db.execute("ROLLBACK")
        return np.array([row[0] for row in rows], dtype=np.intp)

    def _complete_prefix(self, literal: str) -> list[str]:
        """Words that begin as a literal does: "busyin*" is no beginning of the stem "busi", but of "busying"."""
        letters = unicodedata.normalize("NFD", literal.strip('*"').lower())
        prefix = "".join(letter for letter in letters if not unicodedata.combining(letter))
        rows = self._db.execute(
            "SELECT term FROM temp.spelt WHERE term>=? AND term<? LIMIT ?",
            (prefix, prefix + "\U0010ffff", MAX_COMPLETIONS),
        )
        return [f'"{term}"' for (term,) in rows]


def _open_memory_db() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _split_segments(text: str) -> list[str]:
    """A text in overlapping stretches."""
    last = max(len(text) - SEGMENT_OVERLAP_CHARS, 1)
    return [
        text[start : start + SEGMENT_CHARS]
        for start in range(0, last, SEGMENT_CHARS - SEGMENT_OVERLAP_CHARS)
    ]


def _compress(body: str) -> str | bytes:
    """A text as it is kept: a long one compressed, for a short one that gains little and takes long."""
    return zlib.compress(body.encode(), 1) if len(body) > COMPRESS_ABOVE_CHARS else body


def _decompress(stored: str | bytes) -> str:
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored


def _decode_varints(blob: bytes) -> Iterable[int]:
    """The integers of an FTS5 docsize record: one for each column, as SQLite writes varints."""
    value = 0
    for byte in blob:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            yield value
            value = 0


def _match_literals(terms: Iterable[str]) -> list[str]:
    """The literals of which one must match, each once."""
    literals: list[str] = []
    for term in terms:
        literals += [phrase_literal(term)] if " " in term else term_literals(term)
    return list(dict.fromkeys(filter(None, literals)))
