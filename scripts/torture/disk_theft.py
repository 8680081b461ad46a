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
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import RECOVERY, KeySlot, open_slot
from scripts.browser import find_or_install
from tests.scan import find_words
from tests.server_process import HttpUser, Server

T = TypeVar("T")
WORD = "quokkasaurus"
PASSPHRASE = "correct horse battery staple 42"
COMMON_WORDS = (Path(__file__).parents[1] / "bench/words.txt").read_text(encoding="utf-8").split()
TOKEN_BYTES = 32
WAIT_MS = 60_000


@dataclass
class StolenData:
    """What the thief has, and beside it what only the writer knows, to show that the trials can succeed."""

    folder: Path
    cookie: str
    mode: str
    keys: Keyring
    tags: list[str]
    queries: list[str]

    @property
    def database(self) -> Path:
        """The stolen database."""
        return self.folder / "data/llamora.sqlite3"


def build_dictionary(count: int, rng: random.Random, true_words: Sequence[str]) -> list[str]:
    """Common words alone and in pairs, as somebody would guess traces and queries; the true ones are among them."""
    words = dict.fromkeys(COMMON_WORDS)
    pairs = (
        f"{first} {second}"
        for first, second in itertools.product(
            rng.sample(COMMON_WORDS, len(COMMON_WORDS)), COMMON_WORDS
        )
    )
    words |= dict.fromkeys(itertools.islice(pairs, max(0, count - len(words) - len(true_words))))
    guesses = [*words, *true_words]
    rng.shuffle(guesses)
    return guesses


# -- the life that is interrupted --------------------------------------------------------------------------


def run_victim(playwright: Playwright, folder: Path, mode: str, rng: random.Random) -> StolenData:
    """Somebody writes, traces and searches; then server and browser are killed while they are signed in."""
    tags = [" ".join(rng.sample(COMMON_WORDS, 2)) for _ in range(8)]
    queries = [" ".join(rng.sample(COMMON_WORDS, 2)) for _ in range(8)]
    env = {
        "LLAMORA_LLM__ENABLED": "false",
        "LLAMORA_EMBEDDING__ENABLED": "false",
        "LLAMORA_SESSION__MODE": mode,
        "LLAMORA_LOG__LEVEL": "DEBUG",
    }
    server = Server(folder / "server", folder / "server/cache", mode="prod", env=env).start()
    user = HttpUser(server.url, passphrase=PASSPHRASE).register()
    entry = user.write(f"A {WORD} at noon.")
    keys = run_in_thread(
        add_tags_and_queries(
            server.data / "llamora.sqlite3",
            user.recovery_code,
            bytes.fromhex(entry),
            tags,
            queries[1:],
        )
    )
    browser_tmp = tempfile.TemporaryDirectory(
        prefix="b-"
    )  # Chromium's socket must have a short path
    profile = folder / "server/profile"
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=find_or_install(),
        args=["--no-sandbox", "--disable-quic", "--disable-background-networking"],
        env={"TMPDIR": browser_tmp.name, "HOME": str(folder / "server"), "PATH": "/usr/bin:/bin"},
    )
    context.set_default_timeout(WAIT_MS)
    page = context.pages[0]
    page.goto(server.url + "/sign-in")
    page.locator("#name").fill(user.name)
    page.locator("#passphrase").fill(PASSPHRASE)
    page.locator("main button").last.click()
    expect(page.locator("article.entry")).to_contain_text(WORD, timeout=WAIT_MS)
    page.get_by_role("searchbox").fill(queries[0])
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/search/"))
    cookie = next(
        each.get("value", "") for each in context.cookies() if each.get("name") == "llamora"
    )
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    kill_browser(profile)
    with suppress(Exception):  # it is gone
        context.close()
    browser_tmp.cleanup()
    stolen = folder / "stolen"
    shutil.copytree(server.folder, stolen, symlinks=True)
    (stolen / "settings.json").write_text(json.dumps(env), encoding="utf-8")
    return StolenData(stolen, cookie, mode, keys, tags, queries)


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a thread of its own: Playwright's loop runs on this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def add_tags_and_queries(
    database: Path, recovery_code: str, entry_id: bytes, tags: list[str], queries: list[str]
) -> Keyring:
    """Put traces on an entry and remember queries, beside the running server; the writer's keys."""
    db = await LocalDB.open(database)
    (user,) = await db.users.list_all()
    (slot,) = await db.users.get_slots(user.id, RECOVERY)
    keys = open_keyring(
        user.id, open_slot(user.id, slot, recovery_code), await db.users.keys(user.id)
    )
    for name in tags:
        await db.tags.add(keys, entry_id, name)
    for query in queries:
        await db.search_history.add(keys, query, datetime.now(UTC))
    await db.close()
    return keys


