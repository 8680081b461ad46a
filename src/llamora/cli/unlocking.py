"""Ask for a secret and open the keys of a user, for the commands beside the server."""

import asyncio
import getpass
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from llamora.errors import Problem
from llamora.persistence.local_db import LocalDB
from llamora.persistence.users import User
from llamora.vault.envelope import VaultError
from llamora.vault.kdf import BadParameters, KdfUnavailable
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.memory import wipe
from llamora.vault.recovery_code import RecoveryCodeError, WrongSecret
from llamora.vault.slots import PASSPHRASE, KeySlot, open_slots

SECRET_PROMPT = "Passphrase or recovery code: "  # noqa: S105 -- the question, not the answer


class CommandError(Problem):
    """A command did nothing; the message says why."""


@contextmanager
def explain_errors() -> Generator[None]:
    """Raise CommandError for what the vault says of a secret, and for an interruption."""
    try:
        yield
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
