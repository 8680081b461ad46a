"""Days, entries and threads: what a writer does to them, and what search is told of it."""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from logging import getLogger

from llamora.dates import UnknownDay, day_of, parse_day, utc_now
from llamora.dates import parse_zone as zone_named
from llamora.journal.citations import redact_erased
from llamora.journal.tags import Traces
from llamora.persistence.connection import AlreadyExists, NotFound, StaleRevision, StorageError
from llamora.persistence.drafts import Draft, FormToken, answer_draft_key, day_draft_key, edit_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import purging_erased as forget_traces
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.versions import Version
from llamora.search.service import SearchService
from llamora.settings import EntrySettings
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

TRIES = 5
MOMENTS = timedelta(minutes=2)
KEPT_FOR = timedelta(days=30)  # for which a deleted entry can be brought back
TEND_SECONDS = 86_400.0
SCAN_BATCH = 100  # records opened between two turns of the event loop


class EntryError(Exception):
    """The text cannot be kept as it is; `str()` is the sentence."""


class EditConflict(Exception):
    """The entry was changed elsewhere since this edit began; `theirs` is what stands now."""

    def __init__(self, theirs: Entry) -> None:
        super().__init__("This entry was changed elsewhere in the meantime.")
        self.theirs = theirs


@dataclass(slots=True, frozen=True)
class Thread:
    """An entry of a day, and what was replied and answered under it in the order it came."""

    root: Entry
    later: tuple[Entry, ...]

    def leading_to(self, entry_id: bytes) -> list[Entry]:
        """The messages from the root to one entry along who answers whom; deleted ones are left out."""
        by_id = {entry.id: entry for entry in (self.root, *self.later)}
        path: list[Entry] = []
        current = by_id.get(entry_id)
        while current is not None and current not in path:
            path.append(current)
            current = by_id.get(current.parent_id) if current.parent_id else None
        return [entry for entry in reversed(path) if entry.deleted is None]


def threads(entries: Iterable[Entry]) -> list[Thread]:
    """Sort the records of one day into threads; the order of writing is kept.

    An answer whose root is gone stands for itself, and of a circle the one that was written first is the root:
    nothing that was written is ever hidden by what is wrong with it.
    """
    ordered = list(entries)
    by_id = {entry.id: entry for entry in ordered}
    place = {entry.id: number for number, entry in enumerate(ordered)}

    def root_of(entry: Entry) -> bytes:
        path = {entry.id: entry}
        while entry.parent_id is not None and entry.parent_id in by_id:
            entry = by_id[entry.parent_id]
            if entry.id in path:
                way = list(path)
                return min(way[way.index(entry.id) :], key=place.__getitem__)
            path[entry.id] = entry
        return entry.id

    later: dict[bytes, list[Entry]] = {}
    roots: list[Entry] = []
    for entry in ordered:
        root = root_of(entry)
        if root == entry.id:
            roots.append(entry)
        else:
            later.setdefault(root, []).append(entry)
    return [Thread(root, _after_what_they_answer(root, later.get(root.id, []))) for root in roots]


def _after_what_they_answer(root: Entry, later: list[Entry]) -> tuple[Entry, ...]:
    """The messages of a thread in the order they came, also where a clock was put back between two of them."""
    placed = {root.id: root}
    waiting = later
    while waiting:
        still: list[Entry] = []
        for entry in waiting:
            if entry.parent_id in placed:
                placed[entry.id] = entry
            else:
                still.append(entry)
        if len(still) == len(waiting):  # what they answer is not here: they stand at the end
            placed |= {entry.id: entry for entry in still}
            break
        waiting = still
    return tuple(placed.values())[1:]


