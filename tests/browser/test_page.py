"""The page for everyone: without JavaScript, by keys alone, on a phone, in little traffic, and clean under axe."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import (
    WITHOUT_MODELS,
    open_as_user,
    open_more_menu,
    register,
    requested_group,
)
from tests.conftest import Server

NAME, PASSPHRASE = "Ada", "seven quiet herons over the weir"
LONG = (
    "# A heading\n\nA word without end: " + "x" * 200 + "\n\n```\n" + "code " * 60 + "\n```\n\n"
    "| a | b | c | d | e | f |\n|---|---|---|---|---|---|\n"
    + "|"
    + " a rather long cell |" * 6
    + "\n\n"
    "https://example.org/" + "path/" * 40 + "\n\n- one\n- [ ] two\n\n> quoted\n"
)
MOST_REQUESTS, MOST_BYTES = 12, 150_000

# Whether the element in focus looks otherwise without it.
SHOWS_FOCUS = """() => {
    const element = document.activeElement;
    const look = () => {
        const { outlineStyle, outlineWidth, boxShadow, borderBottom } = getComputedStyle(element);
        return [outlineStyle, outlineWidth, boxShadow, borderBottom].join();
    };
    const focused = look();
    element.blur();
    const plain = look();
    element.focus();
    return focused !== plain;
}"""


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    serve: Callable[..., Server],
    shared_server: Callable[..., Server],
) -> Server:
    """Without a model; `prod` where a test says so."""
    mode = getattr(request, "param", "dev")
    return shared_server() if mode == "dev" else serve(mode=mode, env=WITHOUT_MODELS).start()


def test_everything_works_without_javascript(server: Server, new_page: Callable[..., Page]) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(server.url + "/register")
    page.locator("#name").fill(NAME)
    page.locator("#passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Begin").click()
    page.locator("#part").fill(requested_group(page, page.locator(".code-shown").inner_text()))
    page.get_by_role("button", name="I have it").click()
    expect(page).to_have_url(re.compile("/d/today"))

    page.locator("#write").fill("The **heron** again.")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("article.entry strong")).to_have_text("heron")
    expect(page.locator("#write")).to_have_value("")

    page.get_by_role("link", name="Edit").click()
    page.locator("article textarea").fill("The **heron** and the weir.")
    page.get_by_role("button", name="Keep").first.click()
    expect(page.locator("article.entry")).to_contain_text("and the weir")

    page.wait_for_load_state()  # finding the fragment, Chromium drops the focus
    page.get_by_role("searchbox").fill("weir")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".hit mark")).to_have_text("weir")
    page.locator(".hit").click()
    expect(page.locator("article.entry")).to_be_visible()

    open_more_menu(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_have_text("Deleted.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("article.entry")).to_be_visible()

    page.goto(server.url + "/you")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto(server.url + "/d/today")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.locator("#name").fill(NAME)
    page.locator("#passphrase").fill(PASSPHRASE)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("article.entry")).to_contain_text("and the weir")


def test_a_very_long_entry_is_read_on_part_by_part_where_one_is(
    server: Server, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    writer = register(server)
    writer.write(
        "".join(
            f"Paragraph {number}. {'The heron stood in the reeds. ' * 30}\n\n"
            for number in range(300)
        )
    )
    writer.write("After it.")
    page = new_page()
    open_as_user(page, writer, "/d/today")
    axe(page)
    long = page.locator("article.entry").first
    for part in (2, 3):
        link = long.get_by_role("link", name=f"Read on: part {part} of 3")
        link.focus()
        place = link.bounding_box()
        page.keyboard.press("Enter")
        head = long.get_by_text(f"Part {part} of 3", exact=True)
        expect(head).to_be_focused()
        assert place is not None
        after = head.bounding_box()
        assert after is not None
        assert abs(after["y"] - place["y"]) < 60  # reading goes on where it was
    expect(long.get_by_role("link", name="Read on")).to_have_count(0)
    numbers = re.findall(r"Paragraph (\d+)\.", long.inner_text())
    assert numbers == [str(number) for number in range(300)]


def test_what_opens_below_an_entry_has_a_page_without_javascript(
    server: Server, new_page: Callable[..., Page]
) -> None:
    writer = register(server)
    writer.write("The heron again.", "2024-03-12")
    page = new_page(java_script_enabled=False)
    open_as_user(page, writer)
    day = re.compile("/d/2024-03-12#e-[0-9a-f]{32}$")
    page.goto(server.url + "/d/2024-03-12")

    open_more_menu(page).get_by_text("Trace", exact=True).click()
    page.get_by_label("A word, a few words or one emoji").fill("heron")
    page.get_by_role("button", name="Add").click()
    expect(page).to_have_url(day)
    expect(page.locator(".entry-tags .tag")).to_have_text("#heron")

    page.get_by_role("link", name="More").click()
    page.get_by_role("button", name="Keep from the model").click()
    expect(page).to_have_url(day)
    expect(page.locator("article.entry .when")).to_contain_text("kept from the model")

    page.get_by_role("link", name="More").click()
    page.get_by_role("button", name="You also wrote").click()
    expect(page.locator("h1")).to_have_text("Near to an entry")
    page.get_by_role("link", name="Back to").click()
    page.get_by_role("link", name="More").click()
    page.get_by_role("link", name="Back to the page").click()
    expect(page).to_have_url(day)


def test_a_first_entry_by_keys_alone(server: Server, new_page: Callable[..., Page]) -> None:
    page = new_page()
    keys = page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(25):
            keys.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                assert page.evaluate(SHOWS_FOCUS), selector
                return
        raise AssertionError(f"Tab never comes to {selector}")

    page.goto(server.url + "/register")
    tab_to("#name")
    keys.type("Ada of the keys")
    tab_to("#passphrase")
    keys.type(PASSPHRASE)
    keys.press("Enter")
    expect(page.locator(".code-shown")).to_be_visible()
    group = requested_group(page, page.locator(".code-shown").inner_text())
    tab_to("#part")
    keys.type(group)
    keys.press("Enter")
    expect(page.locator("#write")).to_be_focused()
    keys.type("Written by keys.")
    keys.press("Control+Enter")
    expect(page.locator("article.entry")).to_contain_text("Written by keys.")
    expect(page.locator("#write")).to_be_focused()
    page.locator("#write").blur()
    keys.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    keys.press("/")
    keys.type("keys")
    keys.press("Enter")
    expect(page.locator(".hit")).to_have_count(1)
    tab_to(".hit")
    keys.press("Enter")
    expect(page.locator("article.entry")).to_be_in_viewport()
    page.wait_for_load_state(
        "networkidle"
    )  # Chromium drops the focus once more when it has found the fragment
    tab_to("article.entry [data-focus-target]")
    keys.press("Enter")
    expect(page.locator("article textarea")).to_be_focused()
    keys.press("Control+A")
    keys.type("Edited by keys.")
    keys.press("Control+Enter")
    expect(page.locator("article.entry .prose")).to_have_text("Edited by keys.")


@pytest.mark.parametrize("server", ["prod"], indirect=True)
def test_the_first_page_is_small(server: Server, new_page: Callable[..., Page]) -> None:
    writer = register(server)
    writer.write("A line.")
    for path, signed_in in (("/sign-in", False), ("/d/today", True)):
        page = new_page()
        if signed_in:
            open_as_user(page, writer, "")
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        sizes: dict[str, int] = {}
        addresses: dict[str, str] = {}
        network.on(
            "Network.responseReceived",
            lambda e: addresses.update({e["requestId"]: e["response"]["url"]}),  # noqa: B023
        )
        network.on(
            "Network.loadingFinished",
            lambda e: sizes.update({e["requestId"]: int(e["encodedDataLength"])}),  # noqa: B023
        )
        page.goto(server.url + path, wait_until="networkidle")
        page.evaluate("document.fonts.ready")
        sent = {addresses[number].removeprefix(server.url): size for number, size in sizes.items()}
        assert path in sent
        assert any(address.endswith(".woff2") for address in sent), sent
        assert len(sent) <= MOST_REQUESTS, sent
        assert sum(sent.values()) <= MOST_BYTES, sent


MANY = 60  # entries of a long day
ADD_SHIFTS = """() => { window.shifted = 0; new PerformanceObserver((list) => { for (const e of list.getEntries())
  if (!e.hadRecentInput) shifted += e.value; }).observe({type: "layout-shift", buffered: true}); }"""
SAME = "([id, top]) => Math.abs(document.getElementById(id)?.getBoundingClientRect().top - top) < 2"


@pytest.fixture
def long_day(server: Server, new_page: Callable[..., Page]) -> Page:
    """A day of many entries of different heights on a narrow screen."""
    writer = register(server)
    for number in range(MANY):
        writer.write(
            f"Entry {number}. " + "Up before the alarm, along the river. " * (number % 7 * 3),
            "2024-03-12",
        )
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    open_as_user(page, writer)
    page.goto(server.url + "/d/2024-03-12")
    expect(page.locator("#write[data-htmx-powered]")).to_be_attached()
    return page


def until(page: Page, holds: str, wanted: object = None) -> None:
    """Waits until a function of the page says so."""
    for _ in range(1200):
        if page.evaluate(holds, wanted):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {holds}, {wanted}")


def most_styled(page: Page, act: Callable[[], object]) -> int:
    """The most elements that the browser had to style at once for something."""
    counts: list[int] = []
    ended: list[bool] = []
    devtools = page.context.new_cdp_session(page)
    devtools.on("Tracing.tracingComplete", lambda _: ended.append(True))
    devtools.on(
        "Tracing.dataCollected",
        lambda part: counts.extend(
            event.get("args", {}).get("elementCount", 0) for event in part["value"]
        ),
    )
    devtools.send(
        "Tracing.start", {"categories": "devtools.timeline", "transferMode": "ReportEvents"}
    )
    act()
    devtools.send("Tracing.end")
    for _ in range(1200):
        if ended:
            break
        page.wait_for_timeout(25)
    assert ended
    assert counts
    return max(counts)


@pytest.mark.parametrize("server", ["prod"], indirect=True)
def test_a_long_day_is_light(long_day: Page) -> None:
    page = long_day
    page.evaluate(ADD_SHIFTS)
    entries = page.locator("#entries")
    assert entries.locator("*").count() <= MANY * 16
    assert entries.locator("[data-htmx-powered]").count() == 0
    assert len(entries.inner_html()) <= MANY * 2_400

    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def layouts() -> int:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in metrics if each["name"] == "LayoutCount")

    page.locator("#write").click()
    page.keyboard.type("warm")
    before, words = layouts(), "Three herons over the weir."
    page.keyboard.type(words)
    expect(page.locator("#write")).to_have_value("warm" + words)
    assert layouts() - before <= 3 * len(words)

    def open_more() -> None:
        page.locator("article.entry").first.get_by_text("More", exact=True).click()
        page.get_by_role("button", name="Keep from the model").wait_for()

    def open_palette() -> None:
        page.keyboard.press("Control+k")
        page.locator("#palette-results [role=option]").first.wait_for()

    assert most_styled(page, open_more) <= 60
    assert most_styled(page, open_palette) <= page.locator("*").count() / 2
    page.keyboard.press("Escape")
    page.mouse.wheel(0, 100_000)
    expect(page.locator("article.entry").last).to_be_in_viewport()
    assert page.evaluate("shifted") == 0


def test_who_comes_back_to_a_long_day_is_where_they_were(long_day: Page) -> None:
    page = long_day
    page.mouse.move(200, 300)
    page.mouse.wheel(0, 7_000)
    until(page, "() => history.state?.at")
    read = page.evaluate("[history.state.at, history.state.top]")
    until(page, SAME, read)
    page.reload()
    until(page, SAME, read)
    page.goto(page.url.partition("/d/")[0] + "/you")
    page.go_back()
    until(page, SAME, read)
    # What is kept comes into sight, however much that was not laid out yet lies between.
    page.locator("#write").fill("One more.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.entry", has_text="One more.")).to_be_in_viewport()


def test_every_page_fits_a_phone_and_satisfies_axe(
    server: Server, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    writer = register(server)
    entry = writer.write(LONG)
    other = writer.write("Deleted soon.")
    writer.post(f"/e/{other}/delete", {})
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 844})

    def check(path: str) -> None:
        if path:
            page.goto(server.url + path)
        for width in (390, 360):
            page.set_viewport_size({"width": width, "height": 844})
            over = page.evaluate(
                "() => [document.scrollingElement.scrollWidth - innerWidth, ...[...document.querySelectorAll('main *')]"
                ".filter(e => e.getBoundingClientRect().right > innerWidth + 1"
                " && !e.closest('pre, table, .visually-hidden'))"
                ".map(e => e.outerHTML.slice(0, 80))]"
            )
            assert over == [0], (path or page.url, width, over)
        axe(page)

    for path in ("/sign-in", "/register", "/reset", "/d/2026-02-30"):
        check(path)
    page.goto(server.url + "/sign-in")
    page.locator("#name").fill(writer.name)
    page.locator("#passphrase").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("do not go together")
    check("")
    open_as_user(page, writer, "")
    for path in (
        "/d/today",
        "/d/0001-01-01",
        "/d/9999-12-31",
        f"/e/{entry}/edit",
        "/search",
        "/you",
        "/nowhere",
    ):
        check(path)
    page.goto(server.url + "/search")
    page.locator("#q").fill("word without end")
    page.locator("#q").press("Enter")
    expect(page.locator(".hit")).to_have_count(1)
    check("")
    page.goto(server.url + "/d/today")
    page.get_by_role("link", name="Edit").click()
    expect(page.locator("form.edit")).to_be_visible()
    writer.post(f"/e/{entry}", {"text": LONG + "From elsewhere.", "revision": "1"})
    page.locator("form.edit textarea").fill(LONG + "From here.")
    page.locator("form.edit").get_by_role("button", name="Keep").click()
    expect(page.locator(".theirs")).to_be_visible()
    check("")


def test_no_column_of_text_is_narrow_on_a_wide_screen(
    server: Server, new_page: Callable[..., Page]
) -> None:
    """Thirty rem at least: a page between a grid and its subgrid once set a month in its margin."""
    writer = register(server)
    text = "The heron stood in the shallows, and nobody was in a hurry. " * 8
    writer.write(text, "2026-03-04")
    page = new_page()
    open_as_user(page, writer)
    paths = ["/d/2026-03-04", "/m/2026-03"]
    narrow = {}
    for path in paths:
        page.goto(server.url + path)
        prose = page.locator("main .prose").first
        expect(prose).to_contain_text("heron")
        rem = prose.evaluate(
            "each => each.getBoundingClientRect().width"
            " / parseFloat(getComputedStyle(document.documentElement).fontSize)"
        )
        if rem < 30:
            narrow[path] = rem
    assert narrow == {}
