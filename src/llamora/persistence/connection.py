"""SQLite connections as the design wants them: pragmas set and read back, one writer, locks."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from filelock import FileLock, Timeout

from llamora.errors import Problem
from llamora.vault.keys import Keyring

Row = tuple[Any, ...]
T = TypeVar("T")

# What must be in force on every connection (design §5). `journal_mode` is a property of the file.
# No `optimize`: its statistics would still count records that were erased.
PRAGMAS: dict[str, int | str] = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: an acknowledged commit survives a power cut
    "foreign_keys": 1,
    "secure_delete": 1,
    "temp_store": 2,  # MEMORY: no private byte in a temporary file
    "mmap_size": 0,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "busy_timeout": 10_000,
}
# What a file keeps from its first table on; later only a VACUUM changes it.
FILE_PRAGMAS: dict[str, int] = {
    "page_size": 4096,
    "auto_vacuum": 2,  # INCREMENTAL: the room that erasing leaves can be given back in small steps
}
# Between tries for another process's lock: as long as an action takes, then calmly, then no more.
LOCK_PAUSES = (0.002,) * 50 + (0.05,) * 600
CHECKPOINT_WAIT_MS = 200
"""For how long a checkpoint, which holds up every save, waits for readers; it is made again."""


class StorageError(Problem):
    """The store could not do what was asked."""

    status = 503


class DiskFull(StorageError):
    """There was no room on the disk; nothing of the action was written."""

    status = 507


class NotFound(StorageError):
    """The record does not exist or is another user's."""

    status = 404


class StaleRevision(StorageError):
    """The record changed since it was read; nothing was written."""

    status = 409


class AlreadyExists(StorageError):
    """A record of this id exists; nothing was written."""

    status = 409