class Journal:
    """What can be done with entries. A method that returns has put its change on the disk."""

    def __init__(self, db: LocalDB, search: SearchService, settings: EntrySettings) -> None:
        self._db = db
        self._search = search
        self._settings = settings
        self.traces = Traces(db, search)
        self._last = datetime.min.replace(tzinfo=UTC)
        self._tended: dict[bytes, float] = {}
        self._tending: set[asyncio.Task[None]] = set()

    def now(self) -> datetime:
        """The instant of what is written now.

        A clock that is put right by moments (a time server does that) never puts an entry before the one
        kept just now; a clock that goes back further was wrong before and is believed now.
        """
        now = utc_now()
        if timedelta() <= self._last - now < MOMENTS:
            now = self._last + timedelta(microseconds=1)
        self._last = now
        return now

    async def page(self, keys: Keyring, day: date) -> list[Thread]:
        """The threads of a day, deleted entries left out."""
        found = threads(await self._db.entries.list_day(keys, day))
        return [
            Thread(thread.root, tuple(entry for entry in thread.later if entry.deleted is None))
            for thread in found
            if thread.root.deleted is None
        ]

    async def written_days(self, keys: Keyring, days: Iterable[date]) -> set[date]:
        """Which of these days have something on their page, as `page` would show it.

        Opens no more records of a day than it takes to come upon one that says so: a month of 500 entries
        takes as many as it has days, unless much of it was deleted.
        """
        unread = await self._db.entries.ids_by_day(keys, days)
        read: dict[date, list[Entry]] = {day: [] for day in unread}
        found: set[date] = set()
        each = 1
        while unread:
            wanted = [entry_id for ids in unread.values() for entry_id in ids[:each]]
            opened = {entry.id: entry for entry in await self._db.entries.get_many(keys, wanted)}
            for day, ids in list(unread.items()):
                read[day] += [opened[entry_id] for entry_id in ids[:each] if entry_id in opened]
                # A record that does not open is shown as such, so it counts.
                if any(
                    i not in opened or (opened[i].parent_id is None and opened[i].deleted is None) for i in ids[:each]
                ):
                    found.add(day)
                elif ids[each:]:
                    unread[day] = ids[each:]
                    continue
                elif any(thread.root.deleted is None for thread in threads(read[day])):
                    found.add(day)
                del unread[day]
            each *= 4
        return found

    async def get(self, keys: Keyring, entry_id: bytes) -> Entry:
        """One entry. Raises NotFound, also for a deleted one."""
        entry = await self._db.entries.get(keys, entry_id)
        if entry.deleted is not None:
            raise NotFound("This entry was deleted.")
        return entry

    async def thread(self, keys: Keyring, entry_id: bytes) -> Thread:
        """The thread an entry is part of. Raises NotFound."""
        entry = await self._db.entries.get(keys, entry_id)
        for thread in threads(await self._db.entries.list_day(keys, entry.day)):
            if any(entry_id == other.id for other in (thread.root, *thread.later)):
                return thread
        raise NotFound("There is no such entry.")

    async def write(
        self, keys: Keyring, day: date | None, text: str, zone: str, place: str = "", pen: FormToken | None = None
    ) -> Entry:
        """Keep a new entry on a day; None is the day it is in `zone`, an IANA name, at the entry's own instant.

        `place` is where its draft is, `pen` what it was written with: sent twice, it is kept once.
        Raises EntryError and StorageError.
        """
        return await self._add(keys, day, text, zone, None, place, pen)

    async def answer(self, keys: Keyring, to: bytes, text: str, zone: str, pen: FormToken | None = None) -> Entry:
        """Keep an answer to a reply, on the day of the thread. Raises EntryError, NotFound, StorageError."""
        answered = await self.get(keys, to)
        return await self._add(
            keys, answered.day, text, zone, to, answer_draft_key(to), pen, withheld=answered.withheld
        )

    async def edit(
        self, keys: Keyring, entry_id: bytes, text: str, revision: int, pen: FormToken | None = None
    ) -> Entry:
        """Put a new text in place of the one of `revision`, which is kept as an earlier version.

        Raises EditConflict, EntryError, StorageError.
        """
        checked = self.checked(text)
        entry = await self.get(keys, entry_id)
        if entry.role != "me":
            raise EntryError("What the model wrote stays as it wrote it; delete it instead.")
        if entry.text == checked:
            # Nothing to write, and nothing for somebody else's tab to conflict with.
            if pen is not None:
                await self.leave_draft(keys, edit_draft_key(entry_id))
            return entry
        if entry.revision != revision:
            raise EditConflict(entry)
        version_id = pen.id if pen else secrets.token_bytes(16)
        before = Version(version_id, entry.id, entry.text, entry.edited or entry.at, entry.revision)
        steps = [
            self._db.versions.saving_version(keys, before),
            *self.traces.writing(keys, entry.id, entry.text, checked),
        ]
        if pen is not None:
            steps.append(self._db.drafts.clearing_draft(keys, edit_draft_key(entry_id), pen))
        try:
            changed = await self._db.entries.update(keys, replace(entry, text=checked, edited=utc_now()), steps)
        except StaleRevision:
            raise EditConflict(await self.get(keys, entry_id)) from None
        self._search.put(keys, changed)
        return changed

    async def delete(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Take an entry off its page, and its thread with it if it begins one; `restore` brings it back."""
        changed = await self._mark(keys, entry_id, deleted=True)
        self._search.drop(keys.user_id, [entry.id for entry in changed])
        return changed[0]

    async def restore(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Undo `delete`: what went with the entry comes back with it, what was deleted before stays so."""
        changed = await self._mark(keys, entry_id, deleted=False)
        for entry in changed:
            self._search.put(keys, entry)
        return changed[0]

    async def withhold(self, keys: Keyring, entry_id: bytes, *, withheld: bool) -> Entry:
        """Keep an entry, and all that hangs on it, from the model; or let the model read them again."""
        for _ in range(TRIES):
            entry = await self.get(keys, entry_id)
            hanging = _hanging_on(entry_id, (await self.thread(keys, entry_id)).later)
            try:
                changed = [replace(e, withheld=withheld) for e in (entry, *hanging) if e.withheld != withheld]
                stored = await self._db.entries.update_all(keys, changed)
            except StaleRevision:
                continue
            for other in stored:
                self._search.put(keys, other)
            return replace(entry, withheld=withheld)
        raise StaleRevision("This entry is being changed elsewhere. Try again in a moment.")

    async def prefer(self, keys: Keyring, reply_id: bytes, *, preferred: bool) -> Entry:
        """Mark one of several replies to the same entry as the one to read; or none."""
        for _ in range(TRIES):
            reply = await self.get(keys, reply_id)
            others = (await self.thread(keys, reply_id)).later
            changed = [
                replace(other, preferred=preferred and other.id == reply_id)
                for other in others
                if other.role == "reply" and other.parent_id == reply.parent_id
                if other.preferred != (preferred and other.id == reply_id)
            ]
            with suppress(StaleRevision):
                await self._db.entries.update_all(keys, changed)
                return replace(reply, preferred=preferred)
        raise StaleRevision("This reply is being changed elsewhere. Try again in a moment.")

    async def hidden(self, keys: Keyring, replies: Iterable[Entry]) -> dict[bytes, str]:
        """What these replies drew on and may not show: deleted, gone, or kept from the model; with its text, or ""."""
        wanted = {
            i for r in replies for i in (*r.sources, *r.also_answers, *(r.receipt.same_page_ids if r.receipt else ()))
        }
        found = {entry.id: entry for entry in await self._db.entries.get_many(keys, list(wanted))} if wanted else {}
        gone = dict.fromkeys(wanted - found.keys(), "")
        return gone | {e.id: e.text for e in found.values() if e.deleted is not None or e.withheld}

    async def versions(self, keys: Keyring, entry_id: bytes) -> list[Version]:
        """What an entry said before, newest first. Raises NotFound for a missing or deleted entry."""
        await self.get(keys, entry_id)
        return await self._db.versions.list_for_entry(keys, entry_id)

    async def bring_back(self, keys: Keyring, entry_id: bytes, version_id: bytes, revision: int) -> Entry:
        """Put an earlier text in place of the one of `revision`: an edit like any other. Raises as `edit`, NotFound."""
        version = await self._db.versions.get(keys, entry_id, version_id)
        return await self.edit(keys, entry_id, version.text, revision)

    def checked(self, text: str) -> str:
        """The text as it is kept: line ends as newlines, blank edges gone. Raises EntryError."""
        kept = self._fitting(text).strip("\n").rstrip()
        if not kept.strip():
            raise EntryError("There is nothing to keep yet. Write a line first.")
        return kept

    def _fitting(self, text: str) -> str:
        kept = text.replace("\r\n", "\n").replace("\r", "\n")
        if len(kept.strip("\n").rstrip().encode("utf-8", "surrogatepass")) > self._settings.max_bytes:
            most = f"{self._settings.max_bytes / 1_000_000:g} MB"
            raise EntryError(f"This is longer than the {most} an entry can hold. Keep it as two.")
        return kept

    # -- drafts ------------------------------------------------------------------------------------

    async def save_draft(self, keys: Keyring, draft: Draft) -> bool:
        """Store what is being written in a place, as it is; the last to save wins, and no text removes the draft.

        False when the same pen has kept it meanwhile: then there is nothing to come back to. Raises NotFound for
        a place that there is not, EntryError for a text that is too long, StorageError.
        """
        kind, _, name = draft.draft_key.partition(":")
        text = self._fitting(draft.text)
        about = None
        try:
            if kind == "day":
                known = day_draft_key(parse_day(name))
            else:
                about = bytes.fromhex(name)
                known = {"entry": edit_draft_key, "answer": answer_draft_key}[kind](about)
        except (UnknownDay, ValueError, KeyError):
            known = ""
        if known != draft.draft_key:
            raise NotFound("There is no such place to write.")
        if kind == "entry" and about is not None:
            entry = await self._db.entries.get(keys, about)
            if text == entry.text:
                text = ""  # as it is kept already
        return await self._db.drafts.save(keys, replace(draft, text=text), about)

    async def drafts(self, keys: Keyring, places: Iterable[str]) -> dict[str, Draft]:
        """The drafts in these places."""
        return await self._db.drafts.get_many(keys, places)

    async def leave_draft(self, keys: Keyring, place: str) -> None:
        """Let a draft go."""
        await self._db.drafts.delete(keys, place)

    # -- what is deleted ---------------------------------------------------------------------------

    async def deleted(self, keys: Keyring) -> list[tuple[Entry, DeletedEntry]]:
        """What can still be brought back, the latest deleted first; what does not open is left out."""
        listed = await self._trash(keys)
        entries = {entry.id: entry for entry in await self._db.entries.get_many(keys, [item.id for item in listed])}
        return [(entries[item.id], item) for item in reversed(listed) if item.id in entries]

    async def deleted_entry(self, keys: Keyring, entry_id: bytes) -> tuple[Entry, DeletedEntry]:
        """One of them. Raises NotFound for an entry that is not deleted."""
        for item in await self._trash(keys):
            if item.id == entry_id:
                return await self._db.entries.get(keys, entry_id), item
        raise NotFound("This entry is not among the deleted ones.")

    async def erase(self, keys: Keyring, entry_id: bytes) -> list[bytes]:
        """Remove a deleted entry for good, with the thread it begins and all that hangs on them; returns the ids.

        What answered an erased message in the middle of a thread then answers the one before it.
        Raises NotFound for an entry that is not deleted, and StorageError.
        """
        _, item = await self.deleted_entry(keys, entry_id)
        return await self._erase(keys, item)

    async def erase_due(self, keys: Keyring) -> int:
        """Erase what was deleted more than KEPT_FOR ago, and return how many that were."""
        due = [item for item in await self._trash(keys) if item.deleted_at + KEPT_FOR <= utc_now()]
        for item in due:
            await self._erase(keys, item)
        return len(due)

    def tend(self, keys: Keyring) -> None:
        """Do what is due for a writer who is signed in, in the background, once a day; returns at once."""
        now = time.monotonic()
        if now - self._tended.get(keys.user_id, -TEND_SECONDS) < TEND_SECONDS:
            return
        self._tended[keys.user_id] = now
        task = asyncio.create_task(self._tend(keys), name="erase what is due")
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def close(self) -> None:
        """End what `tend` began; an erasure is whole or not at all."""
        for task in list(self._tending):
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)

    async def _tend(self, keys: Keyring) -> None:
        try:
            await self.erase_due(keys)
        except (StorageError, VaultError) as error:
            self._tended.pop(keys.user_id, None)
            logger.warning("what was due could not be erased (%s)", type(error).__name__)

    async def _erase(self, keys: Keyring, item: DeletedEntry) -> list[bytes]:
        looked: dict[bytes, int] = {}
        for _ in range(TRIES):
            gone, moved = {item.id, *item.thread_ids}, list[Entry]()
            for entry in await self._db.entries.get_many(
                keys, [item.id]
            ):  # one that does not open goes by the list alone
                if entry.deleted is None:
                    raise NotFound("This entry has been brought back.")
                thread = await self.thread(keys, item.id)
                if entry.parent_id is None:
                    gone |= {other.id for other in thread.later}
                moved = [
                    replace(o, parent_id=entry.parent_id)
                    for o in thread.later
                    if o.parent_id == entry.id and o.id not in gone
                ]
            borne = await self._db.tags.tag_ids_of(keys.user_id, gone)
            revisions = await self._db.entries.revisions(keys.user_id)
            moved = await self._forgetting(keys, gone, moved, revisions, looked)
            places = [place(entry_id) for entry_id in gone for place in (edit_draft_key, answer_draft_key)]
            also = [
                self._db.trash.updating(keys, _clearing(item.id, gone)),
                self._db.drafts.deleting(keys, places),
                self._db.summaries.deleting_for_sources(keys, gone),
                forget_traces(keys, gone, {trace for traces in borne.values() for trace in traces}),
                # A reply that was stored since they were read may hold the words.
                self._db.entries.require_unchanged_except(keys.user_id, revisions, gone, len(moved)),
            ]
            try:
                changed = await self._db.entries.erase(keys, list(gone), moved, also)
            except StaleRevision:
                continue
            self._search.drop(keys.user_id, gone)
            for entry in changed:
                self._search.put(keys, entry)
            return list(gone)
        raise StaleRevision("This entry is being changed elsewhere. Try again in a moment.")

    async def _forgetting(
        self,
        keys: Keyring,
        gone: set[bytes],
        moved: list[Entry],
        revisions: Mapping[bytes, int],
        looked: dict[bytes, int],
    ) -> list[Entry]:
        """`moved`, and the replies that cite or quote what is about to be erased, all without it.

        `looked` are the revisions that were found to have nothing of it; this goes on there, and adds to them.
        """
        texts = [entry.text for entry in await self._db.entries.get_many(keys, list(gone)) if entry.role == "me"]
        for entry_id in gone:  # a reply may quote what stood there before an edit
            texts += [version.text for version in await self._db.versions.list_for_entry(keys, entry_id)]
        changed = {entry.id: entry for entry in moved}
        ids = [i for i, at in revisions.items() if i not in gone and (i in changed or looked.get(i) != at)]
        for start in range(0, len(ids), SCAN_BATCH):
            for entry in await self._db.entries.get_many(keys, ids[start : start + SCAN_BATCH]):
                if (left := without_erased(changed.get(entry.id, entry), gone, texts)) is not None:
                    changed[entry.id] = left
                elif entry.id not in changed:
                    looked[entry.id] = entry.revision
        return list(changed.values())

    async def _trash(self, keys: Keyring) -> list[DeletedEntry]:
        """The list of what is deleted. Made from the records once, for journals that are older than the list."""
        listed = await self._db.trash.list_all(keys)
        if listed is not None:
            return listed
        marked: list[tuple[datetime, Entry]] = []
        ids = list(await self._db.entries.revisions(keys.user_id))
        for start in range(0, len(ids), SCAN_BATCH):
            opened = await self._db.entries.get_many(keys, ids[start : start + SCAN_BATCH])
            marked += [(entry.deleted, replace(entry, text="")) for entry in opened if entry.deleted is not None]
        marked.sort(key=lambda pair: (pair[0], pair[1].id))
        # What went with the beginning of its thread bears the same instant.
        with_thread = {at for at, entry in marked if entry.parent_id is None}
        await self._db.trash.initialize(
            keys, [DeletedEntry(e.id, at) for at, e in marked if e.parent_id is None or at not in with_thread]
        )
        return await self._db.trash.list_all(keys) or []

    # -- inside ------------------------------------------------------------------------------------

    async def _add(
        self,
        keys: Keyring,
        day: date | None,
        text: str,
        zone: str,
        to: bytes | None,
        place: str,
        pen: FormToken | None,
        *,
        withheld: bool = False,
    ) -> Entry:
        checked = self.checked(text)
        at = self.now()
        page = day or day_of(at, zone_named(zone))
        entry = Entry(
            pen.id if pen else secrets.token_bytes(16), page, "me", checked, at, zone, parent_id=to, withheld=withheld
        )
        drafts = [self._db.drafts.clearing_draft(keys, place, pen)] if pen and place else []
        also = [*drafts, *self.traces.writing(keys, entry.id, "", checked)]
        try:
            await self._db.entries.add(keys, entry, steps=also)
        except AlreadyExists:
            for kept in await self._db.entries.get_many(keys, [entry.id]):
                if (kept.text, kept.parent_id, kept.deleted) == (checked, to, None):
                    return kept  # the same form, sent twice
            entry = replace(entry, id=secrets.token_bytes(16))
            also = [*drafts, *self.traces.writing(keys, entry.id, "", checked)]
            await self._db.entries.add(keys, entry, steps=also)
        self._search.put(keys, entry)
        return entry

    async def _mark(self, keys: Keyring, entry_id: bytes, *, deleted: bool) -> list[Entry]:
        """Mark an entry, which comes first, and the thread it begins, in one transaction.

        Every record bears its own mark, so that whoever reads a record alone, as search does, knows.
        """
        await self._trash(keys)
        for _ in range(TRIES):
            entry = await self._db.entries.get(keys, entry_id)
            if (entry.deleted is not None) == deleted:
                return [entry]
            later = (await self.thread(keys, entry_id)).later if entry.parent_id is None else ()
            marked = [entry, *(other for other in later if other.deleted == entry.deleted)]
            mark = utc_now() if deleted else None
            item = DeletedEntry(entry.id, mark, tuple(other.id for other in marked[1:])) if mark else None
            step = self._db.trash.updating(keys, _listing(entry.id, item))
            try:
                changed = [replace(other, deleted=mark) for other in marked]
                return await self._db.entries.update_all(keys, changed, [step])
            except StaleRevision:
                continue  # an edit came between: what is deleted is the entry, whichever its text
        raise StaleRevision("This entry is being changed elsewhere. Try again in a moment.")


