"""Search as somebody uses it: by keys alone, with results as one types, and a way back that asks nothing."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import open_as_user, open_more_menu, register
from tests.conftest import HttpUser, Server


@pytest.fixture
def writer(shared_server: Callable[..., Server]) -> HttpUser:
    writer = register(shared_server())
    for day in range(3, 9):
        writer.write(
            f"The grey heron stood by the weir, day {day}, and I thought of my father.",
            f"2024-03-{day:02}",
        )
    writer.write("Nothing but rain.", "2024-03-12")
    return writer


@pytest.mark.parametrize("width", [1280, 390])
def test_by_keys_alone(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = new_page()
    page.set_viewport_size({"width": width, "height": 844})
    open_as_user(page, writer, "/search")
    field = page.locator("#q")
    expect(field).to_be_focused()
    page.keyboard.type('heron by:me "grey heron" in:2024', delay=5)
    expect(page.locator(".hit")).to_have_count(6)
    expect(page.locator(".chips li")).to_have_count(3)
    expect(page).to_have_url(re.compile("/search/[0-9a-f]{32}$"))
    expect(field).to_be_focused()
    axe(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('hit')"):
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/d/2024-03-"))
    page.go_back()
    expect(page.locator(".hit")).to_have_count(6)

    before = page.url
    page.locator("#q").fill("heron weir")
    page.keyboard.press("Enter")
    expect(page.locator(".chips li")).to_have_count(
        0
    )  # the answer is that to the new words, and so is its address
    expect(page).not_to_have_url(before)
    expect(page.locator(".hit")).to_have_count(6)
    page.get_by_role("link", name=re.compile("day 8")).click()
    expect(page).to_have_url(re.compile("/d/2024-03-08"))
    page.go_back()
    expect(page.locator("#q")).to_have_value("heron weir")

    page.goto(writer.url + "/search")
    expect(page.get_by_role("button", name="heron weir")).to_be_visible()
    axe(page)
    page.get_by_role("button", name="heron weir").click()
    expect(page.locator(".hit")).to_have_count(6)
    page.wait_for_load_state()
    page.locator("#q").fill("pelican")
    expect(page.locator(".count")).to_contain_text("Searched for: pelican")


def test_also_written(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    page = new_page()
    open_as_user(page, writer, "/d/2024-03-05")
    page.locator("article.entry").hover()
    open_more_menu(page)
    page.get_by_role("button", name="You also wrote").click()
    expect(page.locator(".related .hit")).to_have_count(5)
    axe(page)


def signed_in(writer: HttpUser, page: Page) -> Page:
    open_as_user(page, writer, "/search")
    expect(
        page.locator("#q")
    ).to_be_focused()  # only after the page has loaded; what is typed before is lost
    return page


def test_arrow_keys_lead_through_what_was_found(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = signed_in(writer, new_page())
    field, hits, keys = page.locator("#q"), page.locator(".hit"), page.keyboard
    keys.press("ArrowDown")  # nothing is found yet
    expect(field).to_be_focused()
    keys.type("heron")
    expect(hits).to_have_count(6)
    keys.press("Shift+ArrowUp")  # with a modifier keys are the browser's: this selects
    expect(field).to_be_focused()
    keys.press("ArrowDown")
    expect(hits.nth(0)).to_be_focused()
    keys.press("ArrowUp")
    expect(field).to_be_focused()
    for place in range(6):
        keys.press("ArrowDown")
        expect(hits.nth(place)).to_be_focused()
    keys.press("ArrowDown")  # the last one: the page may scroll
    expect(hits.nth(5)).to_be_focused()
    keys.press("Escape")
    expect(field).to_be_focused()
    expect(field).to_have_value("heron")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("/")
    expect(field).to_be_focused()
    expect(field).to_have_value("heron")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page).to_have_url(re.compile("/d/2024-03-07"))


def test_who_is_among_the_results_stays_there_when_they_change(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    # The worker of an installed page would take requests past `page.route`.
    page = signed_in(writer, new_page(service_workers="block"))
    field, hits = page.locator("#q"), page.locator(".hit")
    field.fill("heron")  # one request, so none is on its way once the hits are there
    expect(hits).to_have_count(6)
    held: list[Route] = []
    page.route("**/search/typing", lambda route: held.append(route))  # noqa: PLW0108 - sets attributes on it

    def typed(words: str, *keys: str) -> str | None:
        """Type and go on to the results by keys before the answer comes; return which of them has the focus then."""
        with page.expect_request("**/search/typing"):
            field.fill(words)
        for key in keys:
            page.keyboard.press(key)
        expect(page.locator(".hit:focus")).to_have_count(1)
        place = page.evaluate("document.activeElement.getAttribute('href')")
        with page.expect_response("**/search/typing"):
            held.pop().continue_()
        return place

    for words, chips in (("heron in:2024", 1), ("heron weir", 0)):
        place = typed(words, "ArrowDown", "ArrowDown")
        expect(page.locator(".chips li")).to_have_count(chips)
        expect(hits).to_have_count(6)
        expect(page.locator(f'.hit[href="{place}"]')).to_be_focused()
    typed("pelican", "ArrowDown")
    expect(page.locator("#found")).to_contain_text("Nothing found.")
    expect(field).to_be_focused()


def test_an_emptied_field_asks_for_nothing_and_leaves_no_address(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = signed_in(writer, new_page())
    page.keyboard.type("heron")
    expect(page).to_have_url(re.compile("/search/[0-9a-f]{32}$"))
    page.keyboard.press("Escape")  # as browsers empty a field of this kind
    expect(page.locator("#q")).to_have_value("")
    expect(page.locator(".hit")).to_have_count(0)
    expect(page).to_have_url(writer.url + "/search")
    for blank in ("", "  "):
        page.locator("#q").fill(blank)
        page.keyboard.press("Enter")
        expect(page.get_by_text("Ways to search")).to_be_visible()
        expect(page.locator("[data-problem]").first).to_be_empty()
        expect(page).to_have_url(writer.url + "/search")


def test_who_asks_for_more_goes_on_with_what_is_new(
    serve: Callable[..., Server], new_page: Callable[..., Page]
) -> None:
    env = {
        "LLAMORA_LLM__ENABLED": "false",
        "LLAMORA_EMBEDDING__ENABLED": "false",
        "LLAMORA_SEARCH__PAGE_SIZE": "2",
    }
    writer = HttpUser(serve(env=env).start().url).register()
    for day in range(3, 8):
        writer.write(f"The heron, day {day}.", f"2024-03-{day:02}")
    page = signed_in(writer, new_page())
    hits, keys = page.locator(".hit"), page.keyboard
    keys.type("heron")
    expect(hits).to_have_count(2)
    for shown in (2, 4):
        for _ in range(3 if shown == 2 else 2):
            keys.press("ArrowDown")
        expect(page.get_by_role("button", name="Show more")).to_be_focused()
        keys.press("Enter")
        expect(hits.nth(shown)).to_be_focused()
    expect(hits).to_have_count(5)
