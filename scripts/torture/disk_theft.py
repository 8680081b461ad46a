"""Steals the disk of a server that is in use: `python -m scripts.torture.disk_theft`.

In both key modes somebody is signed in with a real browser, writes, searches and has traces, when server and browser
get SIGKILL. The thief has everything that was on the disk: database, log, settings, cache, browser profile; and even
the cookie, out of the browser's memory. It is put to a fresh server; each piece of 32 bytes of the files is tried as
the boot secret, the master key and a data key; and a dictionary made by rule from common words, with the true traces
and queries in it, is held against every hash that is there. Prints one JSON object.

So that none of this can pass for want of trying, the same is done with the true keys, which must succeed.
"""

import argparse
import asyncio
import hashlib
import hmac
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from playwright.sync_api import Playwright, expect, sync_playwright

from llamora.persistence import LocalDB
from llamora.persistence.tag_changes import tag_hash
from llamora.vault.envelope import SealError
from llamora.vault.keys import (
    Keyring,
    SealedDataKey,
    SealedKeys,
    open_from_cookie,
    open_from_session,
    open_keyring,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import RECOVERY, KeySlot, open_slot
from scripts.browser import find_or_bring
from tests.scan import find_words
from tests.server_process import Server, Writer

T = TypeVar("T")
WORD = "quokkasaurus"
PASSPHRASE = "correct horse battery staple 42"
COMMON = (Path(__file__).parents[1] / "bench/words.txt").read_text(encoding="utf-8").split()
TOKEN_BYTES = 32
WAIT_MS = 60_000


@dataclass
class Loot:
    """What the thief has, and beside it what only the writer knows, to show that the trials can succeed."""

    folder: Path
    cookie: str
    mode: str
    keys: Keyring
    traces: list[str]
    queries: list[str]

    @property
    def database(self) -> Path:
        """The stolen database."""
        return self.folder / "data/llamora.sqlite3"


def dictionary(count: int, rng: random.Random, true: Sequence[str]) -> list[str]:
    """Common words alone and in pairs, as somebody would guess traces and queries; the true ones are among them."""
    words = dict.fromkeys(COMMON)
    pairs = (f"{one} {other}" for one, other in itertools.product(rng.sample(COMMON, len(COMMON)), COMMON))
    words |= dict.fromkeys(itertools.islice(pairs, max(0, count - len(words) - len(true))))
    found = [*words, *true]
    rng.shuffle(found)
    return found


# -- the life that is interrupted --------------------------------------------------------------------------


def live(playwright: Playwright, folder: Path, mode: str, rng: random.Random) -> Loot:
    """Somebody writes, traces and searches; then server and browser are killed while they are signed in."""
    traces = [" ".join(rng.sample(COMMON, 2)) for _ in range(8)]
    queries = [" ".join(rng.sample(COMMON, 2)) for _ in range(8)]
    env = {
        "LLAMORA_LLM__ENABLED": "false",
        "LLAMORA_EMBEDDING__ENABLED": "false",
        "LLAMORA_SESSION__MODE": mode,
        "LLAMORA_LOG__LEVEL": "DEBUG",
    }
    server = Server(folder / "server", folder / "server/cache", mode="prod", env=env).start()
    writer = Writer(server.url, passphrase=PASSPHRASE).register()
    entry = writer.write(f"A {WORD} at noon.")
    keys = run(trace(server.data / "llamora.sqlite3", writer.code, bytes.fromhex(entry), traces, queries[1:]))
    short = tempfile.TemporaryDirectory(prefix="b-")  # Chromium's socket must have a short path
    profile = folder / "server/profile"
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=find_or_bring(),
        args=["--no-sandbox", "--disable-quic", "--disable-background-networking"],
        env={"TMPDIR": short.name, "HOME": str(folder / "server"), "PATH": "/usr/bin:/bin"},
    )
    context.set_default_timeout(WAIT_MS)
    page = context.pages[0]
    page.goto(server.url + "/sign-in")
    page.locator("#name").fill(writer.name)
    page.locator("#passphrase").fill(PASSPHRASE)
    page.locator("main button").last.click()
    expect(page.locator("article.entry")).to_contain_text(WORD, timeout=WAIT_MS)
    page.get_by_role("searchbox").fill(queries[0])
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/search/"))
    cookie = next(each.get("value", "") for each in context.cookies() if each.get("name") == "llamora")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    kill_browser(profile)
    with suppress(Exception):  # it is gone
        context.close()
    short.cleanup()
    stolen = folder / "stolen"
    shutil.copytree(server.folder, stolen, symlinks=True)
    (stolen / "settings.json").write_text(json.dumps(env), encoding="utf-8")
    return Loot(stolen, cookie, mode, keys, traces, queries)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a thread of its own: Playwright's loop runs on this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def trace(database: Path, code: str, entry: bytes, traces: list[str], queries: list[str]) -> Keyring:
    """Put traces on an entry and remember queries, beside the running server; the writer's keys."""
    db = await LocalDB.open(database)
    (user,) = await db.users.list_all()
    (slot,) = await db.users.get_slots(user.id, RECOVERY)
    keys = open_keyring(user.id, open_slot(user.id, slot, code), await db.users.keys(user.id))
    for name in traces:
        await db.tags.add(keys, entry, name)
    for query in queries:
        await db.search_history.add(keys, query, datetime.now(UTC))
    await db.close()
    return keys


