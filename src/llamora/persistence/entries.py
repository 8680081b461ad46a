"""What was written and what was replied, one sealed record each."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from logging import getLogger
from typing import Any, Literal

from llamora.persistence.connection import (
    AlreadyThere,
    Connections,
    NotFound,
    Row,
    StaleRevision,
    Step,
    Transaction,
)
from llamora.persistence.schema import DAY_HASH, ENTRIES
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

Role = Literal["me", "reply"]
State = Literal["done", "streaming", "stopped", "failed", "unreadable"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, tzinfo=UTC)
PAGE = 2000  # rows of two numbers read at a time
BATCH = 500  # SQLite's default limit is 32,766 parameters; a batch this size opens in about 10 ms
_FINGERPRINT = (
    "SELECT count(*), sum((rid & 0xFFFFFF) * 4096 + revision) FROM entries INDEXED BY entries_by_user WHERE user_id=?"
)


@dataclass(slots=True, frozen=True)
class Used:
    """A passage that was in the prompt of a reply: its number there, where it is from, its words and its score.

    `traced`: it was brought since its entry bears a trace of what was answered; then its score counts such traces.
    """

    number: int
    entry: bytes
    day: date
    text: str
    score: float
    traced: bool = False


@dataclass(slots=True, frozen=True)
class Receipt:
    """What a reply was made with.

    `file` is the model's file where its server tells, `endpoint` scheme, host and port ("" for the built-in model),
    `left` whether text left this machine. `prompt` is the version of the prompts. Tokens are counted by the server's
    tokenizer, or estimated when not `counted`. `cut` is a sentence on what was left out for lack of room, or "";
    `quoted` are its quotations that stand in the prompt letter by letter. `first_ms` are milliseconds from the request
    to the model to its first word; -1 when none came. `beside` are the other entries of the page whose
    words were in the prompt; `erased` counts what the reply had to do with and was erased since.
    """

    model: str
    file: str
    endpoint: str
    left: bool
    prompt: str
    passages: tuple[Used, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = True
    cut: str = ""
    quoted: tuple[str, ...] = ()
    first_ms: int = -1
    beside: tuple[bytes, ...] = ()
    erased: int = 0


@dataclass(slots=True, frozen=True)
class Entry:
    """One thing written by the writer or by the model.

    `day` is the page it stands on, `at` the instant it was written (UTC) and `zone` the writer's zone
    at that instant. `to` is the entry it answers: a thread is what hangs on a root by `to`, and stands
    on the root's day. `edited` and `deleted` are UTC instants. For replies: `model` wrote it, `note` is
    a sentence on what went wrong, `sources` are the earlier entries whose words were in the prompt, `receipt`
    says what it was made with, `also` are further entries that it answers beside `to`, `preferred` marks one
    of several replies to the same entry, and `boot` names the run of the server that is still writing it;
    `stopping` asks whichever worker writes it to end. `withheld` entries are kept from the model. All of it is
    sealed; the row shows id, owner, padded size, epoch, revision and a keyed hash of the day.
    """

    id: bytes
    day: date
    role: Role
    text: str
    at: datetime
    zone: str
    to: bytes | None = None
    revision: int = 1
    state: State = "done"
    edited: datetime | None = None
    deleted: datetime | None = None
    model: str = ""
    note: str = ""
    sources: tuple[bytes, ...] = ()
    boot: str = ""
    withheld: bool = False
    also: tuple[bytes, ...] = ()
    preferred: bool = False
    stopping: bool = False
    receipt: Receipt | None = None

    def packed(self) -> bytes:
        """The plaintext of the record: compact JSON without the fields the row carries or that are empty."""
        fields: dict[str, object] = {
            "day": self.day.isoformat(),
            "role": self.role,
            "text": self.text,
            "at": micros(self.at),
            "zone": self.zone,
            "state": self.state,
        }
        if self.to is not None:
            fields["to"] = self.to.hex()
        if self.edited is not None:
            fields["edited"] = micros(self.edited)
        if self.deleted is not None:
            fields["deleted"] = micros(self.deleted)
        if self.model:
            fields["model"] = self.model
        if self.note:
            fields["note"] = self.note
        if self.sources:
            fields["sources"] = [source.hex() for source in self.sources]
        if self.boot:
            fields["boot"] = self.boot
        if self.also:
            fields["also"] = [other.hex() for other in self.also]
        for name in ("withheld", "preferred", "stopping"):
            if getattr(self, name):
                fields[name] = True
        if self.receipt is not None:
            fields["receipt"] = _receipt_fields(self.receipt)
        return record_bytes(fields)

    @classmethod
    def unpacked(cls, entry_id: bytes, revision: int, record: bytes) -> "Entry":
        """The entry of a plaintext made by `packed`."""
        fields = json.loads(record)
        to = fields.get("to")
        return cls(
            id=entry_id,
            day=date.fromisoformat(fields["day"]),
            role=fields["role"],
            text=fields["text"],
            at=instant(fields["at"]),
            zone=fields["zone"],
            to=bytes.fromhex(to) if to else None,
            revision=revision,
            state=fields["state"],
            edited=instant(fields["edited"]) if "edited" in fields else None,
            deleted=instant(fields["deleted"]) if "deleted" in fields else None,
            model=fields.get("model", ""),
            note=fields.get("note", ""),
            sources=tuple(bytes.fromhex(source) for source in fields.get("sources", ())),
            boot=fields.get("boot", ""),
            withheld=fields.get("withheld", False),
            also=tuple(bytes.fromhex(other) for other in fields.get("also", ())),
            preferred=fields.get("preferred", False),
            stopping=fields.get("stopping", False),
            receipt=_receipt(fields["receipt"]) if "receipt" in fields else None,
        )


def _receipt_fields(receipt: Receipt) -> dict[str, object]:
    fields: dict[str, object] = {
        "model": receipt.model,
        "file": receipt.file,
        "endpoint": receipt.endpoint,
        "left": receipt.left,
        "prompt": receipt.prompt,
        "passages": [
            {"number": p.number, "entry": p.entry.hex(), "day": p.day.isoformat(), "text": p.text, "score": p.score}
            | ({"traced": True} if p.traced else {})
            for p in receipt.passages
        ],
        "in": receipt.tokens_in,
        "out": receipt.tokens_out,
        "counted": receipt.counted,
        "cut": receipt.cut,
        "first": receipt.first_ms,
    }
    if receipt.quoted:
        fields["quoted"] = receipt.quoted
    if receipt.beside:
        fields["beside"] = [other.hex() for other in receipt.beside]
    if receipt.erased:
        fields["erased"] = receipt.erased
    return fields


def _receipt(fields: dict[str, Any]) -> Receipt:
    return Receipt(
        model=fields["model"],
        file=fields["file"],
        endpoint=fields["endpoint"],
        left=fields["left"],
        prompt=fields["prompt"],
        passages=tuple(
            Used(
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
        counted=fields["counted"],
        cut=fields["cut"],
        quoted=tuple(fields.get("quoted", ())),
        first_ms=fields["first"],
        beside=tuple(bytes.fromhex(other) for other in fields.get("beside", ())),
        erased=fields.get("erased", 0),
    )


def record_bytes(content: object) -> bytes:
    """The plaintext of a record: compact JSON."""
    # A lone surrogate is not text in UTF-8; JSON's escape keeps what the writer sent all the same.
    try:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(content, separators=(",", ":")).encode()


def micros(at: datetime) -> int:
    """An instant as records hold it: microseconds since 1970-01-01 UTC."""
    return (at - EPOCH) // timedelta(microseconds=1)


def instant(count: int) -> datetime:
    """The instant of `micros`."""
    return EPOCH + timedelta(microseconds=count)


def day_hash(keys: Keyring, day: date) -> bytes:
    """The keyed hash that stands for a day in the file."""
    return keys.blind(DAY_HASH, day.isoformat().encode())


def weighed(record_id: bytes, revision: int) -> int:
    """What a record adds to the sum of `Entries.fingerprint`."""
    return (row_place(record_id) & 0xFFFFFF) * 4096 + revision


def _revisions_query(user_id: bytes, ids: Sequence[bytes]) -> tuple[str, tuple[bytes, ...]]:
    marks = ",".join("?" * len(ids))
    return f"SELECT id, revision FROM entries WHERE +user_id=? AND id IN ({marks})", (user_id, *ids)


def row_place(record_id: bytes) -> int:
    """The integer key of a row: from the random id, so that its place in the file says nothing about time."""
    return int.from_bytes(record_id[:8], "big") >> 1


class Entries:
    """`db.entries`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, keys: Keyring, *entries: Entry, also: Sequence[Step] = ()) -> None:
        """Store new entries, all or none; they are on the disk when this returns.

        Raises AlreadyThere for an id that is in use, and StorageError.
        """
        rows = [
            (row_place(e.id), e.id, keys.user_id, day_hash(keys, e.day), keys.epoch, e.revision, self._seal(keys, e))
            for e in entries
        ]
        async with self._db.write() as tx:
            for row in rows:
                done = await tx.execute(
                    "INSERT INTO entries (rid, id, user_id, day, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    row,
                )
                if done != 1:
                    raise AlreadyThere("The journal’s file refused the change: there is such an entry already.")
            for step in also:
                await step(tx)

    async def get(self, keys: Keyring, entry_id: bytes) -> Entry:
        """One entry, deleted ones too. Raises NotFound for a missing one and for another writer's."""
        found = await self.many(keys, [entry_id])
        if not found:
            raise NotFound("There is no such entry.")
        return found[0]

    async def many(self, keys: Keyring, ids: Sequence[bytes]) -> list[Entry]:
        """The entries of these ids, in no order; missing and unreadable ones are left out."""
        found: list[Entry] = []
        for start in range(0, len(ids), BATCH):
            found += self._open(keys, await self.sealed_many(keys.user_id, ids[start : start + BATCH]))
        return found

    async def day(self, keys: Keyring, day: date) -> list[Entry]:
        """Everything on one page, threads and deleted entries too, in the order it was written.

        A record that does not open stands at the end, empty, in the state "unreadable".
        """
        rows = await self._db.fetch(
            "SELECT id, revision, sealed FROM entries WHERE user_id=? AND day=?", (keys.user_id, day_hash(keys, day))
        )
        return sorted(self._open(keys, rows, day), key=lambda entry: (entry.at, entry.id))

    async def revisions_on(self, keys: Keyring, days: Sequence[date]) -> dict[bytes, int]:
        """The revision of every record on these pages, deleted ones too; nothing is opened for it."""
        hashes = [day_hash(keys, day) for day in days]
        marks = ",".join("?" * len(hashes))
        return dict(
            await self._db.fetch(
                f"SELECT id, revision FROM entries WHERE user_id=? AND day IN ({marks})", (keys.user_id, *hashes)
            )
        )

    async def update(self, keys: Keyring, entry: Entry, also: Sequence[Step] = ()) -> Entry:
        """Store `entry` over the revision it was read at and return it with its new one. Raises StaleRevision."""
        return (await self.update_all(keys, [entry], also))[0]

    async def update_all(self, keys: Keyring, entries: Sequence[Entry], also: Sequence[Step] = ()) -> list[Entry]:
        """`update` for several entries, and further steps of the same action, all or none."""
        changed = [replace(entry, revision=entry.revision + 1) for entry in entries]
        rows = self._rows(keys, changed)
        async with self._db.write() as tx:
            await self._put_over(tx, rows)
            for step in also:
                await step(tx)
        return changed

    async def erase(
        self, keys: Keyring, ids: Sequence[bytes], moved: Sequence[Entry] = (), also: Sequence[Step] = ()
    ) -> list[Entry]:
        """Remove entries for good, with their vectors, versions and traces; the bytes are overwritten in the file.

        `moved` are entries that answered one of them and now answer another; they are returned as stored.
        Raises StaleRevision.
        """
        changed = [replace(entry, revision=entry.revision + 1) for entry in moved]
        rows = self._rows(keys, changed)
        async with self._db.write() as tx:
            await self._put_over(tx, rows)
            await tx.execute_many(
                "DELETE FROM entries WHERE user_id=? AND id=?", [(keys.user_id, entry_id) for entry_id in ids]
            )
            # A copy of the search index may hold their words; search makes a new one.
            await tx.execute("DELETE FROM search_snapshots WHERE user_id=?", (keys.user_id,))
            # The name of a trace goes with its last entry, as when it is taken off.
            await tx.execute(
                "DELETE FROM tags WHERE user_id=?1 AND NOT EXISTS"
                " (SELECT 1 FROM entry_tags WHERE user_id=?1 AND tag=tags.tag)",
                (keys.user_id,),
            )
            for step in also:
                await step(tx)
        await self._db.checkpoint()
        return changed

    async def ids_by_day(self, keys: Keyring, days: Iterable[date]) -> dict[date, list[bytes]]:
        """The ids on each of these days that has a record; deleted ones are among them until they are erased."""
        hashes = {day_hash(keys, day): day for day in days}
        found: dict[date, list[bytes]] = {}
        wanted = list(hashes)
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            marks = ",".join("?" * len(part))
            rows = await self._db.fetch(
                f"SELECT day, id FROM entries WHERE user_id=? AND day IN ({marks})", (keys.user_id, *part)
            )
            for row in rows:
                found.setdefault(hashes[row[0]], []).append(row[1])
        return found

    async def revisions(self, user_id: bytes) -> dict[bytes, int]:
        """The revision of every record of a writer."""
        found: dict[bytes, int] = {}
        last = b""
        while True:  # so many at a time that the event loop is held for a millisecond at most
            rows = await self._db.fetch(
                "SELECT id, revision FROM entries WHERE user_id=? AND id>? ORDER BY id LIMIT ?", (user_id, last, PAGE)
            )
            found.update(rows)
            if len(rows) < PAGE:
                return found
            last = rows[-1][0]

    async def revisions_of(self, user_id: bytes, ids: Iterable[bytes]) -> dict[bytes, int]:
        """The revision of each of these records that is there."""
        found: dict[bytes, int] = {}
        wanted = list(ids)
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            found.update(await self._db.fetch(*_revisions_query(user_id, part)))
        return found

    def standing(self, user_id: bytes, revisions: Mapping[bytes, int | None]) -> Step:
        """The step that raises StaleRevision unless these are all there, at these revisions; None is any."""

        async def check(tx: Transaction) -> None:
            wanted = list(revisions)
            found: dict[bytes, int] = {}
            for start in range(0, len(wanted), BATCH):
                found.update(await tx.fetch(*_revisions_query(user_id, wanted[start : start + BATCH])))
            for entry_id, revision in revisions.items():
                if entry_id not in found or revision not in (None, found[entry_id]):
                    raise StaleRevision("What this was drawn from was changed in the meantime.")

        return check

    def none_came(self, keys: Keyring, day: date, known: AbstractSet[bytes], alike: Callable[[Entry], bool]) -> Step:
        """The step that raises AlreadyThere when a record that is `alike` came to a page since its ids were `known`."""

        async def check(tx: Transaction) -> None:
            rows = await tx.fetch(
                "SELECT id FROM entries WHERE user_id=? AND day=?", (keys.user_id, day_hash(keys, day))
            )
            for entry_id in {row[0] for row in rows} - known:
                came = await tx.fetch("SELECT id, revision, sealed FROM entries WHERE id=?", (entry_id,))
                if any(map(alike, self._open(keys, came))):
                    raise AlreadyThere("The journal’s file refused the change: there is such an entry already.")

        return check

    def erased_alone(
        self, user_id: bytes, revisions: Mapping[bytes, int], gone: AbstractSet[bytes], changed: int
    ) -> Step:
        """The step for an `erase` of `gone` that raises StaleRevision when more than that came, went or changed.

        `revisions` is all there was before, `changed` how many records get their next revision.
        """
        left = [weighed(entry_id, revision) for entry_id, revision in revisions.items() if entry_id not in gone]

        async def check(tx: Transaction) -> None:
            rows = await tx.fetch(_FINGERPRINT, (user_id,))
            if (rows[0][0], rows[0][1] or 0) != (len(left), sum(left) + changed):
                raise StaleRevision("Something was written in the meantime.")

        return check

    async def fingerprint(self, user_id: bytes) -> tuple[int, int]:
        """A count and a sum that differ once a record came, went or changed; `weighed` gives a record's share."""
        rows = await self._db.fetch(_FINGERPRINT, (user_id,))
        return rows[0][0], rows[0][1] or 0

    async def recent_ids(self, keys: Keyring, days: Sequence[date]) -> list[bytes]:
        """The ids on these days, found by keyed hash: how an index goes newest first over sealed records."""
        found: list[bytes] = []
        for start in range(0, len(days), BATCH):
            part = [day_hash(keys, day) for day in days[start : start + BATCH]]
            marks = ",".join("?" * len(part))
            rows = await self._db.fetch(
                f"SELECT day, id FROM entries WHERE user_id=? AND day IN ({marks})", (keys.user_id, *part)
            )
            place = {day: order for order, day in enumerate(part)}
            found += [row[1] for row in sorted(rows, key=lambda row: place[row[0]])]
        return found

    async def sealed_many(self, user_id: bytes, ids: Sequence[bytes]) -> list[tuple[bytes, int, bytes]]:
        """(id, revision, envelope) of at most BATCH records: for a thread that opens them off the event loop."""
        marks = ",".join("?" * len(ids))
        # The "+" keeps SQLite from walking all rows of the writer by the other index.
        rows = await self._db.fetch(
            f"SELECT id, revision, sealed FROM entries WHERE +user_id=? AND id IN ({marks})", (user_id, *ids)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    @staticmethod
    def open_record(keys: Keyring, entry_id: bytes, revision: int, sealed: bytes) -> Entry:
        """Open one envelope. Raises vault.envelope.SealError."""
        return Entry.unpacked(entry_id, revision, ENTRIES.open(keys, entry_id, revision, sealed))

    def _open(self, keys: Keyring, rows: Iterable[Row], day: date | None = None) -> list[Entry]:
        opened: list[Entry] = []
        for entry_id, revision, sealed in rows:
            try:
                opened.append(self.open_record(keys, entry_id, revision, sealed))
            except SealError as error:
                # One damaged record must not take the page away from the writer; it is never removed here.
                logger.error("a record could not be opened (%s)", type(error).__name__)
                if day is not None:
                    opened.append(Entry(entry_id, day, "me", "", LAST, "UTC", revision=revision, state="unreadable"))
        return opened

    def _rows(self, keys: Keyring, changed: Iterable[Entry]) -> list[Row]:
        return [(keys.epoch, e.revision, self._seal(keys, e), keys.user_id, e.id, e.revision - 1) for e in changed]

    @staticmethod
    async def _put_over(tx: Transaction, rows: Iterable[Row]) -> None:
        for row in rows:
            done = await tx.execute(
                "UPDATE entries SET epoch=?, revision=?, sealed=? WHERE user_id=? AND id=? AND revision=?", row
            )
            if done != 1:
                raise StaleRevision("This entry was changed elsewhere in the meantime.")

    @staticmethod
    def _seal(keys: Keyring, entry: Entry) -> bytes:
        return ENTRIES.seal(keys, entry.id, entry.revision, entry.packed())
