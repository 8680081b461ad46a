"""Markdown to HTML: the only place that makes HTML of text by a user or a model.

CommonMark (https://spec.commonmark.org/0.31.2/) with tables, strikethrough, task lists and bare
links of GitHub Flavored Markdown (https://github.github.com/gfm/). A line break in the text is one
on the page, since a journal is typed with Enter and not wrapped at a column.

Two layers keep the page safe. The parser treats raw HTML as text, so only Markdown creates
elements; then nh3 keeps a short list of elements and attributes. Nothing is ever fetched to show a
text: an image becomes a link to its address.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache, partial
from typing import TYPE_CHECKING, cast

from markupsafe import Markup, escape

from llamora.app.i18n import gettext as _
from llamora.text import tag_key, tag_spans

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.token import Token

_HTML_ELEMENTS = frozenset(
    "p br hr h2 h3 h4 h5 h6 blockquote ul ol li pre code em strong s a input table thead tbody tr th td".split()
)
_ATTRIBUTES: dict[str, set[str]] = {
    "*": set(),  # nh3 would allow title and lang everywhere
    "a": {"href"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
    "input": {"checked"},
}
# Forced on every such element. Elements with markers or columns on one side take their direction
# from their own letters. A table wider than the page can be scrolled by keyboard too.
_FORCED_ATTRIBUTES = {
    "a": {"target": "_blank"},
    "ul": {"dir": "auto"},
    "ol": {"dir": "auto"},
    "blockquote": {"dir": "auto"},
    "table": {"dir": "auto", "tabindex": "0"},
    "input": {"type": "checkbox", "disabled": "", "aria-label": "task"},
}
_LINK_SCHEMES = {"http", "https", "mailto"}
# htmx replaces "<hx-…>" throughout the response, even inside attribute values.
_HX_ELEMENT = re.compile(r"<(?=/?hx-)", re.IGNORECASE)


PART_CHARACTERS = 100_000  # a longer text is shown in parts
MAX_OPEN_BRACKETS = 5000  # a text with more is shown as plain text

MAX_TASK_LABEL = 200  # characters
CITED_DIGITS = 6

# Twenty nested quotations or lists, on one line or by indentation.
_DEEP_NESTING = re.compile(
    r"^(?:[ \t]*(?:>|[*+-][ \t]|\d{1,9}[.)][ \t])){20}|^[ \t]{40,}(?:[*+-]|\d{1,9}[.)])[ \t]",
    re.MULTILINE,
)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
_LANGUAGE = re.compile(r"[\w+#./-]*")
_CHECKBOX_INPUT = re.compile(r"<input\b[^>]*>")
_TASK_MARKER = re.compile(r"\[[ xX]\](?=\s)")
# Takes the blanks before it along, so that no line begins with the number.
_CITATION = re.compile("[ \u00a0]*\\[(\\d{1,6})\\]")
_CITATION_MARKER = "\ue000%d\ue001"
_MARKERS = re.compile("[\ue000-\ue007]")
_LINK_OR_CITATION_MARKER = re.compile(r"(<a\b[^>]*>.*?</a>)|\ue000(\d{1,6})\ue001", re.DOTALL)
_VERIFIED, _NOT_FOUND, _END = "\ue002", "\ue007", "\ue003"
_QUOTATION_MARKERS = re.compile(  # with what closes it, after which the note goes
    "([\ue002\ue007])([^\ue002\ue003\ue007]*)\ue003((?:[”“\"’‘'»«›‹」』]|&quot;|\\s*</(?:strong|em|code|pre)>)*)"
)
_TAG = re.compile("(<[^>]*>)")
_TAG_MARKERS = re.compile("\ue004\\d{1,6}\ue005|\ue006")
_TAG_SPAN = re.compile("\ue004(\\d{1,6})\ue005([^\ue004-\ue006<>]*)\ue006")


def render_reply(
    text: str,
    citation_paths: Mapping[int, str],
    text_with_markers: Iterable[tuple[int, int, bool]] = (),
) -> Markup:
    """Render text by a model, linking each `[n]` to `citation_paths[n]` if there is one.

    `text_with_markers` are spans of `text`, in order, as (start, end, verified): quotations that
    are verified as the user's words, or that claim to be and are not.
    """
    parts: list[str] = []
    position = 0
    for start, end, verified in text_with_markers:
        quotation = _MARKERS.sub("", text[start:end])
        parts += [
            _MARKERS.sub("", text[position:start]),
            _VERIFIED if verified else _NOT_FOUND,
            quotation,
            _END,
        ]
        position = end
    html = render("".join([*parts, _MARKERS.sub("", text[position:])]), cited=citation_paths)

    def link_citation(match: "re.Match[str]") -> str:
        if match[1]:
            return match[1]
        path = escape(citation_paths.get(int(match[2]), ""))
        return f'<sup class="cite"><a href="{path}" aria-label="passage {match[2]}">{match[2]}</a></sup>'

    linked_html = _LINK_OR_CITATION_MARKER.sub(link_citation, _QUOTATION_MARKERS.sub(_quoted, html))
    return Markup(_MARKERS.sub("", linked_html))  # noqa: S704 - made of safe HTML and escaped paths


def _quoted(found: "re.Match[str]") -> str:
    """Wrap each piece of a quotation, which may cross elements, and append what its mark means."""
    if found[1] == _VERIFIED:
        begin, end, note = '<mark class="verified">', "</mark>", _("in your entries, word for word")
        note_html = f'<span class="visually-hidden noted"> ({escape(note)})</span>'
    else:
        begin, end = '<span class="not-found">', "</span>"
        note_html = f'<small class="noted"> ({escape(_("not in your entries"))})</small>'
    pieces = _TAG.split(found[2])
    return (
        "".join(f"{begin}{p}{end}" if p.strip() and p[0] != "<" else p for p in pieces)
        + found[3]
        + note_html
    )


def render_with_tags(text: str, paths: Mapping[str, str], *, interactive: bool = False) -> Markup:
    """Render a user's text, linking each `#tag` whose key (text.tag_key) is in `paths`."""
    tag_paths = list(paths.values())
    tag_numbers = {key: number for number, key in enumerate(paths)}
    html = render(_MARKERS.sub("", text), tag_numbers, interactive=interactive)
    if not tag_numbers:
        return html

    def link_tag(match: "re.Match[str]") -> str:
        return f'<a class="tag" href="{escape(tag_paths[int(match[1])])}" data-tag>{match[2]}</a>'

    return Markup(_MARKERS.sub("", _TAG_SPAN.sub(link_tag, html)))  # noqa: S704 - made safe above


