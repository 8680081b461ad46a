"""What a route declares, on routes that only this app has."""

import asyncio
from pathlib import Path

import httpx
import pytest
from quart import Response

from llamora.app.edge import bodies
from llamora.app.edge.forms import form_field
from llamora.app.edge.rules import (
    FORM_TYPES,
    accepts,
    large_body,
    public,
    rules_of,
    signed_out,
)
from tests.app.conftest import RunningApp, Start, Visitor
from tests.conftest import HttpUser, Server

AUDIO = b"\0\xffRIFF" * 2_000


async def send(
    visitor: Visitor, path: str, body: bytes, content_type: str, **headers: str
) -> Response:
    await visitor.get("/sign-in")  # brings the cookie with the token
    return await visitor.client.post(
        path,
        data=body,
        headers={
            "Host": "localhost",
            "Content-Type": content_type,
            "X-CSRF-Token": visitor.cookie("llamora_csrf"),
            **headers,
        },
    )


@pytest.fixture
async def extended(start: Start) -> RunningApp:
    running = await start()

    @running.app.post("/voice")
    @accepts("audio/webm", max_bytes=100_000)
    async def voice() -> str:  # pyright: ignore[reportUnusedFunction] -- a route
        chunks = [chunk async for chunk in bodies.stream()]
        return f"{len(b''.join(chunks))} bytes"

    @running.app.post("/long")
    @large_body
    async def long() -> str:  # pyright: ignore[reportUnusedFunction] -- a route
        return f"{len(await form_field('text'))} letters"

    @running.app.get("/poster")
    @public
    async def poster() -> str:  # pyright: ignore[reportUnusedFunction] -- a route
        return "for everybody"

    @running.app.get("/door")
    @signed_out
    async def door() -> str:  # pyright: ignore[reportUnusedFunction] -- a route
        return "come in"

    @running.app.get("/room")
    async def room() -> str:  # pyright: ignore[reportUnusedFunction] -- a route
        return "yours"

    return running


async def test_a_route_may_take_another_body_as_a_stream(extended: RunningApp) -> None:
    alice = await extended.visitor()
    taken = await send(alice, "/voice", AUDIO, "audio/webm")
    assert await taken.get_data(as_text=True) == f"{len(AUDIO)} bytes"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/voice", "application/x-www-form-urlencoded"),
        ("/voice", "multipart/form-data; boundary=x"),
        ("/long", "audio/webm"),
        ("/long", "application/json"),
    ],
)
async def test_a_body_that_a_route_did_not_declare_is_refused(
    extended: RunningApp, path: str, content_type: str
) -> None:
    alice = await extended.visitor()
    assert (await send(alice, path, b"a=b", content_type)).status_code == 415


async def test_another_body_needs_the_token_in_its_header(extended: RunningApp) -> None:
    alice = await extended.visitor()
    refused = await send(alice, "/voice", b"csrf=", "audio/webm", **{"X-CSRF-Token": "none"})
    assert refused.status_code == 403
    stranger = extended.anonymous()
    assert (await send(stranger, "/voice", AUDIO, "audio/webm")).status_code == 401


@pytest.mark.parametrize(("path", "status"), [("/voice", 413), ("/long", 200), ("/search", 413)])
async def test_the_size_of_a_body_is_that_of_its_route(
    extended: RunningApp, path: str, status: int
) -> None:
    alice = await extended.visitor()
    content_type = "audio/webm" if path == "/voice" else "application/x-www-form-urlencoded"
    answer = await send(alice, path, b"text=" + b"a" * 100_000, content_type)
    assert answer.status_code == status


async def test_a_stream_without_a_length_ends_at_its_limit(extended: RunningApp) -> None:
    alice = await extended.visitor()
    headers = {
        "Host": "localhost",
        "Content-Type": "audio/webm",
        "X-CSRF-Token": alice.cookie("llamora_csrf"),
        "Cookie": f"llamora={alice.cookie('llamora')}",
    }
    async with alice.client.request("/voice", method="POST", headers=headers) as connection:
        for _ in range(3):
            await connection.send(b"a" * 40_000)
            await asyncio.sleep(0.05)  # each piece is read before the next comes
        await connection.send_complete()
    assert (await connection.as_response()).status_code == 413


async def test_a_route_without_a_word_is_for_those_who_are_signed_in(
    extended: RunningApp,
) -> None:
    alice, stranger = await extended.visitor(), extended.anonymous()
    assert (await alice.get("/room")).text == "yours"
    assert (await stranger.get("/room")).location == "/sign-in"
    assert (await stranger.get("/door")).text == "come in"
    for visitor in (alice, stranger):
        poster = await visitor.get("/poster")
        assert poster.text == "for everybody"
        assert "Set-Cookie" not in poster.headers
        assert "Cache-Control" not in poster.headers


DECLARED = {
    "public": {
        "healthz",
        "assets.static",
        "assets.service_worker",
        "assets.favicon",
        "help.show_offline",
    },
    "signed_out": {
        "auth.home",
        "auth.register_page",
        "auth.register",
        "auth.rate_passphrase",
        "auth.sign_in_page",
        "auth.sign_in",
        "auth.sign_out",
        "auth.session_events",
        "auth.reset_page",
        "auth.reset",
    },
    "begins_session": {"auth.register", "auth.sign_in", "auth.reset"},
    "background": {"auth.session_events", "days.show_entries"},
}
LARGE = {
    "days.create_entry",
    "days.create_entry_today",
    "drafts.save_draft",
    "entries.edit_entry",
    "entries.add_answer",
}


async def test_routes_open_no_more_than_is_listed(app: RunningApp) -> None:
    rules = {name: rules_of(view) for name, view in app.app.view_functions.items()}
    assert len(rules) > 60
    for name, endpoints in DECLARED.items():
        assert {each for each, rule in rules.items() if getattr(rule, name)} == endpoints, name
    assert {each for each, rule in rules.items() if rule.max_bytes is None} == LARGE
    assert all(rule.body_types == FORM_TYPES for rule in rules.values())


def test_a_server_for_people_by_its_names_and_closed_once_it_has_one(
    tmp_path: Path, cache: Path
) -> None:
    hosts = "localhost,127.0.0.1,journal_one.example"
    env = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_SERVER__HOSTS": hosts}
    server = Server(tmp_path, cache, mode="prod", env=env).start()
    try:
        port = server.url.rpartition(":")[2]
        names = {
            **dict.fromkeys((f"localhost.:{port}", "LOCALHOST", "journal_one.example:80"), 200),
            **dict.fromkeys(("elsewhere.example", "localhost..", "journal_one.example.evil"), 400),
        }
        found = {
            name: httpx.get(server.url + "/sign-in", headers={"Host": name}).status_code
            for name in names
        }
        assert found == names
        HttpUser(server.url).register()
        second = HttpUser(server.url, name="Second")
        answer = second.post(
            "/register", {"name": "Second", "passphrase": second.passphrase, "zone": "UTC"}
        )
        assert answer.status_code == 403
        assert second.sign_in().status_code == 403
    finally:
        server.stop()
