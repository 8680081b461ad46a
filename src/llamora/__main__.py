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
from llamora.errors import Problem
from llamora.messages import sentence
from llamora.persistence.connection import os_reason
from llamora.settings import Settings, SettingsError, load_settings, resource
from llamora.vault.memory import disable_core_dumps

logger = logging.getLogger(__name__)

LOCAL_HOST_NAME = "llamora.localhost"
MODEL_ADDRESS_BYTES = 128
MAX_WORKER_RESTARTS = 5  # workers that died and were replaced, until the server gives up


class StartupError(Problem):
    """The server cannot start; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 after a clean stop, 2 when it cannot start.

    The reason is printed in one sentence.
    """
    options = _build_parser().parse_args(arguments)
    try:
        settings = load_settings(overrides=_overrides(options))
        _configure_logging(settings.log_level)
        if options.mode in ("dev", "prod"):
            return _run_server(settings, dev=options.mode == "dev", reload=options.reload)
        disable_core_dumps()
        return commands.run_command(options, settings)
    except (Problem, SettingsError) as error:
        print(
            f"llamora-server: {sentence(error) if isinstance(error, Problem) else error}",
            file=sys.stderr,
        )
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llamora-server", description="A private journal on your own machine."
    )
    subcommands = parser.add_subparsers(dest="mode", required=True, metavar="COMMAND")
    for mode, description in (
        ("dev", "serve the front end as it is written"),
        ("prod", "serve the built front end"),
    ):
        subparser = subcommands.add_parser(mode, help=description, description=description)
        subparser.add_argument("--host", help="address to listen on (server.host)")
        subparser.add_argument(
            "--port", type=int, help="port to listen on (server.port; 5151 unless set)"
        )
        subparser.add_argument("--workers", type=int, help="processes that serve (server.workers)")
        subparser.add_argument(
            "--reload",
            action="store_true",
            help="start again when a file of the program changes; signs everybody out",
        )
    commands.add_commands(subcommands.add_parser)
    return parser


def _overrides(options: argparse.Namespace) -> Mapping[str, Any]:
    values = {name: getattr(options, name, None) for name in ("host", "port", "workers")}
    return {"server": {name: value for name, value in values.items() if value is not None}}


