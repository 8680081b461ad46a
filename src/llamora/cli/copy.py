"""`copy`: copy the whole database as it is, sealed, while the server runs."""

import argparse
from pathlib import Path

from llamora.dates import utc_now
from llamora.persistence.backups import copy_database
from llamora.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "to",
        type=Path,
        nargs="?",
        help="the file to make (in backups/ of the data folder unless given)",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    database = settings.data.database
    target = (options.to or name_copy(database)).absolute()
    copy_database(database, target)
    print(f"{target} is a copy of the whole database, sealed as it is.")
    return 0


def name_copy(database: Path, occasion: str = "", precision: str = "") -> Path:
    """Return the path of a copy made now; `precision` adds to the format of its time."""
    time = utc_now().strftime(f"%Y%m%d%H%M%S{precision}")
    return database.parent / "backups" / f"{database.stem}-{occasion}{time}.sqlite3"
