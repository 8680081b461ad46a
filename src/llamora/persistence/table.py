"""One table of sealed records: codec, reading, writing, and what becomes of unreadable ones."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec

from llamora.persistence.connection import Connections, Row, Transaction
from llamora.persistence.schema import RecordKind
from llamora.text import replace_surrogates
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)
T = TypeVar("T")

BATCH_SIZE = 500  # values of one `IN`: SQLite's default limit is 32,766 parameters
# More than this is opened on a thread: it would hold the event loop for more than a millisecond.
INLINE_RECORDS = 32
INLINE_BYTES = 64_000


class UnknownContent(SealError):
    """A record opened, and what is in it is not what this program knows."""


class Reader(Protocol):
    """A source of rows: the connections, or a transaction that sees its own changes."""

    async def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]: ...


class Sealed(NamedTuple):
    """A record as it is stored."""

    id: bytes
    revision: int
    sealed: bytes


class Opened(NamedTuple, Generic[T]):
    """A record as it was opened. `value` is None where it did not open."""

    id: bytes
    revision: int
    value: T | None


@dataclass(slots=True, frozen=True)
class SealedRow:
    """A sealed record to be written, with its columns in the order of the table."""

    id: bytes
    epoch: int
    revision: int
    values: tuple[object, ...]


def rowid_for(record_id: bytes) -> int:
    """Return the integer key of a row, taken from the random id so that it does not tell time."""
    return int.from_bytes(record_id[:8], "big") >> 1


def values_of(opened: Iterable[Opened[T]]) -> list[T]:
    """Return the values of the records that opened."""
    return [record.value for record in opened if record.value is not None]


async def fetch_in(
    reader: Reader, query: str, values: Iterable[object], *parameters: object
) -> list[Row]:
    """Return the rows of a query with `IN (*)` for all of `values`, BATCH_SIZE at a time.

    `parameters` fill the question marks before it.
    """
    wanted = list(values)
    rows: list[Row] = []
    for start in range(0, len(wanted), BATCH_SIZE):
        batch = wanted[start : start + BATCH_SIZE]
        placeholders = ",".join("?" * len(batch))
        rows += await reader.fetch(query.replace("(*)", f"({placeholders})"), (*parameters, *batch))
    return rows


def encode(value: object) -> bytes:
    """Return the plaintext of a record: compact JSON without what has its default."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A lone surrogate that no door replaced, such as in the name of a file: no text is lost
        # for it.
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return replace_surrogates(text).encode()