def kill_browser(profile: Path) -> None:
    """SIGKILL to the browser of this profile, and to nothing else."""
    profile_argument = f"--user-data-dir={profile}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if profile_argument in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


# -- what the thief tries --------------------------------------------------------------------------------


def read_windows(folder: Path, stride: int) -> Iterator[bytes]:
    """Each piece of 32 bytes of the data, the log and the settings, at every `every`-th place, each once."""
    yielded: set[bytes] = set()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "profile" not in file.parts and "cache" not in file.parts:
            content = file.read_bytes()
            for offset in range(0, len(content) - 31, stride):
                window = content[offset : offset + 32]
                if window not in yielded:
                    yielded.add(window)
                    yield window


def try_keys(stolen: StolenData, candidates: Iterator[bytes]) -> tuple[int, int]:
    """(doors that opened, secrets tried): each as boot secret of the session, and as master key."""
    with closing(sqlite3.connect(stolen.database)) as connection:
        sessions = connection.execute("SELECT id, user_id, sealed FROM dek_sessions").fetchall()
        data_keys = connection.execute(
            "SELECT user_id, epoch, sealed, slots, index_key FROM data_keys JOIN keyrings USING (user_id)"
        ).fetchall()
    cookie_bytes = urlsafe_b64decode(stolen.cookie + "=" * (-len(stolen.cookie) % 4))
    token, cookie_key = cookie_bytes[:TOKEN_BYTES], cookie_bytes[TOKEN_BYTES:]
    session_rows = [row for row in sessions if row[0] == session_id_of(token)]
    opened_count = tried_count = 0
    for candidate in candidates:
        tried_count += 1
        for session, user_id, sealed in session_rows:
            with suppress(SealError):
                if sealed is not None:
                    open_from_session(user_id, session, token, candidate, sealed)
                else:
                    open_from_cookie(user_id, session, candidate, cookie_key)
                opened_count += 1
        for user_id, epoch, sealed, *ring in data_keys:
            with suppress(SealError):
                open_keyring(user_id, candidate, SealedKeys((SealedDataKey(epoch, sealed),), *ring))
                opened_count += 1
    return opened_count, tried_count


def count_pages_shown(stolen: StolenData, folder: Path) -> int:
    """How many pages a fresh server on the stolen data shows for the stolen cookie."""
    copy_folder = folder / "fresh"
    shutil.copytree(stolen.folder / "data", copy_folder / "data")
    env = json.loads((stolen.folder / "settings.json").read_text(encoding="utf-8"))
    server = Server(copy_folder, copy_folder / "cache", mode="prod", env=env).start()
    shown_count = 0
    with httpx.Client(
        base_url=server.url, cookies={"llamora": stolen.cookie}, trust_env=False, timeout=60
    ) as client:
        for path in ("/d/today", "/search", "/you", "/deleted"):
            shown_count += client.get(path).status_code == 200
    server.stop()
    return shown_count


def count_confirmed_words(words: list[str], windows_seen: set[bytes], keys: list[bytes]) -> int:
    """How many words have a hash of theirs in the files: plain, salted and keyed with all that lies about."""
    confirmed_count = 0
    for word in words:
        spellings = {word.encode(), word.casefold().encode(), word.title().encode()}
        digests = [
            hashlib.new(name, each).digest()
            for name in ("md5", "sha1", "sha256", "sha512")
            for each in spellings
        ]
        digests += [hashlib.blake2b(each, digest_size=32).digest() for each in spellings]
        for key in keys:
            digests.append(hashlib.sha256(key + word.encode()).digest())
            digests.append(hmac.digest(key, word.encode(), "sha256"))
        confirmed_count += any(digest[:8] in windows_seen for digest in digests)
    return confirmed_count


def possible_hash_keys(stolen: StolenData) -> list[bytes]:
    """All that a thief could take for a key to the hashes: short values of the database, and what the cookie holds."""
    candidates: set[bytes] = {
        b"",
        urlsafe_b64decode(stolen.cookie + "=" * (-len(stolen.cookie) % 4))[:TOKEN_BYTES],
    }
    with closing(sqlite3.connect(stolen.database)) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
                values = (value.encode() if isinstance(value, str) else value for value in row)
                candidates |= {
                    value for value in values if isinstance(value, bytes) and len(value) <= 64
                }
    return sorted(candidates)


def hash_windows(folder: Path) -> set[bytes]:
    """Each piece of 8 bytes of the data, the log and the settings: enough to know a hash again."""
    return {piece[at : at + 8] for piece in read_windows(folder, 16) for at in range(25)}


