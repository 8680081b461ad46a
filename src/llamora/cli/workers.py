"""Serve with several worker processes.

The parent holds the lock, the boot secret, the built-in model and the broker of the workers' buses.
"""

import asyncio
import logging
import multiprocessing
import secrets
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any
from urllib.parse import urlsplit

from llamora.cli.serve import (
    StartupError,
    announce,
    configure_logging,
    exit_in_time,
    run_app,
    stop_on_signals,
)
from llamora.events import Channel, ChannelClosed, Event, EventBus, Service, Topic
from llamora.llm.embedded import EmbeddedServer
from llamora.llm.errors import ModelError
from llamora.llm.model import SharedServer
from llamora.persistence.local_db import LocalDB
from llamora.services import EXTRA_STOP_SECONDS, SharedState, create_broker
from llamora.settings import Settings
from llamora.vault.memory import disable_core_dumps

logger = logging.getLogger(__name__)

MAX_WORKER_RESTARTS = 5  # workers that died and were replaced, until the server gives up
PARENT_STOP_SECONDS = 0.5  # of the time to stop, for the parent after its workers


@dataclass(slots=True, frozen=True)
class WorkerStart:
    """The arguments of a worker; `events` is its end of the line to the broker."""

    settings: Settings
    listening_socket: socket.socket
    events: socket.socket
    number: int
    boot_secret: bytes = field(repr=False)
    model_key: str = field(repr=False)


class Parent:
    """Start the workers, replace those that die, and serve what they share."""

    def __init__(self, settings: Settings, listening_socket: socket.socket) -> None:
        self._settings = settings
        self._listening_socket = listening_socket
        self._boot_secret = secrets.token_bytes(32)
        self._context = multiprocessing.get_context("spawn")
        self._broker = create_broker(settings)
        self._model = _SharedModel(settings, self._broker.send_to_all)
        self._broker.handlers[Service.MODEL_SERVER] = self._model.serve
        self._workers: dict[BaseProcess, asyncio.Event] = {}  # set once a worker has ended
        self._ended = asyncio.Event()  # set whenever one has
        self._started_count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the workers running until `stop` is set. Raises StartupError if they keep dying."""
        for _ in range(self._settings.server.workers):
            await self._start_worker()
        announce(self._settings, self._listening_socket)
        stop_task = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                ended_task = asyncio.create_task(self._ended.wait())
                await asyncio.wait([stop_task, ended_task], return_when="FIRST_COMPLETED")
                ended_task.cancel()
                self._ended.clear()
                if not stop.is_set():
                    await self._replace_ended()
        finally:
            stop_task.cancel()
            exit_in_time(self._settings.server.shutdown_seconds + EXTRA_STOP_SECONDS)
            await self._stop_workers()
            self._broker.close()
            await self._model.stop()

    async def _start_worker(self) -> None:
        self._started_count += 1
        broker_end, worker_end = socket.socketpair()
        start = WorkerStart(
            self._settings,
            self._listening_socket,
            worker_end,
            self._started_count,
            self._boot_secret,
            self._model.api_key,
        )
        worker = self._context.Process(target=serve_as_worker, args=(start,), daemon=True)
        worker.start()
        worker_end.close()  # the worker has its own
        self._workers[worker] = asyncio.Event()
        asyncio.get_running_loop().add_reader(worker.sentinel, self._on_ended, worker)
        await self._broker.add_worker(start.number, broker_end)

    def _on_ended(self, worker: BaseProcess) -> None:
        asyncio.get_running_loop().remove_reader(worker.sentinel)
        self._workers[worker].set()
        self._ended.set()

    async def _replace_ended(self) -> None:
        for worker in [worker for worker, ended in self._workers.items() if ended.is_set()]:
            del self._workers[worker]
            worker.join()
            if self._started_count >= self._settings.server.workers + MAX_WORKER_RESTARTS:
                raise StartupError("workers_keep_ending")
            logger.warning(
                "a worker ended unexpectedly (%s); another one takes its place", worker.exitcode
            )
            await self._start_worker()

    async def _stop_workers(self) -> None:
        self._broker.send_to_all(Event(Topic.STOP))
        seconds = self._settings.server.shutdown_seconds + EXTRA_STOP_SECONDS - PARENT_STOP_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for ended in self._workers.values():
                    await ended.wait()
        for worker, ended in self._workers.items():
            if not ended.is_set():
                logger.warning("a worker did not stop in time")
                worker.kill()
            worker.join()


class _SharedModel:
    """The built-in model of the parent, started when a worker asks for it."""

    def __init__(self, settings: Settings, send_to_all: Any) -> None:
        wanted = settings.llm.enabled and settings.llm.embedded
        is_possible = wanted and not EmbeddedServer.unavailable_reason()
        self._server = EmbeddedServer(settings.llm) if is_possible else None
        self.api_key = self._server.api_key if self._server else ""
        self._starting = asyncio.Lock()
        if self._server is not None:
            self._server.on_address = lambda url: send_to_all(
                Event(Topic.MODEL_PORT, number=urlsplit(url).port or 0)
            )

    async def serve(self, channel: Channel, _message: bytes) -> None:
        """Answer once the model answers or has failed to start."""
        if self._server is not None:
            # On the loop's own task: the worker that asked may be gone before it is up.
            await asyncio.shield(asyncio.create_task(self._start(self._server)))
        channel.send(b"")

    async def _start(self, server: EmbeddedServer) -> None:
        async with self._starting:
            if server.state == "off":
                try:
                    await server.start()
                except ModelError:
                    logger.warning("the built-in model did not start")

    async def stop(self) -> None:
        """Stop the model server, if it runs."""
        if self._server is not None:
            await self._server.stop()


async def serve_with_workers(settings: Settings, listening_socket: socket.socket) -> int:
    """Run the parent of several workers; return 0 after a clean stop. Raises StartupError."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    db = await LocalDB.open(settings.data.database)
    await db.sessions.clear()
    try:
        await Parent(settings, listening_socket).run(stop)
    finally:
        await db.sessions.clear()
        await db.close()
    return 0


def serve_as_worker(start: WorkerStart) -> None:
    """Serve in one process of several, until the server ends or the parent is gone."""
    configure_logging(start.settings.log_level)
    disable_core_dumps()
    # A terminal sends Ctrl+C to every process; only the parent's word counts here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(ChannelClosed):  # the parent has ended already
        asyncio.run(_serve_until_end(start))


async def _serve_until_end(start: WorkerStart) -> None:
    events, stop = EventBus(), asyncio.Event()
    events.subscribe(Topic.STOP, lambda _: stop.set())
    await events.connect(start.events)
    model = SharedServer(events, start.model_key) if start.model_key else None
    shared = SharedState(start.boot_secret, events, model, start.number)
    try:
        await run_app(start.settings, start.listening_socket, stop, shared=shared)
    finally:
        events.close()
