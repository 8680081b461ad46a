"""Find quotations in text from a model, and check them against the user's own words.

A quotation is text between quotation marks or in a block quotation. Italics, code, list items
and text after a colon or between dashes count only if the sentence attributes them to the user.

Pure functions.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from llamora.text import normal_form

LEAST_WORDS: Final = 2
MOST: Final = 1000  # candidates that are examined in one text
NEAR: Final = 160  # characters around a quotation that may attribute it

CODE: Final = (
    r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)[^\n]*+\n(?P<block>(?s:.*?))(?:^[ \t]*(?P=fence)[^\n]*$|\Z)"
    r"|(?<!`)(?P<ticks>`{1,2})(?!`)(?P<code>[^`\n]+)(?P=ticks)(?!`)"
)
"""Match fenced blocks and code spans, in a MULTILINE pattern."""

_LISTS: Final = r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*"  # a block quotation may be in a list


def _between(opens: str, closes: str, inner: str) -> str:
    return rf"{opens}(?:[^{inner}\n]|\n(?![ \t]*\n)){{1,2000}}{closes}"


_SINGLE_INNER: Final = r"(?:[^'‘’‚\n]|(?<=\w)['’](?=\w)){1,2000}"
_SPAN: Final = re.compile(
    rf"{CODE}|^(?P<quote>{_LISTS}>.*(?:\n[ \t]*>.*)*)|(?P<marked>"
    + "|".join(
        (
            *(
                _between("„", "[“”]", "„“”"),
                _between("“", "”", "“”"),
                _between(r'(?<![\w"])"(?=\S)', r'"(?!\w)', '"'),
            ),
            *(_between("«", "»", "«»"), _between("»", "«", "«»"), _between("‹", "›", "‹›")),
            *(_between("「", "」", "「」"), _between("『", "』", "『』")),
            rf"‘{_SINGLE_INNER}’(?!\w)|‚{_SINGLE_INNER}[‘’]|(?<![\w'’])'(?=\w){_SINGLE_INNER}'(?!\w)",
        )
    )
    + r")|(?P<italic>(?<![\w*])\*(?=\w)[^*\n]{1,2000}(?<=\S)\*(?![\w*])|(?<![\w_])_(?=\w)[^_\n]{1,2000}(?<=\S)_(?!\w))",
    re.MULTILINE,
)
_MARKS: Final = "\"'“”„‟«»‹›‘’‚‛「」『』＂＇"
_QUOTES: Final = str.maketrans(dict.fromkeys(_MARKS, "'"))
_MARKUP: Final = re.compile(rf"[*_`~\\]|#(?=[^\W\d_])|^{_LISTS}(?:>[ \t]?)+", re.MULTILINE)
_EDGES: Final = f" \t\n*_`~{_MARKS}"
_REFERENCE: Final = re.compile(r"\s*\[\d{1,6}\]")
_TRIMMED: Final = " \t\n.,;:!?…-–—'"
_BLOCK_TAIL: Final = re.compile(
    r"(?:\s*[—–-]+[^\n—–]{0,60})?(?:\s*\[\d{1,6}\])*\s*\Z"
)  # its author and date

_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
_LETTER: Final = rf"(?![{_UNSPACED}_])\w"
WORD: Final = re.compile(rf"[{_UNSPACED}]{{1,2}}|(?:{_LETTER})+(?:['’](?:{_LETTER})+)?")
"""Match a word; in scripts without spaces, two letters."""
_EDGE: Final = re.compile(_LETTER)

_VERB: Final = (
    r"(?:wrote|written|write|said|noted|called|described|mentioned|asked|put|recorded|told|named|remarked|added"
    r"|observed|admitted|confessed|remembered|recalled|promised|quoted|listed|worded|phrased|expressed)\b"
)
_PARTICIPLE: Final = (
    r"(?:geschrieben|gesagt|genannt|notiert|festgehalten|beschrieben|gefragt|erwähnt)\b"
)
_PAST: Final = r"(?:schriebst|sagtest|nanntest|notiertest|beschriebst|meintest|fragtest|erwähntest)"
_YOU: Final = (
    rf"(?:\byou(?:['’](?:ve|d))?(?!\s+(?:could|can|might|may|should|would|will|must|need|want))(?:\s+\w+){{0,2}}?\s+{_VERB}"
    r"|\bas\s+you\s+(?:say|put)\b|\b(?:that\s+is|that['’]s|these\s+are)\s+(?:what|how)\s+you\s+(?:wrote|said|put)\b"
    r"|\byour\s+(?:own\s+)?words\b|\byour\s+(?:entry|entries|pages?|notes?|journal)\b[^.!?\n]{0,30}?\b(?:says?|said|reads?)\b"
    rf"|\bdu\s+(?:\w+\s+){{0,4}}?(?:{_PAST}\b|{_PARTICIPLE})|\b{_PAST}\s+du\b"
    rf"|\b(?:hast|hattest)\s+du\s+(?:\w+\s+){{0,4}}?{_PARTICIPLE}|\bdeine[nr]?\s+(?:eigenen\s+)?Worten?\b"
    r"|\btu\s+as\s+(?:écrit|dit|noté)\b|\bvous\s+avez\s+(?:écrit|dit|noté)\b|\b(?:escribiste|dijiste|has\s+escrito)\b"
    r"|\bhai\s+(?:scritto|detto)\b|\b(?:je\s+schreef|schreef\s+je)\b)"
)
_MONTH: Final = (
    r"(?:Jan(?:uary|uar)?|Feb(?:ruary|ruar)?|Mar(?:ch)?|März|Apr(?:il)?|May|Mai|June?|Juni|July?|Juli|Aug(?:ust)?"
    r"|Sept?(?:ember)?|O[ck]t(?:ober)?|Nov(?:ember)?|De[cz](?:ember)?)\b\.?"
)
_DATE: Final = (
    rf"(?:\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}}\.\s?\d{{1,2}}\.(?:\s?\d{{2,4}})?"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTH}|\b{_MONTH}\s+\d{{1,2}}\b)"
)
_GAP: Final = (
    rf"[^.!?\n{_MARKS.replace(chr(39), '').replace('’', '')}]"  # an apostrophe may be part of it
)
_SAYS_SO: Final = re.compile(
    rf"(?:{_YOU}(?!\s+(?:about|über)\b){_GAP}{{0,60}}|(?:{_DATE}|\w\s?\[\d{{1,6}}\]){_GAP}{{0,30}})\Z",
    re.IGNORECASE,
)
_BLOCK_FOLLOWS: Final = re.compile(
    rf"(?:{_YOU}|{_DATE}|\[\d{{1,6}}\])[^.!?\n]{{0,60}}:[*_]*\s*\Z", re.IGNORECASE
)
_SAID_SO: Final = re.compile(  # but no start of another sentence
    rf"(?-i:(?!\s+[A-Z]))(?:[\s,;:*_)—–-]*(?:(?:as|is|was|so|wie|ist|war)\s+)?{_YOU}"
    rf"|[\s,(—–-]*(?:(?:on|of|from|am|vom)\s+)?{_DATE})"
    rf"|[\s.,;:!?…*_)]*\[\d{{1,6}}\]|[.!?]?\s+(?:that|these|das)\s+(?:is|are|was|hast)\s+(?:what\s+)?{_YOU}",
    re.IGNORECASE,
)
_HAVE_YOU: Final = re.compile(
    rf"\b(?:du\s+(?:hast|hattest)|(?:hast|hattest)\s+du){_GAP}{{0,60}}\Z", re.IGNORECASE
)
_PARTICIPLE_NEXT: Final = re.compile(
    rf"[\s,*_]*(?:\[\d{{1,6}}\]\s*)?(?:\w+\s+)?{_PARTICIPLE}", re.IGNORECASE
)
_AND: Final = re.compile(
    r"[\s,;*_]*(?:\[\d{1,6}\]\s*)*(?:(?:and|und|then|dann|or|oder|et|y|e|en)\s*){0,2}\Z",
    re.IGNORECASE,
)
_STOP: Final = r"[.!?…](?:\s|\Z)|\n|\Z"
_UNMARKED: Final = re.compile(
    rf"{_YOU}(?:(?!\s+(?:about|über|that|dass)\b)[^.!?:\n—–]{{0,40}}:[*_]*"
    rf"(?:[ \t]+(?P<rest>[^\n]+?)(?={_STOP})"
    r"|\s*\n\s*(?P<below>[^\s](?:[^\n]|\n(?!\s*\n)|\n\s*(?=(?:[-*+]|\d{1,9}[.)])\s))*))"
    rf"|\s*[—–]\s*(?P<aside>[^\n—–]+?)(?=\s*[—–]|{_STOP}))",
    re.IGNORECASE,
)
_ITEM: Final = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+(.+)$", re.MULTILINE)
_THAT_IS: Final = re.compile(
    r"(?<=\n)(?P<gap>[ \t]*\n)[ \t]*(?:that\s+is|that['’]s|das\s+ist|das\s+hast\s+du)\b[^.!?\n]{0,20}?"
    rf"(?:\byou\s+{_VERB}|\bdeine\s+Worte|{_PARTICIPLE})",
    re.IGNORECASE,
)


@dataclass(slots=True, frozen=True)
class Quotation:
    """The words of a quotation, `text[start:end]`, without marks.

    `attributed` is True if the text says that they are the user's.
    """

    start: int
    end: int
    attributed: bool


class QuoteVerifier:
    """Check quotations against the texts that a reply may quote.

    These are the passages of its prompt and the user's own words on the page.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [plain(text) for text in texts]

    def verified(self, text: str) -> tuple[str, ...]:
        """Return the distinct quotations of `text` that one of the texts has literally."""
        found = (text[quoted.start : quoted.end] for quoted in quotations(text))
        return tuple(words for words in dict.fromkeys(found) if self._holds(words))

    def _holds(self, words: str) -> bool:
        # The first letter may have been adapted to the sentence around it.
        forms = (words, words[:1].swapcase() + words[1:])
        return any(holds(text, form) for form in forms for text in self._texts)


