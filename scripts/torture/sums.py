"""Put rows back, forge links and cut logs, and look for false alarms: `python -m scripts.torture.sums --trials 1000`.

Each trial does one of these to a journal that goes on being written, and must be noticed; what is undone must count as
right again. Then `--runs` of a state machine kill a process that writes and changes keys, restore backups and open the
journal again with what a browser was told: none of it may raise an alarm. Prints one JSON object.
"""

import asyncio
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec.structs import replace

from llamora.dates import utc_now
from llamora.journal import rotation
from llamora.journal.rotation import Rotation
from llamora.persistence import LocalDB
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import restore_backup, write_backup
from llamora.persistence.checksums import SeenChange
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Entry
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.versions import Version
from llamora.vault.keys import Keyring
from scripts.command import run
from scripts.torture.harness import NewUser, add_user, any_of, new_database, opened
from scripts.torture.invariants import load_keys

TAGS = ("boats", "lakes", "oars", "sails", "tides")
# What is put back: the table, its id, and what else says which row it is.
REVISED = {"entries": "id", "trash": "user_id", "tag_meta": "user_id", "drafts": "draft_key"}


def _new_entry(rng: random.Random) -> Entry:
    text = f"entry {rng.random()}"
    return Entry(secrets.token_bytes(16), utc_now().date(), "me", text, utc_now(), "UTC")


async def act(db: LocalDB, keys: Keyring, rng: random.Random) -> None:
    """Do one of the things that change records."""
    ids = list(await db.entries.revisions(keys.user_id))
    what = rng.choice(("add", "add", "edit", "edit", "tag", "untag", "trash", "draft", "erase"))
    if what == "add" or len(ids) < 4:
        await db.entries.add(keys, _new_entry(rng))
        return
    entry = await db.entries.get(keys, rng.choice(ids))
    if what == "edit":
        version = Version(secrets.token_bytes(16), entry.id, entry.text, entry.at, entry.revision)
        changed = replace(entry, text=f"edited {rng.random()}")
        await db.entries.update(keys, changed, [db.versions.saving_version(keys, version)])
    elif what == "tag":
        await db.tags.add(keys, entry.id, rng.choice(TAGS))
    elif what == "untag":
        for tag_id in (await db.tags.tag_ids_of(keys.user_id, [entry.id])).get(entry.id, ()):
            await db.tags.remove(keys, entry.id, tag_id)
    elif what == "trash":
        listing = db.trash.updating(keys, lambda ids: [*ids, DeletedEntry(entry.id, utc_now())])
        await db.entries.update(keys, replace(entry, deleted=utc_now()), [listing])
    elif what == "draft":
        draft = Draft(day_draft_key(entry.day), f"{rng.random()}", secrets.token_bytes(16), 1)
        await db.drafts.save(keys, draft, None)
    else:
        await db.entries.erase(keys, [entry.id])


# -- what must be noticed --------------------------------------------------------------------------


