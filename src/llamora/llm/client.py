"""The one door to a model server: any endpoint that speaks the OpenAI dialect, llama.cpp first.

The ``openai`` package takes most of a second to import, so it is imported in a thread when it is first needed
(:meth:`ModelClient.warm_up` does it ahead of time). Whatever the server does wrong becomes one
:class:`ModelError` with one sentence; what was written, asked or answered is never part of it.
"""

import asyncio
import importlib
import ipaddress
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlsplit

from llamora.llm.reasoning import ReasoningFilter, ends_in_reasoning, has_reasoning_marks

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from llamora.settings import LlmSettings

logger = logging.getLogger(__name__)

ErrorKind = Literal["unreachable", "refused", "busy", "broken", "too_long"]

CONNECT_TIMEOUT_SECONDS: Final = 5.0
IDLE_TIMEOUT_SECONDS: Final = 30.0
"""Longest silence between two pieces once the reply has begun, if ``llm.timeout_seconds`` is not shorter."""
TOTAL_TIMEOUT_FACTOR: Final = 5
"""A whole reply may take this many times ``llm.timeout_seconds``."""
METADATA_TIMEOUT_SECONDS: Final = 3.0
"""Patience with the small questions (/tokenize, /props, /v1/models)."""
INFO_CACHE_SECONDS: Final = 30.0
"""How long an answer about the server (its name, its missing routes) is believed."""
BYTES_PER_TOKEN: Final = 32
"""Ceiling on reply text, per token asked for. Four bytes is usual; runs of spaces are the longest tokens."""
MAX_TOKENIZE_CHARS: Final = 200_000
"""Beyond this a text is estimated: it will be cut to a fraction anyway."""


@dataclass(slots=True, frozen=True)
class Message:
    """One turn as the model sees it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(slots=True, frozen=True)
class ModelInfo:
    """Which model answers, and whether text leaves this machine for it."""

    name: str
    endpoint: str
    is_local: bool
    is_embedded: bool
    context_tokens: int
    """Tokens of one conversation: what the server says, never more than ``llm.context_tokens``."""
    file: str = ""
    """Name of the model's file, without its folder, where the server tells."""
    opens_reasoning: bool = False
    """Whether the server tells that its prompts end inside a thought."""


