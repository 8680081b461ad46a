"""Earlier texts of edited entries, one sealed record for each text that was replaced."""

import secrets
from datetime import datetime

import msgspec

from llamora.persistence.connection import Connections, NotFound, Step, Transaction
from llamora.persistence.schema import VERSIONS
from llamora.persistence.table import SealedTable, values_of
from llamora.vault.keys import Keyring


class Version(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text that an entry had before.

    `at` is when it was written (UTC), `revision` the entry's revision while it stood.
    """

    id: bytes
    entry_id: bytes
    text: str
    at: datetime
    revision: int


class Versions:
    """The store of earlier texts, reached as `db.versions`."""

    def __init__(self, connections: Connections) -> None:
        self._table = SealedTable(connections, VERSIONS, Version)

    def saving_version(self, keys: Keyring, version: Version) -> Step:
        """Return the step that stores the text which the same transaction replaces."""

        async def save(tx: Transaction) -> None:
            # The id is the form token of the edit; a form that was sent twice brings it twice.
            if not await self._insert(tx, keys, version):
                new_id = secrets.token_bytes(16)
                await self._insert(tx, keys, msgspec.structs.replace(version, id=new_id))

        return save

    async def list_for_entry(self, keys: Keyring, entry_id: bytes) -> list[Version]:
        """Return the earlier texts of an entry, newest first.

        Unreadable ones are left out, and those that were moved here from another entry.
        """
        versions = values_of(await self._table.fetch(keys, "entry_id=?", entry_id))
        return sorted(
            (version for version in versions if version.entry_id == entry_id),
            key=lambda version: (version.revision, version.at),
            reverse=True,
        )

    async def get(self, keys: Keyring, entry_id: bytes, version_id: bytes) -> Version:
        """Return one earlier text of this entry. Raise NotFound."""
        for version in await self.list_for_entry(keys, entry_id):
            if version.id == version_id:
                return version
        raise NotFound("version_not_found")

    async def _insert(self, tx: Transaction, keys: Keyring, version: Version) -> bool:
        row = self._table.seal(keys, version.id, 1, version, entry_id=version.entry_id)
        return await self._table.insert(tx, row)
