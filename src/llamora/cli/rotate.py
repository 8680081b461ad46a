"""`rotate`: seal everything of one user under new keys and erase the old ones."""

import argparse
import asyncio

from llamora.cli.unlocking import unlock
from llamora.journal.backups import Backups
from llamora.journal.rotation import Rotation
from llamora.persistence.local_db import LocalDB
from llamora.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", default="", help="whose; needed when there are several writers")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Rotate the keys; return the exit status, 1 when records did not open."""
    return asyncio.run(_rotate(settings, options.user))


async def _rotate(settings: Settings, name: str) -> int:
    user, keys = await unlock(settings.data.database, name)
    db = await LocalDB.open(settings.data.database)
    try:
        rotation = Rotation(db)
        if (
            await db.key_rotation.count_data_keys(user.id) == 1
        ):  # else one was begun and not finished
            backup_path = await Backups(db, settings.backup, settings.data.folder).create(keys)
            print(f"What was here is kept in {backup_path}.")
            await rotation.start(keys)
        unreadable = await rotation.finish(keys)
    finally:
        await db.close()
    print(
        f"Everything of {user.name} is sealed under a new key, and the old one is erased. All sessions have ended."
    )
    if unreadable:
        print(
            f"{len(unreadable):,} records did not open and are left as they are; llamora-server doctor names them."
        )
    return 1 if unreadable else 0
