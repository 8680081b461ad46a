"""Traces: what is done to them, seen through entries, search and counts; everything can be taken back."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.journal.tag_cache import Tag
from llamora.journal.tags import TagError
from llamora.persistence.connection import NotFound, StaleRevision, Transaction
from llamora.persistence.schema import TAG_CHANGES, TAG_META
from llamora.persistence.tag_changes import (
    MAX_RECENT_CHANGES,
    MAX_TOUCHED,
    TagMeta,
    TouchedItems,
    tag_hash,
)
from llamora.text import find_tags, tag_key, tag_name
from tests.journal.conftest import DAY, Desk

TODAY = date(2026, 11, 25)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("by the #lake with #Anna-Maria, and #日本語", ["lake", "Anna-Maria", "日本語"]),
        ("#Lake #LAKE #la-ke", ["Lake", "la-ke"]),
        ("#🎻 #👩‍👩‍👧 #🇩🇪! #1️⃣", ["🎻", "👩‍👩‍👧", "🇩🇪", "1️⃣"]),
        ("# A heading\n## another\n#1 and x#no, a&#39;", []),
        ("`#code` and ``#more ` ``, \\#escaped, http://a.org/#there <#b>", []),
        ("```\n#fenced\n```\n#after", ["after"]),
        ("#हिन्दी is whole, '#don't' too, #rock’n’roll", ["हिन्दी", "don't", "rock’n’roll"]),
        ("#C++ is not #C#, #C or #F#. #g++!", ["C++", "C#", "C", "F#", "g++"]),
        ("#fff #FFAA00 #1a2b3c4d #1 #1/2 #½ #→ #∞ #© → #cafe #bed", ["©", "cafe", "bed"]),
        ("今天#日记 と#仕事/庭、です", ["日记", "仕事/庭"]),
        ("#a/b/c #work/ #a//b #/x", ["a/b/c", "work", "a"]),
        ("これは#。です #ㅤ #️⃣ #👍🏽👍 #🇩🇪🇫🇷 #🧑🏻‍❤️‍💋‍🧑🏿! #🏴󠁧󠁢󠁥󠁮󠁧󠁿", ["👍🏽", "🇩🇪", "🧑🏻‍❤️‍💋‍🧑🏿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]),
        ("#2024-03-05 #2024 #before:2020 #-x", ["2024-03-05", "before"]),
        ("Planted the beans #work/garden today.", ["work/garden"]),
        ("Обід із #сім'я у неділю.", ["сім'я"]),
    ],
)
def test_a_text_makes_traces(text: str, names: list[str]) -> None:
    assert find_tags(text) == names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lake Zürich", "LAKE-ZU\u0308RICH"),
        ("a_b  c", "A-b-C"),
        ("❤️", "❤"),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("lake", "la\u200dke\u2060"),
        ("𝓵𝓪𝓴𝓮", "lake"),
        ("ℹ️", "ℹ"),
        ("Ⅸ", "ix"),
        ("می\u200cخواهم", "میخواهم"),
        ("сім'я", "СІМ’Я"),
    ],
)
def test_spellings_of_a_name_are_one(one: str, other: str) -> None:
    assert tag_key(one) == tag_key(other) != ""


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "#",
        "!!!",
        "🎻🎻",
        "x" * 65,
        "a\x00b",
        "\u202eabc",
        "。",
        "\u3164",
        "\u200d",
        "🎻\u200d",
    ],
)
def test_what_is_no_name(written: str) -> None:
    assert tag_name(written) == ""


def test_emoji_that_differ_are_different() -> None:
    different = [
        "👍",
        "👍🏽",
        "👍🏿",
        "👩‍👩‍👧",
        "👩‍👧",
        "🇩🇪",
        "1️⃣",
        "1",
        "🏳️‍🌈",
        "🏳️",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "🏴",
    ]
    assert len({tag_key(name) for name in different}) == len(different)
    assert [tag_name(name) for name in different] == different


@given(st.text(), st.sampled_from(("\u200d", "\u00ad", "\ufe0f", "\U000e0041", "\u3164")))
def test_a_key_is_its_own_key_and_shows_all_it_has(name: str, hidden: str) -> None:
    key = tag_key(name)
    assert tag_key(key) == key
    assert tag_key(f"a{hidden}{name}") == tag_key(f"a{name}")
    if tag_name(name):
        assert key


@given(st.text())
def test_every_text_can_be_looked_through(text: str) -> None:
    for name in find_tags(text):
        assert tag_key(name)
        assert tag_name(name) == name


async def names_on(desk: Desk, entry_id: bytes) -> list[str]:
    return [
        trace.name
        for trace in (await desk.journal.tags.tags_of(desk.keys, [entry_id])).get(entry_id, [])
    ]


async def by_name(desk: Desk, name: str) -> Tag:
    return next(
        trace for trace in await desk.journal.tags.list_tags(desk.keys) if trace.name == name
    )


async def write(desk: Desk, text: str, day: date = DAY) -> bytes:
    return (await desk.journal.write(desk.user, day, text)).id


async def test_the_text_makes_and_unmakes_them(desk: Desk) -> None:
    traces = desk.journal.tags
    entry_id = await write(desk, "To the #lake with #Anna")
    await traces.add(desk.keys, entry_id, "boats and oars")
    assert await names_on(desk, entry_id) == ["Anna", "boats and oars", "lake"]
    await traces.remove(desk.keys, entry_id, (await by_name(desk, "Anna")).id)
    # What stays in the text stays as the writer has it; what leaves it leaves the entry.
    await desk.journal.edit(desk.keys, entry_id, "With #Anna to the #Sea", 1)
    assert await names_on(desk, entry_id) == ["boats and oars", "Sea"]
    await desk.trash.delete(desk.keys, entry_id)
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert await traces.list_tags(desk.keys) == []
    await desk.trash.restore(desk.keys, entry_id)
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert [trace.name for trace in await traces.list_tags(desk.keys)] == ["boats and oars", "Sea"]


async def test_a_name_that_moved_goes_on_to_mean_its_trace(desk: Desk) -> None:
    traces = desk.journal.tags
    first, second = await write(desk, "#lake"), await write(desk, "#sea")
    await desk.search.wait_until_idle(desk.keys.user_id)
    lake, undo = await traces.rename(desk.keys, (await by_name(desk, "lake")).id, "Walden")
    third = await write(desk, "again at the #lake")
    assert await names_on(desk, first) == await names_on(desk, third) == ["Walden"]
    assert [alias.name for alias in await traces.list_aliases(desk.keys, lake)] == ["lake"]
    found = await desk.search.search(desk.keys, "tag:lake", today=TODAY)
    assert {hit.entry_id for hit in found.hits} == {first, third}
    with pytest.raises(TagError):
        await traces.add_alias(desk.keys, (await by_name(desk, "sea")).id, "lake")
    await traces.merge(desk.keys, lake, (await by_name(desk, "sea")).id)
    assert await names_on(desk, third) == ["sea"]
    assert {
        alias.name
        for alias in await traces.list_aliases(desk.keys, (await by_name(desk, "sea")).id)
    } == {
        "lake",
        "Walden",
    }
    await traces.undo(desk.keys, undo)  # what is still there of it: the name is free again
    with pytest.raises(NotFound):
        await traces.undo(desk.keys, undo)
    assert await names_on(desk, second) == ["sea"]


async def test_two_processes_know_the_same(desk: Desk) -> None:
    entry_id = await write(desk, "#lake")
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert [trace.name for trace in await desk.journal.tags.list_tags(desk.keys)] == ["lake"]
    await desk.db.tags.add(
        desk.keys, entry_id, "elsewhere"
    )  # as another process would: past what is in memory
    assert {trace.name for trace in await desk.journal.tags.list_tags(desk.keys)} == {
        "lake",
        "elsewhere",
    }


async def test_a_change_that_is_not_kept_is_not_remembered(desk: Desk) -> None:
    traces = desk.journal.tags
    entry_id = await write(desk, "#lake")
    await desk.search.wait_until_idle(desk.keys.user_id)
    assert [trace.name for trace in await traces.list_tags(desk.keys)] == ["lake"]
    entry = await desk.db.entries.get(desk.keys, entry_id)

    async def refuse(_: Transaction) -> None:
        raise StaleRevision("entry_busy")

    steps = [*traces.steps_for_edit(desk.keys, entry_id, entry.text, "#sea"), refuse]
    with pytest.raises(StaleRevision):
        await desk.db.entries.update(desk.keys, entry, steps)
    # Another process makes the change that has the same revision of the book.
    await desk.db.tags.add(desk.keys, entry_id, "elsewhere")
    assert {trace.name for trace in await traces.list_tags(desk.keys)} == {"lake", "elsewhere"}


async def only(desk: Desk, name: str) -> bytes:
    """The trace of that name, which nothing has counted yet."""
    return (await desk.journal.tags.find_by_name(desk.keys, name)).id


async def also_called(desk: Desk, name: str) -> set[str]:
    return {
        alias.name
        for alias in await desk.journal.tags.list_aliases(desk.keys, await only(desk, name))
    }


async def test_an_undo_after_a_name_was_given_away(desk: Desk) -> None:
    traces, keys = desk.journal.tags, desk.keys
    first, second = await write(desk, "#lake"), await write(desk, "#sea")
    undo = await traces.remove(keys, first, await only(desk, "lake"))
    await traces.add_alias(keys, await only(desk, "sea"), "lake")
    await traces.undo(keys, undo)
    assert await names_on(desk, first) == await names_on(desk, second) == ["sea"]
    await desk.search.wait_until_idle(keys.user_id)
    found = await desk.search.search(keys, "tag:lake", today=TODAY)
    assert {hit.entry_id for hit in found.hits} == {first, second}


async def test_an_undo_takes_nothing_from_later_changes(desk: Desk) -> None:
    traces, keys = desk.journal.tags, desk.keys
    first, second = await write(desk, "#lake"), await write(desk, "#sea")
    _, undo = await traces.rename(keys, await only(desk, "lake"), "Walden")
    await traces.merge(keys, await only(desk, "Walden"), await only(desk, "sea"))
    await traces.undo(keys, undo)
    assert await names_on(desk, first) == ["lake", "sea"]
    assert await names_on(desk, second) == ["sea"]
    assert await also_called(desk, "sea") == {"Walden"}
    # A name that entries bear by now is theirs.
    undo = await traces.remove_alias(keys, tag_hash(keys, "Walden"))
    third = await write(desk, "#walden")
    await traces.undo(keys, undo)
    assert await also_called(desk, "sea") == set()
    assert await names_on(desk, third) == ["walden"]
    # What is hidden is so under its new name too, and a later spelling stays.
    undo = await traces.set_hidden(keys, await only(desk, "sea"), hidden=True)
    off = await traces.remove(keys, second, await only(desk, "sea"))
    await traces.rename(keys, await only(desk, "sea"), "Ocean")
    await traces.rename(keys, await only(desk, "ocean"), "OCEAN")
    await traces.undo(keys, undo)
    await traces.undo(keys, off)
    assert await names_on(desk, second) == ["OCEAN"]
    await desk.search.wait_until_idle(keys.user_id)
    assert [trace.name for trace in await traces.list_tags(keys)] == ["lake", "OCEAN", "walden"]


async def test_other_names_never_lead_to_other_names(desk: Desk) -> None:
    traces, keys = desk.journal.tags, desk.keys
    first, second = await write(desk, "#lake"), await write(desk, "#sea")
    await traces.rename(keys, await only(desk, "lake"), "Walden")
    await traces.remove(
        keys, first, await only(desk, "Walden")
    )  # nothing bears it any more: its names are free
    await traces.add_alias(keys, await only(desk, "sea"), "Walden")
    assert await names_on(desk, await write(desk, "#lake again")) == ["sea"]
    assert await also_called(desk, "sea") == {"lake", "Walden"}
    # In a circle: each is called as the other was.
    await traces.rename(keys, await only(desk, "sea"), "lake")
    await traces.rename(keys, await only(desk, "lake"), "sea")
    assert await names_on(desk, second) == ["sea"]
    assert await names_on(desk, await write(desk, "#lake and #Walden")) == ["sea"]
    with pytest.raises(TagError):
        await traces.add_alias(keys, await only(desk, "sea"), "SEA")


async def test_what_is_erased_leaves_no_name_behind(desk: Desk) -> None:
    traces, keys = desk.journal.tags, desk.keys
    gone, stays = await write(desk, "#quokka and #wombat"), await write(desk, "#numbat")
    await traces.set_hidden(keys, await only(desk, "quokka"), hidden=True)
    await traces.rename(keys, await only(desk, "wombat"), "bandicoot")
    await traces.remove(keys, gone, await only(desk, "bandicoot"))
    await traces.add(keys, gone, "potoroo")
    await traces.add_alias(keys, await only(desk, "potoroo"), "bettong")
    await traces.add_alias(keys, await only(desk, "numbat"), "dunnart")
    await traces.remove(keys, stays, await only(desk, "numbat"))
    await desk.trash.delete(keys, gone)
    await desk.trash.erase(keys, gone)
    rows = await desk.db._connections.fetch("SELECT user_id, revision, sealed FROM tag_meta", ())
    changes = await desk.db._connections.fetch("SELECT id, revision, sealed FROM tag_changes", ())
    opened = [TAG_META.open(keys, *row) for row in rows]
    opened += [TAG_CHANGES.open(keys, *row) for row in changes]
    said = b" ".join(opened)
    assert b"numbat" in said
    assert b"dunnart" in said
    for word in ("quokka", "wombat", "bandicoot", "potoroo", "bettong"):
        assert word.encode() not in said, word
    assert gone.hex().encode() not in said


@pytest.mark.parametrize(
    "name",
    [
        "2024-03-05",
        "today",
        "before:2020",
        "by:me",
        "tag:x",
        "-lake",
        "12",
        "lake*",
        "and",
        "wet weather",
        "ﷺ" * 64,
        "👩‍👩‍👧",
        "it's",
    ],
)
async def test_whatever_a_trace_is_called_it_is_found_by_that(desk: Desk, name: str) -> None:
    entry_id, _ = (
        await write(desk, "Rain."),
        await write(desk, "Snow, today, 12 of it, and by the lake."),
    )
    await desk.journal.tags.add(desk.keys, entry_id, name)
    await desk.search.wait_until_idle(desk.keys.user_id)
    found = await desk.search.search(desk.keys, f'tag:"{name}"', today=TODAY)
    assert {hit.entry_id for hit in found.hits} == {entry_id}
    if " " not in name:
        found = await desk.search.search(desk.keys, f"tag:{name}", today=TODAY)
        assert {hit.entry_id for hit in found.hits} == {entry_id}


def test_a_book_tells_what_its_latest_changes_were_about() -> None:
    book = TagMeta()
    for number in range(40):
        book = book.with_revision({b"t%d" % number}, {b"e%d" % number})
    assert book.touched_since(book.revision) == TouchedItems(40, frozenset(), frozenset())
    assert book.touched_since(37) == TouchedItems(
        40, frozenset({b"t37", b"t38", b"t39"}), frozenset({b"e37", b"e38", b"e39"})
    )
    assert book.touched_since(40 - MAX_RECENT_CHANGES) is not None
    assert book.touched_since(40 - MAX_RECENT_CHANGES - 1) is None
    assert book.touched_since(41) is None  # somebody put an older journal in its place
    large = book.with_revision({b"t"}, {b"e%d" % number for number in range(MAX_TOUCHED)})
    assert large.touched_since(40) is None
    assert large.with_revision({b"t"}, set()).touched_since(40) is None
    assert large.with_revision({b"t"}, set()).touched_since(41) == TouchedItems(
        42, frozenset({b"t"}), frozenset()
    )


async def test_another_process_follows_small_and_large_changes(
    desks: Callable[..., Awaitable[Desk]],
) -> None:
    here, there = await desks(), await desks()
    keys, traces = here.keys, here.journal.tags

    async def agree(expected: dict[str, int]) -> None:
        for desk in (here, there):
            await desk.search.search(keys, "rain", today=TODAY)
            await desk.search.wait_until_idle(keys.user_id)
            assert {
                trace.name: trace.entry_count for trace in await desk.journal.tags.list_tags(keys)
            } == expected
            for name, count in expected.items():
                found = await desk.search.search(keys, f"tag:{name}", today=TODAY, limit=100)
                assert len(found.hits) == count

    ids = [await write(here, f"Rain {number} #many") for number in range(MAX_TOUCHED + 6)]
    await agree({"many": len(ids)})
    for entry_id in ids[:3]:
        await traces.add(keys, entry_id, "few")
    await agree({"many": len(ids), "few": 3})
    _, undo = await traces.rename(keys, await only(here, "few"), "some")
    await agree({"many": len(ids), "some": 3})
    await traces.undo(keys, undo)
    await traces.set_hidden(keys, await only(here, "few"), hidden=True)
    await agree({"many": len(ids)})
    await traces.rename(keys, await only(here, "many"), "all")
    await traces.remove(keys, ids[0], await only(here, "all"))
    await agree({"all": len(ids) - 1})
    await here.trash.delete(keys, ids[5])
    await here.trash.erase(keys, ids[5])
    await agree({"all": len(ids) - 2})


async def test_a_name_that_still_stands_in_the_text_keeps_its_trace(desk: Desk) -> None:
    """Both names mean one trace by now: with one of them gone the other is there."""
    entry = await desk.write("Saw #old and #new.")
    old = tag_hash(desk.keys, "old")
    await desk.journal.tags.rename(desk.keys, old, "new")
    await desk.journal.edit(desk.keys, entry.id, "Saw #new.", entry.revision)
    (borne,) = (await desk.journal.tags.tags_of(desk.keys, [entry.id]))[entry.id]
    assert borne.name == "new"


async def test_only_what_was_written_bears_traces(desk: Desk) -> None:
    entry = await desk.write("A heron.")
    reply = replace(
        entry,
        id=secrets.token_bytes(16),
        role="reply",
        text="A heron, you say.",
        parent_id=entry.id,
    )
    await desk.db.entries.add(desk.keys, reply)
    with pytest.raises(NotFound):
        await desk.journal.tags.add(desk.keys, reply.id, "birds")
