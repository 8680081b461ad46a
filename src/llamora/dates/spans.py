"""Spans of days and the arithmetic of the calendar that date phrases need."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DateRange:
    """The days from `start` to `end`, both included, and the piece of text that named them."""

    start: date
    end: date
    matched: str


class Span(NamedTuple):
    """The days `start` .. `end`, named by the tokens before `stop`.

    `inferred` is what the text left open: the year, the week, or nothing.
    """

    start: date
    end: date
    stop: int
    inferred: str = ""


def month_end(year: int, month: int) -> date:
    """Return the last day of a month."""
    return date(year, month, monthrange(year, month)[1])


def month_range(year: int, month: int, count: int = 1) -> tuple[date, date]:
    """Return the first and last day of `count` months from this one.

    `month` may lie outside 1 .. 12.
    """
    first = year * 12 + month - 1
    last = first + count - 1
    return date(first // 12, first % 12 + 1, 1), month_end(last // 12, last % 12 + 1)


def calendar_unit(today: date, unit: str, shift: int) -> tuple[date, date]:
    """Return the day, ISO week, month or year `shift` units from today's."""
    if unit == "day":
        return today + shift * DAY, today + shift * DAY
    if unit == "week":
        monday = today - today.weekday() * DAY + 7 * shift * DAY
        return monday, monday + 6 * DAY
    if unit == "month":
        return month_range(today.year, today.month + shift)
    return month_range(today.year + shift, 1, 12)


def rolling_range(today: date, unit: str, count: int) -> tuple[date, date]:
    """Return the time between today and `count` units before (or, negative, after) today."""
    if unit in {"day", "week"}:
        other = today - count * (7 if unit == "week" else 1) * DAY
    else:
        months = today.year * 12 + today.month - 1
        months -= count * {"month": 1, "year": 12}[unit]
        year, month = months // 12, months % 12 + 1
        other = min(today.day, month_end(year, month).day)
        other = date(year, month, other)
    return min(other, today), max(other, today)


def relative_months(today: date, modifier: str, month: int, count: int) -> tuple[date, date]:
    """Return the month or season that is over, the one of this year, or the one to come."""
    year = today.year + 1
    spans = [month_range(year - years_back, month, count) for years_back in range(4)]
    if modifier == "next":
        start, end = min(span for span in spans if span[0] > today)
    elif modifier == "this":
        running = [span for span in spans if span[0] <= today <= span[1]]
        start, end = running[0] if running else month_range(today.year, month, count)
    else:
        start, end = max(span for span in spans if span[1] < today)
    return start, end


def latest_date(today: date, month: int, day: int) -> date:
    """Return the latest such day not after today. Raise ValueError when there is none."""
    for year in range(today.year, max(today.year - 9, 0), -1):
        if day <= month_end(year, month).day and date(year, month, day) <= today:
            return date(year, month, day)
    raise ValueError


def join_spans(left: Span, right: Span) -> Span:
    """Join two spans; what one of them leaves open follows from the other."""
    if left.inferred == "year" and right.inferred != "year":
        left = _shift_years(left, right.start.year - left.start.year)
    elif right.inferred == "year" and left.inferred != "year":
        right = _shift_years(right, left.start.year - right.start.year)
        if right.end < left.start:
            right = _shift_years(right, 1)
    if left.start > right.start and left.inferred == "year":
        left = _shift_years(left, -1)
    elif left.start > right.start and left.inferred == "week":
        left = left._replace(start=left.start - 7 * DAY)
    return Span(left.start, right.end, right.stop, left.inferred and right.inferred)


def _shift_years(span: Span, years: int) -> Span:
    start = span.start.replace(year=span.start.year + years)
    if span.start == span.end:
        return span._replace(start=start, end=start)
    return span._replace(start=start, end=month_end(span.end.year + years, span.end.month))
