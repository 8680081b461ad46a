"""Two users with a sealed record of every kind, and the count of what is refused when it is changed."""

import os
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

from msgspec import structs

from llamora.persistence import LocalDB
from llamora.persistence.connection import Transaction
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.schema import SEALED_KINDS, RecordKind
from llamora.persistence.sessions import Session
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.table import rowid_for
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.vectors import EntryVectors
from llamora.persistence.versions import Version
from llamora.vault.key_renewal import NewKeys, renew_keys
from llamora.vault.keys import Keyring, SealedKeys
from llamora.vault.slots import KeySlot
from scripts.torture.harness import PASSPHRASE, WORD, add_user, fetch, opened

DAY = date(2026, 11, 20)


@dataclass(frozen=True, slots=True)
class SealedUser:
    """A user whose keys were renewed once: `keys` holds two epochs, `older` is what was stored before."""

    id: bytes
    new_keys: NewKeys
    older: SealedKeys
    keys: Keyring

    @property
    def secrets(self) -> dict[str, str]:
        """What opens each kind of slot."""
        return {"passphrase": PASSPHRASE, "recovery": self.new_keys.recovery_code}

    @property
    def slots(self) -> dict[str, KeySlot]:
        """The slots by kind."""
        return {slot.kind: slot for slot in self.new_keys.slots}


Errors = tuple[type[Exception], ...] | type[Exception]


@dataclass
class Findings:
    """Count what was tried by name of the trial, what was accepted, and what was refused with another error."""

    trials: Counter[str] = field(default_factory=Counter[str])
    accepted: Counter[str] = field(default_factory=Counter[str])
    wrong_errors: Counter[str] = field(default_factory=Counter[str])

    def refuses(
        self, trial: str, expected: Errors, attempt: Callable[..., object], *arguments: object
    ) -> None:
        """Attempt it; it must raise exactly one of the expected errors."""
        self.trials[trial] += 1
        try:
            attempt(*arguments)
        except Exception as error:
            allowed = expected if isinstance(expected, tuple) else (expected,)
            self.wrong_errors[trial] += type(error) not in allowed
        else:
            self.accepted[trial] += 1


async def register_two(database: Path) -> tuple[SealedUser, SealedUser]:
    """Add two users with slots and a record of every kind, half of them under an older key."""
    async with opened(database) as db:
        return await _register(db, "Alice"), await _register(db, "Bob")


async def _register(db: LocalDB, name: str) -> SealedUser:
    added = await add_user(db, name)
    user_id, made, keys = added.user.id, added.new_keys, added.keys
    await write_every_kind(db, keys, f"{WORD} {name} before")
    new = renew_keys(user_id, made.master, made.sealed)
    await db.users.renew_keys(user_id, made.sealed, new)
    keys.take(new.sealed.data_keys, new.master)
    await write_every_kind(db, keys, f"{WORD} {name} after")
    return SealedUser(user_id, replace(new, recovery_code=made.recovery_code), made.sealed, keys)


async def write_every_kind(db: LocalDB, keys: Keyring, text: str) -> None:
    """Write at least one row into every table that holds something sealed."""
    entry = Entry(secrets.token_bytes(16), DAY, "me", text, datetime.now(UTC), "UTC")
    long_entry = structs.replace(entry, id=secrets.token_bytes(16), text=text + " and more" * 90)
    await db.entries.add(keys, entry, long_entry)
    version = Version(secrets.token_bytes(16), entry.id, text, entry.at, 1)
    await db.entries.update(keys, entry, [db.versions.saving_version(keys, version)])
    await db.tags.add(keys, entry.id, text)
    await db.tags.remove(keys, entry.id, await db.tags.add(keys, entry.id, f"{text} not"))
    await db.tags.refuse_suggestions(keys, entry.id, [text])
    await db.vectors.save(
        keys,
        [EntryVectors(each.id, 1, "a model", 4, os.urandom(16)) for each in (long_entry, entry)],
    )
    await _write_other_kinds(db, keys, text, entry, long_entry)
    async with db.entries._db.write() as tx:  # noqa: SLF001
        for kind in SEALED_KINDS:
            query = f"SELECT 1 FROM {kind.table} WHERE user_id=? AND epoch=?"  # noqa: S608
            if not await tx.fetch(query, (keys.user_id, keys.epoch)):
                await _write_bare_record(tx, keys, kind, entry.id, text)


async def _write_other_kinds(
    db: LocalDB, keys: Keyring, text: str, entry: Entry, long_entry: Entry
) -> None:
    await db.drafts.save(keys, Draft(day_draft_key(DAY), text, secrets.token_bytes(16), 1), None)
    await db.summaries.save(keys, StoredSummary("opening", DAY, text, (entry.id,), "", "a model"))
    await db.search_history.add(keys, text, datetime.now(UTC))
    stored = await db.profiles.get(keys)
    await db.profiles.save(keys, b'{"zone":"UTC"}', revision=stored[1] if stored else 0)
    async with db.entries._db.write() as tx:  # noqa: SLF001 -- steps have no other door than an action of the journal
        await db.trash.updating(
            keys, lambda listed: [*listed, DeletedEntry(long_entry.id, entry.at)]
        )(tx)
    session = Session(secrets.token_bytes(32), keys.user_id, None, 2**40, 2**40)
    await db.sessions.add(session, DAY, (keys, text))
    generation = await db.snapshots.begin(keys)
    await db.snapshots.add(
        keys, generation, 1, db.snapshots.seal_part(keys, generation, 1, text.encode())
    )
    await db.snapshots.finish(
        keys, generation, 1, db.snapshots.seal_part(keys, generation, 0, b"one")
    )


async def _write_bare_record(
    tx: Transaction, keys: Keyring, kind: RecordKind, entry_id: bytes, text: str
) -> None:
    """A record of a kind that nothing above writes, by its declaration alone."""
    ids = {"user_id": keys.user_id, "entry_id": entry_id, "id": secrets.token_bytes(16)}
    record_id = ids.get(kind.id_column, secrets.token_bytes(32))
    values = dict.fromkeys(kind.columns, secrets.token_bytes(32)) | {
        **{name: value for name, value in ids.items() if name in kind.columns},
        "user_id": keys.user_id,
        kind.id_column: record_id,
        "epoch": keys.epoch,
        kind.revision_column: 1,
        "sealed": kind.seal(keys, record_id, 1, text.encode()),
    }
    if "rid" in kind.columns:
        values["rid"] = rowid_for(record_id)
    marks = ", ".join("?" * len(values))
    await tx.execute(
        f"INSERT OR REPLACE INTO {kind.table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608
        list(values.values()),
    )


@dataclass(frozen=True)
class Row:
    """Hold one sealed record as it lies in the file."""

    kind: RecordKind
    id: bytes | int
    revision: int
    sealed: bytes

    def open(self, keys: Keyring) -> bytes:
        """Open it as the program does."""
        return self.kind.open(keys, self.id, self.revision, self.sealed)


def load_rows(database: Path, user_id: bytes) -> list[Row]:
    """Return every sealed record of a user."""
    rows: list[Row] = []
    for kind in SEALED_KINDS:
        columns = f"{kind.id_column}, {kind.revision_column}, sealed"
        sql = f"SELECT {columns} FROM {kind.table} WHERE user_id=?"  # noqa: S608
        rows += [Row(kind, *row) for row in fetch(database, sql, (user_id,))]
    return rows