def render(
    text: str,
    tag_numbers: Mapping[str, int] | None = None,
    *,
    interactive: bool = False,
    cited: Collection[int] = (),
) -> Markup:
    """Render Markdown as HTML that is safe inside a page.

    Tags whose key is in `tag_numbers` are put between markers for `render_with_tags`, and so are
    `[n]` outside code for the numbers in `cited`, for `render_reply`.

    The caller wraps the result in an element with `hx-ignore`. Headings start at `h2` and never
    skip a level, since the page has its own `h1`. With `interactive`, checkboxes can be ticked;
    each is a field `box` whose value is its number, as `set_checkboxes` counts them.
    """
    import nh3

    if _is_shown_raw(text):
        # The parser scans from each bracket to the end of the paragraph, which may take minutes,
        # and it leaves out whatever is nested deeper than `maxNesting`.
        return Markup("<p>{}</p>").format(Markup("<br>\n").join(text.split("\n")))
    parser = _parser()
    tokens = parser.parse(text, {"tags": tag_numbers or {}, "cited": cited})
    html = nh3.clean(
        parser.renderer.render(tokens, parser.options, {}),
        tags=set(_HTML_ELEMENTS),
        attributes=_ATTRIBUTES,
        set_tag_attribute_values=_FORCED_ATTRIBUTES,
        url_schemes=_LINK_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )
    html = _label_checkboxes(html, map(_task_label, _tasks(tokens)), interactive=interactive)
    return Markup(_HX_ELEMENT.sub("&lt;", html))  # noqa: S704 - this is the maker of safe HTML


