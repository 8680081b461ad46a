"""Helpers that routes share: forms, ids and days in addresses, redirects, profiles and pages."""

import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any, cast

from jinja2 import Environment
from quart import Response, current_app, g, redirect, request

from llamora.app import i18n, security
from llamora.app.rendering import get_renderer
from llamora.app.security import form_field as field
from llamora.app.services.container import get_services
from llamora.app.views import model_view
from llamora.dates import UnknownDay, day_of, parse_day, parse_zone, utc_now
from llamora.journal.profile import Profile
from llamora.persistence.connection import NotFound, StaleRevision, StorageError
from llamora.persistence.drafts import Draft, FormToken
from llamora.vault.envelope import SealError

TEMPLATES_EXTENSION = "llamora.templates"
TODAY_PATH = "/d/today"
MAX_SAVE_ATTEMPTS = 5


def is_fragment() -> bool:
    """Return True when HTMX asks for a part of the page rather than all of it."""
    return request.headers.get("HX-Request") == "true"


async def number_field(name: str) -> int:
    """Return a posted field as an integer of at most 12 digits, or 0 for anything else."""
    text = await field(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


def new_form_token(draft: Draft | None = None) -> str:
    """Return a new random form token, followed by that of the `draft` the form is filled with."""
    return secrets.token_hex(16) + (f".{draft.form_token_id.hex()}" if draft else "")


async def posted_form_token() -> FormToken | None:
    """Return the form token that was posted, or None when it is missing or malformed."""
    try:
        ids = [bytes.fromhex(part) for part in (await field("form_token")).split(".")]
    except ValueError:
        return None
    if not 1 <= len(ids) <= 2 or any(len(each) != 16 for each in ids):
        return None
    return FormToken(ids[0], ids[1] if ids[1:] else None)


def redirect_303(path: str) -> Response:
    """Redirect a posted form to `path` with status 303, so that a reload does not post it again."""
    response = redirect(path, 303)
    return cast(Response, response)


def parse_entry_id(hex_id: str) -> bytes:
    """Return the 16-byte entry id for its hex in an address. Raises NotFound if malformed."""
    try:
        parsed = bytes.fromhex(hex_id)
    except ValueError:
        parsed = b""
    if len(parsed) != 16 or parsed.hex() != hex_id:
        raise NotFound("entry_not_found")
    return parsed


def parse_tag_id(hex_id: str) -> bytes:
    """Return the tag id for its hex in an address. Raises NotFound if malformed."""
    try:
        parsed = bytes.fromhex(hex_id)
    except ValueError:
        parsed = b""
    if not parsed or parsed.hex() != hex_id:
        raise NotFound("tag_not_found")
    return parsed


def parse_day_or_404(text: str) -> date:
    """Return the day for its ISO form in an address. Raises NotFound if malformed."""
    try:
        return parse_day(text)
    except UnknownDay:
        raise NotFound("day_not_found") from None


async def load_profile() -> None:
    """Load the profile of the signed-in user before the request is handled.

    Error pages need its language too. A profile that cannot be read is ignored here.
    """
    if security.get_session() is not None:
        with suppress(StorageError, SealError):  # the page shows the error itself
            await get_profile()


async def get_profile() -> Profile:
    """Return the profile of the signed-in user, read once per request.

    Raises SignInRequired, StorageError and SealError.
    """
    session = security.require_session()
    if "profile" not in g or g.profile[0] != session.id:
        _set_profile(await get_services().accounts.get_profile(session.keys))
    return cast(Profile, g.profile[1])


async def save_profile(**changes: Any) -> None:
    """Save the given fields of the signed-in user's profile, keeping concurrent changes to others.

    Raises StaleRevision after MAX_SAVE_ATTEMPTS, SignInRequired and StorageError.
    """
    accounts, keys = get_services().accounts, security.require_session().keys
    for attempts_left in reversed(range(MAX_SAVE_ATTEMPTS)):
        stored = await accounts.get_profile(keys)
        try:
            _set_profile(await accounts.save_profile(keys, replace(stored, **changes)))
            return
        except StaleRevision:
            if not attempts_left:
                raise


def _set_profile(profile: Profile) -> None:
    g.profile = (security.require_session().id, profile)
    g.twelve_hours = profile.twelve_hours
    g.year = day_of(utc_now(), parse_zone(profile.zone)).year
    i18n.set_language(profile.language)


async def replies_disabled() -> bool:
    """Return True when the signed-in user has turned the model off."""
    return not (await _profile_or_default()).replies


async def _profile_or_default() -> Profile:
    if security.get_session() is None:
        return Profile()
    try:
        return await get_profile()
    except (StorageError, SealError):
        return Profile()


async def today() -> date:
    """Return today's date in the user's time zone."""
    return day_of(utc_now(), parse_zone((await get_profile()).zone))


def render_to_string(template: str, **context: object) -> str:
    """Render a template with `context` alone, on the calling thread."""
    return (
        cast(Environment, current_app.extensions[TEMPLATES_EXTENSION])
        .get_template(template)
        .render(context)
    )


async def render_template(template: str, status: int = 200, **context: object) -> Response:
    """Render a page or a fragment as a response, on the thread of the renderer.

    Adds to `context` what every page needs; `model` is looked up only when it is not given.
    """
    session, profile, services = security.get_session(), await _profile_or_default(), get_services()
    if "model" not in context:
        context["model"] = await model_view(
            services.model, name=profile.endpoint, is_disabled=not profile.replies
        )
    html = await get_renderer().run(
        render_to_string,
        template,
        user=session.user if session else None,
        idle=services.sessions.idle_seconds(session) if session else 0,
        settings_unreadable=profile.damaged,
        today_path=TODAY_PATH,
        html_attributes=html_attributes(profile),
        **context,
    )
    return Response(html, status=status, mimetype="text/html")


def html_attributes(profile: Profile) -> dict[str, str]:
    """Return the data attributes of the `html` element for a profile.

    CSS and scripts read from them how pages look and which keys work.
    """
    return {
        "theme": profile.theme,
        "size": str(profile.text_size),
        "enter": "keep" if profile.enter_keeps else "line",
        "letters": "on" if profile.letter_keys else "off",
    }
