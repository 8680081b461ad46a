"""Every case of the CommonMark and GFM specifications, rendered as a page shows it.

A page departs from the specifications on purpose; each departure is taken into account here, and
docs/markdown.md says why: a new line is a line break, headings begin at h2 and never skip a level, an image is a
link to where it is, a link shows no title, no element keeps a class, and HTML in a text is words.
"""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from llamora.app.markdown import render
from tests.evaluation import evaluation_data

VOID = {"br", "hr", "img", "input"}
# Cases in which more than the departures above is different, and why (docs/markdown.md). An exact list: a case
# that begins or ceases to differ fails.
COMMONMARK: dict[str, set[int]] = {
    "it holds HTML, which is shown as words": {
        21,
        31,
        148,
        149,
        150,
        151,
        152,
        153,
        154,
        155,
        156,
        157,
        158,
        159,
        160,
        161,
        162,
        163,
        164,
        165,
        166,
        167,
        168,
        169,
        170,
        171,
        172,
        173,
        174,
        176,
        177,
        178,
        179,
        180,
        181,
        182,
        183,
        184,
        185,
        186,
        187,
        188,
        189,
        190,
        191,
        201,
        308,
        309,
        344,
        475,
        476,
        477,
        491,
        494,
        524,
        536,
        613,
        614,
        615,
        616,
        617,
        621,
        623,
        625,
        626,
        627,
        628,
        629,
        630,
        631,
        642,
        643,
    },
    "an image is a link, and says its words as they are written": {
        517,
        520,
        531,
        573,
        574,
        575,
        576,
        577,
        581,
        585,
        589,
    },
    "only http, https and mailto lead anywhere": {596, 598, 599, 601},
    "words behind an opening fence are shown, unless they can name a language": {143, 144, 146},
    "a bare address is a link (GFM)": {602, 608, 611},
}
GFM: dict[str, set[int]] = {
    "it holds HTML, which is shown as words": {12, 22},
    "one tilde is a tilde; three and more are tildes around a struck text": {17, 18},
    "only an address that says http:// or https:// becomes a link, so that 'Nora.So' is none": {
        19,
        25,
    },
    "the case has no output to compare with": {20},
    "there are no footnotes: an entry is a page of its own": {23},
    "a bare address takes the tildes after it with it": {24},
}


class Shape(HTMLParser):
    """An HTML text as a list of what matters: elements, addresses, words."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.events: list[str] = []
        self.pre = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.events.append(f"<a {given.get('src')}>")
            self.handle_data(given.get("alt") or "")
            self.events.append("</a>")
            return
        if tag == "br":
            self.handle_data("\n")
            return
        if tag == "pre":
            self.pre += 1
        name = {"del": "s"}.get(tag, "h" if re.fullmatch("h[1-6]", tag) else tag)
        extra = f" {given.get('href')}" if tag == "a" else ""
        extra += f" {given['start']}" if given.get("start", "1") != "1" else ""
        extra += f" {given['align']}" if "align" in given else ""
        self.events.append(f"<{name}{extra}>")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self.pre -= 1
        if tag not in VOID:
            name = {"del": "s"}.get(tag, "h" if re.fullmatch("h[1-6]", tag) else tag)
            self.events.append(f"</{name}>")

    def handle_data(self, data: str) -> None:
        text = data if self.pre else re.sub(r"\s+", " ", data)
        if self.events and not self.events[-1].startswith("<"):
            text = self.events.pop() + text
            text = text if self.pre else re.sub(r"\s+", " ", text)
        if text:
            self.events.append(text)

    def shape(self) -> list[str]:
        kept = [
            event if event.startswith("<") or self.pre else event.strip() for event in self.events
        ]
        return [event for event in kept if event]


def commonmark() -> Iterator[tuple[int, str, str]]:
    for case in json.loads(evaluation_data("payloads/commonmark.json").read_text(encoding="utf-8")):
        yield case["example"], case["markdown"], case["html"]


def gfm() -> Iterator[tuple[int, str, str]]:
    text = evaluation_data("payloads/gfm_extensions.txt").read_text(encoding="utf-8")
    for number, found in enumerate(
        re.finditer(
            r"^`{32} example[^\n]*\n(.*?)^\.\n(.*?)^`{32}$", text, re.MULTILINE | re.DOTALL
        ),
        1,
    ):
        yield number, found[1].replace("→", "\t"), found[2].replace("→", "\t")


def deviating(cases: Iterator[tuple[int, str, str]]) -> set[int]:
    return {
        number for number, text, html in cases if Shape(render(text)).shape() != Shape(html).shape()
    }


def test_commonmark_cases_differ_only_where_listed() -> None:
    assert deviating(commonmark()) == set().union(*COMMONMARK.values())


def test_gfm_cases_differ_only_where_listed() -> None:
    assert deviating(gfm()) == set().union(*GFM.values())


def test_no_case_makes_an_element_that_we_do_not_make() -> None:
    allowed = set("p br hr h2 h3 h4 h5 h6 blockquote ul ol li pre code em strong s a input".split())
    allowed |= set("table thead tbody tr th td".split())
    for _, text, _ in [*commonmark(), *gfm()]:
        assert set(re.findall(r"<([a-z][a-z0-9]*)", render(text))) <= allowed, text
