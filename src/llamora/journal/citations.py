"""What a reply may cite and quote: only passages that were in its prompt, and only words that are in them.

A model refers to a passage by its number in square brackets. A number is kept only when that passage was in the
prompt; words in quotation marks (or in a block quotation), four or more, are kept only when they stand in a passage,
or in what the writer wrote on the page, letter by letter but for white space, quote marks and Markdown's own marks
(a first letter in the other case is put right). A number beside a quotation must be that of a passage which holds
it. Anything else is taken out, a quotation with `TAKEN_OUT` in its place, before anybody sees it: while a reply
streams, what could still become a citation or a quotation is held back until it is one.

Pure, and fail-closed: where marks are ambiguous, each reading has to hold.
"""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from llamora.persistence.entries import Entry
from llamora.text import normal_form

LEAST_WORDS: Final = 4
TAKEN_OUT: Final = "[…]"
ROUNDS: Final = 12  # what is left when something is taken out may be false itself; deeper, nobody nests it

_DOUBLE: Final = ("“”„‟", '"＂″', "«»", "‹›", "「」", "『』", "《》", "❝❞", "〝〞〟", "❮❯")
_SINGLE: Final = "'‘’‚‛＇′´ʼ‵❛❜"
_QUOTES: Final = str.maketrans(dict.fromkeys("".join(_DOUBLE) + _SINGLE, "'"))
_SINGLE_OPENS: Final = re.compile(rf"(?<![^\W_])(?<![{_SINGLE}])[{_SINGLE.replace('’', '')}](?=[^\s{_SINGLE}])")
_SINGLE_CLOSES: Final = re.compile(rf"(?<=\S)[{_SINGLE.replace('‘', '').replace('‚', '')}](?![^\W_])")
_ELIDED: Final = re.compile(r"(?:tis|twas|twere|em|n|til|cause|cos|round|bout)\b|\d", re.IGNORECASE)  # after its mark
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_LETTER: Final = rf"(?![{_UNSPACED}_])\w"
_WORD: Final = re.compile(rf"[{_UNSPACED}]{{1,2}}|(?:{_LETTER})+(?:['’](?:{_LETTER})+)?")
_EDGE: Final = re.compile(_LETTER)
_LISTS: Final = r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*"  # a block quotation may stand in a list
_MARKUP: Final = re.compile(rf"[*_`~\\]|^{_LISTS}(?:>[ \t]?)+", re.MULTILINE)
_OPEN: Final = r"\[【［〔〖⟦❲﹝⁅〚"
_SHUT: Final = r"\]】］〕〗⟧❳﹞⁆〛"
_GROUP: Final = re.compile(rf"\\?[{_OPEN}](?P<inside>[^{_OPEN}{_SHUT}]*)[{_SHUT}]|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_REFERENCE: Final = re.compile(  # NFKC has made digits of what is raised or in a circle
    r"[\s^#:.*_`~\\]*"
    r"(?:(?:see|nos?|pp?|passages?|pages?|notes?|refs?|references?|sources?|cite|citation|doc|entry|entries)[\s.:#]*){0,3}"
    r"(?P<list>\d+(?:\s*(?:,|;|&|and|to|[-–—])\s*\d+)*)[\s*_`~\\]*(?:$|[,;:†|(])",
    re.IGNORECASE,
)
_BRACKET: Final = re.compile(f"[{_OPEN}{_SHUT}]")
_CITATION: Final = re.compile(r"\[(\d{1,6})\]")  # a longer number was never given to a passage
_SENTENCE: Final = re.compile(r"[.!?…][\"”’»)\]]*\s+")
_BLOCK: Final = re.compile(rf"(?m)^{_LISTS}>.*(?:\n(?![ \t]*(?:[-*+]|1[.)])[ \t]|{_LISTS}>).+|\n[ \t]*>.*)*")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")
_BLANK: Final = re.compile(r"\n(?:[ \t]*\n)+")
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,32});")
_QUOTE_TAG: Final = re.compile(r"</?(?:q|quote|blockquote|cite)\b[^<>]*>", re.IGNORECASE)
_TWO_SINGLE: Final = re.compile(r"(?<!['’‘])(?:''|’’|‘‘)(?!['’‘])")
_TWO_TICKS: Final = re.compile(r"(?<!`)``(?!`)")
_INVISIBLE: Final = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_STARTED: Final = re.compile(r"(?:&[#\w]{0,32}|<[^<>\n]{0,40}|\\)$")
_BLOCK_STARTS: Final = re.compile(rf"(?m)^{_LISTS}>|^[ \t\d.)>*+-]*\Z")
_TRIMMED: Final = " \t\n.,;:!?…-–—'\""


