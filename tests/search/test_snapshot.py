"""Snapshots of an index, traces, two workers, a change of the model, and what must never be found."""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.persistence.snapshots import Snapshots
from llamora.persistence.vectors import EntryVectors
from llamora.search import service as module
from llamora.search.builder import IndexBuilder
from llamora.search.embedder import Embedder
from llamora.search.fulltext import TOKENIZER
from llamora.search.index import Document, UserIndex
from llamora.search.query import parse_query, query_from_text
from llamora.search.snapshot import FORMAT, SnapshotReader, UnusableSnapshot
from llamora.settings import EmbeddingSettings
from tests.search.conftest import TODAY, Desk

Desks = Callable[..., Awaitable[Desk]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each call read for an index."""
    counted: list[int] = []
    before = IndexBuilder._index_entries

    def counting(self: object, user: object, rows: list[object], traces: object) -> None:
        counted.append(len(rows))
        before(self, user, rows, traces)  # type: ignore[arg-type]

    monkeypatch.setattr(IndexBuilder, "_index_entries", counting)
    return counted


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in the background."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.01)


async def saved(desk: Desk) -> None:
    await desk.wait_ready()
    assert await desk.service.save_snapshot(desk.keys.user_id)
    desk.service.lock(desk.keys.user_id)


async def test_a_snapshot_is_taken_over_without_reading_a_record(
    desk: Desk, reads: list[int]
) -> None:
    entries = [
        await desk.write(f"note {n} about the orchard", TODAY - timedelta(days=n))
        for n in range(30)
    ]
    mill = await desk.write("the mill by the river", date(1999, 1, 5))
    await desk.write("")
    await saved(desk)
    reads.clear()
    await desk.wait_ready()
    assert reads == []
    assert set(await desk.search_ids("orchard")) >= {entry.id for entry in entries[:20]} & set(
        await desk.search_ids("orchard")
    )
    assert (await desk.search("orchard")).total >= 30
    assert await desk.search_ids('"mill by the"') == [mill.id]
    assert (await desk.search_ids("a place where flour is made"))[0] == mill.id
    assert (await desk.search_ids("January 1999")) == [mill.id]


async def test_a_snapshot_is_brought_up_to_date(desks: Desks, reads: list[int]) -> None:
    here, there = await desks(), await desks()
    kept = await here.write("the heron stood still")
    edited = await here.write("the otter swam")
    untouched = await here.write("the badger dug")
    await saved(here)
    await there.db.entries.update(there.keys, replace(edited, text="the kite rose"))
    added = await there.write("the comet passed")
    reads.clear()
    await here.wait_ready()
    assert sum(reads) == 2
    assert "otter" not in repr(await here.search("otter"))
    for word, entry in (("kite", edited), ("comet", added), ("heron", kept), ("badger", untouched)):
        assert (await here.search_ids(word))[0] == entry.id


async def test_erasing_an_entry_erases_the_snapshot(desk: Desk) -> None:
    await desk.write("the lighthouse keeper waved")
    erased = await desk.write("Bartholomew put the lamp out")
    await saved(desk)
    assert await desk.db.snapshots.get_latest(desk.keys.user_id) is not None
    await desk.db.entries.erase(desk.keys, [erased.id])
    assert await desk.db.snapshots.get_latest(desk.keys.user_id) is None
    with sqlite3.connect(desk.path) as raw:
        assert raw.execute("SELECT count(*) FROM search_snapshots").fetchone() == (0,)
    raw.close()
    await desk.wait_ready()
    for query in ("Bartholomew", '"lamp out"', "who put out the light", "by:me"):
        assert "Bartholomew" not in repr(await desk.search(query))


async def test_an_erasure_ends_a_snapshot_that_is_being_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased = await desk.write("Bartholomew put the lamp out")
    await desk.wait_ready()
    finish = type(desk.db.snapshots).finish

    async def late(self: object, *arguments: object) -> bool:
        await desk.db.entries.erase(desk.keys, [erased.id])
        return await finish(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(desk.db.snapshots), "finish", late)
    assert not await desk.service.save_snapshot(desk.keys.user_id)
    with sqlite3.connect(desk.path) as raw:
        assert raw.execute("SELECT count(*) FROM search_snapshots").fetchone() == (0,)
    raw.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE search_snapshots SET sealed = zeroblob(length(sealed)) WHERE part=0",
        "UPDATE search_snapshots SET sealed = zeroblob(length(sealed)) WHERE part=1",
        "DELETE FROM search_snapshots WHERE part=1",
        "DELETE FROM search_snapshots WHERE part=0",
        "UPDATE search_snapshots SET generation = generation + 1",
        "UPDATE search_snapshots SET sealed = (SELECT sealed FROM search_snapshots WHERE part=0) WHERE part=1",
    ],
)
async def test_a_damaged_snapshot_is_made_anew(desk: Desk, reads: list[int], damage: str) -> None:
    entry = await desk.write("snow on the orchard")
    await saved(desk)
    with sqlite3.connect(desk.path) as raw:
        raw.execute(damage)
    raw.close()
    reads.clear()
    await desk.wait_ready()
    assert sum(reads) == 1
    assert await desk.search_ids("snow") == [entry.id]
    assert await desk.service.save_snapshot(desk.keys.user_id)


async def test_another_writers_snapshot_and_another_format_are_not_used(
    desk: Desk, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await desk.write("my secret about the violin")
    await desk.write("their secret about the violin", keys=desk.other_keys)
    await saved(desk)
    await desk.wait_ready(desk.other_keys)
    assert await desk.service.save_snapshot(desk.other_keys.user_id)
    desk.service.lock(desk.other_keys.user_id)
    with sqlite3.connect(desk.path) as raw:
        raw.execute("DELETE FROM search_snapshots WHERE user_id=?", (desk.keys.user_id,))
        raw.execute("UPDATE search_snapshots SET user_id=?", (desk.keys.user_id,))
    raw.close()
    await desk.wait_ready()
    assert await desk.search_ids("violin") == [mine.id]
    assert await desk.service.save_snapshot(desk.keys.user_id)
    desk.service.lock(desk.keys.user_id)
    monkeypatch.setattr("llamora.search.snapshot.FORMAT", FORMAT + 1)
    reads.clear()
    await desk.wait_ready()
    assert sum(reads) == 1
    assert await desk.search_ids("violin") == [mine.id]


async def test_a_snapshot_shows_nothing_in_the_file(desk: Desk) -> None:
    await desk.write("Bartholomew and the xylophone")
    await saved(desk)
    await desk.db.checkpoint()
    for path in (desk.path, Path(f"{desk.path}-wal")):
        content = path.read_bytes() if path.exists() else b""
        for word in (b"artholomew", b"xylophon", b"fts5", b"words_data"):
            assert word not in content


async def test_a_snapshot_is_written_when_it_is_quiet(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamora.search.snapshot_store.SNAPSHOT_MIN_ENTRIES", 3)
    monkeypatch.setattr("llamora.search.snapshot_store.SNAPSHOT_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    for number in range(4):
        await desk.write(f"entry {number}")
    await desk.wait_ready()
    user = desk.service._states[desk.keys.user_id]
    await until(lambda: not user.unsaved_count and user.save_task is None)
    assert await desk.db.snapshots.get_latest(desk.keys.user_id) is not None


async def test_a_snapshot_that_an_erasure_took_is_written_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamora.search.snapshot_store.SNAPSHOT_MIN_ENTRIES", 3)
    monkeypatch.setattr("llamora.search.snapshot_store.SNAPSHOT_QUIET_SECONDS", 0.0)
    monkeypatch.setattr("llamora.search.snapshot_store.SNAPSHOT_CHANGED_SHARE", 0.5)
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    entries = [await desk.write(f"entry {number}") for number in range(9)]
    await desk.wait_ready()
    user = desk.service._states[desk.keys.user_id]
    await until(lambda: not user.unsaved_count and user.save_task is None)
    await desk.db.entries.erase(desk.keys, [entries[0].id])
    desk.service.drop(desk.keys.user_id, [entries[0].id])
    async with asyncio.timeout(60):
        while not await desk.db.snapshots.exists(desk.keys.user_id):  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.01)


def test_vectors_of_entries_that_are_all_gone_disturb_no_search() -> None:
    index, again = UserIndex(10**9), UserIndex(10**9)
    for number in (1, 2):
        index.put([Document(bytes([number]) * 16, 1, TODAY, datetime.now(UTC), True, "tea")])
    assert index.put_vectors(bytes([1]) * 16, 1, np.ones((1, 4), dtype=np.float32), "m")
    index.drop([bytes([1]) * 16])
    for name, array in list(index.iter_sections()):
        again.restore_section(name, array.copy())
    asked = {"m": np.ones(4, dtype=np.float32)}
    for each in (index, again):
        page = each.ranker.search(parse_query("tea", TODAY), asked, 0.5, 5, 0).matches
        assert [match.entry_id for match in page] == [bytes([2]) * 16]
        each.close()


def test_a_reader_takes_no_object_and_no_giant() -> None:
    for kind, shape in (("|O", [1]), ("<f8", [10**12]), ("<f8", [-1])):
        header = {
            "version": [FORMAT, TOKENIZER],
            "sections": [["ids", kind, shape]],
            "unindexed": {},
            "tags": {},
        }
        with pytest.raises((UnusableSnapshot, ValueError)):
            SnapshotReader(UserIndex(10), json.dumps(header).encode())


async def test_what_another_process_writes_is_there_within_a_second_unasked(desks: Desks) -> None:
    here, there = await desks(), await desks()
    await here.wait_ready()
    entry = await there.write("a comet over the roof")
    user = here.service._states[here.keys.user_id]
    await until(lambda: entry.id in user.revisions)
    await here.service.wait_until_idle(here.keys.user_id)
    assert await here.search_ids("comet") == [entry.id]


async def test_traces_are_searched_and_filter(desk: Desk) -> None:
    marked = await desk.write("we walked to the old mill")
    plain = await desk.write("we walked home")
    await desk.wait_ready()
    trace = await desk.db.tags.add(desk.keys, marked.id, "Waterwheel")
    assert await desk.search_ids("tag:waterwheel") == [marked.id]
    assert await desk.search_ids("walked tag:Waterwheel") == [marked.id]
    assert await desk.search_ids("tag:nothing") == []
    await desk.wait_until_found("waterwheel", [marked.id])
    await saved(desk)
    await desk.wait_ready()
    assert (await desk.search_ids("waterwheel"))[0] == marked.id
    await desk.db.tags.remove(desk.keys, marked.id, trace)
    assert await desk.search_ids("tag:waterwheel") == []
    await desk.search("anything")
    await desk.service.wait_until_idle(desk.keys.user_id)
    index = desk.service._states[desk.keys.user_id].index
    assert index.ranker.search(parse_query("waterwheel", TODAY), {}, 0.5, 5, 0).total == 0
    assert set(await desk.search_ids("walked")) == {marked.id, plain.id}


async def test_old_vectors_serve_while_the_model_changes(
    desk: Desk, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await desk.write("I was made redundant this morning and told nobody.")
    await desk.write("We planted beans behind the shed.")
    await desk.wait_ready()
    old = {v.entry_id: v for v in await desk.db.vectors.get(desk.keys, [lost.id])}[lost.id]
    desk.service.lock(desk.keys.user_id)
    # As if another model had made them: the same numbers, under another name that this embedder can still load.
    former = "somebody/former"
    await desk.db.vectors.save(
        desk.keys, [EntryVectors(lost.id, old.entry_revision, f"{former}/1", old.dim, old.data)]
    )
    monkeypatch.setattr(
        Embedder, "with_model", lambda self, name: Embedder(EmbeddingSettings(), cache)
    )
    gate = asyncio.Event()
    passages = Embedder.embed_passages

    async def slow(self: Embedder, texts: list[str]) -> object:
        await gate.wait()
        return await passages(self, texts)

    monkeypatch.setattr(Embedder, "embed_passages", slow)
    await desk.service.unlock(desk.keys)
    user = desk.service._states[desk.keys.user_id]
    formers = desk.service._queue.previous_embedders
    await until(lambda: bool(formers) and all(former.is_ready for former in formers.values()))
    assert (await desk.search_ids("losing my job"))[0] == lost.id
    gate.set()
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert f"{former}/1" not in user.index.models
    await until(lambda: not formers)
    (again,) = await desk.db.vectors.get(desk.keys, [lost.id])
    assert again.model == old.model
    assert (await desk.search_ids("losing my job"))[0] == lost.id


async def test_a_failed_batch_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamora.search.embed_queue.RETRY_SECONDS", (0.01, 0.1))
    await desk.wait_ready()
    passages = Embedder.embed_passages
    failures = 3

    async def broken(self: Embedder, texts: list[str]) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError
        return await passages(self, texts)

    monkeypatch.setattr(Embedder, "embed_passages", broken)
    entry = await desk.write("a man left for the sea")
    user = desk.service._states[desk.keys.user_id]
    await until(lambda: not failures and not user.unembedded)
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.db.vectors.get(desk.keys, [entry.id])
    assert (await desk.search_ids("ocean voyage"))[0] == entry.id


async def test_passages_take_a_text_by_its_words(desk: Desk) -> None:
    lost = await desk.write("I was made redundant this morning")
    reply = await desk.write("Being made redundant is hard", role="reply")
    other = await desk.write("redundant again, years ago")
    await desk.wait_ready()
    found = await desk.service.find_passages(
        desk.keys,
        'by:reply -redundant "made redundant" tag:x before:1990',
        today=TODAY,
        excluded_ids={other.id},
    )
    assert [hit.entry_id for hit in found] == [lost.id]
    assert reply.id not in [hit.entry_id for hit in found]


async def test_related_passages_are_near_and_never_the_entry_itself(desk: Desk) -> None:
    entry = await desk.write("The doctor says my knee has to be operated on.")
    near = await desk.write("Surgery on my leg is set for May.")
    await desk.write("We planted beans behind the shed.")
    await desk.write("An operation on the knee is routine", role="reply")
    await desk.wait_ready()
    found = await desk.service.find_related(desk.keys, entry, limit=2)
    assert found[0].entry_id == near.id
    assert entry.id not in [hit.entry_id for hit in found]
    assert all(hit.role == "me" for hit in found)
    assert near.id not in [
        hit.entry_id
        for hit in await desk.service.find_related(desk.keys, entry, excluded_ids={near.id})
    ]


async def test_exact_phrases_and_rare_words_of_old_entries_come_first(desk: Desk) -> None:
    rng = np.random.default_rng(7)
    vocabulary = [
        "".join(rng.choice(list("bcdfghklmnprst") + list("aeiou") * 2, 6)) for _ in range(400)
    ]
    texts = [" ".join(rng.choice(vocabulary, 40)) for _ in range(300)]
    own = [f"zq{secrets.token_hex(4)}" for _ in texts]
    entries = [
        await desk.write(f"{text} {word}", TODAY - timedelta(days=20 * n))
        for n, (text, word) in enumerate(zip(texts, own, strict=True))
    ]
    await desk.service.unlock(desk.keys)
    await until(lambda: desk.service._states[desk.keys.user_id].is_complete)
    for place in rng.choice(300, 20, replace=False).tolist():
        words = texts[place].split()
        assert (await desk.search_ids('"' + " ".join(words[10:16]) + '"'))[0] == entries[place].id
        assert (await desk.search_ids(own[place]))[0] == entries[place].id


@given(st.text(max_size=200))
def test_neither_parser_raises(text: str) -> None:
    parse_query(text, TODAY, is_typing=True)
    assert not query_from_text(text, TODAY).is_filtered


async def test_searches_while_a_snapshot_is_loaded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(60):
        await desk.write(f"entry {n} about tea and {'x' * n}", TODAY - timedelta(days=n))
    await desk.wait_ready()
    monkeypatch.setattr("llamora.search.snapshot.PART_BYTES", 5000)
    assert await desk.service.save_snapshot(desk.keys.user_id)
    desk.service.lock(desk.keys.user_id)
    old = Snapshots.get_part

    async def slow(self: Snapshots, *place: object) -> bytes:
        await asyncio.sleep(0.02)
        return await old(self, *place)  # type: ignore[arg-type]

    monkeypatch.setattr(Snapshots, "get_part", slow)
    await desk.service.unlock(desk.keys)
    seen: list[int] = []
    async with asyncio.timeout(60):
        while True:
            found = await desk.search("tea")
            seen.append(found.total)
            if found.is_complete:
                break
            for query in ('"about tea"', "by:me", "a hot drink"):
                await desk.search(query)
    assert seen[-1] == 60, seen
