"""Kills a server that is being written to: `python -m scripts.torture.kill --kills 200`.

Each round a writer posts entries and notes which were acknowledged; at a random moment the server gets SIGKILL. After
a restart every acknowledged entry must be there, whole, and the store must pass its checks. Prints one JSON object.
"""

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.served import Server, Writer


def round_of_writing(server: Server, writer: Writer, rng: random.Random, number: int) -> dict[str, str]:
    """Write until the server is killed; returns the acknowledged entries, text by id."""
    acknowledged: dict[str, str] = {}
    assert server.process is not None

    def kill() -> None:
        time.sleep(rng.uniform(0.01, 0.35))
        assert server.process is not None
        server.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    for count in range(10_000):
        text = f"round {number} line {count} " + "word " * rng.randrange(1, 400)
        try:
            entry = writer.write(text.strip(), day=f"2026-{number % 12 + 1:02}-{count % 28 + 1:02}")
        except (httpx.HTTPError, OSError):
            break
        acknowledged[entry] = text.strip()
    killer.join()
    server.process.wait()
    return acknowledged


def missing(writer: Writer, acknowledged: dict[str, str]) -> list[str]:
    """The ids of acknowledged entries that are not there, or not as they were written."""
    gone: list[str] = []
    for entry, text in acknowledged.items():
        form = writer.get(f"/e/{entry}/edit")
        if form.status_code != 200 or text not in form.text:
            gone.append(entry)
    return gone


def torture(kills: int, folder: Path, cache: Path, seed: int) -> dict[str, object]:
    """Run all rounds."""
    rng = random.Random(seed)
    quiet = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
    server = Server(folder / "killed", cache, mode="prod", env=quiet).start()
    writer = Writer(server.url).register()
    total, lost, damaged = 0, 0, 0
    for number in range(kills):
        acknowledged = round_of_writing(server, writer, rng, number)
        with sqlite3.connect(server.data / "llamora.sqlite3") as connection:
            damaged += connection.execute("PRAGMA integrity_check").fetchone() != ("ok",)
            damaged += connection.execute("PRAGMA foreign_key_check").fetchone() is not None
        connection.close()
        server.start()
        writer.http.cookies.clear()
        assert writer.sign_in().status_code == 303
        total += len(acknowledged)
        lost += len(missing(writer, acknowledged))
    server.stop()
    return {"kills": kills, "acknowledged": total, "lost": lost, "damaged": damaged, "seed": seed}


def main() -> int:
    """Run, print, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-", ignore_cleanup_errors=True) as name:
        result = torture(options.kills, Path(name), Path(name) / "cache", options.seed)
    print(json.dumps(result))
    return 1 if result["lost"] or result["damaged"] else 0


if __name__ == "__main__":
    sys.exit(main())
