"""Migrations from `migrations/NNNN-name.sql`: backup first, one transaction each, verified."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from logging import getLogger
from pathlib import Path

from llamora.dates import utc_now
from llamora.persistence.atomic_file import write_atomically
from llamora.persistence.blocking import locked_connection
from llamora.persistence.connection import (
    FILE_PRAGMAS,
    StorageError,
    connect,
    prepare_file,
    storage_error,
)
from llamora.persistence.schema import (
    OPENS_FORMER_RECORDS,
    OPENS_UNRELEASED,
    RECORD_KINDS,
    triggers,
)

logger = getLogger(__name__)

FILE_NAME_PATTERN = re.compile(r"(\d{4})-([a-z0-9-]+)\.sql")
UNRELEASED = "foundation"
"""The first migration of the schemas before the first release."""
FORMER_RECORDS = "6baec060aa23adc902ee55b84cb3a9e4266532d127b7afe74d69f3a4c8e45be5"
"""The hash of 0001 while records had another form."""
CREATE_LOG_TABLE = """CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    applied_on TEXT NOT NULL)"""


@dataclass(slots=True, frozen=True)
class Migration:
    """One file of the migrations folder."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Return the hash of the SQL in hex, for the migration log to notice an edited file."""
        return sha256(self.sql.encode()).hexdigest()


@dataclass(slots=True, frozen=True)
class MigrationStatus:
    """A migration and the day it was applied, or None; printed by `scripts/migrate.py status`."""

    migration: Migration
    applied_on: str | None


def read_migrations(folder: Path) -> list[Migration]:
    """Return all migrations of a folder, in order.

    Raise StorageError for a gap or a name that does not fit.
    """
    migrations: list[Migration] = []
    for file in sorted(folder.glob("*.sql")):
        match = FILE_NAME_PATTERN.fullmatch(file.name)
        if match is None or int(match[1]) != len(migrations) + 1:
            raise StorageError("migration_misnamed", file=file.name)
        # read_text translates line ends, so a checkout on Windows hashes to the same.
        migrations.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    if not migrations:
        raise StorageError("migrations_missing", folder=str(folder))
    return migrations


def split_statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would commit on its own."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise StorageError("migration_incomplete")


def migration_status(path: Path, folder: Path) -> list[MigrationStatus]:
    """Return every migration with the day it was applied; nothing is created."""
    migrations = read_migrations(folder)
    if not path.exists():
        return [MigrationStatus(migration, None) for migration in migrations]
    try:
        with closing(connect(path)) as connection:
            log = _read_log(connection)
    except sqlite3.Error as error:
        raise storage_error(error) from None
    return [
        MigrationStatus(migration, log.get(migration.number, ("", None))[1])
        for migration in migrations
    ]


def run_db_migrations(path: Path, folder: Path) -> list[str]:
    """Migrate the database at `path` to the newest schema of `folder`; return the names applied.

    A database that already holds something is copied beside itself first (`backups/`, still
    sealed). Raise StorageError for a newer database, an edited migration or a failed check.
    """
    migrations = read_migrations(folder)
    prepare_file(path)
    with locked_connection(path) as connection:
        return _apply_pending(connection, path, migrations)


def _read_log(connection: sqlite3.Connection) -> dict[int, tuple[str, str | None]]:
    if not connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name='schema_migrations'"
    ).fetchone():
        return {}
    rows = connection.execute(
        "SELECT number, name, sha256, applied_on FROM schema_migrations ORDER BY number"
    ).fetchall()
    if rows and rows[0][1] == UNRELEASED:
        raise StorageError("journal_unreleased", version=OPENS_UNRELEASED)
    if rows and rows[0][2] == FORMER_RECORDS:
        raise StorageError("journal_unreleased", version=OPENS_FORMER_RECORDS)
    return {int(number): (str(file_hash), str(day)) for number, _, file_hash, day in rows}


def _apply_pending(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]
) -> list[str]:
    log = _read_log(connection)
    if log and max(log) > migrations[-1].number:
        raise StorageError("journal_newer")
    for migration in migrations:
        if migration.number in log and log[migration.number][0] != migration.sha256:
            raise StorageError("migration_changed", number=f"{migration.number:04}")
    pending = [migration for migration in migrations if migration.number not in log]
    if not pending:
        return []
    if log:
        _back_up_before(connection, path, pending[0])
    for migration in pending:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(CREATE_LOG_TABLE)
            for statement in split_statements(migration.sql):
                connection.execute(statement)
            _protect(connection)
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.sha256, utc_now().date().isoformat()),
            )
            _verify(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        logger.info("applied migration %04d %s", migration.number, migration.name)
    return [migration.name for migration in pending]


def _protect(connection: sqlite3.Connection) -> None:
    tables = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    }
    for kind in RECORD_KINDS:
        if kind.table in tables:
            for statement in triggers(kind):
                connection.execute(statement)


def _verify(connection: sqlite3.Connection) -> None:
    violation = connection.execute("PRAGMA foreign_key_check").fetchone()
    check = connection.execute("PRAGMA quick_check(1)").fetchone()
    kept = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in FILE_PRAGMAS}
    if violation is not None or check != ("ok",) or kept != FILE_PRAGMAS:
        raise StorageError("migration_failed")


def _back_up_before(connection: sqlite3.Connection, path: Path, next_migration: Migration) -> None:
    target = path.parent / "backups" / f"{path.stem}-before-{next_migration.number:04}.sqlite3"

    def write_copy(temp_path: Path) -> None:
        with closing(sqlite3.connect(temp_path)) as copy:
            connection.backup(copy)

    # Whole or not at all: half a copy would look like a whole one. An earlier attempt, which
    # changed nothing, may have left a copy of the same schema; this one has what was written since
    # and replaces it.
    write_atomically(target, write_copy)
