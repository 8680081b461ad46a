"""The earlier versions of entries."""

from dataclasses import dataclass

from llamora.journal.entries import Journal
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.versions import Version
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Versions:
    """List and restore what an entry was before its edits."""

    _db: LocalDB
    _journal: Journal

    async def list_for_entry(self, keys: Keyring, entry_id: bytes) -> list[Version]:
        """List the earlier versions of an entry, newest first.

        Raises NotFound for a missing or deleted entry.
        """
        await self._journal.get(keys, entry_id)
        return await self._db.versions.list_for_entry(keys, entry_id)

    async def restore(
        self, keys: Keyring, entry_id: bytes, version_id: bytes, revision: int
    ) -> Entry:
        """Replace the text that an entry has at `revision` with that of an earlier version.

        This is an edit like any other. Raises as `Journal.edit`, and NotFound.
        """
        version = await self._db.versions.get(keys, entry_id, version_id)
        return await self._journal.edit(keys, entry_id, version.text, revision)
