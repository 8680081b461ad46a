"""`verify`: open everything in a backup and change nothing."""

import argparse
from pathlib import Path

from llamora.cli.unlocking import ask_secret
from llamora.cli.wording import describe_records, format_instant
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import verify_backup
from llamora.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)


def run(options: argparse.Namespace, _settings: Settings) -> int:
    file: Path = options.file
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)
    records = describe_records(manifest)
    print(
        f"Everything in it opens. It is of {manifest.name}, {format_instant(manifest.made)}, with {records}."
    )
    return 0
