"""Two workers of one server, and what a reply keeps whichever of them is asked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from msgspec import structs

from llamora.errors import Notice
from llamora.journal.live import INTERRUPTED, STOPPED
from llamora.journal.profile import Profile, serialize_profile
from llamora.persistence.connection import DiskFull
from llamora.persistence.entries import Entries, Entry
from llamora.vault.keys import Keyring
from tests.journal.conftest import Desk
from tests.scripted_model import Reply, ScriptedModel

Desks = Callable[..., Awaitable[Desk]]


async def test_a_stop_is_heeded_by_the_worker_that_writes(
    desks: Desks, scripted: ScriptedModel
) -> None:
    writer, other = await desks(), await desks()
    scripted.script(Reply(["Half a sentence"], fault="hang"))
    reply = await writer.ask(await writer.write("Go on."))
    await writer.wait_for(reply, lambda state: state.text == "Half a sentence")
    stopped = await other.replies.stop(other.keys, reply.id)
    assert (stopped.text, stopped.state, stopped.note, stopped.boot) == (
        "Half a sentence",
        "stopped",
        STOPPED,
        "",
    )
    await asyncio.wait_for(scripted.chat_requests[0].ended.wait(), 60)
    assert scripted.chat_requests[0].is_client_gone
    while writer.replies._live_replies:  # noqa: ASYNC110 -- it is told of a moment after it is stored
        await asyncio.sleep(0.01)


async def test_a_reply_of_a_worker_that_is_gone_can_be_stopped(
    desks: Desks, scripted: ScriptedModel
) -> None:
    writer, other = await desks(), await desks()
    scripted.script(Reply(["Half"], fault="hang"))
    reply = await writer.ask(await writer.write("Go on."))
    await writer.wait_for(reply, lambda state: state.text == "Half")
    while (await other.load(reply)).text != "Half":  # noqa: ASYNC110 -- the writing worker stores it
        await asyncio.sleep(0.01)
    live = writer.replies._live_replies[reply.id]
    assert writer.replies._watch_task is not None
    writer.replies._watch_task.cancel()  # as if it had been killed
    stopped = await asyncio.wait_for(other.replies.stop(other.keys, reply.id), 60)
    assert (stopped.text, stopped.state) == ("Half", "stopped")
    assert live.task is not None


async def test_a_stop_holds_also_where_the_writing_worker_was_only_slow(
    desks: Desks, scripted: ScriptedModel
) -> None:
    writer, other = await desks(), await desks()
    go_on = asyncio.Event()
    scripted.script(Reply(["Half", " more.", " And more."], gates={1: go_on}, fault="hang"))
    reply = await writer.ask(await writer.write("Go on."))
    await writer.wait_for(reply, lambda state: state.text == "Half")
    watcher, live = writer.replies._watch_task, writer.replies._live_replies[reply.id]
    assert watcher is not None
    watcher.cancel()  # too busy to look
    stopped = await asyncio.wait_for(other.replies.stop(other.keys, reply.id), 60)
    assert stopped.state == "stopped"
    go_on.set()
    assert live.task is not None
    await asyncio.wait_for(live.task, 60)
    assert live.is_finished
    assert scripted.chat_requests[0].is_client_gone
    kept = await other.load(reply)
    assert (kept.state, kept.note, kept.boot) == ("stopped", INTERRUPTED, "")
    assert kept.text.startswith("Half")


async def test_asked_on_two_workers_it_is_written_once(
    desks: Desks, scripted: ScriptedModel
) -> None:
    writer, other = await desks(), await desks()
    end = asyncio.Event()
    scripted.script(Reply(["Once."], gates={1: end}))
    entry = await writer.write("Go on.")
    reply = await writer.ask(entry)
    await writer.wait_for(reply, lambda state: bool(state.text))
    assert (await other.ask(entry)).id == reply.id
    end.set()
    assert (await other.wait_until_ended(reply)).text == "Once."
    assert len(scripted.chat_requests) == 1


@pytest.mark.parametrize("fast", [True, False])
async def test_asked_on_two_workers_at_the_same_moment_it_is_written_once(
    desks: Desks, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """A double click whose two requests land on two workers: both looked before either had begun."""
    desk, other = await desks(), await desks()
    entry, end = await desk.write("Go on."), asyncio.Event()
    scripted.default_reply = Reply(["Once."], gates={} if fast else {1: end})
    both, real = asyncio.Barrier(2), Entries.add

    async def add(self: Entries, *given: object, **named: object) -> None:
        await both.wait()
        for each in (desk, other):  # nothing is missing any more to ask the model
            while any(not live.entry.receipt for live in each.replies._live_replies.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await real(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Entries, "add", add)
    first, second = await asyncio.gather(desk.ask(entry), other.ask(entry))
    assert first.id == second.id
    end.set()
    assert [(await each.wait_until_ended(first)).text for each in (desk, other)] == [
        "Once.",
        "Once.",
    ]
    (thread,) = await desk.journal.get_page(desk.keys, entry.day)
    assert [reply.id for reply in thread.descendants] == [first.id]
    assert len(scripted.chat_requests) == 1
    monkeypatch.undo()
    later = await other.wait_until_ended(
        await other.ask(entry)
    )  # asked again afterwards it is another one
    assert later.id != first.id


async def test_a_wish_to_stop_that_could_not_be_read_is_read_again(
    desks: Desks, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await desks(), await desks()
    scripted.script(Reply(["A word"], fault="hang"))
    reply = await here.ask(await here.write("Go on."))
    await here.wait_for(reply, lambda state: state.text == "A word")
    while (await here.load(reply)).text != "A word":  # noqa: ASYNC110 -- the worker stores it
        await asyncio.sleep(0.01)
    many, failed = Entries.get_many, asyncio.Event()

    async def fails_once(self: Entries, keys: Keyring, ids: Sequence[bytes]) -> list[Entry]:
        found = await many(self, keys, ids)
        if not failed.is_set() and any(entry.stopping for entry in found):
            failed.set()
            raise DiskFull("disk_full")
        return found

    monkeypatch.setattr(Entries, "get_many", fails_once)
    await there.db.entries.update(
        there.keys, structs.replace(await there.load(reply), stopping=True)
    )
    await asyncio.wait_for(failed.wait(), 60)
    assert (await asyncio.wait_for(here.wait_until_ended(reply), 60)).state == "stopped"


async def test_turned_off_on_one_worker_replies_end_on_all(
    desks: Desks, scripted: ScriptedModel
) -> None:
    desk, other = await desks(slots=1), await desks()
    scripted.script(Reply(["Half a sentence"], fault="hang"))
    reply = await desk.ask(await desk.write("Go on."))
    waiting = await desk.ask(await desk.write("And on."))
    await desk.wait_for(reply, lambda state: bool(state.text))
    await other.db.profiles.save(
        other.keys, serialize_profile(replace(Profile(), replies=False)), revision=0
    )
    for each, text in ((reply, "Half a sentence"), (waiting, "")):
        ended = await asyncio.wait_for(desk.wait_until_ended(each), 60)
        assert (ended.text, ended.state, ended.note) == (
            text,
            "stopped",
            Notice("reply_turned_off"),
        )
    await asyncio.wait_for(scripted.chat_requests[0].ended.wait(), 60)
    assert len(scripted.chat_requests) == 1


async def test_what_was_shown_is_stored_also_when_nothing_follows(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["Some words"], fault="hang"))
    reply = await desk.ask(await desk.write("Go on."))
    while (await desk.load(reply)).text != "Some words":  # noqa: ASYNC110 -- it is stored in the background
        await asyncio.sleep(0.01)
    assert (await desk.load(reply)).state == "streaming"


async def test_thoughts_are_not_part_of_the_reply(desk: Desk, scripted: ScriptedModel) -> None:
    said = {
        "opened": ["<thi", "nk>They are sad.", " I should…</th", "ink>\n\nA quiet", " day."],
        "template opened it": ["They are ", "sad. </think>", "\nA quiet day."],
        "twice": ["<think>One.</think><thinking>two</thinking>A quiet day."],
        "in capitals": ["<THINK>They are sad.</Think>A quiet day."],
        "with a space": ["<think >They are", " sad.</think", " >A quiet day."],
        "in brackets": ["[TH", "INK]They are [sad].[/", "THINK]A quiet day."],
        "in triangles": ["◁think", "▷They are sad.◁/think▷A quiet day."],
        "a reflection": ["<reflection>They are sad.</reflection>A quiet day."],
        "a channel": [
            *(
                "<|chan",
                "nel|>anal",
                "ysis<|mess",
                "age|>They are sad.<|end|><|start|>assis",
                "tant<|channel|>fi",
            ),
            *("nal<|message", "|>A quiet day.<|ret", "urn|>"),
        ],
        "template opened the channel": [
            "They are.<|end|><|start|>assistant<|channel|>final",
            "<|message|>A quiet day.",
        ],
        "brackets opened by the template": ["They are sad.[/THI", "NK]A quiet day."],
        "not a thought": ["A quiet day."],
    }
    for pieces in said.values():
        scripted.script(Reply(pieces))
        reply = await desk.wait_until_ended(await desk.ask(await desk.write("Go on.")))
        assert reply.text == "A quiet day."
        assert (await desk.load(reply)).text == "A quiet day."
    scripted.script(Reply(["a < b, [TH\n", "x] and <thin ice>", " <"]))
    assert (
        await desk.wait_until_ended(await desk.ask(await desk.write("Go on.")))
    ).text == "a < b, [TH\nx] and <thin ice> <"


async def waits(desk: Desk, reply_id: bytes, code: str) -> None:
    for _ in range(6000):
        if desk.replies.waiting_message(reply_id) == Notice(code):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(desk.replies.waiting_message(reply_id))


async def test_waiting_is_said_in_words_and_the_queue_is_fair(
    desks: Desks, scripted: ScriptedModel
) -> None:
    desk = await desks(slots=1)
    end = asyncio.Event()
    scripted.script(Reply(["Quiet."], gates={1: end}))
    first = await desk.ask(await desk.write("One."))
    await desk.wait_for(first, lambda state: bool(state.text))
    second, third = (
        await desk.ask(await desk.write("Two.")),
        await desk.ask(await desk.write("Three.")),
    )
    await waits(desk, second.id, "waiting_next")
    await waits(desk, third.id, "waiting_one")
    await desk.replies.stop(desk.keys, second.id)
    await waits(desk, third.id, "waiting_next")
    end.set()
    assert (await desk.wait_until_ended(third)).state == "done"
