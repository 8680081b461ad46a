"""Flip every bit of what is sealed, and cut it at every length."""

import os
import secrets
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from llamora.events import EventBus
from llamora.journal.sessions import Sessions
from llamora.persistence.backup_format import BackupError, read_header
from llamora.persistence.backups import verify_backup
from llamora.settings import SessionSettings
from llamora.vault import recovery_code
from llamora.vault.envelope import Damaged, UnknownFormat, WrongHeader, WrongKey
from llamora.vault.key_renewal import living_slots
from llamora.vault.keys import MissingEpoch, SealedDataKey, open_keyring
from llamora.vault.recovery_code import RecoveryCodeError, WrongSecret
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_cookie,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import open_slot
from scripts.torture.forged_journal import Findings, Row, SealedUser
from scripts.torture.harness import opened

COOKIE_LETTERS = string.ascii_letters + string.digits + "-_"
# What a flipped bit in an envelope may be told as; which one depends on the field that it is in.
FLIP_ERRORS = (UnknownFormat, WrongHeader, WrongKey, Damaged, MissingEpoch)
TRUNCATION_ERRORS = (UnknownFormat, Damaged)
SLOT_ERRORS = (WrongSecret, UnknownFormat, Damaged)
BACKUP_ERRORS = (BackupError, WrongSecret, *FLIP_ERRORS)


def flipped_bits(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
    """Yield the bytes with each bit of every `stride`-th byte flipped."""
    for at in range(0, len(sealed), stride):
        for bit in range(8):
            yield sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]


def truncations(sealed: bytes, stride: int = 1) -> Iterator[bytes]:
    """Yield the bytes cut at every `stride`-th length, and with something after their end."""
    for length in range(0, len(sealed), stride):
        yield sealed[:length]
    yield sealed + b"\x00"
    yield sealed + sealed


def damage_records(findings: Findings, user: SealedUser, rows: list[Row], stride: int) -> None:
    """Try every bit and every length of one short and one long record of each kind."""
    for row in rows:
        row.open(user.keys)  # as it is, it opens: else nothing below says anything

        def open_with(sealed: bytes, row: Row = row) -> bytes:
            return replace(row, sealed=sealed).open(user.keys)

        for sealed in flipped_bits(row.sealed, stride):
            findings.refuses(f"flip {row.kind.table}", FLIP_ERRORS, open_with, sealed)
        for sealed in truncations(row.sealed, stride):
            findings.refuses(f"cut {row.kind.table}", TRUNCATION_ERRORS, open_with, sealed)


