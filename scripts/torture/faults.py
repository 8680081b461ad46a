"""Fills the disk and breaks it: `python -m scripts.torture.faults`.

For every kind of action, of a whole server and of the commands, the n-th change of a file fails, for n = 1, 2, ... up
to where the action passes untouched: with ENOSPC from then on, with EIO from then on, and with EIO once. Each time
the writer must be told in a sentence what to do (or be served all the same), nothing acknowledged may be lost and
nothing half done, and the same action must work as soon as the disk does, without a new start. Prints one JSON object.
"""

import argparse
import errno
import html
import json
import multiprocessing
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from llamora.persistence import run_db_migrations
from llamora.persistence.backups import copy_database, read_header, restore_backup, sealed_keys, write_backup
from llamora.persistence.connection import StorageError
from llamora.settings import resource
from llamora.vault.keys import open_keyring
from scripts.torture.disk import CREATE, FROM_THEN_ON, NAME, ONCE, SIZE, SYNC, WRITE, Faults, NoShim, Watched, build
from scripts.torture.invariants import check, is_whole, keys_of
from scripts.torture.kill import (
    PASSPHRASE,
    QUIET,
    Served,
    Store,
    judge_migration,
    judge_restore,
    older_journal,
    posted,
    rows,
    schema,
    two_backups,
)
from scripts.torture.writers import WORD
from tests.scan import find_words
from tests.server_process import Writer, code_shown

EVERYTHING = WRITE | CREATE | SYNC | SIZE | NAME
# Name: errno, once or from then on, which changes. A full disk still lets files be removed and cut.
WAYS = {
    "full": (errno.ENOSPC, FROM_THEN_ON, WRITE | CREATE),
    "broken": (errno.EIO, FROM_THEN_ON, EVERYTHING),
    "hiccup": (errno.EIO, ONCE, EVERYTHING),
}
MOST = 400  # changes of one action: more, and it is not an action
SENTENCE = re.compile(
    r"disk is full|could not be written|cannot be used|cannot be read|no space left|input/output error"
)


@dataclass
class Findings:
    """What was seen. `wrong` counts by what was wrong and in which action."""

    tried: int = 0
    failed: int = 0
    served_all_the_same: int = 0
    wrong: Counter[str] = field(default_factory=Counter[str])

    def saw(self, told: bool | None, where: str, *, good: bool) -> None:
        """One action with a fault in it: told in a sentence, or (None) served all the same; or neither."""
        self.tried += 1
        if good:
            self.served_all_the_same += 1
        elif told:
            self.failed += 1
        else:
            self.wrong[f"no clear sentence: {where}"] += 1


# -- a whole server --------------------------------------------------------------------------------------


def answer_of(one: Served, kind: str, rng: random.Random) -> tuple[httpx.Response, Callable[[bool], None]]:
    """Do one thing as a browser would; what to do once it is known whether it was acknowledged."""
    writer, promises = one.writer, one.store.promises
    if kind in ("write", "edit", "delete", "restore", "erase"):
        entry, after, path, form = posted(kind, 0, rng, promises.lines())
        promises.begin(0, entry, after)
        answer = writer.post(path, form, fragment=True)
        return answer, lambda good: promises.done(0) if good else None
    if kind == "sign in":
        other = Writer(one.server.url)
        return other.sign_in(), lambda _: None
    if kind == "register":
        other = Writer(one.server.url, name=f"Other {rng.randrange(10**9)}")
        form = {"name": other.name, "passphrase": other.passphrase, "zone": "UTC"}
        return other.post("/register", form), lambda _: None
    forms: dict[str, tuple[str, dict[str, str]]] = {
        "draft": ("/drafts", {"place": "day:2026-11-20", "text": WORD, "pen": rng.randbytes(16).hex(), "count": "1"}),
        "settings": ("/you/openings", {"openings": rng.choice(("on", "off"))}),
        "search": ("/search", {"q": f"{WORD} {rng.randrange(10**6)}"}),
        "backup": ("/you/backup", {"passphrase": writer.passphrase}),
        "recovery code": ("/you/recovery-code", {"passphrase": writer.passphrase}),
    }
    answer = writer.post(*forms[kind])
    if kind == "recovery code" and answer.status_code == 200:
        one.store.code = code_shown(answer)
    return answer, lambda _: None


ACTIONS = (
    *("write", "edit", "delete", "restore", "erase", "draft", "settings", "search", "backup"),
    *("recovery code", "sign in", "register"),
)


