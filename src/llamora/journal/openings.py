"""Open a new day with a short line drawn from recent ones, for users who enabled it."""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta

from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError, Journal
from llamora.journal.reading import find_readable, readable_entries
from llamora.journal.summaries import PreparedPrompt, Summaries, content_hash
from llamora.persistence.connection import StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring

LOOKBACK_DAYS = 14
RETRY_SECONDS = 600.0  # after a request that produced no line
MAX_SOURCE_DAYS = 3  # days with entries that a line is drawn from


@dataclass(slots=True, frozen=True)
class Openings:
    """Generate and retrieve opening lines."""

    _db: LocalDB
    _journal: Journal
    _summaries: Summaries

    async def get_line(self, keys: Keyring, day: date) -> StoredSummary | None:
        """Return the line of a day, or None if there is none or one of its sources has changed.

        A line whose sources have changed is deleted.
        """
        stored = await self._db.summaries.get(keys, "opening", day)
        if stored is None or not stored.text:
            return None
        entries = await find_readable(self._db, keys, stored.sources)
        if stored.content_hash != content_hash(list(entries.values())):
            with suppress(StorageError):  # a full disk must not prevent reading
                await self._db.summaries.delete(keys, "opening", day)
            return None
        return stored

    async def is_due(self, keys: Keyring, day: date) -> bool:
        """Return True if the line of a day may be requested now.

        That is not so within RETRY_SECONDS of a request that has produced no line.
        """
        stored = await self._db.summaries.get(keys, "opening", day)
        return stored is None or not _is_asked_recently(stored)

    async def generate_line(self, user: UserContext) -> StoredSummary | None:
        """Return today's line, generated now unless it exists.

        Returns None for users who have not turned lines on.
        The request is first stored as a line without text, so that no other worker makes it too.
        Returns None, too, if another one is under way, or if the last days are empty or change
        meanwhile. Raises ModelError and StorageError.
        """
        if not (user.profile.replies and user.profile.openings):
            return None
        keys, today = user.keys, user.today
        if (stored := await self.get_line(keys, today)) is not None:
            return stored
        entries = await self._recent_entries(keys, today)
        placeholder = StoredSummary("opening", today, "", (), str(int(time.time())), "")
        if not entries or not await self._db.summaries.save_unless(
            keys, placeholder, lambda existing: bool(existing.text) or _is_asked_recently(existing)
        ):
            return None
        try:
            return await self._summaries.generate(user, "opening", today, entries)
        except EntryError:  # an entry changed meanwhile: the next request starts over
            await self._db.summaries.delete(keys, "opening", today)
            return None

    async def preview(self, user: UserContext) -> PreparedPrompt:
        """Return the exact prompt of today's line.

        Raises EntryError if the last days are empty, and ModelError.
        """
        entries = await self._recent_entries(user.keys, user.today)
        return await self._summaries.preview_line(user, "opening", user.today, entries)

    async def _recent_entries(self, keys: Keyring, today: date) -> list[Entry]:
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
