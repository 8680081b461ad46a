"""How fast records are sealed and opened through the public call, on one core: `python -m scripts.bench.vault`.

2 kB of text each, medians of rounds after a warm-up, in records for each second of one core's time (process time, so
that other programs take less from it) and of the clock on the wall, as one JSON object with the load of the machine.
"""

import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable

from llamora.persistence.schema import ENTRIES
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import open_keyring

TEXT_BYTES = 2048
RECORDS = 20_000
ROUNDS = 7
GOALS = {"sealed_per_second": 40_000, "opened_per_second": 60_000}


def measure_rate(function: Callable[[], object]) -> dict[str, int]:
    """Calls a second by either clock, the median of the rounds."""
    rates_by_clock: dict[str, list[float]] = {"core": [], "wall": []}
    for _ in range(ROUNDS + 1):
        core, wall = time.process_time(), time.perf_counter()
        for _ in range(RECORDS):
            function()
        rates_by_clock["core"].append(RECORDS / (time.process_time() - core))
        rates_by_clock["wall"].append(RECORDS / (time.perf_counter() - wall))
    return {clock: round(statistics.median(rates[1:])) for clock, rates in rates_by_clock.items()}


def main() -> int:
    """Measure both and print them beside the goals."""
    user_id, master, text, record_id = (
        secrets.token_bytes(size) for size in (16, 32, TEXT_BYTES, 16)
    )
    keys = open_keyring(user_id, master, seal_new_keys(user_id, master))
    sealed = ENTRIES.seal(keys, record_id, 1, text)
    result = {
        "sealed_per_second": measure_rate(lambda: ENTRIES.seal(keys, record_id, 1, text)),
        "opened_per_second": measure_rate(lambda: ENTRIES.open(keys, record_id, 1, sealed)),
        "goals": GOALS,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
