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
from llamora.vault.keys import create_keys
from llamora.vault.slots import Argon2Params
from scripts.torture import writers
from scripts.torture.invariants import Line, Promises, broken_files, check, is_whole, keys_of, lines_of
from scripts.torture.writers import HANDS, WORD, Order, new_id
from tests.fixtures.make_fixture import load
from tests.scan import find_words
from tests.server_process import Server, Writer

FIXTURES = Path(__file__).parents[2] / "tests/fixtures"
PASSPHRASE = "seven quiet herons over the weir"
ROUNDS_OF_A_STORE = 40  # then a new one is begun
LONGEST = {"entries": 0.25, "rotate": 0.5, "backup": 0.4, "migrate": 0.12, "restore": 0.25}  # seconds to the kill
QUIET = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
# The share of the kinds in a hundred kills.
SHARES = {"entries": 30, "rotate": 15, "backup": 15, "migrate": 15, "restore": 15, "served": 10}


@dataclass(slots=True)
class Found:
    """What all rounds found."""

    kills: Counter[str] = field(default_factory=Counter[str])
    acknowledged: int = 0
    lost: int = 0
    half: int = 0
    damaged: int = 0
    plain: int = 0
    files: int = 0
    wrong: Counter[str] = field(default_factory=Counter[str])

    def add(self, kind: str, **found: int) -> None:
        """Count one kill and what was found after it."""
        self.kills[kind] += 1
        for name, count in found.items():
            setattr(self, name, getattr(self, name) + count)
            if count and name in ("lost", "half", "damaged"):
                self.wrong[f"{name} in {kind}"] += count


@dataclass(slots=True)
class Store:
    """A journal of one writer, and what it has acknowledged."""

    folder: Path
    user_id: bytes
    code: str
    promises: Promises = field(default_factory=Promises)

    @property
    def database(self) -> Path:
        """Its file."""
        return self.folder / "llamora.sqlite3"

    @classmethod
    def new(cls, folder: Path) -> "Store":
        """A journal with nothing in it."""
        user_id = secrets.token_bytes(16)
        made = create_keys(user_id, PASSPHRASE, Argon2Params(65536, 3, 4))
        store = cls(folder, user_id, made.recovery_code)
        run_db_migrations(store.database, resource("migrations"))

        async def add() -> None:
            db = await LocalDB.open(store.database)
            await db.users.add(User(user_id, "Alice", recovery_confirmed=True), made.slots, made.sealed)
            await db.close()

        asyncio.run(add())
        return store

    def order(self, seed: int, **more: Any) -> Order:
        """What a process needs to know to work on it."""
        return Order(self.folder, self.user_id, self.promises.lines(), seed, code=self.code, **more)


