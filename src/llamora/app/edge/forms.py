"""The fields of posted forms."""

import asyncio
from typing import cast
from urllib.parse import parse_qsl

from quart import g, request

from llamora.app.edge.rules import SMALL_BODY_BYTES, RequestRejected

MAX_FIELDS = 300  # a day of 200 marked entries, and the rest of the form


async def form_field(name: str) -> str:
    """Return the first posted field of that name, or "". Raises RequestRejected."""
    return next(iter(await form_fields(name)), "")


async def form_fields(name: str) -> list[str]:
    """Return all posted fields of that name.

    Raises RequestRejected for more than MAX_FIELDS fields in the form.
    """
    return [value for key, value in await _read_form() if key == name]


async def replayable_form(text_field: str) -> dict[str, object]:
    """Return `action` and `fields` to offer a rejected form again.

    Leaves out the CSRF token and the field named `text_field`.
    """
    left_out = (text_field, "csrf")
    fields = [(key, value) for key, value in await _read_form() if key not in left_out]
    return {"action": request.path, "fields": fields}


async def _read_form() -> list[tuple[str, str]]:
    if "form" not in g:
        body = cast(bytes, await request.get_data(cache=False))
        if body.count(b"&") >= MAX_FIELDS:
            raise RequestRejected("form_too_many_fields", 413, is_body_readable=False)
        # A megabyte of three-byte letters takes a second to decode.
        g.form = (
            await asyncio.to_thread(_parse_form, body)
            if len(body) > SMALL_BODY_BYTES
            else _parse_form(body)
        )
    return cast("list[tuple[str, str]]", g.form)


def _parse_form(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")
