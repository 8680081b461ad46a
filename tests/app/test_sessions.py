"""Where somebody is signed in, and locking: one or all sessions end, streams with them, keys and index go."""

import asyncio
from pathlib import Path

import pytest

from llamora.app import create_app
from llamora.app.services.container import EXTENSION, Shared
from llamora.vault.keys import Keyring, KeyringClosed
from tests.app.conftest import Running, Start, Visitor, settings_in
from tests.app.test_key import signed_in

ENDS_WITHIN = 60.0  # seconds; what is not told of its end does not end at all


async def is_in(visitor: Visitor) -> bool:
    return (await visitor.get("/d/2026-11-20")).status == 200


async def other_sessions(visitor: Visitor) -> list[str]:
    import re

    return re.findall(r'name="session" value="([0-9a-f]{64})"', (await visitor.get("/you")).text)


async def test_sessions_are_listed_and_end_one_by_one(app: Running) -> None:
    alice, phone, tablet = [await signed_in(app) for _ in range(3)]
    page = (await alice.get("/you")).words
    assert page.count("last used just now") == 2
    assert "Here, since" in page
    others = await other_sessions(alice)
    assert len(others) == 2
    await alice.post("/you/sessions", {"session": others[0]})
    assert sorted([await is_in(phone), await is_in(tablet)]) == [False, True]
    assert await is_in(alice)
    await alice.post("/you/sessions", {"session": "others"})
    assert not await is_in(phone)
    assert not await is_in(tablet)
    assert await is_in(alice)


async def test_nobody_ends_the_sessions_of_others(app: Running) -> None:
    alice, again = await signed_in(app), await signed_in(app)
    (session,) = await other_sessions(alice)
    bob = await app.visitor("Bob")
    await bob.post("/you/sessions", {"session": session})
    await bob.post("/you/sessions", {"session": "others"})
    assert await is_in(again)
    await bob.post("/lock")
    assert await is_in(alice)


async def watched(visitor: Visitor) -> "asyncio.Task[bytes]":
    """Listens as an open page does; what was sent until the stream ended."""

    async def read() -> bytes:
        return (await visitor.get("/session/events")).body

    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


async def test_a_lock_ends_everything_at_once(app: Running) -> None:
    alice, phone = await signed_in(app), await signed_in(app)
    await alice.write("the heron again")
    (keys,) = app.services.accounts.open_keys()
    user_id = keys.user_id
    assert app.services.search.unlocked() == [user_id]
    pages = [await watched(alice), await watched(phone)]
    async with asyncio.timeout(ENDS_WITHIN):
        answer = await alice.post("/lock")
        told = await asyncio.gather(*pages)
    assert (answer.status, answer.location) == (303, "/sign-in")
    assert [b"event: ended" in each for each in told] == [True, True]
    assert app.services.accounts.open_keys() == []
    assert app.services.search.unlocked() == []
    assert await app.services.db.sessions.of_user(user_id) == []
    with pytest.raises(KeyringClosed):
        _ = keys.master
    assert _held(keys) == b""
    assert not await is_in(alice)
    assert not await is_in(phone)
    assert "the heron again" in (await (await signed_in(app)).get("/d/2026-11-20")).words


def _held(keys: Keyring) -> bytes:
    """What is left of keys in a keyring."""
    return bytes(keys._master).strip(b"\0") + b"".join(  # pyright: ignore[reportPrivateUsage]
        bytes(key)
        for held in (keys._data_keys, keys._subkeys, keys._blind_keys)  # pyright: ignore[reportPrivateUsage]
        for key in held.values()
    )


async def test_a_page_of_another_worker_is_told_too(start: Start, tmp_path: Path) -> None:
    app = await start()
    alice = await signed_in(app)
    second = create_app(settings_in(tmp_path / "data"), dev=True, shared=Shared(app.services.boot_secret))
    async with second.test_app():
        there = Running(second, app.test_app, app.accounts).stranger()
        there.give("llamora", alice.cookie("llamora"))
        page = await watched(there)
        async with asyncio.timeout(ENDS_WITHIN):
            await alice.post("/lock")
            assert b"event: ended" in await page
        assert second.extensions[EXTENSION].search.unlocked() == []


async def test_who_is_not_signed_in_is_told_that(app: Running) -> None:
    assert (await app.stranger().get("/session/events")).body == b"event: out\ndata: \n\n"


async def test_the_end_of_the_server_empties_no_page(app: Running) -> None:
    page = await watched(await signed_in(app))
    app.services.shutting_down.set()
    assert b"ended" not in await page
