"""Fill the disk and break it: `python -m scripts.torture.faults`.

For every kind of action, of a whole server and of the commands, the n-th change of a file fails, for n = 1, 2, ... up
to where the action passes untouched: with ENOSPC from then on, with EIO from then on, and with EIO once. Each time
the user must be told in a sentence what to do (or be served all the same), nothing acknowledged may be lost and
nothing half done, and the same action must work as soon as the disk does, without a new start. Prints one JSON object.
"""

import errno
import html
import random
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from llamora.persistence.connection import StorageError
from scripts.command import run
from scripts.torture import disk
from scripts.torture.fault_commands import Command, command_process, make_commands
from scripts.torture.harness import PASSPHRASE, WITHOUT_MODELS, WORD, any_of
from scripts.torture.served import ServedJournal, plan_request
from tests.scan import find_words
from tests.server_process import HttpUser, code_shown

ALL_KINDS = disk.WRITE | disk.CREATE | disk.SYNC | disk.SIZE | disk.NAME
# Name: errno, once or from then on, which changes. A full disk still lets files be removed and cut.
FAULT_MODES = {
    "full": (errno.ENOSPC, disk.FROM_THEN_ON, disk.WRITE | disk.CREATE),
    "broken": (errno.EIO, disk.FROM_THEN_ON, ALL_KINDS),
    "hiccup": (errno.EIO, disk.ONCE, ALL_KINDS),
}
GOOD_STATUSES = (200, 204, 205, 303)
MAX_CHANGES = 400  # changes of one action: more, and it is not an action
ERROR_SENTENCE = re.compile(
    r"disk is full|could not be written|cannot be used|cannot be read|no space left|input/output error"
)


@dataclass
class Findings:
    """Count what was seen; `errors` by what was wrong and in which action."""

    rng: random.Random
    modes: tuple[str, ...]
    step: int
    faults: int = 0
    reported: int = 0
    succeeded: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])

    def record(self, is_reported: bool, action: str, *, has_succeeded: bool) -> None:
        """Count one action with a fault in it: told in a sentence, served all the same, or neither."""
        self.faults += 1
        if has_succeeded:
            self.succeeded += 1
        elif is_reported:
            self.reported += 1
        else:
            self.errors[f"no clear sentence: {action}"] += 1

    def each_change(self, fail: Callable[[str, int], bool]) -> None:
        """Call it in each mode for every `step`-th change, until it says that there was none."""
        for mode in self.modes:
            for number in range(1 + self.rng.randrange(self.step), MAX_CHANGES, self.step):
                if not fail(mode, number):
                    break


def _arm(faults: disk.Faults, mode_name: str, number: int) -> None:
    error, mode, kinds = FAULT_MODES[mode_name]
    faults.arm(error, number, mode=mode, kinds=kinds)


# -- a whole server --------------------------------------------------------------------------------------


def do_action(
    served: ServedJournal, kind: str, rng: random.Random
) -> tuple[httpx.Response, Callable[[bool], None]]:
    """Do one thing as a browser would; return what to do once it is known whether it was acknowledged."""
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
        address = f"127.4.{rng.randrange(250)}.{rng.randrange(1, 250)}"  # they count by address
        name = f"Other {rng.randrange(10**9)}"
        new_user = HttpUser(served.server.url, name=name, source_address=address)
        form = {"name": new_user.name, "passphrase": new_user.passphrase, "zone": "UTC"}
        return new_user.post("/register", form), lambda _: None
    draft = {"draft_key": "day:2026-11-20", "text": WORD, "count": "1"}
    forms: dict[str, tuple[str, dict[str, str]]] = {
        "draft": ("/drafts", {**draft, "form_token": rng.randbytes(16).hex()}),
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
    """Tell whether the page says what went wrong and what to do."""
    visible_text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())
    is_error = response.status_code in (503, 507)
    return is_error and ERROR_SENTENCE.search(visible_text.lower()) is not None


