"""The commands beside serving: they ask for the passphrase where they need it, and work while the server runs."""

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
from llamora.journal.backups import SUFFIX, Backups
from llamora.journal.rotation import Rotation
from llamora.persistence.backups import (
    Manifest,
    copy_database,
    read_header,
    restore_backup,
    verify_backup,
    write_backup,
)
from llamora.persistence.connection import StorageError
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

SECRET = "Passphrase or recovery code: "  # noqa: S105 -- the question, not the answer
# What a count is called: one, several. Tables that mean nothing to a writer are left out.
WORDS = {
    "entries": ("entry or reply", "entries and replies"),
    "versions": ("earlier version", "earlier versions"),
    "drafts": ("draft", "drafts"),
    "tags": ("trace", "traces"),
    "search_history": ("search", "searches"),
}


class CommandFailed(Exception):
    """Why a command did nothing, in one sentence."""


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add every command with its options; `add` is `add_parser` of the subparsers."""
    one = add("backup", help="put everything of one writer into one sealed file")
    one.add_argument("--user", default="", help="whose; needed when there are several writers")
    one.add_argument("--to", type=Path, help="the file to make (here, named by the day, unless given)")
    one = add("verify", help="open everything in a backup and change nothing")
    one.add_argument("file", type=Path)
    one = add("restore", help="put a backup back, into this journal or an empty folder")
    one.add_argument("file", type=Path)
    one.add_argument("--replace", action="store_true", help="let it take the place of what the writer has here")
    one.add_argument("--name", default="", help="the name to sign in with from now on")
    one = add("copy", help="copy the whole database as it is, sealed, while the server runs")
    one.add_argument("to", type=Path, nargs="?", help="the file to make (in backups/ of the data folder unless given)")
    one = add("rotate", help="seal everything of one writer under new keys and erase the old ones")
    one.add_argument("--user", default="", help="whose; needed when there are several writers")
    one = add("doctor", help="examine the journal, and with --user open every record of a writer")
    one.add_argument("--user", default="", help="open every record of this writer; asks for the passphrase")
    one.add_argument("--json", action="store_true", help="print one JSON object")
    one.add_argument("--mend", action="store_true", help="mend what can be mended, after a copy, without asking")


def run_command(options: argparse.Namespace, settings: Settings) -> int:
    """Carry out one of the commands; its exit status. Raises CommandFailed."""
    database = settings.data.database
    try:
        match options.mode:
            case "backup":
                return _backup(database, options.user, options.to)
            case "verify":
                return _verify(options.file)
            case "doctor":
                return _doctor(database, options.user, as_json=options.json, mending=options.mend)
            case "rotate":
                return asyncio.run(_rotate(settings, options.user))
            case "restore":
                return _restore(database, options.file, options.name, replace=options.replace)
            case _:
                return _copy(database, options.to)
    except WrongSecret as error:
        raise CommandFailed(
            str(error)
            if isinstance(error, RecoveryCodeError)
            else "That is neither the passphrase nor the recovery code that opens it."
        ) from None
    except (StorageError, KdfUnavailable) as error:
        raise CommandFailed(str(error)) from None
    except VaultError as error:
        raise CommandFailed(f"The keys could not be opened ({type(error).__name__}).") from None
    except (KeyboardInterrupt, EOFError):
        raise CommandFailed("Stopped; nothing was changed.") from None


def ask_secret() -> str:
    """The passphrase or recovery code: typed unseen, or the first line of what is piped in."""
    if sys.stdin.isatty():
        return getpass.getpass(SECRET)
    line = sys.stdin.readline()
    if not line:
        raise CommandFailed("The passphrase or recovery code has to be typed, or piped in.")
    return line.rstrip("\r\n")


async def unlock(database: Path, name: str) -> tuple[User, Keyring]:
    """Ask for a writer's passphrase or recovery code and open their keys. Raises CommandFailed, WrongSecret."""
    if not await asyncio.to_thread(database.exists):
        raise CommandFailed(f"There is no journal at {database}.")
    db = await LocalDB.open(database)
    try:
        writers = await db.users.list_all()
        user = await db.users.find_by_name(name) if name else writers[0] if len(writers) == 1 else None
        if user is None:
            raise CommandFailed("There is no such writer here." if name else "Say whose with --user NAME.")
        secret = ask_secret()
        # Read after the secret was typed, which takes its time: the key may have been changed meanwhile.
        sealed = await db.users.keys(user.id)
        master = open_slots(user.id, await _slots(db, user), secret)
        keys = open_keyring(user.id, master, sealed)
    finally:
        await db.close()
    wipe(master)
    return user, keys


async def _slots(db: LocalDB, user: User) -> list[KeySlot]:
    """Read the user's slots and say which are spoiled: those must not keep the others from opening."""
    slots = await db.users.get_slots(user.id)
    for slot in slots:
        with suppress(BadParameters):
            if slot.kind != PASSPHRASE or slot.argon2:
                continue
        print(f"The {slot.kind} slot was changed by something other than Llamora and is not trusted.", file=sys.stderr)
    return slots


