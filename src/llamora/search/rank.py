"""Queries in, plain decisions out: parsing, fusion of scores, snippets. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from llamora.dates import DateRange, UnknownDay, parse_day, parse_phrase
from llamora.text import STOP_WORDS, Role, detect_language, normalize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

MAX_QUERY = 2000  # letters; a longer question is cut, with a hint
MAX_TERMS = 64  # words and phrases; every one costs a look into the index
MAX_TIME_FILTERS = 16  # operators with a time, each read in several ways; and chips
LOOKUP_MAX_WORDS = (
    2  # so few words are a look-up rather than a question: the words themselves count more
)
LOOKUP_WEIGHT = 0.75
EXACT_FORM_BOOST = 1.0  # what an entry gains that holds the words of a look-up as they are written: before all their kin
QUESTION_MIN_WORDS = (
    5  # with so many words beside it, a quotation is part of a question: it is wanted, not demanded
)
QUOTED_BOOST = 0.2  # what an entry gains that holds such a quotation
WHOLE_QUERY_BOOST = (
    1.0  # what an entry gains that holds the whole question word for word: it comes first
)
DATE_BOOST = 0.2  # what an entry gains that stands on the days a question speaks of
OWN_ENTRY_BOOST = (
    0.05  # what the writer's own words gain over a reply: where both are as good, theirs come first
)
MIN_COSINE = 0.2  # cosine; what shares no word and is further off than this is no result

MATCH_START, MATCH_STOP, TOKEN_SEPARATOR = (
    "\x01",
    "\x02",
    "\x1f",
)  # marks of a match, and what parts letters of a script without spaces

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
_FOLD_TABLE: dict[int, str | int] = {
    **{
        code: unicodedata.normalize("NFD", chr(code))[0]
        for code in (*range(0x0386, 0x03CF), *range(0x1F00, 0x1FFF))
        if unicodedata.category(chr(code)).startswith("L")
    },
    **str.maketrans("øØłŁđĐðÐħĦıſ", "oOlLdDdDhHis"),
    **str.maketrans(
        "\u03c2\u0451\u0401", "\u03c3\u0435\u0415"
    ),  # the sigma at the end of a word, and Russian yo
    **str.maketrans(
        "\u0623\u0625\u0622\u0649\u0629", "\u0627\u0627\u0627\u064a\u0647"
    ),  # alef, ya, ta marbuta
    **str.maketrans(
        {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}
    ),
    **str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(
        [*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, *range(0x064B, 0x0653), 0x0670, 0x0640], ""
    ),
}

# Most texts hold none of them: to look is ten times as fast as to translate.
_FOLDABLE = re.compile("[" + "".join(re.escape(chr(code)) for code in _FOLD_TABLE) + "]+")

PREFIX_READY = re.compile(r"\w{3}$")  # fewer letters begin too many words
_TIME_OPERATORS = ("before", "after", "on", "in")
_MAX_TIME_WORDS = 4  # of a time that is not quoted, after the first: "on:the 3rd of May 2024"
_YEAR = re.compile(r"(?!0000)[0-9]{4}")
_YEARS = re.compile(r"((?!0000)[0-9]{4})(?:-|–|\.\.+)((?!0000)[0-9]{4})")
_OPERATORS = frozenset(f"{key}:" for key in (*_TIME_OPERATORS, "by", "tag"))
_OPPOSITE_ROLE: dict[str, Role] = {"me": "reply", "reply": "me"}
_PART_PATTERN = re.compile(
    r'(?P<minus>-)?(?:(?P<key>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))'
)


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
    mentioned_dates: DateRange | None = None
    semantic_text: str = ""
    whole_phrase: str = ""
    is_impossible: bool = False
    hint: str = ""

    @property
    def is_filtered(self) -> bool:
        """Whether some entries are ruled out, whatever their score."""
        return bool(self.phrases or self.excluded or self.has_metadata_filter)

    @property
    def has_metadata_filter(self) -> bool:
        """Whether some are ruled out by what is known of them, not by their words."""
        return bool(self.tags or self.role or self.after or self.before or self.is_impossible)

    @property
    def terms(self) -> tuple[str, ...]:
        """All that a matching entry may be marked with."""
        return self.words + self.phrases


_LENGTH_CHANGING = re.compile(
    f"[{''.join(chr(code) for code, new in _FOLD_TABLE.items() if isinstance(new, str) and len(new) != 1)}]"
)


def fold(text: str) -> str:
    """Text with letters that are written in more than one way in one of them, beyond what the tokenizer folds.

    `ß` and `ss`, `œ` and `oe`, `ł` and `l`, `ё` and `е`, Greek with and without accents, Hebrew and Arabic with and
    without points, full-width and ordinary Latin. Nobody types them all alike, so both ways find both.
    """
    return text if text.isascii() else _FOLDABLE.sub(_fold_letter, text)


def _fold_letter(letter: "re.Match[str]") -> str:
    return letter[0].translate(_FOLD_TABLE)


def unfold_snippet(snippet: str, text: str) -> str:
    """A snippet of `folded(text)`, with its marks, in the letters of `text`."""
    folded_text = fold(text)
    if folded_text == text:
        return snippet
    unmarked = snippet.replace(MATCH_START, "").replace(MATCH_STOP, "")
    offsets: list[int] = list(range(len(text)))  # in `text`, of each letter of the folded one
    if _LENGTH_CHANGING.search(text):
        offsets = [place for place, letter in enumerate(text) for _ in fold(letter)]
    has_lead, has_tail = unmarked.startswith("…"), unmarked.endswith("…")
    for head, end in (
        (0, 0),
        (has_lead, 0),
        (0, has_tail),
        (has_lead, has_tail),
    ):  # what the snippet was cut off with, or not
        start = folded_text.find(unmarked[head : len(unmarked) - end])
        if start >= 0:
            break
    else:
        return snippet
    offsets.append(len(text))
    parts, position = ["…" * head], start
    for piece in re.split(f"([{MATCH_START}{MATCH_STOP}])", snippet[head : len(snippet) - end]):
        if piece in (MATCH_START, MATCH_STOP):
            parts.append(piece)
        else:
            parts.append(text[offsets[position] : offsets[position + len(piece)]])
            position += len(piece)
    return "".join(parts) + "…" * end


def separate_letters(text: str) -> str:
    """Part the letters of scripts without spaces by JOINT, which the tokenizer takes for a space."""
    return _UNSPACED_LETTER.sub(
        lambda letter: f"{TOKEN_SEPARATOR}{letter[0]}{TOKEN_SEPARATOR}", text
    )


def tokenize(text: str) -> list[str]:
    """The words of a text as the index would cut them, case kept."""
    cleaned = "".join(letter if _is_letter(letter) else " " for letter in text)
    return cleaned.split()


def _is_letter(letter: str) -> bool:
    # The categories of the tokenizer in index.py: letters, numbers, private use, and marks that belong to a letter.
    return letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc", "Nl", "No", "Co")


def term_literals(word: str) -> list[str]:
    """The FTS5 string literals that find `word`: itself, or each pair of letters of a script without spaces."""
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
    """The FTS5 string literal that finds `phrase` word by word, or ""."""
    return (
        '"' + " ".join(tokenize(separate_letters(fold(phrase)))) + '"' if tokenize(phrase) else ""
    )


def parse_query(text: str, today: date, is_typing: bool = False, language: str = "en") -> Query:
    """Read a query; what is not understood is searched as words, with a hint. Never raises.

    Bare words, `"exact phrase"`, `-word` and `-"phrase"`, `prefix*`, `tag:x`, `by:me` and `by:reply`, `before:`,
    `after:`, `on:` and `in:` with a day or a time in words (`in:2024`, `on:3 May`, `in:"last March"`), and times in
    plain words. `before:` and `after:` leave out the time they name. What contradicts itself finds nothing, and the
    hint says so. `typing`: the last word is not finished. `language` is that of the times in words, besides English.
    """
    hints: list[str] = []
    cleaned = _clean_query(text)
    if len(cleaned) > MAX_QUERY:
        cleaned = cleaned[:MAX_QUERY]
        hints.append(f"Only the first {MAX_QUERY} letters were searched.")
    if cleaned.count('"') % 2:
        cleaned = _drop_unpaired_quote(cleaned)
        if not is_typing:
            hints.append("A quotation mark has no partner, so it was left out.")

    parsed = _ParsedParts()
    for part in _split_parts(cleaned, today, language):
        if not (
            is_typing and part.is_incomplete and part.stop == len(cleaned)
        ):  # what is still to come may make sense of it
            parsed.add(part, hints)
    if (
        is_typing
        and parsed.bare_words
        and cleaned.endswith(parsed.bare_words[-1])
        and PREFIX_READY.search(parsed.bare_words[-1])
    ):
        parsed.bare_words[-1] += "*"
    return _build_query(parsed, hints, today, language)


def filter_chips(text: str, today: date, language: str = "en") -> tuple[tuple[str, str], ...]:
    """The parts of a query that rule entries out, as they were written, each once and with the query without it."""
    cleaned = _drop_unpaired_quote(_clean_query(text)[:MAX_QUERY])
    phrases = parse_query(cleaned, today, language=language).phrases
    # A date in plain words is no operator: on its own it rules entries out, in a question it does not.
    parts = [part for part in _split_parts(cleaned, today, language) if part.is_filter]
    filters = [part for part in parts if part.key or part.is_negated or part.value in phrases]
    filter_texts: dict[str, tuple[str, str]] = {}
    for part in filters[:MAX_TIME_FILTERS]:
        remainder, position = "", 0
        for duplicate in (other for other in filters if other.text.lower() == part.text.lower()):
            remainder, position = (
                remainder + cleaned[position : duplicate.start] + " ",
                duplicate.stop,
            )
        filter_texts.setdefault(
            part.text.lower(), (part.text, " ".join((remainder + cleaned[position:]).split()))
        )
    return tuple(filter_texts.values())


def _clean_query(text: str) -> str:
    return re.sub("[“”„«»]", '"', normalize(text)).strip()


def _drop_unpaired_quote(query: str) -> str:
    """A query without the quotation mark that has no partner."""
    if query.count('"') % 2 == 0:
        return query
    position = query.rindex('"')
    return query[:position] + " " + query[position + 1 :]


@dataclass(slots=True, frozen=True)
class _Part:
    """A piece of a query: `text` from `start` to `stop`; `key` is its operator, "" for plain words and phrases.

    `span` are the days that a time after an operator names.
    """

    text: str
    start: int
    stop: int
    is_negated: bool
    key: str
    value: str
    is_quoted: bool
    dates: tuple[date, date] | None = None

    @property
    def is_understood(self) -> bool:
        """Whether it is an operator with a value that it can use."""
        if self.key == "by":
            return self.value.lower() in _OPPOSITE_ROLE
        if self.key == "tag":
            return bool(self.value.strip()) and not self.is_negated
        return self.dates is not None and not self.is_negated

    @property
    def is_incomplete(self) -> bool:
        """Whether it is an operator that lacks a value it can use."""
        return not self.is_understood if self.key else self.value.lower() in _OPERATORS

    @property
    def is_filter(self) -> bool:
        """Whether it rules entries out."""
        return self.is_understood or (
            not self.key and (self.is_negated or self.is_quoted) and bool(tokenize(self.value))
        )


def _split_parts(query: str, today: date, language: str) -> list[_Part]:
    """The pieces of a query in order. A time that is not quoted may go on over the next words: `on:3 May 2024`."""
    pieces = list(_PART_PATTERN.finditer(query))
    parts: list[_Part] = []
    index = time_count = 0
    while index < len(pieces):
        piece = pieces[index]
        key, is_quoted = (piece["key"] or "").lower(), piece["quoted"] is not None
        value = piece["quoted"] if is_quoted else piece["bare"]
        stop, dates = piece.end(), None
        if key in _TIME_OPERATORS:
            time_count += 1
            for last in range(
                index if is_quoted else _last_plain_word(pieces, index), index - 1, -1
            ):
                wording = value + query[stop : pieces[last].end()]
                if (
                    time_count <= MAX_TIME_FILTERS
                    and (dates := _parse_dates(key, wording, today, language)) is not None
                ):
                    index, stop, value = last, pieces[last].end(), wording
                    break
        elif key and key not in ("by", "tag"):  # not ours: "diary:today"
            key, value, is_quoted = "", f"{piece['key']}:{value}", False
        location = (query[piece.start() : stop], piece.start(), stop)
        parts.append(_Part(*location, bool(piece["minus"]), key, value, is_quoted, dates))
        index += 1
    return parts


def _last_plain_word(pieces: Sequence["re.Match[str]"], index: int) -> int:
    """The last of at most _TIME_WORDS plain words in a row after a piece."""
    last = index
    for piece in pieces[index + 1 : index + 1 + _MAX_TIME_WORDS]:
        if piece["minus"] or piece["key"] or piece["bare"] is None:
            break
        last += 1
    return last


@dataclass(slots=True)
class _ParsedParts:
    """What the parts of a query came to."""

    bare_words: list[str] = field(default_factory=list[str])
    not_understood: list[str] = field(
        default_factory=list[str]
    )  # what stood behind operators that were not understood
    phrases: list[str] = field(default_factory=list[str])
    excluded: list[str] = field(default_factory=list[str])
    tags: list[str] = field(default_factory=list[str])
    roles: set[Role] = field(default_factory=set[Role])
    after: date | None = None
    before: date | None = None
    time_texts: list[str] = field(default_factory=list[str])  # as they were written

    def add(self, part: _Part, hints: list[str]) -> None:
        """Add a part."""
        if part.is_understood and part.key == "by":
            role = _OPPOSITE_ROLE[part.value.lower()] if part.is_negated else part.value.lower()
            self.roles.add("me" if role == "me" else "reply")
        elif part.is_understood and part.key == "tag":
            self.tags.append(part.value.strip())
        elif part.is_understood and part.dates is not None:
            self.restrict_dates(part.text, *_date_bounds(part.key, *part.dates))
        elif not tokenize(part.value):
            pass
        elif part.key:
            hints.append(_hint_for(part))
            (self.excluded if part.is_negated else self.not_understood).append(part.value)
        elif part.is_negated:
            self.excluded.append(part.value)
        elif part.is_quoted:
            self.phrases.append(part.value)
        else:
            if part.is_incomplete:
                hints.append(
                    f"Nothing stands right after “{part.value}”, so it was searched as a word."
                )
            self.bare_words.append(part.value)

    def restrict_dates(self, text: str, first: date | None, last: date | None) -> None:
        """Let only these days through, of those that were so far."""
        self.after = max(filter(None, (self.after, first)), default=None)
        self.before = min(filter(None, (self.before, last)), default=None)
        self.time_texts.append(text)

    def find_contradiction(self) -> str:
        """Why nothing can match, or ""."""
        if self.after and self.before and self.after > self.before:
            times = ", ".join(f"“{said}”" for said in dict.fromkeys(self.time_texts))
            return f"No day is in all of {times}."
        if len(self.roles) > 1:
            return "Nothing is by you and a reply at once."
        phrase_words = [[word.lower() for word in tokenize(phrase)] for phrase in self.phrases]
        for unwanted in self.excluded:
            excluded_words = [word.lower() for word in tokenize(unwanted)]
            if any(
                excluded_words == words[at : at + len(excluded_words)]
                for words in phrase_words
                for at in range(len(words))
            ):
                return f"“{unwanted}” is asked for and left out at once."
        return ""


def _hint_for(part: _Part) -> str:
    if part.is_negated:
        return f"A minus leaves out words and phrases; “{part.key}:” after it was not understood."
    if part.key == "by":
        return "“by:” knows “me” and “reply”; what stood after it was searched as words."
    return f"“{part.text}” names no day, month or year, so it was searched as words."


def _build_query(parsed: _ParsedParts, hints: list[str], today: date, language: str) -> Query:
    bare_words, phrases = parsed.bare_words, list(dict.fromkeys(parsed.phrases))
    question = " ".join(word.rstrip("*") for word in bare_words)
    mentioned_dates = parse_phrase(question, today, language)
    if mentioned_dates is not None and not phrases and not parsed.not_understood:
        remainder = re.sub(re.escape(mentioned_dates.matched), " ", question, flags=re.IGNORECASE)
        if not _without_stop_words(tokenize(remainder)):
            # Nothing but a time was asked for: then it is the time that is wanted.
            parsed.restrict_dates(
                mentioned_dates.matched, mentioned_dates.start, mentioned_dates.end
            )
            mentioned_dates, question, bare_words = None, "", []
    question = " ".join(filter(None, [question, *parsed.not_understood]))
    words = list(dict.fromkeys(_lower_words([*bare_words, *parsed.not_understood])))
    words = _without_stop_words(words) or words
    excluded = list(dict.fromkeys(parsed.excluded))
    quoted: list[str] = []
    if phrases and len(_without_stop_words(words)) >= QUESTION_MIN_WORDS:
        quoted, phrases, parsed.phrases = phrases, [], []
        words = list(dict.fromkeys([*words, *_without_stop_words(_lower_words(quoted))]))
    contradiction = parsed.find_contradiction()
    if len(words) + len(phrases) + len(excluded) > MAX_TERMS:
        hints.append(f"Only the first {MAX_TERMS} words were searched.")
    return Query(
        words=tuple(words[:MAX_TERMS]),
        phrases=tuple(phrases[:MAX_TERMS]),
        excluded=tuple(excluded[:MAX_TERMS]),
        quoted=tuple(quoted[:MAX_TERMS]),
        tags=tuple(dict.fromkeys(parsed.tags)),
        role=next(iter(parsed.roles)) if len(parsed.roles) == 1 else None,
        after=parsed.after,
        before=parsed.before,
        mentioned_dates=mentioned_dates,
        semantic_text=" ".join([question, *phrases, *quoted]).strip(),
        whole_phrase=question
        if not phrases and not quoted and len(_without_stop_words(tokenize(question))) > 1
        else "",
        is_impossible=bool(contradiction),
        hint=" ".join(dict.fromkeys([*hints, contradiction])).strip(),
    )


def query_from_text(text: str, today: date) -> Query:
    """The query that asks for the words of a text, whatever signs are in it."""
    words = tokenize(normalize(text)[:MAX_QUERY])
    question = " ".join(words)
    query_words = list(dict.fromkeys(word.lower() for word in words))
    query_words = _without_stop_words(query_words) or query_words
    return Query(
        words=tuple(query_words[:MAX_TERMS]),
        mentioned_dates=parse_phrase(question, today, detect_language(question)),
        semantic_text=question,
    )


def relax_query(query: Query) -> Query:
    """The same query with its phrases as words: for when no entry holds them word for word."""
    words = dict.fromkeys([*query.words, *_without_stop_words(_lower_words(query.phrases))])
    hint = "No entry holds the quoted words in that order, so they were searched one by one."
    if query.has_metadata_filter or query.excluded:
        hint = "No entry that fits the rest holds the quoted words in that order, so they were searched one by one."
    return replace(
        query,
        words=tuple(words)[:MAX_TERMS] or tuple(_lower_words(query.phrases)),
        phrases=(),
        hint=f"{query.hint} {hint}".strip(),
    )


def _lower_words(pieces: Iterable[str]) -> Iterable[str]:
    for piece in pieces:
        words = [word.lower() for word in tokenize(piece)]
        if piece.endswith("*") and words and len(words[-1]) > 1:
            words[-1] += "*"
        yield from words


def _without_stop_words(words: Iterable[str]) -> list[str]:
    return [word for word in words if word.lower() not in STOP_WORDS]


def _parse_dates(key: str, text: str, today: date, language: str) -> tuple[date, date] | None:
    """The days that the value of an operator names, when it names days and nothing but them."""
    with suppress(UnknownDay):
        day = parse_day(text)
        return day, day
    if _YEAR.fullmatch(text):
        return date(int(text), 1, 1), date(int(text), 12, 31)
    spaced_text = " ".join(re.sub(r"[-_./]+", " ", text).split())
    variants = (text, spaced_text) if text[:1].isdigit() else (spaced_text, text)
    wordings = [f"{lead}{way}" for way in variants for lead in ("", "in ", "on ", "the ")]
    years = _YEARS.fullmatch(text)
    for wording in [*wordings, f"from {years[1]} to {years[2]}" if years else f"from {text}"]:
        phrase = parse_phrase(wording, today, language)
        # The phrase must be all there is: "in:garden 2024" names no time, nor does "in:2024-13".
        if phrase is not None and tokenize(phrase.matched) == tokenize(wording):
            is_unbounded = (
                phrase.start == date.min
                if key == "before"
                else key == "after" and phrase.end == date.max
            )
            return (
                None if is_unbounded else (phrase.start, phrase.end)
            )  # nothing is before "before 2020"
    return None


def _date_bounds(key: str, start: date, end: date) -> tuple[date | None, date | None]:
    """The first and last day that `key:` with these days lets through."""
    if key == "before":
        return None, start - timedelta(days=1) if start > date.min else start
    if key == "after":
        return end + timedelta(days=1) if end < date.max else end, None
    return start, end


# --- Scores -------------------------------------------------------------------------------------


def lexical_weight(query: Query, default: float) -> float:
    """How much words count against meaning: more where a word or two are looked up."""
    return max(default, LOOKUP_WEIGHT) if len(query.words) <= LOOKUP_MAX_WORDS else default


def fuse_scores(lexical: "Scores", dense: "Scores | None", weight: float) -> "Scores":
    """One score of two, 0..1: a sum of the two normalised scores, weighted.

    `lexical` holds BM25 (larger is better, 0 for no match), `dense` cosines, of the same entries. Each is divided by
    the best of its kind; a negative cosine counts as none. Measured against spreading the cosines between the least
    and the best, this is as good on small journals, better on large ones, and the same whether all cosines are known
    or the nearest only.
    """
    import numpy as np

    best_lexical = float(lexical.max(initial=0.0))
    word_scores = lexical / best_lexical if best_lexical > 0 else lexical
    if dense is None:
        return word_scores
    best_cosine = float(dense.max(initial=0.0))
    dense_scores = (
        np.clip(dense, 0.0, None) / best_cosine if best_cosine > 0 else np.zeros_like(dense)
    )
    return weight * word_scores + (1.0 - weight) * dense_scores


# --- Snippets -----------------------------------------------------------------------------------

SNIPPET_CHARS = 240


def split_marked(marked: str) -> tuple[tuple[str, bool], ...]:
    """Cut text with START and STOP around matches into (text, marked), white space squeezed."""
    squeezed = re.sub(r"\s+", " ", marked.replace(TOKEN_SEPARATOR, "")).strip()
    parts: list[tuple[str, bool]] = []
    for index, part in enumerate(squeezed.split(MATCH_START)):
        inside, stop, outside = part.partition(MATCH_STOP) if index else ("", "", part)
        if stop and parts and parts[-1][1] and inside:
            parts[-1] = (parts[-1][0] + inside, True)  # two marked letters in a row are one mark
        elif inside:
            parts.append((inside, True))
        if outside:
            parts.append((outside, False))
    return tuple(parts)


def excerpt(text: str) -> str:
    """The first SNIPPET_LETTERS of a passage, cut between words."""
    squeezed = re.sub(r"\s+", " ", text).strip()
    if len(squeezed) <= SNIPPET_CHARS:
        return squeezed
    shortened = squeezed[: SNIPPET_CHARS + 1].rpartition(" ")[0]
    return (shortened if len(shortened) > SNIPPET_CHARS // 2 else squeezed[:SNIPPET_CHARS]) + "…"