def kill_browser(profile: Path) -> None:
    """SIGKILL to the browser of this profile, and to nothing else."""
    wanted = f"--user-data-dir={profile}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


# -- what the thief tries --------------------------------------------------------------------------------


def pieces(folder: Path, every: int) -> Iterator[bytes]:
    """Each piece of 32 bytes of the data, the log and the settings, at every `every`-th place, each once."""
    seen: set[bytes] = set()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "profile" not in file.parts and "cache" not in file.parts:
            content = file.read_bytes()
            for at in range(0, len(content) - 31, every):
                piece = content[at : at + 32]
                if piece not in seen:
                    seen.add(piece)
                    yield piece


def opened_with(loot: Loot, candidates: Iterator[bytes]) -> tuple[int, int]:
    """(doors that opened, secrets tried): each as boot secret of the session, and as master key."""
    with closing(sqlite3.connect(loot.database)) as connection:
        sessions = connection.execute("SELECT id, user_id, sealed FROM dek_sessions").fetchall()
        data_keys = connection.execute(
            "SELECT user_id, epoch, sealed, slots, index_key FROM data_keys JOIN keyrings USING (user_id)"
        ).fetchall()
    held = urlsafe_b64decode(loot.cookie + "=" * (-len(loot.cookie) % 4))
    token, carried = held[:TOKEN_BYTES], held[TOKEN_BYTES:]
    mine = [row for row in sessions if row[0] == session_id_of(token)]
    opened = tried = 0
    for candidate in candidates:
        tried += 1
        for session, user_id, sealed in mine:
            with suppress(SealError):
                if sealed is not None:
                    open_from_session(user_id, session, token, candidate, sealed)
                else:
                    open_from_cookie(user_id, session, candidate, carried)
                opened += 1
        for user_id, epoch, sealed, *ring in data_keys:
            with suppress(SealError):
                open_keyring(user_id, candidate, SealedKeys((SealedDataKey(epoch, sealed),), *ring))
                opened += 1
    return opened, tried


def doors(loot: Loot, folder: Path) -> int:
    """How many pages a fresh server on the stolen data shows for the stolen cookie."""
    copy = folder / "fresh"
    shutil.copytree(loot.folder / "data", copy / "data")
    env = json.loads((loot.folder / "settings.json").read_text(encoding="utf-8"))
    server = Server(copy, copy / "cache", mode="prod", env=env).start()
    shown = 0
    with httpx.Client(base_url=server.url, cookies={"llamora": loot.cookie}, trust_env=False, timeout=60) as client:
        for path in ("/d/today", "/search", "/you", "/deleted"):
            shown += client.get(path).status_code == 200
    server.stop()
    return shown


def confirmed(words: list[str], seen: set[bytes], keys: list[bytes]) -> int:
    """How many words have a hash of theirs in the files: plain, salted and keyed with all that lies about."""
    found = 0
    for word in words:
        spelt = {word.encode(), word.casefold().encode(), word.title().encode()}
        digests = [hashlib.new(name, each).digest() for name in ("md5", "sha1", "sha256", "sha512") for each in spelt]
        digests += [hashlib.blake2b(each, digest_size=32).digest() for each in spelt]
        for key in keys:
            digests.append(hashlib.sha256(key + word.encode()).digest())
            digests.append(hmac.digest(key, word.encode(), "sha256"))
        found += any(digest[:8] in seen for digest in digests)
    return found


