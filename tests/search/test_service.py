import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from llamora.events import Broker, Service, Topic
from llamora.persistence.entries import Entry
from llamora.persistence.vectors import EntryVectors
from llamora.search import embed_queue
from llamora.search import service as module
from llamora.search.embedder import Embedder
from llamora.search.pending import MAX_QUERIES, PendingQueries, PendingStore
from llamora.search.query import MAX_QUERY, parse_query
from llamora.search.service import SearchService
from llamora.settings import EmbeddingSettings, SearchSettings
from llamora.vault.keys import KeyringClosed
from tests.search.conftest import TODAY, Desk

Desks = Callable[..., Awaitable[Desk]]


async def test_found_by_word_by_phrase_and_by_meaning(desk: Desk) -> None:
    wanted = await desk.write(
        "I was made redundant this morning and told nobody.", date(2024, 3, 2)
    )
    await desk.write("We planted beans behind the shed.", date(2024, 3, 3))
    await desk.wait_ready()
    for query in ("redundant", '"told nobody"', "losing my job"):
        results = await desk.search(query)
        assert results.hits[0].entry_id == wanted.id, query
        assert results.is_complete
        assert results.is_semantic
    hit = (await desk.search("redundant")).hits[0]
    assert (hit.day, hit.at, hit.zone, hit.role) == (wanted.day, wanted.at, "UTC", "me")
    assert ("redundant", True) in hit.snippet
    assert "".join(text for text, _ in hit.snippet) == wanted.text


async def test_a_snippet_of_meaning_shows_the_nearest_passage(desk: Desk) -> None:
    filler = "The train was on time and the coffee was warm. " * 30
    await desk.write(filler + "The doctor says my knee has to be operated on. " + filler)
    await desk.wait_ready()
    hit = (await desk.search("surgery")).hits[0]
    assert "knee has to be operated" in "".join(text for text, _ in hit.snippet)


async def test_writing_editing_and_deleting_are_seen_at_once(desk: Desk) -> None:
    await desk.wait_ready()
    entry = await desk.write("a heron by the pond")
    assert await desk.search_ids("heron") == [entry.id]
    changed = await desk.db.entries.update(desk.keys, replace(entry, text="an otter by the pond"))
    desk.service.put(desk.keys, changed)
    assert "heron" not in repr(await desk.search("heron"))
    assert await desk.search_ids("otter") == [entry.id]
    gone = await desk.db.entries.update(desk.keys, replace(changed, deleted=datetime.now(UTC)))
    desk.service.drop(desk.keys.user_id, [entry.id])
    assert await desk.search_ids("otter") == []
    desk.service.put(
        desk.keys, await desk.db.entries.update(desk.keys, replace(gone, deleted=None))
    )
    assert await desk.search_ids("otter") == [entry.id]


@pytest.mark.parametrize("told", [True, False])
async def test_an_erased_entry_is_in_no_result_snippet_or_vector(desk: Desk, told: bool) -> None:
    kept = await desk.write("the lighthouse keeper waved")
    erased = await desk.write("the lighthouse lamp went out, said Bartholomew")
    await desk.wait_ready()
    assert set(await desk.search_ids("lighthouse")) == {kept.id, erased.id}
    await desk.db.entries.erase(desk.keys, [erased.id])
    if told:
        desk.service.drop(desk.keys.user_id, [erased.id])
    for query in (
        "lighthouse",
        "Bartholomew",
        '"lamp went out"',
        "a beacon that failed",
        "by:me",
        "on:today",
    ):
        results = await desk.search(query)
        assert erased.id not in [hit.entry_id for hit in results.hits]
        assert "Bartholomew" not in repr(results)
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.db.vectors.get(desk.keys, [erased.id]) == []
    assert (await desk.search("lighthouse")).total == 1


async def test_another_writers_entries_are_never_found(desk: Desk) -> None:
    mine = await desk.write("my secret about the violin")
    theirs = await desk.write("their secret about the violin", keys=desk.other_keys)
    await desk.wait_ready()
    await desk.wait_ready(desk.other_keys)
    for query in ("violin", '"secret about"', "a musical instrument", "by:me"):
        assert await desk.search_ids(query) == [mine.id]
        assert await desk.search_ids(query, desk.other_keys) == [theirs.id]


