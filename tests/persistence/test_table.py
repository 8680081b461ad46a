"""What every sealed table does: batches, revisions, threads, and records that do not open."""

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from llamora.persistence import LocalDB
from llamora.persistence import table as table_module
from llamora.persistence.connection import Connections
from llamora.persistence.drafts import Draft
from llamora.persistence.entries import Entry
from llamora.persistence.schema import DRAFTS, SEARCH_HISTORY, RecordKind
from llamora.persistence.search_history import PastQuery
from llamora.persistence.table import INLINE_RECORDS, SealedTable, UnknownContent, fetch_in
from llamora.vault.keys import Keyring

AT = datetime(2026, 11, 20, 9, tzinfo=UTC)


@pytest.fixture
def connections(db: LocalDB) -> Connections:
    return db._connections


@pytest.fixture
def queries(connections: Connections) -> SealedTable[PastQuery]:
    return SealedTable(connections, SEARCH_HISTORY, PastQuery)


async def put(
    connections: Connections, table: SealedTable[PastQuery], keys: Keyring, count: int
) -> dict[bytes, PastQuery]:
    made = {secrets.token_bytes(16): PastQuery(AT, f"query {number}") for number in range(count)}
    async with connections.write() as tx:
        await table.put(tx, keys, made)
    return made


async def test_records_come_back_in_batches_and_only_to_their_user(
    connections: Connections,
    queries: SealedTable[PastQuery],
    keys: Keyring,
    other: Keyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_module, "BATCH_SIZE", 3)
    made = await put(connections, queries, keys, 8)
    asked = [*made, secrets.token_bytes(16)]
    opened = await queries.fetch_in(keys, asked)
    assert {record.id: record.value for record in opened} == made
    assert {record.id for record in await queries.fetch(keys)} == set(made)
    assert await queries.fetch_in(other, asked) == await queries.fetch(other) == []
    assert await queries.get_value(other, asked[0]) is None
    assert await fetch_in(connections, "SELECT 1 WHERE 1 IN (*)", [], 7) == []


async def test_put_counts_the_revision_and_update_wants_the_one_before(
    connections: Connections, queries: SealedTable[PastQuery], keys: Keyring
) -> None:
    (query_id,) = await put(connections, queries, keys, 1)
    newer = queries.seal(keys, query_id, 2, PastQuery(AT, "newer"))
    async with connections.write() as tx:
        assert not await queries.insert(tx, newer)
        assert await queries.update(tx, newer)
        assert not await queries.update(tx, newer)
        # A transaction sees what it wrote, others do not yet.
        assert (await queries.get(keys, query_id, tx)) == (query_id, 2, PastQuery(AT, "newer"))
        assert (await queries.revisions(keys.user_id, [query_id])) == {query_id: 1}
        await queries.put(tx, keys, {query_id: PastQuery(AT, "newest")})
    assert (await queries.get(keys, query_id)) == (query_id, 3, PastQuery(AT, "newest"))


async def test_many_records_are_opened_off_the_loop_and_few_on_it(
    connections: Connections,
    queries: SealedTable[PastQuery],
    keys: Keyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[str] = set()
    real = RecordKind.open

    def noted(*given: object) -> bytes:
        threads.add(threading.current_thread().name)
        return real(*given)  # type: ignore[arg-type]

    made = await put(connections, queries, keys, INLINE_RECORDS + 1)
    monkeypatch.setattr(RecordKind, "open", noted)
    await queries.fetch_in(keys, list(made)[1:])
    assert threads == {threading.main_thread().name}
    threads.clear()
    await asyncio.gather(*(queries.fetch(keys) for _ in range(4)))
    assert [name.rpartition("_")[0] for name in threads] == ["llamora-records"]  # one thread
    threads.clear()
    monkeypatch.setattr(table_module, "INLINE_BYTES", 100)
    await queries.get(keys, next(iter(made)))
    assert threads.isdisjoint({threading.main_thread().name})


async def test_what_does_not_open_is_named_by_class_and_table_alone(
    connections: Connections,
    queries: SealedTable[PastQuery],
    keys: Keyring,
    damage: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = await put(connections, queries, keys, 1)
    damage("search_history")
    made |= await put(connections, queries, keys, 1)
    # One that opens, and holds something else than a query.
    strange = SealedTable(connections, SEARCH_HISTORY, list[str])
    strange_id = secrets.token_bytes(16)
    async with connections.write() as tx:
        await strange.put(tx, keys, {strange_id: ["heron"]})
    with caplog.at_level(logging.ERROR):
        opened = await queries.fetch(keys)
    values = {record.id: record.value for record in opened}
    first, second = made
    assert values == {first: None, second: made[second], strange_id: None}
    assert [record.message for record in caplog.records] == [
        "2 records in search_history could not be opened (Damaged, UnknownContent)"
    ]
    (row,) = await strange.get_sealed(keys.user_id, [strange_id])
    with pytest.raises(UnknownContent, match=r"^the record is of another form$"):
        queries.open(keys, *row)


async def test_what_could_not_be_read_again_is_not_written(
    connections: Connections, keys: Keyring
) -> None:
    drafts = SealedTable(connections, DRAFTS, Draft)
    with pytest.raises(msgspec.ValidationError):
        drafts.seal(keys, bytes(32), 1, Draft("day", "x", b"t", "one"))  # type: ignore[arg-type]


def test_a_default_and_what_is_not_known_take_no_room_and_no_other_field() -> None:
    plain = Entry(bytes(16), AT.date(), "me", "", AT, "UTC")
    encoded = table_module.encode(plain)
    assert msgspec.json.decode(encoded).keys() == {"id", "day", "role", "text", "at", "zone"}
    later = encoded[:-1] + b',"mood":{"word":"calm"}}'
    assert msgspec.json.decode(later, type=Entry) == plain