class ModelError(Exception):
    """The model server failed. ``sentence`` says what happened and what to do, for the page."""

    def __init__(self, kind: ErrorKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind: ErrorKind = kind
        self.sentence = sentence


@dataclass(slots=True, frozen=True)
class _Connection:
    root: str
    http: "httpx2.AsyncClient"
    api: "AsyncOpenAI"


class ModelClient:
    """Streams replies from one endpoint and counts tokens with its tokenizer.

    ``base_url`` is the server's address, with or without ``/v1``; a callable is asked before each request and
    returns ``""`` while there is nothing to talk to (the embedded server between two lives).
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        api_key: str,
        settings: "LlmSettings",
        *,
        model: str = "",
        embedded: bool = False,
        reasoning_effort: str = "",
        opens_reasoning: bool = False,
    ) -> None:
        self._get_address = base_url if callable(base_url) else lambda: base_url
        self._api_key = api_key
        self._settings = settings
        self._model = model
        self._embedded = embedded
        self._reasoning_effort = reasoning_effort
        self._opens_reasoning = opens_reasoning
        self._reasoning_model = (
            ""  # the model that was last heard to end a thought that its prompt must have opened
        )
        self._connect_lock = asyncio.Lock()
        self._connection: _Connection | None = None
        self._closed = False
        self._no_tokenizer_until = 0.0
        self._info: ModelInfo | None = None
        self._info_until = 0.0

    async def warm_up(self) -> None:
        """Import what the first request needs, in a thread. Harmless to call more than once."""
        await asyncio.to_thread(_import_sdk)

    async def close(self) -> None:
        """Close every connection; a reply that is streaming ends with an error."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.http.aclose()

    # -- replies

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        on_length_limit: Callable[[], None] | None = None,
        on_reasoning: Callable[[], None] | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield the reply's text as it comes.

        ``extra`` is merged into the request's body and wins (``repeat_penalty``, ``grammar``, …). Closing the
        generator (``aclose()``, or cancelling the task that waits on it) closes the connection at once, which
        frees the server's slot. Raises ModelError; pieces already yielded stay valid.

        What a model thinks aloud is left out (:mod:`llamora.llm.reasoning`); a closing mark alone is passed on in one
        piece, and all before it was thought. ``at_length`` is called at the end when ``max_tokens`` ended it,
        ``at_thought`` with each piece of what it thinks.
        """
        info = self._info
        opens_reasoning = info is not None and (
            info.opens_reasoning or info.name == self._reasoning_model
        )
        reasoning = ReasoningFilter(starts_open=self._opens_reasoning or opens_reasoning)
        pieces = self._stream_pieces(
            messages, self.request_parameters(max_tokens, temperature, stop, extra), max_tokens
        )
        reason = ""
        failure: ModelError | None = None
        address = ""
        try:
            address = self._display_address()
            async for kind, piece in pieces:
                reason = piece if kind == "end" else ""
                if (
                    text := reasoning.feed(piece)
                    if kind == "said"
                    else reasoning.release_held()
                    if kind == "thought"
                    else ""
                ):
                    yield text
                if on_reasoning is not None and (kind == "thought" or reasoning.is_open):
                    on_reasoning()
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a sentence
            failure = self._error_from(error, address)
        finally:
            await pieces.aclose()
        is_complete = failure is None and reason != "length"
        if reasoning.closed_without_opening:
            self._reasoning_model = self._info.name if self._info is not None else self._model
        elif reasoning.is_unclosed and is_complete:
            self._reasoning_model = ""
        if text := reasoning.finish(is_complete=is_complete):
            yield text
        if failure is not None:
            # Raised outside the handler: the first error may quote the server, and with it the prompt.
            raise failure
        if reason == "length" and on_length_limit is not None:
            on_length_limit()

    def request_parameters(
        self,
        max_tokens: int,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """All that goes into the body of a request beside the model's name and the messages."""
        settings = self._settings
        body: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": settings.temperature if temperature is None else temperature,
        }
        if stop:
            body["stop"] = list(stop)
        if self._reasoning_effort:
            body["reasoning_effort"] = self._reasoning_effort
        address = self._get_address()
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
        if host.endswith("api.openai.com"):
            # There the older name is refused for newer models, and a temperature for those that think.
            body["max_completion_tokens"] = body.pop("max_tokens")
            if self._reasoning_effort not in ("", "none"):
                del body["temperature"]
        return body | dict(extra or {})

    async def _stream_pieces(
        self, messages: Sequence[Message], body: Mapping[str, Any], max_tokens: int
    ) -> AsyncGenerator[tuple[Literal["said", "thought", "end"], str], None]:
        """What is said; that something is thought apart from it, once; and at the end why it ended."""
        from llamora.llm.wire import GuardedStream, is_event_stream

        connection = await self._connect()
        model = self._model or (await self.describe()).name
        settings = self._settings
        loop = asyncio.get_running_loop()
        started = loop.time()
        patience = settings.timeout_seconds
        async with asyncio.timeout(patience):
            stream = await connection.api.chat.completions.create(
                model=model,
                messages=cast(Any, [{"role": m.role, "content": m.content} for m in messages]),
                stream=True,
                extra_body=body,
            )
        is_finished = has_reasoning = False
        reason = ""
        try:
            if not is_event_stream(stream.response):
                raise self._error(
                    "broken",
                    "{place} did not answer as a model server does",
                    "check llm.upstream.host",
                )
            events = text_bytes = 0
            joiner = _SurrogateJoiner()
            chunks = aiter(stream)
            while True:
                remaining = started + TOTAL_TIMEOUT_FACTOR * settings.timeout_seconds - loop.time()
                # After the last word only the closing lines are missing: no reason to wait long for them.
                async with asyncio.timeout(
                    max(0.0, min(1.0 if is_finished else patience, remaining))
                ):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                patience = min(settings.timeout_seconds, IDLE_TIMEOUT_SECONDS)
                events += 1
                choice = chunk.choices[0] if chunk.choices else None
                if not has_reasoning and choice is not None and _has_reasoning(choice.delta):
                    has_reasoning = True
                    yield "thought", ""
                if choice is not None and choice.delta and choice.delta.content:
                    piece = joiner.feed(choice.delta.content)
                    text_bytes += len(piece.encode())
                    if text_bytes > max_tokens * BYTES_PER_TOKEN or events > max_tokens * 2 + 64:
                        raise self._length_error()
                    if piece:
                        yield "said", piece
                elif events > max_tokens * 2 + 64:
                    raise self._length_error()
                if choice is not None and choice.finish_reason is not None:
                    is_finished, reason = True, choice.finish_reason
            remainder = joiner.end()
            if remainder:
                yield "said", remainder
            body_stream = stream.response.stream
            is_finished = is_finished or (
                isinstance(body_stream, GuardedStream) and body_stream.is_finished
            )
        except Exception:
            # A reply that has said its last word is complete, whatever its connection does afterwards.
            if not is_finished:
                raise
        finally:
            await stream.close()
        if not is_finished:
            raise self._error("broken", "{place} stopped in the middle of the reply", "ask again")
        yield "end", reason

    # -- tokens

    @property
    def has_tokenizer(self) -> bool:
        """Whether tokens are counted by the server's tokenizer just now, not estimated.

        Never by a server elsewhere: what is only counted, or shown before it is sent, does not leave this machine.
        """
        return time.monotonic() >= self._no_tokenizer_until and is_loopback(self._get_address())

    async def count_tokens(self, text: str) -> int:
        """Tokens in ``text`` by the server's own tokenizer, else a cautious estimate. Raises nothing."""
        return (await self.count_many([text]))[0]

    async def count_many(self, texts: Sequence[str]) -> list[int]:
        """Tokens in each of ``texts``, with a single request."""
        if not texts:
            return []
        if not self.has_tokenizer or sum(map(len, texts)) > MAX_TOKENIZE_CHARS:
            return [estimate_tokens(text) for text in texts]
        try:
            counts = await self._tokenize(texts)
        except ModelError:
            counts = None
        if counts is None:
            self._no_tokenizer_until = time.monotonic() + INFO_CACHE_SECONDS
            return [estimate_tokens(text) for text in texts]
        return counts

    async def _tokenize(self, texts: Sequence[str]) -> list[int] | None:
        """llama.cpp's ``/tokenize`` takes texts and token numbers mixed; -1, no model's token, parts them."""
        content: list[str | int] = []
        for text in texts:
            content += [text, _SEPARATOR]
        response = await self._request_json("POST", "/tokenize", {"content": content})
        tokens = response.get("tokens") if response is not None else None
        if not isinstance(tokens, list):
            return None
        counts = [0]
        for token in cast(list[object], tokens):
            if token == _SEPARATOR:
                counts.append(0)
            else:
                counts[-1] += 1
        return counts[:-1] if len(counts) == len(texts) + 1 else None

    # -- about the server

    async def describe(self) -> ModelInfo:
        """Which model answers. Asked of the server and remembered for half a minute. Raises ModelError."""
        now = time.monotonic()
        if self._info is not None and now < self._info_until:
            return self._info
        props = await self._request_json("GET", "/props")
        name = self._model
        if not name:
            listing = await self._request_json("GET", "/v1/models") or {}
            name = _first_model(listing) or _text_field(props, "model_path") or "default"
        opens_reasoning = False
        with suppress(ModelError):
            opens_reasoning = not self._embedded and await self._detect_open_reasoning(name, props)
        info = ModelInfo(
            name=name,
            endpoint=self._display_address(),
            is_local=is_loopback(self._get_address()),
            is_embedded=self._embedded,
            context_tokens=min(_context_tokens(props), self._settings.context_tokens),
            file=re.split(r"[/\\]", _text_field(props, "model_path"))[-1],
            opens_reasoning=opens_reasoning,
        )
        self._info, self._info_until = info, now + INFO_CACHE_SECONDS
        return info

    async def _detect_open_reasoning(self, model: str, props: Mapping[str, Any] | None) -> bool:
        """Whether prompts end inside a thought: llama.cpp shows what its chat template makes, vLLM its tokens."""
        request: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}
        if props is not None:
            if not has_reasoning_marks(str(props.get("chat_template", "<think>"))):
                return False
            effort = {"reasoning_effort": self._reasoning_effort} if self._reasoning_effort else {}
            response = await self._request_json("POST", "/apply-template", {**request, **effort})
        else:
            response = await self._request_json(
                "POST", "/tokenize", {"model": model, **request, "add_generation_prompt": True}
            )
            tokens = (response or {}).get("tokens")
            if isinstance(tokens, list) and tokens:
                response = await self._request_json(
                    "POST", "/detokenize", {"model": model, "tokens": cast(list[int], tokens)[-16:]}
                )
        prompt = (response or {}).get("prompt")
        return isinstance(prompt, str) and ends_in_reasoning(prompt)

    async def _request_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """A small JSON question at the server's root; None when it has no such route. Raises ModelError."""
        failure: ModelError
        address = self._display_address()
        try:
            connection = await self._connect()
            async with asyncio.timeout(METADATA_TIMEOUT_SECONDS):
                response = await connection.http.request(
                    method,
                    connection.root + path,
                    json=body,
                    headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
                )
            if response.status_code in (401, 403):
                failure = self._status_error(response.status_code, "", address)
            elif response.status_code != 200:
                return None
            else:
                parsed: object = json.loads(response.content)
                return cast(dict[str, Any], parsed) if isinstance(parsed, dict) else None
        except ValueError:
            return None
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a sentence
            failure = self._error_from(error, address)
        raise failure

    # -- connection

    async def _connect(self) -> _Connection:
        root = _server_root(self._get_address())
        if self._closed:
            raise ModelError("unreachable", "The connection to the model was closed: ask again.")
        if not root:
            raise ModelError(
                "unreachable", "The built-in model is starting: try again in a few seconds."
            )
        async with self._connect_lock:
            if self._connection is not None and self._connection.root == root:
                return self._connection
            await self.warm_up()
            from openai import AsyncOpenAI

            from llamora.llm.wire import open_http_client

            if self._connection is not None:
                await self._connection.http.aclose()
            http = open_http_client(
                connect_seconds=CONNECT_TIMEOUT_SECONDS,
                read_seconds=float(self._settings.timeout_seconds),
                connections=100,
            )
            api = AsyncOpenAI(
                # Without a key the SDK would look for one in the environment.
                api_key=self._api_key or "none",
                organization="",
                project="",
                webhook_secret="",
                admin_api_key="",
                base_url=root + "/v1",
                max_retries=0,  # a second request would be a second reply
                timeout=http.timeout,
                http_client=http,
            )
            self._connection = _Connection(root, http, api)
            return self._connection

    def _display_address(self) -> str:
        return display_address(self._get_address())

    # -- errors

    def _error(self, kind: ErrorKind, happened: str, remedy: str, address: str = "") -> ModelError:
        if self._embedded:
            remedy = "ask again in a moment" if "llm." in remedy or kind != "too_long" else remedy
            return ModelError(kind, f"{happened.format(place='The built-in model')}: {remedy}.")
        subject = f"The model server at {address or self._display_address()}"
        return ModelError(kind, f"{happened.format(place=subject)}: {remedy}.")

    def _length_error(self) -> ModelError:
        return self._error(
            "too_long", "{place} would not stop at the length asked for", "what came so far is kept"
        )

    def _status_error(self, status: int, code: str, address: str) -> ModelError:
        if status == 401:
            return self._error(
                "refused", "{place} wants another key", "check llm.upstream.api_key", address
            )
        if status == 403:
            return self._error(
                "refused",
                "{place} forbids this key the model",
                "check llm.upstream.api_key",
                address,
            )
        if status == 404:
            return self._error(
                "refused",
                "{place} does not know this model",
                "check llm.upstream.model and host",
                address,
            )
        if status == 429:
            return self._error(
                "busy", "{place} has too much to do", "ask again in a minute", address
            )
        if status == 503:
            return self._error("busy", "{place} is not ready", "ask again in a minute", address)
        if "context" in code:
            return self._error(
                "too_long",
                "{place} finds the text too long",
                "lower llm.context_tokens to what it offers",
                address,
            )
        if "unsupported" in code and re.search(
            "temperature|reasoning_effort", code
        ):  # a model of OpenAI's that thinks
            return self._error(
                "refused",
                "{place} does not take this temperature or reasoning effort for its model",
                "set temperature to 1, or another reasoning_effort, in the settings",
                address,
            )
        if 300 <= status < 400:
            return self._error(
                "refused",
                "{place} points to another address",
                "put the final one in llm.upstream.host",
                address,
            )
        if 400 <= status < 500:
            return self._error(
                "refused",
                f"{{place}} did not accept the request (HTTP {status})",
                "check llm.upstream.host and model",
                address,
            )
        return self._error(
            "broken", f"{{place}} failed (HTTP {status})", "look at its own log", address
        )

    def _error_from(self, error: Exception, address: str) -> ModelError:
        """The sentence for any other error. Nothing of the error itself is in it: it may quote the prompt."""
        import httpx2
        import openai

        from llamora.llm.wire import ResponseTooLarge, UnexpectedEncoding

        if isinstance(error, openai.APIStatusError):
            return self._status_error(error.status_code, _error_code(error.body), address)
        chain = list(_error_chain(error))
        if any(isinstance(e, ResponseTooLarge) for e in chain):
            return self._error(
                "broken",
                "{place} sent more than any reply needs",
                "check llm.upstream.host",
                address,
            )
        if any(isinstance(e, UnexpectedEncoding) for e in chain):
            return self._error(
                "broken", "{place} sent a compressed reply", "switch compression off there", address
            )
        if any(isinstance(e, ssl.SSLError) for e in chain) or any(
            "SSL" in type(e).__name__ for e in chain
        ):
            return self._error(
                "unreachable",
                "{place} has no certificate this machine trusts",
                "check its certificate",
                address,
            )
        if any(isinstance(e, socket.gaierror) for e in chain):
            return self._error(
                "unreachable", "{place} cannot be found by name", "check llm.upstream.host", address
            )
        if any(isinstance(e, httpx2.ConnectTimeout) for e in chain):
            return self._error(
                "unreachable", "{place} cannot be reached", "check that it runs", address
            )
        if any(isinstance(e, httpx2.ConnectError) for e in chain):
            return self._error(
                "unreachable", "{place} refuses connections", "check that it runs", address
            )
        if any(
            isinstance(e, httpx2.TimeoutException | TimeoutError | openai.APITimeoutError)
            for e in chain
        ):
            return self._error(
                "broken",
                "{place} stopped answering",
                "ask again, or raise llm.timeout_seconds",
                address,
            )
        if any(isinstance(e, httpx2.TransportError) for e in chain):
            return self._error("broken", "{place} broke off the connection", "ask again", address)
        if isinstance(error, openai.APIError):
            return self._error(
                "broken", "{place} reported an error", "look at its own log", address
            )
        if not isinstance(error, ValueError):  # undecodable text and JSON are ValueErrors
            logger.warning("unexpected failure of the model client: %s", type(error).__name__)
        return self._error("broken", "{place} sent something unreadable", "ask again", address)


