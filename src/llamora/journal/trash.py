"""The trash: delete, restore and erase entries."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from logging import getLogger

from msgspec.structs import replace

from llamora.dates import utc_now
from llamora.events import Event, EventBus, Topic
from llamora.journal.context import UserContext
from llamora.journal.entries import MAX_RETRIES, Journal
from llamora.journal.live import SOURCE_DELETED
from llamora.journal.receipts import strip_references
from llamora.journal.replies import Replies
from llamora.journal.threads import require_none_below
from llamora.persistence.connection import AlreadyExists, NotFound, StaleRevision, StorageError
from llamora.persistence.drafts import answer_draft_key, edit_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.trash import DeletedEntry
from llamora.search.service import SearchService
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

TRASH_RETENTION = timedelta(days=30)  # during which a deleted entry can be restored
MAINTENANCE_SECONDS = 86_400.0
SCAN_BATCH = 100  # records opened between two turns of the event loop


@dataclass(slots=True, frozen=True)
class Trash:
    """Delete entries, and erase them for good; nothing deleted is read, searched or quoted."""

    _db: LocalDB
    _journal: Journal
    _search: SearchService
    _replies: Replies
    _events: EventBus
    _last_maintenance: dict[bytes, float] = field(default_factory=dict[bytes, float])
    _maintenance_tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def delete(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Delete an entry, and its thread if it is the root; `restore` undoes it.

        A reply that is being generated is stopped first, and so are those that draw on the entry.
        Returns the entry. Raises NotFound and StorageError.
        """
        if (await self._db.entries.get(keys, entry_id)).state == "streaming":
            await self._replies.stop(keys, entry_id)
        self._replies.cancel_for([entry_id], SOURCE_DELETED)
        changed = await self._set_deleted(keys, entry_id, deleted=True)
        self._search.drop(keys.user_id, [entry.id for entry in changed])
        return changed[0]

    async def restore(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Undo `delete`: restore an entry and what was deleted along with it.

        Messages that had been deleted before stay deleted. Raises NotFound and StorageError.
        """
        changed = await self._set_deleted(keys, entry_id, deleted=False)
        for entry in changed:
            self._search.put(keys, entry)
        return changed[0]

    async def list_deleted(self, keys: Keyring) -> list[tuple[Entry, DeletedEntry]]:
        """List the entries that can be restored, last deleted first, without unreadable ones."""
        items = await self._load_trash(keys)
        entries = {
            entry.id: entry
            for entry in await self._db.entries.get_many(keys, [item.id for item in items])
        }
        return [(entries[item.id], item) for item in reversed(items) if item.id in entries]

    async def get_deleted(self, keys: Keyring, entry_id: bytes) -> tuple[Entry, DeletedEntry]:
        for item in await self._load_trash(keys):
            if item.id == entry_id:
                return await self._db.entries.get(keys, entry_id), item
        raise NotFound("entry_not_deleted")

    async def list_shown(self, user: UserContext) -> list[tuple[Entry, DeletedEntry]]:
        """List them as `list_deleted` does, without replies for users who turned these off."""
        return [
            (entry, item)
            for entry, item in await self.list_deleted(user.keys)
            if user.profile.replies or entry.role == "me"
        ]

    async def get_shown(self, user: UserContext, entry_id: bytes) -> tuple[Entry, DeletedEntry]:
        """Return a deleted entry.

        Raises NotFound, also for a reply if the user has turned replies off.
        """
        entry, item = await self.get_deleted(user.keys, entry_id)
        if entry.role == "reply":
            user.require_replies()
        return entry, item

    async def erase(self, keys: Keyring, entry_id: bytes) -> list[bytes]:
        """Erase a deleted entry for good, with its thread if it is the root; return the erased ids.

        Answers to an erased message within a thread are moved to its parent. Raises NotFound for an
        entry that is not deleted, and StorageError.
        """
        _, item = await self.get_deleted(keys, entry_id)
        return await self._erase_item(keys, item)

    async def erase_expired(self, keys: Keyring) -> int:
        """Erase entries deleted longer than TRASH_RETENTION ago; return their number."""
        expired = [
            item
            for item in await self._load_trash(keys)
            if item.deleted_at + TRASH_RETENTION <= utc_now()
        ]
        for item in expired:
            await self._erase_item(keys, item)
        return len(expired)

    def run_maintenance(self, keys: Keyring) -> None:
        """Start a signed-in user's maintenance in the background, at most once a day.

        Returns at once.
        """
        now = time.monotonic()
        if (
            now - self._last_maintenance.get(keys.user_id, -MAINTENANCE_SECONDS)
            < MAINTENANCE_SECONDS
        ):
            return
        self._last_maintenance[keys.user_id] = now
        task = asyncio.create_task(self._run_maintenance(keys), name="erase what is due")
        self._maintenance_tasks.add(task)
        task.add_done_callback(self._maintenance_tasks.discard)

    async def close(self) -> None:
        """Cancel running maintenance; each erasure is complete or not done."""
        for task in list(self._maintenance_tasks):
            task.cancel()
        await asyncio.gather(*self._maintenance_tasks, return_exceptions=True)

    async def _run_maintenance(self, keys: Keyring) -> None:
        try:
            await self.erase_expired(keys)
            await self._db.give_back_room()
        except (StorageError, VaultError) as error:
            self._last_maintenance.pop(keys.user_id, None)
            logger.warning("what was due could not be erased (%s)", type(error).__name__)

    async def _erase_item(self, keys: Keyring, item: DeletedEntry) -> list[bytes]:
        self._replies.cancel_for([item.id, *item.thread_ids])
        scanned_revisions: dict[bytes, int] = {}
        for _ in range(MAX_RETRIES):
            erased_ids, reparented = await self._plan_erasure(keys, item)
            tags_by_entry = await self._db.tags.tag_ids_of(keys.user_id, erased_ids)
            revisions = await self._db.entries.revisions(keys.user_id)
            reparented = await self._redact_replies(
                keys, erased_ids, reparented, revisions, scanned_revisions
            )
            draft_keys = [
                make_key(entry_id)
                for entry_id in erased_ids
                for make_key in (edit_draft_key, answer_draft_key)
            ]
            steps = [
                self._db.trash.updating(keys, _trash_removal(item.id, erased_ids)),
                self._db.drafts.deleting(keys, draft_keys),
                self._db.summaries.deleting_for_sources(keys, erased_ids),
                self._db.tags.purging_erased(
                    keys, erased_ids, {tag for tags in tags_by_entry.values() for tag in tags}
                ),
                # A reply stored since the scan may contain the erased words.
                self._db.entries.require_unchanged_except(
                    keys.user_id, revisions, erased_ids, len(reparented)
                ),
            ]
            try:
                changed = await self._db.entries.erase(keys, list(erased_ids), reparented, steps)
            except StaleRevision:
                continue
            self._search.drop(keys.user_id, erased_ids)
            for entry in changed:
                self._search.put(keys, entry)
            rewritten_ids = (*erased_ids, *(entry.id for entry in changed))
            self._events.publish(Event(Topic.REWRITTEN, keys.user_id, rewritten_ids))
            return list(erased_ids)
        raise StaleRevision("entry_busy")

    async def _plan_erasure(
        self, keys: Keyring, item: DeletedEntry
    ) -> tuple[set[bytes], list[Entry]]:
        erased_ids = {item.id, *item.thread_ids}
        for entry in await self._db.entries.get_many(keys, [item.id]):
            if entry.deleted is None:
                raise NotFound("entry_restored")
            thread = await self._journal.get_thread(keys, item.id)
            if entry.parent_id is None:
                erased_ids |= {other.id for other in thread.descendants}
            return erased_ids, [
                replace(o, parent_id=entry.parent_id)
                for o in thread.descendants
                if o.parent_id == entry.id and o.id not in erased_ids
            ]
        return erased_ids, []  # an unreadable one is erased by the list alone

    async def _redact_replies(
        self,
        keys: Keyring,
        erased_ids: set[bytes],
        reparented: list[Entry],
        revisions: Mapping[bytes, int],
        scanned_revisions: dict[bytes, int],
    ) -> list[Entry]:
        """Return `reparented` and the replies that refer to what is about to be erased, redacted.

        `scanned_revisions` holds the revisions found to contain nothing of it, which are skipped;
        those found by this call are added.
        """
        texts = [
            entry.text
            for entry in await self._db.entries.get_many(keys, list(erased_ids))
            if entry.role == "me"
        ]
        for entry_id in erased_ids:  # a reply may quote the text before an edit
            texts += [
                version.text for version in await self._db.versions.list_for_entry(keys, entry_id)
            ]
        changed = {entry.id: entry for entry in reparented}
        ids = [
            i
            for i, revision in revisions.items()
            if i not in erased_ids and (i in changed or scanned_revisions.get(i) != revision)
        ]
        for start in range(0, len(ids), SCAN_BATCH):
            for entry in await self._db.entries.get_many(keys, ids[start : start + SCAN_BATCH]):
                if (
                    stripped := strip_references(changed.get(entry.id, entry), erased_ids, texts)
                ) is not None:
                    changed[entry.id] = stripped
                elif entry.id not in changed:
                    scanned_revisions[entry.id] = entry.revision
        return list(changed.values())

    async def _load_trash(self, keys: Keyring) -> list[DeletedEntry]:
        """Return the list of deleted entries, built from the records if it is missing or damaged."""
        items = await self._db.trash.list_all(keys)
        if items is not None:
            return items
        deleted_entries: list[tuple[datetime, Entry]] = []
        ids = list(await self._db.entries.revisions(keys.user_id))
        for start in range(0, len(ids), SCAN_BATCH):
            batch = await self._db.entries.get_many(keys, ids[start : start + SCAN_BATCH])
            deleted_entries += [
                (entry.deleted, replace(entry, text=""))
                for entry in batch
                if entry.deleted is not None
            ]
        deleted_entries.sort(key=lambda pair: (pair[0], pair[1].id))
        # Messages deleted along with their root have the same deletion time.
        root_deletion_times = {
            deleted_at for deleted_at, entry in deleted_entries if entry.parent_id is None
        }
        await self._db.trash.initialize(
            keys,
            [
                DeletedEntry(e.id, deleted_at)
                for deleted_at, e in deleted_entries
                if e.parent_id is None or deleted_at not in root_deletion_times
            ],
        )
        return await self._db.trash.list_all(keys) or []

    async def _set_deleted(self, keys: Keyring, entry_id: bytes, *, deleted: bool) -> list[Entry]:
        """Mark an entry and the thread it begins as deleted or not, in one transaction.

        Returns the entry first. Each record has its own mark, since some readers, such as search,
        see a single record only.
        """
        await self._load_trash(keys)
        for _ in range(MAX_RETRIES):
            entry = await self._db.entries.get(keys, entry_id)
            if (entry.deleted is not None) == deleted:
                return [entry]
            known_ids = (await self._db.entries.revisions_on(keys, [entry.day])).keys()
            descendants = (
                (await self._journal.get_thread(keys, entry_id)).descendants
                if entry.parent_id is None
                else ()
            )
            affected = [entry, *(other for other in descendants if other.deleted == entry.deleted)]
            require = require_none_below(
                self._db, keys, entry.day, known_ids, affected if entry.parent_id is None else ()
            )
            deleted_at = utc_now() if deleted else None
            item = (
                DeletedEntry(entry.id, deleted_at, tuple(other.id for other in affected[1:]))
                if deleted_at
                else None
            )
            step = self._db.trash.updating(keys, _trash_update(entry.id, item))
            try:
                changed = [replace(other, deleted=deleted_at) for other in affected]
                return await self._db.entries.update_all(keys, changed, [require, step])
            except (StaleRevision, AlreadyExists):
                continue  # edited or answered meanwhile: delete it whatever its text
        raise StaleRevision("entry_busy")


def _trash_update(
    entry_id: bytes, item: DeletedEntry | None
) -> Callable[[list[DeletedEntry]], list[DeletedEntry]]:
    def update(items: list[DeletedEntry]) -> list[DeletedEntry]:
        remaining = [other for other in items if other.id != entry_id]
        return remaining if item is None else [*remaining, item]

    return update


def _trash_removal(
    entry_id: bytes, erased_ids: set[bytes]
) -> Callable[[list[DeletedEntry]], list[DeletedEntry]]:
    """Return a change of the list that removes what is erased.

    It raises StaleRevision if the entry was restored meanwhile.
    """

    def remove(items: list[DeletedEntry]) -> list[DeletedEntry]:
        if all(item.id != entry_id for item in items):
            raise StaleRevision("entry_restored")
        return [item for item in items if item.id not in erased_ids]

    return remove
