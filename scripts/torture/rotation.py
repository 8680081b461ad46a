"""Kills a server that is changing a data key under load: `python -m scripts.torture.rotation --kills 200`.

Each round a writer asks for a new key and goes on writing; at a random moment the server gets SIGKILL. After a
restart and a sign-in the change goes on by itself. In the end every acknowledged entry must be there, under one key,
which is the only one left. Prints one JSON object.
"""

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from scripts.torture.invariants import check_store
from scripts.torture.kill import ServedJournal, Totals, plan_request
from scripts.torture.writers import WORD, WRITER_COUNT
from tests.scan import find_words
from tests.server_process import Server

INITIAL_ENTRIES = 60  # entries that are there already
MAX_SECONDS_TO_KILL = 3.2  # to the kill; most of the work is done after two seconds
LAST_CHANGE_TIMEOUT = 120.0  # seconds for the last change to end


def keys_and_epochs(server: Server) -> tuple[list[int], set[bytes]]:
    """The epochs of the data keys, and those in the envelopes of the entries."""
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        keys = [row[0] for row in connection.execute("SELECT epoch FROM data_keys ORDER BY epoch")]
        return keys, {
            row[0]
            for row in connection.execute("SELECT DISTINCT substr(sealed, 7, 4) FROM entries")
        }


def torture(
    kills: int, folder: Path, cache: Path, seed: int, seconds: float = 1e9
) -> dict[str, object]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, totals, deadline = random.Random(seed), Totals(), time.monotonic() + seconds
    served = ServedJournal.start(folder / "rotated", cache)
    for _ in range(INITIAL_ENTRIES):
        entry, expected, path, form = plan_request("write", rng.randrange(WRITER_COUNT), rng, {})
        assert served.user.post(path, form, fragment=True).status_code == 200
        served.store.expected.expected[entry] = expected
    for _ in range(kills):
        if time.monotonic() > deadline:
            break
        answer = served.user.post("/you/key", {"passphrase": served.user.passphrase})
        assert answer.status_code in (303, 409), (
            answer.status_code
        )  # 409: the change of an earlier round goes on
        totals.add("rotation", **served.run_round(rng, MAX_SECONDS_TO_KILL))
    last_deadline = time.monotonic() + LAST_CHANGE_TIMEOUT
    while len(keys_and_epochs(served.server)[0]) > 1 and time.monotonic() < last_deadline:
        served.user.get("/d/today")
        time.sleep(0.2)
    keys, epochs = keys_and_epochs(served.server)
    store = served.store
    result = check_store(store.database, store.user_id, store.recovery_code, store.expected)
    served.server.stop()
    return {
        "kills": totals.kills["rotation"],
        "acknowledged": totals.acknowledged,
        "lost": totals.lost + result["lost"],
        "half": totals.half + result["half"],
        "damaged": totals.damaged + result["damaged"],
        "changes": keys[-1] - 1,
        "keys": len(keys),
        "epochs": len(epochs),
        "plain": len(find_words(served.server.folder, [WORD])),
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something was lost or two keys are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--seconds",
        type=float,
        default=1e9,
        help="stop after so long; the number reached is printed",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rotation-", ignore_cleanup_errors=True) as name:
        result = torture(
            options.kills, Path(name), Path(name) / "cache", options.seed, options.seconds
        )
    print(json.dumps(result))
    has_failed = any(result[name] for name in ("lost", "half", "damaged", "plain"))
    return 1 if has_failed or result["keys"] != 1 or result["epochs"] != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
