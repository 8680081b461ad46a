"""What is being written survives a reload, another browser and a new sign-in, and is gone once it is kept."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, Request, Route, expect

from tests.browser.conftest import register, sign_in
from tests.conftest import HttpUser, Server
from tests.scan import find_words

WORDS = "The plumber said kumquat on the stairs, and I have to write down why"
MORE = "\n\nBecause nobody had asked him anything."

COUNT_DRAFTS = "SELECT count(*) FROM drafts JOIN users ON users.id = user_id WHERE name = ?"


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server()


@pytest.fixture
def writer(server: Server) -> HttpUser:
    return register(server)


@pytest.fixture
def opened(server: Server, writer: HttpUser, new_page: Callable[..., Page]) -> Callable[[], Page]:
    """Browsers in which the writer is signed in, each with a session of its own and today's page open."""

    def make() -> Page:
        # The worker of an installed page would take requests past `page.route`.
        page = new_page(service_workers="block")
        page.goto(server.url + "/sign-in")
        sign_in(page, writer.name, writer.passphrase)
        return page

    return make


def is_draft_request(request: Request) -> bool:
    return request.url.endswith("/drafts")


def drafts(server: Server, writer: HttpUser) -> int:
    """Count the drafts of a user."""
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        return int(connection.execute(COUNT_DRAFTS, (writer.name,)).fetchone()[0])


def kept(page: Page, count: int) -> None:
    expect(page.locator("article.entry")).to_have_count(count)
    expect(page.locator("#write")).to_have_value("")


def test_a_draft_outlives_reload_browser_and_session(
    server: Server, writer: HttpUser, opened: Callable[[], Page], axe: Callable[[Page], None]
) -> None:
    page = opened()
    field = page.locator("#write")
    expect(page.get_by_text("sealed when kept")).to_be_visible()
    field.press_sequentially(WORDS)
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()
    axe(page)
    page.reload()
    expect(field).to_have_value(WORDS)
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()

    other = opened()
    expect(other.locator("#write")).to_have_value(WORDS)
    other.locator("#write").press("Control+End")
    other.locator("#write").press_sequentially(MORE)
    expect(other.get_by_text("a draft is kept, sealed")).to_be_visible()
    other.locator("h1").click()  # leaving the field saves at once
    other.wait_for_load_state("networkidle")

    page.goto(server.url + "/you")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    sign_in(page, writer.name, writer.passphrase)
    expect(field).to_have_value(WORDS + MORE)
    field.press("Control+Enter")
    kept(page, 1)
    expect(page.locator("article.entry .prose p")).to_have_text([WORDS, MORE.strip()])
    expect(page.get_by_text("sealed when kept")).to_be_visible()
    page.reload()
    kept(page, 1)
    assert drafts(server, writer) == 0
    assert find_words(server.folder, ["kumquat", "plumber", "asked him"]) == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_an_edit_and_an_answer_in_the_making_come_back_open(
    server: Server, writer: HttpUser, opened: Callable[[], Page], axe: Callable[[Page], None]
) -> None:
    entry = writer.write("Rain all day.")
    page = opened()
    page.get_by_role("link", name="Edit").click()
    edit = page.locator(f"#edit-{entry}")
    edit.fill("Rain all day, and kumquats.")
    expect(page.locator("form.edit[data-draft]")).to_be_visible()
    page.reload()
    expect(edit).to_have_value("Rain all day, and kumquats.")
    expect(edit).not_to_be_focused()
    axe(page)
    edit.press("Escape")  # it is what somebody wrote: Escape does not throw it away
    page.wait_for_timeout(300)
    expect(edit).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("article.entry .prose")).to_have_text("Rain all day.")
    assert drafts(server, writer) == 0
    page.reload()
    expect(page.locator("article.entry .prose")).to_have_text("Rain all day.")

    page.get_by_role("link", name="Edit").click()
    edit.fill("Rain all day. Then not.")
    expect(page.locator("form.edit[data-draft]")).to_be_visible()
    page.locator("form.edit").get_by_role("button", name="Keep").click()
    expect(page.locator("article.entry .prose")).to_have_text("Rain all day. Then not.")
    page.reload()
    expect(page.locator("form.edit")).to_have_count(0)
    assert drafts(server, writer) == 0


