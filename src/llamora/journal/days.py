"""The pages of days: what stands on one, and which have anything on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b

from llamora.journal.context import UserContext
from llamora.journal.drafts import Drafts
from llamora.journal.entries import Journal
from llamora.journal.openings import Openings
from llamora.journal.summaries import Summaries
from llamora.journal.threads import Thread
from llamora.journal.years import list_on_this_day
from llamora.llm.model import Model
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.summaries import StoredSummary
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class DayPage:
    """A day with what belongs to it.

    `is_first`: the journal has no entry yet. `is_opening_due`: an opening line may be requested.
    """

    day: date
    threads: list[Thread]
    draft: Draft | None
    on_this_day: list[Entry]
    is_first: bool
    opening: StoredSummary | None = None
    is_opening_due: bool = False
    summary: StoredSummary | None = None


@dataclass(slots=True, frozen=True)
class Days:
    """Read the pages of days; no model is asked."""

    _db: LocalDB
    _journal: Journal
    _drafts: Drafts
    _summaries: Summaries
    _openings: Openings
    _model: Model

    async def get(self, user: UserContext, day: date) -> DayPage:
        keys, draft_key = user.keys, day_draft_key(day)
        threads = await self._journal.get_page(keys, day)
        opening, summary, is_due = None, None, False
        if user.profile.replies:
            summary = await self._summaries.get_day_summary(keys, day, threads)
            if user.profile.openings:
                opening = await self._openings.get_line(keys, day)
                is_due = (
                    day == user.today
                    and opening is None
                    and await self._openings.is_due(keys, day)
                    and not self._model.unavailable_reason(user.endpoint)
                )
        return DayPage(
            day,
            threads,
            (await self._drafts.get_many(keys, [draft_key])).get(draft_key),
            await list_on_this_day(self._db, self._journal, keys, day),
            not threads and not (await self._db.entries.fingerprint(keys.user_id))[0],
            opening,
            is_due,
            summary,
        )

    async def read(
        self, keys: Keyring, days: Sequence[date]
    ) -> tuple[str, list[tuple[date, list[Thread]]]]:
        """Return the fingerprint of days, and the threads of those that have any, in order.

        Raises StorageError.
        """
        fingerprint = await self.get_fingerprint(keys, days)  # first, so no later change is missed
        stored = sorted(await self._db.entries.ids_by_day(keys, days))
        pages = [(day, await self._journal.get_page(keys, day)) for day in stored]
        return fingerprint, [(day, threads) for day, threads in pages if threads]

    async def get_fingerprint(self, keys: Keyring, days: Sequence[date]) -> str:
        """Return a hash that changes with any entry of these days and with any tag."""
        revisions = sorted((await self._db.entries.revisions_on(keys, days)).items())
        state = (revisions, await self._db.tags.get_revision(keys.user_id))
        return blake2b(repr(state).encode(), digest_size=8).hexdigest()