def _backup(database: Path, name: str, to: Path | None) -> int:
    user, keys = asyncio.run(unlock(database, name))
    target = (to or Path(f"{_file_name(user.name)}-{utc_now().date().isoformat()}{SUFFIX}")).absolute()
    if target.exists():
        raise CommandFailed(f"{target} is there already. Choose another name with --to.")
    manifest = write_backup(database, keys, target)
    keys.close()
    print(f"{target} holds {_in_words(manifest)}.")
    return 0


def _verify(file: Path) -> int:
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)
    print(f"Everything in it opens. It is of {manifest.name}, {_when(manifest.made)}, with {_in_words(manifest)}.")
    return 0


def _restore(database: Path, file: Path, name: str, *, replace: bool) -> int:
    header = read_header(file)
    keys = header.unlock(ask_secret())
    manifest = verify_backup(file, header, keys)  # before anything is made or copied
    run_db_migrations(database, resource("migrations"))
    if replace:
        copy = _copies(database) / f"{database.stem}-before-restore-{utc_now():%Y%m%d%H%M%S%f}.sqlite3"
        copy_database(database, copy)
        print(f"What was here is kept in {copy}.")
    restore_backup(database, file, header, keys, name=name, replace=replace)
    print(f"{name or manifest.name} is here again as {_when(manifest.made)}, with {_in_words(manifest)}.")
    print("The passphrase and the recovery code are those of that time.")
    return 0


def _copy(database: Path, to: Path | None) -> int:
    target = (to or _copies(database) / f"{database.stem}-{utc_now():%Y%m%d%H%M%S}.sqlite3").absolute()
    copy_database(database, target)
    print(f"{target} is a copy of the whole database, sealed as it is.")
    return 0


async def _rotate(settings: Settings, name: str) -> int:
    user, keys = await unlock(settings.data.database, name)
    db = await LocalDB.open(settings.data.database)
    try:
        rotation = Rotation(db)
        if await db.key_rotation.count_data_keys(user.id) == 1:  # else one was begun and not ended
            kept = await Backups(db, settings.backup, settings.data.folder).create(keys)
            print(f"What was here is kept in {kept}.")
            await rotation.start(keys)
        unreadable = await rotation.finish(keys)
    finally:
        await db.close()
    print(f"Everything of {user.name} is sealed under a new key, and the old one is erased. All sessions have ended.")
    if unreadable:
        print(f"{len(unreadable):,} records did not open and are left as they are; llamora-server doctor names them.")
    return 1 if unreadable else 0


def _doctor(database: Path, name: str, *, as_json: bool, mending: bool) -> int:
    if not database.exists():
        raise CommandFailed(f"There is no journal at {database}.")
    keys = asyncio.run(unlock(database, name))[1] if name else None
    report = run_checks(database, resource("migrations"), keys)
    if as_json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        _tell(report, name)
    if report.mendable and not as_json:
        print(f"It could {_listed(report.mendable)}, after a copy of the whole database.")
        mending = mending or (sys.stdin.isatty() and input("Do that now? [y/N] ").strip().lower() in ("y", "yes"))
    if not report.mendable or not mending:
        return 1 if report.damage else 0
    copy = _copies(database) / f"{database.stem}-before-mending-{utc_now():%Y%m%d%H%M%S%f}.sqlite3"
    copy_database(database, copy)
    done = repair(database, keys)
    after = run_checks(database, resource("migrations"), keys)
    if not as_json:
        print(f"What was here is kept in {copy}.", *done, *after.damage, sep="\n")
    return 1 if after.damage else 0


def _tell(report: Report, name: str) -> None:
    print(f"SQLite {report.sqlite}, {report.openssl}, schema {report.schema}.")
    print(f"Swap: {report.swap}; keys in memory: {report.memory}.")
    print("In force: " + ", ".join(f"{pragma}={value}" for pragma, value in report.pragmas.items()) + ".")
    for writer, counts in report.records.items():
        print(f"{writer}: " + (_listed([f"{n:,} {table}" for table, n in counts.items() if n]) or "nothing") + ".")
    if name and not report.damage:
        print(f"All {sum(report.opened.values()):,} records of {name} open.")
    print(*report.notes, *report.damage, sep="\n", end="\n" if report.notes or report.damage else "")
    print("Something is damaged." if report.damage else "Nothing is damaged.")


def _copies(database: Path) -> Path:
    return database.parent / "backups"


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-").lower() or "journal"


def _when(made: datetime) -> str:
    return f"{format_day(made.date())} at {made:%H:%M} UTC"


def _in_words(manifest: Manifest) -> str:
    counts = [
        f"{manifest.records[table]:,} {words[manifest.records[table] != 1]}"
        for table, words in WORDS.items()
        if manifest.records.get(table)
    ]
    said = _listed(counts) if counts else "nothing written yet"
    if manifest.unreadable:
        said += f", of which {manifest.unreadable:,} did not open when it was made and are in it as they were"
    return said


def _listed(parts: Sequence[str]) -> str:
    """Words with commas and an "and" between them."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
