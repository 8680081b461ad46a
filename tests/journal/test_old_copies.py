"""What somebody opens who kept a copy of the database and a secret of that time: that copy, and nothing after it."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from llamora.events import EventBus
from llamora.journal import rotation
from llamora.journal.accounts import Accounts
from llamora.journal.credentials import AccountError
from llamora.journal.rotation import Rotation, renew_keys
from llamora.journal.session_keys import OpenSession
from llamora.journal.sessions import Sessions
from llamora.persistence import LocalDB
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, write_backup
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.schema import RECORD_KINDS
from llamora.settings import CryptoSettings, SessionSettings
from llamora.vault import hybrid
from llamora.vault.envelope import SealError, WrongKey
from llamora.vault.key_renewal import living_slots
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.recovery_code import WrongSecret
from llamora.vault.slots import SlotKey, open_slot, open_slots
from tests.persistence.conftest import DAY, entry

PASSPHRASE = "correct horse battery staple 42"
NEW = "four unrelated words: kelp anvil dormouse"
BOOT = b"s" * 32


def worker(db: LocalDB, mode: Literal["session", "cookie"] = "session") -> Accounts:
    """The accounts of one process of a server."""
    sessions = Sessions(db, SessionSettings(mode=mode), BOOT, EventBus())
    return Accounts(db, CryptoSettings(kdf_target_ms=0), sessions)


@dataclass
class Case:
    """A journal, a copy of it from before a change, and the secrets of that time."""

    db: LocalDB
    copy: Path
    accounts: Accounts
    session: OpenSession
    code: str

    @property
    def keys(self) -> Keyring:
        return self.session.keys

    async def stolen(self) -> Keyring:
        """What the old passphrase opens in the copy."""
        db = await LocalDB.open(self.copy)
        user_id = self.session.user.id
        master = open_slots(user_id, await db.users.get_slots(user_id), PASSPHRASE)
        keys = open_keyring(user_id, master, await db.users.keys(user_id))
        assert [each.text for each in await db.entries.list_day(keys, DAY)] == ["before"]
        await db.close()
        return keys


@pytest.fixture
async def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 0.0)
    db = await LocalDB.open(tmp_path / "journal" / "llamora.sqlite3")
    accounts = worker(db)
    user, keys, code = await accounts.register("Ada", PASSPHRASE, "UTC")
    _, session = await accounts.sessions.open_session(user, keys)
    await db.entries.add(session.keys, entry("before"))
    copy_database(db.path, tmp_path / "copy" / "llamora.sqlite3")
    yield Case(db, tmp_path / "copy" / "llamora.sqlite3", accounts, session, code)
    await db.close()


async def change_passphrase(case: Case) -> None:
    await case.accounts.change_passphrase(case.session, PASSPHRASE, NEW)


async def change_key(case: Case) -> None:
    await case.accounts.change_key(case.session)


async def renew_code(case: Case) -> None:
    await case.accounts.renew_recovery_code(case.session, PASSPHRASE)


async def reset(case: Case) -> None:
    user, keys, _ = await case.accounts.reset_passphrase("Ada", case.code, NEW)
    _, case.session = await case.accounts.sessions.open_session(user, keys)


async def by_command(case: Case) -> None:
    """`llamora-server rotate`, which has no session."""
    await Rotation(case.db).start(case.keys)


CHANGES = [change_passphrase, change_key, renew_code, reset, by_command]


@pytest.mark.parametrize("change", CHANGES)
async def test_an_old_copy_and_its_passphrase_open_nothing_written_after(
    case: Case, change: Callable[[Case], Awaitable[None]]
) -> None:
    await change(case)
    await case.db.entries.add(case.keys, entry("after"))
    await Rotation(case.db).finish(case.keys)
    user_id, old = case.session.user.id, await case.stolen()
    newer = await case.db.users.keys(user_id)
    assert newer.epoch == 2
    # Neither the master key nor the data key of then opens a key or a record of now.
    with pytest.raises(WrongKey):
        open_keyring(user_id, old.master, newer)
    with pytest.raises(WrongKey):
        living_slots(user_id, old.master, newer)
    assert not old.take(newer.data_keys)
    opened = sealed = 0
    with closing(sqlite3.connect(case.db.path)) as connection:
        for kind in RECORD_KINDS:
            if kind.purpose is not None:
                rows = connection.execute(
                    f"SELECT {kind.id_column}, {kind.revision_column}, sealed FROM {kind.table}"
                ).fetchall()
                for record_id, revision, envelope in rows:
                    sealed += 1
                    try:
                        kind.open(old, record_id, revision, envelope)
                        opened += 1
                    except SealError:
                        pass
    assert (sealed >= 3, opened) == (True, 0)
    assert sorted(each.text for each in await case.db.entries.list_day(case.keys, DAY)) == [
        "after",
        "before",
    ]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "tables", [["key_slots"], ["key_slots", "keyrings"], ["key_slots", "keyrings", "data_keys"]]
)
async def test_an_old_slot_put_back_into_the_file_opens_nothing_written_after(
    case: Case, change: Callable[[Case], Awaitable[None]], tables: list[str], tmp_path: Path
) -> None:
    await change(case)
    after = entry("after")
    await case.db.entries.add(case.keys, after)
    await Rotation(case.db).finish(case.keys)
    forged = tmp_path / "forged" / "llamora.sqlite3"
    copy_database(case.db.path, forged)
    with closing(sqlite3.connect(forged)) as connection, connection:
        connection.execute("ATTACH ? AS old", (str(case.copy),))
        for table in tables:
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM old.{table}")
    db = await LocalDB.open(forged)
    try:
        try:
            _, keys = await worker(db).sign_in("Ada", PASSPHRASE)
        except (SealError, AccountError):
            assert tables != ["key_slots", "keyrings", "data_keys"]
        else:  # the keys of then, and nothing that they open
            assert {each.state for each in await db.entries.list_day(keys, DAY)} <= {"unreadable"}
            assert keys.epoch == 1
    finally:
        await db.close()


async def test_a_secret_that_was_revoked_has_no_slot(case: Case) -> None:
    old = await case.db.users.get_slots(case.session.user.id)
    renewed = await case.accounts.change_passphrase(case.session, PASSPHRASE, NEW)
    user_id = renewed.user.id
    slots = await case.db.users.get_slots(user_id)
    assert sorted(slot.kind for slot in slots) == ["passphrase", "recovery"]
    assert {slot.id for slot in slots} & {slot.id for slot in old} == {
        next(slot.id for slot in old if slot.kind == "recovery")
    }
    assert (
        open_slots(user_id, slots, NEW)
        == open_slots(user_id, slots, case.code)
        == renewed.keys.master
    )
    with pytest.raises(WrongSecret):
        open_slots(user_id, slots, PASSPHRASE)
    for slot in old:
        secret = PASSPHRASE if slot.kind == "passphrase" else case.code
        assert open_slot(user_id, slot, secret) != renewed.keys.master


async def test_slots_of_kinds_that_open_elsewhere_outlive_a_change(case: Case) -> None:
    user_id, seed = case.session.user.id, bytes(range(32))
    passkey = SlotKey(b"p" * 16, "passkey", bytes(32), "some text", hybrid.public_key(seed))
    stored = await case.db.users.keys(user_id)
    await renew_keys(case.db, case.keys, stored, add=[passkey])
    user, keys = await case.accounts.sign_in("Ada", PASSPHRASE)
    _, session = await case.accounts.sessions.open_session(user, keys)
    renewed = await case.accounts.change_passphrase(session, PASSPHRASE, NEW)
    (slot,) = await case.db.users.get_slots(user_id, "passkey")
    assert (slot.id, slot.salt, slot.params) == (passkey.id, passkey.salt, passkey.params)
    opened = hybrid.open_with(seed, b"llamora/1/slot" + slot.sealed[:42], slot.sealed[42:])
    assert opened == renewed.keys.master


async def test_a_row_that_the_list_does_not_know_goes_with_a_change(case: Case) -> None:
    user_id = case.session.user.id
    (recovery,) = await case.db.users.get_slots(user_id, "recovery")
    async with case.db._connections.write() as tx:
        await tx.execute(
            "INSERT INTO key_slots (id, user_id, kind, salt, params, sealed) VALUES (?, ?, 'passkey', ?, 'x', ?)",
            (b"p" * 16, user_id, recovery.salt, recovery.sealed),
        )
    await case.accounts.change_key(case.session)
    assert sorted(slot.kind for slot in await case.db.users.get_slots(user_id)) == [
        "passphrase",
        "recovery",
    ]


async def test_a_cost_that_was_lowered_in_the_row_does_not_outlive_a_change(case: Case) -> None:
    async with case.db._connections.write() as tx:
        await tx.execute("UPDATE key_slots SET params='m=8,t=1,p=1' WHERE kind='passphrase'")
    await case.accounts.change_key(case.session)
    slots = await case.db.users.get_slots(case.session.user.id)
    assert open_slots(case.session.user.id, slots, PASSPHRASE) == case.keys.master


async def test_a_passphrase_is_changed_while_an_earlier_change_goes_on(case: Case) -> None:
    await case.accounts.change_key(case.session)
    with pytest.raises(StaleRevision):
        await case.accounts.change_key(case.session)
    await case.accounts.change_passphrase(case.session, PASSPHRASE, NEW)
    await case.db.entries.add(case.keys, entry("after"))
    assert [key.epoch for key in await case.db.users.get_data_keys(case.session.user.id)] == [
        1,
        2,
        3,
    ]
    await Rotation(case.db).finish(case.keys)
    assert [key.epoch for key in await case.db.users.get_data_keys(case.session.user.id)] == [3]
    assert sorted(each.text for each in await case.db.entries.list_day(case.keys, DAY)) == [
        "after",
        "before",
    ]


async def test_a_backup_opens_with_the_secrets_of_its_time(case: Case, tmp_path: Path) -> None:
    files = [tmp_path / "old.llamora", tmp_path / "new.llamora"]
    write_backup(case.db.path, case.keys, files[0])
    await case.accounts.change_passphrase(case.session, PASSPHRASE, NEW)
    write_backup(case.db.path, case.keys, files[1])
    old, new = (read_header(file) for file in files)
    assert old.unlock(PASSPHRASE).epoch == 1
    assert new.unlock(NEW).epoch == new.unlock(case.code).epoch == 2
    with pytest.raises(WrongSecret):
        new.unlock(PASSPHRASE)


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_the_session_of_a_change_goes_on_in_every_process(
    case: Case, mode: Literal["session", "cookie"]
) -> None:
    here, there = worker(case.db, mode), worker(case.db, mode)
    user, keys = await here.sign_in("Ada", PASSPHRASE)
    cookie, session = await here.sessions.open_session(user, keys)
    found = await there.sessions.resume(cookie)
    assert found is not None
    renewed = await here.change_passphrase(session, PASSPHRASE, NEW)
    assert renewed.id == session.id
    assert (await there.sessions.resume(cookie) is not None) == (mode == "session")
    again = await there.sessions.resume(renewed.cookie)
    assert again is not None
    assert again.keys is found.keys  # what is being done with them goes on
    assert (again.keys.epoch, again.keys.master) == (2, renewed.keys.master)
    fresh = await worker(case.db, mode).sessions.resume(renewed.cookie)
    assert fresh is not None
    assert fresh.keys.master == renewed.keys.master


async def test_another_process_takes_new_keys_up_without_a_request(case: Case) -> None:
    there = worker(case.db)
    found = await there.sessions.resume(case.session.cookie)
    assert found is not None
    await change_passphrase(case)
    await there.sessions.sync_with_database()
    assert (found.keys.epoch, found.keys.master) == (2, case.keys.master)


async def test_where_only_the_cookie_has_the_key_another_process_waits_for_it(case: Case) -> None:
    here, there = worker(case.db, "cookie"), worker(case.db, "cookie")
    cookie, session = await here.sessions.open_session(*await here.sign_in("Ada", PASSPHRASE))
    found = await there.sessions.resume(cookie)
    assert found is not None
    renewed = await here.change_key(session)
    await there.sessions.sync_with_database()
    assert there.sessions.is_session_open(found)
    assert found.keys.epoch == 1
    assert await there.sessions.resume(renewed.cookie) is not None
    assert found.keys.epoch == 2


async def test_the_row_of_the_session_holds_the_new_key_and_no_locked_row_gets_one(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = await case.db.sessions.list_for_user(case.session.user.id)
    await change_passphrase(case)
    (after,) = await case.db.sessions.list_for_user(case.session.user.id)
    assert before.sealed_key != after.sealed_key is not None
    real = case.db.users.renew_keys

    async def locked_meanwhile(*given: object, **more: object) -> None:
        await case.accounts.sessions.lock(case.session.user.id)
        await real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(case.db.users, "renew_keys", locked_meanwhile)
    with pytest.raises(Exception, match="locked"):
        await case.accounts.change_passphrase(case.session, NEW, PASSPHRASE)
    assert all(
        row.sealed_key is None for row in await case.db.sessions.list_for_user(case.session.user.id)
    )


async def test_a_disk_that_breaks_just_after_a_change_does_not_undo_it(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What replaced bytes is made up for later: the new code must be shown, for the old one is gone."""

    async def broken() -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(case.db.users._db, "checkpoint", broken)
    renewed, code = await case.accounts.renew_recovery_code(case.session, PASSPHRASE)
    slots = await case.db.users.get_slots(renewed.user.id)
    assert open_slots(renewed.user.id, slots, code) == renewed.keys.master
    assert await case.accounts.sessions.resume(renewed.cookie) is not None
