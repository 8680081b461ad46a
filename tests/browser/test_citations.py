"""A reply that cites, in a real browser: the passage beside it, the way to the entry, the receipt, for everybody."""

import re
from collections.abc import Callable
from datetime import timedelta

from playwright.sync_api import Page, expect

from llamora.dates import utc_now
from tests.browser.conftest import open_as_user
from tests.conftest import HttpUser, Server
from tests.scripted_model import ModelThread, Reply

MARCH = "Fog, no one about. The only quarter of an hour that was mine this week, by the river."
SAYS = (
    "In March you called it “The only quarter of an hour that was mine”.[1] You also wrote “I hated every hour of it”."
    " A proverb says “so it goes, all in all”, and there is no [4]."
)


def opened(server: Server, new_page: Callable[..., Page]) -> tuple[HttpUser, Page]:
    writer = HttpUser(server.url).register()
    writer.write(MARCH, day="2026-03-14")
    writer.write("Rain.", day="2026-11-20")
    writer.write("Was there ever a quarter of an hour by the river?", day="2026-11-20")
    page = new_page()
    open_as_user(page, writer, "/d/2026-11-20")
    return writer, page


def test_a_citation_is_beside_the_reply_and_leads_to_the_entry(
    server: Server, model: ModelThread, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    _, page = opened(server, new_page)
    model.model.script(
        Reply([SAYS[at : at + 6] for at in range(0, len(SAYS), 6)], piece_delay=0.01)
    )
    page.locator("article.entry").nth(1).get_by_role("button", name="Reply", exact=True).click()
    reply = page.locator("article.reply")
    expect(reply.locator(".receipt > summary")).to_contain_text("drew on 1 earlier day")
    expect(reply.locator("mark")).to_have_text("The only quarter of an hour that was mine")
    expect(reply.locator(".not-found")).to_have_text("I hated every hour of it")
    expect(reply.locator("small.noted")).to_have_text("(not in your entries)")
    expect(reply.locator(".prose")).to_contain_text(
        "“so it goes, all in all”, and there is no [4]."
    )
    said, source = reply.locator(".prose").bounding_box(), reply.locator(".sources").bounding_box()
    assert said is not None
    assert source is not None
    assert source["x"] > said["x"] + said["width"]  # in the margin
    axe(page)

    reply.locator(".receipt > summary").click()
    expect(reply.locator(".receipt dl")).to_contain_text("no text left it")
    page.locator("article.entry").nth(1).get_by_text("More", exact=True).click()
    page.locator(".ask-day > .text-button").click()
    axe(page)

    page.set_viewport_size({"width": 390, "height": 844})
    said, source = reply.locator(".prose").bounding_box(), reply.locator(".sources").bounding_box()
    assert said is not None
    assert source is not None
    assert source["y"] > said["y"] + said["height"]  # below it
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    axe(page)

    reply.locator(".cite a").click()
    expect(page).to_have_url(re.compile("/d/2026-03-14#e-"))
    color = "e => getComputedStyle(e).backgroundColor"
    assert page.locator(":target .prose").evaluate(color) != page.locator("body").evaluate(color)


def test_the_pages_of_the_model_are_for_everyone(
    server: Server, model: ModelThread, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    _, page = opened(server, new_page)
    model.model.script(Reply(["It rained."]))
    page.locator(".ask-day > .text-button").click()
    page.get_by_role("button", name="Sum up the day").click()
    expect(page.locator("#recap .prose")).to_have_text("It rained.")
    axe(page)
    page.locator("article.entry").first.get_by_text("More", exact=True).click()
    page.locator("#entries").get_by_role("link", name="What would be sent").click()
    expect(page.locator("pre").filter(has_text="Rain.")).to_be_visible()
    axe(page)
    page.goto(server.url + "/you")
    page.get_by_role("button", name="Test it").click()
    expect(page.get_by_role("status").filter(has_text="It answers")).to_be_visible()
    axe(page)
    page.get_by_role("button", name="Let new days open with a line").click()
    page.get_by_role("button", name="Turn replies off").click()
    page.goto(server.url + "/d/2026-11-20")
    expect(page.get_by_role("button", name="Reply")).to_have_count(0)
    axe(page)


def test_a_new_day_opens_with_a_line(
    server: Server, model: ModelThread, new_page: Callable[..., Page]
) -> None:
    writer, page = opened(server, new_page)
    writer.write("The letter is still unsent.", day=(utc_now().date() - timedelta(2)).isoformat())
    writer.post("/you/openings", {"openings": "on"})
    model.model.script(Reply(["The letter was still unsent."]))
    page.goto(server.url + "/d/today")
    expect(page.locator(".opening .prose")).to_have_text("The letter was still unsent.")
    page.reload()
    expect(page.locator(".opening .prose")).to_have_text("The letter was still unsent.")
    assert len(model.model.chat_requests) == 1