def to_a_person(answer: httpx.Response) -> bool:
    """Whether the page says what went wrong and what to do."""
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())
    return answer.status_code in (503, 507) and SENTENCE.search(words.lower()) is not None


def served(found: Findings, folder: Path, library: Path, rng: random.Random, ways: tuple[str, ...], step: int) -> int:
    """Every action of a server; the words found in its files."""
    root = folder / "served"
    root.mkdir()
    faults = Faults(folder / "faults")
    watched = Watched(library, root, faults=faults.path)
    one = Served.begin(root, folder / "cache", {**QUIET, **watched.env})
    for _ in range(6):
        good, settle = answer_of(one, "write", rng)
        assert good.status_code == 200
        settle(True)
    for way in ways:
        for kind in ACTIONS:
            for number in range(1 + rng.randrange(step), MOST, step):
                if not _failing(found, one, faults, rng, (way, kind, number)):
                    break
    one.server.stop()
    return len(find_words(root, [WORD]))


def _failing(found: Findings, one: Served, faults: Faults, rng: random.Random, what: tuple[str, str, int]) -> bool:
    """One action whose n-th change fails; whether there was an n-th change."""
    way, kind, number = what
    error, mode, kinds = WAYS[way]
    faults.arm(error, number, mode=mode, kinds=kinds)
    try:
        answer, settle = answer_of(one, kind, rng)
    finally:
        hits = faults.disarm()
    good = answer.status_code in (200, 204, 205, 303)
    settle(good)
    if hits:
        found.saw(to_a_person(answer), f"{kind}, {way}, {answer.status_code}", good=good)
    store = one.store
    judged = check(store.database, store.user_id, store.code, store.promises)
    found.wrong.update({f"{name} after {kind}, {way}": count for name, count in judged.items() if count})
    again, settle = answer_of(one, kind, rng)
    settle(again.status_code in (200, 204, 205, 303))
    if again.status_code not in (200, 204, 205, 303):
        found.wrong[f"does not work again: {kind}, {way}, {again.status_code}"] += 1
    return bool(hits)


# -- the commands ------------------------------------------------------------------------------------------


def obey(connection: Any) -> None:
    """A process on a failing disk that does what it is told, and says how it went."""
    while True:
        command, *rest = connection.recv()
        try:
            if command == "migrate":
                run_db_migrations(rest[0], resource("migrations"))
            elif command == "copy":
                copy_database(*rest)
            elif command == "backup":
                database, user_id, master, sealed, target = rest
                write_backup(database, open_keyring(user_id, master, sealed), target)
            elif command == "restore":
                database, file, code = rest
                header = read_header(file)
                restore_backup(database, file, header, header.unlock(code), replace=True)
            connection.send(("good", ""))
        except StorageError as error:
            connection.send(("told", str(error)))
        except Exception as error:
            connection.send((type(error).__name__, str(error)))


