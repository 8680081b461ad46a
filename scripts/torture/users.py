"""Let many users write at once to one store: `python -m scripts.torture.users --users 50 --writes 200`.

Half of the writes are new entries; for each of them two edits of the same revision race, and one must be refused.
Afterwards every user opens all of their own, and nothing of anybody else. Prints one JSON object.
"""

import asyncio
import secrets
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from msgspec.structs import replace

from llamora.persistence import LocalDB
from llamora.persistence.connection import StaleRevision
from llamora.persistence.entries import Entry
from llamora.vault.keys import Keyring
from scripts.command import run
from scripts.torture.harness import add_user, any_of, new_database, opened

DAY = date(2026, 11, 20)


async def write_and_edit(
    db: LocalDB, keys: Keyring, name: str, writes: int
) -> tuple[dict[bytes, str], int]:
    """Write and edit; return the texts that must be there, and how many of the edits that raced were refused."""
    acknowledged: dict[bytes, str] = {}
    refused = 0
    for number in range(writes // 2):
        entry = Entry(
            secrets.token_bytes(16), DAY, "me", f"{name} {number}", datetime.now(UTC), "UTC"
        )
        await db.entries.add(keys, entry)
        edits = [
            replace(entry, text=f"{entry.text} from {tab}") for tab in ("one tab", "the other")
        ]
        results = await asyncio.gather(
            *[db.entries.update(keys, each) for each in edits], return_exceptions=True
        )
        refused += sum(isinstance(each, StaleRevision) for each in results)
        acknowledged |= {each.id: each.text for each in results if isinstance(each, Entry)}
    return acknowledged, refused


async def _run_users(database: Path, users: int, writes: int) -> dict[str, object]:
    """Everybody at once, then look."""
    async with opened(database) as db:
        keyrings = [(await add_user(db, f"Writer {number}")).keys for number in range(users)]
        outcomes = await asyncio.gather(
            *[write_and_edit(db, keys, f"writer {n}", writes) for n, keys in enumerate(keyrings)]
        )
        lost = crossed = 0
        for keys, (acknowledged, _) in zip(keyrings, outcomes, strict=True):
            stored = {entry.id: entry.text for entry in await db.entries.list_day(keys, DAY)}
            lost += sum(stored.get(entry_id) != text for entry_id, text in acknowledged.items())
            crossed += len(stored.keys() - acknowledged.keys())
    race_count = users * (writes // 2)
    return {
        "users": users,
        "writes": race_count * 2,
        "lost": lost,
        "crossed": crossed,
        "not_refused": race_count - sum(refused for _, refused in outcomes),
    }


def torture(folder: Path, users: int, writes: int) -> dict[str, object]:
    """Run on a new database in `folder`."""
    return asyncio.run(_run_users(new_database(folder / "llamora.sqlite3"), users, writes))


if __name__ == "__main__":
    failed = any_of("lost", "crossed", "not_refused")
    sys.exit(run(torture, failed=failed, users=50, writes=200))
