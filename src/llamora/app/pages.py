"""What routes share: forms, fragments, redirects, the writer's day."""

import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any, cast

from jinja2 import Environment
from quart import Response, current_app, g, redirect, request

from llamora.app import i18n, security
from llamora.app.security import form_field as field
from llamora.app.services.container import get_services
from llamora.app.views import model_view
from llamora.dates import UnknownDay, day_of, parse_day, parse_zone, utc_now
from llamora.journal.profile import Profile
from llamora.persistence.connection import NotFound, StaleRevision, StorageError
from llamora.persistence.drafts import Draft, FormToken
from llamora.vault.envelope import SealError

TEMPLATES = "llamora.templates"
TODAY_PATH = "/d/today"
SAVE_TRIES = 5


def is_fragment() -> bool:
    """Whether HTMX asks for a part of the page."""
    return request.headers.get("HX-Request") == "true"


async def number_field(name: str) -> int:
    """A whole number of the posted form, 0 for anything else."""
    text = await field(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


def new_pen(draft: Draft | None = None) -> str:
    """What a form sends as `pen`: a new one, and that of the draft it is filled with."""
    return secrets.token_hex(16) + (f".{draft.form_token_id.hex()}" if draft else "")


async def posted_pen() -> FormToken | None:
    """The pen that the posted form was written with; None for a form without, or with none that we gave out."""
    try:
        ids = [bytes.fromhex(part) for part in (await field("pen")).split(".")]
    except ValueError:
        return None
    if not 1 <= len(ids) <= 2 or any(len(each) != 16 for each in ids):
        return None
    return FormToken(ids[0], ids[1] if ids[1:] else None)


def see_other(path: str) -> Response:
    """Answer a posted form with the page to look at next."""
    response = redirect(path, 303)
    return cast(Response, response)


def entry_id(text: str) -> bytes:
    """The id in an address. Raises NotFound for what is none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 16 or found.hex() != text:
        raise NotFound("There is no such entry.")
    return found


def trace_id(text: str) -> bytes:
    """The trace in an address. Raises NotFound for what is none."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not found or found.hex() != text:
        raise NotFound("There is no such trace.")
    return found


def known_day(text: str) -> date:
    """The day in an address. Raises NotFound for what is none."""
    try:
        return parse_day(text)
    except UnknownDay:
        raise NotFound("There is no such day. A day’s address looks like /d/2026-11-20.") from None


async def know_writer() -> None:
    """Read the settings of who is signed in before their request is answered, since errors have a language too."""
    if security.maybe_session() is not None:
        with suppress(StorageError, SealError):  # the page that says so is shown all the same
            await profile()


async def profile() -> Profile:
    """The settings of the writer who is signed in, read once for a request."""
    opened = security.session()
    if "writer" not in g or g.writer[0] != opened.id:
        _know(await get_services().accounts.get_profile(opened.keys))
    return cast(Profile, g.writer[1])


async def save_profile(**changes: Any) -> None:
    """Change settings of the writer who is signed in, whatever else of them is changed elsewhere at the same time."""
    accounts, keys = get_services().accounts, security.session().keys
    for tries_left in reversed(range(SAVE_TRIES)):
        now = await accounts.get_profile(keys)
        try:
            _know(await accounts.save_profile(keys, replace(now, **changes)))
            return
        except StaleRevision:
            if not tries_left:
                raise


def _know(writer: Profile) -> None:
    g.writer = (security.session().id, writer)
    g.twelve_hours = writer.twelve_hours
    g.year = day_of(utc_now(), parse_zone(writer.zone)).year
    i18n.speak(writer.language)


async def model_hidden() -> bool:
    """Whether the writer who is signed in has turned the model off."""
    return not (await _writer()).replies


async def _writer() -> Profile:
    if security.maybe_session() is None:
        return Profile()
    try:
        return await profile()
    except (StorageError, SealError):
        return Profile()


async def today() -> date:
    """The day it is for the writer."""
    return day_of(utc_now(), parse_zone((await profile()).zone))


def rendered(template: str, **context: object) -> str:
    """A template filled in."""
    return cast(Environment, current_app.extensions[TEMPLATES]).get_template(template).render(context)


async def page(template: str, status: int = 200, **context: object) -> Response:
    """Render a template with what every page knows."""
    opened, writer, services = security.maybe_session(), await _writer(), get_services()
    if "model" not in context:
        context["model"] = await model_view(services.model, name=writer.endpoint, hidden=not writer.replies)
    html = rendered(
        template,
        user=opened.user if opened else None,
        idle=services.accounts.idle_seconds(opened) if opened else 0,
        settings_lost=writer.damaged,
        today_path=TODAY_PATH,
        look=look_of(writer),
        **context,
    )
    return Response(html, status=status, mimetype="text/html")


def look_of(writer: Profile) -> dict[str, str]:
    """How every page of a writer looks and what its keys do: attributes of the document, known to CSS and scripts."""
    return {
        "theme": writer.theme,
        "size": str(writer.text_size),
        "enter": "keep" if writer.enter_keeps else "line",
        "letters": "on" if writer.letter_keys else "off",
    }