def without_erased(reply: Entry, gone: Collection[bytes], texts: Iterable[str]) -> Entry | None:
    """A reply that forgets erased entries and counts them; None when it had nothing to do with them."""
    if reply.role != "reply":
        return None
    left = redact_erased(reply, gone, texts) or reply
    if (receipt := left.receipt) is not None:
        read = {*reply.also_answers, *reply.sources, *receipt.same_page_ids} & set(gone)
        lost = len(read) or int(left.text != reply.text)
        beside = tuple(other for other in receipt.same_page_ids if other not in gone)
        left = replace(left, receipt=replace(receipt, same_page_ids=beside, erased_count=receipt.erased_count + lost))
    return left if left != reply else None


def _hanging_on(entry_id: bytes, later: Iterable[Entry]) -> list[Entry]:
    """What answers an entry, and what answers that, and so on."""
    found, ids = list[Entry](), {entry_id}
    for entry in later:  # in a thread nothing stands before what it answers
        if entry.parent_id in ids:
            ids.add(entry.id)
            found.append(entry)
    return found


def _listing(entry_id: bytes, item: DeletedEntry | None) -> Callable[[list[DeletedEntry]], list[DeletedEntry]]:
    """The change that puts `item` at the end of the list, or takes the entry off it."""

    def change(listed: list[DeletedEntry]) -> list[DeletedEntry]:
        kept = [other for other in listed if other.id != entry_id]
        return kept if item is None else [*kept, item]

    return change


def _clearing(entry_id: bytes, gone: set[bytes]) -> Callable[[list[DeletedEntry]], list[DeletedEntry]]:
    """The change that takes what is erased off the list; StaleRevision when the entry was brought back meanwhile."""

    def change(listed: list[DeletedEntry]) -> list[DeletedEntry]:
        if all(item.id != entry_id for item in listed):
            raise StaleRevision("This entry has been brought back.")
        return [item for item in listed if item.id not in gone]

    return change
