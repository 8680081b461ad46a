"""Connections and transactions of commands beside a running server. They block: use a thread."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import Timeout

from llamora.persistence.connection import (
    StorageError,
    connect,
    lock_error,
    storage_error,
    write_lock,
)

LOCK_TIMEOUT_SECONDS = 30.0


@contextmanager
def locked_connection(database: Path) -> Generator[sqlite3.Connection]:
    """Open a connection for as long as it takes, with nobody else writing. Raise StorageError."""
    try:
        lock = write_lock(database).acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout:
        raise StorageError("journal_busy") from None
    except OSError as error:
        raise lock_error(error) from None
    try:
        with lock, closing(connect(database)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise storage_error(error) from None


@contextmanager
def open_connection(database: Path) -> Generator[sqlite3.Connection]:
    """Open a connection that is closed under the write lock: the last one to close checkpoints."""
    connection = connect(database)
    try:
        yield connection
    finally:
        try:
            with write_lock(database).acquire(timeout=LOCK_TIMEOUT_SECONDS):
                connection.close()
        except OSError:  # the lock was not to be had in time, or at all
            connection.close()


@contextmanager
def read_transaction(database: Path) -> Generator[sqlite3.Connection]:
    """Open a connection that sees the database as of one instant."""
    try:
        with open_connection(database) as connection:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise storage_error(error) from None


@contextmanager
def write_transaction(database: Path) -> Generator[sqlite3.Connection]:
    """Run one transaction beside a running server, all or nothing.

    Afterwards nothing is left in the log of what it deleted.
    """
    with locked_connection(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
