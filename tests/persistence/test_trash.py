"""The sealed list of what is deleted."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from llamora.persistence import LocalDB
from llamora.persistence.connection import Connections, Step
from llamora.persistence.trash import DeletedEntry
from llamora.vault.keys import Keyring
from tests.persistence.conftest import AT, entry


def deleted(others: int = 0) -> DeletedEntry:
    return DeletedEntry(
        secrets.token_bytes(16), AT, tuple(secrets.token_bytes(16) for _ in range(others))
    )


async def apply(db: LocalDB, step: Step) -> None:
    """Run a step in the transaction of an action."""
    connections: Connections = db._connections
    async with connections.write() as tx:
        await step(tx)


async def test_the_list_is_kept_in_order_and_for_its_writer(
    db: LocalDB, keys: Keyring, other: Keyring, raw: Callable[..., list[tuple[Any, ...]]]
) -> None:
    assert await db.trash.list_all(keys) is None
    first, second = deleted(2), deleted()
    await db.trash.initialize(keys, [first])
    await db.trash.initialize(keys, [])  # somebody else was first
    await apply(db, db.trash.updating(keys, lambda listed: [*listed, second]))
    assert await db.trash.list_all(keys) == [first, second]
    assert await db.trash.list_all(other) is None
    ((sealed,),) = raw("SELECT sealed FROM trash")
    assert all(name not in sealed for name in (first.id, second.id, first.id.hex().encode()))


async def test_changes_at_once_are_all_in_it(db: LocalDB, keys: Keyring) -> None:
    items = [deleted() for _ in range(12)]

    async def append(item: DeletedEntry) -> None:
        kept = entry()
        await db.entries.add(
            keys, kept, steps=[db.trash.updating(keys, lambda listed: [*listed, item])]
        )

    await asyncio.gather(*(append(item) for item in items))
    assert sorted(item.id for item in await db.trash.list_all(keys) or []) == sorted(
        item.id for item in items
    )


async def test_a_change_that_is_refused_undoes_the_action(db: LocalDB, keys: Keyring) -> None:
    kept = entry()
    await db.trash.initialize(keys, [])

    def refuse(listed: list[DeletedEntry]) -> list[DeletedEntry]:
        raise LookupError

    with pytest.raises(LookupError):
        await db.entries.add(keys, kept, steps=[db.trash.updating(keys, refuse)])
    assert await db.entries.get_many(keys, [kept.id]) == []


async def test_a_damaged_list_can_be_begun_again(
    db: LocalDB, keys: Keyring, damage: Callable[[str], None]
) -> None:
    await db.trash.initialize(keys, [deleted()])
    damage("trash")
    assert await db.trash.list_all(keys) is None
    item = deleted()
    await db.trash.initialize(keys, [item])
    assert await db.trash.list_all(keys) == [item]
