"""A model server whose every byte, delay and failure is written down beforehand.

It speaks enough of the OpenAI dialect for `llamora.llm.client`: `/v1/models`, `/v1/chat/completions` (streamed),
and, like llama.cpp, `/tokenize` and `/props` when they are switched on. It listens on a loopback port of the
running event loop and records what it was asked.

    async with ScriptedModel() as model:
        model.script(Reply(["Good", " morning."], pause=0.05))
        model.script(Reply(["Half a sent"], fault="hang"))
"""

import asyncio
import contextlib
import json
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

Fault = Literal[
    "",  # none: the reply ends as it should
    "status",  # `status` and `body` instead of a stream
    "hang_before_headers",
    "hang",  # after the pieces, say nothing more and keep the connection
    "drip_comments",  # after the pieces, only comment lines, for ever
    "cut",  # close the connection after the pieces
    "cut_quietly",  # the same, but as a properly ended HTTP body
    "cut_in_character",  # close it in the middle of a UTF-8 character
    "not_sse",  # an HTML page with status 200
    "endless",  # repeat the last piece for ever, whatever max_tokens says
    "endless_thought",  # events without any text, for ever
    "giant_line",  # a line of `size` bytes
    "endless_comments",  # `size` bytes of comment lines
    "bad_json",
    "error_event",  # an error object inside the stream
    "compressed",  # a gzip body although nobody asked for it
    "no_done",  # finish_reason, then silence: neither [DONE] nor the end of the body
    "not_http",
]


@dataclass(slots=True)
class Reply:
    """What one request to /v1/chat/completions gets. Delays are in seconds."""

    pieces: Sequence[str] = ("It was a quiet day.",)
    header_delay: float = 0.0
    """Before the headers."""
    piece_delay: float = 0.0
    """Before each piece but the first."""
    preamble: Sequence[bytes] = ()
    """Sent as it stands before the pieces."""
    preamble_delay: float = 0.0
    """After each of these."""
    content_type: str = "text/event-stream"
    fault: Fault = ""
    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    size: int = 1 << 30
    finish_reason: str = "stop"
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict[int, asyncio.Event])
    """Before the piece of that number (or the end, after the last), wait for the event."""
    reasoning: Sequence[str] = ()
    """Sent before the pieces, apart from them: as `reasoning_content`."""
    ascii_json: bool = False
    """Send other characters as \\u escapes: that way a piece may hold half a surrogate pair."""


