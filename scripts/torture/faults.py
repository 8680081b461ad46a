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

from llamora.messages import sentence
from llamora.persistence import run_db_migrations
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, restore_backup, sealed_keys, write_backup
from llamora.persistence.connection import StorageError
from llamora.settings import resource
from llamora.vault.keys import open_keyring
from scripts.torture.disk import (
    CREATE,
    FROM_THEN_ON,
    NAME,
    ONCE,
    SIZE,
    SYNC,
    WRITE,
    Faults,
    ShimUnavailable,
    WatchedFolder,
    build_shim,
)
from scripts.torture.invariants import check_store, is_whole, load_keys
from scripts.torture.kill import (
    PASSPHRASE,
    WITHOUT_MODELS,
    ServedJournal,
    Store,
    all_rows,
    check_migration,
    check_restore,
    copy_older_journal,
    make_two_backups,
    plan_request,
    read_schema,
)
from scripts.torture.writers import WORD
from tests.scan import find_words
from tests.server_process import HttpUser, code_shown

ALL_KINDS = WRITE | CREATE | SYNC | SIZE | NAME
# Name: errno, once or from then on, which changes. A full disk still lets files be removed and cut.
FAULT_MODES = {
    "full": (errno.ENOSPC, FROM_THEN_ON, WRITE | CREATE),
    "broken": (errno.EIO, FROM_THEN_ON, ALL_KINDS),
    "hiccup": (errno.EIO, ONCE, ALL_KINDS),
}
MAX_CHANGES = 400  # changes of one action: more, and it is not an action
ERROR_SENTENCE = re.compile(
    r"disk is full|could not be written|cannot be used|cannot be read|no space left|input/output error"
)


@dataclass
class Findings:
    """What was seen. `wrong` counts by what was wrong and in which action."""

    faults: int = 0
    reported: int = 0
    succeeded: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])

    def record(self, is_reported: bool | None, action: str, *, has_succeeded: bool) -> None:
        """One action with a fault in it: told in a sentence, or (None) served all the same; or neither."""
        self.faults += 1
        if has_succeeded:
            self.succeeded += 1
        elif is_reported:
            self.reported += 1
        else:
            self.errors[f"no clear sentence: {action}"] += 1


# -- a whole server --------------------------------------------------------------------------------------


def do_action(
    served: ServedJournal, kind: str, rng: random.Random
) -> tuple[httpx.Response, Callable[[bool], None]]:
    """Do one thing as a browser would; what to do once it is known whether it was acknowledged."""
    user, expected = served.user, served.store.expected
    if kind in ("write", "edit", "delete", "restore", "erase"):
        entry, expected_entry, path, form = plan_request(kind, 0, rng, expected.entries())
        expected.begin(0, entry, expected_entry)
        response = user.post(path, form, fragment=True)
        return response, lambda good: expected.done(0) if good else None
    if kind == "sign in":
        new_user = HttpUser(served.server.url)
        return new_user.sign_in(), lambda _: None
    if kind == "register":
        new_user = HttpUser(served.server.url, name=f"Other {rng.randrange(10**9)}")
        form = {"name": new_user.name, "passphrase": new_user.passphrase, "zone": "UTC"}
        return new_user.post("/register", form), lambda _: None
    forms: dict[str, tuple[str, dict[str, str]]] = {
        "draft": (
            "/drafts",
            {
                "draft_key": "day:2026-11-20",
                "text": WORD,
                "form_token": rng.randbytes(16).hex(),
                "count": "1",
            },
        ),
        "settings": ("/you/openings", {"openings": rng.choice(("on", "off"))}),
        "search": ("/search", {"q": f"{WORD} {rng.randrange(10**6)}"}),
        "backup": ("/you/backup", {"passphrase": user.passphrase}),
        "recovery code": ("/you/recovery-code", {"passphrase": user.passphrase}),
    }
    response = user.post(*forms[kind])
    if kind == "recovery code" and response.status_code == 200:
        served.store.recovery_code = code_shown(response)
    return response, lambda _: None


ACTIONS = (
    *("write", "edit", "delete", "restore", "erase", "draft", "settings", "search", "backup"),
    *("recovery code", "sign in", "register"),
)


def has_error_sentence(response: httpx.Response) -> bool:
    """Whether the page says what went wrong and what to do."""
    visible_text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())
    return (
        response.status_code in (503, 507)
        and ERROR_SENTENCE.search(visible_text.lower()) is not None
    )


