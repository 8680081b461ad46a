"""A real store with two writers, a real embedding model, and a search service over both."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.users import User
from llamora.search.embedder import Embedder
from llamora.search.index import UserIndex
from llamora.search.results import SearchResults
from llamora.search.service import SearchService
from llamora.settings import EmbeddingSettings, SearchSettings, resource
from llamora.text import Role
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import NewKeys, create_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.search.documents import TODAY


@pytest.fixture
def index() -> Iterator[UserIndex]:
    """An index that compares all vectors."""
    made = UserIndex(graph_above=10**9)
    yield made
    made.close()


@pytest.fixture(scope="session")
def embedder(cache: Path) -> Iterator[Embedder]:
    """The packaged model, loaded once."""
    model = Embedder(EmbeddingSettings(), cache)
    asyncio.run(model.warm_up())
    assert model.is_ready, model.reason
    yield model
    asyncio.run(model.close())


@pytest.fixture(scope="session")
def made_keys() -> list[tuple[bytes, NewKeys]]:
    """Keys of two writers; deriving them takes a moment."""
    users = [secrets.token_bytes(16) for _ in range(2)]
    return [
        (user, create_keys(user, "a passphrase for tests", Argon2Params(65536, 3, 4)))
        for user in users
    ]


@dataclass
class Desk:
    """A writer's store and search."""

    db: LocalDB
    service: SearchService
    keys: Keyring
    other_keys: Keyring
    embedder: Embedder
    path: Path

    async def write(
        self,
        text: str,
        day: date = TODAY,
        role: Role = "me",
        keys: Keyring | None = None,
        state: str = "done",
    ) -> Entry:
        keys = keys or self.keys
        at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        entry = Entry(secrets.token_bytes(16), day, role, text, at, "UTC", state=state)  # type: ignore[arg-type]
        await self.db.entries.add(keys, entry)
        self.service.put(keys, entry)
        return entry

    async def wait_until_found(self, query: str, ids: list[bytes]) -> None:
        """Ask until just these are found: a search waits for what others wrote, but for a moment only."""
        async with asyncio.timeout(60):
            while await self.search_ids(query) != ids:  # noqa: ASYNC110 -- nothing tells of it
                await asyncio.sleep(0.01)

    async def wait_ready(self, keys: Keyring | None = None) -> None:
        keys = keys or self.keys
        await self.service.unlock(keys)
        await self.service.wait_until_idle(keys.user_id)

    async def search(
        self, query: str, keys: Keyring | None = None, limit: int = 20, offset: int = 0
    ) -> SearchResults:
        return await self.service.search(
            keys or self.keys, query, today=TODAY, limit=limit, offset=offset
        )

    async def search_ids(self, query: str, keys: Keyring | None = None) -> list[bytes]:
        return [hit.entry_id for hit in (await self.search(query, keys)).hits]


@pytest.fixture
async def desks(
    tmp_path: Path, embedder: Embedder, made_keys: list[tuple[bytes, NewKeys]]
) -> AsyncIterator[Callable[..., Awaitable[Desk]]]:
    """Opens a store; more than one desk may stand before the same one, as worker processes do."""
    opened: list[Desk] = []
    path = tmp_path / "journal.sqlite3"
    run_db_migrations(path, resource("migrations"))

    async def make(model: Embedder = embedder, settings: SearchSettings = SearchSettings()) -> Desk:  # noqa: B008
        db = await LocalDB.open(path)
        if not opened:
            for index, (user, new_keys) in enumerate(made_keys):
                await db.users.add(
                    User(user, f"writer {index}", recovery_confirmed=True),
                    new_keys.slots,
                    new_keys.sealed,
                )
        keys, other = (
            open_keyring(user, new_keys.master, new_keys.sealed) for user, new_keys in made_keys
        )
        service = SearchService(db, model, settings)
        await service.start()
        opened.append(Desk(db, service, keys, other, model, path))
        return opened[-1]

    yield make
    for desk in opened:
        await desk.service.stop()
        await desk.db.close()


@pytest.fixture
async def desk(desks: Callable[..., Awaitable[Desk]]) -> Desk:
    return await desks()
