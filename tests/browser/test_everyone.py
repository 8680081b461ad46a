"""For everyone: a day without a mouse, also at 200 %; what a screen reader is told, and by what names."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import open_as_user, requested_group
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

FOG = "Fog, no one about. The only quarter of an hour that was mine this week, by the river."
QUESTION = "Was there ever a quarter of an hour by the river?"
SAYS = "You called it “The only quarter of an hour that was mine”.[1] It was by the river."
# A window of 1280 x 800; at 200 % its pixels are twice as large, and half as many fit.
ZOOMS = {
    100: {"viewport": {"width": 1280, "height": 800}},
    200: {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
}
# What is cut off: wider than the window, beyond its edges, or of more lines than its own box shows. What is for screen
# readers alone is clipped to nothing, and what scrolls by itself is reached all the same.
CUT_OFF = """() => {
  const seen = (e) => e.checkVisibility({visibilityProperty: true}) && getComputedStyle(e).clipPath === "none";
  const scrolls = ({parentElement: p}) => p && (/auto|scroll/.test(getComputedStyle(p).overflowX) || scrolls(p));
  const named = (e) => e.outerHTML.slice(0, 90);
  const root = document.documentElement;
  const all = [...document.querySelectorAll("body *")].filter((e) => seen(e) && !e.closest(".visually-hidden"));
  const beyond = all.filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > root.clientWidth + 1 || box.left < -1) && !scrolls(e);
  });
  const clipped = all.filter((e) => /hidden|clip/.test(getComputedStyle(e).overflow) && !e.matches("textarea")
    && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1));
  const sideways = root.scrollWidth > root.clientWidth ? ["the page scrolls sideways"] : [];
  return [...sideways, ...[...beyond, ...clipped].map(named)];
}"""
# Whether what has the focus is in sight and shows that it has it. A radio button that is drawn as its label is that.
FOCUS = """() => {
  const e = document.activeElement;
  const box = (e.labels?.[0] && e.matches("[type=radio]") ? e.labels[0] : e).getClientRects()[0];
  const [x, y] = [box.left + box.width / 2, box.top + Math.min(box.height, 40) / 2];
  const at = document.elementFromPoint(x, y);
  const style = getComputedStyle(e);
  const shows = style.outlineStyle !== "none" || style.boxShadow !== "none" || e.matches("input, textarea, .entry");
  return {inSight: Boolean(at) && (e.contains(at) || at.contains(e) || at.closest("label")?.control === e), shows};
}"""


# What live regions say, piece by piece as they change, and with what the reply said by then.
LISTEN = """() => {
  window.heard = [];
  const live = "[aria-live=polite], [aria-live=assertive], [role=log], [role=status], [role=alert]";
  new MutationObserver((changes) => {
    for (const {target, addedNodes} of changes) {
      const region = (target.nodeType === 1 ? target : target.parentElement)?.closest(live);
      if (!region || region.ariaLive === "off") continue;
      const said = target.nodeType === 3 ? target.data : [...addedNodes].map((node) => node.textContent).join("");
      if (said.trim()) heard.push(said);
    }
  }).observe(document.body, {childList: true, characterData: true, subtree: true});
}"""
CONTROLS = set(
    "button link textbox searchbox combobox checkbox radio switch slider spinbutton option menuitem tab listbox dialog "
    "image DisclosureTriangle PopUpButton Date DateTime InputTime".split()
)
REGIONS = {"navigation", "region", "complementary", "article", "radiogroup"}


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """By Tab to something, where every stop on the way is in sight and seen to have the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue  # around the end of the page
        focus = page.evaluate(FOCUS)
        assert focus == {"inSight": True, "shows": True}, page.evaluate(
            "document.activeElement.outerHTML"
        )
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab never comes to {selector}")


def arrived(page: Page, address: str) -> None:
    """On that page, its keys alive, and nothing of it cut off."""
    expect(page).to_have_url(re.compile(address))
    page.wait_for_load_state()
    assert page.evaluate(CUT_OFF) == [], page.url


