"""Parse what people type into a Query; nothing they type is an error. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date

from llamora.dates import DateRange, parse_phrase
from llamora.errors import Notice
from llamora.search.query_parts import (
    MAX_TIME_FILTERS,
    OPPOSITE_ROLE,
    QueryPart,
    date_bounds,
    split_parts,
)
from llamora.search.tokens import tokenize
from llamora.text import STOP_WORDS, Role, detect_language, normalize

MAX_QUERY = 2000  # characters; a longer query is cut, with a hint
MAX_TERMS = 64  # words and phrases, each of which costs a look-up
QUESTION_MIN_WORDS = 5  # beside so many words a quotation is part of a question and not required
_FIGURE = re.compile(r"\d")
PREFIX_READY = re.compile(r"\w{3}$")  # fewer letters begin too many words


@dataclass(slots=True, frozen=True)
class Query:
    """Hold a parsed query; words and phrases are normalised text without operators.

    `words` score, and one that ends in `*` is a prefix. All `phrases` and no `excluded` term must
    be in an entry, which must have all `tags` (names). `quoted` phrases are part of a longer
    question and only score. `after` and `before` are the first and last day allowed, while
    `mentioned_dates` only score. An entry that holds `written_date`, a date as it was typed, needs
    no day within them, and comes first. `semantic_text` is embedded, "" when there is nothing to compare;
    `whole_phrase` is a whole question, "" for a look-up. With `corrects_words` a word that no entry
    holds stands for those one letter away, which score less. An `is_impossible` query contradicts
    itself. `hints` say what was not understood.
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
    written_date: str = ""
    semantic_text: str = ""
    whole_phrase: str = ""
    corrects_words: bool = True
    is_impossible: bool = False
    hints: tuple[Notice, ...] = ()

    @property
    def is_filtered(self) -> bool:
        """Return whether it rules entries out, whatever their score."""
        return bool(self.phrases or self.excluded or self.has_metadata_filter)

    @property
    def has_metadata_filter(self) -> bool:
        """Return whether it filters by metadata: tag, role or date."""
        return bool(self.tags or self.role or self.after or self.before or self.is_impossible)

    @property
    def terms(self) -> tuple[str, ...]:
        """Return the words and phrases that a snippet marks."""
        return self.words + self.phrases


def parse_query(text: str, today: date, is_typing: bool = False, language: str = "en") -> Query:
    """Parse a query; what is not understood is searched as words, with a hint. Never raises.

    A query has bare words, `"exact phrases"`, `-word`, `-"phrase"`, `prefix*`, `tag:x`, `by:me`,
    `by:reply`, times in plain words, and `before:`, `after:`, `on:` and `in:` with a day or a time
    in words (`in:2024`, `on:3 May`, `in:"last March"`); `before:` and `after:` exclude the time
    they name. With `is_typing` the last word is unfinished. `language` is that of times in words,
    besides English.
    """
    hints: list[Notice] = []
    cleaned = _clean_query(text)
    if len(cleaned) > MAX_QUERY:
        cleaned = cleaned[:MAX_QUERY]
        hints.append(Notice("query_letters_cut", {"most": MAX_QUERY}))
    if cleaned.count('"') % 2:
        cleaned = _drop_unpaired_quote(cleaned)
        if not is_typing:
            hints.append(Notice("query_quote_unpaired"))

    parsed = _ParsedParts()
    for part in split_parts(cleaned, today, language):
        # The letters still to come may complete the last part.
        if not (is_typing and part.is_incomplete and part.stop == len(cleaned)):
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
    """Return the filters of a query as typed, each once, with the query that is left without it."""
    cleaned = _drop_unpaired_quote(_clean_query(text)[:MAX_QUERY])
    phrases = parse_query(cleaned, today, language=language).phrases
    # A date in plain words is no operator, though on its own it filters.
    parts = [part for part in split_parts(cleaned, today, language) if part.is_filter]
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
    if query.count('"') % 2 == 0:
        return query
    position = query.rindex('"')
    return query[:position] + " " + query[position + 1 :]


