"""What a stolen database shows, held to the list that docs/security.md publishes."""

import re
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llamora.app import create_app
from llamora.journal.context import UserContext
from llamora.journal.profile import Profile
from llamora.journal.throttle import FREE_ATTEMPTS, stranger
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.vectors import EntryVectors
from llamora.settings import (
    CryptoSettings,
    DataSettings,
    EmbeddingSettings,
    LlmSettings,
    Settings,
    resource,
)
from tests.persistence.conftest import AT, DAY

PAGE = Path(__file__).parents[2] / "docs/security.md"
NAME = "Quokka Quentin"
PASSPHRASE = "seven quiet herons over the weir"


def listed() -> dict[tuple[str, str], str]:
    """The published list: what each (table, column) shows."""
    part = PAGE.read_text(encoding="utf-8").partition("\n## What a stolen database shows\n")[2]
    rows = re.findall(r"^\| (\w+) \| (\w+) \| ([^|]+) \|$", part, re.MULTILINE)
    return {(table, column): shows for table, column, shows in rows if table != "table"}


def columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    tables = [
        row[0]
        for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        )
    ]
    return {
        (table, row[1])
        for table in tables
        for row in connection.execute(f"PRAGMA table_xinfo({table})")
    }


def padme(size: int) -> int:
    """The padded size of docs/encryption.md."""
    if size <= 256:
        return 256
    exponent = size.bit_length() - 1
    low = (1 << (exponent - exponent.bit_length())) - 1
    return (size + low) & ~low


def is_envelope(value: Any) -> bool:
    body = len(value) - 90
    return bytes(value[:4]) == b"LL\x01\x01" and body >= 256 and padme(body) == body


def _is(pattern: str) -> Callable[[Any], bool]:
    return lambda value: re.fullmatch(pattern, str(value)) is not None


def _bytes(length: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, bytes) and len(value) == length


# What a value may look like that shows this and nothing else.
SHAPES: dict[str, Callable[[Any], bool]] = {
    "random": _bytes(16),
    "owner": _bytes(16),
    "keyed hash": _bytes(32),
    "hash of a random token": _bytes(32),
    "part of a hash": lambda value: isinstance(value, bytes) and len(value) in (2, 9),
    "salt": _bytes(32),
    "sealed": is_envelope,
    "sealed to a key of the slot": lambda value: (
        bytes(value[:4]) == b"LL\x01\x02" and len(value) == 1210
    ),
    "epoch": _is("[12]"),
    "revision": _is("[1-9]"),
    "place from the random id": lambda value: isinstance(value, int),
    "name": lambda value: value in (NAME, NAME.casefold()),
    "flag": _is("[01]"),
    "day of the last sign-in": _is(r"\d{4}-\d\d-\d\d"),
    "failed attempts": _is(r"[1-9]\d{0,3}"),
    "day of the last one": _is(r"\d{4}-\d\d-\d\d"),
    "kind of slot": _is("passphrase|recovery"),
    "cost of the KDF": _is(r"m=\d+,t=\d+,p=\d+"),
    "end of a session": _is(r"\d{10}"),
    "fact": _is(r"kdf|m=\d+,t=\d+,p=\d+"),
    "number of a part": _is(r"-1|\d+"),
    "migration": _is(r"\d+|[a-z-]+|[0-9a-f]{64}|\d{4}-\d\d-\d\d"),
}


def test_the_list_is_the_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert columns(connection) == set(listed())
        # A column that somebody adds is noticed.
        connection.execute("ALTER TABLE entries ADD COLUMN mood TEXT")
        assert columns(connection) - set(listed()) == {("entries", "mood")}
    assert set(listed().values()) == set(SHAPES)


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A database with a row in every table, a session still open."""
    settings = Settings(
        data=DataSettings(tmp_path / "data", tmp_path / "cache"),
        crypto=CryptoSettings(kdf_target_ms=0),
        llm=LlmSettings(enabled=False),
        embedding=EmbeddingSettings(enabled=False),
    )
    path = settings.data.database
    run_db_migrations(path, resource("migrations"))
    services = create_app(settings).extensions["llamora"]
    db: LocalDB = services.db
    await db.open_connections()
    user, keys, _ = await services.accounts.register(NAME, PASSPHRASE, "Europe/Berlin")
    await services.sessions.open_session(user, keys, "Firefox on Linux")
    context = UserContext.now(keys, Profile())
    made = [
        await services.journal.write(context, DAY, f"quokka {'x' * size}")
        for size in (1, 500, 40_000)
    ]
    await services.journal.edit(keys, made[0].id, "quokka two", 1)
    await services.trash.delete(keys, made[1].id)
    await db.tags.add(keys, made[0].id, "quokka")
    await db.tags.remove(keys, made[0].id, await db.tags.add(keys, made[0].id, "wombat"))
    await db.tags.refuse_suggestions(keys, made[0].id, ["numbat"])
    await db.vectors.save(keys, [EntryVectors(made[0].id, 2, "m", 96, secrets.token_bytes(384))])
    await db.search_history.add(keys, "quokka", AT)
    await db.drafts.save(
        keys, Draft(day_draft_key(DAY), "quokka", secrets.token_bytes(16), 1), None
    )
    await db.summaries.save(
        keys, StoredSummary("recap", DAY, "quokka", (made[0].id,), "ab" * 32, "m")
    )
    await services.search.unlock(keys)
    await services.search.wait_until_idle(user.id)
    assert await services.search.save_snapshot(user.id)
    await db.snapshots.begin(keys)  # one that is being written
    for _ in range(FREE_ATTEMPTS):
        await services.throttle.record_attempt(stranger(NAME, "203.0.113.1"))
    await db.known_devices.remember(user.id, secrets.token_bytes(32), DAY)
    await services.throttle.close()
    await db.checkpoint()
    services.search.lock(user.id)
    await db.close()
    return path


async def test_every_value_is_what_the_list_says(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        for (table, column), shows in listed().items():
            values = [row[0] for row in connection.execute(f"SELECT {column} FROM {table}")]
            assert values, f"no row of {table} was made"
            for value in values:
                if value is not None:
                    assert SHAPES[shows](value), f"{table}.{column} shows more than {shows}"
        assert {row[0] for row in connection.execute("SELECT rid = 0 FROM entries")} == {0}


async def test_hashes_cannot_be_guessed_without_the_key(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        days = {row[0] for row in connection.execute("SELECT day FROM entries")}
        traces = {row[0] for row in connection.execute("SELECT tag FROM tags")}
        (owner,) = connection.execute("SELECT id FROM users").fetchone()
    assert len(days) == 1  # which records share a day is shown
    for text in (date.isoformat(DAY), "quokka"):
        guess = text.encode()
        assert not (days | traces) & {
            sha256(prefix + guess).digest() for prefix in (b"", owner, b"day", b"trace")
        }


async def test_the_place_in_the_file_says_nothing_of_time(filled: Path) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        for table, column in (("entries", "id"), ("vectors", "entry_id"), ("versions", "id")):
            for rid, random in connection.execute(f"SELECT rid, {column} FROM {table}"):
                assert rid == int.from_bytes(random[:8], "big") >> 1


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 8
    assert {name for name in named if not (PAGE.parents[1] / name).is_file()} == set()