def _label_checkboxes(html: str, labels: Iterable[str], *, interactive: bool) -> str:
    numbered_labels = enumerate(labels)

    def label_checkbox(match: "re.Match[str]") -> str:
        number, name = next(numbered_labels, (0, "task"))
        field = f'name="box" value="{number}" autocomplete="off"' if interactive else "disabled"
        checked = ' checked=""' if " checked" in match[0] else ""
        return f'<input type="checkbox" aria-label="{escape(name)}" {field}{checked}>'

    return _CHECKBOX_INPUT.sub(label_checkbox, html)


def _is_shown_raw(text: str) -> bool:
    """Return True for a text the parser would take minutes for, or leave some of out."""
    return text.count("[") > MAX_OPEN_BRACKETS or _DEEP_NESTING.search(text) is not None


def split_into_parts(text: str) -> list[str]:
    """Split a text into parts of about PART_CHARACTERS characters to render one by one.

    A text that is not much longer stays whole. Cuts are made at the end of a paragraph, else of a
    line, else of a word. A code block that is cut is closed and opened again.
    """
    parts: list[str] = []
    start, open_fence = 0, ""
    while len(text) - start > PART_CHARACTERS * 5 // 4:
        earliest_cut, latest_cut = start + PART_CHARACTERS * 3 // 4, start + PART_CHARACTERS
        candidates = (text.rfind(sign, earliest_cut, latest_cut) for sign in ("\n\n", "\n", " "))
        cut = next((end for end in candidates if end >= 0), latest_cut)
        part, reopened_fence = text[start:cut], open_fence
        for fence_marker, info_string in _FENCE.findall(part):
            if not open_fence:
                open_fence = fence_marker
            elif fence_marker.startswith(open_fence) and not info_string.strip():
                open_fence = ""
        parts.append("\n".join(filter(None, (reopened_fence, part.strip("\n"), open_fence))))
        start = cut
    remainder = text[start:].lstrip("\n") if parts else text
    return [*parts, f"{open_fence}\n{remainder}" if open_fence else remainder]


def set_checkboxes(text: str, checked_numbers: AbstractSet[int]) -> str:
    """Return the text with exactly these checkboxes ticked, counted from 0 as in `render`."""
    lines = text.split("\n")
    if _is_shown_raw(text):
        return text
    for number, token in enumerate(_tasks(_parser().parse(text))):
        line_index = token.map[0] if token.map else -1
        lines[line_index] = _TASK_MARKER.sub(
            "[x]" if number in checked_numbers else "[ ]", lines[line_index], count=1
        )
    return "\n".join(lines)


def has_tasks(text: str) -> bool:
    """Return True if `render` shows checkboxes for the text."""
    return (
        _TASK_MARKER.search(text) is not None
        and not _is_shown_raw(text)
        and bool(_tasks(_parser().parse(text)))
    )


def _tasks(tokens: "list[Token]") -> "list[Token]":
    """Return the inline tokens of tasks; raw HTML is off, so only they have `html_inline`."""
    return [token for token in tokens if token.children and token.children[0].type == "html_inline"]


def _task_label(task: "Token") -> str:
    label = "".join(
        " " if "break" in child.type else child.content for child in (task.children or [])[1:]
    )
    return _TAG_MARKERS.sub("", label).replace("<", " ").strip()[:MAX_TASK_LABEL] or "task"


@cache
def _parser() -> "MarkdownIt":
    """Build the parser on first use: importing it takes too long for the start."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.tasklists import tasklists_plugin

    parser = MarkdownIt(
        "commonmark", {"html": False, "breaks": True, "linkify": True, "maxNesting": 50}
    )
    parser.enable(["table", "strikethrough", "linkify"]).use(tasklists_plugin)
    # Only with a scheme: "to see Nora.So nice" is not a link to a Somali domain.
    if parser.linkify is not None:
        parser.linkify.set(  # pyright: ignore[reportUnknownMemberType] -- linkify-it-py is untyped
            {"fuzzy_link": False, "fuzzy_email": False}
        )
        pretest = cast("Callable[[str], bool]", parser.linkify.pretest)  # pyright: ignore[reportUnknownMemberType]
        parser.linkify.pretest = partial(_may_contain_link, pretest)
    # Before `text_join`: until then an escaped "#" is a token of its own.
    parser.core.ruler.before("text_join", "tags", _mark_tags)
    parser.core.ruler.before("text_join", "citations", _mark_citations)
    parser.core.ruler.push("page", _adapt_to_page)
    return parser


def _may_contain_link(pretest: Callable[[str], bool], text: str) -> bool:
    """Rule out texts without a colon or slashes first, since linkify's own test is slow."""
    return (":" in text or "//" in text) and pretest(text)


