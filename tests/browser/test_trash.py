"""Earlier versions and deleted entries in a real browser: by key and by touch, and nothing that axe objects to."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, register
from tests.conftest import HttpUser, Server

FINGER = 44  # CSS pixels, as the design has it


@pytest.fixture
def writer(shared_server: Callable[..., Server]) -> HttpUser:
    return register(shared_server())


def test_what_an_entry_said_before_is_read_and_brought_back_by_key(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    entry = writer.write("A heron in the reeds.")
    writer.post(f"/e/{entry}", {"text": "A gull on the roof.", "revision": "1"})
    page = new_page()
    open_as_user(page, writer)
    page.locator(f"#e-{entry}").get_by_role("link", name="edited").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Earlier versions")
    expect(page.locator(".entry-list .prose")).to_have_text("A heron in the reeds.")
    axe(page)
    page.get_by_role("button", name="Bring back").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"#e-{entry} .prose")).to_have_text("A heron in the reeds.")
    page.locator(f"#e-{entry}").get_by_role("link", name="edited").click()
    expect(page.locator(".entry-list .prose")).to_have_text(
        ["A gull on the roof.", "A heron in the reeds."]
    )


def test_erase_now_asks_in_its_place_and_keeps_the_focus(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    entry, other = writer.write("To be erased."), writer.write("To stay.")
    page = new_page()
    open_as_user(page, writer)
    place = page.locator(f"#e-{entry}")
    place.get_by_text("More", exact=True).focus()
    page.keyboard.press("Enter")
    expect(place.locator("summary", has_text="More")).to_be_focused()
    place.get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    expect(place.get_by_role("button", name="Undo")).to_be_focused()
    axe(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(place).to_contain_text("It cannot be brought back.")
    expect(place.get_by_role("link", name="Leave it")).to_be_focused()  # the harmless one
    axe(page)
    page.keyboard.press("Enter")
    expect(place.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(place.get_by_role("link", name="Leave it")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(place).to_have_text("Erased.")
    axe(page)
    page.reload()
    expect(page.locator("article.entry")).to_have_count(1)
    expect(page.locator(f"#e-{other}")).to_contain_text("To stay.")
    assert "To be erased" not in writer.get("/deleted").text


def test_the_deleted_are_reached_by_touch(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    entries = [writer.write("Brought back."), writer.write("Erased.")]
    for entry in entries:
        writer.post(f"/e/{entry}/delete", {"revision": "1"})
    page = new_page(has_touch=True, is_mobile=True)
    page.set_viewport_size({"width": 390, "height": 844})
    open_as_user(page, writer)
    page.goto(writer.url + "/you")
    axe(page)
    page.get_by_role("link", name="See what is deleted").tap()
    expect(page.locator(".entry-list .prose")).to_have_text(["Erased.", "Brought back."])
    axe(page)
    for control in page.locator(".entry-list :is(button, a)").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= FINGER
    page.locator(f"#e-{entries[1]}").get_by_role("link", name="Erase now").tap()
    expect(page.get_by_role("button", name="Erase", exact=True)).to_be_visible()
    axe(page)
    page.get_by_role("button", name="Erase").tap()
    expect(page.locator(".entry-list .prose")).to_have_text(["Brought back."])
    page.get_by_role("button", name="Bring back").tap()
    expect(page.locator(f"#e-{entries[0]}")).to_contain_text("Brought back.")
    page.goto(writer.url + "/deleted")
    expect(page.get_by_text("Nothing is deleted.")).to_be_visible()
    axe(page)
