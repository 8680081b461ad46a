"""Days, zones and date phrases. A date is the user's own: a day in the zone they write in.

Pure but for :func:`utc_now`. Nothing here reads a locale: output is English, and weeks start on
Monday.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from llamora.dates.phrases import parse_phrase as parse_phrase
from llamora.dates.spans import DateRange as DateRange
from llamora.dates.words import MONTHS, WEEKDAYS

_DAY = timedelta(days=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_ISO_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+)*")
# Files of the zone database that are not zones.
_NOT_ZONES = frozenset({"Factory", "localtime", "posixrules"})


class UnknownZone(ValueError):
    """The text is no name of an IANA time zone."""


class UnknownDay(ValueError):
    """The text is no day written as 2026-11-20."""


def utc_now() -> datetime:
    """Return the present instant, aware, in UTC."""
    return datetime.now(UTC)


def parse_zone(name: str) -> ZoneInfo:
    """Return the IANA zone of this name, such as `Europe/Vienna`. Raise :class:`UnknownZone`."""
    # The pattern keeps the name from being a path; len keeps it from being a long one.
    if len(name) > 64 or name in _NOT_ZONES or not _ZONE_NAME.fullmatch(name):
        raise UnknownZone("this is not the name of a time zone")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UnknownZone("this is not the name of a time zone") from None


@cache
def _zone_names() -> tuple[str, ...]:
    return tuple(sorted(available_timezones() - _NOT_ZONES))


def zone_names() -> list[str]:
    """Return every IANA name known here, sorted. The zone database is read once."""
    return list(_zone_names())


def day_of(instant: datetime, zone: ZoneInfo, ends_at: int = 0) -> date:
    """Return the day of this aware instant by a clock in `zone`.

    A day lasts until the clock shows `ends_at` hours of the next one.
    """
    try:
        return (instant.astimezone(zone).replace(tzinfo=None) - timedelta(hours=ends_at)).date()
    except OverflowError:
        return instant.date()


def day_edges(day: date, zone: ZoneInfo, ends_at: int = 0) -> tuple[datetime, datetime]:
    """Return the first instants of the day and of the next, in UTC, usually 23 to 25 hours apart.

    Days end `ends_at` hours after midnight; what follows holds of that hour too.

    Where midnight does not exist the day starts when the clock jumps over it. A day the zone
    skipped whole has both edges at the same instant. Where midnight comes twice the first counts,
    so that the edges of neighbouring days always meet. At the ends of the calendar the edge is that
    of `datetime`.
    """
    end = _LATEST if day == date.max else _day_start(day + _DAY, zone, ends_at)
    return _day_start(day, zone, ends_at), end


def _day_start(day: date, zone: ZoneInfo, hour: int) -> datetime:
    midnight = datetime.combine(day, time(hour))
    try:
        start = midnight.replace(tzinfo=zone).astimezone(UTC)
        if start.astimezone(zone).replace(tzinfo=None) == midnight:
            return start
        # Midnight lies in a gap. Read with the offset after the gap (fold=1) it is before the jump,
        # with the one before the gap (fold=0) it is at or after it: the jump is what lies between.
        before = midnight.replace(tzinfo=zone, fold=1).astimezone(UTC)
        seconds = round((start - before).total_seconds())
        low = 0
        while low < seconds:
            middle = (low + seconds) // 2
            if (before + timedelta(seconds=middle)).astimezone(zone).replace(
                tzinfo=None
            ) < midnight:
                low = middle + 1
            else:
                seconds = middle
        return before + timedelta(seconds=low)
    except OverflowError:
        return _EARLIEST if day.year == 1 else _LATEST


def parse_day(text: str) -> date:
    """Return a day written as `2026-11-20`, years 0001 to 9999. Raise :class:`UnknownDay`."""
    match = _ISO_DAY.fullmatch(text)
    if match is None:
        raise UnknownDay("a day is written like 2026-11-20")
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        raise UnknownDay("there is no such day in the calendar") from None


def format_day(day: date) -> str:
    """Return the day as `20 November 2026`."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def format_weekday(day: date) -> str:
    """Return the day's name, such as `Friday`."""
    return WEEKDAYS[day.weekday()]


def format_time(instant: datetime, zone: ZoneInfo) -> str:
    """Return the time as a clock in `zone` shows it: `7:42` or `19:42`."""
    try:
        local = instant.astimezone(zone)
    except OverflowError:
        local = instant
    return f"{local.hour}:{local.minute:02d}"
