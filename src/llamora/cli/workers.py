"""Serve with several worker processes.

The parent holds the lock, the boot secret and the built-in model; the workers serve.
"""

import asyncio
import logging
import multiprocessing
import secrets
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from llamora.cli.serve import StartupError, announce, configure_logging, run_app, stop_on_signals
from llamora.llm.embedded import EmbeddedServer
from llamora.llm.errors import ModelError
from llamora.llm.model import SharedServer
from llamora.persistence.local_db import LocalDB
from llamora.search.pending import BUFFER_BYTES, PendingQueries
from llamora.services import SharedState
from llamora.settings import Settings
from llamora.vault.memory import disable_core_dumps

logger = logging.getLogger(__name__)

MODEL_ADDRESS_BYTES = 128
MAX_WORKER_RESTARTS = 5  # workers that died and were replaced, until the server gives up
MODEL_POLL_SECONDS = 0.2
WORKER_POLL_SECONDS = 0.3
PARENT_POLL_SECONDS = 0.1
JOIN_SECONDS = 4.0


@dataclass(slots=True, frozen=True)
class SharedMemory:
    """Memory of all processes of a server. Without locks: a killed worker would keep one."""

    boot_secret: bytes
    model_key: str
    model_address: Any
    is_model_wanted: Any
    pending_queries: Any
    live_workers: Any
    """The numbers of the living workers; 0 is none."""
    is_ending: Any


class Parent:
    """Start the workers, and replace those that die."""

    def __init__(self, settings: Settings, listening_socket: socket.socket, *, dev: bool) -> None:
        self._settings = settings
        self._listening_socket = listening_socket
        self._dev = dev
        self._context = multiprocessing.get_context("spawn")
        embedded = settings.llm.enabled and settings.llm.embedded
        self._model_server = (
            EmbeddedServer(settings.llm)
            if embedded and not EmbeddedServer.unavailable_reason()
            else None
        )
        self._memory = SharedMemory(
            secrets.token_bytes(32),
            self._model_server.api_key if self._model_server else "",
            self._context.RawArray("c", MODEL_ADDRESS_BYTES),
            self._context.RawValue("b", 0),
            self._context.RawArray("c", BUFFER_BYTES),
            self._context.RawArray("q", settings.server.workers),
            self._context.RawValue("b", 0),
        )
        self._workers: list[BaseProcess] = []
        self._started_count = 0

    def start_worker(self, index: int) -> BaseProcess:
        """Start the worker of that index, under a number of its own."""
        self._started_count += 1
        worker = self._context.Process(
            target=serve_as_worker,
            args=(
                self._settings,
                self._listening_socket,
                self._memory,
                self._started_count,
                self._dev,
            ),
            daemon=True,
        )
        self._memory.live_workers[index] = self._started_count
        worker.start()
        return worker

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the workers running until `stop` is set. Raises StartupError if they keep dying."""
        count = self._settings.server.workers
        self._workers = [self.start_worker(index) for index in range(count)]
        model_task = asyncio.create_task(self._run_model_server())
        announce(self._settings, self._listening_socket)
        try:
            while not stop.is_set():
                for index, worker in enumerate(self._workers):
                    if not worker.is_alive():
                        self._replace(index, worker)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), WORKER_POLL_SECONDS)
        finally:
            await self._end_workers()
            model_task.cancel()
            if self._model_server is not None:
                await self._model_server.stop()

    def _replace(self, index: int, worker: BaseProcess) -> None:
        # The reply it was writing is now shown as cut short.
        self._memory.live_workers[index] = 0
        if self._started_count >= len(self._workers) + MAX_WORKER_RESTARTS:
            raise StartupError("workers_keep_ending")
        logger.warning(
            "a worker ended unexpectedly (%s); another one takes its place", worker.exitcode
        )
        self._workers[index] = self.start_worker(index)

    async def _end_workers(self) -> None:
        self._memory.is_ending.value = 1
        for worker in self._workers:
            await asyncio.to_thread(worker.join, JOIN_SECONDS)
            if worker.is_alive():
                worker.kill()
                worker.join()

    async def _run_model_server(self) -> None:
        server, memory = self._model_server, self._memory
        while server is not None:
            if memory.is_model_wanted.value and server.state == "off":
                try:
                    await server.start()
                except ModelError:
                    logger.warning("the built-in model did not start")
            memory.model_address.value = server.base_url.encode()[: MODEL_ADDRESS_BYTES - 1]
            await asyncio.sleep(MODEL_POLL_SECONDS)


async def serve_with_workers(
    settings: Settings, listening_socket: socket.socket, *, dev: bool
) -> int:
    """Run the parent of several workers; return 0 after a clean stop. Raises StartupError."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    db = await LocalDB.open(settings.data.database)
    await db.sessions.clear()
    try:
        await Parent(settings, listening_socket, dev=dev).run(stop)
    finally:
        await db.sessions.clear()
        await db.close()
    return 0


def serve_as_worker(
    settings: Settings,
    listening_socket: socket.socket,
    memory: SharedMemory,
    worker_number: int,
    dev: bool,
) -> None:
    """Serve in one process of several, until the server ends or the parent is gone."""
    configure_logging(settings.log_level)
    disable_core_dumps()
    # A terminal sends Ctrl+C to every process; only the parent's word counts here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def read_address() -> str:
        return memory.model_address.value.decode()

    def request_model() -> None:
        memory.is_model_wanted.value = 1

    model = SharedServer(read_address, memory.model_key, request_model)
    shared = SharedState(
        memory.boot_secret,
        model if memory.model_key else None,
        PendingQueries(memory.pending_queries),
        worker_number,
        lambda: tuple(memory.live_workers),
    )
    asyncio.run(_serve_until_end(settings, listening_socket, memory, shared, dev))


async def _serve_until_end(
    settings: Settings,
    listening_socket: socket.socket,
    memory: SharedMemory,
    shared: SharedState,
    dev: bool,
) -> None:
    stop = asyncio.Event()

    async def wait_for_end() -> None:
        parent = multiprocessing.parent_process()
        while not memory.is_ending.value and parent is not None and parent.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(PARENT_POLL_SECONDS)
        stop.set()

    wait_task = asyncio.create_task(wait_for_end())
    await run_app(settings, listening_socket, stop, dev=dev, shared=shared)
    wait_task.cancel()
