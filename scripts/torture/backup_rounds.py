"""Back up and restore, round after round: `python -m scripts.torture.backup_rounds --rounds 100`.

Each round has three users with some number of entries, edits, drafts, tags and deleted entries. Each is backed
up and put back into an empty folder, half by passphrase and half by recovery code, and every row must be the same.
No file may hold a word of theirs. Prints one JSON object.
"""

import asyncio
import random
import secrets
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from llamora.persistence import LocalDB
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import restore_backup, write_backup
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.schema import RECORD_KINDS
from llamora.persistence.versions import Version
from llamora.vault.keys import Keyring
from scripts.command import run
from scripts.torture import harness
from tests.scan import find_words

USER_NAMES = ("Alice", "Bob", "Charlie")
TABLES = [*(kind.table for kind in RECORD_KINDS if not kind.derived), "key_slots", "data_keys"]


def _rows(database: Path, user_id: bytes) -> harness.Rows:
    return harness.table_rows(database, TABLES, "WHERE user_id=?", user_id)


async def populate(db: LocalDB, keys: Keyring, rng: random.Random, entries: int) -> None:
    """Write what a user leaves: entries, some of them edited, tagged or left as drafts."""
    entries_written: list[Entry] = []
    for number in range(entries):
        day = date(2026, 1, 1) + timedelta(days=rng.randrange(365))
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=number)
        text = f"{harness.WORD} {number} " + "word " * rng.choice((0, 5, 60, 400, 4000))
        entries_written.append(Entry(secrets.token_bytes(16), day, "me", text, at, "Europe/Berlin"))
    for start in range(0, entries, 500):
        await db.entries.add(keys, *entries_written[start : start + 500])
    for entry in rng.sample(entries_written, min(entries, 20)):
        version = Version(secrets.token_bytes(16), entry.id, entry.text, entry.at, 1)
        await db.entries.update(keys, entry, [db.versions.saving_version(keys, version)])
        await db.tags.add(keys, entry.id, f"{harness.WORD} {rng.randrange(5)}")
        draft = Draft(day_draft_key(entry.day), f"{harness.WORD} draft", secrets.token_bytes(16), 1)
        await db.drafts.save(keys, draft, None)
    await db.search_history.add(keys, harness.WORD, datetime.now(UTC))
    await db.profiles.save(keys, b'{"zone":"UTC"}', revision=0)


async def _run_round(folder: Path, rng: random.Random, max_entries: int) -> tuple[int, int]:
    """(records, users of whom something came back otherwise)."""
    database = harness.new_database(folder / "here/llamora.sqlite3")
    empty = harness.new_database(folder / "there/llamora.sqlite3")
    total = different = 0
    async with harness.opened(database) as db:
        for number, name in enumerate(USER_NAMES):
            added = await harness.add_user(db, name, recovery_confirmed=bool(number % 2))
            await populate(db, added.keys, rng, rng.randrange(1, max_entries))
            file = folder / f"{name}.llamora"
            write_backup(database, added.keys, file)
            header = read_header(file)
            secret = harness.PASSPHRASE if rng.random() < 0.5 else added.new_keys.recovery_code
            manifest = restore_backup(empty, file, header, header.unlock(secret))
            total += sum(manifest.records.values())
            different += _rows(database, added.user.id) != _rows(empty, added.user.id)
    return total, different


def torture(
    folder: Path, count: int, entries: int, seed: int, seconds: float = harness.FOREVER
) -> dict[str, int]:
    """Run so many rounds, or as many as fit into `seconds`; `entries` of the largest journals."""
    rng, result = random.Random(seed), {"rounds": 0, "records": 0, "different": 0, "plain": 0}
    for number in harness.rounds(count, seconds):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            # Now and then a large journal, mostly a small one.
            entry_limit = entries if number % 10 == 0 else min(entries, 300)
            records, different = asyncio.run(_run_round(Path(name), rng, entry_limit))
            result["plain"] += len(find_words(Path(name), [harness.WORD]))
        result["rounds"] += 1
        result["records"] += records
        result["different"] += different
    return result | {"seed": seed}


if __name__ == "__main__":
    sys.exit(
        run(
            torture,
            failed=harness.any_of("different", "plain"),
            rounds={"type": int, "default": 100, "dest": "count"},
            entries={"type": int, "default": 10_000, "help": "of the largest journals"},
            seconds=harness.FOREVER,
            seed=1,
        )
    )
