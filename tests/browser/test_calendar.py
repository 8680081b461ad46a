"""The calendar, midnight and You in a real browser; the server keeps its sessions' keys in cookies here."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, register, requested_group
from tests.server_process import HttpUser, Server

COOKIES = {
    "LLAMORA_SESSION__MODE": "cookie",
    "LLAMORA_SESSION__IDLE_TTL": "86400",  # where the clock is put on to midnight, nobody is away
    "LLAMORA_LLM__ENABLED": "false",
    "LLAMORA_EMBEDDING__ENABLED": "false",
}
NEW = "four unrelated words: kelp anvil dormouse"
TOUCHED = 44  # CSS pixels: WCAG 2.2, 2.5.5


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    serve: Callable[..., Server],
    shared_server: Callable[..., Server],
) -> Server:
    own = getattr(request, "param", "") == "own"
    return serve(env=COOKIES).start() if own else shared_server(COOKIES)


@pytest.fixture
def writer(server: Server) -> HttpUser:
    writer = register(server)
    for day in (3, 4, 12):
        writer.write("Three herons after the storm.", f"2024-03-{day:02}")
    return writer


def opened(
    new_page: Callable[..., Page], writer: HttpUser, path: str, width: int = 1280, **options: object
) -> Page:
    page = new_page(**options)
    page.set_viewport_size({"width": width, "height": 844})
    open_as_user(page, writer, path)
    return page


def test_by_key(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    page = opened(new_page, writer, "/d/2024-03-12")
    calendar = page.locator("#calendar")
    expect(calendar).to_be_hidden()
    page.keyboard.press("c")
    expect(calendar).to_be_visible()
    expect(page.get_by_role("link", name="Tuesday 12 March 2024, has entries")).to_be_focused()
    expect(calendar.locator(".written")).to_have_count(3)
    axe(page)
    page.keyboard.press("Escape")
    expect(calendar).to_be_hidden()
    expect(page.locator("h1")).to_contain_text("12 March 2024")

    # Another month takes its place; the page under it stays.
    page.keyboard.press("c")
    calendar.get_by_role("link", name="Previous month, February").click()
    expect(calendar.get_by_role("heading")).to_have_text("February 2024")
    expect(calendar.get_by_role("columnheader")).to_have_count(7)
    expect(page).to_have_url(re.compile("/d/2024-03-12$"))
    calendar.get_by_role("link", name="Thursday 29 February 2024").click()
    expect(page).to_have_url(re.compile("/d/2024-02-29$"))

    for key, place in (("]", "2024-03-01"), ("[", "2024-02-29"), ("t", "today")):
        page.wait_for_load_state()
        page.keyboard.press(key)
        expect(page).to_have_url(re.compile(f"/d/{place}$"))

    # While writing they are letters; out of the empty field they are keys again.
    field = page.get_by_role("textbox", name="Write an entry")
    expect(field).to_be_focused()
    page.keyboard.type("c[]t")
    expect(field).to_have_value("c[]t")
    expect(calendar).to_be_hidden()
    field.fill("")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(calendar).to_be_visible()
    expect(calendar.locator("[aria-current=date]")).to_be_focused()
    calendar.get_by_label("Go to a date").fill("12 March 2024")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/d/2024-03-12$"))


def test_without_javascript(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = opened(new_page, writer, "/d/2024-03-12", java_script_enabled=False)
    page.get_by_role("link", name="Calendar, March 2024").click()
    expect(page).to_have_url(re.compile("/calendar/2024-03$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("March 2024")
    page.get_by_role("link", name="Next month, April").click()
    page.get_by_label("Go to a date").fill("the day the heron came")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.get_by_role("alert").first).to_contain_text(
        "That is not a date the calendar knows."
    )
    page.get_by_label("Go to a date").fill("4 March 2024")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page).to_have_url(re.compile("/d/2024-03-04$"))
    page.goto(writer.url + "/calendar")
    page.get_by_label("Or choose one").fill("2024-03-03")
    page.get_by_role("button", name="Go to the chosen day").click()
    expect(page).to_have_url(re.compile("/d/2024-03-03$"))


def test_by_touch(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    page = opened(new_page, writer, "/d/2024-03-12", 390, has_touch=True, is_mobile=True)
    expect(page.locator(".days a")).to_have_text(
        [re.compile("‹"), re.compile("March 2024"), re.compile("›")]
    )
    assert all_within(page), "the page is wider than the screen"
    assert too_small(page, ".days a, .main-nav [href='/you'], .bar a") == []
    page.locator(".days .month").tap()
    expect(page.locator("#calendar")).to_be_visible()
    assert too_small(page, "#calendar a, #calendar button, #calendar input") == []
    axe(page)
    page.get_by_role("link", name="Monday 4 March 2024, has entries").tap()
    expect(page).to_have_url(re.compile("/d/2024-03-04$"))
    page.goto(writer.url + "/calendar/2024-03")
    assert all_within(page)
    assert too_small(page, "main a, main button, main input") == []
    axe(page)


def all_within(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def too_small(page: Page, selector: str) -> list[str]:
    return page.evaluate(
        """([selector, least]) => [...document.querySelectorAll(selector)]
            .filter((e) => e.type !== "hidden")
            .map((e) => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])
            .filter(([, box]) => box.width < least || box.height < least)
            .map(([html, box]) => `${html} ${box.width} x ${box.height}`)""",
        [selector, TOUCHED - 0.5],
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_midnight_passes_while_somebody_writes(
    writer: HttpUser, new_page: Callable[..., Page], width: int
) -> None:
    assert (
        writer.post("/you/lock-after", {"minutes": "0"}).status_code < 400
    )  # as long as the server allows: a day here
    page = opened(new_page, writer, "", width)
    page.clock.install()
    page.goto(writer.url + "/d/today")
    day = date.fromisoformat(
        (page.locator("#composer").get_attribute("action") or "").split("/")[2]
    )
    field, line = page.locator("#write"), page.locator(".new-day-note")
    field.fill("half a line of it")
    expect(line).to_be_hidden()
    with page.expect_response("**/drafts"):
        page.clock.run_for(2000)
    expect(page.locator(".htmx-request")).to_have_count(0)
    boxes = places(page)

    over = datetime.combine(
        day + timedelta(days=1), datetime.min.time(), ZoneInfo("Europe/Berlin")
    ).astimezone(UTC)
    left = (over - datetime.now(UTC)).total_seconds()
    if left > 120:
        page.clock.fast_forward(int((left - 60) * 1000))
        expect(line).to_be_hidden()
    page.clock.fast_forward(180_000)
    expect(line).to_be_visible()
    expect(line).to_have_text("A new day has begun")
    expect(line).to_have_attribute("href", "/d/today")
    assert places(page) == boxes  # nothing moved
    expect(field).to_have_value("half a line of it")
    expect(field).to_be_focused()
    field.press("Control+Enter")
    expect(page.locator("article.entry")).to_contain_text("half a line of it")
    assert "half a line of it" in writer.get(f"/d/{day}").text
    expect(line).to_be_visible()


def places(page: Page) -> list[object]:
    return page.evaluate(
        """() => [scrollY, ...["h1", "#composer", "#write", "#composer .main"].map(
            (s) => Object.values(document.querySelector(s).getBoundingClientRect().toJSON()))]"""
    )


@pytest.mark.parametrize("server", ["own"], indirect=True)
def test_you(
    server: Server, writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    page = opened(new_page, writer, "/you")
    elsewhere = HttpUser(server.url, name=writer.name)
    assert elsewhere.sign_in().status_code == 303
    expect(page.get_by_text("You have not confirmed yours")).to_be_visible()
    for summary in page.locator("main summary").all():
        summary.click()
    axe(page)
    page.get_by_label("The passphrase now").fill("not this one")
    page.get_by_label("The new one").fill("hunter2")
    expect(page.locator("#strength")).to_contain_text("Guessed")
    page.get_by_label("The new one").fill(NEW)
    expect(page.locator("#strength")).to_contain_text("ard to guess")
    page.locator("form[action='/you/passphrase'] button.main").click()
    expect(page.locator("#passphrase-problem")).to_have_text(
        "That is not the passphrase. Look for a slip and type it again."
    )
    expect(page.get_by_label("The passphrase now")).to_be_focused()
    axe(page)
    page.get_by_label("The passphrase now").fill(writer.passphrase)
    page.get_by_label("The new one").fill(NEW)
    page.locator("form[action='/you/passphrase'] button.main").click()
    expect(page.get_by_role("status").filter(has_text="The passphrase is changed.")).to_be_visible()
    assert elsewhere.get("/you").status_code == 303

    page.get_by_text("Make a new code").click()
    page.locator('form[action="/you/recovery-code"] input[name=passphrase]').fill(NEW)
    page.get_by_role("button", name="Make it").click()
    code = page.locator(".code-shown").inner_text()
    assert re.sub(r"\W", "", code) != re.sub(r"\W", "", writer.recovery_code)
    page.locator("#part").fill(requested_group(page, code))
    page.get_by_role("button", name="I have it").click()
    expect(page).to_have_url(re.compile("/d/today"))
    page.goto(server.url + "/you")
    expect(page.get_by_text("You have not confirmed yours")).to_have_count(0)
    assert server.stop() == 0
    log = server.log.read_text()
    for secret in (NEW, writer.passphrase, code, *code.split("-")):
        assert secret not in log
