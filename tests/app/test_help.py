"""Help, the first page of a journal, errors that say what to do, and the page for when the server is away."""

import json
import re
from pathlib import Path

import pytest

from tests.app.conftest import RunningApp
from tests.app.test_contrast import luminance, themes

ROOT = Path(__file__).parents[2]


async def test_an_empty_journal_invites_in_three_sentences(app: RunningApp) -> None:
    alice = await app.visitor()
    invitation = re.search(
        r'<p class="invitation">(.*?)</p>', (await alice.get("/d/today")).text, re.DOTALL
    )
    assert invitation is not None
    assert len(re.findall(r"\.(?:\s|$)", invitation[1])) == 3
    await alice.write("A heron.", "2020-01-01")
    assert "A new page. Begin anywhere." in (await alice.get("/d/today")).visible_text


async def test_help_shows_keys_and_marks(app: RunningApp) -> None:
    alice = await app.visitor()
    help_page = await alice.get("/help")
    for word in ("**word**", "a quotation", "keep what you wrote", "this list"):
        assert word in help_page.visible_text
    assert 'href="/help"' in (await alice.get("/you")).text
    assert (await app.anonymous().get("/help")).location == "/sign-in"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("GET", "/e/00/edit"), ("POST", "/healthz")]
)
async def test_an_error_says_what_to_do(app: RunningApp, method: str, path: str) -> None:
    alice = await app.visitor()
    answer = await (alice.get(path) if method == "GET" else alice.post(path))
    assert answer.status >= 400
    told = re.search(r'id="what-happened">[^<]+</p>\s*<p>([^<]+\.)</p>', answer.text)
    assert told is not None, answer.text


async def test_the_page_for_when_the_server_is_away_knows_nobody(app: RunningApp) -> None:
    alice, stranger = await app.visitor(), app.anonymous()
    await alice.post("/you/settings", {"theme": "dark"})
    theirs, anybodys = await alice.get("/offline"), await stranger.get("/offline")
    assert theirs.body == anybodys.body
    assert 'name="csrf"' not in theirs.text
    assert theirs.headers["Cache-Control"] == "no-cache"
    assert "Set-Cookie" not in theirs.headers
    german = await app.anonymous({"Accept-Language": "de"}).get("/offline")
    assert "Llamora ist nicht erreichbar" in german.visible_text


async def test_the_worker_is_told_what_the_shell_is(app: RunningApp) -> None:
    answer = await app.anonymous().get("/sw.js")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Cache-Control"] == "no-cache"
    shell = re.search(r"const SHELL = (\[.*?\]);", answer.text)
    assert shell is not None
    for path in json.loads(shell[1]):
        assert (await app.anonymous().get(path)).status == 200, path
    assert "worker-src 'self'" in answer.headers["Content-Security-Policy"]


def test_the_system_is_told_the_colour_of_the_paper() -> None:
    """What a browser paints around the page, in the only notation that it takes everywhere."""
    base = (ROOT / "src/llamora/app/templates/layouts/base.html").read_text(encoding="utf-8")
    told = {
        name: found for name, found in (("light", "#faf7f2"), ("dark", "#171310")) if found in base
    }
    assert set(told) == {"light", "dark"}
    for name, colour in told.items():
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        seen = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert seen == pytest.approx(luminance(themes()[name]["paper"]), abs=0.005)


def test_our_scripts_ask_for_nothing_by_themselves() -> None:
    static = ROOT / "frontend/static"
    ours = [file for file in static.rglob("*.js") if "vendor" not in file.parts]
    assert [
        file.name
        for file in ours
        if re.search(r"\bfetch\(|XMLHttpRequest", file.read_text("utf-8"))
    ] == ["sw.js"]