# -- all of it -------------------------------------------------------------------------------------------


def steal_once(
    playwright: Playwright, folder: Path, mode: str, words: int, stride: int, seed: int
) -> dict[str, Any]:
    """One theft in one key mode."""
    rng = random.Random(seed)
    stolen = run_victim(playwright, folder, mode, rng)
    guesses = build_dictionary(words, rng, [*stolen.tags, *stolen.queries])
    opened_count, tried_count = try_keys(stolen, read_windows(stolen.folder, stride))
    # Before anything starts on it: a start ends the sessions.
    slots_opened = 0
    with closing(sqlite3.connect(stolen.database)) as connection:
        sessions = connection.execute("SELECT count(*) FROM dek_sessions").fetchone()[0]
        rows = connection.execute(
            "SELECT user_id, id, kind, salt, params, sealed FROM key_slots WHERE kind='recovery'"
        )
        for user_id, *row in rows:
            for code in ("", stolen.cookie, "0000-" * 6 + "0000"):
                with suppress(Exception):
                    open_slot(user_id, KeySlot(*row), code)
                    slots_opened += 1
    windows_seen = hash_windows(stolen.folder)
    result = {
        "sessions": sessions,
        "secrets_tried": tried_count,
        "opened": opened_count + slots_opened + count_pages_shown(stolen, folder),
        "words": len(guesses),
        "confirmed": count_confirmed_words(guesses, windows_seen, possible_hash_keys(stolen)),
        "plain": len(find_words(stolen.folder, [WORD, PASSPHRASE, *stolen.tags, *stolen.queries])),
    }
    return result | {"with_the_keys": verify_with_true_keys(stolen, guesses, windows_seen, folder)}


def verify_with_true_keys(
    stolen: StolenData, guesses: list[str], windows_seen: set[bytes], folder: Path
) -> bool:
    """Whether the same trials succeed for somebody who has the secrets: else they say nothing."""
    confirmed_tags = {word for word in guesses if tag_hash(stolen.keys, word)[:8] in windows_seen}
    planted = folder / "planted"
    planted.mkdir()
    (planted / "file").write_bytes(
        random.randbytes(777) + stolen.keys.master + random.randbytes(99)
    )
    by_master, _ = try_keys(stolen, read_windows(planted, 1))
    boot, cookie_bytes = (
        os.urandom(32),
        urlsafe_b64decode(stolen.cookie + "=" * (-len(stolen.cookie) % 4)),
    )
    token = cookie_bytes[:TOKEN_BYTES]
    sealed = seal_for_session(
        stolen.keys.user_id, session_id_of(token), token, boot, stolen.keys.master
    )
    with closing(sqlite3.connect(stolen.database)) as connection, connection:
        connection.execute(
            "UPDATE dek_sessions SET sealed=? WHERE id=?", (sealed, session_id_of(token))
        )
    (planted / "file").write_bytes(random.randbytes(77) + boot)
    by_boot, _ = try_keys(stolen, read_windows(planted, 1))
    queries = run_in_thread(read_queries(stolen))
    return (
        confirmed_tags == set(stolen.tags)
        and queries >= set(stolen.queries)
        and by_master >= 1
        and by_boot == 1
    )


async def read_queries(stolen: StolenData) -> set[str]:
    """The queries in the stolen database, for somebody who has the keys."""
    db = await LocalDB.open(stolen.database)
    found = set(await db.search_history.recent(stolen.keys, 50))
    await db.close()
    return found


def torture(folder: Path, words: int, stride: int, seed: int) -> dict[str, Any]:
    """One theft in each key mode."""
    with sync_playwright() as playwright:
        results: dict[str, dict[str, Any]] = {}
        for mode in ("session", "cookie"):
            (folder / mode).mkdir()
            results[mode] = steal_once(playwright, folder / mode, mode, words, stride, seed)
    total = {
        name: sum(each[name] for each in results.values())
        for name in ("opened", "confirmed", "plain")
    }
    return {
        **total,
        "with_the_keys": all(each["with_the_keys"] for each in results.values()),
        **results,
        "seed": seed,
    }


def main() -> int:
    """Run, print, and fail when something opened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument(
        "--every", type=int, default=1, help="try the piece at every n-th place only"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stolen-", ignore_cleanup_errors=True) as name:
        result = torture(Path(name), options.words, options.every, options.seed)
    print(json.dumps(result))
    return int(
        bool(
            result["opened"]
            or result["confirmed"]
            or result["plain"]
            or not result["with_the_keys"]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
