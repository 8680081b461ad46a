"""A server as a person starts it, in a process and folders of its own, and somebody who uses it.

Nothing here needs pytest: the benchmarks use it too.
"""

import itertools
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

# Another Python with Llamora installed, such as that of a venv with nothing but the wheel (scripts/wheel.py).
PYTHON = os.environ.get("JOURNAL_TEST_PYTHON", sys.executable)
FAST_KDF = {
    "LLAMORA_CRYPTO__KDF_TARGET_MS": "0"
}  # exactly the floor of the design, not calibrated above it
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


def free_port() -> int:
    """A port that nobody uses, from below those that systems hand out to connections and might until it is taken."""
    for port in random.sample(range(15_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclass
class Server:
    """One `llamora-server` in a process of its own."""

    folder: Path
    cache: Path
    mode: str = "dev"
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("-m", "llamora")
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, *options: str, timeout: float = 90) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {
            **os.environ,
            "LLAMORA_DATA__FOLDER": str(self.data),
            "LLAMORA_DATA__CACHE": str(self.cache),
            "LLAMORA_SERVER__PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "",  # as on a person's machine: what was compiled once stays compiled
            **FAST_KDF,
            **self.env,
        }
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [PYTHON, *self.command, self.mode, *options],
                env=env,
                stdout=out,
                stderr=out,
                cwd=self.folder,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(self.url + "/healthz", timeout=10, trust_env=False).status_code == 200:
                    return self
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(
            f"the server did not come up: {self.log.read_text(errors='replace')[-2000:]}"
        )

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


def code_shown(answer: httpx.Response) -> str:
    """The recovery code on a page that shows a new one."""
    shown = re.search(r'<p class="code-shown"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert shown is not None
    return re.sub(r"<[^>]+>", "", shown[1])


_REGISTERED = itertools.count()


@dataclass
class HttpUser:
    """Somebody at a browser without JavaScript: posts forms, follows links."""

    url: str
    name: str = "Alice"
    passphrase: str = "correct horse battery staple 42"
    http: httpx.Client = field(init=False)
    recovery_code: str = ""
    source_address: str | None = None

    def __post_init__(self) -> None:
        self._connect()

    def _connect(self) -> None:
        transport = httpx.HTTPTransport(local_address=self.source_address)
        self.http = httpx.Client(
            base_url=self.url, timeout=60, trust_env=False, transport=transport
        )

    def __del__(self) -> None:
        self.http.close()

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def post(self, path: str, data: Mapping[str, str], *, fragment: bool = False) -> httpx.Response:
        token = self.cookie("llamora_csrf") or self._token()
        headers = {"HX-Request": "true"} if fragment else {}
        return self.http.post(path, data={"csrf": token, **data}, headers=headers)

    def register(self) -> "HttpUser":
        # Registrations count by address: a server that tests share has many users.
        if self.source_address is None and sys.platform == "linux":
            self.http.close()
            self.source_address = f"127.3.{next(_REGISTERED) % 250}.{os.getpid() % 250 + 1}"
            self._connect()
        self.http.get("/register")
        response = self.post(
            "/register", {"name": self.name, "passphrase": self.passphrase, "zone": "Europe/Berlin"}
        )
        assert response.status_code == 200, response.text
        self.recovery_code = code_shown(response)
        return self

    def sign_in(self) -> httpx.Response:
        self.http.get("/sign-in")
        return self.post("/sign-in", {"name": self.name, "passphrase": self.passphrase})

    def write(self, text: str, day: str = "today") -> str:
        """Keep an entry and return its id."""
        response = self.post(f"/d/{day}/entries", {"text": text}, fragment=True)
        assert response.status_code == 200, response.text
        match = re.search(r'id="e-([0-9a-f]{32})"', response.text)
        assert match is not None
        return match[1]

    def ask(self, entry: str) -> str:
        """Ask for a reply to an entry and return its id."""
        response = self.post(f"/e/{entry}/replies", {}, fragment=True)
        assert response.status_code == 200, response.text
        return response.text.split("/r/")[1][:32]

    def cookie(self, name: str) -> str:
        """Return a cookie of this server, "" if there is none: its name holds the port."""
        return self.http.cookies.get(f"{name}_{self.http.base_url.port}") or ""

    def _token(self) -> str:
        match = CSRF.search(self.http.get("/sign-in").text)
        assert match is not None
        return match[1]
