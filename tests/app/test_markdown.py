"""Text becomes HTML that says what was meant and can do nothing else."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from llamora.app import markdown
from llamora.app.markdown import render, render_reply, split_into_parts

TAGS = set(
    "p br hr h2 h3 h4 h5 h6 blockquote ul ol li pre code em strong s a input table thead tbody tr th td".split()
)
ATTRIBUTES = {
    "a": {"href", "target", "rel"},
    "ul": {"dir"},
    "ol": {"start", "dir"},
    "blockquote": {"dir"},
    "table": {"dir", "tabindex"},
    "th": {"align"},
    "td": {"align"},
    "input": {"type", "disabled", "checked", "aria-label"},
}


class Seen(HTMLParser):
    """Every element with its attributes, as a browser's parser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def assert_harmless(html: str) -> None:
    for tag, attributes in Seen(html).elements:
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set())
        if "href" in attributes:
            scheme = re.match(r"\s*([a-z][a-z0-9+.-]*):", attributes["href"] or "", re.IGNORECASE)
            assert scheme is None or scheme[1].lower() in {"http", "https", "mailto"}
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"
    # htmx looks for these with a pattern over the whole answer, inside attribute values too.
    assert not re.search(r"<(/?hx-|template|head)", html, re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One *word* and **another**.", "<p>One <em>word</em> and <strong>another</strong>.</p>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("~~gone~~", "<p><s>gone</s></p>"),
        ("> said", '<blockquote dir="auto">\n<p>said</p>\n</blockquote>'),
        ("3. three", '<ol start="3" dir="auto">\n<li>three</li>\n</ol>'),
        ("`a < b`", "<p><code>a &lt; b</code></p>"),
        ("", ""),
    ],
)
def test_markdown_is_read(text: str, html: str) -> None:
    assert render(text).strip() == html


def test_tables_keep_their_alignment_without_inline_style() -> None:
    html = render("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert '<td align="right">2</td>' in html
    assert "style" not in html


def test_task_lists_are_boxes_that_say_what_they_are() -> None:
    boxes = [a for tag, a in Seen(render("- [x] wood\n- [ ] roof")).elements if tag == "input"]
    assert ["checked" in box for box in boxes] == [True, False]
    assert all(
        box["type"] == "checkbox" and "disabled" in box and box["aria-label"] for box in boxes
    )


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("# a\n\n## b\n\n# c", ["h2", "h3", "h2"]),
        ("### a\n\n##### b", ["h2", "h3"]),
        ("### deep first\n\n# then high", ["h2", "h2"]),
        ("# 1\n## 2\n### 3\n#### 4\n##### 5\n###### 6", ["h2", "h3", "h4", "h5", "h6", "h6"]),
    ],
)
def test_headings_fit_under_the_page_and_skip_no_level(text: str, levels: list[str]) -> None:
    assert [tag for tag, _ in Seen(render(text)).elements if tag.startswith("h")] == levels


def test_only_an_address_that_says_so_becomes_a_link() -> None:
    html = render("I went to see Nora.So nice. nora@example.org, https://example.org/a")
    assert [a["href"] for tag, a in Seen(html).elements if tag == "a"] == ["https://example.org/a"]


def test_an_image_is_a_link_and_nothing_is_fetched() -> None:
    assert render("![the heron](https://example.org/h.png)").strip() == (
        '<p><a href="https://example.org/h.png" target="_blank" rel="noopener noreferrer nofollow">the heron</a></p>'
    )
    assert "https://example.org/h.png</a>" in render("![](https://example.org/h.png)")
    inside = render("[![a heron](https://example.org/h.png)](https://example.org/)")
    assert [a["href"] for tag, a in Seen(inside).elements if tag == "a"] == ["https://example.org/"]
    assert "a heron" in inside


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "[x](java\nscript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](data:image/svg+xml;base64,PHN2Zz4=)",
        "[x](vbscript:x)",
        "[x](file:///etc/passwd)",
        "<javascript:alert(1)>",
        "![x](javascript:alert(1))",
        '[x](https://e.org "onmouseover=alert(1)")',
        '[x](https://e.org "><script>alert(1)</script>")',
        '[x](https://e.org/"onmouseover="alert(1))',
        "[x](https://e.org/<hx-partial>)",
        "[x](https://e.org \"<hx-partial hx-target='#entries'>\")",
        "[x](<https://e.org/<hx-partial hx-target=#entries>>)",
        "<hx-partial hx-target='#entries' hx-swap='beforeend'>x</hx-partial>",
        "`<hx-partial>`",
        "<div hx-get='/sign-out' hx-trigger='load'>x</div>",
        "<div data-hx-post='/e/1/delete' data-hx-trigger='load'>x</div>",
        "<p id='composer' class='x' style='position:fixed'>x</p>",
        "<form action='https://e.org'><input name=q></form>",
        "<template hx type=partial>x</template>",
        "<head><title>x</title></head>",
        "<style>*{display:none}</style>",
        "<iframe src='https://e.org'></iframe>",
        "<base href='https://e.org'>",
        "<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
        "```html\n<script>alert(1)</script>\n```",
        '```" onload="alert(1)\nx\n```',
        "| <script> |\n|---|\n| <img src=x onerror=alert(1)> |",
        "https://e.org/'onmouseover='alert(1)",
        "https://e.org/<script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "\x00<script>\x00alert(1)</script>",
    ],
)
def test_no_text_does_anything(text: str) -> None:
    assert_harmless(render(text))
    assert_harmless(render(f"- [ ] {text}\n\n> {text}\n\n# {text}"))


