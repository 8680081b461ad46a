"""Locking in a real browser: every open page is emptied, here and elsewhere, and nothing nags."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import WITHOUT_MODELS, Console, open_as_user, register
from tests.conftest import HttpUser, Server
from tests.scan import find_words

SECOND = 1000  # milliseconds
MINUTE = 60 * SECOND


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    serve: Callable[..., Server],
    shared_server: Callable[..., Server],
) -> Server:
    own = getattr(request, "param", "") == "own"
    return serve(env=WITHOUT_MODELS).start() if own else shared_server()


@pytest.fixture
def writer(server: Server) -> HttpUser:
    return register(server)


def test_a_key_locks_every_page(
    server: Server, writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    writer.write("A heron in the reeds.")
    page, phone = new_page(), new_page()
    open_as_user(page, writer)
    second = HttpUser(server.url, name=writer.name)
    second.sign_in()
    open_as_user(phone, second)
    tab = page.context.new_page()
    tab.goto(server.url + "/you")
    for each in (page, phone):
        expect(each.get_by_text("A heron in the reeds.")).to_be_visible()
    page.bring_to_front()
    page.locator("h1").click()
    page.keyboard.press("l")
    for each in (page, phone, tab):
        expect(each).to_have_url(server.url + "/sign-in")
        expect(each.get_by_text("A heron in the reeds.")).to_have_count(0)
    assert find_words(server.data, ["heron"]) == []


def test_a_page_empties_at_once_when_the_session_ends_elsewhere(
    server: Server, writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    writer.write("A heron in the reeds.")
    page = new_page()
    open_as_user(page, writer)
    with page.expect_event("framenavigated"):
        writer.post("/lock", {})
    expect(page).to_have_url(server.url + "/sign-in")


@pytest.mark.parametrize("server", ["own"], indirect=True)
def test_words_that_are_nowhere_else_stay_when_the_server_was_started_again(
    server: Server, writer: HttpUser, new_page: Callable[..., Page], console: Console
) -> None:
    page = new_page()
    open_as_user(page, writer)
    expect(page.get_by_label("Write an entry")).to_be_visible()
    server.stop()
    # Set without the event that would post a draft: a server that is slow to start would refuse it.
    page.get_by_label("Write an entry").evaluate("field => { field.value = 'not kept anywhere' }")
    with page.expect_response(
        lambda answer: "/session/events" in answer.url and answer.ok, timeout=60 * SECOND
    ):
        server.start()  # the browser looks again after some three seconds
    page.evaluate("new Promise(done => setTimeout(done))")
    expect(page.get_by_label("Write an entry")).to_have_value("not kept anywhere")
    nobody_was_there(console)


def nobody_was_there(console: Console) -> None:
    """The browser complains when it asks a server that is not there; here that is meant."""
    console.complaints[:] = [
        each for each in console.complaints if "net::ERR_CONNECTION_" not in each
    ]


@pytest.mark.parametrize("server", ["own"], indirect=True)
def test_a_page_goes_by_itself_when_the_server_is_away(
    server: Server, writer: HttpUser, new_page: Callable[..., Page], console: Console
) -> None:
    writer.write("A heron in the reeds.")
    page = new_page()
    page.clock.install()
    open_as_user(page, writer)
    expect(page.get_by_text("A heron in the reeds.")).to_be_visible()
    server.stop()
    page.clock.run_for(61 * MINUTE)
    expect(
        page.get_by_text("A heron in the reeds.")
    ).to_be_visible()  # it waits a little longer than a server
    page.clock.run_for(12 * MINUTE)
    expect(page.get_by_text("A heron in the reeds.")).to_have_count(0)
    nobody_was_there(console)


def test_who_reads_in_one_tab_is_there_in_all(
    server: Server, writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    writer.write("A heron in the reeds.")
    page = new_page()
    page.clock.install()
    open_as_user(page, writer)
    tab = page.context.new_page()
    tab.clock.install()
    tab.goto(server.url + "/you")
    for _ in range(5):
        with page.expect_response(
            lambda answer: answer.url.endswith("/session/here"), timeout=60 * SECOND
        ) as told:
            page.mouse.move(100, 100)
            page.mouse.move(200, 200)
            page.clock.run_for(4 * MINUTE)  # the step in which it tells
        assert told.value.status == 204
        page.clock.run_for(16 * MINUTE)
        tab.clock.run_for(20 * MINUTE)
    expect(tab.get_by_role("heading", name="Where you are signed in")).to_be_visible()
    expect(page.get_by_text("A heron in the reeds.")).to_be_visible()


def test_the_list_of_sessions_has_nothing_to_object_to(
    server: Server, writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    others = [HttpUser(server.url, name=writer.name) for _ in range(2)]
    for other in others:
        other.sign_in()
    page = new_page()
    open_as_user(page, writer)
    page.goto(server.url + "/you")
    axe(page)
    page.get_by_role("button", name="End that session").first.click()
    expect(page.get_by_role("button", name="End that session")).to_have_count(1)
    assert sorted(other.get("/d/today").status_code for other in others) == [200, 303]
