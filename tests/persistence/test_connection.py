"""The store under bad conditions: pragmas, one writer, cancellation, other processes, a full disk."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from llamora.persistence import LocalDB, connection, run_db_migrations
from llamora.persistence.blocking import read_transaction, write_transaction
from llamora.persistence.connection import (
    PRAGMAS,
    Connections,
    DiskFull,
    InstanceLock,
    StorageError,
    connect,
)
from llamora.settings import resource
from llamora.vault.keys import Keyring
from tests.persistence.conftest import DAY, entry, new_user

Raw = Callable[..., list[tuple[Any, ...]]]


async def count(db: LocalDB, keys: Keyring) -> int:
    return len(await db.entries.list_day(keys, DAY))


async def bounded(work: Any) -> Any:
    """A hang is a failure, not a wait."""
    return await asyncio.wait_for(work, 60)


# -- pragmas -----------------------------------------------------------------------------------------


async def test_every_pragma_is_in_force_on_every_connection(path: Path) -> None:
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "temp_store": 2,
        "mmap_size": 0,
        "trusted_schema": 0,
        "cell_size_check": 1,
    }
    opened = Connections(path)
    await opened.open()
    try:
        assert len(opened._connections) == 3
        for each in opened._connections:
            for name, value in wanted.items():
                rows = list(await each.execute_fetchall(f"PRAGMA {name}"))
                assert (rows[0][0] if rows else 0) == value, name
    finally:
        await opened.close()


def test_a_pragma_that_is_not_in_force_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A database in memory cannot have a write-ahead log.
    with pytest.raises(StorageError, match=r"^pragma_refused$"):
        connect(Path(":memory:"))
    for name in PRAGMAS.keys() - {"journal_mode"}:
        monkeypatch.setattr(connection, "PRAGMAS", {**PRAGMAS, name: -7})
        with pytest.raises(StorageError, match=r"^pragma_refused$") as caught:
            connect(path)
        assert caught.value.params == {"name": name, "value": -7}


async def test_there_is_one_writer_and_readers_cannot_write(db: LocalDB, keys: Keyring) -> None:
    await db.entries.add(keys, entry())
    writer, *readers = db._connections._connections
    assert list(await writer.execute_fetchall("PRAGMA query_only")) == [(0,)]
    assert len(readers) == 2
    for _ in range(2 * len(readers)):  # they take turns
        with pytest.raises(StorageError, match=r"^journal_unwritable$"):
            await db._connections.fetch("DELETE FROM entries")
    assert await count(db, keys) == 1


# -- transactions ------------------------------------------------------------------------------------


async def test_fifty_writes_at_once_all_arrive(db: LocalDB, keys: Keyring, other: Keyring) -> None:
    made = [entry(f"line {number}", minute=number) for number in range(50)]
    await bounded(
        asyncio.gather(*(db.entries.add(keys if n % 5 else other, e) for n, e in enumerate(made)))
    )
    mine = [e for n, e in enumerate(made) if n % 5]
    assert [e.text for e in await db.entries.list_day(keys, DAY)] == [e.text for e in mine]
    assert await count(db, other) == 10


async def test_an_exception_undoes_the_whole_transaction(db: LocalDB, keys: Keyring) -> None:
    async def half() -> None:
        async with db._connections.write() as tx:
            await tx.execute("DELETE FROM data_keys")
            await tx.execute("DELETE FROM users")
            raise LookupError

    with pytest.raises(LookupError):
        await half()
    assert await db.users.get(keys.user_id)
    assert len(await db.users.get_data_keys(keys.user_id)) == 1


async def test_a_refused_statement_undoes_the_whole_transaction(db: LocalDB, keys: Keyring) -> None:
    first = entry("first")
    await db.entries.add(keys, first)
    with pytest.raises(StorageError, match=r"^entry_exists$"):
        await db.entries.add(keys, entry("second"), first)
    assert [e.text for e in await db.entries.list_day(keys, DAY)] == ["first"]


@pytest.mark.parametrize("ticks", [*range(12), 15, 20, 30])
async def test_cancelled_anywhere_nothing_is_half_there(
    db: LocalDB, keys: Keyring, ticks: int
) -> None:
    # The loop turns only when a thread of SQLite answers or this test yields: `ticks` walks the cancellation
    # through every await of the transaction, from before BEGIN to after COMMIT.
    pair = [entry("one"), entry("two")]
    writing = asyncio.create_task(db.entries.add(keys, *pair))
    for _ in range(ticks):
        await asyncio.sleep(0.0002)
    writing.cancel()
    cancelled = await bounded(asyncio.wait([writing])) and writing.cancelled()
    there = await count(db, keys)
    assert there in (0, 2)
    assert cancelled or there == 2  # what was acknowledged is there
    await bounded(db.entries.add(keys, entry("after")))
    assert await count(db, keys) == there + 1


async def test_cancelled_in_the_middle_of_a_transaction(db: LocalDB, keys: Keyring) -> None:
    inside = asyncio.Event()

    async def half() -> None:
        async with db._connections.write() as tx:
            await tx.execute("DELETE FROM data_keys")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(half())
    await bounded(inside.wait())
    waiting = [asyncio.create_task(db.entries.add(keys, entry(f"{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()  # one that queues may go too
    task.cancel()
    await bounded(asyncio.wait([task, *waiting]))
    assert task.cancelled()
    assert len(await db.users.get_data_keys(keys.user_id)) == 1
    assert {e.text for e in await db.entries.list_day(keys, DAY)} == {"0", "2"}


async def test_a_closed_store_says_so(path: Path) -> None:
    store = await LocalDB.open(path)
    keys = await new_user(store, "Alice")
    await store.close()
    await store.close()
    for work in (
        store.entries.add(keys, entry()),
        store.entries.list_day(keys, DAY),
        store.checkpoint(),
    ):
        with pytest.raises(StorageError, match=r"^journal_closed$"):
            await work


# -- other processes ---------------------------------------------------------------------------------

WRITES = 60
CHILD = """
import asyncio, sys
from pathlib import Path
from llamora.persistence import LocalDB
from tests.persistence.conftest import entry, new_user

