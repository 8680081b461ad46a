"""An app as a test wants it, on a copy of one journal in which Alice, Bob and Charlie have registered already."""

import asyncio
import html
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, Response
from quart.typing import TestAppProtocol

from llamora.app import create_app
from llamora.app.services.container import EXTENSION
from llamora.journal.context import UserContext
from llamora.journal.profile import Profile
from llamora.persistence.users import User, Users
from llamora.services import AppServices, SharedState, create_broker
from llamora.settings import (
    CryptoSettings,
    DataSettings,
    EmbeddingSettings,
    LlmSettings,
    Settings,
    UpstreamSettings,
)
from llamora.vault.keys import Keyring, open_keyring
from llamora.vault.slots import open_slots
from tests.scripted_model import ScriptedModel

PASSPHRASE = "correct horse battery staple 42"
NAMES = ("Alice", "Bob", "Charlie")
ENTRY_ID = re.compile(r'<(?:article|div) id="e-([0-9a-f]{32})"')


def settings_in(folder: Path) -> Settings:
    """Real parts on the floor of the KDF, without any model."""
    return Settings(
        data=DataSettings(folder=folder, cache=folder / "cache"),
        crypto=CryptoSettings(kdf_target_ms=0),
        llm=LlmSettings(enabled=False),
        embedding=EmbeddingSettings(enabled=False),
    )


def settings_for_model(model: ScriptedModel) -> LlmSettings:
    return LlmSettings(embedded=False, upstream=UpstreamSettings(host=model.url))


@dataclass
class Account:
    user: User
    keys: Keyring
    recovery_code: str


async def keys_of(users: Users, account: Account) -> Keyring:
    """The keys of an account as they are stored now, by its recovery code: that costs no KDF."""
    master = open_slots(
        account.user.id, await users.get_slots(account.user.id), account.recovery_code
    )
    return open_keyring(account.user.id, master, await users.keys(account.user.id))


@dataclass
class Journal:
    """A folder with a database, and who can open it."""

    folder: Path
    accounts: dict[str, Account]


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    """Registered once, for every test of a run: the KDF is meant to be slow."""
    folder = tmp_path_factory.mktemp("registered")

    async def register() -> dict[str, Account]:
        app = create_app(settings_in(folder))
        async with app.test_app():
            accounts = app.extensions[EXTENSION].accounts
            accounts_made: dict[str, Account] = {}
            for name in NAMES:
                user, keys, code = await accounts.register(name, PASSPHRASE, "Europe/Berlin")
                accounts_made[name] = Account(user, keys, code)
            return accounts_made

    return Journal(folder, asyncio.run(register()))


