"""Damages and moves everything that is sealed: `python -m scripts.torture.forgery`.

Every bit of every byte of each kind of envelope is flipped and each is cut at every length; records, slots, keys and
backups are put where others belong, and the cost of the KDF is lowered. Each must be refused, with the error that
says what was done to it. Prints one JSON object; `--stride` looks at every n-th byte only.
"""

import argparse
import asyncio
import functools
import json
import os
import secrets
import sqlite3
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from msgspec import structs

from llamora.events import EventBus
from llamora.journal.sessions import Sessions
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.backup_format import BackupError, read_header
from llamora.persistence.backups import verify_backup, write_backup
from llamora.persistence.connection import Transaction
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.schema import SEALED_KINDS, RecordKind
from llamora.persistence.sessions import Session
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.table import rowid_for
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.users import User
from llamora.persistence.vectors import EntryVectors
from llamora.persistence.versions import Version
from llamora.settings import SessionSettings, resource
from llamora.vault import kdf, recovery_code
from llamora.vault.envelope import Damaged, UnknownFormat, WrongHeader, WrongKey
from llamora.vault.kdf import Argon2Params, BadParameters
from llamora.vault.key_renewal import NewKeys, create_keys, living_slots, renew_keys
from llamora.vault.keys import Keyring, MissingEpoch, SealedKeys, open_keyring
from llamora.vault.recovery_code import RecoveryCodeError, WrongSecret
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import KeySlot, open_slot
from tests.scan import find_words

PASSPHRASE = "seven quiet herons over the weir"
WORD = "quokkasaurus"
DAY = date(2026, 11, 20)
FLOOR = Argon2Params(65536, 3, 4)
COOKIE_LETTERS = string.ascii_letters + string.digits + "-_"


@dataclass
class UserFixture:
    """One user of the journal that is damaged; `made` are their keys, renewed once: `older` is what was stored before.

    `keys` holds two epochs.
    """

    user: User
    new_keys: NewKeys
    older: SealedKeys
    keys: Keyring


@dataclass
class Findings:
    """What was tried by name of the trial, what was not refused, and what was refused with another error."""

    trials: Counter[str] = field(default_factory=Counter[str])
    accepted: Counter[str] = field(default_factory=Counter[str])
    wrong_errors: Counter[str] = field(default_factory=Counter[str])
    error_names: dict[str, str] = field(default_factory=dict[str, str])

    def expect_refusal(
        self, trial: str, attempt: Callable[[], object], *expected_errors: type[Exception]
    ) -> None:
        """`attempt` must raise exactly one of the wanted errors; anything else it raises counts as misnamed."""
        self.trials[trial] += 1
        try:
            attempt()
        except Exception as error:
            self.wrong_errors[trial] += type(error) not in expected_errors
            self.error_names[trial] = type(error).__name__
        else:
            self.accepted[trial] += 1


async def register_user(db: LocalDB, name: str) -> UserFixture:
    """A writer with slots and a record of every kind, half of them under an older key."""
    user = User(secrets.token_bytes(16), name, recovery_confirmed=True)
    new_keys = create_keys(user.id, PASSPHRASE, FLOOR)
    await db.users.add(user, new_keys.slots, new_keys.sealed)
    keys = open_keyring(user.id, new_keys.master, new_keys.sealed)
    await write_every_kind(db, keys, f"{WORD} {name} before")
    new = renew_keys(user.id, new_keys.master, new_keys.sealed)
    await db.users.renew_keys(user.id, new_keys.sealed, new)
    keys.take(new.sealed.data_keys, new.master)
    await write_every_kind(db, keys, f"{WORD} {name} after")
    return UserFixture(
        user, replace(new, recovery_code=new_keys.recovery_code), new_keys.sealed, keys
    )


