"""Ending a journal: nothing of it is left in any file, and nothing of anybody else is touched."""

import sqlite3
from contextlib import closing
from pathlib import Path

from llamora.persistence.schema import RECORD_KINDS
from tests.app.conftest import PASSPHRASE, RunningApp
from tests.app.test_account import alert
from tests.app.test_key import signed_in
from tests.scan import find_words


def sealed_of(database: Path, user_id: bytes) -> list[bytes]:
    """Every envelope of a writer, their sealed keys too."""
    tables = [kind.table for kind in RECORD_KINDS if kind.purpose] + ["key_slots", "data_keys"]
    with closing(sqlite3.connect(database)) as connection:
        return [
            row[0]
            for table in tables
            for row in connection.execute(f"SELECT sealed FROM {table} WHERE user_id=?", (user_id,))
            if row[0]
        ] + list(
            connection.execute(
                "SELECT slots, index_key FROM keyrings WHERE user_id=?", (user_id,)
            ).fetchone()
        )


def left(folder: Path, needles: list[bytes]) -> list[str]:
    contents = [(file.name, file.read_bytes()) for file in folder.rglob("*") if file.is_file()]
    return [name for name, content in contents for needle in needles if needle in content]


async def test_nothing_is_left_of_it(app: RunningApp) -> None:
    alice, phone, bob = await signed_in(app), await signed_in(app), await app.visitor("Bob")
    for number in range(30):
        await alice.write(f"the heron {number} " + "word " * 300)
    edited = await alice.write("before")
    await alice.post(f"/e/{edited}", {"text": "after", "revision": "1"}, fragment=True)
    of_bob = await bob.write("bob's own")
    await alice.post("/you/backup", {"passphrase": PASSPHRASE})
    folder, user_id = app.services.settings.data.folder, app.accounts["Alice"].user.id
    await app.services.search.save_snapshot(user_id)
    database = app.services.settings.data.database
    # An envelope's salt is random and names it; a large one lies in pieces, so its beginning stands for it.
    needles = [sealed[10:74] for sealed in sealed_of(database, user_id)]
    assert len(needles) > 35
    assert left(folder, needles)
    assert app.services.backups.list_files(user_id)

    answer = await alice.post("/you/end", {"passphrase": PASSPHRASE})
    assert (answer.status, answer.location) == (303, "/sign-in")
    assert left(folder, needles) == []
    assert left(folder, [user_id]) == []
    assert find_words(folder, ["alice"]) == []
    assert not app.services.backups.folder_of_user(user_id).exists()
    assert (await phone.get("/d/2026-11-20")).status == 303
    assert (await app.anonymous().sign_in()).status == 403
    assert "bob's own" in (await bob.get(f"/e/{of_bob}/edit")).field("text")


async def test_the_passphrase_is_asked_for_and_the_page_says_what_remains(app: RunningApp) -> None:
    alice = await signed_in(app)
    words = (await alice.get("/you")).visible_text
    assert "Backups that you downloaded remain" in words
    answer = await alice.post("/you/end", {"passphrase": "not it"})
    assert answer.status == 403
    assert "not the passphrase" in alert(answer, "end")
    assert (await alice.get("/d/2026-11-20")).status == 200