@dataclass
class PageResponse:
    """A response with its body read."""

    response: Response
    body: bytes

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def visible_text(self) -> str:
        """What a person reads: no tags, no entities, single spaces."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.text)).split())

    @property
    def headers(self) -> Any:
        return self.response.headers

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")

    @property
    def error_sentence(self) -> str:
        """The first sentence that says what went wrong."""
        match = re.search(r'(?:role="alert"[^>]*|id="what-happened")>([^<]+)<', self.text)
        return html.unescape(match[1]).strip() if match else ""

    def field(self, name: str) -> str:
        """What stands in a textarea."""
        match = re.search(
            rf'<textarea[^>]*(?:name|id)="{name}"[^>]*>\n?(.*?)</textarea>', self.text, re.DOTALL
        )
        assert match is not None, f"no field {name}"
        return html.unescape(match[1])

    @property
    def ids(self) -> list[str]:
        return ENTRY_ID.findall(self.text)


@dataclass
class Visitor:
    """A browser without JavaScript that speaks to an app directly."""

    app: Quart
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def cookie(self, name: str) -> str:
        assert self.client.cookie_jar is not None
        return next(
            (str(cookie.value) for cookie in self.client.cookie_jar if cookie.name == name), ""
        )

    def set_cookie(self, name: str, value: str) -> None:
        self.client.set_cookie("localhost", name, value)

    async def get(
        self, path: str, *, fragment: bool = False, headers: Mapping[str, str] | None = None
    ) -> PageResponse:
        request_headers = {
            **self.headers,
            **({"HX-Request": "true"} if fragment else {}),
            **(headers or {}),
        }
        response = await self.client.get(path, headers=request_headers, scheme=self.scheme)
        return PageResponse(response, await response.get_data(as_text=False))

    async def post(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        *,
        fragment: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> PageResponse:
        """Post a form with the token that a page of ours would have put into it."""
        if not self.cookie("llamora_csrf"):
            await self.get("/sign-in")
        request_headers = {
            **self.headers,
            **({"HX-Request": "true"} if fragment else {}),
            **(headers or {}),
        }
        form = {"csrf": self.cookie("llamora_csrf"), **(form or {})}
        response = await self.client.post(
            path, form=form, headers=request_headers, scheme=self.scheme
        )
        return PageResponse(response, await response.get_data(as_text=False))

    async def sign_in(
        self, name: str = "Alice", passphrase: str = PASSPHRASE, **more: str
    ) -> PageResponse:
        return await self.post("/sign-in", {"name": name, "passphrase": passphrase, **more})

    async def write(self, text: str, day: str = "2026-11-20") -> str:
        """Keep an entry and return its id."""
        response = await self.post(f"/d/{day}/entries", {"text": text}, fragment=True)
        assert response.status == 200, response.text
        return response.ids[0]

    async def add_answer(self, to: str, text: str) -> str:
        response = await self.post(f"/e/{to}/answers", {"text": text}, fragment=True)
        assert response.status == 200, response.text
        return response.ids[0]

    async def follow(self, reply: str, shown: int = -1) -> str:
        """Return what the stream of a browser tells of a reply until it is done or the stream ends."""
        path, heard = f"/session/events?reply={reply}-{shown}", b""
        async with self.client.request(path, headers=dict(self.headers)) as stream:
            await stream.send_complete()
            while piece := await stream.receive():
                heard += piece
                if piece.startswith(b"event: done"):
                    break
            await stream.disconnect()
        told = heard.decode().split("\n\n")[:-1]
        return "".join(f"{each}\n\n" for each in told if re.match("event: (reply|done)", each))

    async def ask_for_reply(self, entry: str) -> str:
        """Ask for a reply to an entry, and return its id once it has ended."""
        response = await self.post(f"/e/{entry}/replies", fragment=True)
        assert response.status == 200, response.visible_text
        await self.follow(response.ids[0])
        return response.ids[0]


@dataclass
class RunningApp:
    """An app that serves."""

    app: Quart
    test_app: TestAppProtocol
    accounts: dict[str, Account]

    @property
    def services(self) -> AppServices:
        return self.app.extensions[EXTENSION]

    def keys(self, name: str = "Alice") -> Keyring:
        return self.accounts[name].keys

    def user(self, name: str = "Alice", **profile: Any) -> UserContext:
        return UserContext.now(self.keys(name), Profile(**profile))

    def anonymous(self, headers: Mapping[str, str] | None = None, scheme: str = "http") -> Visitor:
        """Somebody who is not signed in."""
        return Visitor(self.app, headers or {}, scheme)

    async def visitor(
        self, name: str = "Alice", headers: Mapping[str, str] | None = None
    ) -> Visitor:
        """Somebody who is signed in; their keys are at hand, so that no KDF is waited for."""
        account = self.accounts[name]
        # Their own: keys are overwritten when the last session ends.
        keys = await keys_of(self.services.db.users, account)
        cookie, _ = await self.services.sessions.open_session(account.user, keys)
        visitor = self.anonymous(headers)
        visitor.set_cookie("llamora", cookie)
        await visitor.get("/search")  # the first page brings the token
        return visitor

    async def stop(self) -> None:
        await self.test_app.shutdown()


def worker_states(count: int) -> list[SharedState]:
    """What the workers of one server share; in one process, with a broker all the same."""
    secret, broker = secrets.token_bytes(32), create_broker(Settings())
    return [
        SharedState(secret, broker.connect_in_memory(number), worker_number=number)
        for number in range(1, count + 1)
    ]


Start = Callable[..., Awaitable[RunningApp]]


@pytest.fixture
async def start(registered: Journal, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts apps on one copy of the journal: again after `stop`, or with other settings."""
    folder = tmp_path / "data"
    shutil.copytree(registered.folder, folder)
    running_apps: list[RunningApp] = []

    async def start_app(
        reload: bool = False, shared: SharedState | None = None, **sections: object
    ) -> RunningApp:
        settings = replace(settings_in(folder), **sections)  # type: ignore[arg-type]
        app = create_app(settings, reload=reload, shared=shared)
        test_app = app.test_app()
        await test_app.startup()
        # Keys of their own for each app: one test may lock them, and the next begins with them.
        users = app.extensions[EXTENSION].db.users
        accounts = {
            name: replace(known, keys=await keys_of(users, known))
            for name, known in registered.accounts.items()
        }
        running_apps.append(RunningApp(app, test_app, accounts))
        return running_apps[-1]

    yield start_app
    for running_app in reversed(running_apps):
        await running_app.stop()


@pytest.fixture
async def app(start: Start) -> RunningApp:
    return await start()


@pytest.fixture
async def alice(app: RunningApp) -> Visitor:
    return await app.visitor()


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel() as model:
        yield model
