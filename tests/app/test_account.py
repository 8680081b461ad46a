"""You: the passphrase, the recovery code; in both modes of keeping a session's key."""

import asyncio
import re

import pytest

from llamora.app.views.recovery import ORDINALS
from llamora.journal import throttle
from llamora.settings import SessionSettings
from tests.app.conftest import PASSPHRASE, PageResponse, RunningApp, Start, Visitor

NEW = "four unrelated words: kelp anvil dormouse"


@pytest.fixture(params=["session", "cookie"])
async def kept(request: pytest.FixtureRequest, start: Start) -> RunningApp:
    return await start(session=SessionSettings(mode=request.param))


def change(
    visitor: Visitor, old: str = PASSPHRASE, new: str = NEW
) -> "asyncio.Future[PageResponse]":
    return asyncio.ensure_future(visitor.post("/you/passphrase", {"old": old, "new": new}))


def code_in(answer: PageResponse) -> str:
    found = re.search(r'<p class="code-shown"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert found is not None, answer.visible_text
    return re.sub(r"<[^>]+>", "", found[1])


def alert(answer: PageResponse, name: str) -> str:
    """The sentence beside one of the forms."""
    found = re.search(rf'id="{name}-problem">([^<]*)<', answer.text)
    assert found is not None
    return found[1].replace("&#39;", "'")


def in_part(answer: PageResponse) -> dict[str, str]:
    """What the page of a new code asks to be typed back."""
    index = re.search(r'name="index" value="([^"]+)"', answer.text)
    asked = re.search(r"type the (\w+) group", answer.text)
    assert index
    assert asked
    return {"index": index[1], "part": code_in(answer).split("-")[ORDINALS.index(asked[1])]}


async def opens(app: RunningApp, passphrase: str) -> bool:
    return (await app.anonymous().sign_in("Alice", passphrase)).status == 303


# -- the passphrase --------------------------------------------------------------------------------------


async def test_a_new_passphrase_opens_what_the_old_one_did(kept: RunningApp) -> None:
    alice = await kept.visitor()
    await alice.write("the heron again")
    answer = await change(alice)
    assert (answer.status, answer.location) == (303, "/you?done=passphrase")
    assert "The passphrase is changed." in (await alice.get(answer.location)).visible_text
    assert not await opens(kept, PASSPHRASE)
    again = kept.anonymous()
    assert (await again.sign_in("Alice", NEW)).status == 303
    assert "the heron again" in (await again.get("/d/2026-11-20")).visible_text


async def test_it_ends_every_other_session_of_the_writer_and_of_nobody_else(
    kept: RunningApp,
) -> None:
    here, elsewhere, bob = await kept.visitor(), await kept.visitor(), await kept.visitor("Bob")
    assert (await change(here)).status == 303
    assert (await elsewhere.get("/you")).status == 303  # to the door
    assert (await here.get("/you")).status == (await bob.get("/you")).status == 200
    assert len(await kept.services.db.sessions.list_for_user(kept.accounts["Alice"].user.id)) == 1


async def test_the_key_and_the_sessions_change_together_or_not_at_all(
    kept: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends sessions is refused half way: the old passphrase still opens and nobody was signed out."""
    here, elsewhere = await kept.visitor(), await kept.visitor()
    writer = kept.services.db.users._db
    async with writer.write() as tx:
        await tx.execute(
            "CREATE TRIGGER no_end BEFORE DELETE ON dek_sessions BEGIN SELECT RAISE(ABORT, 'not now'); END"
        )
    answer = await change(here)
    assert answer.status == 503
    assert (await elsewhere.get("/you")).status == 200
    async with writer.write() as tx:
        await tx.execute("DROP TRIGGER no_end")
    assert await opens(kept, PASSPHRASE)
    assert not await opens(kept, NEW)


@pytest.mark.parametrize(
    ("old", "new", "status", "sentence"),
    [
        (
            "another heron altogether",
            NEW,
            403,
            "That is not the passphrase. Look for a slip and type it again.",
        ),
        ("", NEW, 403, "That is not the passphrase. Look for a slip and type it again."),
        ("x" * 5000, NEW, 403, "That is not the passphrase. Look for a slip and type it again."),
        (PASSPHRASE, "hunter2", 422, "Guessed within hours. A few unrelated words more would do."),
        (PASSPHRASE, "Alice", 422, "Guessed at once. Try four or five unrelated words."),
        (PASSPHRASE, "kelp anvil " * 200, 422, "A passphrase has at most 1024 characters."),
        (PASSPHRASE, PASSPHRASE, 422, "That is the passphrase it has already. Choose another one."),
    ],
)
async def test_what_does_not_do_is_said_beside_the_form(
    app: RunningApp, old: str, new: str, status: int, sentence: str
) -> None:
    here, elsewhere = await app.visitor(), await app.visitor()
    answer = await change(here, old, new)
    assert (answer.status, alert(answer, "passphrase"), alert(answer, "recovery")) == (
        status,
        sentence,
        "",
    )
    assert (await elsewhere.get("/you")).status == 200
    assert await opens(app, PASSPHRASE)
    for secret in (old, new):
        assert len(secret) < 8 or secret not in answer.text


async def test_guessing_the_old_one_is_slowed_down_as_at_the_door(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await app.visitor()
    monkeypatch.setattr(throttle, "FREE_ATTEMPTS", -5)  # a minute's wait after the first
    assert (await change(alice, "a guess")).status == 403
    slowed = await change(alice)
    assert slowed.status == 429
    assert alert(slowed, "passphrase").startswith("Too many tries. Wait ")
    renewed = await alice.post("/you/recovery-code", {"passphrase": PASSPHRASE})
    assert renewed.status == 429
    assert alert(renewed, "recovery").startswith("Too many tries. Wait ")
    assert (await app.anonymous().sign_in()).status == 303  # the door counts apart


async def test_a_weak_new_one_is_no_guess(app: RunningApp) -> None:
    alice = await app.visitor()
    for _ in range(throttle.FREE_ATTEMPTS + 1):
        assert (await change(alice, new="hunter2")).status == 422


async def test_of_two_changes_at_once_one_wins_and_the_other_is_told(app: RunningApp) -> None:
    one, two = await app.visitor(), await app.visitor()
    answers = await asyncio.gather(change(one), change(two, new=NEW + " and another"))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [303, 409]
    won = NEW if answers[0].status == 303 else NEW + " and another"
    assert await opens(app, won)
    lost = next(answer for answer in answers if answer.status != 303)
    assert "changed elsewhere" in alert(lost, "passphrase")


async def test_how_strong_the_new_one_is(app: RunningApp) -> None:
    alice = await app.visitor()
    weak = await alice.post(
        "/register/strength", {"old": PASSPHRASE, "new": "Alice"}, fragment=True
    )
    strong = await alice.post("/register/strength", {"old": "x", "new": NEW}, fragment=True)
    assert "Guessed at once" in weak.visible_text
    assert "ard to guess" in strong.visible_text


async def test_strangers_have_nothing_to_change(app: RunningApp) -> None:
    stranger = app.anonymous()
    for path, form in (
        ("passphrase", {"old": PASSPHRASE, "new": NEW}),
        ("recovery-code", {"passphrase": PASSPHRASE}),
    ):
        assert (await stranger.post(f"/you/{path}", form)).status == 401
    assert await opens(app, PASSPHRASE)


async def test_the_whole_cookie_counts(kept: RunningApp) -> None:
    """Also where the process has the key open: what this one takes, another worker would refuse."""
    alice = await kept.visitor()
    cookie = alice.cookie("llamora")
    wrong = [cookie[:42], cookie[:43] + "A" * 43, cookie + "AAAA"]
    if len(cookie) > 43:
        wrong += [
            cookie[:43],
            cookie[:60],
            cookie[:-4] + ("AAAA" if cookie[-4:] != "AAAA" else "BBBB"),
        ]
    for broken in wrong:
        other = kept.anonymous()
        other.set_cookie("llamora", broken)
        assert (await other.get("/you")).status == 303
    assert (await alice.get("/you")).status == 200  # and it harms nobody


# -- the recovery code -----------------------------------------------------------------------------------


async def test_a_new_code_opens_and_the_old_one_does_not(kept: RunningApp) -> None:
    here, elsewhere = await kept.visitor(), await kept.visitor()
    await here.write("the heron again")
    shown = await here.post("/you/recovery-code", {"passphrase": PASSPHRASE})
    assert shown.status == 200
    code = code_in(shown)
    assert (await elsewhere.get("/you")).status == 303

    lost = kept.anonymous()
    old = {"name": "Alice", "code": kept.accounts["Alice"].recovery_code, "passphrase": NEW}
    assert (await lost.post("/reset", old)).status == 403
    back = await lost.post("/reset", {"name": "Alice", "code": code, "passphrase": NEW})
    assert back.status == 200
    assert "the heron again" in (await lost.get("/d/2026-11-20")).visible_text
    assert (await here.get("/you")).status == 303  # a reset ends every session


async def test_a_code_that_was_never_confirmed_is_mentioned_until_it_is(app: RunningApp) -> None:
    alice = await app.visitor()
    sentence = "You have not confirmed yours"
    assert sentence in (await alice.get("/you")).visible_text
    shown = await alice.post("/you/recovery-code", {"passphrase": PASSPHRASE})
    answer = await alice.post("/recovery-code", in_part(shown))
    assert answer.status == 303
    assert sentence not in (await alice.get("/you")).visible_text
    await alice.post("/you/recovery-code", {"passphrase": PASSPHRASE})  # and walks away
    assert sentence in (await alice.get("/you")).visible_text


async def test_a_new_code_takes_the_passphrase(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/recovery-code", {"passphrase": "a guess"})
    assert (answer.status, alert(answer, "passphrase")) == (403, "")
    assert (
        alert(answer, "recovery")
        == "That is not the passphrase. Look for a slip and type it again."
    )
    code = {"name": "Alice", "code": app.accounts["Alice"].recovery_code, "passphrase": NEW}
    assert (await app.anonymous().post("/reset", code)).status == 200  # the old one still does


async def test_no_code_in_the_page_once_it_was_shown(app: RunningApp) -> None:
    alice = await app.visitor()
    code = code_in(await alice.post("/you/recovery-code", {"passphrase": PASSPHRASE}))
    for path in ("/you", "/recovery-code", "/d/today"):
        assert code.split("-")[0] not in (await alice.get(path)).text