def _run_server_faults(findings: Findings, folder: Path, library: Path) -> int:
    """Every action of a server; the words found in its files."""
    root, rng = folder / "served", findings.rng
    root.mkdir()
    faults = disk.Faults(folder / "faults")
    watched = disk.WatchedFolder(library, root, faults=faults.path)
    served = ServedJournal.start(root, folder / "cache", {**WITHOUT_MODELS, **watched.env})
    for _ in range(6):
        response, acknowledge = do_action(served, "write", rng)
        assert response.status_code == 200
        acknowledge(True)
    for kind in ACTIONS:
        findings.each_change(partial(_fail_action, findings, served, faults, kind))
    served.server.stop()
    return len(find_words(root, [WORD]))


def _fail_action(
    findings: Findings,
    served: ServedJournal,
    faults: disk.Faults,
    kind: str,
    mode: str,
    number: int,
) -> bool:
    """One action whose n-th change fails; whether there was an n-th change."""
    _arm(faults, mode, number)
    try:
        response, acknowledge = do_action(served, kind, findings.rng)
    finally:
        hits = faults.disarm()
    status = response.status_code
    has_succeeded = status in GOOD_STATUSES
    acknowledge(has_succeeded)
    if hits:
        is_reported = has_error_sentence(response)
        findings.record(is_reported, f"{kind}, {mode}, {status}", has_succeeded=has_succeeded)
    for name, count in served.store.check().items():
        if count:
            findings.errors[f"{name} after {kind}, {mode}"] += count
    retry, acknowledge = do_action(served, kind, findings.rng)
    acknowledge(retry.status_code in GOOD_STATUSES)
    if retry.status_code not in GOOD_STATUSES:
        findings.errors[f"does not work again: {kind}, {mode}, {retry.status_code}"] += 1
    return bool(hits)


# -- the commands ------------------------------------------------------------------------------------------


def _run_command_faults(findings: Findings, folder: Path, library: Path) -> int:
    """Every command; the words found in its files."""
    root = folder / "commanded"
    root.mkdir()
    faults = disk.Faults(folder / "faults-of-commands")
    with command_process(disk.WatchedFolder(library, root, faults=faults.path)) as process:
        for command in make_commands(root, findings.rng):
            findings.each_change(partial(_fail_command, findings, process, faults, command))
    return len(find_words(root, [WORD, PASSPHRASE]))


def _fail_command(
    findings: Findings, process: Any, faults: disk.Faults, command: Command, mode: str, number: int
) -> bool:
    message = command.prepare()
    _arm(faults, mode, number)
    process.send(message)
    outcome, told = process.recv()
    hits = faults.disarm()
    has_succeeded = outcome == "good"
    if hits:
        is_reported = outcome == "told" and ERROR_SENTENCE.search(told.lower()) is not None
        action = f"{command.name}, {mode}, {outcome} {told if outcome == 'told' else ''}"
        findings.record(is_reported, action, has_succeeded=has_succeeded)
    for problem in _find_problems(command, has_succeeded):
        findings.errors[f"{problem} after {command.name}, {mode}"] += 1
    process.send(command.prepare())
    outcome, _ = process.recv()
    if outcome != "good":
        findings.errors[f"does not work again: {command.name}, {mode}, {outcome}"] += 1
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
    folder: Path, step: int, seed: int, ways: Iterable[str] = tuple(FAULT_MODES)
) -> dict[str, Any]:
    """Run all of it, or every `step`-th change only. Raises ShimUnavailable."""
    library = disk.build_shim(folder)
    findings = Findings(random.Random(seed), tuple(ways), step)
    plain = _run_server_faults(findings, folder, library)
    plain += _run_command_faults(findings, folder, library)
    return {
        "faults": findings.faults,
        "told_in_a_sentence": findings.reported,
        "served_all_the_same": findings.succeeded,
        "plain": plain,
        "wrong": dict(findings.errors),
        "seed": seed,
    }


if __name__ == "__main__":
    ways = {"nargs": "*", "choices": list(FAULT_MODES), "default": list(FAULT_MODES)}
    step = {"type": int, "default": 1, "help": "let every n-th change fail only"}
    sys.exit(run(torture, failed=any_of("wrong", "plain"), ways=ways, step=step, seed=1))