@dataclass(slots=True)
class RecordedRequest:
    """A request as it came. `ended` is set when its answer is complete or its client has gone."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: dict[str, Any]
    sent: list[str] = field(default_factory=list[str])
    """Pieces sent so far."""
    bulk_bytes: int = 0
    """Bytes sent of what the `size` of a reply measures."""
    is_client_gone: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedModel:
    """See the module. Replies are used up in order; then `default` answers."""

    def __init__(
        self,
        *,
        api_key: str = "",
        models: Sequence[str | dict[str, Any]] = ("scripted",),
        api_path: str = "/v1",
        tokenizer: bool = True,
        props: bool = True,
        context_tokens: int = 4096,
        prompt_end: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.api_key = api_key
        self.models = [{"id": model} if isinstance(model, str) else model for model in models]
        self.api_path = api_path
        """Where the routes of the dialect lie."""
        self.list_delay = 0.0
        """Seconds before the list of models."""
        self.tokenizer = tokenizer
        self.props = props
        self.context_tokens = context_tokens
        self.prompt_end = prompt_end
        """What its chat template writes after the last message, told as llama.cpp does with `props`, else as vLLM."""
        self.default_reply: Reply | Callable[[dict[str, Any]], Reply] = Reply()
        """The reply once all that were lined up are used, or what makes one of the request's body."""
        self.requests: list[RecordedRequest] = []
        self.chat_started = asyncio.Event()
        """Set by the first request for a reply."""
        self.active_streams = 0
        """Replies being sent at this moment."""
        self._queued_replies: deque[Reply] = deque()
        self._tls = tls
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._handle_connection, "127.0.0.1", 0, ssl=self._tls
        )
        self._port = cast(int, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and break every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def script(self, *replies: Reply) -> None:
        """Line up the next replies."""
        self._queued_replies.extend(replies)

    @property
    def port(self) -> int:
        """Where it listens, or listened last."""
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def chat_requests(self) -> list[RecordedRequest]:
        """The requests for a reply."""
        return [
            asked for asked in self.requests if asked.path == f"{self.api_path}/chat/completions"
        ]

    # -- HTTP

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while (request := await self._read_request(reader)) is not None:
                self.requests.append(request)
                try:
                    keep_open = await self._respond(request, reader, writer)
                finally:
                    request.ended.set()
                if not keep_open:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    @staticmethod
    async def _read_request(reader: asyncio.StreamReader) -> RecordedRequest | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = path.partition("?")
        return RecordedRequest(method, path, query, headers, json.loads(body) if body else {})

    async def _respond(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return await _send_json(
                writer, {"error": {"message": "Invalid API Key", "code": 401}}, 401
            )
        match request.path:
            case path if path == f"{self.api_path}/chat/completions":
                return await self._respond_to_chat(request, reader, writer)
            case path if path == f"{self.api_path}/models":
                await asyncio.sleep(self.list_delay)
                return await _send_json(writer, {"object": "list", "data": self.models})
            case "/apply-template" if self.props and self.prompt_end:
                return await _send_json(
                    writer, {"prompt": request.body["messages"][-1]["content"] + self.prompt_end}
                )
            case "/tokenize" if not self.props and "messages" in request.body and self.prompt_end:
                return await _send_json(writer, {"tokens": [*b"Hello." + self.prompt_end.encode()]})
            case "/detokenize" if not self.props and self.prompt_end:
                return await _send_json(writer, {"prompt": bytes(request.body["tokens"]).decode()})
            case "/tokenize" if self.tokenizer and "content" in request.body:
                return await _send_json(writer, {"tokens": tokenize(request.body["content"])})
            case "/props" if self.props:
                settings = {"n_ctx": self.context_tokens}
                props = {
                    "default_generation_settings": settings,
                    "total_slots": 2,
                    "chat_template": self.prompt_end,
                }
                return await _send_json(writer, props)
            case _:
                return await _send_json(
                    writer, {"error": {"message": "File Not Found", "code": 404}}, 404
                )

    async def _respond_to_chat(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        reply = self._queued_replies.popleft() if self._queued_replies else self.default_reply
        if not isinstance(reply, Reply):
            reply = reply(request.body)
        # One request at a time comes over a connection, so anything to read now is its end.
        disconnected = asyncio.ensure_future(reader.read(1))
        sending = asyncio.ensure_future(self._send_reply(request, reply, writer))
        self.active_streams += 1
        self.chat_started.set()
        try:
            await asyncio.wait({disconnected, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                request.is_client_gone = True
                return False
            return await sending
        except ConnectionError:
            request.is_client_gone = True
            return False
        finally:
            self.active_streams -= 1
            for task in (disconnected, sending):
                task.cancel()
            await asyncio.gather(disconnected, sending, return_exceptions=True)

    async def _send_reply(
        self, request: RecordedRequest, reply: Reply, writer: asyncio.StreamWriter
    ) -> bool:
        await asyncio.sleep(reply.header_delay)
        match reply.fault:
            case "hang_before_headers":
                await asyncio.Event().wait()
            case "status":
                return await _send_json(writer, reply.body, reply.status, reply.headers)
            case "not_sse":
                return await _send_text(writer, "<!doctype html><p>Welcome to nginx!", "text/html")
            case "not_http":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
                await writer.drain()
                return False
            case _:
                pass
        encoding = "content-encoding: gzip\r\n" if reply.fault == "compressed" else ""
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {reply.content_type}\r\ntransfer-encoding: chunked\r\n"
            f"{encoding}\r\n".encode()
        )
        for line in reply.preamble:
            await _write_chunk(writer, line)
            await asyncio.sleep(reply.preamble_delay)
        for thought in reply.reasoning:
            await _write_chunk(writer, encode_event(thought, field="reasoning_content"))
        for number, piece in enumerate(reply.pieces):
            if number:
                await asyncio.sleep(reply.piece_delay)
            if number in reply.gates:
                await reply.gates[number].wait()
            await _write_chunk(writer, encode_event(piece, ascii_json=reply.ascii_json))
            request.sent.append(piece)
        if len(reply.pieces) in reply.gates:
            await reply.gates[len(reply.pieces)].wait()
        return await self._finish_reply(request, reply, writer)

    async def _finish_reply(
        self, request: RecordedRequest, reply: Reply, writer: asyncio.StreamWriter
    ) -> bool:
        match reply.fault:
            case "hang":
                await asyncio.Event().wait()
            case "drip_comments":
                while True:
                    await _write_chunk(writer, b": still here\n\n")
                    await asyncio.sleep(0.02)
            case "cut":
                return False
            case "cut_quietly":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return False
            case "cut_in_character":
                await _write_chunk(
                    writer, encode_event("a heron 🪶").split("🪶".encode())[0] + "🪶".encode()[:2]
                )
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return False
            case "endless":
                while True:
                    await _write_chunk(writer, encode_event(reply.pieces[-1]) * 16)
                    request.sent.append(reply.pieces[-1])
            case "endless_thought":
                while True:
                    await _write_chunk(writer, encode_event("") * 16)
            case "giant_line":
                await _write_chunk(writer, b'data: {"choices": [{"delta": {"content": "')
                for _ in range(reply.size // 65536):
                    await _write_chunk(writer, b"x" * 65536)
                    request.bulk_bytes += 65536
            case "endless_comments":
                for _ in range(reply.size // 65536):
                    await _write_chunk(writer, (b":" * 1023 + b"\n") * 64)
                    request.bulk_bytes += 65536
            case "bad_json":
                await _write_chunk(writer, b'data: {"choices": [{"delta": {"content": "priv\n\n')
            case "error_event":
                error = {
                    "error": {
                        "message": "the prompt was: " + str(request.body["messages"]),
                        "code": 500,
                    }
                }
                await _write_chunk(writer, f"data: {json.dumps(error)}\n\n".encode())
            case _:
                await _write_chunk(writer, encode_event(None, finish_reason=reply.finish_reason))
                if reply.fault == "no_done":
                    await asyncio.Event().wait()
                await _write_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


class ModelThread:
    """A scripted model on a thread of its own, for tests that wait in a plain way."""

    def __init__(self, model: "ScriptedModel | None" = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.model = model or ScriptedModel()
        self.run(self.model.start())

    @property
    def env(self) -> dict[str, str]:
        """Makes a server use it, and nothing else that takes time."""
        return {
            "LLAMORA_LLM__UPSTREAM__HOST": self.model.url,
            "LLAMORA_EMBEDDING__ENABLED": "false",
        }

    def run(self, work: "Coroutine[Any, Any, None]") -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def hold_reply(self, pieces: Sequence[str], piece_number: int) -> asyncio.Event:
        """The next reply stops before the piece `at`, until the event is released."""
        event = asyncio.Event()
        self.model.script(Reply(pieces, gates={piece_number: event}))
        return event

    def release(self, event: asyncio.Event) -> None:
        self.loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        self.run(self.model.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def tokenize(content: str | list[str | int]) -> list[int]:
    """The scripted tokenizer: a word or a mark is a token; numbers in a mixed list stay, as with llama.cpp."""
    numbers: list[int] = []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, int):
            numbers.append(part)
        else:
            numbers += range(len(re.findall(r"\w+|[^\w\s]", part)))
    return numbers


def encode_event(
    piece: object,
    *,
    finish_reason: str | None = None,
    ascii_json: bool = False,
    field: str = "content",
) -> bytes:
    """One event of a reply, as servers write it."""
    delta = {} if piece is None else {field: piece}
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return f"data: {json.dumps(event, ensure_ascii=ascii_json)}\n\n".encode()


async def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _send_json(
    writer: asyncio.StreamWriter,
    body: object,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> bool:
    text = body if isinstance(body, str) else json.dumps(body)
    return await _send_text(writer, text, "application/json", status, headers)


async def _send_text(
    writer: asyncio.StreamWriter,
    text: str,
    content_type: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> bool:
    data = text.encode()
    lines = {"content-type": content_type, "content-length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + data)
    await writer.drain()
    return True