def damage_slots(findings: Findings, user: SealedUser, stride: int) -> None:
    """Try every bit, every length and other salts of each key slot."""
    for kind, slot in user.slots.items():
        secret = user.secrets[kind]
        for sealed in flipped_bits(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            findings.refuses(f"flip {kind} slot", SLOT_ERRORS, open_slot, user.id, changed, secret)
        for sealed in truncations(slot.sealed, stride):
            changed = replace(slot, sealed=sealed)
            findings.refuses(f"cut {kind} slot", SLOT_ERRORS, open_slot, user.id, changed, secret)
        salts = [
            slot.salt[:at] + bytes([slot.salt[at] ^ 1]) + slot.salt[at + 1 :]
            for at in range(0, 32, max(stride, 8))
        ]
        for salt in [*salts, slot.salt[:-1], slot.salt + b"\x00"]:
            changed, trial = replace(slot, salt=salt), f"salt of {kind} slot"
            findings.refuses(trial, SLOT_ERRORS, open_slot, user.id, changed, secret)


def damage_keys(findings: Findings, user: SealedUser, stride: int) -> None:
    """Try every bit and every length of data keys, session rows and cookies."""
    user_id, master, whole = user.id, user.new_keys.master, user.new_keys.sealed

    def damage(trial: str, sealed: bytes, attempt: Callable[[bytes], object]) -> None:
        for changed in [*flipped_bits(sealed, stride), *truncations(sealed, stride)]:
            findings.refuses(trial, FLIP_ERRORS, attempt, changed)

    for key in whole.data_keys:

        def open_with(sealed: bytes, key: SealedDataKey = key) -> object:
            # Alone: beside one that opens it is left out, with the records under it.
            changed = replace(whole, data_keys=(replace(key, sealed=sealed),))
            return open_keyring(user_id, master, changed)

        damage("data key", key.sealed, open_with)
    damage(
        "index key",
        whole.index_key,
        lambda sealed: open_keyring(user_id, master, replace(whole, index_key=sealed)),
    )
    damage(
        "list of slots",
        whole.slots,
        lambda sealed: living_slots(user_id, master, replace(whole, slots=sealed)),
    )
    token, boot = os.urandom(32), os.urandom(32)
    session = session_id_of(token)
    row = seal_for_session(user_id, session, token, boot, master)
    damage("session row", row, lambda s: open_from_session(user_id, session, token, boot, s))
    for other in flipped_bits(token):
        findings.refuses("token", WrongKey, open_from_session, user_id, session, other, boot, row)
    cookie = seal_for_cookie(user_id, session, boot, master)
    damage("cookie", cookie, lambda sealed: open_from_cookie(user_id, session, boot, sealed))


def damage_recovery_code(findings: Findings, user: SealedUser) -> None:
    """Try every other letter in every place, every length, every two neighbours exchanged."""
    code, slot = user.new_keys.recovery_code, user.slots["recovery"]
    symbols = recovery_code._CROCKFORD  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    letters = code.replace("-", "")
    typed = [
        code[:at] + other + code[at + 1 :]
        for at, letter in enumerate(code)
        if letter != "-"
        for other in symbols.replace(letter, "")
    ]
    typed += [letters[:length] for length in range(len(letters))]
    typed += [
        letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
        for at in range(len(letters) - 1)
        if letters[at] != letters[at + 1]
    ]
    for each in typed:
        findings.refuses("recovery code", RecoveryCodeError, open_slot, user.id, slot, each)


def _damaged_cookies(cookie: str, stride: int) -> list[str]:
    choose = secrets.SystemRandom().sample
    changed = [
        cookie[:at] + other + cookie[at + 1 :]
        for at in range(0, len(cookie), stride)
        for other in choose(COOKIE_LETTERS.replace(cookie[at], ""), 5)
    ]
    # The last letter carries fewer bits than it could: a change of the others is a change all the same.
    changed += [cookie[:-1] + other for other in COOKIE_LETTERS.replace(cookie[-1], "")]
    changed += [cookie[:length] for length in range(0, len(cookie), stride)]
    longer = (cookie + "A", cookie + "AAAA", "!" + cookie, cookie[:9] + "\n" + cookie[9:])
    return [*changed, *longer, cookie * 2]


async def damage_cookies(findings: Findings, database: Path, user: SealedUser, stride: int) -> None:
    """Try every letter of a cookie as a browser sends it, in both modes, at a worker that has not seen it."""
    boot = os.urandom(32)
    for mode in ("session", "cookie"):
        settings = SessionSettings(mode=mode)
        async with opened(database) as db:
            (stored,) = [each for each in await db.users.list_all() if each.id == user.id]
            sessions = Sessions(db, settings, boot, EventBus())
            cookie, _ = await sessions.open_session(stored, user.keys)
            assert await Sessions(db, settings, boot, EventBus()).resume(cookie) is not None
            for forged in _damaged_cookies(cookie, stride):
                other = Sessions(db, settings, boot, EventBus())
                findings.trials[f"{mode} cookie"] += 1
                findings.accepted[f"{mode} cookie"] += await other.resume(forged) is not None


def damage_backup(findings: Findings, file: Path, secret: str, stride: int) -> None:
    """Try every `stride`-th byte of a backup file, one bit of each, and every such length."""
    original, damaged = file.read_bytes(), file.with_name("damaged.llamora")

    def open_backup(content: bytes) -> object:
        damaged.write_bytes(content)
        header = read_header(damaged)
        return verify_backup(damaged, header, header.unlock(secret))

    open_backup(original)
    for number, at in enumerate(range(0, len(original), stride)):
        content = original[:at] + bytes([original[at] ^ 1 << number % 8]) + original[at + 1 :]
        findings.refuses("flip backup", BACKUP_ERRORS, open_backup, content)
    for length in range(0, len(original), stride):
        findings.refuses("cut backup", BACKUP_ERRORS, open_backup, original[:length])
    findings.refuses("cut backup", BACKUP_ERRORS, open_backup, original + b"\x00")
