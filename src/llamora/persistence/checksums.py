"""One sealed sum per user over the ids and revisions of their records and over the links of tags.

A record is bound to its revision, so each row that another program puts back, removes or adds
changes the sum over all of them: the sum modulo 2^256 of a MAC for each row (Bellare and
Micciancio, "A New Paradigm for Collision-Free Hashing", 1997). Triggers that live with the writer's
connection see every change of ours, also those that foreign keys make, and the sum is stored in the
transaction of the change.
"""

import secrets
import sqlite3
from collections.abc import Iterable
from typing import Literal

import msgspec

from llamora.persistence.blocking import read_transaction
from llamora.persistence.connection import Connections, Row, Transaction
from llamora.persistence.schema import CHECKSUM_LABEL, CHECKSUMS, PROFILES, SUMMED_KINDS, RecordKind
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring, MissingEpoch

ChecksumState = Literal["right", "missing", "unknown", "gone", "damaged", "changed", "rolled_back"]
"""Results of a check. "missing": none was made yet. "gone": one was made. "unknown": sealed under a key not known here.

"damaged": it does not open. "changed": rows are not as this program wrote them. "rolled_back": a
browser knew of a later change.
"""
MODULUS = 1 << 256
# The revision of the row is always 1: what it counts would show how much is changed.
CHANGED_ROWS = "temp.changed_rows"


