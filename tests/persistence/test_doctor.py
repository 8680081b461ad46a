"""The doctor: says nothing is wrong where nothing is, finds each kind of damage, and mends without losing a word."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llamora.journal.rotation import Rotation
from llamora.persistence import LocalDB, doctor
from llamora.persistence.doctor import Report, repair, run_checks, swap_state
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.vectors import EntryVectors
from llamora.persistence.versions import Version
from llamora.settings import resource
from llamora.vault.key_renewal import renew_keys
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.recovery_code import new_recovery_code
from llamora.vault.slots import recovery_slot_key
from tests.persistence.conftest import AT, DAY, entry, new_user

Raw = Callable[..., list[tuple[Any, ...]]]
TABLES = [
    *(
        "profiles",
        "entries",
        "tags",
        "tag_meta",
        "tag_changes",
        "tag_rejections",
        "versions",
        "drafts",
        "trash",
    ),
    *("search_history", "vectors", "search_snapshots"),
]


@pytest.fixture
async def lived(db: LocalDB, keys: Keyring) -> Keyring:
    """A writer with something of every kind."""
    made = [entry("one"), entry("two")]
    await db.entries.add(keys, *made)
    await db.profiles.save(keys, b"{}", revision=0)
    await db.tags.add(keys, made[0].id, "lakes")
    await db.tags.remove(keys, made[0].id, await db.tags.add(keys, made[0].id, "boats"))
    await db.tags.refuse_suggestions(keys, made[0].id, ["oars"])
    await db.entries.update(
        keys,
        made[0],
        [
            db.versions.saving_version(
                keys, Version(secrets.token_bytes(16), made[0].id, "zero", AT, 1)
            )
        ],
    )
    await db.drafts.save(
        keys, Draft(day_draft_key(DAY), "on its way", secrets.token_bytes(16), 1), None
    )
    await db.trash.initialize(keys, [])
    await db.search_history.add(keys, "one", AT)
    await db.vectors.save(keys, [EntryVectors(made[0].id, 1, "m", 96, secrets.token_bytes(384))])
    generation = await db.snapshots.begin(keys)
    await db.snapshots.add(
        keys, generation, 1, db.snapshots.seal_part(keys, generation, 1, b"words")
    )
    await db.snapshots.finish(
        keys, generation, 1, db.snapshots.seal_part(keys, generation, 0, b"all")
    )
    return keys


def look(path: Path, keys: Keyring | None = None) -> Report:
    return run_checks(path, resource("migrations"), keys)


def test_a_sound_journal(path: Path, lived: Keyring) -> None:
    report = look(path, lived)
    assert (report.damage, report.mendable, report.unreadable) == ([], [], {})
    assert report.records["Alice"]["entries"] == 2
    assert all(report.opened[table] for table in TABLES)
    assert report.pragmas["journal_mode"] == "wal"
    assert report.pragmas["secure_delete"] == 1
    assert report.openssl.startswith("OpenSSL")
    assert report.schema == len(list(resource("migrations").glob("*.sql")))
    assert report.modes[str(path)] == "0600"


@pytest.mark.parametrize("table", TABLES)
def test_a_flip_in_any_record_is_found(
    table: str, path: Path, lived: Keyring, damage: Callable[[str], None]
) -> None:
    damage(table)
    assert look(path).damage == []  # without the keys nobody can tell
    report = look(path, lived)
    assert set(report.unreadable) == {table}
    assert len(report.damage) == 1
    assert f"records in {table} do not open" in report.damage[0]
    repair(path, lived)
    mended = look(path, lived)
    if table in ("vectors", "search_snapshots"):
        assert mended.damage == []
    else:
        assert mended.unreadable == report.unreadable  # what somebody wrote is never removed


async def test_a_record_on_a_foreign_day_is_put_back(
    db: LocalDB, path: Path, lived: Keyring, raw: Raw
) -> None:
    raw("UPDATE entries SET day=zeroblob(32)")
    assert await db.entries.list_day(lived, DAY) == []
    report = look(path, lived)
    assert report.damage == ["2 records in entries stand in a place that is not theirs."]
    assert repair(path, lived) == ["2 entries stand on their own day again."]
    assert look(path, lived).damage == []
    assert len(await db.entries.list_day(lived, DAY)) == 2


async def test_orphans_go_and_nobody_else(
    db: LocalDB, path: Path, lived: Keyring, raw: Raw
) -> None:
    bob = await new_user(db, "Bob")
    kept = entry("bob's")
    await db.entries.add(bob, kept)
    await db.tags.add(bob, kept.id, "his")
    raw("DELETE FROM users WHERE name='Bob'")  # with foreign keys off, as another program would
    report = look(path)
    assert "belong to nobody" in report.damage[0]
    repair(path)
    assert look(path, lived).damage == []
    assert raw("SELECT count(*) FROM entries") == [(2,)]
    assert raw("SELECT count(*) FROM tags") == [(1,)]


def test_every_kind_of_orphan_is_mended(path: Path, lived: Keyring, raw: Raw) -> None:
    """Also what belongs to an entry or a session that is gone, in tables without row numbers."""
    raw("INSERT INTO devices SELECT zeroblob(32), user_id, epoch, revision, sealed FROM profiles")
    raw("DELETE FROM entries")
    assert "1 in devices" in look(path).damage[0]
    assert "1 in tag_rejections" in look(path).damage[0]
    repair(path)
    assert look(path).damage == []
    assert raw("SELECT count(*) FROM profiles") == [(1,)]


@pytest.mark.parametrize("change", ["revision='abc'", "revision=-5", "sealed=CAST(sealed AS TEXT)"])
def test_an_odd_row_is_found_and_the_others_are_opened(
    path: Path, lived: Keyring, raw: Raw, change: str
) -> None:
    raw(f"UPDATE entries SET {change} WHERE revision=1")
    report = look(path, lived)
    assert (report.unreadable, report.opened["entries"], len(report.damage)) == (
        {"entries": 1},
        1,
        1,
    )


async def test_an_entry_that_was_put_back_is_found(
    db: LocalDB, path: Path, lived: Keyring, raw: Raw
) -> None:
    ((number, revision, sealed),) = raw("SELECT id, revision, sealed FROM entries WHERE revision=1")
    await db.entries.update(lived, replace(await db.entries.get(lived, number), text="newer words"))
    assert look(path, lived).damage == []
    raw("UPDATE entries SET revision=?, sealed=? WHERE id=?", revision, sealed, number)
    assert look(path, lived).damage


def test_a_tag_that_was_linked_to_another_entry_is_found(
    path: Path, lived: Keyring, raw: Raw
) -> None:
    raw(
        "INSERT INTO entry_tags SELECT user_id, tag, (SELECT id FROM entries WHERE revision=1) FROM entry_tags"
    )
    assert look(path, lived).damage


def test_records_are_opened_beside_other_damage(
    path: Path, lived: Keyring, raw: Raw, damage: Callable[[str], None]
) -> None:
    raw("DELETE FROM entry_tags")
    damage("drafts")
    report = look(path, lived)
    assert report.unreadable == {"drafts": 1}
    assert len(report.damage) == 2


async def test_a_key_that_was_changed_while_the_passphrase_was_typed(
    db: LocalDB, path: Path, lived: Keyring
) -> None:
    typed = open_keyring(lived.user_id, lived.master, await db.users.keys(lived.user_id))
    await Rotation(db).start(lived)
    await db.profiles.save(lived, b"{}", revision=1)
    assert look(path, typed).damage == ["The key was changed elsewhere in the meantime. Try again."]
    assert look(path, lived).damage == []


async def test_a_key_slot_that_was_changed_or_removed(
    db: LocalDB, path: Path, lived: Keyring, raw: Raw
) -> None:
    stored = await db.users.keys(lived.user_id)
    codes = [recovery_slot_key(lived.user_id, new_recovery_code()) for _ in range(2)]
    await db.users.renew_keys(
        lived.user_id, stored, new := renew_keys(lived.user_id, lived.master, stored, add=codes)
    )
    lived.take(new.sealed.data_keys, new.master)
    assert look(path, lived).damage == []
    raw("DELETE FROM key_slots WHERE id=?", codes[0].id)
    assert look(path, lived).damage == [
        "1 key slots are not as they were made, or gone. llamora-server rotate makes them anew."
    ]
    raw("UPDATE key_slots SET salt=zeroblob(32)")
    assert look(path, lived).damage[0].startswith("3 key slots")
    await Rotation(db).finish(lived)
    await Rotation(db).start(lived)
    assert look(path, lived).damage == []
    raw("UPDATE keyrings SET slots=?", stored.slots)
    assert look(path, lived).damage == ["The list of the key slots does not open."]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_goes_while_it_is_looked_at(
    path: Path, lived: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = path.with_name(f"{path.name}.part")
    real = doctor._list_files
    monkeypatch.setattr(
        doctor, "_list_files", lambda database: [*real(database), gone]
    )  # listed, then removed
    assert look(path).damage == []
    repair(path)


def test_a_trace_that_nothing_bears(path: Path, lived: Keyring, raw: Raw) -> None:
    raw("DELETE FROM entry_tags")
    assert look(path).damage == ["1 names of traces are left that no entry bears."]
    repair(path)
    assert look(path).damage == []


def test_a_broken_file(path: Path, lived: Keyring, raw: Raw) -> None:
    raw("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = secrets.token_bytes(4096 * 2)
    path.write_bytes(content)
    assert look(path).damage
    path.write_bytes(b"not a database at all" * 400)
    assert "damaged" in look(path).damage[0]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_files_that_others_can_read(path: Path, lived: Keyring) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o644)
    # Opening it closes the file itself, so look at what is there first.
    report = look(path)
    assert report.damage == []
    assert len(report.mendable) == 2
    repair(path)
    assert look(path).mendable == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_swap(tmp_path: Path) -> None:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    proc.mkdir()
    assert swap_state(proc, sys) == "not known"
    (proc / "swaps").write_text("Filename Type Size Used Priority\n")
    assert swap_state(proc, sys) == "none"
    file = tmp_path / "swapfile"
    file.write_bytes(b"")
    (proc / "swaps").write_text(f"Filename Type Size Used Priority\n{file} file 1 0 -2\n")
    assert swap_state(proc, sys) == "not known"
    device = file.stat().st_dev
    folder = sys / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
    folder.mkdir(parents=True)
    assert swap_state(proc, sys) == "not encrypted"
    (folder / "dm").mkdir()
    (folder / "dm/uuid").write_text("CRYPT-LUKS2-0\n")
    assert swap_state(proc, sys) == "encrypted"


def test_memory_that_may_not_be_locked_is_mentioned(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> list[str]:
        return [
            note
            for note in run_checks(path, resource("migrations")).notes
            if "lock no memory" in note
        ]

    monkeypatch.setattr(doctor, "memory_lock", lambda: "locked")
    assert said() == []
    monkeypatch.setattr(doctor, "memory_lock", lambda: "not locked")
    assert len(said()) == 1
