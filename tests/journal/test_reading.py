"""What is kept from the model is in no prompt, whoever makes it and whatever comes between."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.journal.context import UserContext
from llamora.journal.entries import EntryError
from llamora.journal.openings import Openings
from llamora.journal.profile import Profile
from llamora.journal.retrieval import from_search, from_tags
from llamora.journal.suggestions import Suggestions
from llamora.journal.summaries import Summaries
from llamora.llm.client import ModelError
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entries, Entry, Receipt, UsedPassage
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.tag_changes import tag_hash
from llamora.settings import resource
from llamora.vault.key_renewal import NewKeys
from tests.journal.conftest import DAY, Desk, open_desk
from tests.scripted_model import ScriptedModel

BEFORE = date(2026, 11, 1)
SECRET = "The kingfisher diagnosis was bad."


def once_before(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[], Awaitable[object]]
) -> None:
    """Commit `change` between what is read for the next write of entries and that write."""
    real = getattr(Entries, name)

    async def write(self: Entries, *given: object, **named: object) -> object:
        monkeypatch.setattr(Entries, name, real)
        await change()
        return await real(self, *given, **named)

    monkeypatch.setattr(Entries, name, write)


async def thread_of(desk: Desk) -> tuple[Entry, Entry]:
    root = await desk.write("The doctor called.", BEFORE)
    return root, await desk.wait_until_ended(await desk.ask(root))


async def prompt_about_it(desk: Desk, scripted: ScriptedModel) -> str:
    entry = await desk.write("What was the kingfisher diagnosis?")
    await desk.search.wait_until_idle(desk.keys.user_id)
    await desk.wait_until_ended(await desk.ask(entry))
    return str(scripted.chat_requests[-1].body["messages"])


async def test_an_answer_in_a_thread_hidden_at_that_moment_is_kept_and_hidden(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reply = await thread_of(desk)
    once_before(
        monkeypatch, "add", lambda: desk.withholding.set_withheld(desk.keys, root.id, withheld=True)
    )
    answer = await desk.journal.answer(desk.user, reply.id, SECRET)
    stored = await desk.load(answer)
    assert (stored.text, stored.withheld) == (SECRET, True)
    (thread,) = await desk.journal.get_page(desk.keys, BEFORE)
    assert [entry.id for entry in thread.descendants] == [reply.id, answer.id]
    assert SECRET not in await prompt_about_it(desk, scripted)


async def test_hiding_a_thread_hides_an_answer_that_comes_at_that_moment(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reply = await thread_of(desk)
    once_before(monkeypatch, "update_all", lambda: desk.journal.answer(desk.user, reply.id, SECRET))
    await desk.withholding.set_withheld(desk.keys, root.id, withheld=True)
    (thread,) = await desk.journal.get_page(desk.keys, BEFORE)
    assert [(entry.text, entry.withheld) for entry in thread.descendants] == [
        (reply.text, True),
        (SECRET, True),
    ]
    assert SECRET not in await prompt_about_it(desk, scripted)


async def test_deleting_a_thread_deletes_an_answer_that_comes_at_that_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reply = await thread_of(desk)
    once_before(monkeypatch, "update_all", lambda: desk.journal.answer(desk.user, reply.id, SECRET))
    await desk.trash.delete(desk.keys, root.id)
    ((_, item),) = await desk.trash.list_deleted(desk.keys)
    assert (item.thread_ids[0], len(item.thread_ids)) == (reply.id, 2)
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert (await desk.search.search(desk.keys, "kingfisher", today=DAY)).total == 0
    await desk.trash.restore(desk.keys, root.id)
    (thread,) = await desk.journal.get_page(desk.keys, BEFORE)
    assert [entry.text for entry in thread.descendants] == [reply.text, SECRET]


async def test_what_is_hidden_while_it_is_asked_about_is_not_sent(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write(SECRET)
    once_before(
        monkeypatch,
        "add",
        lambda: desk.withholding.set_withheld(desk.keys, entry.id, withheld=True),
    )
    with pytest.raises(EntryError):
        await desk.ask(entry)
    assert scripted.chat_requests == []
    assert [thread.descendants for thread in await desk.journal.get_page(desk.keys, DAY)] == [()]


async def test_hiding_an_entry_hides_a_reply_that_is_begun_at_that_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write(SECRET)
    begun: list[Entry] = []

    async def ask() -> None:
        begun.append(await desk.ask(entry))

    once_before(monkeypatch, "update_all", ask)
    await desk.withholding.set_withheld(desk.keys, entry.id, withheld=True)
    await desk.wait_until_ended(begun[0])
    assert (await desk.load(begun[0])).withheld


# -- all that makes prompts --------------------------------------------------------------------------

Mark = Literal["open", "hidden", "deleted"]
DAYS = (DAY, DAY - timedelta(days=1), DAY - timedelta(days=2), DAY - timedelta(days=40))
MARKS: st.SearchStrategy[Mark] = st.sampled_from(["open", "open", "hidden", "deleted"])
THREADS = st.lists(
    st.tuples(st.sampled_from(range(len(DAYS))), st.lists(MARKS, min_size=1, max_size=5)),
    min_size=1,
    max_size=4,
)
QUESTION = "The kingfisher letter at the lake?"


@dataclass
class Written:
    """What an example wrote: canaries by id, and which of them may be in no prompt."""

    threads: list[list[Entry]] = field(default_factory=list)
    canaries: dict[bytes, str] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    readable: set[str] = field(default_factory=set)

    def user_entries(self) -> list[Entry]:
        return [entry for thread in self.threads for entry in thread if entry.role == "me"]


async def write_threads(desk: Desk, threads: list[tuple[int, list[Mark]]]) -> Written:
    """Write threads in which every reply says all that its model read; then mark them as they came.

    Search has been told of no mark: that is how it stands for whoever is quick.
    """
    written = Written()
    marked: list[Entry] = []
    for number, (day, marks) in enumerate(threads):
        thread: list[Entry] = []
        source = written.threads[-1][0] if written.threads else None
        for place, mark in enumerate(marks):
            canary = f"quokka{chr(97 + number)}{chr(97 + place)}"
            text = f"The kingfisher letter. #lake #{canary}"
            if place % 2 == 0:
                entry = (
                    await desk.journal.answer(desk.user, thread[-1].id, text)
                    if thread
                    else await desk.write(text, DAYS[day])
                )
            else:
                read = [
                    written.canaries[other.id] for other in (*thread, *([source] if source else []))
                ]
                passages = (
                    (UsedPassage(1, source.id, source.day, source.text, 1.0),) if source else ()
                )
                entry = Entry(
                    bytes([number, place]) * 8,
                    DAYS[day],
                    "reply",
                    f"A reply, {canary}, to {' '.join(read)}.",
                    desk.journal.now(),
                    "UTC",
                    parent_id=thread[-1].id,
                    sources=tuple(passage.entry_id for passage in passages),
                    receipt=Receipt(
                        "scripted", "", "", left_machine=False, prompt_version="", passages=passages
                    ),
                )
                await desk.db.entries.add(desk.keys, entry)
                desk.search.put(desk.keys, entry)
            written.canaries[entry.id] = canary
            thread.append(entry)
            if mark != "open":
                deleted = datetime(2026, 11, 20, 12, tzinfo=UTC) if mark == "deleted" else None
                marked.append(replace(entry, withheld=mark == "hidden", deleted=deleted))
            is_forbidden = mark != "open" or marks[0] != "open"
            (written.forbidden if is_forbidden else written.readable).add(canary)
        written.threads.append(thread)
    await desk.search.wait_until_idle(desk.keys.user_id)
    await desk.db.entries.update_all(desk.keys, marked)
    return written


async def make_all_prompts(desk: Desk, scripted: ScriptedModel, written: Written) -> str:
    """Make every kind of prompt of what was written; return all that was sent or previewed."""
    user = UserContext(desk.keys, Profile(openings=True), DAY)
    keys, composer, made = desk.keys, desk.replies.composer, list[object]()
    summaries = Summaries(desk.db, desk.journal, desk.model)
    openings = Openings(desk.db, desk.journal, summaries)
    suggestions = Suggestions(desk.db, desk.journal, desk.search, desk.model)
    lake = tag_hash(keys, "lake")
    user_entries = written.user_entries()

    async def ask(entry: Entry, also: list[bytes]) -> None:
        await desk.wait_until_ended(await desk.replies.ask(user, entry.id, also))

    prompts: list[Awaitable[object]] = [
        from_search(desk.search, desk.db, keys, QUESTION, DAY, set()),
        from_tags(
            desk.journal.tags,
            desk.db,
            keys,
            [e.id for e in user_entries],
            QUESTION,
            DAY + timedelta(1),
            set(),
            [],
        ),
        openings.preview(user),
        openings.generate_line(user),
        summaries.preview_tag(user, lake),
        summaries.summarize_tag(user, lake),
    ]
    for day in sorted({entry.day for entry in user_entries}):
        prompts += [summaries.preview_day(user, day), summaries.summarize_day(user, day)]
    for entry in user_entries:
        prompts += [composer.preview(user, entry.id), suggestions.suggest(user, entry.id)]
    for thread in written.threads:
        roots = [
            other[0].id
            for other in written.threads
            if other[0].day == thread[0].day and other is not thread
        ]
        prompts += [
            composer.preview(user, thread[0].id, roots),
            ask(thread[0], roots),
        ]
        prompts.append(ask(thread[(len(thread) - 1) // 2 * 2], []))
    for prompt in prompts:
        with suppress(EntryError, ModelError, NotFound):
            result = await prompt
            made.append(getattr(result, "prompt", result if isinstance(result, list) else None))
    return f"{made} {[json.dumps(request.body) for request in scripted.requests]}"


@given(THREADS)
@example(
    [(3, ["hidden", "open", "open"]), (0, ["open"])]
)  # an answer that came too late to bear its own mark
@example([(1, ["deleted", "open", "open"]), (0, ["open", "open", "open"])])
@example(
    [(0, ["open", "hidden", "open", "open", "open"])]
)  # a later reply holds words of a hidden one
@example([(0, ["open", "deleted", "open", "open", "open"])])
@example(
    [(3, ["hidden"]), (0, ["open", "open", "open"])]
)  # a reply was drawn from what is hidden by now
@example([(0, ["hidden"]), (0, ["open"])])
@settings(max_examples=12)
def test_no_prompt_holds_what_the_model_may_not_read(
    made: tuple[bytes, NewKeys], threads: list[tuple[int, list[Mark]]]
) -> None:
    async def run() -> tuple[Written, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.sqlite3"
            run_db_migrations(path, resource("migrations"))
            async with ScriptedModel() as scripted:
                desk = await open_desk(path, made, scripted.url, is_new=True)
                try:
                    written = await write_threads(desk, threads)
                    return written, await make_all_prompts(desk, scripted, written)
                finally:
                    await desk.close()

    written, sent = asyncio.run(run())
    assert {canary for canary in written.forbidden if canary in sent} == set()
    users = {written.canaries[entry.id] for entry in written.user_entries()}
    assert {
        canary for canary in written.readable & users if canary not in sent
    } == set()  # and the others are
