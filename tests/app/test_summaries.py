"""Openings and recaps: off until asked for, made by POST alone, gone when what they were drawn from changes."""

import asyncio
import html
import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from llamora.app.views import days
from llamora.journal import context
from llamora.journal.context import UserContext
from llamora.journal.openings import Openings
from llamora.journal.profile import Profile
from llamora.llm.queue import SharedModelQueue
from llamora.persistence.summaries import StoredSummaries as DigestRecords
from tests.app.conftest import RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

DAY = "/d/2026-11-20"
TODAY = "/d/today"
NOW = date(2026, 12, 24)
OPENING = f"{TODAY}/opening"


@pytest.fixture
async def app(start: Start, model: ScriptedModel) -> RunningApp:
    return await start(llm=settings_for_model(model))


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (context, days):
        monkeypatch.setattr(module, "utc_now", lambda: datetime.combine(NOW, time(12), UTC))


def days_ago(count: int) -> str:
    return (NOW - timedelta(count)).isoformat()


async def test_a_day_is_summed_up_when_asked_and_until_it_changes(
    alice: Visitor, model: ScriptedModel
) -> None:
    model.script(Reply(["You saw a heron."]), Reply(["A heron and an otter."]))
    entry = await alice.write("A heron.")
    await alice.get(DAY)
    assert model.chat_requests == []
    assert (await alice.post(f"{DAY}/recap")).location == f"{DAY}#recap"
    page = await alice.get(DAY)
    assert "You saw a heron." in page.text
    assert "summed up by scripted" in page.visible_text
    for _ in range(3):
        await alice.get(DAY)
    assert len(model.chat_requests) == 1
    await alice.write("An otter.")
    assert "You saw a heron." not in (await alice.get(DAY)).text
    again = await alice.post(f"{DAY}/recap", fragment=True)
    assert "A heron and an otter." in again.text
    await alice.post(f"/e/{entry}/withheld", {"withheld": "yes"})
    assert "A heron and an otter." not in (await alice.get(DAY)).text
    model.script(Reply(["An otter."]))
    await alice.post(f"{DAY}/recap")
    assert "A heron." not in str(model.chat_requests[-1].body["messages"])


async def test_a_recap_can_be_let_go_and_goes_with_what_is_erased(
    app: RunningApp, alice: Visitor, model: ScriptedModel
) -> None:
    model.default_reply = Reply(["You saw a heron."])
    entry = await alice.write("A heron.")
    await alice.write("Rain.")
    await alice.post(f"{DAY}/recap")
    await alice.post(f"{DAY}/recap/delete")
    assert "You saw a heron." not in (await alice.get(DAY)).text
    await alice.post(f"{DAY}/recap")
    await alice.post(f"/e/{entry}/delete")
    keys = app.keys()
    await app.services.trash.erase(keys, bytes.fromhex(entry))
    rows = await app.services.db._connections.fetch("SELECT count(*) FROM summaries", ())
    assert rows[0][0] == 0


async def test_a_recap_that_was_cut_at_its_length_is_whole_sentences_and_says_so(
    alice: Visitor, model: ScriptedModel
) -> None:
    model.script(Reply(["You saw a heron. You met Mr. ", "Low. Then you"], finish_reason="length"))
    await alice.write("A heron.")
    page = await alice.post(f"{DAY}/recap", fragment=True)
    assert "You saw a heron. You met Mr. Low.</p>" in page.text
    assert "the model said more than fits here" in page.visible_text
    model.script(Reply(["You saw a heron and then you"], finish_reason="length"))
    await alice.write("An otter.")
    assert "nothing to say" in (await alice.post(f"{DAY}/recap", fragment=True)).visible_text


async def test_a_recap_tells_the_writers_words_from_what_it_makes_up(
    alice: Visitor, model: ScriptedModel
) -> None:
    model.script(Reply(["You wrote “a heron again” and “I hate every heron”."]))
    await alice.write("A heron again.")
    await alice.post(f"{DAY}/recap")
    page = await alice.get(DAY)
    assert '“<mark class="verified">a heron again</mark>”' in page.text
    assert '“<span class="not-found">I hate every heron</span>”' in page.text


