"""A phone: labelled places at the foot, room for fingers, and a keyboard that covers no line being written."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, register
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"
TOUCHED = 44
# As iOS has it: the keyboard makes the visual viewport smaller, and nothing else.
KEYBOARD = """height => {
  Object.defineProperty(visualViewport, "height", {value: innerHeight - height, configurable: true});
  visualViewport.dispatchEvent(new Event("resize"));
}"""


@pytest.fixture
def writer(shared_server: Callable[..., Server]) -> HttpUser:
    return register(shared_server())


@pytest.fixture
def page(writer: HttpUser, new_page: Callable[..., Page]) -> Page:
    for number in range(8):
        writer.write(f"Entry {number}.\n\n- [ ] a box\n\n" + "A line of it. " * 20, DAY)
    page = new_page(has_touch=True, is_mobile=True)
    page.set_viewport_size({"width": 390, "height": 844})
    open_as_user(page, writer, f"/d/{DAY}")
    return page


def foot_of(page: Page, selector: str) -> float:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["y"] + box["height"]


def test_the_keyboard_covers_nothing_that_is_written(page: Page) -> None:
    bar = page.locator(".bar").bounding_box()
    assert bar is not None
    assert foot_of(page, "#composer") <= bar["y"]
    page.locator("#write").tap()
    page.evaluate(KEYBOARD, 336)
    assert foot_of(page, "#composer") <= 844 - 336
    page.keyboard.type("A line, and below it\n" * 12 + "the last one")
    assert foot_of(page, "#composer") <= 844 - 336
    composer = page.locator("#composer").bounding_box()
    assert composer is not None
    assert composer["y"] >= 0
    page.locator("[data-action=alone]").first.tap()
    foot = page.locator("#composer .form-actions").bounding_box()
    assert foot is not None
    assert foot["y"] + foot["height"] <= 844 - 336
    page.locator("[data-action=alone]").first.tap()
    page.evaluate(KEYBOARD, 0)
    expect(page.locator("form.focus-mode")).to_have_count(0)
    assert foot_of(page, "#composer") <= bar["y"]


def test_everything_can_be_touched(
    page: Page, writer: HttpUser, axe: Callable[[Page], None]
) -> None:
    for path in (f"/d/{DAY}", "/m/2024-03", "/calendar/2024", "/calendar/2024-03"):
        page.goto(writer.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        small = page.evaluate(
            """least => [...document.querySelectorAll("a, button, summary, input:not([type=hidden])")]
                .filter((e) => e.checkVisibility({visibilityProperty: true})
                    && !e.closest(".prose, .visually-hidden, .skip"))
                .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
                .filter(([, box]) => box.height && box.height < least)
                .map(([html, box]) => `${html} ${box.height}`)""",
            TOUCHED - 0.5,
        )
        assert small == [], path
        axe(page)
    assert page.locator(".bar a").all_inner_texts() == ["Today", "Search", "Traces"]
    page.get_by_role("link", name="You", exact=True).tap()
    expect(page).to_have_url(f"{writer.url}/you")
    page.get_by_role("link", name="Today").tap()
    expect(page).to_have_url(f"{writer.url}/d/today")


def test_no_word_of_the_head_breaks_on_a_tablet(page: Page) -> None:
    for width in range(760, 1281, 40):
        page.set_viewport_size({"width": width, "height": 900})
        broken = page.evaluate(
            """() => [...document.querySelectorAll(".top :is(.wordmark, .main-nav a)")].filter((link) => {
              const text = document.createRange();
              text.selectNodeContents(link);
              return text.getClientRects().length !== 1;
            }).map((link) => link.textContent)"""
        )
        assert broken == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


IN_SIGHT = """element => {
  const { top, bottom } = element.getBoundingClientRect();
  return top >= 0 && bottom <= document.getElementById("composer").getBoundingClientRect().top;
}"""


@pytest.mark.parametrize("width", [360, 390])
def test_what_is_opened_under_an_entry_is_not_hidden_under_the_composer(
    page: Page, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    for number in (0, 3, 7):
        entry = page.locator("#entries > article").nth(number)
        word = entry.get_by_role("link", name="More")
        # As it stands when the end of the entry has just come up from under the composer.
        word.evaluate(
            """word => scrollBy(0, word.getBoundingClientRect().bottom
               - document.getElementById("composer").getBoundingClientRect().top + 4)"""
        )
        word.tap()
        delete = entry.get_by_role("button", name="Delete")
        expect(delete).to_be_visible()
        page.wait_for_function(IN_SIGHT, arg=delete.element_handle())
        delete.evaluate("row => scrollBy(0, -300)")
        entry.get_by_text("Trace", exact=True).tap()
        suggest = entry.get_by_role("button", name="Suggest some")
        expect(suggest).to_be_visible()
        page.wait_for_function(IN_SIGHT, arg=suggest.element_handle())


TABLE = """| Day | Morning | Noon | Evening | Afterwards |
|---|---|---|---|---|
| Wednesday | porridge and honey | nothing | lentils with onions | https://example.org/a/long/address/of/one |"""