async def main():
    db = await LocalDB.open(Path(sys.argv[1]))
    keys = await new_user(db, sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        await db.entries.add(keys, entry(f"line {number} " * 40))
        if number % 7 == 0:
            await db.checkpoint()
    await db.close()

asyncio.run(main())
"""


def child(path: Path, name: str, writes: int = WRITES) -> "subprocess.Popen[bytes]":
    """A process that writes entries when a line comes on its standard input."""
    command = [sys.executable, "-c", CHILD, str(path), name, str(writes)]
    return subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def begin(*children: "subprocess.Popen[bytes]") -> None:
    for each in children:
        assert each.stdout is not None
        assert each.stdin is not None
        assert each.stdout.readline() == b"ready\n"
    for each in children:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()


def test_two_processes_write_at_once(path: Path, raw: Raw) -> None:
    children = [child(path, "Alice"), child(path, "Bob")]
    begin(*children)
    for each in children:
        _, errors = each.communicate(timeout=60)
        assert (each.returncode, errors) == (0, b"")
    assert raw("SELECT count(*) FROM entries") == [(2 * WRITES,)]
    assert raw("PRAGMA integrity_check") == [("ok",)]
    assert raw("PRAGMA foreign_key_check") == []


async def test_the_lock_is_held_while_another_writes(
    path: Path, db: LocalDB, keys: Keyring
) -> None:
    theirs = FileLock(path.with_name(path.name + ".write-lock"), timeout=0)
    with theirs:
        writing = asyncio.create_task(db.entries.add(keys, entry()))
        checkpointing = asyncio.create_task(db.checkpoint())
        done, _ = await asyncio.wait([writing, checkpointing], timeout=0.1)
        assert not done
        assert await count(db, keys) == 0  # reading goes on
    await bounded(asyncio.gather(writing, checkpointing))
    assert await count(db, keys) == 1


async def test_a_cancelled_checkpoint_keeps_the_lock_to_its_end(path: Path, db: LocalDB) -> None:
    theirs = FileLock(path.with_name(path.name + ".write-lock"), timeout=0)
    go_on = threading.Event()
    busy = asyncio.create_task(db._connections._connections[0]._execute(go_on.wait))
    checkpointing = asyncio.create_task(db.checkpoint())
    try:
        await asyncio.sleep(0.02)
        checkpointing.cancel()
        await asyncio.sleep(0.02)
        with pytest.raises(Timeout):
            theirs.acquire()
    finally:
        go_on.set()
    await bounded(asyncio.wait([busy, checkpointing]))
    assert checkpointing.cancelled()
    theirs.acquire()
    theirs.release()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
async def test_a_killed_writer_leaves_the_lock(path: Path, db: LocalDB, keys: Keyring) -> None:
    killed = child(path, "Bob", 100_000)
    begin(killed)
    while await db._connections.fetch("SELECT count(*) FROM entries") == [(0,)]:
        assert killed.poll() is None
        await asyncio.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    await bounded(db.entries.add(keys, entry()))
    assert await count(db, keys) == 1
    assert await db._connections.fetch("PRAGMA integrity_check") == [("ok",)]


def test_a_second_server_is_refused(path: Path) -> None:
    first = InstanceLock(path)
    with pytest.raises(StorageError, match=r"^server_running$"):
        InstanceLock(path)
    first.release()
    InstanceLock(path).release()


async def test_a_lock_that_cannot_be_had_is_a_sentence(
    path: Path, db: LocalDB, keys: Keyring
) -> None:
    lock = path.with_name(path.name + ".write-lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(StorageError, match=r"^lock_unwritable$") as caught:
        await db.entries.add(keys, entry("not kept"))
    assert caught.value.params == {"reason": "is a directory"}
    with pytest.raises(StorageError, match=r"^lock_unwritable$"):
        run_db_migrations(path, resource("migrations"))
    with pytest.raises(StorageError, match=r"^lock_unwritable$"), write_transaction(path):
        pass
    lock.rmdir()
    await db.entries.add(keys, entry("kept"))
    assert [e.text for e in await db.entries.list_day(keys, DAY)] == ["kept"]


# -- a full disk -------------------------------------------------------------------------------------


async def test_a_file_that_may_not_grow(db: LocalDB, keys: Keyring, raw: Raw) -> None:
    await db.entries.add(keys, entry("first"))
    writer = db._connections._connections[0]
    pages = next(iter(await writer.execute_fetchall("PRAGMA page_count")))[0]
    await writer.execute_fetchall(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DiskFull, match=r"^disk_full$"):
        await db.entries.add(keys, *(entry("x" * 10_000) for _ in range(20)))
    assert [e.text for e in await db.entries.list_day(keys, DAY)] == ["first"]
    await writer.execute_fetchall(f"PRAGMA max_page_count={pages + 1000}")
    await db.entries.add(keys, *(entry("x" * 10_000, minute=1) for _ in range(20)))
    assert await count(db, keys) == 21
    assert raw("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", place],
            capture_output=True,
            check=False,
        )
    except OSError:
        pytest.skip("no mount on this system")
    if mounted.returncode:
        pytest.skip("mounting needs root; the other test of a full disk runs everywhere")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


async def test_a_disk_that_is_truly_full(tiny_disk: Path) -> None:
    path = tiny_disk / "llamora.sqlite3"
    run_db_migrations(path, resource("migrations"))
    store = await LocalDB.open(path)
    try:
        keys = await new_user(store, "Alice")
        await store.entries.add(keys, entry("first"))
        filler = tiny_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        for _ in range(3):
            with pytest.raises(DiskFull):
                await store.entries.add(keys, entry("x" * 20_000))
        assert [e.text for e in await store.entries.list_day(keys, DAY)] == ["first"]
        filler.unlink()
        await store.entries.add(keys, entry("second", minute=1))
        assert [e.text for e in await store.entries.list_day(keys, DAY)] == ["first", "second"]
        assert await store._connections.fetch("PRAGMA integrity_check") == [("ok",)]
    finally:
        await store.close()


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "journal" / "llamora.sqlite3"
        lock = InstanceLock(path)
        run_db_migrations(path, resource("migrations"))
        store = await LocalDB.open(path)
        await new_user(store, "Alice")
        names = {file.name for file in path.parent.iterdir()}
        assert {path.name, path.name + "-wal", path.name + "-shm"} <= names
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        await store.close()
        lock.release()
        path.chmod(0o644)  # as a copy put back by hand would be
        InstanceLock(path).release()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageError, match=r"^data_folder_unusable$"):
        InstanceLock(tmp_path / "file" / "llamora.sqlite3")


async def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "llamora.sqlite3"
    path.write_bytes(b"a shopping list, and not a database at all" * 100)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"^journal_damaged$"):
        run_db_migrations(path, resource("migrations"))
    with pytest.raises(StorageError, match=r"^journal_damaged$"):
        await LocalDB.open(path)
    assert path.read_bytes() == before


async def test_deleted_bytes_are_gone_from_file_and_log(
    path: Path, db: LocalDB, keys: Keyring, raw: Raw
) -> None:
    made = entry("x" * 3000)
    await db.entries.add(keys, made)
    ((sealed,),) = raw("SELECT sealed FROM entries")
    assert any(sealed[100:200] in file.read_bytes() for file in path.parent.iterdir())
    await db.entries.erase(keys, [made.id])
    for file in path.parent.iterdir():
        assert sealed[100:200] not in file.read_bytes(), file.name


async def test_deleted_bytes_go_once_nobody_reads_any_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, raw: Raw
) -> None:
    """A backup that is being made keeps the log from being emptied."""
    monkeypatch.setitem(PRAGMAS, "busy_timeout", 50)
    db = await LocalDB.open(path)
    keys, made = await new_user(db, "Alice"), entry("x" * 3000)
    await db.entries.add(keys, made)
    ((sealed,),) = raw("SELECT sealed FROM entries")

    def is_there() -> bool:
        return any(sealed[100:200] in file.read_bytes() for file in path.parent.iterdir())

    with read_transaction(path) as backup:
        assert backup.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        await db.entries.erase(keys, [made.id])
        await db.retry_checkpoint()
        assert is_there()
    await db.retry_checkpoint()
    assert not is_there()
    await db.close()


def test_an_error_of_sqlite_holds_no_value(path: Path) -> None:
    with closing(connect(path)) as opened, pytest.raises(sqlite3.Error) as found:
        opened.execute(
            "INSERT INTO users (id, name, name_key) VALUES (?, ?, ?)", (b"short", "heron", "heron")
        )
    assert "heron" not in str(found.value)
    assert "heron" not in str(connection.storage_error(found.value))


async def test_a_lock_that_is_never_let_go_is_waited_for_so_long_only(
    path: Path, db: LocalDB, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOCK_PAUSES", (0.001,) * 5)
    with (
        FileLock(path.with_name(path.name + ".write-lock")),
        pytest.raises(StorageError, match=r"^journal_busy$"),
    ):
        await db.sessions.clear()
    await db.sessions.clear()


async def test_room_that_erasing_leaves_is_given_back(db: LocalDB, keys: Keyring, raw: Raw) -> None:
    entries = [entry("long " * 2000) for _ in range(60)]
    await db.entries.add(keys, *entries)
    await db.entries.erase(keys, [each.id for each in entries])
    assert raw("PRAGMA freelist_count")[0][0] > 60
    size = raw("PRAGMA page_count")[0][0]
    await db.give_back_room()
    assert raw("PRAGMA freelist_count") == [(0,)]
    assert raw("PRAGMA page_count")[0][0] < size / 2
