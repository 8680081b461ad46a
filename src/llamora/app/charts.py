"""Charts as templates draw them in SVG: places reckoned here, colours by class, so that no style stands in a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

DAY_PITCH = 13  # units from one day to the next
SQUARE_SIDE = 10  # of the square that is a day
MAX_LEVEL = 4  # so many entries on a day, or more


@dataclass(slots=True, frozen=True)
class DaySquare:
    """A day with something on it: where it stands, how dark it is (1 to DARKEST)."""

    x: int
    y: int
    level: int
    day: date
    count: int


@dataclass(slots=True, frozen=True)
class YearChart:
    """A year by weeks. `outline` is the SVG path around all of its days; `months` are (first day, entries, days)."""

    year: int
    width: int
    height: int
    outline: str
    squares: tuple[DaySquare, ...]
    months: tuple[tuple[date, int, int], ...]
    total: int


def year_chart(days: Mapping[date, int], year: int, week_start: int = 0) -> YearChart:
    """The chart of how many entries the days of a year have; weeks are columns and begin on `week_start` (Monday 0)."""
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
