"""A real store in a folder of its own, with two writers and their keys."""

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.entries import Entry
from llamora.persistence.users import User
from llamora.settings import resource
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import Keyring, SealedKeys, open_keyring

DAY = date(2026, 11, 20)
AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def new_keys() -> tuple[Keyring, SealedKeys]:
    """Keys of a new writer; no slot is made, so no KDF is waited for."""
    user_id, master = secrets.token_bytes(16), os.urandom(32)
    sealed = seal_new_keys(user_id, master)
    return open_keyring(user_id, master, sealed), sealed


async def new_user(db: LocalDB, name: str) -> Keyring:
    keys, sealed = new_keys()
    await db.users.add(User(keys.user_id, name, recovery_confirmed=False), [], sealed)
    return keys


def entry(text: str = "a line", day: date = DAY, **fields: Any) -> Entry:
    """An entry as the writer would make it; `minute` moves its time on."""
    at = AT + timedelta(minutes=fields.pop("minute", 0))
    return Entry(
        secrets.token_bytes(16), day, fields.pop("role", "me"), text, at, "Europe/Berlin", **fields
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A migrated database."""
    database = tmp_path / "journal" / "llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    return database


@pytest.fixture
async def db(path: Path) -> AsyncIterator[LocalDB]:
    store = await LocalDB.open(path)
    yield store
    await store.close()


@pytest.fixture
async def keys(db: LocalDB) -> Keyring:
    return await new_user(db, "Alice")


@pytest.fixture
async def other(db: LocalDB) -> Keyring:
    return await new_user(db, "Bob")


@pytest.fixture
def raw(path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs one statement on the bare file, as a thief or a failing disk would."""

    def run(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return run


@pytest.fixture
def damage(raw: Callable[..., list[tuple[Any, ...]]]) -> Callable[[str], None]:
    """Flips a bit in the last byte of every sealed record of a table."""

    def flip(table: str) -> None:
        for (sealed,) in raw(f"SELECT sealed FROM {table}"):
            raw(
                f"UPDATE {table} SET sealed=? WHERE sealed=?",
                sealed[:-1] + bytes([sealed[-1] ^ 1]),
                sealed,
            )

    return flip
