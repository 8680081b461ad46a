"""Kills what writes to a journal: `python -m scripts.torture.kill --kills 2000`.

Each round starts a process that does one kind of work, four hands at once, and sends it SIGKILL at a random moment:
the work of the store (writing, editing, deleting, bringing back, erasing, tracing; the same while keys are changed,
or while backups and copies are made), migrations of older schemas, restores over a journal; and one round in ten a
whole server, written to over HTTP. After each kill everything that was acknowledged must be there as it was
acknowledged, nothing half done, and no file may hold a word of it. Prints one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import secrets
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from llamora.journal import rotation
from llamora.journal.rotation import Rotation
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.backups import write_backup
from llamora.persistence.doctor import run_checks
from llamora.persistence.migrations import migration_status
from llamora.persistence.users import User
from llamora.settings import resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import create_keys
from scripts.torture import writers
from scripts.torture.invariants import (
    ExpectedEntry,
    ExpectedState,
    check_store,
    count_broken_files,
    is_whole,
    load_entries,
    load_keys,
)
from scripts.torture.writers import WORD, WRITER_COUNT, Job, new_id
from tests.fixtures.make_fixture import load
from tests.scan import find_words
from tests.server_process import HttpUser, Server

FIXTURES = Path(__file__).parents[2] / "tests/fixtures"
PASSPHRASE = "seven quiet herons over the weir"
ROUNDS_PER_STORE = 40  # then a new one is begun
MAX_SECONDS_TO_KILL = {
    "entries": 0.25,
    "rotate": 0.5,
    "backup": 0.4,
    "migrate": 0.12,
    "restore": 0.25,
}  # seconds to the kill
WITHOUT_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
# The share of the kinds in a hundred kills.
SHARES = {"entries": 30, "rotate": 15, "backup": 15, "migrate": 15, "restore": 15, "served": 10}


@dataclass(slots=True)
class Totals:
    """What all rounds found."""

    kills: Counter[str] = field(default_factory=Counter[str])
    acknowledged: int = 0
    lost: int = 0
    half: int = 0
    damaged: int = 0
    plain: int = 0
    files: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])

    def add(self, kind: str, **counts: int) -> None:
        """Count one kill and what was found after it."""
        self.kills[kind] += 1
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)
            if count and name in ("lost", "half", "damaged"):
                self.errors[f"{name} in {kind}"] += count


@dataclass(slots=True)
class Store:
    """A journal of one writer, and what it has acknowledged."""

    folder: Path
    user_id: bytes
    recovery_code: str
    expected: ExpectedState = field(default_factory=ExpectedState)

    @property
    def database(self) -> Path:
        """Its file."""
        return self.folder / "llamora.sqlite3"

    @classmethod
    def create(cls, folder: Path) -> "Store":
        """A journal with nothing in it."""
        user_id = secrets.token_bytes(16)
        new_keys = create_keys(user_id, PASSPHRASE, Argon2Params(65536, 3, 4))
        store = cls(folder, user_id, new_keys.recovery_code)
        run_db_migrations(store.database, resource("migrations"))

        async def add_user() -> None:
            db = await LocalDB.open(store.database)
            await db.users.add(
                User(user_id, "Alice", recovery_confirmed=True), new_keys.slots, new_keys.sealed
            )
            await db.close()

        asyncio.run(add_user())
        return store

    def new_job(self, seed: int, **more: Any) -> Job:
        """What a process needs to know to work on it."""
        return Job(
            self.folder,
            self.user_id,
            self.expected.entries(),
            seed,
            recovery_code=self.recovery_code,
            **more,
        )


def run_until_killed(
    kind: str,
    job: Job,
    delay: float,
    env: Mapping[str, str] | None = None,
    *,
    after_first_acknowledgement: bool = False,
) -> list[tuple[Any, ...]]:
    """Let a process work and kill it `delay` seconds after it is ready; what it told until then.

    `late`: after something was acknowledged. With `env`, a process of its own has that in its environment too.
    """
    if env is not None or sys.platform == "win32":
        context = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["scripts.torture.writers"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=writers.run_job, args=(kind, job, send), daemon=True)
    with mock.patch.dict(os.environ, env or {}):
        process.start()
    send.close()
    events: list[tuple[Any, ...]] = []
    with suppress(EOFError, OSError):
        assert receive.poll(60), "the process did not come up"
        events.append(receive.recv())
        while (
            after_first_acknowledgement
            and events[-1][1] in ("ready", "begin", "restoring")
            and receive.poll(60)
        ):
            events.append(receive.recv())
        deadline = time.monotonic() + delay
        while (seconds_left := deadline - time.monotonic()) > 0:
            if receive.poll(seconds_left):
                events.append(receive.recv())
    process.kill()
    process.join()
    with suppress(EOFError, OSError):
        while receive.poll():
            events.append(receive.recv())
    receive.close()
    assert [words[1] for words in events[:1]] == ["ready"], events[:1]
    return events[1:]


def check_work(store: Store, folder: Path, events: list[tuple[Any, ...]]) -> dict[str, int]:
    """What is wrong in `folder` after what was told of work on a store."""
    acknowledged_before = store.expected.acknowledged
    store.expected.replay(events)
    counts = check_store(
        folder / "llamora.sqlite3", store.user_id, store.recovery_code, store.expected
    )
    counts["acknowledged"] = store.expected.acknowledged - acknowledged_before
    for _, event_name, *rest in events:
        if event_name == "file":
            counts["acknowledged"] += 1
            counts["lost"] += not (folder / rest[0].relative_to(store.folder)).exists()
    broken_count, counts["files"] = count_broken_files(folder, store.recovery_code)
    counts["half"] += broken_count
    return counts


def run_work_round(
    kind: str, store: Store, rng: random.Random, delay: float, *, after_first_acknowledgement: bool
) -> dict[str, int]:
    """One kill of the store at work, and what was found."""
    events = run_until_killed(
        kind,
        store.new_job(rng.randrange(2**31)),
        delay,
        after_first_acknowledgement=after_first_acknowledgement,
    )
    counts = check_work(store, store.folder, events)
    for copy_path in (store.folder / "backups").glob("copy-*"):
        copy_path.unlink()
    return counts


def finish_rotation(store: Store) -> int:
    """Bring a change of keys that was interrupted to its end; 0 when one epoch is left, else 1."""

    async def finish() -> int:
        db = await LocalDB.open(store.database)
        keys = load_keys(store.database, store.user_id, store.recovery_code)
        if await db.key_rotation.count_data_keys(store.user_id) > 1:
            await Rotation(db).finish(keys)
        epochs_left = await db.key_rotation.count_data_keys(store.user_id)
        await db.close()
        return int(epochs_left != 1)

    with without_poll_wait():
        return asyncio.run(finish())


@contextmanager
def without_poll_wait() -> Generator[None]:
    """Without the wait for other workers, which there are none of."""
    original = rotation.NOTICE_SECONDS
    rotation.NOTICE_SECONDS = 0.01
    try:
        yield
    finally:
        rotation.NOTICE_SECONDS = original


# -- migrations ----------------------------------------------------------------------------------------


def all_rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, without the migration log."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)  # noqa: S608
            for table in tables
            if table != "schema_migrations"
        }


def copy_older_journal(folder: Path, rng: random.Random) -> Job:
    """A journal of an earlier schema; none at all while there is only one."""
    job = Job(folder, b"", {}, 0)
    folder.mkdir()
    if kept := sorted(FIXTURES.glob("schema-*.sql"))[:-1]:
        load(rng.choice(kept).stem, job.database)
    return job


def check_migration(
    database: Path,
    before: dict[str, list[tuple[Any, ...]]],
    newest: list[tuple[str, str]],
    events: list[tuple[Any, ...]],
) -> dict[str, int]:
    """What is wrong after what was told of a migration; it is brought to its end."""
    is_acknowledged = any(event_name == "migrated" for _, event_name in events)
    applied = [
        each.applied_on is not None for each in migration_status(database, resource("migrations"))
    ]
    half_done = int(applied != sorted(applied, reverse=True))
    lost = int(is_acknowledged and not all(applied))
    after = all_rows(database)
    half_done += any(after[table] != content for table, content in before.items())
    for copy in (database.parent / "backups").glob("*.sqlite3"):
        half_done += not is_whole(copy) or all_rows(copy).keys() - after.keys() != set()
    run_db_migrations(database, resource("migrations"))
    half_done += read_schema(database) != newest
    damaged = len(run_checks(database, resource("migrations")).damage)
    return {
        "acknowledged": int(is_acknowledged),
        "lost": lost,
        "half": half_done,
        "damaged": damaged,
    }


def run_migration_round(
    folder: Path, rng: random.Random, delay: float, newest: list[tuple[str, str]]
) -> dict[str, int]:
    """Kill a migration of an older journal; then bring it to its end."""
    job = copy_older_journal(folder, rng)
    before = all_rows(job.database)
    return check_migration(job.database, before, newest, run_until_killed("migrate", job, delay))


def read_schema(database: Path) -> list[tuple[str, str]]:
    """The statements that made a database, by name."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name"
        ).fetchall()


