"""Where somebody is signed in, and locking: one or all sessions end, streams with them, keys and index go."""

import asyncio
import re
import time
from base64 import urlsafe_b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from llamora import services as services_module
from llamora.app import create_app
from llamora.app.edge.clients import device_name
from llamora.app.services.container import EXTENSION
from llamora.settings import SessionSettings
from llamora.vault.keys import Keyring, KeyringClosed
from llamora.vault.session_keys import session_id_of
from tests.app.conftest import (
    RunningApp,
    Start,
    Visitor,
    settings_for_model,
    settings_in,
    worker_states,
)
from tests.app.test_account import alert
from tests.app.test_key import signed_in
from tests.scripted_model import Reply, ScriptedModel

ENDS_WITHIN = 60.0  # seconds; what is not told of its end does not end at all
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.6 Mobile/15E148 Safari/604.1"
)


async def is_in(visitor: Visitor) -> bool:
    return (await visitor.get("/d/2026-11-20")).status == 200


async def other_sessions(visitor: Visitor) -> list[str]:
    return re.findall(r'name="session" value="([0-9a-f]{64})"', (await visitor.get("/you")).text)


async def test_sessions_are_listed_and_end_one_by_one(app: RunningApp) -> None:
    alice, phone = await signed_in(app, FIREFOX), await signed_in(app, IPHONE)
    tablet = await signed_in(app)
    page = (await alice.get("/you")).visible_text
    assert page.count("last used just now") == 2
    assert "Firefox on Linux: here, since" in page
    assert "Safari on iPhone: since" in page
    assert "A browser: since" in page
    assert "Mozilla" not in page
    others = await other_sessions(alice)
    assert len(others) == 2
    await alice.post("/you/sessions", {"session": others[0]})
    assert sorted([await is_in(phone), await is_in(tablet)]) == [False, True]
    assert await is_in(alice)
    await alice.post("/you/sessions", {"session": "others"})
    assert not await is_in(phone)
    assert not await is_in(tablet)
    assert await is_in(alice)


async def test_nobody_ends_the_sessions_of_others(app: RunningApp) -> None:
    alice, again = await signed_in(app), await signed_in(app)
    (session,) = await other_sessions(alice)
    bob = await app.visitor("Bob")
    await bob.post("/you/sessions", {"session": session})
    await bob.post("/you/sessions", {"session": "others"})
    assert await is_in(again)
    await bob.post("/lock")
    assert await is_in(alice)


async def test_keys_that_are_locked_during_a_sweep_do_not_end_the_sweeps(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_module, "SWEEP_SECONDS", 0.01)
    app = await start()
    again = asyncio.Event()
    sweeps = 0

    async def locked() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps > 1:
            again.set()
        raise KeyringClosed("the keys were locked")

    monkeypatch.setattr(app.services.sessions, "end_expired_sessions", locked)
    await asyncio.wait_for(again.wait(), 60)


async def watched(visitor: Visitor) -> "asyncio.Task[bytes]":
    """Listens as an open page does, and returns once the server has begun to tell; what it told until the end."""
    begun = asyncio.Event()

    async def read() -> bytes:
        told = b""
        async with visitor.client.request(
            "/session/events", headers=dict(visitor.headers)
        ) as stream:
            await stream.send_complete()
            while b"event: look" not in told:
                told += await stream.receive()
            begun.set()
        return told + bytes(stream.response_data)  # pyright: ignore[reportAttributeAccessIssue]

    task = asyncio.create_task(read())
    async with asyncio.timeout(ENDS_WITHIN):
        await begun.wait()
    return task


