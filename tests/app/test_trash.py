"""What is deleted over HTTP: seen, brought back, erased after a second word."""

import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from llamora.dates import utc_now
from llamora.journal import trash as journal_trash
from tests.app.conftest import RunningApp

DAY = "/d/2026-11-20"


def count(app: RunningApp) -> int:
    with closing(sqlite3.connect(app.services.db.path)) as connection:
        return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


async def test_deleted_entries_are_listed_and_brought_back(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    assert "Nothing is deleted" in (await alice.get("/deleted")).visible_text
    assert 'href="/deleted"' in (await alice.get("/you")).text
    entry = await alice.write("A heron. " + "It stood and stood. " * 80 + "Its last word.")
    await alice.post(f"/e/{entry}/delete", {"revision": "1"})
    page = await alice.get("/deleted")
    assert "A heron." in page.visible_text
    assert "Its last word." not in page.visible_text
    assert "erased in 30 days" in page.visible_text
    assert "heron" not in (await bob.get("/deleted")).visible_text
    assert (await app.anonymous().get("/deleted")).status == 303
    back = await alice.post(f"/e/{entry}/restore")
    assert (back.status, back.location) == (303, f"{DAY}#e-{entry}")
    assert "Its last word." in (await alice.get(DAY)).visible_text
    assert "heron" not in (await alice.get("/deleted")).visible_text


@pytest.mark.parametrize("fragment", [False, True])
async def test_erasing_asks_once_and_then_it_is_gone(app: RunningApp, fragment: bool) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("A heron.")
    for path in (f"/e/{entry}/erase", f"/e/{entry}/deleted"):
        assert (await alice.get(path)).status == 404  # not deleted yet
    assert (await alice.post(f"/e/{entry}/erase")).status == 404
    gone = await alice.post(f"/e/{entry}/delete", {"revision": "1"}, fragment=fragment)
    assert re.search(rf'href="/e/{entry}/erase"', gone.text)
    question = await alice.get(f"/e/{entry}/erase", fragment=fragment)
    assert "cannot be brought back" in question.visible_text
    assert count(app) == 1
    assert "Undo" in (await alice.get(f"/e/{entry}/deleted", fragment=fragment)).visible_text
    assert (await bob.get(f"/e/{entry}/erase")).status == 404
    assert (await bob.post(f"/e/{entry}/erase")).status == 404
    assert count(app) == 1
    done = await alice.post(f"/e/{entry}/erase", fragment=fragment)
    if fragment:
        assert done.visible_text == "Erased."
    else:
        assert (done.status, done.location) == (303, "/deleted")
    assert count(app) == 0
    assert (await alice.post(f"/e/{entry}/restore")).status == 404


async def test_signing_in_erases_what_is_due(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await app.visitor()
    entry = await alice.write("Old.")
    await alice.post(f"/e/{entry}/delete", {"revision": "1"})
    start = utc_now()
    monkeypatch.setattr(journal_trash, "utc_now", lambda: start + timedelta(days=31))
    assert (await app.anonymous().sign_in()).status == 303
    for task in list(app.services.trash._maintenance_tasks):
        await task
    assert count(app) == 0


async def test_what_went_with_an_entry_is_said(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Root.")
    await app.services.journal.answer(app.user(), bytes.fromhex(entry), "An answer.")
    await alice.post(f"/e/{entry}/delete", {"revision": "1"})
    assert "with the message under it" in (await alice.get("/deleted")).visible_text
    assert (
        "With it goes the message under it." in (await alice.get(f"/e/{entry}/erase")).visible_text
    )
