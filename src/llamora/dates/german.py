"""German words for dates, put into the English words that are read (`phrases.py`), each where it stands in the text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Token(NamedTuple):
    """A word, a number or a sign of a text in small letters, and where it stands there."""

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
_PARTS = {"morning": "vormittag", "afternoon": "nachmittag", "evening": "abend", "night": "nacht"}
_UNITS = {
    "day": "tag",
    "days": "tage tagen",
    "week": "woche",
    "weeks": "wochen",
    "month": "monat monats",
    "months": "monate monaten",
    "year": "jahr jahres",
    "years": "jahre jahren",
    "decade": "jahrzehnt",
    "decades": "jahrzehnte jahrzehnten",
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
_OTHERS = {
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


def _ways_to_write(word: str) -> set[str]:
    """A word as it is, and as who has no umlauts on the keyboard writes it."""
    bare = word.maketrans("äöü", "aou")
    pairs = word.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
    return {word, word.translate(bare), word.translate(pairs)}


_ENGLISH = {
    written: tuple(english.split())
    for table in (_MONTHS, _WEEKDAYS, _PARTS, _UNITS, _NUMBERS, _OTHERS)
    for english, german in table.items()
    for word in german.split()
    for written in _ways_to_write(word)
} | {
    f"{day}{part}": (english_day, english_part)
    for english_day, days in _WEEKDAYS.items()
    for day in days.split()
    for english_part, part in (_PARTS | {"morning": "morgen"}).items()
}
_MONTH_NAMES = tuple(list(_MONTHS)[:12])
_ABBREVIATED = frozenset("jan feb mar apr jun jul aug sep sept okt oct nov dez dec".split())
# Before "morgen" these make a morning of it, which else is tomorrow.
_BEFORE_MORNING = frozenset("today yesterday on this the".split()) | _WEEKDAYS.keys()
_GREETINGS = frozenset("guten jeden".split())
# Before "12.3." these make a date of it, which may else be anything.
_BEFORE_FIGURES = frozenset("on the from since until before after and between , - –".split()) | _WEEKDAYS.keys()
_AFTER_ORDINAL = frozenset({"until", "and", "-", "–"}) | _MONTHS.keys() | _ABBREVIATED


def in_english(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of a German text with every word that speaks of dates in English; all others stay as they are.

    English phrases in it stay readable. What one word says in several keeps the place of the one; `vor drei Tagen`
    becomes `three days ago`, and keeps its place as a whole.
    """
    return list(_with_figures(list(_with_ago(list(_word_by_word(tokens))))))


def _word_by_word(tokens: Sequence[Token]) -> Iterator[Token]:
    said = ""
    for at, token in enumerate(tokens):
        following = tokens[at + 1].word if at + 1 < len(tokens) else ""
        words = _ENGLISH.get(token.word, (token.word,))
        if token.word == "morgen":
            words = ("morning" if said in _BEFORE_MORNING or said in _GREETINGS else "tomorrow",)
        elif token.word == "am" and following == "wochenende":
            words = ("on", "the")
        elif token.word == "früh" and said in {"today", "yesterday", "tomorrow", *_WEEKDAYS}:
            words = ("morning",)
        for word in words:
            yield Token(word, token.start, token.end)
        said = words[-1]


def _with_ago(tokens: Sequence[Token]) -> Iterator[Token]:
    """`vor` either counts back from today or stands before a date."""
    at = 0
    while at < len(tokens):
        if tokens[at].word != "vor":
            yield tokens[at]
            at += 1
            continue
        words = [token.word for token in tokens[at + 1 : at + 4]]
        unit = at + 2 + (words[:2] == ["a", "few"])
        is_number = bool(words) and (words[0] in _NUMBERS or words[0].isdigit())
        if not is_number or unit >= len(tokens) or tokens[unit].word not in _UNITS:
            yield tokens[at]._replace(word="before")
            at += 1
            continue
        yield tokens[at + 1]._replace(start=tokens[at].start)
        yield from tokens[at + 2 : unit + 1]
        yield Token("ago", tokens[unit].start, tokens[unit].end)
        at = unit + 1


def _with_figures(tokens: Sequence[Token]) -> Iterator[Token]:
    """Without the points of `3. bis 10. Mai`, and with the month of `12.3.` by its name."""

    def word(place: int) -> str:
        return tokens[place].word if 0 <= place < len(tokens) else ""

    def is_number(place: int) -> bool:
        return word(place).isascii() and word(place).isdigit() and len(word(place)) <= 2

    def is_point(place: int) -> bool:
        return word(place) == "." and tokens[place].start == tokens[place - 1].end

    at = 0
    while at < len(tokens):
        yield tokens[at]
        if is_number(at) and is_point(at + 1):
            whole = at == 0 and len(tokens) == 4
            figures = is_number(at + 2) and is_point(at + 3) and 1 <= int(word(at + 2)) <= 12
            ends = not word(at + 4)[:1].isdigit() or tokens[at + 4].start > tokens[at + 3].end
            if figures and ends and (whole or word(at - 1) in _BEFORE_FIGURES):
                month = _MONTH_NAMES[int(word(at + 2)) - 1]
                yield Token(month, tokens[at + 2].start, tokens[at + 3].end)
                at += 3
            elif word(at + 2) in _AFTER_ORDINAL:
                at += 1
        at += 1
