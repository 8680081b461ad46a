"""The schema of the journal's database: `python -m scripts.migrate status|up`.

`status` lists every migration and the day it was applied, and changes nothing: exit status 0 when all are
applied, 1 when some are to come. `up` applies them, after a copy of the database was put into `backups/` beside
it; the server does the same at every start. 2, with a sentence, when that cannot be done.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "src")
)  # also where the package is not installed

from llamora.messages import sentence
from llamora.persistence.connection import InstanceLock, StorageError
from llamora.persistence.migrations import migration_status, run_db_migrations
from llamora.settings import SettingsError, load_settings, resource


def status(database: Path) -> int:
    """Prints a line for every migration; returns the exit status."""
    migrations = migration_status(database, resource("migrations"))
    for migration_state in migrations:
        print(
            f"{migration_state.migration.number:04} {migration_state.migration.name:<24} "
            f"{migration_state.applied_on or 'to come'}"
        )
    return 0 if all(migration_state.applied_on for migration_state in migrations) else 1


def up(database: Path) -> int:
    """Applies what is to come; returns the exit status. A running server keeps its schema: it is refused."""
    lock = InstanceLock(database)
    try:
        applied = run_db_migrations(database, resource("migrations"))
    finally:
        lock.release()
    print(f"Applied: {', '.join(applied)}." if applied else "Nothing to apply.")
    return 0


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Show or apply the migrations of the database in the settings."
    )
    parser.add_argument("what", choices=("status", "up"))
    options = parser.parse_args()
    try:
        database = load_settings().data.database
        return {"status": status, "up": up}[options.what](database)
    except (StorageError, SettingsError) as error:
        sys.stderr.write(f"{sentence(error) if isinstance(error, StorageError) else error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
