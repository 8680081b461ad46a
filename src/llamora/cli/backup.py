"""`backup`: put everything of one user into one sealed file."""

import argparse
import asyncio
from pathlib import Path

from llamora.cli.unlocking import CommandError, unlock
from llamora.cli.wording import describe_records
from llamora.dates import utc_now
from llamora.journal.backups import SUFFIX
from llamora.persistence.backups import write_backup
from llamora.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", default="", help="whose; needed when there are several writers")
    parser.add_argument(
        "--to", type=Path, help="the file to make (here, named by the day, unless given)"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    database, target_path = settings.data.database, options.to
    user, keys = asyncio.run(unlock(database, options.user))
    target = (
        target_path or Path(f"{_file_name(user.name)}-{utc_now().date().isoformat()}{SUFFIX}")
    ).absolute()
    if target.exists():
        raise CommandError("backup_target_exists", target=str(target))
    manifest = write_backup(database, keys, target)
    keys.close()
    print(f"{target} holds {describe_records(manifest)}.")
    return 0


def _file_name(name: str) -> str:
    return (
        "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()
        or "journal"
    )
