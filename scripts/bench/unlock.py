"""From the passphrase to the first page: `uv run python -m scripts.bench.unlock --entries 10000`, one JSON object.

A `llamora-server prod` of its own with a seeded journal, its index and snapshot made. Each round signs out, which drops
keys and index, and times the sign-in over HTTP until the page of a day of sixteen entries is there; a derivation of
the key alone is timed just before. Milliseconds, medians after a warm-up, with the load of the machine.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from llamora.vault.kdf import Argon2Params, kdf_milliseconds
from scripts.bench.latency import NO_MODEL, PASSPHRASE, seed
from tests.server_process import HttpUser, Server

FLOOR = Argon2Params(65_536, 3, 4)  # what the server of the bench uses
GOAL_OVER_KDF_MS = 200  # at 10,000 entries
BUSY_DAY_PATH = "/d/2026-06-01"
SIGN_OUT_WAIT_SECONDS = 1.0  # seconds for the index to go


def measure_unlock(url: str, user: HttpUser) -> tuple[float, float]:
    """Milliseconds of a derivation alone, and from the passphrase to the first page."""
    user.post("/sign-out", {})
    user.http.cookies.clear()
    time.sleep(SIGN_OUT_WAIT_SECONDS)
    user.get("/sign-in")
    kdf = kdf_milliseconds(FLOOR)
    start = time.perf_counter()
    response = user.post(
        "/sign-in", {"name": "Bench", "passphrase": PASSPHRASE, "next": BUSY_DAY_PATH}
    )
    assert response.status_code == 303, f"{url} did not let the writer in"
    page = user.get(response.headers["Location"])
    duration_ms = (time.perf_counter() - start) * 1000
    assert page.text.count('id="e-') >= 16
    return kdf, duration_ms


def main() -> int:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        # Without vectors: to make 10,000 takes far longer than all the rest, and no page waits for them.
        env = {**NO_MODEL, "LLAMORA_EMBEDDING__ENABLED": "false"}
        server = Server(Path(name) / "main", Path(name) / "cache", mode="prod", env=env)
        server.folder.mkdir()
        asyncio.run(seed(server, options.entries, vectors=False))
        server.start()
        try:
            user = HttpUser(server.url, "Bench", PASSPHRASE)
            rounds = [measure_unlock(server.url, user) for _ in range(options.rounds + 1)][1:]
        finally:
            server.stop()
    kdf, unlock_ms = (round(statistics.median(each), 1) for each in zip(*rounds, strict=True))
    over_kdf_ms = round(statistics.median(total - alone for alone, total in rounds), 1)
    result = {
        "entries": options.entries,
        "rounds": options.rounds,
        "kdf_ms": kdf,
        "unlock_to_first_page_ms": unlock_ms,
        "over_kdf_ms": over_kdf_ms,
        "goal_over_kdf_ms": GOAL_OVER_KDF_MS,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
