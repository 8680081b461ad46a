"""The front end's files: found, packed, kept by the browser, and nothing else of the disk."""

import gzip
import json
import logging
import re
from pathlib import Path

import pytest
from quart import Quart

from llamora.app.assets import IMMUTABLE_CACHE_CONTROL, Assets, create_blueprint
from tests.app.conftest import Start


@pytest.fixture
def frontend(tmp_path: Path) -> Path:
    root = tmp_path / "frontend"
    for name, content in {
        "static/js/main.js": "import './part.js';",
        "static/js/part.js": "part",
        "static/css/main.css": "p{}",
        "static/fonts/face.woff2": "face",
        "dist/js/main-AB12.js": "bundled",
        "dist/css/main-CD34.css": "p{color:red}",
        "dist/manifest.json": json.dumps(
            {"js/main.js": "js/main-AB12.js", "css/main.css": "css/main-CD34.css"}
        ),
        "secret.txt": "outside",
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (root / "dist/js/main-AB12.js.gz").write_bytes(gzip.compress(b"bundled", mtime=0))
    (root / "dist/js/main-AB12.js.br").write_bytes(b"as brotli")
    return root


def serving(frontend: Path, *, native: bool) -> Quart:
    app = Quart(__name__, static_folder=None)
    app.register_blueprint(create_blueprint(Assets(frontend, native=native)))
    return app


async def test_native_modules_are_served_as_they_are_written(frontend: Path) -> None:
    assets = Assets(frontend, native=True)
    assert assets.url("js/main.js") == "/static/js/main.js"
    client = serving(frontend, native=True).test_client()
    answer = await client.get("/static/js/main.js", headers={"Accept-Encoding": "gzip, br"})
    assert await answer.get_data() == b"import './part.js';"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "Content-Encoding" not in answer.headers
    (frontend / "static/js/main.js").write_text("edited")
    assert await (await client.get("/static/js/main.js")).get_data() == b"edited"
    assert (await client.get("/static/js/main-AB12.js")).status_code == 404


async def test_prod_serves_what_was_built_for_ever(frontend: Path) -> None:
    assets = Assets(frontend, native=False)
    assert assets.url("js/main.js") == "/static/js/main-AB12.js"
    assert assets.url("fonts/face.woff2") == "/static/fonts/face.woff2"
    client = serving(frontend, native=False).test_client()
    plain = await client.get("/static/js/main-AB12.js")
    assert await plain.get_data() == b"bundled"
    assert plain.headers["Cache-Control"] == IMMUTABLE_CACHE_CONTROL
    other = await client.get("/static/fonts/face.woff2")
    assert other.headers["Cache-Control"] == "no-cache"
    assert other.mimetype == "font/woff2"


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("", None, b"bundled"),
        ("identity", None, b"bundled"),
        ("gzip", "gzip", gzip.compress(b"bundled", mtime=0)),
        ("gzip, deflate, br, zstd", "br", b"as brotli"),
    ],
)
async def test_packed_files_go_to_who_takes_them(
    frontend: Path, accepted: str, encoding: str | None, body: bytes
) -> None:
    client = serving(frontend, native=False).test_client()
    answer = await client.get("/static/js/main-AB12.js", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.mimetype == "text/javascript"
    found = await answer.get_data(as_text=False)
    assert (gzip.decompress(found) == b"bundled") if encoding == "gzip" else (found == body)


async def test_an_unchanged_file_is_not_sent_again(frontend: Path) -> None:
    client = serving(frontend, native=True).test_client()
    first = await client.get("/static/css/main.css")
    again = await client.get(
        "/static/css/main.css", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "js/../../secret.txt",
        "....//secret.txt",
        "%2fetc/passwd",
        "..\\secret.txt",
        "js",
        "js/",
        "",
        "nothing.js",
        "x" * 5000,
        "a%00b",
    ],
)
@pytest.mark.parametrize("native", [True, False])
async def test_nothing_else_of_the_disk_is_served(frontend: Path, name: str, native: bool) -> None:
    answer = await serving(frontend, native=native).test_client().get(f"/static/{name}")
    assert answer.status_code in (404, 308)  # "//" is answered with the same address without it
    assert b"outside" not in await answer.get_data(as_text=False)


async def test_no_link_leads_out_of_the_folder(frontend: Path) -> None:
    (frontend / "static/link.txt").symlink_to(frontend / "secret.txt")
    assert Assets(frontend, native=True).load("link.txt") is None


async def test_without_a_build_prod_serves_the_modules_and_says_so(
    frontend: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (frontend / "dist/manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        assets = Assets(frontend, native=False)
    assert assets.url("js/main.js") == "/static/js/main.js"
    assert "frontend/dist is not there" in caplog.text


@pytest.mark.parametrize("native", [True, False])
async def test_every_file_a_page_names_is_there(start: Start, native: bool) -> None:
    app = await start(reload=native)
    stranger = app.anonymous()
    page = await stranger.get("/sign-in")
    named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(named) >= 4
    for address in (*named, "/favicon.ico"):
        answer = await stranger.get(address)
        assert answer.status == 200, address
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers
