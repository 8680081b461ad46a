"""Cut text into tokens as the index does, and write FTS5 literals that find them. Pure."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

TOKEN_SEPARATOR = "\x1f"  # noqa: S105 -- stands around each letter of a script without spaces

# Letters of scripts written without spaces, and Hangul, whose words take endings. Each is a token,
# and a word is found by pairs of them, as in Lucene's CJKAnalyzer.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Han
    "\uac00-\ud7af"  # Hangul
    "\U00020000-\U0003ffff"
)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")

# Folding that the remove_diacritics of FTS5 does not do: ligatures, Greek and Cyrillic variants,
# Hebrew and Arabic points, full-width forms. Arabic follows Lucene's ArabicNormalizer.
_FOLD_TABLE: dict[int, str | int] = {
    **{
        code: unicodedata.normalize("NFD", chr(code))[0]
        for code in (*range(0x0386, 0x03CF), *range(0x1F00, 0x1FFF))
        if unicodedata.category(chr(code)).startswith("L")
    },
    **str.maketrans("øØłŁđĐðÐħĦıſ", "oOlLdDdDhHis"),
    # Final sigma and Russian yo; alef, ya and ta marbuta.
    **str.maketrans("\u03c2\u0451\u0401", "\u03c3\u0435\u0415"),
    **str.maketrans("\u0623\u0625\u0622\u0649\u0629", "\u0627\u0627\u0627\u064a\u0647"),
    **str.maketrans(
        {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}
    ),
    **str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(
        [*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, *range(0x064B, 0x0653), 0x0670, 0x0640], ""
    ),
}

# Most texts hold none of them, and searching takes a tenth of the time of str.translate.
_FOLDABLE = re.compile("[" + "".join(re.escape(chr(code)) for code in _FOLD_TABLE) + "]+")
_LENGTH_CHANGING = re.compile(
    "[" + "".join(filter(lambda c: len(c.translate(_FOLD_TABLE)) != 1, map(chr, _FOLD_TABLE))) + "]"
)


def fold(text: str) -> str:
    """Return text with one spelling for letters that people type in several ways.

    `ß` becomes `ss`, `œ` `oe`, `ł` `l`, `ё` `е`; Greek loses its accents, Hebrew and Arabic their
    points, and full-width letters become ordinary ones. FTS5 does the rest (remove_diacritics).
    """
    return (
        text if text.isascii() else _FOLDABLE.sub(lambda run: run[0].translate(_FOLD_TABLE), text)
    )


def fold_offsets(text: str) -> list[int]:
    """Return for each letter of `fold(text)` its index in `text`, and the length of `text` last."""
    if not _LENGTH_CHANGING.search(text):
        return list(range(len(text) + 1))
    return [*(index for index, letter in enumerate(text) for _ in fold(letter)), len(text)]


def separate_letters(text: str) -> str:
    """Put TOKEN_SEPARATOR, a space to FTS5, around each letter of scripts without spaces."""
    return _UNSPACED_LETTER.sub(
        lambda letter: f"{TOKEN_SEPARATOR}{letter[0]}{TOKEN_SEPARATOR}", text
    )


def tokenize(text: str) -> list[str]:
    """Return the words of a text as the index cuts them, case kept."""
    return "".join(letter if _is_letter(letter) else " " for letter in text).split()


def _is_letter(letter: str) -> bool:
    # The categories of BASE_TOKENIZER in fulltext.py.
    return letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc", "Nl", "No", "Co")


def term_literals(word: str) -> list[str]:
    """Return the FTS5 string literals that find a word; a trailing `*` makes it a prefix.

    A word of a script without spaces is found by its pairs of letters.
    """
    is_prefix = word.endswith("*")
    literals: list[str] = []
    for part in tokenize(fold(word)):
        runs = _UNSPACED_RUN.findall(part)
        spaced_words = _UNSPACED_RUN.sub(" ", part).split()
        for run in runs:
            letters = tokenize(separate_letters(run))
            pairs = [" ".join(pair) for pair in pairwise(letters)]
            literals += [f'"{pair}"' for pair in pairs or letters]
        literals += [f'"{piece}"' for piece in spaced_words]
    if is_prefix and literals and not _UNSPACED_LETTER.search(word):
        literals[-1] += "*"
    return literals


def phrase_literal(phrase: str) -> str:
    """Return the FTS5 string literal that finds a phrase word by word, "" when it has no word."""
    words = " ".join(tokenize(separate_letters(fold(phrase))))
    return f'"{words}"' if tokenize(phrase) else ""


def match_literals(terms: Iterable[str]) -> list[str]:
    """Return the literals of which one must match for any of the terms to match, each once."""
    literals: list[str] = []
    for term in terms:
        literals += [phrase_literal(term)] if " " in term else term_literals(term)
    return list(dict.fromkeys(filter(None, literals)))