@pytest.mark.parametrize("zoom", ZOOMS)
def test_a_first_day_without_a_mouse(
    server: Server,
    model: ModelThread,
    new_page: Callable[..., Page],
    axe: Callable[[Page], None],
    zoom: int,
) -> None:
    page = new_page(**ZOOMS[zoom])
    keys, field, focused = page.keyboard, page.locator("#write"), page.locator(":focus")
    page.goto(server.url)
    arrived(page, "/register")
    tab_to(page, "#name")
    keys.type("Ada")
    tab_to(page, "#passphrase")
    keys.type("seven quiet herons over the weir")
    keys.press("Enter")
    arrived(page, "/register|/recovery-code")
    group = requested_group(page, page.locator(".code-shown").inner_text())
    tab_to(page, "#part")
    keys.type(group)
    keys.press("Enter")

    # A line on the day before, then a question today.
    arrived(page, "/d/today")
    expect(field).to_be_focused()
    keys.press("Escape")
    keys.press("[")
    arrived(page, r"/d/\d{4}-\d\d-\d\d$")
    yesterday = page.url
    keys.press("n")
    write(page, FOG)
    keys.press("Escape")
    keys.press("t")
    arrived(page, "/d/today")
    expect(field).to_be_focused()
    write(page, QUESTION)
    assert page.evaluate(CUT_OFF) == []
    axe(page)

    # A reply, and where it has that from.
    model.model.script(Reply([SAYS[at : at + 6] for at in range(0, len(SAYS), 6)]))
    tab_to(page, "article.entry [formaction$='/replies']")
    keys.press("Enter")
    expect(page.locator(".reply .receipt > summary")).to_be_visible()
    assert page.evaluate(CUT_OFF) == []
    tab_to(page, ".reply .cite a")
    keys.press("Enter")
    arrived(page, re.escape(yesterday) + "#e-")
    expect(page.locator(":target")).to_be_in_viewport()

    # Search, and on to another day.
    keys.press("/")
    expect(focused).to_have_attribute("type", "search")
    keys.type("quarter hour")
    keys.press("Enter")
    expect(page.locator(".hit").first).to_be_visible()
    arrived(page, "/search")
    tab_to(page, ".hit")
    keys.press("Enter")
    arrived(page, "/d/.*#")
    keys.press("Control+k")
    expect(page.get_by_role("combobox")).to_be_focused()
    keys.type("14 March 2024")
    expect(page.get_by_role("option", selected=True)).to_have_text("Thursday 14 March 2024")
    assert page.evaluate(CUT_OFF) == []
    keys.press("Enter")
    arrived(page, "/d/2024-03-14$")

    # Out.
    tab_to(page, ".main-nav a[href='/you']")
    keys.press("Enter")
    arrived(page, "/you")
    tab_to(page, "form[action='/sign-out'] button", most=150)
    keys.press("Enter")
    arrived(page, "/sign-in")


def write(page: Page, text: str) -> None:
    """Type an entry of two paragraphs that does not fit one line, and keep it; what is written is always in sight."""
    field = page.locator("#write")
    expect(field).to_be_focused()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.keyboard.type("And rain.")
    page.evaluate("new Promise(requestAnimationFrame)")
    room = page.evaluate(
        "e => { const box = e.getBoundingClientRect(); return [box.top, innerHeight - box.bottom, e.clientHeight]; }",
        field.element_handle(),
    )
    assert min(room[:2]) >= 0, room
    assert room[2] >= 3 * 24, room
    expect(page.locator("#composer .form-actions .main")).to_be_in_viewport(ratio=1)
    before = page.locator("article.entry").count()
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.entry")).to_have_count(before + 1)
    expect(field).to_have_value("")