async def test_an_index_is_built_from_the_store_and_dropped_at_lock(desk: Desk) -> None:
    entry = await desk.write("snow on the orchard", date(1999, 1, 5))
    await desk.wait_ready()
    user = desk.service._states[desk.keys.user_id]
    desk.service.lock(desk.keys.user_id)
    assert desk.keys.user_id not in desk.service._states
    user.thread.shutdown(wait=True)
    with pytest.raises(sqlite3.ProgrammingError):
        user.index.ranker.search(parse_query("snow", TODAY), {}, 0.5, 1, 0)
    await desk.wait_ready()
    assert await desk.search_ids("snow") == [entry.id]
    assert await desk.search_ids("winter weather") == [entry.id]


@pytest.mark.parametrize("forgotten", [False, True], ids=["thread gone", "index gone"])
async def test_a_search_that_a_lock_overtakes_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, forgotten: bool
) -> None:
    await desk.write("snow on the orchard")
    await desk.wait_ready()
    user = desk.service._states[desk.keys.user_id]
    sealed_many = type(desk.db.entries).get_sealed

    async def locking(self: object, *arguments: object) -> object:
        rows = await sealed_many(self, *arguments)  # type: ignore[arg-type]
        if forgotten:  # what is under way on the thread when the lock comes finds the index closed
            user.thread.submit(user.index.close)
            user.is_closed = True
        else:
            desk.service.lock(desk.keys.user_id)
        return rows

    monkeypatch.setattr(type(desk.db.entries), "get_sealed", locking)
    with pytest.raises(KeyringClosed):
        await desk.search("snow")
    monkeypatch.undo()
    desk.service.lock(desk.keys.user_id)
    assert (await desk.search("snow")).total == 1


async def test_vectors_are_sealed_and_made_only_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        await desk.write(f"note number {number} about apples. " * number) for number in range(1, 40)
    ]
    await desk.wait_ready()
    stored = {v.entry_id: v for v in await desk.db.vectors.get(desk.keys, [e.id for e in entries])}
    assert set(stored) == {entry.id for entry in entries}
    assert all(len(v.data) % (4 * v.dim) == 0 and v.data for v in stored.values())
    desk.service.lock(desk.keys.user_id)
    calls: list[int] = []
    passages = Embedder.embed_passages

    async def counting(self: Embedder, texts: list[str]) -> object:
        calls.append(len(texts))
        return await passages(self, texts)

    monkeypatch.setattr(Embedder, "embed_passages", counting)
    await desk.wait_ready()
    assert calls == []
    assert (await desk.search("fruit")).is_semantic


async def test_a_question_is_embedded_once_until_the_journal_is_locked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write("I was made redundant this morning")
    await desk.wait_ready()
    asked: list[str] = []
    query = Embedder.embed_query

    async def counting(self: Embedder, text: str) -> object:
        asked.append(text)
        return await query(self, text)

    monkeypatch.setattr(Embedder, "embed_query", counting)
    for text in ("losing my job", "losing my job by:me", "losing my job after:2020"):
        assert (await desk.search_ids(text))[0] == entry.id
    await desk.search("losing my job", offset=20)
    assert asked == ["losing my job"]
    monkeypatch.setattr("llamora.search.embed_queue.MAX_QUERY_VECTORS", 1)
    await desk.search("a walk")
    await desk.search("losing my job")
    assert asked == ["losing my job", "a walk", "losing my job"]
    user = desk.service._states[desk.keys.user_id]
    desk.service.lock(desk.keys.user_id)
    assert not user.query_vectors
    await desk.wait_ready()
    await desk.search("losing my job")
    assert len(asked) == 4


@pytest.mark.parametrize("what", ["missing", "older", "other model", "other size", "damaged"])
async def test_vectors_that_do_not_fit_are_made_anew(desk: Desk, what: str) -> None:
    entry = await desk.write("a boat on the lake")
    await desk.wait_ready()
    (right,) = await desk.db.vectors.get(desk.keys, [entry.id])
    desk.service.lock(desk.keys.user_id)
    zeros = np.zeros(384, dtype=np.float32).tobytes()
    if what == "missing":
        async with desk.db._connections.write() as tx:
            await tx.execute("DELETE FROM vectors WHERE entry_id=?", (entry.id,))
    elif what == "older":
        await desk.db.vectors.save(desk.keys, [replace(right, entry_revision=0, data=zeros)])
    elif what == "other size":
        await desk.db.vectors.save(desk.keys, [replace(right, dim=192, data=zeros)])
    elif what == "other model":
        await desk.db.vectors.save(desk.keys, [EntryVectors(entry.id, 1, "another/1", 384, zeros)])
    else:
        with sqlite3.connect(desk.path) as raw:
            (sealed,) = raw.execute("SELECT sealed FROM vectors").fetchone()
            raw.execute("UPDATE vectors SET sealed = ?", (sealed[:74] + bytes(len(sealed) - 74),))
        raw.close()
    await desk.wait_ready()
    (again,) = await desk.db.vectors.get(desk.keys, [entry.id])
    assert (again.entry_revision, again.model) == (right.entry_revision, right.model)
    assert np.frombuffer(again.data, "<f4") == pytest.approx(
        np.frombuffer(right.data, "<f4"), abs=1e-5
    )


