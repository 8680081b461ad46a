"""A new day may open with one short line drawn from the last ones: for who has switched that on, once a day."""

import time
from contextlib import suppress
from datetime import date, timedelta

from llamora.journal.entries import EntryError, Journal
from llamora.journal.summaries import Asked, Digests, made_of, readable
from llamora.persistence.connection import StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring

LOOK_BACK = 14  # days
AGAIN_SECONDS = 600.0  # after which a model that was asked and made no line is asked again
DAYS = 3  # written ones that a line is drawn from


class Openings:
    """Makes the line and gives it out."""

    def __init__(self, db: LocalDB, journal: Journal, digests: Digests) -> None:
        self._db = db
        self._journal = journal
        self._digests = digests

    async def line(self, keys: Keyring, day: date) -> StoredSummary | None:
        """The line of a day, if it has one and all it was drawn from stands as it did."""
        kept = await self._db.summaries.get(keys, "opening", day)
        if kept is None or not kept.text:
            return None
        entries = await self._db.entries.get_many(keys, kept.sources)
        if kept.content_hash != made_of([e for e in entries if e.deleted is None and not e.withheld]):
            with suppress(StorageError):  # a full disk keeps nobody from reading
                await self._db.summaries.delete(keys, "opening", day)
            return None
        return kept

    async def due(self, keys: Keyring, day: date) -> bool:
        """Whether it makes sense to ask for a line now: a model that was just asked is left alone for a while."""
        kept = await self._db.summaries.get(keys, "opening", day)
        return kept is None or not _asked_lately(kept)

    async def make(self, keys: Keyring, today: date, endpoint: str = "") -> StoredSummary | None:
        """The line for today, made now unless it is there or on its way; None when the last days are empty or change.

        That it is asked for is stored first, as a line without words, so that no other worker asks too.
        Raises ModelError and StorageError.
        """
        if (kept := await self.line(keys, today)) is not None:
            return kept
        entries = await self._last(keys, today)
        asked = StoredSummary("opening", today, "", (), str(int(time.time())), "")
        if not entries or not await self._db.summaries.save_unless(
            keys, asked, lambda d: bool(d.text) or _asked_lately(d)
        ):
            return None
        try:
            return await self._digests.say(keys, "opening", today, entries, endpoint)
        except EntryError:  # one of them was changed meanwhile: the next look makes it anew
            await self._db.summaries.delete(keys, "opening", today)
            return None

    async def preview(self, keys: Keyring, today: date, endpoint: str = "") -> Asked:
        """What would be sent for today's line, exactly. Raises EntryError where there is nothing, ModelError."""
        return await self._digests.would_say("opening", today, await self._last(keys, today), endpoint)

    async def _last(self, keys: Keyring, today: date) -> list[Entry]:
        """What was written on the last days that have something on them, oldest first."""
        found: list[Entry] = []
        days = [today - timedelta(back) for back in range(1, LOOK_BACK + 1) if today.toordinal() > back]
        written = await self._journal.written_days(keys, days)
        for day in sorted(written, reverse=True)[:DAYS]:
            found += readable(await self._journal.page(keys, day))
        return sorted(found, key=lambda entry: (entry.at, entry.id))


def _asked_lately(kept: StoredSummary) -> bool:
    return not kept.text and 0 <= time.time() - int(kept.content_hash) < AGAIN_SECONDS
