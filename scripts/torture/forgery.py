"""Damage and move everything that is sealed: `python -m scripts.torture.forgery`.

Every bit of every byte of each kind of envelope is flipped and each is cut at every length; records, slots, keys and
backups are put where others belong, and the cost of the KDF is lowered. Each must be refused, with the error that
says what was done to it. Prints one JSON object; `--stride` looks at every n-th byte only.
"""

import asyncio
import functools
import sys
from pathlib import Path
from unittest import mock

from llamora.persistence.backups import write_backup
from llamora.persistence.schema import SEALED_KINDS
from llamora.vault import kdf
from scripts.command import run
from scripts.torture import damage, moves
from scripts.torture.forged_journal import Findings, load_rows, register_two
from scripts.torture.harness import PASSPHRASE, WORD, any_of, new_database
from tests.scan import find_words


def _forge(folder: Path, stride: int) -> Findings:
    findings, database = Findings(), new_database(folder / "llamora.sqlite3")
    alice, bob = asyncio.run(register_two(database))
    alice_rows, bob_rows = load_rows(database, alice.id), load_rows(database, bob.id)
    assert {kind.table for kind in SEALED_KINDS} == {row.kind.table for row in alice_rows}
    damage.damage_records(findings, alice, alice_rows, stride)
    damage.damage_slots(findings, alice, stride)
    damage.damage_keys(findings, alice, stride)
    damage.damage_recovery_code(findings, alice)
    asyncio.run(damage.damage_cookies(findings, database, alice, stride))
    backup = folder / "whole.llamora"
    write_backup(database, alice.keys, backup)
    damage.damage_backup(findings, backup, alice.new_keys.recovery_code, stride)
    moves.move_records(findings, alice, bob, alice_rows, bob_rows)
    moves.move_slots(findings, alice, bob)
    moves.move_keys(findings, alice, bob)
    moves.move_sessions(findings, alice, bob)
    asyncio.run(moves.change_costs(findings, database, alice))
    return findings


def torture(folder: Path, stride: int = 1) -> dict[str, object]:
    """Run all of it on a journal of two users in `folder`."""
    # The KDF is deterministic: what it gave once for a secret, a salt and a cost need not be computed again.
    with mock.patch.object(kdf, "argon2id", functools.lru_cache(kdf.argon2id)):
        findings = _forge(folder, stride)
    return {
        "tried": findings.trials.total(),
        "not_refused": findings.accepted.total(),
        "refused_as_something_else": findings.wrong_errors.total(),
        "plain": len(find_words(folder, [WORD, PASSPHRASE])),
        "by_trial": dict(sorted(findings.trials.items())),
        "wrong_trials": sorted((+findings.accepted + findings.wrong_errors).keys()),
    }


if __name__ == "__main__":
    failed = any_of("not_refused", "refused_as_something_else", "plain")
    stride = {"type": int, "default": 1, "help": "look at every n-th byte"}
    sys.exit(run(torture, failed=failed, stride=stride))
