"""Strings that break programs, wherever a person can put one: never an error of 5xx, never a changed word."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HttpUser, Server
from tests.evaluation import evaluation_data

GOOD = "eleven grey geese over the causeway"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Server]:
    made = Server(
        tmp_path_factory.mktemp("naughty"), cache, env={"LLAMORA_LLM__ENABLED": "false"}
    ).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def strings() -> list[str]:
    return json.loads(evaluation_data("payloads/blns.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def writer(server: Server) -> HttpUser:
    return HttpUser(server.url).register()


def test_as_entry(writer: HttpUser, strings: list[str]) -> None:
    for number, text in enumerate(strings):
        day = f"20{number // 28 % 30:02}-01-{number % 28 + 1:02}"
        answer = writer.post(f"/d/{day}/entries", {"text": text}, fragment=True)
        if not text.strip():
            assert answer.status_code == 422
            continue
        assert answer.status_code == 200, text
        entry = re.search(r'id="e-([0-9a-f]{32})"', answer.text)
        assert entry is not None
        form = writer.get(f"/e/{entry[1]}/edit").text
        field = re.search(
            rf'<textarea id="edit-{entry[1]}"[^>]*>\n(.*?)</textarea>', form, re.DOTALL
        )
        assert field is not None
        kept = html.unescape(field[1])
        assert kept == text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip(), repr(
            text
        )


def test_as_query(writer: HttpUser, strings: list[str]) -> None:
    for text in strings:
        answer = writer.http.post(
            "/search",
            data={"csrf": writer.cookie("llamora_csrf"), "q": text},
            follow_redirects=True,
        )
        assert answer.status_code < 500, text
        assert "something went wrong" not in answer.text.lower()


def test_as_day(writer: HttpUser, strings: list[str]) -> None:
    for text in strings:
        path = writer.http.build_request("GET", "/d/x").url.copy_with(
            raw_path=b"/d/" + _quoted(text)
        )
        answer = writer.http.get(path)
        assert answer.status_code in (200, 404, 308), text


def test_as_name(server: Server, strings: list[str]) -> None:
    stranger = HttpUser(server.url)
    stranger.get("/register")
    for text in strings:
        # The passphrase is refused, so that nobody is made; the name is looked at, and shown again, all the same.
        answer = stranger.post("/register", {"name": text, "passphrase": "short", "zone": text})
        assert answer.status_code == 422, text
        assert "<script>alert" not in answer.text
    for number, text in enumerate(strings[::12]):  # each costs a KDF
        # From addresses of their own: registrations count by address.
        newcomer = HttpUser(server.url, source_address=f"127.0.2.{number + 1}")
        answer = newcomer.post("/register", {"name": text, "passphrase": GOOD, "zone": "UTC"})
        assert answer.status_code in (200, 422), text
        if answer.status_code == 200:
            again = HttpUser(server.url, text, GOOD)
            assert again.sign_in().status_code == 303
    for text in strings[::25]:
        answer = stranger.post("/sign-in", {"name": text, "passphrase": text, "next": text})
        assert answer.status_code in (403, 429), text


def _quoted(text: str) -> bytes:
    return (
        "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass")).encode() or b"%20"
    )
