"""Entries and replies, one sealed record each."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from logging import getLogger
from typing import Any, Literal

from llamora.errors import Notice
from llamora.persistence.connection import (
    AlreadyExists,
    Connections,
    NotFound,
    Row,
    StaleRevision,
    Step,
    Transaction,
)
from llamora.persistence.schema import DAY_HASH, ENTRIES
from llamora.text import Role
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

State = Literal["done", "streaming", "stopped", "failed", "unreadable"]
BUILT_IN_MODEL = "built-in"
"""Name of the packaged model in records, whichever model that is."""
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_INSTANT = datetime(9999, 12, 31, tzinfo=UTC)
PAGE_SIZE = 2000  # rows of two numbers read at a time
BATCH_SIZE = (
    500  # SQLite's default limit is 32,766 parameters; a batch this size opens in about 10 ms
)
_FINGERPRINT_QUERY = (
    "SELECT count(*), sum((rid & 0xFFFFFF) * 4096 + revision) "
    "FROM entries INDEXED BY entries_by_user WHERE user_id=?"
)


@dataclass(slots=True, frozen=True)
class UsedPassage:
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


@dataclass(slots=True, frozen=True)
class Omitted:
    """Counts of what was left out of a prompt for lack of room.

    `shortened` is set when the middle of the entry was left out too.
    """

    notes: int = 0
    passages: int = 0
    turns: int = 0
    shortened: bool = False


@dataclass(slots=True, frozen=True)
class Receipt:
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
    omitted: Omitted = field(default_factory=Omitted)
    quoted: tuple[str, ...] = ()
    first_token_ms: int = -1
    same_page_ids: tuple[bytes, ...] = ()
    erased_count: int = 0


@dataclass(slots=True, frozen=True)
class Entry:
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

    def to_bytes(self) -> bytes:
        """Return the plaintext of the record: compact JSON without empty fields.

        The id and the revision are in the row and left out too.
        """
        fields: dict[str, object] = {
            "day": self.day.isoformat(),
            "role": self.role,
            "text": self.text,
            "at": to_micros(self.at),
            "zone": self.zone,
            "state": self.state,
        }
        if self.parent_id is not None:
            fields["to"] = self.parent_id.hex()
        if self.edited is not None:
            fields["edited"] = to_micros(self.edited)
        if self.deleted is not None:
            fields["deleted"] = to_micros(self.deleted)
        if self.model:
            fields["model"] = self.model
        if self.note:
            fields["note"] = asdict(self.note)
        if self.sources:
            fields["sources"] = [source_id.hex() for source_id in self.sources]
        if self.boot:
            fields["boot"] = self.boot
        if self.also_answers:
            fields["also"] = [other_id.hex() for other_id in self.also_answers]
        for name in ("withheld", "preferred", "stopping"):
            if getattr(self, name):
                fields[name] = True
        if self.receipt is not None:
            fields["receipt"] = _encode_receipt(self.receipt)
        return encode_record(fields)

    @classmethod
    def from_bytes(cls, entry_id: bytes, revision: int, record: bytes) -> "Entry":
        """Return the entry of a plaintext made by `to_bytes`."""
        fields = json.loads(record)
        parent_id = fields.get("to")
        return cls(
            id=entry_id,
            day=date.fromisoformat(fields["day"]),
            role=fields["role"],
            text=fields["text"],
            at=from_micros(fields["at"]),
            zone=fields["zone"],
            parent_id=bytes.fromhex(parent_id) if parent_id else None,
            revision=revision,
            state=fields["state"],
            edited=from_micros(fields["edited"]) if "edited" in fields else None,
            deleted=from_micros(fields["deleted"]) if "deleted" in fields else None,
            model=fields.get("model", ""),
            note=Notice(**fields["note"]) if "note" in fields else None,
            sources=tuple(bytes.fromhex(source_id) for source_id in fields.get("sources", ())),
            boot=fields.get("boot", ""),
            withheld=fields.get("withheld", False),
            also_answers=tuple(bytes.fromhex(other_id) for other_id in fields.get("also", ())),
            preferred=fields.get("preferred", False),
            stopping=fields.get("stopping", False),
            receipt=_decode_receipt(fields["receipt"]) if "receipt" in fields else None,
        )


def _encode_receipt(receipt: Receipt) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": receipt.model,
        "file": receipt.model_file,
        "endpoint": receipt.endpoint,
        "left": receipt.left_machine,
        "prompt": receipt.prompt_version,
        "passages": [
            {
                "number": p.number,
                "entry": p.entry_id.hex(),
                "day": p.day.isoformat(),
                "text": p.text,
                "score": p.score,
            }
            | ({"traced": True} if p.from_tag else {})
            for p in receipt.passages
        ],
        "in": receipt.tokens_in,
        "out": receipt.tokens_out,
        "counted": receipt.tokens_counted,
        "cut": asdict(receipt.omitted),
        "first": receipt.first_token_ms,
    }
    if receipt.quoted:
        fields["quoted"] = receipt.quoted
    if receipt.same_page_ids:
        fields["beside"] = [other_id.hex() for other_id in receipt.same_page_ids]
    if receipt.erased_count:
        fields["erased"] = receipt.erased_count
    return fields


def _decode_receipt(fields: dict[str, Any]) -> Receipt:
    return Receipt(
        model=fields["model"],
        model_file=fields["file"],
        endpoint=fields["endpoint"],
        left_machine=fields["left"],
        prompt_version=fields["prompt"],
        passages=tuple(
            UsedPassage(
                p["number"],
                bytes.fromhex(p["entry"]),
                date.fromisoformat(p["day"]),
                p["text"],
                p["score"],
                p.get("traced", False),
            )
            for p in fields["passages"]
        ),
        tokens_in=fields["in"],
        tokens_out=fields["out"],
        tokens_counted=fields["counted"],
        omitted=Omitted(**fields["cut"]),
        quoted=tuple(fields.get("quoted", ())),
        first_token_ms=fields["first"],
        same_page_ids=tuple(bytes.fromhex(other_id) for other_id in fields.get("beside", ())),
        erased_count=fields.get("erased", 0),
    )


def encode_record(content: object) -> bytes:
    """Return the plaintext of a record: compact JSON."""
    # A lone surrogate is not text in UTF-8; JSON's escape keeps what the user sent all the same.
    try:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(content, separators=(",", ":")).encode()


def to_micros(instant: datetime) -> int:
    """Return an instant as records store it: microseconds since 1970-01-01 UTC."""
    return (instant - UNIX_EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return the aware UTC instant of `micros`."""
    return UNIX_EPOCH + timedelta(microseconds=micros)