def lying_about(loot: Loot) -> list[bytes]:
    """All that a thief could take for a key to the hashes: short values of the database, and what the cookie holds."""
    found: set[bytes] = {b"", urlsafe_b64decode(loot.cookie + "=" * (-len(loot.cookie) % 4))[:TOKEN_BYTES]}
    with closing(sqlite3.connect(loot.database)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        for table in tables:
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
                values = (value.encode() if isinstance(value, str) else value for value in row)
                found |= {value for value in values if isinstance(value, bytes) and len(value) <= 64}
    return sorted(found)


def windows(folder: Path) -> set[bytes]:
    """Each piece of 8 bytes of the data, the log and the settings: enough to know a hash again."""
    return {piece[at : at + 8] for piece in pieces(folder, 16) for at in range(25)}


# -- all of it -------------------------------------------------------------------------------------------


def rob(playwright: Playwright, folder: Path, mode: str, words: int, every: int, seed: int) -> dict[str, Any]:
    """One theft in one key mode."""
    rng = random.Random(seed)
    loot = live(playwright, folder, mode, rng)
    guesses = dictionary(words, rng, [*loot.traces, *loot.queries])
    opened, tried = opened_with(loot, pieces(loot.folder, every))
    # Before anything starts on it: a start ends the sessions.
    slots = 0
    with closing(sqlite3.connect(loot.database)) as connection:
        sessions = connection.execute("SELECT count(*) FROM dek_sessions").fetchone()[0]
        rows = connection.execute("SELECT user_id, id, kind, salt, params, sealed FROM key_slots WHERE kind='recovery'")
        for user_id, *row in rows:
            for code in ("", loot.cookie, "0000-" * 6 + "0000"):
                with suppress(Exception):
                    open_slot(user_id, KeySlot(*row), code)
                    slots += 1
    seen = windows(loot.folder)
    result = {
        "sessions": sessions,
        "secrets_tried": tried,
        "opened": opened + slots + doors(loot, folder),
        "words": len(guesses),
        "confirmed": confirmed(guesses, seen, lying_about(loot)),
        "plain": len(find_words(loot.folder, [WORD, PASSPHRASE, *loot.traces, *loot.queries])),
    }
    return result | {"with_the_keys": with_the_keys(loot, guesses, seen, folder)}


def with_the_keys(loot: Loot, guesses: list[str], seen: set[bytes], folder: Path) -> bool:
    """Whether the same trials succeed for somebody who has the secrets: else they say nothing."""
    traces = {word for word in guesses if tag_hash(loot.keys, word)[:8] in seen}
    planted = folder / "planted"
    planted.mkdir()
    (planted / "file").write_bytes(random.randbytes(777) + loot.keys.master + random.randbytes(99))
    by_master, _ = opened_with(loot, pieces(planted, 1))
    boot, held = os.urandom(32), urlsafe_b64decode(loot.cookie + "=" * (-len(loot.cookie) % 4))
    token = held[:TOKEN_BYTES]
    sealed = seal_for_session(loot.keys.user_id, session_id_of(token), token, boot, loot.keys.master)
    with closing(sqlite3.connect(loot.database)) as connection, connection:
        connection.execute("UPDATE dek_sessions SET sealed=? WHERE id=?", (sealed, session_id_of(token)))
    (planted / "file").write_bytes(random.randbytes(77) + boot)
    by_boot, _ = opened_with(loot, pieces(planted, 1))
    queries = run(remembered(loot))
    return traces == set(loot.traces) and queries >= set(loot.queries) and by_master >= 1 and by_boot == 1


async def remembered(loot: Loot) -> set[str]:
    """The queries in the stolen database, for somebody who has the keys."""
    db = await LocalDB.open(loot.database)
    found = set(await db.search_history.recent(loot.keys, 50))
    await db.close()
    return found


def torture(folder: Path, words: int, every: int, seed: int) -> dict[str, Any]:
    """One theft in each key mode."""
    with sync_playwright() as playwright:
        found: dict[str, dict[str, Any]] = {}
        for mode in ("session", "cookie"):
            (folder / mode).mkdir()
            found[mode] = rob(playwright, folder / mode, mode, words, every, seed)
    total = {name: sum(each[name] for each in found.values()) for name in ("opened", "confirmed", "plain")}
    return {**total, "with_the_keys": all(each["with_the_keys"] for each in found.values()), **found, "seed": seed}


def main() -> int:
    """Run, print, and fail when something opened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=1, help="try the piece at every n-th place only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stolen-", ignore_cleanup_errors=True) as name:
        result = torture(Path(name), options.words, options.every, options.seed)
    print(json.dumps(result))
    return int(bool(result["opened"] or result["confirmed"] or result["plain"] or not result["with_the_keys"]))


if __name__ == "__main__":
    sys.exit(main())
