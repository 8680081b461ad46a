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
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx

from tests.scan import find_words
from tests.served import Server, Writer

QUIET = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
WORD = "quokkasaurus"
LONGEST = 120.0  # seconds for the last change to end


def keys_and_epochs(server: Server) -> tuple[list[int], set[bytes]]:
    """The epochs of the data keys, and those in the envelopes of the entries."""
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        keys = [row[0] for row in connection.execute("SELECT epoch FROM data_keys ORDER BY epoch")]
        return keys, {row[0] for row in connection.execute("SELECT DISTINCT substr(sealed, 7, 4) FROM entries")}


def missing(writer: Writer, acknowledged: dict[str, str]) -> list[str]:
    """The ids of acknowledged entries that are not there, or not as they were written."""
    gone: list[str] = []
    for entry, text in acknowledged.items():
        form = writer.get(f"/e/{entry}/edit")
        if form.status_code != 200 or text not in form.text:
            gone.append(entry)
    return gone


def one_round(server: Server, writer: Writer, rng: random.Random, number: int) -> dict[str, str]:
    """Ask for a new key, unless one is being brought in, and write until the kill; what was acknowledged."""
    acknowledged: dict[str, str] = {}
    process = server.process
    assert process is not None
    answer = writer.post("/you/key", {"passphrase": writer.passphrase})
    assert answer.status_code in (303, 409), answer.status_code  # 409: the change of an earlier round goes on
    killer = threading.Timer(rng.uniform(0.0, 3.2), process.kill)  # most of the work is done after two seconds
    killer.start()
    for count in range(10_000):
        text = f"{WORD} round {number} line {count} " + "word " * rng.randrange(1, 200)
        try:
            acknowledged[writer.write(text.strip(), day=f"2026-{number % 12 + 1:02}-{count % 28 + 1:02}")] = (
                text.strip()
            )
        except (httpx.HTTPError, OSError):
            break
    killer.join()
    process.wait()
    return acknowledged


def torture(kills: int, folder: Path, cache: Path, seed: int, seconds: float = 1e9) -> dict[str, object]:
    """Run all rounds, or as many as fit into `seconds`."""
    rng = random.Random(seed)
    server = Server(folder / "rotated", cache, mode="prod", env=QUIET).start()
    writer = Writer(server.url).register()
    kept = {writer.write(text, day="2026-01-01"): text for text in (f"{WORD} before {number}" for number in range(200))}
    lost = damaged = done = 0
    until = time.monotonic() + seconds
    for number in range(kills):
        if time.monotonic() > until:
            break
        done += 1
        acknowledged = one_round(server, writer, rng, number)
        with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
            damaged += connection.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        server.start()
        writer.http.cookies.clear()
        assert writer.sign_in().status_code == 303
        lost += len(missing(writer, acknowledged))
        kept |= acknowledged
    end = time.monotonic() + LONGEST
    while len(keys_and_epochs(server)[0]) > 1 and time.monotonic() < end:
        writer.get("/d/today")
        time.sleep(0.2)
    keys, epochs = keys_and_epochs(server)
    lost += len(missing(writer, kept))
    server.stop()
    return {
        "kills": done,
        "acknowledged": len(kept),
        "lost": lost,
        "damaged": damaged,
        "changes": keys[-1] - 1,
        "keys": len(keys),
        "epochs": len(epochs),
        "plain": len(find_words(server.folder, [WORD])),
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
    bad = result["lost"] or result["damaged"] or result["plain"]
    return 1 if bad or result["keys"] != 1 or result["epochs"] != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
