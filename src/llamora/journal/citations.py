"""What a reply may cite and quote: only passages that were in its prompt, and only words that are in them.

A model refers to a passage by its number in square brackets, or in another form (`references`). A number is kept only
when that passage was in the prompt; words in quotation marks, in italics or in a block quotation (`quotations`), four
or more, are kept only when they stand in a passage, or in what the writer wrote on the page, letter by letter but for
white space, quote marks and Markdown's own marks (a first letter in the other case is put right). A number beside a
quotation must be that of a passage which holds it. Anything else is taken out, a quotation with `TAKEN_OUT` in its
place, before anybody sees it: while a reply streams, what could still become a citation or a quotation is held back
until it is one.

Pure, and fail-closed: where marks are ambiguous, each reading has to hold.
"""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from llamora.journal.quotations import LEAST_WORDS, Quotation, holds, joined, plain, quotations, words
from llamora.journal.quotations import held as held_of_quotations
from llamora.journal.references import around, references, unnumbered
from llamora.journal.references import held as held_of_references
from llamora.persistence.entries import Entry

TAKEN_OUT: Final = "[…]"
ROUNDS: Final = 12  # what is left when something is taken out may be false itself; deeper, nobody nests it

_CITATION: Final = re.compile(r"\[(\d{1,6})\]")  # a longer number was never given to a passage
_SENTENCE: Final = re.compile(r"[.!?…][\"”’»)\]]*\s+")
_CITED_SENTENCE: Final = re.compile(  # numbers may follow the stop
    r"[.!?…][\"”’»)]*(?:[ \t]*\[\d{1,6}\])*+(?:\s++(?!\[\d)|\Z)"
    r"|[。！？][\"”’」』）]*(?:\s*\[\d{1,6}\])*+"
)
_WHOLE: Final = re.compile(r"(?:[.!?…。！？][\"”’»)」』）]*|\[\d{1,6}\])\Z")
_MONTHS: Final = r"(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember)\b"
_GOES_ON: Final = re.compile(  # a stop in the middle of a sentence, and what follows it
    r"(?<!\w)(?:Mr|Mrs|Ms|Dr|St|Prof|[A-HJ-Z])\.\s+(?P<at>)"
    rf"|\b\d{{1,2}}\.\s+(?P<day>){_MONTHS}"
    r"|[!?…][\"”’»]\s+(?P<low>)[a-zà-þ]"
)
_LISTED: Final = re.compile(rf"^\s*(?:[-*+]|\d{{1,2}}[.)](?!\s+{_MONTHS})|#+)\s+")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")
_BLANK: Final = re.compile(r"\n(?:[ \t]*\n)+")
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,32});")
_QUOTE_TAG: Final = re.compile(r"</?(?:q|quote|blockquote|cite|em|i|b|strong|mark|u)(?:\s[^<>]*)?>", re.IGNORECASE)
_RAISED_TAG: Final = re.compile(r"<(?P<end>/?)su[pb]\b[^<>]*>", re.IGNORECASE)
_ANGLES: Final = re.compile(r"<<(?=[^\s<])|(?<=[^\s>])>>")
_TWO_SINGLE: Final = re.compile(r"(?<!['’‘])(?:''|’’|‘‘)(?!['’‘])")
_TWO_TICKS: Final = re.compile(r"(?<!`)``(?!`)")


class Checker:
    """Knows what was in one prompt: `passages` by number, and `own`, what the writer wrote on the page."""

    def __init__(self, passages: Mapping[int, str], own: Iterable[str] = ()) -> None:
        self._passages = {number: plain(text) for number, text in passages.items()}
        self._own = [plain(text) for text in own]
        self._lower = [text.lower() for text in (*self._passages.values(), *self._own)]

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
                outside = around(text)
                removed += len(outside)
                text = _replaced(text, outside)
            if text == before:
                return text, removed
        return TAKEN_OUT, removed + 1

    def _false(self, text: str) -> list[tuple[int, int, str]]:
        """What has to be changed so that quotations are true: (start, end, what stands there instead)."""
        out: list[tuple[int, int, str]] = []
        found = quotations(text)
        for quotation in found:
            inner = unnumbered(text[slice(*quotation.inner)])
            if words(inner) < LEAST_WORDS or self._known(inner):
                continue
            at = next((n for n in range(*quotation.inner) if text[n].isalpha()), quotation.start)
            if text[at].isalpha() and self._known(inner.replace(text[at], text[at].swapcase(), 1)):
                out.append((at, at + 1, text[at].swapcase()))  # begun in the case of the sentence around it
            elif quotation.stressed == "bold":  # stress, not a quotation: it stays as the model's own words
                out += [(quotation.start, quotation.inner[0], ""), (quotation.inner[1], quotation.end, "")]
            else:
                out.append((quotation.start, quotation.end, TAKEN_OUT))
        for row in joined(text, found):
            parts = [unnumbered(text[slice(*quotation.inner)]) for quotation in row]
            whole = " ".join(parts)
            if words(whole) >= LEAST_WORDS and not (all(map(self._known, parts)) or self._known(whole)):
                out.append((row[0].start, row[-1].end, TAKEN_OUT))
        return out

    def _known(self, quoted: str) -> bool:
        return any(holds(text, quoted) for text in (*self._passages.values(), *self._own))

    def _echoed(self, phrase: str) -> bool:
        """Whether the writer wrote it, in whatever case: then a number in it is the writer's."""
        return any(holds(text, phrase.lower()) for text in self._lower)

    def _numbered(self, text: str) -> tuple[str, int]:
        """The text with only the numbers it has a right to, each in brackets of its own."""
        quoted = [q for q in quotations(text) if words(text[slice(*q.inner)]) >= LEAST_WORDS]
        starts = [q.start for q in quoted]
        ends = _sentence_ends(text, quoted)
        runs = references(text, self._echoed)
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
            written = run.lead + "".join(f"[{number}]" for number in kept) if kept else ""
            if written != text[run.start : run.end]:
                out.append((run.start, run.end, written))
        return _replaced(text, out), removed

    def _fits(self, text: str, quotation: Quotation, numbers: list[int], at: int) -> bool:
        """Whether a quotation in the sentence of the numbers at `at` is in one of their passages."""
        inner = unnumbered(text[slice(*quotation.inner)])
        if any(holds(self._passages[number], inner) for number in numbers):
            return True
        beside = quotation.end <= at and not words(text[quotation.end : at])
        return not beside and any(holds(own, inner) for own in self._own)


