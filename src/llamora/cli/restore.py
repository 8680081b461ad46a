"""`restore`: put a backup back, into this journal or an empty folder."""

import argparse
from pathlib import Path

from llamora.cli.copy import name_copy
from llamora.cli.unlocking import ask_secret
from llamora.cli.wording import describe_records, format_instant
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, restore_backup, verify_backup
from llamora.persistence.migrations import run_db_migrations
from llamora.settings import Settings, resource


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--replace", action="store_true", help="let it take the place of what the writer has here"
    )
    parser.add_argument("--name", default="", help="the name to sign in with from now on")


def run(options: argparse.Namespace, settings: Settings) -> int:
    database, file, name = settings.data.database, options.file, options.name
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)  # before anything is made or copied
    run_db_migrations(database, resource("migrations"))
    if options.replace:
        copy_path = name_copy(database, "before-restore-", "%f")
        copy_database(database, copy_path)
        print(f"What was here is kept in {copy_path}.")
    restore_backup(database, file, header, keys, name=name, replace=options.replace)
    records = describe_records(manifest)
    print(
        f"{name or manifest.name} is here again as {format_instant(manifest.made)}, with {records}."
    )
    print("The passphrase and the recovery code are those of that time.")
    return 0
