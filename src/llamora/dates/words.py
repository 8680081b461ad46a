"""The English words and signs that make dates, and a reader of the tokens of a text."""

import re
from datetime import date

from llamora.dates.german import Token, to_english
from llamora.dates.spans import Span, month_range

MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
WEEKDAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())

TOKEN = re.compile(r"[0-9]+(?:st|nd|rd|th|s)?\b|[^\W\d_]+(?:['’][a-z]+)?|\S", re.IGNORECASE)
DAY_NUMBER = re.compile(r"([0-9]{1,2})(st|nd|rd|th)?")
NUMERIC_DATES = (
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

MONTH_WORDS = (
    {name.lower(): number for number, name in enumerate(MONTHS, 1)}
    | {name[:3].lower(): number for number, name in enumerate(MONTHS, 1)}
    | {"sept": 9}
)
VERB_MONTHS = frozenset({"march", "may", "mar"})
# Given names and ordinary words: alone they are no date.
AMBIGUOUS_MONTHS = VERB_MONTHS | {"april", "june", "august", "jan", "jun", "dec", "sep", "oct"}
# "May 2024 be kinder": what makes a wish of a month.
WISH_VERBS = frozenset("be become bring give go have hold make see start turn".split())
WEEKDAY_WORDS = {name.lower(): number for number, name in enumerate(WEEKDAYS)}
# Too short to mean a day alone ("sun", "sat"): they only stand before a date.
SHORT_WEEKDAYS = frozenset("mon tue tues wed thu thur thurs fri sat sun".split())
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}
NUMBERS = {"a": 1, "an": 1} | {
    word: number
    for number, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve".split(), 1
    )
}
UNITS = {unit + ending: unit for unit in ("day", "week", "month", "year") for ending in ("", "s")}
SINGLE_UNITS = frozenset({"week", "month", "year"})
FEW = (2, 6)
PARTS_OF_DAY = frozenset({"morning", "afternoon", "evening", "night"})
LEADS = frozenset("in on at during over throughout around from of within for".split())
BOUNDS = frozenset({"since", "before", "after", "until", "till"})
RANGE_JOINERS = frozenset({"to", "until", "till", "through", "-", "–", "—"})
RELATIVE_WORDS = frozenset({"last", "past", "previous", "this", "next"})
THIRDS = {"early": 0, "beginning": 0, "start": 0, "mid": 1, "middle": 1, "late": 2, "end": 2}
RANGE_LEAD = "range"  # stands for the words before either end of "from .. to .."
MONTH_LEADS = frozenset(
    {"in", "during", "throughout", "last", "previous", "past", RANGE_LEAD, *THIRDS}
)
MONTH_LEADS_UNLESS_VERB = MONTH_LEADS | BOUNDS | {"around", "this", "next"}
DAY_LEADS = LEADS | BOUNDS | {RANGE_LEAD}
YEAR_LEADS = BOUNDS | {
    "in",
    "during",
    "throughout",
    "from",
    "of",
    "over",
    "year",
    RANGE_LEAD,
    *THIRDS,
}
# What makes an amount of the number before it.
AMOUNT_UNITS = frozenset(
    "steps words people persons euro euros dollars pounds kcal calories km m cm miles metres meters kg g "
    "grams ml l litres liters years days weeks months hours minutes seconds pages times pieces bytes mb gb "
    "points percent lines entries things followers % € $".split()
)


class WordReader:
    """The tokens of one text. Every method takes a token index, inside the text or not."""

    def __init__(self, text: str, today: date, language: str) -> None:
        self.text = text
        self.today = today
        self.tokens = [
            Token(match[0].lower().replace("’", "'").removesuffix("'s"), match.start(), match.end())
            for match in TOKEN.finditer(text)
        ]
        if language == "de":
            self.tokens = to_english(self.tokens)

    def word(self, index: int) -> str:
        """Return the token at this place, in small letters; "" outside the text."""
        return self.tokens[index].word if 0 <= index < len(self.tokens) else ""

    def skip_the(self, index: int) -> int:
        """Return the place after an article here, or this place."""
        return index + (self.word(index) == "the")

    def is_capitalized(self, index: int) -> bool:
        """Return True if the word here begins with a capital."""
        return self.text[self.tokens[index].start].isupper()

    def is_clause_end(self, index: int) -> bool:
        """Return True if the text, or at least a clause of it, ends before this place."""
        return not self.word(index)[:1].isalnum()

    def is_amount(self, index: int) -> bool:
        """Return True if the number before this place counts or measures something."""
        if self.word(index) in AMOUNT_UNITS:
            return True
        return (
            self.word(index) in {".", ",", ":"}
            and self.word(index + 1)[:1].isdigit()
            and (self.tokens[index].end == self.tokens[index + 1].start)
        )

    def parse_year(self, index: int) -> int:
        """Return the year 1000 .. 2999 written here, or 0."""
        word = self.word(index)
        if len(word) == 4 and word.isascii() and word.isdigit() and word[0] in "12":
            return 0 if self.is_amount(index + 1) else int(word)
        return 0

    def parse_year_after(self, index: int) -> tuple[int, int]:
        """Return (year, place after it) of `2024`, `, 2024`, `of 2024`, `last year`.

        (0, `index`) when there is none.
        """
        year_index = index + 1 if self.word(index) in {",", "of", "in"} else index
        if year := self.parse_year(year_index):
            return year, year_index + 1
        shift = {"last": -1, "this": 0, "next": 1}.get(self.word(year_index))
        if shift is not None and self.word(year_index + 1) == "year":
            return self.today.year + shift, year_index + 2
        return 0, index

    def parse_day_number(self, index: int) -> tuple[int, bool]:
        """Return (1 .. 31, written as an ordinal), or (0, False)."""
        match = DAY_NUMBER.fullmatch(self.word(index))
        if match is None or not 1 <= int(match[1]) <= 31:
            return 0, False
        return int(match[1]), match[2] is not None

    def parse_count(self, index: int) -> tuple[int, int, int]:
        """Return (least, most, place after it) of `3`, `two`, `a couple of`, `a few`, or zeros."""
        next_index = index + (self.word(index) == "a" and self.word(index + 1) in {"couple", "few"})
        word = self.word(next_index)
        if word == "couple":
            return 2, 2, next_index + 1 + (self.word(next_index + 1) == "of")
        if word in {"few", "several"}:
            return *FEW, next_index + 1
        number = NUMBERS.get(word, 0)
        if word.isascii() and word.isdigit() and len(word) <= 4:
            number = int(word)
        return number, number, next_index + 1

    def parse_numeric(self, index: int) -> Span | None:
        """Return the day or month written in figures here. Raise ValueError if there is none such."""
        if index >= len(self.tokens):
            return None
        for pattern, (year, month, day) in NUMERIC_DATES:
            if match := pattern.match(self.text, self.tokens[index].start):
                stop = index
                while stop < len(self.tokens) and self.tokens[stop].end <= match.end():
                    stop += 1
                if not day:
                    return Span(
                        *month_range(int(match[year]), date(1, int(match[month]), 1).month), stop
                    )
                month_and_day = int(match[month]), int(match[day])
                # The American order, where it is the only one that makes a date.
                is_american = match[2] == "/" and month_and_day[0] > 12
                result = date(
                    int(match[year]), *(month_and_day[::-1] if is_american else month_and_day)
                )
                return Span(result, result, stop)
        return None
