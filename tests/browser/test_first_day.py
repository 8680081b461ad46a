"""The first day, from nothing to signed in again: real servers, models and browsers, Firefox where there is one."""

import re
import sqlite3
from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Console, requested_group, sign_in
from tests.conftest import Server
from tests.scan import find_words

PASSPHRASE = "seven quiet herons over the weir"
ZONE = "America/New_York"
FIRST = "Walked along the river before work; the heron stood in the shallows again and I forgot to worry."
SECOND = (
    "Grandmother's **walnut cake** came out of the oven lopsided, and everybody ate two slices."
)
ANSWER = "Mostly the silence of it, and that nobody needed anything from me."
QUESTION = "dessert baked for relatives"  # no word of it was written
PRIVATE = (
    "heron",
    "walnut",
    "lopsided",
    "silence of it",
    "Grandmother",
    "baked for relatives",
    "herons over",
)


@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_first_day(
    mode: str,
    serve: Callable[..., Server],
    new_page: Callable[..., Page],
    axe: Callable[[Page], None],
) -> None:
    # Both show the same pages: once is enough for what axe looks at.
    first_day(
        serve(mode=mode).start(),
        new_page(timezone_id=ZONE),
        axe if mode == "dev" else lambda _: None,
    )


def test_first_day_in_firefox(
    serve: Callable[..., Server],
    firefox: Browser,
    new_page: Callable[..., Page],
    axe: Callable[..., None],
    console: Console,
) -> None:
    # Its colours are those of its preferences: light.
    first_day(
        serve(mode="prod").start(),
        new_page(firefox, timezone_id=ZONE),
        partial(axe, schemes=["light"]),
    )
    # Firefox tells a page that it leaves that its stream broke off; Chromium does not.
    console.complaints[:] = [each for each in console.complaints if "htmx:sse:error" not in each]


def first_day(server: Server, page: Page, axe: Callable[[Page], None]) -> None:
    code = register(page, server, axe)

    # Write.
    expect(page.locator("h1")).to_be_visible()
    keep(page, FIRST)
    keep(page, SECOND)
    expect(page.locator("article.entry strong")).to_have_text("walnut cake")
    axe(page)

    # Without a model there is what was also written; choose the packaged one.
    first = page.locator("article.entry").first
    first.get_by_role("button", name="You also wrote").click()
    expect(first.locator(".related")).to_contain_text("Nothing on other pages comes near it")
    axe(page)
    page.goto(server.url + "/you")
    page.locator("#endpoint").select_option("built-in")
    page.locator("form:has(#endpoint)").get_by_role("button", name="Keep").click()
    page.goto(server.url + "/d/today")

    # Ask, and reload in the middle of the reply.
    first = page.locator("article.entry").first
    first.get_by_role("button", name="Reply").click()
    # Wait for words, not for the end: the small model may be done by the next look, so a scripted one holds a
    # reply in the middle in tests/browser/test_streaming.py.
    expect(page.locator("article.reply")).to_be_visible()
    expect(page.locator(".reply .waiting")).to_have_count(0, timeout=60_000)
    page.reload()
    reply = page.locator("article.reply").first
    expect(reply.locator("summary", has_text="Answer")).to_be_visible(timeout=60_000)
    said = reply.locator(".prose").inner_text()
    assert said.strip()
    page.reload()
    assert page.locator("article.reply .prose").first.inner_text() == said
    axe(page)

    # Answer it, and ask on.
    reply.locator("summary", has_text="Answer").click()
    reply.get_by_role("textbox").fill(ANSWER)
    axe(page)
    reply.get_by_role("button", name="Keep and ask").click()
    expect(page.locator("article.answer")).to_contain_text("nobody needed anything")
    expect(
        page.locator("article.reply").nth(1).locator("summary", has_text="Answer")
    ).to_be_visible(timeout=60_000)

    # Find by meaning, jump there.
    page.get_by_role("searchbox").fill(QUESTION)
    page.get_by_role("searchbox").press("Enter")
    # What the model said is searched too and differs from run to run; the cake must stand near the top.
    expect(page.locator(".hit").first).to_be_visible()
    found = page.locator(".hits > li:nth-child(-n+3) .hit", has_text="walnut cake").first
    expect(found).to_contain_text("walnut cake")
    axe(page)
    found.click()
    expect(page).to_have_url(re.compile(r"/d/\d{4}-\d\d-\d\d#e-[0-9a-f]{32}$"))
    expect(page.locator("article.entry").nth(1)).to_be_in_viewport()

    # You; sign out; sign in; all of it is still there.
    page.goto(server.url + "/you")
    expect(page.locator("#zone")).to_have_value(ZONE)
    expect(page.get_by_text("small built-in model")).to_be_visible()
    axe(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    axe(page)
    page.go_back()
    expect(page).to_have_url(re.compile("/sign-in"))
    sign_in(page, "Ada", PASSPHRASE)
    expect(page.locator("article.entry")).to_have_count(2)
    expect(page.locator("article.entry").first).to_contain_text("the heron stood in the shallows")
    expect(page.locator("article.reply").first.locator(".prose")).to_have_text(said)
    expect(page.locator("article.answer")).to_contain_text("the silence of it")

    # The recovery code opens it too.
    page.goto(server.url + "/you")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name=re.compile("recovery code", re.IGNORECASE)).click()
    axe(page)
    page.locator("#name").fill("Ada")
    page.locator("#code").fill(code.lower())
    page.locator("#passphrase").fill(PASSPHRASE + " and one more")
    page.locator("main button").last.click()
    assert page.locator(".code-shown").inner_text() != code

    page.goto("about:blank")
    assert server.stop() == 0
    assert_nothing_readable(server, said)


def register(page: Page, server: Server, axe: Callable[[Page], None]) -> str:
    page.goto(server.url + "/sign-in")
    axe(page)
    page.goto(server.url)  # where nobody ever wrote, this is where one begins
    expect(page).to_have_url(re.compile("/register"))
    page.locator("#name").fill("Ada")
    field = page.locator("#passphrase")
    field.press_sequentially("hunter2")
    expect(page.locator("#strength")).to_contain_text("Guessed")
    field.fill(PASSPHRASE)
    expect(page.locator("#strength")).to_contain_text("ard to guess")
    axe(page)
    page.get_by_role("button", name="Begin").click()
    code = page.locator(".code-shown").inner_text()
    axe(page)
    group = requested_group(page, code)
    page.locator("#part").fill("0000")
    page.locator("main button").click()
    expect(page.get_by_role("alert")).to_contain_text("not the")
    page.locator("#part").fill(group.lower())
    page.locator("main button").click()
    expect(page).to_have_url(re.compile("/d/today"))
    return code


def keep(page: Page, text: str) -> None:
    page.wait_for_load_state()  # on a busy machine the hand is faster than the script that knows Ctrl+Enter
    before = page.locator("article.entry").count()
    page.locator("#write").fill(text)
    page.locator("#write").press("Control+Enter")
    expect(page.locator("article.entry")).to_have_count(before + 1)
    expect(page.locator("#write")).to_have_value("")


def assert_nothing_readable(server: Server, said: str) -> None:
    words = (*PRIVATE, *re.findall(r"[A-Za-z]{9,}", said)[:5])
    assert find_words(server.folder, words) == []
    database = server.data / "llamora.sqlite3"
    assert database.stat().st_mode & 0o077 == 0
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] >= 5
        assert connection.execute("SELECT count(*) FROM vectors").fetchone()[0] >= 3
        assert connection.execute("SELECT count(*) FROM dek_sessions").fetchone()[0] == 0
    connection.close()
