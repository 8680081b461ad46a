"""A reply in a real browser, held where a test wants it: no word is lost or repeated, whatever happens to the tab."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Console, open_as_user, sign_in
from tests.conftest import HttpUser, Server
from tests.scripted_model import ModelThread, Reply

WHOLE = "The heron waited. Then it flew off, slowly. Nobody else had seen it."
PIECES = ["The heron ", "waited. Then ", "it flew off, slowly. ", "Nobody else had seen it."]
HALF = "The heron waited. Then"


@pytest.fixture
def page(server: Server, new_page: Callable[..., Page]) -> Page:
    """Today's page, with one entry on it, of somebody who is signed in."""
    writer = HttpUser(server.url).register()
    writer.write("I saw a heron.")
    page = new_page()
    open_as_user(page, writer)
    return page


def ask(page: Page) -> None:
    page.locator("article.entry").first.get_by_role("button", name="Reply", exact=True).click()


def prose(page: Page, number: int = 0) -> Locator:
    return page.locator("article.reply").nth(number).locator(".prose")


def test_a_reload_in_the_middle_loses_and_repeats_nothing(page: Page, model: ModelThread) -> None:
    held = model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    page.reload()
    expect(prose(page)).to_have_text(HALF)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    model.release(held)
    expect(prose(page)).to_have_text(WHOLE)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.locator("article.reply")).to_have_count(1)
    page.reload()
    expect(prose(page)).to_have_text(WHOLE)
    assert len(model.model.chat_requests) == 1


def test_it_is_written_on_when_the_tab_is_closed(page: Page, model: ModelThread) -> None:
    held = model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    address, context = page.url, page.context
    page.close()
    model.release(held)
    page = context.new_page()
    page.goto(address)
    expect(prose(page)).to_have_text(WHOLE)
    assert len(model.model.chat_requests) == 1


def test_a_second_tab_shows_the_same(page: Page, model: ModelThread) -> None:
    held = model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    other = page.context.new_page()
    other.goto(page.url)
    expect(prose(other)).to_have_text(HALF)
    model.release(held)
    for tab in (page, other):
        expect(prose(tab)).to_have_text(WHOLE)
        expect(tab.get_by_role("button", name="Stop")).to_have_count(0)
        expect(tab.locator("article.reply")).to_have_count(1)
    assert len(model.model.chat_requests) == 1


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_what_came(page: Page, model: ModelThread, how: str) -> None:
    model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(prose(page)).to_have_text(HALF)
    page.reload()
    expect(prose(page)).to_have_text(HALF)
    page.get_by_role("button", name="Another reply").click()
    expect(prose(page, 1)).to_have_text("It was a quiet day.")


def test_five_replies_leave_room_for_an_entry(
    server: Server, model: ModelThread, new_page: Callable[..., Page]
) -> None:
    user, page = HttpUser(server.url).register(), new_page()
    for number in range(5):
        user.write(f"Entry {number}.")
        model.hold_reply(PIECES, 1)
    open_as_user(page, user)
    for number in range(5):
        page.locator("article.entry").nth(number).get_by_role(
            "button", name="Reply", exact=True
        ).click()
        expect(page.locator("article.reply")).to_have_count(number + 1)
    page.locator("#write").fill("Meanwhile")
    page.locator("#write").press("Control+Enter")
    expect(page.locator("article.entry")).to_have_count(6, timeout=5_000)


def test_another_window_leads_when_the_first_is_gone(page: Page, model: ModelThread) -> None:
    held = model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    others = [page.context.new_page() for _ in range(2)]
    for other in others:
        other.goto(page.url)
        expect(prose(other)).to_have_text(HALF)
    page.close()
    model.release(held)
    for other in others:
        expect(prose(other)).to_have_text(WHOLE)
        expect(other.locator("article.reply")).to_have_count(1)
    assert len(model.model.chat_requests) == 1


