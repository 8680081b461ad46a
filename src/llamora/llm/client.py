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

from llamora.llm.reasoning import Thoughts, marks_thought, opens_thought

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from llamora.settings import LlmSettings

logger = logging.getLogger(__name__)

ErrorKind = Literal["unreachable", "refused", "busy", "broken", "too_long"]

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 30.0
"""Longest silence between two pieces once the reply has begun, if ``llm.timeout_seconds`` is not shorter."""
TOTAL_FACTOR: Final = 5
"""A whole reply may take this many times ``llm.timeout_seconds``."""
SIDE_SECONDS: Final = 3.0
"""Patience with the small questions (/tokenize, /props, /v1/models)."""
REMEMBER_SECONDS: Final = 30.0
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
    on_this_machine: bool
    embedded: bool
    context_tokens: int
    """Tokens of one conversation: what the server says, never more than ``llm.context_tokens``."""
    file: str = ""
    """Name of the model's file, without its folder, where the server tells."""
    opens_thought: bool = False
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
        opens_thought: bool = False,
    ) -> None:
        self._address = base_url if callable(base_url) else lambda: base_url
        self._api_key = api_key
        self._settings = settings
        self._model = model
        self._embedded = embedded
        self._reasoning_effort = reasoning_effort
        self._opens_thought = opens_thought
        self._closed_alone = ""  # the model that was last heard to end a thought that its prompt must have opened
        self._opening = asyncio.Lock()
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
        at_length: Callable[[], None] | None = None,
        at_thought: Callable[[], None] | None = None,
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
        learned = info is not None and (info.opens_thought or info.name == self._closed_alone)
        thoughts = Thoughts(opened=self._opens_thought or learned)
        pieces = self._pieces(messages, self.parameters(max_tokens, temperature, stop, extra), max_tokens)
        reason = ""
        failure: ModelError | None = None
        place = ""
        try:
            place = self._place()
            async for kind, piece in pieces:
                reason = piece if kind == "end" else ""
                if said := thoughts.feed(piece) if kind == "said" else thoughts.apart() if kind == "thought" else "":
                    yield said
                if at_thought is not None and (kind == "thought" or thoughts.open):
                    at_thought()
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a sentence
            failure = self._explain(error, place)
        finally:
            await pieces.aclose()
        whole = failure is None and reason != "length"
        if thoughts.closed_alone:
            self._closed_alone = self._info.name if self._info is not None else self._model
        elif thoughts.unclosed and whole:
            self._closed_alone = ""
        if said := thoughts.end(whole=whole):
            yield said
        if failure is not None:
            # Raised outside the handler: the first error may quote the server, and with it the prompt.
            raise failure
        if reason == "length" and at_length is not None:
            at_length()

    def parameters(
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
        address = self._address()
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
        if host.endswith("api.openai.com"):
            # There the older name is refused for newer models, and a temperature for those that think.
            body["max_completion_tokens"] = body.pop("max_tokens")
            if self._reasoning_effort not in ("", "none"):
                del body["temperature"]
        return body | dict(extra or {})

    async def _pieces(
        self, messages: Sequence[Message], body: Mapping[str, Any], max_tokens: int
    ) -> AsyncGenerator[tuple[Literal["said", "thought", "end"], str], None]:
        """What is said; that something is thought apart from it, once; and at the end why it ended."""
        from llamora.llm.wire import GuardedStream, is_event_stream

        connection = await self._open()
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
        finished = apart = False
        reason = ""
        try:
            if not is_event_stream(stream.response):
                raise self._error("broken", "{place} did not answer as a model server does", "check llm.upstream.host")
            events = text_bytes = 0
            joiner = _SurrogateJoiner()
            chunks = aiter(stream)
            while True:
                left = started + TOTAL_FACTOR * settings.timeout_seconds - loop.time()
                # After the last word only the closing lines are missing: no reason to wait long for them.
                async with asyncio.timeout(max(0.0, min(1.0 if finished else patience, left))):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                patience = min(settings.timeout_seconds, IDLE_SECONDS)
                events += 1
                choice = chunk.choices[0] if chunk.choices else None
                if not apart and choice is not None and _thinks_apart(choice.delta):
                    apart = True
                    yield "thought", ""
                if choice is not None and choice.delta and choice.delta.content:
                    piece = joiner.feed(choice.delta.content)
                    text_bytes += len(piece.encode())
                    if text_bytes > max_tokens * BYTES_PER_TOKEN or events > max_tokens * 2 + 64:
                        raise self._too_much()
                    if piece:
                        yield "said", piece
                elif events > max_tokens * 2 + 64:
                    raise self._too_much()
                if choice is not None and choice.finish_reason is not None:
                    finished, reason = True, choice.finish_reason
            rest = joiner.end()
            if rest:
                yield "said", rest
            body_stream = stream.response.stream
            finished = finished or (isinstance(body_stream, GuardedStream) and body_stream.finished)
        except Exception:
            # A reply that has said its last word is complete, whatever its connection does afterwards.
            if not finished:
                raise
        finally:
            await stream.close()
        if not finished:
            raise self._error("broken", "{place} stopped in the middle of the reply", "ask again")
        yield "end", reason

    # -- tokens

    @property
    def counts(self) -> bool:
        """Whether tokens are counted by the server's tokenizer just now, not estimated.

        Never by a server elsewhere: what is only counted, or shown before it is sent, does not leave this machine.
        """
        return time.monotonic() >= self._no_tokenizer_until and is_loopback(self._address())

    async def count_tokens(self, text: str) -> int:
        """Tokens in ``text`` by the server's own tokenizer, else a cautious estimate. Raises nothing."""
        return (await self.count_many([text]))[0]

    async def count_many(self, texts: Sequence[str]) -> list[int]:
        """Tokens in each of ``texts``, with a single request."""
        if not texts:
            return []
        if not self.counts or sum(map(len, texts)) > MAX_TOKENIZE_CHARS:
            return [estimate_tokens(text) for text in texts]
        try:
            counts = await self._tokenize(texts)
        except ModelError:
            counts = None
        if counts is None:
            self._no_tokenizer_until = time.monotonic() + REMEMBER_SECONDS
            return [estimate_tokens(text) for text in texts]
        return counts

    async def _tokenize(self, texts: Sequence[str]) -> list[int] | None:
        """llama.cpp's ``/tokenize`` takes texts and token numbers mixed; -1, no model's token, parts them."""
        content: list[str | int] = []
        for text in texts:
            content += [text, _SEPARATOR]
        answer = await self._ask("POST", "/tokenize", {"content": content})
        tokens = answer.get("tokens") if answer is not None else None
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
        props = await self._ask("GET", "/props")
        name = self._model
        if not name:
            listing = await self._ask("GET", "/v1/models") or {}
            name = _first_model(listing) or _text(props, "model_path") or "default"
        opens = False
        with suppress(ModelError):
            opens = not self._embedded and await self._ends_in_thought(name, props)
        info = ModelInfo(
            name=name,
            endpoint=self._place(),
            on_this_machine=is_loopback(self._address()),
            embedded=self._embedded,
            context_tokens=min(_context_tokens(props), self._settings.context_tokens),
            file=re.split(r"[/\\]", _text(props, "model_path"))[-1],
            opens_thought=opens,
        )
        self._info, self._info_until = info, now + REMEMBER_SECONDS
        return info

    async def _ends_in_thought(self, model: str, props: Mapping[str, Any] | None) -> bool:
        """Whether prompts end inside a thought: llama.cpp shows what its chat template makes, vLLM its tokens."""
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}
        if props is not None:
            if not marks_thought(str(props.get("chat_template", "<think>"))):
                return False
            effort = {"reasoning_effort": self._reasoning_effort} if self._reasoning_effort else {}
            made = await self._ask("POST", "/apply-template", {**asked, **effort})
        else:
            made = await self._ask("POST", "/tokenize", {"model": model, **asked, "add_generation_prompt": True})
            tokens = (made or {}).get("tokens")
            if isinstance(tokens, list) and tokens:
                made = await self._ask("POST", "/detokenize", {"model": model, "tokens": cast(list[int], tokens)[-16:]})
        prompt = (made or {}).get("prompt")
        return isinstance(prompt, str) and opens_thought(prompt)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """A small JSON question at the server's root; None when it has no such route. Raises ModelError."""
        failure: ModelError
        place = self._place()
        try:
            connection = await self._open()
            async with asyncio.timeout(SIDE_SECONDS):
                answer = await connection.http.request(
                    method,
                    connection.root + path,
                    json=body,
                    headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
                )
            if answer.status_code in (401, 403):
                failure = self._status_error(answer.status_code, "", place)
            elif answer.status_code != 200:
                return None
            else:
                found: object = json.loads(answer.content)
                return cast(dict[str, Any], found) if isinstance(found, dict) else None
        except ValueError:
            return None
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a sentence
            failure = self._explain(error, place)
        raise failure

    # -- connection

    async def _open(self) -> _Connection:
        root = _root(self._address())
        if self._closed:
            raise ModelError("unreachable", "The connection to the model was closed: ask again.")
        if not root:
            raise ModelError("unreachable", "The built-in model is starting: try again in a few seconds.")
        async with self._opening:
            if self._connection is not None and self._connection.root == root:
                return self._connection
            await self.warm_up()
            from openai import AsyncOpenAI

            from llamora.llm.wire import open_http_client

            if self._connection is not None:
                await self._connection.http.aclose()
            http = open_http_client(
                connect_seconds=CONNECT_SECONDS,
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

    def _place(self) -> str:
        return display_address(self._address())

    # -- errors

    def _error(self, kind: ErrorKind, happened: str, remedy: str, place: str = "") -> ModelError:
        if self._embedded:
            remedy = "ask again in a moment" if "llm." in remedy or kind != "too_long" else remedy
            return ModelError(kind, f"{happened.format(place='The built-in model')}: {remedy}.")
        where = f"The model server at {place or self._place()}"
        return ModelError(kind, f"{happened.format(place=where)}: {remedy}.")

    def _too_much(self) -> ModelError:
        return self._error("too_long", "{place} would not stop at the length asked for", "what came so far is kept")

    def _status_error(self, status: int, code: str, place: str) -> ModelError:
        if status == 401:
            return self._error("refused", "{place} wants another key", "check llm.upstream.api_key", place)
        if status == 403:
            return self._error("refused", "{place} forbids this key the model", "check llm.upstream.api_key", place)
        if status == 404:
            return self._error(
                "refused", "{place} does not know this model", "check llm.upstream.model and host", place
            )
        if status == 429:
            return self._error("busy", "{place} has too much to do", "ask again in a minute", place)
        if status == 503:
            return self._error("busy", "{place} is not ready", "ask again in a minute", place)
        if "context" in code:
            return self._error(
                "too_long",
                "{place} finds the text too long",
                "lower llm.context_tokens to what it offers",
                place,
            )
        if "unsupported" in code and re.search("temperature|reasoning_effort", code):  # a model of OpenAI's that thinks
            return self._error(
                "refused",
                "{place} does not take this temperature or reasoning effort for its model",
                "set temperature to 1, or another reasoning_effort, in the settings",
                place,
            )
        if 300 <= status < 400:
            return self._error(
                "refused",
                "{place} points to another address",
                "put the final one in llm.upstream.host",
                place,
            )
        if 400 <= status < 500:
            return self._error(
                "refused",
                f"{{place}} did not accept the request (HTTP {status})",
                "check llm.upstream.host and model",
                place,
            )
        return self._error("broken", f"{{place}} failed (HTTP {status})", "look at its own log", place)

    def _explain(self, error: Exception, place: str) -> ModelError:
        """The sentence for any other error. Nothing of the error itself is in it: it may quote the prompt."""
        import httpx2
        import openai

        from llamora.llm.wire import Overrun, UnexpectedEncoding

        if isinstance(error, openai.APIStatusError):
            return self._status_error(error.status_code, _error_code(error.body), place)
        chain = list(_causes(error))
        if any(isinstance(e, Overrun) for e in chain):
            return self._error("broken", "{place} sent more than any reply needs", "check llm.upstream.host", place)
        if any(isinstance(e, UnexpectedEncoding) for e in chain):
            return self._error("broken", "{place} sent a compressed reply", "switch compression off there", place)
        if any(isinstance(e, ssl.SSLError) for e in chain) or any("SSL" in type(e).__name__ for e in chain):
            return self._error(
                "unreachable",
                "{place} has no certificate this machine trusts",
                "check its certificate",
                place,
            )
        if any(isinstance(e, socket.gaierror) for e in chain):
            return self._error("unreachable", "{place} cannot be found by name", "check llm.upstream.host", place)
        if any(isinstance(e, httpx2.ConnectTimeout) for e in chain):
            return self._error("unreachable", "{place} cannot be reached", "check that it runs", place)
        if any(isinstance(e, httpx2.ConnectError) for e in chain):
            return self._error("unreachable", "{place} refuses connections", "check that it runs", place)
        if any(isinstance(e, httpx2.TimeoutException | TimeoutError | openai.APITimeoutError) for e in chain):
            return self._error("broken", "{place} stopped answering", "ask again, or raise llm.timeout_seconds", place)
        if any(isinstance(e, httpx2.TransportError) for e in chain):
            return self._error("broken", "{place} broke off the connection", "ask again", place)
        if isinstance(error, openai.APIError):
            return self._error("broken", "{place} reported an error", "look at its own log", place)
        if not isinstance(error, ValueError):  # undecodable text and JSON are ValueErrors
            logger.warning("unexpected failure of the model client: %s", type(error).__name__)
        return self._error("broken", "{place} sent something unreadable", "ask again", place)


_SEPARATOR: Final = -1


class _SurrogateJoiner:
    """Joins characters that a server cut into two JSON escapes, so that every piece is valid Unicode."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        text = self._held + piece
        self._held = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if text.isascii():
            return text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        held, self._held = self._held, ""
        return "\ufffd" if held else ""


_NO_LETTERS: Final = bytes(code for code in range(128) if not chr(code).isalpha() and code != 32)


def estimate_tokens(text: str) -> int:
    """A cautious count without a tokenizer: more often too high than too low.

    Letters and spaces count a third of a token, digits and ASCII punctuation one each, other characters one,
    and two from U+2E80 on (CJK, emoji), where tokenizers fall back to bytes.
    """
    if text.isascii():
        words = len(text.encode().translate(None, _NO_LETTERS))
        return -(-words // 3) + len(text) - words
    words = others = wide = 0
    for c in text:
        if c == " " or (c.isascii() and c.isalpha()):
            words += 1
        elif c >= "\u2e80":
            wide += 1
        else:
            others += 1
    return -(-words // 3) + others + 2 * wide


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


def _root(address: str) -> str:
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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _error_code(body: object) -> str:
    """The machine-readable words of an error body: "exceed_context_size_error", "temperature" and the like."""
    if not isinstance(body, dict):
        return ""
    fields = cast(dict[str, object], body)
    return " ".join(str(fields[key]) for key in ("code", "type", "param") if isinstance(fields.get(key), str))


def _text(fields: Mapping[str, Any] | None, key: str) -> str:
    value: object = fields.get(key) if fields else None
    return _model_name(value) if isinstance(value, str) else ""


def _model_name(value: str) -> str:
    return value if len(value) < 200 else value[-199:]


def _thinks_apart(delta: object) -> bool:
    """Whether a piece of a reply has a thought beside the text: llama.cpp's and vLLM's field, or Ollama's."""
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _first_model(listing: Mapping[str, Any]) -> str:
    data: object = listing.get("data")
    if isinstance(data, list) and data:
        first: object = cast(list[object], data)[0]
        if isinstance(first, dict):
            return _text(cast(dict[str, Any], first), "id")
    return ""


def _context_tokens(props: Mapping[str, Any] | None) -> int:
    defaults: object = (props or {}).get("default_generation_settings")
    if isinstance(defaults, dict):
        size: object = cast(dict[str, object], defaults).get("n_ctx")
        if isinstance(size, int) and size > 0:
            return size
    return 1 << 31
