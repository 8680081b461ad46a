"""Steal the disk of a server that is in use: `python -m scripts.torture.disk_theft`.

In both key modes somebody is signed in with a real browser, writes, searches and has tags, when server and browser
get SIGKILL. The thief has everything that was on the disk: database, log, settings, cache, browser profile; and even
the cookie, out of the browser's memory. It is put to a fresh server; each piece of 32 bytes of the files is tried as
the boot secret, the master key and a data key; and a dictionary made by rule from common words, with the true tags
and queries in it, is held against every hash that is there. Prints one JSON object.

So that none of this can pass for want of trying, the same is done with the true keys, which must succeed.
"""

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
import sys
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from playwright.sync_api import BrowserContext, Playwright, expect, sync_playwright

from llamora.persistence.tag_changes import tag_hash
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, open_keyring
from llamora.vault.session_keys import (
    open_from_cookie,
    open_from_session,
    seal_for_session,
    session_id_of,
)
from llamora.vault.slots import KeySlot, open_slot
from scripts.bench.harness import COMMON_WORDS
from scripts.browser import find_or_install
from scripts.command import run
from scripts.torture import harness
from tests.scan import find_words
from tests.server_process import HttpUser, Server

T = TypeVar("T")
TOKEN_BYTES = 32
WAIT_MS = 60_000


@dataclass
class StolenData:
    """Hold what the thief has, and what only the user knows, to show that the trials can succeed."""

    folder: Path
    cookie: str
    mode: str
    keys: Keyring
    tags: list[str]
    queries: list[str]
    passphrase: str

    @property
    def database(self) -> Path:
        """The stolen database."""
        return self.folder / "data/llamora.sqlite3"

    @property
    def cookie_bytes(self) -> bytes:
        """The token, and in the mode `cookie` the sealed key after it."""
        return urlsafe_b64decode(self.cookie + "=" * (-len(self.cookie) % 4))

    @property
    def token(self) -> bytes:
        """What the cookie begins with."""
        return self.cookie_bytes[:TOKEN_BYTES]


def build_dictionary(count: int, rng: random.Random, true_words: Sequence[str]) -> list[str]:
    """Join common words alone and in pairs, as somebody would guess tags and queries, with the true ones."""
    words = dict.fromkeys(COMMON_WORDS)
    first_words = rng.sample(COMMON_WORDS, len(COMMON_WORDS))
    pairs = map(" ".join, itertools.product(first_words, COMMON_WORDS))
    words |= dict.fromkeys(itertools.islice(pairs, max(0, count - len(words) - len(true_words))))
    guesses = [*words, *true_words]
    rng.shuffle(guesses)
    return guesses


# -- the life that is interrupted --------------------------------------------------------------------------


def _open_browser(playwright: Playwright, profile: Path, temporary: str) -> BrowserContext:
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=find_or_install(),
        args=["--no-sandbox", "--disable-quic", "--disable-background-networking"],
        env={"TMPDIR": temporary, "HOME": str(profile.parent), "PATH": "/usr/bin:/bin"},
    )
    context.set_default_timeout(WAIT_MS)
    return context


def _use(context: BrowserContext, user: HttpUser, query: str) -> str:
    """Sign in, read and search with a browser; returns the cookie."""
    page = context.pages[0]
    page.goto(user.url + "/sign-in")
    page.locator("#name").fill(user.name)
    page.locator("#passphrase").fill(user.passphrase)
    page.locator("main button").last.click()
    expect(page.locator("article.entry")).to_contain_text(harness.WORD, timeout=WAIT_MS)
    page.get_by_role("searchbox").fill(query)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/search/"))
    return next(
        each.get("value", "")
        for each in context.cookies()
        if re.fullmatch(r"llamora_\d+", each.get("name", ""))
    )


def run_victim(playwright: Playwright, folder: Path, mode: str, rng: random.Random) -> StolenData:
    """Write, tag and search as somebody; then kill server and browser while they are signed in."""
    tags, queries = ([" ".join(rng.sample(COMMON_WORDS, 2)) for _ in range(8)] for _ in range(2))
    env = {**harness.WITHOUT_MODELS, "LLAMORA_SESSION__MODE": mode, "LLAMORA_LOG__LEVEL": "DEBUG"}
    server = Server(folder / "server", folder / "server/cache", mode="prod", env=env).start()
    user = HttpUser(server.url).register()
    entry = bytes.fromhex(user.write(f"A {harness.WORD} at noon."))
    keys = run_in_thread(_add_tags_and_queries(server, user, entry, tags, queries[1:]))
    profile = folder / "server/profile"
    # Chromium's socket must have a short path.
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as temporary:
        context = _open_browser(playwright, profile, temporary)
        cookie = _use(context, user, queries[0])
        harness.kill(server)
        kill_browser(profile)
        with suppress(Exception):  # it is gone
            context.close()
    stolen = folder / "stolen"
    shutil.copytree(server.folder, stolen, symlinks=True)
    (stolen / "settings.json").write_text(json.dumps(env), encoding="utf-8")
    return StolenData(stolen, cookie, mode, keys, tags, queries, user.passphrase)


def run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a thread of its own: Playwright's loop runs on this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _add_tags_and_queries(
    server: Server, user: HttpUser, entry_id: bytes, tags: list[str], queries: list[str]
) -> Keyring:
    """Tag an entry and remember queries, beside the running server; the user's keys."""
    async with harness.beside(server, user) as (db, keys):
        for name in tags:
            await db.tags.add(keys, entry_id, name)
        for query in queries:
            await db.search_history.add(keys, query, datetime.now(UTC))
        return keys


