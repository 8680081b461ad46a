"""What all torture shares: users and journals, processes that are killed, counts of what was found after it.

What several kinds of torture need of Llamora's own modules is imported here, so that a move there is followed in one
place.
"""

import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from llamora.events import EventBus
from llamora.journal.accounts import Accounts
from llamora.journal.sessions import Sessions
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.users import User
from llamora.settings import CryptoSettings, SessionSettings, resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import NewKeys, create_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.server_process import HttpUser, Server

WORD = "quokkasaurus"
"""In every text and tag: no file may hold it."""
PASSPHRASE = "seven quiet herons over the weir"
FOREVER = 1e9  # seconds
KDF_FLOOR = Argon2Params(65536, 3, 4)
WITHOUT_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}

Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(slots=True)
class Totals:
    """Count kills (or cuts) by kind, and what was found after them."""

    kills: Counter[str] = field(default_factory=Counter[str])
    found: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])

    def add(self, kind: str, **counts: int) -> None:
        """Count one kill and what was found after it."""
        self.kills[kind] += 1
        self.found.update(counts)
        for name in ("lost", "half", "damaged"):
            if counts.get(name):
                self.errors[f"{name} in {kind}"] += counts[name]

    def figures(self) -> dict[str, int]:
        """Return what was found, by name."""
        names = ("acknowledged", "lost", "half", "damaged", "plain", "files")
        return {name: self.found[name] for name in names}


def any_of(*names: str) -> Callable[[dict[str, Any]], bool]:
    """Return what tells whether one of these figures is not zero (or not empty)."""
    return lambda result: any(result.get(name) for name in names)


def rounds(count: int, seconds: float = FOREVER) -> Iterator[int]:
    """Yield the numbers of so many rounds, or of as many as are begun within `seconds`."""
    deadline = monotonic() + seconds
    for number in range(count):
        if monotonic() > deadline:
            return
        yield number


def run_threads(work: Iterable[Callable[[], object]]) -> list[threading.Thread]:
    """Begin all of it at once; returns the threads, to be joined."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads: Iterable[threading.Thread]) -> None:
    """Wait for the end of all."""
    for thread in threads:
        thread.join()


# -- the store -------------------------------------------------------------------------------------


def new_database(path: Path) -> Path:
    """Make a database of the newest schema, or bring one there."""
    run_db_migrations(path, resource("migrations"))
    return path


@asynccontextmanager
async def opened(database: Path) -> AsyncIterator[LocalDB]:
    """Open a database as a server does."""
    db = await LocalDB.open(database)
    try:
        yield db
    finally:
        await db.close()


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user of the store with their keys as they were made, and opened."""

    user: User
    new_keys: NewKeys
    keys: Keyring


async def add_user(db: LocalDB, name: str, *, recovery_confirmed: bool = True) -> NewUser:
    """Add a user whose passphrase is PASSPHRASE, on the floor of the KDF."""
    user = User(secrets.token_bytes(16), name, recovery_confirmed=recovery_confirmed)
    new_keys = create_keys(user.id, PASSPHRASE, KDF_FLOOR)
    await db.users.add(user, new_keys.slots, new_keys.sealed)
    return NewUser(user, new_keys, open_keyring(user.id, new_keys.master, new_keys.sealed))


def fetch(database: Path, sql: str, values: Sequence[object] = ()) -> list[Any]:
    """Read rows past the program."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, values).fetchall()


def execute(database: Path, sql: str, values: Sequence[object] = ()) -> None:
    """Change rows past the program."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql, values)


def table_rows(database: Path, tables: Iterable[str], where: str = "", *values: object) -> Rows:
    """Return every row of tables, in one order."""
    return {
        table: sorted(fetch(database, f"SELECT * FROM {table} {where}", values), key=repr)  # noqa: S608
        for table in tables
    }


def all_rows(database: Path) -> Rows:
    """Return every row of every table, without the migration log."""
    tables = [
        name for (name,) in fetch(database, "SELECT name FROM sqlite_master WHERE type='table'")
    ]
    return table_rows(database, (name for name in tables if name != "schema_migrations"))


def read_schema(database: Path) -> list[tuple[str, str]]:
    """Return the statements that made a database, by name."""
    return fetch(database, "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")


def newest_schema() -> list[tuple[str, str]]:
    """Return those of the newest schema."""
    folder = Path(tempfile.mkdtemp(prefix="newest-"))
    try:
        return read_schema(new_database(folder / "newest.sqlite3"))
    finally:
        shutil.rmtree(folder)


# -- a server --------------------------------------------------------------------------------------


def kill(server: Server) -> None:
    """Send SIGKILL to a server and wait for its end."""
    assert server.process is not None
    server.process.kill()
    server.process.wait()


def database_of(server: Server) -> Path:
    """Return the file of a server's journals."""
    return server.data / "llamora.sqlite3"


@asynccontextmanager
async def beside(server: Server, user: HttpUser) -> AsyncIterator[tuple[LocalDB, Keyring]]:
    """Open a user's journal by their passphrase beside the running server."""
    async with opened(database_of(server)) as db:
        sessions = Sessions(db, SessionSettings(), b"x" * 32, EventBus())
        accounts = Accounts(db, CryptoSettings(kdf_target_ms=0), sessions)
        _, keys = await accounts.sign_in(user.name, user.passphrase)
        yield db, keys


def sign_in_again(server: Server, user: HttpUser) -> None:
    """Start a server that was killed, and sign in."""
    server.start()
    user.http.cookies.clear()
    assert user.sign_in().status_code == 303
