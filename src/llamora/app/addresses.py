"""Paths of pages, and the converters of the ids and dates in them."""

from collections.abc import Callable
from datetime import date
from typing import Any, Protocol

from quart import Quart
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, Map

from llamora.app.i18n import current_language
from llamora.dates import UnknownDay, parse_day, parse_phrase

TODAY_PATH = "/d/today"


class _Entry(Protocol):
    @property
    def day(self) -> date: ...


class NoSuchAddress(NotFound):
    """A path holds a malformed id or date; `message_code` says of what."""

    def __init__(self, message_code: str) -> None:
        super().__init__()
        self.message_code = message_code


def parse_entry_id(hex_id: str) -> bytes:
    """Return the 16-byte id of an entry for its hex. Raises ValueError."""
    parsed = bytes.fromhex(hex_id)
    if len(parsed) != 16 or parsed.hex() != hex_id:
        raise ValueError("not the id of an entry")
    return parsed


def parse_tag_id(hex_id: str) -> bytes:
    """Return the id of a tag for its hex. Raises ValueError."""
    parsed = bytes.fromhex(hex_id)
    if not parsed or parsed.hex() != hex_id:
        raise ValueError("not the id of a tag")
    return parsed


def parse_month(text: str) -> date:
    """Return the first day of a month such as `2026-11`. Raises ValueError."""
    try:
        return parse_day(f"{text}-01")
    except UnknownDay:
        raise ValueError("not a month") from None


def parse_iso_day(text: str) -> date:
    """Return a day such as `2026-11-20`. Raises ValueError."""
    try:
        return parse_day(text)
    except UnknownDay:
        raise ValueError("not a day") from None


def _hex(value: bytes) -> str:
    return value.hex()


def _month_text(month: date) -> str:
    return month.isoformat()[:7]


# Name of the converter: how to read and write it, and what is missing if that fails.
_CONVERTERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str], str]] = {
    "entry_id": (parse_entry_id, _hex, "entry_not_found"),
    "tag_id": (parse_tag_id, _hex, "tag_not_found"),
    "day": (parse_iso_day, date.isoformat, "day_not_found"),
    "month": (parse_month, _month_text, "month_not_found"),
}


def init_app(app: Quart) -> None:
    """Let routes of `app` take entry and tag ids, days and months in their paths."""
    for name, (parse, write, message_code) in _CONVERTERS.items():
        app.url_map.converters[name] = _converter(parse, write, message_code)


def _converter(
    parse: Callable[[str], Any], write: Callable[[Any], str], message_code: str
) -> type[BaseConverter]:
    class Converter(BaseConverter):
        def __init__(self, url_map: Map) -> None:
            super().__init__(url_map)

        def to_python(self, value: str) -> Any:
            try:
                return parse(value)
            except ValueError:
                raise NoSuchAddress(message_code) from None

        def to_url(self, value: Any) -> str:
            return write(value)

    return Converter


def day_path(day: date) -> str:
    """Return the path of a day's page."""
    return f"/d/{day}"


def entry_path(entry: _Entry, entry_id: bytes | str) -> str:
    """Return the path of an entry on the page of its day."""
    hex_id = entry_id if isinstance(entry_id, str) else entry_id.hex()
    return f"/d/{entry.day}#e-{hex_id}"


def tag_path(tag_id: bytes) -> str:
    """Return the path of a tag's page."""
    return f"/traces/{tag_id.hex()}"


def path_for_date(phrase: str, today: date) -> str:
    """Return the path for a typed date; "" if it is not one.

    A day leads to its page, a longer span to its year or to the month in which it begins.
    """
    # "Friday" and "March" alone are dates here, though not within a sentence.
    for candidate in (phrase, f"on {phrase}", f"in {phrase}"):
        span = parse_phrase(candidate, today, current_language().code)
        if span is None:
            continue
        if span.start == span.end:
            return day_path(span.start)
        start = span.end if span.start == date.min else span.start
        if (span.start, span.end) == (date(start.year, 1, 1), date(start.year, 12, 31)):
            return f"/calendar/{start.year:04}"
        return f"/calendar/{_month_text(start)}"
    return ""
