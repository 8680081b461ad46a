"""Write, edit, delete and erase a user's entries, and keep the search index up to date."""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from logging import getLogger

from msgspec.structs import replace

from llamora.dates import UnknownDay, day_of, parse_day, utc_now
from llamora.dates import parse_zone as zone_named
from llamora.errors import Problem
from llamora.events import Event, EventBus, Topic
from llamora.journal.citations import redact_erased
from llamora.journal.tags import Tags
from llamora.persistence.connection import (
    AlreadyExists,
    NotFound,
    StaleRevision,
    Step,
    StorageError,
)
from llamora.persistence.drafts import (
    Draft,
    FormToken,
    answer_draft_key,
    day_draft_key,
    edit_draft_key,
)
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.versions import Version
from llamora.search.service import SearchService
from llamora.settings import EntrySettings
from llamora.text import replace_surrogates
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

MAX_RETRIES = 5
MAX_CLOCK_CORRECTION = timedelta(minutes=2)
TRASH_RETENTION = timedelta(days=30)  # during which a deleted entry can be restored
MAINTENANCE_SECONDS = 86_400.0
SCAN_BATCH = 100  # records opened between two turns of the event loop


class EntryError(Problem):
    """A request about an entry that cannot be fulfilled, such as text that is too long."""


class EditConflict(Problem):
    """An edit of an entry that was changed elsewhere meanwhile; `current` is its present state."""

    status = 409

    def __init__(self, current: Entry) -> None:
        super().__init__("entry_changed_elsewhere")
        self.current = current


@dataclass(slots=True, frozen=True)
class Thread:
    """An entry of a day, and the replies and answers below it in the order they were written."""

    root: Entry
    descendants: tuple[Entry, ...]

    def path_to(self, entry_id: bytes) -> list[Entry]:
        """Return the messages from the root to an entry, each answered by the next.

        Deleted ones are left out. Returns an empty list if the entry is not in the thread.
        """
        by_id = {entry.id: entry for entry in (self.root, *self.descendants)}
        path: list[Entry] = []
        current = by_id.get(entry_id)
        while current is not None and current not in path:
            path.append(current)
            current = by_id.get(current.parent_id) if current.parent_id else None
        return [entry for entry in reversed(path) if entry.deleted is None]


def build_threads(entries: Iterable[Entry]) -> list[Thread]:
    """Group the records of one day into threads, keeping their order.

    An answer whose parent is missing becomes a root, and so does the earliest entry of a cycle:
    inconsistent links never hide an entry.
    """
    ordered = list(entries)
    by_id = {entry.id: entry for entry in ordered}
    positions = {entry.id: number for number, entry in enumerate(ordered)}

    def find_root(entry: Entry) -> bytes:
        path = {entry.id: entry}
        while entry.parent_id is not None and entry.parent_id in by_id:
            entry = by_id[entry.parent_id]
            if entry.id in path:
                cycle = list(path)
                return min(cycle[cycle.index(entry.id) :], key=positions.__getitem__)
            path[entry.id] = entry
        return entry.id

    descendants: dict[bytes, list[Entry]] = {}
    roots: list[Entry] = []
    for entry in ordered:
        root = find_root(entry)
        if root == entry.id:
            roots.append(entry)
        else:
            descendants.setdefault(root, []).append(entry)
    return [Thread(root, _sort_after_parents(root, descendants.get(root.id, []))) for root in roots]


def _sort_after_parents(root: Entry, descendants: list[Entry]) -> tuple[Entry, ...]:
    """Sort the messages of a thread after their parents, even if a clock was put back."""
    placed_by_id = {root.id: root}
    pending = descendants
    while pending:
        unplaced: list[Entry] = []
        for entry in pending:
            if entry.parent_id in placed_by_id:
                placed_by_id[entry.id] = entry
            else:
                unplaced.append(entry)
        if len(unplaced) == len(pending):  # their parents are missing, so they come last
            placed_by_id |= {entry.id: entry for entry in unplaced}
            break
        pending = unplaced
    return tuple(placed_by_id.values())[1:]


