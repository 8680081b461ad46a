"""Dates in English words; German is put into English words first (`german.py`)."""

from collections.abc import Callable
from datetime import date

from llamora.dates import words
from llamora.dates.spans import (
    DAY,
    DateRange,
    Span,
    calendar_unit,
    join_spans,
    latest_date,
    month_range,
    relative_months,
    rolling_range,
)
from llamora.dates.words import WordReader


def parse_phrase(text: str, today: date, language: str = "en") -> DateRange | None:
    """Return the first date a text names, or None. Never raises.

    English is read, and German too where `language` is "de".

    Knows days ("yesterday", "last Tuesday", "on 3 May", "May 3rd, 2024", "2024-05-03", "3.5.2024"),
    longer times ("last week", "March 2024", "in autumn 2023", "early 2024", "Q3 2023"), distances
    ("3 days ago", "in the last two months") and bounds ("since March", "before 2020", "from 3 to
    10 May", "between June and August 2023").

    A journal looks back: a date without a year is the latest one that has begun. Figures are read
    day first; weeks start on Monday; seasons are the northern meteorological ones, and winter 2023
    begins in December 2023. Words that are only sometimes dates ("may", "march", "June", a bare
    number) count only where the words around them make them one: a missed date costs less than
    hidden entries.
    """
    return _PhraseParser(text, today, language).find_first()


