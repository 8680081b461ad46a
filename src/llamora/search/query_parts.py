"""Split the text of a query into operators, phrases and words. Pure."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from llamora.dates import UnknownDay, parse_day, parse_phrase
from llamora.search.tokens import tokenize
from llamora.text import Role

MAX_TIME_FILTERS = 16  # operators with a time, each read in several ways
OPPOSITE_ROLE: dict[str, Role] = {"me": "reply", "reply": "me"}

_TIME_OPERATORS = ("before", "after", "on", "in")
_MAX_TIME_WORDS = 4  # plain words that may continue a time: "on:the 3rd of May 2024"
_YEAR = re.compile(r"(?!0000)[0-9]{4}")
_YEARS = re.compile(r"((?!0000)[0-9]{4})(?:-|–|\.\.+)((?!0000)[0-9]{4})")
_OPERATORS = frozenset(f"{key}:" for key in (*_TIME_OPERATORS, "by", "tag"))
_PART_PATTERN = re.compile(
    r'(?P<minus>-)?(?:(?P<key>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))'
)


@dataclass(slots=True, frozen=True)
class QueryPart:
    """Hold a part of a query, which `text` is from `start` to `stop`.

    `key` is its operator, "" for words and phrases. `dates` are the first and last day that the
    value of a time operator names, None when it names none.
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
        """Return whether it is an operator with a value it can use."""
        if self.key == "by":
            return self.value.lower() in OPPOSITE_ROLE
        if self.key == "tag":
            return bool(self.value.strip()) and not self.is_negated
        return self.dates is not None and not self.is_negated

    @property
    def is_incomplete(self) -> bool:
        """Return whether it is an operator without a value it can use."""
        return not self.is_understood if self.key else self.value.lower() in _OPERATORS

    @property
    def is_filter(self) -> bool:
        """Return whether it rules entries out."""
        return self.is_understood or (
            not self.key and (self.is_negated or self.is_quoted) and bool(tokenize(self.value))
        )


def split_parts(query: str, today: date, language: str) -> list[QueryPart]:
    """Return the parts of a query in order; an unquoted time may continue: `on:3 May 2024`.

    `language` is that of times in words, besides English.
    """
    pieces = list(_PART_PATTERN.finditer(query))
    parts: list[QueryPart] = []
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
        elif key and key not in ("by", "tag"):  # no operator: "diary:today"
            key, value, is_quoted = "", f"{piece['key']}:{value}", False
        location = (query[piece.start() : stop], piece.start(), stop)
        parts.append(QueryPart(*location, bool(piece["minus"]), key, value, is_quoted, dates))
        index += 1
    return parts


def _last_plain_word(pieces: Sequence["re.Match[str]"], index: int) -> int:
    last = index
    for piece in pieces[index + 1 : index + 1 + _MAX_TIME_WORDS]:
        if piece["minus"] or piece["key"] or piece["bare"] is None:
            break
        last += 1
    return last


def _parse_dates(key: str, text: str, today: date, language: str) -> tuple[date, date] | None:
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
        # The phrase must be the whole value: "in:garden 2024" and "in:2024-13" name no time.
        if phrase is not None and tokenize(phrase.matched) == tokenize(wording):
            is_unbounded = (
                phrase.start == date.min
                if key == "before"
                else key == "after" and phrase.end == date.max
            )
            # Nothing is before "before 2020".
            return None if is_unbounded else (phrase.start, phrase.end)
    return None


def date_bounds(key: str, start: date, end: date) -> tuple[date | None, date | None]:
    """Return the first and last day, both inclusive, that an operator with these days allows."""
    if key == "before":
        return None, start - timedelta(days=1) if start > date.min else start
    if key == "after":
        return end + timedelta(days=1) if end < date.max else end, None
    return start, end
