"""Entries and replies, one sealed record each."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from llamora.errors import Notice
from llamora.persistence.connection import (
    AlreadyExists,
    Connections,
    NotFound,
    StaleRevision,
    Step,
    Transaction,
)
from llamora.persistence.schema import DAY_HASH, ENTRIES
from llamora.persistence.table import (
    Opened,
    Sealed,
    SealedRow,
    SealedTable,
    fetch_in,
    rowid_for,
    values_of,
)
from llamora.persistence.tag_changes import UNUSED_TAG
from llamora.text import Role
from llamora.vault.keys import Keyring

State = Literal["done", "streaming", "stopped", "failed", "unreadable"]
BUILT_IN_MODEL = "built-in"
"""Name of the packaged model in records, whichever model that is."""
LATEST_INSTANT = datetime(9999, 12, 31, tzinfo=UTC)
PAGE_SIZE = 2000  # rows of two numbers read at a time
_FINGERPRINT_QUERY = (
    "SELECT count(*), sum((rid & 0xFFFFFF) * 4096 + CAST(revision AS INTEGER)) "
    "FROM entries INDEXED BY entries_by_user WHERE user_id=?"
)


class UsedPassage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A passage that was in the prompt of a reply: its number there, its source, text and score.

    `from_tag` is set when it was included because its entry shares a tag with the entry that was
    answered; its score then counts such tags.
    """

    number: int
    entry_id: bytes
    day: date
    text: str
    score: float
    from_tag: bool = False


class Omitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of what was left out of a prompt for lack of room.

    `shortened` is set when the middle of the entry was left out too.
    """

    notes: int = 0
    passages: int = 0
    turns: int = 0
    shortened: bool = False


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts of how a reply was made.

    `model_file` is the model's file where its server reports one. `endpoint` is scheme, host and
    port ("" for the built-in model), and `left_machine` is set when text left this machine.
    `prompt_version` is the version of the prompts. Tokens are counted by the server's tokenizer, or
    estimated unless `tokens_counted`. `quoted` are the quotations that stand in the prompt letter
    by letter. `first_token_ms` are milliseconds from the request to the first word, -1 when none
    came. `same_page_ids` are the other entries of the page that were in the prompt; `erased_count`
    counts the entries the reply drew on that were erased since.
    """

    model: str
    model_file: str
    endpoint: str
    left_machine: bool
    prompt_version: str
    passages: tuple[UsedPassage, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_counted: bool = True
    omitted: Omitted = Omitted()
    quoted: tuple[str, ...] = ()
    first_token_ms: int = -1
    same_page_ids: tuple[bytes, ...] = ()
    erased_count: int = 0


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text written by the user or by the model.

    `day` is the page it stands on, `at` the instant it was written (UTC) and `zone` the user's zone
    at that instant. `parent_id` is the entry it answers: a thread is everything below a root, and
    stands on the root's day. `edited` and `deleted` are UTC instants. For replies: `model` wrote
    it, `note` says what went wrong, `sources` are the earlier entries that were in the prompt,
    `receipt` says how it was made, `also_answers` are further entries it answers beside
    `parent_id`, `preferred` marks one of several replies to the same entry, and `boot` names the
    run of the server that is still writing it; `stopping` asks whichever worker writes it to end.
    `withheld` entries are kept from the model. All of it is sealed; the row shows id, owner, padded
    size, epoch, revision and a keyed hash of the day.
    """

    id: bytes
    day: date
    role: Role
    text: str
    at: datetime
    zone: str
    parent_id: bytes | None = None
    revision: int = 1
    state: State = "done"
    edited: datetime | None = None
    deleted: datetime | None = None
    model: str = ""
    note: Notice | None = None
    sources: tuple[bytes, ...] = ()
    boot: str = ""
    withheld: bool = False
    also_answers: tuple[bytes, ...] = ()
    preferred: bool = False
    stopping: bool = False
    receipt: Receipt | None = None


def day_hash(keys: Keyring, day: date) -> bytes:
    """Return the keyed hash that stands for a day in the database."""
    return keys.blind(DAY_HASH, day.isoformat().encode())


def fingerprint_weight(record_id: bytes, revision: int) -> int:
    """Return what a record adds to the sum of `Entries.fingerprint`."""
    return (rowid_for(record_id) & 0xFFFFFF) * 4096 + revision


class Entries:
    """The store of entries, reached as `db.entries`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, ENTRIES, Entry)

    async def add(self, keys: Keyring, *entries: Entry, steps: Sequence[Step] = ()) -> None:
        """Store new entries, all or none; they are on the disk when this returns.

        Raise AlreadyExists for an id that is in use, and StorageError.
        """
        rows = [self._seal(keys, entry) for entry in entries]
        async with self._db.write(keys=keys) as tx:
            for row in rows:
                if not await self._table.insert(tx, row):
                    raise AlreadyExists("entry_exists")
            for step in steps:
                await step(tx)

    async def get(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Return one entry, deleted ones too. Raise NotFound if it is missing or another user's."""
        entries = await self.get_many(keys, [entry_id])
        if not entries:
            raise NotFound("entry_not_found")
        return entries[0]

    async def get_many(self, keys: Keyring, ids: Collection[bytes]) -> list[Entry]:
        """Return the entries of these ids, in no order, without missing and unreadable ones."""
        return values_of(await self._table.fetch_in(keys, ids))

    async def list_day(self, keys: Keyring, day: date) -> list[Entry]:
        """Return everything on one page in the order it was written, replies and deleted ones too.

        A record that does not open stands at the end, empty, in the state "unreadable".
        """
        opened = await self._table.fetch(keys, "day=?", day_hash(keys, day))
        entries = [record.value or _unreadable(record, day) for record in opened]
        return sorted(entries, key=lambda entry: (entry.at, entry.id))

    async def revisions_on(self, keys: Keyring, days: Sequence[date]) -> dict[bytes, int]:
        """Return the revision of every record on these pages, deleted ones too; opens nothing."""
        hashes = [day_hash(keys, day) for day in days]
        query = "SELECT id, CAST(revision AS INTEGER) FROM entries WHERE user_id=? AND day IN (*)"
        return dict(await fetch_in(self._db, query, hashes, keys.user_id))

    async def update(self, keys: Keyring, entry: Entry, steps: Sequence[Step] = ()) -> Entry:
        """Store `entry` over the revision it was read at and return it with its new revision.

        Raise StaleRevision when it changed meanwhile.
        """
        return (await self.update_all(keys, [entry], steps))[0]

    async def update_all(
        self, keys: Keyring, entries: Sequence[Entry], steps: Sequence[Step] = ()
    ) -> list[Entry]:
        """Run `update` for several entries and further steps of the same action, all or none."""
        updated = [replace(entry, revision=entry.revision + 1) for entry in entries]
        rows = [self._seal(keys, entry) for entry in updated]
        async with self._db.write(keys=keys) as tx:
            await self._update_rows(tx, rows)
            for step in steps:
                await step(tx)
        return updated

    async def erase(
        self,
        keys: Keyring,
        ids: Sequence[bytes],
        reparented: Sequence[Entry] = (),
        steps: Sequence[Step] = (),
    ) -> list[Entry]:
        """Erase entries with their vectors, versions and tags; the file's bytes are overwritten.

        `reparented` are entries that answered one of them and now answer another; they are returned
        as stored. Raise StaleRevision when one of those changed meanwhile.
        """
        updated = [replace(entry, revision=entry.revision + 1) for entry in reparented]
        rows = [self._seal(keys, entry) for entry in updated]
        async with self._db.write(keys=keys) as tx:
            await self._update_rows(tx, rows)
            await self._table.delete(tx, keys.user_id, ids)
            # A copy of the search index may hold their words; search makes a new one.
            await tx.execute("DELETE FROM search_snapshots WHERE user_id=?", (keys.user_id,))
            # A tag's name goes with its last entry, as when it is removed.
            await tx.execute(f"DELETE FROM tags WHERE user_id=? AND {UNUSED_TAG}", (keys.user_id,))
            for step in steps:
                await step(tx)
        await self._db.checkpoint()
        return updated

    async def ids_by_day(self, keys: Keyring, days: Iterable[date]) -> dict[date, list[bytes]]:
        """Return the ids on each of these days that has a record, deleted entries too."""
        days_by_hash = {day_hash(keys, day): day for day in days}
        query = "SELECT day, id FROM entries WHERE user_id=? AND day IN (*)"
        ids: dict[date, list[bytes]] = {}
        for hashed_day, entry_id in await fetch_in(self._db, query, days_by_hash, keys.user_id):
            ids.setdefault(days_by_hash[hashed_day], []).append(entry_id)
        return ids

    async def ids_on_days(self, keys: Keyring, days: Sequence[date]) -> list[bytes]:
        """Return the ids on these days, in the order of `days`; an index reads newest first."""
        ids = await self.ids_by_day(keys, days)
        return [entry_id for day in days for entry_id in ids.get(day, ())]

    async def revisions(self, user_id: bytes) -> dict[bytes, int]:
        revisions: dict[bytes, int] = {}
        last_id = b""
        while True:  # so many at a time that the event loop is held for a millisecond at most
            rows = await self._db.fetch(
                "SELECT id, CAST(revision AS INTEGER) FROM entries"
                " WHERE user_id=? AND id>? ORDER BY id LIMIT ?",
                (user_id, last_id, PAGE_SIZE),
            )
            revisions.update(rows)
            if len(rows) < PAGE_SIZE:
                return revisions
            last_id = rows[-1][0]

    async def revisions_of(self, user_id: bytes, ids: Collection[bytes]) -> dict[bytes, int]:
        return await self._table.revisions(user_id, ids)

    def require_revisions(self, user_id: bytes, revisions: Mapping[bytes, int | None]) -> Step:
        """Return the step that raises StaleRevision unless all of these exist at these revisions.

        None stands for any revision.
        """

        async def check(tx: Transaction) -> None:
            stored = await self._table.revisions(user_id, revisions, tx)
            for entry_id, revision in revisions.items():
                if entry_id not in stored or revision not in (None, stored[entry_id]):
                    raise StaleRevision("sources_changed")

        return check

    def require_no_new(
        self,
        keys: Keyring,
        day: date,
        known_ids: AbstractSet[bytes],
        matches: Callable[[Entry], bool],
    ) -> Step:
        """Return the step that raises AlreadyExists when a matching record was added to a page.

        Records in `known_ids` are not looked at; `matches` decides about the others.
        """

        async def check(tx: Transaction) -> None:
            query = "SELECT id FROM entries WHERE user_id=? AND day=?"
            rows = await tx.fetch(query, (keys.user_id, day_hash(keys, day)))
            added_ids = {row[0] for row in rows} - known_ids
            if any(map(matches, values_of(await self._table.fetch_in(keys, added_ids, tx)))):
                raise AlreadyExists("entry_exists")

        return check

    def require_unchanged_except(
        self,
        user_id: bytes,
        revisions: Mapping[bytes, int],
        erased_ids: AbstractSet[bytes],
        updated_count: int,
    ) -> Step:
        """Return the step for an erasure that raises StaleRevision when anything else changed.

        `revisions` is everything there was before, `erased_ids` what is erased, and `updated_count`
        the number of records that get their next revision.
        """
        weights = [
            fingerprint_weight(entry_id, revision)
            for entry_id, revision in revisions.items()
            if entry_id not in erased_ids
        ]

        async def check(tx: Transaction) -> None:
            rows = await tx.fetch(_FINGERPRINT_QUERY, (user_id,))
            if (rows[0][0], rows[0][1] or 0) != (len(weights), sum(weights) + updated_count):
                raise StaleRevision("page_changed")

        return check

    async def fingerprint(self, user_id: bytes) -> tuple[int, int]:
        """Return a count and a sum that differ once a record was added, erased or changed.

        `fingerprint_weight` gives a record's share of the sum.
        """
        rows = await self._db.fetch(_FINGERPRINT_QUERY, (user_id,))
        return rows[0][0], rows[0][1] or 0

    async def get_sealed(self, user_id: bytes, ids: Collection[bytes]) -> list[Sealed]:
        """Return the stored records of these ids, to be opened on a thread."""
        return await self._table.get_sealed(user_id, ids)

    def open_sealed(self, keys: Keyring, rows: Sequence[Sealed]) -> list[Entry]:
        """Open stored records on this thread, without unreadable ones."""
        return values_of(self._table.open_all(keys, rows))

    def _seal(self, keys: Keyring, entry: Entry) -> SealedRow:
        hashed_day = day_hash(keys, entry.day)
        return self._table.seal(keys, entry.id, entry.revision, entry, day=hashed_day)

    async def _update_rows(self, tx: Transaction, rows: Iterable[SealedRow]) -> None:
        for row in rows:
            if not await self._table.update(tx, row):
                raise StaleRevision("entry_changed_elsewhere")


def _unreadable(record: Opened[Entry], day: date) -> Entry:
    return Entry(
        record.id, day, "me", "", LATEST_INSTANT, "UTC", None, record.revision, "unreadable"
    )
