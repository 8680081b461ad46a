"""The languages of the interface: their catalogues, dates, numbers and lists.

Text of templates and routes is marked with `_` or `ngettext`. Errors and stored notices carry a
code and parameters, which `describe` turns into a sentence where they are shown.
`scripts/translations.py` collects both into `translations/<code>.po`; the files are read at
startup, so nothing has to be compiled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time, get_day_names
from babel.lists import format_list
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import NullTranslations, Translations
from markupsafe import Markup
from quart import current_app, g, has_request_context, request

from llamora import dates
from llamora.errors import Notice, Problem
from llamora.messages import MESSAGES

EXTENSION = "llamora.i18n"
CATALOGUE_FOLDER = Path(__file__).parent / "translations"


@dataclass(frozen=True, slots=True)
class Language:
    """A language: its BCP 47 code, its own name, its direction (ltr or rtl) and its catalogue.

    `markup_cache` holds the messages that templates showed, since a page asks for the same few
    hundreds of times.
    """

    code: str
    name: str
    direction: str
    locale: Locale
    catalogue: NullTranslations
    markup_cache: dict[str, Markup] = field(default_factory=dict[str, Markup])


def _language(code: str, catalogue: Catalog | None = None) -> Language:
    locale = Locale.parse(code, sep="-")
    name = locale.get_display_name(code.replace("-", "_")) or code
    direction = "rtl" if locale.character_order == "right-to-left" else "ltr"
    if catalogue is None:
        return Language(code, name, direction, locale, NullTranslations())
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Language(code, name, direction, locale, Translations(compiled))


ENGLISH = _language("en")


def load(folder: Path = CATALOGUE_FOLDER) -> dict[str, Language]:
    """Load every language with a catalogue in `folder`, by code; English needs none."""
    languages = {"en": ENGLISH}
    for file in sorted(folder.glob("*.po")):
        with file.open("rb") as source:
            languages[file.stem] = _language(
                file.stem, read_po(source, locale=file.stem.replace("-", "_"))
            )
    return languages


def available_languages() -> Mapping[str, Language]:
    """Return the languages of the app that serves the current request, by code."""
    return cast("dict[str, Language]", current_app.extensions[EXTENSION])


def current_language() -> Language:
    """Return the language of this request.

    The first of: what the user chose, what their browser asks for, English. English outside a
    request.
    """
    if not has_request_context():
        return ENGLISH
    if "language" not in g:
        best_match = request.accept_languages.best_match(list(available_languages()))
        g.language = available_languages().get(best_match or "", ENGLISH)
    return cast(Language, g.language)


def set_language(code: str) -> None:
    """Set the language of this request; an empty or unknown code leaves it to the browser."""
    g.pop("language", None)
    if code in available_languages():
        g.language = available_languages()[code]


def gettext(message: str) -> str:
    """Translate a message into the language of this request."""
    return current_language().catalogue.gettext(message)


def ngettext(singular: str, plural: str, number: int) -> str:
    """Translate a message whose form depends on `number`; placeholders are left to the caller."""
    return current_language().catalogue.ngettext(singular, plural, number)


def gettext_markup(message: str, /, **values: object) -> Markup:
    """Translate a message for a template, escaping `values`."""
    language = current_language()
    if values:
        return _markup(language.catalogue.gettext(message)) % values
    markup = language.markup_cache.get(message)
    if markup is None:
        markup = language.markup_cache[message] = _markup(language.catalogue.gettext(message)) % {}
    return markup


def ngettext_markup(singular: str, plural: str, num: int, /, **values: object) -> Markup:
    """Translate a message whose form depends on `num` for a template, escaping `values`."""
    return _markup(current_language().catalogue.ngettext(singular, plural, num)) % {
        "num": num,
        **values,
    }


def _markup(message: str) -> Markup:
    return Markup(message)  # noqa: S704 - from a catalogue of ours or a template


def gettext_noop(*messages: str) -> tuple[str, ...]:
    """Mark messages for translation where they are defined; translate them where they are shown."""
    return messages


def describe(what: Problem | Notice | str | None) -> str:
    """Translate a problem, a notice or a code without parameters; return "" for none.

    Parameters are put in unescaped and may be the words of a user: escape the sentence in HTML.
    """
    if not what:
        return ""
    code, params = (what, {}) if isinstance(what, str) else (what.code, what.params)
    return gettext(MESSAGES[code]).format_map(params)


# -- dates and numbers -----------------------------------------------------------------------------


def day_words(day: date) -> str:
    """Format a day: `20 November 2026`."""
    return (
        dates.format_day(day)
        if _is_english()
        else format_date(day, "long", current_language().locale)
    )


def short_day(day: date) -> str:
    """Format a day without its year if that is the user's current one: `20 November`."""
    this_year = has_request_context() and g.get("year") == day.year
    return _without_year(day) if this_year else day_words(day)