def _configure_logging(level: str) -> None:
    # Libraries may quote what passes through them: only their warnings are let through, and from
    # Quart not even those. It logs an exception with its message, ours log the class and the place.
    logging.basicConfig(
        level="ERROR" if level == "ERROR" else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("llamora").setLevel(level)
    logging.getLogger("llamora.app").setLevel(level)
    logging.getLogger("quart").setLevel(logging.CRITICAL)


def _run_server(settings: Settings, *, dev: bool, reload: bool) -> int:
    from llamora.persistence.connection import InstanceLock
    from llamora.persistence.migrations import run_db_migrations

    disable_core_dumps()
    listening_socket = _listen(settings.server.host, settings.server.port)
    lock = InstanceLock(settings.data.database)
    try:
        run_db_migrations(settings.data.database, resource("migrations"))
        if settings.server.workers == 1:
            return asyncio.run(
                _serve_in_one_process(settings, listening_socket, dev=dev, reload=reload)
            )
        if sys.platform == "win32":
            raise StartupError("workers_unsupported")
        return asyncio.run(_serve_with_workers(settings, listening_socket, dev=dev))
    finally:
        _ignore_signals()
        lock.release()
        listening_socket.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening_socket = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening_socket.bind((host.strip("[]"), port))
        listening_socket.listen(128)
    except OSError as error:
        listening_socket.close()
        raise StartupError("port_unusable", port=port, host=host, reason=os_reason(error)) from None
    listening_socket.setblocking(False)
    return listening_socket


def _announce(settings: Settings, listening_socket: socket.socket) -> None:
    host, port = settings.server.host, listening_socket.getsockname()[1]
    shown_host = (
        LOCAL_HOST_NAME
        if host in ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::")  # noqa: S104 -- compared, not bound
        else host
    )
    print(f"Llamora is at http://{shown_host}:{port}", flush=True)


def _hypercorn_config(settings: Settings, listening_socket: socket.socket) -> Any:
    from hypercorn.config import Config

    config = Config()
    if (
        sys.platform == "win32"
    ):  # sockets have no file descriptor there: release the port and take it again
        host, port = listening_socket.getsockname()[:2]
        listening_socket.close()
        config.bind = [f"{host}:{port}"]
    else:
        config.bind = [
            f"fd://{os.dup(listening_socket.fileno())}"
        ]  # Hypercorn closes what it is given
    config.accesslog = None  # the URL of a request is nobody's business
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = settings.server.shutdown_seconds
    config.shutdown_timeout = settings.server.shutdown_seconds
    config.keep_alive_timeout = 30
    config.h11_max_incomplete_size = 65_536
    return config


async def _serve_in_one_process(
    settings: Settings, listening_socket: socket.socket, *, dev: bool, reload: bool
) -> int:
    stop = asyncio.Event()
    _set_on_signals(stop)
    watch_task = asyncio.create_task(_watch_files(stop)) if reload else None
    await _run_app(settings, listening_socket, stop, dev=dev, shared=None, announce=True)
    if watch_task is not None:
        watch_task.cancel()
        if watch_task.done() and not watch_task.cancelled():
            _restart()
    return 0


async def _run_app(
    settings: Settings,
    listening_socket: socket.socket,
    stop: asyncio.Event,
    *,
    dev: bool,
    shared: Any,
    announce: bool,
) -> None:
    from hypercorn.asyncio import serve  # pyright: ignore[reportUnknownVariableType] -- hypercorn types it in part

    from llamora.app import create_app
    from llamora.services import AppLifecycle

    app = create_app(settings, dev=dev, shared=shared)
    lifecycle: AppLifecycle = app.extensions["llamora.lifecycle"]

    async def wait_for_stop() -> None:
        await stop.wait()
        # Streams end now; Hypercorn would wait for them.
        await lifecycle.quiesce()

    if announce:
        app.before_serving(lambda: _announce(settings, listening_socket))
    try:
        await serve(
            app, _hypercorn_config(settings, listening_socket), shutdown_trigger=wait_for_stop
        )
    finally:
        await lifecycle.stop()


def _set_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first signal and ignore further ones, whenever they come.

    The loop's own handlers will not do: the loop removes them when it closes, and a second signal
    (uv forwards one) would then kill a server that is ending cleanly.
    """
    loop = asyncio.get_running_loop()

    def handle_signal(_number: int, _frame: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(stop.set)

    for number in _stop_signals():
        signal.signal(number, handle_signal)


def _ignore_signals() -> None:
    """Ignore signals for the rest of this process.

    Python puts handlers of ours back to the default as it ends.
    """
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def _stop_signals() -> list[signal.Signals]:
    return [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGBREAK")]


# -- several workers -------------------------------------------------------------------------------


async def _serve_with_workers(
    settings: Settings, listening_socket: socket.socket, *, dev: bool
) -> int:
    """Run the parent of several workers.

    The parent holds the lock, the boot secret and the built-in model; the workers serve.
    """
    # Started with `python -m`, this module is `__main__`, and no new process finds its functions
    # under that name.
    from llamora.__main__ import serve_as_worker
    from llamora.llm.embedded import EmbeddedServer
    from llamora.llm.errors import ModelError
    from llamora.persistence.local_db import LocalDB
    from llamora.search.pending import BUFFER_BYTES as noted_bytes  # noqa: N811 -- a size there, an argument here

    stop = asyncio.Event()
    _set_on_signals(stop)
    context = multiprocessing.get_context("spawn")
    # Without locks: a worker that is killed while it reads would keep one for ever.
    model_address: Any = context.RawArray("c", MODEL_ADDRESS_BYTES)
    pending_queries: Any = context.RawArray("c", noted_bytes)
    wanted: Any = context.RawValue("b", 0)  # whether a worker asked for the built-in model
    embedded = settings.llm.enabled and settings.llm.embedded
    server = (
        EmbeddedServer(settings.llm)
        if embedded and not EmbeddedServer.unavailable_reason()
        else None
    )
    db = await LocalDB.open(settings.data.database)
    await db.sessions.clear()
    secret = secrets.token_bytes(32)
    is_ending: Any = context.RawValue("b", 0)
    live_workers: Any = context.RawArray(
        "q", settings.server.workers
    )  # the numbers of the living workers; 0 is none
    workers: list[BaseProcess] = []

    def start_worker(index: int, number: int) -> "BaseProcess":
        shared = (
            secret,
            server.api_key if server else "",
            model_address,
            wanted,
            pending_queries,
            number,
            live_workers,
        )
        worker = context.Process(
            target=serve_as_worker,
            args=(settings, listening_socket, is_ending, shared, dev),
            daemon=True,
        )
        live_workers[index] = number
        worker.start()
        return worker

    workers += [start_worker(index, index + 1) for index in range(settings.server.workers)]
    started_count = len(workers)

    async def run_model_server() -> None:
        if server is None:
            return
        while True:
            if wanted.value and server.state == "off":
                try:
                    await server.start()
                except ModelError:
                    logger.warning("the built-in model did not start")
            model_address.value = server.base_url.encode()[: MODEL_ADDRESS_BYTES - 1]
            await asyncio.sleep(0.2)

    model_task = asyncio.create_task(run_model_server())
    _announce(settings, listening_socket)
    has_failed = False
    while not stop.is_set():
        for index, worker in enumerate(workers):
            if worker.is_alive():
                continue
            live_workers[index] = 0  # the reply it was writing is now shown as cut short
            started_count += 1
            if started_count > settings.server.workers + MAX_WORKER_RESTARTS:
                has_failed = True
                break
            logger.warning(
                "a worker ended unexpectedly (%s); another one takes its place", worker.exitcode
            )
            workers[index] = start_worker(index, started_count)
        if has_failed:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.3)
    is_ending.value = 1
    for worker in workers:
        await asyncio.to_thread(worker.join, 4.0)
        if worker.is_alive():
            worker.kill()
            worker.join()
    model_task.cancel()
    if server is not None:
        await server.stop()
    await db.sessions.clear()
    await db.close()
    if has_failed and not stop.is_set():
        raise StartupError("workers_keep_ending")
    return 0


def serve_as_worker(
    settings: Settings,
    listening_socket: socket.socket,
    is_ending: Any,
    shared: tuple[bytes, str, Any, Any, Any, int, Any],
    dev: bool,
) -> None:
    """Serve in one process of several, until `is_ending` is set or the parent is gone.

    `shared` is the boot secret, the key to the parent's model server, its address, the flag that
    asks for it, the memory of pending queries, the number of this worker and those of all living
    ones.
    """
    from llamora.services import SharedState
    from llamora.llm.model import SharedServer
    from llamora.search.pending import PendingQueries

    _configure_logging(settings.log_level)
    disable_core_dumps()
    secret, api_key, model_address, wanted, pending_queries, worker_number, live_workers = shared

    def read_model_address() -> str:
        return model_address.value.decode()

    def request() -> None:
        wanted.value = 1

    model = SharedServer(read_model_address, api_key, request) if api_key else None

    async def run() -> None:
        stop = asyncio.Event()
        # A terminal sends Ctrl+C to every process; only the parent's word counts here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

        async def wait_for_end() -> None:
            while not is_ending.value and multiprocessing.parent_process() is not None:
                parent = multiprocessing.parent_process()
                if parent is None or not parent.is_alive():
                    break
                await asyncio.sleep(0.1)
            stop.set()

        wait_task = asyncio.create_task(wait_for_end())
        shared_state = SharedState(
            secret,
            model,
            PendingQueries(pending_queries),
            worker_number,
            lambda: tuple(live_workers),
        )
        await _run_app(
            settings, listening_socket, stop, dev=dev, shared=shared_state, announce=False
        )
        wait_task.cancel()

    asyncio.run(run())


# -- --reload --------------------------------------------------------------------------------------


async def _watch_files(stop: asyncio.Event) -> None:
    """Set `stop` when a Python file or template of the program changes."""
    root = resource("migrations").parent
    last_times = _modification_times(root)
    while True:
        await asyncio.sleep(0.7)
        times = await asyncio.to_thread(_modification_times, root)
        if times != last_times:
            stop.set()
            return


def _modification_times(root: Any) -> dict[str, float]:
    times: dict[str, float] = {}
    for folder, pattern in (
        ("src", "*.py"),
        ("src", "*.j2"),
        ("migrations", "*.sql"),
        ("config", "*.toml"),
    ):
        for file in (root / folder).rglob(pattern):
            with suppress(OSError):
                times[str(file)] = file.stat().st_mtime
    return times


def _restart() -> None:
    os.execv(sys.executable, [sys.executable, "-m", "llamora", *sys.argv[1:]])  # noqa: S606 -- this very program


if __name__ == "__main__":
    sys.exit(main())
