"""German words for dates, replaced in place by the English words that `phrases.py` reads."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Token(NamedTuple):
    """A word, number or sign of a text in small letters, with its place there."""

    word: str
    start: int
    end: int


_MONTHS = {
    "january": "januar jänner",
    "february": "februar feber",
    "march": "märz",
    "april": "april",
    "may": "mai",
    "june": "juni",
    "july": "juli",
    "august": "august",
    "september": "september",
    "october": "oktober",
    "november": "november",
    "december": "dezember",
    "mar": "mär mrz",
    "oct": "okt",
    "dec": "dez",
}
_WEEKDAYS = {
    "monday": "montag",
    "tuesday": "dienstag",
    "wednesday": "mittwoch",
    "thursday": "donnerstag",
    "friday": "freitag",
    "saturday": "samstag sonnabend",
    "sunday": "sonntag",
}
_PARTS_OF_DAY = {
    "morning": "vormittag",
    "afternoon": "nachmittag",
    "evening": "abend",
    "night": "nacht",
}
_UNITS = {
    "day": "tag",
    "days": "tage tagen",
    "week": "woche",
    "weeks": "wochen",
    "month": "monat monats",
    "months": "monate monaten",
    "year": "jahr jahres",
    "years": "jahre jahren",
}
_NUMBERS = {
    "a": "ein eine einem einen einer",
    "two": "zwei",
    "three": "drei",
    "four": "vier",
    "five": "fünf",
    "six": "sechs",
    "seven": "sieben",
    "eight": "acht",
    "nine": "neun",
    "ten": "zehn",
    "eleven": "elf",
    "twelve": "zwölf",
    "few": "paar",
    "several": "einige einigen mehrere mehreren",
}
_OTHER_WORDS = {
    "today": "heute",
    "yesterday": "gestern",
    "day before yesterday": "vorgestern",
    "day after tomorrow": "übermorgen",
    "this year": "heuer",
    "last": "letzte letzten letzter letztes letztem vorige vorigen voriger voriges vorigem "
    "vergangene vergangenen vergangener vergangenes vergangenem",
    "this": "diese diesen dieser dieses diesem",
    "next": "nächste nächsten nächster nächstes nächstem kommende kommenden kommender kommendes kommendem",
    "weekend": "wochenende",
    "spring": "frühling frühlings frühjahr frühjahrs",
    "summer": "sommer sommers",
    "autumn": "herbst herbstes",
    "winter": "winter winters",
    "early": "anfang",
    "mid": "mitte",
    "late": "ende",
    "on": "am",
    "in": "im",
    "since": "seit ab",
    "after": "nach",
    "until": "bis",
    "from": "von vom",
    "between": "zwischen",
    "and": "und",
    "the": "der die das den dem des zum zur",
}


def _spelling_variants(word: str) -> set[str]:
    """Return a word as it is and as typed on a keyboard without umlauts."""
    unaccented = word.maketrans("äöü", "aou")
    digraphs = word.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
    return {word, word.translate(unaccented), word.translate(digraphs)}


_ENGLISH = {
    written: tuple(english.split())
    for table in (_MONTHS, _WEEKDAYS, _PARTS_OF_DAY, _UNITS, _NUMBERS, _OTHER_WORDS)
    for english, german in table.items()
    for word in german.split()
    for written in _spelling_variants(word)
} | {
    f"{day}{part}": (english_day, english_part)
    for english_day, days in _WEEKDAYS.items()
    for day in days.split()
    for english_part, part in (_PARTS_OF_DAY | {"morning": "morgen"}).items()
}
_MONTH_NAMES = tuple(list(_MONTHS)[:12])
_ABBREVIATED = frozenset("jan feb mar apr jun jul aug sep sept okt oct nov dez dec".split())
# Before "morgen" these make a morning of it, which otherwise is tomorrow.
_BEFORE_MORNING = frozenset("today yesterday on this the".split()) | _WEEKDAYS.keys()
_GREETINGS = frozenset("guten jeden".split())
# Before "12.3." these make a date of it, which otherwise may be anything.
_BEFORE_NUMERIC_DATE = (
    frozenset("on the from since until before after and between , - –".split()) | _WEEKDAYS.keys()
)
_AFTER_ORDINAL = frozenset({"until", "and", "-", "–"}) | _MONTHS.keys() | _ABBREVIATED


def to_english(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens of a German text with its date words in English; others stay.

    English phrases in it stay readable. Where one word becomes several they all keep its place;
    `vor drei Tagen` becomes `three days ago`, and keeps its place as a whole.
    """
    return list(_rewrite_numeric_dates(list(_rewrite_ago(list(_translate_words(tokens))))))


def _translate_words(tokens: Sequence[Token]) -> Iterator[Token]:
    previous = ""
    for index, token in enumerate(tokens):
        following = tokens[index + 1].word if index + 1 < len(tokens) else ""
        words = _ENGLISH.get(token.word, (token.word,))
        if token.word == "morgen":
            words = (
                "morning" if previous in _BEFORE_MORNING or previous in _GREETINGS else "tomorrow",
            )
        elif token.word == "am" and following == "wochenende":
            words = ("on", "the")
        elif token.word == "früh" and previous in {"today", "yesterday", "tomorrow", *_WEEKDAYS}:
            words = ("morning",)
        for word in words:
            yield Token(word, token.start, token.end)
        previous = words[-1]


def _rewrite_ago(tokens: Sequence[Token]) -> Iterator[Token]:
    """Rewrite `vor`, which either counts back from today or stands before a date."""
    index = 0
    while index < len(tokens):
        if tokens[index].word != "vor":
            yield tokens[index]
            index += 1
            continue
        words = [token.word for token in tokens[index + 1 : index + 4]]
        unit_index = index + 2 + (words[:2] == ["a", "few"])
        is_number = bool(words) and (words[0] in _NUMBERS or words[0].isdigit())
        if not is_number or unit_index >= len(tokens) or tokens[unit_index].word not in _UNITS:
            yield tokens[index]._replace(word="before")
            index += 1
            continue
        yield tokens[index + 1]._replace(start=tokens[index].start)
        yield from tokens[index + 2 : unit_index + 1]
        yield Token("ago", tokens[unit_index].start, tokens[unit_index].end)
        index = unit_index + 1


def _rewrite_numeric_dates(tokens: Sequence[Token]) -> Iterator[Token]:
    """Drop the points of `3. bis 10. Mai`, and name the month of `12.3.`."""

    def word_at(position: int) -> str:
        return tokens[position].word if 0 <= position < len(tokens) else ""

    def is_number(position: int) -> bool:
        return (
            word_at(position).isascii()
            and word_at(position).isdigit()
            and len(word_at(position)) <= 2
        )

    def is_point(position: int) -> bool:
        return word_at(position) == "." and tokens[position].start == tokens[position - 1].end

    index = 0
    while index < len(tokens):
        yield tokens[index]
        if is_number(index) and is_point(index + 1):
            is_whole_text = index == 0 and len(tokens) == 4
            is_date = (
                is_number(index + 2) and is_point(index + 3) and 1 <= int(word_at(index + 2)) <= 12
            )
            is_end = (
                not word_at(index + 4)[:1].isdigit()
                or tokens[index + 4].start > tokens[index + 3].end
            )
            if is_date and is_end and (is_whole_text or word_at(index - 1) in _BEFORE_NUMERIC_DATE):
                month = _MONTH_NAMES[int(word_at(index + 2)) - 1]
                yield Token(month, tokens[index + 2].start, tokens[index + 3].end)
                index += 3
            elif word_at(index + 2) in _AFTER_ORDINAL:
                index += 1
        index += 1