def kill_browser(profile: Path) -> None:
    """Send SIGKILL to the browser of this profile, and to nothing else."""
    profile_argument = f"--user-data-dir={profile}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if profile_argument in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


# -- what the thief tries --------------------------------------------------------------------------------


def read_windows(folder: Path, stride: int) -> Iterator[bytes]:
    """Yield each piece of 32 bytes of the data, the log and the settings, at every `stride`-th place, once."""
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
    """Try each as boot secret of the session, and as master key; return (what opened, how many were tried)."""
    token, cookie_key = stolen.token, stolen.cookie_bytes[TOKEN_BYTES:]
    sql = "SELECT id, user_id, sealed FROM dek_sessions WHERE id=?"
    sessions = harness.fetch(stolen.database, sql, (session_id_of(token),))
    columns = "user_id, epoch, sealed, slots, index_key"
    sql = f"SELECT {columns} FROM data_keys JOIN keyrings USING (user_id)"  # noqa: S608
    data_keys = harness.fetch(stolen.database, sql)
    opened_count = tried_count = 0
    for candidate in candidates:
        tried_count += 1
        for session, user_id, sealed in sessions:
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
    """Count the pages that a fresh server on the stolen data shows for the stolen cookie."""
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
    """Count the words that have a hash of theirs in the files: plain, salted and keyed with all that lies about."""
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
    """List what a thief could take for a key to the hashes: short values of the database, and what the cookie holds."""
    candidates: set[bytes] = {b"", stolen.token}
    for (table,) in harness.fetch(
        stolen.database, "SELECT name FROM sqlite_master WHERE type='table'"
    ):
        for row in harness.fetch(stolen.database, f"SELECT * FROM {table}"):  # noqa: S608
            values = (value.encode() if isinstance(value, str) else value for value in row)
            candidates |= {each for each in values if isinstance(each, bytes) and len(each) <= 64}
    return sorted(candidates)


def hash_windows(folder: Path) -> set[bytes]:
    """Return each piece of 8 bytes of the data, the log and the settings: enough to know a hash again."""
    return {piece[at : at + 8] for piece in read_windows(folder, 16) for at in range(25)}


# -- all of it -------------------------------------------------------------------------------------------


def steal_once(
    playwright: Playwright, folder: Path, mode: str, words: int, stride: int, seed: int
) -> dict[str, Any]:
    """Steal once in one key mode."""
    rng = random.Random(seed)
    stolen = run_victim(playwright, folder, mode, rng)
    guesses = build_dictionary(words, rng, [*stolen.tags, *stolen.queries])
    opened_count, tried_count = try_keys(stolen, read_windows(stolen.folder, stride))
    # Before anything starts on it: a start ends the sessions.
    sessions = len(harness.fetch(stolen.database, "SELECT 1 FROM dek_sessions"))
    slots_opened = 0
    sql = "SELECT user_id, id, kind, salt, params, sealed FROM key_slots WHERE kind='recovery'"
    for user_id, *row in harness.fetch(stolen.database, sql):
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
        "plain": len(
            find_words(
                stolen.folder, [harness.WORD, stolen.passphrase, *stolen.tags, *stolen.queries]
            )
        ),
    }
    return result | {"with_the_keys": verify_with_true_keys(stolen, guesses, windows_seen, folder)}


def verify_with_true_keys(
    stolen: StolenData, guesses: list[str], windows_seen: set[bytes], folder: Path
) -> bool:
    """Tell whether the same trials succeed for somebody who has the secrets: else they say nothing."""
    confirmed_tags = {word for word in guesses if tag_hash(stolen.keys, word)[:8] in windows_seen}
    planted, boot = folder / "planted", os.urandom(32)
    planted.mkdir()

    def try_planted(secret: bytes) -> int:
        content = random.randbytes(777) + secret + random.randbytes(99)
        (planted / "file").write_bytes(content)
        return try_keys(stolen, read_windows(planted, 1))[0]

    by_master = try_planted(bytes(stolen.keys.master))
    user_id, session = stolen.keys.user_id, session_id_of(stolen.token)
    sealed = seal_for_session(user_id, session, stolen.token, boot, stolen.keys.master)
    sql = "UPDATE dek_sessions SET sealed=? WHERE id=?"
    harness.execute(stolen.database, sql, (sealed, session))
    return (
        confirmed_tags == set(stolen.tags)
        and run_in_thread(_read_queries(stolen)) >= set(stolen.queries)
        and by_master >= 1
        and try_planted(boot) == 1
    )


async def _read_queries(stolen: StolenData) -> set[str]:
    """The queries in the stolen database, for somebody who has the keys."""
    async with harness.opened(stolen.database) as db:
        return set(await db.search_history.recent(stolen.keys, 50))


def torture(folder: Path, words: int, stride: int, seed: int) -> dict[str, Any]:
    """Steal once in each key mode."""
    results: dict[str, dict[str, Any]] = {}
    with sync_playwright() as playwright:
        for mode in ("session", "cookie"):
            (folder / mode).mkdir()
            results[mode] = steal_once(playwright, folder / mode, mode, words, stride, seed)
    both = results.values()
    return {
        **{name: sum(each[name] for each in both) for name in ("opened", "confirmed", "plain")},
        "with_the_keys": all(each["with_the_keys"] for each in both),
        **results,
        "seed": seed,
    }


def has_failed(result: dict[str, Any]) -> bool:
    """Tell whether something opened, or would not have in any case."""
    return harness.any_of("opened", "confirmed", "plain")(result) or not result["with_the_keys"]


if __name__ == "__main__":
    help_text = "try the piece at every n-th place only"
    every = {"type": int, "default": 1, "dest": "stride", "help": help_text}
    sys.exit(run(torture, failed=has_failed, words=10_000, every=every, seed=1))
