"""Dates in English words; German is put into English words first (`german.py`)."""

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from llamora.dates.german import Token, to_english

MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
WEEKDAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DateRange:
    """The days from `start` to `end`, both included, and the piece of text that named them."""

    start: date
    end: date
    matched: str


def parse_phrase(text: str, today: date, language: str = "en") -> DateRange | None:
    """Return the first date a text names, or None. Never raises.

    English is read, and German too where `language` is "de".

    Knows days ("yesterday", "last Tuesday", "on 3 May", "May 3rd, 2024", "2024-05-03", "3.5.2024"),
    longer times ("last week", "March 2024", "in autumn 2023", "early 2024", "the 1990s", "Q3
    2023"), distances ("3 days ago", "in the last two months") and bounds ("since March", "before
    2020", "from 3 to 10 May", "between June and August 2023").

    A journal looks back: a date without a year is the latest one that has begun. Figures are read
    day first; weeks start on Monday; seasons are the northern meteorological ones, and winter 2023
    begins in December 2023. Words that are only sometimes dates ("may", "march", "June", a bare
    number) count only where the words around them make them one: a missed date costs less than
    hidden entries.
    """
    return _PhraseParser(text, today, language).find_first()


class _Span(NamedTuple):
    """The days `start` .. `end`, named by the tokens before `stop`.

    `inferred` is what the text left open: the year, the week, or nothing.
    """

    start: date
    end: date
    stop: int
    inferred: str = ""


_TOKEN = re.compile(r"[0-9]+(?:st|nd|rd|th|s)?\b|[^\W\d_]+(?:['’][a-z]+)?|\S", re.IGNORECASE)
_DAY_NUMBER = re.compile(r"([0-9]{1,2})(st|nd|rd|th)?")
_NUMERIC_DATES = (
    (
        re.compile(r"(?<![\w.,:/-])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?![\w/-]|[.,:]\d)", re.ASCII),
        (1, 3, 4),
    ),
    (
        re.compile(r"(?<![\w.,:/-])(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?![\w/-]|[.,:]\d)", re.ASCII),
        (4, 3, 1),
    ),
    (re.compile(r"(?<![\w.,:/-])([12]\d{3})(-)(\d{2})(?![\w/-]|[.,:]\d)", re.ASCII), (1, 3, 0)),
)

_MONTH_WORDS = (
    {name.lower(): number for number, name in enumerate(MONTHS, 1)}
    | {name[:3].lower(): number for number, name in enumerate(MONTHS, 1)}
    | {"sept": 9}
)
_VERB_MONTHS = frozenset({"march", "may", "mar"})
# Given names and ordinary words: alone they are no date.
_AMBIGUOUS_MONTHS = _VERB_MONTHS | {"april", "june", "august", "jan", "jun", "dec", "sep", "oct"}
# "May 2024 be kinder": what makes a wish of a month.
_WISH_VERBS = frozenset("be become bring give go have hold make see start turn".split())
_WEEKDAY_WORDS = {name.lower(): number for number, name in enumerate(WEEKDAYS)}
# Too short to mean a day alone ("sun", "sat"): they only stand before a date.
_SHORT_WEEKDAYS = frozenset("mon tue tues wed thu thur thurs fri sat sun".split())
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}
_NUMBERS = {"a": 1, "an": 1} | {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve".split(), 1
    )
}
_UNITS = {
    unit + ending: unit
    for unit in ("day", "week", "month", "year", "decade")
    for ending in ("", "s")
}
_FEW = (2, 6)
_PARTS_OF_DAY = frozenset({"morning", "afternoon", "evening", "night"})
_LEADS = frozenset("in on at during over throughout around from of within for".split())
_BOUNDS = frozenset({"since", "before", "after", "until", "till"})
_RANGE_JOINERS = frozenset({"to", "until", "till", "through", "-", "–", "—"})
_RELATIVE_WORDS = frozenset({"last", "past", "previous", "this", "next"})
_THIRDS = {"early": 0, "beginning": 0, "start": 0, "mid": 1, "middle": 1, "late": 2, "end": 2}
_RANGE_LEAD = "range"  # stands for the words before either end of "from .. to .."
_MONTH_LEADS = frozenset(
    {"in", "during", "throughout", "last", "previous", "past", _RANGE_LEAD, *_THIRDS}
)
_MONTH_LEADS_UNLESS_VERB = _MONTH_LEADS | _BOUNDS | {"around", "this", "next"}
_YEAR_LEADS = _BOUNDS | {
    "in",
    "during",
    "throughout",
    "from",
    "of",
    "over",
    "year",
    _RANGE_LEAD,
    *_THIRDS,
}
# What makes an amount of the number before it.
_AMOUNT_UNITS = frozenset(
    "steps words people persons euro euros dollars pounds kcal calories km m cm miles metres meters kg g "
    "grams ml l litres liters years days weeks months hours minutes seconds pages times pieces bytes mb gb "
    "points percent lines entries things followers % € $".split()
)


