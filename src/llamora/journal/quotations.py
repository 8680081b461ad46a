"""What may be read as a quotation in a reply: words in quote marks of any kind, in italics, behind a dash, in a block.

Pure, and fail-closed: where marks are ambiguous, every reading is given.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from llamora.text import normal_form

LEAST_WORDS: Final = 4

_DOUBLE: Final = (
    *("“”„‟⹂", '"＂″‶ʺ˝״', "«»", "‹›", "「」｢｣﹁﹂", "『』﹃﹄", "《》⟪⟫", "〈〉⟨⟩", "❝❞", "〝〞〟", "❮❯", "🙶🙷🙸"),
    *("⸂⸃⸄⸅⸉⸊⸌⸍", "⸜⸝⸠⸡", "⌜⌝⌞⌟"),
)
_SINGLE: Final = "'‘’‚‛＇′´ʼʻ‵❛❜"
_QUOTES: Final = str.maketrans(dict.fromkeys("".join(_DOUBLE) + _SINGLE, "'"))
_SINGLE_OPENS: Final = re.compile(rf"(?<![^\W_])(?<![{_SINGLE}])[{_SINGLE.replace('’', '')}](?=[^\s{_SINGLE}])")
_SINGLE_CLOSES: Final = re.compile(rf"(?<=\S)[{_SINGLE.replace('‘', '').replace('‚', '')}](?![^\W_])")
_ELIDED: Final = re.compile(r"(?:tis|twas|twere|em|n|til|cause|cos|round|bout)\b|\d", re.IGNORECASE)  # after its mark
_AFTER_APOSTROPHE: Final = re.compile(r"\s[^\W\d_]|[”“»\"](?!\w)")  # the word it belongs to, or the end of a quotation
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LETTER: Final = rf"(?![{_UNSPACED}_])\w"
_WORD: Final = re.compile(rf"[{_UNSPACED}]{{1,2}}|(?:{_LETTER})+(?:['’](?:{_LETTER})+)?")
_EDGE: Final = re.compile(_LETTER)
_LISTS: Final = r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*"  # a block quotation may stand in a list
_MARKUP: Final = re.compile(rf"[*_`~\\]|^{_LISTS}(?:>[ \t]?)+", re.MULTILINE)
_BLOCK: Final = re.compile(rf"(?m)^{_LISTS}>.*(?:\n(?![ \t]*(?:[-*+]|1[.)])[ \t]|{_LISTS}>).+|\n[ \t]*>.*)*")
_TWO_TICKS: Final = re.compile(r"(?<!`)``(?!`)")
_STARTED: Final = re.compile(r"(?:&[#\w]{0,32}|<[^<>\n]{0,40}|\\)$")
_BLOCK_STARTS: Final = re.compile(rf"(?m)^{_LISTS}>|^[ \t\d.)>*+-]*\Z|^{_LISTS}[—―].*\Z")
_DASHED: Final = re.compile(rf"(?m)^{_LISTS}[—―](?P<said>.+)")  # how French, Spanish and Russian begin what is said
_RUN_AT_END: Final = re.compile(r"[*_]+\Z|<\Z|(?<=[^\W\d])>\Z")
_STRESS: Final = re.compile(r"(?<!\\)(?:\*+|_+)")
_BETWEEN: Final = re.compile(r"(?:[^\w,;/\n]|\[\d+\])*")  # a comma makes a list of quotations
_ANY: Final = re.escape("".join(_DOUBLE) + _SINGLE)
_SHORT_AT_END: Final = re.compile(rf"(?:[{_ANY}][^{_ANY}\n]{{1,60}}[{_ANY}](?:[^\w,;/\n{_ANY}]|\[\d+\])*)+\Z")
_TAIL: Final = 400  # letters at the end that are looked at for it
_NESTED: Final = 12  # spans of italics and bold around one letter; deeper, nobody nests them
_TRIMMED: Final = " \t\n.,;:!?…-–—'\""


@dataclass(slots=True, frozen=True)
class Quotation:
    """Words in quotation marks: where they stand with their marks, and without."""

    start: int
    end: int
    inner: tuple[int, int]
    stressed: str = ""
    """ "bold" or "italic" when these are its marks."""


def words(text: str) -> int:
    """How many words, as the rule counts them; of scripts without spaces two letters are one."""
    return sum(1 for _ in _WORD.finditer(text))


def plain(text: str) -> str:
    """A text as quotations are compared: white space single, quote marks alike, Markdown's marks gone."""
    return " ".join(_MARKUP.sub("", normal_form("NFC", text)).translate(_QUOTES).split())