def killed(
    kind: str, order: Order, delay: float, env: Mapping[str, str] | None = None, *, late: bool = False
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
    process = context.Process(target=writers.run, args=(kind, order, send), daemon=True)
    with mock.patch.dict(os.environ, env or {}):
        process.start()
    send.close()
    told: list[tuple[Any, ...]] = []
    with suppress(EOFError, OSError):
        assert receive.poll(60), "the process did not come up"
        told.append(receive.recv())
        while late and told[-1][1] in ("ready", "begin", "restoring") and receive.poll(60):
            told.append(receive.recv())
        end = time.monotonic() + delay
        while (left := end - time.monotonic()) > 0:
            if receive.poll(left):
                told.append(receive.recv())
    process.kill()
    process.join()
    with suppress(EOFError, OSError):
        while receive.poll():
            told.append(receive.recv())
    receive.close()
    assert [words[1] for words in told[:1]] == ["ready"], told[:1]
    return told[1:]


def judge_work(store: Store, folder: Path, told: list[tuple[Any, ...]]) -> dict[str, int]:
    """What is wrong in `folder` after what was told of work on a store."""
    before = store.promises.acknowledged
    store.promises.take(told)
    found = check(folder / "llamora.sqlite3", store.user_id, store.code, store.promises)
    found["acknowledged"] = store.promises.acknowledged - before
    for _, word, *rest in told:
        if word == "file":
            found["acknowledged"] += 1
            found["lost"] += not (folder / rest[0].relative_to(store.folder)).exists()
    broken, found["files"] = broken_files(folder, store.code)
    found["half"] += broken
    return found


def at_work(kind: str, store: Store, rng: random.Random, delay: float, *, late: bool) -> dict[str, int]:
    """One kill of the store at work, and what was found."""
    told = killed(kind, store.order(rng.randrange(2**31)), delay, late=late)
    found = judge_work(store, store.folder, told)
    for copy in (store.folder / "backups").glob("copy-*"):
        copy.unlink()
    return found


def end_change(store: Store) -> int:
    """Bring a change of keys that was interrupted to its end; 0 when one epoch is left, else 1."""

    async def finish() -> int:
        db = await LocalDB.open(store.database)
        keys = keys_of(store.database, store.user_id, store.code)
        if await db.key_rotation.count_data_keys(store.user_id) > 1:
            await Rotation(db).finish(keys)
        left = await db.key_rotation.count_data_keys(store.user_id)
        await db.close()
        return int(left != 1)

    with patched_notice():
        return asyncio.run(finish())


@contextmanager
def patched_notice() -> Generator[None]:
    """Without the wait for other workers, which there are none of."""
    before = rotation.NOTICE_SECONDS
    rotation.NOTICE_SECONDS = 0.01
    try:
        yield
    finally:
        rotation.NOTICE_SECONDS = before


# -- migrations ----------------------------------------------------------------------------------------


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, without the migration log."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)  # noqa: S608
            for table in tables
            if table != "schema_migrations"
        }


def older_journal(folder: Path, rng: random.Random) -> Order:
    """A journal of an earlier schema; none at all while there is only one."""
    order = Order(folder, b"", {}, 0)
    folder.mkdir()
    if kept := sorted(FIXTURES.glob("schema-*.sql"))[:-1]:
        load(rng.choice(kept).stem, order.database)
    return order


def judge_migration(
    database: Path, before: dict[str, list[tuple[Any, ...]]], newest: list[tuple[str, str]], told: list[tuple[Any, ...]]
) -> dict[str, int]:
    """What is wrong after what was told of a migration; it is brought to its end."""
    done = any(word == "migrated" for _, word in told)
    steps = [each.applied_on is not None for each in migration_status(database, resource("migrations"))]
    half = int(steps != sorted(steps, reverse=True))
    lost = int(done and not all(steps))
    after = rows(database)
    half += any(after[table] != content for table, content in before.items())
    for copy in (database.parent / "backups").glob("*.sqlite3"):
        half += not is_whole(copy) or rows(copy).keys() - after.keys() != set()
    run_db_migrations(database, resource("migrations"))
    half += schema(database) != newest
    damaged = len(run_checks(database, resource("migrations")).damage)
    return {"acknowledged": int(done), "lost": lost, "half": half, "damaged": damaged}


def migrating(folder: Path, rng: random.Random, delay: float, newest: list[tuple[str, str]]) -> dict[str, int]:
    """Kill a migration of an older journal; then bring it to its end."""
    order = older_journal(folder, rng)
    before = rows(order.database)
    return judge_migration(order.database, before, newest, killed("migrate", order, delay))