class Journal:
    """Work with a user's entries; a method that returns has committed its change to disk."""

    def __init__(
        self,
        db: LocalDB,
        search: SearchService,
        settings: EntrySettings,
        events: EventBus | None = None,
    ) -> None:
        self._db = db
        self._events = events or EventBus()
        self._search = search
        self._settings = settings
        self.tags = Tags(db, search)
        self._last_instant = datetime.min.replace(tzinfo=UTC)
        self._last_maintenance: dict[bytes, float] = {}
        self._maintenance_tasks: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """Return the time (UTC) for something written now, never before the last one returned.

        This absorbs clock corrections of up to MAX_CLOCK_CORRECTION. A clock that goes back further
        is assumed to have been wrong before, and is followed.
        """
        now = utc_now()
        if timedelta() <= self._last_instant - now < MAX_CLOCK_CORRECTION:
            now = self._last_instant + timedelta(microseconds=1)
        self._last_instant = now
        return now

    async def get_page(self, keys: Keyring, day: date) -> list[Thread]:
        """Return the threads of a day without deleted entries."""
        day_threads = build_threads(await self._db.entries.list_day(keys, day))
        return [
            Thread(
                thread.root, tuple(entry for entry in thread.descendants if entry.deleted is None)
            )
            for thread in day_threads
            if thread.root.deleted is None
        ]

    async def find_written_days(self, keys: Keyring, days: Iterable[date]) -> set[date]:
        """Return those of these days whose page, as `get_page` returns it, has an entry.

        Opens as few records as possible: usually one a day, more only if entries were deleted.
        """
        unread_ids = await self._db.entries.ids_by_day(keys, days)
        entries_by_day: dict[date, list[Entry]] = {day: [] for day in unread_ids}
        written: set[date] = set()
        batch_size = 1
        while unread_ids:
            batch_ids = [entry_id for ids in unread_ids.values() for entry_id in ids[:batch_size]]
            entries_by_id = {
                entry.id: entry for entry in await self._db.entries.get_many(keys, batch_ids)
            }
            for day, ids in list(unread_ids.items()):
                entries_by_day[day] += [
                    entries_by_id[entry_id]
                    for entry_id in ids[:batch_size]
                    if entry_id in entries_by_id
                ]
                # An unreadable record is shown as such, so it counts.
                if any(
                    i not in entries_by_id
                    or (entries_by_id[i].parent_id is None and entries_by_id[i].deleted is None)
                    for i in ids[:batch_size]
                ):
                    written.add(day)
                elif ids[batch_size:]:
                    unread_ids[day] = ids[batch_size:]
                    continue
                elif any(
                    thread.root.deleted is None for thread in build_threads(entries_by_day[day])
                ):
                    written.add(day)
                del unread_ids[day]
            batch_size *= 4
        return written

    async def get(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Return an entry. Raises NotFound, also for a deleted one."""
        entry = await self._db.entries.get(keys, entry_id)
        if entry.deleted is not None:
            raise NotFound("entry_deleted")
        return entry

    async def get_thread(self, keys: Keyring, entry_id: bytes) -> Thread:
        """Return the thread of an entry, deleted messages included. Raises NotFound."""
        entry = await self._db.entries.get(keys, entry_id)
        for thread in build_threads(await self._db.entries.list_day(keys, entry.day)):
            if any(entry_id == other.id for other in (thread.root, *thread.descendants)):
                return thread
        raise NotFound("entry_not_found")

    async def write(
        self,
        keys: Keyring,
        day: date | None,
        text: str,
        zone: str,
        draft_key: str = "",
        form_token: FormToken | None = None,
    ) -> Entry:
        """Store a new entry on `day`; None stands for the current day in `zone`, an IANA name.

        `draft_key` is the key of its draft, and `form_token` makes a repeated submission store it
        once. Raises EntryError and StorageError.
        """
        return await self._add_entry(keys, day, text, zone, None, draft_key, form_token)

    async def answer(
        self,
        keys: Keyring,
        parent_id: bytes,
        text: str,
        zone: str,
        form_token: FormToken | None = None,
    ) -> Entry:
        """Store an answer to a reply, on the day of its thread.

        It is withheld from the model if its parent or root is, even if that changes meanwhile.
        Raises EntryError, NotFound and StorageError.
        """
        for _ in range(MAX_RETRIES):
            parent = await self.get(keys, parent_id)
            root = (await self.get_thread(keys, parent_id)).root
            read_at = {entry.id: entry.revision for entry in (parent, root)}
            with suppress(StaleRevision):
                return await self._add_entry(
                    keys,
                    parent.day,
                    text,
                    zone,
                    parent_id,
                    answer_draft_key(parent_id),
                    form_token,
                    withheld=parent.withheld or root.withheld,
                    require=[self._db.entries.require_revisions(keys.user_id, read_at)],
                )
        raise StaleRevision("entry_busy")

    async def edit(
        self,
        keys: Keyring,
        entry_id: bytes,
        text: str,
        revision: int,
        form_token: FormToken | None = None,
    ) -> Entry:
        """Replace the text that an entry has at `revision`, which is kept as an earlier version.

        Returns the entry unchanged if its text is the same. Raises EditConflict, EntryError,
        NotFound and StorageError.
        """
        normalized = self.normalize_text(text)
        entry = await self.get(keys, entry_id)
        if entry.role != "me":
            raise EntryError("reply_not_editable")
        if entry.text == normalized:
            # Nothing to write, and so nothing that could conflict with another tab.
            if form_token is not None:
                await self.discard_draft(keys, edit_draft_key(entry_id))
            return entry
        if entry.revision != revision:
            raise EditConflict(entry)
        version_id = form_token.id if form_token else secrets.token_bytes(16)
        previous = Version(
            version_id, entry.id, entry.text, entry.edited or entry.at, entry.revision
        )
        steps = [
            self._db.versions.saving_version(keys, previous),
            *self.tags.steps_for_edit(keys, entry.id, entry.text, normalized),
        ]
        if form_token is not None:
            steps.append(self._db.drafts.clearing_draft(keys, edit_draft_key(entry_id), form_token))
        try:
            changed = await self._db.entries.update(
                keys, replace(entry, text=normalized, edited=utc_now()), steps
            )
        except StaleRevision:
            raise EditConflict(await self.get(keys, entry_id)) from None
        self._search.put(keys, changed)
        self._events.publish(Event(Topic.REWRITTEN, keys.user_id, (entry_id,)))
        return changed

    async def delete(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Delete an entry, and its thread if it is the root; `restore` undoes it.

        Returns the entry. Raises NotFound and StorageError.
        """
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

    async def set_withheld(self, keys: Keyring, entry_id: bytes, *, withheld: bool) -> Entry:
        """Withhold an entry and everything below it from the model, or release them.

        Raises NotFound and StorageError.
        """
        for _ in range(MAX_RETRIES):
            entry = await self.get(keys, entry_id)
            known_ids = (await self._db.entries.revisions_on(keys, [entry.day])).keys()
            descendants = _descendants_of(
                entry_id, (await self.get_thread(keys, entry_id)).descendants
            )
            step = self._require_none_below(keys, entry.day, known_ids, (entry, *descendants))
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

    def _require_none_below(
        self, keys: Keyring, day: date, known_ids: AbstractSet[bytes], entries: Iterable[Entry]
    ) -> Step:
        """Return a step that checks that `entries` have no answers but those in `known_ids`.

        It raises AlreadyExists.
        """
        answered_ids = {entry.id for entry in entries}
        return self._db.entries.require_no_new(
            keys, day, known_ids, lambda e: e.parent_id in answered_ids
        )

    async def set_preferred(self, keys: Keyring, reply_id: bytes, *, preferred: bool) -> Entry:
        """Mark a reply as the preferred one among those to the same entry, or unmark all of them.

        Raises NotFound and StorageError.
        """
        for _ in range(MAX_RETRIES):
            reply = await self.get(keys, reply_id)
            others = (await self.get_thread(keys, reply_id)).descendants
            changed = [
                replace(other, preferred=preferred and other.id == reply_id)
                for other in others
                if other.role == "reply" and other.parent_id == reply.parent_id
                if other.preferred != (preferred and other.id == reply_id)
            ]
            with suppress(StaleRevision):
                await self._db.entries.update_all(keys, changed)
                return replace(reply, preferred=preferred)
        raise StaleRevision("reply_busy")

    async def find_hidden_sources(
        self, keys: Keyring, replies: Iterable[Entry]
    ) -> dict[bytes, str]:
        """Return the sources of these replies that must not be shown: deleted, erased or withheld.

        Maps their ids to their texts, which are "" for erased and unreadable ones.
        """
        source_ids = {
            i
            for r in replies
            for i in (*r.sources, *r.also_answers, *(r.receipt.same_page_ids if r.receipt else ()))
        }
        sources = (
            {entry.id: entry for entry in await self._db.entries.get_many(keys, list(source_ids))}
            if source_ids
            else {}
        )
        missing = dict.fromkeys(source_ids - sources.keys(), "")
        return missing | {
            e.id: e.text for e in sources.values() if e.deleted is not None or e.withheld
        }

    async def list_versions(self, keys: Keyring, entry_id: bytes) -> list[Version]:
        """List the earlier versions of an entry, newest first.

        Raises NotFound for a missing or deleted entry.
        """
        await self.get(keys, entry_id)
        return await self._db.versions.list_for_entry(keys, entry_id)

    async def restore_version(
        self, keys: Keyring, entry_id: bytes, version_id: bytes, revision: int
    ) -> Entry:
        """Replace the text that an entry has at `revision` with that of an earlier version.

        This is an edit like any other. Raises as `edit`, and NotFound.
        """
        version = await self._db.versions.get(keys, entry_id, version_id)
        return await self.edit(keys, entry_id, version.text, revision)

    def normalize_text(self, text: str) -> str:
        """Return the text as it is stored: line ends as newlines, blank edges removed.

        Raises EntryError for text that is empty or too long.
        """
        normalized = self._check_size(text).strip("\n").rstrip()
        if not normalized.strip():
            raise EntryError("entry_empty")
        return normalized

    def _check_size(self, text: str) -> str:
        normalized = replace_surrogates(text).replace("\r\n", "\n").replace("\r", "\n")
        if len(normalized.strip("\n").rstrip().encode()) > self._settings.max_bytes:
            max_size = f"{self._settings.max_bytes / 1_000_000:g} MB"
            raise EntryError("entry_too_long", size=max_size)
        return normalized

    # -- drafts ------------------------------------------------------------------------------------

    async def save_draft(self, keys: Keyring, draft: Draft) -> bool:
        """Store a draft; the last one saved wins, and one without text is deleted.

        Returns False if its form was submitted meanwhile, so that there is nothing to draft. Raises
        NotFound for an unknown draft key, EntryError for text that is too long, and StorageError.
        """
        kind, _, name = draft.draft_key.partition(":")
        text = self._check_size(draft.text)
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

    async def get_drafts(self, keys: Keyring, draft_keys: Iterable[str]) -> dict[str, Draft]:
        """Return the drafts with these keys that exist, by key."""
        return await self._db.drafts.get_many(keys, draft_keys)

    async def discard_draft(self, keys: Keyring, draft_key: str) -> None:
        """Delete a draft, if it exists."""
        await self._db.drafts.delete(keys, draft_key)

    # -- deleted entries ---------------------------------------------------------------------------

    async def list_deleted(self, keys: Keyring) -> list[tuple[Entry, DeletedEntry]]:
        """List the entries that can be restored, last deleted first, without unreadable ones."""
        items = await self._load_trash(keys)
        entries = {
            entry.id: entry
            for entry in await self._db.entries.get_many(keys, [item.id for item in items])
        }
        return [(entries[item.id], item) for item in reversed(items) if item.id in entries]

    async def get_deleted(self, keys: Keyring, entry_id: bytes) -> tuple[Entry, DeletedEntry]:
        """Return a deleted entry. Raises NotFound for an entry that is not deleted."""
        for item in await self._load_trash(keys):
            if item.id == entry_id:
                return await self._db.entries.get(keys, entry_id), item
        raise NotFound("entry_not_deleted")

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
        except (StorageError, VaultError) as error:
            self._last_maintenance.pop(keys.user_id, None)
            logger.warning("what was due could not be erased (%s)", type(error).__name__)

    async def _erase_item(self, keys: Keyring, item: DeletedEntry) -> list[bytes]:
        scanned_revisions: dict[bytes, int] = {}
        for _ in range(MAX_RETRIES):
            erased_ids, reparented = {item.id, *item.thread_ids}, list[Entry]()
            for entry in await self._db.entries.get_many(
                keys, [item.id]
            ):  # an unreadable one is erased by the list alone
                if entry.deleted is None:
                    raise NotFound("entry_restored")
                thread = await self.get_thread(keys, item.id)
                if entry.parent_id is None:
                    erased_ids |= {other.id for other in thread.descendants}
                reparented = [
                    replace(o, parent_id=entry.parent_id)
                    for o in thread.descendants
                    if o.parent_id == entry.id and o.id not in erased_ids
                ]
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
        """Return the list of deleted entries.

        Journals that are older than the list have it built from their records once.
        """
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

    # -- internal ----------------------------------------------------------------------------------

    async def _add_entry(
        self,
        keys: Keyring,
        day: date | None,
        text: str,
        zone: str,
        parent_id: bytes | None,
        draft_key: str,
        form_token: FormToken | None,
        *,
        withheld: bool = False,
        require: Sequence[Step] = (),
    ) -> Entry:
        normalized = self.normalize_text(text)
        at = self.now()
        page_day = day or day_of(at, zone_named(zone))
        entry = Entry(
            form_token.id if form_token else secrets.token_bytes(16),
            page_day,
            "me",
            normalized,
            at,
            zone,
            parent_id=parent_id,
            withheld=withheld,
        )
        first_steps = list(require)
        if form_token and draft_key:
            first_steps.append(self._db.drafts.clearing_draft(keys, draft_key, form_token))
        steps = [*first_steps, *self.tags.steps_for_edit(keys, entry.id, "", normalized)]
        try:
            await self._db.entries.add(keys, entry, steps=steps)
        except AlreadyExists:
            for stored in await self._db.entries.get_many(keys, [entry.id]):
                if (stored.text, stored.parent_id, stored.deleted) == (normalized, parent_id, None):
                    return stored  # the same form, submitted twice
            entry = replace(entry, id=secrets.token_bytes(16))
            steps = [*first_steps, *self.tags.steps_for_edit(keys, entry.id, "", normalized)]
            await self._db.entries.add(keys, entry, steps=steps)
        self._search.put(keys, entry)
        return entry

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
                (await self.get_thread(keys, entry_id)).descendants
                if entry.parent_id is None
                else ()
            )
            affected = [entry, *(other for other in descendants if other.deleted == entry.deleted)]
            require = self._require_none_below(
                keys, entry.day, known_ids, affected if entry.parent_id is None else ()
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


def strip_references(
    reply: Entry, erased_ids: Collection[bytes], texts: Iterable[str]
) -> Entry | None:
    """Return a reply without erased entries, counting them in its receipt.

    `texts` are their texts, whose quoted words are redacted. Returns None if nothing changes.
    """
    if reply.role != "reply":
        return None
    stripped = redact_erased(reply, erased_ids, texts) or reply
    if (receipt := stripped.receipt) is not None:
        erased_sources = {*reply.also_answers, *reply.sources, *receipt.same_page_ids} & set(
            erased_ids
        )
        erased_count = len(erased_sources) or int(stripped.text != reply.text)
        same_page_ids = tuple(other for other in receipt.same_page_ids if other not in erased_ids)
        stripped = replace(
            stripped,
            receipt=replace(
                receipt,
                same_page_ids=same_page_ids,
                erased_count=receipt.erased_count + erased_count,
            ),
        )
    return stripped if stripped != reply else None


def _descendants_of(entry_id: bytes, thread_entries: Iterable[Entry]) -> list[Entry]:
    """Return the direct and indirect answers to an entry."""
    descendants, ids = list[Entry](), {entry_id}
    for entry in thread_entries:  # in a thread no message comes before its parent
        if entry.parent_id in ids:
            ids.add(entry.id)
            descendants.append(entry)
    return descendants


def _trash_update(
    entry_id: bytes, item: DeletedEntry | None
) -> Callable[[list[DeletedEntry]], list[DeletedEntry]]:
    """Return a change of the list that appends `item`, or removes the entry if it is None."""

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
