"""How long a reply takes on its way: `python -m scripts.bench.replies --entries 10000`. Prints one JSON object last.

- send to upstream: from posting "Reply" to the model server's receipt of the request, retrieval included;
- relay: from the model server's sending of the first word to a reader's receipt of it;
- stop: from posting "Stop" to the answer, and until the model server has its slot back;
- lag: how late the server's event loop runs a timer while twenty replies stream and are followed (in one process with
  nothing else in it: the model and the readers are in another one);
- prompt: building the prompt of a thread of 300 messages, with the server's tokenizer and with an estimate.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

from llamora.app import create_app
from llamora.app.services.container import EXTENSION
from llamora.llm.budget import Turn
from llamora.llm.client import ModelClient
from llamora.llm.prompts import PromptBuilder
from llamora.settings import LlmSettings, load_settings
from scripts.bench.latency import PASSPHRASE, TimestampedChunks, print_progress, seed
from tests.scripted_model import RecordedRequest, Reply, ScriptedModel
from tests.server_process import HttpUser, Server, free_port

PIECES = tuple(f"word{number} " for number in range(30))
STREAM_COUNT = 20
SAMPLE_SECONDS = 0.005


class TimedModel(ScriptedModel):
    """Notes when a request for a reply came, and when each word of it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.received_at: list[float] = []

    async def _respond_to_chat(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.received_at.append(time.monotonic())
        request.sent = TimestampedChunks()
        return await super()._respond_to_chat(request, reader, writer)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and most, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "median_ms": round(statistics.median(ordered) * 1000, 2),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)] * 1000, 2),
        "most_ms": round(ordered[-1] * 1000, 2),
    }


async def measure_requests(entries: int, runs: int, folder: Path) -> dict[str, Any]:
    """Send, relay and stop, on a server in a process of its own with a journal of `entries`."""
    server = Server(folder / "main", folder / "cache", mode="prod")
    server.folder.mkdir()
    await seed(server, entries)
    sends, relays, stops, slot_free_durations = (
        list[float](),
        list[float](),
        list[float](),
        list[float](),
    )
    async with TimedModel() as model:
        server.env = {"LLAMORA_LLM__UPSTREAM__HOST": model.url}
        await asyncio.to_thread(server.start)
        user = HttpUser(server.url, "Bench", PASSPHRASE)
        await asyncio.to_thread(user.sign_in)
        token = user.http.cookies.get("llamora_csrf") or ""
        headers = {"HX-Request": "true"}
        async with httpx.AsyncClient(
            base_url=server.url,
            cookies=user.http.cookies,
            headers=headers,
            trust_env=False,
            timeout=60,
        ) as client:
            await asyncio.sleep(
                15
            )  # the index is built, the embedding model loaded, the machine quiet
            model.default_reply = Reply(pieces=PIECES, piece_delay=0.02)
            for number in range(runs + 3):
                data = {
                    "csrf": token,
                    "text": f"What about the river and the letter number {number}?",
                }
                entry = (
                    await client.post(f"/d/2026-07-{number % 28 + 1:02}/entries", data=data)
                ).text
                entry = entry.split('id="e-')[1][:32]
                start = time.monotonic()
                reply = (await client.post(f"/e/{entry}/replies", data={"csrf": token})).text.split(
                    "/r/"
                )[1][:32]
                first = 0.0
                async with client.stream("GET", f"/r/{reply}/events") as stream:
                    async for line in stream.aiter_lines():
                        if "word0" in line and not first:
                            first = time.monotonic()
                if number >= 3:
                    sent = model.chat_requests[-1].sent
                    assert isinstance(sent, TimestampedChunks)
                    sends.append(model.received_at[-1] - start)
                    relays.append(first - sent.sent_at[0])
            model.default_reply = Reply(pieces=PIECES[:3], fault="hang")
            for number in range(runs):
                data = {"csrf": token, "text": f"And the stop number {number}?"}
                entry = (await client.post("/d/2026-08-01/entries", data=data)).text.split(
                    'id="e-'
                )[1][:32]
                reply = (await client.post(f"/e/{entry}/replies", data={"csrf": token})).text.split(
                    "/r/"
                )[1][:32]
                await asyncio.sleep(0.3)
                start = time.monotonic()
                await client.post(f"/r/{reply}/stop", data={"csrf": token})
                stops.append(time.monotonic() - start)
                await model.chat_requests[-1].ended.wait()
                slot_free_durations.append(time.monotonic() - start)
        await asyncio.to_thread(server.stop)
    return {
        "entries": entries,
        "send_to_upstream": quantiles(sends),
        "relay_of_first_word": quantiles(relays),
        "stop_answered": quantiles(stops),
        "slot_free_after_stop": quantiles(slot_free_durations),
    }