@dataclass(slots=True, frozen=True)
class Quotation:
    """Words in quotation marks: where they stand with their marks, and without."""

    start: int
    end: int
    inner: tuple[int, int]


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


class Checker:
    """Knows what was in one prompt: `passages` by number, and `own`, what the writer wrote on the page."""

    def __init__(self, passages: Mapping[int, str], own: Iterable[str] = ()) -> None:
        self._passages = {number: plain(text) for number, text in passages.items()}
        self._own = [plain(text) for text in own]

    def checked(self, text: str) -> tuple[str, int]:
        """A whole text without what is not true of the prompt, and how many things were taken out."""
        guard = Guard(self)
        guard.feed(text)
        return guard.finish(), guard.removed

    def quoted_from(self, text: str) -> list[Quotation]:
        """The quotations of a checked text that stand in a passage, for the page to mark."""
        found: list[Quotation] = []
        for start, paragraph in _paragraphs(text):
            for quotation in quotations(paragraph):
                inner = paragraph[slice(*quotation.inner)]
                if words(inner) >= LEAST_WORDS and any(holds(p, inner) for p in self._passages.values()):
                    a, b = quotation.inner
                    found.append(Quotation(start + quotation.start, start + quotation.end, (start + a, start + b)))
        return found

    def paragraph(self, text: str) -> tuple[str, int]:
        """One paragraph, checked, and how many things were taken out."""
        removed = 0
        for _ in range(ROUNDS):
            before, text = text, _as_shown(text)
            if changes := self._false(text):
                removed += sum(1 for change in changes if change[2] == TAKEN_OUT)
                text = _replaced(text, changes)
            else:
                text, numbers = self._numbered(text)
                removed += numbers
            if text == before:
                around = _around(text)
                removed += len(around)
                text = _replaced(text, around)
            if text == before:
                return text, removed
        return TAKEN_OUT, removed + 1

    def _false(self, text: str) -> list[tuple[int, int, str]]:
        """What has to be changed so that quotations are true: (start, end, what stands there instead)."""
        out: list[tuple[int, int, str]] = []
        for quotation in quotations(text):
            inner = _unnumbered(text[slice(*quotation.inner)])
            if words(inner) < LEAST_WORDS or self._known(inner):
                continue
            at = next((n for n in range(*quotation.inner) if text[n].isalpha()), quotation.start)
            if text[at].isalpha() and self._known(inner.replace(text[at], text[at].swapcase(), 1)):
                out.append((at, at + 1, text[at].swapcase()))  # begun in the case of the sentence around it
            else:
                out.append((quotation.start, quotation.end, TAKEN_OUT))
        return out

    def _known(self, quoted: str) -> bool:
        return any(holds(text, quoted) for text in (*self._passages.values(), *self._own))

    def _numbered(self, text: str) -> tuple[str, int]:
        """The text with only the numbers it has a right to, each in brackets of its own."""
        quoted = [q for q in quotations(text) if words(text[slice(*q.inner)]) >= LEAST_WORDS]
        starts = [q.start for q in quoted]
        ends = _sentence_ends(text, quoted)
        runs = _runs(text)
        begins = [_begins(text, runs[n - 1].end if n else 0, run.start, ends) for n, run in enumerate(runs)]
        out: list[tuple[int, int, str]] = []
        removed = 0
        for n, run in enumerate(runs):
            kept = [number for number in run.asked if number in self._passages]
            before = quoted[bisect_left(starts, begins[n]) : bisect_left(starts, run.start)]
            if kept and not all(self._fits(text, q, kept, run.start) for q in before):
                kept = []
            if kept and not before and text[max(0, run.start - 8) : run.start].rstrip()[-1:] not in tuple(".!?…"):
                # A number before its quotation: what is left of the sentence, where no other number follows.
                stop = begins[n + 1] if n + 1 < len(runs) else len(text)
                end = bisect_left(ends, run.end)
                stop = min(stop, ends[end]) if end < len(ends) else stop
                after = quoted[bisect_left(starts, run.end) : bisect_left(starts, stop)]
                if not all(self._fits(text, q, kept, run.start) for q in after):
                    kept = []
            removed += len(run.asked) - len(kept) or int(not kept)
            written = run.space + "".join(f"[{number}]" for number in kept) if kept else ""
            if written != text[run.start : run.end]:
                out.append((run.start, run.end, written))
        return _replaced(text, out), removed

    def _fits(self, text: str, quotation: Quotation, numbers: list[int], at: int) -> bool:
        """Whether a quotation in the sentence of the numbers at `at` is in one of their passages."""
        inner = _unnumbered(text[slice(*quotation.inner)])
        if any(holds(self._passages[number], inner) for number in numbers):
            return True
        beside = quotation.end <= at and not words(text[quotation.end : at])
        return not beside and any(holds(own, inner) for own in self._own)