def holds(text: str, quoted: str) -> bool:
    """Whether `text`, which is `plain` already, has the words of a quotation in a row."""
    needle = plain(quoted).strip(_TRIMMED)
    at = text.find(needle)
    while at >= 0 and needle:
        after = at + len(needle)
        whole_start = at == 0 or not (_EDGE.match(needle[0]) and _EDGE.match(text[at - 1]))
        whole_end = after == len(text) or not (_EDGE.match(needle[-1]) and _EDGE.match(text[after]))
        if whole_start and whole_end:
            return True
        at = text.find(needle, at + 1)
    return not needle


def quotations(paragraph: str) -> list[Quotation]:
    """All that may be read as a quotation in one paragraph, one mark left open included; they may overlap."""
    found: list[Quotation] = []
    found += [Quotation(*block.span(), block.span()) for block in _BLOCK.finditer(paragraph)]
    found += [Quotation(*line.span(), line.span("said")) for line in _DASHED.finditer(paragraph)]
    for family in _DOUBLE:
        found += _in_marks(paragraph, [at for at, c in enumerate(paragraph) if c in family])
    found += _in_single(paragraph)
    found += _stressed(paragraph)[0]
    return sorted(found, key=lambda q: (q.start, -q.end))


def joined(paragraph: str, found: Iterable[Quotation]) -> list[list[Quotation]]:
    """Short quotations that follow each other with no word between: “as if” “it were” “one of them”."""
    rows: list[list[Quotation]] = []
    for quotation in found:
        if words(paragraph[slice(*quotation.inner)]) >= LEAST_WORDS or quotation.stressed:
            continue
        last = rows[-1][-1] if rows else None
        if last is not None and quotation.start < last.end:
            continue
        if last is not None and _BETWEEN.fullmatch(paragraph, last.end, quotation.start):
            rows[-1].append(quotation)
        else:
            rows.append([quotation])
    return [row for row in rows if len(row) > 1]


def _stressed(text: str) -> tuple[list[Quotation], int]:
    """The spans between marks of italics or bold, each pair that may be one, and where one is still open.

    Looked at from the marks alone: what Markdown makes of them in the end is among the readings. Where they are nested
    deeper than anybody does it, all of the text is one span: to look at each would take seconds.
    """
    found: list[Quotation] = []
    held = len(text)
    room = _NESTED * len(text)
    for kind in "*_":
        opened: list[tuple[int, int]] = []  # where, and how many marks of it are left
        for run in _STRESS.finditer(text):
            if run[0][0] != kind:
                continue
            before, after = text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
            closes = bool(before.strip()) and not (kind == "_" and after.isalnum())
            opens = bool(after.strip()) and not (kind == "_" and before.isalnum())
            size = run.end() - run.start()
            while closes and opened and size:
                start, left = opened[-1]
                used = min(left, size)
                found.append(Quotation(start, run.end(), (start + left, run.start()), "italic" if used % 2 else "bold"))
                room -= run.end() - start
                if room < 0:
                    return [Quotation(0, len(text), (0, len(text)), "italic")], 0
                size -= used
                opened[-1] = (start, left - used)
                if opened[-1][1] <= 0:
                    opened.pop()
            if opens and size:
                opened.append((run.end() - size, size))
        if opened:
            held = min(held, opened[0][0])
    return found, held