def run_server_faults(
    findings: Findings,
    folder: Path,
    library: Path,
    rng: random.Random,
    modes: tuple[str, ...],
    step: int,
) -> int:
    """Every action of a server; the words found in its files."""
    root = folder / "served"
    root.mkdir()
    faults = Faults(folder / "faults")
    watched = WatchedFolder(library, root, faults=faults.path)
    server = ServedJournal.start(root, folder / "cache", {**WITHOUT_MODELS, **watched.env})
    for _ in range(6):
        response, acknowledge = do_action(server, "write", rng)
        assert response.status_code == 200
        acknowledge(True)
    for mode in modes:
        for kind in ACTIONS:
            for number in range(1 + rng.randrange(step), MAX_CHANGES, step):
                if not _fail_action(findings, server, faults, rng, (mode, kind, number)):
                    break
    server.server.stop()
    return len(find_words(root, [WORD]))


def _fail_action(
    findings: Findings,
    served: ServedJournal,
    faults: Faults,
    rng: random.Random,
    action: tuple[str, str, int],
) -> bool:
    """One action whose n-th change fails; whether there was an n-th change."""
    mode_name, kind, number = action
    error, mode, kinds = FAULT_MODES[mode_name]
    faults.arm(error, number, mode=mode, kinds=kinds)
    try:
        response, acknowledge = do_action(served, kind, rng)
    finally:
        hits = faults.disarm()
    has_succeeded = response.status_code in (200, 204, 205, 303)
    acknowledge(has_succeeded)
    if hits:
        findings.record(
            has_error_sentence(response),
            f"{kind}, {mode_name}, {response.status_code}",
            has_succeeded=has_succeeded,
        )
    store = served.store
    problems = check_store(store.database, store.user_id, store.recovery_code, store.expected)
    findings.errors.update(
        {f"{name} after {kind}, {mode_name}": count for name, count in problems.items() if count}
    )
    retry, acknowledge = do_action(served, kind, rng)
    acknowledge(retry.status_code in (200, 204, 205, 303))
    if retry.status_code not in (200, 204, 205, 303):
        findings.errors[f"does not work again: {kind}, {mode_name}, {retry.status_code}"] += 1
    return bool(hits)


# -- the commands ------------------------------------------------------------------------------------------


def run_commands(connection: Any) -> None:
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
            connection.send(("told", sentence(error)))
        except Exception as error:
            connection.send((type(error).__name__, str(error)))