def day_hash(keys: Keyring, day: date) -> bytes:
    """Return the keyed hash that stands for a day in the database."""
    return keys.blind(DAY_HASH, day.isoformat().encode())


def fingerprint_weight(record_id: bytes, revision: int) -> int:
    """Return what a record adds to the sum of `Entries.fingerprint`."""
    return (rowid_for(record_id) & 0xFFFFFF) * 4096 + revision


def _revisions_query(user_id: bytes, ids: Sequence[bytes]) -> tuple[str, tuple[bytes, ...]]:
    placeholders = ",".join("?" * len(ids))
    return f"SELECT id, revision FROM entries WHERE +user_id=? AND id IN ({placeholders})", (
        user_id,
        *ids,
    )


def rowid_for(record_id: bytes) -> int:
    """Return the integer key of a row, taken from the random id so that it does not tell time."""
    return int.from_bytes(record_id[:8], "big") >> 1


class Entries:
    """The store of entries, reached as `db.entries`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, keys: Keyring, *entries: Entry, steps: Sequence[Step] = ()) -> None:
        """Store new entries, all or none; they are on the disk when this returns.

        Raise AlreadyExists for an id that is in use, and StorageError.
        """
        rows = [
            (
                rowid_for(e.id),
                e.id,
                keys.user_id,
                day_hash(keys, e.day),
                keys.epoch,
                e.revision,
                self._seal(keys, e),
            )
            for e in entries
        ]
        async with self._db.write() as tx:
            for row in rows:
                inserted = await tx.execute(
                    "INSERT INTO entries (rid, id, user_id, day, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    row,
                )
                if inserted != 1:
                    raise AlreadyExists("entry_exists")
            for step in steps:
                await step(tx)

    async def get(self, keys: Keyring, entry_id: bytes) -> Entry:
        """Return one entry, deleted ones too. Raise NotFound if it is missing or another user's."""
        entries = await self.get_many(keys, [entry_id])
        if not entries:
            raise NotFound("entry_not_found")
        return entries[0]

    async def get_many(self, keys: Keyring, ids: Sequence[bytes]) -> list[Entry]:
        """Return the entries of these ids, in no order, without missing and unreadable ones."""
        entries: list[Entry] = []
        for start in range(0, len(ids), BATCH_SIZE):
            entries += self._open_rows(
                keys, await self.get_sealed(keys.user_id, ids[start : start + BATCH_SIZE])
            )
        return entries

    async def list_day(self, keys: Keyring, day: date) -> list[Entry]:
        """Return everything on one page in the order it was written, replies and deleted ones too.

        A record that does not open stands at the end, empty, in the state "unreadable".
        """
        rows = await self._db.fetch(
            "SELECT id, revision, sealed FROM entries WHERE user_id=? AND day=?",
            (keys.user_id, day_hash(keys, day)),
        )
        return sorted(self._open_rows(keys, rows, day), key=lambda entry: (entry.at, entry.id))

    async def revisions_on(self, keys: Keyring, days: Sequence[date]) -> dict[bytes, int]:
        """Return the revision of every record on these pages, deleted ones too; opens nothing."""
        hashes = [day_hash(keys, day) for day in days]
        placeholders = ",".join("?" * len(hashes))
        return dict(
            await self._db.fetch(
                f"SELECT id, revision FROM entries WHERE user_id=? AND day IN ({placeholders})",
                (keys.user_id, *hashes),
            )
        )

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
        rows = self._update_params(keys, updated)
        async with self._db.write() as tx:
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
        rows = self._update_params(keys, updated)
        async with self._db.write() as tx:
            await self._update_rows(tx, rows)
            await tx.execute_many(
                "DELETE FROM entries WHERE user_id=? AND id=?",
                [(keys.user_id, entry_id) for entry_id in ids],
            )
            # A copy of the search index may hold their words; search makes a new one.
            await tx.execute("DELETE FROM search_snapshots WHERE user_id=?", (keys.user_id,))
            # A tag's name goes with its last entry, as when it is removed.
            await tx.execute(
                "DELETE FROM tags WHERE user_id=?1 AND NOT EXISTS"
                " (SELECT 1 FROM entry_tags WHERE user_id=?1 AND tag=tags.tag)",
                (keys.user_id,),
            )
            for step in steps:
                await step(tx)
        await self._db.checkpoint()
        return updated

    async def ids_by_day(self, keys: Keyring, days: Iterable[date]) -> dict[date, list[bytes]]:
        """Return the ids on each of these days that has a record, deleted entries too."""
        days_by_hash = {day_hash(keys, day): day for day in days}
        ids: dict[date, list[bytes]] = {}
        day_hashes = list(days_by_hash)
        for start in range(0, len(day_hashes), BATCH_SIZE):
            batch = day_hashes[start : start + BATCH_SIZE]
            placeholders = ",".join("?" * len(batch))
            rows = await self._db.fetch(
                f"SELECT day, id FROM entries WHERE user_id=? AND day IN ({placeholders})",
                (keys.user_id, *batch),
            )
            for row in rows:
                ids.setdefault(days_by_hash[row[0]], []).append(row[1])
        return ids

    async def revisions(self, user_id: bytes) -> dict[bytes, int]:
        """Return the revision of every record of a user."""
        revisions: dict[bytes, int] = {}
        last_id = b""
        while True:  # so many at a time that the event loop is held for a millisecond at most
            rows = await self._db.fetch(
                "SELECT id, revision FROM entries WHERE user_id=? AND id>? ORDER BY id LIMIT ?",
                (user_id, last_id, PAGE_SIZE),
            )
            revisions.update(rows)
            if len(rows) < PAGE_SIZE:
                return revisions
            last_id = rows[-1][0]

    async def revisions_of(self, user_id: bytes, ids: Iterable[bytes]) -> dict[bytes, int]:
        """Return the revision of each of these records that exists."""
        revisions: dict[bytes, int] = {}
        entry_ids = list(ids)
        for start in range(0, len(entry_ids), BATCH_SIZE):
            batch = entry_ids[start : start + BATCH_SIZE]
            revisions.update(await self._db.fetch(*_revisions_query(user_id, batch)))
        return revisions

    def require_revisions(self, user_id: bytes, revisions: Mapping[bytes, int | None]) -> Step:
        """Return the step that raises StaleRevision unless all of these exist at these revisions.

        None stands for any revision.
        """

        async def check(tx: Transaction) -> None:
            entry_ids = list(revisions)
            stored: dict[bytes, int] = {}
            for start in range(0, len(entry_ids), BATCH_SIZE):
                stored.update(
                    await tx.fetch(
                        *_revisions_query(user_id, entry_ids[start : start + BATCH_SIZE])
                    )
                )
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
            rows = await tx.fetch(
                "SELECT id FROM entries WHERE user_id=? AND day=?",
                (keys.user_id, day_hash(keys, day)),
            )
            for entry_id in {row[0] for row in rows} - known_ids:
                added = await tx.fetch(
                    "SELECT id, revision, sealed FROM entries WHERE id=?", (entry_id,)
                )
                if any(map(matches, self._open_rows(keys, added))):
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

    async def ids_on_days(self, keys: Keyring, days: Sequence[date]) -> list[bytes]:
        """Return the ids on these days, found by keyed hash.

        An index uses it to go through sealed records newest first.
        """
        ids: list[bytes] = []
        for start in range(0, len(days), BATCH_SIZE):
            batch = [day_hash(keys, day) for day in days[start : start + BATCH_SIZE]]
            placeholders = ",".join("?" * len(batch))
            rows = await self._db.fetch(
                f"SELECT day, id FROM entries WHERE user_id=? AND day IN ({placeholders})",
                (keys.user_id, *batch),
            )
            order_by_hash = {day: order for order, day in enumerate(batch)}
            ids += [row[1] for row in sorted(rows, key=lambda row: order_by_hash[row[0]])]
        return ids

    async def get_sealed(
        self, user_id: bytes, ids: Sequence[bytes]
    ) -> list[tuple[bytes, int, bytes]]:
        """Return (id, revision, envelope) of at most BATCH_SIZE records, to open on a thread."""
        placeholders = ",".join("?" * len(ids))
        # The "+" keeps SQLite from walking all rows of the user by the other index.
        rows = await self._db.fetch(
            f"SELECT id, revision, sealed FROM entries WHERE +user_id=? AND id IN ({placeholders})",
            (user_id, *ids),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    @staticmethod
    def open_record(keys: Keyring, entry_id: bytes, revision: int, sealed: bytes) -> Entry:
        """Open one envelope. Raise vault.envelope.SealError."""
        return Entry.from_bytes(entry_id, revision, ENTRIES.open(keys, entry_id, revision, sealed))

    def _open_rows(
        self, keys: Keyring, rows: Iterable[Row], day: date | None = None
    ) -> list[Entry]:
        entries: list[Entry] = []
        for entry_id, revision, sealed in rows:
            try:
                entries.append(self.open_record(keys, entry_id, revision, sealed))
            except SealError as error:
                # One damaged record must not take the page away from the user; it is never deleted
                # here.
                logger.error("a record could not be opened (%s)", type(error).__name__)
                if day is not None:
                    entries.append(
                        Entry(
                            entry_id,
                            day,
                            "me",
                            "",
                            LATEST_INSTANT,
                            "UTC",
                            revision=revision,
                            state="unreadable",
                        )
                    )
        return entries

    def _update_params(self, keys: Keyring, entries: Iterable[Entry]) -> list[Row]:
        return [
            (keys.epoch, e.revision, self._seal(keys, e), keys.user_id, e.id, e.revision - 1)
            for e in entries
        ]

    @staticmethod
    async def _update_rows(tx: Transaction, rows: Iterable[Row]) -> None:
        for row in rows:
            updated = await tx.execute(
                "UPDATE entries SET epoch=?, revision=?, sealed=? WHERE user_id=? AND id=? AND revision=?",
                row,
            )
            if updated != 1:
                raise StaleRevision("entry_changed_elsewhere")

    @staticmethod
    def _seal(keys: Keyring, entry: Entry) -> bytes:
        return ENTRIES.seal(keys, entry.id, entry.revision, entry.to_bytes())
