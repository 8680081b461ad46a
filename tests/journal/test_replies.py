"""Replies belong to the server: they outlive tabs, stops, failures, full disks and crashes, and lose no word."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from itertools import pairwise

import pytest
from msgspec.structs import replace

from llamora.errors import Notice
from llamora.journal import generation
from llamora.journal.live import (
    INTERRUPTED,
    SOURCE_DELETED,
    SOURCE_ERASED,
    SOURCE_WITHHELD,
    STOPPED,
)
from llamora.journal.replies import Replies
from llamora.llm.errors import ModelError
from llamora.persistence.connection import DiskFull, NotFound, StaleRevision
from llamora.persistence.entries import Entries, Entry
from llamora.vault.key_renewal import NewKeys
from llamora.vault.keys import open_keyring
from tests.journal.conftest import DAY, Desk
from tests.scripted_model import Fault, Reply, ScriptedModel

Desks = Callable[..., Awaitable[Desk]]
FULL = Notice("disk_full")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Put something in, and the disk is full for every change of an entry."""
    state: list[bool] = []
    real = Entries.update_all

    async def update_all(self: Entries, *given: object) -> list[Entry]:
        if state:
            raise DiskFull(FULL.code)
        return await real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Entries, "update_all", update_all)
    return state


async def test_a_reply_is_kept_with_what_it_was_made_from(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["  \n", "A quiet ", "day.", "\n "]))
    entry = await desk.write("I sat by the river.")
    reply = await desk.wait_until_ended(await desk.ask(entry))
    assert (reply.text, reply.state, reply.note) == ("A quiet day.", "done", None)
    assert (reply.role, reply.parent_id, reply.day, reply.model, reply.boot) == (
        "reply",
        entry.id,
        entry.day,
        "scripted",
        "",
    )
    assert await desk.load(reply) == reply
    assert scripted.chat_requests[0].body["messages"][-1]["content"].endswith("I sat by the river.")


async def test_what_was_written_before_is_drawn_on(desk: Desk, scripted: ScriptedModel) -> None:
    before = await desk.write("The heron by the weir had a fish.", day=date(2025, 6, 3))
    await desk.write("Nothing of note.", day=date(2025, 6, 4))
    entry = await desk.write("A heron, a fish.")
    await desk.search.wait_until_idle(desk.keys.user_id)
    reply = await desk.wait_until_ended(await desk.ask(entry))
    assert reply.sources[0] == before.id
    assert entry.id not in reply.sources
    assert "had a fish" in str(scripted.chat_requests[0].body["messages"])


async def test_followers_see_each_state_and_the_last_however_late(
    desk: Desk, scripted: ScriptedModel
) -> None:
    middle, end = asyncio.Event(), asyncio.Event()
    scripted.script(Reply(["One ", "two ", "three."], gates={1: middle, 3: end}))
    reply = await desk.ask(await desk.write("Count."))
    seen: list[str] = []

    async def follow() -> None:
        async for state, _ in desk.replies.follow(desk.keys, reply.id):
            seen.append(state.text)

    early = asyncio.create_task(follow())
    await desk.wait_for(reply, lambda state: state.text == "One ")
    middle.set()
    late = await desk.wait_for(reply, lambda state: state.text == "One two three.")
    assert late.state == "streaming"
    end.set()
    await early
    assert seen[-1] == "One two three."
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    assert (await desk.wait_until_ended(reply)).text == "One two three."
    assert len(scripted.chat_requests) == 1


async def test_stop_keeps_what_came(desk: Desk, scripted: ScriptedModel) -> None:
    scripted.script(Reply(["Half a", " sentence"], fault="hang"))
    reply = await desk.ask(await desk.write("Go on."))
    await desk.wait_for(reply, lambda state: state.text == "Half a sentence")
    stopped = await desk.replies.stop(desk.keys, reply.id)
    assert (stopped.text, stopped.state, stopped.note, stopped.boot) == (
        "Half a sentence",
        "stopped",
        STOPPED,
        "",
    )
    assert await desk.load(reply) == stopped
    await asyncio.wait_for(
        scripted.chat_requests[0].ended.wait(), 60
    )  # the model is let go as well
    assert await desk.replies.stop(desk.keys, reply.id) == stopped  # once more changes nothing