def test_without_web_locks_each_window_has_a_stream(page: Page, model: ModelThread) -> None:
    page.context.add_init_script("delete Navigator.prototype.locks")
    page.reload()
    other = page.context.new_page()
    other.goto(page.url)
    assert other.evaluate("navigator.locks === undefined")
    held = model.hold_reply(PIECES, 2)
    ask(page)
    for tab in (page, other):
        expect(prose(tab)).to_have_text(HALF)
    model.release(held)
    for tab in (page, other):
        expect(prose(tab)).to_have_text(WHOLE)
        expect(tab.locator("article.reply")).to_have_count(1)


def test_an_answer_and_the_reply_to_it_follow(page: Page, model: ModelThread) -> None:
    ask(page)
    first = page.locator("article.reply").first
    first.locator("summary", has_text="Answer").click()
    expect(page.get_by_role("button", name="Another reply")).to_have_count(1)
    first.get_by_role("textbox").fill("It was the stillness.")
    held = model.hold_reply(PIECES, 2)
    first.get_by_role("button", name="Keep and ask").click()
    expect(page.locator("article.answer")).to_contain_text("It was the stillness.")
    expect(prose(page, 1)).to_have_text(HALF)
    expect(first.get_by_role("textbox", include_hidden=True)).to_have_value("")
    model.release(held)
    expect(prose(page, 1)).to_have_text(WHOLE)
    thread = page.locator(".thread > article")
    expect(thread).to_have_count(3)
    page.reload()
    expect(thread).to_have_count(3)
    expect(thread.nth(1)).to_contain_text("It was the stillness.")
    assert len(model.model.chat_requests) == 2


def test_a_model_that_fails_in_the_middle_is_a_sentence_beside_what_came(
    page: Page, model: ModelThread
) -> None:
    model.model.script(Reply(PIECES[:2], fault="cut"))
    ask(page)
    sentence = page.locator("article.reply .receipt .problem")
    expect(sentence).to_contain_text("broke off the connection")
    expect(prose(page)).to_have_text(HALF)
    page.reload()
    expect(sentence).to_contain_text("broke off the connection")
    expect(prose(page)).to_have_text(HALF)


def test_words_stay_when_the_server_is_gone_and_can_be_kept_when_it_is_back(
    page: Page, server: Server, console: Console
) -> None:
    page.locator("#write").fill("These words are mine.")
    assert server.stop() == 0
    console.is_measuring = True  # the browser writes refused connections to the console
    page.locator("#write").press("Control+Enter")
    problem = page.locator("#composer [data-problem]")
    expect(problem).to_have_text(
        "Llamora is not answering. Your words are still here; try again in a moment."
    )
    expect(page.locator("#write")).to_have_value("These words are mine.")
    server.start()
    page.locator("#write").press("Control+Enter")
    expect(problem).to_contain_text("You have been signed out. Your words are still here")
    expect(page.locator("#write")).to_have_value("These words are mine.")
    other = page.context.new_page()
    other.goto(server.url + "/sign-in")
    sign_in(other, HttpUser.name, HttpUser.passphrase)
    expect(other.locator("article.entry")).to_have_count(1)
    page.locator("#write").press("Control+Enter")
    expect(page.locator("article.entry")).to_have_count(2)
    expect(page.locator("#write")).to_have_value("")
    expect(problem).to_have_text("")
    console.is_measuring = False


def test_what_is_typed_while_it_streams_stays(page: Page, model: ModelThread) -> None:
    held = model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    page.locator("#write").fill("Meanwhile")
    model.release(held)
    expect(prose(page)).to_have_text(WHOLE)
    expect(page.locator("#write")).to_have_value("Meanwhile")
    expect(page.locator("#write")).to_be_focused()


def test_the_server_stops_at_once_while_a_reply_streams(
    page: Page, server: Server, model: ModelThread, console: Console
) -> None:
    model.hold_reply(PIECES, 2)
    ask(page)
    expect(prose(page)).to_have_text(HALF)
    console.is_measuring = True  # the tab asks a server that is gone
    assert server.stop() == 0
    expect(prose(page)).to_have_text(HALF)
    server.start()
    again = HttpUser(server.url)
    again.sign_in()
    shown = again.get("/d/today").text
    assert HALF in shown
    assert "Cut short when the server stopped." in shown
