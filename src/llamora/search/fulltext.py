"""Store and find words by FTS5, in memory, and read its postings into arrays.

FTS5 cuts and stems them. This is the only module outside `persistence` that opens SQLite, and it
opens `:memory:` only.
"""

import json
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llamora.search.bm25 import Posting, PostingCache, phrase_match
from llamora.search.query import Query
from llamora.search.scratch import Scratch
from llamora.search.spelling import Vocabulary
from llamora.search.tokens import match_literals, phrase_literal, term_literals
from llamora.text import STOP_WORDS

if TYPE_CHECKING:
    from llamora.search.arrays import Mask, Slots

FulltextRow = tuple[int, str, str]
"""The slot of an entry, its date and tags, its text; both texts folded and spaced by `tokens`."""

BASE_TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
TOKENIZER = f"porter {BASE_TOKENIZER}"
MAX_FORM_ENTRIES = 2_000  # a word that more entries hold as it is typed is not looked up in all
PHRASE_CHECK_LIMIT = 64  # candidates of a phrase that are checked one by one
COMPRESS_ABOVE_CHARS = 1_000  # shorter texts gain little
BULK_ROWS = 32  # from so many new entries on, postings are read again rather than extended
BULK_CHARS = 100_000  # the same, by the length of their texts
PREFETCH_MIN_ENTRIES = 5_000  # below, no posting takes long to read
COMMON_TERM_SHARE = 0.02  # postings of words in more entries than that are read ahead
PREFETCH_SCAN_TERMS = 500  # words examined for that in one step
MAX_CACHED_STEMS = 4096
MERGE_PAGES = 64  # FTS5 pages written in one merge step: some 20 ms
MERGE_SQL = {
    "words": "INSERT INTO words (words, rank) VALUES ('merge', ?)",
    "forms": "INSERT INTO forms (forms, rank) VALUES ('merge', ?)",
}

POSTING_SQL = (
    "SELECT group_concat(CASE col WHEN 'body' THEN doc - 1 END),"
    " group_concat(CASE col WHEN 'body' THEN offset END),"
    " group_concat(CASE col WHEN 'about' THEN doc - 1 END) FROM terms WHERE "
)


