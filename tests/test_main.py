"""The command `llamora-server` as a person meets it: what it says, how it stops, and several workers."""

import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from llamora.llm.embedded import EmbeddedServer
from tests.scripted_model import ModelThread, Reply
from tests.server_process import FAST_KDF, HttpUser, Server, free_port

NO_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
DAY = "2026-11-20"
STOP_SECONDS = 60.0
WORDS = [f"word{number} " for number in range(400)]


@pytest.fixture
def model() -> Iterator[ModelThread]:
    made = ModelThread()
    made.model.default_reply = Reply(WORDS, piece_delay=0.05)
    yield made
    made.close()


@pytest.fixture
def quiet(serve: Callable[..., Server]) -> Server:
    """A server without models, up."""
    return serve(env=NO_MODELS).start()


def run(*options: str, **env: str) -> tuple[int, str, str]:
    """Run the command to its end: exit status, standard output, standard error."""
    ran = subprocess.run(
        [sys.executable, "-m", "llamora", *options],
        env={**os.environ, **NO_MODELS, **FAST_KDF, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def refusal(*options: str, **env: str) -> str:
    """What the command says when it does not start: one line on standard error, and exit status 2."""
    code, shown, errors = run(*options, **env)
    assert (code, shown) == (2, ""), errors
    assert re.fullmatch(r"llamora-server: [A-Za-z/][^\n]*[.?]\n", errors), errors
    return errors


# -- what it refuses ---------------------------------------------------------------------------------


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("dev", "--port", str(port), LLAMORA_DATA__FOLDER=str(tmp_path / "data"))
    assert f"Port {port} on 127.0.0.1 cannot be used: address already in use." in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "env", "named"),
    [
        ([], {"LLAMORA_SERVER__PORT": "teapot"}, "server.port"),
        (["--port", "99999"], {}, "server.port"),
        (["--workers", "0"], {}, "server.workers"),
        ([], {"LLAMORA_SESSION__MODE": "open"}, "session.mode"),
        (
            [],
            {"LLAMORA_SERVER__PROT": "1"},
            "There is no setting server.prot. Is server.port meant?",
        ),
        ([], {"LLAMORA_GAMES__STREAKS": "true"}, "There is no setting games"),
        ([], {"LLAMORA_SETTINGS": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_a_setting_that_cannot_be_used(
    tmp_path: Path, options: list[str], env: dict[str, str], named: str
) -> None:
    assert named in refusal("dev", *options, **{"LLAMORA_DATA__FOLDER": str(tmp_path), **env})


def test_a_data_folder_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    port = str(free_port())
    for folder in (file, file / "below", tmp_path / ("x" * 300)):
        assert str(folder) in refusal("prod", "--port", port, LLAMORA_DATA__FOLDER=str(folder))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may use every folder"
)
def test_a_data_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "permission denied" in refusal("dev", LLAMORA_DATA__FOLDER=str(tmp_path))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "llamora.sqlite3").write_bytes(b"a shopping list " * 300)
    said = refusal("dev", "--port", str(free_port()), LLAMORA_DATA__FOLDER=str(tmp_path))
    assert "damaged" in said


def test_a_second_server_on_the_same_database(quiet: Server) -> None:
    said = refusal("prod", "--port", str(free_port()), LLAMORA_DATA__FOLDER=str(quiet.data))
    assert "Another Llamora server already uses" in said
    assert httpx.get(quiet.url + "/healthz", trust_env=False).status_code == 200
    assert quiet.stop() == 0
    assert quiet.start().stop() == 0  # the lock went with it


# -- without a command -------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the display is named in the environment")
@pytest.mark.parametrize(
    ("options", "env", "has_terminal", "opens"),
    [
        ([], {"DISPLAY": ":0"}, True, True),
        ([], {"WAYLAND_DISPLAY": "wayland-0"}, True, True),
        ([], {}, True, False),
        ([], {"DISPLAY": ":0"}, False, False),
        (["dev"], {"DISPLAY": ":0"}, True, False),
    ],
    ids=["at a desktop", "on Wayland", "without a display", "without a terminal", "as dev"],
)
def test_a_browser_opens_only_for_a_person_who_gave_no_command(
    tmp_path: Path, options: list[str], env: dict[str, str], has_terminal: bool, opens: bool
) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser.py"
    browser.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.argv[2])\n")
    port, (terminal, standard) = free_port(), pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llamora", *options],
        env={name: text for name, text in os.environ.items() if "DISPLAY" not in name}
        | {**NO_MODELS, **env, "LLAMORA_DATA__FOLDER": str(tmp_path / "data")}
        | {"LLAMORA_SERVER__PORT": str(port)}
        | {"BROWSER": f"{sys.executable} {browser} {opened} %s"},
        stdin=standard if has_terminal else subprocess.DEVNULL,
        stdout=standard if has_terminal else subprocess.PIPE,
    )
    url = f"http://llamora.localhost:{port}"
    said = b""
    while url.encode() not in said:
        part = os.read(terminal, 1000) if has_terminal else process.stdout.read1()  # type: ignore[union-attr]
        assert part, "it did not start"
        said += part
    deadline = time.monotonic() + (30 if opens else 1)
    while not opened.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(STOP_SECONDS) == 0
    for descriptor in (terminal, standard):
        os.close(descriptor)
    if process.stdout is not None:
        process.stdout.close()
    assert (opened.read_text() if opened.exists() else "") == (url if opens else "")