@dataclass(slots=True)
class _Run:
    """Numbers that stand together: where, the white space before them, and each number asked for once, in order."""

    start: int
    end: int
    space: str
    asked: dict[int, None]


def _runs(text: str) -> list[_Run]:
    """Every place where numbers stand as references do: in brackets of any kind, or raised."""
    found: list[_Run] = []
    for group in _GROUP.finditer(text):
        if not _is_number(group):
            continue
        start = group.start()
        while start and text[start - 1] in " \t":
            start -= 1
        said = normal_form("NFKC", _INVISIBLE.sub("", group["inside"] or group["raised"]))
        one = _REFERENCE.match(said)
        asked = _listed(one["list"]) if one else []
        if not found or found[-1].end < start:
            found.append(_Run(start, group.end(), text[start : group.start()], {}))
        found[-1].end = group.end()
        found[-1].asked.update(dict.fromkeys(asked))
    return found


def _is_number(group: "re.Match[str]") -> bool:
    if group["raised"]:  # not the square of a metre
        before = group.string[max(0, group.start() - 3) : group.start()]
        return (len(before) == 3 and before.isalpha()) or not before[-1:].isalnum()
    return _has_digit(group["inside"])


def _has_digit(text: str) -> bool:
    return any(c.isdigit() or "Ⅰ" <= c <= "ↈ" for c in text)


def _around(text: str) -> list[tuple[int, int, str]]:
    """What stands with a digit in brackets around other brackets: it would look like a number beside a true one."""
    marks = list(_BRACKET.finditer(text))
    opened: list[int] = []
    paired: set[int] = set()
    for n, mark in enumerate(marks):
        if mark[0] in _OPEN:
            opened.append(n)
        elif opened:
            paired |= {opened.pop(), n}
    out: list[tuple[int, int, str]] = []
    depth = 0
    for n, (mark, following) in enumerate(pairwise(marks)):
        opens = mark[0] in _OPEN
        if n in paired:
            depth += 1 if opens else -1
        innermost = opens and following[0] not in _OPEN
        if depth and not innermost and _has_digit(text[mark.end() : following.start()]):
            out.append((mark.end(), following.start(), ""))
    return out