async def test_what_another_process_writes_is_found(desks: Desks) -> None:
    here, there = await desks(), await desks()
    await here.wait_ready()
    await there.wait_ready()
    entry = await there.write("a comet over the roof")
    await here.wait_until_found("comet", [entry.id])
    changed = await there.db.entries.update(there.keys, replace(entry, text="a kite over the roof"))
    await here.wait_until_found("kite", [entry.id])
    await there.db.entries.update(there.keys, replace(changed, deleted=datetime.now(UTC)))
    await here.wait_until_found("kite", [])


async def test_a_pending_query_is_known_to_every_worker_until_forgotten(desk: Desk) -> None:
    store = PendingStore()
    broker = Broker({Service.QUERIES: store.serve})
    broker.bus.subscribe(Topic.QUERIES_FORGOTTEN, store.forget)
    here, there = (PendingQueries(broker.connect_in_memory()) for _ in range(2))
    query = "Bartholomew and his 東京 journey"
    name = await here.add(desk.keys, query)
    assert await there.get(desk.keys, name) == query
    assert await there.get(desk.other_keys, name) == ""
    assert await here.get(desk.keys, bytes(16)) == ""
    assert "artholomew" not in repr(store._sealed)
    theirs = await there.add(desk.other_keys, "x" * 1000)
    there.forget(desk.keys.user_id)
    assert await there.get(desk.keys, name) == ""
    assert await here.get(desk.keys, name) == ""
    assert await here.get(desk.other_keys, theirs) == "x" * 1000
    names = [await here.add(desk.keys, f"query {number}") for number in range(MAX_QUERIES)]
    assert await there.get(desk.other_keys, theirs) == ""
    assert [await there.get(desk.keys, names[index]) for index in (0, -1)] == [
        "query 0",
        f"query {MAX_QUERIES - 1}",
    ]


@pytest.mark.parametrize("letter", ["x", "ж", "東", "😀"])
async def test_the_longest_query_is_noted_in_any_script(desk: Desk, letter: str) -> None:
    query = letter * (MAX_QUERY + 1)
    for typing in (False, True):
        name = await desk.service.remember_query(desk.keys, query, is_typing=typing)
        assert await desk.service.query_for(desk.keys, name) == (query, typing)


async def test_an_entry_told_of_late_keeps_its_traces(desk: Desk) -> None:
    entry = await desk.write("we walked to the old mill")
    await desk.wait_ready()
    await desk.db.tags.add(desk.keys, entry.id, "Waterwheel")
    await desk.wait_until_found("waterwheel", [entry.id])
    await desk.service.wait_until_idle(desk.keys.user_id)
    desk.service.put(
        desk.keys, entry
    )  # the build that noticed the write was done before its writer came to say so
    await desk.wait_until_found("waterwheel", [entry.id])


async def test_what_is_written_while_the_store_is_read_stays_in_the_index(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.wait_ready()
    revisions = type(desk.db.entries).revisions
    written: list[Entry] = []

    async def meanwhile(self: object, user_id: bytes) -> dict[bytes, int]:
        found = await revisions(self, user_id)  # type: ignore[arg-type]
        if not written:
            written.append(await desk.write("a comet over the roof"))
        return found

    monkeypatch.setattr(type(desk.db.entries), "revisions", meanwhile)
    dropped: list[bytes] = []
    monkeypatch.setattr(desk.service._builder, "drop", lambda _, gone: dropped.extend(gone))
    other = await desk.db.entries.add(desk.keys, replace(await desk.write("first"), id=bytes(16)))
    assert other is None
    await desk.search("anything")
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert written
    assert dropped == []
    await desk.wait_until_found("comet", [written[0].id])


async def test_models_of_before_may_be_asked_for_while_one_is_loaded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.wait_ready()
    queue = desk.service._queue
    begun, gate = asyncio.Event(), asyncio.Event()

    class Former:
        state = "cold"

        async def warm_up(self) -> None:
            begun.set()
            await gate.wait()
            self.state = "ready"

        async def close(self) -> None:
            pass

    monkeypatch.setattr(Embedder, "with_model", lambda *_: Former())
    assert queue.embedder_for("one/1") is not None
    entry = await desk.write("a heron by the pond")
    await begun.wait()
    assert queue.embedder_for("two/1") is not None
    gate.set()
    async with asyncio.timeout(60):
        while not await desk.db.vectors.get(desk.keys, [entry.id]):  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.01)
    assert desk.service._embed_task is not None
    assert not desk.service._embed_task.done()


