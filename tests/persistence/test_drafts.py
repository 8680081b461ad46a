"""Drafts in the store: where they belong, whose word is the last, and that they bring nothing back."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.persistence import LocalDB
from llamora.persistence.connection import NotFound
from llamora.persistence.drafts import (
    Draft,
    FormToken,
    answer_draft_key,
    day_draft_key,
    edit_draft_key,
)
from llamora.persistence.versions import Version
from llamora.vault.keys import Keyring
from tests.persistence.conftest import AT, DAY, entry, new_user

PLACE = day_draft_key(DAY)


def draft(text: str, place: str = PLACE, pen: bytes | None = None, count: int = 1) -> Draft:
    return Draft(place, text, pen or secrets.token_bytes(16), count)


async def at(db: LocalDB, keys: Keyring, place: str = PLACE) -> str | None:
    found = (await db.drafts.get_many(keys, [place])).get(place)
    return found.text if found else None


async def test_a_draft_is_found_by_its_writer_in_its_place_only(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Callable[..., list[tuple[Any, ...]]]
) -> None:
    assert await db.drafts.save(keys, draft("of a heron"), None)
    assert await at(db, keys) == "of a heron"
    assert await at(db, other) is None
    assert (
        await db.drafts.get_many(
            keys, [answer_draft_key(bytes(16)), edit_draft_key(bytes(16)), "day:2026-11-21"]
        )
        == {}
    )
    ((place, sealed),) = raw("SELECT draft_key, sealed FROM drafts")
    assert b"heron" not in sealed
    assert PLACE.encode() not in place


async def test_the_last_to_save_wins_and_no_text_removes(db: LocalDB, keys: Keyring) -> None:
    here, there = secrets.token_bytes(16), secrets.token_bytes(16)
    assert await db.drafts.save(keys, draft("here", pen=here, count=9), None)
    assert await db.drafts.save(keys, draft("there", pen=there, count=1), None)
    assert await at(db, keys) == "there"
    assert await db.drafts.save(keys, draft("here again", pen=here, count=10), None)
    assert await at(db, keys) == "here again"
    assert await db.drafts.save(keys, draft(" \n ", pen=there, count=2), None)
    assert await at(db, keys) is None


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(1, 6)))
async def test_saves_of_one_pen_count_in_the_order_they_were_sent(
    db: LocalDB, order: list[int]
) -> None:
    keys = await new_user(db, secrets.token_hex(8))
    pen = secrets.token_bytes(16)
    for count in order:
        await db.drafts.save(keys, draft(f"text {count}", pen=pen, count=count), None)
    assert await at(db, keys) == "text 5"


async def test_what_was_kept_is_not_brought_back_by_a_save_that_is_late(
    db: LocalDB, keys: Keyring
) -> None:
    pen = FormToken(secrets.token_bytes(16))
    assert await db.drafts.save(keys, draft("half a", pen=pen.id, count=1), None)
    kept = replace(entry("half a thought"), id=pen.id)
    await db.entries.add(keys, kept, steps=[db.drafts.clearing_draft(keys, PLACE, pen)])
    assert await at(db, keys) is None
    assert not await db.drafts.save(keys, draft("half a thou", pen=pen.id, count=2), None)
    assert await at(db, keys) is None

    edit = FormToken(secrets.token_bytes(16))
    before = Version(edit.id, kept.id, kept.text, AT, 1)
    await db.entries.update(
        keys, replace(kept, text="whole"), [db.versions.saving_version(keys, before)]
    )
    assert not await db.drafts.save(keys, draft("who", edit_draft_key(kept.id), edit.id), kept.id)


async def test_keeping_settles_the_draft_it_took_up_and_no_other_sittings(
    db: LocalDB, keys: Keyring
) -> None:
    before, now, elsewhere = (secrets.token_bytes(16) for _ in range(3))
    await db.drafts.save(keys, draft("begun yesterday", pen=before), None)
    await db.entries.add(
        keys, entry("done"), steps=[db.drafts.clearing_draft(keys, PLACE, FormToken(now, before))]
    )
    assert await at(db, keys) is None
    await db.drafts.save(keys, draft("on the other device", pen=elsewhere), None)
    await db.entries.add(
        keys, entry("done"), steps=[db.drafts.clearing_draft(keys, PLACE, FormToken(now, before))]
    )
    assert await at(db, keys) == "on the other device"


async def test_a_draft_and_what_keeps_it_are_one_transaction(db: LocalDB, keys: Keyring) -> None:
    pen = FormToken(secrets.token_bytes(16))
    await db.drafts.save(keys, draft("words", pen=pen.id), None)

    async def fail(_: object) -> None:
        raise RuntimeError

    kept = replace(entry("words"), id=pen.id)
    with pytest.raises(RuntimeError):
        await db.entries.add(keys, kept, steps=[db.drafts.clearing_draft(keys, PLACE, pen), fail])
    assert await at(db, keys) == "words"
    assert await db.entries.get_many(keys, [kept.id]) == []


async def test_an_entry_that_is_gone_or_anothers_takes_no_draft(
    db: LocalDB, keys: Keyring, other: Keyring
) -> None:
    kept = entry()
    await db.entries.add(keys, kept)
    place = edit_draft_key(kept.id)
    with pytest.raises(NotFound):
        await db.drafts.save(other, draft("mine?", place), kept.id)
    assert await db.drafts.save(keys, draft("mine", place), kept.id)
    await db.entries.erase(keys, [kept.id])
    with pytest.raises(NotFound):
        await db.drafts.save(keys, draft("mine", place), kept.id)


async def test_saves_at_once_leave_one_that_opens(db: LocalDB, keys: Keyring) -> None:
    pen = secrets.token_bytes(16)
    saves = [db.drafts.save(keys, draft(f"text {n}", pen=pen, count=n), None) for n in range(1, 20)]
    await asyncio.gather(*saves)
    assert await at(db, keys) == "text 19"


async def test_a_damaged_draft_is_left_out_and_written_over(
    db: LocalDB, keys: Keyring, damage: Callable[[str], None]
) -> None:
    await db.drafts.save(keys, draft("one"), None)
    damage("drafts")
    assert await at(db, keys) is None
    assert await db.drafts.save(keys, draft("two"), None)
    assert await at(db, keys) == "two"


async def test_any_text_comes_back_as_it_was(db: LocalDB, keys: Keyring) -> None:
    for text in ("\n\n  a\r\n\tb\n", "\ufffd lone", "\0", "𝔸 ﷽ \u202e"):
        await db.drafts.save(keys, draft(text), None)
        assert await at(db, keys) == text
