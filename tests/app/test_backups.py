"""Backups from the You page, and by themselves."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llamora.journal import backups, throttle
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import verify_backup
from llamora.persistence.connection import StorageError
from llamora.settings import BackupSettings
from tests.app.conftest import PASSPHRASE, RunningApp, Start
from tests.app.test_account import alert
from tests.scan import find_words


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep midnight from passing between two backups of a day."""
    monkeypatch.setattr(backups, "utc_now", lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))


async def settled(app: RunningApp) -> list[Path]:
    await app.services.backups.close()
    return app.services.backups.list_files(app.accounts["Alice"].user.id)


async def test_the_button_hands_over_a_backup_of_this_moment(
    app: RunningApp, tmp_path: Path
) -> None:
    alice = await app.visitor()
    await alice.write("the heron again")
    answer = await alice.post("/you/backup", {"passphrase": PASSPHRASE})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=llamora-2")
    assert answer.headers["Cache-Control"] == "no-store"
    file = tmp_path / "downloaded"
    file.write_bytes(answer.body)
    assert verify_backup(file, read_header(file), app.keys()).records["entries"] == 1
    await alice.write("and once more")
    file.write_bytes((await alice.post("/you/backup", {"passphrase": PASSPHRASE})).body)
    assert verify_backup(file, read_header(file), app.keys()).records["entries"] == 2
    assert find_words(app.services.settings.data.folder / "backups", ["heron"]) == []


async def test_it_is_for_the_signed_in_only(app: RunningApp) -> None:
    assert (await app.anonymous().post("/you/backup", {"passphrase": PASSPHRASE})).status == 401


async def test_one_a_day_is_made_at_sign_in(app: RunningApp) -> None:
    await app.anonymous().sign_in()
    (file,) = await settled(app)
    made = file.stat().st_mtime_ns
    await app.anonymous().sign_in()
    assert [each.stat().st_mtime_ns for each in await settled(app)] == [made]
    assert verify_backup(file, read_header(file), app.keys()).name == "Alice"
    page = await (await app.visitor()).get("/you")
    assert "the last 7 are kept on this machine; the newest is of" in page.visible_text


async def test_the_oldest_go_and_what_was_cut_off_too(start: Start) -> None:
    app = await start(backup=BackupSettings(keep=3))
    folder = app.services.backups.folder_of_user(app.accounts["Alice"].user.id)
    folder.mkdir(parents=True)
    for day in range(1, 6):
        (folder / f"2020-01-0{day}.llamora").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    left = folder / "2020-01-01.llamora.00.part"
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    await app.services.backups.create(app.keys())
    names = [file.name for file in await settled(app)]
    assert names[:2] == ["2020-01-04.llamora", "2020-01-05.llamora"]
    assert len(names) == 3
    assert sorted(file.name for file in folder.iterdir()) == sorted([*names, "notes.txt"])


async def test_the_one_just_made_stays_after_a_clock_that_was_ahead(start: Start) -> None:
    app = await start(backup=BackupSettings(keep=2))
    folder = app.services.backups.folder_of_user(app.accounts["Alice"].user.id)
    folder.mkdir(parents=True)
    for day in range(1, 5):
        (folder / f"2090-01-0{day}.llamora").write_bytes(b"")
    made = await app.services.backups.create(app.keys())
    assert [file.name for file in await settled(app)] == [made.name, "2090-01-04.llamora"]
    verify_backup(made, read_header(made), app.keys())


async def test_none_is_made_where_it_is_switched_off(start: Start) -> None:
    app = await start(backup=BackupSettings(daily=False))
    await app.anonymous().sign_in()
    assert await settled(app) == []
    alice = await app.visitor()
    assert (
        "by itself"
        not in (await alice.get("/you")).visible_text.partition("Backup")[2].partition("Deleted")[0]
    )
    assert (await alice.post("/you/backup", {"passphrase": PASSPHRASE})).status == 200


async def test_a_folder_that_cannot_be_used_keeps_nobody_out(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    app = await start(backup=BackupSettings(folder=tmp_path / "file"))
    assert (await app.anonymous().sign_in()).status == 303
    alice = await app.visitor()
    answer = await alice.post("/you/backup", {"passphrase": PASSPHRASE})
    assert answer.status == 503
    assert "cannot be used" in answer.error_sentence or "cannot be used" in answer.visible_text
    with pytest.raises(StorageError):
        await app.services.backups.create(app.keys())


async def test_two_at_once_are_two_whole_ones(app: RunningApp) -> None:
    made = await asyncio.gather(*[app.services.backups.create(app.keys()) for _ in range(3)])
    assert len(set(made)) == 1
    verify_backup(made[0], read_header(made[0]), app.keys())


async def test_a_page_left_open_gives_no_backup_away(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/backup", {"passphrase": "not it"})
    assert answer.status == 403
    assert "not the passphrase" in alert(answer, "backup")
    assert app.services.backups.list_files(app.accounts["Alice"].user.id) == []
    # The recovery code does as well.
    assert (
        await alice.post("/you/backup", {"passphrase": app.accounts["Alice"].recovery_code})
    ).status == 200


@pytest.mark.parametrize("part", ["backup", "key", "end", "recovery-code"])
async def test_guesses_before_what_matters_are_slowed_down_as_at_the_door(
    app: RunningApp, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await app.visitor()
    monkeypatch.setattr(throttle, "FREE_ATTEMPTS", -5)  # a minute's wait after the first
    assert (await alice.post(f"/you/{part}", {"passphrase": "a guess"})).status == 403
    slowed = await alice.post(f"/you/{part}", {"passphrase": PASSPHRASE})
    assert slowed.status == 429
    assert alert(slowed, part.partition("-")[0]).startswith("Too many tries. Wait ")
    assert (await app.anonymous().sign_in()).status == 303  # the door counts apart