def marks(
    text: str, verified: Collection[str], *, growing: bool = False
) -> list[tuple[int, int, bool]]:
    """Return the spans of `text` to mark as (start, end, True if in `verified`).

    Unverified spans are quotations attributed to the user. With `growing` the one at the end of
    `text` is left out, as it may be incomplete.
    """
    known = set(verified)
    end = len(text.rstrip(_TRIMMED + _MARKS)) if growing else len(text) + 1
    found = ((q, text[q.start : q.end] in known) for q in quotations(text))
    return [(q.start, q.end, true) for q, true in found if true or (q.attributed and q.end < end)]


def quotations(text: str, *, anyone: bool = False) -> list[Quotation]:
    """Return the quotations of at least LEAST_WORDS words, in order and not nested.

    Italics and code are included if they are attributed to the user, or with `anyone` always.
    """
    found: list[Quotation] = []
    reach = 0
    for kind, start, end in sorted((*_spans(text), *_unmarked(text)), key=lambda span: span[1:])[
        :MOST
    ]:
        if start < reach:
            continue
        inner = _trimmed(text, kind, start, end)
        if not _has_words(text[slice(*inner)]):
            continue
        attributed = kind == "claimed" or _is_attributed(text, kind, start, end, inner[1], found)
        if attributed or anyone or kind in ("marked", "quote"):
            found.append(Quotation(*inner, attributed))
            reach = end
    return found


