"""Traces as somebody uses them: beside an entry, in the index, on a page of their own; by keys, pointer and touch."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import open_as_user, open_more_menu, register
from tests.conftest import HttpUser, Server
from tests.scripted_model import ModelThread, Reply


@pytest.fixture
def writer(shared_server: Callable[..., Server]) -> HttpUser:
    writer = register(shared_server())
    for day in range(3, 9):
        writer.write(f"The #heron stood by the #weir, day {day}.", f"2024-03-{day:02}")
    writer.write("Nothing but #rain and Margaret.", "2024-03-12")
    return writer


def signed_in(writer: HttpUser, page: Page, path: str, width: int = 1280) -> Page:
    page.set_viewport_size({"width": width, "height": 844})
    open_as_user(page, writer, path)
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_by_keys_alone(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = signed_in(writer, new_page(), "/traces", width)
    keys = page.keyboard
    axe(page)
    page.locator("#q").focus()
    with page.expect_response("**/traces"):
        page.locator("#q").fill("her")
    expect(page.locator("#tags li")).to_have_count(1)
    for _ in range(12):
        keys.press("Tab")
        if page.evaluate("document.activeElement.matches('#tags .tag')"):
            break
    expect(page.locator("#tags .tag")).to_be_focused()
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


def test_many_traces_do_not_part_a_text_from_what_can_be_done_with_it(
    writer: HttpUser, new_page: Callable[..., Page]
) -> None:
    few, many = (
        writer.write(f"A line, {word}.", "2024-03-20") for word in ("plain", "with much beside it")
    )
    for number in range(9):
        writer.post(f"/e/{many}/traces", {"name": f"trace {number}"}, fragment=True)
    page = signed_in(writer, new_page(), "/d/2024-03-20")

    def gap(entry: str) -> float:
        text, row = (
            page.locator(f"#e-{entry} {part}").first.bounding_box()
            for part in (".prose p", ".actions")
        )
        assert text is not None
        assert row is not None
        return row["y"] - text["y"] - text["height"]

    expect(page.locator(f"#tags-{many} li")).to_have_count(9)
    assert gap(many) == pytest.approx(gap(few), abs=1)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_box_and_the_popover(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = signed_in(writer, new_page(), "/d/2024-03-12", width)
    keys, chips = page.keyboard, page.locator(".entry-tags li > .tag")
    page.get_by_text("More", exact=True).first.focus()
    keys.press("Enter")
    expect(page.locator("summary", has_text="More")).to_be_focused()
    page.get_by_text("Trace", exact=True).first.focus()
    keys.press("Enter")
    # At once: letters that are typed meanwhile would be keys of the page, and "r" would ask for a reply.
    expect(page.get_by_label("A word, a few words or one emoji")).to_be_focused()
    keys.type("heron")
    keys.press("Enter")
    expect(chips).to_have_text(["#heron", "#rain"])
    axe(page)
    chips.first.focus()
    brief = page.locator(".tag-popover")
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


def test_by_pointer_and_by_touch(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    page = signed_in(writer, new_page(), "/d/2024-03-05")
    page.locator(".entry-tags .tag", has_text="#weir").hover()
    expect(page.locator(".tag-popover")).to_contain_text("On 6 entries")
    page.mouse.move(5, 5)
    expect(page.locator(".tag-popover")).to_have_count(0)
    touched = signed_in(writer, new_page(has_touch=True), "/d/2024-03-05", 390)
    chip = touched.locator(".entry-tags .tag", has_text="#weir")
    chip.tap()
    expect(touched.locator(".tag-popover")).to_contain_text("On 6 entries")
    chip.tap()
    expect(touched).to_have_url(re.compile("/traces/[0-9a-f]+$"))


def test_what_is_suggested_is_chosen_one_by_one(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    writer.write("Then Margaret mended the sail of the boat.", "2024-03-20")
    page = signed_in(writer, new_page(), "/d/2024-03-20")
    open_more_menu(page).get_by_text("Trace", exact=True).click()
    page.get_by_role("button", name="Suggest some").click()
    offered = page.locator(".suggested-tags li")
    expect(offered.filter(has_text="sail")).to_have_count(1)
    axe(page)
    page.get_by_role("button", name="Add sail").click()
    expect(page.locator(".entry-tags li > .tag")).to_have_text(["#sail"])
    page.get_by_role("button", name="Never suggest for this entry: Margaret").click()
    expect(offered.filter(has_text="Margaret")).to_have_count(0)


def walk_to(page: Page, wanted: Locator) -> None:
    """With the Tab key alone to something that is there to be reached."""
    expect(wanted).to_be_visible()
    for _ in range(80):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no key leads to {wanted}")


def press(page: Page, wanted: Locator) -> None:
    walk_to(page, wanted)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_change_and_its_undo_by_keys_alone(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None], width: int
) -> None:
    page = signed_in(writer, new_page(), "/traces", width)
    title, since, chips = page.locator("h1"), page.locator(".tag-usage"), page.locator("#tags .tag")
    problem = page.locator(".changes [role=alert]:not(:empty)")

    def change(label: str, text: str) -> None:
        press(page, page.locator("details.changes > summary"))
        walk_to(page, page.get_by_label(label, exact=True))
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(text)
        page.keyboard.press("Enter")

    def undo() -> None:
        expect(page.locator(".undo [role=status]")).to_be_visible()
        press(page, page.locator(".undo button"))
        expect(page.locator(".undo")).to_have_count(0)

    press(page, chips.filter(has_text="#heron"))
    expect(title).to_have_text("#heron")
    change("Call it", "grey heron")
    expect(title).to_have_text("#grey heron")
    expect(since).to_contain_text("also called #heron")
    undo()
    expect(title).to_have_text("#heron")

    change("Make it part of", "nobody knows it")
    expect(problem).to_have_text("There is no trace of that name.")
    expect(page.get_by_label("Make it part of")).to_be_focused()
    axe(page)
    page.keyboard.type("rain")
    page.keyboard.press("Enter")
    expect(title).to_have_text("#rain")
    expect(since).to_contain_text("On 7 entries")
    undo()
    expect(title).to_have_text("#heron")
    expect(since).to_contain_text("On 6 entries")

    change("Also call it", "stork")
    expect(since).to_contain_text("also called #stork")
    press(page, page.locator("details.changes > summary"))
    press(page, page.get_by_role("button", name="No longer call it #stork"))
    expect(since).not_to_contain_text("stork")
    undo()
    expect(since).to_contain_text("also called #stork")

    press(page, page.locator("details.changes > summary"))
    press(page, page.get_by_role("button", name="Hide it from the index"))
    expect(since).to_contain_text("hidden")
    axe(page)
    page.goto(writer.url + "/traces")
    expect(chips).to_have_text(["#rain", "#weir"])
    press(page, page.get_by_role("link", name="Hidden ones"))
    expect(chips).to_have_text(["#heron"])
    axe(page)
    press(page, chips)
    press(page, page.locator("details.changes > summary"))
    press(page, page.get_by_role("button", name="Show it in the index again"))
    expect(since).not_to_contain_text("hidden")

    press(page, page.locator("details.changes > summary"))
    press(page, page.get_by_role("button", name="Take it off every entry"))
    expect(title).to_have_text("Traces")
    expect(chips).to_have_text(["#rain", "#weir"])
    axe(page)
    undo()
    expect(chips).to_have_text(["#heron", "#rain", "#weir"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_summary_is_the_models_and_goes_with_its_entries(
    server: Server, model: ModelThread, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    writer = HttpUser(server.url).register()
    first = writer.write("A heron stood on the #weir all morning.", "2024-03-03")
    second = writer.write("Today the heron of last winter came back to the #weir.", "2024-07-09")
    model.model.script(
        Reply(
            ["You saw a heron. [1] You like birds. “Today the heron of last winter came back”. [2]"]
        )
    )
    page = signed_in(writer, new_page(), "/traces", 390)
    press(page, page.locator("#tags .tag"))
    summary = page.locator("#summary")
    press(page, summary.get_by_role("button", name="Sum up"))
    expect(summary.locator(".prose")).to_have_text(
        "You saw a heron.1 “Today the heron of last winter came back” (in your entries, word for word).2"
    )  # what rests on none is out
    expect(summary.locator(".receipt")).to_contain_text("summed up by scripted")
    expect(summary.locator("mark")).to_have_text("Today the heron of last winter came back")
    cites = summary.locator(".cite a")
    for cite, entry in zip(cites.all(), (first, second), strict=True):
        expect(cite).to_have_attribute("href", re.compile(f"#e-{entry}$"))
    assert len(model.model.chat_requests) == 1
    axe(page)
    page.set_viewport_size({"width": 1280, "height": 844})
    axe(page)
    press(page, cites.nth(1))
    expect(page).to_have_url(re.compile(f"/d/2024-07-09#e-{second}$"))

    # One of its entries says something else: so what was said of them is gone.
    press(page, page.get_by_role("link", name="Edit", exact=True))
    page.locator("article textarea").press("ControlOrMeta+End")
    page.keyboard.type(" So did the rain.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.entry .prose")).to_contain_text("So did the rain.")
    page.goto(writer.url + "/traces")
    press(page, page.locator("#tags .tag"))
    expect(summary.get_by_role("button", name="Sum up")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("You saw a heron")
    assert len(model.model.chat_requests) == 1
