"""What a user sees of the sum over their records: a sentence when something else changed them, else nothing."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from llamora.app.edge.hosts import DEVICE_COOKIE
from llamora.journal.session_keys import TOKEN_BYTES, decode_cookie
from tests.app.conftest import RunningApp, Start, Visitor

CHANGED = "put back, removed or added by something other than Llamora"
ROLLED_BACK = "A browser knows of later changes than are here"


async def warnings(visitor: Visitor) -> list[str]:
    page = (await visitor.get("/you")).visible_text
    assert "Backup" in page
    return [sentence for sentence in (CHANGED, ROLLED_BACK) if sentence in page]


def database_of(app: RunningApp) -> Path:
    return app.services.db.path


def change(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        assert connection.execute(sql).rowcount > 0


async def test_a_row_that_was_removed_is_told_at_the_next_sign_in(start: Start) -> None:
    app = await start()
    visitor = app.anonymous()
    await visitor.sign_in()
    await visitor.write("kept")
    await visitor.write("removed")
    assert await warnings(visitor) == []
    await app.stop()
    change(database_of(app), "DELETE FROM entries WHERE rid=(SELECT max(rid) FROM entries)")
    again = await start()
    visitor = again.anonymous()
    assert (await visitor.sign_in()).status == 303
    assert await warnings(visitor) == [CHANGED]
    await visitor.write("life goes on")
    assert await warnings(visitor) == [CHANGED]


async def test_an_older_database_is_told_by_a_browser_that_knows_more(
    start: Start, tmp_path: Path
) -> None:
    app = await start()
    visitor = app.anonymous()
    await visitor.sign_in()
    await visitor.write("kept")
    await app.services.db.checkpoint()
    shutil.copy(database_of(app), tmp_path / "older")
    before = visitor.cookie(DEVICE_COOKIE)
    await visitor.write("lost")
    known = visitor.cookie(DEVICE_COOKIE)
    assert known != before
    token = decode_cookie(known)
    assert token is not None
    assert len(token) > TOKEN_BYTES
    await visitor.get("/you")
    assert visitor.cookie(DEVICE_COOKIE) == known  # told once
    await app.stop()

    same = await start()
    visitor = same.anonymous()
    visitor.set_cookie(DEVICE_COOKIE, known)
    await visitor.sign_in()
    assert await warnings(visitor) == []
    await same.stop()

    shutil.copy(tmp_path / "older", database_of(app))
    older = await start()
    stranger = older.anonymous()
    await stranger.sign_in()
    assert await warnings(stranger) == []  # nobody there knows better
    await older.stop()
    again = await start()
    visitor = again.anonymous()
    visitor.set_cookie(DEVICE_COOKIE, known)
    assert (await visitor.sign_in()).status == 303
    assert await warnings(visitor) == [ROLLED_BACK]
    await again.stop()
    later = await start()
    stranger = later.anonymous()
    await stranger.sign_in()
    await stranger.write("and on")
    assert await warnings(stranger) == [ROLLED_BACK]
