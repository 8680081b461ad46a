"""Cut text into tokens as the index does, and write FTS5 literals that find them. Pure."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from llamora.text import EMOJI, PICTOGRAPH

TOKEN_SEPARATOR = "\x1f"  # noqa: S105 -- stands around signs, and letters without spaces

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

# Signs that are searched as they were written: an emoji as a whole; what stands between digits, as
# in dates, times and numbers; and the signs of "C++", "C#" and ".NET". "LGBTQ+" is also written
# without its sign. A set comes first, so that all other letters are passed over fast.
_PLAIN_SIGN = (
    r"[.,:/'’\-\u2010-\u2015+#](?:(?<=\d[^+#])(?=\d)|(?<=\.)(?<![\w.]\.)(?=[^\W\d_])"
    r"|(?<=[^\W\d_]\+)\+(?![^\W\d]|[+#])|(?<=[^\W\d_][+#])(?<!\w\w[+#])(?![\w+#]))"
)
_SIGN = re.compile(rf"(?P<emoji>{EMOJI})|{_PLAIN_SIGN}")
_SIGN_WITHOUT_EMOJI = re.compile(_PLAIN_SIGN)
_PICTOGRAPH = re.compile(PICTOGRAPH)
# FTS5 takes letters for private use (category Co) as parts of words, and of these only those below
# U+100000: a sign becomes one that begins a token and others that continue it.
_SIGN_START, _SIGN_REST = 0xF0000, 0xF8000
_SEPARATE_SIGN = "[\U000f0000-\U000f7fff][\U000f8000-\U000fffff]*"
_SEPARATED = re.compile(f"[{_UNSPACED}]|{_SEPARATE_SIGN}")
_WRITTEN_ALIKE = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015", "-") | {"’": "'"}
)

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
    **dict.fromkeys([0xFE0E, 0xFE0F], ""),  # whether a sign is shown as text or as an emoji
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
    Signs that are searched become letters for private use, as many as they had.
    """
    if not text.isascii():
        text = _FOLDABLE.sub(lambda run: run[0].translate(_FOLD_TABLE), text)
    has_emoji = not text.isascii() and ("\u20e3" in text or _PICTOGRAPH.search(text))
    pattern = _SIGN if has_emoji else _SIGN_WITHOUT_EMOJI
    return pattern.sub(lambda sign: _sign_letters(sign[0]), text)


def _sign_letters(sign: str) -> str:
    codes = [_dense_code(ord(letter)) for letter in sign.translate(_WRITTEN_ALIKE)]
    return chr(_SIGN_START + codes[0]) + "".join(chr(_SIGN_REST + code) for code in codes[1:])


def _dense_code(code: int) -> int:
    # Below 0x8000, each letter of a sign another: U+1Fxxx, tags (U+E00xx), selectors (U+FE0x), all else.
    if code >= 0xE0000:
        return 0x5000 + (code & 0xFF)
    return 0x4000 + (code & 0xFFF) if code >= 0x10000 else code & 0x3FFF


def fold_offsets(text: str) -> list[int]:
    """Return for each letter of `fold(text)` its index in `text`, and the length of `text` last."""
    if not _LENGTH_CHANGING.search(text):
        return list(range(len(text) + 1))
    return [*(index for index, letter in enumerate(text) for _ in fold(letter)), len(text)]


def separate_letters(text: str) -> str:
    """Put TOKEN_SEPARATOR, a space to FTS5, around folded signs and letters without spaces."""
    return _SEPARATED.sub(lambda token: f"{TOKEN_SEPARATOR}{token[0]}{TOKEN_SEPARATOR}", text)


def tokenize(text: str) -> list[str]:
    """Return the words of a text, case kept, with the signs that are part of them.

    An emoji is a word. The index cuts the others again at their signs: `3.5` is three tokens.
    """
    position, pieces = 0, list[str]()  # letters, with a space for each other sign
    for sign in _SIGN.finditer(text):
        pieces.append(_letters(text[position : sign.start()]))
        pieces.append(f" {sign[0]} " if sign["emoji"] else sign[0])
        position = sign.end()
    return "".join([*pieces, _letters(text[position:])]).split()


def _letters(text: str) -> str:
    return "".join(letter if _is_letter(letter) else " " for letter in text)


def _is_letter(letter: str) -> bool:
    # The categories of BASE_TOKENIZER in fulltext.py.
    return letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc", "Nl", "No", "Co")


def term_literals(word: str) -> list[str]:
    """Return the FTS5 string literals that find a word; a trailing `*` makes it a prefix.

    A word of a script without spaces is found by its pairs of letters, one with signs as a phrase.
    """
    is_prefix = word.endswith("*")
    literals: list[str] = []
    for part in map(fold, tokenize(word)):
        runs = _UNSPACED_RUN.findall(part)
        spaced_words = [_token_words(run) for run in _UNSPACED_RUN.sub(" ", part).split()]
        for run in runs:
            letters = _token_words(run).split()
            pairs = [" ".join(pair) for pair in pairwise(letters)]
            literals += [f'"{pair}"' for pair in pairs or letters]
        literals += [f'"{piece}"' for piece in spaced_words]
    if is_prefix and literals and not _UNSPACED_LETTER.search(word):
        literals[-1] += "*"
    return literals


def phrase_literal(phrase: str) -> str:
    """Return the FTS5 string literal that finds a phrase word by word, "" when it has no word."""
    words = _token_words(fold(phrase))
    return f'"{words}"' if words else ""


def _token_words(folded: str) -> str:
    return " ".join(_letters(separate_letters(folded)).split())


def match_literals(terms: Iterable[str]) -> list[str]:
    """Return the literals of which one must match for any of the terms to match, each once."""
    literals: list[str] = []
    for term in terms:
        literals += [phrase_literal(term)] if " " in term else term_literals(term)
    return list(dict.fromkeys(filter(None, literals)))