class FulltextIndex:
    """Index words by slot. All methods are for one thread, the index's own.

    The row of a slot is `slot + 1`. The FTS5 tables keep no text ("contentless"), but need it to
    remove an entry, so it lies beside them, compressed. Postings may name slots that were removed
    since, which the mask `live` leaves out.
    """

    def __init__(self) -> None:
        self._db = _open_memory_db()
        self._db.execute(
            f'CREATE VIRTUAL TABLE words USING fts5(about, body, content="", tokenize="{TOKENIZER}")'
        )
        # Words as typed, beside their stems: "busying" has the stem of thousands of "business".
        self._db.execute(
            'CREATE VIRTUAL TABLE forms USING fts5(body, content="", detail=none, columnsize=0,'
            f' tokenize="{BASE_TOKENIZER}")'
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
        # By table with words that are only marked as deleted: whether merging has begun.
        self._merge_started: dict[str, bool] = {}
        self._last_scanned_term: str | None = ""  # by `prefetch`; None: all were

    def _create_views(self) -> None:
        self._db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, words, instance)")
        self._db.execute("CREATE VIRTUAL TABLE temp.counts USING fts5vocab(main, words, row)")
        self._vocabulary = Vocabulary(self._db, "forms")
        self._scratch = Scratch(self._db, TOKENIZER)

    def close(self) -> None:
        self._db.close()
        self._postings.clear()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Make all changes of the block, or none when it raises."""
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def add(self, rows: Sequence[FulltextRow]) -> list[int]:
        """Index entries in free slots, inside `transaction`; return their lengths in tokens."""
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
        """Bring cached postings up to date with added rows, after `transaction`."""
        if not len(self._postings) or not rows:
            return
        if len(rows) > BULK_ROWS or sum(len(body) for _, _, body in rows) > BULK_CHARS:
            self._postings.clear()
            self._last_scanned_term = ""
            return
        for row, about, body in rows:
            self._postings.add(row, self._scratch.tokenize([(about, body)])[0])

    def remove(self, slot: int) -> None:
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
        metadata, body = self._db.execute(
            "SELECT about, body FROM texts WHERE id=?", (slot + 1,)
        ).fetchone()
        return metadata, _decompress(body)

    def get_bodies(self, slots: Sequence[int]) -> dict[int, str]:
        """Return the texts of those slots that are in use."""
        statement = (
            "SELECT id - 1, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        rows = self._db.execute(statement, (json.dumps(slots),))
        return {slot: _decompress(body) for slot, body in rows}

    def body_word_counts(self, slots: Sequence[int]) -> dict[int, int]:
        """Return the words in the texts of entries, without their dates and tags."""
        statement = (
            "SELECT id - 1, sz FROM words_docsize WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        return {
            slot: list(_decode_varints(size))[-1]
            for slot, size in self._db.execute(statement, (json.dumps(slots),))
        }

    @property
    def has_postings(self) -> bool:
        """Return whether cached postings may name slots that were removed since."""
        return bool(len(self._postings))

    def clear_postings(self) -> None:
        self._postings.clear()

    def merge_step(self) -> bool:
        """Do one step of removing words that no entry holds; return whether there is more to do.

        FTS5 only marks what is deleted until it merges
        (https://www.sqlite.org/fts5.html#the_merge_command).
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
        """Read the posting of one more common word; return whether there may be more."""
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
        """Return the tables as bytes, for `restore`."""
        return self._db.serialize()

    def restore(self, image: "memoryview | bytes") -> None:
        """Load what `serialize` returned. Raises sqlite3.Error when it is damaged."""
        self._db.close()
        self._db = _open_memory_db()
        self._db.deserialize(image)
        self._create_views()

    def posting(self, literal: str) -> Posting | None:
        """Return the posting of an FTS5 string literal, None for one without a word."""
        import numpy as np

        (terms,) = self._stem_literals([literal])
        if not terms:
            return None
        if len(terms) == 1:
            return self._postings.get(terms[0])
        slots = self._phrase_slots(terms, literal).astype(np.int32)
        return Posting(slots, np.zeros_like(slots), slots[:0])

    def matching_slots(self, literal: str, live: "Mask") -> "Slots":
        """Return the live slots that an FTS5 string literal finds."""
        import numpy as np

        posting = self.posting(literal)
        slots = np.zeros(0, dtype=np.intp) if posting is None else posting.slots.astype(np.intp)
        return slots[live[slots]]

    def body_slots(self, literal: str) -> "Slots":
        """Return the slots whose texts, whatever their dates and tags, a literal finds."""
        return self._query_slots(f"body : {literal}")

    def literals(self, query: Query, live: "Mask") -> dict[str, str]:
        """Return the literals for a query's terms, each with the misspelt word it stands for, or "".

        A prefix of no stem becomes whole words; so does a word that no entry holds, if the query
        allows it.
        """
        unique: dict[str, str] = {}
        for literal in match_literals(query.terms):
            unique |= {literal: ""}
            if len(self.matching_slots(literal, live)):
                continue
            if literal.endswith("*") and (words := self._vocabulary.complete(literal)):
                del unique[literal]
                unique |= dict.fromkeys(words, "")
            elif query.corrects_words:
                typed = literal.strip('*"')
                for word in self._vocabulary.correct(literal):
                    if len(self.matching_slots(word, live)):
                        unique.setdefault(word, typed)
        return unique

    def exact_form_slots(self, word: str) -> "Slots | None":
        """Return the slots that hold a word as typed.

        None for a word of several tokens, or that more than MAX_FORM_ENTRIES hold.
        """
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
        """Return the best matching part of each text, matches marked; "" where none matches."""
        written_date = filter(None, [phrase_literal(query.written_date)])
        expression = " OR ".join([*self.literals(query, live), *written_date])
        return self._scratch.build_snippets(expression, texts) if expression else [""] * len(texts)

    def _stem_literals(self, literals: Sequence[str]) -> list[list[str]]:
        """Return the stems of each FTS5 string literal, in order; that of a prefix ends in `*`."""
        uncached = [literal for literal in literals if literal not in self._stems]
        if uncached:
            if len(self._stems) > MAX_CACHED_STEMS:
                self._stems.clear()
                uncached = list(literals)
            for literal, tokens in zip(
                uncached,
                self._scratch.tokenize([("", literal.strip('*"')) for literal in uncached]),
                strict=True,
            ):
                terms = [term for term, _, _ in sorted(tokens, key=lambda token: token[2])]
                if terms and literal.endswith("*"):
                    terms[-1] += "*"
                self._stems[literal] = terms
        return [self._stems[literal] for literal in literals]

    def _read_posting(self, term: str) -> Posting:
        # One statement, during which SQLite lets other threads run.
        import numpy as np

        if term.endswith("*"):
            condition, parameters = "term>=? AND term<?", (term[:-1], term[:-1] + "\U0010ffff")
        else:
            condition, parameters = "term=?", (term,)
        row = self._db.execute(POSTING_SQL + condition, parameters).fetchone()
        slots, positions, metadata_slots = (
            np.fromstring(text or "", dtype=np.int32, sep=",") for text in row
        )
        return Posting(slots, positions, metadata_slots)

    def _phrase_slots(self, terms: Sequence[str], literal: str) -> "Slots":
        """Return the slots that hold a phrase, found by its rarer words."""
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
        import numpy as np

        rows = self._db.execute("SELECT rowid - 1 FROM words WHERE words MATCH ?", (literal,))
        return np.array([row[0] for row in rows], dtype=np.intp)

    def _verify_slots(self, literal: str, slots: "Slots") -> "Slots":
        """Return those of a few slots whose texts FTS5 finds for a literal."""
        import numpy as np

        statement = (
            "SELECT id - 1, about, body FROM texts WHERE id IN (SELECT value + 1 FROM json_each(?))"
        )
        texts = self._db.execute(statement, (json.dumps(slots.tolist()),)).fetchall()
        found = self._scratch.find(
            literal, ((about, _decompress(body)) for _, about, body in texts)
        )
        return np.array([texts[row][0] for row in found], dtype=np.intp)


def _open_memory_db() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _compress(body: str) -> str | bytes:
    return zlib.compress(body.encode(), 1) if len(body) > COMPRESS_ABOVE_CHARS else body


def _decompress(stored: str | bytes) -> str:
    return zlib.decompress(stored).decode() if isinstance(stored, bytes) else stored


def _decode_varints(blob: bytes) -> Iterable[int]:
    # An FTS5 docsize record holds an integer for each column, as SQLite's varints.
    value = 0
    for byte in blob:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            yield value
            value = 0
