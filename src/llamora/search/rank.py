"""Queries in, plain decisions out: parsing, fusion of scores, snippets. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from llamora.dates import DateRange, UnknownDay, parse_day, parse_phrase
from llamora.text import detect_language, normal_form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

Role = Literal["me", "reply"]

MAX_QUERY = 2000  # letters; a longer question is cut, with a hint
MAX_TERMS = 64  # words and phrases; every one costs a look into the index
MAX_TIMES = 16  # operators with a time, each read in several ways; and chips
LOOKUP_WORDS = 2  # so few words are a look-up rather than a question: the words themselves count more
LOOKUP_WEIGHT = 0.75
EXACT = 1.0  # what an entry gains that holds the words of a look-up as they are written: before all their kin
QUESTION_WORDS = 5  # with so many words beside it, a quotation is part of a question: it is wanted, not demanded
QUOTED = 0.2  # what an entry gains that holds such a quotation
WHOLE_PHRASE = 1.0  # what an entry gains that holds the whole question word for word: it comes first
IN_TIME = 0.2  # what an entry gains that stands on the days a question speaks of
OWN_WORDS = 0.05  # what the writer's own words gain over a reply: where both are as good, theirs come first
DENSE_FLOOR = 0.2  # cosine; what shares no word and is further off than this is no result

START, STOP, JOINT = "\x01", "\x02", "\x1f"  # marks of a match, and what parts letters of a script without spaces
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# English function words and question words, and what an apostrophe leaves behind: they say how a question is asked,
# not what it is about. A question of nothing else is searched as it stands.
STOP_WORDS = frozenset(
    "a about am an and any are as at be been being but by can could d did do does doing for from had has have having "
    "he her hers him his how i if in into is it its ll m me mine my of on or our ours re s shall she should so some t "
    "than that the their theirs them then there these they this those to us ve was we were what when where which who "
    "whom whose why will with would you your yours".split()
)

# Letters of scripts written without spaces, and Hangul, whose words take endings: each is a token of its own, and
# two in a row are what a word is found by (as in Lucene's CJKAnalyzer).
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

# Letters that have no mark to take off (`fts5`'s remove_diacritics knows those that have, in Latin only), what is typed
# without its points or accents, and other widths. Arabic as in Lucene's ArabicNormalizer.
_FOLDED: dict[int, str | int] = {
    **{
        code: unicodedata.normalize("NFD", chr(code))[0]
        for code in (*range(0x0386, 0x03CF), *range(0x1F00, 0x1FFF))
        if unicodedata.category(chr(code)).startswith("L")
    },
    **str.maketrans("øØłŁđĐðÐħĦıſ", "oOlLdDdDhHis"),
    **str.maketrans("\u03c2\u0451\u0401", "\u03c3\u0435\u0415"),  # the sigma at the end of a word, and Russian yo
    **str.maketrans("\u0623\u0625\u0622\u0649\u0629", "\u0627\u0627\u0627\u064a\u0647"),  # alef, ya, ta marbuta
    **str.maketrans({"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}),
    **str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys([*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, *range(0x064B, 0x0653), 0x0670, 0x0640], ""),
}

# Most texts hold none of them: to look is ten times as fast as to translate.
_FOLDS = re.compile("[" + "".join(re.escape(chr(code)) for code in _FOLDED) + "]+")

TYPED = re.compile(r"\w{3}$")  # fewer letters begin too many words
_TIMES = ("before", "after", "on", "in")
_TIME_WORDS = 4  # of a time that is not quoted, after the first: "on:the 3rd of May 2024"
_YEAR = re.compile(r"(?!0000)[0-9]{4}")
_YEARS = re.compile(r"((?!0000)[0-9]{4})(?:-|–|\.\.+)((?!0000)[0-9]{4})")
_OPERATORS = frozenset(f"{key}:" for key in (*_TIMES, "by", "tag"))
_OTHER: dict[str, Role] = {"me": "reply", "reply": "me"}
_PIECE = re.compile(r'(?P<minus>-)?(?:(?P<key>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))')


@dataclass(slots=True, frozen=True)
class Query:
    """What a search asks for. Words and phrases are normalised text without operators.

    `words` score; one that ends in `*` is a prefix. `phrases` must all be there, `excluded` none; `quoted` are phrases
    inside a longer question, whose words score. `tags` are names of traces, all of which an entry must bear. `after`
    and `before` are the first and last day wanted. `when` are days the question only speaks of. `meaning` is the text
    for the embedding model, "" when there is nothing to compare. `impossible`: what is asked for rules itself out.
    `hint` is a sentence, or "".
    """

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    role: Role | None = None
    after: date | None = None
    before: date | None = None
    when: DateRange | None = None
    meaning: str = ""
    whole: str = ""
    impossible: bool = False
    hint: str = ""

    @property
    def filtered(self) -> bool:
        """Whether some entries are ruled out, whatever their score."""
        return bool(self.phrases or self.excluded or self.narrowed)

    @property
    def narrowed(self) -> bool:
        """Whether some are ruled out by what is known of them, not by their words."""
        return bool(self.tags or self.role or self.after or self.before or self.impossible)

    @property
    def terms(self) -> tuple[str, ...]:
        """All that a matching entry may be marked with."""
        return self.words + self.phrases


_RESIZED = re.compile(
    f"[{''.join(chr(code) for code, new in _FOLDED.items() if isinstance(new, str) and len(new) != 1)}]"
)


def normalised(text: str) -> str:
    """Text as it is indexed and searched: NFC, without control characters or lone surrogates."""
    clean = text.encode("utf-8", "replace").decode()
    return normal_form("NFC", _CONTROL.sub(" ", clean))


def folded(text: str) -> str:
    """Text with letters that are written in more than one way in one of them, beyond what the tokenizer folds.

    `ß` and `ss`, `œ` and `oe`, `ł` and `l`, `ё` and `е`, Greek with and without accents, Hebrew and Arabic with and
    without points, full-width and ordinary Latin. Nobody types them all alike, so both ways find both.
    """
    return text if text.isascii() else _FOLDS.sub(_fold, text)


def _fold(letter: "re.Match[str]") -> str:
    return letter[0].translate(_FOLDED)


def unfolded(marked: str, text: str) -> str:
    """A snippet of `folded(text)`, with its marks, in the letters of `text`."""
    whole = folded(text)
    if whole == text:
        return marked
    inner = marked.replace(START, "").replace(STOP, "")
    places: list[int] = list(range(len(text)))  # in `text`, of each letter of the folded one
    if _RESIZED.search(text):
        places = [place for place, letter in enumerate(text) for _ in folded(letter)]
    lead, tail = inner.startswith("…"), inner.endswith("…")
    for head, end in ((0, 0), (lead, 0), (0, tail), (lead, tail)):  # what the snippet was cut off with, or not
        start = whole.find(inner[head : len(inner) - end])
        if start >= 0:
            break
    else:
        return marked
    places.append(len(text))
    found, at = ["…" * head], start
    for piece in re.split(f"([{START}{STOP}])", marked[head : len(marked) - end]):
        if piece in (START, STOP):
            found.append(piece)
        else:
            found.append(text[places[at] : places[at + len(piece)]])
            at += len(piece)
    return "".join(found) + "…" * end


def spaced(text: str) -> str:
    """Part the letters of scripts without spaces by JOINT, which the tokenizer takes for a space."""
    return _UNSPACED_LETTER.sub(lambda letter: f"{JOINT}{letter[0]}{JOINT}", text)


def tokens(text: str) -> list[str]:
    """The words of a text as the index would cut them, case kept."""
    kept = "".join(letter if _is_letter(letter) else " " for letter in text)
    return kept.split()


def _is_letter(letter: str) -> bool:
    # The categories of the tokenizer in index.py: letters, numbers, private use, and marks that belong to a letter.
    return letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc", "Nl", "No", "Co")


def match_terms(word: str) -> list[str]:
    """The FTS5 string literals that find `word`: itself, or each pair of letters of a script without spaces."""
    prefix = word.endswith("*")
    found: list[str] = []
    for part in tokens(folded(word)):
        runs = _UNSPACED_RUN.findall(part)
        rest = _UNSPACED_RUN.sub(" ", part).split()
        for run in runs:
            letters = tokens(spaced(run))
            pairs = [" ".join(pair) for pair in pairwise(letters)]
            found += [f'"{pair}"' for pair in pairs or letters]
        found += [f'"{piece}"' for piece in rest]
    if prefix and found and not _UNSPACED_LETTER.search(word):
        found[-1] += "*"
    return found


def match_phrase(phrase: str) -> str:
    """The FTS5 string literal that finds `phrase` word by word, or ""."""
    return '"' + " ".join(tokens(spaced(folded(phrase)))) + '"' if tokens(phrase) else ""


def parse_query(text: str, today: date, typing: bool = False, language: str = "en") -> Query:
    """Read a query; what is not understood is searched as words, with a hint. Never raises.

    Bare words, `"exact phrase"`, `-word` and `-"phrase"`, `prefix*`, `tag:x`, `by:me` and `by:reply`, `before:`,
    `after:`, `on:` and `in:` with a day or a time in words (`in:2024`, `on:3 May`, `in:"last March"`), and times in
    plain words. `before:` and `after:` leave out the time they name. What contradicts itself finds nothing, and the
    hint says so. `typing`: the last word is not finished. `language` is that of the times in words, besides English.
    """
    hints: list[str] = []
    clean = _clean(text)
    if len(clean) > MAX_QUERY:
        clean = clean[:MAX_QUERY]
        hints.append(f"Only the first {MAX_QUERY} letters were searched.")
    if clean.count('"') % 2:
        clean = _paired(clean)
        if not typing:
            hints.append("A quotation mark has no partner, so it was left out.")

    read = _Read()
    for part in _parts(clean, today, language):
        if not (typing and part.open and part.stop == len(clean)):  # what is still to come may make sense of it
            read.take(part, hints)
    if typing and read.bare and clean.endswith(read.bare[-1]) and TYPED.search(read.bare[-1]):
        read.bare[-1] += "*"
    return _assembled(read, hints, today, language)


def chips(text: str, today: date, language: str = "en") -> tuple[tuple[str, str], ...]:
    """The parts of a query that rule entries out, as they were written, each once and with the query without it."""
    clean = _paired(_clean(text)[:MAX_QUERY])
    wanted = parse_query(clean, today, language=language).phrases
    # A date in plain words is no operator: on its own it rules entries out, in a question it does not.
    parts = [part for part in _parts(clean, today, language) if part.rules]
    ruling = [part for part in parts if part.key or part.minus or part.value in wanted]
    found: dict[str, tuple[str, str]] = {}
    for part in ruling[:MAX_TIMES]:
        rest, at = "", 0
        for same in (other for other in ruling if other.text.lower() == part.text.lower()):
            rest, at = rest + clean[at : same.start] + " ", same.stop
        found.setdefault(part.text.lower(), (part.text, " ".join((rest + clean[at:]).split())))
    return tuple(found.values())


def _clean(text: str) -> str:
    return re.sub("[“”„«»]", '"', normalised(text)).strip()


def _paired(clean: str) -> str:
    """A query without the quotation mark that has no partner."""
    if clean.count('"') % 2 == 0:
        return clean
    place = clean.rindex('"')
    return clean[:place] + " " + clean[place + 1 :]


@dataclass(slots=True, frozen=True)
class _Part:
    """A piece of a query: `text` from `start` to `stop`; `key` is its operator, "" for plain words and phrases.

    `span` are the days that a time after an operator names.
    """

    text: str
    start: int
    stop: int
    minus: bool
    key: str
    value: str
    quoted: bool
    span: tuple[date, date] | None = None

    @property
    def understood(self) -> bool:
        """Whether it is an operator with a value that it can use."""
        if self.key == "by":
            return self.value.lower() in _OTHER
        if self.key == "tag":
            return bool(self.value.strip()) and not self.minus
        return self.span is not None and not self.minus

    @property
    def open(self) -> bool:
        """Whether it is an operator that lacks a value it can use."""
        return not self.understood if self.key else self.value.lower() in _OPERATORS

    @property
    def rules(self) -> bool:
        """Whether it rules entries out."""
        return self.understood or (not self.key and (self.minus or self.quoted) and bool(tokens(self.value)))


def _parts(clean: str, today: date, language: str) -> list[_Part]:
    """The pieces of a query in order. A time that is not quoted may go on over the next words: `on:3 May 2024`."""
    pieces = list(_PIECE.finditer(clean))
    found: list[_Part] = []
    at = times = 0
    while at < len(pieces):
        piece = pieces[at]
        key, quoted = (piece["key"] or "").lower(), piece["quoted"] is not None
        value = piece["quoted"] if quoted else piece["bare"]
        stop, span = piece.end(), None
        if key in _TIMES:
            times += 1
            for last in range(at if quoted else _plain_until(pieces, at), at - 1, -1):
                wording = value + clean[stop : pieces[last].end()]
                if times <= MAX_TIMES and (span := _span(key, wording, today, language)) is not None:
                    at, stop, value = last, pieces[last].end(), wording
                    break
        elif key and key not in ("by", "tag"):  # not ours: "diary:today"
            key, value, quoted = "", f"{piece['key']}:{value}", False
        place = (clean[piece.start() : stop], piece.start(), stop)
        found.append(_Part(*place, bool(piece["minus"]), key, value, quoted, span))
        at += 1
    return found


def _plain_until(pieces: Sequence["re.Match[str]"], at: int) -> int:
    """The last of at most _TIME_WORDS plain words in a row after a piece."""
    last = at
    for piece in pieces[at + 1 : at + 1 + _TIME_WORDS]:
        if piece["minus"] or piece["key"] or piece["bare"] is None:
            break
        last += 1
    return last


@dataclass(slots=True)
class _Read:
    """What the parts of a query came to."""

    bare: list[str] = field(default_factory=list[str])
    unread: list[str] = field(default_factory=list[str])  # what stood behind operators that were not understood
    phrases: list[str] = field(default_factory=list[str])
    excluded: list[str] = field(default_factory=list[str])
    tags: list[str] = field(default_factory=list[str])
    roles: set[Role] = field(default_factory=set[Role])
    after: date | None = None
    before: date | None = None
    times: list[str] = field(default_factory=list[str])  # as they were written

    def take(self, part: _Part, hints: list[str]) -> None:
        """Add a part."""
        if part.understood and part.key == "by":
            role = _OTHER[part.value.lower()] if part.minus else part.value.lower()
            self.roles.add("me" if role == "me" else "reply")
        elif part.understood and part.key == "tag":
            self.tags.append(part.value.strip())
        elif part.understood and part.span is not None:
            self.within(part.text, *_edges(part.key, *part.span))
        elif not tokens(part.value):
            pass
        elif part.key:
            hints.append(_not_understood(part))
            (self.excluded if part.minus else self.unread).append(part.value)
        elif part.minus:
            self.excluded.append(part.value)
        elif part.quoted:
            self.phrases.append(part.value)
        else:
            if part.open:
                hints.append(f"Nothing stands right after “{part.value}”, so it was searched as a word.")
            self.bare.append(part.value)

    def within(self, said: str, first: date | None, last: date | None) -> None:
        """Let only these days through, of those that were so far."""
        self.after = max(filter(None, (self.after, first)), default=None)
        self.before = min(filter(None, (self.before, last)), default=None)
        self.times.append(said)

    def contradiction(self) -> str:
        """Why nothing can match, or ""."""
        if self.after and self.before and self.after > self.before:
            times = ", ".join(f"“{said}”" for said in dict.fromkeys(self.times))
            return f"No day is in all of {times}."
        if len(self.roles) > 1:
            return "Nothing is by you and a reply at once."
        held = [[word.lower() for word in tokens(phrase)] for phrase in self.phrases]
        for unwanted in self.excluded:
            gone = [word.lower() for word in tokens(unwanted)]
            if any(gone == words[at : at + len(gone)] for words in held for at in range(len(words))):
                return f"“{unwanted}” is asked for and left out at once."
        return ""


def _not_understood(part: _Part) -> str:
    if part.minus:
        return f"A minus leaves out words and phrases; “{part.key}:” after it was not understood."
    if part.key == "by":
        return "“by:” knows “me” and “reply”; what stood after it was searched as words."
    return f"“{part.text}” names no day, month or year, so it was searched as words."


def _assembled(read: _Read, hints: list[str], today: date, language: str) -> Query:
    bare, phrases = read.bare, list(dict.fromkeys(read.phrases))
    question = " ".join(word.rstrip("*") for word in bare)
    when = parse_phrase(question, today, language)
    if when is not None and not phrases and not read.unread:
        rest = re.sub(re.escape(when.matched), " ", question, flags=re.IGNORECASE)
        if not _content(tokens(rest)):
            # Nothing but a time was asked for: then it is the time that is wanted.
            read.within(when.matched, when.start, when.end)
            when, question, bare = None, "", []
    question = " ".join(filter(None, [question, *read.unread]))
    words = list(dict.fromkeys(_words([*bare, *read.unread])))
    words = _content(words) or words
    excluded = list(dict.fromkeys(read.excluded))
    quoted: list[str] = []
    if phrases and len(_content(words)) >= QUESTION_WORDS:
        quoted, phrases, read.phrases = phrases, [], []
        words = list(dict.fromkeys([*words, *_content(_words(quoted))]))
    contradiction = read.contradiction()
    if len(words) + len(phrases) + len(excluded) > MAX_TERMS:
        hints.append(f"Only the first {MAX_TERMS} words were searched.")
    return Query(
        words=tuple(words[:MAX_TERMS]),
        phrases=tuple(phrases[:MAX_TERMS]),
        excluded=tuple(excluded[:MAX_TERMS]),
        quoted=tuple(quoted[:MAX_TERMS]),
        tags=tuple(dict.fromkeys(read.tags)),
        role=next(iter(read.roles)) if len(read.roles) == 1 else None,
        after=read.after,
        before=read.before,
        when=when,
        meaning=" ".join([question, *phrases, *quoted]).strip(),
        whole=question if not phrases and not quoted and len(_content(tokens(question))) > 1 else "",
        impossible=bool(contradiction),
        hint=" ".join(dict.fromkeys([*hints, contradiction])).strip(),
    )


def plain_query(text: str, today: date) -> Query:
    """The query that asks for the words of a text, whatever signs are in it."""
    words = tokens(normalised(text)[:MAX_QUERY])
    question = " ".join(words)
    asked = list(dict.fromkeys(word.lower() for word in words))
    asked = _content(asked) or asked
    return Query(
        words=tuple(asked[:MAX_TERMS]), when=parse_phrase(question, today, detect_language(question)), meaning=question
    )


def relaxed(query: Query) -> Query:
    """The same query with its phrases as words: for when no entry holds them word for word."""
    words = dict.fromkeys([*query.words, *_content(_words(query.phrases))])
    hint = "No entry holds the quoted words in that order, so they were searched one by one."
    if query.narrowed or query.excluded:
        hint = "No entry that fits the rest holds the quoted words in that order, so they were searched one by one."
    return replace(
        query,
        words=tuple(words)[:MAX_TERMS] or tuple(_words(query.phrases)),
        phrases=(),
        hint=f"{query.hint} {hint}".strip(),
    )


def _words(pieces: Iterable[str]) -> Iterable[str]:
    for piece in pieces:
        found = [word.lower() for word in tokens(piece)]
        if piece.endswith("*") and found and len(found[-1]) > 1:
            found[-1] += "*"
        yield from found


def _content(words: Iterable[str]) -> list[str]:
    return [word for word in words if word.lower() not in STOP_WORDS]


def _span(key: str, text: str, today: date, language: str) -> tuple[date, date] | None:
    """The days that the value of an operator names, when it names days and nothing but them."""
    with suppress(UnknownDay):
        day = parse_day(text)
        return day, day
    if _YEAR.fullmatch(text):
        return date(int(text), 1, 1), date(int(text), 12, 31)
    spoken = " ".join(re.sub(r"[-_./]+", " ", text).split())
    ways = (text, spoken) if text[:1].isdigit() else (spoken, text)
    wordings = [f"{lead}{way}" for way in ways for lead in ("", "in ", "on ", "the ")]
    years = _YEARS.fullmatch(text)
    for wording in [*wordings, f"from {years[1]} to {years[2]}" if years else f"from {text}"]:
        found = parse_phrase(wording, today, language)
        # The phrase must be all there is: "in:garden 2024" names no time, nor does "in:2024-13".
        if found is not None and tokens(found.matched) == tokens(wording):
            endless = found.start == date.min if key == "before" else key == "after" and found.end == date.max
            return None if endless else (found.start, found.end)  # nothing is before "before 2020"
    return None


def _edges(key: str, start: date, end: date) -> tuple[date | None, date | None]:
    """The first and last day that `key:` with these days lets through."""
    if key == "before":
        return None, start - timedelta(days=1) if start > date.min else start
    if key == "after":
        return end + timedelta(days=1) if end < date.max else end, None
    return start, end


# --- Scores -------------------------------------------------------------------------------------


def lexical_weight(query: Query, usual: float) -> float:
    """How much words count against meaning: more where a word or two are looked up."""
    return max(usual, LOOKUP_WEIGHT) if len(query.words) <= LOOKUP_WORDS else usual


def fused(lexical: "Scores", dense: "Scores | None", weight: float) -> "Scores":
    """One score of two, 0..1: a sum of the two normalised scores, weighted.

    `lexical` holds BM25 (larger is better, 0 for no match), `dense` cosines, of the same entries. Each is divided by
    the best of its kind; a negative cosine counts as none. Measured against spreading the cosines between the least
    and the best, this is as good on small journals, better on large ones, and the same whether all cosines are known
    or the nearest only.
    """
    import numpy as np

    top = float(lexical.max(initial=0.0))
    words = lexical / top if top > 0 else lexical
    if dense is None:
        return words
    best = float(dense.max(initial=0.0))
    near = np.clip(dense, 0.0, None) / best if best > 0 else np.zeros_like(dense)
    return weight * words + (1.0 - weight) * near


# --- Snippets -----------------------------------------------------------------------------------

_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_LINE_START = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+(?:\[[ xX]\][ \t]+)?|\d{1,9}[.)][ \t]+)", re.MULTILINE
)
_RULE = re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:[ \t]+\"[^\"\n]*\")?\)")
_STRONG = re.compile(r"(\*{1,3}|~~)(?=\S)([^*~\n]+?)(?<=\S)\1")
_UNDERLINED = re.compile(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_CODE = re.compile(r"`+([^`\n]+)`+")
# In this order, each with the signs without which it is not there: to look for them is much the faster.
_MARKS = (("[", _LINK, r"\1"), ("`", _CODE, r"\1"), ("*~", _STRONG, r"\2"), ("_", _UNDERLINED, r"\2"))

SNIPPET_LETTERS = 240


def plain(text: str) -> str:
    """The text of simple Markdown without its marks. What is not clearly a mark stays."""
    bare = _RULE.sub("", _FENCE.sub("", normalised(text)))
    bare = _LINE_START.sub("", _LINE_START.sub("", bare))
    for signs, mark, kept in _MARKS:
        if any(sign in bare for sign in signs):
            bare = mark.sub(kept, bare)
    return bare


def pieces(marked: str) -> tuple[tuple[str, bool], ...]:
    """Cut text with START and STOP around matches into (text, marked), white space squeezed."""
    squeezed = re.sub(r"\s+", " ", marked.replace(JOINT, "")).strip()
    found: list[tuple[str, bool]] = []
    for number, part in enumerate(squeezed.split(START)):
        inside, stop, outside = part.partition(STOP) if number else ("", "", part)
        if stop and found and found[-1][1] and inside:
            found[-1] = (found[-1][0] + inside, True)  # two marked letters in a row are one mark
        elif inside:
            found.append((inside, True))
        if outside:
            found.append((outside, False))
    return tuple(found)


def opening(text: str) -> str:
    """The first SNIPPET_LETTERS of a passage, cut between words."""
    squeezed = re.sub(r"\s+", " ", text).strip()
    if len(squeezed) <= SNIPPET_LETTERS:
        return squeezed
    cut = squeezed[: SNIPPET_LETTERS + 1].rpartition(" ")[0]
    return (cut if len(cut) > SNIPPET_LETTERS // 2 else squeezed[:SNIPPET_LETTERS]) + "…"