def _sentence_ends(text: str, quoted: Sequence[Quotation], pattern: "re.Pattern[str]" = _SENTENCE) -> list[int]:
    """Where sentences end; a quotation may hold several of them."""
    ends: list[int] = []
    reach = at = 0
    for end in pattern.finditer(text):
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
        self._stands = ""  # what was shown, as long as nothing contradicts it
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
            shown = self._settled + checked
            # A word is held back while it may begin a reference; what of it was shown before does not go and come.
            if not self._stands.startswith(shown):
                self._stands = shown
            self._shown = self._stands
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
            if words(inner := unnumbered(paragraph[slice(*q.inner)])) >= LEAST_WORDS
            and any(holds(words_of, inner) for words_of in lost)
        ]
        parts += [text[end:start], _CITATION.sub(one, _replaced(paragraph, out))]
        end = start + len(paragraph)
    return "".join([*parts, text[end:]])


def that_cite(text: str) -> str:
    """Of a checked text the sentences that cite a passage and are whole, one after the other; "" without any."""
    kept: list[str] = []
    for line in (_LISTED.sub("", line).strip() for line in text.splitlines()):
        quoted = [q for q in quotations(line) if words(line[slice(*q.inner)]) >= LEAST_WORDS]
        goes_on = {place for found in _GOES_ON.finditer(line) for place in map(found.end, ("at", "day", "low"))}
        at = 0
        for end in [*_sentence_ends(line, quoted, _CITED_SENTENCE), len(line)]:
            if end in goes_on and end < len(line):
                continue
            sentence = line[at:end].strip()
            at = end
            said = words(_CITATION.sub("", sentence)) > 0
            if said and _CITATION.search(sentence) and _WHOLE.search(sentence) and TAKEN_OUT not in sentence:
                kept.append(sentence)
    return " ".join(kept)


def whole_sentences(text: str) -> str:
    """A text that was cut off without the sentence it ends in the middle of; "" when that is all there is."""
    goes_on = {place for found in _GOES_ON.finditer(text) for place in map(found.end, ("at", "day", "low"))}
    ends = [found.end() for found in _CITED_SENTENCE.finditer(text) if found.end() not in goes_on]
    return text[: ends[-1]].strip() if ends else ""


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


def _held(text: str) -> int:
    """Up to where an unfinished paragraph may be shown: nothing beyond can be judged yet."""
    held = min(held_of_quotations(text), held_of_references(text))
    return len(text[:held].rstrip(" \t\\")) if held < len(text) else held


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


def _as_shown(text: str) -> str:
    """A paragraph with everything that stands for a bracket, a digit or a quote mark written as just that."""
    text = _ENTITY.sub(_unescaped, text)
    text = _ANGLES.sub(lambda angles: "«" if angles[0] == "<<" else "»", text)
    text = _QUOTE_TAG.sub('"', text)
    text = _RAISED_TAG.sub(lambda tag: "]" if tag["end"] else "[", text)
    if _TWO_SINGLE.search(text):
        text = _TWO_TICKS.sub('"', _TWO_SINGLE.sub('"', text))
    return _BLANK.sub("\n", text)


def _unescaped(entity: "re.Match[str]") -> str:
    """What Markdown would show of an entity, but for a new line and for what would begin another one."""
    said = html.unescape(entity[0])
    if said == entity[0] or "&" in said:
        return entity[0]
    return " " if said.isspace() else said or "\ufffd"
