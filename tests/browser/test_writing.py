"""Writing: lists, emphasis, pasted text, emoji, boxes, focus, and that the browser's own undo takes each back."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import open_as_user, register
from tests.server_process import HttpUser, Server

DAY = "2024-03-12"


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server()


@pytest.fixture
def writer(server: Server) -> HttpUser:
    return register(server)


def opened(new_page: Callable[..., Page], writer: HttpUser, **options: object) -> Page:
    page = new_page(**options)
    open_as_user(page, writer, f"/d/{DAY}")
    return page


@pytest.fixture
def page(writer: HttpUser, new_page: Callable[..., Page]) -> Page:
    return opened(new_page, writer)


@pytest.fixture
def field(page: Page) -> Locator:
    field = page.get_by_label("Write an entry")
    field.focus()
    return field


LISTS = [
    ("- one", "Enter", "- one\n- "),
    ("- one\n- ", "Enter", "- one\n\n"),
    ("> said\n> ", "Enter", "> said\n\n"),
    ("> - a\n> - ", "Enter", "> - a\n> "),
    ("9. nine", "Enter", "9. nine\n10. "),
    ("  * a", "Enter", "  * a\n  * "),
    ("- [x] done", "Enter", "- [x] done\n- [ ] "),
    ("- [ ] ", "Enter", ""),
    ("> said", "Enter", "> said\n> "),
    ("> - a", "Enter", "> - a\n> - "),
    ("plain", "Enter", "plain\n"),
    ("* * *", "Enter", "* * *\n"),
    ("- one", "Shift+Enter", "- one\n"),
    ("```\n- code", "Enter", "```\n- code\n"),
    ("- one\n- two", "Tab", "- one\n  - two"),
    ("1. one\n2. two", "Tab", "1. one\n   2. two"),
    ("- one\n  - two\n- three", "Tab", "- one\n  - two\n  - three"),
    ("- one\n  - two", "Shift+Tab", "- one\n- two"),
    ("- [ ] one\n- [ ] two", "Tab", "- [ ] one\n  - [ ] two"),
]

PLAIN = {("plain", "Enter"), ("* * *", "Enter"), ("- one", "Shift+Enter"), ("```\n- code", "Enter")}


def test_lists(field: Locator, page: Page) -> None:
    for before, key, after in LISTS:
        page.keyboard.press("Control+a")
        field.evaluate("(field, text) => document.execCommand('insertText', false, text)", before)
        page.keyboard.press(key)
        expect(field).to_have_value(after)
        expect(field).to_be_focused()
        if (before, key) not in PLAIN:  # there the browser takes back what was put in before, too
            page.keyboard.press("Control+z")
            expect(field).to_have_value(before)


COMPOSE = """(field, key) => {
  let isKept = false;
  field.form.addEventListener("submit", () => { isKept = true; });
  field.dispatchEvent(new CompositionEvent("compositionstart", {bubbles: true}));
  field.dispatchEvent(new CompositionEvent("compositionend", {bubbles: true, data: "日本語"}));
  const event = {code: "Enter", bubbles: true, cancelable: true, ...key};
  field.dispatchEvent(new KeyboardEvent("keydown", event));
  return isKept;
}"""


@pytest.mark.parametrize(
    "key",
    [
        {"key": "Enter", "keyCode": 229},  # Safari, after the composition
        {"key": "Enter", "keyCode": 13, "isComposing": True},
        {"key": "Process", "keyCode": 229, "ctrlKey": True},
        {"key": "Enter", "keyCode": 229, "ctrlKey": True},
    ],
)
def test_the_enter_that_ends_a_composition_keeps_nothing(
    field: Locator, page: Page, key: dict[str, object]
) -> None:
    page.locator("[data-htmx-powered]").first.wait_for(state="attached")  # our scripts have run
    page.evaluate("document.documentElement.dataset.enter = 'keep'")
    field.fill("にほんご")
    assert not field.evaluate(COMPOSE, key)


def test_tab_leaves_a_text_that_is_no_list(field: Locator, page: Page) -> None:
    page.keyboard.type("just words")
    page.keyboard.press("Tab")
    expect(field).not_to_be_focused()
    expect(field).to_have_value("just words")
    # A first item has nothing to be under: nobody is caught in a list either.
    field.fill("- one")
    page.keyboard.press("Tab")
    expect(field).not_to_be_focused()


def test_emphasis_and_links(field: Locator, page: Page) -> None:
    page.keyboard.type("a heron")
    page.keyboard.press("Shift+Control+ArrowLeft")
    page.keyboard.press("Control+b")
    expect(field).to_have_value("a **heron**")
    page.keyboard.press("Control+i")
    expect(field).to_have_value("a ***heron***")
    page.keyboard.press("Control+b")
    expect(field).to_have_value("a *heron*")
    page.keyboard.press("Control+i")
    expect(field).to_have_value("a heron")
    page.keyboard.press("Control+k")
    page.keyboard.type("https://example.org")
    expect(field).to_have_value("a [heron](https://example.org)")
    field.evaluate("field => field.setSelectionRange(2, field.value.length)")
    page.keyboard.press("Control+k")
    expect(field).to_have_value("a heron")
    for _ in range(30):
        page.keyboard.press("Control+z")
    expect(field).to_have_value("")


MARKED = [
    ("**word**", (0, 8), "b", "word"),  # with its marks selected
    ("*word*", (0, 6), "i", "word"),
    ("**word**", (0, 8), "i", "***word***"),
    (
        "- a\n- b",
        (0, 7),
        "b",
        "- **a**\n- **b**",
    ),  # no list, and no paragraph, is in a pair of marks
    ("one\n\n> two ", (0, 11), "i", "*one*\n\n> *two* "),
    ("# a\n2. [ ] b", (0, 12), "b", "# **a**\n2. [ ] **b**"),
    ("a word", (3, 3), "b", "a w****ord"),
    ("a ****", (4, 4), "b", "a "),
]


def test_emphasis_is_taken_back_and_keeps_to_the_words_of_a_line(
    field: Locator, page: Page
) -> None:
    for before, (start, end), key, after in MARKED:
        field.fill(before)
        field.evaluate("(field, at) => field.setSelectionRange(...at)", [start, end])
        page.keyboard.press(f"Control+{key}")
        expect(field).to_have_value(after)
        if start != end:
            page.keyboard.press(f"Control+{key}")
            page.keyboard.press(f"Control+{key}")
            expect(field).to_have_value(after)
    field.fill("")
    for typed in (
        "a ",
        "Control+b",
        "heron",
        "Control+b",
        " ",
        "Control+i",
        "flew",
        "Control+i",
        ".",
    ):
        if typed.startswith("Control"):
            page.keyboard.press(typed)
        else:
            page.keyboard.type(typed)
    expect(field).to_have_value("a **heron** *flew*.")


PASTE = """(field, [html, text]) => {
  const data = new DataTransfer();
  if (html) data.setData("text/html", html);
  data.setData("text/plain", text);
  const event = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
  if (field.dispatchEvent(event)) document.execCommand("insertText", false, text);
}"""


PASTED = [
    ("<p>a <b>bold</b> and <em>slanted </em>word</p>", "a **bold** and *slanted* word"),
    ("<h2>Title</h2><p>One.</p><p>Two<br>lines.</p>", "## Title\n\nOne.\n\nTwo\nlines."),
    (
        "<ul><li>one<ul><li>deeper</li></ul></li><li><input type=checkbox checked> done</ul><ol start=3><li>c</ol>",
        "- one\n  - deeper\n- [x] done\n\n3. c",
    ),
    ("<blockquote><p>said</p><p>twice</p></blockquote>", "> said\n>\n> twice"),
    (
        '<p>see <a href="https://e.org/a b">there</a> <a href="javascript:x()">no</a></p>',
        "see [there](https://e.org/a%20b) no",
    ),
    ("<p>run <code>ls *</code></p><pre>a\n  b\n</pre>", "run `ls *`\n\n```\na\n  b\n```"),
    (
        '<b style="font-weight:normal"><span style="font-weight:700">docs</span> plain</b>',
        "**docs** plain",
    ),
    (  # as Word has it: paragraphs that look like a list
        (
            "<p class=MsoListParagraph style='text-indent:-18pt;mso-list:l0 level1 lfo1'><![if !supportLists]>"
            "<span style='mso-list:Ignore'>·<span>&nbsp;&nbsp; </span></span><![endif]>one"
            "<o:p></o:p></p>\n"
            "<p style='mso-list:l0\nlevel2 lfo1'><span style='mso-list:Ignore'>b)<span>&nbsp;</span></span>"
            "deeper</p>"
            "<p style='mso-list:l0 level1 lfo1'><span style='mso-list:Ignore'>o&nbsp;</span>two</p><p>after</p>"
        ),
        "- one\n    1. deeper\n- two\n\nafter",
    ),
    (
        "<p><b>a</b><b>b</b> <b>c</b><b><i>d</i></b></p>",
        "**ab** **c*d***",
    ),  # one bold word, as Google Docs has it
    ("<table><tr><td><h2>Letter</h2>Dear N.<tr><td>Yours</table>", "## Letter\n\nDear N.\n\nYours"),
    (
        "<ul><li><label><input type=checkbox checked> done</label></ul><button>Copy</button>",
        "- [x] done",
    ),
    ("<table><tr><th>a<th>b<tr><td>1<td>2|3</table>", "| a | b |\n| --- | --- |\n| 1 | 2\\|3 |"),
    (
        '<p>2 * 3 <i>is</i> six<img src="https://e.org/x.png" alt="!"><script>alert(1)</script></p>',
        "2 \\* 3 *is* six!",
    ),
    ('<meta charset="utf-8"><span style="color: red">only words</span>', "PLAIN"),
    ("", "PLAIN"),
]


def test_rich_text_becomes_markdown(field: Locator, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.type("x ")
    for html, markdown in PASTED:
        field.evaluate(PASTE, [html, "PLAIN"])
        expect(field).to_have_value("x " + markdown)
        page.keyboard.press("Control+z")
        expect(field).to_have_value("x ")
    assert not [url for url in asked if "e.org" in url]


@pytest.mark.parametrize(
    ("html", "selector", "texts"),
    [
        (
            "<p>1986. A <b>great</b> year.</p><p># is a sign.</p><p>&gt; is one too.</p>",
            "p",
            ["1986. A great year.", "# is a sign.", "> is one too."],
        ),
        ("<p>Use <code>a`b</code> now.</p>", "code", ["a`b"]),
        ("<p><code>``</code>, <code>`x</code></p>", "code", ["``", "`x"]),
        ("<pre>```js\nlet a;\n```</pre>", "pre", ["```js\nlet a;\n```"]),
        (
            "<p>- 5 <b>degrees</b><br>+ 1) ~~no~~ &amp;amp;<br>===</p><p>12) [a](b) &lt;x@y.z></p>",
            "p",
            ["- 5 degrees\n+ 1) ~~no~~ &amp;\n===", "12) [a](b) <x@y.z>"],
        ),
        ("<h2>C #</h2><ul><li>1. <i>one</i></li></ul>", "h2, ul", ["C #", "1. one"]),
    ],
)
def test_pasted_text_is_shown_as_it_was(
    field: Locator, page: Page, html: str, selector: str, texts: list[str]
) -> None:
    field.evaluate(PASTE, [html, "PLAIN"])
    page.keyboard.press("Control+Enter")
    prose = page.locator("article.entry .prose")
    expect(prose).to_have_count(1)
    shown = prose.locator(selector).all_inner_texts()
    assert [each.rstrip("\n") for each in shown] == texts


@pytest.mark.parametrize(
    ("html", "plain", "typed"),
    [
        ("", "1986. A year.\n&amp; on", "1986\\. A year.\n\\&amp; on"),
        ("", "# Mine\n\n1. one\n2. two &amp;", "# Mine\n\n1. one\n2. two &amp;"),  # Markdown
        ("", "https://e.org/?a=1&copy;=2", "https://e.org/?a=1&copy;=2"),
        ("<p># is a sign.</p>", "# is a sign.", "\\# is a sign."),
        ("<p>&gt; 5 ~~x</p>", "> 5 ~~x", "\\> 5 \\~\\~x"),
        ("<div style='white-space: pre'># a comment</div>", "# a comment", "# a comment"),
    ],
)
def test_plain_text_is_pasted_as_text_unless_it_is_markdown(
    field: Locator, html: str, plain: str, typed: str
) -> None:
    field.evaluate(PASTE, [html, plain])
    expect(field).to_have_value(typed)


def test_a_long_text_is_pasted_as_it_is_and_taken_back_in_one(field: Locator, page: Page) -> None:
    page.keyboard.type("before  after")
    field.evaluate("field => field.setSelectionRange(7, 7)")
    lines = ["    AT&T  &amp; \\<b> &lt;", "", "\ttab \u00a0", "<!-- ", "שלום"]
    typed = """async (field, text) => {
      const { type } = await import("/static/js/markdown.js");
      let inputs = 0;
      field.addEventListener("input", () => inputs++);
      type(field, text);
      return inputs;
    }"""
    text = "\n" + "\n".join(lines * 400) + "\n"
    assert field.evaluate(typed, text) == 1
    expect(field).to_have_value(f"before {text} after")
    assert field.evaluate("field => field.selectionStart") == 7 + len(text)
    page.keyboard.press("Control+z")
    expect(field).to_have_value("before  after")


def test_an_address_pasted_over_words_makes_them_a_link(field: Locator, page: Page) -> None:
    page.keyboard.type("the heron")
    page.keyboard.press("Shift+Control+ArrowLeft")
    field.evaluate(PASTE, ["", "https://example.org/bird"])
    expect(field).to_have_value("the [heron](https://example.org/bird)")


def test_emoji_by_their_names(field: Locator, page: Page, axe: Callable[[Page], None]) -> None:
    page.keyboard.type("at 10:30 good :he")
    offers = page.get_by_role("listbox", name="Suggestions")
    expect(offers.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", "offer-0")
    axe(page)
    page.keyboard.type("ar")
    expect(offers.get_by_role("option").first).to_have_text("❤️ heart")
    page.keyboard.press("ArrowDown")
    expect(offers.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(field).to_have_value("at 10:30 good ❤️")
    expect(offers).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(field).to_have_value("at 10:30 good :hear")
    page.keyboard.press("Escape")
    expect(offers).to_have_count(0)
    field.fill("")
    page.keyboard.type(
        "whole :coffee: and :tea: and :nothinglikeit: "
    )  # faster than it can be looked up
    expect(field).to_have_value("whole ☕ and 🍵 and :nothinglikeit: ")
    expect(field).to_have_js_property(
        "selectionStart", len("whole ☕ and 🍵 and :nothinglikeit: ") + 1
    )  # UTF-16
    field.fill("")
    page.keyboard.type(":tea")
    offers.get_by_role("option", name="tea").first.click()
    expect(field).to_have_value("🍵")
    expect(field).to_be_focused()


def test_traces_by_their_beginning(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    writer.write("By the weir. #heron", "2024-01-01")
    page = opened(new_page, writer)
    field = page.get_by_label("Write an entry")
    field.focus()
    page.keyboard.type("# no heading, # he")
    page.keyboard.type(" again #he")
    option = page.get_by_role("option", name="#heron")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Tab")
    expect(field).to_have_value("# no heading, # he again #heron")
    expect(field).to_be_focused()
    page.keyboard.type(" #nosuch")
    expect(page.get_by_role("listbox")).to_have_count(0)
    # One that stands there whole needs no taking: Enter is a new line.
    field.fill("")
    page.keyboard.type("By the weir. #heron")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(field).to_have_value("By the weir. #heron\n")


def test_boxes_are_ticked_where_they_stand(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    entry = writer.write("- [ ] ring the plumber\n- [ ] paint", DAY)
    # The worker of an installed page would take requests past `page.route`.
    page = opened(new_page, writer, service_workers="block")
    first, second = (
        page.get_by_role("checkbox", name="ring the plumber"),
        page.get_by_role("checkbox", name="paint"),
    )
    with page.expect_response(lambda answer: answer.url.endswith("/tasks")):
        first.check()
    second.focus()
    with page.expect_response(lambda answer: answer.url.endswith("/tasks") and answer.ok):
        page.keyboard.press("Space")
    expect(second).to_be_focused()
    expect(page.locator(f"#e-{entry} .edited").last).to_contain_text("edited")
    expect(page.locator(f"#e-{entry}")).to_have_attribute("data-revision", "3")
    page.reload()
    expect(first).to_be_checked()
    expect(second).to_be_checked()

    # Changed elsewhere, and this window has not heard of it: nothing is lost, and it says so.
    page.route("**/entries?**", lambda route: route.abort())
    revision = page.locator(f"#e-{entry} form.tasks input[name=revision]")
    revision.evaluate("field => { field.value = 2 }")
    second.uncheck()
    expect(page.locator(f"#e-{entry}").get_by_role("alert").first).to_contain_text(
        "changed elsewhere"
    )
    expect(second).to_be_checked()
    second.uncheck()
    expect(revision).to_have_value("4")
    expect(page.locator(f"#e-{entry} form.tasks .problem")).to_be_hidden()


def test_two_boxes_ticked_in_one_breath(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    entry = writer.write("- [ ] one\n- [ ] two\n- [ ] three", DAY)
    page = opened(new_page, writer)
    page.evaluate(
        "for (const box of document.querySelectorAll('.tasks input[type=checkbox]')) box.click()"
    )
    expect(page.locator(f"#e-{entry} form.tasks input[name=revision]")).to_have_value(
        re.compile("[23]")
    )
    expect(page.locator(".htmx-request")).to_have_count(0)
    page.reload()
    assert page.locator(".tasks input:checked").count() == 3


def test_boxes_without_a_script(writer: HttpUser, new_page: Callable[..., Page]) -> None:
    writer.write("- [ ] ring the plumber\n- [ ] paint", DAY)
    page = opened(new_page, writer, java_script_enabled=False)
    page.get_by_role("checkbox", name="paint").check()
    page.get_by_role("button", name="Keep the boxes").click()
    expect(page.get_by_role("checkbox", name="paint")).to_be_checked()
    expect(page.get_by_role("checkbox", name="ring")).not_to_be_checked()


def test_alone_with_the_text(
    writer: HttpUser, new_page: Callable[..., Page], axe: Callable[[Page], None]
) -> None:
    width = 390
    writer.write("An entry.", DAY)
    page = opened(new_page, writer)
    page.set_viewport_size({"width": width, "height": 844})
    field = page.get_by_label("Write an entry")
    field.click()
    page.keyboard.type("Three herons flew.")
    page.get_by_role("button", name="Words").click()
    expect(page.get_by_text("Words: 3")).to_be_visible()
    expect(field).to_be_focused()
    button = page.get_by_role("button", name="Focus")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(field).to_be_focused()
    middle = "([x, y]) => document.elementFromPoint(x, y)?.closest('form')?.id"
    for place in ([10, 10], [width / 2, 60], [10, 834]):
        assert page.evaluate(middle, place) == "composer", place
    axe(page)
    page.keyboard.type(" Away.")
    page.keyboard.press("Escape")
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(field).to_have_value("Three herons flew. Away.")
    expect(field).to_be_focused()
    button.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator("article.entry .prose").last).to_have_text("Three herons flew. Away.")
    expect(page.locator("form.focus-mode")).to_have_count(0)
    expect(field).to_be_focused()
