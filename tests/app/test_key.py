"""A new data key from the You page, also where several workers serve."""

import asyncio
from pathlib import Path

import pytest

from llamora.app import create_app
from llamora.app.services.container import EXTENSION
from llamora.journal import rotation
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import verify_backup
from llamora.settings import BackupSettings
from llamora.vault.envelope import sealed_epoch
from tests.app.conftest import PASSPHRASE, RunningApp, Start, Visitor, settings_in, worker_states
from tests.app.test_account import alert


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 0.6)  # a worker looks every 0.4 seconds


async def signed_in(app: RunningApp, agent: str = "") -> Visitor:
    """Alice with keys of her own: those of the other tests must not change."""
    visitor = app.anonymous({"User-Agent": agent})
    assert (await visitor.sign_in()).status == 303
    await visitor.get("/search")
    return visitor


async def changed(app: RunningApp) -> None:
    db, user = app.services.db, app.accounts["Alice"].user
    while await db.key_rotation.count_data_keys(user.id) > 1:  # noqa: ASYNC110 -- another task changes it
        await asyncio.sleep(0.05)


async def test_the_button_changes_the_key_and_ends_the_other_sessions(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    alice, elsewhere = await signed_in(app), await signed_in(app)
    await alice.write("the heron again")
    (keys,) = app.services.sessions.open_keyrings()
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 3600.0)  # until everything below was looked at
    answer = await alice.post("/you/key", {"passphrase": PASSPHRASE})
    assert (answer.status, answer.location) == (303, "/you?done=key")
    assert "is being sealed under a new key" in (await alice.get("/you")).visible_text
    again = await alice.post("/you/key", {"passphrase": PASSPHRASE})
    assert again.status == 409
    assert (await elsewhere.get("/d/2026-11-20")).status == 303
    await alice.write("written meanwhile")
    app.services.rotation.lock(keys.user_id)
    await app.services.rotation.close()
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 0.0)
    await app.services.rotation.resume_pending(keys)
    await changed(app)
    page = await alice.get("/you?done=key")
    assert "Everything is sealed under a new key." in page.visible_text
    words = (await alice.get("/d/2026-11-20")).visible_text
    assert "the heron again" in words
    assert "written meanwhile" in words


async def test_a_backup_of_the_moment_before_is_made_first(start: Start, tmp_path: Path) -> None:
    app = await start()
    alice = await signed_in(app)
    await alice.write("the heron again")
    await app.services.backups.close()
    (file,) = app.services.backups.list_files(app.accounts["Alice"].user.id)
    file.unlink()
    assert (await alice.post("/you/key", {"passphrase": PASSPHRASE})).status == 303
    (file,) = app.services.backups.list_files(app.accounts["Alice"].user.id)
    header = read_header(file)
    assert [key.epoch for key in header.keys.data_keys] == [1]
    assert verify_backup(file, header, header.unlock(PASSPHRASE)).records["entries"] == 1
    await changed(app)
    await app.stop()
    (tmp_path / "file").write_bytes(b"")
    again = await start(backup=BackupSettings(folder=tmp_path / "file"))
    refused = await (await signed_in(again)).post("/you/key", {"passphrase": PASSPHRASE})
    assert refused.status == 503
    assert "cannot be used" in alert(refused, "key")
    assert await again.services.db.key_rotation.count_data_keys(app.accounts["Alice"].user.id) == 1


async def test_the_passphrase_is_asked_for(app: RunningApp) -> None:
    alice = await signed_in(app)
    answer = await alice.post("/you/key", {"passphrase": "not it"})
    assert answer.status == 403
    assert "not the passphrase" in alert(answer, "key")
    assert await app.services.db.key_rotation.count_data_keys(app.accounts["Alice"].user.id) == 1


async def test_another_worker_takes_the_new_key_up(start: Start, tmp_path: Path) -> None:
    first, other = worker_states(2)
    app = await start(shared=first)
    alice = await signed_in(app)
    await alice.write("the heron again")
    second = create_app(settings_in(tmp_path / "data"), shared=other)
    async with second.test_app():
        there = RunningApp(second, app.test_app, app.accounts).anonymous()
        there.set_cookie("llamora", alice.cookie("llamora"))
        there.set_cookie("llamora_csrf", alice.cookie("llamora_csrf"))
        assert (
            "the heron again" in (await there.get("/d/2026-11-20")).visible_text
        )  # its keyring is open
        await alice.post("/you/key", {"passphrase": PASSPHRASE})
        await changed(app)
        (keys,) = second.extensions[EXTENSION].sessions.open_keyrings()
        for _ in range(3000):
            if keys.epoch == 2:
                break
            await asyncio.sleep(0.02)
        assert keys.epoch == 2  # noticed without a request
        assert "the heron again" in (await there.get("/d/2026-11-20")).visible_text
        written = bytes.fromhex(await there.write("from the other worker"))
        rows = await app.services.db.entries.get_sealed(keys.user_id, [written])
        assert sealed_epoch(rows[0][2]) == 2
        assert "from the other worker" in (await alice.get("/d/2026-11-20")).visible_text


async def test_a_change_goes_on_after_the_next_sign_in(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start()
    alice = await signed_in(app)
    await alice.write("the heron again")
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 30.0)
    await alice.post("/you/key", {"passphrase": PASSPHRASE})
    await alice.post("/sign-out")
    await asyncio.sleep(0)
    assert await app.services.db.key_rotation.count_data_keys(app.accounts["Alice"].user.id) == 2
    monkeypatch.setattr(rotation, "NOTICE_SECONDS", 0.0)
    back = app.anonymous()
    await back.sign_in()
    await changed(app)
    assert "the heron again" in (await back.get("/d/2026-11-20")).visible_text
