"""Read what servers of the OpenAI dialect send: event streams, JSON in their place, and errors in either. Pure.

Lines and fields are those of Server-Sent Events in the HTML standard, section 9.2; beyond it, events without a
blank line between them are told apart, and a last line without an end counts.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

MAX_LINE_BYTES: Final = 1 << 20
"""Of a stream, where a piece of text takes a few hundred bytes, or of a whole reply."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_FIELD: Final = re.compile(r"(?:data|event|id|retry|error)?(?::|\Z)")
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_TEXT_FIELDS: Final = ("text", "content", "refusal", "value")
_THOUGHT_TYPES: Final = frozenset({"thinking", "reasoning", "redacted_thinking"})


class ResponseTooLarge(Exception):
    """Report a line or body beyond its ceiling."""


@dataclass(slots=True, frozen=True)
class Event:
    """Hold an event of a stream, or a value of JSON that came in its place."""

    name: str
    data: str


class EventDecoder:
    """Cut bytes, however they are cut, into events. Raises ResponseTooLarge.

    `kind` is what the first line shows: "events", "json", or "foreign" for anything else.
    """

    def __init__(self) -> None:
        self.kind = ""
        self._rest = b""
        self._has_begun = self._skips_newline = False
        self._name, self._data = "", list[str]()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that a chunk completes."""
        if self._skips_newline and chunk:
            chunk, self._skips_newline = chunk.removeprefix(b"\n"), False
        buffer = self._rest + chunk
        if not self._has_begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = buffer
                return
            buffer, self._has_begun = buffer.removeprefix(_BOM), True
        *lines, self._rest = _LINE_END.split(buffer)
        self._skips_newline = buffer.endswith(b"\r")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ResponseTooLarge
        for line in lines:
            yield from self._read_line(line)

    def end(self) -> Iterator[Event]:
        """Yield the event that the end of the stream completes."""
        if self._rest:
            yield from self._read_line(self._rest)
        yield from self._dispatch()

    def _read_line(self, raw: bytes) -> Iterator[Event]:
        line = raw.decode("utf-8", "replace")
        if not self.kind and line.strip():
            is_json = line.lstrip()[0] in "{["
            self.kind = "json" if is_json else "events" if _FIELD.match(line) else "foreign"
        if self.kind == "json":
            self._data.append(line)
            if len(self._data) == 1 and _is_json(line):  # one value a line
                yield from self._dispatch()
            return
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field in ("data", "error"):  # llama.cpp once sent "error: {…}"
            if self._data and self._data[-1].endswith("}") and value.startswith(("{", "[DONE]")):
                yield from self._dispatch()
            self._name = "error" if field == "error" else self._name
            self._data.append(value)

    def _dispatch(self) -> Iterator[Event]:
        name, data = self._name, "\n".join(self._data).strip()
        self._name, self._data = "", []
        if data:
            yield Event(name, data)


@dataclass(slots=True, frozen=True)
class Chunk:
    """Hold what one value says: `text` to add, or the `whole` text so far, and how the reply ended."""

    text: str = ""
    whole: str = ""
    has_reasoning: bool = False
    finish_reason: str = ""
    has_choice: bool = False


def parse_chunk(value: object) -> Chunk:
    """Read a chunk, or a whole answer, of whatever shape: what is not understood says nothing."""
    choices = _field(value, "choices")
    listed = cast(list[object], choices) if isinstance(choices, list) else []
    choice = next((each for each in listed if _field(each, "index") in (None, 0)), None)
    if choice is None:
        return Chunk()
    delta, message = _field(choice, "delta"), _field(choice, "message")
    reason = _field(choice, "finish_reason")
    return Chunk(
        text=_text_of(_field(delta, "content")) + _text_of(_field(delta, "refusal")),
        whole=_text_of(_field(message, "content"))
        or _text_of(_field(message, "refusal"))
        or _text_of(_field(choice, "text") if delta is None else None),
        has_reasoning=any(_has_reasoning(each) for each in (delta, message)),
        finish_reason=reason if isinstance(reason, str) and reason.lower() != "null" else "",
        has_choice=True,
    )


def find_error(event_name: str, value: object) -> object | None:
    """Return the error that an event reports, None for any other."""
    choices = _field(value, "choices")
    first = cast(list[object], choices)[0] if isinstance(choices, list) and choices else None
    for error in (_field(value, "error"), _field(first, "error")):
        if error:
            return error
    if event_name == "error" or _field(value, "object") == "error":
        return value
    if not choices and (_field(value, "detail") or _field(value, "errors")):
        return value
    return None


def error_words(error: object) -> str:
    """Return the machine-readable words of an error: "exceed_context_size_error", "temperature" and such."""
    return " ".join(
        str(found)
        for key in ("code", "type", "param")
        if isinstance(found := _field(error, key), str)
    )


def error_status(error: object) -> int:
    """Return the HTTP status that an error names, 0 for none."""
    for key in ("code", "status", "status_code", "http_status"):
        with suppress(ValueError, TypeError, OverflowError):
            status = int(cast(Any, _field(error, key)))
            if 400 <= status < 600:
                return status
    return 0


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _field(value: object, key: str) -> object:
    return cast(dict[str, object], value).get(key) if isinstance(value, dict) else None


def _has_reasoning(message: object) -> bool:
    content = _field(message, "content")
    parts = cast(list[object], content) if isinstance(content, list) else []
    return any(_field(message, key) for key in _REASONING_FIELDS) or any(
        _field(part, "type") in _THOUGHT_TYPES for part in parts
    )


def _text_of(content: object) -> str:
    """Return the text of a content: a text, a part, or a list of them, without thoughts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_text_of, cast(list[object], content)))
    if isinstance(content, dict) and _field(part := cast(object, content), "type") not in (
        _THOUGHT_TYPES
    ):
        return next((text for key in _TEXT_FIELDS if (text := _text_of(_field(part, key)))), "")
    return ""
