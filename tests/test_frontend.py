"""The house of the front end: how much script there is, and what it may reach for."""

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[1] / "frontend" / "static"
OURS = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)
MOST_AT_FIRST = 60 * 1024  # bytes, as it is written
MOST_IN_ALL = 130 * 1024
ON_THE_SIDE = {"sw.js", "js/paste.js"}  # what the first page does not load
MOST_IN_ONE = 10 * 1024
# Who may reach past HTMX. The worker that shows a page while the server is away has to answer requests itself.
MAY_FETCH = {"sw.js"}
MAY_LISTEN = {"windows.js"}  # one stream for all windows


def test_there_is_little_of_it() -> None:
    sizes = {path.relative_to(STATIC).as_posix(): path.stat().st_size for path in OURS}
    assert sum(sizes.values()) <= MOST_IN_ALL, sizes
    assert sum(size for name, size in sizes.items() if name not in ON_THE_SIDE) <= MOST_AT_FIRST, (
        sizes
    )
    assert [name for name, size in sizes.items() if size > MOST_IN_ONE] == []


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_htmx_makes_the_requests_and_nothing_is_kept_in_the_browser(path: Path) -> None:
    script = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    if path.name not in MAY_FETCH:
        assert not re.search(
            r"\bfetch\s*\(|XMLHttpRequest|sendBeacon|WebSocket|importScripts", script
        )
    if path.name not in MAY_LISTEN:
        assert "EventSource" not in script
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie\s*=", script)
    assert not re.search(r"\beval\s*\(|new Function|\.on[a-z]+\s*=", script)


def test_templates_hold_no_script_and_no_style() -> None:
    templates = (STATIC.parents[1] / "src/llamora/app/templates").rglob("*.html")
    for path in templates:
        html = path.read_text(encoding="utf-8")
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", html
        ), path.name


def test_every_style_sheet_is_in_a_layer() -> None:
    main = (STATIC / "css/main.css").read_text(encoding="utf-8")
    imported = dict(re.findall(r'@import url\("\./([^"]+)"\) layer\((\w+)\)', main))
    assert set(imported) == {path.name for path in (STATIC / "css").glob("*.css")} - {"main.css"}
    assert set(imported.values()) == {"tokens", "base", "components"}
    colours = re.compile(r"#[0-9a-fA-F]{3,8}\b|\b(?:oklch|rgb|hsl)a?\(")
    for name, layer in imported.items():
        if layer != "tokens":
            assert not colours.search((STATIC / "css" / name).read_text(encoding="utf-8")), (
                f"{name} names a colour"
            )


def test_the_readme_says_where_every_file_belongs() -> None:
    readme = (STATIC.parent / "README.md").read_text(encoding="utf-8")
    files = [*OURS, *(STATIC / "css").glob("*.css")]
    missing = [
        path.name for path in files if path.name not in readme and "components" not in path.parts
    ]
    assert [name for name in missing if name not in ("main.js", "main.css")] == []
