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

from scripts.torture.invariants import check
from scripts.torture.kill import Found, Served, posted
from scripts.torture.writers import HANDS, WORD
from tests.scan import find_words
from tests.server_process import Server

BEFORE = 60  # entries that are there already
MOST_SECONDS = 3.2  # to the kill; most of the work is done after two seconds
LONGEST = 120.0  # seconds for the last change to end


def keys_and_epochs(server: Server) -> tuple[list[int], set[bytes]]:
    """The epochs of the data keys, and those in the envelopes of the entries."""
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        keys = [row[0] for row in connection.execute("SELECT epoch FROM data_keys ORDER BY epoch")]
        return keys, {row[0] for row in connection.execute("SELECT DISTINCT substr(sealed, 7, 4) FROM entries")}


def torture(kills: int, folder: Path, cache: Path, seed: int, seconds: float = 1e9) -> dict[str, object]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, found, until = random.Random(seed), Found(), time.monotonic() + seconds
    one = Served.begin(folder / "rotated", cache)
    for _ in range(BEFORE):
        entry, after, path, form = posted("write", rng.randrange(HANDS), rng, {})
        assert one.writer.post(path, form, fragment=True).status_code == 200
        one.store.promises.kept[entry] = after
    for _ in range(kills):
        if time.monotonic() > until:
            break
        answer = one.writer.post("/you/key", {"passphrase": one.writer.passphrase})
        assert answer.status_code in (303, 409), answer.status_code  # 409: the change of an earlier round goes on
        found.add("rotation", **one.round(rng, MOST_SECONDS))
    end = time.monotonic() + LONGEST
    while len(keys_and_epochs(one.server)[0]) > 1 and time.monotonic() < end:
        one.writer.get("/d/today")
        time.sleep(0.2)
    keys, epochs = keys_and_epochs(one.server)
    store = one.store
    left = check(store.database, store.user_id, store.code, store.promises)
    one.server.stop()
    return {
        "kills": found.kills["rotation"],
        "acknowledged": found.acknowledged,
        "lost": found.lost + left["lost"],
        "half": found.half + left["half"],
        "damaged": found.damaged + left["damaged"],
        "changes": keys[-1] - 1,
        "keys": len(keys),
        "epochs": len(epochs),
        "plain": len(find_words(one.server.folder, [WORD])),
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something was lost or two keys are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; the number reached is printed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rotation-", ignore_cleanup_errors=True) as name:
        result = torture(options.kills, Path(name), Path(name) / "cache", options.seed, options.seconds)
    print(json.dumps(result))
    bad = any(result[name] for name in ("lost", "half", "damaged", "plain"))
    return 1 if bad or result["keys"] != 1 or result["epochs"] != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
