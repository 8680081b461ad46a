"""Withhold entries from the model."""

from dataclasses import dataclass

from msgspec.structs import replace

from llamora.journal.entries import MAX_RETRIES, Journal
from llamora.journal.live import SOURCE_WITHHELD
from llamora.journal.replies import Replies
from llamora.journal.threads import descendants_of, require_none_below
from llamora.persistence.connection import AlreadyExists, StaleRevision
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Withholding:
    """Withhold entries from the model; `reading` keeps what is withheld out of every prompt."""

    _db: LocalDB
    _journal: Journal
    _search: SearchService
    _replies: Replies

    async def set_withheld(self, keys: Keyring, entry_id: bytes, *, withheld: bool) -> Entry:
        """Withhold an entry and everything below it from the model, or release them.

        Replies that are being generated from it end. Raises NotFound and StorageError.
        """
        await self._journal.get(keys, entry_id)  # also checks whose it is
        if withheld:
            self._replies.cancel_for([entry_id], SOURCE_WITHHELD)
        for _ in range(MAX_RETRIES):
            entry = await self._journal.get(keys, entry_id)
            known_ids = (await self._db.entries.revisions_on(keys, [entry.day])).keys()
            descendants = descendants_of(
                entry_id, (await self._journal.get_thread(keys, entry_id)).descendants
            )
            step = require_none_below(self._db, keys, entry.day, known_ids, (entry, *descendants))
            try:
                changed = [
                    replace(e, withheld=withheld)
                    for e in (entry, *descendants)
                    if e.withheld != withheld
                ]
                stored = await self._db.entries.update_all(keys, changed, [step])
            except (StaleRevision, AlreadyExists):
                continue  # a message was added to the thread meanwhile
            for other in stored:
                self._search.put(keys, other)
            return replace(entry, withheld=withheld)
        raise StaleRevision("entry_busy")
