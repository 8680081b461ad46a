"""Kill a server that is changing a data key under load: `python -m scripts.torture.rotation --kills 200`.

Each round a user asks for a new key and goes on writing; at a random moment the server gets SIGKILL. After a
restart and a sign-in the change goes on by itself. In the end every acknowledged entry must be there, under one key,
which is the only one left. Prints one JSON object.
"""

import random
import sys
import time
from pathlib import Path

from scripts.command import run
from scripts.torture.harness import FOREVER, WORD, Totals, any_of, database_of, fetch, rounds
from scripts.torture.served import ServedJournal, plan_request
from scripts.torture.writers import WRITER_COUNT
from tests.scan import find_words
from tests.server_process import Server

INITIAL_ENTRIES = 60  # entries that are there already
MAX_SECONDS_TO_KILL = 3.2  # to the kill; most of the work is done after two seconds
LAST_CHANGE_TIMEOUT = 120.0  # seconds for the last change to end


def _keys_and_epochs(server: Server) -> tuple[list[int], set[bytes]]:
    """The epochs of the data keys, and those in the envelopes of the entries."""
    database = database_of(server)
    keys = fetch(database, "SELECT epoch FROM data_keys ORDER BY epoch")
    epochs = fetch(database, "SELECT DISTINCT substr(sealed, 7, 4) FROM entries")
    return [epoch for (epoch,) in keys], {epoch for (epoch,) in epochs}


def torture(
    folder: Path, kills: int, seed: int, seconds: float = FOREVER, cache: Path | None = None
) -> dict[str, object]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng, totals = random.Random(seed), Totals()
    served = ServedJournal.start(folder / "rotated", cache or folder / "cache")
    for _ in range(INITIAL_ENTRIES):
        entry, expected, path, form = plan_request("write", rng.randrange(WRITER_COUNT), rng, {})
        assert served.user.post(path, form, fragment=True).status_code == 200
        served.store.expected.expected[entry] = expected
    for _ in rounds(kills, seconds):
        answer = served.user.post("/you/key", {"passphrase": served.user.passphrase})
        # 409: the change of an earlier round goes on.
        assert answer.status_code in (303, 409), answer.status_code
        totals.add("rotation", **served.run_round(rng, MAX_SECONDS_TO_KILL))
    deadline = time.monotonic() + LAST_CHANGE_TIMEOUT
    while len(_keys_and_epochs(served.server)[0]) > 1 and time.monotonic() < deadline:
        served.user.get("/d/today")
        time.sleep(0.2)
    keys, epochs = _keys_and_epochs(served.server)
    totals.found.update(served.store.check())
    served.server.stop()
    names = ("acknowledged", "lost", "half", "damaged")
    return {
        "kills": totals.kills["rotation"],
        **{name: totals.found[name] for name in names},
        "changes": keys[-1] - 1,
        "keys": len(keys),
        "epochs": len(epochs),
        "plain": len(find_words(served.server.folder, [WORD])),
        "seed": seed,
    }


def has_failed(result: dict[str, object]) -> bool:
    """Tell whether something was lost or two keys are left."""
    is_one_key = result["keys"] == result["epochs"] == 1
    return any_of("lost", "half", "damaged", "plain")(result) or not is_one_key


if __name__ == "__main__":
    sys.exit(run(torture, failed=has_failed, kills=200, seconds=FOREVER, seed=1))
