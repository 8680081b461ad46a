"""Write, read and edit a user's entries, and keep the search index up to date."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from msgspec.structs import replace

from llamora.dates import utc_now
from llamora.errors import Problem
from llamora.events import Event, EventBus, Topic
from llamora.journal.context import UserContext
from llamora.journal.tags import Tags
from llamora.journal.threads import Thread, build_threads, find_thread
from llamora.persistence.connection import AlreadyExists, NotFound, StaleRevision, Step
from llamora.persistence.drafts import FormToken, answer_draft_key, edit_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.versions import Version
from llamora.search.service import SearchService
from llamora.settings import EntrySettings
from llamora.text import replace_surrogates
from llamora.vault.keys import Keyring

MAX_RETRIES = 5
MAX_CLOCK_CORRECTION = timedelta(minutes=2)


class EntryError(Problem):
    """A request about an entry that cannot be fulfilled, such as text that is too long."""


class EditConflict(Problem):
    """An edit of an entry that was changed elsewhere meanwhile; `current` is its present state."""

    status = 409

    def __init__(self, current: Entry) -> None:
        super().__init__("entry_changed_elsewhere")
        self.current = current


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
        return find_thread(
            build_threads(await self._db.entries.list_day(keys, entry.day)), entry_id
        )

    async def write(
        self,
        user: UserContext,
        day: date | None,
        text: str,
        draft_key: str = "",
        form_token: FormToken | None = None,
    ) -> Entry:
        """Store a new entry on `day`; None stands for the current day.

        `draft_key` is the key of its draft, and `form_token` makes a repeated submission store it
        once. Raises EntryError and StorageError.
        """
        return await self._add_entry(user, day, text, None, draft_key, form_token)

    async def answer(
        self, user: UserContext, parent_id: bytes, text: str, form_token: FormToken | None = None
    ) -> Entry:
        """Store an answer to a reply, on the day of its thread.

        It is withheld from the model if its parent or root is, even if that changes meanwhile.
        Raises EntryError, NotFound and StorageError.
        """
        keys = user.keys
        for _ in range(MAX_RETRIES):
            parent = await self.get(keys, parent_id)
            root = (await self.get_thread(keys, parent_id)).root
            read_at = {entry.id: entry.revision for entry in (parent, root)}
            with suppress(StaleRevision):
                return await self._add_entry(
                    user,
                    parent.day,
                    text,
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
            if form_token is not None:
                await self._db.drafts.delete(keys, edit_draft_key(entry_id))
            return entry  # nothing was written, so nothing could conflict with another tab
        if entry.revision != revision:
            raise EditConflict(entry)
        version_id = form_token.id if form_token else secrets.token_bytes(16)
        written_at = entry.edited or entry.at
        previous = Version(version_id, entry.id, entry.text, written_at, entry.revision)
        steps = [
            self._db.versions.saving_version(keys, previous),
            *self.tags.steps_for_edit(keys, entry.id, entry.text, normalized),
        ]
        if form_token is not None:
            steps.append(self._db.drafts.clearing_draft(keys, edit_draft_key(entry_id), form_token))
        edited = replace(entry, text=normalized, edited=utc_now())
        try:
            changed = await self._db.entries.update(keys, edited, steps)
        except StaleRevision:
            raise EditConflict(await self.get(keys, entry_id)) from None
        self._search.put(keys, changed)
        self._events.publish(Event(Topic.REWRITTEN, keys.user_id, (entry_id,)))
        return changed

    async def rewrite(
        self, keys: Keyring, entry_id: bytes, revision: int, change: Callable[[str], str]
    ) -> Entry:
        """Replace the text that an entry has at `revision` by `change(text)`.

        Raises as `edit`.
        """
        entry = await self.get(keys, entry_id)
        if entry.revision != revision:
            raise EditConflict(entry)
        return await self.edit(keys, entry_id, change(entry.text), revision)

    async def set_preferred(self, keys: Keyring, reply_id: bytes, *, preferred: bool) -> Entry:
        """Mark a reply as the preferred one among those to the same entry, or unmark all of them.

        Raises NotFound and StorageError.
        """
        for _ in range(MAX_RETRIES):
            reply = await self.get(keys, reply_id)
            if reply.role != "reply":
                raise NotFound("reply_not_found")
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

    def normalize_text(self, text: str) -> str:
        """Return the text as it is stored: line ends as newlines, blank edges removed.

        Raises EntryError for text that is empty or too long.
        """
        normalized = check_size(text, self._settings.max_bytes).strip("\n").rstrip()
        if not normalized.strip():
            raise EntryError("entry_empty")
        return normalized

    async def _add_entry(
        self,
        user: UserContext,
        day: date | None,
        text: str,
        parent_id: bytes | None,
        draft_key: str,
        form_token: FormToken | None,
        *,
        withheld: bool = False,
        require: Sequence[Step] = (),
    ) -> Entry:
        keys, normalized, at = user.keys, self.normalize_text(text), self.now()
        entry = Entry(
            form_token.id if form_token else secrets.token_bytes(16),
            day or user.day_of(at),
            "me",
            normalized,
            at,
            user.profile.zone,
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


def check_size(text: str, max_bytes: int) -> str:
    """Return the text with newlines as line ends. Raises EntryError for text that is too long."""
    normalized = replace_surrogates(text).replace("\r\n", "\n").replace("\r", "\n")
    if len(normalized.strip("\n").rstrip().encode()) > max_bytes:
        raise EntryError("entry_too_long", size=f"{max_bytes / 1_000_000:g} MB")
    return normalized