async def test_stop_before_the_first_word_or_even_the_first_step(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(fault="hang_before_headers"))
    reply = await desk.ask(await desk.write("Go on."))
    stopped = await desk.replies.stop(desk.keys, reply.id)
    assert (stopped.text, stopped.state) == ("", "stopped")
    assert (await desk.load(reply)).state == "stopped"
    again = await desk.ask(await desk.write("And on."))
    assert again.id != reply.id
    await desk.replies.stop(desk.keys, again.id)


async def test_stop_while_it_waits_its_turn(desks: Desks, scripted: ScriptedModel) -> None:
    desk = await desks(slots=1)
    scripted.script(Reply(["Quiet"], fault="hang"))
    first = await desk.ask(await desk.write("One."))
    await desk.wait_for(first, lambda state: state.text == "Quiet")
    second = await desk.ask(await desk.write("Two."))
    async for _, waiting in desk.replies.follow(desk.keys, second.id):
        assert waiting
        break
    assert (await desk.replies.stop(desk.keys, second.id)).state == "stopped"
    assert (await desk.replies.stop(desk.keys, first.id)).text == "Quiet"
    assert len(scripted.chat_requests) == 1
    third = await desk.wait_until_ended(
        await desk.ask(await desk.write("Three."))
    )  # the turn was given back
    assert third.state == "done"


async def test_two_asks_at_once_are_one_reply(desk: Desk, scripted: ScriptedModel) -> None:
    end = asyncio.Event()
    scripted.script(Reply(["Once."], gates={1: end}))
    entry = await desk.write("Ask twice.")
    asked = await asyncio.gather(*(desk.ask(entry) for _ in range(5)))
    assert len({reply.id for reply in asked}) == 1
    end.set()
    await desk.wait_until_ended(asked[0])
    (thread,) = await desk.journal.get_page(desk.keys, entry.day)
    assert [message.text for message in thread.descendants] == ["Once."]
    assert len(scripted.chat_requests) == 1
    later = await desk.ask(entry)  # asked again afterwards it is another one
    assert later.id != asked[0].id
    await desk.wait_until_ended(later)


