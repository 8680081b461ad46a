"""A new data key: nothing lost, nothing under the old one, whoever writes meanwhile and wherever it is stopped."""

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from llamora.journal import rotation as rotation_module
from llamora.journal.rotation import Rotation
from llamora.persistence import LocalDB
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RESEALED_KINDS
from llamora.persistence.users import User
from llamora.vault.envelope import sealed_epoch
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.persistence.conftest import DAY, damage, db, entry, keys, path, raw
from tests.persistence.test_doctor import lived

__all__ = ["damage", "db", "keys", "lived", "path", "raw"]

Raw = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other worker has to notice."""
    monkeypatch.setattr(rotation_module, "NOTICE_SECONDS", 0.0)


def epochs(raw: Raw) -> set[int]:
    """The epochs of everything that is sealed."""
    found = {
        sealed_epoch(row[0])
        for kind in RESEALED_KINDS
        for row in raw(f"SELECT sealed FROM {kind.table}")
    }
    return found | {row[0] for row in raw("SELECT epoch FROM data_keys")}


async def test_everything_is_sealed_anew_and_reads_as_before(
    db: LocalDB, lived: Keyring, raw: Raw
) -> None:
    before = await db.entries.list_day(lived, DAY)
    rows = {kind.table: len(raw(f"SELECT 1 FROM {kind.table}")) for kind in RESEALED_KINDS}
    (old_key,) = raw("SELECT sealed FROM data_keys")
    rotation = Rotation(db)
    await rotation.start(lived)
    assert await rotation.finish(lived) == []
    assert epochs(raw) == {2}
    assert await db.entries.list_day(lived, DAY) == before
    assert {kind.table: len(raw(f"SELECT 1 FROM {kind.table}")) for kind in RESEALED_KINDS} == rows
    assert await db.tags.names(lived) != {}
    assert await db.search_history.recent(lived) == ["one"]
    files = [file for file in db.path.parent.iterdir() if file.name.startswith(db.path.name)]
    assert not any(old_key[0] in file.read_bytes() for file in files)  # erased, also from the log
    await rotation.start(lived)
    await rotation.finish(lived)
    assert epochs(raw) == {3}


async def test_new_writes_have_the_new_key_at_once(db: LocalDB, lived: Keyring, raw: Raw) -> None:
    await Rotation(db).start(lived)
    made = entry("after")
    await db.entries.add(lived, made)
    assert [
        sealed_epoch(row[0]) for row in raw("SELECT sealed FROM entries WHERE id=?", made.id)
    ] == [2]
    assert len(await db.entries.list_day(lived, DAY)) == 3  # what is older still opens


async def test_one_change_at_a_time(db: LocalDB, lived: Keyring) -> None:
    rotation = Rotation(db)
    await rotation.start(lived)
    with pytest.raises(StaleRevision):
        await rotation.start(lived)


async def test_writing_goes_on_meanwhile(db: LocalDB, keys: Keyring, raw: Raw) -> None:
    made = [entry(f"line {number}") for number in range(300)]
    await db.entries.add(keys, *made)
    stale = open_keyring(
        keys.user_id, keys.master, await db.users.keys(keys.user_id)
    )  # another worker
    rotation = Rotation(db)
    await rotation.start(keys)
    texts = {each.id: each.text for each in made}

    async def write(ring: Keyring, part: list[Entry]) -> None:
        for each in part:
            changed = replace(each, text=each.text + " edited")
            try:
                await db.entries.update(ring, changed)
            except StorageError:  # its key is gone: it is told, and does it again with the new one
                ring.take(await db.users.get_data_keys(ring.user_id), keys.master)
                await db.entries.update(ring, changed)
            texts[each.id] = changed.text
            added = entry("new")
            await db.entries.add(ring, added)
            texts[added.id] = added.text

    await asyncio.gather(rotation.finish(keys), write(keys, made[:60]), write(stale, made[100:160]))
    if await db.key_rotation.count_data_keys(keys.user_id) > 1:
        await rotation.finish(keys)
    assert {each.id: each.text for each in await db.entries.list_day(keys, DAY)} == texts
    assert epochs(raw) == {2}


async def test_a_late_write_under_a_key_that_is_gone_is_refused(
    db: LocalDB, lived: Keyring, raw: Raw
) -> None:
    late = open_keyring(lived.user_id, lived.master, await db.users.keys(lived.user_id))
    kept = (await db.entries.list_day(lived, DAY))[0]
    rotation = Rotation(db)
    await rotation.start(lived)
    await rotation.finish(lived)
    with pytest.raises(StorageError):
        await db.entries.add(late, entry("too late"))
    with pytest.raises(StorageError):
        await db.entries.update(late, replace(kept, text="too late"))
    with pytest.raises(StorageError):
        await db.tags.add(late, kept.id, "late")
    assert epochs(raw) == {2}
    assert not late.take(await db.users.get_data_keys(lived.user_id))
    assert late.take(await db.users.get_data_keys(lived.user_id), lived.master)
    await db.entries.add(late, entry("in time"))


@pytest.mark.parametrize("stops", [1, 3, 6])
async def test_stopped_and_taken_up_again(stops: int, db: LocalDB, keys: Keyring, raw: Raw) -> None:
    made = [entry(f"line {number}") for number in range(400)]
    await db.entries.add(keys, *made)
    await Rotation(db).start(keys)
    for _ in range(stops):
        rotation = Rotation(db)
        await rotation.resume_pending(keys)
        seen = sum(sealed_epoch(row[0]) == 2 for row in raw("SELECT sealed FROM entries"))
        while await db.key_rotation.count_data_keys(keys.user_id) > 1 and (  # noqa: ASYNC110 -- the file is watched
            sum(sealed_epoch(row[0]) == 2 for row in raw("SELECT sealed FROM entries")) == seen
        ):
            await asyncio.sleep(0.001)
        rotation.lock(keys.user_id)
        await rotation.close()
        # Whoever signs in now has keys of their own.
        keys = open_keyring(keys.user_id, keys.master, await db.users.keys(keys.user_id))
        assert len(await db.entries.list_day(keys, DAY)) == 400
        assert all(each.state == "done" for each in await db.entries.list_day(keys, DAY))
    if await db.key_rotation.count_data_keys(keys.user_id) > 1:
        await Rotation(db).finish(keys)
    assert epochs(raw) == {2}
    assert {each.text for each in await db.entries.list_day(keys, DAY)} == {
        each.text for each in made
    }


async def test_what_does_not_open_is_in_nobodys_way(
    db: LocalDB, lived: Keyring, raw: Raw, damage: Callable[[str], None]
) -> None:
    await db.entries.add(lived, entry("three"))
    broken = raw("SELECT id, sealed FROM entries")[0]
    flipped = broken[1][:-1] + bytes([broken[1][-1] ^ 1])
    raw("UPDATE entries SET sealed=? WHERE id=?", flipped, broken[0])
    damage("vectors")
    rotation = Rotation(db)
    await rotation.start(lived)
    unreadable = await rotation.finish(lived)
    assert sorted(each.kind.table for each in unreadable) == ["entries", "vectors"]
    assert raw("SELECT sealed FROM entries WHERE id=?", broken[0]) == [(flipped,)]  # as it was
    assert raw("SELECT count(*) FROM vectors") == [(0,)]  # made again
    assert [row[0] for row in raw("SELECT epoch FROM data_keys")] == [2]
    assert await db.key_rotation.unreadable_count(lived.user_id) == 1
    assert [each.state for each in await db.entries.list_day(lived, DAY)].count("unreadable") == 1
    await rotation.start(lived)
    assert [each.kind.table for each in await rotation.finish(lived)] == ["entries"]


async def test_nobody_elses_records_are_touched(db: LocalDB, lived: Keyring, raw: Raw) -> None:
    master, user_id = os.urandom(32), secrets.token_bytes(16)
    sealed = seal_new_keys(user_id, master)
    await db.users.add(User(user_id, "Bob", recovery_confirmed=False), [], sealed)
    bob = open_keyring(user_id, master, sealed)
    await db.entries.add(bob, entry("bob's"))
    before = raw("SELECT * FROM entries WHERE user_id=?", user_id)
    rotation = Rotation(db)
    await rotation.start(lived)
    await rotation.finish(lived)
    assert raw("SELECT * FROM entries WHERE user_id=?", user_id) == before
    assert [each.text for each in await db.entries.list_day(bob, DAY)] == ["bob's"]


async def test_a_lock_in_the_middle_ends_it(db: LocalDB, lived: Keyring) -> None:
    rotation = Rotation(db)
    await rotation.start(lived)
    master = lived.master
    await rotation.resume_pending(lived)
    lived.close()
    await rotation.close()
    with suppress(StorageError):
        assert await db.key_rotation.count_data_keys(lived.user_id) == 2
    again = open_keyring(lived.user_id, master, await db.users.keys(lived.user_id))
    await rotation.finish(again)
    assert len(await db.entries.list_day(again, DAY)) == 2