def _month_end(year: int, month: int) -> date:
    return date(year, month, monthrange(year, month)[1])


def _month_range(year: int, month: int, count: int = 1) -> tuple[date, date]:
    """Return the first and last day of `count` months from this one.

    `month` may lie outside 1 .. 12.
    """
    first = year * 12 + month - 1
    last = first + count - 1
    return date(first // 12, first % 12 + 1, 1), _month_end(last // 12, last % 12 + 1)


class _PhraseParser:
    """A recursive-descent parser of the words of one text. Every method takes a token index."""

    def __init__(self, text: str, today: date, language: str) -> None:
        self.text = text
        self.today = today
        self.tokens = [
            Token(match[0].lower().replace("’", "'").removesuffix("'s"), match.start(), match.end())
            for match in _TOKEN.finditer(text)
        ]
        if language == "de":
            self.tokens = to_english(self.tokens)

    def find_first(self) -> DateRange | None:
        for start in range(len(self.tokens)):
            try:
                span = self._parse_phrase(start)
            except (ValueError, OverflowError):  # no such day, or outside the calendar
                continue
            if span is not None and span.start <= span.end:
                matched = self.text[self.tokens[start].start : self.tokens[span.stop - 1].end]
                return DateRange(span.start, span.end, matched)
        return None

    # Reading words

    def _word(self, index: int) -> str:
        return self.tokens[index].word if 0 <= index < len(self.tokens) else ""

    def _skip_the(self, index: int) -> int:
        return index + (self._word(index) == "the")

    def _is_capitalized(self, index: int) -> bool:
        return self.text[self.tokens[index].start].isupper()

    def _is_clause_end(self, index: int) -> bool:
        """Return True if the text, or at least a clause of it, ends before this place."""
        return not self._word(index)[:1].isalnum()

    def _is_amount(self, index: int) -> bool:
        """Return True if the number before this place counts or measures something."""
        if self._word(index) in _AMOUNT_UNITS:
            return True
        return (
            self._word(index) in {".", ",", ":"}
            and self._word(index + 1)[:1].isdigit()
            and (self.tokens[index].end == self.tokens[index + 1].start)
        )

    def _parse_year(self, index: int) -> int:
        """Return the year 1000 .. 2999 written here, or 0."""
        word = self._word(index)
        if len(word) == 4 and word.isascii() and word.isdigit() and word[0] in "12":
            return 0 if self._is_amount(index + 1) else int(word)
        return 0

    def _parse_year_after(self, index: int) -> tuple[int, int]:
        """Return (year, place after it) of `2024`, `, 2024`, `of 2024`, `last year`.

        (0, `index`) when there is none.
        """
        year_index = index + 1 if self._word(index) in {",", "of", "in"} else index
        if year := self._parse_year(year_index):
            return year, year_index + 1
        shift = {"last": -1, "this": 0, "next": 1}.get(self._word(year_index))
        if shift is not None and self._word(year_index + 1) == "year":
            return self.today.year + shift, year_index + 2
        return 0, index

    def _parse_day_number(self, index: int) -> tuple[int, bool]:
        """Return (1 .. 31, written as an ordinal), or (0, False)."""
        match = _DAY_NUMBER.fullmatch(self._word(index))
        if match is None or not 1 <= int(match[1]) <= 31:
            return 0, False
        return int(match[1]), match[2] is not None

    def _parse_count(self, index: int) -> tuple[int, int, int]:
        """Return (least, most, place after it) of `3`, `two`, `a couple of`, `a few`, or zeros."""
        next_index = index + (
            self._word(index) == "a" and self._word(index + 1) in {"couple", "few"}
        )
        word = self._word(next_index)
        if word == "couple":
            return 2, 2, next_index + 1 + (self._word(next_index + 1) == "of")
        if word in {"few", "several"}:
            return *_FEW, next_index + 1
        number = _NUMBERS.get(word, 0)
        if word.isascii() and word.isdigit() and len(word) <= 4:
            number = int(word)
        return number, number, next_index + 1

    # Whole phrases

    def _parse_phrase(self, index: int) -> _Span | None:
        lead = self._word(index)
        if lead in {"from", "between"}:
            if span := self._parse_range(index + 1, "and" if lead == "between" else ""):
                return span
        elif lead in _BOUNDS:
            return self._parse_bound(index)
        elif span := self._parse_open_range(index):
            return span
        if lead in _LEADS:
            return self._parse_time(index + 1, lead)
        return self._parse_time(index, "")

    def _parse_bound(self, index: int) -> _Span | None:
        lead = self._word(index)
        span = self._parse_time(index + 1, lead)
        if span is None:
            return None
        if lead == "since":
            return _Span(span.start, max(self.today, span.end), span.stop)
        if lead == "before":
            return _Span(date.min, span.start - _DAY, span.stop)
        if lead == "after":
            return _Span(span.end + _DAY, date.max, span.stop)
        return _Span(date.min, span.end, span.stop)

    def _parse_range(self, index: int, joined_by: str) -> _Span | None:
        """Parse what follows `from` or `between`: `3 to 10 May`, `March to May 2024`."""
        index = self._skip_the(index)
        day, _ = self._parse_day_number(index)
        if day and self._is_range_joiner(index + 1, joined_by):
            right = self._parse_explicit(self._skip_the(index + 2), _RANGE_LEAD)
            if right and right.start == right.end and day <= right.start.day:
                return right._replace(start=right.start.replace(day=day))
        left = self._parse_time(index, _RANGE_LEAD)
        if left is None or not self._is_range_joiner(left.stop, joined_by):
            return None
        right = self._parse_time(self._skip_the(left.stop + 1), _RANGE_LEAD)
        return None if right is None else self._join_range(left, right)

    def _parse_open_range(self, index: int) -> _Span | None:
        """Parse `3-10 May 2024`, `March to May 2024`: without a word before it.

        It counts only with a year or a month.
        """
        day, _ = self._parse_day_number(index)
        if day and self._is_range_joiner(index + 1, ""):
            return self._parse_range(index, "")
        if self._word(index) in _MONTH_WORDS and self._is_range_joiner(index + 1, ""):
            span = self._parse_range(index, "")
            return span if span and not span.inferred else None
        return None

    def _is_range_joiner(self, index: int, joined_by: str) -> bool:
        return self._word(index) in _RANGE_JOINERS or (
            joined_by != "" and self._word(index) == joined_by
        )

    def _join_range(self, left: _Span, right: _Span) -> _Span:
        """Join two spans; what one of them leaves open follows from the other."""
        if left.inferred == "year" and right.inferred != "year":
            left = self._shift_years(left, right.start.year - left.start.year)
        elif right.inferred == "year" and left.inferred != "year":
            right = self._shift_years(right, left.start.year - right.start.year)
            if right.end < left.start:
                right = self._shift_years(right, 1)
        if left.start > right.start and left.inferred == "year":
            left = self._shift_years(left, -1)
        elif left.start > right.start and left.inferred == "week":
            left = left._replace(start=left.start - 7 * _DAY)
        return _Span(left.start, right.end, right.stop, left.inferred and right.inferred)

    @staticmethod
    def _shift_years(span: _Span, years: int) -> _Span:
        start = span.start.replace(year=span.start.year + years)
        if span.start == span.end:
            return span._replace(start=start, end=start)
        return span._replace(start=start, end=_month_end(span.end.year + years, span.end.month))

    # One time

    def _parse_time(self, index: int, lead: str) -> _Span | None:
        """Parse a day, week, month, season, year or distance. `lead` is the word before it."""
        has_article = self._word(index) == "the"
        index = self._skip_the(index)
        parsers: tuple[Callable[[int, str], _Span | None], ...] = (
            self._parse_numeric,
            self._parse_nearby_day,
            self._parse_ago,
            self._parse_explicit,
            self._parse_relative,
            self._parse_third,
            self._parse_season,
            self._parse_long,
        )
        if has_article:
            lead = f"{lead} the".strip()
        for parser in parsers:
            if span := parser(index, lead):
                return span
        return None

    def _parse_numeric(self, index: int, _lead: str) -> _Span | None:
        if index >= len(self.tokens):
            return None
        for pattern, (year, month, day) in _NUMERIC_DATES:
            if match := pattern.match(self.text, self.tokens[index].start):
                stop = index
                while stop < len(self.tokens) and self.tokens[stop].end <= match.end():
                    stop += 1
                if not day:
                    return _Span(
                        *_month_range(int(match[year]), date(1, int(match[month]), 1).month), stop
                    )
                month_and_day = int(match[month]), int(match[day])
                # The American order, where it is the only one that makes a date.
                is_american = match[2] == "/" and month_and_day[0] > 12
                result = date(
                    int(match[year]), *(month_and_day[::-1] if is_american else month_and_day)
                )
                return _Span(result, result, stop)
        return None

    def _parse_nearby_day(self, index: int, lead: str) -> _Span | None:
        word, stop = self._word(index), index + 1
        if word == "day" and self._word(index + 1) in {"before", "after"}:
            shift = {"yesterday": -2, "tomorrow": 2}.get(self._word(index + 2))
            stop = index + 3
        else:
            shift = {"today": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}.get(word)
        if shift is None:
            return self._parse_weekday(index, lead)
        stop += self._word(stop) in _PARTS_OF_DAY
        day = self.today + shift * _DAY
        return _Span(day, day, stop)

    def _parse_weekday(self, index: int, lead: str) -> _Span | None:
        number = _WEEKDAY_WORDS.get(self._word(index))
        if number is None and self._word(index) not in _SHORT_WEEKDAYS:
            return None
        date_index = index + 1 + (self._word(index + 1) in {",", "."})
        if (
            span := self._parse_numeric(date_index, lead)
            or self._parse_explicit(self._skip_the(date_index), "on")
        ) and (span.start == span.end):
            return span
        if number is None:
            return None
        weeks = {"last": -1, "this": 0, "next": 1}.get(self._word(index + 1))
        if weeks is not None and self._word(index + 2) == "week":
            return self._weekday_of_week(weeks, number, index + 3)
        is_habitual = self._word(index + 1) in {f"{part}s" for part in _PARTS_OF_DAY}
        if is_habitual or lead not in {"on", _RANGE_LEAD, *_BOUNDS}:
            return None
        day = self.today - (self.today.weekday() - number) % 7 * _DAY
        return _Span(day, day, index + 1 + (self._word(index + 1) in _PARTS_OF_DAY), "week")

    def _weekday_of_week(self, weeks: int, number: int, stop: int) -> _Span:
        day = self.today + (7 * weeks - self.today.weekday() + number) * _DAY
        return _Span(day, day, stop)

    def _parse_ago(self, index: int, _lead: str) -> _Span | None:
        least, most, unit_index = self._parse_count(index)
        unit = _UNITS.get(self._word(unit_index))
        if not most or unit is None or self._word(unit_index + 1) != "ago":
            return None
        return _Span(
            self._calendar_unit(unit, -most)[0],
            self._calendar_unit(unit, -least)[1],
            unit_index + 2,
        )

    def _calendar_unit(self, unit: str, shift: int) -> tuple[date, date]:
        """Return the day, ISO week, month or year `shift` units from today's."""
        today = self.today
        if unit == "day":
            return today + shift * _DAY, today + shift * _DAY
        if unit == "week":
            monday = today - today.weekday() * _DAY + 7 * shift * _DAY
            return monday, monday + 6 * _DAY
        if unit == "month":
            return _month_range(today.year, today.month + shift)
        return _month_range(today.year + shift * (10 if unit == "decade" else 1), 1, 12)

    def _rolling_range(self, unit: str, count: int) -> tuple[date, date]:
        """Return the time between today and `count` units before (or, negative, after) today."""
        if unit in {"day", "week"}:
            other = self.today - count * (7 if unit == "week" else 1) * _DAY
        else:
            months = self.today.year * 12 + self.today.month - 1
            months -= count * {"month": 1, "year": 12, "decade": 120}[unit]
            year, month = months // 12, months % 12 + 1
            other = min(self.today.day, _month_end(year, month).day)
            other = date(year, month, other)
        return min(other, self.today), max(other, self.today)

    def _parse_relative(self, index: int, lead: str) -> _Span | None:
        """Parse `last week`, `this morning`, `next Tuesday`, `the past few days`."""
        modifier = self._word(index)
        if modifier not in _RELATIVE_WORDS:
            return None
        _, count, unit_index = self._parse_count(index + 1)
        if (
            self._word(unit_index + 1 if count else index + 2) == "of"
            and self._word(index + 1) not in _MONTH_WORDS
        ):
            return None  # "the last ten days of May", "the last week of school"
        if count and (unit := _UNITS.get(self._word(unit_index))) and modifier != "this":
            return _Span(
                *self._rolling_range(unit, -count if modifier == "next" else count), unit_index + 1
            )
        word, stop = self._word(index + 1), index + 2
        shift = {"this": 0, "next": 1}.get(modifier, -1)
        if word in _PARTS_OF_DAY and modifier in {"this", "last"}:
            day = self.today + shift * _DAY
            # Last night is the end of yesterday and the small hours of today.
            return _Span(day, self.today if word == "night" else day, stop)
        if word == "weekend":
            saturday = self._calendar_unit("week", shift)[0] + 5 * _DAY
            return _Span(saturday, saturday + _DAY, stop)
        if word in _WEEKDAY_WORDS:
            return self._relative_weekday(modifier, _WEEKDAY_WORDS[word], stop)
        if word in _UNITS and word not in {
            "day",
            "days",
            "weeks",
            "months",
            "years",
            "decade",
            "decades",
        }:
            return self._relative_unit(index, word, shift, lead)
        if word in _MONTH_WORDS and self._is_month(
            index + 1, modifier, self._word(index - 1) == "the"
        ):
            return self._relative_months(modifier, _MONTH_WORDS[word], 1, stop)
        if word in _SEASONS:
            return self._relative_months(modifier, _SEASONS[word], 3, stop)
        return None

    def _relative_weekday(self, modifier: str, number: int, stop: int) -> _Span:
        if modifier == "this":
            return self._weekday_of_week(0, number, stop)
        if modifier == "next":
            day = self.today + ((number - self.today.weekday() - 1) % 7 + 1) * _DAY
        else:
            day = self.today - ((self.today.weekday() - number - 1) % 7 + 1) * _DAY
        return _Span(day, day, stop + (self._word(stop) in _PARTS_OF_DAY))

    def _relative_unit(self, index: int, unit: str, shift: int, lead: str) -> _Span:
        stop = index + 2
        if self._word(index) == "past" or (self._word(index) == "last" and lead.endswith("the")):
            return _Span(*self._rolling_range(unit, 1), stop)
        inner_index = stop + (self._word(stop) in {"on", "in", ","})
        if unit == "week" and (number := _WEEKDAY_WORDS.get(self._word(inner_index))) is not None:
            return self._weekday_of_week(shift, number, inner_index + 1)
        if unit == "year" and self._word(stop) == "in":
            year = self.today.year + shift
            if month := _MONTH_WORDS.get(self._word(inner_index)):
                return _Span(*_month_range(year, month), inner_index + 1)
            if month := _SEASONS.get(self._word(self._skip_the(inner_index))):
                return _Span(*_month_range(year, month, 3), self._skip_the(inner_index) + 1)
        return _Span(*self._calendar_unit(unit, shift), stop)

    def _relative_months(self, modifier: str, month: int, count: int, stop: int) -> _Span:
        """Return the month or season that is over, the one of this year, or the one to come."""
        year = self.today.year + 1
        spans = [_month_range(year - years_back, month, count) for years_back in range(4)]
        if modifier == "next":
            start, end = min(span for span in spans if span[0] > self.today)
        elif modifier == "this":
            running = [span for span in spans if span[0] <= self.today <= span[1]]
            start, end = running[0] if running else _month_range(self.today.year, month, count)
        else:
            start, end = max(span for span in spans if span[1] < self.today)
        return _Span(start, end, stop)

    def _is_month(self, index: int, lead: str, has_article: bool = False) -> bool:
        """Return True if the month word here, without a day or year beside it, means the month."""
        word = self._word(index)
        if word in _VERB_MONTHS:
            is_certain = self._is_capitalized(index) or self._is_clause_end(index + 1)
            return not has_article and (
                lead in _MONTH_LEADS or (lead in _MONTH_LEADS_UNLESS_VERB and is_certain)
            )
        if has_article:
            return False
        return lead in _MONTH_LEADS_UNLESS_VERB or (
            not lead and len(self.tokens) == 1 and word not in _AMBIGUOUS_MONTHS
        )

    def _parse_explicit(self, index: int, lead: str) -> _Span | None:
        """Parse `3 May`, `the 3rd of May 2024`, `May 3rd, 2024`, `May 2024`, `in May`."""
        day, ordinal = self._parse_day_number(index)
        next_index = index
        if day:
            next_index = index + 1 + (self._word(index + 1) == "of")
        month_index = next_index
        month = _MONTH_WORDS.get(self._word(next_index))
        if month is None:
            return None
        next_index += 1
        if (
            self._word(next_index) == "."
            and len(self._word(month_index)) <= 4
            and not self._is_clause_end(next_index + 1)
        ):
            next_index += 1
        if not day:
            day, ordinal = self._parse_day_number(self._skip_the(next_index))
            if self._is_amount(self._skip_the(next_index) + 1):
                day = 0
            next_index = self._skip_the(next_index) + 1 if day else next_index
        year, stop = self._parse_year_after(next_index)
        if not day:
            return self._parse_month(month_index, month, year, stop, lead)
        is_certain = lead.removesuffix(" the") in _LEADS | _BOUNDS | {
            _RANGE_LEAD
        } or self._is_whole_text(index, stop)
        is_certain = (
            is_certain or ordinal or year or (self._is_capitalized(month_index) and month_index > 0)
        )
        if self._word(month_index) in _VERB_MONTHS and not is_certain:
            # "all 3 may come", "May 3 people come": inside a sentence only a capital tells.
            return None
        if year:
            result = date(year, month, day)
            return _Span(result, result, stop)
        result = self._latest_date(month, day)
        return _Span(result, result, stop, "year")

    def _is_whole_text(self, index: int, stop: int) -> bool:
        return index == 0 and stop == len(self.tokens)

    def _parse_month(self, index: int, month: int, year: int, stop: int, lead: str) -> _Span | None:
        if year:
            is_wish = (
                self._word(index) in _VERB_MONTHS and not lead and self._word(stop) in _WISH_VERBS
            )
            return None if is_wish else _Span(*_month_range(year, month), stop)
        if not self._is_month(index, lead.removesuffix(" the"), lead.endswith("the")):
            return None
        year = self.today.year - (month > self.today.month)
        return _Span(*_month_range(year, month), index + 1, "year")

    def _latest_date(self, month: int, day: int) -> date:
        """Return the latest such day not after today. Raise ValueError when there is none."""
        for year in range(self.today.year, max(self.today.year - 9, 0), -1):
            if day <= _month_end(year, month).day and date(year, month, day) <= self.today:
                return date(year, month, day)
        raise ValueError

    def _parse_third(self, index: int, _lead: str) -> _Span | None:
        """Parse a third of a longer time: `early 2024`, `mid-March`, `the end of last year`."""
        third = _THIRDS.get(self._word(index))
        if third is None:
            return None
        following = self._word(index + 1)
        if self._word(index) in {"beginning", "start", "middle", "end"} and following != "of":
            return None
        inner_index = index + 1 + (following in {"of", "-", "in"})
        if self._word(self._skip_the(inner_index)) in _THIRDS:
            return None
        span = self._parse_time(inner_index, self._word(index))
        if span is None or (days := (span.end - span.start).days + 1) < 7:
            return None
        months = round(days / 30.4)
        if months >= 3:
            first = span.start.month + months * third // 3
            start, end = _month_range(span.start.year, first, months // 3)
        else:
            start = span.start + days * third // 3 * _DAY
            end = span.start + (days * (third + 1) // 3 - 1) * _DAY
        return span._replace(start=start, end=end)

    def _parse_season(self, index: int, lead: str) -> _Span | None:
        month = _SEASONS.get(self._word(index))
        if month is None:
            return None
        year, stop = self._parse_year_after(index + 1)
        if year:
            if self._word(stop) in {"/", "-"} and self._word(stop + 1).isdigit():
                stop += 2
            return _Span(*_month_range(year, month, 3), stop)
        bare_lead = lead.removesuffix(" the")
        if bare_lead not in _MONTH_LEADS_UNLESS_VERB | {"over"} or (
            self._word(index) == "fall" and lead != bare_lead
        ):
            return None
        year = self.today.year - (month > self.today.month)
        return _Span(*_month_range(year, month, 3), index + 1, "year")

    def _parse_long(self, index: int, lead: str) -> _Span | None:
        """Parse `Q3 2023`, `the 1990s`, `the 90s`, `the weekend`, `in 2024`, `the year 2024`."""
        word = self._word(index)
        bare_lead = lead.removesuffix(" the")
        if (
            word == "q"
            and self._word(index + 1) in {"1", "2", "3", "4"}
            and (year := self._parse_year(index + 2))
        ):
            return _Span(*_month_range(year, int(self._word(index + 1)) * 3 - 2, 3), index + 3)
        if word == "weekend" and lead.endswith("the") and bare_lead in _LEADS | _BOUNDS:
            saturday = self.today - (self.today.weekday() - 5) % 7 * _DAY
            return _Span(saturday, saturday + _DAY, index + 1)
        index += word in {"'", "year"}
        if word == "year":
            bare_lead = word
        word = self._word(index)
        if word[-1:] == "s" and word[:-1].isdigit() and word[-2] == "0":
            if len(word) == 5 and word[:2] in {"18", "19", "20"}:
                return _Span(*_month_range(int(word[:4]), 1, 120), index + 1)
            if len(word) == 3 and word[0] >= "5" and lead.endswith("the"):
                return _Span(*_month_range(1900 + int(word[:2]), 1, 120), index + 1)
            return None
        year = self._parse_year(index)
        if 1900 <= year <= 2099 and (
            bare_lead in _YEAR_LEADS or self._is_whole_text(index, index + 1)
        ):
            return _Span(*_month_range(year, 1, 12), index + 1)
        return None
