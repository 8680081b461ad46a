"""Drafts: unfinished text, sealed and stored under a keyed hash of the form it belongs to."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import msgspec

from llamora.persistence.connection import Connections, NotFound, Step, Transaction
from llamora.persistence.schema import DRAFT_HASH, DRAFTS
from llamora.persistence.table import SealedTable, values_of
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class FormToken:
    """One sitting at one form. `id` is random and becomes the id of what the form saves.

    A late save is therefore recognised by its token, on every worker and after a restart, for as
    long as what the token saved exists. `resumed_from` is the token of the draft the form was
    filled with: saving the form settles that draft too.
    """

    id: bytes
    resumed_from: bytes | None = None


class Draft(msgspec.Struct, frozen=True, omit_defaults=True):
    """An unfinished text. `save_count` grows with every save under one form token.

    `entry_revision` is the revision of the entry that is being edited.
    """

    draft_key: str
    text: str
    form_token_id: bytes
    save_count: int
    entry_revision: int = 0


def day_draft_key(day: date) -> str:
    """Return the draft key of a day's composer."""
    return f"day:{day.isoformat()}"


def edit_draft_key(entry_id: bytes) -> str:
    """Return the draft key for editing an entry."""
    return f"entry:{entry_id.hex()}"


def answer_draft_key(entry_id: bytes) -> str:
    """Return the draft key for answering a reply."""
    return f"answer:{entry_id.hex()}"


class Drafts:
    """The store of drafts, reached as `db.drafts`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, DRAFTS, Draft)

    async def save(self, keys: Keyring, draft: Draft, entry_id: bytes | None) -> bool:
        """Store a draft over the one with its key, or delete that one when the text is empty.

        Return False, and store nothing, when the text of this form token was saved for good
        meanwhile or a later save of the same token is stored already. Raise NotFound when the entry
        `entry_id` is gone.
        """
        key_hash = hash_draft_key(keys, draft.draft_key)
        async with self._db.write(search_unaffected=True, keys=keys) as tx:
            if entry_id is not None and not await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=? AND id=?", (keys.user_id, entry_id)
            ):
                raise NotFound("entry_not_found")
            if await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=?1 AND id=?2"
                " UNION ALL SELECT 1 FROM versions WHERE user_id=?1 AND id=?2",
                (keys.user_id, draft.form_token_id),
            ):
                return False
            stored = await self._table.get_value(keys, key_hash, tx)
            if (
                stored is not None
                and stored.form_token_id == draft.form_token_id
                and stored.save_count >= draft.save_count
            ):
                return False
            if draft.text.strip():
                await self._table.put(tx, keys, {key_hash: draft})
            else:
                await self._table.delete(tx, keys.user_id, [key_hash])
        return True

    async def get_many(self, keys: Keyring, draft_keys: Iterable[str]) -> dict[str, Draft]:
        """Return the drafts with these keys, by key; unreadable ones are left out."""
        hashes = [hash_draft_key(keys, draft_key) for draft_key in draft_keys]
        stored = await self._table.fetch_in(keys, hashes)
        return {draft.draft_key: draft for draft in values_of(stored)}

    async def delete(self, keys: Keyring, draft_key: str) -> None:
        async with self._db.write(search_unaffected=True, keys=keys) as tx:
            await self.deleting(keys, [draft_key])(tx)

    def deleting(self, keys: Keyring, draft_keys: Iterable[str]) -> Step:
        """Return the step that deletes the drafts with these keys, whatever their form token."""
        hashes = [hash_draft_key(keys, draft_key) for draft_key in draft_keys]

        async def delete(tx: Transaction) -> None:
            await self._table.delete(tx, keys.user_id, hashes)

        return delete

    def clearing_draft(self, keys: Keyring, draft_key: str, form_token: FormToken) -> Step:
        """Return the step that deletes the draft of what the same transaction saves.

        A draft of another form token stays.
        """

        async def clear(tx: Transaction) -> None:
            key_hash = hash_draft_key(keys, draft_key)
            stored = await self._table.get_value(keys, key_hash, tx)
            tokens = (form_token.id, form_token.resumed_from)
            if stored is not None and stored.form_token_id in tokens:
                await self._table.delete(tx, keys.user_id, [key_hash])

        return clear


def hash_draft_key(keys: Keyring, draft_key: str) -> bytes:
    """Return the keyed hash that a draft is stored under."""
    return keys.blind(DRAFT_HASH, draft_key.encode())
