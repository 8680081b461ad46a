"""What each object of the store keeps and gives back, and what a damaged record does to the others: nothing."""

import json
import logging
import re
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.errors import Notice
from llamora.persistence import LocalDB
from llamora.persistence.connection import NotFound, StaleRevision, StorageError
from llamora.persistence.entries import Entry
from llamora.persistence.search_history import MAX_QUERIES, SearchHistory
from llamora.persistence.sessions import EXPIRED_GRACE_SECONDS, Session
from llamora.persistence.table import encode
from llamora.persistence.tag_changes import tag_hash
from llamora.persistence.users import NameTaken, User, name_key
from llamora.persistence.vectors import EntryVectors
from llamora.text import replace_surrogates
from llamora.vault.key_renewal import renew_keys
from llamora.vault.keys import Keyring
from llamora.vault.recovery_code import new_recovery_code
from llamora.vault.slots import recovery_slot_key
from tests.persistence.conftest import AT, DAY, entry, new_keys, new_user

Raw = Callable[..., list[tuple[Any, ...]]]

ANY_TEXT = st.text(st.characters(categories=None))  # lone surrogates and NUL too
PROPER_TEXT = st.text()
INSTANTS = st.datetimes(timezones=st.just(UTC))
IDS = st.binary(min_size=16, max_size=16)
ENTRIES = st.builds(
    Entry,
    id=IDS,
    day=st.dates(),
    role=st.sampled_from(["me", "reply"]),
    text=PROPER_TEXT,
    at=INSTANTS,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    parent_id=st.none() | IDS,
    revision=st.integers(1, 2**31),
    state=st.sampled_from(["done", "streaming", "stopped", "failed"]),
    edited=st.none() | INSTANTS,
    deleted=st.none() | INSTANTS,
    model=PROPER_TEXT,
    note=st.none()
    | st.builds(
        Notice, PROPER_TEXT, st.dictionaries(PROPER_TEXT, PROPER_TEXT | st.integers(), max_size=3)
    ),
    sources=st.lists(IDS, max_size=3).map(tuple),
    boot=st.text("0123456789abcdef", max_size=16),
)


# -- entries -----------------------------------------------------------------------------------------


@given(ENTRIES)
def test_an_entry_is_unpacked_as_it_was_packed(made: Entry) -> None:
    assert msgspec.json.decode(encode(made), type=Entry) == made


@given(text=ANY_TEXT)
def test_a_lone_surrogate_becomes_a_replacement_character(text: str) -> None:
    expected = re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert json.loads(encode(entry(text)))["text"] == expected
    assert replace_surrogates(text) == expected


@pytest.mark.parametrize(
    "text", ["", "\x00", "\ufffd alone", "🦙" * 1000, "x" * 1_000_000], ids=range(5)
)
async def test_any_text_comes_back(db: LocalDB, keys: Keyring, text: str) -> None:
    made = entry(text)
    await db.entries.add(keys, made)
    assert await db.entries.get(keys, made.id) == made


async def test_a_day_is_in_the_order_of_writing(db: LocalDB, keys: Keyring, other: Keyring) -> None:
    made = [entry(str(minute), minute=minute) for minute in (5, 1, 3)]
    await db.entries.add(keys, *made)
    await db.entries.add(keys, entry("the day before", DAY - timedelta(1)))
    await db.entries.add(other, entry("somebody else's"))
    assert [e.text for e in await db.entries.list_day(keys, DAY)] == ["1", "3", "5"]


async def test_nobody_gets_another_writers_entry(
    db: LocalDB, keys: Keyring, other: Keyring
) -> None:
    made = entry("mine")
    await db.entries.add(keys, made)
    with pytest.raises(NotFound):
        await db.entries.get(other, made.id)
    with pytest.raises(StaleRevision):
        await db.entries.update(other, replace(made, text="theirs"))
    await db.entries.erase(other, [made.id])
    assert await db.entries.get_many(other, [made.id]) == []
    assert (await db.entries.get(keys, made.id)).text == "mine"


async def test_a_stale_update_writes_nothing(db: LocalDB, keys: Keyring) -> None:
    made = entry("one")
    await db.entries.add(keys, made)
    changed = await db.entries.update(keys, replace(made, text="two"))
    assert changed.revision == 2
    with pytest.raises(StaleRevision):
        await db.entries.update(keys, replace(made, text="three"))
    assert (await db.entries.get(keys, made.id)) == changed


