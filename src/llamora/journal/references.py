"""How a model may refer to a passage by its number, in whatever form it writes one.

Square brackets of any kind, with anything in them that has a digit; round ones, curly ones and angles that hold nothing
but a reference; raised digits and digits in a circle; "#9" and "^9"; and a word for what is numbered with its number:
"passage 9", "source nine", "the ninth excerpt", "Quelle 9", "第9段". A number that belongs to the sentence is none:
"9 years", "(9 March)", "(2019)", "note 9 pm", and what the writer wrote in the same words ("the bus #9", "Tom (9)").

Pure. The page shows a reference only where `citations.Checker` finds that its passage was in the prompt.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from llamora.text import normal_form

OPEN: Final = r"\[【［〔〖⟦❲﹝⁅〚"
SHUT: Final = r"\]】］〕〗⟧❳﹞⁆〛"
_ROUND_OPEN: Final = r"(（﹙❨❪⸨⦅{｛﹛❴<＜⟨〈❬‹❮⟪《"
_ROUND_SHUT: Final = r")）﹚❩❫⸩⦆}｝﹜❵>＞⟩〉❭›❯⟫》"
ROUND: Final = 40  # letters between round brackets that may be a reference
_HIGH: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"
_ENCLOSED: Final = "①-⒛⓪-⓿❶-➓㉈-㉏㉑-㉟㊱-㊿🄀-🄌🔟"
_INVISIBLE: Final = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")

_LIST: Final = r"\d{1,3}(?!\d)(?:\s*(?:,|;|&|and|und|et|y|e|o|or|to|[-–—])\s*\d{1,3}(?![\d\w]))*"
# What is numbered, in the languages whose journals we know of; the first ones can hardly be anything else.
_PASSAGE: Final = (
    r"passages?|passagen|excerpts?|extracts?|snippets?|sources?|citations?|quotations?|references?|refs?|fragments?"
    r"|footnotes?|endnotes?|chunks?|stellen?|fundstellen?|auszug|auszüge|quellen?|zitate?|belege?|extraits?|pasajes?"
    r"|fragmentos?|fuentes?|citas?|passagg[io]o?|bran[oi]|font[ei]|citazion[ei]|passage[mn]s?|trechos?|bron(?:nen)?"
    r"|citaten|citaat|fragment(?:e|en)"
)
_NOTE: Final = (
    r"notes?|entry|entries|pages?|pp?|items?|documents?|docs?|memory|memories|records?|texts?|paragraphs?|sections?"
    r"|quotes?|cites?|notiz(?:en)?|eintrag|einträge|seiten?|abschnitte?|entrées?|notas?|entradas?|voc[ei]|notities?"
)
_NUMBERED_CJK: Final = (
    "段落|片段|段|来源|來源|笔记|筆記|资料|資料|出典|引用|抜粋|メモ|註|注|文書|文档|文檔|구절|출처|인용|메모"
)
_NUMBER_WORDS: Final = {
    word: number
    for number, words_of in enumerate(
        (
            "one first 1st",
            "two second 2nd ii",
            "three third 3rd iii",
            "four fourth 4th iv",
            "five fifth 5th",
            "six sixth 6th vi",
            "seven seventh 7th vii",
            "eight eighth 8th viii",
            "nine ninth 9th ix",
            "ten tenth 10th",
            "eleven eleventh 11th xi",
            "twelve twelfth 12th xii",
        ),
        start=1,
    )
    for word in words_of.split()
}
_WORDS: Final = "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True))
_ORDINALS: Final = r"\d{1,3}(?:st|nd|rd|th)|" + "|".join(w for w in _NUMBER_WORDS if w[-2:] in ("st", "nd", "rd", "th"))
_SIGN: Final = r"(?:nos?\.?|nr\.?|numbers?|№|\#)"
_START: Final = r"(?<![^\W_])"
_BEFORE: Final = r"(?:\b(?:in|from|see|per|cf\.?|by|also)[ \t]+){0,2}(?:\bthe[ \t]+)?"
_NOUN: Final = re.compile(
    rf"(?P<lead>{_START}(?:(?P<passage>{_PASSAGE})|(?P<note>{_NOTE}))[\s.:*_`~-]*(?:{_SIGN}[\s*_`~]*)?)"
    rf"(?P<list>{_LIST}|\d{{4,6}}|(?:{_WORDS})(?!\w))(?P<more>(?:[.:,]\d|[^\W\d]|[%°€$£])\w*)?",
    re.IGNORECASE,
)
_NTH: Final = re.compile(
    rf"(?P<lead>{_START}(?P<nth>{_ORDINALS})[ \t]+"
    r"(?:passage|excerpt|extract|snippet|citation|quotation|fragment|footnote)(?![\w'’]))",
    re.IGNORECASE,
)
_CJK: Final = re.compile(
    rf"(?:{_NUMBERED_CJK})\s*(?P<after>\d{{1,3}})(?!\d)|第\s*(?P<th>\d{{1,3}})\s*(?:{_NUMBERED_CJK}|[条條則则篇件项項])"
)
# After a note, an entry or a page these make its number one of a day, an hour or so many.
_OF_TIME: Final = re.compile(
    r"\s*(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|am\b|pm\b|a\.m|p\.m|uhr|o['’]clock|"
    r"minutes?|hours?|days?|weeks?|months?|years?|times?|people|words|pages|letters|of\s+(?:us|them|you|\d))",
    re.IGNORECASE,
)
_HASH: Final = re.compile(r"(?<![\w&#])#(?P<list>\d{1,3})(?!\w)")
_CARET: Final = re.compile(r"(?:(?<=[^\W\d][^\W\d][^\W\d])|(?<=[\s.,;:!?”’\"'»]))\^(?P<list>\d{1,3})(?!\w)\^?")
_KEYCAP: Final = re.compile("(?P<list>\\d)\ufe0f?\u20e3")
_SQUARE: Final = re.compile(rf"\\?[{OPEN}](?P<inside>[^{OPEN}{SHUT}]*)[{SHUT}]")
_RAISED: Final = re.compile(rf"[{_HIGH}]+|[{_ENCLOSED}]+")
_ROUND: Final = re.compile(
    rf"\\?[{re.escape(_ROUND_OPEN)}](?P<inside>[^{re.escape(_ROUND_OPEN + _ROUND_SHUT)}{OPEN}{SHUT}\n]{{1,{ROUND}}}?)"
    rf"(?:\\?[{re.escape(_ROUND_SHUT)}]|(?=\s*[.;!?]?\s*\Z))"
)
_LEFT_OPEN: Final = re.compile(rf"[{OPEN}]\s*[\^#]?\d[^{OPEN}{SHUT}]*")
_LEFT_SHUT: Final = re.compile(rf"(?<![\w.,:])\^?\d{{1,3}}[{SHUT}]")
_IN_SQUARE: Final = re.compile(  # NFKC has made digits of what is raised or in a circle
    rf"[\s^#:.*_`~\\]*(?:(?:see|cf|{_PASSAGE}|{_NOTE}|{_SIGN})[\s.:#*_`~]*){{0,3}}"
    rf"(?P<list>{_LIST.replace('{1,3}', '+')})[\s*_`~\\]*(?:$|[,;:†|(])",
    re.IGNORECASE,
)
_IN_ROUND: Final = re.compile(
    rf"[\s^#:.*_`~\\]*(?:(?:see|also|cf\.?|{_PASSAGE}|{_NOTE}|{_SIGN})[\s.:#*_`~]*){{0,3}}"
    rf"(?P<list>{_LIST}|(?<=[\w.][\s]){_WORDS})[\s*_`~\\.]*$",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(
    rf"[\s^#]*(?:{_PASSAGE}|{_NOTE})[\s.:#]*(?:{_SIGN}\s*)?(?P<list>{_LIST})(?:$|[,;:†|(])", re.IGNORECASE
)
_SPELT: Final = re.compile(rf"\s*(?:(?:{_PASSAGE}|{_NOTE})\s+)?(?P<list>{_WORDS})\s*", re.IGNORECASE)
_LEADING: Final = re.compile(rf"[ \t]*{_BEFORE}\Z", re.IGNORECASE)
_LEADING_NOUN: Final = re.compile(rf"[ \t]*{_BEFORE}{_START}(?:{_PASSAGE})[ \t.:]*(?:{_SIGN}[ \t]*)?\Z", re.IGNORECASE)
_LEAD_LETTERS: Final = 40  # of what may stand before a bracket and go with it
_BRACKET: Final = re.compile(f"[{OPEN}{SHUT}]")

# What is held back at the end of a text that goes on: it may yet become a reference.
_MAY_BECOME: Final = re.compile(
    rf"(?:[{re.escape(_ROUND_OPEN)}][^{re.escape(_ROUND_OPEN + _ROUND_SHUT)}\n]{{0,{ROUND + 8}}}"
    rf"|[\^#]\^?\d{{0,3}}\^?|[{_HIGH}{_ENCLOSED}]+|\d{{1,3}}(?:\ufe0f|[a-z]{{1,2}})?|第\s*\d*\s*|(?:{_NUMBERED_CJK})\s*\d*)\Z"
)
_NOUN_AT_END: Final = re.compile(
    rf"{_START}(?:{_PASSAGE}|{_NOTE}|(?:{_ORDINALS})(?=\s))(?!\w)|{_START}(?:{_PASSAGE})", re.IGNORECASE
)
_SO_FAR: Final = re.compile(
    rf"[\s.:*_`~-]*(?:{_SIGN}[\s*_`~]*)?(?:[\d\s,;&–—-]|and|und|or|to|et)*\w{{0,12}}(?:[\s.,:]+\w{{0,8}}(?:\s+\w{{0,4}})?)?",
    re.IGNORECASE,
)
_LAST_WORD: Final = re.compile(r"(?<!\w)\w{2,14}\Z")  # a single letter does not wait
_LETTER: Final = re.compile(r"(?<!\w)\w\Z")
_ALL_NOUNS: Final = tuple(
    "passagen passages passaggio passaggi excerpts extracts extraits snippets sources citations citazione "
    "citazioni citas citaten citaat quotations quotes references fragments fragmentos fragmente footnotes "
    "endnotes chunks stellen fundstellen auszug auszüge quellen zitate belege pasajes fuentes brano brani fonti "
    "trechos bronnen notes notas notizen notities entry entries entrées entradas eintrag einträge pages pp items "
    "documents docs memory memories records texts paragraphs sections cites seiten abschnitte voce voci in from "
    "see per by also the".split()
)


@dataclass(slots=True)
class Reference:
    """Numbers that stand together: where, with what leads to them, and each number asked for once, in order.

    `lead` is what stays before the numbers when some are kept: white space, and the words of "in passage 9".
    """

    start: int
    end: int
    lead: str
    asked: dict[int, None]


def references(text: str, echoed: Callable[[str], bool]) -> list[Reference]:
    """All that refers to passages by number, in order; `echoed` tells what the writer wrote in the same words."""
    found: list[Reference] = []
    for each in sorted(_candidates(text, echoed), key=lambda r: (r.start, -r.end)):
        last = found[-1] if found else None
        if last is None or last.end < each.start or (last.end == each.start and each.lead.strip()):
            found.append(each)
        elif last.end <= each.start or each.end > last.end:  # beside it, or begun in it and going on
            last.end = each.end
            last.asked.update(each.asked)
    return found


def unnumbered(text: str) -> str:
    """A text without the references in brackets, and the raised ones, that stand inside of it."""
    spans = [(m.start(), m.end()) for m in _SQUARE.finditer(text) if has_digit(m["inside"])]
    spans += [(m.start(), m.end()) for m in _RAISED.finditer(text) if _is_raised(text, m)]
    parts: list[str] = []
    at = 0
    for start, end in sorted(spans):
        parts.append(text[at:start])
        at = max(at, end)
    return "".join([*parts, text[at:]])


def around(text: str) -> list[tuple[int, int, str]]:
    """What stands with a digit in brackets around other brackets: it would look like a number beside a true one."""
    marks = list(_BRACKET.finditer(text))
    opened: list[int] = []
    paired: set[int] = set()
    for n, mark in enumerate(marks):
        if mark[0] in OPEN:
            opened.append(n)
        elif opened:
            paired |= {opened.pop(), n}
    out: list[tuple[int, int, str]] = []
    depth = 0
    for n, (mark, following) in enumerate(pairwise(marks)):
        opens = mark[0] in OPEN
        if n in paired:
            depth += 1 if opens else -1
        innermost = opens and following[0] not in OPEN
        if depth and not innermost and has_digit(text[mark.end() : following.start()]):
            out.append((mark.end(), following.start(), ""))
    return out


def held(text: str) -> int:
    """Up to where an unfinished paragraph may be shown, as far as references go."""
    at = len(text)
    opened: list[int] = []
    for mark in _BRACKET.finditer(text):
        if mark[0] in OPEN:
            opened.append(mark.start())
        elif opened:
            opened.pop()
    if opened:
        at = opened[0]
    tail = text[-120:]
    off = len(text) - len(tail)
    if may := _MAY_BECOME.search(tail):
        at = min(at, off + may.start())
    for noun in _NOUN_AT_END.finditer(tail):
        if _SO_FAR.fullmatch(tail, noun.end()):
            at = min(at, off + noun.start())
            break
    if (last := _LAST_WORD.search(tail)) and any(noun.startswith(last[0].lower()) for noun in _ALL_NOUNS):
        at = min(at, off + last.start())
    first = max(0, at - _LEAD_LETTERS)
    # A letter after "in " may begin another word that leads to a reference: "in t", "in the passage 9".
    begun = at - 1 if _LETTER.search(text[first:at]) else at
    for end in (at, begun):
        if (leads := _LEADING_OR_SO.search(text[first:end])) and leads[0].strip():
            return first + leads.start()
    return at


_LEADING_OR_SO: Final = re.compile(
    rf"[ \t]*{_BEFORE}(?:{_START}(?:(?:{_PASSAGE}|{_NOTE})[\s.:]*(?:{_SIGN}\s*)?|(?:{_ORDINALS})[ \t]*))?\Z",
    re.IGNORECASE,
)


def has_digit(text: str) -> bool:
    """Whether anything in it is a digit, in whatever writing, or a Roman numeral as one character."""
    return any(c.isdigit() or "Ⅰ" <= c <= "ↈ" or c == "🔟" for c in text)


def _candidates(text: str, echoed: Callable[[str], bool]) -> Iterator[Reference]:
    for group in _SQUARE.finditer(text):
        inside = normal_form("NFKC", _INVISIBLE.sub("", group["inside"]))
        one = _IN_SQUARE.match(inside) or _SPELT.fullmatch(inside)
        if has_digit(group["inside"]) or (one is not None and not echoed(group[0])):
            yield _led(text, group.start(), group.end(), listed(one["list"]) if one else [])
    rounds = list(_ROUND.finditer(text))
    items = any(_begins_item(text, group.start()) for group in rounds if has_digit(group["inside"]))
    for group in rounds:
        inside = normal_form("NFKC", _INVISIBLE.sub("", group["inside"]))
        one = _IN_ROUND.match(inside) or _NAMED.match(inside)
        if one and not echoed(_with_word_before(text, group.start(), group.end())):
            yield _led(text, group.start(), group.end(), [] if items else listed(one["list"]))
    for raised in _RAISED.finditer(text):
        if _is_raised(text, raised) and not echoed(_with_word_before(text, raised.start(), raised.end())):
            numbers = [] if raised[0][0] not in _HIGH and _begins_item(text, raised.start()) else _raised(raised[0])
            yield _led(text, raised.start(), raised.end(), numbers)
    for pattern in (_HASH, _CARET, _KEYCAP):
        for one in pattern.finditer(text):
            if not echoed(_with_word_before(text, one.start(), one.end())):
                yield _led(text, one.start(), one.end(), listed(one["list"]))
    for left in _unpaired(text):
        yield _led(text, left.start(), left.end(), [])
    yield from _in_words(text, echoed)


def _in_words(text: str, echoed: Callable[[str], bool]) -> Iterator[Reference]:
    for one in _NOUN.finditer(text):
        numbers = listed(one["list"])
        said = one[0].strip()
        if one["note"]:
            spelt = not one["list"][0].isdigit()
            many = one["note"].lower().endswith("s") and len(numbers) == 1
            if spelt or many or one["more"] or max(numbers) > 999 or _OF_TIME.match(text, one.end()):
                continue
        if not echoed(said):
            yield _led(text, one.start(), one.end(), numbers, one["lead"])
    for one in _NTH.finditer(text):
        number = listed(one["nth"])[0]
        same = re.compile(rf"[ \t]*\[{number}\]").match(text, one.end())
        if not echoed(one[0].strip()):
            yield _led(text, one.start(), same.end() if same else one.end(), [number], one["lead"] + " ")
    for one in _CJK.finditer(text):
        if not echoed(one[0]):
            lead = one[0] if one["th"] else one[0][: one.start("after") - one.start()]
            number = int(one["after"] or one["th"])
            same = re.compile(rf"\[{number}\]").match(text, one.end())
            yield _led(text, one.start(), same.end() if same else one.end(), [number], lead)


def _led(text: str, start: int, end: int, numbers: Sequence[int], lead: str = "") -> Reference:
    """A reference with what leads to it: white space, "in the", and before a bracket the word for what is numbered.

    `lead` is what of it stays before its numbers besides.
    """
    at = max(0, start - _LEAD_LETTERS)
    leads = (_LEADING if lead else _LEADING_NOUN).search(text[at:start])
    first = at + leads.start() if leads else start
    while first and text[first - 1] in " \t":
        first -= 1
    return Reference(first, end, text[first:start] + lead, dict.fromkeys(numbers))


def _unpaired(text: str) -> Iterator["re.Match[str]"]:
    """Digits behind a bracket that nothing closes, and before one that nothing opened."""
    alone = set[int]()
    opened: list[int] = []
    for mark in _BRACKET.finditer(text):
        if mark[0] in OPEN:
            opened.append(mark.start())
        elif opened:
            opened.pop()
        else:
            alone.add(mark.start())
    alone.update(opened)
    if alone:
        yield from (left for left in _LEFT_OPEN.finditer(text) if left.start() in alone)
        yield from (left for left in _LEFT_SHUT.finditer(text) if left.end() - 1 in alone)


def _is_raised(text: str, raised: "re.Match[str]") -> bool:
    if raised[0][0] not in _HIGH:
        return True
    before = text[max(0, raised.start() - 3) : raised.start()]  # not the square of a metre, nor the two of water
    return (len(before) == 3 and before.isalpha()) or not before[-1:].isalnum()


def _raised(text: str) -> list[int]:
    if text[0] in _HIGH:
        return [int(normal_form("NFKC", text)[:6])]
    return [10 if c == "🔟" else int(unicodedata.numeric(c)) for c in text]


def _begins_item(text: str, at: int) -> bool:
    """Whether what stands there would number an item of a list, in lines or in one sentence."""
    return text[:at].rstrip(" \t*_")[-1:] in ("", "\n", ":", ";")


def _with_word_before(text: str, start: int, end: int) -> str:
    """What stands there with the word before it; without one it is nobody's words."""
    before = re.search(r"\w+[^\w\n]{0,2}\Z", text[max(0, start - 40) : start])
    return before[0] + text[start:end] if before else "\0"


def listed(text: str) -> list[int]:
    """The numbers of "1, 3", "1-3" or "nine"; a range is its ends and what lies between, if that is little."""
    spelt = re.sub(r"\W", "", text.lower())
    if spelt in _NUMBER_WORDS:
        return [_NUMBER_WORDS[spelt]]
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:\s*(?:to|[-–—])\s*(\d+))?", text):
        a, b = int(first[:6]), int((last or first)[:6])
        found += range(a, b + 1) if a <= b <= a + 20 else [a, b]
    return found
