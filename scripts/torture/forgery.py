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

from llamora.journal.accounts import Accounts
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.backups import BackupError, read_header, verify_backup, write_backup
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RECORD_KINDS, RecordKind
from llamora.persistence.sessions import Session
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.users import User
from llamora.persistence.vectors import EntryVectors
from llamora.persistence.versions import Version
from llamora.settings import CryptoSettings, SessionSettings, resource
from llamora.vault import slots as vault_slots
from llamora.vault.envelope import Damaged, UnknownFormat, WrongHeader, WrongKey
from llamora.vault.keys import (
    Keyring,
    MissingEpoch,
    NewKeys,
    SealedKeys,
    create_keys,
    living_slots,
    open_from_cookie,
    open_from_session,
    open_keyring,
    renew_keys,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import Argon2Params, BadParameters, KeySlot, RecoveryCodeError, WrongSecret, open_slot
from tests.scan import find_words

PASSPHRASE = "seven quiet herons over the weir"
WORD = "quokkasaurus"
DAY = date(2026, 11, 20)
FLOOR = Argon2Params(65536, 3, 4)
SEALED = tuple(kind for kind in RECORD_KINDS if kind.purpose is not None)
COOKIE_LETTERS = string.ascii_letters + string.digits + "-_"


@dataclass
class Writer:
    """One user of the journal that is damaged; `made` are their keys, renewed once: `older` is what was stored before.

    `keys` holds two epochs.
    """

    user: User
    made: NewKeys
    older: SealedKeys
    keys: Keyring


@dataclass
class Findings:
    """What was tried by name of the trial, what was not refused, and what was refused with another error."""

    tried: Counter[str] = field(default_factory=Counter[str])
    passed: Counter[str] = field(default_factory=Counter[str])
    misnamed: Counter[str] = field(default_factory=Counter[str])
    named: dict[str, str] = field(default_factory=dict[str, str])

    def refuse(self, trial: str, attempt: Callable[[], object], *wanted: type[Exception]) -> None:
        """`attempt` must raise exactly one of the wanted errors; anything else it raises counts as misnamed."""
        self.tried[trial] += 1
        try:
            attempt()
        except Exception as error:
            self.misnamed[trial] += type(error) not in wanted
            self.named[trial] = type(error).__name__
        else:
            self.passed[trial] += 1


async def register(db: LocalDB, name: str) -> Writer:
    """A writer with slots and a record of every kind, half of them under an older key."""
    user = User(secrets.token_bytes(16), name, recovery_confirmed=True)
    made = create_keys(user.id, PASSPHRASE, FLOOR)
    await db.users.add(user, made.slots, made.sealed)
    keys = open_keyring(user.id, made.master, made.sealed)
    await write_every_kind(db, keys, f"{WORD} {name} before")
    new = renew_keys(user.id, made.master, made.sealed)
    await db.users.renew_keys(user.id, made.sealed, new)
    keys.take(new.sealed.data_keys, new.master)
    await write_every_kind(db, keys, f"{WORD} {name} after")
    return Writer(user, replace(new, recovery_code=made.recovery_code), made.sealed, keys)


async def write_every_kind(db: LocalDB, keys: Keyring, words: str) -> None:
    """At least one row in every table that holds something sealed."""
    entry = Entry(secrets.token_bytes(16), DAY, "me", words, datetime.now(UTC), "UTC")
    long = replace(entry, id=secrets.token_bytes(16), text=words + " and more" * 90)
    await db.entries.add(keys, entry, long)
    version = Version(secrets.token_bytes(16), entry.id, words, entry.at, 1)
    await db.entries.update(keys, entry, [db.versions.saving_version(keys, version)])
    await db.tags.add(keys, entry.id, words)
    await db.tags.remove(keys, entry.id, await db.tags.add(keys, entry.id, f"{words} not"))
    await db.tags.refuse_suggestions(keys, entry.id, [words])
    await db.vectors.save(keys, [EntryVectors(each.id, 1, "a model", 4, os.urandom(16)) for each in (long, entry)])
    await db.drafts.save(keys, Draft(day_draft_key(DAY), words, secrets.token_bytes(16), 1), None)
    await db.summaries.save(keys, StoredSummary("opening", DAY, words, (entry.id,), "", "a model"))
    await db.search_history.add(keys, words, datetime.now(UTC))
    stored = await db.profiles.get(keys)
    await db.profiles.save(keys, b'{"zone":"UTC"}', revision=stored[1] if stored else 0)
    async with db.entries._db.write() as tx:  # noqa: SLF001 -- steps have no other door than an action of the journal
        await db.trash.updating(keys, lambda listed: [*listed, DeletedEntry(long.id, entry.at)])(tx)
    session = Session(secrets.token_bytes(32), keys.user_id, None, 2**40, 2**40)
    await db.sessions.add(session, DAY, (keys, words))
    generation = await db.snapshots.begin(keys)
    await db.snapshots.add(keys, generation, 1, db.snapshots.seal_part(keys, generation, 1, words.encode()))
    await db.snapshots.finish(keys, generation, 1, db.snapshots.seal_part(keys, generation, 0, b"one"))


def flips(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
    """The bytes with each bit of every `stride`-th byte flipped."""
    for at in range(0, len(sealed), stride):
        for bit in range(8):
            yield sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]


def cuts(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
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


def rows_of(database: Path, user_id: bytes) -> list[Row]:
    """Every sealed record of a writer."""
    found: list[Row] = []
    with closing(sqlite3.connect(database)) as connection:
        for kind in SEALED:
            query = f"SELECT {kind.id_column}, {kind.revision_column}, sealed FROM {kind.table} WHERE user_id=?"  # noqa: S608
            found += [Row(kind, *row) for row in connection.execute(query, (user_id,))]
    return found


# What a flipped bit in an envelope may be told as; which one depends on the field that it is in.
FLIPPED = (UnknownFormat, WrongHeader, WrongKey, Damaged, MissingEpoch)
CUT = (UnknownFormat, Damaged)


def damage_records(found: Findings, writer: Writer, rows: list[Row], stride: int) -> None:
    """Every bit and every length of one short and one long record of each kind."""
    for row in rows:
        row.open(writer.keys)  # as it is, it opens: else nothing below says anything
        for sealed in flips(row.sealed, stride):
            found.refuse(
                f"flip {row.kind.table}", lambda r=row, s=sealed: replace(r, sealed=s).open(writer.keys), *FLIPPED
            )
        for sealed in cuts(row.sealed, stride):
            found.refuse(f"cut {row.kind.table}", lambda r=row, s=sealed: replace(r, sealed=s).open(writer.keys), *CUT)


def damage_keys(found: Findings, writer: Writer, stride: int) -> None:
    """Key slots, data keys, session rows, cookies, recovery codes."""
    user_id, made = writer.user.id, writer.made
    secret_of = {"passphrase": PASSPHRASE, "recovery": made.recovery_code}
    for slot in made.slots:
        secret = secret_of[slot.kind]
        wrong = (WrongSecret, UnknownFormat, Damaged)
        for sealed in flips(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            found.refuse(f"flip {slot.kind} slot", lambda c=changed, s=secret: open_slot(user_id, c, s), *wrong)
        for sealed in cuts(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            found.refuse(f"cut {slot.kind} slot", lambda c=changed, s=secret: open_slot(user_id, c, s), *wrong)
        salts = [
            slot.salt[:at] + bytes([slot.salt[at] ^ 1]) + slot.salt[at + 1 :] for at in range(0, 32, max(stride, 8))
        ]
        for salt in [*salts, slot.salt[:-1], slot.salt + b"\x00"]:
            changed = replace(slot, salt=salt)
            found.refuse(f"salt of {slot.kind} slot", lambda c=changed, s=secret: open_slot(user_id, c, s), *wrong)
    whole = made.sealed
    for at, key in enumerate(whole.data_keys):
        for sealed in [*flips(key.sealed, stride), *cuts(key.sealed, stride)]:
            changed = (*whole.data_keys[:at], replace(key, sealed=sealed), *whole.data_keys[at + 1 :])
            spoiled = replace(whole, data_keys=changed)
            found.refuse("data key", lambda k=spoiled: open_keyring(user_id, made.master, k), *FLIPPED)
    for sealed in [*flips(whole.index_key, stride), *cuts(whole.index_key, stride)]:
        spoiled = replace(whole, index_key=sealed)
        found.refuse("index key", lambda k=spoiled: open_keyring(user_id, made.master, k), *FLIPPED)
    for sealed in [*flips(whole.slots, stride), *cuts(whole.slots, stride)]:
        spoiled = replace(whole, slots=sealed)
        found.refuse("list of slots", lambda k=spoiled: living_slots(user_id, made.master, k), *FLIPPED)
    token, boot = os.urandom(32), os.urandom(32)
    session = session_id_of(token)
    row = seal_for_session(user_id, session, token, boot, made.master)
    for sealed in [*flips(row, stride), *cuts(row, stride)]:
        found.refuse("session row", lambda s=sealed: open_from_session(user_id, session, token, boot, s), *FLIPPED)
    for other in flips(token):
        found.refuse("token", lambda o=other: open_from_session(user_id, session, o, boot, row), WrongKey)
    cookie = seal_for_cookie(user_id, session, boot, made.master)
    for sealed in [*flips(cookie, stride), *cuts(cookie, stride)]:
        found.refuse("cookie", lambda s=sealed: open_from_cookie(user_id, session, boot, s), *FLIPPED)
    damage_code(found, writer, next(slot for slot in made.slots if slot.kind == "recovery"))


def damage_code(found: Findings, writer: Writer, slot: KeySlot) -> None:
    """Every other letter in every place of a recovery code, every length, every two neighbours exchanged."""
    code = writer.made.recovery_code
    symbols = vault_slots._CROCKFORD  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    for at, letter in enumerate(code):
        if letter != "-":
            for other in symbols.replace(letter, ""):
                typed = code[:at] + other + code[at + 1 :]
                found.refuse("recovery code", lambda t=typed: open_slot(writer.user.id, slot, t), RecoveryCodeError)
    bare = code.replace("-", "")
    for length in range(len(bare)):
        found.refuse("recovery code", lambda n=length: open_slot(writer.user.id, slot, bare[:n]), RecoveryCodeError)
    for at in range(len(bare) - 1):
        if bare[at] != bare[at + 1]:
            typed = bare[:at] + bare[at + 1] + bare[at] + bare[at + 2 :]
            found.refuse("recovery code", lambda t=typed: open_slot(writer.user.id, slot, t), RecoveryCodeError)


async def damage_cookies(found: Findings, database: Path, writer: Writer, stride: int) -> None:
    """The whole cookie as a browser sends it, every letter of it, in both modes, at a worker that has not seen it."""
    boot = os.urandom(32)
    for mode in ("session", "cookie"):
        settings = SessionSettings(mode=mode)
        db = await LocalDB.open(database)
        accounts = Accounts(db, CryptoSettings(kdf_target_ms=0), settings, boot, lambda _: None)
        cookie, _ = await accounts.open_session(writer.user, writer.keys)

        async def opens(sent: str, db: LocalDB = db, settings: SessionSettings = settings) -> bool:
            other = Accounts(db, CryptoSettings(kdf_target_ms=0), settings, boot, lambda _: None)
            return await other.resume(sent) is not None

        assert await opens(cookie)
        changed = [
            cookie[:at] + other + cookie[at + 1 :]
            for at in range(0, len(cookie), stride)
            for other in secrets.SystemRandom().sample(COOKIE_LETTERS.replace(cookie[at], ""), 5)
        ]
        # The last letter carries fewer bits than it could: a change of the others is a change all the same.
        changed += [cookie[:-1] + other for other in COOKIE_LETTERS.replace(cookie[-1], "")]
        changed += [cookie[:length] for length in range(0, len(cookie), stride)]
        changed += [cookie + "A", cookie + "AAAA", "!" + cookie, cookie[:9] + "\n" + cookie[9:], cookie * 2]
        for sent in changed:
            found.tried[f"{mode} cookie"] += 1
            found.passed[f"{mode} cookie"] += await opens(sent)
        await db.close()


def damage_backup(found: Findings, file: Path, code: str, stride: int) -> None:
    """Every `stride`-th byte of a backup file, one bit of each, and every such length."""
    whole = file.read_bytes()
    damaged = file.with_name("damaged.llamora")

    def opened(content: bytes) -> object:
        damaged.write_bytes(content)
        header = read_header(damaged)
        return verify_backup(damaged, header, header.unlock(code))

    opened(whole)
    told = (BackupError, WrongSecret, UnknownFormat, Damaged, WrongKey, WrongHeader, MissingEpoch)
    for number, at in enumerate(range(0, len(whole), stride)):
        content = whole[:at] + bytes([whole[at] ^ 1 << number % 8]) + whole[at + 1 :]
        found.refuse("flip backup", lambda c=content: opened(c), *told)
    for length in range(0, len(whole), stride):
        found.refuse("cut backup", lambda n=length: opened(whole[:n]), *told)
    found.refuse("cut backup", lambda: opened(whole + b"\x00"), *told)


# -- moved ---------------------------------------------------------------------------------------------


def move_records(found: Findings, alice: Writer, bob: Writer, mine: list[Row], theirs: list[Row]) -> None:
    """Every sealed record in the place of every other one."""
    for one in mine:
        for other in mine:
            if one.sealed == other.sealed:
                continue
            moved = replace(one, sealed=other.sealed)
            if one.kind is other.kind:
                trial = "to another revision" if one.id == other.id else "to another row"
                found.refuse(trial, lambda m=moved: m.open(alice.keys), WrongKey)
            else:
                error = WrongKey if one.kind.purpose == other.kind.purpose else WrongHeader
                found.refuse("to another table and column", lambda m=moved: m.open(alice.keys), error)
        found.refuse("from another writer", lambda o=one: o.open(bob.keys), WrongKey)
        for revision in (one.revision + 1, one.revision - 1, 0, 2**63 - 1):
            if revision >= 0 and revision != one.revision:
                later = replace(one, revision=revision)
                found.refuse("another revision beside it", lambda r=later: r.open(alice.keys), WrongKey)
        epoch = int.from_bytes(one.sealed[6:10], "big")
        for said, error in ((3 - epoch, WrongKey), (3, MissingEpoch), (0, MissingEpoch)):
            other = replace(one, sealed=one.sealed[:6] + said.to_bytes(4, "big") + one.sealed[10:])
            found.refuse("another epoch in its header", lambda o=other: o.open(alice.keys), error)
    for one, other in zip(mine, theirs, strict=False):
        if one.kind is other.kind:
            moved = replace(one, sealed=other.sealed)
            found.refuse("from another writer", lambda m=moved: m.open(alice.keys), WrongKey)


def move_keys(found: Findings, alice: Writer, bob: Writer) -> None:
    """Slots exchanged between kinds and writers, data keys between epochs and writers, sessions and cookies."""
    a, b = alice.made, bob.made
    mine, theirs = ({slot.kind: slot for slot in made.slots} for made in (a, b))
    secret_of = {"passphrase": PASSPHRASE, "recovery": a.recovery_code}
    for kind, secret in secret_of.items():
        slot, other = mine[kind], mine["recovery" if kind == "passphrase" else "passphrase"]
        for changed in (
            replace(slot, sealed=other.sealed),
            replace(slot, sealed=other.sealed, salt=other.salt),
            replace(slot, id=other.id),
            replace(slot, id=other.id, sealed=other.sealed, salt=other.salt),
            theirs[kind],
            replace(slot, sealed=theirs[kind].sealed),
        ):
            found.refuse("slots exchanged", lambda c=changed, s=secret: open_slot(alice.user.id, c, s), WrongSecret)
        found.refuse("slot under another writer", lambda c=slot, s=secret: open_slot(bob.user.id, c, s), WrongSecret)
    first, second = a.sealed.data_keys
    for changed, error in (
        (replace(a.sealed, data_keys=(replace(first, sealed=second.sealed),)), WrongHeader),
        (replace(a.sealed, data_keys=(replace(second, sealed=b.sealed.data_keys[1].sealed),)), WrongKey),
        (replace(a.sealed, index_key=a.sealed.slots), WrongKey),
        (replace(a.sealed, index_key=b.sealed.index_key), WrongKey),
        # What was there before the keys were renewed.
        (alice.older, WrongKey),
        (replace(a.sealed, index_key=alice.older.index_key), WrongKey),
    ):
        found.refuse("keys exchanged", lambda c=changed: open_keyring(alice.user.id, a.master, c), error)
    for packed in (alice.older.slots, a.sealed.index_key, b.sealed.slots):
        changed = replace(a.sealed, slots=packed)
        found.refuse("list of slots exchanged", lambda c=changed: living_slots(alice.user.id, a.master, c), WrongKey)
    token, boot = os.urandom(32), os.urandom(32)
    session = session_id_of(token)
    row = seal_for_session(alice.user.id, session, token, boot, a.master)
    cookie = seal_for_cookie(alice.user.id, session, boot, a.master)
    other_token = os.urandom(32)
    for user, place, key, secret in (
        (bob.user.id, session, token, boot),
        (alice.user.id, session_id_of(other_token), token, boot),
        (alice.user.id, session, other_token, boot),
        (alice.user.id, session, token, os.urandom(32)),
    ):
        found.refuse("session moved", lambda w=(user, place, key, secret): open_from_session(*w, row), WrongKey)
    for user, place, secret in (
        (bob.user.id, session, boot),
        (alice.user.id, session_id_of(other_token), boot),
        (alice.user.id, session, os.urandom(32)),
    ):
        found.refuse("cookie moved", lambda w=(user, place, secret): open_from_cookie(*w, cookie), WrongKey)
    found.refuse("cookie as row", lambda: open_from_session(alice.user.id, session, token, boot, cookie), WrongKey)
    found.refuse("row as cookie", lambda: open_from_cookie(alice.user.id, session, boot, row), WrongKey)


async def lower_parameters(found: Findings, database: Path, writer: Writer) -> None:
    """The cost of the KDF lowered, raised or spoiled in the database."""
    db = await LocalDB.open(database)
    slot = next(slot for slot in writer.made.slots if slot.kind == "passphrase")

    def put(params: str) -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE key_slots SET params=? WHERE user_id=? AND kind='passphrase'", (params, writer.user.id)
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
        put(params)
        found.tried["cost out of bounds"] += 1
        try:
            open_slot(writer.user.id, (await db.users.get_slots(writer.user.id, "passphrase"))[0], PASSPHRASE)
            found.passed["cost out of bounds"] += 1
        except BadParameters:
            found.named["cost out of bounds"] = "BadParameters"
        # What a writer remembers must still let them in.
        (recovery,) = await db.users.get_slots(writer.user.id, "recovery")
        assert open_slot(writer.user.id, recovery, writer.made.recovery_code) == writer.made.master
    for params in ("m=65536,t=4,p=4", "m=81920,t=3,p=4", "m=65536,t=3,p=5"):
        put(params)
        (changed,) = await db.users.get_slots(writer.user.id, "passphrase")
        found.refuse(
            "another cost within bounds", lambda c=changed: open_slot(writer.user.id, c, PASSPHRASE), WrongSecret
        )
    assert slot.params is not None
    put(slot.params)
    (slot,) = await db.users.get_slots(writer.user.id, "passphrase")
    assert open_slot(writer.user.id, slot, PASSPHRASE) == writer.made.master
    await db.close()


def torture(folder: Path, stride: int = 1) -> dict[str, object]:
    """Run all of it on a journal of two writers in `folder`."""
    database = folder / "llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    found = Findings()
    # The KDF is deterministic: what it gave once for a secret, a salt and a cost need not be computed again.
    real = vault_slots._argon2id  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    vault_slots._argon2id = functools.lru_cache(real)  # type: ignore[assignment]  # noqa: SLF001
    try:
        alice, bob = asyncio.run(_two(database))
        mine, theirs = rows_of(database, alice.user.id), rows_of(database, bob.user.id)
        missing = {kind.table for kind in SEALED} - {row.kind.table for row in mine}
        assert not missing, f"write_every_kind has to write {sorted(missing)} too"
        damage_records(found, alice, mine, stride)
        damage_keys(found, alice, stride)
        asyncio.run(damage_cookies(found, database, alice, stride))
        write_backup(database, alice.keys, folder / "whole.llamora")
        damage_backup(found, folder / "whole.llamora", alice.made.recovery_code, stride)
        move_records(found, alice, bob, mine, theirs)
        move_keys(found, alice, bob)
        asyncio.run(lower_parameters(found, database, alice))
    finally:
        vault_slots._argon2id = real  # noqa: SLF001
    return {
        "tried": sum(found.tried.values()),
        "not_refused": sum(found.passed.values()),
        "refused_as_something_else": sum(found.misnamed.values()),
        "plain": len(find_words(folder, [WORD, PASSPHRASE])),
        "by_trial": dict(sorted(found.tried.items())),
        "wrong_trials": sorted((+found.passed + found.misnamed).keys()),
    }


async def _two(database: Path) -> tuple[Writer, Writer]:
    db = await LocalDB.open(database)
    alice, bob = await register(db, "Alice"), await register(db, "Bob")
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
    return 1 if result["not_refused"] or result["refused_as_something_else"] or result["plain"] else 0


if __name__ == "__main__":
    sys.exit(main())
