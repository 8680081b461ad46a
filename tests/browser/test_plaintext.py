"""Everything private through a real server and a real browser, then every file that the run left is searched.

Nothing may be found in any form; and with any one kind of record unsealed, its words must be.
"""

import asyncio
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, expect

from llamora.events import EventBus
from llamora.journal.accounts import Accounts
from llamora.journal.sessions import Sessions
from llamora.persistence import LocalDB
from llamora.persistence.vectors import EntryVectors, Vectors
from llamora.settings import CryptoSettings, SessionSettings
from scripts.browser import find_or_install
from tests.conftest import HttpUser, Server
from tests.scan import find_bytes, find_words, float_encodings
from tests.scripted_model import ModelThread, Reply
from tests.server_process import FAST_KDF

pytestmark = pytest.mark.usefixtures("real_kdf")  # the server has sealed with it

PASSPHRASE = "seven quiet pangolins over the weir"
# One word for each place; none of them is in any dictionary of a browser or a model.
ENTRY, VERSION, REPLY, TRACE = "quokkamorning", "wombatversion", "numbatreply", "bilbytrace"
QUERY, DRAFT, ERASED, KEY = "potorooquery", "dunnartdraft", "quollerased", "sk-bandicoot-0123456789"
WORDS = (ENTRY, VERSION, REPLY, TRACE, QUERY, DRAFT, ERASED, "quiet pangolins")
EDITED = 2  # the revision of the entry once it was edited
COMES_WITHIN = 60.0  # seconds that a busy machine may take for what is waited for
BROWSER_STAYS_SECONDS = 15  # Chromium writes its profile in its own time

