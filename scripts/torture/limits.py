"""Check what strangers cost, what stays in memory, how slow a model may be: `python -m scripts.torture.limits` (Linux).

`keys_after_sign_out` reads the memory of the server, which is root's where the system says so. `--only NAME` runs one
check. Prints one JSON object: the figures of each check, and the names of those that failed.
"""

import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import quote_plus

import httpx

from scripts import command
from scripts.processes import memory_mb, process_ids
from scripts.torture.harness import WITHOUT_MODELS, any_of, beside, join_all, run_threads
from tests.scripted_model import ModelThread, Reply
from tests.server_process import HttpUser, Server

PATIENT = {"LLAMORA_LLM__ENABLED": "true", "LLAMORA_LLM__TIMEOUT_SECONDS": "300"}
KEY_SECONDS, PASSPHRASE_SECONDS = 2, 30  # how long after the last sign-out they may be in memory
TEXT = "Quinces on the sill smell of October."
BODIES, BODY_BYTES, MAX_BODIES_MB = 100, 6_000_000, 30
STRENGTH_CHECKS, MAX_PAGE_MS = 60, 50
GUESSES, MAX_SIGN_IN_SECONDS = 100, 2
SILENT_SECONDS, LIST_SECONDS, MAX_REPLY_SECONDS = 36, 5, 90

Figures = dict[str, object]
Start = Callable[..., Server]


def user_from(url: str, address: str, name: str = "Alice") -> HttpUser:
    """Return somebody whose connections come from this loopback address."""
    user = HttpUser(url, name)
    transport = httpx.HTTPTransport(local_address=address)
    user.http = httpx.Client(base_url=url, timeout=120, trust_env=False, transport=transport)
    return user


def count_in_memory(server: Server, needle: bytes) -> int:
    """Count how often bytes occur in the memory of a server. Raises PermissionError."""
    count = 0
    for process_id in process_ids(server):
        maps = Path(f"/proc/{process_id}/maps").read_text(encoding="utf-8").splitlines()
        with Path(f"/proc/{process_id}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                span, modes = line.split()[:2]
                if "r" not in modes or "[v" in line:
                    continue
                start, end = (int(number, 16) for number in span.split("-"))
                with suppress(OSError, ValueError, OverflowError):
                    memory.seek(start)
                    count += memory.read(end - start).count(needle)
    return count


async def _read_keys(server: Server, user: HttpUser) -> tuple[bytes, bytes]:
    async with beside(server, user) as (_, keys):
        data_key = keys._data_keys[keys.epoch]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        return bytes(keys.master), bytes(data_key)


def keys_after_sign_out(start: Start, passphrase_seconds: int = PASSPHRASE_SECONDS) -> Figures:
    """Keys and passphrase are gone from memory once nobody is signed in, and so is what was read."""
    server = start()
    user = HttpUser(server.url).register()
    user.write(TEXT)
    secrets = [user.passphrase.encode(), quote_plus(user.passphrase).encode()]
    both = asyncio.run(_read_keys(server, user))
    held = [count_in_memory(server, key) for key in both]
    for _ in range(3):
        user.post("/sign-out", {})
        user.sign_in()
        user.get("/d/today")
    user.post("/sign-out", {})
    time.sleep(KEY_SECONDS)
    keys = [count_in_memory(server, key) for key in both]
    time.sleep(passphrase_seconds - KEY_SECONDS)
    passphrases = sum(count_in_memory(server, secret) for secret in secrets)
    return {
        "master_and_data_key_while_signed_in": held,
        "master_and_data_key": keys,
        "passphrases": passphrases,
        "texts": count_in_memory(server, TEXT.encode()),
        # A scan that does not find the keys of somebody who is signed in finds none of anybody.
        "failed": not all(held) or any(keys) or bool(passphrases),
    }


def anonymous_bodies(start: Start) -> Figures:
    """Nobody makes a server hold a body that it will refuse."""
    server = start()
    HttpUser(server.url).register()
    before = memory_mb(server)
    head = (
        "POST /d/today/entries HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    ).encode()
    with ExitStack() as connections:
        for _ in range(BODIES):
            connection = connections.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=5)
            )
            with suppress(OSError):  # refused, as it should be
                connection.sendall(head + b"a" * (BODY_BYTES - 1))
        time.sleep(2)
        grown = round(memory_mb(server) - before)
    return {"grown_mb": grown, "failed": grown >= MAX_BODIES_MB}