def _unnumbered(text: str) -> str:
    return _GROUP.sub(lambda group: "" if _is_number(group) else group[0], text)


def _sentence_ends(text: str, quoted: Sequence[Quotation]) -> list[int]:
    """Where sentences end; a quotation may hold several of them."""
    ends: list[int] = []
    reach = at = 0
    for end in _SENTENCE.finditer(text):
        place = end.end()
        while at < len(quoted) and quoted[at].start < place - 1:
            reach = max(reach, quoted[at].end)
            at += 1
        if reach <= place:
            ends.append(place)
    return ends


def _begins(text: str, before: int, at: int, ends: Sequence[int]) -> int:
    """Where the sentence begins that a number at `at` ends, behind the number before it."""
    first, last = bisect_right(ends, before), bisect_right(ends, at)
    places = [before, *ends[max(first, last - 2) : last]]
    return places[-1] if text[places[-1] : at].strip() or len(places) == 1 else places[-2]


class Guard:
    """A reply as it comes: `text` is what may be shown of it so far, `removed` counts what was taken out."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._settled = ""
        self._open = ""
        self._shown: str | None = ""
        self._removed = 0
        self._removed_open = 0

    def feed(self, piece: str) -> None:
        """Take the model's next words."""
        self._open += piece.replace("\r", "")  # Markdown makes a new line of it
        self._shown = None
        while end := _PARAGRAPH.search(self._open):
            checked, removed = self._checker.paragraph(self._open[: end.start()])
            self._settled += checked + self._open[end.start() : end.end()]
            self._removed += removed
            self._open = self._open[end.end() :]

    @property
    def text(self) -> str:
        """What may be shown now: nothing in it can still turn out to be false."""
        if self._shown is None:
            said = _as_shown(self._open)
            checked, self._removed_open = self._checker.paragraph(said[: _held(said)])
            self._shown = self._settled + checked
        return self._shown

    @property
    def removed(self) -> int:
        """How many citations and quotations were taken out of `text`."""
        return self._removed + (self._removed_open if self.text else 0)

    def finish(self) -> str:
        """The whole of it, checked: nothing more comes."""
        checked, removed = self._checker.paragraph(self._open)
        self._settled += checked
        self._removed += removed
        self._open, self._shown, self._removed_open = "", self._settled, 0
        return self._settled


def cited(text: str) -> list[int]:
    """The numbers that a checked text cites, in order, each once."""
    return list(dict.fromkeys(int(found) for found in _CITATION.findall(text)))


def without(text: str, numbers: Iterable[int], gone: Iterable[str]) -> str:
    """A checked text without these numbers, and without quotations of these texts."""
    left = set(numbers)
    lost = [plain(words_of) for words_of in gone]

    def one(found: "re.Match[str]") -> str:
        return "" if int(found[1]) in left else found[0]

    parts: list[str] = []
    end = 0
    for start, paragraph in _paragraphs(text):
        out = [
            (q.start, q.end, TAKEN_OUT)
            for q in quotations(paragraph)
            if words(inner := _unnumbered(paragraph[slice(*q.inner)])) >= LEAST_WORDS
            and any(holds(words_of, inner) for words_of in lost)
        ]
        parts += [text[end:start], _CITATION.sub(one, _replaced(paragraph, out))]
        end = start + len(paragraph)
    return "".join([*parts, text[end:]])


def forgetting(reply: Entry, gone: Collection[bytes], texts: Iterable[str]) -> Entry | None:
    """A reply without citations of the entries `gone` and quotations of `texts`; None when it has none."""
    if reply.role != "reply":
        return None
    passages = reply.receipt.passages if reply.receipt else ()
    left = tuple(used for used in passages if used.entry not in gone)
    lost = [used for used in passages if used.entry in gone]
    text = without(reply.text, [used.number for used in lost], [*texts, *(used.text for used in lost)])
    changed = replace(
        reply,
        text=text,
        sources=tuple(source for source in reply.sources if source not in gone),
        also=tuple(other for other in reply.also if other not in gone),
        receipt=replace(reply.receipt, passages=left) if reply.receipt else None,
    )
    return changed if changed != reply else None