class Checksum(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sum over the rows of a user, or a part of it.

    `total` is 32 bytes, big-endian. `number` counts the transactions that changed a row since the
    sum was made, `instance` is random and new whenever one is made, b"" in a part that is to be
    added. `rolled_back` is set once a browser knew of a later change.
    """

    total: bytes
    number: int
    instance: bytes = b""
    rolled_back: bool = False


class _SettingsSum(msgspec.Struct):
    summed: bool = False


class SeenChange(msgspec.Struct, frozen=True):
    """The latest change that a browser was told of: `number` of the sum `instance`."""

    instance: bytes
    number: int


def _columns(kind: RecordKind) -> tuple[str, str]:
    """Return the columns of a row that count: its id, and its revision or what it is linked to."""
    return kind.id_column, kind.revision_column if kind.purpose else kind.extra_columns[0]


def temp_triggers() -> list[str]:
    """Return the SQL that keeps a list of the changed rows of a transaction, in memory."""
    statements = [f"CREATE TEMP TABLE {CHANGED_ROWS[5:]} (user_id, kind, id, value, sign)"]
    for kind in SUMMED_KINDS:
        row_id, value = _columns(kind)
        for event, rows in (
            ("INSERT", {"NEW": 1}),
            ("DELETE", {"OLD": -1}),
            (f"UPDATE OF user_id, {row_id}, {value}", {"OLD": -1, "NEW": 1}),
        ):
            values = ", ".join(
                f"({row}.user_id, '{kind.table}', {row}.{row_id}, {row}.{value}, {sign})"
                for row, sign in rows.items()
            )
            statements.append(
                f"CREATE TEMP TRIGGER sum_{kind.table}_{event[:6]} AFTER {event} ON main.{kind.table}"
                f" BEGIN INSERT INTO {CHANGED_ROWS[5:]} VALUES {values}; END"
            )
    return statements


def _bytes_of(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def weight(keys: Keyring, table: str, row_id: object, value: object) -> int:
    """Return what a row adds to the sum. Raise vault.keys.KeyringClosed."""
    named = _bytes_of(row_id)
    message = b"%b\0%d\0%b%b" % (table.encode(), len(named), named, _bytes_of(value))
    return int.from_bytes(keys.blind(CHECKSUM_LABEL, message), "big")


def sum_rows(keys: Keyring, rows: Iterable[tuple[str, object, object, int]]) -> int:
    """Return the sum of (table, id, revision or link, sign) rows."""
    return sum(sign * weight(keys, table, row, value) for table, row, value, sign in rows) % MODULUS


# -- beside the server -----------------------------------------------------------------------------


def _stored_sum(keys: Keyring, connection: sqlite3.Connection) -> int:
    total = 0
    for kind in SUMMED_KINDS:
        row_id, value = _columns(kind)
        rows = connection.execute(
            f"SELECT {row_id}, {value} FROM {kind.table} WHERE user_id=?", (keys.user_id,)
        )
        total += sum_rows(keys, ((kind.table, *row, 1) for row in rows))
    return total % MODULUS


def check(keys: Keyring, connection: sqlite3.Connection) -> ChecksumState:
    """Compare the sum with the rows that this transaction sees. Raise KeyringClosed."""
    rows = connection.execute(
        "SELECT part, revision, sealed FROM checksums WHERE user_id=?", (keys.user_id,)
    ).fetchall()
    if not rows:
        return "gone" if _was_made(keys, connection) else "missing"
    try:
        parts = [_open(keys, *row) for row in rows]
    except MissingEpoch:
        return "unknown"
    except SealError:
        return "damaged"
    if all(not part.instance for part in parts):
        return "damaged"
    if any(part.rolled_back for part in parts):
        return "rolled_back"
    is_right = sum(map(_total, parts)) % MODULUS == _stored_sum(keys, connection)
    return "right" if is_right else "changed"


def _was_made(keys: Keyring, connection: sqlite3.Connection) -> bool:
    """Return True if the user's settings say that there is a sum (journal/profile.py)."""
    row = connection.execute(
        "SELECT revision, sealed FROM profiles WHERE user_id=?", (keys.user_id,)
    ).fetchone()
    try:
        plaintext = PROFILES.open(keys, keys.user_id, *row) if row else b"{}"
        return msgspec.json.decode(plaintext, type=_SettingsSum).summed
    except (SealError, msgspec.MsgspecError):
        return False


def renew(keys: Keyring, connection: sqlite3.Connection) -> None:
    """Make a new sum over the rows as they are. Raise KeyringClosed."""
    connection.execute("DELETE FROM checksums WHERE user_id=?", (keys.user_id,))
    made = Checksum(_stored_sum(keys, connection).to_bytes(32, "big"), 1, secrets.token_bytes(16))
    sealed = CHECKSUMS.seal(keys, 0, 1, msgspec.json.encode(made))
    connection.execute(
        "INSERT INTO checksums (user_id, part, epoch, revision, sealed) VALUES (?, 0, ?, 1, ?)",
        (keys.user_id, keys.epoch, sealed),
    )


def _open(keys: Keyring, part: int, revision: int, sealed: bytes) -> Checksum:
    try:
        return msgspec.json.decode(CHECKSUMS.open(keys, part, revision, sealed), type=Checksum)
    except msgspec.MsgspecError:
        raise SealError("the sum is of another form") from None


def _total(part: Checksum) -> int:
    return int.from_bytes(part.total, "big")


# -- in the server ---------------------------------------------------------------------------------


class Checksums:
    """The store of sums, reached as `db.checksums`. Every transaction with keys passes here."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._latest: dict[bytes, SeenChange] = {}
        connections.before_commit = self.flush
        connections.writer_statements = temp_triggers()

    def latest(self, user_id: bytes) -> SeenChange | None:
        """Return the latest change of a user that this process committed or read, or None."""
        return self._latest.get(user_id)

    def forget(self, user_id: bytes) -> None:
        self._latest.pop(user_id, None)

    async def check(self, keys: Keyring) -> ChecksumState:
        """Compare the sum with the rows, on a thread. Raise StorageError and KeyringClosed."""

        def run() -> ChecksumState:
            with read_transaction(self._db.path) as connection:
                return check(keys, connection)

        return await self._db.run_beside(run)

    async def create(self, keys: Keyring) -> None:
        """Make a sum unless there is one. Raise StorageError and KeyringClosed."""
        async with self._db.write(search_unaffected=True, keys=keys) as tx:
            if not await self._read(tx, keys):
                await self._put(tx, keys, 0, await self._new(tx, keys))

    async def compare(self, keys: Keyring, seen: SeenChange | None) -> bool:
        """Return False, and note it with the sum, when a browser has `seen` a later change.

        Another instance tells nothing: somebody restored a backup or mended the journal since.
        """
        async with self._db.write(search_unaffected=True, keys=keys) as tx:
            parts = await self._read(tx, keys)
            main = next((each for each in parts.items() if each[1].instance), None)
            if main is None:
                if seen is not None and not parts:
                    lost = msgspec.structs.replace(await self._new(tx, keys), rolled_back=True)
                    await self._put(tx, keys, 0, lost)
                return seen is None
            part, checksum = main
            number = sum(each.number for each in parts.values())
            self._latest[keys.user_id] = SeenChange(checksum.instance, number)
            if seen is None or seen.instance != checksum.instance or seen.number <= number:
                return True
            if not checksum.rolled_back:
                await self._put(tx, keys, part, msgspec.structs.replace(checksum, rolled_back=True))
        return False

    async def flush(self, tx: Transaction, keys: Keyring | None) -> None:
        """Add what this transaction changed to the sum. Raise StorageError and KeyringClosed."""
        changed = await tx.fetch(f"SELECT * FROM {CHANGED_ROWS}")
        if not changed:
            return
        await tx.execute(f"DELETE FROM {CHANGED_ROWS}")
        owners = {row[0] for row in changed}
        keys = keys or tx.keys
        if keys is None or owners != {keys.user_id}:
            await _require_gone(tx, owners)
            return
        parts = await self._read(tx, keys)
        if not parts and await _is_older(tx, keys.user_id, sum(row[-1] for row in changed)):
            return  # from before there were sums: it gets one when it is opened
        added = Checksum(
            sum_rows(keys, (row[1:] for row in changed)).to_bytes(32, "big"),
            1,
            b"" if parts else secrets.token_bytes(16),
        )
        await self._add(tx, keys, parts, added)

    async def _add(
        self, tx: Transaction, keys: Keyring, parts: dict[int, Checksum], added: Checksum
    ) -> None:
        opened = {part: each for part, each in parts.items() if each.number}
        target = min(opened, default=max(parts, default=-1) + 1)
        every = [*opened.values(), added]
        merged = Checksum(
            (sum(map(_total, every)) % MODULUS).to_bytes(32, "big"),
            sum(each.number for each in every),
            next((each.instance for each in every if each.instance), b""),
            any(each.rolled_back for each in every),
        )
        for part in opened.keys() - {target}:
            await tx.execute(
                "DELETE FROM checksums WHERE user_id=? AND part=?", (keys.user_id, part)
            )
        await self._put(tx, keys, target, merged)
        if merged.instance:
            seen = SeenChange(merged.instance, merged.number)
            tx.on_commit.append(lambda: self._latest.update({keys.user_id: seen}))

    async def _read(self, tx: Transaction, keys: Keyring) -> dict[int, Checksum]:
        """Return the parts of the sum. One that does not open counts no changes.

        Another process may have it under a newer key: what is changed meanwhile gets a part.
        """
        parts: dict[int, Checksum] = {}
        for part, revision, sealed in await tx.fetch(
            "SELECT part, revision, sealed FROM checksums WHERE user_id=?", (keys.user_id,)
        ):
            try:
                parts[part] = _open(keys, part, revision, sealed)
            except SealError:
                parts[part] = Checksum(b"", 0)
        return parts

    async def _new(self, tx: Transaction, keys: Keyring) -> Checksum:
        total = 0
        for kind in SUMMED_KINDS:
            rows = await tx.fetch(
                f"SELECT {', '.join(_columns(kind))} FROM {kind.table} WHERE user_id=?",
                (keys.user_id,),
            )
            total += await self._db.run_beside(_sum_of, keys, kind, rows)
        return Checksum((total % MODULUS).to_bytes(32, "big"), 1, secrets.token_bytes(16))

    async def _put(self, tx: Transaction, keys: Keyring, part: int, checksum: Checksum) -> None:
        sealed = CHECKSUMS.seal(keys, part, 1, msgspec.json.encode(checksum))
        await tx.execute(
            "INSERT INTO checksums (user_id, part, epoch, revision, sealed) VALUES (?, ?, ?, 1, ?)"
            " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, sealed=excluded.sealed",
            (keys.user_id, part, keys.epoch, sealed),
        )


def _sum_of(keys: Keyring, kind: RecordKind, rows: list[Row]) -> int:
    return sum_rows(keys, ((kind.table, row[0], row[1], 1) for row in rows))


async def _require_gone(tx: Transaction, owners: Iterable[object]) -> None:
    """Raise RuntimeError if rows of a user who is still here were changed without their keys."""
    for owner in owners:
        if await tx.fetch("SELECT 1 FROM checksums WHERE user_id=?", (owner,)):
            raise RuntimeError("records were changed without the keys of their user")


async def _is_older(tx: Transaction, user_id: bytes, added_count: int) -> bool:
    """Return True if a user without a sum has other rows than those this transaction added."""
    counts = " + ".join(
        f"(SELECT count(*) FROM (SELECT 1 FROM {kind.table} WHERE user_id=?1 LIMIT ?2))"
        for kind in SUMMED_KINDS
    )
    rows = await tx.fetch(f"SELECT {counts}", (user_id, max(0, added_count) + 1))
    return added_count <= 0 or rows[0][0] != added_count