# -- restores ------------------------------------------------------------------------------------------


def make_two_backups(
    store: Store, rng: random.Random
) -> tuple[tuple[Path, ...], list[dict[bytes, ExpectedEntry]]]:
    """Two backups of a writer with different contents, and what is in each."""
    files: list[Path] = []
    contents: list[dict[bytes, ExpectedEntry]] = []
    for number in range(2):
        store.expected.replay(
            run_until_killed(
                "entries",
                store.new_job(rng.randrange(2**31)),
                0.3,
                after_first_acknowledgement=True,
            )
        )
        assert not any(
            check_store(store.database, store.user_id, store.recovery_code, store.expected).values()
        )
        keys = load_keys(store.database, store.user_id, store.recovery_code)
        files.append(store.folder / f"{number}.llamora")
        write_backup(store.database, keys, files[-1])
        contents.append(load_entries(store.database, keys))
    return tuple(files), contents


def check_restore(
    store: Store,
    database: Path,
    contents: list[dict[bytes, ExpectedEntry]],
    current: int | None,
    events: list[tuple[Any, ...]],
) -> tuple[dict[str, int], int | None]:
    """What is wrong after what was told of restores over the contents `there`, and what is there now.

    None is an empty journal, -1 one that is neither of the backups.
    """
    allowed = {current}
    for _, event_name, number in events:
        allowed = {number} if event_name == "restored" else allowed | {number}
    acknowledged = sum(event_name == "restored" for _, event_name, _ in events)
    counts = {"lost": 0, "half": 0, "damaged": 0, "acknowledged": acknowledged}
    restored: int | None = None
    with closing(sqlite3.connect(database)) as connection:
        has_user = bool(connection.execute("SELECT 1 FROM users").fetchone())
    if has_user:
        keys = load_keys(database, store.user_id, store.recovery_code)
        lines = load_entries(database, keys)
        counts["damaged"] = len(run_checks(database, resource("migrations"), keys).damage)
        restored = next((number for number, content in enumerate(contents) if content == lines), -1)
    counts["half"] = int(restored == -1)
    counts["lost"] = int(restored != -1 and restored not in allowed)
    return counts, restored


