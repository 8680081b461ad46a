"""Earlier texts of edited entries, one sealed record for each text that was replaced."""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound, Row, Step, Transaction
from llamora.persistence.entries import encode_record, from_micros, rowid_for, to_micros
from llamora.persistence.schema import VERSIONS
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Version:
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
        self._db = connections

    def saving_version(self, keys: Keyring, version: Version) -> Step:
        """Return the step that stores the text which the same transaction replaces."""

        async def save(tx: Transaction) -> None:
            # The id is the form token of the edit; a form that was sent twice brings it twice.
            if not await self._insert(tx, keys, version, version.id):
                await self._insert(tx, keys, version, secrets.token_bytes(16))

        return save

    async def list_for_entry(self, keys: Keyring, entry_id: bytes) -> list[Version]:
        """Return the earlier texts of an entry, newest first; unreadable ones are left out."""
        rows = await self._db.fetch(
            "SELECT id, entry_id, revision, sealed FROM versions WHERE user_id=? AND entry_id=?",
            (keys.user_id, entry_id),
        )
        versions = [version for row in rows if (version := self._open(keys, row)) is not None]
        return sorted(versions, key=lambda version: (version.revision, version.at), reverse=True)

    async def get(self, keys: Keyring, entry_id: bytes, version_id: bytes) -> Version:
        """Return one earlier text of this entry. Raise NotFound."""
        for version in await self.list_for_entry(keys, entry_id):
            if version.id == version_id:
                return version
        raise NotFound("version_not_found")

    @staticmethod
    async def _insert(tx: Transaction, keys: Keyring, version: Version, version_id: bytes) -> bool:
        record = encode_record(
            {
                "entry": version.entry_id.hex(),
                "text": version.text,
                "at": to_micros(version.at),
                "revision": version.revision,
            }
        )
        sealed = VERSIONS.seal(keys, version_id, 1, record)
        inserted = await tx.execute(
            "INSERT INTO versions (rid, id, entry_id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?, 1, ?)"
            " ON CONFLICT DO NOTHING",
            (rowid_for(version_id), version_id, version.entry_id, keys.user_id, keys.epoch, sealed),
        )
        return inserted == 1

    @staticmethod
    def _open(keys: Keyring, row: Row) -> Version | None:
        version_id, entry_id, revision, sealed = row
        try:
            record = json.loads(VERSIONS.open(keys, version_id, revision, sealed))
        except SealError as error:
            logger.error("an earlier version could not be opened (%s)", type(error).__name__)
            return None
        if record["entry"] != entry_id.hex():
            logger.error("an earlier version stands under another entry")
            return None
        return Version(
            version_id, entry_id, record["text"], from_micros(record["at"]), record["revision"]
        )