@contextmanager
def command_process(watched: WatchedFolder) -> Iterator[Any]:
    """The pipe to such a process."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=run_commands, args=(child_end,), daemon=True)
    with mock.patch.dict(os.environ, watched.env):
        process.start()
    try:
        yield parent_end
    finally:
        process.kill()
        process.join()


@dataclass
class Command:
    """One command: what makes the place ready, what to tell the process, and what must hold after a failure."""

    name: str
    prepare: Callable[[], tuple[Any, ...]]
    find_problems: Callable[[bool], list[str]]


def commands(folder: Path, rng: random.Random) -> list[Command]:
    """Every command that writes, on a journal of its own below `folder`."""
    older, store = folder / "older", Store.create(folder / "data")
    backup_files, contents = make_two_backups(store, rng)
    output_folder = folder / "made"
    state: dict[str, Any] = {"number": 0}
    run_db_migrations(folder / "newest.sqlite3", resource("migrations"))
    newest = read_schema(folder / "newest.sqlite3")

    def prepare_migration() -> tuple[Any, ...]:
        shutil.rmtree(older, ignore_errors=True)
        order = copy_older_journal(older, rng)
        state["before"] = all_rows(order.database)
        return "migrate", order.database

    def verify_migration(good: bool) -> list[str]:
        events = [(0, "migrated")] if good else []
        problems = check_migration(older / "llamora.sqlite3", state["before"], newest, events)
        return [name for name, count in problems.items() if count and name != "acknowledged"]

    def prepare_first_start() -> tuple[Any, ...]:
        shutil.rmtree(older, ignore_errors=True)
        return "migrate", older / "llamora.sqlite3"

    def verify_first_start(_: bool) -> list[str]:
        run_db_migrations(older / "llamora.sqlite3", resource("migrations"))
        return [] if read_schema(older / "llamora.sqlite3") == newest else ["half"]

    def preparing(command: str, *arguments: Any, name: str) -> Callable[[], tuple[Any, ...]]:
        def prepare() -> tuple[Any, ...]:
            shutil.rmtree(output_folder, ignore_errors=True)
            return command, *arguments, output_folder / name

        return prepare

    def verify_files(good: bool) -> list[str]:
        files_made = [file for file in output_folder.glob("*") if ".part" not in file.name]
        problems = [] if not good or files_made else ["lost"]
        for file in files_made:
            if file.suffix == ".sqlite3":
                problems += [] if is_whole(file) else ["half"]
            else:
                header = read_header(file)
                header.unlock(store.recovery_code)
        return problems

    def prepare_restore() -> tuple[Any, ...]:
        state["there"] = (
            state["number"] if "there" in state else contents.index(store.expected.entries())
        )
        state["number"] = 1 - state["there"]
        return "restore", store.database, backup_files[state["number"]], store.recovery_code

    def verify_restore(good: bool) -> list[str]:
        events = [
            (0, "restoring", state["number"]),
            *([(0, "restored", state["number"])] if good else []),
        ]
        problems, current = check_restore(store, store.database, contents, state["there"], events)
        state["number"] = current
        return [name for name, count in problems.items() if count and name != "acknowledged"]

    with closing(sqlite3.connect(store.database)) as connection:
        sealed = sealed_keys(connection, store.user_id)
    master = bytes(load_keys(store.database, store.user_id, store.recovery_code).master)
    keys = (store.database, store.user_id, master, sealed)
    return [
        Command("first start", prepare_first_start, verify_first_start),
        Command("migrate", prepare_migration, verify_migration),
        Command("copy", preparing("copy", store.database, name="copy.sqlite3"), verify_files),
        Command("backup", preparing("backup", *keys, name="one.llamora"), verify_files),
        Command("restore", prepare_restore, verify_restore),
    ]


def run_command_faults(
    findings: Findings,
    folder: Path,
    library: Path,
    rng: random.Random,
    modes: tuple[str, ...],
    step: int,
) -> int:
    """Every command; the words found in its files."""
    root = folder / "commanded"
    root.mkdir()
    faults = Faults(folder / "faults-of-commands")
    with command_process(WatchedFolder(library, root, faults=faults.path)) as process:
        for command in commands(root, rng):
            for mode in modes:
                for number in range(1 + rng.randrange(step), MAX_CHANGES, step):
                    if not _fail_command(findings, process, faults, command, mode, number):
                        break
    return len(find_words(root, [WORD, PASSPHRASE]))


def _fail_command(
    findings: Findings, process: Any, faults: Faults, command: Command, mode_name: str, number: int
) -> bool:
    error, mode, kinds = FAULT_MODES[mode_name]
    message = command.prepare()
    faults.arm(error, number, mode=mode, kinds=kinds)
    process.send(message)
    outcome, sentence = process.recv()
    hits = faults.disarm()
    has_succeeded = outcome == "good"
    if hits:
        is_reported = outcome == "told" and ERROR_SENTENCE.search(sentence.lower()) is not None
        findings.record(
            is_reported,
            f"{command.name}, {mode_name}, {outcome} {sentence if outcome == 'told' else ''}",
            has_succeeded=has_succeeded,
        )
    for problem in _find_problems(command, has_succeeded):
        findings.errors[f"{problem} after {command.name}, {mode_name}"] += 1
    process.send(command.prepare())
    outcome, sentence = process.recv()
    if outcome != "good":
        findings.errors[f"does not work again: {command.name}, {mode_name}, {outcome}"] += 1
    for problem in _find_problems(command, outcome == "good"):
        findings.errors[f"{problem} after {command.name} once more"] += 1
    return bool(hits)


def _find_problems(command: Command, good: bool) -> list[str]:
    try:
        return command.find_problems(good)
    except (StorageError, sqlite3.Error) as error:
        return [f"{type(error).__name__}"]


# -- all of it ---------------------------------------------------------------------------------------------


def torture(
    folder: Path, seed: int, modes: tuple[str, ...] = tuple(FAULT_MODES), step: int = 1
) -> dict[str, Any]:
    """Run all of it, or every `step`-th change only. Raises disk.NoShim."""
    library = build_shim(folder)
    findings, rng = Findings(), random.Random(seed)
    plain_hits = run_server_faults(findings, folder, library, rng, modes, step)
    plain_hits += run_command_faults(findings, folder, library, rng, modes, step)
    return {
        "faults": findings.faults,
        "told_in_a_sentence": findings.reported,
        "served_all_the_same": findings.succeeded,
        "plain": plain_hits,
        "wrong": dict(findings.errors),
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="*", choices=list(FAULT_MODES), default=list(FAULT_MODES))
    parser.add_argument("--step", type=int, default=1, help="let every n-th change fail only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        try:
            result = torture(Path(name), options.seed, tuple(options.ways), options.step)
        except ShimUnavailable as reason:
            print(json.dumps({"skipped": str(reason)}))
            return 0
    print(json.dumps(result))
    return int(bool(result["wrong"] or result["plain"]))


if __name__ == "__main__":
    sys.exit(main())
