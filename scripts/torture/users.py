"""Many writers at once on one store: `python -m scripts.torture.users --users 50 --writes 200`.

Half of the writes are new entries; for each of them two edits of the same revision race, and one must be refused.
Afterwards every writer opens all of their own, and nothing of anybody else. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

from msgspec.structs import replace

from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.connection import StaleRevision
from llamora.persistence.entries import Entry
from llamora.persistence.users import User
from llamora.settings import resource
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import Keyring, open_keyring

DAY = date(2026, 11, 20)


async def write_and_edit(
    db: LocalDB, keys: Keyring, name: str, writes: int
) -> tuple[dict[bytes, str], int]:
    """Write and edit; the texts that must be there, and how many of the edits that raced were refused."""
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


async def run_users(users: int, writes: int, database: Path) -> dict[str, object]:
    """Everybody at once, then look."""
    db = await LocalDB.open(database)
    keyrings: list[Keyring] = []
    for number in range(users):
        user_id, master = secrets.token_bytes(16), os.urandom(32)
        sealed = seal_new_keys(user_id, master)
        await db.users.add(User(user_id, f"Writer {number}", recovery_confirmed=False), [], sealed)
        keyrings.append(open_keyring(user_id, master, sealed))
    outcomes = await asyncio.gather(
        *[write_and_edit(db, keys, f"writer {n}", writes) for n, keys in enumerate(keyrings)]
    )
    lost = foreign_entries = 0
    for keys, (acknowledged, _) in zip(keyrings, outcomes, strict=True):
        stored = {entry.id: entry.text for entry in await db.entries.list_day(keys, DAY)}
        lost += sum(stored.get(entry_id) != text for entry_id, text in acknowledged.items())
        foreign_entries += len(stored.keys() - acknowledged.keys())
    await db.close()
    race_count = users * (writes // 2)
    refused = sum(count for _, count in outcomes)
    return {
        "users": users,
        "writes": race_count * 2,
        "lost": lost,
        "crossed": foreign_entries,
        "not_refused": race_count - refused,
    }


def torture(users: int, writes: int, folder: Path) -> dict[str, object]:
    """Run on a new database in `folder`."""
    database = folder / "llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    return asyncio.run(run_users(users, writes, database))


def main() -> int:
    """Run, print, and fail when something was lost, crossed or let through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--writes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="users-") as name:
        result = torture(options.users, options.writes, Path(name))
    print(json.dumps(result))
    return 1 if result["lost"] or result["crossed"] or result["not_refused"] else 0


if __name__ == "__main__":
    sys.exit(main())