PIECES = st.sampled_from(
    "< > \" ' ` [ ]( ) ![ <hx-partial <script> javascript: https://e.org/ - > | |---| &#x6a; onload= hx-get= "
    "data-hx-get= style= * ~~ a \n \n\n".split(" ")
)


@given(st.lists(PIECES | st.text(max_size=6), max_size=24).map("".join))
def test_whatever_is_typed_is_harmless(text: str) -> None:
    assert_harmless(render(text))


@given(st.lists(st.sampled_from("heron river Nora morning".split()), min_size=1, max_size=20))
def test_words_are_not_lost(words: list[str]) -> None:
    text = "\n".join(
        f"> > - {word}" if index % 3 else f"# {word}\n" for index, word in enumerate(words)
    )
    assert Seen(render(text)).words.split() == words


def test_a_deep_list_keeps_its_words() -> None:
    text = "\n".join("  " * depth + f"- level{depth}" for depth in range(15))
    assert all(f"level{depth}" in render(text) for depth in range(15))


def test_raw_html_stays_readable_as_what_was_typed() -> None:
    assert "&lt;b&gt;bold&lt;/b&gt;" in render("<b>bold</b>")


def test_a_text_of_brackets_is_shown_as_it_is_written() -> None:
    # The parser takes time by the square of them; what is no text of a person must not hold up the others.
    assert render("[" * 6000 + "<b>\nend") == Markup("<p>" + "[" * 6000 + "&lt;b&gt;<br>\nend</p>")


@pytest.mark.parametrize(
    "said", ["a &#xe000;9&#xe001; b", f"a &#xe000;{'1' * 5000}&#xe001; b", f"[{'1' * 5000}]"]
)
def test_a_reply_with_our_own_marks_written_as_entities_is_a_page_all_the_same(said: str) -> None:
    assert "href" not in render_reply(said, {1: "/d/2026-01-01"})


@pytest.mark.parametrize(
    "marks", ["- " * 25, "> " * 60, ">" * 60, "1. " * 30, "> - " * 15, " " * 60 + "- "]
)
def test_what_is_nested_too_deep_is_shown_as_it_is_written(marks: str) -> None:
    """The parser leaves out what is below the depth it goes to."""
    html = render(f"before\n\n{marks}heron\n\nAFTER")
    for word in ("before", "heron", "AFTER"):
        assert word in html


# -- very long texts ---------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(["word", "\n\n", "\n", " ", "- item", "```py\n", "~~~~\n", "```\n"]),
        max_size=60,
    )
)
def test_parts_lose_nothing(pieces: list[str]) -> None:
    text = "".join(pieces)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(markdown, "PART_CHARACTERS", 40)
        parts = split_into_parts(text)
    assert all(len(part) < 80 for part in parts)
    kept = [re.sub(r"[`~]|\s", "", each) for each in ("".join(parts), text)]
    assert kept[0] == kept[1]
    assert parts == [text] or len(text) > 50


def test_code_that_is_cut_stays_code_and_a_paragraph_is_cut_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(markdown, "PART_CHARACTERS", 60)
    lines = "\n".join(f"line {number}" for number in range(20))
    shown = [
        render(part)
        for part in split_into_parts(f"Before.\n\n```py\n{lines}\n```\n\nAfter it **all**.")
    ]
    assert len(shown) > 2
    assert [html.count("<pre>") for html in shown] == [1] * len(shown)
    assert "After it <strong>all</strong>." in shown[-1]
    assert "".join(re.findall(r"line \d+", "".join(shown))) == lines.replace("\n", "")
    monkeypatch.setattr(markdown, "PART_CHARACTERS", 30)
    assert split_into_parts("The heron stood there.\n\nIt rained, and nobody came.") == [
        "The heron stood there.",
        "It rained, and nobody came.",
    ]


def test_no_words_behind_a_fence_are_lost() -> None:
    assert "three herons\nand a gull" in render("```three herons\nand a gull\n```")
    assert "python" not in render("```python\nprint()\n```")
