"""Threads of a day, and what may be done to an entry."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.journal.entries import EditConflict, EntryError
from llamora.journal.threads import build_threads
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry
from tests.journal.conftest import DAY, Desk

START = datetime(2026, 11, 20, 8, tzinfo=UTC)


def record(number: int, to: int | None = None) -> Entry:
    target = None if to is None else bytes([to]) * 16
    return Entry(
        bytes([number]) * 16,
        DAY,
        "me",
        f"text {number}",
        START + timedelta(minutes=number),
        "UTC",
        parent_id=target,
    )


@st.composite
def days(draw: st.DrawFn) -> list[Entry]:
    """Records of a day that answer each other in any way: themselves, in circles, what is not there."""
    count = draw(st.integers(0, 12))
    answers = st.none() | st.integers(0, count + 2)
    records = [record(number, draw(answers)) for number in range(count)]
    gone = draw(st.sets(st.integers(0, max(0, count - 1))))
    records = [replace(r, deleted=START) if n in gone else r for n, r in enumerate(records)]
    return draw(st.permutations(records))


@given(days())
def test_every_record_stands_in_exactly_one_place(records: list[Entry]) -> None:
    found = [
        entry for thread in build_threads(records) for entry in (thread.root, *thread.descendants)
    ]
    assert sorted(entry.id for entry in found) == sorted(entry.id for entry in records)
    assert all(entry in records for entry in found)


@given(days())
def test_a_message_stands_after_the_one_it_answers(records: list[Entry]) -> None:
    for thread in build_threads(records):
        order = [entry.id for entry in (thread.root, *thread.descendants)]
        for entry in thread.descendants:
            if entry.parent_id in order and thread.root.parent_id is None:
                assert order.index(entry.id) > order.index(entry.parent_id)  # type: ignore[arg-type]


@given(days())
def test_the_way_to_a_message_ends_there_and_repeats_nothing(records: list[Entry]) -> None:
    for thread in build_threads(records):
        for entry in (thread.root, *thread.descendants):
            path = thread.path_to(entry.id)
            assert len({step.id for step in path}) == len(path)
            assert all(step.deleted is None for step in path)
            if entry.deleted is None:
                assert path[-1] == entry
            for earlier, later in itertools.pairwise(path):
                if all(r.deleted is None for r in records):
                    assert later.parent_id == earlier.id


def test_a_conversation_is_one_thread() -> None:
    records = [
        record(0),
        record(1),
        record(2, to=0),
        record(3, to=2),
        record(4, to=3),
        record(5, to=1),
        record(6, to=2),
    ]
    first, second = build_threads(records)
    assert [entry.text for entry in (first.root, *first.descendants)] == [
        "text 0",
        "text 2",
        "text 3",
        "text 4",
        "text 6",
    ]
    assert [entry.text for entry in (second.root, *second.descendants)] == ["text 1", "text 5"]
    assert [entry.text for entry in first.path_to(records[4].id)] == [
        "text 0",
        "text 2",
        "text 3",
        "text 4",
    ]
    assert [entry.text for entry in first.path_to(records[6].id)] == ["text 0", "text 2", "text 6"]


def test_of_a_circle_the_one_written_first_is_the_root() -> None:
    (thread,) = build_threads([record(1, to=3), record(2, to=1), record(3, to=2), record(4, to=3)])
    assert [entry.text for entry in (thread.root, *thread.descendants)] == [
        "text 1",
        "text 2",
        "text 3",
        "text 4",
    ]


def test_an_answer_without_its_root_stands_for_itself() -> None:
    (thread,) = build_threads([record(3, to=9)])
    assert thread.root.text == "text 3"


@given(st.text())
def test_what_is_kept_holds_every_word(text: str) -> None:
    from llamora.journal.entries import Journal
    from llamora.settings import EntrySettings

    journal = Journal(None, None, EntrySettings())  # type: ignore[arg-type]
    try:
        kept = journal.normalize_text(text)
    except EntryError:
        assert not text.strip()
        return
    assert kept.split() == text.split()
    assert "\r" not in kept
    assert journal.normalize_text(kept) == kept


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_the_limit_is_in_bytes(size: int, fits: bool) -> None:
    from llamora.journal.entries import Journal
    from llamora.settings import EntrySettings

    journal = Journal(None, None, EntrySettings(max_bytes=1000))  # type: ignore[arg-type]
    text = "é" * (size // 2) + "x" * (size % 2)
    if fits:
        assert journal.normalize_text(text) == text
    else:
        with pytest.raises(EntryError, match=r"^entry_too_long$") as caught:
            journal.normalize_text(text)
        assert caught.value.params == {"size": "0.001 MB"}


async def test_of_two_edits_at_once_one_is_kept_and_the_other_told(desk: Desk) -> None:
    entry = await desk.write("As it was.")
    results = await asyncio.gather(
        *(desk.journal.edit(desk.keys, entry.id, f"Edit {n}", entry.revision) for n in range(4)),
        return_exceptions=True,
    )
    kept = [result for result in results if isinstance(result, Entry)]
    told = [result for result in results if isinstance(result, EditConflict)]
    assert (len(kept), len(told)) == (1, 3)
    assert all(conflict.current.text == kept[0].text for conflict in told)
    assert (await desk.load(entry)).text == kept[0].text
    assert (await desk.load(entry)).edited is not None


async def test_a_lone_half_of_a_character_is_replaced(desk: Desk) -> None:
    entry = await desk.write("half \ud83e of it")
    assert (await desk.load(entry)).text == entry.text == "half \ufffd of it"


async def test_an_edit_and_a_deletion_at_once_lose_no_word(desk: Desk) -> None:
    entry = await desk.write("As it was.")
    edited, deleted = await asyncio.gather(
        desk.journal.edit(desk.keys, entry.id, "As it is.", entry.revision),
        desk.trash.delete(desk.keys, entry.id),
        return_exceptions=True,
    )
    assert isinstance(deleted, Entry)
    assert isinstance(edited, Entry | EditConflict | NotFound)
    back = await desk.trash.restore(desk.keys, entry.id)
    assert back.text == ("As it is." if isinstance(edited, Entry) else "As it was.")


async def test_deleting_twice_and_restoring_twice_is_once(desk: Desk) -> None:
    entry = await desk.write("Here.")
    for act in (desk.trash.delete, desk.trash.restore):
        first = await act(desk.keys, entry.id)
        assert await act(desk.keys, entry.id) == first


async def test_an_answer_stands_on_the_day_of_its_thread(desk: Desk) -> None:
    entry = await desk.write("Long ago.", day=DAY.replace(year=1999))
    answer = await desk.journal.answer(desk.user, entry.id, "And now.")
    assert answer.day == DAY.replace(year=1999)
    assert answer.parent_id == entry.id
    await desk.trash.delete(desk.keys, entry.id)
    with pytest.raises(NotFound):
        await desk.journal.answer(desk.user, entry.id, "Too late.")


async def test_a_damaged_record_leaves_the_rest_of_the_page(desks: Callable[..., object]) -> None:
    desk: Desk = await desks()  # type: ignore[misc]
    good, bad = await desk.write("Whole."), await desk.write("Damaged.")
    async with desk.db._connections.write() as tx:
        await tx.execute("UPDATE entries SET sealed=zeroblob(length(sealed)) WHERE id=?", (bad.id,))
    shown = await desk.journal.get_page(desk.keys, DAY)
    assert [(thread.root.text, thread.root.state) for thread in shown] == [
        ("Whole.", "done"),
        ("", "unreadable"),
    ]
    assert shown[0].root == good