def readers(
    port: int, model_port: "multiprocessing.Queue[int]", token: "multiprocessing.Queue[Any]"
) -> None:
    """The other process: the model, and twenty people who ask and read."""

    async def run_readers() -> None:
        async with ScriptedModel() as model:
            model.default_reply = Reply(pieces=PIECES * 8, piece_delay=0.02)
            model_port.put(model.port)
            cookies = await asyncio.to_thread(token.get)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                cookies=cookies,
                headers={"HX-Request": "true"},
                trust_env=False,
                timeout=60,
            ) as client:
                csrf = {"csrf": cookies["llamora_csrf"]}

                async def ask_and_read(number: int) -> None:
                    data = {**csrf, "text": f"Number {number}."}
                    entry = (
                        await client.post(f"/d/2026-07-{number + 1:02}/entries", data=data)
                    ).text
                    entry = entry.split('id="e-')[1][:32]
                    reply = (await client.post(f"/e/{entry}/replies", data=csrf)).text.split("/r/")[
                        1
                    ][:32]
                    async with client.stream("GET", f"/r/{reply}/events") as stream:
                        async for _ in stream.aiter_lines():
                            pass

                await asyncio.gather(*(ask_and_read(number) for number in range(STREAM_COUNT)))

    asyncio.run(run_readers())


async def measure_loop_lag(folder: Path) -> dict[str, Any]:
    """The lag of an event loop that serves twenty streams."""
    port = free_port()
    spawn = multiprocessing.get_context("spawn")
    model_port, token = spawn.Queue(), spawn.Queue()
    readers_process = spawn.Process(target=readers, args=(port, model_port, token))
    readers_process.start()
    settings = load_settings(
        overrides={
            "server": {"port": port},
            "data": {"folder": str(folder / "lag"), "cache": str(folder / "cache")},
            "crypto": {"kdf_target_ms": 0},
            "embedding": {"enabled": False},
            "llm": {
                "slots": 16,
                "upstream": {"host": f"http://127.0.0.1:{await asyncio.to_thread(model_port.get)}"},
            },
        }
    )
    app = create_app(settings)
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    ended = asyncio.Event()
    serve_task = asyncio.create_task(serve(app, config, shutdown_trigger=ended.wait))
    services = app.extensions[EXTENSION]
    while True:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(f"http://127.0.0.1:{port}/healthz")
            break
        except httpx.HTTPError:
            await asyncio.sleep(0.05)
    user, keys, _ = await services.accounts.register("Bench", PASSPHRASE, "UTC")
    cookie, _ = await services.sessions.open_session(user, keys)
    async with httpx.AsyncClient(trust_env=False, cookies={"llamora": cookie}) as client:
        await client.get(f"http://127.0.0.1:{port}/search")
        token.put({"llamora": cookie, "llamora_csrf": client.cookies.get("llamora_csrf")})
    lags: list[float] = []
    while readers_process.is_alive():
        before = time.monotonic()
        await asyncio.sleep(SAMPLE_SECONDS)
        lags.append(time.monotonic() - before - SAMPLE_SECONDS)
    ended.set()
    await serve_task
    ordered = sorted(lags)
    return {
        "streams": STREAM_COUNT,
        "samples": len(ordered),
        "loop_lag_p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
        "loop_lag_p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
        "loop_lag_most_ms": round(ordered[-1] * 1000, 2),
    }


async def measure_prompts(runs: int) -> dict[str, Any]:
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
            durations: list[float] = []
            for number in range(runs + 2):
                start = time.perf_counter()
                await builder.build_reply(
                    client, day=date(2026, 11, 20), thread=thread, rest_of_day=[], passages=[]
                )
                if number >= 2:
                    durations.append(time.perf_counter() - start)
            await client.close()
        figures[f"prompt_300_{name}"] = quantiles(durations)
    return figures


async def measure(entries: int, runs: int) -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        print_progress("prompts")
        figures = await measure_prompts(runs)
        print_progress("twenty streams")
        figures |= await measure_loop_lag(folder)
        print_progress(f"a journal of {entries} entries")
        figures |= await measure_requests(entries, runs, folder)
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.entries, options.runs))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
