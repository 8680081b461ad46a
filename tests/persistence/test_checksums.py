"""The sum over a user's records: right after whatever this program does, wrong after what another one does."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llamora.journal.rotation import Rotation
from llamora.persistence import LocalDB
from llamora.persistence.checksums import SeenChange
from llamora.persistence.doctor import repair, run_checks
from llamora.persistence.versions import Version
from llamora.settings import resource
from llamora.vault.keys import Keyring
from tests.persistence.conftest import AT, entry, new_user

Raw = Callable[..., list[tuple[Any, ...]]]
FORGERIES = {
    "a link to another entry": "INSERT INTO entry_tags SELECT user_id, tag, (SELECT id FROM entries"
    " WHERE id NOT IN (SELECT entry_id FROM entry_tags)) FROM entry_tags LIMIT 1",
    "a link moved": "UPDATE entry_tags SET entry_id=(SELECT id FROM entries"
    " WHERE id NOT IN (SELECT entry_id FROM entry_tags))",
    "an entry removed": "DELETE FROM entries WHERE revision=1",
    "a version removed": "DELETE FROM versions",
    "the list of deleted entries removed": "DELETE FROM trash",
    "settings removed": "DELETE FROM profiles",
    "metadata of tags removed": "DELETE FROM tag_meta",
    "the sum removed": "DELETE FROM checksums",
    "the sum emptied": "UPDATE checksums SET sealed=X''",
}


@pytest.fixture
async def lived(db: LocalDB, keys: Keyring) -> Keyring:
    """A writer with two entries, of which one has a tag and was changed."""
    made = [entry("one"), entry("two")]
    await db.profiles.save(keys, b'{"summed": true}', revision=0)
    await db.entries.add(keys, *made)
    await db.tags.add(keys, made[0].id, "lakes")
    await db.trash.initialize(keys, [])
    version = Version(secrets.token_bytes(16), made[0].id, "one", AT, 1)
    saving = db.versions.saving_version(keys, version)
    await db.entries.update(keys, replace(made[0], text="one more"), [saving])
    return keys


def damage(path: Path, keys: Keyring) -> list[str]:
    return run_checks(path, resource("migrations"), keys).damage


@pytest.mark.parametrize("sql", FORGERIES.values(), ids=FORGERIES.keys())
async def test_what_another_program_does_is_noticed_until_it_is_mended(
    db: LocalDB, path: Path, lived: Keyring, raw: Raw, sql: str
) -> None:
    assert await db.checksums.check(lived) == "right"
    assert damage(path, lived) == []
    raw(sql)
    for _ in range(2):
        assert await db.checksums.check(lived) in ("changed", "gone", "damaged", "missing")
        assert damage(path, lived)
        await db.entries.add(lived, entry("and life goes on"))
    repair(path, lived)
    assert damage(path, lived) == []
    assert await db.checksums.check(lived) == "right"


async def test_the_sum_follows_erasing_users_and_new_keys(
    db: LocalDB, lived: Keyring, raw: Raw
) -> None:
    bob = await new_user(db, "Bob")
    await db.entries.add(bob, kept := entry("bob's"))
    await db.tags.add(bob, kept.id, "his")
    older = await db.users.keys(lived.user_id)
    await Rotation(db).start(lived)
    await db.entries.add(lived, third := entry("three"))
    await Rotation(db).finish(lived)
    assert older.epoch < lived.epoch
    assert await db.checksums.check(lived) == "right"
    await db.entries.erase(
        lived, [third.id, *[row[0] for row in raw("SELECT entry_id FROM entry_tags")]]
    )
    assert await db.checksums.check(lived) == "right"
    await db.users.erase(bob.user_id)
    assert await db.checksums.check(lived) == "right"
    assert raw("SELECT count(*) FROM checksums") == [(1,)]


async def test_a_journal_from_before_gets_a_sum_and_raises_no_alarm(
    db: LocalDB, path: Path, keys: Keyring, raw: Raw
) -> None:
    await db.entries.add(keys, kept := entry("older"))
    raw("DELETE FROM checksums")
    assert damage(path, keys) == []
    await db.entries.update(keys, replace(kept, text="newer"))  # before it is opened
    assert await db.checksums.check(keys) == "missing"
    await db.checksums.create(keys)
    assert await db.checksums.check(keys) == "right"


async def test_a_log_that_was_cut_is_noticed_by_what_a_browser_knows(
    db: LocalDB, path: Path, lived: Keyring, tmp_path: Path
) -> None:
    await db.checkpoint()
    shutil.copy(path, tmp_path / "older.sqlite3")
    await db.entries.add(lived, entry("lost"))
    seen = db.checksums.latest(lived.user_id)
    assert seen is not None
    assert await db.checksums.compare(lived, seen)
    other = await LocalDB.open(tmp_path / "older.sqlite3")
    try:
        assert await other.checksums.check(lived) == "right"  # the sum of the same moment
        for nothing in (None, SeenChange(secrets.token_bytes(16), 10**9)):
            assert await other.checksums.compare(lived, nothing)
        assert not await other.checksums.compare(lived, seen)
        await other.entries.add(lived, entry("later"), entry("and later"))
        assert await other.checksums.check(lived) == "rolled_back"
    finally:
        await other.close()
    assert "browser" in damage(tmp_path / "older.sqlite3", lived)[0]
    repair(tmp_path / "older.sqlite3", lived)
    assert damage(tmp_path / "older.sqlite3", lived) == []
