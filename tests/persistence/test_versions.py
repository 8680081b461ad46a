"""Earlier texts of entries in the store."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from llamora.persistence import LocalDB
from llamora.persistence.connection import NotFound, StaleRevision
from llamora.persistence.entries import Entry
from llamora.persistence.versions import Version
from llamora.vault.keys import Keyring
from tests.persistence.conftest import AT, entry


def before(kept: Entry, version_id: bytes | None = None) -> Version:
    return Version(version_id or secrets.token_bytes(16), kept.id, kept.text, AT, kept.revision)


async def edit(db: LocalDB, keys: Keyring, kept: Entry, text: str) -> Entry:
    return await db.entries.update(
        keys, replace(kept, text=text), [db.versions.saving_version(keys, before(kept))]
    )


async def test_versions_are_listed_newest_first_to_their_writer_only(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Callable[..., list[tuple[Any, ...]]]
) -> None:
    kept, beside = entry("a heron"), entry("beside")
    await db.entries.add(keys, kept, beside)
    for text in ("two herons", "three herons"):
        kept = await edit(db, keys, kept, text)
    found = await db.versions.list_for_entry(keys, kept.id)
    assert [(version.text, version.revision) for version in found] == [
        ("two herons", 2),
        ("a heron", 1),
    ]
    assert await db.versions.get(keys, kept.id, found[1].id) == found[1]
    assert await db.versions.list_for_entry(other, kept.id) == []
    for stranger, entry_id in ((other, kept.id), (keys, beside.id)):
        with pytest.raises(NotFound):
            await db.versions.get(stranger, entry_id, found[0].id)
    assert all(b"heron" not in row[0] for row in raw("SELECT sealed FROM versions"))


async def test_an_edit_that_is_refused_keeps_no_version(db: LocalDB, keys: Keyring) -> None:
    kept = entry("one")
    await db.entries.add(keys, kept)
    await edit(db, keys, kept, "two")
    with pytest.raises(StaleRevision):
        await edit(db, keys, kept, "three")
    assert [version.text for version in await db.versions.list_for_entry(keys, kept.id)] == ["one"]


async def test_two_versions_of_one_pen_are_both_kept(db: LocalDB, keys: Keyring) -> None:
    kept, pen = entry("one"), secrets.token_bytes(16)
    await db.entries.add(keys, kept)
    for text in ("two", "three"):
        kept = await db.entries.update(
            keys, replace(kept, text=text), [db.versions.saving_version(keys, before(kept, pen))]
        )
    assert [version.text for version in await db.versions.list_for_entry(keys, kept.id)] == [
        "two",
        "one",
    ]


async def test_versions_go_with_their_entry(
    db: LocalDB, keys: Keyring, raw: Callable[..., list[tuple[Any, ...]]]
) -> None:
    kept = entry("one")
    await db.entries.add(keys, kept)
    await edit(db, keys, kept, "two")
    await db.entries.erase(keys, [kept.id])
    assert raw("SELECT count(*) FROM versions") == [(0,)]


async def test_a_version_that_was_damaged_or_moved_is_left_out(
    db: LocalDB,
    keys: Keyring,
    raw: Callable[..., list[tuple[Any, ...]]],
    damage: Callable[[str], None],
) -> None:
    kept, beside = entry("one"), entry("beside")
    await db.entries.add(keys, kept, beside)
    await edit(db, keys, kept, "two")
    raw("UPDATE versions SET entry_id=?", beside.id)
    assert await db.versions.list_for_entry(keys, beside.id) == []
    raw("UPDATE versions SET entry_id=?", kept.id)
    assert len(await db.versions.list_for_entry(keys, kept.id)) == 1
    damage("versions")
    assert await db.versions.list_for_entry(keys, kept.id) == []
