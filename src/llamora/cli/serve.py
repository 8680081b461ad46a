"""`dev` and `prod`: serve the journal until the command is told to stop."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from typing import Any

from llamora.cli.reload import restart, watch_files
from llamora.errors import Problem
from llamora.persistence.connection import InstanceLock, os_reason
from llamora.persistence.migrations import run_db_migrations
from llamora.settings import Settings, has_display, resource
from llamora.vault.memory import disable_core_dumps

logger = logging.getLogger(__name__)

LOCAL_HOST_NAME = "llamora.localhost"
LOCAL_ADDRESSES = ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "::")  # noqa: S104 -- compared, not bound


class StartupError(Problem):
    """The server cannot start; the message says why."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (server.host)")
    parser.add_argument("--port", type=int, help="port to listen on (server.port; 5151 unless set)")
    parser.add_argument("--workers", type=int, help="processes that serve (server.workers)")
    parser.add_argument(
        "--reload",
        action="store_true",
        help="serve sources as they are edited, and start again when the program changes; "
        "signs everybody out",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serve; return 0 after a clean stop. Raises StartupError and StorageError."""
    from llamora.cli.workers import serve_with_workers

    disable_core_dumps()
    listening_socket = listen(settings.server.host, settings.server.port)
    lock = InstanceLock(settings.data.database)
    try:
        run_db_migrations(settings.data.database, resource("migrations"))
        if settings.server.workers == 1 or options.reload:
            return asyncio.run(_serve_in_one_process(settings, listening_socket, options))
        if sys.platform == "win32":
            raise StartupError("workers_unsupported")
        return asyncio.run(serve_with_workers(settings, listening_socket))
    finally:
        _ignore_signals()
        lock.release()
        listening_socket.close()


def configure_logging(level: str) -> None:
    """Set up the log of this process.

    Libraries may quote what passes through them: only their warnings are let through, and from
    Quart not even those. It logs an exception with its message, ours log the class and the place.
    """
    logging.basicConfig(
        level="ERROR" if level == "ERROR" else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("llamora").setLevel(level)
    logging.getLogger("llamora.app").setLevel(level)
    logging.getLogger("quart").setLevel(logging.CRITICAL)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises StartupError."""
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


def announce(settings: Settings, listening_socket: socket.socket) -> str:
    """Print the address of the server and return it."""
    host, port = settings.server.host, listening_socket.getsockname()[1]
    url = f"http://{LOCAL_HOST_NAME if host in LOCAL_ADDRESSES else host}:{port}"
    print(f"Llamora is at {url}", flush=True)
    return url


def can_open_browser() -> bool:
    """Return True if a person at a terminal with a display started the command."""
    return sys.stdin.isatty() and sys.stdout.isatty() and has_display()


async def _serve_in_one_process(
    settings: Settings, listening_socket: socket.socket, options: argparse.Namespace
) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    watch_task = asyncio.create_task(watch_files(stop)) if options.reload else None

    def on_start() -> None:
        url = announce(settings, listening_socket)
        if options.opens_browser and can_open_browser():
            # On a thread: it may wait for the browser.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    await run_app(settings, listening_socket, stop, reload=options.reload, on_start=on_start)
    if watch_task is not None:
        watch_task.cancel()
        if watch_task.done() and not watch_task.cancelled():
            restart()
    return 0


async def run_app(
    settings: Settings,
    listening_socket: socket.socket,
    stop: asyncio.Event,
    *,
    reload: bool = False,
    shared: Any = None,
    on_start: Any = None,
) -> None:
    """Serve the app in this process until `stop` is set; `on_start` is called once it serves."""
    from hypercorn.asyncio import serve  # pyright: ignore[reportUnknownVariableType] -- hypercorn types it in part

    from llamora.app import create_app
    from llamora.services import EXTRA_STOP_SECONDS, AppLifecycle

    _turn_off_http2()
    app = create_app(settings, reload=reload, shared=shared)
    lifecycle: AppLifecycle = app.extensions["llamora.lifecycle"]
    config = _hypercorn_config(settings, listening_socket)

    async def wait_for_stop() -> None:
        await stop.wait()
        exit_in_time(settings.server.shutdown_seconds + EXTRA_STOP_SECONDS)
        # Streams end now; Hypercorn would wait for them.
        await lifecycle.quiesce()
        config.graceful_timeout = lifecycle.seconds_to_close()

    if on_start is not None:
        app.before_serving(on_start)
    try:
        await serve(app, config, shutdown_trigger=wait_for_stop)
    finally:
        await lifecycle.stop()


def _turn_off_http2() -> None:
    """Speak HTTP/1.1 only: Hypercorn has no setting for it on a port in the clear."""
    from hypercorn.protocol.h11 import H11Protocol

    async def stay_with_http1(*_: Any) -> None:
        """Ignore an offer to upgrade, as RFC 9110, section 7.8 allows."""

    setattr(H11Protocol, "_check_protocol", stay_with_http1)  # noqa: B010 -- private there


def _hypercorn_config(settings: Settings, listening_socket: socket.socket) -> Any:
    from hypercorn.config import Config

    config = Config()
    if sys.platform == "win32":
        # Sockets have no file descriptor there: release the port and take it again.
        host, port = listening_socket.getsockname()[:2]
        listening_socket.close()
        config.bind = [f"{host}:{port}"]
    else:  # Hypercorn closes what it is given
        config.bind = [f"fd://{os.dup(listening_socket.fileno())}"]
    config.accesslog = None  # the URL of a request is nobody's business
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = settings.server.shutdown_seconds
    config.shutdown_timeout = settings.server.shutdown_seconds
    config.keep_alive_timeout = 30
    config.max_app_queue_size = 1  # parts of a body that wait to be read
    config.h11_max_incomplete_size = 65_536
    return config


def exit_in_time(seconds: float) -> None:
    """End this process after so many seconds, even if a thread of it hangs."""

    def exit_now() -> None:
        logger.warning("the server did not stop in time and is ended as it is")
        os._exit(1)

    timer = threading.Timer(seconds, exit_now)
    timer.daemon = True
    timer.start()


def stop_on_signals(stop: asyncio.Event) -> None:
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
