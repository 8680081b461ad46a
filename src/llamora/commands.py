"""The commands beside serving; they ask for the passphrase if needed and work beside the server."""

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from llamora.dates import format_day, utc_now
from llamora.errors import Problem
from llamora.journal.backups import SUFFIX, Backups
from llamora.journal.rotation import Rotation
from llamora.persistence.backup_format import Manifest, read_header
from llamora.persistence.backups import copy_database, restore_backup, verify_backup, write_backup
from llamora.persistence.doctor import Report, repair, run_checks
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.users import User
from llamora.settings import Settings, resource
from llamora.vault.envelope import VaultError
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.slots import (
    PASSPHRASE,
    BadParameters,
    KdfUnavailable,
    KeySlot,
    RecoveryCodeError,
    WrongSecret,
    open_slots,
)

SECRET_PROMPT = "Passphrase or recovery code: "  # noqa: S105 -- the question, not the answer
# Names of counts: one, several. Tables that mean nothing to a user are left out.
COUNT_NAMES = {
    "entries": ("entry or reply", "entries and replies"),
    "versions": ("earlier version", "earlier versions"),
    "drafts": ("draft", "drafts"),
    "tags": ("trace", "traces"),
    "search_history": ("search", "searches"),
}


class CommandError(Problem):
    """A command did nothing; the message says why."""


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add every command with its options; `add_parser` is that of the subparsers."""
    command = add_parser("backup", help="put everything of one writer into one sealed file")
    command.add_argument("--user", default="", help="whose; needed when there are several writers")
    command.add_argument(
        "--to", type=Path, help="the file to make (here, named by the day, unless given)"
    )
    command = add_parser("verify", help="open everything in a backup and change nothing")
    command.add_argument("file", type=Path)
    command = add_parser("restore", help="put a backup back, into this journal or an empty folder")
    command.add_argument("file", type=Path)
    command.add_argument(
        "--replace", action="store_true", help="let it take the place of what the writer has here"
    )
    command.add_argument("--name", default="", help="the name to sign in with from now on")
    command = add_parser(
        "copy", help="copy the whole database as it is, sealed, while the server runs"
    )
    command.add_argument(
        "to",
        type=Path,
        nargs="?",
        help="the file to make (in backups/ of the data folder unless given)",
    )
    command = add_parser(
        "rotate", help="seal everything of one writer under new keys and erase the old ones"
    )
    command.add_argument("--user", default="", help="whose; needed when there are several writers")
    command = add_parser(
        "doctor", help="examine the journal, and with --user open every record of a writer"
    )
    command.add_argument(
        "--user", default="", help="open every record of this writer; asks for the passphrase"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--mend", action="store_true", help="mend what can be mended, after a copy, without asking"
    )


def run_command(options: argparse.Namespace, settings: Settings) -> int:
    """Run one of the commands; return its exit status. Raise CommandError and StorageError."""
    database = settings.data.database
    try:
        match options.mode:
            case "backup":
                return _backup(database, options.user, options.to)
            case "verify":
                return _verify(options.file)
            case "doctor":
                return _doctor(
                    database, options.user, as_json=options.json, is_mending=options.mend
                )
            case "rotate":
                return asyncio.run(_rotate(settings, options.user))
            case "restore":
                return _restore(database, options.file, options.name, replace=options.replace)
            case _:
                return _copy(database, options.to)
    except WrongSecret as error:
        raise CommandError(
            str(error) if isinstance(error, RecoveryCodeError) else "secret_wrong"
        ) from None
    except KdfUnavailable as error:
        raise CommandError("memory_short", mebibytes=error.mebibytes) from None
    except VaultError as error:
        raise CommandError("keys_not_opened", name=type(error).__name__) from None
    except (KeyboardInterrupt, EOFError):
        raise CommandError("command_stopped") from None


def ask_secret() -> str:
    """Return the passphrase or recovery code: typed unseen, or the first line of piped input."""
    if sys.stdin.isatty():
        return getpass.getpass(SECRET_PROMPT)
    line = sys.stdin.readline()
    if not line:
        raise CommandError("secret_missing")
    return line.rstrip("\r\n")


async def unlock(database: Path, name: str) -> tuple[User, Keyring]:
    """Ask for a user's passphrase or recovery code and open their keys.

    Raise CommandError and vault.slots.WrongSecret.
    """
    if not await asyncio.to_thread(database.exists):
        raise CommandError("journal_missing", database=str(database))
    db = await LocalDB.open(database)
    try:
        users = await db.users.list_all()
        user = await db.users.find_by_name(name) if name else users[0] if len(users) == 1 else None
        if user is None:
            raise CommandError("user_not_found" if name else "user_not_named")
        secret = ask_secret()
        # Read after the secret was typed: the keys may have changed meanwhile.
        sealed = await db.users.keys(user.id)
        master = open_slots(user.id, await _read_slots(db, user), secret)
        keys = open_keyring(user.id, master, sealed)
    finally:
        await db.close()
    wipe(master)
    return user, keys


async def _read_slots(db: LocalDB, user: User) -> list[KeySlot]:
    """Return the user's slots after reporting damaged ones.

    Those stay in the list and must not keep the others from opening.
    """
    slots = await db.users.get_slots(user.id)
    for slot in slots:
        with suppress(BadParameters):
            if slot.kind != PASSPHRASE or slot.argon2:
                continue
        print(
            f"The {slot.kind} slot was changed by something other than Llamora and is not trusted.",
            file=sys.stderr,
        )
    return slots


def _backup(database: Path, name: str, target_path: Path | None) -> int:
    user, keys = asyncio.run(unlock(database, name))
    target = (
        target_path or Path(f"{_file_name(user.name)}-{utc_now().date().isoformat()}{SUFFIX}")
    ).absolute()
    if target.exists():
        raise CommandError("backup_target_exists", target=str(target))
    manifest = write_backup(database, keys, target)
    keys.close()
    print(f"{target} holds {_describe_records(manifest)}.")
    return 0


def _verify(file: Path) -> int:
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)
    records = _describe_records(manifest)
    print(
        f"Everything in it opens. It is of {manifest.name}, {_format_instant(manifest.made)}, with {records}."
    )
    return 0


def _restore(database: Path, file: Path, name: str, *, replace: bool) -> int:
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)  # before anything is made or copied
    run_db_migrations(database, resource("migrations"))
    if replace:
        copy_path = (
            _backup_folder(database)
            / f"{database.stem}-before-restore-{utc_now():%Y%m%d%H%M%S%f}.sqlite3"
        )
        copy_database(database, copy_path)
        print(f"What was here is kept in {copy_path}.")
    restore_backup(database, file, header, keys, name=name, replace=replace)
    records = _describe_records(manifest)
    print(
        f"{name or manifest.name} is here again as {_format_instant(manifest.made)}, with {records}."
    )
    print("The passphrase and the recovery code are those of that time.")
    return 0


def _copy(database: Path, target_path: Path | None) -> int:
    target = (
        target_path
        or _backup_folder(database) / f"{database.stem}-{utc_now():%Y%m%d%H%M%S}.sqlite3"
    ).absolute()
    copy_database(database, target)
    print(f"{target} is a copy of the whole database, sealed as it is.")
    return 0


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


def _doctor(database: Path, name: str, *, as_json: bool, is_mending: bool) -> int:
    if not database.exists():
        raise CommandError("journal_missing", database=str(database))
    keys = asyncio.run(unlock(database, name))[1] if name else None
    report = run_checks(database, resource("migrations"), keys)
    if as_json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        _print_report(report, name)
    if report.mendable and not as_json:
        print(f"It could {_join_with_and(report.mendable)}, after a copy of the whole database.")
        is_mending = is_mending or (
            sys.stdin.isatty() and input("Do that now? [y/N] ").strip().lower() in ("y", "yes")
        )
    if not report.mendable or not is_mending:
        return 1 if report.damage else 0
    copy_path = (
        _backup_folder(database)
        / f"{database.stem}-before-mending-{utc_now():%Y%m%d%H%M%S%f}.sqlite3"
    )
    copy_database(database, copy_path)
    repairs = repair(database, keys)
    report_after = run_checks(database, resource("migrations"), keys)
    if not as_json:
        print(f"What was here is kept in {copy_path}.", *repairs, *report_after.damage, sep="\n")
    return 1 if report_after.damage else 0


def _print_report(report: Report, name: str) -> None:
    print(f"SQLite {report.sqlite}, {report.openssl}, schema {report.schema}.")
    print(f"Swap: {report.swap}; keys in memory: {report.memory}.")
    print(
        "In force: "
        + ", ".join(f"{pragma}={value}" for pragma, value in report.pragmas.items())
        + "."
    )
    for user_name, counts in report.records.items():
        print(
            f"{user_name}: "
            + (_join_with_and([f"{n:,} {table}" for table, n in counts.items() if n]) or "nothing")
            + "."
        )
    if name and not report.damage:
        print(f"All {sum(report.opened.values()):,} records of {name} open.")
    print(
        *report.notes, *report.damage, sep="\n", end="\n" if report.notes or report.damage else ""
    )
    print("Something is damaged." if report.damage else "Nothing is damaged.")


def _backup_folder(database: Path) -> Path:
    return database.parent / "backups"


def _file_name(name: str) -> str:
    return (
        "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower()
        or "journal"
    )


def _format_instant(instant: datetime) -> str:
    return f"{format_day(instant.date())} at {instant:%H:%M} UTC"


def _describe_records(manifest: Manifest) -> str:
    counts = [
        f"{manifest.records[table]:,} {words[manifest.records[table] != 1]}"
        for table, words in COUNT_NAMES.items()
        if manifest.records.get(table)
    ]
    description = _join_with_and(counts) if counts else "nothing written yet"
    if manifest.unreadable:
        description += f", of which {manifest.unreadable:,} did not open when it was made and are in it as they were"
    return description


def _join_with_and(parts: Sequence[str]) -> str:
    """Join words with commas and a final "and"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
