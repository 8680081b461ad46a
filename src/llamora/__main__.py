"""The command `llamora-server`: `dev` and `prod` serve the journal until they are told to stop.

The other commands are in llamora.commands.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

from llamora import commands
from llamora.settings import Settings, SettingsError, load_settings, resource
from llamora.vault.memory import keep_out_of_dumps

logger = logging.getLogger(__name__)

NAME = "llamora.localhost"
ADDRESS_BYTES = 128
REPLACED = 5  # workers that ended by themselves and were replaced, until the server gives up


class Failure(Exception):
    """Why the server does not start, in one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 after a clean stop, 2 with one sentence when it cannot start."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(overrides=_overrides(options))
        _set_up_logging(settings.log_level)
        if options.mode in ("dev", "prod"):
            return _serve(settings, dev=options.mode == "dev", reload=options.reload)
        keep_out_of_dumps()
        return commands.run_command(options, settings)
    except (Failure, SettingsError, commands.CommandFailed) as error:
        print(f"llamora-server: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamora-server", description="A private journal on your own machine.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="COMMAND")
    for mode, words in (
        ("dev", "serve the front end as it is written"),
        ("prod", "serve the built front end"),
    ):
        sub = modes.add_parser(mode, help=words, description=words)
        sub.add_argument("--host", help="address to listen on (server.host)")
        sub.add_argument("--port", type=int, help="port to listen on (server.port; 5151 unless set)")
        sub.add_argument("--workers", type=int, help="processes that serve (server.workers)")
        sub.add_argument(
            "--reload", action="store_true", help="start again when a file of the program changes; signs everybody out"
        )
    commands.add_commands(modes.add_parser)
    return parser


def _overrides(options: argparse.Namespace) -> Mapping[str, Any]:
    given = {name: getattr(options, name, None) for name in ("host", "port", "workers")}
    return {"server": {name: value for name, value in given.items() if value is not None}}


def _set_up_logging(level: str) -> None:
    # Libraries may quote what passes through them; from them only trouble is let through, and from Quart
    # not even that: it logs an exception with its message, ours log the class and the place.
    logging.basicConfig(
        level="ERROR" if level == "ERROR" else "WARNING", format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("llamora").setLevel(level)
    logging.getLogger("llamora.app").setLevel(level)
    logging.getLogger("quart").setLevel(logging.CRITICAL)


def _serve(settings: Settings, *, dev: bool, reload: bool) -> int:
    from llamora.persistence.connection import InstanceLock, StorageError
    from llamora.persistence.migrations import run_db_migrations

    keep_out_of_dumps()
    try:
        listening = _listen(settings.server.host, settings.server.port)
        lock = InstanceLock(settings.data.database)
        try:
            run_db_migrations(settings.data.database, resource("migrations"))
            if settings.server.workers == 1:
                return asyncio.run(_serve_alone(settings, listening, dev=dev, reload=reload))
            if sys.platform == "win32":
                raise Failure("Several workers need a system that can share a socket; set server.workers to 1.")
            return asyncio.run(_serve_with_workers(settings, listening, dev=dev))
        finally:
            _ignore_signals()
            lock.release()
            listening.close()
    except StorageError as error:
        raise Failure(str(error)) from None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise Failure(
            f"Port {port} on {host} cannot be used: {reason}. Choose another with --port, or stop what uses it."
        ) from None
    listening.setblocking(False)
    return listening


def _announce(settings: Settings, listening: socket.socket) -> None:
    host, port = settings.server.host, listening.getsockname()[1]
    shown = NAME if host in ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::") else host  # noqa: S104 -- compared, not bound
    print(f"Llamora is at http://{shown}:{port}", flush=True)


def _hypercorn_config(settings: Settings, listening: socket.socket) -> Any:
    from hypercorn.config import Config

    config = Config()
    if sys.platform == "win32":  # sockets have no file descriptor there: let the port go and take it again
        host, port = listening.getsockname()[:2]
        listening.close()
        config.bind = [f"{host}:{port}"]
    else:
        config.bind = [f"fd://{os.dup(listening.fileno())}"]  # Hypercorn closes what it is given
    config.accesslog = None  # an address of a request is nobody's business
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = settings.server.shutdown_seconds
    config.shutdown_timeout = settings.server.shutdown_seconds
    config.keep_alive_timeout = 30
    config.h11_max_incomplete_size = 65_536
    return config


async def _serve_alone(settings: Settings, listening: socket.socket, *, dev: bool, reload: bool) -> int:
    stop = asyncio.Event()
    _on_signals(stop)
    changed = asyncio.create_task(_watch(stop)) if reload else None
    await _run_app(settings, listening, stop, dev=dev, shared=None, announce=True)
    if changed is not None:
        changed.cancel()
        if changed.done() and not changed.cancelled():
            _start_again()
    return 0


async def _run_app(
    settings: Settings, listening: socket.socket, stop: asyncio.Event, *, dev: bool, shared: Any, announce: bool
) -> None:
    from hypercorn.asyncio import serve  # pyright: ignore[reportUnknownVariableType] -- hypercorn types it in part

    from llamora.app import create_app
    from llamora.app.services.container import AppLifecycle
    from llamora.llm.prompts import PromptTemplateError

    try:
        app = create_app(settings, dev=dev, shared=shared)
    except PromptTemplateError as error:
        raise Failure(str(error)) from None
    lifecycle: AppLifecycle = app.extensions["llamora.lifecycle"]

    async def told_to_stop() -> None:
        await stop.wait()
        # Streams end now; Hypercorn would wait for them.
        await lifecycle.quiesce()

    if announce:
        app.before_serving(lambda: _announce(settings, listening))
    try:
        await serve(app, _hypercorn_config(settings, listening), shutdown_trigger=told_to_stop)
    finally:
        await lifecycle.stop()


def _on_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first signal, and take no notice of further ones, whenever they come.

    Not with the loop's own handlers: the loop takes them away when it closes, and a second signal (uv forwards
    one) would then kill a server that is ending cleanly.
    """
    loop = asyncio.get_running_loop()

    def told(_number: int, _frame: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(stop.set)

    for number in _stop_signals():
        signal.signal(number, told)


def _ignore_signals() -> None:
    """For the rest of this process: Python puts handlers of ours back to the default as it ends."""
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def _stop_signals() -> list[signal.Signals]:
    return [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGBREAK")]


# -- several workers ---------------------------------------------------------------------------------


async def _serve_with_workers(settings: Settings, listening: socket.socket, *, dev: bool) -> int:
    """The parent holds the lock, the boot secret and the built-in model; the workers serve."""
    # Started with `python -m`, this module is `__main__`, and no new process finds its functions under that name.
    from llamora.__main__ import serve_as_worker
    from llamora.llm.client import ModelError
    from llamora.llm.embedded import EmbeddedServer
    from llamora.persistence.local_db import LocalDB
    from llamora.search.pending import BUFFER_BYTES as noted_bytes  # noqa: N811 -- a size there, an argument here

    stop = asyncio.Event()
    _on_signals(stop)
    context = multiprocessing.get_context("spawn")
    # Without locks: a worker that is killed while it reads would keep one for ever.
    address: Any = context.RawArray("c", ADDRESS_BYTES)
    noted: Any = context.RawArray("c", noted_bytes)
    wanted: Any = context.RawValue("b", 0)  # whether a worker asked for the built-in model
    embedded = settings.llm.enabled and settings.llm.embedded
    server = EmbeddedServer(settings.llm) if embedded and not EmbeddedServer.unavailable_reason() else None
    db = await LocalDB.open(settings.data.database)
    await db.sessions.clear()
    secret = secrets.token_bytes(32)
    ending: Any = context.RawValue("b", 0)
    alive: Any = context.RawArray("q", settings.server.workers)  # the numbers of the workers that are; 0 is none
    workers: list[BaseProcess] = []

    def start_worker(place: int, number: int) -> "BaseProcess":
        shared = (secret, server.api_key if server else "", address, wanted, noted, number, alive)
        worker = context.Process(target=serve_as_worker, args=(settings, listening, ending, shared, dev), daemon=True)
        alive[place] = number
        worker.start()
        return worker

    workers += [start_worker(place, place + 1) for place in range(settings.server.workers)]
    started = len(workers)

    async def run_model() -> None:
        if server is None:
            return
        while True:
            if wanted.value and server.state == "off":
                try:
                    await server.start()
                except ModelError:
                    logger.warning("the built-in model did not start")
            address.value = server.base_url.encode()[: ADDRESS_BYTES - 1]
            await asyncio.sleep(0.2)

    model = asyncio.create_task(run_model())
    _announce(settings, listening)
    failed = False
    while not stop.is_set():
        for place, worker in enumerate(workers):
            if worker.is_alive():
                continue
            alive[place] = 0  # what it was writing is now shown as cut short
            started += 1
            if started > settings.server.workers + REPLACED:
                failed = True
                break
            logger.warning("a worker ended unexpectedly (%s); another one takes its place", worker.exitcode)
            workers[place] = start_worker(place, started)
        if failed:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.3)
    ending.value = 1
    for worker in workers:
        await asyncio.to_thread(worker.join, 4.0)
        if worker.is_alive():
            worker.kill()
            worker.join()
    model.cancel()
    if server is not None:
        await server.stop()
    await db.sessions.clear()
    await db.close()
    if failed and not stop.is_set():
        raise Failure("Workers kept ending unexpectedly, so the server stopped. Start it again; what was kept is safe.")
    return 0


def serve_as_worker(
    settings: Settings,
    listening: socket.socket,
    ending: Any,
    shared: tuple[bytes, str, Any, Any, Any, int, Any],
    dev: bool,
) -> None:
    """What each process of several runs, until `ending` is set or the parent is gone.

    `shared` is the boot secret, the key to the parent's model server, its address and whether it is wanted, the memory
    of Noted, the number of this worker and those of all that are alive.
    """
    from llamora.app.services.container import Shared
    from llamora.llm.model import SharedServer
    from llamora.search.pending import PendingQueries

    _set_up_logging(settings.log_level)
    keep_out_of_dumps()
    secret, api_key, address, wanted, noted, worker, alive = shared

    def listening_at() -> str:
        return address.value.decode()

    def request() -> None:
        wanted.value = 1

    model = SharedServer(listening_at, api_key, request) if api_key else None

    async def run() -> None:
        stop = asyncio.Event()
        # A terminal sends Ctrl+C to every process; only the parent's word counts here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

        async def wait() -> None:
            while not ending.value and multiprocessing.parent_process() is not None:
                parent = multiprocessing.parent_process()
                if parent is None or not parent.is_alive():
                    break
                await asyncio.sleep(0.1)
            stop.set()

        waiting = asyncio.create_task(wait())
        common = Shared(secret, model, PendingQueries(noted), worker, lambda: tuple(alive))
        await _run_app(settings, listening, stop, dev=dev, shared=common, announce=False)
        waiting.cancel()

    asyncio.run(run())


# -- --reload ----------------------------------------------------------------------------------------


async def _watch(stop: asyncio.Event) -> None:
    """Set `stop` when a Python file or template of the program changes."""
    root = resource("migrations").parent
    seen = _times(root)
    while True:
        await asyncio.sleep(0.7)
        now = await asyncio.to_thread(_times, root)
        if now != seen:
            stop.set()
            return


def _times(root: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for folder, pattern in (("src", "*.py"), ("src", "*.j2"), ("migrations", "*.sql"), ("config", "*.toml")):
        for file in (root / folder).rglob(pattern):
            with suppress(OSError):
                found[str(file)] = file.stat().st_mtime
    return found


def _start_again() -> None:
    os.execv(sys.executable, [sys.executable, "-m", "llamora", *sys.argv[1:]])  # noqa: S606 -- this very program


if __name__ == "__main__":
    sys.exit(main())