def ask_for_strength(url: str) -> None:
    """Have passphrases judged for many strangers at once."""
    strangers = [user_from(url, f"127.4.0.{n + 1}") for n in range(STRENGTH_CHECKS)]
    for stranger in strangers:
        stranger.get("/sign-in")

    def check(number: int) -> None:
        passphrase = ("aA1!" * 18 if number % 2 else "1234qwerty!@#$" * 6)[:72]
        strangers[number].post("/register/strength", {"name": "x", "passphrase": passphrase})

    join_all(run_threads(partial(check, number) for number in range(STRENGTH_CHECKS)))


def strength_checks(start: Start) -> Figures:
    """Passphrases that strangers have judged do not hold up the pages of who is signed in."""
    server = start()
    user = HttpUser(server.url).register()

    def page_ms() -> float:
        begun = time.monotonic()
        user.get("/d/today")
        return (time.monotonic() - begun) * 1000

    calm = statistics.median(page_ms() for _ in range(20))
    meanwhile = [calm]
    # In a process of their own: what clients cost here is not the server's.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        strangers = pool.submit(ask_for_strength, server.url)
        while not strangers.done():
            meanwhile.append(page_ms())
    strangers.result()
    return {
        "calm_ms": round(calm),
        "median_ms": round(statistics.median(meanwhile)),
        "page_ms": round(max(meanwhile)),
        "failed": max(meanwhile) >= MAX_PAGE_MS,
    }


def guesses(start: Start) -> Figures:
    """Who has signed in here before does not wait behind guesses at names that nobody has."""
    server = start()
    user = user_from(server.url, "127.9.0.1").register()
    user.post("/sign-out", {})
    strangers = [user_from(server.url, f"127.2.0.{n + 1}", f"nobody {n}") for n in range(GUESSES)]
    threads = run_threads(stranger.sign_in for stranger in strangers)
    time.sleep(0.5)
    begun = time.monotonic()
    status = user.sign_in().status_code
    seconds = time.monotonic() - begun
    join_all(threads)
    failed = status != 303 or seconds >= MAX_SIGN_IN_SECONDS
    return {"status": status, "seconds": round(seconds, 1), "failed": failed}


def reply_comes(start: Start, model: ModelThread) -> Figures:
    """Ask for a reply and wait for its end."""
    user = HttpUser(start(**model.env, **PATIENT).url).register()
    user.post(f"/e/{user.write('A walk by the river.')}/replies", {}, fragment=True)
    begun = time.monotonic()
    while (
        "data-streams" in (page := user.get("/d/today").text)
        and time.monotonic() < begun + MAX_REPLY_SECONDS
    ):
        time.sleep(0.2)
    return {"seconds": round(time.monotonic() - begun, 1), "failed": "Good morning." not in page}


def silent_model(start: Start) -> Figures:
    """A model may be silent for as long as the settings say, also once its reply has begun."""
    with closing(ModelThread()) as model:
        model.model.script(Reply(["", "Good morning."], piece_delay=SILENT_SECONDS))
        return reply_comes(start, model)


def slow_list(start: Start) -> Figures:
    """A list of models that comes late costs no reply."""
    with closing(ModelThread()) as model:
        model.model.list_delay = LIST_SECONDS
        model.model.default_reply = Reply(["Good morning."])
        return reply_comes(start, model)


CHECKS: dict[str, Callable[[Start], Figures]] = {
    check.__name__: check
    for check in (
        *(keys_after_sign_out, anonymous_bodies, strength_checks),
        *(guesses, silent_model, slow_list),
    )
}


def run(check: Callable[[Start], Figures]) -> Figures:
    """Run one check on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="limits-", ignore_cleanup_errors=True) as name:
        folder, servers = Path(name), list[Server]()

        def start(**env: str) -> Server:
            env = {**WITHOUT_MODELS, "LLAMORA_BACKUP__DAILY": "false", **env}
            servers.append(Server(folder, folder / "cache", mode="prod", env=env).start())
            return servers[-1]

        try:
            return check(start)
        except PermissionError:
            return {"error": "the memory of the server can be read by root only", "failed": True}
        finally:
            for server in servers:
                server.stop()


def torture(folder: Path, only: list[str] | None) -> Figures:  # noqa: ARG001 -- each has its own
    """Run all checks, or only those named."""
    results = {name: run(CHECKS[name]) for name in only or CHECKS}
    return {**results, "failed": [name for name, figures in results.items() if figures["failed"]]}


if __name__ == "__main__":
    only = {"action": "append", "choices": list(CHECKS)}
    sys.exit(command.run(torture, failed=any_of("failed"), only=only))
