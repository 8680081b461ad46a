"""Look back at the same date in earlier years."""

from collections.abc import Iterator
from datetime import date

from llamora.journal.entries import Journal
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring

MAX_YEARS = 130  # longer than any life


def anniversaries(day: date) -> Iterator[date]:
    """Yield the days of earlier years with the date of `day`, latest first.

    In a year without 29 February the 28th stands for it, as it would otherwise recur only every
    fourth year. At most MAX_YEARS years are covered.
    """
    dates = [(day.month, day.day)]
    if dates == [(2, 28)] and not _is_leap(day.year):
        dates.insert(0, (2, 29))
    for year in range(day.year - 1, max(0, day.year - 1 - MAX_YEARS), -1):
        for month, day_of_month in dates:
            if (month, day_of_month) != (2, 29) or _is_leap(year):
                yield date(year, month, day_of_month)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


async def list_on_this_day(db: LocalDB, journal: Journal, keys: Keyring, day: date) -> list[Entry]:
    """Return the first readable entry of the same date in each earlier year, latest first.

    Raises StorageError.
    """
    first_entries: list[Entry] = []
    for earlier_day in sorted(await db.entries.ids_by_day(keys, anniversaries(day)), reverse=True):
        for thread in await journal.get_page(keys, earlier_day):
            if thread.root.state != "unreadable":
                first_entries.append(thread.root)
                break
    return first_entries
