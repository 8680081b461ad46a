"""Look words up in the vocabulary of an index: those a prefix begins, and those a letter away."""

import json
import sqlite3
import unicodedata

MAX_WORDS = 16  # that one prefix, or one misspelt word, may stand for
MIN_CORRECTED_LETTERS, MAX_CORRECTED_LETTERS = 5, 32  # shorter words have too many neighbours
_BLOCK = 128  # letters of one script stand together in Unicode, in blocks of so many


class Vocabulary:
    """Read the words of an FTS5 table as they were typed, folded and without diacritics."""

    def __init__(self, db: sqlite3.Connection, table: str) -> None:
        self._db = db
        db.execute(f"CREATE VIRTUAL TABLE temp.spelt USING fts5vocab(main, {table}, row)")

    def complete(self, literal: str) -> list[str]:
        """Return literals of words that a prefix begins: "busyin*" is no stem, but "busying" is."""
        prefix = _indexed_form(literal)
        rows = self._db.execute(
            "SELECT term FROM temp.spelt WHERE term>=? AND term<? LIMIT ?",
            (prefix, prefix + "\U0010ffff", MAX_WORDS),
        )
        return [f'"{term}"' for (term,) in rows]

    def correct(self, literal: str) -> list[str]:
        """Return literals of the words one edit away, those of most entries first.

        Every possible spelling is looked up, some hundreds, which takes as long in any vocabulary.
        """
        word = _indexed_form(literal)
        if not word.isalpha() or not MIN_CORRECTED_LETTERS <= len(word) <= MAX_CORRECTED_LETTERS:
            return []
        rows = self._db.execute(
            "SELECT term FROM json_each(?) CROSS JOIN temp.spelt ON term=value"
            " ORDER BY doc DESC, term LIMIT ?",
            (json.dumps(sorted(spellings(word))), MAX_WORDS),
        )
        return [f'"{term}"' for (term,) in rows]


def spellings(word: str) -> set[str]:
    """Return what is at a Damerau-Levenshtein distance of 1 from a word, in its own scripts."""
    blocks = {ord(letter) // _BLOCK * _BLOCK for letter in word}
    letters = [
        letter
        for block in blocks
        for letter in map(chr, range(block, block + _BLOCK))
        if unicodedata.category(letter) in ("Ll", "Lo", "Mn", "Mc")
    ]
    splits = [(word[:index], word[index:]) for index in range(len(word) + 1)]
    found = {head + letter + tail for head, tail in splits for letter in letters}
    found |= {head + letter + tail[1:] for head, tail in splits if tail for letter in letters}
    found |= {head + tail[1:] for head, tail in splits if tail}
    found |= {head + tail[1] + tail[0] + tail[2:] for head, tail in splits if len(tail) > 1}
    return found - {word}


def _indexed_form(literal: str) -> str:
    letters = unicodedata.normalize("NFD", literal.strip('*"').lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