def accessible(page: Page) -> list[tuple[str, str, str]]:
    """(role, name, what is in it) of all that a screen reader is offered of a page."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    children = {node["nodeId"]: node.get("childIds", []) for node in nodes}
    by_id = {node["nodeId"]: node for node in nodes}

    def of(node: dict[str, object], kind: str) -> str:
        return str(node.get(kind, {}).get("value", ""))  # type: ignore[attr-defined]

    def text(number: str) -> str:
        node = by_id.get(number)
        if node is None:
            return ""
        if of(node, "role") == "StaticText":
            return of(node, "name")
        return "".join(text(child) for child in children[number])

    return [
        (of(node, "role"), of(node, "name").strip(), text(node["nodeId"]))
        for node in nodes
        if not node.get("ignored")
    ]


def nameless(page: Page) -> list[tuple[str, str, str]]:
    """Controls and regions without a name."""
    return [found for found in accessible(page) if found[0] in CONTROLS | REGIONS and not found[1]]


def test_a_reply_is_read_out_by_the_sentence(
    server: Server, model: ModelThread, new_page: Callable[..., Page]
) -> None:
    writer = HttpUser(server.url).register()
    writer.write("I saw a heron.")
    said = "The heron waited, as herons do. Then it flew off… Did you follow it? (No.)\n\nNobody else had seen it."
    pieces = [said[at : at + 3] for at in range(0, len(said), 3)]
    page = new_page()
    open_as_user(page, writer)
    page.evaluate(LISTEN)
    middle = len("The heron waited, as herons do. Then it flew") // 3
    held = model.hold_reply(pieces, middle)
    page.get_by_role("button", name="Reply", exact=True).click()
    prose = page.locator("article.reply .prose")
    expect(prose).to_contain_text("as herons do. Then it")
    log = page.locator("#announcer")
    expect(log).to_contain_text("as herons do.")
    assert page.evaluate("heard.map(each => each.trim())") == [
        "The heron waited, as herons do."
    ]  # nothing of the sentence that has begun
    model.release(held)
    expect(log).to_contain_text("Nobody else had seen it.")
    expect(page.locator(".reply .receipt > summary")).to_be_visible()

    heard = page.evaluate("heard")
    assert [part for part in heard if not re.search(r"[.!?…”][)”]?\s*$", part)] == [], heard
    assert " ".join(heard).split() == said.split()  # all of it, in order, and nothing twice
    assert len(heard) < len(pieces) / 4
    # The same in the tree that a screen reader reads, where the reply itself is no live region.
    (log_said,) = [text for role, _, text in accessible(page) if role == "log"]
    assert "".join(log_said.split()) == "".join(said.split())
    assert prose.evaluate("e => !e.closest('[aria-live], [role=log], [role=status], [role=alert]')")


def test_everything_has_a_name(
    server: Server, model: ModelThread, new_page: Callable[..., Page]
) -> None:
    writer = HttpUser(server.url).register()
    writer.write(FOG, "2026-03-14")
    entry = writer.write("- [ ] post the letter to #nora\n- [x] ring", "2026-11-20")
    writer.post(f"/e/{entry}", {"text": "- [ ] post the letter to #nora", "revision": "1"})
    deleted = writer.write("Nothing.", "2026-11-20")
    writer.post(f"/e/{deleted}/delete", {"revision": "1"})
    model.model.script(Reply([SAYS]))
    page = new_page()
    found = {
        path: looked_at(page, server.url + path)
        for path in ("/sign-in", "/register", "/reset", "/offline")
    }
    open_as_user(page, writer, "/d/2026-11-20")
    page.get_by_role("button", name="Reply", exact=True).click()
    expect(page.locator(".reply .receipt > summary")).to_be_visible()
    trace = re.search(r'href="(/traces/[^"]+)"', writer.get("/traces").text)
    assert trace is not None
    pages = [
        "/d/2026-11-20",
        "/d/2024-02-29",
        "/search",
        "/traces",
        trace[1],
        "/you",
        "/help",
        "/deleted",
        "/print",
    ]
    pages += [
        "/calendar",
        "/calendar/2026",
        "/calendar/2026-03",
        "/m/2026-03",
        f"/e/{entry}/edit",
        "/nowhere",
    ]
    pages += [
        f"/e/{entry}/versions",
        f"/e/{entry}/prompt",
        f"/e/{deleted}/erase",
        "/print?from=2026-03-01&to=2026-11-20",
    ]
    found |= {path: looked_at(page, server.url + path) for path in pages}
    page.goto(server.url + "/search")
    page.locator("#q").fill("hour")
    page.locator("#q").press("Enter")
    expect(page.locator(".hit")).to_have_count(2)
    found["found"] = nameless(page)
    assert {path: each for path, each in found.items() if each} == {}


def looked_at(page: Page, address: str) -> list[tuple[str, str, str]]:
    """What has no name on a page of which everything is opened that opens."""
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    found = nameless(page)
    for selector, key in (("#shortcuts", "?"), ("#palette", "Control+k"), ("#calendar", "c")):
        if page.locator(selector).count():
            page.evaluate("document.activeElement.blur()")
            page.keyboard.press(key)
            expect(page.locator(selector)).to_be_visible()
            found += nameless(page)
            page.keyboard.press("Escape")
            expect(page.locator(selector)).to_be_hidden()
    return found
