"""Accounts below the web: slots, sessions and what each of them opens."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llamora.events import EventBus, Topic
from llamora.journal.accounts import Accounts
from llamora.journal.credentials import AccountError, WrongCredentials
from llamora.journal.profile import Profile, zone_or_utc
from llamora.journal.sessions import Sessions
from llamora.persistence.connection import StaleRevision
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.users import NameTaken
from llamora.settings import CryptoSettings, SessionSettings, resource
from llamora.vault.keys import new_data_key

PASSPHRASE = "correct horse battery staple 42"
NEW = "four unrelated words: kelp anvil dormouse"


@dataclass
class House:
    db: LocalDB
    accounts: Accounts
    left: list[bytes] = field(default_factory=list)

    def another(self, boot_secret: bytes = b"s" * 32, **session: object) -> Accounts:
        """A worker process of the same server, or with another secret the server started again."""
        settings = SessionSettings(**session)  # type: ignore[arg-type]
        events = EventBus()
        events.subscribe(Topic.SIGNED_OUT, lambda event: self.left.append(event.user_id))
        sessions = Sessions(self.db, settings, boot_secret, events)
        return Accounts(self.db, CryptoSettings(kdf_target_ms=0), sessions)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    path = tmp_path / "journal.sqlite3"
    run_db_migrations(path, resource("migrations"))
    db = await LocalDB.open(path)
    house = House(db, None)  # type: ignore[arg-type]
    house.accounts = house.another()
    yield house
    await db.close()


async def test_what_registration_makes_opens_the_same_keys(house: House) -> None:
    user, keys, code = await house.accounts.register("  Ada   Day ", PASSPHRASE, "Europe/Berlin")
    assert user.name == "Ada Day"
    again, opened = await house.accounts.sign_in("ADA DAY", PASSPHRASE)
    assert again.id == user.id
    assert opened.blind("day", b"x") == keys.blind("day", b"x")
    assert await house.accounts.get_profile(opened) == Profile("Europe/Berlin", 1, summed=True)
    _, by_code, other = await house.accounts.reset_passphrase("ada day", code, NEW)
    assert by_code.blind("day", b"x") == keys.blind("day", b"x")
    assert other != code


async def test_of_two_registrations_of_one_name_at_once_one_wins(house: House) -> None:
    results = await asyncio.gather(
        *(house.accounts.register(name, PASSPHRASE, "UTC") for name in ("Ada", "ada")),
        return_exceptions=True,
    )
    assert sum(isinstance(result, NameTaken) for result in results) == 1
    assert sum(isinstance(result, tuple) for result in results) == 1


async def test_a_dearer_kdf_is_taken_over_at_sign_in(house: House) -> None:
    user, _, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    async with house.db._connections.write() as tx:
        await tx.execute("UPDATE instance SET value='m=65536,t=4,p=4' WHERE key='kdf'")
    later = house.another()
    await later.sign_in("Ada", PASSPHRASE)
    assert [slot.params for slot in await house.db.users.get_slots(user.id, "passphrase")] == [
        "m=65536,t=4,p=4"
    ]
    await later.sign_in("Ada", PASSPHRASE)
    with pytest.raises(WrongCredentials):
        await later.sign_in("Ada", NEW)


@pytest.mark.parametrize("said", ["m=65536,t=3,p=4", "m=8,t=1,p=1", "spoiled"])
async def test_a_cost_that_was_lowered_in_the_file_lowers_no_slot(house: House, said: str) -> None:
    user, _, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    async with house.db._connections.write() as tx:
        await tx.execute("UPDATE instance SET value='m=65536,t=4,p=4' WHERE key='kdf'")
    await house.another().sign_in("Ada", PASSPHRASE)
    async with house.db._connections.write() as tx:
        await tx.execute("UPDATE instance SET value=? WHERE key='kdf'", (said,))
    await house.another().sign_in("Ada", PASSPHRASE)
    assert [slot.params for slot in await house.db.users.get_slots(user.id, "passphrase")] == [
        "m=65536,t=4,p=4"
    ]


async def test_a_spoiled_passphrase_slot_says_so_and_the_recovery_code_still_opens(
    house: House,
) -> None:
    user, keys, code = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    async with house.db._connections.write() as tx:
        await tx.execute("UPDATE key_slots SET params='m=8,t=1,p=1' WHERE kind='passphrase'")
    with pytest.raises(AccountError, match=r"^passphrase_slot_changed$"):
        await house.accounts.sign_in("Ada", PASSPHRASE)
    again, opened, _ = await house.accounts.reset_passphrase("Ada", code, NEW)
    assert again.id == user.id
    assert opened.blind("day", b"x") == keys.blind("day", b"x")
    await house.accounts.sign_in("Ada", NEW)


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_a_passphrase_is_changed_and_other_sessions_end(house: House, mode: str) -> None:
    accounts = house.another(mode=mode)
    user, keys, code = await accounts.register("Ada", PASSPHRASE, "UTC")
    here_cookie, here = await accounts.sessions.open_session(user, keys)
    there_cookie, _ = await accounts.sessions.open_session(user, keys)
    with pytest.raises(WrongCredentials):
        await accounts.change_passphrase(here, NEW, PASSPHRASE)
    with pytest.raises(AccountError):
        await accounts.change_passphrase(here, PASSPHRASE, "hunter2")
    assert await accounts.sessions.resume(there_cookie) is not None
    renewed = await accounts.change_passphrase(here, PASSPHRASE, NEW)
    assert (renewed.cookie == here_cookie) == (mode == "session")
    assert await accounts.sessions.resume(renewed.cookie) is not None
    assert await accounts.sessions.resume(there_cookie) is None
    assert [row.id for row in await house.db.sessions.list_for_user(user.id)] == [here.id]
    with pytest.raises(WrongCredentials):
        await accounts.sign_in("Ada", PASSPHRASE)
    await accounts.sign_in("Ada", NEW)
    await accounts.reset_passphrase("Ada", code, PASSPHRASE)  # the code stays good


async def test_what_the_old_passphrase_opened_is_in_no_file_any_more(house: House) -> None:
    user, keys, code = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    _, here = await house.accounts.sessions.open_session(user, keys)
    await house.db.checkpoint()  # as after a while: in the file itself, not only in its log

    async def in_files(sealed: bytes) -> bool:
        """Whether any part of it is there: what is long lies in several pages."""
        folder = house.db.path.parent
        contents = [file.read_bytes() for file in folder.iterdir() if file.is_file()]
        parts = [sealed[at : at + 32] for at in range(10, len(sealed) - 31, 32)]
        return any(part in content for part in parts for content in contents)

    old = await house.db.users.get_slots(user.id)
    keys_before = await house.db.users.keys(user.id)
    sealed = [
        *(slot.sealed for slot in old),
        *(key.sealed for key in keys_before.data_keys),
        *(keys_before.slots, keys_before.index_key),
    ]
    assert all([await in_files(each) for each in sealed])
    await house.accounts.change_passphrase(here, PASSPHRASE, NEW)
    assert not any([await in_files(each) for each in sealed])
    (recovery,) = await house.db.users.get_slots(user.id, "recovery")
    assert await in_files(recovery.sealed)
    await house.accounts.reset_passphrase("Ada", code, PASSPHRASE)
    assert not await in_files(recovery.sealed)


async def test_who_comes_in_at_the_moment_of_a_lock_has_keys_that_open(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, keys, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    await house.accounts.sessions.open_session(user, keys)
    _, other = await house.accounts.sign_in("Ada", PASSPHRASE)
    real = house.db.sessions.add

    async def add(*given: Any) -> None:
        await house.accounts.sessions.lock(user.id)
        await real(*given)

    monkeypatch.setattr(house.db.sessions, "add", add)
    cookie, _ = await house.accounts.sessions.open_session(user, other)
    session = await house.accounts.sessions.resume(cookie)
    assert session is not None
    assert not session.keys.closed
    assert await house.accounts.get_profile(session.keys) == Profile("UTC", 1, summed=True)


async def test_who_comes_in_just_after_a_backup_was_put_back_has_its_keys(house: House) -> None:
    user, keys, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    _, before = await house.accounts.sessions.open_session(user, keys)
    second = new_data_key(user.id, keys.master, 2)
    assert before.keys.take(
        [*await house.db.users.get_data_keys(user.id), second]
    )  # the store is as it was before the change
    _, after = await house.accounts.sessions.open_session(
        *await house.accounts.sign_in("Ada", PASSPHRASE)
    )
    assert after.keys.epoch == 1


async def test_a_new_recovery_code_ends_the_old_one(house: House) -> None:
    user, keys, code = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    _, session = await house.accounts.sessions.open_session(user, keys)
    with pytest.raises(WrongCredentials):
        await house.accounts.renew_recovery_code(session, NEW)
    _, new = await house.accounts.renew_recovery_code(session, PASSPHRASE)
    with pytest.raises(WrongCredentials):
        await house.accounts.reset_passphrase("Ada", code, NEW)
    await house.accounts.reset_passphrase("Ada", new, NEW)


async def test_of_two_resets_with_one_code_at_once_one_wins(house: House) -> None:
    _, _, code = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    results = await asyncio.gather(
        house.accounts.reset_passphrase("Ada", code, NEW),
        house.accounts.reset_passphrase("Ada", code, NEW + " too"),
        return_exceptions=True,
    )
    # The other was in the middle of it, or came when the code had gone.
    lost = [isinstance(result, StaleRevision | WrongCredentials) for result in results]
    assert sum(lost) == 1
    won = 0 if isinstance(results[0], tuple) else 1
    await house.accounts.sign_in("Ada", (NEW, NEW + " too")[won])
    with pytest.raises(WrongCredentials):
        await house.accounts.sign_in("Ada", (NEW + " too", NEW)[won])


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_workers_share_sessions_and_their_end(house: House, mode: str) -> None:
    first, second = house.another(mode=mode), house.another(mode=mode)
    user, keys, _ = await first.register("Ada", PASSPHRASE, "UTC")
    cookie, session = await first.sessions.open_session(user, keys)
    found = await second.sessions.resume(cookie)
    assert found is not None
    assert found.keys.blind("day", b"x") == keys.blind("day", b"x")
    await first.sessions.sign_out(session)
    assert not first.sessions.is_session_open(session)
    assert await second.sessions.resume(cookie) is None
    assert not second.sessions.is_session_open(found)


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_another_secret_opens_no_session(house: House, mode: str) -> None:
    accounts = house.another(mode=mode)
    user, keys, _ = await accounts.register("Ada", PASSPHRASE, "UTC")
    cookie, _ = await accounts.sessions.open_session(user, keys)
    stolen = house.another(
        b"t" * 32, mode=mode
    )  # the file, the cookie and the program, but not the memory
    assert await stolen.sessions.resume(cookie) is None


async def test_the_row_holds_a_key_in_one_mode_only(house: House) -> None:
    user, keys, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    await house.another(mode="session").sessions.open_session(user, keys)
    await house.another(mode="cookie").sessions.open_session(user, keys)
    rows = await house.db.sessions.list_for_user(user.id)
    assert sorted(row.sealed_key is None for row in rows) == [False, True]
    assert all(keys.master not in (row.sealed_key or b"") for row in rows)


async def test_who_left_is_told_once_their_last_session_ended(house: House) -> None:
    user, keys, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    sessions = [(await house.accounts.sessions.open_session(user, keys))[1] for _ in range(2)]
    await house.accounts.sessions.sign_out(sessions[0])
    assert house.left == []
    await house.accounts.sessions.sign_out(sessions[1])
    assert house.left == [user.id]


async def test_of_two_changes_of_a_profile_one_is_told(house: House) -> None:
    _, keys, _ = await house.accounts.register("Ada", PASSPHRASE, "UTC")
    profile = await house.accounts.get_profile(keys)
    await house.accounts.save_profile(keys, profile)
    with pytest.raises(StaleRevision):
        await house.accounts.save_profile(keys, profile)


@pytest.mark.parametrize(
    "name", ["", "Europe/Atlantis", "../UTC", "\x00", "/etc/localtime", "x" * 5000]
)
def test_a_zone_that_is_none_is_utc(name: str) -> None:
    assert zone_or_utc(name) == "UTC"


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_the_sealed_master_key_lies_where_the_mode_says(house: House, mode: str) -> None:
    accounts = house.another(mode=mode)
    user, keys, _ = await accounts.register("Ada", PASSPHRASE, "UTC")
    cookie, _ = await accounts.sessions.open_session(user, keys)
    ((sealed,),) = await house.db._connections.fetch("SELECT sealed FROM dek_sessions")
    assert (sealed is None) == (mode == "cookie")
    assert (len(cookie) > 300) == (mode == "cookie")
