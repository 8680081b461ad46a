"""Bringing a database up to date: nothing half, nothing lost, and every schema ever kept still opens."""

import json
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llamora.persistence import LocalDB, blocking, migrations, run_db_migrations
from llamora.persistence.connection import InstanceLock, StorageError
from llamora.persistence.doctor import run_checks
from llamora.persistence.drafts import day_draft_key
from llamora.persistence.migrations import migration_status, read_migrations
from llamora.persistence.schema import RECORD_KINDS, TAG_CHANGES
from llamora.settings import resource
from llamora.vault.keys import open_keyring
from llamora.vault.slots import open_slot
from tests.fixtures.make_fixture import load

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures"
SEALED_TABLES = (
    "key_slots",
    "keyrings",
    "data_keys",
    *(kind.table for kind in RECORD_KINDS if kind is not TAG_CHANGES),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two small migrations."""
    made = tmp_path / "migrations"
    made.mkdir()
    (made / "0001-first.sql").write_text(
        "CREATE TABLE one (a TEXT);\n-- a remark\n", encoding="utf-8"
    )
    (made / "0002-second.sql").write_text(
        "CREATE TABLE two (\n  b TEXT\n);\nINSERT INTO two VALUES ('x;y');\n"
    )
    return made


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "llamora.sqlite3"


def only_first(folder: Path) -> Path:
    first = folder.with_name("first")
    first.mkdir()
    shutil.copy(folder / "0001-first.sql", first)
    return first


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }


def test_a_new_database_gets_every_migration_once(database: Path, folder: Path) -> None:
    assert [each.applied_on for each in migration_status(database, folder)] == [None, None]
    assert not database.exists()
    assert run_db_migrations(database, folder) == ["first", "second"]
    assert run_db_migrations(database, folder) == []
    assert tables(database) == {"one", "two", "schema_migrations"}
    assert all(
        date.fromisoformat(each.applied_on or "") for each in migration_status(database, folder)
    )
    assert not (database.parent / "backups").exists()  # there was nothing to lose


def test_a_copy_is_made_before_a_later_migration(database: Path, folder: Path) -> None:
    run_db_migrations(database, only_first(folder))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO one VALUES ('kept')")
        connection.commit()
    assert run_db_migrations(database, folder) == ["second"]
    (copy,) = (database.parent / "backups").iterdir()
    assert copy.name == "llamora-before-0002.sqlite3"
    assert tables(copy) == {"one", "schema_migrations"}
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT a FROM one").fetchall() == [("kept",)]
    if os.name == "posix":
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


def test_a_copy_has_its_name_only_once_it_is_whole(
    database: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_db_migrations(database, only_first(folder))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for place, name in ((os, "fsync"), (Path, "replace")):
        monkeypatch.setattr(place, name, full)
        with pytest.raises(
            StorageError, match=r"^(file_unwritable|data_folder_unusable)$"
        ) as caught:
            run_db_migrations(database, folder)
        assert caught.value.params["reason"] == "no space left on device"
        monkeypatch.undo()
        assert list((database.parent / "backups").iterdir()) == []
    assert tables(database) == {"one", "schema_migrations"}
    assert run_db_migrations(database, folder) == ["second"]


@pytest.mark.parametrize(
    "bad",
    [
        "CREATE TABLE three (c);\nCREATE TABLE one (again);\n",
        "CREATE TABLE three (c REFERENCES one (a));\nPRAGMA foreign_keys;\nINSERT INTO nowhere VALUES (1);\n",
        "CREATE TABLE three (c);\nCREATE TABLE four (",
        (
            "CREATE TABLE three (c);\nINSERT INTO three VALUES (NULL);\nPRAGMA writable_schema=ON;\n"
            "UPDATE sqlite_master SET sql='CREATE TABLE three (c NOT NULL)' WHERE name='three';\n"
            "PRAGMA writable_schema=RESET;\n"
        ),
        (
            "DELETE FROM two;\nCREATE TABLE p (i INTEGER PRIMARY KEY);\n"
            "CREATE TABLE three (c INTEGER REFERENCES p (i));\nPRAGMA defer_foreign_keys=ON;\n"
            "INSERT INTO three VALUES (5);\n"
        ),
    ],
    ids=["sql error", "no such table", "half a statement", "broken rule", "dangling reference"],
)
def test_a_failing_migration_changes_nothing(database: Path, folder: Path, bad: str) -> None:
    run_db_migrations(database, folder)
    (folder / "0003-bad.sql").write_text(bad, encoding="utf-8")
    for line in ("first", "second"):  # the second try finds the copy of the first
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO one VALUES (?)", (line,))
        with pytest.raises(
            StorageError, match=r"^(journal_refused|migration_incomplete|migration_failed)$"
        ):
            run_db_migrations(database, folder)
        assert tables(database) == {"one", "two", "schema_migrations"}
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM two").fetchall() == [("x;y",)]
    (copy,) = (
        database.parent / "backups"
    ).iterdir()  # one for each version that is tried, however often
    assert copy.name == "llamora-before-0003.sqlite3"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT a FROM one").fetchall() == [("first",), ("second",)]
    (folder / "0003-bad.sql").write_text("CREATE TABLE three (c);\n", encoding="utf-8")
    assert run_db_migrations(database, folder) == ["bad"]


def test_a_newer_database_is_refused(database: Path, folder: Path) -> None:
    run_db_migrations(database, folder)
    with pytest.raises(StorageError, match=r"^journal_newer$"):
        run_db_migrations(database, only_first(folder))
    assert tables(database) == {"one", "two", "schema_migrations"}


def test_an_edited_migration_is_refused(database: Path, folder: Path) -> None:
    run_db_migrations(database, folder)
    with (folder / "0001-first.sql").open("a") as file:
        file.write("-- one more remark\n")
    with pytest.raises(StorageError, match=r"^migration_changed$") as caught:
        run_db_migrations(database, folder)
    assert caught.value.params == {"number": "0001"}


def test_line_ends_of_another_system_are_no_edit(database: Path, folder: Path) -> None:
    run_db_migrations(database, folder)
    file = folder / "0001-first.sql"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert run_db_migrations(database, folder) == []


@pytest.mark.parametrize(
    "name", ["0004-later.sql", "0003_underscore.sql", "3-short.sql", "0003-Capital.sql"]
)
def test_a_gap_or_a_wrong_name_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match=r"^migration_misnamed$"):
        read_migrations(folder)


def test_a_folder_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^migrations_missing$"):
        read_migrations(tmp_path)


def test_a_database_in_use_says_so(
    database: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_db_migrations(database, only_first(folder))
    monkeypatch.setattr(blocking, "LOCK_TIMEOUT_SECONDS", 0.05)
    lock = FileLock(database.with_name(database.name + ".write-lock"))
    with lock, pytest.raises(StorageError, match=r"^journal_busy$"):
        run_db_migrations(database, folder)
    assert run_db_migrations(database, folder) == ["second"]


# -- every schema that was ever kept -----------------------------------------------------------------


def test_there_is_a_journal_of_every_schema() -> None:
    kept = {file.stem for file in FIXTURES.glob("schema-*.sql")}
    wanted = {f"schema-{each.number:04}" for each in read_migrations(resource("migrations"))}
    assert kept == wanted, "run python -m tests.fixtures.make_fixture"


@pytest.mark.usefixtures("real_kdf")
@pytest.mark.parametrize("kept", sorted(file.stem for file in FIXTURES.glob("schema-*.sql")))
async def test_every_record_of_an_older_journal_opens(kept: str, tmp_path: Path) -> None:
    path = tmp_path / "journal" / "llamora.sqlite3"
    load(kept, path)
    told: dict[str, Any] = json.loads((FIXTURES / f"{kept}.json").read_text(encoding="utf-8"))
    with closing(sqlite3.connect(path)) as connection:
        before = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in SEALED_TABLES
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name=?", (table,)).fetchone()
        }
    assert before.keys() >= {*SEALED_TABLES} - {"checksums"}  # since 0003
    assert all(rows > (0,) for rows in before.values())
    newest = read_migrations(resource("migrations"))
    assert len(run_db_migrations(path, resource("migrations"))) == len(newest) - int(kept[-4:])
    with closing(sqlite3.connect(path)) as connection:
        for table, rows in before.items():
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == rows, table

    db = await LocalDB.open(path)
    try:
        user = await db.users.find_by_name(told["name"])
        assert user is not None
        assert user.recovery_confirmed
        slots = {slot.kind: slot for slot in await db.users.get_slots(user.id)}
        master = open_slot(user.id, slots["passphrase"], told["passphrase"])
        assert open_slot(user.id, slots["recovery"], told["recovery_code"]) == master
        keys = open_keyring(user.id, master, await db.users.keys(user.id))
        assert keys.epoch == 2

        wanted = {bytes.fromhex(each["id"]): each for each in told["entries"]}
        found = {each.id: each for each in await db.entries.get_many(keys, list(wanted))}
        assert found.keys() == wanted.keys()
        for entry_id, each in wanted.items():
            entry = found[entry_id]
            assert (entry.text, entry.role, entry.revision) == (
                each["text"],
                each["role"],
                each["revision"],
            )
            assert (entry.day, entry.at) == (
                date.fromisoformat(each["day"]),
                datetime.fromisoformat(each["at"]),
            )
            assert (entry.parent_id.hex() if entry.parent_id else None) == each["to"]
            assert (entry.deleted is not None) == each["deleted"]
            assert entry in await db.entries.list_day(keys, entry.day)
        names = await db.tags.names(keys)
        assert {
            name: [entry_id.hex() for entry_id in await db.tags.entries_with_tags(keys, [name])]
            for name in names.values()
        } == told["tags"]
        (vectors,) = await db.vectors.get(keys, list(wanted))
        assert list(struct.unpack("<4f", vectors.data)) == told["vector"]
        assert await db.search_history.recent(keys) == [told["query"]]
        stored = await db.profiles.get(keys)
        assert stored is not None
        assert json.loads(stored[0])["zone"] == told["zone"]
        drafts = await db.drafts.get_many(keys, [day_draft_key(date(2026, 11, 20))])
        assert [each.text for each in drafts.values()] == [told["draft"]]
        versions = [
            each.text
            for each in await db.versions.list_for_entry(
                keys, bytes.fromhex(told["entries"][3]["id"])
            )
        ]
        assert versions == [told["version"]]
        recap = await db.summaries.get(keys, "recap", date(2026, 11, 20))
        assert recap is not None
        assert recap.text == told["recap"]
        assert list((await db.sessions.device_names(keys)).values()) == [told["device"]]
        report = run_checks(path, resource("migrations"), keys)
        assert report.damage == []
        assert report.unreadable == {}
    finally:
        await db.close()


def test_a_journal_from_before_the_first_release_says_what_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "llamora.sqlite3"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(migrations.CREATE_LOG_TABLE)
        connection.execute(
            "INSERT INTO schema_migrations VALUES (1, 'foundation', 'ab', '2026-11-20')"
        )
        connection.execute(
            "INSERT INTO schema_migrations VALUES (7, 'devices', 'cd', '2026-11-20')"
        )
    for act in (run_db_migrations, migration_status):
        with pytest.raises(StorageError, match=r"^journal_unreleased$") as caught:
            act(path, resource("migrations"))
        assert caught.value.params == {"version": "commit c4dda65"}
    assert "commit c4dda65" in run_checks(path, resource("migrations")).damage[0]
    assert tables(path) == {"schema_migrations"}
    with closing(sqlite3.connect(path)) as connection:
        assert len(connection.execute("SELECT * FROM schema_migrations").fetchall()) == 2


def test_a_journal_of_the_former_records_says_what_opens_it(database: Path) -> None:
    run_db_migrations(database, resource("migrations"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE schema_migrations SET sha256=?", (migrations.FORMER_RECORDS,))
    with pytest.raises(StorageError, match=r"^journal_unreleased$") as caught:
        run_db_migrations(database, resource("migrations"))
    assert caught.value.params == {"version": "commit e9bf926"}


def test_what_only_a_new_file_can_have_is_in_force(database: Path) -> None:
    run_db_migrations(database, resource("migrations"))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("PRAGMA page_size").fetchone() == (4096,)


async def test_opening_brings_the_schema_up(database: Path) -> None:
    await (await LocalDB.open(database)).close()
    assert all(each.applied_on for each in migration_status(database, resource("migrations")))


# -- scripts/migrate.py ------------------------------------------------------------------------------


@pytest.fixture
def migrate(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs the script on a data folder of its own: exit status, standard output, standard error."""

    def run(*options: str, **env: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            [sys.executable, ROOT / "scripts/migrate.py", *options],
            env={**os.environ, "LLAMORA_DATA__FOLDER": str(tmp_path / "data"), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    return run


def test_the_script_shows_and_applies(
    migrate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    newest = read_migrations(resource("migrations"))
    code, shown, errors = migrate("status")
    assert (code, errors, shown.count("to come")) == (1, "", len(newest))
    assert not (tmp_path / "data").exists()
    code, shown, errors = migrate("up")
    assert (code, errors) == (0, "")
    assert shown == f"Applied: {', '.join(each.name for each in newest)}.\n"
    code, shown, errors = migrate("status")
    assert (code, errors, len(shown.splitlines())) == (0, "", len(newest))
    assert migrate("up") == (0, "Nothing to apply.\n", "")


def test_the_script_says_what_is_wrong_in_a_sentence(
    migrate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    lock = InstanceLock(tmp_path / "data" / "llamora.sqlite3")
    code, shown, errors = migrate("up")
    lock.release()
    assert (code, shown) == (2, "")
    assert errors.startswith("Another Llamora server already uses")
    (tmp_path / "data" / "llamora.sqlite3").write_bytes(b"no database" * 100)
    for what in ("status", "up"):
        code, shown, errors = migrate(what)
        assert (code, shown, errors.count("\n")) == (2, "", 1)
        assert "damaged" in errors
    code, _, errors = migrate("status", LLAMORA_SERVER__PORT="teapot")
    assert (code, errors.count("\n")) == (2, 1)
    assert migrate("sideways")[0] == 2