def plain(text: str) -> str:
    """Return a text normalized for comparing quotations.

    Whitespace is collapsed, quotation marks are unified and Markdown markup is removed.
    """
    return " ".join(_MARKUP.sub("", normal_form("NFC", text)).translate(_QUOTES).split())


def holds(text: str, quoted: str) -> bool:
    """Return True if `text`, already `plain`, contains the words of a quotation in sequence."""
    needle = plain(_REFERENCE.sub("", quoted)).strip(_TRIMMED)
    at = text.find(needle)
    while at >= 0 and needle:
        after = at + len(needle)
        whole_start = at == 0 or not (_EDGE.match(needle[0]) and _EDGE.match(text[at - 1]))
        whole_end = after == len(text) or not (_EDGE.match(needle[-1]) and _EDGE.match(text[after]))
        if whole_start and whole_end:
            return True
        at = text.find(needle, at + 1)
    return False


def _has_words(text: str) -> bool:
    return len(list(islice(WORD.finditer(_REFERENCE.sub("", text)), LEAST_WORDS))) == LEAST_WORDS


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    for span in _SPAN.finditer(text):
        yield (
            "block" if span["fence"] else "code" if span["ticks"] else str(span.lastgroup),
            *span.span(),
        )


def _unmarked(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, end) of unmarked text that is attributed to the user."""
    taken = [span for kind, *span in _spans(text) if kind != "italic"]
    claims: list[tuple[int, int]] = []
    for said in _UNMARKED.finditer(text):
        if said["below"]:
            items = [item.span(1) for item in _ITEM.finditer(text, *said.span("below"))]
            claims += items or [said.span("below")]
        else:
            claims.append(said.span("rest" if said["rest"] else "aside"))
    for said in _THAT_IS.finditer(text):
        end = said.start("gap") - 1
        claims.append((text.rfind("\n\n", 0, end) + 1, end))
    for start, end in claims:
        if not any(start < other_end and other_start < end for other_start, other_end in taken):
            yield "claimed", start, end


def _trimmed(text: str, kind: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the quotation marks and Markdown markup around it.

    A block quotation also loses the line that attributes it.
    """
    if kind == "block":
        start = text.index("\n", start) + 1
    elif kind == "quote" and (prefix := _MARKUP.match(text, start)):
        start = prefix.end()
        tail = _BLOCK_TAIL.search(text, max(start, end - NEAR), end)
        end = tail.start() if tail and tail.start() > start else end
    elif kind == "claimed":
        start += len(text[start:end]) - len(text[start:end].lstrip("#"))
    words = text[start:end]
    return start + len(words) - len(words.lstrip(_EDGES)), start + len(words.rstrip(_EDGES))


def _is_attributed(
    text: str, kind: str, start: int, end: int, words_end: int, before: list[Quotation]
) -> bool:
    head = text[max(0, start - NEAR) : start]
    tail = text[words_end if kind == "quote" else end : end + NEAR]
    if kind in ("quote", "block"):
        return bool(_BLOCK_FOLLOWS.search(head) or _SAID_SO.match(tail))
    if _SAYS_SO.search(head) or _SAID_SO.match(tail):
        return True
    if _HAVE_YOU.search(head) and _PARTICIPLE_NEXT.match(tail):
        return True
    last = before[-1] if before else None
    return (
        last is not None
        and last.attributed
        and bool(_AND.match(text[last.end : start].lstrip(_MARKS + "*_`")))
    )