async def test_who_makes_room_keeps_what_was_noted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_INDEXES", 1)
    entry = await desk.write("a heron by the pond")
    await desk.wait_ready()
    name = await desk.service.remember_query(desk.keys, "heron")
    await desk.wait_ready(desk.other_keys)
    assert desk.service.unlocked_user_ids() == [desk.other_keys.user_id]
    assert await desk.service.query_for(desk.keys, name) == ("heron", False)
    await desk.wait_until_found("heron", [entry.id])


async def test_what_is_forgotten_is_forgotten_with_its_vector(desk: Desk) -> None:
    await desk.wait_ready()
    name = await desk.service.remember_query(desk.keys, "losing my job")
    await desk.search("losing my job")
    user = desk.service._states[desk.keys.user_id]
    assert user.query_vectors
    desk.service.forget_queries(desk.keys.user_id)
    assert not user.query_vectors
    assert await desk.service.query_for(desk.keys, name) == ("", False)


async def test_what_is_remembered_makes_no_index_look_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await desk.write("a comet over the roof")
    await desk.wait_ready()
    await desk.search("anything")
    await desk.service.wait_until_idle(desk.keys.user_id)
    looked: list[bytes] = []
    fingerprint = type(desk.db.entries).fingerprint

    async def counting(self: object, user_id: bytes) -> object:
        looked.append(user_id)
        return await fingerprint(self, user_id)  # type: ignore[arg-type]

    monkeypatch.setattr(type(desk.db.entries), "fingerprint", counting)
    await desk.db.search_history.add(desk.keys, "comet", datetime.now(UTC))
    assert await desk.search_ids("comet") == [entry.id]
    assert looked == []
    await desk.db.entries.update(
        desk.keys, replace(entry, text="a kite over the roof")
    )  # and nobody told search
    await desk.wait_until_found("kite", [entry.id])
    assert looked


async def test_streaming_replies_are_not_found_and_finished_ones_are(desk: Desk) -> None:
    await desk.wait_ready()
    reply = await desk.write("thinking about marmalade", role="reply", state="streaming")
    assert await desk.search_ids("marmalade") == []
    desk.service.put(
        desk.keys, await desk.db.entries.update(desk.keys, replace(reply, state="stopped"))
    )
    assert await desk.search_ids("marmalade by:reply") == [reply.id]


async def test_without_a_model_search_goes_by_word(desks: Desks, tmp_path: Path) -> None:
    desk = await desks(Embedder(EmbeddingSettings(enabled=False), tmp_path))
    entry = await desk.write("the old mill")
    await desk.wait_ready()
    results = await desk.search("mill")
    assert [hit.entry_id for hit in results.hits] == [entry.id]
    assert not results.is_semantic
    assert (await desk.search("a place where flour is made")).hits == ()


async def test_a_graph_serves_when_there_are_many(desks: Desks) -> None:
    pytest.importorskip(
        "hnswlib", reason="chroma-hnswlib has no wheel for this machine: search is exact there"
    )
    desk = await desks(settings=SearchSettings(hnsw_above=20))
    for number in range(40):
        await desk.write(
            f"errand number {number}: bread, milk and stamps", TODAY - timedelta(days=number)
        )
    wanted = await desk.write("my daughter took her first steps")
    await desk.wait_ready()
    assert desk.service._states[desk.keys.user_id].index.uses_graph
    assert (await desk.search_ids("the baby learned to walk"))[0] == wanted.id
    assert (await desk.search_ids("the baby learned to walk by:me"))[0] == wanted.id


async def test_an_unknown_phrase_is_searched_as_words_with_a_hint(desk: Desk) -> None:
    entry = await desk.write("the bread was burnt")
    await desk.wait_ready()
    results = await desk.search('"burnt bread"')
    assert [hit.entry_id for hit in results.hits] == [entry.id]
    assert results.hints
    assert (await desk.search('"bread was burnt"')).hints == ()


async def test_empty_and_very_long_entries(desk: Desk) -> None:
    await desk.write("")
    await desk.write("   \n")
    long = await desk.write(
        "All work and no play. " * 1000 + "Then the needle in the haystack. " + "Dull. " * 1000
    )
    await desk.wait_ready()
    results = await desk.search("needle")
    assert [hit.entry_id for hit in results.hits] == [long.id]
    assert ("needle", True) in results.hits[0].snippet