_SEPARATOR: Final = -1


class _SurrogateJoiner:
    """Joins characters that a server cut into two JSON escapes, so that every piece is valid Unicode."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, piece: str) -> str:
        text = self._pending + piece
        self._pending = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._pending = text[:-1], text[-1]
        if text.isascii():
            return text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        pending, self._pending = self._pending, ""
        return "\ufffd" if pending else ""


_NON_LETTERS: Final = bytes(code for code in range(128) if not chr(code).isalpha() and code != 32)


def estimate_tokens(text: str) -> int:
    """A cautious count without a tokenizer: more often too high than too low.

    Letters and spaces count a third of a token, digits and ASCII punctuation one each, other characters one,
    and two from U+2E80 on (CJK, emoji), where tokenizers fall back to bytes.
    """
    if text.isascii():
        letters = len(text.encode().translate(None, _NON_LETTERS))
        return -(-letters // 3) + len(text) - letters
    letters = others = wide = 0
    for c in text:
        if c == " " or (c.isascii() and c.isalpha()):
            letters += 1
        elif c >= "\u2e80":
            wide += 1
        else:
            others += 1
    return -(-letters // 3) + others + 2 * wide


def is_loopback(address: str) -> bool:
    """Whether the host of a URL is this machine by its very name or number; no name is resolved."""
    host = (urlsplit(address).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def display_address(address: str) -> str:
    """A URL reduced to scheme, host and port: what may be shown (a user name or query may be a secret)."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _server_root(address: str) -> str:
    return address.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _import_sdk() -> None:
    # The SDK looks at the older httpx wherever somebody has begun to import it (fastembed does, in a thread of its
    # own), and fails every request until that has come to its end. Here this waits for the end.
    with suppress(ImportError):
        importlib.import_module("httpx")
    importlib.import_module("openai.resources.chat")  # the SDK would import it at the first request

    # Their debug lines hold addresses and headers; at the levels we log at, they have nothing to say.
    for name in ("openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    seen_ids: set[int] = set()
    while error is not None and id(error) not in seen_ids:
        seen_ids.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _error_code(body: object) -> str:
    """The machine-readable words of an error body: "exceed_context_size_error", "temperature" and the like."""
    if not isinstance(body, dict):
        return ""
    fields = cast(dict[str, object], body)
    return " ".join(
        str(fields[key]) for key in ("code", "type", "param") if isinstance(fields.get(key), str)
    )


def _text_field(fields: Mapping[str, Any] | None, key: str) -> str:
    value: object = fields.get(key) if fields else None
    return _shorten_name(value) if isinstance(value, str) else ""


def _shorten_name(value: str) -> str:
    return value if len(value) < 200 else value[-199:]


def _has_reasoning(delta: object) -> bool:
    """Whether a piece of a reply has a thought beside the text: llama.cpp's and vLLM's field, or Ollama's."""
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _first_model(listing: Mapping[str, Any]) -> str:
    data: object = listing.get("data")
    if isinstance(data, list) and data:
        first: object = cast(list[object], data)[0]
        if isinstance(first, dict):
            return _text_field(cast(dict[str, Any], first), "id")
    return ""


def _context_tokens(props: Mapping[str, Any] | None) -> int:
    defaults: object = (props or {}).get("default_generation_settings")
    if isinstance(defaults, dict):
        size: object = cast(dict[str, object], defaults).get("n_ctx")
        if isinstance(size, int) and size > 0:
            return size
    return 1 << 31
