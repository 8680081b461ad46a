"""Time a reply on its way: `python -m scripts.bench.replies --entries 10000`. Prints one JSON object last.

- send to upstream: from posting "Reply" to the model server's receipt of the request, retrieval included;
- relay: from the model server's sending of the first word to a reader's receipt of it;
- stop: from posting "Stop" to the answer, and until the model server has its slot back;
- lag: how late the server's event loop runs a timer while twenty replies stream and are followed (in one process with
  nothing else in it: the model and the readers are in another one);
- prompt: building the prompt of a thread of 300 messages, with the server's tokenizer and with an estimate.
"""

import asyncio
import multiprocessing
import sys
import threading
import time
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

from llamora.app import create_app
from llamora.llm.budget import Turn
from llamora.llm.client import ModelClient
from llamora.llm.prompts import PromptBuilder
from llamora.settings import LlmSettings
from scripts.bench import harness
from scripts.command import run
from tests.scripted_model import ModelThread, Reply, ScriptedModel
from tests.server_process import HttpUser, Server, free_port

PIECES = tuple(f"word{number} " for number in range(30))
STREAM_COUNT = 20
SAMPLE_SECONDS = 0.005


def _measure_sends(user: HttpUser, model: harness.TimedModel, runs: int) -> dict[str, Any]:
    sends, relays = harness.Timer(warm_up=3), harness.Timer(warm_up=3)
    model.default_reply = Reply(pieces=PIECES, piece_delay=0.02)
    for number in range(runs + 3):
        text = f"What about the river and the letter number {number}?"
        entry = user.write(text, f"2026-07-{number % 28 + 1:02}")
        start = time.monotonic()
        first = harness.follow_reply(user, user.ask(entry))
        sends.add(model.received_at[-1] - start)
        relays.add(first - model.first_sent_at())
    return {"send_to_upstream": sends.quantiles(), "relay_of_first_word": relays.quantiles()}


def _measure_stops(user: HttpUser, model: harness.TimedModel, runs: int) -> dict[str, Any]:
    stops, slots_freed = harness.Timer(), harness.Timer()
    model.default_reply = Reply(pieces=PIECES[:3], fault="hang")
    for number in range(runs):
        reply = user.ask(user.write(f"And the stop number {number}?", "2026-08-01"))
        time.sleep(0.3)
        with slots_freed.lap():
            with stops.lap():
                user.post(f"/r/{reply}/stop", {}, fragment=True)
            while not model.chat_requests[-1].ended.is_set():
                time.sleep(0.0005)
    return {"stop_answered": stops.quantiles(), "slot_free_after_stop": slots_freed.quantiles()}


def _measure_requests(folder: Path, entries: int, runs: int) -> dict[str, Any]:
    """Send, relay and stop, on a server in a process of its own with a journal of `entries`."""
    server = Server(folder / "main", folder / "cache", mode="prod")
    harness.seed(server, entries)
    with harness.timed_model() as model:
        server.env = {"LLAMORA_LLM__UPSTREAM__HOST": model.url}
        with harness.started(server) as user:
            time.sleep(15)  # the index is built, the embedding model loaded, the machine quiet
            figures = _measure_sends(user, model, runs) | _measure_stops(user, model, runs)
    return {"entries": entries, **figures}


def _read_from_elsewhere(
    port: int, model_port: "multiprocessing.Queue[int]", cookies: "multiprocessing.Queue[Any]"
) -> None:
    """The other process: the model, and twenty people who ask and read."""
    with closing(ModelThread()) as thread:
        thread.model.default_reply = Reply(pieces=PIECES * 8, piece_delay=0.02)
        model_port.put(thread.model.port)
        jar = cookies.get()

        def ask_and_read(number: int) -> None:
            user = HttpUser(f"http://127.0.0.1:{port}")
            user.http.cookies.update(jar)
            harness.follow_reply(
                user, user.ask(user.write(f"Number {number}.", f"2026-07-{number + 1:02}"))
            )

        readers = [threading.Thread(target=ask_and_read, args=(n,)) for n in range(STREAM_COUNT)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()


async def _sign_in_here(services: Any, url: str) -> dict[str, str]:
    """Register without the web, once it is up; returns the cookies of a browser."""
    async with httpx.AsyncClient(trust_env=False, base_url=url) as client:
        while True:
            with suppress(httpx.HTTPError):
                await client.get("/healthz")
                break
            await asyncio.sleep(0.05)
        user, keys, _ = await services.accounts.register(harness.NAME, harness.PASSPHRASE, "UTC")
        cookie, _ = await services.sessions.open_session(user, keys)
        await client.get("/search", headers={"Cookie": f"llamora={cookie}"})
        token = next(value for name, value in client.cookies.items() if "csrf" in name)
        return {"llamora": cookie, "llamora_csrf": token}


async def _measure_lag(folder: Path) -> dict[str, Any]:
    """The lag of an event loop that serves twenty streams."""
    port, spawn = free_port(), multiprocessing.get_context("spawn")
    model_port, cookies = spawn.Queue(), spawn.Queue()
    readers = spawn.Process(target=_read_from_elsewhere, args=(port, model_port, cookies))
    readers.start()
    model_url = f"http://127.0.0.1:{await asyncio.to_thread(model_port.get)}"
    app = create_app(
        harness.make_settings(
            folder / "lag",
            folder / "cache",
            server={"port": port},
            embedding={"enabled": False},
            llm={"slots": 16, "upstream": {"host": model_url}},
        )
    )
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    ended = asyncio.Event()
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=ended.wait))
    cookies.put(await _sign_in_here(app.extensions["llamora"], f"http://127.0.0.1:{port}"))
    lags: list[float] = []
    while readers.is_alive():
        before = time.monotonic()
        await asyncio.sleep(SAMPLE_SECONDS)
        lags.append(time.monotonic() - before - SAMPLE_SECONDS)
    ended.set()
    await serving
    shares = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    figures = {
        f"loop_lag_{name}_ms": harness.percentile_ms(lags, share) for name, share in shares.items()
    }
    return {"streams": STREAM_COUNT, "samples": len(lags), **figures}


async def _measure_prompts(runs: int) -> dict[str, Any]:
    """Building the prompt of a long thread."""
    thread = [
        Turn("me" if n % 2 == 0 else "reply", f"Message {n} " + "of the thread " * 20)
        for n in range(301)
    ]
    figures: dict[str, Any] = {}
    for name, tokenizer in (("with_tokenizer", True), ("estimated", False)):
        async with ScriptedModel(tokenizer=tokenizer, context_tokens=32_768) as model:
            settings = LlmSettings(context_tokens=32_768)
            client, builder = ModelClient(model.url, "", settings), PromptBuilder(settings, None)
            timer = harness.Timer(warm_up=2)
            for _ in range(runs + 2):
                with timer.lap():
                    await builder.build_reply(
                        client, day=date(2026, 11, 20), thread=thread, rest_of_day=[], passages=[]
                    )
            await client.close()
        figures[f"prompt_300_{name}"] = timer.quantiles()
    return figures


def measure(folder: Path, entries: int, runs: int) -> dict[str, Any]:
    """Return all figures."""
    harness.print_progress("prompts")
    figures = asyncio.run(_measure_prompts(runs))
    harness.print_progress("twenty streams")
    figures |= asyncio.run(_measure_lag(folder))
    harness.print_progress(f"a journal of {entries} entries")
    return figures | _measure_requests(folder, entries, runs)


if __name__ == "__main__":
    sys.exit(run(measure, entries=10_000, runs=20))
