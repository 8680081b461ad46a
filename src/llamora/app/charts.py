"""Charts for templates to draw as SVG: coordinates are computed here, classes give the colours."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

DAY_PITCH = 13  # chart units from one day to the next
SQUARE_SIDE = 10  # chart units, of a day's square
MAX_LEVEL = 4  # the shade of a day with this many entries or more


@dataclass(slots=True, frozen=True)
class DaySquare:
    """A day with entries: position in chart units, and shade from 1 to MAX_LEVEL."""

    x: int
    y: int
    level: int
    day: date
    count: int


@dataclass(slots=True, frozen=True)
class YearChart:
    """A year by weeks, in chart units.

    `outline` is the SVG path around all its days; `months` are (first day, entries, days with
    entries).
    """

    year: int
    width: int
    height: int
    outline: str
    squares: tuple[DaySquare, ...]
    months: tuple[tuple[date, int, int], ...]
    total: int


def year_chart(days: Mapping[date, int], year: int, week_start: int = 0) -> YearChart:
    """Build the chart of a year from the number of entries per day.

    Weeks are columns and begin on `week_start` (0 is Monday).
    """
    first, last = date(year, 1, 1), date(year, 12, 31)
    leading_days = (first.weekday() - week_start) % 7
    squares: list[DaySquare] = []
    months = [[0, 0] for _ in range(12)]
    for day, count in sorted(days.items()):
        if day.year == year and count:
            column, row = divmod(leading_days + (day - first).days, 7)
            squares.append(
                DaySquare(column * DAY_PITCH, row * DAY_PITCH, min(count, MAX_LEVEL), day, count)
            )
            months[day.month - 1][0] += count
            months[day.month - 1][1] += 1
    last_column, last_row = divmod(leading_days + (last - first).days, 7)
    right, top, bottom = (
        (last_column + 1) * DAY_PITCH,
        leading_days * DAY_PITCH,
        (last_row + 1) * DAY_PITCH,
    )
    outline = (
        f"M{DAY_PITCH if top else 0} 0H{right}V{bottom}H{last_column * DAY_PITCH}V{7 * DAY_PITCH}H0V{top}"
        + (f"H{DAY_PITCH}" if top else "")
        + "Z"
    )
    return YearChart(
        year,
        right - DAY_PITCH + SQUARE_SIDE,
        6 * DAY_PITCH + SQUARE_SIDE,
        outline,
        tuple(squares),
        tuple(
            (first.replace(month=number), entries, on)
            for number, (entries, on) in enumerate(months, 1)
        ),
        sum(entries for entries, _ in months),
    )