async def write_every_kind(db: LocalDB, keys: Keyring, text: str) -> None:
    """At least one row in every table that holds something sealed."""
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
    async with db.entries._db.write() as tx:  # noqa: SLF001
        for kind in SEALED_KINDS:
            query = f"SELECT 1 FROM {kind.table} WHERE user_id=? AND epoch=?"  # noqa: S608
            if not await tx.fetch(query, (keys.user_id, keys.epoch)):
                await write_bare_record(tx, keys, kind, entry.id, text)


async def write_bare_record(
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


def flipped_bits(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
    """The bytes with each bit of every `stride`-th byte flipped."""
    for at in range(0, len(sealed), stride):
        for bit in range(8):
            yield sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]


def truncations(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
    """The bytes cut at every `stride`-th length, and with something after their end."""
    for length in range(0, len(sealed), stride):
        yield sealed[:length]
    yield sealed + b"\x00"
    yield sealed + sealed


@dataclass(frozen=True)
class Row:
    """One sealed record as it lies in the file."""

    kind: RecordKind
    id: bytes | int
    revision: int
    sealed: bytes

    def open(self, keys: Keyring) -> bytes:
        """As the program opens it."""
        return self.kind.open(keys, self.id, self.revision, self.sealed)


def load_rows(database: Path, user_id: bytes) -> list[Row]:
    """Every sealed record of a writer."""
    sealed_rows: list[Row] = []
    with closing(sqlite3.connect(database)) as connection:
        for kind in SEALED_KINDS:
            query = f"SELECT {kind.id_column}, {kind.revision_column}, sealed FROM {kind.table} WHERE user_id=?"  # noqa: S608
            sealed_rows += [Row(kind, *row) for row in connection.execute(query, (user_id,))]
    return sealed_rows


# What a flipped bit in an envelope may be told as; which one depends on the field that it is in.
FLIP_ERRORS = (UnknownFormat, WrongHeader, WrongKey, Damaged, MissingEpoch)
TRUNCATION_ERRORS = (UnknownFormat, Damaged)


def damage_records(findings: Findings, user: UserFixture, rows: list[Row], stride: int) -> None:
    """Every bit and every length of one short and one long record of each kind."""
    for row in rows:
        row.open(user.keys)  # as it is, it opens: else nothing below says anything
        for sealed in flipped_bits(row.sealed, stride):
            findings.expect_refusal(
                f"flip {row.kind.table}",
                lambda r=row, s=sealed: replace(r, sealed=s).open(user.keys),
                *FLIP_ERRORS,
            )
        for sealed in truncations(row.sealed, stride):
            findings.expect_refusal(
                f"cut {row.kind.table}",
                lambda r=row, s=sealed: replace(r, sealed=s).open(user.keys),
                *TRUNCATION_ERRORS,
            )


def damage_keys(findings: Findings, user: UserFixture, stride: int) -> None:
    """Key slots, data keys, session rows, cookies, recovery codes."""
    user_id, new_keys = user.user.id, user.new_keys
    secret_of = {"passphrase": PASSPHRASE, "recovery": new_keys.recovery_code}
    for slot in new_keys.slots:
        secret = secret_of[slot.kind]
        expected_errors = (WrongSecret, UnknownFormat, Damaged)
        for sealed in flipped_bits(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            findings.expect_refusal(
                f"flip {slot.kind} slot",
                lambda c=changed, s=secret: open_slot(user_id, c, s),
                *expected_errors,
            )
        for sealed in truncations(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            findings.expect_refusal(
                f"cut {slot.kind} slot",
                lambda c=changed, s=secret: open_slot(user_id, c, s),
                *expected_errors,
            )
        salts = [
            slot.salt[:at] + bytes([slot.salt[at] ^ 1]) + slot.salt[at + 1 :]
            for at in range(0, 32, max(stride, 8))
        ]
        for salt in [*salts, slot.salt[:-1], slot.salt + b"\x00"]:
            changed = replace(slot, salt=salt)
            findings.expect_refusal(
                f"salt of {slot.kind} slot",
                lambda c=changed, s=secret: open_slot(user_id, c, s),
                *expected_errors,
            )
    whole = new_keys.sealed
    for at, key in enumerate(whole.data_keys):
        for sealed in [*flipped_bits(key.sealed, stride), *truncations(key.sealed, stride)]:
            changed = (
                *whole.data_keys[:at],
                replace(key, sealed=sealed),
                *whole.data_keys[at + 1 :],
            )
            spoiled = replace(whole, data_keys=changed)
            findings.expect_refusal(
                "data key",
                lambda k=spoiled: open_keyring(user_id, new_keys.master, k),
                *FLIP_ERRORS,
            )
    for sealed in [*flipped_bits(whole.index_key, stride), *truncations(whole.index_key, stride)]:
        spoiled = replace(whole, index_key=sealed)
        findings.expect_refusal(
            "index key", lambda k=spoiled: open_keyring(user_id, new_keys.master, k), *FLIP_ERRORS
        )
    for sealed in [*flipped_bits(whole.slots, stride), *truncations(whole.slots, stride)]:
        spoiled = replace(whole, slots=sealed)
        findings.expect_refusal(
            "list of slots",
            lambda k=spoiled: living_slots(user_id, new_keys.master, k),
            *FLIP_ERRORS,
        )
    token, boot = os.urandom(32), os.urandom(32)
    session = session_id_of(token)
    row = seal_for_session(user_id, session, token, boot, new_keys.master)
    for sealed in [*flipped_bits(row, stride), *truncations(row, stride)]:
        findings.expect_refusal(
            "session row",
            lambda s=sealed: open_from_session(user_id, session, token, boot, s),
            *FLIP_ERRORS,
        )
    for other in flipped_bits(token):
        findings.expect_refusal(
            "token", lambda o=other: open_from_session(user_id, session, o, boot, row), WrongKey
        )
    cookie = seal_for_cookie(user_id, session, boot, new_keys.master)
    for sealed in [*flipped_bits(cookie, stride), *truncations(cookie, stride)]:
        findings.expect_refusal(
            "cookie", lambda s=sealed: open_from_cookie(user_id, session, boot, s), *FLIP_ERRORS
        )
    damage_recovery_code(
        findings, user, next(slot for slot in new_keys.slots if slot.kind == "recovery")
    )


def damage_recovery_code(findings: Findings, user: UserFixture, slot: KeySlot) -> None:
    """Every other letter in every place of a recovery code, every length, every two neighbours exchanged."""
    code = user.new_keys.recovery_code
    symbols = recovery_code._CROCKFORD  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    for at, letter in enumerate(code):
        if letter != "-":
            for other in symbols.replace(letter, ""):
                typed = code[:at] + other + code[at + 1 :]
                findings.expect_refusal(
                    "recovery code",
                    lambda t=typed: open_slot(user.user.id, slot, t),
                    RecoveryCodeError,
                )
    letters = code.replace("-", "")
    for length in range(len(letters)):
        findings.expect_refusal(
            "recovery code",
            lambda n=length: open_slot(user.user.id, slot, letters[:n]),
            RecoveryCodeError,
        )
    for at in range(len(letters) - 1):
        if letters[at] != letters[at + 1]:
            typed = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
            findings.expect_refusal(
                "recovery code", lambda t=typed: open_slot(user.user.id, slot, t), RecoveryCodeError
            )


async def damage_cookies(
    findings: Findings, database: Path, user: UserFixture, stride: int
) -> None:
    """The whole cookie as a browser sends it, every letter of it, in both modes, at a worker that has not seen it."""
    boot = os.urandom(32)
    for mode in ("session", "cookie"):
        settings = SessionSettings(mode=mode)
        db = await LocalDB.open(database)
        sessions = Sessions(db, settings, boot, EventBus())
        cookie, _ = await sessions.open_session(user.user, user.keys)

        async def is_accepted(
            cookie_sent: str, db: LocalDB = db, settings: SessionSettings = settings
        ) -> bool:
            other = Sessions(db, settings, boot, EventBus())
            return await other.resume(cookie_sent) is not None

        assert await is_accepted(cookie)
        changed = [
            cookie[:at] + other + cookie[at + 1 :]
            for at in range(0, len(cookie), stride)
            for other in secrets.SystemRandom().sample(COOKIE_LETTERS.replace(cookie[at], ""), 5)
        ]
        # The last letter carries fewer bits than it could: a change of the others is a change all the same.
        changed += [cookie[:-1] + other for other in COOKIE_LETTERS.replace(cookie[-1], "")]
        changed += [cookie[:length] for length in range(0, len(cookie), stride)]
        changed += [
            cookie + "A",
            cookie + "AAAA",
            "!" + cookie,
            cookie[:9] + "\n" + cookie[9:],
            cookie * 2,
        ]
        for forged_cookie in changed:
            findings.trials[f"{mode} cookie"] += 1
            findings.accepted[f"{mode} cookie"] += await is_accepted(forged_cookie)
        await db.close()


def damage_backup(findings: Findings, file: Path, recovery_code: str, stride: int) -> None:
    """Every `stride`-th byte of a backup file, one bit of each, and every such length."""
    original = file.read_bytes()
    damaged = file.with_name("damaged.llamora")

    def open_backup(content: bytes) -> object:
        damaged.write_bytes(content)
        header = read_header(damaged)
        return verify_backup(damaged, header, header.unlock(recovery_code))

    open_backup(original)
    expected_errors = (
        BackupError,
        WrongSecret,
        UnknownFormat,
        Damaged,
        WrongKey,
        WrongHeader,
        MissingEpoch,
    )
    for number, at in enumerate(range(0, len(original), stride)):
        content = original[:at] + bytes([original[at] ^ 1 << number % 8]) + original[at + 1 :]
        findings.expect_refusal("flip backup", lambda c=content: open_backup(c), *expected_errors)
    for length in range(0, len(original), stride):
        findings.expect_refusal(
            "cut backup", lambda n=length: open_backup(original[:n]), *expected_errors
        )
    findings.expect_refusal("cut backup", lambda: open_backup(original + b"\x00"), *expected_errors)


# -- moved ---------------------------------------------------------------------------------------------


def move_records(
    findings: Findings,
    alice: UserFixture,
    bob: UserFixture,
    alice_rows: list[Row],
    bob_rows: list[Row],
) -> None:
    """Every sealed record in the place of every other one."""
    for one in alice_rows:
        for other in alice_rows:
            if one.sealed == other.sealed:
                continue
            moved = replace(one, sealed=other.sealed)
            if one.kind is other.kind:
                trial = "to another revision" if one.id == other.id else "to another row"
                findings.expect_refusal(trial, lambda m=moved: m.open(alice.keys), WrongKey)
            else:
                error = WrongKey if one.kind.purpose == other.kind.purpose else WrongHeader
                findings.expect_refusal(
                    "to another table and column", lambda m=moved: m.open(alice.keys), error
                )
        findings.expect_refusal("from another writer", lambda o=one: o.open(bob.keys), WrongKey)
        for revision in (one.revision + 1, one.revision - 1, 0, 2**63 - 1):
            if revision >= 0 and revision != one.revision:
                later = replace(one, revision=revision)
                findings.expect_refusal(
                    "another revision beside it", lambda r=later: r.open(alice.keys), WrongKey
                )
        epoch = int.from_bytes(one.sealed[6:10], "big")
        for claimed_epoch, error in ((3 - epoch, WrongKey), (3, MissingEpoch), (0, MissingEpoch)):
            other = replace(
                one, sealed=one.sealed[:6] + claimed_epoch.to_bytes(4, "big") + one.sealed[10:]
            )
            findings.expect_refusal(
                "another epoch in its header", lambda o=other: o.open(alice.keys), error
            )
    for one, other in zip(alice_rows, bob_rows, strict=False):
        if one.kind is other.kind:
            moved = replace(one, sealed=other.sealed)
            findings.expect_refusal(
                "from another writer", lambda m=moved: m.open(alice.keys), WrongKey
            )


def move_keys(findings: Findings, alice: UserFixture, bob: UserFixture) -> None:
    """Slots exchanged between kinds and writers, data keys between epochs and writers, sessions and cookies."""
    a, b = alice.new_keys, bob.new_keys
    alice_slots, bob_slots = ({slot.kind: slot for slot in made.slots} for made in (a, b))
    secret_of = {"passphrase": PASSPHRASE, "recovery": a.recovery_code}
    for kind, secret in secret_of.items():
        slot, other = (
            alice_slots[kind],
            alice_slots["recovery" if kind == "passphrase" else "passphrase"],
        )
        for changed in (
            replace(slot, sealed=other.sealed),
            replace(slot, sealed=other.sealed, salt=other.salt),
            replace(slot, id=other.id),
            replace(slot, id=other.id, sealed=other.sealed, salt=other.salt),
            bob_slots[kind],
            replace(slot, sealed=bob_slots[kind].sealed),
        ):
            findings.expect_refusal(
                "slots exchanged",
                lambda c=changed, s=secret: open_slot(alice.user.id, c, s),
                WrongSecret,
            )
        findings.expect_refusal(
            "slot under another writer",
            lambda c=slot, s=secret: open_slot(bob.user.id, c, s),
            WrongSecret,
        )
    first, second = a.sealed.data_keys
    for changed, error in (
        (replace(a.sealed, data_keys=(replace(first, sealed=second.sealed),)), WrongHeader),
        (
            replace(a.sealed, data_keys=(replace(second, sealed=b.sealed.data_keys[1].sealed),)),
            WrongKey,
        ),
        (replace(a.sealed, index_key=a.sealed.slots), WrongKey),
        (replace(a.sealed, index_key=b.sealed.index_key), WrongKey),
        # What was there before the keys were renewed.
        (alice.older, WrongKey),
        (replace(a.sealed, index_key=alice.older.index_key), WrongKey),
    ):
        findings.expect_refusal(
            "keys exchanged", lambda c=changed: open_keyring(alice.user.id, a.master, c), error
        )
    for packed in (alice.older.slots, a.sealed.index_key, b.sealed.slots):
        changed = replace(a.sealed, slots=packed)
        findings.expect_refusal(
            "list of slots exchanged",
            lambda c=changed: living_slots(alice.user.id, a.master, c),
            WrongKey,
        )
    token, boot = os.urandom(32), os.urandom(32)
    session = session_id_of(token)
    row = seal_for_session(alice.user.id, session, token, boot, a.master)
    cookie = seal_for_cookie(alice.user.id, session, boot, a.master)
    other_token = os.urandom(32)
    for user, session_id, key, secret in (
        (bob.user.id, session, token, boot),
        (alice.user.id, session_id_of(other_token), token, boot),
        (alice.user.id, session, other_token, boot),
        (alice.user.id, session, token, os.urandom(32)),
    ):
        findings.expect_refusal(
            "session moved",
            lambda w=(user, session_id, key, secret): open_from_session(*w, row),
            WrongKey,
        )
    for user, session_id, secret in (
        (bob.user.id, session, boot),
        (alice.user.id, session_id_of(other_token), boot),
        (alice.user.id, session, os.urandom(32)),
    ):
        findings.expect_refusal(
            "cookie moved",
            lambda w=(user, session_id, secret): open_from_cookie(*w, cookie),
            WrongKey,
        )
    findings.expect_refusal(
        "cookie as row",
        lambda: open_from_session(alice.user.id, session, token, boot, cookie),
        WrongKey,
    )
    findings.expect_refusal(
        "row as cookie", lambda: open_from_cookie(alice.user.id, session, boot, row), WrongKey
    )


async def lower_parameters(findings: Findings, database: Path, user: UserFixture) -> None:
    """The cost of the KDF lowered, raised or spoiled in the database."""
    db = await LocalDB.open(database)
    slot = next(slot for slot in user.new_keys.slots if slot.kind == "passphrase")

    def set_parameters(params: str) -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE key_slots SET params=? WHERE user_id=? AND kind='passphrase'",
                (params, user.user.id),
            )

    for params in (
        "m=8,t=1,p=1",
        "m=65535,t=3,p=4",
        "m=65536,t=2,p=4",
        "m=65536,t=3,p=3",
        "m=1048577,t=3,p=4",
        "m=1048576,t=32,p=4",
        "m=65536,t=3,p=4 ",
        "m=065536,t=3,p=4",
        "t=3,m=65536,p=4",
        "none",
    ):
        set_parameters(params)
        findings.trials["cost out of bounds"] += 1
        try:
            open_slot(
                user.user.id, (await db.users.get_slots(user.user.id, "passphrase"))[0], PASSPHRASE
            )
            findings.accepted["cost out of bounds"] += 1
        except BadParameters:
            findings.error_names["cost out of bounds"] = "BadParameters"
        # What a writer remembers must still let them in.
        (recovery,) = await db.users.get_slots(user.user.id, "recovery")
        assert (
            open_slot(user.user.id, recovery, user.new_keys.recovery_code) == user.new_keys.master
        )
    for params in ("m=65536,t=4,p=4", "m=81920,t=3,p=4", "m=65536,t=3,p=5"):
        set_parameters(params)
        (changed,) = await db.users.get_slots(user.user.id, "passphrase")
        findings.expect_refusal(
            "another cost within bounds",
            lambda c=changed: open_slot(user.user.id, c, PASSPHRASE),
            WrongSecret,
        )
    assert slot.params is not None
    set_parameters(slot.params)
    (slot,) = await db.users.get_slots(user.user.id, "passphrase")
    assert open_slot(user.user.id, slot, PASSPHRASE) == user.new_keys.master
    await db.close()


def torture(folder: Path, stride: int = 1) -> dict[str, object]:
    """Run all of it on a journal of two writers in `folder`."""
    database = folder / "llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    findings = Findings()
    # The KDF is deterministic: what it gave once for a secret, a salt and a cost need not be computed again.
    original = kdf.argon2id  # pyright: ignore[reportPrivateUsage]
    kdf.argon2id = functools.lru_cache(original)  # type: ignore[assignment]
    try:
        alice, bob = asyncio.run(_register_two(database))
        alice_rows, bob_rows = load_rows(database, alice.user.id), load_rows(database, bob.user.id)
        assert {kind.table for kind in SEALED_KINDS} == {row.kind.table for row in alice_rows}
        damage_records(findings, alice, alice_rows, stride)
        damage_keys(findings, alice, stride)
        asyncio.run(damage_cookies(findings, database, alice, stride))
        write_backup(database, alice.keys, folder / "whole.llamora")
        damage_backup(findings, folder / "whole.llamora", alice.new_keys.recovery_code, stride)
        move_records(findings, alice, bob, alice_rows, bob_rows)
        move_keys(findings, alice, bob)
        asyncio.run(lower_parameters(findings, database, alice))
    finally:
        kdf.argon2id = original
    return {
        "tried": sum(findings.trials.values()),
        "not_refused": sum(findings.accepted.values()),
        "refused_as_something_else": sum(findings.wrong_errors.values()),
        "plain": len(find_words(folder, [WORD, PASSPHRASE])),
        "by_trial": dict(sorted(findings.trials.items())),
        "wrong_trials": sorted((+findings.accepted + findings.wrong_errors).keys()),
    }


async def _register_two(database: Path) -> tuple[UserFixture, UserFixture]:
    db = await LocalDB.open(database)
    alice, bob = await register_user(db, "Alice"), await register_user(db, "Bob")
    await db.close()
    return alice, bob


def main() -> int:
    """Run, print, and fail when something was taken for what it is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="look at every n-th byte")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forgery-") as name:
        result: dict[str, Any] = torture(Path(name), options.stride)
    print(json.dumps(result))
    return (
        1 if result["not_refused"] or result["refused_as_something_else"] or result["plain"] else 0
    )


if __name__ == "__main__":
    sys.exit(main())