def run_restore_round(
    store: Store,
    files: tuple[Path, ...],
    contents: list[dict[bytes, ExpectedEntry]],
    rng: random.Random,
    delay: float,
) -> dict[str, int]:
    """Kill a restore, every third time one into an empty folder."""
    empty = rng.random() < 0.33
    folder = store.folder.with_name("empty") if empty else store.folder
    job = replace(store.new_job(rng.randrange(2**31), files=files), folder=folder)
    if empty:
        run_db_migrations(job.database, resource("migrations"))
    current = None if empty else contents.index(store.expected.entries())
    counts, restored = check_restore(
        store, job.database, contents, current, run_until_killed("restore", job, delay)
    )
    if empty:
        shutil.rmtree(folder)
    elif restored is not None and restored >= 0:
        store.expected = ExpectedState(dict(contents[restored]))
    return counts


# -- a whole server --------------------------------------------------------------------------------------


@dataclass(slots=True)
class ServedJournal:
    """A server, and the writer whose hands post to it."""

    server: Server
    user: HttpUser
    store: Store

    @classmethod
    def start(
        cls, folder: Path, cache: Path, env: Mapping[str, str] = WITHOUT_MODELS
    ) -> "ServedJournal":
        """A new server with one writer, whose keys are opened here too."""
        server = Server(folder, cache, mode="prod", env=env).start()
        user = HttpUser(server.url).register()
        with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
            (user_id,) = connection.execute("SELECT id FROM users").fetchone()
        return cls(server, user, Store(server.data, user_id, user.recovery_code))

    def run_round(self, rng: random.Random, longest: float = 0.5) -> dict[str, int]:
        """Post with all hands until the kill, `longest` seconds at the most; then start again and sign in."""
        process = self.server.process
        assert process is not None
        entries, expected = self.store.expected.entries(), self.store.expected
        acknowledged_before = expected.acknowledged
        threads = [
            threading.Thread(
                target=self.post_until_killed, args=(number, random.Random(rng.random()), entries)
            )
            for number in range(WRITER_COUNT)
        ]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.01, longest))
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        counts = check_store(
            self.store.database, self.store.user_id, self.store.recovery_code, expected
        )
        counts["acknowledged"] = expected.acknowledged - acknowledged_before
        self.server.start()
        self.user.http.cookies.clear()
        assert self.user.sign_in().status_code == 303
        return counts

    def post_until_killed(
        self, number: int, rng: random.Random, entries: dict[bytes, ExpectedEntry]
    ) -> None:
        """One hand: write, edit, delete, bring back and erase until the server is gone."""
        own = {entry: line for entry, line in entries.items() if entry[0] % WRITER_COUNT == number}
        expected, user = self.store.expected, HttpUser(self.server.url)
        user.http.cookies.update(self.user.http.cookies)
        with suppress(httpx.HTTPError, OSError):
            while True:
                kind = rng.choice(("write", "write", "edit", "delete", "restore", "erase"))
                entry, expected_entry, path, form = plan_request(kind, number, rng, own)
                expected.begin(number, entry, expected_entry)
                response = user.post(path, form, fragment=True)
                if response.status_code == 200:
                    expected.done(number)
                else:
                    assert response.status_code == 409, (path.split("/")[-1], response.status_code)
                    expected.refused(number)
                    continue
                if expected_entry is None:
                    del own[entry]
                else:
                    own[entry] = expected_entry