def storage_error(error: sqlite3.Error) -> StorageError:
    """Return the error of ours that stands for SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("disk_full")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return StorageError("journal_unwritable")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError("journal_damaged")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError("journal_busy")
    return StorageError("journal_refused", name=type(error).__name__)


def os_reason(error: OSError) -> str:
    """Return why the system refused, in its own words."""
    return (error.strerror or type(error).__name__).lower()


def fsync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk: a file without its name is lost to a power cut.

    Where folders cannot be opened (Windows) the system sees to it. Raise OSError.
    """
    if os.name == "posix":
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:  # writable but not readable
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def prepare_file(path: Path) -> None:
    """Create the folder (0700) and the database file (0600) where they are missing.

    Raise StorageError when the folder cannot be used.
    """
    try:
        # One by one: `parents=True` makes those between by the umask, readable by others.
        for folder in reversed([parent for parent in path.parents if not parent.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(folder.parent)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            fsync_folder(path.parent)
        if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o600)  # such as a copy that was put back from somewhere
    except OSError as error:
        raise StorageError(
            "data_folder_unusable", folder=str(path.parent), reason=os_reason(error)
        ) from None


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Set PRAGMAS and read each back. A new file gets FILE_PRAGMAS first.

    Raise StorageError when one is not in force.
    """
    for name, expected in FILE_PRAGMAS.items():  # before journal_mode, which writes the first page
        connection.execute(f"PRAGMA {name}={expected}")
    for name, expected in PRAGMAS.items():
        connection.execute(f"PRAGMA {name}={expected}")
        row = connection.execute(f"PRAGMA {name}").fetchone()
        # A build compiled without mmap answers nothing at all, which is as good as 0.
        if (row[0] if row else 0) != expected:
            raise StorageError("pragma_refused", name=name, value=expected)


def connect(path: Path) -> sqlite3.Connection:
    """Return a plain connection with every pragma in force, in autocommit mode."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # A cell of another type must not stop the reading of those around it.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        set_pragmas(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def write_lock(path: Path) -> FileLock:
    """Return the lock file held across processes around every write transaction and checkpoint.

    SQLite before 3.51.3 can corrupt a WAL when two connections write and checkpoint at once.
    """
    return FileLock(
        path.with_name(path.name + ".write-lock"), timeout=0, mode=0o600, thread_local=False
    )


def lock_error(error: OSError) -> StorageError:
    """Return the error of ours for what the system says of a lock file."""
    return StorageError("lock_unwritable", reason=os_reason(error))


class InstanceLock:
    """The lock that allows one server per database. Raises StorageError when another one runs."""

    def __init__(self, path: Path) -> None:
        prepare_file(path)
        self._lock = FileLock(path.with_name(path.name + ".server-lock"), timeout=0, mode=0o600)
        try:
            self._lock.acquire()
        except Timeout:
            raise StorageError("server_running", path=str(path)) from None
        except OSError as error:
            raise lock_error(error) from None

    def release(self) -> None:
        """Let another server take the database."""
        self._lock.release()


async def shield_until_done(awaitable: Awaitable[T]) -> T:
    """Await `awaitable` to its end even when this task is cancelled, then raise the cancellation.

    The result of `awaitable` is returned otherwise.
    """
    task = asyncio.ensure_future(awaitable)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


class Transaction:
    """The statements of one user action on the writer connection."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self.keys: Keyring | None = None
        """The keys that its records were sealed with, where `write` was given none."""
        self.on_commit: list[Callable[[], None]] = []
        """Called once all of it is on the disk, before the next write; never after a rollback."""

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        cursor = await self._connection.execute(sql, parameters)
        return cursor.rowcount

    async def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        await self._connection.executemany(sql, rows)

    async def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        return [tuple(row) for row in await self._connection.execute_fetchall(sql, parameters)]


Step = Callable[[Transaction], Awaitable[None]]
"""A part of a user action that joins the transaction of another: one action, one transaction."""


def _record_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "llamora-records")


class Connections:
    """One writer connection with a queue and a few readers, each on a thread of its own."""

    def __init__(self, path: Path, reader_count: int = 2) -> None:
        self.path = path
        self._reader_count = reader_count
        self._connections: list[aiosqlite.Connection] = []  # the writer first
        self._next_reader = 0
        self._write_count = 0
        self._write_queue = asyncio.Lock()
        self._file_lock = write_lock(path)
        self.on_commit: Callable[[], None] = lambda: None  # called after each commit of ours
        self.before_commit: Callable[[Transaction, Keyring | None], Awaitable[None]] | None = None
        self.writer_statements: Sequence[str] = ()  # what the writer runs when it is opened
        # One thread: several would keep the event loop waiting for the interpreter in turn.
        self._thread = _record_thread()
        self.checkpoint_pending = False
        """True after a checkpoint that could not empty the log, until `checkpoint` succeeds."""

    async def open(self) -> None:
        """Open the connections; the schema must exist. Raise StorageError."""
        connections: list[aiosqlite.Connection] = []
        try:
            while len(connections) <= self._reader_count:
                connections.append(await self._connect())
            for statement in self.writer_statements:
                await connections[0].execute(statement)
            for reader in connections[1:]:
                await reader.execute_fetchall("PRAGMA query_only=ON")
        except BaseException as error:
            for connection in connections:
                await connection.close()
            if isinstance(error, sqlite3.Error):
                raise storage_error(error) from None
            raise
        self._connections = connections

    async def _connect(self) -> aiosqlite.Connection:
        connection = aiosqlite.Connection(lambda: connect(self.path), iter_chunk_size=64)
        try:
            return await connection
        except BaseException:
            # Its thread is told to end but not waited for; it must not report to a loop that is
            # closed by then.
            thread = connection._thread  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            await asyncio.to_thread(thread.join)
            raise

    @property
    def _writer(self) -> aiosqlite.Connection:
        return self._reader(0)

    async def close(self) -> None:
        """Close every connection; the last one checkpoints, so this holds the write lock."""
        if not self._connections:
            return
        async with self._write_queue, AsyncExitStack() as stack:
            with suppress(StorageError):  # closed even on a disk that no longer takes locks
                await stack.enter_async_context(self._hold_file_lock())
            connections, self._connections = self._connections, []
            thread, self._thread = self._thread, _record_thread()
            thread.shutdown(wait=False)
            for connection in reversed(connections):
                await shield_until_done(connection.close())

    def _reader(self, index: int) -> aiosqlite.Connection:  # 0 is the writer
        if not self._connections:
            raise StorageError("journal_closed")
        return self._connections[index]

    async def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows of a query, read on one of the readers. Raise StorageError."""
        self._next_reader = self._next_reader % self._reader_count + 1
        return await self._query(self._reader(self._next_reader), sql, parameters)

    @staticmethod
    async def _query(
        connection: aiosqlite.Connection, sql: str, parameters: Sequence[object] = ()
    ) -> list[Row]:
        try:
            return [tuple(row) for row in await connection.execute_fetchall(sql, parameters)]
        except sqlite3.Error as error:
            raise storage_error(error) from None

    async def run_in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` on the thread that opens records in bulk, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def run_beside(self, work: Callable[..., T], *arguments: object) -> T:
        """Run long `work` on a thread that nobody else waits for."""
        return await asyncio.to_thread(work, *arguments)

    async def data_version(self) -> int:
        """Return PRAGMA data_version of one reader, which differs once anything was committed."""
        return int((await self._query(self._reader(1), "PRAGMA data_version"))[0][0])

    async def search_version(self) -> tuple[int, int]:
        """Return a value that differs once anything was committed that may concern search.

        The writer's `PRAGMA data_version` tells of other connections alone, so writes marked
        `search_unaffected` do not show.
        """
        rows = await self._query(self._writer, "PRAGMA data_version")
        return int(rows[0][0]), self._write_count

    @asynccontextmanager
    async def write(
        self, *, search_unaffected: bool = False, keys: Keyring | None = None
    ) -> AsyncGenerator[Transaction]:
        """Run one user action as one transaction: after the block all or nothing is on the disk.

        `search_unaffected` says that it concerns neither entries nor their tags, so that indexes
        need not look. Whatever changes records of a user who stays gives their `keys`, for the sum
        over them (persistence/checksums.py). Raise StorageError (DiskFull and others) when SQLite refuses; any other
        exception of the block rolls back and is passed on.
        """
        async with self._write_queue, self._hold_file_lock():
            try:
                try:
                    await shield_until_done(self._writer.execute_fetchall("BEGIN IMMEDIATE"))
                    transaction = Transaction(self._writer)
                    yield transaction
                    if self.before_commit is not None:
                        await self.before_commit(transaction, keys)
                    await shield_until_done(self._writer.execute_fetchall("COMMIT"))
                    for callback in (*transaction.on_commit, self.on_commit):
                        callback()
                except BaseException:
                    await shield_until_done(self._rollback())
                    raise
                finally:
                    self._write_count += not search_unaffected
            except sqlite3.Error as error:
                raise storage_error(error) from None

    async def checkpoint(self) -> None:
        """Fold the WAL into the database and truncate it, so that deleted bytes are gone from both.

        A reader, such as a backup, or a broken disk can prevent it: see `checkpoint_pending`.
        """

        async def truncate(writer: aiosqlite.Connection) -> bool:
            await writer.execute(f"PRAGMA busy_timeout={CHECKPOINT_WAIT_MS}")
            try:
                rows = await writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                await writer.execute(f"PRAGMA busy_timeout={PRAGMAS['busy_timeout']}")
            return bool(next(iter(rows))[0])  # (busy, ...)

        self.checkpoint_pending = True
        self.checkpoint_pending = await self._maintain(truncate)

    async def vacuum(self, pages: int) -> None:
        """Give so many empty pages at the end of the file back to the system.

        Raise StorageError.
        """
        # As a script, since a single statement is stepped once and so frees one page.
        script = f"PRAGMA incremental_vacuum({pages})"
        await self._maintain(lambda writer: writer.executescript(script))

    async def _maintain(self, work: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        async with self._write_queue, self._hold_file_lock():
            try:
                # The lock must not be let go while the connection's thread is still at it.
                return await shield_until_done(work(self._writer))
            except sqlite3.Error as error:
                raise storage_error(error) from None

    async def _rollback(self) -> None:
        # A statement of a cancelled request may still be on its way to the connection's thread:
        # asking anything waits for it. SQLite rolls back by itself after some errors.
        await self._writer.execute_fetchall("SELECT 1")
        if self._writer.in_transaction:
            await self._writer.execute("ROLLBACK")

    @asynccontextmanager
    async def _hold_file_lock(self) -> AsyncGenerator[None]:
        for pause in LOCK_PAUSES:
            try:
                self._file_lock.acquire(blocking=False)
                break
            except Timeout:
                await asyncio.sleep(pause)
            except OSError as error:
                raise lock_error(error) from None
        else:
            raise StorageError("journal_busy")
        try:
            yield
        finally:
            self._file_lock.release()