def _without_year(day: date) -> str:
    return (
        day_words(day).rsplit(" ", 1)[0] if _is_english() else _format_with_skeleton("MMMMd", day)
    )


def range_words(first: date, last: date) -> str:
    """Format a range of days: `1 November – 20 November 2026`, or one day if both are equal."""
    if first == last:
        return day_words(first)
    return f"{_without_year(first) if first.year == last.year else day_words(first)} – {day_words(last)}"


def weekday(day: date) -> str:
    """Format the weekday of a day: `Friday`."""
    return (
        dates.format_weekday(day)
        if _is_english()
        else format_date(day, "EEEE", current_language().locale)
    )


def full_day(day: date) -> str:
    """Format a day with its weekday: `Friday 20 November 2026`."""
    return (
        f"{weekday(day)} {day_words(day)}"
        if _is_english()
        else format_date(day, "full", current_language().locale)
    )


def month_words(day: date) -> str:
    """Format the month of a day: `November 2026`."""
    return day_words(day).split(" ", 1)[1] if _is_english() else _format_with_skeleton("yMMMM", day)


def month_name(day: date) -> str:
    """Format the month of a day without its year: `November`."""
    return format_date(day, "LLLL", current_language().locale)


def month_short(day: date) -> str:
    """Format the month of a day for a chart: `Nov`."""
    return format_date(day, "LLL", locale=current_language().locale).strip(".")


def weekday_names(first: int = 0) -> list[tuple[str, str]]:
    """Return (full, short) names of the days of the week, beginning with `first` (0 is Monday)."""
    full = get_day_names("wide", "stand-alone", current_language().locale)
    short = get_day_names("short", "stand-alone", current_language().locale)
    return [
        (full[number], short[number].rstrip(".")) for number in (*range(first, 7), *range(first))
    ]


def time_words(instant: datetime, zone: ZoneInfo) -> str:
    """Format the time in `zone`: `7:42` and `19:42`, or `7:42 pm` if the user wants 12 hours."""
    try:
        local = instant.astimezone(zone)
    except OverflowError:
        local = instant
    return time_of_day_words(
        local.time(), twelve_hours=has_request_context() and bool(g.get("twelve_hours"))
    )


def time_of_day_words(time_of_day: time, *, twelve_hours: bool = False) -> str:
    """Format a time of day: `19:42`, or `7:42 pm` as the language writes it."""
    if not twelve_hours:
        return f"{time_of_day.hour}:{time_of_day.minute:02d}"
    words = format_time(time_of_day, "h:mm a", locale=current_language().locale)
    return words.lower() if _is_english() else words


def number_words(number: float, digits: int = 0) -> str:
    """Format a number with `digits` decimal places and the separators of the language."""
    return format_decimal(
        round(number, digits),
        "#,##0" + "." * bool(digits) + "0" * digits,
        current_language().locale,
    )


def join_list(words: list[str]) -> str:
    """Join words into a list: `one, two and three`."""
    if _is_english():
        return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
    return format_list(words, locale=current_language().locale)


def _format_with_skeleton(skeleton: str, day: date) -> str:
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 -- a day, of no zone
    return format_skeleton(skeleton, midnight, locale=current_language().locale)


def _is_english() -> bool:
    return current_language().code == "en"