def plan_request(
    kind: str, writer_number: int, rng: random.Random, own_entries: dict[bytes, ExpectedEntry]
) -> tuple[bytes, ExpectedEntry | None, str, dict[str, str]]:
    """A deed of a hand as a form: entry, what it will be, path, fields. Where no entry fits, a new one is written."""
    text = f"{WORD} {rng.randrange(10**9)}" + " word" * rng.choice((0, 3, 30, 300))
    matching = [
        e for e, current in own_entries.items() if current.deleted == (kind in ("restore", "erase"))
    ]
    if kind == "write" or not matching:
        entry = new_id(writer_number)
        day = f"2026-{1 + entry[1] % 12:02}-{1 + entry[2] % 28:02}"
        return (
            entry,
            ExpectedEntry(text),
            f"/d/{day}/entries",
            {"text": text, "form_token": entry.hex()},
        )
    entry = rng.choice(matching)
    current, path = own_entries[entry], f"/e/{entry.hex()}"
    if kind == "edit":
        return (
            entry,
            current.after_edit(text),
            path,
            {"text": text, "revision": str(current.revision)},
        )
    expected = None if kind == "erase" else current.with_deleted(deleted=kind == "delete")
    return entry, expected, f"{path}/{kind}", {}


# -- all of it -------------------------------------------------------------------------------------------


