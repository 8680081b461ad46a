"""The palette and the keys: all of it without a mouse, and none of it while somebody writes."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, register
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"


@pytest.fixture
def writer(shared_server: Callable[..., Server]) -> HttpUser:
    return register(shared_server())


@pytest.fixture
def page(writer: HttpUser, new_page: Callable[..., Page]) -> Page:
    writer.write("First.", DAY)
    writer.write("Second.", DAY)
    page = new_page()
    open_as_user(page, writer, f"/d/{DAY}")
    return page


def arrived(page: Page, path: str) -> None:
    """On that page, and its keys are alive."""
    expect(page).to_have_url(re.compile(path))
    page.wait_for_load_state()


def test_escape_leaves_the_field_of_the_search(page: Page) -> None:
    keys, field = page.keyboard, page.locator("#find")
    keys.press("/")
    expect(field).to_be_focused()
    keys.type("heron")
    keys.press("Escape")
    expect(field).to_have_value("")
    keys.press("Escape")
    expect(field).not_to_be_focused()
    keys.press("n")  # the keys are within reach again
    expect(page.get_by_label("Write an entry")).to_be_focused()


@pytest.mark.parametrize(
    ("key", "code", "shown"),
    [
        ("т", "KeyN", "#write:focus"),  # Russian
        ("מ", "KeyN", "#write:focus"),  # Hebrew
        ("ν", "KeyN", "#write:focus"),  # Greek
        (".", "Slash", "#find:focus"),  # where Russian has its full stop
        ("х", "BracketLeft", "a[href$='2024-03-10']"),
    ],
)
def test_a_key_of_another_layout_is_the_key_in_its_place(
    page: Page, key: str, code: str, shown: str
) -> None:
    event = {"key": key, "code": code, "bubbles": True, "cancelable": True}
    taken = "key => !document.body.dispatchEvent(new KeyboardEvent('keydown', key))"
    assert page.evaluate(taken, event)
    expect(page.locator(shown).first).to_be_attached()


def test_a_letter_of_a_latin_layout_is_what_it_types(page: Page) -> None:
    taken = "key => !document.body.dispatchEvent(new KeyboardEvent('keydown', key))"
    for key, code in (("ü", "BracketLeft"), ("Т", "KeyN"), ("m", "KeyN")):
        event = {"key": key, "code": code, "bubbles": True, "cancelable": True}
        assert not page.evaluate(taken, event | {"shiftKey": key == "Т"})


def test_the_palette_opens_on_a_cyrillic_layout(page: Page) -> None:
    event = {"key": "л", "code": "KeyK", "ctrlKey": True, "bubbles": True, "cancelable": True}
    page.evaluate("key => document.body.dispatchEvent(new KeyboardEvent('keydown', key))", event)
    expect(page.get_by_role("combobox")).to_be_focused()


def test_the_palette_leads_anywhere(
    page: Page, writer: HttpUser, axe: Callable[[Page], None]
) -> None:
    keys, palette = page.keyboard, page.get_by_role("dialog", name="Go to")
    field = page.get_by_role("combobox")
    keys.press("Control+k")
    expect(field).to_be_focused()
    chosen = palette.get_by_role("option", selected=True)
    expect(chosen).to_contain_text("Write")
    expect(field).to_have_attribute("aria-activedescendant", "palette-item-1")
    axe(page)
    keys.press("ArrowDown")
    expect(chosen).to_contain_text("Today")
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    expect(field).to_have_attribute("aria-activedescendant", re.compile("palette-item-[2-9]"))
    keys.press("Escape")
    expect(palette).to_be_hidden()

    keys.press("Control+k")
    keys.type("14 March 2024")
    expect(chosen).to_have_text("Thursday 14 March 2024")
    keys.press("Enter")
    arrived(page, "/d/2024-03-14$")

    # What the page can do itself is done on the page: nothing is left for it.
    keys.press("Control+k")
    keys.type("writ")
    expect(chosen).to_contain_text("Write")
    keys.press("Enter")
    expect(page.get_by_label("Write an entry")).to_be_focused()
    arrived(page, "/d/2024-03-14$")
    keys.press("Control+k")  # nothing is selected in the text: it opens there, too
    keys.type("deleted")
    expect(chosen).to_contain_text("Deleted")
    keys.press("Enter")
    arrived(page, "/deleted$")

    keys.press("Control+k")
    keys.type("second")
    expect(chosen).to_have_text("Search for “second”")
    keys.press("Enter")
    arrived(page, "/search/[0-9a-f]+$")
    expect(page.locator(".hit mark")).to_have_text("Second")


def test_letters_are_keys_where_nobody_writes(page: Page, writer: HttpUser) -> None:
    keys, field = page.keyboard, page.get_by_label("Write an entry")
    keys.press("n")
    expect(field).to_be_focused()
    keys.type("enrf/?")
    expect(field).to_have_value("enrf/?")
    field.fill("")
    keys.press("Escape")
    keys.press("e")
    expect(page.locator("article textarea")).to_have_value("Second.")
    expect(page.locator("article textarea")).to_be_focused()
    keys.press("Escape")
    expect(page.locator("article textarea")).to_have_count(0)
    page.locator("article.entry").first.locator("[data-focus-target]").focus()
    keys.press("e")
    expect(page.locator("article textarea")).to_have_value("First.")
    expect(page.locator("article textarea")).to_be_focused()
    keys.press("Escape")
    expect(page.locator("article textarea")).to_have_count(0)
    keys.press("f")
    expect(page.locator("form.focus-mode")).to_have_count(1)
    keys.press("Escape")
    expect(page.locator("form.focus-mode")).to_have_count(0)
    keys.press("Escape")
    keys.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()

    # With another key held they belong to the browser, and switched off to nobody.
    page.get_by_role("searchbox").blur()
    for chord in ("Control+Shift+e", "Alt+n", "Meta+e"):
        keys.press(chord)
    expect(page.locator("article textarea")).to_have_count(0)
    page.evaluate("document.documentElement.dataset.letters = 'off'")
    for key in "netr?/[":
        keys.press(key)
    assert page.evaluate(
        "document.activeElement === document.body && !document.querySelector('dialog[open]')"
    )
    expect(page).to_have_url(re.compile(f"/d/{DAY}$"))
    keys.press("Control+k")
    expect(page.get_by_role("combobox")).to_be_focused()


def test_a_year_and_a_month_by_key(
    page: Page, writer: HttpUser, axe: Callable[[Page], None]
) -> None:
    page.goto(writer.url + "/calendar/2024")
    expect(page.get_by_role("table")).to_have_count(12)
    link = page.get_by_role("link", name="Tuesday 12 March 2024, 2 words")
    expect(link).to_be_visible()
    axe(page)
    page.get_by_role("link", name="March", exact=True).click()
    expect(page.locator("h1")).to_have_text("March 2024")
    page.wait_for_load_state()
    expect(page.locator(".day-section .prose")).to_have_text(["First.", "Second."])
    axe(page)
    page.keyboard.press("[")
    expect(page.locator("h1")).to_have_text("February 2024")
    page.goto(writer.url + "/calendar/2024")
    page.keyboard.press("]")
    expect(page.locator("h1")).to_have_text("2025")
