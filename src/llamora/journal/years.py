"""Looking back: what stands on the same date of earlier years."""

from collections.abc import Iterator
from datetime import date

from llamora.journal.entries import Journal
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring

MAX_YEARS = 130  # looked back: longer than any life


def anniversaries(day: date) -> Iterator[date]:
    """The days of earlier years with the date of `day`, the latest first.

    A 29 February comes back on the 28th of a year that has none: else it would come back every fourth year only.
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
    """How the pages of the same date in earlier years begin, the latest first; what does not open is left out.

    Raises StorageError.
    """
    first_entries: list[Entry] = []
    for earlier_day in sorted(await db.entries.ids_by_day(keys, anniversaries(day)), reverse=True):
        for thread in await journal.get_page(keys, earlier_day):
            if thread.root.state != "unreadable":
                first_entries.append(thread.root)
                break
    return first_entries