def torture(
    kills: int,
    folder: Path,
    cache: Path,
    seed: int,
    kinds: tuple[str, ...] = tuple(SHARES),
    seconds: float = 1e9,
) -> dict[str, Any]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, totals, deadline = random.Random(seed), Totals(), time.monotonic() + seconds
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    newest = read_schema(folder / "newest.sqlite3")
    stores: dict[str, Store] = {}
    backups: tuple[tuple[Path, ...], list[dict[bytes, ExpectedEntry]]] = ((), [])
    served: ServedJournal | None = None
    unfinished_rotations = 0
    for number in range(kills):
        if time.monotonic() > deadline:
            break
        kind = (
            kinds[number]
            if number < len(kinds)
            else rng.choices(kinds, [SHARES[kind] for kind in kinds])[0]
        )
        delay = (
            MAX_SECONDS_TO_KILL.get(kind, 0.0) * rng.random() ** 2
        )  # most of what matters is soon over
        if kind == "served":
            served = served or ServedJournal.start(folder / "served", cache)
            totals.add(kind, **served.run_round(rng))
            continue
        if kind == "migrate":
            totals.add(kind, **run_migration_round(folder / "migrated", rng, delay, newest))
            shutil.rmtree(folder / "migrated")
            continue
        if kind not in stores or totals.kills[kind] % ROUNDS_PER_STORE == 0:
            unfinished_rotations += finish_store(stores.pop(kind, None), totals)
            stores[kind] = Store.create(folder / kind)
            if kind == "restore":
                backups = make_two_backups(stores[kind], rng)
        if kind == "restore":
            totals.add(kind, **run_restore_round(stores[kind], *backups, rng, delay))
        else:
            totals.add(
                kind,
                **run_work_round(
                    kind,
                    stores[kind],
                    rng,
                    delay,
                    after_first_acknowledgement=not totals.kills[kind],
                ),
            )
    for store in stores.values():
        unfinished_rotations += finish_store(store, totals)
    if served is not None:
        served.server.stop()
        totals.plain += len(find_words(served.server.folder, [WORD]))
    total = sum(totals.kills.values())
    return {
        "kills": total,
        "by_kind": dict(totals.kills),
        **_counts(totals),
        "two_epochs": unfinished_rotations,
        "seed": seed,
        "wrong": dict(totals.errors),
    }


def _counts(totals: Totals) -> dict[str, int]:
    return {
        n: getattr(totals, n) for n in ("acknowledged", "lost", "half", "damaged", "plain", "files")
    }


def finish_store(store: Store | None, totals: Totals) -> int:
    """Bring a store to its end: change of keys ended, no word in any file of it. 1 when two epochs are left."""
    if store is None:
        return 0
    unfinished = finish_rotation(store)
    totals.damaged += sum(
        check_store(store.database, store.user_id, store.recovery_code, store.expected).values()
    )
    totals.plain += len(find_words(store.folder, [WORD]))
    shutil.rmtree(store.folder)
    return unfinished


def main() -> int:
    """Run, print, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="stop after so long; the number reached is printed",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-", ignore_cleanup_errors=True) as name:
        result = torture(
            options.kills, Path(name), Path(name) / "cache", options.seed, seconds=options.seconds
        )
    print(json.dumps(result))
    return int(any(result[name] for name in ("lost", "half", "damaged", "plain", "two_epochs")))


if __name__ == "__main__":
    sys.exit(main())
