"""Stream replies from a model server that speaks the OpenAI dialect, llama.cpp first.

This is the one door to model servers. Whatever a server does wrong becomes one ModelError.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlsplit

from llamora.llm.addresses import display_address, display_endpoint, is_loopback
from llamora.llm.connection import (
    INFO_CACHE_SECONDS,
    METADATA_TIMEOUT_SECONDS,
    ServerConnection,
)
from llamora.llm.errors import ModelError, ServerErrors
from llamora.llm.probe import ModelInfo, probe_server
from llamora.llm.reasoning import ReasoningFilter
from llamora.llm.stream import ReplyReader
from llamora.llm.tokens import TokenCounter

if TYPE_CHECKING:
    from llamora.settings import LlmSettings


WAKING_SECONDS: Final = 10.0  # what a reply waits for the server to say about itself
UNKNOWN_CACHE_SECONDS: Final = 5.0  # and goes on without it for so long before it asks again

EarlyEnd = Literal["length", "filter", "tool", "other"]
"""Why a model ended a reply before it was done."""

# Every other reason but those of a whole reply is "other".
_WHOLE: Final = frozenset(
    "stop eos eos_token stop_sequence end_turn end complete completed done finished".split()
)
_EARLY_ENDS: Final[Mapping[str, EarlyEnd]] = {
    **dict.fromkeys("length max_tokens max_output_tokens model_length".split(), "length"),
    **dict.fromkeys(
        "content_filter content_filtered safety recitation prohibited_content blocklist spii"
        " sensitive refusal guardrail".split(),
        "filter",
    ),
    **dict.fromkeys("tool_calls tool_use function_call malformed_function_call".split(), "tool"),
}


@dataclass(slots=True, frozen=True)
class Message:
    """Hold one turn as the model sees it."""

    role: Literal["system", "user", "assistant"]
    content: str


class ModelClient:
    """Stream replies from one endpoint, and count tokens by `tokens`.

    `base_url` is the server's address, with or without `/v1`; a callable is called before each
    request and returns "" while there is nothing to talk to.
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
        self._settings = settings
        self._model = model
        self._embedded = embedded
        self._reasoning_effort = reasoning_effort
        self._opens_reasoning = opens_reasoning
        # The last model whose reply ended reasoning that its prompt must have opened.
        self._reasoning_model = ""
        self._errors = ServerErrors(self._get_address, embedded=embedded)
        self._connection = ServerConnection(
            self._get_address,
            api_key,
            self._errors,
            timeout_seconds=float(settings.timeout_seconds),
            ca_file=settings.ca_file,
        )
        self.tokens = TokenCounter(self._connection)
        self._info: ModelInfo | None = None
        self._info_until = self._unknown_until = 0.0

    async def warm_up(self) -> None:
        """Import what the first request needs, in a thread. Harmless to call more than once."""
        await self._connection.warm_up()

    async def close(self) -> None:
        """Close every connection; a reply that is streaming ends with an error."""
        await self._connection.close()

    async def probe(self, seconds: float = METADATA_TIMEOUT_SECONDS) -> ModelInfo:
        """Return what the server says about its model, remembered for INFO_CACHE_SECONDS.

        Raises ModelError when it says nothing within `seconds`.
        """
        now = time.monotonic()
        if self._info is None or now >= self._info_until:
            self._info = await probe_server(
                self._connection,
                model=self._model,
                embedded=self._embedded,
                max_context_tokens=self._settings.context_tokens,
                reasoning_effort=self._reasoning_effort,
                seconds=seconds,
            )
            self._info_until = time.monotonic() + INFO_CACHE_SECONDS
        return self._info

    async def describe(self) -> ModelInfo:
        """Return what is known of the model: if the server does not say, what it said last, or the settings do.

        Raises ModelError only where there is no server to ask.
        """
        if time.monotonic() >= self._unknown_until:
            try:
                return await self.probe(min(WAKING_SECONDS, self._settings.timeout_seconds))
            except ModelError as error:
                if not self._connection.address or error.code == "model_closed":
                    raise
                self._unknown_until = time.monotonic() + UNKNOWN_CACHE_SECONDS
        address = self._connection.address
        return self._info or ModelInfo(
            name=self._model or "default",
            endpoint=display_address(address),
            is_local=is_loopback(address),
            is_embedded=self._embedded,
            context_tokens=self._settings.context_tokens,
        )

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float | None = None,
        extra: Mapping[str, Any] | None = None,
        on_early_end: Callable[[EarlyEnd], None] | None = None,
        on_reasoning: Callable[[], None] | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield the text of a reply as it comes. Raises ModelError; yielded pieces stay valid.

        `extra` is merged into the request's body and wins (`repeat_penalty`, `grammar`, …).
        Closing the generator, or cancelling the task that waits for it, closes the connection at
        once, which frees the server's slot.

        Reasoning is left out; a piece that begins with REASONING_CLOSED says that all before it was
        reasoning. `on_reasoning` is called with each piece of reasoning, `on_early_end` at the end
        when the reply is not whole.
        """
        body = self.request_parameters(max_tokens, temperature, extra)
        reasoning = ReasoningFilter(starts_open=self._expects_reasoning())
        reason, address = "", ""
        failure: ModelError | None = None
        try:
            address = display_endpoint(self._get_address())
            reader = await self._open_reply(messages, body, max_tokens)
            async with aclosing(reader.pieces()) as pieces:
                async for kind, piece in pieces:
                    reason = piece if kind == "end" else ""
                    if text := _visible_text(reasoning, kind, piece):
                        yield text
                    if on_reasoning is not None and (kind == "thought" or reasoning.is_open):
                        on_reasoning()
        except ModelError as error:
            failure = error
        except Exception as error:  # every failure of a server ends in a code
            failure = self._errors.error_from(error, address)
        early_end = _early_end(reason)
        if text := self._finish(reasoning, is_complete=failure is None and not early_end):
            yield text
        if failure is not None:
            # Raised outside the handler: the first error may quote the server, and so the prompt.
            raise failure
        if early_end is not None and on_early_end is not None:
            on_early_end(early_end)

    def _expects_reasoning(self) -> bool:
        info = self._info
        return self._opens_reasoning or (
            info is not None and (info.opens_reasoning or info.name == self._reasoning_model)
        )

    def _finish(self, reasoning: ReasoningFilter, *, is_complete: bool) -> str:
        """Return the rest of the text, and remember how this model marks its reasoning."""
        if reasoning.closed_without_opening:
            self._reasoning_model = self._info.name if self._info is not None else self._model
        elif reasoning.is_unclosed and is_complete:
            self._reasoning_model = ""
        return reasoning.finish(is_complete=is_complete)

    async def _open_reply(
        self, messages: Sequence[Message], body: Mapping[str, Any], max_tokens: int
    ) -> ReplyReader:
        transport = await self._connection.open()
        model = self._model or (await self.describe()).name
        started = asyncio.get_running_loop().time()
        timeout_seconds = self._settings.timeout_seconds
        async with asyncio.timeout(timeout_seconds):
            stream = await transport.api.chat.completions.create(
                model=model,
                messages=cast(Any, [{"role": m.role, "content": m.content} for m in messages]),
                stream=True,
                extra_body=body,
            )
        return ReplyReader(
            stream,
            self._errors,
            max_tokens=max_tokens,
            timeout_seconds=timeout_seconds,
            started=started,
        )

    def request_parameters(
        self,
        max_tokens: int,
        temperature: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the body of a request, without the model's name and the messages."""
        settings = self._settings
        body: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": settings.temperature if temperature is None else temperature,
        }
        if self._reasoning_effort:
            body["reasoning_effort"] = self._reasoning_effort
        address = self._get_address()
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
        if host.endswith("api.openai.com"):
            # It refuses the older name for newer models, and a temperature for those that reason.
            body["max_completion_tokens"] = body.pop("max_tokens")
            if self._reasoning_effort not in ("", "none"):
                del body["temperature"]
        return body | dict(extra or {})


def _early_end(reason: str) -> EarlyEnd | None:
    reason = reason.lower()
    return None if not reason or reason in _WHOLE else _EARLY_ENDS.get(reason, "other")


def _visible_text(
    reasoning: ReasoningFilter, kind: Literal["said", "thought", "end"], piece: str
) -> str:
    if kind == "said":
        return reasoning.feed(piece)
    # A server that sends reasoning apart has none in the text.
    return reasoning.release_held() if kind == "thought" else ""
