"""Two windows and two devices on the same page: what happens in one is seen in the other, on whichever worker."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, open_more_menu
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"
SECOND = 1000
SHOW = """state => {
  Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
SOON = 30 * SECOND  # "about a second" is measured by the bench; a busy machine must not fail a test


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """Two workers: the other window is served by either."""
    env = {
        "LLAMORA_LLM__ENABLED": "false",
        "LLAMORA_EMBEDDING__ENABLED": "false",
        "LLAMORA_SERVER__WORKERS": "2",
    }
    return serve(mode="prod", env=env).start()


@pytest.fixture
def writer(server: Server) -> HttpUser:
    return HttpUser(server.url).register()


def opened(new_page: Callable[..., Page], writer: HttpUser) -> Page:
    page = new_page()
    open_as_user(page, writer, "")
    with page.expect_response(lambda answer: "/session/events" in answer.url):
        page.goto(f"{writer.url}/d/{DAY}")
    return page


def texts(page: Page) -> list[str]:
    return page.locator("article.entry .prose").all_inner_texts()


def keep(page: Page, text: str) -> None:
    page.locator("#write").fill(text)
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.entry .prose", has_text=text)).to_be_visible()


def test_what_is_written_edited_and_deleted_in_one_window_appears_in_the_other(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    here, there = opened(new_page, writer), opened(new_page, writer)
    keep(here, "A heron in the reeds.")
    expect(there.locator("article.entry .prose")).to_have_text(
        ["A heron in the reeds."], timeout=SOON
    )
    keep(there, "And a second one.")
    expect(here.locator("article.entry .prose")).to_have_text(
        ["A heron in the reeds.", "And a second one."], timeout=SOON
    )

    here.get_by_role("link", name="Edit", exact=True).first.click()
    here.locator("article textarea").fill("A heron, asleep.")
    here.keyboard.press("Control+Enter")
    expect(there.locator("article.entry .prose").first).to_have_text(
        "A heron, asleep.", timeout=SOON
    )
    expect(there.locator("article.entry a.edited").first).to_contain_text("edited")

    open_more_menu(here).get_by_role("button", name="Delete").click()
    expect(there.locator("article.entry .prose")).to_have_text(["And a second one."], timeout=SOON)
    here.get_by_role("button", name="Undo").click()
    expect(there.locator("article.entry .prose")).to_have_text(
        ["A heron, asleep.", "And a second one."], timeout=SOON
    )
    # Nothing stands twice, in neither window, once both have heard of everything.
    keep(here, "The last word.")
    expect(there.locator("article.entry .prose").last).to_have_text("The last word.", timeout=SOON)
    assert (
        texts(here) == texts(there) == ["A heron, asleep.", "And a second one.", "The last word."]
    )
    # What came in is as alive as what was there.
    there.get_by_role("link", name="Edit", exact=True).first.click()
    expect(there.locator("article textarea")).to_have_value("A heron, asleep.")


def test_nothing_moves_and_nothing_typed_is_touched(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    ids = [
        writer.write(f"Entry {number}.\n\n" + "A line of it. " * 40, DAY) for number in range(12)
    ]
    page = opened(new_page, writer)
    page.locator("#write").fill("half a thou")
    page.locator("#write").evaluate("field => field.setSelectionRange(4, 6)")
    place = page.locator(f"#e-{ids[8]}")
    place.scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, 40)")
    editing = page.locator(f"#e-{ids[9]}")
    editing.get_by_role("link", name="Edit", exact=True).click()
    editing.locator("textarea").fill("my own words for it")
    before = place.bounding_box()
    # A longer text above what is read, a deletion below it, another text for what is being edited here.
    writer.post(
        f"/e/{ids[0]}", {"text": "Longer.\n\n" + "Many more lines. " * 200, "revision": "1"}
    )
    writer.post(f"/e/{ids[11]}/delete", {"revision": "1"})
    writer.post(f"/e/{ids[9]}", {"text": "What the other window made of it.", "revision": "1"})
    expect(page.locator(f"#e-{ids[0]} > .body > .prose")).to_contain_text("Longer.", timeout=SOON)
    expect(page.locator(f"#e-{ids[11]}")).to_have_count(0, timeout=SOON)
    after = place.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 1  # a page scrolls by whole pixels
    expect(editing.locator("textarea")).to_have_value("my own words for it")
    expect(editing.locator("textarea")).to_be_focused()
    expect(page.locator("#write")).to_have_value("half a thou")
    # Both texts are there for whoever keeps theirs.
    editing.get_by_role("button", name="Keep").click()
    expect(editing.locator(".theirs")).to_contain_text("What the other window made of it.")
    expect(editing.locator("textarea")).to_have_value("my own words for it")


STALE = """async () => {
  const { applyListing } = await import("/static/js/live_updates.js");
  const before = [...document.querySelectorAll("#entries > article")]
    .map(({ id }) => [id.slice(2), "1", id.slice(2), ""]);
  const on = (name, listener) => document.addEventListener(name, listener, { once: true });
  window.stayed = new Promise((resolve) => {
    on("htmx:before:request", () => applyListing(before));
    on("htmx:finally:request", () => {
      const made = document.querySelector("#entries > article:last-child");
      setTimeout(() => setTimeout(() => resolve(made.isConnected)));
    });
  });
}"""


def test_what_was_listed_before_it_was_written_takes_nothing_out(
    serve: Callable[..., Server], new_page: Callable[..., Page]
) -> None:
    """A list of the page that was made before an entry was kept may come after it."""
    server = serve(
        env={"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
    ).start()
    writer = HttpUser(server.url).register()
    writer.write("A heron in the reeds.", DAY)
    page = opened(new_page, writer)
    page.locator("#write").fill("And a second one.")
    page.wait_for_function("() => !document.querySelector('.htmx-request')")
    page.evaluate(STALE)
    page.keyboard.press("Control+Enter")
    assert page.evaluate("window.stayed")
    expect(page.locator("article.entry")).to_have_count(2)


def test_what_is_deleted_elsewhere_while_it_is_edited_goes_once_the_edit_is_given_up(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    entry = writer.write("A heron in the reeds.", DAY)
    page = opened(new_page, writer)
    page.locator(f"#e-{entry}").get_by_text("Edit", exact=True).click()
    field = page.locator(f"#e-{entry} textarea")
    field.fill("A heron, and what was typed here.")
    writer.post(f"/e/{entry}/delete", {})
    writer.write("From the other window.", DAY)
    expect(page.locator("article.entry .prose", has_text="From the other window.")).to_be_visible(
        timeout=SOON
    )
    expect(field).to_have_value("A heron, and what was typed here.")
    field.evaluate("field => { field.value = field.defaultValue; field.blur() }")
    writer.write("And once more.", DAY)
    expect(page.locator(f"#e-{entry}")).to_have_count(0, timeout=SOON)


def test_the_focus_in_what_is_deleted_elsewhere_goes_to_what_stands_beside_it(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    ids = [writer.write(f"Entry {number}.", DAY) for number in range(3)]
    page = opened(new_page, writer)
    page.locator(f"#e-{ids[0]} [data-focus-target]").focus()
    for gone, next_one in ((ids[0], ids[1]), (ids[1], ids[2])):
        writer.post(f"/e/{gone}/delete", {"revision": "1"})
        expect(page.locator(f"#e-{gone}")).to_have_count(0, timeout=SOON)
        expect(page.locator(f"#e-{next_one} [data-focus-target]")).to_be_focused()
    writer.post(f"/e/{ids[2]}/delete", {"revision": "1"})
    expect(page.locator("article.entry")).to_have_count(0, timeout=SOON)
    expect(page.locator("#write")).to_be_focused()


def test_a_trace_that_is_being_named_outlives_an_edit_elsewhere(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    entry = writer.write("A heron in the reeds.", DAY)
    page = opened(new_page, writer)
    place = page.locator(f"#e-{entry}")
    open_more_menu(place).get_by_text("Trace", exact=True).click()
    field = place.get_by_placeholder("A word, or one emoji")
    field.click()
    page.keyboard.type("wat")
    writer.post(f"/e/{entry}", {"text": "A heron, asleep.", "revision": "1"})
    expect(place.locator(".prose")).to_have_text("A heron, asleep.", timeout=SOON)
    expect(field).to_be_focused()
    page.keyboard.type("er")
    expect(field).to_have_value("water")
    page.locator(
        "#write"
    ).focus()  # what is named counts as well when somebody writes elsewhere meanwhile
    writer.post(f"/e/{entry}", {"text": "A heron, awake.", "revision": "2"})
    expect(place.locator(".prose")).to_have_text("A heron, awake.", timeout=SOON)
    expect(field).to_have_value("water")
    field.press("Enter")
    expect(place.locator("a.tag")).to_have_text("#water", timeout=SOON)
    expect(place.locator(".prose")).to_have_count(1)
    expect(place.locator(".body > .actions")).to_have_count(1)
    # With nothing half named, what is shown is new as a whole.
    writer.post(f"/e/{entry}", {"text": "A heron, gone.", "revision": "3"})
    expect(place.locator(".prose")).to_have_text("A heron, gone.", timeout=SOON)


def test_a_window_that_was_away_catches_up(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    first = writer.write("There from the start.", DAY)
    page = opened(new_page, writer)
    page.evaluate(SHOW, "hidden")
    for number in range(3):
        writer.write(f"Written elsewhere {number}.", DAY)
    writer.post(f"/e/{first}/delete", {"revision": "1"})
    expect(page.locator("article.entry")).to_have_count(1)
    page.evaluate(SHOW, "visible")
    expect(page.locator("article.entry .prose")).to_have_text(
        [f"Written elsewhere {number}." for number in range(3)], timeout=SOON
    )


def test_traces_come_and_go_in_the_other_window(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    entry = writer.write("Rain on the #weir.", DAY)
    here, there = opened(new_page, writer), opened(new_page, writer)
    chips = f"#e-{entry} .entry-tags li > .tag"
    box = there.get_by_label("A word, a few words or one emoji")
    open_more_menu(there).get_by_text("Trace", exact=True).click()
    box.fill("half a w")
    open_more_menu(here).get_by_text("Trace", exact=True).click()
    here.get_by_label("A word, a few words or one emoji").fill("heron")
    here.keyboard.press("Enter")
    expect(here.locator(chips)).to_have_text(["#heron", "#weir"])
    expect(there.locator(chips)).to_have_text(["#heron", "#weir"], timeout=SOON)
    expect(box).to_have_value("half a w")
    expect(box).to_be_focused()

    # The focus stays on what it was on; what stands there to be undone stays too.
    there.locator(chips).nth(1).hover()
    there.locator(".tag-popover").get_by_role("button", name="Take it off this entry").click()
    expect(there.locator(chips)).to_have_text(["#heron"])
    expect(here.locator(chips)).to_have_text(["#heron"], timeout=SOON)
    there.locator(chips).first.focus()
    open_more_menu(here).get_by_text("Trace", exact=True).click()
    here.get_by_label("A word, a few words or one emoji").fill("reeds")
    here.keyboard.press("Enter")
    expect(there.locator(chips)).to_have_text(["#heron", "#reeds"], timeout=SOON)
    expect(there.locator(chips).first).to_be_focused()
    there.get_by_role("button", name="Undo").click()
    expect(here.locator(chips)).to_have_text(["#heron", "#reeds", "#weir"], timeout=SOON)

    # A trace that is called otherwise, on its own page: so it is on every page that shows it.
    path = here.locator(chips).first.get_attribute("href")
    writer.post(f"{path}/name", {"name": "grey heron"})
    for page in (here, there):
        expect(page.locator(chips)).to_have_text(["#grey heron", "#reeds", "#weir"], timeout=SOON)
        expect(page.locator("article.entry")).to_have_count(1)


def test_a_month_that_is_read_is_in_step_and_moves_nothing(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    ids = [
        writer.write(f"Day {day}.\n\n- [ ] a box\n\n" + "A line. " * 300, f"2024-03-{day:02}")
        for day in (1, 12, 20)
    ]
    page = new_page()
    open_as_user(page, writer, "")
    with page.expect_response(lambda answer: "/session/events" in answer.url):
        page.goto(f"{writer.url}/m/2024-03")
    box = page.locator(f"#tasks-{ids[1]} input[name=box]")
    box.focus()
    box.evaluate("box => scrollBy(0, box.getBoundingClientRect().top - 60)")
    before = box.bounding_box()
    writer.write("Between two of them.", "2024-03-05")
    expect(page.locator("#d-2024-03-05")).to_have_count(1, timeout=SOON)
    after = box.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 1
    expect(box).to_be_focused()
    writer.post(f"/e/{ids[2]}", {"text": "Another text for it.", "revision": "1"})
    expect(page.locator(".day-section .prose").last).to_have_text(
        "Another text for it.", timeout=SOON
    )
    writer.post(f"/e/{ids[0]}/delete", {"revision": "1"})
    expect(page.locator("#d-2024-03-01")).to_have_count(0, timeout=SOON)
    expect(box).to_be_focused()
    box.check()  # it is as alive as it was
    expect(box).to_be_checked()
    writer.write("Of another month.", "2024-04-01")
    writer.write("The last of this one.", "2024-03-31")
    expect(page.locator(".day-section .prose").last).to_have_text(
        "The last of this one.", timeout=SOON
    )
    expect(page.get_by_text("Of another month.")).to_have_count(0)
    expect(box).to_be_checked()