async def test_a_damaged_record_hides_nothing_else(
    db: LocalDB, keys: Keyring, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    made = [entry(f"line {minute}", minute=minute) for minute in range(3)]
    await db.entries.add(keys, *made)
    ((sealed,),) = raw("SELECT sealed FROM entries WHERE id=?", made[1].id)
    raw("UPDATE entries SET sealed=? WHERE id=?", sealed[:-1] + bytes([sealed[-1] ^ 1]), made[1].id)
    with caplog.at_level(logging.ERROR):
        found = await db.entries.list_day(keys, DAY)
    assert [(e.text, e.state) for e in found] == [
        ("line 0", "done"),
        ("line 2", "done"),
        ("", "unreadable"),
    ]
    assert found[-1].id == made[1].id
    assert "could not be opened (Damaged)" in caplog.text
    assert "line" not in caplog.text
    assert raw("SELECT count(*) FROM entries") == [(3,)]


async def test_a_record_put_in_another_place_is_unreadable(
    db: LocalDB, keys: Keyring, raw: Raw
) -> None:
    made = [entry("first"), entry("second", minute=1)]
    await db.entries.add(keys, *made)
    ((sealed,),) = raw("SELECT sealed FROM entries WHERE id=?", made[0].id)
    raw("UPDATE entries SET sealed=? WHERE id=?", sealed, made[1].id)
    assert [e.state for e in await db.entries.list_day(keys, DAY)] == ["done", "unreadable"]


async def test_ids_by_day(db: LocalDB, keys: Keyring, other: Keyring) -> None:
    days = [DAY - timedelta(days=back) for back in range(0, 1200, 3)]
    made = [entry(day=day) for day in (*days, DAY)]
    await db.entries.add(keys, *made)
    await db.entries.add(other, entry(day=DAY - timedelta(days=1)))
    asked = [DAY - timedelta(days=back) for back in range(1300)]  # more than one batch
    found = await db.entries.ids_by_day(keys, asked)
    assert set(found) == set(days)
    assert set(found[DAY]) == {made[0].id, made[-1].id}
    assert found[days[1]] == [made[1].id]
    assert (
        await db.entries.ids_by_day(keys, [])
        == await db.entries.ids_by_day(keys, [date.min, date.max])
        == {}
    )


async def test_recent_ids_go_in_the_order_asked_for(
    db: LocalDB, keys: Keyring, other: Keyring
) -> None:
    made = [entry(day=DAY - timedelta(days=back)) for back in range(700)]
    await db.entries.add(keys, *reversed(made))
    await db.entries.add(other, entry())
    asked = [DAY + timedelta(days=1), *(e.day for e in made)]
    assert await db.entries.ids_on_days(keys, asked) == [e.id for e in made]
    assert await db.entries.ids_on_days(keys, [made[5].day, made[2].day]) == [
        made[5].id,
        made[2].id,
    ]


async def test_erasing_takes_vectors_and_traces_along(db: LocalDB, keys: Keyring, raw: Raw) -> None:
    gone, stays = entry(), entry()
    await db.entries.add(keys, gone, stays)
    for each in (gone, stays):
        await db.vectors.save(keys, [EntryVectors(each.id, 1, "m", 1, bytes(4))])
    await db.tags.add(keys, gone.id, "Lakes")
    await db.tags.add(keys, gone.id, "Boats")
    await db.tags.add(keys, stays.id, "Boats")
    await db.entries.erase(keys, [gone.id])
    assert raw("SELECT id FROM entries") == raw("SELECT entry_id FROM vectors") == [(stays.id,)]
    assert list((await db.tags.names(keys)).values()) == ["Boats"]
    assert raw("SELECT count(*) FROM entry_tags") == [(1,)]


# -- traces ------------------------------------------------------------------------------------------


async def test_traces_are_added_and_removed(db: LocalDB, keys: Keyring, other: Keyring) -> None:
    first, second = entry(), entry()
    await db.entries.add(keys, first, second)
    lake = await db.tags.add(keys, first.id, "Lake Zürich")
    assert await db.tags.add(keys, second.id, "LAKE ZU\u0308RICH") == lake
    boat = await db.tags.add(keys, first.id, "boat 🎻")
    await db.tags.add(keys, first.id, "boat 🎻")
    assert await db.tags.names(keys) == {lake: "Lake Zürich", boat: "boat 🎻"}
    assert await db.tags.tags_of_entries(keys, [first.id, second.id, bytes(16)]) == {
        first.id: {boat: "boat 🎻", lake: "Lake Zürich"},
        second.id: {lake: "Lake Zürich"},
    }
    assert await db.tags.entries_with_tags(keys, ["lake-zürich"]) == {first.id, second.id}
    assert await db.tags.entries_with_tags(keys, ["Lake Zürich", "boat 🎻"]) == {first.id}
    assert await db.tags.entries_with_tags(keys, []) == set()
    assert await db.tags.names(other) == await db.tags.tags_of_entries(other, [first.id]) == {}
    await db.tags.remove(keys, first.id, lake)
    assert await db.tags.names(keys) == {lake: "Lake Zürich", boat: "boat 🎻"}
    await db.tags.remove(keys, second.id, lake)
    assert await db.tags.names(keys) == {boat: "boat 🎻"}
    await db.tags.remove(keys, second.id, lake)  # twice does no harm


async def test_a_trace_needs_an_entry_of_its_writer(
    db: LocalDB, keys: Keyring, other: Keyring
) -> None:
    made = entry()
    await db.entries.add(keys, made)
    for writer, entry_id in ((keys, secrets.token_bytes(16)), (other, made.id)):
        with pytest.raises(NotFound):
            await db.tags.add(writer, entry_id, "Lakes")
        assert await db.tags.names(writer) == {}


def test_a_trace_hash_is_keyed() -> None:
    (keys, _), (others, _) = new_keys(), new_keys()
    assert tag_hash(keys, "Straße") == tag_hash(keys, "STRASSE") != tag_hash(others, "Straße")
    assert tag_hash(keys, "2026-11-20") != keys.blind("day", b"2026-11-20")


# -- vectors, queries, settings ----------------------------------------------------------------------


async def test_vectors_come_back_and_are_replaced(
    db: LocalDB, keys: Keyring, other: Keyring
) -> None:
    made = entry()
    await db.entries.add(keys, made)
    old, new = (
        EntryVectors(made.id, revision, "model/1", 2, bytes([revision] * 8)) for revision in (1, 2)
    )
    await db.vectors.save(
        keys, [old, EntryVectors(secrets.token_bytes(16), 1, "model/1", 1, bytes(4))]
    )
    await db.vectors.save(keys, [new])
    await db.vectors.save(other, [old])
    assert await db.vectors.get(keys, [made.id]) == [new]
    assert await db.vectors.get(other, [made.id]) == []


async def test_the_search_history_is_bounded_and_newest_first(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Raw
) -> None:
    last = MAX_QUERIES + 11
    for number in range(last):
        await db.search_history.add(keys, f"query {number}", AT + timedelta(seconds=number))
    await db.search_history.add(other, "\ufffd", AT)
    assert raw("SELECT count(*) FROM search_history") == [
        (MAX_QUERIES + 1,)
    ]  # with the other user's
    assert await db.search_history.recent(keys, last) == [
        f"query {n}" for n in reversed(range(last - MAX_QUERIES, last))
    ]
    await db.search_history.add(keys, "query 20", AT + timedelta(hours=1))
    assert (await db.search_history.recent(keys))[:2] == ["query 20", f"query {last - 1}"]
    fresh = SearchHistory(db.search_history._db)  # another process
    await fresh.add(keys, "query 20", AT + timedelta(hours=2))
    await fresh.add(keys, "query 21", AT + timedelta(hours=3))
    await db.search_history.add(keys, "query 21", AT + timedelta(hours=4))
    assert (await db.search_history.recent(keys, 99)).count("query 20") == 1
    assert (await db.search_history.recent(keys))[:2] == ["query 21", "query 20"]
    await db.search_history.clear(keys.user_id)
    assert await db.search_history.recent(keys) == []
    assert await db.search_history.recent(other) == ["\ufffd"]


async def test_damaged_records_of_other_kinds_lock_nobody_out(
    db: LocalDB, keys: Keyring, damage: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    made = entry()
    await db.entries.add(keys, made)
    await db.tags.add(keys, made.id, "Lakes")
    await db.vectors.save(keys, [EntryVectors(made.id, 1, "m", 1, bytes(4))])
    await db.search_history.add(keys, "herons", AT)
    await db.profiles.save(keys, b"{}", revision=0)
    for table in ("tags", "vectors", "search_history", "profiles"):
        damage(table)
    boats = await db.tags.add(keys, made.id, "Boats")
    assert await db.tags.names(keys) == {boats: "Boats"}
    assert await db.tags.tags_of_entries(keys, [made.id]) == {made.id: {boats: "Boats"}}
    assert await db.vectors.get(keys, [made.id]) == []
    await db.search_history.add(keys, "lakes", AT)
    assert await db.search_history.recent(keys) == ["lakes"]
    assert await db.profiles.get(keys) == (b"", 1)
    await db.profiles.save(keys, b"[]", revision=1)
    assert await db.profiles.get(keys) == (b"[]", 2)
    assert not any(word in caplog.text for word in ("Lakes", "herons"))


async def test_settings_of_a_stale_revision_are_refused(db: LocalDB, keys: Keyring) -> None:
    assert await db.profiles.get(keys) is None
    await db.profiles.save(keys, b"one", revision=0)
    for revision in (0, 2):
        with pytest.raises(StaleRevision):
            await db.profiles.save(keys, b"stale", revision=revision)
    await db.profiles.save(keys, b"two", revision=1)
    assert await db.profiles.get(keys) == (b"two", 2)


# -- writers and sessions ----------------------------------------------------------------------------


async def test_names_are_taken_however_they_are_spelt(db: LocalDB, keys: Keyring) -> None:
    for name in ("Alice", "ALICE", "  alice ", "\uff21lice"):
        with pytest.raises(NameTaken):
            await new_user(db, name)
        found = await db.users.find_by_name(name)
        assert found == User(keys.user_id, "Alice", recovery_confirmed=False)
    assert await db.users.find_by_name("Ali ce") is None
    assert name_key("Straße  eins") == name_key("strasse eins")
    with pytest.raises(NotFound):
        await db.users.get(bytes(16))


async def test_of_two_changes_of_keys_one_is_told(db: LocalDB, keys: Keyring) -> None:
    stored = await db.users.keys(keys.user_id)
    code = recovery_slot_key(keys.user_id, new_recovery_code())
    first, second = (renew_keys(keys.user_id, keys.master, stored, add=[code]) for _ in range(2))
    await db.users.confirm_recovery(keys.user_id)
    generation = await db.snapshots.begin(keys)
    await db.snapshots.finish(keys, generation, 0, db.snapshots.seal_part(keys, generation, 0, b""))
    assert await db.snapshots.get_latest(keys.user_id) is not None
    await db.users.renew_keys(keys.user_id, stored, first, code_changed=True)
    assert await db.snapshots.get_latest(keys.user_id) is None  # it is sealed under the old key
    with pytest.raises(StaleRevision):
        await db.users.renew_keys(keys.user_id, stored, second)
    with pytest.raises(StaleRevision):
        await db.users.replace_slot(keys.user_id, stored, code.id, second.slots[0], second.sealed)
    assert await db.users.get_slots(keys.user_id) == list(first.slots)
    assert await db.users.keys(keys.user_id) == first.sealed
    assert not (
        await db.users.get(keys.user_id)
    ).recovery_confirmed  # the new code was typed back by nobody


async def test_a_fact_of_the_instance_is_kept_once(db: LocalDB) -> None:
    assert await db.users.get_instance_fact("kdf") is None
    assert await db.users.set_instance_fact("kdf", "first") == "first"
    assert await db.users.set_instance_fact("kdf", "second") == "first"
    assert await db.users.get_instance_fact("kdf") == "first"


async def test_sessions_begin_and_end(db: LocalDB, keys: Keyring, other: Keyring, raw: Raw) -> None:
    made = [
        Session(secrets.token_bytes(32), owner.user_id, sealed, 100, 1000)
        for owner, sealed in ((keys, b"sealed"), (keys, None), (other, None), (keys, None))
    ]
    for each in made:
        await db.sessions.add(each, DAY)
    assert await db.sessions.get(made[0].id) == made[0]
    assert await db.sessions.get(bytes(32)) is None
    assert {s.id for s in await db.sessions.list_for_user(keys.user_id)} == {
        made[0].id,
        made[1].id,
        made[3].id,
    }
    assert raw("SELECT signed_in_on FROM users WHERE id=?", keys.user_id) == [("2026-11-20",)]
    await db.sessions.touch(made[0].id, 200, 50)
    await db.sessions.touch(made[1].id, 300, 100)  # too late: its time was up
    await db.sessions.end_expired(99 + EXPIRED_GRACE_SECONDS)
    assert len(raw("SELECT id FROM dek_sessions")) == 4
    await db.sessions.end_expired(100 + EXPIRED_GRACE_SECONDS)
    assert [s.idle_until for s in await db.sessions.list_for_user(keys.user_id)] == [200]
    assert await db.sessions.list_for_user(other.user_id) == []
    await db.sessions.touch(made[0].id, 5000, 100)
    assert await db.sessions.expiry_times([made[0].id, made[1].id]) == {made[0].id: 1000}
    await db.sessions.end_expired(1000 + EXPIRED_GRACE_SECONDS)  # the absolute end counts too
    assert raw("SELECT id FROM dek_sessions") == []
    for each in made:
        await db.sessions.add(each, DAY)
    await db.sessions.end(made[3].id)
    await db.sessions.end_others(keys.user_id, except_session=made[1].id)
    assert {row[0] for row in raw("SELECT id FROM dek_sessions")} == {made[1].id, made[2].id}
    await db.sessions.clear()
    assert raw("SELECT id FROM dek_sessions") == []


async def test_what_a_browser_is_called_is_sealed_and_goes_with_the_session(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Raw
) -> None:
    made = [Session(secrets.token_bytes(32), keys.user_id, b"sealed", 100, 1000) for _ in range(3)]
    for each, name in zip(made, ("Firefox on Linux", "Safari on iPhone", ""), strict=True):
        await db.sessions.add(each, DAY, (keys, name))
    assert await db.sessions.device_names(keys) == {
        made[0].id: "Firefox on Linux",
        made[1].id: "Safari on iPhone",
    }
    assert await db.sessions.device_names(other) == {}
    assert not any(b"Firefox" in row[0] for row in raw("SELECT sealed FROM devices"))
    raw("UPDATE devices SET sealed=(SELECT sealed FROM devices WHERE session_id=?)", made[0].id)
    assert await db.sessions.device_names(keys) == {made[0].id: "Firefox on Linux"}
    await db.sessions.end(made[0].id)
    assert [row[0] for row in raw("SELECT session_id FROM devices")] == [made[1].id]


async def test_a_lock_lets_every_session_run_out_and_forgets_its_key(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Raw
) -> None:
    made = [
        Session(secrets.token_bytes(32), ring.user_id, b"sealed", 100, 1000)
        for ring in (keys, keys, other)
    ]
    for each in made:
        await db.sessions.add(
            each, DAY, (keys if each.user_id == keys.user_id else other, "Firefox on Linux")
        )
    await db.sessions.lock(keys.user_id, 50)
    assert [
        (s.sealed_key, s.idle_until) for s in await db.sessions.list_for_user(keys.user_id)
    ] == [
        (None, 50),
        (None, 50),
    ]
    assert await db.sessions.device_names(keys) == {}
    await db.sessions.touch(made[0].id, 500, 51)  # a request that was under way brings nothing back
    await db.sessions.shift_idle(keys.user_id, 500, 51)
    assert set((await db.sessions.expiry_times([each.id for each in made])).values()) == {50, 100}
    assert (await db.sessions.list_for_user(other.user_id))[0].sealed_key == b"sealed"


async def test_a_session_needs_a_writer(db: LocalDB) -> None:
    with pytest.raises(StorageError):
        await db.sessions.add(Session(bytes(32), bytes(16), None, 1, 1), DAY)


def test_an_instant_before_1970_keeps_its_microseconds() -> None:
    made = replace(entry(), at=datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC))
    assert msgspec.json.decode(encode(made), type=Entry).at == made.at
