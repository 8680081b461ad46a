"""Change a user's settings, with what follows from them."""

from dataclasses import dataclass, replace
from typing import Any

from llamora.errors import Problem
from llamora.journal.accounts import Accounts
from llamora.journal.profile import Profile
from llamora.llm.model import Model
from llamora.persistence.connection import StaleRevision
from llamora.persistence.local_db import LocalDB
from llamora.search.service import SearchService
from llamora.vault.keys import Keyring

MAX_SAVE_ATTEMPTS = 5


@dataclass(slots=True, frozen=True)
class Preferences:
    """Change settings one by one, keeping concurrent changes to others."""

    _db: LocalDB
    _accounts: Accounts
    _search: SearchService
    _model: Model

    async def change(self, keys: Keyring, **changes: Any) -> Profile:
        """Save the given fields of the profile and return it; what is switched off is deleted.

        Raises Problem for a model server that is not in the settings, StaleRevision after
        MAX_SAVE_ATTEMPTS, and StorageError.
        """
        if (name := changes.get("endpoint")) and name not in self._model.endpoint_names:
            raise Problem("endpoint_unknown")
        profile = await self._save(keys, changes)
        if not changes.get("searches", True):
            await self.clear_search_history(keys)
        return profile

    async def _save(self, keys: Keyring, changes: dict[str, Any]) -> Profile:
        attempts_left = MAX_SAVE_ATTEMPTS
        while True:
            attempts_left -= 1
            stored = await self._accounts.get_profile(keys)
            try:
                return await self._accounts.save_profile(keys, replace(stored, **changes))
            except StaleRevision:
                if not attempts_left:
                    raise

    async def clear_search_history(self, keys: Keyring) -> None:
        self._search.forget_queries(keys.user_id)
        await self._db.search_history.clear(keys.user_id)
