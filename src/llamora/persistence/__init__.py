"""The encrypted store: SQLite behind one facade, private columns sealed before they are written."""

from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations

__all__ = ["LocalDB", "run_db_migrations"]
