"""Settings in a real browser: seen at once, here and in every other window, by keyboard, and in both directions."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, register
from tests.conftest import HttpUser, Server

LONG = 30_000  # milliseconds, for a machine that is busy


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server()


@pytest.fixture
def writer(server: Server) -> HttpUser:
    return register(server)


def look(page: Page, name: str) -> object:
    return page.evaluate("name => document.documentElement.dataset[name]", name)


def test_a_choice_is_seen_at_once_here_and_in_other_windows(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page, phone = new_page(color_scheme="light"), new_page(color_scheme="light")
    open_as_user(phone, writer, "/d/today")
    open_as_user(page, writer, "/you")
    page.get_by_label("dark", exact=True).check(force=True)
    expect(page.locator("#saved-page")).to_have_text("Kept.", timeout=LONG)
    expect(phone.locator("html")).to_have_attribute("data-theme", "dark", timeout=LONG)
    page.get_by_label("largest", exact=True).check(force=True)
    expect(phone.locator("html")).to_have_attribute("data-size", "152", timeout=LONG)
    for each in (page, phone):
        assert look(each, "theme") == "dark"
        assert each.evaluate("getComputedStyle(document.documentElement).fontSize") == "24.32px"
        assert each.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    phone.reload()
    assert look(phone, "theme") == "dark"


def test_only_what_was_changed_is_posted(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = new_page()
    open_as_user(page, writer, "/you")
    with page.expect_request("**/you/settings") as request:
        page.get_by_label("keeps the entry", exact=True).check(force=True)
    body = request.value.post_data
    assert body is not None
    assert sorted(part.split("=")[0] for part in body.split("&")) == ["csrf", "enter", "section"]


def test_choices_by_keyboard(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = new_page()
    open_as_user(page, writer, "/you")
    page.get_by_label("as the system").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("light", exact=True)).to_be_focused()
    expect(page.locator("#saved-page")).to_have_text("Kept.", timeout=LONG)
    page.reload()
    expect(page.get_by_label("light", exact=True)).to_be_checked()


def test_enter_keeps_the_entry_where_it_is_wanted(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    open_as_user(page, writer, "/d/today")
    field = page.get_by_label("Write an entry")
    field.fill("A heron")
    field.press("Enter")
    expect(field).to_have_value("A heron\n")
    page.goto(writer.url + "/you")
    page.get_by_label("keeps the entry", exact=True).check(force=True)
    expect(page.locator("#saved-writing")).to_have_text("Kept.", timeout=LONG)
    page.goto(writer.url + "/d/today")
    field.fill("A heron")
    field.press("Shift+Enter")
    expect(field).to_have_value("A heron\n")
    field.press("Enter")
    expect(page.locator("article .prose", has_text="A heron")).to_be_visible(timeout=LONG)


def test_single_letters_do_nothing_where_they_are_not_wanted(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    open_as_user(page, writer, "/you")
    page.get_by_label("do nothing", exact=True).check(force=True)
    expect(page.locator("#saved-writing")).to_have_text("Kept.", timeout=LONG)
    expect(page.locator("html")).to_have_attribute("data-letters", "off", timeout=LONG)
    page.locator("h1").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") != "q"
    page.get_by_label("do something", exact=True).check(force=True)
    expect(page.locator("html")).to_have_attribute("data-letters", "on", timeout=LONG)
    page.locator("h1").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"


def test_the_language_is_shown_anew(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = new_page()
    open_as_user(page, writer, "/you")
    page.get_by_label("Deutsch").check(force=True)
    expect(page.get_by_role("heading", name="Die Seite")).to_be_visible(timeout=LONG)
    assert page.evaluate("document.documentElement.lang") == "de"
    expect(page.get_by_label("Deutsch")).to_be_focused()


def test_a_browser_in_another_zone_is_asked(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    home, away = new_page(timezone_id="Europe/Berlin"), new_page(timezone_id="Asia/Tokyo")
    for page in (home, away):
        open_as_user(page, writer)
    expect(away.locator("body")).to_contain_text("Tokyo", timeout=3_000)
    expect(home.locator("body")).not_to_contain_text("Tokyo")
    axe(away)
    away.get_by_role("button", name="Stay with Europe/Berlin").click()
    expect(away.get_by_text("Tokyo")).to_be_hidden()
    away.reload()
    expect(away.get_by_text("Tokyo")).to_be_hidden()
    elsewhere = new_page(timezone_id="America/New_York")
    open_as_user(elsewhere, writer)
    elsewhere.get_by_role("button", name="Follow America/New York").click()
    expect(elsewhere.get_by_text("Your browser's time zone")).to_be_hidden()
    elsewhere.goto(elsewhere.url.partition("/d/")[0] + "/you")
    expect(elsewhere.locator("#zone")).to_have_value("America/New_York")


def test_a_zone_with_the_same_days_asks_nothing(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = new_page(timezone_id="Europe/Vienna")
    open_as_user(page, writer)
    expect(page.locator("[data-zone-question]")).to_be_hidden()


def test_settings_without_a_script(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = new_page(java_script_enabled=False)
    open_as_user(page, writer, "/you")
    page.get_by_label("dark", exact=True).check(force=True)
    page.locator("section", has=page.locator("#h-page")).get_by_role("button", name="Keep").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#saved-page")).to_have_text("Kept.")


@pytest.mark.parametrize("theme", ["light", "dark", "contrast"])
def test_axe_has_nothing_to_object_to(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], theme: str
) -> None:
    writer.post("/you/settings", {"theme": theme})
    page = new_page()
    open_as_user(page, writer, "/you")
    axe(page)


@pytest.mark.parametrize("size", ["88", "152"])
def test_no_page_scrolls_sideways_at_any_size_of_the_text(
    writer: HttpUser, new_page: Callable[..., Page], size: str
) -> None:
    writer.post("/you/settings", {"text_size": size})
    writer.write(
        "A heron in the reeds, and a very long word: " + "Donaudampfschifffahrtsgesellschaft" * 3
    )
    page = new_page()
    for width in (320, 360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for path in ("/d/today", "/you", "/search", "/calendar", "/calendar/2026"):
            open_as_user(page, writer, path)
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, (path, width)


def test_a_small_screen_with_the_largest_letters_shows_the_line_and_what_keeps_it(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    writer.post("/you/settings", {"text_size": "152"})
    page = new_page(has_touch=True, is_mobile=True, viewport={"width": 320, "height": 600})
    open_as_user(page, writer, "/d/2024-03-02")
    page.locator("#write").tap()
    page.keyboard.type("A line, and below it\n" * 8 + "the last one")
    bar, composer = page.locator(".bar").bounding_box(), page.locator("#composer").bounding_box()
    assert bar is not None
    assert composer is not None
    assert composer["y"] >= 0
    assert composer["y"] + composer["height"] <= bar["y"]


PLACES = """() => [...document.querySelectorAll(
    "h1, h2, .wordmark, .main-nav, .when, .body, .form-actions, .choices label, .bar a")]
  .map((element) => [element.getBoundingClientRect(), element.className || element.tagName])
  .filter(([box]) => box.width)
  .map(([box, name]) => [name, box.left, document.documentElement.clientWidth - box.right])"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_language_that_runs_the_other_way_turns_the_page_round(
    writer: HttpUser, new_page: Callable[..., Page], width: int
) -> None:
    writer.write("A heron in the reeds.")
    page = new_page()
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/d/today", "/you", "/help", "/calendar"):
        open_as_user(page, writer, path)
        before = page.evaluate(PLACES)
        page.evaluate("document.documentElement.dir = 'rtl'")
        after = page.evaluate(PLACES)
        assert len(before) >= 3
        assert (
            page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            <= 0
        )
        for (name, start, end), (_, left, right) in zip(before, after, strict=True):
            assert (left, right) == pytest.approx((end, start), abs=2), (path, name)


