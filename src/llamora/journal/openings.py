"""A new day may open with one short line drawn from the last ones: for who has switched that on, once a day."""

import time
from contextlib import suppress
from datetime import date, timedelta

from llamora.journal.entries import EntryError, Journal
from llamora.journal.reading import find_readable, readable_entries
from llamora.journal.summaries import PreparedPrompt, Summaries, content_hash
from llamora.persistence.connection import StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring

LOOKBACK_DAYS = 14  # days
RETRY_SECONDS = 600.0  # after which a model that was asked and made no line is asked again
MAX_SOURCE_DAYS = 3  # written ones that a line is drawn from


class Openings:
    """Makes the line and gives it out."""

    def __init__(self, db: LocalDB, journal: Journal, summaries: Summaries) -> None:
        self._db = db
        self._journal = journal
        self._summaries = summaries

    async def get_line(self, keys: Keyring, day: date) -> StoredSummary | None:
        """The line of a day, if it has one and all it was drawn from stands as it did."""
        stored = await self._db.summaries.get(keys, "opening", day)
        if stored is None or not stored.text:
            return None
        entries = await find_readable(self._db, keys, stored.sources)
        if stored.content_hash != content_hash(list(entries.values())):
            with suppress(StorageError):  # a full disk keeps nobody from reading
                await self._db.summaries.delete(keys, "opening", day)
            return None
        return stored

    async def is_due(self, keys: Keyring, day: date) -> bool:
        """Whether it makes sense to ask for a line now: a model that was just asked is left alone for a while."""
        stored = await self._db.summaries.get(keys, "opening", day)
        return stored is None or not _is_asked_recently(stored)

    async def generate_line(
        self, keys: Keyring, today: date, endpoint: str = ""
    ) -> StoredSummary | None:
        """The line for today, made now unless it is there or on its way; None when the last days are empty or change.

        That it is asked for is stored first, as a line without words, so that no other worker asks too.
        Raises ModelError and StorageError.
        """
        if (stored := await self.get_line(keys, today)) is not None:
            return stored
        entries = await self._recent_entries(keys, today)
        placeholder = StoredSummary("opening", today, "", (), str(int(time.time())), "")
        if not entries or not await self._db.summaries.save_unless(
            keys, placeholder, lambda existing: bool(existing.text) or _is_asked_recently(existing)
        ):
            return None
        try:
            return await self._summaries.generate(keys, "opening", today, entries, endpoint)
        except EntryError:  # one of them was changed meanwhile: the next look makes it anew
            await self._db.summaries.delete(keys, "opening", today)
            return None

    async def preview(self, keys: Keyring, today: date, endpoint: str = "") -> PreparedPrompt:
        """What would be sent for today's line, exactly. Raises EntryError where there is nothing, ModelError."""
        return await self._summaries.preview_line(
            "opening", today, await self._recent_entries(keys, today), endpoint
        )

    async def _recent_entries(self, keys: Keyring, today: date) -> list[Entry]:
        """What was written on the last days that have something on them, oldest first."""
        entries: list[Entry] = []
        days = [
            today - timedelta(days_ago)
            for days_ago in range(1, LOOKBACK_DAYS + 1)
            if today.toordinal() > days_ago
        ]
        written = await self._journal.find_written_days(keys, days)
        for day in sorted(written, reverse=True)[:MAX_SOURCE_DAYS]:
            entries += readable_entries(await self._journal.get_page(keys, day))
        return sorted(entries, key=lambda entry: (entry.at, entry.id))


def _is_asked_recently(stored: StoredSummary) -> bool:
    return not stored.text and 0 <= time.time() - int(stored.content_hash) < RETRY_SECONDS
