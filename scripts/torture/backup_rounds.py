"""Backs up and restores, round after round: `python -m scripts.torture.backup_rounds --rounds 100`.

Each round has three writers with some number of entries, edits, drafts, traces and deleted entries. Each is backed
up and put back into an empty folder, half by passphrase and half by recovery code, and every row must be the same.
No file may hold a word of theirs. Prints one JSON object.
"""

import argparse
import asyncio
import json
import random
import secrets
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import restore_backup, write_backup
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RECORD_KINDS
from llamora.persistence.users import User
from llamora.persistence.versions import Version
from llamora.settings import resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import create_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.scan import find_words

USER_NAMES = ("Alice", "Bob", "Charlie")
PASSPHRASE = "seven quiet herons over the weir"
WORD = "quokkasaurus"


def table_rows(database: Path, user_id: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """Everything of one writer, by table."""
    tables = [kind.table for kind in RECORD_KINDS if not kind.derived] + ["key_slots", "data_keys"]
    with closing(sqlite3.connect(database)) as connection:
        return {
            table: sorted(
                connection.execute(f"SELECT * FROM {table} WHERE user_id=?", (user_id,)).fetchall(),  # noqa: S608
                key=repr,
            )
            for table in tables
        }


async def populate(db: LocalDB, keys: Keyring, rng: random.Random, entries: int) -> None:
    """What a writer leaves: entries, some of them edited, traced or left as drafts."""
    entries_written: list[Entry] = []
    for number in range(entries):
        day = date(2026, 1, 1) + timedelta(days=rng.randrange(365))
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=number)
        text = f"{WORD} {number} " + "word " * rng.choice((0, 5, 60, 400, 4000))
        entries_written.append(Entry(secrets.token_bytes(16), day, "me", text, at, "Europe/Berlin"))
    for start in range(0, entries, 500):
        await db.entries.add(keys, *entries_written[start : start + 500])
    for entry in rng.sample(entries_written, min(entries, 20)):
        version = Version(secrets.token_bytes(16), entry.id, entry.text, entry.at, 1)
        await db.entries.update(keys, entry, [db.versions.saving_version(keys, version)])
        await db.tags.add(keys, entry.id, f"{WORD} {rng.randrange(5)}")
        draft = Draft(day_draft_key(entry.day), f"{WORD} draft", secrets.token_bytes(16), 1)
        await db.drafts.save(keys, draft, None)
    await db.search_history.add(keys, WORD, datetime.now(UTC))
    await db.profiles.save(keys, b'{"zone":"UTC"}', revision=0)


async def run_round(folder: Path, rng: random.Random, max_entries: int) -> tuple[int, int]:
    """(records, writers of whom something came back otherwise)."""
    database, empty = folder / "here/llamora.sqlite3", folder / "there/llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    run_db_migrations(empty, resource("migrations"))
    db = await LocalDB.open(database)
    total = different = 0
    for number, name in enumerate(USER_NAMES):
        user_id = secrets.token_bytes(16)
        new_keys = create_keys(user_id, PASSPHRASE, Argon2Params(65536, 3, 4))
        await db.users.add(
            User(user_id, name, recovery_confirmed=bool(number % 2)),
            new_keys.slots,
            new_keys.sealed,
        )
        keys = open_keyring(user_id, new_keys.master, new_keys.sealed)
        await populate(db, keys, rng, rng.randrange(1, max_entries))
        file = folder / f"{name}.llamora"
        write_backup(database, keys, file)
        header = read_header(file)
        secret = PASSPHRASE if rng.random() < 0.5 else new_keys.recovery_code
        manifest = restore_backup(empty, file, header, header.unlock(secret))
        total += sum(manifest.records.values())
        different += table_rows(database, user_id) != table_rows(empty, user_id)
    await db.close()
    return total, different


def torture(
    rounds: int, folder: Path, seed: int, max_entries: int, seconds: float = 1e9
) -> dict[str, object]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, deadline = random.Random(seed), time.monotonic() + seconds
    total = different = plain_hits = rounds_done = 0
    for number in range(rounds):
        if time.monotonic() > deadline:
            break
        rounds_done += 1
        with tempfile.TemporaryDirectory(dir=folder) as name:
            # Now and then a large journal, mostly a small one.
            entry_limit = max_entries if number % 10 == 0 else min(max_entries, 300)
            records, different_users = asyncio.run(run_round(Path(name), rng, entry_limit))
            plain_hits += len(find_words(Path(name), [WORD]))
        total += records
        different += different_users
    return {
        "rounds": rounds_done,
        "records": total,
        "different": different,
        "plain": plain_hits,
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something did not come back as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--entries", type=int, default=10_000, help="of the largest journals")
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="stop after so long; the number reached is printed",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rounds-") as name:
        result = torture(options.rounds, Path(name), options.seed, options.entries, options.seconds)
    print(json.dumps(result))
    return 1 if result["different"] or result["plain"] else 0


if __name__ == "__main__":
    sys.exit(main())
