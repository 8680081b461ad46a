"""What an entry said before it was edited is kept, and can be brought back."""

import pytest

from llamora.journal.entries import EditConflict
from llamora.persistence.connection import NotFound
from tests.journal.conftest import Desk


async def texts(desk: Desk, entry_id: bytes) -> list[str]:
    return [version.text for version in await desk.versions.list_for_entry(desk.keys, entry_id)]


async def test_every_edit_keeps_what_it_replaces_with_its_time(desk: Desk) -> None:
    entry = await desk.write("one")
    second = await desk.journal.edit(desk.keys, entry.id, "two", 1)
    await desk.journal.edit(desk.keys, entry.id, "three", 2)
    found = await desk.versions.list_for_entry(desk.keys, entry.id)
    assert [(v.text, v.at, v.revision) for v in found] == [
        ("two", second.edited, 2),
        ("one", entry.at, 1),
    ]


async def test_an_edit_that_changes_nothing_or_conflicts_keeps_nothing(desk: Desk) -> None:
    entry = await desk.write("one")
    await desk.journal.edit(desk.keys, entry.id, "one\r\n", 1)
    with pytest.raises(EditConflict):
        await desk.journal.edit(desk.keys, entry.id, "two", 7)
    assert await texts(desk, entry.id) == []


async def test_bringing_one_back_is_an_edit_like_any_other(desk: Desk) -> None:
    entry = await desk.write("a heron")
    await desk.journal.edit(desk.keys, entry.id, "a gull", 1)
    (version,) = await desk.versions.list_for_entry(desk.keys, entry.id)
    with pytest.raises(EditConflict):
        await desk.versions.restore(desk.keys, entry.id, version.id, 1)
    back = await desk.versions.restore(desk.keys, entry.id, version.id, 2)
    assert (back.text, back.revision) == ("a heron", 3)
    assert await texts(desk, entry.id) == ["a gull", "a heron"]
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert (await desk.search.search(desk.keys, "heron", today=entry.day)).total == 1
    assert (await desk.search.search(desk.keys, "gull", today=entry.day)).total == 0


async def test_versions_of_what_is_deleted_wait_with_it(desk: Desk) -> None:
    entry, beside = await desk.write("one"), await desk.write("beside")
    await desk.journal.edit(desk.keys, entry.id, "two", 1)
    (version,) = await desk.versions.list_for_entry(desk.keys, entry.id)
    with pytest.raises(NotFound):
        await desk.versions.restore(desk.keys, beside.id, version.id, 1)
    await desk.trash.delete(desk.keys, entry.id)
    with pytest.raises(NotFound):
        await desk.versions.list_for_entry(desk.keys, entry.id)
    await desk.trash.restore(desk.keys, entry.id)
    assert await texts(desk, entry.id) == ["one"]