async def test_searches_run_while_the_index_is_built(
    desks: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamora.search.builder.READ_BATCH", 5)
    desk = await desks()
    for number in range(60):
        await desk.write(f"entry {number} about tea", TODAY - timedelta(days=50 * number))
    newest = await desk.write("entry today about tea")
    await desk.service.unlock(desk.keys)
    partial = [await desk.search("tea", limit=100)]
    while not partial[-1].is_complete:
        partial.append(await desk.search("tea", limit=100))
    assert partial[-1].total == 61
    assert newest.id in [hit.entry_id for hit in partial[0].hits]


async def test_a_failing_model_kills_nothing_and_says_nothing_private(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Embedder, texts: list[str]) -> object:
        raise RuntimeError(f"cannot embed {texts}")

    with caplog.at_level(logging.DEBUG), monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_passages", broken)
        await desk.wait_ready()
        first = await desk.write("my private walrus")
        await desk.service.wait_until_idle(desk.keys.user_id)
        assert await desk.search_ids("walrus") == [first.id]
    assert "RuntimeError" in caplog.text
    assert "walrus" not in caplog.text
    second = await desk.write("a man left for the sea")
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert await desk.search_ids("ocean voyage") == [second.id]


async def test_the_least_used_index_makes_room(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN_INDEXES", 1)
    entry = await desk.write("a quiet day")
    await desk.wait_ready()
    await desk.wait_ready(desk.other_keys)
    assert list(desk.service._states) == [desk.other_keys.user_id]
    await desk.wait_ready()
    assert await desk.search_ids("quiet") == [entry.id]


async def test_a_question_that_another_writer_pushed_out_is_asked_once_more(desk: Desk) -> None:
    entry = await desk.write("a quiet day by the weir")
    await desk.wait_ready()
    for turns in range(0, 40, 3):  # at each step of the way
        asking = asyncio.create_task(
            desk.service.find_passages(desk.keys, "a quiet weir", today=TODAY)
        )
        for _ in range(turns):
            await asyncio.sleep(turns / 20_000)
        desk.service.lock(desk.keys.user_id)
        assert {hit.entry_id for hit in await asking} <= {entry.id}
        await desk.wait_ready()


async def test_a_stopped_service_lets_everything_go(desk: Desk) -> None:
    await desk.write("anything")
    await desk.wait_ready()
    service: SearchService = desk.service
    await service.stop()
    await service.stop()
    assert not service._states


async def test_the_vectors_of_a_burst_are_made_once_it_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take the processor from what is being written."""
    await desk.wait_ready()
    monkeypatch.setattr(embed_queue, "DEBOUNCE_SECONDS", 3600.0)
    monkeypatch.setattr(embed_queue, "MAX_DEBOUNCE_SECONDS", 3600.0)
    asked: list[int] = []
    passages = Embedder.embed_passages

    async def counted(self: Embedder, texts: list[str]) -> "np.ndarray":
        asked.append(len(texts))
        return await passages(self, texts)

    monkeypatch.setattr(Embedder, "embed_passages", counted)
    written = [
        await desk.write(f"a line about the harbour, number {number}") for number in range(3)
    ]
    await desk.wait_until_found('"number 2"', [written[2].id])  # by its words it is there at once
    assert asked == []
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert asked == [3]
    assert set(await desk.db.vectors.revisions(desk.keys.user_id)) >= {
        entry.id for entry in written
    }


async def test_a_cell_of_another_type_is_the_trouble_of_its_own_record(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [await desk.write(f"a heron, seen {number} times") for number in range(3)]
    with sqlite3.connect(desk.path) as connection:
        connection.execute("UPDATE entries SET revision='two' WHERE id=?", (entries[0].id,))
        connection.execute("UPDATE entries SET sealed='words' WHERE id=?", (entries[1].id,))
    await desk.wait_ready()
    assert await desk.search_ids("heron") == [entries[2].id]
    later = await desk.write("an otter")
    assert await desk.search_ids('"an otter"') == [later.id]
    await desk.service.wait_until_idle(desk.keys.user_id)
    assert "could not be built" not in caplog.text
    assert "could not be updated" not in caplog.text
    states = {each.id: each.state for each in await desk.db.entries.list_day(desk.keys, TODAY)}
    assert [states[each.id] for each in entries] == ["unreadable", "unreadable", "done"]
