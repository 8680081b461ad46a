"""A real store with one writer, search without meaning, and replies by a scripted model."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from llamora.events import Broker, ChangeSignal, Event, EventBus, Topic
from llamora.journal.context import UserContext
from llamora.journal.drafts import Drafts
from llamora.journal.entries import Journal
from llamora.journal.profile import Profile
from llamora.journal.replies import Replies
from llamora.journal.trash import Trash
from llamora.journal.versions import Versions
from llamora.journal.withholding import Withholding
from llamora.llm.model import Model
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.users import User
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import (
    EmbeddingSettings,
    EntrySettings,
    LlmSettings,
    SearchSettings,
    UpstreamSettings,
    resource,
)
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import NewKeys, create_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.scripted_model import ScriptedModel

DAY = date(2026, 11, 20)
KDF_FLOOR = Argon2Params(65536, 3, 4)


@pytest.fixture(scope="session")
def made() -> tuple[bytes, NewKeys]:
    user_id = secrets.token_bytes(16)
    return user_id, create_keys(user_id, "a passphrase for tests", KDF_FLOOR)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model


@dataclass
class Desk:
    """One process of a server: its parts, and the keys of a writer who is signed in."""

    db: LocalDB
    search: SearchService
    journal: Journal
    model: Model
    replies: Replies
    keys: Keyring

    def __post_init__(self) -> None:
        self.drafts = Drafts(self.db, EntrySettings())
        self.versions = Versions(self.db, self.journal)
        self.trash = Trash(self.db, self.journal, self.search, self.replies, EventBus())
        self.withholding = Withholding(self.db, self.journal, self.search, self.replies)

    @property
    def user(self) -> UserContext:
        return UserContext(self.keys, Profile(), DAY)

    async def write(self, text: str, day: date = DAY) -> Entry:
        return await self.journal.write(self.user, day, text)

    async def ask(self, entry: Entry) -> Entry:
        return await self.replies.ask(self.user, entry.id)

    async def load(self, entry: Entry) -> Entry:
        return await self.db.entries.get(self.keys, entry.id)

    async def wait_for(self, entry: Entry, predicate: Callable[[Entry], bool]) -> Entry:
        """Follow a reply up to the first state that satisfies."""
        state = None
        async for state, _ in self.replies.follow(self.keys, entry.id):
            if predicate(state):
                return state
        raise AssertionError(f"it never came so far: {state}")

    async def wait_until_stored(self, entry: Entry) -> Entry:
        """The reply as the store holds it, once it is no longer being written."""
        while (stored := await self.load(entry)).state == "streaming":  # noqa: ASYNC110 -- another process may write it
            await asyncio.sleep(0.01)
        return stored

    async def wait_until_ended(self, entry: Entry) -> Entry:
        return await self.wait_for(entry, lambda state: state.state != "streaming")

    async def close(self) -> None:
        await self.replies.close()
        await self.search.stop()
        await self.model.stop()
        await self.db.close()


async def open_desk(
    path: Path,
    made: tuple[bytes, NewKeys],
    model_url: str,
    worker_id: str = "first.0",
    events: EventBus | None = None,
    is_worker_alive: Callable[[str], bool] = lambda _: False,
    *,
    is_new: bool,
    **llm_overrides: object,
) -> Desk:
    """Open the store at `path`; with `is_new` the user of `made` is put into it first."""
    user_id, keys = made
    db = await LocalDB.open(path)
    if is_new:
        await db.users.add(
            User(user_id, "Writer", recovery_confirmed=True), keys.slots, keys.sealed
        )
    events = events or Broker({}).connect_in_memory()
    changes = ChangeSignal(events)
    db.on_commit(lambda: events.publish(Event(Topic.CHANGED)))
    embedder = Embedder(EmbeddingSettings(enabled=False), path.parent)
    search = SearchService(db, embedder, SearchSettings(), changes=changes)
    journal = Journal(db, search, EntrySettings())
    llm = LlmSettings(embedded=False, upstream=UpstreamSettings(host=model_url), **llm_overrides)  # type: ignore[arg-type]
    model = Model(llm)
    replies = Replies(
        db,
        journal,
        search,
        model,
        worker_id,
        changes=changes,
        is_worker_alive=is_worker_alive,
    )
    desk = Desk(
        db,
        search,
        journal,
        model,
        replies,
        open_keyring(user_id, keys.master, keys.sealed),
    )
    await search.start()
    desk.keys.hold()  # as a session does
    await search.unlock(desk.keys)
    model.start()
    return desk


@pytest.fixture
async def desks(
    tmp_path: Path, made: tuple[bytes, NewKeys], scripted: ScriptedModel
) -> AsyncIterator[Callable[..., "object"]]:
    """Opens a desk; a second one on the same store is another worker, with another `boot` the server started again."""
    path = tmp_path / "journal.sqlite3"
    run_db_migrations(path, resource("migrations"))
    open_desks: list[Desk] = []
    broker = Broker({})

    async def make(run_id: str = "first", **llm_overrides: object) -> Desk:
        worker_id = f"{run_id}.{len(open_desks)}"  # of the worker, in a run of the server
        desk = await open_desk(
            path,
            made,
            scripted.url,
            worker_id,
            broker.connect_in_memory(),
            lambda other: other != worker_id and other.startswith(f"{run_id}."),
            is_new=not open_desks,
            **llm_overrides,
        )
        open_desks.append(desk)
        return desk

    yield make
    for desk in reversed(open_desks):
        await desk.close()


@pytest.fixture
async def desk(desks: Callable[..., object]) -> Desk:
    return await desks()  # type: ignore[misc,no-any-return]