def schema(database: Path) -> list[tuple[str, str]]:
    """The statements that made a database, by name."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name").fetchall()


# -- restores ------------------------------------------------------------------------------------------


def two_backups(store: Store, rng: random.Random) -> tuple[tuple[Path, ...], list[dict[bytes, Line]]]:
    """Two backups of a writer with different contents, and what is in each."""
    files: list[Path] = []
    contents: list[dict[bytes, Line]] = []
    for number in range(2):
        store.promises.take(killed("entries", store.order(rng.randrange(2**31)), 0.3, late=True))
        assert not any(check(store.database, store.user_id, store.code, store.promises).values())
        keys = keys_of(store.database, store.user_id, store.code)
        files.append(store.folder / f"{number}.llamora")
        write_backup(store.database, keys, files[-1])
        contents.append(lines_of(store.database, keys))
    return tuple(files), contents


def judge_restore(
    store: Store, database: Path, contents: list[dict[bytes, Line]], there: int | None, told: list[tuple[Any, ...]]
) -> tuple[dict[str, int], int | None]:
    """What is wrong after what was told of restores over the contents `there`, and what is there now.

    None is an empty journal, -1 one that is neither of the backups.
    """
    allowed = {there}
    for _, word, number in told:
        allowed = {number} if word == "restored" else allowed | {number}
    done = sum(word == "restored" for _, word, _ in told)
    found = {"lost": 0, "half": 0, "damaged": 0, "acknowledged": done}
    which: int | None = None
    with closing(sqlite3.connect(database)) as connection:
        anybody = bool(connection.execute("SELECT 1 FROM users").fetchone())
    if anybody:
        keys = keys_of(database, store.user_id, store.code)
        lines = lines_of(database, keys)
        found["damaged"] = len(run_checks(database, resource("migrations"), keys).damage)
        which = next((number for number, content in enumerate(contents) if content == lines), -1)
    found["half"] = int(which == -1)
    found["lost"] = int(which != -1 and which not in allowed)
    return found, which


def restoring(
    store: Store, files: tuple[Path, ...], contents: list[dict[bytes, Line]], rng: random.Random, delay: float
) -> dict[str, int]:
    """Kill a restore, every third time one into an empty folder."""
    empty = rng.random() < 0.33
    folder = store.folder.with_name("empty") if empty else store.folder
    order = replace(store.order(rng.randrange(2**31), files=files), folder=folder)
    if empty:
        run_db_migrations(order.database, resource("migrations"))
    there = None if empty else contents.index(store.promises.lines())
    found, which = judge_restore(store, order.database, contents, there, killed("restore", order, delay))
    if empty:
        shutil.rmtree(folder)
    elif which is not None and which >= 0:
        store.promises = Promises(dict(contents[which]))
    return found


# -- a whole server --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Served:
    """A server, and the writer whose hands post to it."""

    server: Server
    writer: Writer
    store: Store

    @classmethod
    def begin(cls, folder: Path, cache: Path, env: Mapping[str, str] = QUIET) -> "Served":
        """A new server with one writer, whose keys are opened here too."""
        server = Server(folder, cache, mode="prod", env=env).start()
        writer = Writer(server.url).register()
        with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
            (user_id,) = connection.execute("SELECT id FROM users").fetchone()
        return cls(server, writer, Store(server.data, user_id, writer.code))

    def round(self, rng: random.Random, longest: float = 0.5) -> dict[str, int]:
        """Post with all hands until the kill, `longest` seconds at the most; then start again and sign in."""
        process = self.server.process
        assert process is not None
        lines, promises = self.store.promises.lines(), self.store.promises
        before = promises.acknowledged
        threads = [
            threading.Thread(target=self.post, args=(number, random.Random(rng.random()), lines))
            for number in range(HANDS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.01, longest))
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        found = check(self.store.database, self.store.user_id, self.store.code, promises)
        found["acknowledged"] = promises.acknowledged - before
        self.server.start()
        self.writer.http.cookies.clear()
        assert self.writer.sign_in().status_code == 303
        return found

    def post(self, number: int, rng: random.Random, lines: dict[bytes, Line]) -> None:
        """One hand: write, edit, delete, bring back and erase until the server is gone."""
        own = {entry: line for entry, line in lines.items() if entry[0] % HANDS == number}
        promises, hand = self.store.promises, Writer(self.server.url)
        hand.http.cookies.update(self.writer.http.cookies)
        with suppress(httpx.HTTPError, OSError):
            while True:
                kind = rng.choice(("write", "write", "edit", "delete", "restore", "erase"))
                entry, after, path, form = posted(kind, number, rng, own)
                promises.begin(number, entry, after)
                answer = hand.post(path, form, fragment=True)
                if answer.status_code == 200:
                    promises.done(number)
                else:
                    assert answer.status_code == 409, (path.split("/")[-1], answer.status_code)
                    promises.refused(number)
                    continue
                if after is None:
                    del own[entry]
                else:
                    own[entry] = after


def posted(
    kind: str, number: int, rng: random.Random, own: dict[bytes, Line]
) -> tuple[bytes, Line | None, str, dict[str, str]]:
    """A deed of a hand as a form: entry, what it will be, path, fields. Where no entry fits, a new one is written."""
    text = f"{WORD} {rng.randrange(10**9)}" + " word" * rng.choice((0, 3, 30, 300))
    fitting = [e for e, line in own.items() if line.deleted == (kind in ("restore", "erase"))]
    if kind == "write" or not fitting:
        entry = new_id(number)
        day = f"2026-{1 + entry[1] % 12:02}-{1 + entry[2] % 28:02}"
        return entry, Line(text), f"/d/{day}/entries", {"text": text, "pen": entry.hex()}
    entry = rng.choice(fitting)
    line, path = own[entry], f"/e/{entry.hex()}"
    if kind == "edit":
        return entry, line.edited(text), path, {"text": text, "revision": str(line.revision)}
    after = None if kind == "erase" else line.marked(deleted=kind == "delete")
    return entry, after, f"{path}/{kind}", {}


# -- all of it -------------------------------------------------------------------------------------------


def torture(
    kills: int, folder: Path, cache: Path, seed: int, kinds: tuple[str, ...] = tuple(SHARES), seconds: float = 1e9
) -> dict[str, Any]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, found, end = random.Random(seed), Found(), time.monotonic() + seconds
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    newest = schema(folder / "newest.sqlite3")
    stores: dict[str, Store] = {}
    backups: tuple[tuple[Path, ...], list[dict[bytes, Line]]] = ((), [])
    served: Served | None = None
    left_over = 0
    for number in range(kills):
        if time.monotonic() > end:
            break
        kind = kinds[number] if number < len(kinds) else rng.choices(kinds, [SHARES[kind] for kind in kinds])[0]
        delay = LONGEST.get(kind, 0.0) * rng.random() ** 2  # most of what matters is soon over
        if kind == "served":
            served = served or Served.begin(folder / "served", cache)
            found.add(kind, **served.round(rng))
            continue
        if kind == "migrate":
            found.add(kind, **migrating(folder / "migrated", rng, delay, newest))
            shutil.rmtree(folder / "migrated")
            continue
        if kind not in stores or found.kills[kind] % ROUNDS_OF_A_STORE == 0:
            left_over += close(stores.pop(kind, None), found)
            stores[kind] = Store.new(folder / kind)
            if kind == "restore":
                backups = two_backups(stores[kind], rng)
        if kind == "restore":
            found.add(kind, **restoring(stores[kind], *backups, rng, delay))
        else:
            found.add(kind, **at_work(kind, stores[kind], rng, delay, late=not found.kills[kind]))
    for store in stores.values():
        left_over += close(store, found)
    if served is not None:
        served.server.stop()
        found.plain += len(find_words(served.server.folder, [WORD]))
    total = sum(found.kills.values())
    return {
        "kills": total,
        "by_kind": dict(found.kills),
        **_counts(found),
        "two_epochs": left_over,
        "seed": seed,
        "wrong": dict(found.wrong),
    }


def _counts(found: Found) -> dict[str, int]:
    return {n: getattr(found, n) for n in ("acknowledged", "lost", "half", "damaged", "plain", "files")}


def close(store: Store | None, found: Found) -> int:
    """Bring a store to its end: change of keys ended, no word in any file of it. 1 when two epochs are left."""
    if store is None:
        return 0
    left = end_change(store)
    found.damaged += sum(check(store.database, store.user_id, store.code, store.promises).values())
    found.plain += len(find_words(store.folder, [WORD]))
    shutil.rmtree(store.folder)
    return left


def main() -> int:
    """Run, print, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; the number reached is printed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-", ignore_cleanup_errors=True) as name:
        result = torture(options.kills, Path(name), Path(name) / "cache", options.seed, seconds=options.seconds)
    print(json.dumps(result))
    return int(any(result[name] for name in ("lost", "half", "damaged", "plain", "two_epochs")))


if __name__ == "__main__":
    sys.exit(main())
