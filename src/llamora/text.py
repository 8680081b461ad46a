"""Normal forms of text, in time that grows with its length and not with its square; its language; errors in words."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

MARKS_IN_A_ROW = 30  # Stream-Safe Text Format, Unicode Standard Annex #15, section 13
# Neither letter, digit nor space, and beyond Latin: wherever more than that many marks stand in a row, this finds them.
# The range comes first: it settles most letters, and to look for it costs half as much as to ask what a letter is.
_RUN = re.compile(rf"[^\x00-\u02ff\w\s]{{{MARKS_IN_A_ROW + 1},}}")


def normal_form(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """`text` in a Unicode normal form; combining marks beyond MARKS_IN_A_ROW on one letter are dropped.

    `unicodedata.normalize` sorts the marks of a letter in quadratic time and keeps the interpreter's lock meanwhile:
    a hundred thousand of them would hold up everybody for minutes.
    """
    return unicodedata.normalize(form, text if text.isascii() else _RUN.sub(_thinned, text))


def _thinned(run: "re.Match[str]") -> str:
    kept: list[str] = []
    marks = 0
    for letter in run[0]:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks <= MARKS_IN_A_ROW:
            kept.append(letter)
    return "".join(kept)


# -- languages -----------------------------------------------------------------------------------------

_GERMAN_WORDS = frozenset(
    "und ich nicht der die das ist mit ein eine war habe hat auf zu den dem es im am wir mir mich sie er noch auch "
    "wieder heute von für aber wie bin".split()
)
_ENGLISH_WORDS = frozenset(
    "and i not the is with a was have had on to it in at we me my she he of again today from for but how am be".split()
)


def language_of(text: str) -> Literal["en", "de"]:
    """German where more of its small words are German ones, else English: the two that are spoken here."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    german = sum(word in _GERMAN_WORDS for word in words) > sum(word in _ENGLISH_WORDS for word in words)
    return "de" if german else "en"


# -- the names of traces -------------------------------------------------------------------------------

LONGEST_TRACE = 64  # characters

# One emoji as Unicode Technical Standard #51 composes it: a flag, or pictographs with their skin tones, variation
# selectors, tags and keycaps, joined into one by U+200D. Which single characters are pictographs is taken from their
# general category, since Python does not know the property.
_PICTOGRAPH = r"(?:[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff])"
_ONE = rf"{_PICTOGRAPH}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*"
_EMOJI = rf"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_ONE}(?:\u200d{_ONE})*)"
_ONE_EMOJI = re.compile(_EMOJI)
_SYMBOL = frozenset(("So", "Sm", "Sk"))
_EMOJI_BESIDE = frozenset("\u203c\u2049\u2139\u3030\u303d")  # pictographs of a category that others are in
_JOINERS = "\u200c\u200d"
# What shows nothing by itself, and so makes no other name: Default_Ignorable_Code_Point of the Unicode character
# database (DerivedCoreProperties.txt), as NFKC_Casefold of the Unicode Standard, section 3.13, leaves it out.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BREAKS = re.compile(r"[\s_\-\u2010-\u2015]+")
# What follows a "#" at which no word, address or further "#" ends; `_word` says how far it goes.
_IN_TEXT = re.compile(rf"(?<![\w#&/\u20e3])#(?:({_EMOJI})|([^\W_]\S*))")
# Where a "#" is no trace: code, what is escaped, addresses.
_NOT_TEXT = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|\\[#`]|<[^<>\s]+>|\]\([^()\s]*\)|(?<!\w)\w{1,20}://\S+|www\.\S+",
    re.DOTALL | re.MULTILINE,
)
_TICKS = re.compile("`+")


def is_emoji(name: str) -> bool:
    """Whether a name is one emoji, its whole sequence and nothing else."""
    if _ONE_EMOJI.fullmatch(name) is None:
        return False
    first = name[0]
    return unicodedata.category(first) in _SYMBOL or first in _EMOJI_BESIDE or first in "0123456789#*"


def trace_key(name: str) -> str:
    """What is the same for every spelling of a trace's name.

    NFKC and case-folded, without what shows nothing; blanks, low lines and dashes are one hyphen; "" for what has
    nothing in it to be a name.
    """
    if is_emoji(name):
        return name.replace("\ufe0f", "").replace("\ufe0e", "")
    folded = normal_form("NFKC", normal_form("NFKC", _IGNORABLE.sub("", name)).casefold())
    folded = normal_form("NFKC", _IGNORABLE.sub("", folded))
    return _BREAKS.sub("-", folded).strip("-")


def trace_name(written: str) -> str:
    """The name of a trace as it is shown, from what somebody wrote in a box: without "#", blanks single.

    "" when it is no name: without letter or digit, with a control character in it, longer than
    LONGEST_TRACE, or more than one emoji.
    """
    written = " ".join(written.split()) if len(written) <= 4 * LONGEST_TRACE else ""
    for name in (written, written.removeprefix("#")):
        if is_emoji(name):
            return name
    name = written.removeprefix("#").strip("-_,;:.!?\"'()[]{}<>#")
    if (
        not name
        or len(name) > LONGEST_TRACE
        or any(unicodedata.category(c)[0] == "C" for c in name if c not in _JOINERS)
    ):
        return ""
    return name if any(c.isalnum() for c in _IGNORABLE.sub("", name)) else ""


def traces_in(text: str) -> list[str]:
    """The names of the traces that a text makes (`#like-this`, `#🎻`), each once, in the order they come.

    Not in code, addresses or after a backslash; a number alone is none ("#1").
    """
    found: dict[str, str] = {}
    for _, _, name in trace_spans(_without_code(_NOT_TEXT.sub(" ", text))) if "#" in text else ():
        found.setdefault(trace_key(name), name)
    return list(found.values())


def trace_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Where a text without code or addresses in it makes traces: from its "#", to the end of its name, the name."""
    for match in _IN_TEXT.finditer(text):
        word = match[1] if match[1] and is_emoji(match[1]) else _word(match[2] or "")
        name = word if match[1] else trace_name(word)
        if name and word and not (name.isdigit() and not is_emoji(name)):
            yield match.start(), match.start() + 1 + len(word), name


def _without_code(text: str) -> str:
    """A text without its code spans: what stands between two runs of as many backticks."""
    runs = [(match.start(), match.end()) for match in _TICKS.finditer(text)]
    closing: dict[int, int] = {}  # by length: the nearest run after the one that is looked at
    pairs: dict[int, int] = {}
    for number in range(len(runs) - 1, -1, -1):
        start, end = runs[number]
        if end - start in closing:
            pairs[number] = closing[end - start]
        closing[end - start] = number
    kept: list[str] = []
    number = place = 0
    while number < len(runs):
        if number in pairs:
            kept.append(text[place : runs[number][0]])
            number = pairs[number]
            place = runs[number][1]
        number += 1
    return " ".join([*kept, text[place:]])


def _word(text: str) -> str:
    """The beginning of a text as far as it is letters, marks, digits, and single signs "-" and "_" between them."""
    end = 0
    for place, letter in enumerate(text):
        if letter.isalnum() or unicodedata.category(letter)[0] == "M" or letter in _JOINERS:
            end = place + 1
        elif letter not in "-_" or end < place:
            break
    return text[:end]


def place_of(error: BaseException) -> str:
    """The last calls that led to an error, file and line alone: its message could quote somebody's words."""
    frames: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename.rpartition('llamora')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(frames[-5:])
