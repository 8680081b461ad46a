"""Time from the passphrase to the first page: `uv run python -m scripts.bench.unlock --entries 10000`.

A `llamora-server prod` of its own with a seeded journal, its index and snapshot made. Each round signs out, which drops
keys and index, and times the sign-in over HTTP until the page of a day of sixteen entries is there; a derivation of
the key alone is timed just before. Milliseconds, medians after a warm-up, with the load of the machine, as JSON.
"""

import statistics
import sys
from pathlib import Path

from scripts.bench import harness
from scripts.command import run
from scripts.processes import load_average
from tests.server_process import Server

GOAL_OVER_KDF_MS = 200  # at 10,000 entries
SIGN_OUT_WAIT_SECONDS = 1.0  # for the index to go


def measure(folder: Path, entries: int, rounds: int) -> dict[str, object]:
    """Return the medians of all rounds but the first."""
    # Without vectors: to make 10,000 takes far longer than all the rest, and no page waits for them.
    env = harness.WITHOUT_EMBEDDED_MODEL | harness.WITHOUT_EMBEDDING
    server = Server(folder / "main", folder / "cache", mode="prod", env=env)
    harness.seed(server, entries, vectors=False)
    with harness.started(server) as user:
        timings = [
            harness.time_sign_in(user, SIGN_OUT_WAIT_SECONDS, f"/d/{harness.BUSY_DAY}")
            for _ in range(rounds + 1)
        ][1:]
    kdf, unlock = (round(statistics.median(each), 1) for each in zip(*timings, strict=True))
    return {
        "entries": entries,
        "rounds": rounds,
        "kdf_ms": kdf,
        "unlock_to_first_page_ms": unlock,
        "over_kdf_ms": round(statistics.median(total - alone for alone, total in timings), 1),
        "goal_over_kdf_ms": GOAL_OVER_KDF_MS,
        "load": load_average(),
    }


if __name__ == "__main__":
    sys.exit(run(measure, entries=10_000, rounds=9))