async def test_a_lock_ends_everything_at_once(app: RunningApp) -> None:
    alice, phone = await signed_in(app), await signed_in(app)
    await alice.write("the heron again")
    (keys,) = app.services.sessions.open_keyrings()
    user_id = keys.user_id
    assert app.services.search.unlocked_user_ids() == [user_id]
    pages = [await watched(alice), await watched(phone)]
    async with asyncio.timeout(ENDS_WITHIN):
        answer = await alice.post("/lock")
        told = await asyncio.gather(*pages)
    assert (answer.status, answer.location) == (303, "/sign-in")
    assert [b"event: ended" in each for each in told] == [True, True]
    assert app.services.sessions.open_keyrings() == []
    assert app.services.search.unlocked_user_ids() == []
    assert [row.sealed_key for row in await app.services.db.sessions.list_for_user(user_id)] == [
        None,
        None,
    ]
    with pytest.raises(KeyringClosed):
        _ = keys.master
    assert _held(keys) == b""
    assert not await is_in(alice)
    assert not await is_in(phone)
    assert "the heron again" in (await (await signed_in(app)).get("/d/2026-11-20")).visible_text


def _held(keys: Keyring) -> bytes:
    """What is left of keys in a keyring."""
    return b"".join(bytes(page) for page in keys._memory._pages).strip(b"\0")  # pyright: ignore[reportPrivateUsage]


async def test_a_page_of_another_worker_is_told_too(start: Start, tmp_path: Path) -> None:
    first, other = worker_states(2)
    app = await start(shared=first)
    alice = await signed_in(app)
    second = create_app(settings_in(tmp_path / "data"), shared=other)
    async with second.test_app():
        there = RunningApp(second, app.test_app, app.accounts).anonymous()
        there.set_cookie("llamora", alice.cookie("llamora"))
        page = await watched(there)
        async with asyncio.timeout(ENDS_WITHIN):
            await alice.post("/lock")
            assert b"event: ended" in await page
        assert second.extensions[EXTENSION].search.unlocked_user_ids() == []


async def test_who_is_not_signed_in_is_told_that(app: RunningApp) -> None:
    assert (await app.anonymous().get("/session/events")).body == b"event: out\ndata: \n\n"


async def test_the_windows_of_another_session_hear_nothing_of_this_one(app: RunningApp) -> None:
    alice, bob = await signed_in(app), await app.visitor("Bob")
    groups = [
        re.findall('data-group="([0-9a-f]{32})"', (await each.get("/you")).text)[0]
        for each in (alice, bob)
    ]
    assert groups[0] != groups[1]
    answer = await bob.get(f"/session/events?group={groups[0]}&day=2026-11-20")
    assert answer.body == b"event: out\ndata: \n\n"


async def test_the_end_of_the_server_empties_no_page(app: RunningApp) -> None:
    page = await watched(await signed_in(app))
    app.services.shutting_down.set()
    assert b"ended" not in await page


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (IPHONE, "Safari on iPhone"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Edg/141.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Mobile Safari/537",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 15.7; rv:144.0) Gecko/20100101 Firefox/144.0",
            "Firefox on Mac",
        ),
        ("curl/8.5", ""),
        ("", ""),
        ("<script>Firefox/", "Firefox"),
    ],
)
def test_what_a_browser_is_called(agent: str, name: str) -> None:
    assert device_name(agent) == name


# -- idle ------------------------------------------------------------------------------------------------


async def locked(app: RunningApp, keys: Keyring) -> None:
    """Wait until the keys are overwritten."""
    async with asyncio.timeout(60):
        while not keys.closed:  # noqa: ASYNC110 -- another task does it
            await asyncio.sleep(0.01)
    assert _held(keys) == b""
    assert app.services.sessions.open_keyrings() == []
    assert app.services.search.unlocked_user_ids() == []


async def test_a_session_that_is_idle_is_locked_without_a_request(start: Start) -> None:
    app = await start(session=SessionSettings(idle_ttl=2))
    alice = await signed_in(app)
    await alice.write("the heron again")
    page = await watched(alice)
    (keys,) = app.services.sessions.open_keyrings()
    await locked(app, keys)
    assert b"event: ended" in await page
    assert not await is_in(alice)