@contextmanager
def obeying(watched: Watched) -> Iterator[Any]:
    """The pipe to such a process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=obey, args=(there,), daemon=True)
    with mock.patch.dict(os.environ, watched.env):
        process.start()
    try:
        yield here
    finally:
        process.kill()
        process.join()


@dataclass
class Command:
    """One command: what makes the place ready, what to tell the process, and what must hold after a failure."""

    name: str
    prepare: Callable[[], tuple[Any, ...]]
    holds: Callable[[bool], list[str]]


def commands(folder: Path, rng: random.Random) -> list[Command]:
    """Every command that writes, on a journal of its own below `folder`."""
    older, store = folder / "older", Store.new(folder / "data")
    files, contents = two_backups(store, rng)
    made = folder / "made"
    turn: dict[str, Any] = {"number": 0}
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    newest = schema(folder / "newest.sqlite3")

    def migrate() -> tuple[Any, ...]:
        shutil.rmtree(older, ignore_errors=True)
        order = older_journal(older, rng)
        turn["before"] = rows(order.database)
        return "migrate", order.database

    def migrated(good: bool) -> list[str]:
        told = [(0, "migrated")] if good else []
        judged = judge_migration(older / "llamora.sqlite3", turn["before"], newest, told)
        return [name for name, count in judged.items() if count and name != "acknowledged"]

    def begin() -> tuple[Any, ...]:
        shutil.rmtree(older, ignore_errors=True)
        return "migrate", older / "llamora.sqlite3"

    def begun(_: bool) -> list[str]:
        run_db_migrations(older / "llamora.sqlite3", resource("migrations"))
        return [] if schema(older / "llamora.sqlite3") == newest else ["half"]

    def into(command: str, *first: Any, name: str) -> Callable[[], tuple[Any, ...]]:
        def prepare() -> tuple[Any, ...]:
            shutil.rmtree(made, ignore_errors=True)
            return command, *first, made / name

        return prepare

    def whole(good: bool) -> list[str]:
        there = [file for file in made.glob("*") if ".part" not in file.name]
        wrong = [] if not good or there else ["lost"]
        for file in there:
            if file.suffix == ".sqlite3":
                wrong += [] if is_whole(file) else ["half"]
            else:
                header = read_header(file)
                header.unlock(store.code)
        return wrong

    def restore() -> tuple[Any, ...]:
        turn["there"] = turn["number"] if "there" in turn else contents.index(store.promises.lines())
        turn["number"] = 1 - turn["there"]
        return "restore", store.database, files[turn["number"]], store.code

    def restored(good: bool) -> list[str]:
        told = [(0, "restoring", turn["number"]), *([(0, "restored", turn["number"])] if good else [])]
        judged, which = judge_restore(store, store.database, contents, turn["there"], told)
        turn["number"] = which
        return [name for name, count in judged.items() if count and name != "acknowledged"]

    with closing(sqlite3.connect(store.database)) as connection:
        sealed = sealed_keys(connection, store.user_id)
    master = bytes(keys_of(store.database, store.user_id, store.code).master)
    keys = (store.database, store.user_id, master, sealed)
    return [
        Command("first start", begin, begun),
        Command("migrate", migrate, migrated),
        Command("copy", into("copy", store.database, name="copy.sqlite3"), whole),
        Command("backup", into("backup", *keys, name="one.llamora"), whole),
        Command("restore", restore, restored),
    ]


def commanded(
    found: Findings, folder: Path, library: Path, rng: random.Random, ways: tuple[str, ...], step: int
) -> int:
    """Every command; the words found in its files."""
    root = folder / "commanded"
    root.mkdir()
    faults = Faults(folder / "faults-of-commands")
    with obeying(Watched(library, root, faults=faults.path)) as process:
        for command in commands(root, rng):
            for way in ways:
                for number in range(1 + rng.randrange(step), MOST, step):
                    if not _command(found, process, faults, command, way, number):
                        break
    return len(find_words(root, [WORD, PASSPHRASE]))


def _command(found: Findings, process: Any, faults: Faults, command: Command, way: str, number: int) -> bool:
    error, mode, kinds = WAYS[way]
    words = command.prepare()
    faults.arm(error, number, mode=mode, kinds=kinds)
    process.send(words)
    answer, sentence = process.recv()
    hits = faults.disarm()
    good = answer == "good"
    if hits:
        told = answer == "told" and SENTENCE.search(sentence.lower()) is not None
        found.saw(told, f"{command.name}, {way}, {answer} {sentence if answer == 'told' else ''}", good=good)
    for each in _holding(command, good):
        found.wrong[f"{each} after {command.name}, {way}"] += 1
    process.send(command.prepare())
    answer, sentence = process.recv()
    if answer != "good":
        found.wrong[f"does not work again: {command.name}, {way}, {answer}"] += 1
    for each in _holding(command, answer == "good"):
        found.wrong[f"{each} after {command.name} once more"] += 1
    return bool(hits)


def _holding(command: Command, good: bool) -> list[str]:
    try:
        return command.holds(good)
    except (StorageError, sqlite3.Error) as error:
        return [f"{type(error).__name__}"]


# -- all of it ---------------------------------------------------------------------------------------------


def torture(folder: Path, seed: int, ways: tuple[str, ...] = tuple(WAYS), step: int = 1) -> dict[str, Any]:
    """Run all of it, or every `step`-th change only. Raises disk.NoShim."""
    library = build(folder)
    found, rng = Findings(), random.Random(seed)
    plain = served(found, folder, library, rng, ways, step)
    plain += commanded(found, folder, library, rng, ways, step)
    return {
        "faults": found.tried,
        "told_in_a_sentence": found.failed,
        "served_all_the_same": found.served_all_the_same,
        "plain": plain,
        "wrong": dict(found.wrong),
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--step", type=int, default=1, help="let every n-th change fail only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        try:
            result = torture(Path(name), options.seed, tuple(options.ways), options.step)
        except NoShim as reason:
            print(json.dumps({"skipped": str(reason)}))
            return 0
    print(json.dumps(result))
    return int(bool(result["wrong"] or result["plain"]))


if __name__ == "__main__":
    sys.exit(main())