def _change(database: Path, statements: Sequence[tuple[str, Sequence[object]]]) -> None:
    with closing(sqlite3.connect(database, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for sql, values in statements:
            connection.execute(sql, values)
        connection.execute("COMMIT")


def _rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


async def _try_row(db: LocalDB, keys: Keyring, rng: random.Random) -> bool | None:
    """Put one row back to what it was some changes ago; None if no row of its table changed."""
    table = rng.choice(list(REVISED))
    query = f"SELECT {REVISED[table]}, revision, epoch, sealed FROM {table}"  # noqa: S608
    before = {row[0]: row[1:] for row in _rows(db.path, query)}
    for _ in range(rng.randint(1, 4)):
        await act(db, keys, rng)
    now = {row[0]: row[1:] for row in _rows(db.path, query)}
    changed = [row for row in before if row in now and before[row][0] != now[row][0]]
    if not changed:
        return None
    row = rng.choice(changed)
    sql = f"UPDATE {table} SET revision=?, epoch=?, sealed=? WHERE {REVISED[table]}=?"  # noqa: S608
    return await _is_noticed(db, keys, [(sql, (*before[row], row))], [(sql, (*now[row], row))])


async def _try_link(db: LocalDB, keys: Keyring, rng: random.Random) -> bool | None:
    """Add, move or remove a link."""
    await act(db, keys, rng)
    links = _rows(db.path, "SELECT user_id, tag, entry_id FROM entry_tags")
    ids = [row[0] for row in _rows(db.path, "SELECT id FROM entries")]
    if not links:
        return None
    user, tag, _ = link = rng.choice(links)
    foreign = (user, tag, rng.choice(ids))
    insert, delete = (
        "INSERT INTO entry_tags (user_id, tag, entry_id) VALUES (?, ?, ?)",
        "DELETE FROM entry_tags WHERE user_id=? AND tag=? AND entry_id=?",
    )
    how = rng.choice(("add", "move", "remove"))
    if how != "remove" and foreign in links:
        return None
    forge = [(delete, link)] if how != "add" else []
    forge += [(insert, foreign)] if how != "remove" else []
    undo = [({insert: delete, delete: insert}[sql], values) for sql, values in reversed(forge)]
    return await _is_noticed(db, keys, forge, undo)


async def _is_noticed(
    db: LocalDB,
    keys: Keyring,
    forge: Sequence[tuple[str, Sequence[object]]],
    undo: Sequence[tuple[str, Sequence[object]]],
) -> bool:
    _change(db.path, forge)
    noticed = await db.checksums.check(keys) != "right"
    _change(db.path, undo)
    return noticed and await db.checksums.check(keys) == "right"


async def _try_log(db: LocalDB, keys: Keyring, rng: random.Random) -> bool | None:
    """Cut the log anywhere before the end of the last change that a browser was told of."""
    await db.checkpoint()
    for _ in range(rng.randint(1, 5)):
        await act(db, keys, rng)
    seen, folder = db.checksums.latest(keys.user_id), db.path.parent / "cut"
    log = db.path.with_name(db.path.name + "-wal")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size = log.stat().st_size
    if not size:  # an erasure was last, which empties the log
        return None
    copy = folder / db.path.name
    shutil.copyfile(db.path, copy)
    copy.with_name(log.name).write_bytes(log.read_bytes()[: rng.randrange(size - 4096)])
    async with opened(copy) as cut:
        is_known = await cut.checksums.compare(keys, seen)
        return not is_known or await cut.checksums.check(keys) != "right"


async def try_forgeries(database: Path, user: NewUser, trials: int, seed: int) -> dict[str, int]:
    """Run the trials, an equal share of each kind; return how many were made and missed."""
    rng, made = random.Random(seed), Counter[str]()
    kinds = {"row": _try_row, "link": _try_link, "log": _try_log}
    async with opened(database) as db:
        for _ in range(12):
            await act(db, user.keys, rng)
        for number in range(trials):
            name = list(kinds)[number % len(kinds)]
            noticed = None
            while noticed is None:
                noticed = await kinds[name](db, user.keys, rng)
            made[name] += 1
            made["missed"] += not noticed
    return {name: made[name] for name in (*kinds, "missed")}


# -- what must not raise an alarm ------------------------------------------------------------------


def _work(database: Path, user: NewUser, seed: int, told: Connection) -> None:
    """Change records until the kill, and tell of each change as an answer to a browser would."""

    async def work() -> None:
        rng, keys = random.Random(seed), load_keys(database, user.user.id, _code(user))
        async with opened(database) as db:
            changes = Rotation(db)
            await changes.resume_pending(keys)
            while True:
                if rng.random() < 0.1:
                    if await db.key_rotation.count_data_keys(keys.user_id) == 1:
                        await changes.start(keys)
                    await changes.resume_pending(keys)
                else:
                    await act(db, keys, rng)
                told.send(db.checksums.latest(keys.user_id))

    with mock.patch.object(rotation, "NOTICE_SECONDS", 0.0):
        asyncio.run(work())


def _code(user: NewUser) -> str:
    return user.new_keys.recovery_code


def _kill_while_it_writes(
    database: Path, user: NewUser, rng: random.Random, done: Counter[str]
) -> SeenChange | None:
    seen: SeenChange | None = None
    context = multiprocessing.get_context("fork")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(database, user, rng.randrange(1 << 30), tell))
    process.start()
    tell.close()
    time.sleep(rng.uniform(0.05, 0.5))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    try:
        while True:
            seen = told.recv() or seen
            done["changes"] += 1
    except (EOFError, OSError, ValueError):
        return seen


def _restore(database: Path, user: NewUser, backup: Path) -> None:
    header = read_header(backup)
    restore_backup(database, backup, header, header.unlock(_code(user)), replace=True)


def find_alarms(database: Path, user: NewUser, runs: int, seed: int) -> dict[str, object]:
    """Run the state machine; return what was done, and the alarms by what came before."""
    rng, done, alarms = random.Random(seed), Counter[str](), list[str]()
    backup, seen = database.with_name("journal.backup"), None
    for _ in range(runs):
        for _ in range(rng.randint(1, 3)):
            step = rng.choice(("kill", "kill", "backup", "restore"))
            if step == "kill":
                seen = _kill_while_it_writes(database, user, rng, done) or seen
            elif step == "backup":
                write_backup(database, load_keys(database, user.user.id, _code(user)), backup)
            elif backup.exists():
                _restore(database, user, backup)
            done[step] += 1
            found = asyncio.run(_look(database, user, seen))
            if found != "right":
                alarms.append(f"{found} after {step}")
        done["runs"] += 1
    done["keys"] = load_keys(database, user.user.id, _code(user)).epoch
    return {**done, "alarms": len(alarms), "alarms_after": sorted(set(alarms))}


async def _look(database: Path, user: NewUser, seen: SeenChange | None) -> str:
    """Open the journal as at a sign-in."""
    keys = load_keys(database, user.user.id, _code(user))
    async with opened(database) as db:
        is_known = await db.checksums.compare(keys, seen)
        return await db.checksums.check(keys) if is_known else "rolled back"


# -- both ------------------------------------------------------------------------------------------


def torture(folder: Path, trials: int, runs: int, seed: int) -> dict[str, object]:
    """Run both on journals of their own in `folder`."""
    databases = [new_database(folder / name / "llamora.sqlite3") for name in ("forged", "sound")]

    async def make(database: Path) -> NewUser:
        async with opened(database) as db:
            user = await add_user(db, "Alice")
            await db.profiles.save(user.keys, b'{"summed": true}', revision=0)
            await db.entries.add(user.keys, _new_entry(random.Random(seed)))
            return user

    users = [asyncio.run(make(database)) for database in databases]
    tried = asyncio.run(try_forgeries(databases[0], users[0], trials, seed))
    return {**tried, **find_alarms(databases[1], users[1], runs, seed), "seed": seed}


if __name__ == "__main__":
    sys.exit(run(torture, failed=any_of("missed", "alarms"), trials=1000, runs=300, seed=1))
