"""Read one streamed reply, within ceilings of length and time."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from llamora.llm.dialect import Event, EventDecoder, find_error, parse_chunk
from llamora.llm.errors import ServerErrors

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk

QUIET_TIMEOUT_FACTOR: Final = (
    5  # no word or thought, but signs of life: `llm.timeout_seconds`, so many times
)
SECONDS_PER_TOKEN: Final = 5.0  # the slowest reply
BYTES_PER_TOKEN: Final = 32  # four is usual; runs of spaces are the longest tokens
CLOSING_SECONDS: Final = 1.0  # after the last word only the closing lines are missing

Piece = tuple[Literal["said", "thought", "end"], str]
"""A piece of text; that the server sends reasoning apart from it; or why the reply ended."""


class ReplyReader:
    """Read the reply that `stream` carries.

    `started` is when it was asked for, in the event loop's time, `timeout_seconds` the longest
    silence. The SDK's own reading is not used: it ends at what it does not know.
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
        self._errors = errors
        self._max_bytes = max_tokens * BYTES_PER_TOKEN
        self._timeout_seconds = timeout_seconds
        self._last_progress = started
        self._deadline = (
            started + QUIET_TIMEOUT_FACTOR * timeout_seconds + max_tokens * SECONDS_PER_TOKEN
        )
        self._decoder = EventDecoder()
        self._joiner = SurrogateJoiner()
        self._bytes_read = 0
        self._has_spoken = self._has_choice = self._is_finished = self._is_done = False
        self._reason = ""

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of the reply, "thought" for each event of reasoning, "end" with the reason last.

        Raises ModelError, or whatever the SDK raises. The stream is closed at the end in any case.
        """
        try:
            chunks = aiter(self._stream.response.aiter_bytes())
            while not self._is_done:
                chunk = await self._next_bytes(chunks)
                for event in self._decoder.end() if chunk is None else self._decoder.feed(chunk):
                    for piece in self._read_event(event, is_last=chunk is None):
                        yield piece
                if self._is_done or chunk is None:
                    break
                self._require_known()
            if self._decoder.kind == "json" and self._has_choice:
                self._is_finished = True  # it is whole, or it would be no JSON
            if remainder := self._joiner.end():
                yield "said", remainder
        except Exception:
            # A reply that has said its last word is complete, whatever its connection does then.
            if not self._is_finished:
                raise
        finally:
            await self._stream.close()
        if not self._is_finished:
            self._require_known(at_end=True)
            raise self._errors.code_error("server_stopped")
        yield "end", self._reason

    async def _next_bytes(self, chunks: Any) -> bytes | None:
        now = asyncio.get_running_loop().time()
        quiet_seconds = (
            CLOSING_SECONDS if self._is_finished else QUIET_TIMEOUT_FACTOR * self._timeout_seconds
        )
        until = min(
            now + self._timeout_seconds, self._last_progress + quiet_seconds, self._deadline
        )
        async with asyncio.timeout(max(0.0, until - now)):
            return cast(bytes | None, await anext(chunks, None))

    def _require_known(self, *, at_end: bool = False) -> None:
        from llamora.llm.wire import is_event_stream

        is_foreign = self._decoder.kind == "foreign" or (
            at_end and not self._has_choice and self._decoder.kind != "events"
        )
        if is_foreign and not is_event_stream(self._stream.response):
            raise self._errors.code_error("server_foreign")

    def _read_event(self, event: Event, *, is_last: bool) -> Iterator[Piece]:
        if event.data.startswith("[DONE]"):
            self._is_finished = self._is_done = True
        if self._is_done:
            return
        if event.data[0] not in "{[":
            if event.name == "error":
                raise self._errors.code_error("server_reported_error")
            return  # a word of a gateway's, to keep the stream open
        try:
            value: object = json.loads(event.data)
        except ValueError:
            if is_last:  # cut off in the middle
                return
            raise
        for part in cast(list[object], value) if isinstance(value, list) else [value]:
            yield from self._read_value(event.name, part)

    def _read_value(self, name: str, value: object) -> Iterator[Piece]:
        if (error := find_error(name, value)) is not None:
            raise self._errors.reported_error(error)
        chunk = parse_chunk(value)
        if chunk.has_reasoning:
            yield "thought", ""
        # Some send the whole text once more at the end.
        text = chunk.text or ("" if self._has_spoken else chunk.whole)
        piece = self._joiner.feed(text) if text else ""
        self._bytes_read += max(1, len(piece.encode()))
        if self._bytes_read > self._max_bytes:
            raise self._errors.code_error("server_endless")
        if piece:
            self._has_spoken = True
            yield "said", piece
        if chunk.finish_reason:
            self._is_finished, self._reason = True, chunk.finish_reason
        self._has_choice = self._has_choice or chunk.has_choice
        if text or chunk.has_reasoning or chunk.finish_reason:
            self._last_progress = asyncio.get_running_loop().time()


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