# -- what it answers ---------------------------------------------------------------------------------


def test_it_says_where_it_is(quiet: Server) -> None:
    assert f"Llamora is at http://llamora.localhost:{quiet.port}\n" in quiet.log.read_text()
    health = httpx.get(quiet.url + "/healthz", trust_env=False)
    assert (health.status_code, health.text) == (200, "ok")


def test_it_answers_to_its_own_names_only(quiet: Server) -> None:
    with httpx.Client(base_url=quiet.url, trust_env=False) as http:
        for host in ("127.0.0.1", "localhost", "llamora.localhost", "LLAMORA.LOCALHOST", "[::1]"):
            for name in (host, f"{host}:{quiet.port}"):
                assert http.get("/sign-in", headers={"Host": name}).status_code == 200, name
        for name in (
            "evil.example",
            "127.0.0.1.evil.example",
            f"localhost.evil.example:{quiet.port}",
            "[::2]",
            "a]",
        ):
            for path in ("/sign-in", "/healthz", "/static/css/base.css"):
                answer = http.get(path, headers={"Host": name})
                assert answer.status_code == 400, (name, path)
                assert "set-cookie" not in answer.headers


HTTP_2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
)


@pytest.mark.parametrize("sent", HTTP_2, ids=["at once", "by an upgrade"])
def test_it_speaks_no_http_2_in_the_clear(quiet: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", quiet.port), timeout=30) as connection:
        connection.sendall(sent)
        answer = connection.recv(12)
    assert re.fullmatch(rb"|HTTP/1\.1 (?!101)\d+", answer)


def test_two_journals_on_one_host_are_open_in_one_browser(serve: Callable[..., Server]) -> None:
    first, second = (HttpUser(serve(env=NO_MODELS).start().url) for _ in range(2))
    second.http = httpx.Client(
        base_url=second.url, cookies=first.http.cookies.jar, timeout=60, trust_env=False
    )
    for user in (first, second):
        user.register()
    assert [user.get("/d/today").status_code for user in (first, second)] == [200, 200]


# -- how it stops ------------------------------------------------------------------------------------


def asked(writer: HttpUser) -> str:
    """Write an entry and ask for a reply; its id."""
    entry = writer.write("A line about the lake.", DAY)
    answer = writer.post(f"/e/{entry}/replies", {}, fragment=True)
    assert answer.status_code == 200, answer.text
    return re.findall(r'id="e-([0-9a-f]{32})"', answer.text)[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(
    "signals", [["SIGTERM"], ["SIGINT"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGINT", "SIGTERM"]]
)
def test_it_stops_while_a_reply_streams(
    signals: list[str], serve: Callable[..., Server], model: ModelThread
) -> None:
    server = serve(env=model.env).start()
    assert server.process is not None
    writer = HttpUser(server.url).register()
    reply = asked(writer)
    with writer.http.stream("GET", f"/session/events?reply={reply}", timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        while "word3" not in next(lines):
            pass
        for name in signals:
            server.process.send_signal(getattr(signal, name))
            time.sleep(0.05)  # not at once, or the system makes one of two
        with suppress(httpx.HTTPError):
            for _ in lines:
                pass
    assert server.process.wait(STOP_SECONDS) == 0
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "word3" not in log
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM dek_sessions").fetchone() == (0,)
    if len(signals) > 1:
        return
    server.start()
    writer = HttpUser(server.url)
    assert writer.sign_in().status_code == 303
    page = writer.get(f"/d/{DAY}").text
    assert "word0 word1 word2 word3" in page  # what came is kept, and said to be cut short
    assert "Cut short" in page


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_it_stops_while_nothing_happens(quiet: Server) -> None:
    assert quiet.process is not None
    with httpx.Client(base_url=quiet.url, trust_env=False) as http:
        assert http.get("/sign-in").status_code == 200  # a connection that is kept open
        quiet.process.send_signal(signal.SIGTERM)
        assert quiet.process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in quiet.log.read_text()


HANGING = """
import asyncio, sys, time
from llamora.search.service import SearchService
from llamora.__main__ import main
async def hang(self):
    await asyncio.to_thread(time.sleep, 120)
SearchService.stop = hang
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_stops_in_time_although_a_part_hangs(
    serve: Callable[..., Server], tmp_path: Path, workers: str
) -> None:
    program = tmp_path / "hanging.py"
    program.write_text(HANGING)
    server = serve(env=NO_MODELS | {"LLAMORA_SERVER__SHUTDOWN_SECONDS": "0.5"})
    server.command = (str(program),)
    process = server.start("--workers", workers).process
    assert process is not None
    HttpUser(server.url).register()
    began = time.monotonic()
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    process.wait(STOP_SECONDS)
    assert time.monotonic() - began < 0.5 + 2 + 1  # the last for a machine under load
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM dek_sessions").fetchone() == (0,)
    assert "search did not stop in time" in server.log.read_text()


# -- several workers ---------------------------------------------------------------------------------


def served_by(server: Server, answer: httpx.Response) -> int:
    """The process at the other end of the connection that an answer came over (Linux)."""
    client_port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    ends = {(server.port, client_port)}
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16)) in ends:
            inode = fields[9]
    assert server.process is not None
    children = (
        Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    )
    for pid in children:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(link.readlink()) == f"socket:[{inode}]":
                    return int(pid)
    raise AssertionError("the connection belongs to no worker")


def one_of_each(server: Server, first: HttpUser) -> list[HttpUser]:
    """The same browser on two connections, one to each worker."""
    found: dict[int, HttpUser] = {served_by(server, first.get("/healthz")): first}
    others: list[HttpUser] = []
    for _ in range(100):
        again = HttpUser(server.url)
        again.http.cookies = first.http.cookies
        found.setdefault(served_by(server, again.get("/healthz")), again)
        others.append(again)  # its connection stays open, so the busy worker is not asked again
        if len(found) == 2:
            return list(found.values())
    raise AssertionError("one worker took every connection")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker of a connection in /proc")
def test_two_workers_are_one_server(serve: Callable[..., Server], model: ModelThread) -> None:
    server = serve(mode="prod", env=model.env).start("--workers", "2")
    assert server.process is not None
    here, there = one_of_each(server, HttpUser(server.url).register())
    assert served_by(server, here.get("/healthz")) != served_by(server, there.get("/healthz"))
    # The session of one is known to both, and what one keeps the other shows and finds.
    here.write("Kept by one worker.", DAY)
    assert "Kept by one worker." in there.get(f"/d/{DAY}").text
    there.write("Kept by the other one.", DAY)
    assert "Kept by the other one." in here.get(f"/d/{DAY}").text
    place = here.post("/search", {"q": "other"}).headers["Location"]
    patience = time.monotonic() + 60
    while "Kept by the other" not in re.sub(r"<[^>]+>", "", here.get(place).text):
        assert time.monotonic() < patience, "the other worker's entry was not found"
        time.sleep(0.05)
    # So does the address of what was found while one typed, which is in no file.
    typed = here.post("/search/typing", {"q": "kept by"}, fragment=True).headers["HX-Replace-Url"]
    assert "Kept by the other" in re.sub(r"<[^>]+>", "", there.get(typed).text)

    # A reply asked of one is followed on the other to its end, growing.
    held = model.hold_reply(["It ", "was ", "a ", "still ", "lake."], 2)
    reply = asked(here)
    worker = served_by(server, here.get("/healthz"))
    with there.http.stream("GET", f"/session/events?reply={reply}", timeout=60) as stream:
        assert served_by(server, stream) != worker
        shown = (
            re.sub(r"<[^>]+>", "", line) for line in stream.iter_lines() if line.startswith("data:")
        )
        growing = next(words for words in shown if "It was" in words)
        assert "lake" not in growing
        model.release(held)
        assert any("It was a still lake." in words for words in shown)
    assert "It was a still lake." in there.get(f"/d/{DAY}").text

    # Signing out on one is signing out on both.
    here.post("/sign-out", {})
    assert there.get(f"/d/{DAY}").status_code == 303

    second = HttpUser(server.url)
    assert second.sign_in().status_code == 303
    reply = asked(second)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in server.log.read_text()
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM dek_sessions").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(
    bool(EmbeddedServer.unavailable_reason()), reason=EmbeddedServer.unavailable_reason()
)
def test_workers_share_the_built_in_model_of_their_parent(serve: Callable[..., Server]) -> None:
    server = serve(mode="prod", env=NO_MODELS | {"LLAMORA_LLM__ENABLED": "true"})
    alice = HttpUser(server.start("--workers", "2").url).register()
    for _ in range(2):
        answer = alice.post("/you/model/test", {"endpoint": "built-in"})
        assert answer.status_code == 200, answer.text
    assert server.log.read_text().count("embedded model ready") == 1
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker of a connection in /proc")
def test_a_worker_that_is_killed_is_replaced_and_its_reply_is_cut_short(
    serve: Callable[..., Server], model: ModelThread
) -> None:
    server = serve(mode="prod", env=model.env).start("--workers", "2")
    here, there = one_of_each(server, HttpUser(server.url).register())
    held = model.hold_reply(["It was ", "a still lake."], 1)
    reply = asked(here)

    def until(words: str) -> str:
        patience = time.monotonic() + 60
        while words not in (page := re.sub(r"<[^>]+>", " ", there.get(f"/d/{DAY}").text)):
            assert time.monotonic() < patience, " ".join(page.split())
            time.sleep(0.05)
        return page

    until("It was")
    assert "Cut short" not in there.get(f"/d/{DAY}").text
    os.kill(served_by(server, here.get("/healthz")), signal.SIGKILL)
    assert "It was" in until("Cut short when the server stopped.")
    model.release(held)
    with there.http.stream("GET", f"/session/events?reply={reply}", timeout=60) as stream:
        assert any("Cut short" in line for line in stream.iter_lines())
    assert server.process is not None
    assert server.process.poll() is None
    one_of_each(server, there)  # another worker serves in its place
    asked(there)
    until("word0 word1")
