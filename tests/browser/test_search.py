"""Search as somebody uses it: by keys alone, with results as one types, and a way back that asks nothing."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Server, Writer


@pytest.fixture
def writer(serve: Callable[..., Server]) -> Writer:
    env = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
    writer = Writer(serve(env=env).start().url).register()
    for day in range(3, 9):
        writer.write(f"The grey heron stood by the weir, day {day}, and I thought of my father.", f"2024-03-{day:02}")
    writer.write("Nothing but rain.", "2024-03-12")
    return writer


@pytest.mark.parametrize("width", [1280, 390])
def test_by_keys_alone(writer: Writer, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int) -> None:
    page = new_page()
    page.set_viewport_size({"width": width, "height": 844})
    page.context.add_cookies([{"name": n, "value": v, "url": writer.url} for n, v in writer.http.cookies.items()])
    page.goto(writer.url + "/search")
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

    page.locator("#q").fill("heron weir")
    page.keyboard.press("Enter")
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


def test_also_written(writer: Writer, new_page: Callable[..., Page], axe: Callable[[Page], None]) -> None:
    page = new_page()
    page.context.add_cookies([{"name": n, "value": v, "url": writer.url} for n, v in writer.http.cookies.items()])
    page.goto(writer.url + "/d/2024-03-05")
    page.locator("article.entry").hover()
    page.locator("article.entry summary", has_text="More").click()
    page.get_by_role("button", name="You also wrote").click()
    expect(page.locator(".related .hit")).to_have_count(5)
    axe(page)
