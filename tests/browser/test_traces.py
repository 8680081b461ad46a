"""Traces as somebody uses them: beside an entry, in the index, on a page of their own; by keys, pointer and touch."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import enter, more
from tests.conftest import Server, Writer


@pytest.fixture
def writer(serve: Callable[..., Server]) -> Writer:
    env = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
    writer = Writer(serve(env=env).start().url).register()
    for day in range(3, 9):
        writer.write(f"The #heron stood by the #weir, day {day}.", f"2024-03-{day:02}")
    writer.write("Nothing but #rain and Margaret.", "2024-03-12")
    return writer


def signed_in(writer: Writer, page: Page, path: str, width: int = 1280) -> Page:
    page.set_viewport_size({"width": width, "height": 844})
    enter(page, writer, path)
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_by_keys_alone(
    writer: Writer, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = signed_in(writer, new_page(), "/traces", width)
    keys = page.keyboard
    axe(page)
    page.locator("#q").focus()
    with page.expect_response("**/traces"):
        page.locator("#q").fill("her")
    expect(page.locator("#traces li")).to_have_count(1)
    for _ in range(12):
        keys.press("Tab")
        if page.evaluate("document.activeElement.matches('#traces .trace')"):
            break
    expect(page.locator("#traces .trace")).to_be_focused()
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("#heron")
    page.locator("details.changes summary").focus()
    keys.press("Enter")
    axe(page)
    page.locator("#change-name").fill("grey heron")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("#grey heron")
    axe(page)
    page.locator(".undo button").focus()
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("#heron")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_box_and_the_popover(
    writer: Writer, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = signed_in(writer, new_page(), "/d/2024-03-12", width)
    keys, chips = page.keyboard, page.locator(".traces li > .trace")
    page.get_by_text("More", exact=True).first.focus()
    keys.press("Enter")
    page.get_by_text("Trace", exact=True).first.focus()
    keys.press("Enter")
    keys.press("Tab")
    keys.type("heron")
    keys.press("Enter")
    expect(chips).to_have_text(["#heron", "#rain"])
    axe(page)
    chips.first.focus()
    brief = page.locator(".brief")
    expect(brief).to_contain_text("On 7 entries")
    expect(brief.locator("li")).to_have_count(3)
    axe(page)
    keys.press("Escape")
    expect(brief).to_have_count(0)
    expect(chips.first).to_be_focused()
    chips.nth(1).focus()
    chips.first.focus()
    expect(brief).to_contain_text("On 7 entries")
    brief.get_by_role("button", name="Take it off this entry").focus()
    keys.press("Enter")
    expect(chips).to_have_text(["#rain"])
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    keys.press("Enter")
    expect(chips).to_have_text(["#heron", "#rain"])


def test_by_pointer_and_by_touch(writer: Writer, new_page: Callable[..., Page]) -> None:
    page = signed_in(writer, new_page(), "/d/2024-03-05")
    page.locator(".traces .trace", has_text="#weir").hover()
    expect(page.locator(".brief")).to_contain_text("On 6 entries")
    page.mouse.move(5, 5)
    expect(page.locator(".brief")).to_have_count(0)
    touched = signed_in(writer, new_page(has_touch=True), "/d/2024-03-05", 390)
    chip = touched.locator(".traces .trace", has_text="#weir")
    chip.tap()
    expect(touched.locator(".brief")).to_contain_text("On 6 entries")
    chip.tap()
    expect(touched).to_have_url(re.compile("/traces/[0-9a-f]+$"))


def test_what_is_suggested_is_chosen_one_by_one(
    writer: Writer, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    writer.write("Then Margaret mended the sail of the boat.", "2024-03-20")
    page = signed_in(writer, new_page(), "/d/2024-03-20")
    more(page).get_by_text("Trace", exact=True).click()
    page.get_by_role("button", name="Suggest some").click()
    offered = page.locator(".suggested li")
    expect(offered.filter(has_text="sail")).to_have_count(1)
    axe(page)
    page.get_by_role("button", name="Add sail").click()
    expect(page.locator(".traces li > .trace")).to_have_text(["#sail"])
    page.get_by_role("button", name="Never suggest for this entry: Margaret").click()
    expect(offered.filter(has_text="Margaret")).to_have_count(0)