async def test_a_page_with_nothing_to_read_is_not_summed_up(
    alice: Visitor, model: ScriptedModel
) -> None:
    entry = await alice.write("A heron.")
    await alice.post(f"/e/{entry}/withheld", {"withheld": "yes"})
    assert (await alice.post(f"{DAY}/recap", fragment=True)).status == 422
    assert model.chat_requests == []


async def test_openings_are_off_until_switched_on(alice: Visitor, model: ScriptedModel) -> None:
    await alice.write("The letter is still unsent.", days_ago(1))
    assert OPENING not in (await alice.get(TODAY)).text
    await alice.post(OPENING)
    assert model.chat_requests == []
    assert "Let new days open with a line" in (await alice.get("/you")).visible_text


async def test_a_new_day_opens_once(app: RunningApp, alice: Visitor, model: ScriptedModel) -> None:
    model.script(Reply(["Yesterday the letter was still unsent.\n\nAnd more."]))
    await alice.write("Painted the kitchen.", days_ago(2))
    letter = await alice.write("The letter is still unsent.", days_ago(1))
    secret = await alice.write("The secret.", days_ago(1))
    await alice.post(f"/e/{secret}/withheld", {"withheld": "yes"})
    await alice.post("/you/openings", {"openings": "on"})
    page = await alice.get(TODAY)
    assert f'hx-post="{OPENING}"' in page.text
    assert model.chat_requests == []  # looking starts nothing
    line = await alice.post(OPENING, fragment=True)
    assert "Yesterday the letter was still unsent." in line.text
    assert "And more." not in line.text
    sent = str(model.chat_requests[0].body["messages"])
    assert "Painted the kitchen." in sent
    assert "The secret." not in sent
    for _ in range(2):
        await alice.post(OPENING)
        page = await alice.get(TODAY)
        assert "Yesterday the letter was still unsent." in page.text
        assert f'hx-post="{OPENING}"' not in page.text
    assert len(model.chat_requests) == 1
    await alice.post("/you/openings", {"openings": "off"})
    assert "still unsent" not in (await alice.get(TODAY)).text
    await alice.post("/you/openings", {"openings": "on"})
    await alice.post(f"/e/{letter}/delete")
    assert "still unsent" not in (await alice.get(TODAY)).text