class _PhraseParser(WordReader):
    """A recursive-descent parser of the words of one text. Every method takes a token index."""

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

    # Whole phrases

    def _parse_phrase(self, index: int) -> Span | None:
        lead = self.word(index)
        if lead in {"from", "between"}:
            if span := self._parse_range(index + 1, "and" if lead == "between" else ""):
                return span
        elif lead in words.BOUNDS:
            return self._parse_bound(index)
        elif span := self._parse_open_range(index):
            return span
        if lead in words.LEADS:
            return self._parse_time(index + 1, lead)
        return self._parse_time(index, "")

    def _parse_bound(self, index: int) -> Span | None:
        lead = self.word(index)
        span = self._parse_time(index + 1, lead)
        if span is None:
            return None
        match lead:
            case "since":
                start, end = span.start, max(self.today, span.end)
            case "before":
                start, end = date.min, span.start - DAY
            case "after":
                start, end = span.end + DAY, date.max
            case _:
                start, end = date.min, span.end
        return Span(start, end, span.stop)

    def _parse_range(self, index: int, joined_by: str) -> Span | None:
        """Parse what follows `from` or `between`: `3 to 10 May`, `March to May 2024`."""
        index = self.skip_the(index)
        day, _ = self.parse_day_number(index)
        if day and self._is_range_joiner(index + 1, joined_by):
            right = self._parse_explicit(self.skip_the(index + 2), words.RANGE_LEAD)
            if right and right.start == right.end and day <= right.start.day:
                return right._replace(start=right.start.replace(day=day))
        left = self._parse_time(index, words.RANGE_LEAD)
        if left is None or not self._is_range_joiner(left.stop, joined_by):
            return None
        right = self._parse_time(self.skip_the(left.stop + 1), words.RANGE_LEAD)
        return None if right is None else join_spans(left, right)

    def _parse_open_range(self, index: int) -> Span | None:
        """Parse `3-10 May 2024`, `March to May 2024`: without a word before it.

        It counts only with a year or a month.
        """
        day, _ = self.parse_day_number(index)
        if day and self._is_range_joiner(index + 1, ""):
            return self._parse_range(index, "")
        if self.word(index) in words.MONTH_WORDS and self._is_range_joiner(index + 1, ""):
            span = self._parse_range(index, "")
            return span if span and not span.inferred else None
        return None

    def _is_range_joiner(self, index: int, joined_by: str) -> bool:
        return self.word(index) in words.RANGE_JOINERS or (
            joined_by != "" and self.word(index) == joined_by
        )

    # One time

    def _parse_time(self, index: int, lead: str) -> Span | None:
        """Parse a day, week, month, season, year or distance. `lead` is the word before it."""
        has_article = self.word(index) == "the"
        index = self.skip_the(index)
        parsers: tuple[Callable[[int, str], Span | None], ...] = (
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
        if span := self.parse_numeric(index):
            return span
        for parser in parsers:
            if span := parser(index, lead):
                return span
        return None

    def _parse_nearby_day(self, index: int, lead: str) -> Span | None:
        word, stop = self.word(index), index + 1
        if word == "day" and self.word(index + 1) in {"before", "after"}:
            shift = {"yesterday": -2, "tomorrow": 2}.get(self.word(index + 2))
            stop = index + 3
        else:
            shift = {"today": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}.get(word)
        if shift is None:
            return self._parse_weekday(index, lead)
        stop += self.word(stop) in words.PARTS_OF_DAY
        day = self.today + shift * DAY
        return Span(day, day, stop)

    def _parse_weekday(self, index: int, lead: str) -> Span | None:
        number = words.WEEKDAY_WORDS.get(self.word(index))
        if number is None and self.word(index) not in words.SHORT_WEEKDAYS:
            return None
        date_index = index + 1 + (self.word(index + 1) in {",", "."})
        if (
            span := self.parse_numeric(date_index)
            or self._parse_explicit(self.skip_the(date_index), "on")
        ) and (span.start == span.end):
            return span
        if number is None:
            return None
        weeks = {"last": -1, "this": 0, "next": 1}.get(self.word(index + 1))
        if weeks is not None and self.word(index + 2) == "week":
            return self._weekday_of_week(weeks, number, index + 3)
        is_habitual = self.word(index + 1) in {f"{part}s" for part in words.PARTS_OF_DAY}
        if is_habitual or lead not in {"on", words.RANGE_LEAD, *words.BOUNDS}:
            return None
        day = self.today - (self.today.weekday() - number) % 7 * DAY
        return Span(day, day, index + 1 + (self.word(index + 1) in words.PARTS_OF_DAY), "week")

    def _weekday_of_week(self, weeks: int, number: int, stop: int) -> Span:
        day = self.today + (7 * weeks - self.today.weekday() + number) * DAY
        return Span(day, day, stop)

    def _parse_ago(self, index: int, _lead: str) -> Span | None:
        least, most, unit_index = self.parse_count(index)
        unit = words.UNITS.get(self.word(unit_index))
        if not most or unit is None or self.word(unit_index + 1) != "ago":
            return None
        return Span(
            calendar_unit(self.today, unit, -most)[0],
            calendar_unit(self.today, unit, -least)[1],
            unit_index + 2,
        )

    def _parse_relative(self, index: int, lead: str) -> Span | None:
        """Parse `last week`, `this morning`, `next Tuesday`, `the past few days`."""
        modifier = self.word(index)
        if modifier not in words.RELATIVE_WORDS:
            return None
        _, count, unit_index = self.parse_count(index + 1)
        if (
            self.word(unit_index + 1 if count else index + 2) == "of"
            and self.word(index + 1) not in words.MONTH_WORDS
        ):
            return None  # "the last ten days of May", "the last week of school"
        if count and (unit := words.UNITS.get(self.word(unit_index))) and modifier != "this":
            return Span(
                *rolling_range(self.today, unit, -count if modifier == "next" else count),
                unit_index + 1,
            )
        word, stop = self.word(index + 1), index + 2
        shift = {"this": 0, "next": 1}.get(modifier, -1)
        if word in words.PARTS_OF_DAY and modifier in {"this", "last"}:
            day = self.today + shift * DAY
            # Last night is the end of yesterday and the small hours of today.
            return Span(day, self.today if word == "night" else day, stop)
        if word in words.WEEKDAY_WORDS:
            return self._relative_weekday(modifier, words.WEEKDAY_WORDS[word], stop)
        if word in words.SINGLE_UNITS:
            return self._relative_unit(index, word, shift, lead)
        if span := self._relative_span(index, word, modifier, shift):
            return Span(*span, stop)
        return None

    def _relative_span(
        self, index: int, word: str, modifier: str, shift: int
    ) -> tuple[date, date] | None:
        if word == "weekend":
            saturday = calendar_unit(self.today, "week", shift)[0] + 5 * DAY
            return saturday, saturday + DAY
        if word in words.MONTH_WORDS and self._is_month(
            index + 1, modifier, self.word(index - 1) == "the"
        ):
            return relative_months(self.today, modifier, words.MONTH_WORDS[word], 1)
        if word in words.SEASONS:
            return relative_months(self.today, modifier, words.SEASONS[word], 3)
        return None

    def _relative_weekday(self, modifier: str, number: int, stop: int) -> Span:
        if modifier == "this":
            return self._weekday_of_week(0, number, stop)
        if modifier == "next":
            day = self.today + ((number - self.today.weekday() - 1) % 7 + 1) * DAY
        else:
            day = self.today - ((self.today.weekday() - number - 1) % 7 + 1) * DAY
        return Span(day, day, stop + (self.word(stop) in words.PARTS_OF_DAY))

    def _relative_unit(self, index: int, unit: str, shift: int, lead: str) -> Span:
        stop = index + 2
        if self.word(index) == "past" or (self.word(index) == "last" and lead.endswith("the")):
            return Span(*rolling_range(self.today, unit, 1), stop)
        inner_index = stop + (self.word(stop) in {"on", "in", ","})
        if (
            unit == "week"
            and (number := words.WEEKDAY_WORDS.get(self.word(inner_index))) is not None
        ):
            return self._weekday_of_week(shift, number, inner_index + 1)
        if unit == "year" and self.word(stop) == "in":
            year = self.today.year + shift
            if month := words.MONTH_WORDS.get(self.word(inner_index)):
                return Span(*month_range(year, month), inner_index + 1)
            if month := words.SEASONS.get(self.word(self.skip_the(inner_index))):
                return Span(*month_range(year, month, 3), self.skip_the(inner_index) + 1)
        return Span(*calendar_unit(self.today, unit, shift), stop)

    def _is_month(self, index: int, lead: str, has_article: bool = False) -> bool:
        """Return True if the month word here, without a day or year beside it, means the month."""
        word = self.word(index)
        if word in words.VERB_MONTHS:
            is_certain = self.is_capitalized(index) or self.is_clause_end(index + 1)
            return not has_article and (
                lead in words.MONTH_LEADS or (lead in words.MONTH_LEADS_UNLESS_VERB and is_certain)
            )
        if has_article:
            return False
        return lead in words.MONTH_LEADS_UNLESS_VERB or (
            not lead and len(self.tokens) == 1 and word not in words.AMBIGUOUS_MONTHS
        )

    def _parse_explicit(self, index: int, lead: str) -> Span | None:
        """Parse `3 May`, `the 3rd of May 2024`, `May 3rd, 2024`, `May 2024`, `in May`."""
        day, ordinal = self.parse_day_number(index)
        month_index = index + 1 + (self.word(index + 1) == "of") if day else index
        month = words.MONTH_WORDS.get(self.word(month_index))
        if month is None:
            return None
        next_index = month_index + 1
        if (
            self.word(next_index) == "."
            and len(self.word(month_index)) <= 4
            and not self.is_clause_end(next_index + 1)
        ):
            next_index += 1
        if not day:
            day, ordinal = self.parse_day_number(self.skip_the(next_index))
            if self.is_amount(self.skip_the(next_index) + 1):
                day = 0
            next_index = self.skip_the(next_index) + 1 if day else next_index
        year, stop = self.parse_year_after(next_index)
        if not day:
            return self._parse_month(month_index, month, year, stop, lead)
        if self.word(month_index) in words.VERB_MONTHS and not (
            ordinal
            or year
            or lead.removesuffix(" the") in words.DAY_LEADS
            or self._is_whole_text(index, stop)
            or (self.is_capitalized(month_index) and month_index > 0)
        ):
            # "all 3 may come", "May 3 people come": inside a sentence only a capital tells.
            return None
        if year:
            result = date(year, month, day)
            return Span(result, result, stop)
        result = latest_date(self.today, month, day)
        return Span(result, result, stop, "year")

    def _is_whole_text(self, index: int, stop: int) -> bool:
        return index == 0 and stop == len(self.tokens)

    def _parse_month(self, index: int, month: int, year: int, stop: int, lead: str) -> Span | None:
        if year:
            is_wish = (
                self.word(index) in words.VERB_MONTHS
                and not lead
                and self.word(stop) in words.WISH_VERBS
            )
            return None if is_wish else Span(*month_range(year, month), stop)
        if not self._is_month(index, lead.removesuffix(" the"), lead.endswith("the")):
            return None
        year = self.today.year - (month > self.today.month)
        return Span(*month_range(year, month), index + 1, "year")

    def _parse_third(self, index: int, _lead: str) -> Span | None:
        """Parse a third of a longer time: `early 2024`, `mid-March`, `the end of last year`."""
        third = words.THIRDS.get(self.word(index))
        if third is None:
            return None
        following = self.word(index + 1)
        if self.word(index) in {"beginning", "start", "middle", "end"} and following != "of":
            return None
        inner_index = index + 1 + (following in {"of", "-", "in"})
        if self.word(self.skip_the(inner_index)) in words.THIRDS:
            return None
        span = self._parse_time(inner_index, self.word(index))
        if span is None or (days := (span.end - span.start).days + 1) < 7:
            return None
        months = round(days / 30.4)
        if months >= 3:
            first = span.start.month + months * third // 3
            start, end = month_range(span.start.year, first, months // 3)
        else:
            start = span.start + days * third // 3 * DAY
            end = span.start + (days * (third + 1) // 3 - 1) * DAY
        return span._replace(start=start, end=end)

    def _parse_season(self, index: int, lead: str) -> Span | None:
        month = words.SEASONS.get(self.word(index))
        if month is None:
            return None
        year, stop = self.parse_year_after(index + 1)
        if year:
            if self.word(stop) in {"/", "-"} and self.word(stop + 1).isdigit():
                stop += 2
            return Span(*month_range(year, month, 3), stop)
        bare_lead = lead.removesuffix(" the")
        if bare_lead not in words.MONTH_LEADS_UNLESS_VERB | {"over"} or (
            self.word(index) == "fall" and lead != bare_lead
        ):
            return None
        year = self.today.year - (month > self.today.month)
        return Span(*month_range(year, month, 3), index + 1, "year")

    def _parse_long(self, index: int, lead: str) -> Span | None:
        """Parse `Q3 2023`, `the weekend`, `in 2024`, `the year 2024`."""
        word = self.word(index)
        bare_lead = lead.removesuffix(" the")
        if (
            word == "q"
            and self.word(index + 1) in {"1", "2", "3", "4"}
            and (year := self.parse_year(index + 2))
        ):
            return Span(*month_range(year, int(self.word(index + 1)) * 3 - 2, 3), index + 3)
        if word == "weekend" and lead.endswith("the") and bare_lead in words.LEADS | words.BOUNDS:
            saturday = self.today - (self.today.weekday() - 5) % 7 * DAY
            return Span(saturday, saturday + DAY, index + 1)
        index += word in {"'", "year"}
        if word == "year":
            bare_lead = word
        year = self.parse_year(index)
        if 1900 <= year <= 2099 and (
            bare_lead in words.YEAR_LEADS or self._is_whole_text(index, index + 1)
        ):
            return Span(*month_range(year, 1, 12), index + 1)
        return None