async def test_who_is_there_elsewhere_keeps_the_keys(start: Start) -> None:
    app = await start()
    alice, phone = await signed_in(app), await signed_in(app)
    await alice.get("/you")
    (keys,) = app.services.sessions.open_keyrings()
    page = await watched(phone)
    rows = await app.services.db.sessions.list_for_user(keys.user_id)
    here = alice.cookie("llamora")
    (other,) = [
        row.id for row in rows if row.id != session_id_of(urlsafe_b64decode(here + "=")[:32])
    ]
    await app.services.db.sessions.touch(other, 1, 0)  # its time was up long ago
    async with asyncio.timeout(60):
        assert b"event: ended" in await page
    assert not keys.closed
    assert await is_in(alice)
    assert not await is_in(phone)


async def test_what_a_page_asks_for_by_itself_is_no_sign_of_the_writer(start: Start) -> None:
    app = await start()
    alice = await signed_in(app)
    (row,) = await app.services.db.sessions.list_for_user(app.accounts["Alice"].user.id)
    await app.services.db.sessions.touch(row.id, row.idle_until - 1000, 0)

    async def left() -> int:
        (now,) = await app.services.db.sessions.list_for_user(row.user_id)
        return now.idle_until - row.idle_until

    page = await watched(alice)
    await alice.get("/d/2026-11-20/entries?e=" + "0" * 32)
    assert await left() == -1000
    assert (await alice.post("/session/here")).status == 204
    assert await left() >= 0
    page.cancel()


async def test_lock_after_is_the_writers_own_and_holds_at_once(start: Start) -> None:
    app = await start()
    alice, phone = await signed_in(app), await signed_in(app)
    now = time.time()
    for minutes, seconds in ((5, 300), (15, 900), (0, 7200), (60, 3600)):
        answer = await alice.post("/you/lock-after", {"minutes": str(minutes)})
        assert answer.location == "/you#devices"
        limits = [
            row.idle_until - now
            for row in await app.services.db.sessions.list_for_user(app.keys().user_id)
        ]
        assert all(seconds - 5 <= limit <= seconds + 60 for limit in limits), (minutes, limits)
        assert f'data-idle="{seconds}"' in (await alice.get("/you")).text
        assert re.search(rf'value="{minutes}" selected', (await phone.get("/you")).text)
    assert (await alice.get("/you")).visible_text.count(
        "last used just now"
    ) == 1  # it says the same of the other one
    refused = await alice.post("/you/lock-after", {"minutes": "7"})
    assert refused.status == 422
    assert alert(refused, "lock") == "Choose one of the times in the list."


async def test_no_time_is_offered_that_the_server_does_not_allow(start: Start) -> None:
    app = await start(session=SessionSettings(idle_ttl=600))
    page = (await (await signed_in(app)).get("/you")).text
    times = re.search(r'<select id="lock-after".*?</select>', page, re.DOTALL)
    assert times is not None
    assert re.findall(r'value="(\d+)"( selected)?', times[0]) == [("5", ""), ("0", " selected")]


async def test_a_lock_reaches_the_keys_and_replies_of_other_workers(
    start: Start, model: ScriptedModel, tmp_path: Path
) -> None:
    middle = asyncio.Event()
    model.script(Reply(["Before. ", "After."], gates={1: middle}))
    first, other = worker_states(2)
    app = await start(shared=first, llm=settings_for_model(model))
    alice = await signed_in(app)
    entry = await alice.write("the heron again")
    settings = replace(settings_in(tmp_path / "data"), llm=settings_for_model(model))
    second = create_app(settings, shared=other)
    async with second.test_app():
        there = RunningApp(second, app.test_app, app.accounts).anonymous()
        for name in ("llamora", "llamora_csrf"):
            there.set_cookie(name, alice.cookie(name))
        await there.post(f"/e/{entry}/replies", fragment=True)
        async with asyncio.timeout(60):
            while "Before." not in (await alice.get("/d/2026-11-20")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        (keys,) = second.extensions[EXTENSION].sessions.open_keyrings()
        await alice.post("/lock")
        await locked(RunningApp(second, app.test_app, app.accounts), keys)
        assert second.extensions[EXTENSION].replies._live_replies == {}
        middle.set()
    again = await signed_in(app)
    words = (await again.get("/d/2026-11-20")).visible_text
    assert "Before." in words
    assert "After." not in words