async def test_two_workers_that_are_asked_at_once_ask_for_one_line(
    app: RunningApp, alice: Visitor, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alice.write("The letter is still unsent.", days_ago(1))
    services, keys, today = app.services, app.keys(), NOW
    user = UserContext(keys, Profile(openings=True), today)
    other = Openings(services.db, services.journal, services.summaries)  # that of another worker
    both, real, end = asyncio.Barrier(2), DigestRecords.save_unless, asyncio.Event()

    async def put_unless(self: DigestRecords, *given: Any) -> bool:
        await both.wait()  # each has seen that there is none
        return await real(self, *given)

    monkeypatch.setattr(DigestRecords, "save_unless", put_unless)
    model.script(Reply(["The letter was unsent."], gates={0: end}))
    first = asyncio.gather(services.openings.generate_line(user), other.generate_line(user))
    while not model.chat_requests:  # noqa: ASYNC110 -- the other process is the model
        await asyncio.sleep(0.01)
    assert not await other.is_due(keys, today)
    end.set()
    assert [line.text for line in await first if line is not None] == ["The letter was unsent."]
    assert len(model.chat_requests) == 1
    kept = await other.get_line(keys, today)
    assert kept is not None
    assert kept.text == "The letter was unsent."


async def test_a_model_that_fails_leaves_the_day_without_a_line(
    alice: Visitor, model: ScriptedModel
) -> None:
    model.script(Reply(fault="status", status=500))
    await alice.write("The letter.", days_ago(1))
    await alice.post("/you/openings", {"openings": "on"})
    assert (await alice.post(OPENING, fragment=True)).status == 200
    # Coming back to the page does not ask a model again that just failed.
    assert OPENING not in (await alice.get(TODAY)).text
    await alice.post(OPENING)
    assert len(model.chat_requests) == 1


@pytest.mark.parametrize("how", ["erased", "kept", "edited"])
@pytest.mark.parametrize("which", ["recap", "opening"])
async def test_what_changes_while_the_model_speaks_of_it_leaves_nothing(
    app: RunningApp, alice: Visitor, model: ScriptedModel, which: str, how: str
) -> None:
    end = asyncio.Event()
    model.script(Reply(["You saw a heron."], gates={1: end}))
    day = days_ago(1)
    entry = await alice.write("A heron.", day)
    await alice.write("Rain.", day)
    await alice.post("/you/openings", {"openings": "on"})
    asked = asyncio.create_task(
        alice.post(f"/d/{day}/recap" if which == "recap" else OPENING, fragment=True)
    )
    while not model.chat_requests:  # noqa: ASYNC110 -- the other process is the model
        await asyncio.sleep(0.01)
    keys, entry_id = app.keys(), bytes.fromhex(entry)
    if how == "erased":
        await app.services.trash.delete(keys, entry_id)
        await app.services.trash.erase(keys, entry_id)
    elif how == "kept":
        await app.services.withholding.set_withheld(keys, entry_id, withheld=True)
    else:
        await app.services.journal.edit(keys, entry_id, "A gull.", 1)
    end.set()
    answer = await asked
    assert answer.status == (422 if which == "recap" else 200)
    assert "You saw a heron." not in answer.text
    rows = await app.services.db._connections.fetch("SELECT count(*) FROM summaries", ())
    assert rows[0][0] == 0


def watch_the_queue(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set once somebody asks for a slot of the model."""
    is_waiting, slot = asyncio.Event(), SharedModelQueue.slot

    def watched(*given: Any) -> Any:
        is_waiting.set()
        return slot(*given)

    monkeypatch.setattr(SharedModelQueue, "slot", watched)
    return is_waiting


async def test_what_is_kept_from_the_model_while_it_waits_is_not_sent(
    start: Start, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(llm=replace(settings_for_model(model), slots=1))
    alice = await app.visitor()
    end = asyncio.Event()
    model.script(Reply(["Rain."], gates={0: end}))
    await alice.write("Rain.", days_ago(2))
    secret = await alice.write("The secret.", days_ago(1))
    first = asyncio.create_task(alice.post(f"/d/{days_ago(2)}/recap", fragment=True))
    while not model.chat_requests:  # noqa: ASYNC110 -- the other process is the model
        await asyncio.sleep(0.01)
    is_waiting = watch_the_queue(monkeypatch)
    second = asyncio.create_task(alice.post(f"/d/{days_ago(1)}/recap", fragment=True))
    await asyncio.wait_for(is_waiting.wait(), 60)
    await app.services.withholding.set_withheld(app.keys(), bytes.fromhex(secret), withheld=True)
    end.set()
    assert (await first).status == 200
    assert (await second).status == 422
    assert "The secret." not in str([chat.body for chat in model.chat_requests])


async def test_what_would_be_sent_for_a_recap_and_an_opening_is_what_is_sent(
    alice: Visitor, model: ScriptedModel
) -> None:
    model.default_reply = Reply(["A heron & an otter."])

    def shown_in(page: str) -> list[str]:
        return [
            html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
        ][:-1]

    await alice.write("A heron & an otter, <before> rain.", days_ago(1))
    await alice.write("Rain since noon.", days_ago(1))
    for path, ask in ((f"/d/{days_ago(1)}/recap", f"/d/{days_ago(1)}/recap"), (OPENING, OPENING)):
        asked = len(model.chat_requests)
        shown = await alice.get(f"{path}/prompt")
        assert shown.status == 200
        assert len(model.chat_requests) == asked  # looking sends nothing
        await alice.post("/you/openings", {"openings": "on"})
        await alice.post(ask)
        assert shown_in(shown.text) == [
            message["content"] for message in model.chat_requests[-1].body["messages"]
        ]
        assert len(model.chat_requests) == asked + 1
    assert f'href="/d/{days_ago(1)}/whole"' in (await alice.get(f"/d/{days_ago(1)}")).text
    assert (
        f'href="/d/{days_ago(1)}/recap/prompt"' in (await alice.get(f"/d/{days_ago(1)}/whole")).text
    )
    assert f'href="{OPENING}/prompt"' in (await alice.get("/you")).text
    assert (await alice.get("/d/2020-02-02/recap/prompt")).status == 422
    await alice.post("/you/replies", {"replies": "off"})
    for path in (f"/d/{days_ago(1)}/recap", OPENING):
        assert (await alice.get(f"{path}/prompt")).status == 404