def _mark_tags(state: "StateCore") -> None:
    tag_numbers: Mapping[str, int] = state.env.get("tags", {})
    for token in state.tokens if tag_numbers else ():
        inside_link = 0
        for part in token.children or ():
            inside_link += part.nesting if part.type in ("link_open", "link_close") else 0
            part.content = _MARKERS.sub("", part.content)  # an entity may stand for one
            if part.type == "text" and not inside_link:
                part.content = _insert_tag_markers(part.content, tag_numbers)


def _mark_citations(state: "StateCore") -> None:
    """Put markers around cited numbers in brackets, except those that are links to elsewhere."""
    cited: Collection[int] = state.env.get("cited", ())

    def mark(found: "re.Match[str]") -> str:
        return _CITATION_MARKER % int(found[1]) if int(found[1]) in cited else found[0]

    for token in state.tokens:
        inside_link = 0
        if token.children:
            token.children = _without_number_links(token.children)
        for part in token.children or ():
            inside_link += part.nesting if part.type in ("link_open", "link_close") else 0
            if part.type == "text_special":
                part.content = _MARKERS.sub("", part.content)  # an entity may stand for one
            elif part.type == "text" and not inside_link:
                part.content = _CITATION.sub(mark, part.content)


def _without_number_links(tokens: "list[Token]") -> "list[Token]":
    tokens_left: list[Token] = []
    for token in tokens:
        tokens_left.append(token)
        if token.type == "link_close" and [t.type for t in tokens_left[-3:-1]] == [
            "link_open",
            "text",
        ]:
            number = tokens_left[-2]
            if number.content.isdigit() and len(number.content) <= CITED_DIGITS:
                number.content = f"[{number.content}]"
                tokens_left[-3:] = [number]
    return tokens_left


def _insert_tag_markers(text: str, tag_numbers: Mapping[str, int]) -> str:
    parts: list[str] = []
    position = 0
    for start, end, name in tag_spans(text):
        if (tag_number := tag_numbers.get(tag_key(name))) is not None:
            parts += [text[position:start], f"\ue004{tag_number}\ue005{text[start:end]}\ue006"]
            position = end
    return "".join([*parts, text[position:]])


def _adapt_to_page(state: "StateCore") -> None:
    """Shift headings below the page's own, keep alignment within the CSP, make images links.

    Text behind an opening fence is part of the code, unless it can be the name of a language.
    """
    from markdown_it.common.utils import unescapeAll

    shift = {
        level: rank for rank, level in enumerate(sorted(_heading_levels(state.tokens)), start=2)
    }
    last_level = 1
    for token in state.tokens:
        if token.type == "heading_open":
            last_level = min(shift[token.tag], last_level + 1, 6)
            token.tag = f"h{last_level}"
        elif token.type == "heading_close":
            token.tag = f"h{last_level}"
        elif token.type in ("th_open", "td_open"):
            style = token.attrs.pop("style", "")
            if style:
                token.attrs["align"] = str(style).removeprefix("text-align:")
        elif token.type == "fence":
            info = unescapeAll(token.info).strip()
            if not _LANGUAGE.fullmatch(info):
                token.content = f"{info}\n{token.content}"
        elif token.children:
            token.children = _images_as_links(token.children)


def _heading_levels(tokens: "list[Token]") -> set[str]:
    return {token.tag for token in tokens if token.type == "heading_open"}


def _images_as_links(tokens: "list[Token]") -> "list[Token]":
    """Replace each image by a link, or by its text inside a link."""
    from markdown_it.token import Token

    result: list[Token] = []
    inside_link = 0
    for token in tokens:
        if token.type != "image":
            inside_link += token.nesting if token.type in ("link_open", "link_close") else 0
            result.append(token)
            continue
        source = token.attrs.get("src", "")
        label = Token("text", "", 0, content=token.content.strip() or str(source))
        if inside_link:
            result.append(label)
        else:
            result += [
                Token("link_open", "a", 1, attrs={"href": source}),
                label,
                Token("link_close", "a", -1),
            ]
    return result