ARABIC = """مرحبا

- [ ] مهمة أولى
- مهمة
- Heron

> اقتباس

| يوم | ليل |
|---|---|
| ا | ب |"""


def test_what_is_written_the_other_way_has_its_marks_on_that_side(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    writer.write(ARABIC)
    page = new_page()
    open_as_user(page, writer)

    def inside(element: str) -> tuple[float, float, float, float]:
        """Where the element lies, and the first text in it."""
        return tuple(
            page.locator(f".prose {element}").evaluate(
                """element => {
                  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
                  let text;
                  do text = texts.nextNode(); while (!text.data.trim());
                  const range = document.createRange();
                  range.selectNodeContents(text);
                  const [own, letters] = [element, range].map(each => each.getBoundingClientRect());
                  return [own.left, own.right, letters.left, letters.right];
                }"""
            )
        )

    box = page.locator(".prose input").bounding_box()
    assert box is not None
    assert inside("li:nth-child(1)")[3] <= box["x"], "the box stands before the words, not on them"
    for element in ("ul", "blockquote"):
        _, right, _, end = inside(element)
        assert end < right - 10, f"room for the mark of {element}"
    _, right, _, end = inside("li:nth-child(3)")
    assert end == pytest.approx(right, abs=1), "what runs another way stands by its mark"
    assert inside("th:nth-child(1)")[2] > inside("th:nth-child(2)")[3]


def test_paper_shows_the_days_alone(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    writer.post("/you/settings", {"theme": "dark", "text_size": "152"})
    writer.write("A heron in the reeds.\n\n- [x] counted", day="2024-03-02")
    page = new_page()
    open_as_user(page, writer, "/print?from=2024-03-01&to=2024-03-31&replies=yes")
    page.emulate_media(media="print")
    expect(page.get_by_text("A heron in the reeds.")).to_be_visible()
    for gone in (".top", ".bar", ".skip", ".days-to-print", "dialog"):
        assert not any(each.is_visible() for each in page.locator(gone).all()), gone
    ink = page.locator(".prose p").first.evaluate("p => getComputedStyle(p).color")
    assert ink == "oklch(0 0 0)", "whatever the theme of the screen"
    for width in (1280, 560):  # the latter is a page of A5
        page.set_viewport_size({"width": width, "height": 800})
        for part in (".when", ".when .edited"):
            box = page.locator(f".entry > {part}").first.bounding_box()
            text = page.locator(".entry .prose").first.bounding_box()
            assert box is not None
            assert text is not None
            assert box["x"] + box["width"] <= text["x"], (
                "time, and date of writing, stand in the margin"
            )
    tick = page.get_by_role("checkbox").evaluate(
        "box => getComputedStyle(box, '::before').printColorAdjust"
    )
    assert tick == "exact", "what is done is ticked on paper, too"
    assert len(page.pdf()) > 10_000


def test_the_palette_leads_to_a_setting_that_can_be_changed_at_once(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    page = new_page(viewport={"width": 390, "height": 700})
    open_as_user(page, writer, "/d/today")
    chosen = page.locator("#palette-results [aria-selected=true]")
    for words, name, label in (
        ("dark", "Colours", "as the system"),
        ("week", "Weeks begin on", "Monday"),
        ("zone", "Time zone", "Your days begin and end in"),
        ("idle", "A session locks", "A session locks without a sign of you"),
        ("openings", "How new days open", "Let new days open with a line"),
    ):
        page.keyboard.press("Control+k")
        page.keyboard.type(words)
        expect(chosen).to_contain_text(name)
        page.keyboard.press("Enter")
        button = page.get_by_role("button", name=label)
        control = button if words == "openings" else page.get_by_label(label, exact=True)
        expect(control).to_be_focused()
        expect(control).to_be_in_viewport()
        box = control.bounding_box()
        assert box is not None
        assert 60 <= box["y"] <= 600, words  # neither at the edge nor under the bar
    page.keyboard.press("Control+k")
    page.keyboard.type("theme")
    expect(chosen).to_contain_text("Colours")
    page.keyboard.press("Enter")
    expect(page.get_by_label("as the system")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("html")).to_have_attribute("data-theme", "light", timeout=LONG)
