"""Drafts as the journal takes them: places, line ends, lengths, and the form that is sent twice."""

import secrets

import pytest
from msgspec.structs import replace

from llamora.journal.entries import EntryError
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import (
    Draft,
    FormToken,
    answer_draft_key,
    day_draft_key,
    edit_draft_key,
)
from tests.journal.conftest import DAY, Desk

PLACE = day_draft_key(DAY)


def draft(text: str, place: str = PLACE) -> Draft:
    return Draft(place, text, secrets.token_bytes(16), 1)


async def text_at(desk: Desk, place: str = PLACE) -> str | None:
    found = (await desk.drafts.get_many(desk.keys, [place])).get(place)
    return found.text if found else None


async def test_line_ends_are_those_of_an_entry_and_the_rest_is_left_alone(desk: Desk) -> None:
    await desk.drafts.save(desk.keys, draft("\r\n a\r\nb\rc \n"))
    assert await text_at(desk) == "\n a\nb\nc \n"


@pytest.mark.parametrize(
    "place",
    [
        "",
        "day:",
        "day:2026-02-30",
        "day:2026-1-1",
        "entry:",
        "entry:zz",
        "answer:00",
        "kitchen:2026-11-20",
        "day",
    ],
)
async def test_other_places_there_are_none(desk: Desk, place: str) -> None:
    with pytest.raises(NotFound):
        await desk.drafts.save(desk.keys, draft("words", place))


async def test_a_text_too_long_for_an_entry_is_said_while_it_is_written(desk: Desk) -> None:
    with pytest.raises(EntryError, match=r"^entry_too_long$"):
        await desk.drafts.save(desk.keys, draft("a" * 5_000_000))
    assert await text_at(desk) is None


async def test_the_edit_of_an_entry_that_says_what_it_said_is_no_draft(desk: Desk) -> None:
    entry = await desk.write("one\ntwo")
    place = edit_draft_key(entry.id)
    await desk.drafts.save(desk.keys, draft("one\ntwo, three", place))
    assert await text_at(desk, place) == "one\ntwo, three"
    await desk.drafts.save(desk.keys, draft("one\r\ntwo", place))
    assert await text_at(desk, place) is None


async def test_keeping_removes_the_draft_of_its_own_form(desk: Desk) -> None:
    entry = await desk.write("entry")
    reply = await desk.wait_until_ended(await desk.ask(entry))
    pens = [FormToken(secrets.token_bytes(16)) for _ in range(3)]
    places = [PLACE, edit_draft_key(entry.id), answer_draft_key(reply.id)]
    for pen, place in zip(pens, places, strict=True):
        await desk.drafts.save(desk.keys, Draft(place, "words", pen.id, 1))
    kept = await desk.journal.write(desk.user, DAY, "words", PLACE, pens[0])
    await desk.journal.edit(desk.keys, entry.id, "words", entry.revision, pens[1])
    answer = await desk.journal.answer(desk.user, reply.id, "words", pens[2])
    assert await desk.drafts.get_many(desk.keys, places) == {}
    assert (kept.id, answer.id) == (pens[0].id, pens[2].id)
    for pen, place in zip(pens, places, strict=True):
        assert not await desk.drafts.save(desk.keys, Draft(place, "wor", pen.id, 2))
    assert await desk.drafts.get_many(desk.keys, places) == {}


async def test_a_form_that_is_sent_twice_is_kept_once(desk: Desk) -> None:
    pen = FormToken(secrets.token_bytes(16))
    first = await desk.journal.write(desk.user, DAY, "once", PLACE, pen)
    again = await desk.journal.write(desk.user, DAY, "once\r\n", PLACE, pen)
    assert again == first
    other = await desk.journal.write(desk.user, DAY, "once, and more", PLACE, pen)
    assert other.id != first.id  # never lost, whatever a form says of itself
    assert [thread.root.text for thread in await desk.journal.get_page(desk.keys, DAY)] == [
        "once",
        "once, and more",
    ]


async def test_an_edit_that_changes_nothing_lets_its_draft_go(desk: Desk) -> None:
    entry = await desk.write("as it is")
    pen, place = FormToken(secrets.token_bytes(16)), edit_draft_key(entry.id)
    await desk.drafts.save(desk.keys, replace(draft("as it was", place), form_token_id=pen.id))
    await desk.journal.edit(desk.keys, entry.id, "as it is", entry.revision, pen)
    assert await text_at(desk, place) is None