def _in_marks(text: str, marks: list[int]) -> Iterator[Quotation]:
    """The spans between marks of one family: two by two, and any two that stand close around what is between."""
    for number, (a, b) in enumerate(pairwise(marks)):
        tight = not text[a + 1].isspace() and not text[b - 1].isspace()
        if number % 2 == 0 or tight:
            yield Quotation(a, b + 1, (a + 1, b))
    if len(marks) % 2:
        last = marks[-1]
        closes = last > 0 and not text[last - 1].isspace() and not re.match(r"\w", text[last + 1 : last + 2])
        if not closes:
            yield Quotation(last, len(text), (last + 1, len(text)))
        elif not text[last - 1].isdigit():  # an inch is written so
            first = marks[-2] + 1 if len(marks) > 1 else 0
            yield Quotation(first, last + 1, (first, last))


def _in_single(text: str) -> Iterator[Quotation]:
    """The spans that single marks make: to the first that closes and to the last that may, or left open."""
    opens = [mark.start() for mark in _SINGLE_OPENS.finditer(text)]
    closes = [mark.start() for mark in _SINGLE_CLOSES.finditer(text)]
    loose = bisect_left(closes, opens[0] if opens else len(text)) - 1
    while loose >= 0 and (_is_apostrophe(text, closes[loose]) or text[closes[loose] - 1].isdigit()):
        loose -= 1
    if loose >= 0:
        yield Quotation(0, closes[loose] + 1, (0, closes[loose]))
    at = 0
    for number, opened in enumerate(opens):
        if opened < at:
            continue
        first = bisect_right(closes, opened)
        if first == len(closes):
            if not _ELIDED.match(text, opened + 1):
                yield Quotation(opened, len(text), (opened + 1, len(text)))
                return
            continue
        at = closes[first] + 1
        yield Quotation(opened, at, (opened + 1, at - 1))
        following = bisect_left(opens, at, number)
        far = bisect_left(closes, opens[following] if following < len(opens) else len(text)) - 1
        while far > first and _is_apostrophe(text, closes[far]):
            far -= 1
        if far > first:
            yield Quotation(opened, closes[far] + 1, (opened + 1, closes[far]))


def _is_apostrophe(text: str, at: int) -> bool:
    """Whether a mark behind a word is that of "the boys' room" or "goin' home", or ends a quotation: “of the kids'”."""
    before = text[max(0, at - 2) : at].lower()
    behind_word = before.endswith(("s", "in")) or before.strip() == "o"
    return behind_word and _AFTER_APOSTROPHE.match(text, at + 1) is not None


def held(text: str) -> int:
    """Up to where an unfinished paragraph may be shown, as far as quotations go."""
    at = len(text)
    for early in (_STARTED.search(text), _BLOCK_STARTS.search(text), _TWO_TICKS.search(text), _RUN_AT_END.search(text)):
        if early:
            at = min(at, early.start())
    for family in _DOUBLE:
        marks = [at for at, c in enumerate(text) if c in family]
        if not marks:
            continue
        last, after = marks[-1], text[marks[-1] + 1 : marks[-1] + 2]
        if len(marks) % 2 or not after or re.match(r"\w", after):
            at = min(at, last if len(marks) % 2 else marks[-2] if not after else last)
    closes = [mark.end() for mark in _SINGLE_CLOSES.finditer(text) if mark.end() < len(text)]
    following = 0
    for single in _SINGLE_OPENS.finditer(text):
        if single.start() < following:
            continue
        first = bisect_right(closes, single.end())
        if first == len(closes):
            at = min(at, single.start())
            break
        following = closes[first]
    if text[-1:] and text[-1] in _SINGLE:
        at = min(at, len(text) - 1)
    at = min(at, _stressed(text.rstrip("*_"))[1])  # what stands at the end may yet become another mark
    first = max(0, at - _TAIL)
    if short := _SHORT_AT_END.search(text[first:at]):
        at = first + short.start()
    return at
