"""Charts as templates draw them in SVG: places reckoned here, colours by class, so that no style stands in a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

PITCH = 13  # units from one day to the next
SIDE = 10  # of the square that is a day
DARKEST = 4  # so many entries on a day, or more


@dataclass(slots=True, frozen=True)
class Square:
    """A day with something on it: where it stands, how dark it is (1 to DARKEST)."""

    x: int
    y: int
    level: int
    day: date
    count: int


@dataclass(slots=True, frozen=True)
class Year:
    """A year by weeks. `outline` is the SVG path around all of its days; `months` are (first day, entries, days)."""

    year: int
    width: int
    height: int
    outline: str
    squares: tuple[Square, ...]
    months: tuple[tuple[date, int, int], ...]
    total: int


def year_of(days: Mapping[date, int], year: int, week_start: int = 0) -> Year:
    """The chart of how many entries the days of a year have; weeks are columns and begin on `week_start` (Monday 0)."""
    first, last = date(year, 1, 1), date(year, 12, 31)
    lead = (first.weekday() - week_start) % 7
    squares: list[Square] = []
    months = [[0, 0] for _ in range(12)]
    for day, count in sorted(days.items()):
        if day.year == year and count:
            column, row = divmod(lead + (day - first).days, 7)
            squares.append(Square(column * PITCH, row * PITCH, min(count, DARKEST), day, count))
            months[day.month - 1][0] += count
            months[day.month - 1][1] += 1
    end, below = divmod(lead + (last - first).days, 7)
    right, top, bottom = (end + 1) * PITCH, lead * PITCH, (below + 1) * PITCH
    outline = (
        f"M{PITCH if top else 0} 0H{right}V{bottom}H{end * PITCH}V{7 * PITCH}H0V{top}"
        + (f"H{PITCH}" if top else "")
        + "Z"
    )
    return Year(
        year,
        right - PITCH + SIDE,
        6 * PITCH + SIDE,
        outline,
        tuple(squares),
        tuple((first.replace(month=number), entries, on) for number, (entries, on) in enumerate(months, 1)),
        sum(entries for entries, _ in months),
    )
