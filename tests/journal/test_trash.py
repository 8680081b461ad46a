"""What is deleted can be brought back for thirty days; what is erased is nowhere any more."""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llamora.dates import utc_now
from llamora.journal import trash as journal_trash
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.drafts import Draft, answer_draft_key, edit_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.vectors import EntryVectors
from tests.journal.conftest import DAY, Desk
from tests.scripted_model import Reply, ScriptedModel

SLICE = 48  # bytes of an envelope that no other record has; a long one lies on several pages


def envelopes(path: Path) -> Iterator[bytes]:
    """Every sealed record of the entries, versions, vectors, drafts and names in the file."""
    with closing(sqlite3.connect(path)) as connection:
        for table in ("entries", "versions", "vectors", "drafts", "tags"):
            yield from (row[0] for row in connection.execute(f"SELECT sealed FROM {table}"))


def traces_of(sealed: list[bytes], path: Path) -> int:
    """How many pieces of these records stand in the database file or its log."""
    raw = b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    pieces = [
        each[start : start + SLICE]
        for each in sealed
        for start in range(0, len(each) - SLICE, SLICE)
    ]
    return sum(piece in raw for piece in pieces)


async def a_whole_thread(desk: Desk, text: str) -> tuple[Entry, list[Entry]]:
    """An entry that was edited, replied to, answered and replied to again, with everything that can hang on it."""
    root = await desk.write(text)
    root = await desk.journal.edit(desk.keys, root.id, text + " And on.", root.revision)
    reply = await desk.wait_until_ended(await desk.ask(root))
    answer = await desk.journal.answer(desk.user, reply.id, "An answer about kumquats.")
    second = await desk.wait_until_ended(await desk.ask(answer))
    for entry in (root, reply, answer, second):
        await desk.db.vectors.save(
            desk.keys, [EntryVectors(entry.id, entry.revision, "m", 4, bytes(16 * 40))]
        )
    await desk.db.tags.add(desk.keys, root.id, "quinces")
    for place in (edit_draft_key(root.id), answer_draft_key(second.id)):
        await desk.drafts.save(
            desk.keys, Draft(place, "A draft of medlars", secrets.token_bytes(16), 1)
        )
    return root, [reply, answer, second]


async def found(desk: Desk, words: str) -> int:
    return (await desk.search.search(desk.keys, words, today=DAY)).total


