"""Put what is sealed where something else belongs, and change the cost of the KDF."""

import os
from dataclasses import replace
from pathlib import Path

from llamora.persistence import LocalDB
from llamora.vault.envelope import WrongHeader, WrongKey
from llamora.vault.kdf import BadParameters
from llamora.vault.key_renewal import living_slots
from llamora.vault.keys import MissingEpoch, open_keyring
from llamora.vault.recovery_code import WrongSecret
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import KeySlot, open_slot
from scripts.torture.forged_journal import Findings, Row, SealedUser
from scripts.torture.harness import PASSPHRASE, execute, opened

COSTS_OUT_OF_BOUNDS = (
    *("m=8,t=1,p=1", "m=65535,t=3,p=4", "m=65536,t=2,p=4", "m=65536,t=3,p=3"),
    *("m=1048577,t=3,p=4", "m=1048576,t=32,p=4"),
    *("m=65536,t=3,p=4 ", "m=065536,t=3,p=4", "t=3,m=65536,p=4", "none"),
)
OTHER_COSTS = ("m=65536,t=4,p=4", "m=81920,t=3,p=4", "m=65536,t=3,p=5")


def move_records(
    findings: Findings,
    alice: SealedUser,
    bob: SealedUser,
    alice_rows: list[Row],
    bob_rows: list[Row],
) -> None:
    """Put every sealed record in the place of every other one."""
    for row in alice_rows:
        for other in alice_rows:
            if row.sealed != other.sealed:
                _move(findings, alice, row, other)
        findings.refuses("from another writer", WrongKey, row.open, bob.keys)
        _relabel(findings, alice, row)
    for row, other in zip(alice_rows, bob_rows, strict=False):
        if row.kind is other.kind:
            moved = replace(row, sealed=other.sealed)
            findings.refuses("from another writer", WrongKey, moved.open, alice.keys)


def _move(findings: Findings, user: SealedUser, row: Row, other: Row) -> None:
    moved = replace(row, sealed=other.sealed)
    if row.kind is other.kind:
        trial = "to another revision" if row.id == other.id else "to another row"
        findings.refuses(trial, WrongKey, moved.open, user.keys)
    else:
        error = WrongKey if row.kind.purpose == other.kind.purpose else WrongHeader
        findings.refuses("to another table and column", error, moved.open, user.keys)


def _relabel(findings: Findings, user: SealedUser, row: Row) -> None:
    """Another revision beside it, another epoch in its header."""
    for revision in (row.revision + 1, row.revision - 1, 0, 2**63 - 1):
        if revision >= 0 and revision != row.revision:
            later = replace(row, revision=revision)
            findings.refuses("another revision beside it", WrongKey, later.open, user.keys)
    epoch = int.from_bytes(row.sealed[6:10], "big")
    for claimed, error in ((3 - epoch, WrongKey), (3, MissingEpoch), (0, MissingEpoch)):
        sealed = row.sealed[:6] + claimed.to_bytes(4, "big") + row.sealed[10:]
        other = replace(row, sealed=sealed)
        findings.refuses("another epoch in its header", error, other.open, user.keys)


def move_slots(findings: Findings, alice: SealedUser, bob: SealedUser) -> None:
    """Exchange slots between kinds and users."""
    for kind, secret in alice.secrets.items():
        slot, from_bob = alice.slots[kind], bob.slots[kind]
        other = alice.slots["recovery" if kind == "passphrase" else "passphrase"]
        for changed in (
            replace(slot, sealed=other.sealed),
            replace(slot, sealed=other.sealed, salt=other.salt),
            replace(slot, id=other.id),
            replace(slot, id=other.id, sealed=other.sealed, salt=other.salt),
            from_bob,
            replace(slot, sealed=from_bob.sealed),
        ):
            findings.refuses("slots exchanged", WrongSecret, open_slot, alice.id, changed, secret)
        trial = "slot under another writer"
        findings.refuses(trial, WrongSecret, open_slot, bob.id, slot, secret)


def move_keys(findings: Findings, alice: SealedUser, bob: SealedUser) -> None:
    """Exchange data keys between epochs and users, and put back what was there before a renewal."""
    a, b, master = alice.new_keys.sealed, bob.new_keys.sealed, alice.new_keys.master
    first, second = a.data_keys
    for changed, error in (
        (replace(a, data_keys=(replace(first, sealed=second.sealed),)), WrongHeader),
        (replace(a, data_keys=(replace(second, sealed=b.data_keys[1].sealed),)), WrongKey),
        (replace(a, index_key=a.slots), WrongKey),
        (replace(a, index_key=b.index_key), WrongKey),
        # What was there before the keys were renewed.
        (alice.older, WrongKey),
        (replace(a, index_key=alice.older.index_key), WrongKey),
    ):
        findings.refuses("keys exchanged", error, open_keyring, alice.id, master, changed)
    for packed in (alice.older.slots, a.index_key, b.slots):
        changed, trial = replace(a, slots=packed), "list of slots exchanged"
        findings.refuses(trial, WrongKey, living_slots, alice.id, master, changed)


def move_sessions(findings: Findings, alice: SealedUser, bob: SealedUser) -> None:
    """Put session rows and cookies under other users, tokens and boot secrets, and in each other's place."""
    token, boot, other_token = (os.urandom(32) for _ in range(3))
    session, other_session = session_id_of(token), session_id_of(other_token)
    row = seal_for_session(alice.id, session, token, boot, alice.new_keys.master)
    cookie = seal_for_cookie(alice.id, session, boot, alice.new_keys.master)
    for where in (
        (bob.id, session, token, boot),
        (alice.id, other_session, token, boot),
        (alice.id, session, other_token, boot),
        (alice.id, session, token, os.urandom(32)),
    ):
        findings.refuses("session moved", WrongKey, open_from_session, *where, row)
    for where in (
        (bob.id, session, boot),
        (alice.id, other_session, boot),
        (alice.id, session, os.urandom(32)),
    ):
        findings.refuses("cookie moved", WrongKey, open_from_cookie, *where, cookie)
    where = (alice.id, session, token, boot)
    findings.refuses("cookie as row", WrongKey, open_from_session, *where, cookie)
    findings.refuses("row as cookie", WrongKey, open_from_cookie, alice.id, session, boot, row)


async def change_costs(findings: Findings, database: Path, user: SealedUser) -> None:
    """Lower, raise or spoil the cost of the KDF in the database."""
    async with opened(database) as db:

        async def slot_with(params: str) -> KeySlot:
            sql = "UPDATE key_slots SET params=? WHERE user_id=? AND kind='passphrase'"
            execute(database, sql, (params, user.id))
            return await _slot(db, user, "passphrase")

        for params in COSTS_OUT_OF_BOUNDS:
            findings.trials["cost out of bounds"] += 1
            try:
                open_slot(user.id, await slot_with(params), PASSPHRASE)
                findings.accepted["cost out of bounds"] += 1
            except BadParameters:
                pass
            # What a user remembers must still let them in.
            recovery, code = await _slot(db, user, "recovery"), user.new_keys.recovery_code
            assert open_slot(user.id, recovery, code) == user.new_keys.master
        for params in OTHER_COSTS:
            changed, trial = await slot_with(params), "another cost within bounds"
            findings.refuses(trial, WrongSecret, open_slot, user.id, changed, PASSPHRASE)
        original = await slot_with(str(user.slots["passphrase"].params))
        assert open_slot(user.id, original, PASSPHRASE) == user.new_keys.master


async def _slot(db: LocalDB, user: SealedUser, kind: str) -> KeySlot:
    (slot,) = await db.users.get_slots(user.id, kind)
    return slot
