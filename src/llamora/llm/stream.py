"""Read one streamed reply, within ceilings of length and time."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, Literal

from llamora.llm.errors import ServerErrors

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk

IDLE_TIMEOUT_SECONDS: Final = 30.0  # between two pieces, if `llm.timeout_seconds` is not shorter
TOTAL_TIMEOUT_FACTOR: Final = 5  # a whole reply may take so many times `llm.timeout_seconds`
BYTES_PER_TOKEN: Final = 32  # four is usual; runs of spaces are the longest tokens
CLOSING_SECONDS: Final = 1.0  # after the last word only the closing lines are missing

Piece = tuple[Literal["said", "thought", "end"], str]
"""A piece of text; that the server sends reasoning apart from it; or why the reply ended."""


class ReplyReader:
    """Read the reply that `stream` carries.

    `started` is when it was asked for, in the event loop's time, `timeout_seconds` the wait for
    the first piece.
    """

    def __init__(
        self,
        stream: "AsyncStream[ChatCompletionChunk]",
        errors: ServerErrors,
        *,
        max_tokens: int,
        timeout_seconds: float,
        started: float,
    ) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._errors = errors
        self._max_tokens = max_tokens
        self._timeout_seconds = timeout_seconds
        self._patience = timeout_seconds
        self._deadline = started + TOTAL_TIMEOUT_FACTOR * timeout_seconds
        self._events = self._text_bytes = 0
        self._is_finished = False

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of the reply, "thought" once at most, and "end" with the reason last.

        Raises ModelError, or whatever the SDK raises. The stream is closed at the end in any case.
        """
        from llamora.llm.wire import is_event_stream

        reason, has_reasoning, joiner = "", False, SurrogateJoiner()
        try:
            if not is_event_stream(self._stream.response):
                raise self._errors.code_error("server_foreign")
            while (chunk := await self._next_chunk()) is not None:
                choice = chunk.choices[0] if chunk.choices else None
                if not has_reasoning and choice is not None and _has_reasoning(choice.delta):
                    has_reasoning = True
                    yield "thought", ""
                content = choice.delta.content if choice is not None and choice.delta else None
                piece = joiner.feed(content) if content else ""
                self._check_length(piece)
                if piece:
                    yield "said", piece
                if choice is not None and choice.finish_reason is not None:
                    self._is_finished, reason = True, choice.finish_reason
            if remainder := joiner.end():
                yield "said", remainder
            self._is_finished = self._is_finished or self._saw_done()
        except Exception:
            # A reply that has said its last word is complete, whatever its connection does then.
            if not self._is_finished:
                raise
        finally:
            await self._stream.close()
        if not self._is_finished:
            raise self._errors.code_error("server_stopped")
        yield "end", reason

    async def _next_chunk(self) -> "ChatCompletionChunk | None":
        remaining = self._deadline - asyncio.get_running_loop().time()
        patience = CLOSING_SECONDS if self._is_finished else self._patience
        async with asyncio.timeout(max(0.0, min(patience, remaining))):
            chunk = await anext(self._chunks, None)
        self._patience = min(self._timeout_seconds, IDLE_TIMEOUT_SECONDS)
        return chunk

    def _check_length(self, piece: str) -> None:
        self._events += 1
        self._text_bytes += len(piece.encode())
        if (
            self._text_bytes > self._max_tokens * BYTES_PER_TOKEN
            or self._events > self._max_tokens * 2 + 64
        ):
            raise self._errors.code_error("server_endless")

    def _saw_done(self) -> bool:
        from llamora.llm.wire import GuardedStream

        body = self._stream.response.stream
        return isinstance(body, GuardedStream) and body.is_finished


class SurrogateJoiner:
    """Join characters that a server cut into two JSON escapes; every piece is valid Unicode."""

    def __init__(self) -> None:
        self._pending = ""

    def feed(self, piece: str) -> str:
        """Return a piece without half a character at its end, which the next one begins with."""
        text = self._pending + piece
        self._pending = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._pending = text[:-1], text[-1]
        if text.isascii():
            return text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        """Return U+FFFD for half a character that is left."""
        pending, self._pending = self._pending, ""
        return "\ufffd" if pending else ""


def _has_reasoning(delta: Any) -> bool:
    # The field of llama.cpp and vLLM, or Ollama's.
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))
