"""Drafts: unfinished text, sealed and stored under a keyed hash of the form it belongs to."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound, Step, Transaction
from llamora.persistence.entries import encode_record
from llamora.persistence.schema import DRAFT_HASH, DRAFTS
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


@dataclass(slots=True, frozen=True)
class FormToken:
    """One sitting at one form. `id` is random and becomes the id of what the form saves.

    A late save is therefore recognised by its token, on every worker and after a restart, for as
    long as what the token saved exists. `resumed_from` is the token of the draft the form was
    filled with: saving the form settles that draft too.
    """

    id: bytes
    resumed_from: bytes | None = None


@dataclass(slots=True, frozen=True)
class Draft:
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

    async def save(self, keys: Keyring, draft: Draft, entry_id: bytes | None) -> bool:
        """Store a draft over the one with its key, or delete that one when the text is empty.

        Return False, and store nothing, when the text of this form token was saved for good
        meanwhile or a later save of the same token is stored already. Raise NotFound when the entry
        `entry_id` is gone.
        """
        key_hash = _hash_key(keys, draft.draft_key)
        async with self._db.write(search_unaffected=True) as tx:
            params = (keys.user_id, entry_id)
            if entry_id is not None and not await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=? AND id=?", params
            ):
                raise NotFound("entry_not_found")
            if await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=?1 AND id=?2"
                " UNION ALL SELECT 1 FROM versions WHERE user_id=?1 AND id=?2",
                (keys.user_id, draft.form_token_id),
            ):
                return False
            revision, stored = await self._read(tx, keys, key_hash)
            if (
                stored is not None
                and stored.form_token_id == draft.form_token_id
                and stored.save_count >= draft.save_count
            ):
                return False
            if not draft.text.strip():
                await tx.execute(
                    "DELETE FROM drafts WHERE user_id=? AND draft_key=?", (keys.user_id, key_hash)
                )
                return True
            sealed = DRAFTS.seal(keys, key_hash, revision + 1, _encode(draft))
            await tx.execute(
                "INSERT INTO drafts (user_id, draft_key, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
                (keys.user_id, key_hash, keys.epoch, revision + 1, sealed),
            )
        return True

    async def get_many(self, keys: Keyring, draft_keys: Iterable[str]) -> dict[str, Draft]:
        """Return the drafts with these keys, by key; unreadable ones are left out."""
        rows = await self._db.fetch(
            "SELECT draft_key, revision, sealed FROM drafts WHERE user_id=?", (keys.user_id,)
        )
        drafts: dict[str, Draft] = {}
        if rows:
            draft_key_by_hash = {_hash_key(keys, key_hash): key_hash for key_hash in draft_keys}
            for key_hash, revision, sealed in rows:
                if (
                    key_hash in draft_key_by_hash
                    and (draft := _open(keys, key_hash, revision, sealed)) is not None
                ):
                    drafts[draft_key_by_hash[key_hash]] = draft
        return drafts

    async def delete(self, keys: Keyring, draft_key: str) -> None:
        """Delete the draft with this key."""
        async with self._db.write(search_unaffected=True) as tx:
            await self.deleting(keys, [draft_key])(tx)

    def deleting(self, keys: Keyring, draft_keys: Iterable[str]) -> Step:
        """Return the step that deletes the drafts with these keys, whatever their form token."""
        rows = [(keys.user_id, _hash_key(keys, draft_key)) for draft_key in draft_keys]

        async def delete(tx: Transaction) -> None:
            await tx.execute_many("DELETE FROM drafts WHERE user_id=? AND draft_key=?", rows)

        return delete

    def clearing_draft(self, keys: Keyring, draft_key: str, form_token: FormToken) -> Step:
        """Return the step that deletes the draft of what the same transaction saves.

        A draft of another form token stays.
        """

        async def clear(tx: Transaction) -> None:
            key_hash = _hash_key(keys, draft_key)
            _, stored = await self._read(tx, keys, key_hash)
            if stored is not None and stored.form_token_id in (
                form_token.id,
                form_token.resumed_from,
            ):
                await tx.execute(
                    "DELETE FROM drafts WHERE user_id=? AND draft_key=?", (keys.user_id, key_hash)
                )

        return clear

    @staticmethod
    async def _read(tx: Transaction, keys: Keyring, key_hash: bytes) -> tuple[int, Draft | None]:
        rows = await tx.fetch(
            "SELECT revision, sealed FROM drafts WHERE user_id=? AND draft_key=?",
            (keys.user_id, key_hash),
        )
        if not rows:
            return 0, None
        revision, sealed = rows[0]
        return revision, _open(keys, key_hash, revision, sealed)


def _hash_key(keys: Keyring, draft_key: str) -> bytes:
    return keys.blind(DRAFT_HASH, draft_key.encode())


def _encode(draft: Draft) -> bytes:
    return encode_record(
        {
            "place": draft.draft_key,
            "text": draft.text,
            "pen": draft.form_token_id.hex(),
            "count": draft.save_count,
            "revision": draft.entry_revision,
        }
    )


def _open(keys: Keyring, key_hash: bytes, revision: int, sealed: bytes) -> Draft | None:
    try:
        record = json.loads(DRAFTS.open(keys, key_hash, revision, sealed))
    except SealError as error:
        # A damaged draft must not take the page away; the next save stands in its place.
        logger.error("a draft could not be opened (%s)", type(error).__name__)
        return None
    return Draft(
        record["place"],
        record["text"],
        bytes.fromhex(record["pen"]),
        record["count"],
        record["revision"],
    )