@dataclass(slots=True)
class _ParsedParts:
    bare_words: list[str] = field(default_factory=list[str])
    not_understood: list[str] = field(default_factory=list[str])  # values of operators
    phrases: list[str] = field(default_factory=list[str])
    excluded: list[str] = field(default_factory=list[str])
    tags: list[str] = field(default_factory=list[str])
    roles: set[Role] = field(default_factory=set[Role])
    after: date | None = None
    before: date | None = None
    time_texts: list[str] = field(default_factory=list[str])  # as typed

    def add(self, part: QueryPart, hints: list[Notice]) -> None:
        if part.is_understood and part.key == "by":
            role = OPPOSITE_ROLE[part.value.lower()] if part.is_negated else part.value.lower()
            self.roles.add("me" if role == "me" else "reply")
        elif part.is_understood and part.key == "tag":
            self.tags.append(part.value.strip())
        elif part.is_understood and part.dates is not None:
            self.restrict_dates(part.text, *date_bounds(part.key, *part.dates))
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
                hints.append(Notice("query_operator_bare", {"value": part.value}))
            self.bare_words.append(part.value)

    def restrict_dates(self, text: str, first: date | None, last: date | None) -> None:
        self.after = max(filter(None, (self.after, first)), default=None)
        self.before = min(filter(None, (self.before, last)), default=None)
        self.time_texts.append(text)

    def find_contradiction(self) -> Notice | None:
        """Return why nothing can match, None when something can."""
        if self.after and self.before and self.after > self.before:
            times = ", ".join(f"“{said}”" for said in dict.fromkeys(self.time_texts))
            return Notice("query_no_day", {"times": times})
        if len(self.roles) > 1:
            return Notice("query_two_authors")
        phrase_words = [[word.lower() for word in tokenize(phrase)] for phrase in self.phrases]
        for unwanted in self.excluded:
            excluded_words = [word.lower() for word in tokenize(unwanted)]
            if any(
                excluded_words == words[at : at + len(excluded_words)]
                for words in phrase_words
                for at in range(len(words))
            ):
                return Notice("query_contradiction", {"unwanted": unwanted})
        return None


def _hint_for(part: QueryPart) -> Notice:
    if part.is_negated:
        return Notice("query_minus_unknown", {"key": part.key})
    if part.key == "by":
        return Notice("query_by_unknown")
    return Notice("query_no_date", {"text": part.text})


def _build_query(parsed: _ParsedParts, hints: list[Notice], today: date, language: str) -> Query:
    bare_words, phrases, written_date = parsed.bare_words, list(dict.fromkeys(parsed.phrases)), ""
    question = " ".join(word.rstrip("*") for word in bare_words)
    mentioned_dates = parse_phrase(question, today, language)
    if mentioned_dates is not None and not phrases and not parsed.not_understood:
        remainder = re.sub(re.escape(mentioned_dates.matched), " ", question, flags=re.IGNORECASE)
        if not _without_stop_words(tokenize(remainder)):
            # A query of nothing but a time filters by it; one in figures may stand in a text, too.
            dates = mentioned_dates
            if _FIGURE.search(dates.matched) and not parsed.time_texts:
                written_date = dates.matched
            parsed.restrict_dates(dates.matched, dates.start, dates.end)
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
        hints.append(Notice("query_words_cut", {"most": MAX_TERMS}))
    hints += [contradiction] if contradiction is not None else []
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
        written_date=written_date,
        semantic_text=" ".join([question, *phrases, *quoted]).strip(),
        whole_phrase=question
        if not phrases and not quoted and len(_without_stop_words(tokenize(question))) > 1
        else "",
        is_impossible=contradiction is not None,
        hints=tuple(hint for number, hint in enumerate(hints) if hint not in hints[:number]),
    )


def query_from_text(text: str, today: date) -> Query:
    """Return the query for the words of a text, in which no sign is an operator."""
    words = tokenize(normalize(text)[:MAX_QUERY])
    question = " ".join(words)
    query_words = list(dict.fromkeys(word.lower() for word in words))
    query_words = _without_stop_words(query_words) or query_words
    return Query(
        words=tuple(query_words[:MAX_TERMS]),
        mentioned_dates=parse_phrase(question, today, detect_language(question)),
        semantic_text=question,
        corrects_words=False,  # a text is longer than what is asked for, and has rare words
    )


def relax_query(query: Query) -> Query:
    """Return the query with its phrases as words, for when no entry has them word for word."""
    words = dict.fromkeys([*query.words, *_without_stop_words(_lower_words(query.phrases))])
    is_narrowed = query.has_metadata_filter or query.excluded
    hint = Notice("query_phrases_relaxed_narrowed" if is_narrowed else "query_phrases_relaxed")
    return replace(
        query,
        words=tuple(words)[:MAX_TERMS] or tuple(_lower_words(query.phrases)),
        phrases=(),
        hints=(*query.hints, hint),
    )


def _lower_words(pieces: Iterable[str]) -> Iterable[str]:
    for piece in pieces:
        words = [word.lower() for word in tokenize(piece)]
        if piece.endswith("*") and words and len(words[-1]) > 1:
            words[-1] += "*"
        yield from words


def _without_stop_words(words: Iterable[str]) -> list[str]:
    return [word for word in words if word.lower() not in STOP_WORDS]