@pytest.mark.parametrize("width", [320, 1280])
def test_no_word_of_a_table_is_broken_and_all_of_it_can_be_reached(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    writer.write(TABLE, DAY)
    page = new_page(viewport={"width": width, "height": 740})
    open_as_user(page, writer, f"/d/{DAY}")
    broken = page.evaluate(
        """() => [...document.querySelectorAll(".prose :is(th, td)")].filter(cell => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          return !/[ :]/.test(cell.textContent) && range.getClientRects().length > 1;
        }).map(cell => cell.textContent)"""
    )
    assert broken == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    last = page.locator(".prose td").last
    page.locator(".prose table").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(last).to_be_in_viewport(ratio=0.95)
    axe(page)
    page.emulate_media(media="print")
    assert page.locator(".prose table").evaluate(
        "table => table.scrollWidth <= table.parentNode.clientWidth + 1"
    )


def test_the_largest_text_breaks_no_month_on_the_narrowest_phone(
    page: Page, writer: HttpUser
) -> None:
    writer.post("/you/settings", {"section": "page", "text_size": "152"})
    page.set_viewport_size({"width": 360, "height": 740})
    for path, month in (("/d/2024-09-12", ".days .month"), ("/calendar/2024-09", ".calendar h1")):
        page.goto(writer.url + path)
        lines = page.locator(month).evaluate(
            """element => {
              const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
              while (texts.nextNode() && !texts.currentNode.data.includes("September"));
              const word = document.createRange();
              word.setStart(texts.currentNode, texts.currentNode.data.indexOf("September"));
              word.setEnd(texts.currentNode, word.startOffset + "September".length);
              return [String(word), word.getClientRects().length];
            }"""
        )
        assert lines == ["September", 1], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    for turn in page.locator(".month-nav a").all():
        expect(turn).to_be_in_viewport(ratio=1)
    inside = page.locator(".month-table td").evaluate_all(
        "cells => cells.every((cell) => (cell.querySelector('span')?.offsetWidth ?? 0) <= cell.offsetWidth)"
    )
    assert inside


def test_what_is_opened_among_the_settings_is_not_hidden_under_the_bar(
    page: Page, writer: HttpUser
) -> None:
    page.goto(f"{writer.url}/you")
    for words, button in (
        ("Change the passphrase", "Change it"),
        ("Download a backup", "Make it and download it"),
    ):
        summary = page.locator("summary", has_text=words)
        summary.evaluate(
            "word => scrollBy(0, word.getBoundingClientRect().bottom - innerHeight + 100)"
        )
        summary.tap()
        pressed = page.locator("details[open]").last.get_by_role("button", name=button)
        page.wait_for_function(
            """button => button.getBoundingClientRect().bottom
               <= document.querySelector(".bar").getBoundingClientRect().top""",
            arg=pressed.element_handle(),
        )
