"""Count the records sealed and opened each second, on one core: `python -m scripts.bench.vault`.

2 kB of text each, through the public call, medians of rounds after a warm-up, in records for each second of one core's
time (process time, so that other programs take less from it) and of the clock on the wall, as one JSON object with the
load of the machine.
"""

import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from llamora.persistence.schema import ENTRIES
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import open_keyring
from scripts.command import run
from scripts.processes import load_average

TEXT_BYTES = 2048
ROUNDS = 7
GOALS = {"sealed_per_second": 40_000, "opened_per_second": 60_000}


def _rates(function: Callable[[], object], records: int) -> dict[str, int]:
    """Calls a second by either clock, the median of the rounds."""
    rates: dict[str, list[float]] = {"core": [], "wall": []}
    for _ in range(ROUNDS + 1):
        core, wall = time.process_time(), time.perf_counter()
        for _ in range(records):
            function()
        rates["core"].append(records / (time.process_time() - core))
        rates["wall"].append(records / (time.perf_counter() - wall))
    return {clock: round(statistics.median(each[1:])) for clock, each in rates.items()}


def measure(folder: Path, entries: int) -> dict[str, object]:  # noqa: ARG001 -- nothing is stored
    """Return both rates beside their goals."""
    user_id, master, text, record_id = map(secrets.token_bytes, (16, 32, TEXT_BYTES, 16))
    keys = open_keyring(user_id, master, seal_new_keys(user_id, master))
    sealed = ENTRIES.seal(keys, record_id, 1, text)
    return {
        "sealed_per_second": _rates(lambda: ENTRIES.seal(keys, record_id, 1, text), entries),
        "opened_per_second": _rates(lambda: ENTRIES.open(keys, record_id, 1, sealed), entries),
        "goals": GOALS,
        "load": load_average(),
    }


if __name__ == "__main__":
    sys.exit(run(measure, entries=20_000))
