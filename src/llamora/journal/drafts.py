"""Drafts: what was typed and not saved yet."""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from llamora.dates import UnknownDay, parse_day
from llamora.journal.entries import check_size
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import Draft, answer_draft_key, day_draft_key, edit_draft_key
from llamora.persistence.local_db import LocalDB
from llamora.settings import EntrySettings
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Drafts:
    """Keep drafts, one for each place to write: a day, an edit of an entry, an answer."""

    _db: LocalDB
    _settings: EntrySettings

    async def save(self, keys: Keyring, draft: Draft) -> bool:
        """Store a draft; the last one saved wins, and one without text is deleted.

        Returns False if its form was submitted meanwhile, so that there is nothing to draft. Raises
        NotFound for an unknown draft key, EntryError for text that is too long, and StorageError.
        """
        kind, _, name = draft.draft_key.partition(":")
        text = check_size(draft.text, self._settings.max_bytes)
        entry_id = None
        try:
            if kind == "day":
                expected_key = day_draft_key(parse_day(name))
            else:
                entry_id = bytes.fromhex(name)
                expected_key = {"entry": edit_draft_key, "answer": answer_draft_key}[kind](entry_id)
        except (UnknownDay, ValueError, KeyError):
            expected_key = ""
        if expected_key != draft.draft_key:
            raise NotFound("draft_place_unknown")
        if kind == "entry" and entry_id is not None:
            entry = await self._db.entries.get(keys, entry_id)
            if text == entry.text:
                text = ""  # same as stored, so there is nothing to draft
        return await self._db.drafts.save(keys, replace(draft, text=text), entry_id)

    async def get_many(self, keys: Keyring, draft_keys: Iterable[str]) -> dict[str, Draft]:
        return await self._db.drafts.get_many(keys, draft_keys)

    async def discard(self, keys: Keyring, draft_key: str) -> None:
        await self._db.drafts.delete(keys, draft_key)