async def test_a_second_ask_answers_once_the_reply_has_its_record(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double click: the page of the second one shows the reply, so it has to be there."""
    entry = await desk.write("Ask twice.")
    real_add, real_day, go_on = Entries.add, Entries.list_day, asyncio.Event()

    async def add(self: Entries, *given: object, **named: object) -> None:
        await go_on.wait()
        await real_add(self, *given, **named)  # type: ignore[arg-type]

    async def page(self: Entries, *given: object) -> list[Entry]:
        found = await real_day(self, *given)  # type: ignore[arg-type]
        if desk.replies._live_replies:  # the second one: it knows all it needs to answer
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        return found

    monkeypatch.setattr(Entries, "add", add)
    monkeypatch.setattr(Entries, "list_day", page)
    first = asyncio.create_task(desk.ask(entry))
    while not desk.replies._live_replies:  # noqa: ASYNC110 -- it is there a moment before its record is
        await asyncio.sleep(0.01)
    reply = await desk.ask(entry)
    assert (await desk.load(reply)).id == reply.id
    assert (await first).id == reply.id
    await desk.wait_until_ended(reply)
    assert len(scripted.chat_requests) == 1


async def test_replies_take_turns(desks: Desks, scripted: ScriptedModel) -> None:
    desk = await desks(slots=2)
    end = asyncio.Event()
    scripted.default_reply = Reply(["x"], gates={1: end})
    asked = [await desk.ask(await desk.write(f"Number {number}.")) for number in range(4)]
    for reply in asked[:2]:
        await desk.wait_for(reply, lambda state: state.text == "x")
    assert scripted.active_streams == 2
    end.set()
    assert [(await desk.wait_until_ended(reply)).state for reply in asked] == ["done"] * 4


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ("cut", "Some words"),
        ("cut_quietly", "Some words"),
        ("bad_json", "Some words"),
        ("error_event", "Some words"),
        ("not_sse", ""),
        ("not_http", ""),
        ("compressed", ""),
    ],
)
async def test_a_model_that_fails_leaves_a_sentence_and_what_came(
    desk: Desk, scripted: ScriptedModel, fault: Fault, kept: str
) -> None:
    scripted.script(Reply(["Some ", "words"], fault=fault))
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("A private line.")))
    assert (reply.state, reply.text) == ("failed", kept)
    assert reply.note is not None
    assert "127.0.0.1" in str(reply.note.params["place"])
    assert "private" not in str(reply.note)
    assert await desk.load(reply) == reply
    again = await desk.wait_until_ended(await desk.ask(await desk.write("Once more.")))
    assert again.state == "done"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_model_that_refuses_leaves_a_sentence(
    desk: Desk, scripted: ScriptedModel, status: int
) -> None:
    scripted.default_reply = Reply(
        fault="status", status=status, body='{"error": {"message": "the private prompt"}}'
    )
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("A private line.")))
    assert (reply.state, reply.text) == ("failed", "")
    assert reply.note is not None
    assert "private" not in str(reply.note)


async def test_a_model_that_is_down_leaves_a_sentence(desk: Desk, scripted: ScriptedModel) -> None:
    await scripted.stop()
    entry = await desk.write("Still mine.")
    reply = await desk.wait_until_ended(await desk.ask(entry))
    assert (reply.state, reply.text) == ("failed", "")
    assert reply.note is not None
    assert "127.0.0.1" in str(reply.note.params["place"])
    assert (await desk.journal.get(desk.keys, entry.id)).text == "Still mine."


@pytest.mark.parametrize("pieces", [[], [""], [" \n", "\t"]])
async def test_an_empty_reply_is_a_sentence(
    desk: Desk, scripted: ScriptedModel, pieces: list[str]
) -> None:
    scripted.script(Reply(pieces))
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("Well?")))
    assert (reply.state, reply.text) == ("failed", "")
    assert reply.note == Notice("reply_empty")


async def test_thoughts_that_the_template_opened_are_never_shown_nor_stored(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    scripted.prompt_end = "<think>\n"
    thought, end = asyncio.Event(), asyncio.Event()
    scripted.script(
        Reply(["They are ", "sad.", "</think>A quiet", " day."], gates={2: thought, 4: end})
    )
    reply = await desk.ask(await desk.write("Well?"))
    seen: list[str] = []

    async def follow() -> None:
        async for state, _ in desk.replies.follow(desk.keys, reply.id):
            seen.append(state.text)

    following = asyncio.create_task(follow())
    while not scripted.chat_requests or len(scripted.chat_requests[0].sent) < 2:  # noqa: ASYNC110 -- the model is elsewhere
        await asyncio.sleep(0.01)
    thought.set()
    await desk.wait_for(reply, lambda state: state.text == "A quiet day.")
    end.set()
    await following
    assert all("A quiet day.".startswith(text) for text in seen)
    assert (await desk.load(reply)).text == "A quiet day."


async def test_a_reply_that_was_cut_at_its_longest_length_says_so(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["A quiet day, and"], finish_reason="length"))
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("Well?")))
    assert (reply.text, reply.state, reply.note) == (
        "A quiet day, and",
        "stopped",
        Notice("reply_length_reached"),
    )
    assert await desk.load(reply) == reply


async def test_a_model_that_thinks_up_all_its_length_says_how_to_give_it_more(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply([], reasoning=["They are sad."], finish_reason="length"))
    scripted.script(Reply(["<think>They are sad."], finish_reason="length"))
    for text in ("Well?", "And now?"):
        reply = await desk.wait_until_ended(await desk.ask(await desk.write(text)))
        assert (reply.text, reply.state) == ("", "failed")
        assert reply.note == Notice("reply_length_before_text")


async def test_without_a_model_nothing_is_begun(desks: Desks) -> None:
    desk = await desks(enabled=False)
    entry = await desk.write("Anybody?")
    with pytest.raises(ModelError, match=r"^model_off$"):
        await desk.ask(entry)
    (thread,) = await desk.journal.get_page(desk.keys, entry.day)
    assert thread.descendants == ()


async def test_what_is_not_there_is_not_asked_about(desk: Desk) -> None:
    entry = await desk.write("Gone.")
    await desk.trash.delete(desk.keys, entry.id)
    with pytest.raises(NotFound):
        await desk.ask(entry)
    assert desk.replies._live_replies == {}


# -- what is on the disk while it streams ----------------------------------------------------------------------


async def test_it_is_saved_while_it_streams(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    end = asyncio.Event()
    scripted.script(Reply(["Word ", "by ", "word."], gates={3: end}))
    reply = await desk.ask(await desk.write("Go on."))
    while (stored := await desk.load(reply)).text != "Word by word.":
        assert stored.state == "streaming"
        await asyncio.sleep(0.01)
    assert (stored.state, stored.boot) == ("streaming", "first.0")
    end.set()
    assert (await desk.wait_until_ended(reply)).text == "Word by word."


async def test_it_is_not_saved_at_every_word(desk: Desk, scripted: ScriptedModel) -> None:
    scripted.script(Reply(["word "] * 200))
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("Go on.")))
    assert reply.text == ("word " * 200).strip()
    assert reply.revision < 100


async def test_after_a_crash_it_is_shown_as_cut_short(
    desks: Desks, scripted: ScriptedModel
) -> None:
    first = await desks()
    entry = await first.write("Go on.")
    left = Entry(
        b"r" * 16,
        entry.day,
        "reply",
        "Half a sen",
        entry.at,
        "UTC",
        parent_id=entry.id,
        state="streaming",
        boot="first",
    )
    await first.db.entries.add(first.keys, left)
    again = await desks("second")
    assert (await again.replies.reconcile(again.keys, left)).note == INTERRUPTED
    shown = await again.wait_until_ended(left)
    assert (shown.text, shown.state, shown.note, shown.boot) == (
        "Half a sen",
        "stopped",
        INTERRUPTED,
        "",
    )
    assert await again.load(left) == shown
    later = await again.wait_until_ended(await again.ask(entry))  # and another one can be asked for
    assert later.state == "done"


async def test_a_crash_is_shown_on_a_full_disk_too(desks: Desks, full: list[bool]) -> None:
    first = await desks()
    entry = await first.write("Go on.")
    left = Entry(
        b"r" * 16,
        entry.day,
        "reply",
        "Half",
        entry.at,
        "UTC",
        parent_id=entry.id,
        state="streaming",
        boot="gone",
    )
    await first.db.entries.add(first.keys, left)
    full.append(True)
    assert (await first.replies.reconcile(first.keys, left)).note == INTERRUPTED


async def test_what_another_worker_writes_is_followed(
    desks: Desks, scripted: ScriptedModel
) -> None:
    writer, reader = await desks(), await desks()  # of the same run
    middle = asyncio.Event()
    scripted.script(Reply(["One ", "two."], gates={1: middle}))
    reply = await writer.ask(await writer.write("Count."))
    await writer.wait_for(reply, lambda state: state.text == "One ")
    assert (
        await reader.replies.reconcile(reader.keys, await reader.load(reply))
    ).state == "streaming"
    middle.set()
    assert (await reader.wait_until_ended(reply)).text == "One two."
    assert len(scripted.chat_requests) == 1


# -- a full disk -----------------------------------------------------------------------------------------------


async def test_a_full_disk_keeps_the_text_in_memory_and_stores_it_later(
    desk: Desk, scripted: ScriptedModel, full: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "RETRY_SECONDS", 0.01)
    end = asyncio.Event()
    scripted.script(Reply(["Every ", "word."], gates={2: end}))
    reply = await desk.ask(await desk.write("Go on."))
    await desk.wait_for(reply, lambda state: state.text == "Every word.")
    full.append(True)
    end.set()
    shown = await desk.wait_until_ended(reply)
    assert (shown.text, shown.note) == ("Every word.", FULL)
    assert (await desk.load(reply)).text == ""
    stopped = await asyncio.wait_for(
        desk.replies.stop(desk.keys, reply.id), 60
    )  # does not wait for room
    assert stopped.text == "Every word."
    assert (await desk.replies.reconcile(desk.keys, await desk.load(reply))).text == "Every word."
    full.clear()
    stored = await desk.wait_until_stored(reply)
    assert (stored.text, stored.state, stored.note) == ("Every word.", "done", None)
    async with asyncio.timeout(60):
        while desk.replies._live_replies:  # noqa: ASYNC110 -- it is forgotten a moment after it is stored
            await asyncio.sleep(0.01)


async def test_stop_on_a_full_disk_keeps_the_text(
    desk: Desk, scripted: ScriptedModel, full: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "RETRY_SECONDS", 0.01)
    scripted.script(Reply(["Half a"], fault="hang"))
    reply = await desk.ask(await desk.write("Go on."))
    await desk.wait_for(reply, lambda state: state.text == "Half a")
    full.append(True)
    stopped = await asyncio.wait_for(desk.replies.stop(desk.keys, reply.id), 60)
    assert (stopped.text, stopped.state, stopped.note) == ("Half a", "stopped", FULL)
    full.clear()
    assert (await desk.wait_until_stored(reply)).text == "Half a"


async def test_a_disk_that_fills_up_in_the_middle_ends_the_reply_with_the_reason(
    desk: Desk, scripted: ScriptedModel, full: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(generation, "SAVE_SECONDS", 0.0)
    full.append(True)
    scripted.script(Reply(["Some"], fault="hang"))
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("Go on.")))
    assert (reply.text, reply.state, reply.note) == ("Some", "failed", FULL)
    full.clear()
    assert (await desk.wait_until_stored(reply)).text == "Some"


# -- deletion while it streams -----------------------------------------------------------------------------------


async def test_an_entry_deleted_meanwhile_takes_its_reply_along_and_brings_it_back(
    desk: Desk, scripted: ScriptedModel
) -> None:
    end = asyncio.Event()
    scripted.script(Reply(["About the kingfisher."], gates={1: end}))
    entry = await desk.write("The heron.")
    reply = await desk.ask(entry)
    await desk.wait_for(reply, lambda state: bool(state.text))
    await desk.trash.delete(desk.keys, entry.id)
    end.set()
    kept = await desk.wait_until_stored(reply)
    assert kept.text == "About the kingfisher."
    assert kept.deleted is not None
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert (await desk.search.search(desk.keys, "kingfisher", today=entry.day)).total == 0
    await desk.trash.restore(desk.keys, entry.id)
    (thread,) = await desk.journal.get_page(desk.keys, entry.day)
    assert [message.text for message in thread.descendants] == ["About the kingfisher."]
    assert (await desk.search.search(desk.keys, "kingfisher", today=entry.day)).total == 1


async def test_a_reply_erased_meanwhile_ends(desk: Desk, scripted: ScriptedModel) -> None:
    end = asyncio.Event()
    scripted.script(Reply(["Gone."], gates={1: end}))
    reply = await desk.ask(await desk.write("The heron."))
    await desk.wait_for(reply, lambda state: bool(state.text))
    await desk.db.entries.erase(desk.keys, [reply.id])
    task = desk.replies._live_replies[reply.id].task
    assert task is not None
    end.set()
    await asyncio.wait_for(task, 60)
    assert desk.replies._live_replies == {}
    with pytest.raises(NotFound):
        await desk.load(reply)


# -- the end -----------------------------------------------------------------------------------------------------


async def test_close_keeps_what_came_and_says_so(desk: Desk, scripted: ScriptedModel) -> None:
    scripted.default_reply = Reply(["Half a"], fault="hang")
    asked = [
        await desk.ask(await desk.write(f"Number {number}.")) for number in range(3)
    ]  # one waits its turn
    for reply in asked[:2]:
        await desk.wait_for(reply, lambda state: state.text == "Half a")
    await asyncio.wait_for(desk.replies.close(), 60)
    stored = [await desk.load(reply) for reply in asked]
    assert [(reply.text, reply.state, reply.note) for reply in stored] == [
        ("Half a", "stopped", INTERRUPTED),
        ("Half a", "stopped", INTERRUPTED),
        ("", "stopped", INTERRUPTED),
    ]


async def test_close_does_not_wait_for_room_on_the_disk(
    desk: Desk, scripted: ScriptedModel, full: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "RETRY_SECONDS", 0.01)
    scripted.script(Reply(["Half a"], fault="hang"), Reply(["All."]))
    hanging = await desk.ask(await desk.write("One."))
    await desk.wait_for(hanging, lambda state: state.text == "Half a")
    full.append(True)
    ended = await desk.wait_until_ended(await desk.ask(await desk.write("Two.")))
    assert ended.note == FULL
    await asyncio.wait_for(desk.replies.close(), 60)
    full.clear()
    left = await desk.load(hanging)
    assert (
        replace(left, text="") == hanging
    )  # as it was begun: the next start shows it as cut short


# -- what the model may read no longer ---------------------------------------------------------------------------


def last_prompt(scripted: ScriptedModel) -> str:
    return str(scripted.chat_requests[-1].body["messages"])


@pytest.mark.parametrize("how", ["kept", "deleted", "erased"])
@pytest.mark.parametrize("what", ["a source", "beside it", "answered too"])
async def test_what_the_model_may_not_read_is_not_read_through_earlier_replies(
    desk: Desk, scripted: ScriptedModel, what: str, how: str
) -> None:
    scripted.script(Reply(["It came from Lisbon."]), Reply(["Lisbon again."]))
    other = await desk.write(
        "The kingfisher letter.", date(2025, 6, 3) if what == "a source" else DAY
    )
    entry = await desk.write("A kingfisher, a letter.")
    await desk.search.wait_until_idle(desk.keys.user_id)
    also = [other.id] if what == "answered too" else []
    reply = await desk.wait_until_ended(await desk.replies.ask(desk.user, entry.id, also))
    assert "kingfisher letter" in last_prompt(scripted)
    further = await desk.journal.answer(desk.user, reply.id, "And the weather?")
    later = await desk.wait_until_ended(await desk.ask(further))
    assert "came from Lisbon" in last_prompt(
        scripted
    )  # as long as all stands, the thread is read whole
    last = await desk.journal.answer(desk.user, later.id, "And the river?")
    if how == "kept":
        await desk.withholding.set_withheld(desk.keys, other.id, withheld=True)
    else:
        await desk.trash.delete(desk.keys, other.id)
    if how == "erased":
        await desk.trash.erase(desk.keys, other.id)
    await desk.wait_until_ended(await desk.ask(last))
    assert "And the weather?" in last_prompt(scripted)
    assert "Lisbon" not in last_prompt(scripted)


QUOTE = "the kingfisher letter came from Lisbon"


@pytest.mark.parametrize("worker", ["this one", "another one"])
@pytest.mark.parametrize("what", ["a source", "beside it"])
async def test_what_is_erased_while_a_reply_streams_does_not_come_back(
    desks: Desks, scripted: ScriptedModel, what: str, worker: str
) -> None:
    desk = await desks()
    eraser = desk if worker == "this one" else await desks()
    end = asyncio.Event()
    scripted.script(
        Reply([f"You wrote “{QUOTE}”. ", "So it was. ", f"“{QUOTE}”, you said."], gates={2: end})
    )
    other = await desk.write(f"Today {QUOTE}.", date(2025, 6, 3) if what == "a source" else DAY)
    entry = await desk.write("A kingfisher, a letter.")
    await desk.search.wait_until_idle(desk.keys.user_id)
    reply = await desk.ask(entry)
    await desk.wait_for(reply, lambda state: "So it was." in state.text and QUOTE in state.text)
    await eraser.trash.delete(eraser.keys, other.id)
    await eraser.trash.erase(eraser.keys, other.id)
    shown = await asyncio.wait_for(
        desk.wait_until_ended(reply), 60
    )  # although the model does not end
    end.set()
    kept = await desk.load(reply)
    assert kept.state == "stopped"
    assert kept.note in (SOURCE_DELETED, SOURCE_ERASED)  # whichever was noticed first
    assert "So it was." in kept.text
    for state in (shown, kept):
        assert QUOTE not in state.text
        assert state.receipt is not None
        assert QUOTE not in str(state.receipt)
        assert other.id not in {*state.sources, *state.receipt.same_page_ids}
        assert state.receipt.erased_count == 1
    assert (await desk.search.search(desk.keys, "Lisbon", today=DAY)).total == 0


async def test_a_reply_that_is_stored_between_the_look_and_the_erasure_forgets_too(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or it may see the deletion first, and stop.
    monkeypatch.setattr(Replies, "_watch", lambda _: asyncio.sleep(3600))
    # As a reply of another worker, which has not seen the deletion yet: it does not stop.
    monkeypatch.setattr(Replies, "cancel_for", lambda *_: None)
    end = asyncio.Event()
    scripted.script(Reply([f"You wrote “{QUOTE}”. ", "So it was."], gates={0: end}))
    other = await desk.write(f"Today {QUOTE}.")
    reply = await desk.ask(await desk.write("A kingfisher, a letter."))
    while not scripted.chat_requests:  # noqa: ASYNC110 -- the other process is the model
        await asyncio.sleep(0.01)
    await desk.trash.delete(desk.keys, other.id)
    real = Entries.erase

    async def erase(self: Entries, *given: object) -> list[Entry]:
        end.set()
        await desk.wait_until_ended(reply)
        return await real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Entries, "erase", erase)
    await desk.trash.erase(desk.keys, other.id)
    kept = await desk.load(reply)
    assert kept.state == "done"
    assert QUOTE not in kept.text


async def test_a_reply_forgets_an_erased_message_it_answers(
    desk: Desk, scripted: ScriptedModel
) -> None:
    end = asyncio.Event()
    scripted.script(Reply(["First."]), Reply(["Second, ", "and on."], gates={1: end}))
    first = await desk.wait_until_ended(await desk.ask(await desk.write("The heron.")))
    answer = await desk.journal.answer(desk.user, first.id, "The otter.")
    reply = await desk.ask(answer)
    await desk.wait_for(reply, lambda state: bool(state.text))
    await desk.trash.delete(desk.keys, answer.id)
    await desk.trash.erase(desk.keys, answer.id)
    end.set()
    await desk.wait_until_ended(reply)
    assert (await desk.load(reply)).parent_id == first.id


async def test_a_reply_to_what_is_kept_from_the_model_meanwhile_ends(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["Half a", " sentence"], fault="hang"))
    entry = await desk.write("The heron.")
    reply = await desk.ask(entry)
    await desk.wait_for(reply, lambda state: state.text == "Half a sentence")
    await desk.withholding.set_withheld(desk.keys, entry.id, withheld=True)
    ended = await asyncio.wait_for(desk.wait_until_ended(reply), 60)
    assert (ended.text, ended.state, ended.note) == ("Half a sentence", "stopped", SOURCE_WITHHELD)
    assert (await desk.load(reply)).withheld
    await asyncio.wait_for(scripted.chat_requests[0].ended.wait(), 60)


@pytest.mark.parametrize("worker", ["this one", "another one"])
@pytest.mark.parametrize("what", ["a source", "beside it"])
async def test_a_reply_ends_when_what_it_draws_on_is_deleted(
    desks: Desks, scripted: ScriptedModel, what: str, worker: str
) -> None:
    desk = await desks()
    deleter = desk if worker == "this one" else await desks()
    end = asyncio.Event()
    scripted.script(Reply(["So it was. ", f"You wrote “{QUOTE}”."], gates={1: end}))
    other = await desk.write(f"Today {QUOTE}.", date(2025, 6, 3) if what == "a source" else DAY)
    entry = await desk.write("A kingfisher, a letter.")
    await desk.search.wait_until_idle(desk.keys.user_id)
    reply = await desk.ask(entry)
    await desk.wait_for(reply, lambda state: bool(state.text))
    await deleter.trash.delete(deleter.keys, other.id)
    ended = await asyncio.wait_for(
        desk.wait_until_ended(reply), 30
    )  # although the model does not end
    end.set()
    kept = await desk.load(reply)
    assert (ended.state, kept.state, kept.note) == ("stopped", "stopped", SOURCE_DELETED)
    assert kept.text.strip() == "So it was."


async def test_a_reply_that_waits_for_its_turn_to_answer_what_is_deleted_says_so(
    desks: Desks, scripted: ScriptedModel
) -> None:
    desk = await desks(slots=1)
    end = asyncio.Event()
    scripted.script(Reply(["First."], gates={0: end}))
    first = await desk.ask(await desk.write("One."))
    entry = await desk.write("Two.")
    second = await desk.ask(entry)
    await desk.trash.delete(desk.keys, entry.id)
    end.set()
    await desk.wait_until_ended(first)
    ended = await desk.wait_until_ended(second)
    assert (ended.text, ended.note) == ("", Notice("entry_deleted"))
    assert len(scripted.chat_requests) == 1


async def test_a_reply_whose_keys_are_locked_ends_and_is_found_cut_short(
    desk: Desk, scripted: ScriptedModel, made: tuple[bytes, NewKeys]
) -> None:
    more = asyncio.Event()
    scripted.script(Reply(["One ", "two ", "three."], gates={1: more}))
    entry = await desk.write("Count.")
    reply = await desk.ask(entry)
    await desk.wait_for(reply, lambda state: state.text == "One ")
    following = asyncio.create_task(desk.wait_until_ended(reply))
    desk.keys.close()  # as at a lock for which the disk was too slow
    more.set()
    assert (await asyncio.wait_for(following, 60)).state == "stopped"
    user_id, keys = made
    desk.keys = open_keyring(user_id, keys.master, keys.sealed)
    assert (await desk.load(reply)).state == "streaming"
    assert (await asyncio.wait_for(desk.wait_until_ended(reply), 60)).note == INTERRUPTED
    assert (await desk.load(reply)).state == "stopped"
    again = await desk.wait_until_ended(await desk.ask(entry))
    assert (again.state, again.id == reply.id) == ("done", False)


async def test_what_could_not_be_stored_at_a_lock_is_cut_short_and_not_written_for_ever(
    desk: Desk, scripted: ScriptedModel, full: list[bool]
) -> None:
    scripted.script(Reply(["Half"], fault="hang"))
    entry = await desk.write("Go on.")
    reply = await desk.ask(entry)
    while (await desk.load(reply)).text != "Half":  # noqa: ASYNC110 -- it is stored in the background
        await asyncio.sleep(0.01)
    full.append(True)
    await desk.replies.lock(desk.keys.user_id)
    while desk.replies._live_replies:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    full.clear()
    assert (await desk.load(reply)).state == "streaming"  # as it was left
    again = await desk.ask(entry)
    assert again.id != reply.id
    assert (await desk.wait_until_ended(again)).state == "done"
    shown = await desk.wait_until_ended(reply)
    assert (shown.text, shown.state, shown.note) == ("Half", "stopped", INTERRUPTED)
    assert await desk.load(reply) == shown


async def test_a_reply_whose_keys_are_gone_before_it_is_stored_is_let_go(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script(Reply(["Half"], fault="hang"))
    reply = await desk.ask(await desk.write("Go on."))
    await desk.wait_for(reply, lambda state: state.text == "Half")
    slow = asyncio.Event()

    async def update_all(self: Entries, *given: object) -> list[Entry]:
        await slow.wait()
        raise StaleRevision("entry_busy")

    monkeypatch.setattr(Entries, "update_all", update_all)
    live = desk.replies._live_replies[reply.id]
    await desk.replies.lock(desk.keys.user_id)
    desk.keys.close()
    slow.set()
    assert live.task is not None
    await asyncio.wait_for(live.task, 60)
    assert live.is_finished
    assert not desk.replies._live_replies


async def test_a_look_at_a_reply_that_ended_meanwhile_does_not_cut_it(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["All of it."]))
    reply = await desk.ask(await desk.write("Go on."))
    ended = await desk.wait_until_ended(reply)
    assert await desk.replies.reconcile(desk.keys, reply) == ended  # as it was read a moment before
    assert await desk.load(reply) == ended