class SealedTable(Generic[T]):
    """The records of one kind. `record_type` is what msgspec reads, or bytes for raw content.

    Raises StorageError when SQLite refuses and vault.keys.KeyringClosed when the keys are closed.
    """

    def __init__(self, connections: Connections, kind: RecordKind, record_type: type[T]) -> None:
        self.kind = kind
        self._db = connections
        self._is_raw = record_type is bytes
        self._decode: Callable[[bytes], T] = (
            cast("Callable[[bytes], T]", bytes)
            if self._is_raw
            else msgspec.json.Decoder(record_type).decode
        )
        self._columns = columns = ("user_id", *kind.columns, "sealed")
        self._has_rowid = "rid" in kind.extra_columns
        # The "+" keeps SQLite from walking all rows of the user where an id alone finds its row.
        self._owner = "+user_id=?" if self._has_rowid else "user_id=?"
        # A cell of another type stays the trouble of its own record, which then does not open.
        self._select = (
            f"SELECT CAST({kind.id_column} AS BLOB), CAST({kind.revision_column} AS INTEGER),"
            f" CAST(sealed AS BLOB) FROM {kind.table} WHERE "
        )
        self._insert = (
            f"INSERT INTO {kind.table} ({', '.join(columns)})"
            f" VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO "
        )
        self._replace = "UPDATE SET " + ", ".join(
            f"{name}=excluded.{name}" for name in ("epoch", kind.revision_column, "sealed")
        )

    # -- sealing and opening -----------------------------------------------------------------------

    def seal(
        self, keys: Keyring, record_id: bytes, revision: int, value: T, **extra: object
    ) -> SealedRow:
        """Seal a record; `extra` are the columns beside it. Raise msgspec.ValidationError."""
        plaintext = cast("bytes", value) if self._is_raw else encode(value)
        self._decode(plaintext)  # what could not be read again is not written
        sealed = self.kind.seal(keys, record_id, revision, plaintext)
        epoch = keys.epoch  # a hint: what counts is the one in the envelope
        values: dict[str, object] = {
            self.kind.id_column: record_id,
            "user_id": keys.user_id,
            "epoch": epoch,
            self.kind.revision_column: revision,
            "sealed": sealed,
            **extra,
        }
        if self._has_rowid:
            values["rid"] = rowid_for(record_id)
        return SealedRow(record_id, epoch, revision, tuple(values[name] for name in self._columns))

    def open(self, keys: Keyring, record_id: bytes, revision: int, sealed: bytes) -> T:
        """Open one record. Raise SealError."""
        plaintext = self.kind.open(keys, record_id, revision, sealed)
        try:
            return self._decode(plaintext)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            raise UnknownContent("the record is of another form") from None

    async def open_rows(self, keys: Keyring, rows: Sequence[Row]) -> list[Opened[T]]:
        """Open (id, revision, envelope) rows, on a thread when they are many or large.

        One that does not open is logged, and stands there without a value: it must not take the
        others away from the user.
        """
        is_small = len(rows) <= INLINE_RECORDS and sum(len(row[2]) for row in rows) <= INLINE_BYTES
        if is_small:
            return self.open_all(keys, rows)
        return await self._db.run_in_thread(self.open_all, keys, rows)

    def open_all(self, keys: Keyring, rows: Sequence[Row]) -> list[Opened[T]]:
        """Open rows as `open_rows` does, on this thread."""
        opened: list[Opened[T]] = []
        errors: set[str] = set()
        for record_id, revision, sealed in rows:
            try:
                value = self.open(keys, record_id, revision, sealed)
            except SealError as error:
                errors.add(type(error).__name__)
                value = None
            opened.append(Opened(record_id, revision, value))
        if errors:
            names = ", ".join(sorted(errors))
            count = sum(record.value is None for record in opened)
            logger.error("%d records in %s could not be opened (%s)", count, self.kind.table, names)
        return opened

    # -- reading -----------------------------------------------------------------------------------

    async def get(
        self, keys: Keyring, record_id: bytes, reader: Reader | None = None
    ) -> Opened[T] | None:
        """Return one record of the user, or None."""
        opened = await self.fetch_in(keys, [record_id], reader)
        return opened[0] if opened else None

    async def get_value(
        self, keys: Keyring, record_id: bytes, reader: Reader | None = None
    ) -> T | None:
        """Return what one record of the user holds, or None if it is missing or unreadable."""
        opened = await self.get(keys, record_id, reader)
        return opened.value if opened else None

    async def fetch(
        self, keys: Keyring, where: str = "", *parameters: object, reader: Reader | None = None
    ) -> list[Opened[T]]:
        """Return the user's records of an SQL condition, by default all."""
        query = self._select + "user_id=?" + (f" AND {where}" if where else "")
        rows = await (reader or self._db).fetch(query, (keys.user_id, *parameters))
        return await self.open_rows(keys, rows)

    async def fetch_in(
        self, keys: Keyring, ids: Collection[bytes], reader: Reader | None = None
    ) -> list[Opened[T]]:
        """Return the user's records of these ids, in no order; missing ones are left out."""
        return await self.open_rows(keys, await self.get_sealed(keys.user_id, ids, reader))

    async def get_sealed(
        self, user_id: bytes, ids: Collection[bytes], reader: Reader | None = None
    ) -> list[Sealed]:
        """Return the user's records of these ids, in no order, to be opened by the caller."""
        query = f"{self._select}{self._owner} AND {self.kind.id_column} IN (*)"
        return [Sealed(*row) for row in await fetch_in(reader or self._db, query, ids, user_id)]

    async def revisions(
        self, user_id: bytes, ids: Collection[bytes], reader: Reader | None = None
    ) -> dict[bytes, int]:
        """Return the revision of each of these records that exists; opens nothing."""
        query = (
            f"SELECT {self.kind.id_column}, CAST({self.kind.revision_column} AS INTEGER)"
            f" FROM {self.kind.table} WHERE {self._owner} AND {self.kind.id_column} IN (*)"
        )
        return dict(await fetch_in(reader or self._db, query, ids, user_id))

    # -- writing -----------------------------------------------------------------------------------

    async def insert(self, tx: Transaction, row: SealedRow) -> bool:
        """Store a new record; return False when one of its id exists, which then stays."""
        return await tx.execute(self._insert + "NOTHING", row.values) == 1

    async def replace(self, tx: Transaction, rows: Iterable[SealedRow]) -> None:
        """Store records over those of the same ids."""
        await tx.execute_many(self._insert + self._replace, [row.values for row in rows])

    async def update(self, tx: Transaction, row: SealedRow) -> bool:
        """Store a record over its revision before; return False when that is not there."""
        kind = self.kind
        owner, *_, sealed = row.values
        changed = await tx.execute(
            f"UPDATE {kind.table} SET epoch=?, {kind.revision_column}=?, sealed=?"
            f" WHERE user_id=? AND {kind.id_column}=? AND {kind.revision_column}=?",
            (row.epoch, row.revision, sealed, owner, row.id, row.revision - 1),
        )
        return changed == 1

    async def put(
        self, tx: Transaction, keys: Keyring, values: Mapping[bytes, T], **extra: Any
    ) -> None:
        """Store records by id, each at the revision after the one that is stored, or the first."""
        tx.keys = tx.keys or keys
        stored = await self.revisions(keys.user_id, values, tx)
        await self.replace(
            tx,
            [
                self.seal(keys, record_id, stored.get(record_id, 0) + 1, value, **extra)
                for record_id, value in values.items()
            ],
        )

    async def delete(self, tx: Transaction, user_id: bytes, ids: Iterable[bytes]) -> None:
        await tx.execute_many(
            f"DELETE FROM {self.kind.table} WHERE user_id=? AND {self.kind.id_column}=?",
            [(user_id, record_id) for record_id in ids],
        )