# Starts the server with one table's records stored as they are, or none's; snapshots of the index are written from the
# first entry on and at once, where a thousand entries and some quiet are waited for otherwise.
LEAKING = """
import sys
from llamora.search import snapshot_store
from llamora.vault.keys import Keyring
snapshot_store.SNAPSHOT_MIN_ENTRIES, snapshot_store.SNAPSHOT_QUIET_SECONDS = 1, 0.0
table_off, sealing = sys.argv.pop(1), Keyring.seal
def seal(self, purpose, table, column, record_id, revision, plaintext):
    if table == table_off:
        return plaintext
    return sealing(self, purpose, table, column, record_id, revision, plaintext)
opening = Keyring.open
def opened(self, purpose, table, column, record_id, revision, sealed):
    if table == table_off:
        return sealed
    return opening(self, purpose, table, column, record_id, revision, sealed)
Keyring.seal, Keyring.open = seal, opened
from llamora.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def model(model: ModelThread) -> ModelThread:
    model.model.default_reply = Reply([f"The {REPLY} ", "was seen too."])
    return model


def environment(model: ModelThread, folder: Path) -> dict[str, str]:
    """Temporary files of all kinds land where they are searched, and the log says all it ever says."""
    (folder / "tmp").mkdir(parents=True)
    return {
        "LLAMORA_LLM__UPSTREAM__HOST": model.model.url,
        "LLAMORA_LLM__UPSTREAM__API_KEY": KEY,
        "LLAMORA_LOG__LEVEL": "DEBUG",
        "TMPDIR": str(folder / "tmp"),
    }


async def add_and_remove_a_trace(
    path: Path, name: str, passphrase: str, entry: bytes, off: str
) -> list[float]:
    """As another process beside the server; returns the first embedding of the edited entry."""
    import numpy as np

    db = await LocalDB.open(path)
    crypto = CryptoSettings(kdf_target_ms=int(FAST_KDF["LLAMORA_CRYPTO__KDF_TARGET_MS"]))
    accounts = Accounts(db, crypto, Sessions(db, SessionSettings(), bytes(32), EventBus()))
    try:
        _, keys = await accounts.sign_in(name, passphrase)
        gone = await db.tags.add(keys, entry, f"{TRACE}-gone")
        await db.tags.remove(keys, entry, gone)
        await db.tags.add(keys, entry, TRACE)
        end = time.monotonic() + COMES_WITHIN
        while time.monotonic() < end:
            for entry_id, revision, sealed in await db.vectors.get_sealed(keys.user_id, [entry]):
                # This process seals: what the server stores as it is stands open here.
                unsealed = EntryVectors.from_bytes(entry_id, sealed) if off == "vectors" else None
                vectors = unsealed or Vectors.open_record(keys, entry_id, revision, sealed)
                if vectors.entry_revision == EDITED:
                    return [
                        float(number)
                        for number in np.frombuffer(vectors.data, dtype="<f4")[: vectors.dim]
                    ]
            await asyncio.sleep(0.05)
        raise AssertionError("the entry was not embedded")
    finally:
        await db.close()


def reply_of(writer: HttpUser, entry: str) -> None:
    """Ask for a reply and wait until it is finished, which it is shown to be once it is on the disk."""
    asked = writer.post(f"/e/{entry}/replies", {})
    assert asked.status_code == 303
    end = time.monotonic() + COMES_WITHIN
    shown = ""
    while time.monotonic() < end:
        shown = writer.get(asked.headers["Location"].partition("#")[0]).text
        if REPLY in shown and "data-streams" not in shown:
            return
        time.sleep(0.05)
    raise AssertionError(f"the reply was not finished: {shown}")


def write_by_form(server: Server, off: str = "") -> list[float]:
    """All kinds of private words by plain forms, each on the disk when this returns; returns an embedding.

    `off` is the table that the server does not seal.
    """
    writer = HttpUser(server.url, passphrase=PASSPHRASE).register()
    entry = writer.write(f"The {VERSION} was here first, and for long enough to be embedded.")
    assert (
        writer.post(f"/e/{entry}", {"text": f"The {ENTRY} came by.", "revision": "1"}).status_code
        == 303
    )
    # Before anything is erased: that would end a reply which is still being written with it before its eyes.
    reply_of(writer, entry)
    pen = re.search(r'name="form_token" value="([^"]+)"', writer.get("/d/2026-02-03").text)
    assert pen is not None
    draft = {
        "draft_key": "day:2026-02-03",
        "text": f"A {DRAFT}, half",
        "form_token": pen[1],
        "count": "1",
    }
    assert writer.post("/drafts", draft).status_code == 204
    assert writer.post("/search", {"q": QUERY}).status_code in (200, 303)
    gone = writer.write(f"The {ERASED} is nobody's business.")
    writer.post(f"/e/{gone}/delete", {"revision": "1"})
    erased = writer.post(f"/e/{gone}/erase", {"sure": "1"})
    assert erased.status_code < 400, erased.text
    assert "Deleted" not in writer.get("/d/today").text
    path = server.data / "llamora.sqlite3"
    work = add_and_remove_a_trace(path, writer.name, PASSPHRASE, bytes.fromhex(entry), off)
    with ThreadPoolExecutor(1) as thread:  # the browser's own loop runs on this one
        return thread.submit(asyncio.run, work).result()


def snapshot_of_all(server: Server) -> None:
    """Wait until the store holds a snapshot of the index that was begun after everything so far was indexed."""

    def newest(condition: str) -> int:
        with closing(
            sqlite3.connect(f"file:{server.data / 'llamora.sqlite3'}?mode=ro", uri=True)
        ) as raw:
            (number,) = raw.execute(
                f"SELECT max(generation) FROM search_snapshots WHERE {condition}"
            ).fetchone()
        return int(number or 0)

    writer = HttpUser(server.url, passphrase=PASSPHRASE)
    writer.sign_in()
    end = time.monotonic() + COMES_WITHIN
    while True:  # quoted, and not remembered: what is found holds the very word
        found = writer.post("/search/typing", {"q": f'"{TRACE}"'}, fragment=True).text
        if 'class="hit"' in found and "one by one" not in found:
            break
        assert time.monotonic() < end, found
        time.sleep(0.05)
    before = newest("true")
    writer.write("Something else.")
    while newest("part = 0") <= before:
        assert time.monotonic() < end, "no snapshot was written"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("off", "words"),
    [
        ("", set[str]()),
        ("entries", {ENTRY, REPLY}),
        ("versions", {VERSION}),
        ("drafts", {DRAFT}),
        ("search_history", {QUERY}),
        ("vectors", {"floats"}),
        ("search_snapshots", {ENTRY, REPLY, TRACE, "floats"}),
    ],
)
def test_what_is_not_sealed_is_found(
    off: str, words: set[str], serve: Callable[..., Server], model: ModelThread, tmp_path: Path
) -> None:
    leaking = tmp_path / "leaking.py"
    leaking.write_text(LEAKING, encoding="utf-8")
    server = serve(
        env=environment(model, tmp_path / "server0"), command=(str(leaking), off or "none")
    ).start()
    floats = write_by_form(server, off)
    snapshot_of_all(server)
    found = {word for _, word, _ in find_words(server.folder, WORDS)}
    if find_bytes(server.folder, float_encodings("floats", floats)):
        found.add("floats")
    assert found == words
    assert find_words(server.folder, [KEY]) == []


def test_nothing_is_readable_after_a_day_in_a_browser(
    serve: Callable[..., Server], model: ModelThread, tmp_path: Path, playwright: Playwright
) -> None:
    hasty = tmp_path / "hasty.py"
    hasty.write_text(LEAKING, encoding="utf-8")
    env = environment(model, tmp_path / "server0")
    server = serve(env=env, command=(str(hasty), "none")).start()
    floats = write_by_form(server)
    short = tempfile.TemporaryDirectory(prefix="b-")  # Chromium's socket must have a short path
    context = playwright.chromium.launch_persistent_context(
        tmp_path / "server0" / "profile",
        executable_path=find_or_install(),
        args=["--no-sandbox", "--disable-quic", "--disable-background-networking"],
        env={"TMPDIR": short.name, "HOME": str(tmp_path / "server0"), "PATH": "/usr/bin:/bin"},
    )
    page = context.pages[0]
    page.goto(server.url + "/sign-in")
    page.locator("#name").fill("Alice")
    page.locator("#passphrase").fill(PASSPHRASE)
    page.locator("main button").last.click()
    expect(page.locator("article.entry")).to_contain_text(ENTRY)
    page.wait_for_load_state("load")
    page.locator("#write").fill(f"One more {ENTRY} in the browser.")
    page.locator("#write").press("Control+Enter")
    expect(page.locator("article.entry")).to_have_count(2)
    page.locator("article.entry").last.get_by_role("button", name="Reply", exact=True).click()
    reply = page.locator("article.entry").last.locator("article.reply")
    expect(reply).to_contain_text(REPLY)
    expect(
        reply.locator("summary").first
    ).to_be_visible()  # of its receipt, which comes when it is finished
    page.locator("#write").fill(f"And a {DRAFT} left lying about")
    expect(page.locator("#composer").get_by_text("a draft is kept, sealed")).to_be_visible()
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/search"))
    page.goto(server.url + "/d/2026-02-03")
    expect(page.locator("#write")).to_have_value(f"A {DRAFT}, half")
    snapshot_of_all(server)
    time.sleep(BROWSER_STAYS_SECONDS)
    while_open = find_words(tmp_path / "server0", (*WORDS, KEY)) + find_words(
        Path(short.name), (*WORDS, KEY)
    )
    context.close()
    assert server.stop() == 0
    hits = [*while_open, *find_words(tmp_path / "server0", (*WORDS, KEY))]
    hits += find_words(Path(short.name), (*WORDS, KEY))
    hits += find_bytes(tmp_path / "server0", float_encodings("floats", floats))
    short.cleanup()
    assert hits == []
    assert sum(1 for file in (tmp_path / "server0" / "profile").rglob("*") if file.is_file()) > 20
