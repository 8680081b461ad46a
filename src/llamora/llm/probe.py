"""Ask a model server about itself: its model, its context, whether its prompts open reasoning."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from llamora.llm.addresses import display_address, is_loopback
from llamora.llm.connection import ServerConnection
from llamora.llm.errors import ModelError
from llamora.llm.reasoning import ends_in_reasoning, has_reasoning_marks


@dataclass(slots=True, frozen=True)
class ModelInfo:
    """Describe the model of a server.

    `context_tokens` is what the server says, never more than `llm.context_tokens`; `file` the name
    of the model's file without its folder, where the server tells. With `is_local` no text leaves
    this machine. `opens_reasoning`: the server says that its prompts end inside reasoning.
    """

    name: str
    endpoint: str
    is_local: bool
    is_embedded: bool
    context_tokens: int
    file: str = ""
    opens_reasoning: bool = False


async def probe_server(
    connection: ServerConnection,
    *,
    model: str,
    embedded: bool,
    max_context_tokens: int,
    reasoning_effort: str,
    seconds: float,
) -> ModelInfo:
    """Return what a server says about itself; a `model` that is named is not asked for.

    Each question may take `seconds`. Raises ModelError.
    """
    # Asked together: a server that is slow to wake up is waited for once.
    answers = await asyncio.gather(
        connection.request_json("GET", "/props", seconds=seconds),
        asyncio.sleep(0, None)
        if model
        else connection.request_json("GET", "models", seconds=seconds),
        return_exceptions=True,
    )
    for answer in answers if model else answers[1:]:
        if isinstance(answer, BaseException):
            raise answer
    props, listing = (None if isinstance(each, BaseException) else each for each in answers)
    name = model or _first_model(listing or {}) or _text_field(props, "model_path") or "default"
    opens_reasoning = False
    with suppress(ModelError):
        opens_reasoning = not embedded and await _detect_open_reasoning(
            connection, name, props, reasoning_effort
        )
    return ModelInfo(
        name=name,
        endpoint=display_address(connection.address),
        is_local=is_loopback(connection.address),
        is_embedded=embedded,
        context_tokens=min(_context_tokens(props), max_context_tokens),
        file=re.split(r"[/\\]", _text_field(props, "model_path"))[-1],
        opens_reasoning=opens_reasoning,
    )


async def _detect_open_reasoning(
    connection: ServerConnection, model: str, props: Mapping[str, Any] | None, reasoning_effort: str
) -> bool:
    """Return whether prompts end inside reasoning.

    llama.cpp shows what its chat template makes of messages, vLLM the tokens of that.
    """
    request: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}
    if props is not None:
        if not has_reasoning_marks(str(props.get("chat_template", "<think>"))):
            return False
        effort = {"reasoning_effort": reasoning_effort} if reasoning_effort else {}
        response = await connection.request_json("POST", "/apply-template", {**request, **effort})
    else:
        body = {"model": model, **request, "add_generation_prompt": True}
        response = await connection.request_json("POST", "/tokenize", body)
        tokens = (response or {}).get("tokens")
        if isinstance(tokens, list) and tokens:
            body = {"model": model, "tokens": cast(list[int], tokens)[-16:]}
            response = await connection.request_json("POST", "/detokenize", body)
    prompt = (response or {}).get("prompt")
    return isinstance(prompt, str) and ends_in_reasoning(prompt)


def _text_field(fields: Mapping[str, Any] | None, key: str) -> str:
    value: object = fields.get(key) if fields else None
    return _shorten_name(value) if isinstance(value, str) else ""


def _shorten_name(value: str) -> str:
    return value if len(value) < 200 else value[-199:]


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