async def test_erasing_leaves_no_record_no_word_and_no_byte(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay, later = await a_whole_thread(desk, "What stays. " + "It has many words. " * 400)
    await desk.drafts.discard(desk.keys, edit_draft_key(stay.id))
    await desk.drafts.discard(desk.keys, answer_draft_key(later[-1].id))
    before = set(envelopes(desk.db.path))
    root, rest = await a_whole_thread(
        desk, "What goes, the persimmon. " + "It has many words too. " * 400
    )
    await desk.trash.delete(desk.keys, root.id)
    doomed = [sealed for sealed in envelopes(desk.db.path) if sealed not in before]
    assert len(doomed) >= 10
    assert traces_of(doomed, desk.db.path) > 300

    dropped: set[bytes] = set()
    monkeypatch.setattr(desk.search, "drop", lambda user_id, ids: dropped.update(ids))
    assert set(await desk.trash.erase(desk.keys, root.id)) == {
        root.id,
        *(entry.id for entry in rest),
    }
    assert dropped == {root.id, *(entry.id for entry in rest)}
    monkeypatch.undo()
    assert traces_of(doomed, desk.db.path) == 0
    assert set(envelopes(desk.db.path)) == before
    with closing(sqlite3.connect(desk.db.path)) as connection:
        for table, left in (
            ("entries", 4),
            ("versions", 1),
            ("vectors", 4),
            ("drafts", 0),
            ("entry_tags", 1),
        ):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (left,), table
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert await found(desk, "persimmon") == 0
    assert await found(desk, "stays") == 1
    assert await desk.trash.list_deleted(desk.keys) == []
    for entry in (root, *rest):
        with pytest.raises(NotFound):
            await desk.db.entries.get(desk.keys, entry.id)


async def test_the_list_says_what_is_deleted_and_what_went_with_it(desk: Desk) -> None:
    first, second = await desk.write("first"), await desk.write("second")
    reply = await desk.wait_until_ended(await desk.ask(first))
    await desk.trash.delete(desk.keys, second.id)
    await desk.trash.delete(desk.keys, first.id)
    listed = await desk.trash.list_deleted(desk.keys)
    assert [(entry.text, item.thread_ids) for entry, item in listed] == [
        ("first", (reply.id,)),
        ("second", ()),
    ]
    assert all(item.deleted_at == entry.deleted for entry, item in listed)
    await desk.trash.restore(desk.keys, first.id)
    assert [entry.text for entry, _ in await desk.trash.list_deleted(desk.keys)] == ["second"]
    assert [t.root.text for t in await desk.journal.get_page(desk.keys, DAY)] == ["first"]


async def test_only_what_is_deleted_can_be_erased(desk: Desk) -> None:
    entry = await desk.write("still here")
    with pytest.raises(NotFound):
        await desk.trash.erase(desk.keys, entry.id)
    await desk.trash.delete(desk.keys, entry.id)
    await desk.trash.restore(desk.keys, entry.id)
    with pytest.raises(NotFound):
        await desk.trash.erase(desk.keys, entry.id)
    assert (await desk.load(entry)).text == "still here"


async def test_erasing_and_bringing_back_at_once_do_one_of_the_two(desk: Desk) -> None:
    for _ in range(8):
        entry = await desk.write("contended")
        await desk.trash.delete(desk.keys, entry.id)
        results = await asyncio.gather(
            desk.trash.restore(desk.keys, entry.id),
            desk.trash.erase(desk.keys, entry.id),
            return_exceptions=True,
        )
        assert all(
            not isinstance(result, Exception) or isinstance(result, StorageError)
            for result in results
        )
        assert [
            item for _, item in await desk.trash.list_deleted(desk.keys) if item.id == entry.id
        ] == []
        left = await desk.db.entries.get_many(desk.keys, [entry.id])
        assert all(other.deleted is None for other in left)
        assert bool(left) == isinstance(results[1], Exception)


async def test_what_is_brought_back_at_the_last_moment_is_not_erased(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write("saved")
    await desk.trash.delete(desk.keys, entry.id)
    erase = desk.db.entries.erase

    async def erase_late(*arguments: Any) -> list[Entry]:
        await desk.trash.restore(
            desk.keys, entry.id
        )  # in another tab, after what is to go was read
        return await erase(*arguments)

    monkeypatch.setattr(desk.db.entries, "erase", erase_late)
    with pytest.raises(NotFound):
        await desk.trash.erase(desk.keys, entry.id)
    assert (await desk.load(entry)).deleted is None


async def test_a_thread_holds_together_when_a_message_in_its_middle_is_erased(desk: Desk) -> None:
    root = await desk.write("root")
    reply = await desk.wait_until_ended(await desk.ask(root))
    answer = await desk.journal.answer(desk.user, reply.id, "answer")
    await desk.trash.delete(desk.keys, reply.id)
    assert await desk.trash.erase(desk.keys, reply.id) == [reply.id]
    (thread,) = await desk.journal.get_page(desk.keys, DAY)
    assert [entry.id for entry in (thread.root, *thread.descendants)] == [root.id, answer.id]
    assert [entry.id for entry in thread.path_to(answer.id)] == [root.id, answer.id]


async def test_an_answer_that_was_deleted_before_goes_with_its_thread(desk: Desk) -> None:
    root = await desk.write("root")
    reply = await desk.wait_until_ended(await desk.ask(root))
    await desk.trash.delete(desk.keys, reply.id)
    await desk.trash.delete(desk.keys, root.id)
    assert len(await desk.trash.list_deleted(desk.keys)) == 2
    await desk.trash.erase(desk.keys, root.id)
    assert await desk.trash.list_deleted(desk.keys) == []
    assert await desk.db.entries.revisions(desk.keys.user_id) == {}


async def test_a_reply_that_is_still_coming_brings_nothing_back(
    desk: Desk, scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = asyncio.Event()
    scripted.script(Reply(["Persimmons ", "at last."], gates={1: end}))
    root = await desk.write("root")
    reply = await desk.ask(root)
    await desk.wait_for(reply, lambda state: state.text == "Persimmons ")
    await desk.trash.delete(desk.keys, root.id)
    await desk.trash.erase(desk.keys, root.id)
    told: list[Entry] = []
    put = desk.search.put
    monkeypatch.setattr(
        desk.search, "put", lambda keys, entry: (told.append(entry), put(keys, entry))
    )
    end.set()
    while desk.replies._live_replies:  # noqa: ASYNC110 -- nobody is told of a reply that is nowhere
        await asyncio.sleep(0.01)
    assert told == []
    assert await desk.db.entries.revisions(desk.keys.user_id) == {}


async def test_giving_up_ends_what_is_being_written(desk: Desk, scripted: ScriptedModel) -> None:
    scripted.script(Reply(["Persimmons ", "at last."], gates={1: asyncio.Event()}))
    reply = await desk.ask(await desk.write("root"))
    await desk.wait_for(reply, lambda state: state.text == "Persimmons ")
    desk.replies.cancel_for([reply.id, bytes(16)])
    assert (await desk.wait_until_ended(reply)).text == "Persimmons"


async def test_after_thirty_days_it_is_erased_by_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = await desk.write("old"), await desk.write("young")
    await desk.trash.delete(desk.keys, old.id)
    start = utc_now()

    def later(**span: float) -> Callable[[], datetime]:
        return lambda: start + timedelta(**span)

    monkeypatch.setattr(journal_trash, "utc_now", later(days=15))
    await desk.trash.delete(desk.keys, young.id)
    monkeypatch.setattr(journal_trash, "utc_now", later(days=29, hours=23))
    assert await desk.trash.erase_expired(desk.keys) == 0
    monkeypatch.setattr(journal_trash, "utc_now", later(days=30, seconds=1))
    assert await desk.trash.erase_expired(desk.keys) == 1
    assert [entry.text for entry, _ in await desk.trash.list_deleted(desk.keys)] == ["young"]
    with pytest.raises(NotFound):
        await desk.load(old)


async def test_it_is_looked_after_in_the_background_once_a_day(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write("old")
    await desk.trash.delete(desk.keys, entry.id)
    start = utc_now()
    monkeypatch.setattr(journal_trash, "utc_now", lambda: start + timedelta(days=31))
    desk.trash.run_maintenance(desk.keys)
    assert (await desk.load(entry)).deleted is not None  # it returned at once
    while await desk.db.entries.revisions(desk.keys.user_id):  # noqa: ASYNC110 -- what it does is in the background
        await asyncio.sleep(0.01)
    second = await desk.write("old too")
    monkeypatch.setattr(journal_trash, "utc_now", lambda: start)
    await desk.trash.delete(desk.keys, second.id)
    monkeypatch.setattr(journal_trash, "utc_now", lambda: start + timedelta(days=31))
    desk.trash.run_maintenance(desk.keys)
    assert not desk.trash._maintenance_tasks  # done for today
    await desk.trash.close()
    assert (await desk.load(second)).deleted is not None


async def test_a_journal_older_than_the_list_gets_one(desk: Desk) -> None:
    root = await desk.write("root")
    reply = await desk.wait_until_ended(await desk.ask(root))
    lone, kept = await desk.write("lone"), await desk.write("kept")
    at = utc_now()
    # As schema 0001 left them: marked, and listed nowhere.
    await desk.db.entries.update_all(
        desk.keys, [replace(await desk.load(e), deleted=at) for e in (root, reply)]
    )
    await desk.db.entries.update(desk.keys, replace(lone, deleted=at + timedelta(seconds=1)))
    assert [entry.text for entry, _ in await desk.trash.list_deleted(desk.keys)] == [
        "lone",
        "root",
    ]
    await desk.trash.erase(desk.keys, root.id)
    assert set(await desk.db.entries.revisions(desk.keys.user_id)) == {lone.id, kept.id}


async def test_a_deleted_record_that_does_not_open_is_still_erased_when_due(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write("old")
    await desk.trash.delete(desk.keys, entry.id)
    with closing(sqlite3.connect(desk.db.path)) as connection:
        connection.execute("UPDATE entries SET revision=revision+1")
        connection.commit()
    assert await desk.trash.list_deleted(desk.keys) == []
    start = utc_now()
    monkeypatch.setattr(journal_trash, "utc_now", lambda: start + timedelta(days=31))
    assert await desk.trash.erase_expired(desk.keys) == 1
    assert await desk.db.entries.revisions(desk.keys.user_id) == {}


async def test_words_of_an_earlier_version_leave_replies_with_what_is_erased(
    desk: Desk, scripted: ScriptedModel
) -> None:
    scripted.script(Reply(["You wrote “the kingfisher letter came from Lisbon”. So it was."]))
    beside = await desk.write("Today the kingfisher letter came from Lisbon.")
    reply = await desk.wait_until_ended(await desk.ask(await desk.write("What came?")))
    assert "Lisbon" in reply.text
    await desk.journal.edit(desk.keys, beside.id, "Nothing came.", 1)
    await desk.trash.delete(desk.keys, beside.id)
    await desk.trash.erase(desk.keys, beside.id)
    kept = await desk.load(reply)
    assert kept.text == "You wrote “[…]”. So it was."
    assert kept.receipt is not None
    assert kept.receipt.erased_count == 1