def quotations(paragraph: str) -> list[Quotation]:
    """All that may be read as a quotation in one paragraph, one mark left open included; they may overlap."""
    found: list[Quotation] = []
    found += [Quotation(*block.span(), block.span()) for block in _BLOCK.finditer(paragraph)]
    for family in _DOUBLE:
        found += _in_marks(paragraph, [at for at, c in enumerate(paragraph) if c in family])
    found += _in_single(paragraph)
    return sorted(found, key=lambda q: (q.start, -q.end))


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
    """Whether a mark behind a word is that of "the boys' room" or "goin' home"."""
    before, after = text[max(0, at - 2) : at].lower(), text[at + 1 : at + 3]
    return (before.endswith(("s", "in")) or before.strip() == "o") and after[:1].isspace() and after[1:].isalpha()


def _held(text: str) -> int:
    """Up to where an unfinished paragraph may be shown: nothing beyond can be judged yet."""
    held = len(text)
    if started := _STARTED.search(text):
        held = started.start()
    opened: list[int] = []
    for mark in _BRACKET.finditer(text):
        if mark[0] in _OPEN:
            opened.append(mark.start())
        elif opened:
            opened.pop()
    if opened:
        held = min(held, opened[0])
    held = len(text[:held].rstrip(" \t\\")) if held < len(text) else held
    for early in (_BLOCK_STARTS.search(text), _TWO_TICKS.search(text)):
        if early:
            held = min(held, early.start())
    for family in _DOUBLE:
        marks = [at for at, c in enumerate(text) if c in family]
        if not marks:
            continue
        last, after = marks[-1], text[marks[-1] + 1 : marks[-1] + 2]
        if len(marks) % 2 or not after or re.match(r"\w", after):
            held = min(held, last if len(marks) % 2 else marks[-2] if not after else last)
    closes = [mark.end() for mark in _SINGLE_CLOSES.finditer(text) if mark.end() < len(text)]
    at = 0
    for single in _SINGLE_OPENS.finditer(text):
        if single.start() < at:
            continue
        first = bisect_right(closes, single.end())
        if first == len(closes):
            held = min(held, single.start())
            break
        at = closes[first]
    if text[-1:] and text[-1] in _SINGLE:
        held = min(held, len(text) - 1)
    return held


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for end in _PARAGRAPH.finditer(text):
        yield start, text[start : end.start()]
        start = end.end()
    yield start, text[start:]


def _replaced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """The text with spans replaced; of spans that overlap the first one stands for all."""
    parts: list[str] = []
    at = 0
    for start, end, new in sorted(changes):
        if start >= at:
            parts += [text[at:start], new]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _listed(text: str) -> list[int]:
    """The numbers of "1, 3" or "1-3"; a range is its ends and what lies between, if that is little."""
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:\s*(?:to|[-–—])\s*(\d+))?", text):
        a, b = int(first[:6]), int((last or first)[:6])
        found += range(a, b + 1) if a <= b <= a + 20 else [a, b]
    return found


def _as_shown(text: str) -> str:
    """A paragraph with everything that stands for a bracket, a digit or a quote mark written as just that."""
    text = _ENTITY.sub(_unescaped, text)
    text = _QUOTE_TAG.sub('"', text)
    if _TWO_SINGLE.search(text):
        text = _TWO_TICKS.sub('"', _TWO_SINGLE.sub('"', text))
    return _BLANK.sub("\n", text)


def _unescaped(entity: "re.Match[str]") -> str:
    """What Markdown would show of an entity, but for a new line and for what would begin another one."""
    said = html.unescape(entity[0])
    if said == entity[0] or "&" in said:
        return entity[0]
    return " " if said.isspace() else said or "\ufffd"
