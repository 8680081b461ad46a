"""Run FTS5 over texts that are not indexed: their tokens, their matches, their snippets."""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from llamora.search.snippets import MATCH_START, MATCH_STOP, split_segments, unfold_snippet
from llamora.search.tokens import TOKEN_SEPARATOR, fold, separate_letters

SNIPPET_TOKENS = 40  # about 240 characters; SQLite allows 64

Token = tuple[str, bool, int]
"""A term, whether it is in the body, and its position there or in the metadata."""


class Scratch:
    """Hold texts in a temporary table of an index's connection, only while they are looked at."""

    def __init__(self, db: sqlite3.Connection, tokenizer: str) -> None:
        self._db = db
        db.execute(
            f'CREATE VIRTUAL TABLE temp.shown USING fts5(about, body, tokenize="{tokenizer}")'
        )
        db.execute("CREATE VIRTUAL TABLE temp.cut USING fts5vocab(temp, shown, instance)")

    def tokenize(self, texts: Sequence[tuple[str, str]]) -> list[list[Token]]:
        """Return the tokens of each (metadata, body) as FTS5 cuts and stems them."""
        tokens: list[list[Token]] = [[] for _ in texts]
        with self._hold(texts):
            rows: Iterable[tuple[str, int, str, int]] = self._db.execute(
                "SELECT term, doc, col, offset FROM temp.cut"
            )
            for term, row, column, position in rows:
                if term:  # nothing is left of a combining mark alone
                    tokens[row] += [(term, column == "body", position)]
        return tokens

    def find(self, literal: str, texts: Iterable[tuple[str, str]]) -> list[int]:
        """Return the indexes of those (metadata, body) that an FTS5 string literal finds."""
        with self._hold(texts):
            rows = self._db.execute("SELECT rowid FROM temp.shown WHERE shown MATCH ?", (literal,))
            return [row for (row,) in rows]

    def build_snippets(self, expression: str, texts: Sequence[str]) -> list[str]:
        """Return the best matching part of each text, matches marked; "" where none matches."""
        snippets = [""] * len(texts)
        # FTS5 takes time by the square of the matches for a snippet, so a long text goes in as
        # segments and only the best one is looked at.
        segments = [
            (index, part) for index, text in enumerate(texts) for part in split_segments(text)
        ]
        with self._hold(("", separate_letters(fold(segment))) for _, segment in segments):
            best: dict[int, int] = {}
            ranked: list[tuple[int]] = self._db.execute(
                "SELECT rowid FROM shown WHERE shown MATCH ? ORDER BY rank", (expression,)
            ).fetchall()
            for (row,) in ranked:
                best.setdefault(segments[row][0], row)
            for index, row in best.items():
                (marked,) = self._db.execute(
                    "SELECT snippet(shown, 1, ?, ?, '…', ?) FROM shown WHERE shown MATCH ? AND rowid=?",
                    (MATCH_START, MATCH_STOP, SNIPPET_TOKENS, expression, row),
                ).fetchone()
                marked, segment = marked.replace(TOKEN_SEPARATOR, ""), segments[row][1]
                snippets[index] = unfold_snippet(marked, segment)
        return snippets

    @contextmanager
    def _hold(self, texts: Iterable[tuple[str, str]]) -> Generator[None]:
        self._db.execute("BEGIN")
        try:
            self._db.executemany(
                "INSERT INTO temp.shown (rowid, about, body) VALUES (?, ?, ?)",
                ((row, about, body) for row, (about, body) in enumerate(texts)),
            )
            yield
        finally:
            self._db.execute("ROLLBACK")