def test_a_save_that_comes_after_keep_brings_nothing_back(
    server: Server, writer: HttpUser, opened: Callable[[], Page]
) -> None:
    page = opened()
    late: list[Route] = []
    page.route("**/drafts", lambda route: late.append(route))  # noqa: PLW0108
    page.locator("#write").press_sequentially("Half a thou")
    with page.expect_request(is_draft_request):
        pass
    page.locator("#write").press_sequentially("ght.")
    page.locator("#write").press("Control+Enter")
    kept(page, 1)  # Keep waits for no draft
    with page.expect_response("**/drafts") as answer:
        late[0].continue_()
    assert answer.value.status == 205
    page.unroute("**/drafts")
    page.wait_for_timeout(1200)
    assert drafts(server, writer) == 0
    expect(page.get_by_text("sealed when kept")).to_be_visible()
    page.reload()
    kept(page, 1)

    # The next sheet has a pen of its own.
    page.locator("#write").press_sequentially("And another")
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()
    page.locator("#write").press("Control+Enter")
    kept(page, 2)
    page.locator("#write").press_sequentially("A third, without a reload")
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()
    assert drafts(server, writer) == 1


def test_what_is_typed_while_keeping_becomes_the_next_draft(
    server: Server, opened: Callable[[], Page]
) -> None:
    page = opened()
    waiting: list[Route] = []
    page.route("**/entries", lambda route: waiting.append(route))  # noqa: PLW0108
    field = page.locator("#write")
    field.fill("First. ")
    with page.expect_request("**/entries"):
        field.press("Control+Enter")
    field.press_sequentially("Second begun")
    waiting[0].continue_()
    expect(page.locator("article.entry")).to_have_count(1)
    expect(field).to_have_value("Second begun")
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()
    page.reload()
    expect(field).to_have_value("Second begun")
    expect(page.locator("article.entry .prose")).to_have_text("First.")


def test_leaving_asks_only_for_words_that_are_nowhere_else(
    server: Server, opened: Callable[[], Page]
) -> None:
    page = opened()
    asked: list[str] = []

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.locator("#write").press_sequentially("Safe by now")
    expect(page.get_by_text("a draft is kept, sealed")).to_be_visible()
    page.goto(server.url + "/you")
    assert asked == []
    page.goto(server.url + "/d/today")
    page.route("**/drafts", lambda route: route.fulfill(status=503))
    page.locator("#write").press_sequentially(", not safe")
    expect(page.locator("#composer [role=alert]")).to_contain_text("Your words are still here")
    page.goto(server.url + "/you")
    assert asked == ["beforeunload"]


def test_leaving_the_field_saves_without_waiting_for_a_pause(
    server: Server, writer: HttpUser, opened: Callable[[], Page]
) -> None:
    page = opened()
    page.clock.install()
    page.clock.pause_at("2027-01-01")  # no pause is ever long enough
    page.locator("#write").press_sequentially("On the way out")
    with page.expect_response("**/drafts") as answer:
        page.locator("h1").click()
    assert answer.value.status == 204
    assert drafts(server, writer) == 1


def test_leaving_the_page_sends_the_last_words(
    server: Server, writer: HttpUser, opened: Callable[[], Page]
) -> None:
    page = opened()
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#write").fill("Typed and gone")
    context: BrowserContext = page.context
    page.close(run_before_unload=True)
    fresh = context.new_page()
    fresh.goto(server.url + "/healthz")
    for _ in range(600):
        if drafts(server, writer):
            break
        fresh.wait_for_timeout(50)
    assert "Typed and gone" in writer.get("/d/today").text
