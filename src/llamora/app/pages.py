"""Shared by all routes: the user who asks, the fields of forms, and answers."""

import secrets
from contextlib import suppress
from typing import Any, cast

from jinja2 import Environment, Template
from quart import Response, current_app, g, redirect, request

from llamora.app import i18n
from llamora.app.addresses import TODAY_PATH
from llamora.app.edge import sessions
from llamora.app.edge.forms import form_field as field
from llamora.app.edge.rules import current_rules
from llamora.app.rendering import get_renderer
from llamora.app.services.container import get_services
from llamora.app.views.model import model_view
from llamora.journal.context import UserContext
from llamora.journal.profile import Profile
from llamora.persistence.connection import StorageError
from llamora.persistence.drafts import Draft, FormToken
from llamora.vault.envelope import SealError

TEMPLATES_EXTENSION = "llamora.templates"


def is_fragment() -> bool:
    """Return True when HTMX asks for a part of the page rather than all of it."""
    return request.headers.get("HX-Request") == "true"


async def number_field(name: str) -> int:
    """Return a posted field as an integer of at most 12 digits, or 0 for anything else."""
    return parse_number(await field(name))


def parse_number(text: str, default: int = 0) -> int:
    """Return an integer of at most 12 digits, or `default` for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else default


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


# -- who asks --------------------------------------------------------------------------------------


async def load_user() -> None:
    """Load the signed-in user before the request is handled; error pages need their language too.

    Raises NotFound where a route is for users who have not turned the model off.
    """
    if sessions.get_session() is None:
        return
    user = None
    with suppress(StorageError, SealError):  # the page shows the error itself
        user = await current_user()
    if user is not None and current_rules().with_replies:
        user.require_replies()


async def current_user() -> UserContext:
    """Return the signed-in user, whose profile is read once per request.

    Raises SignInRequired, StorageError and SealError.
    """
    session = sessions.require_session()
    if "user" not in g or g.user[0] != session.id:
        _set_profile(await get_services().accounts.get_profile(session.keys))
    return cast(UserContext, g.user[1])


async def change_profile(**changes: Any) -> None:
    """Save the given settings of the signed-in user, for this request too.

    Raises StaleRevision, SignInRequired and StorageError.
    """
    keys = sessions.require_session().keys
    _set_profile(await get_services().preferences.change(keys, **changes))


def _set_profile(profile: Profile) -> None:
    session = sessions.require_session()
    i18n.set_language(profile.language)
    user = UserContext.now(session.keys, profile, i18n.current_language().code)
    g.user = (session.id, user)
    g.twelve_hours = profile.twelve_hours
    g.day_ends_at = profile.day_ends_at
    g.year = user.today.year


async def _profile_or_default() -> Profile:
    if sessions.get_session() is None:
        return Profile()
    try:
        return (await current_user()).profile
    except (StorageError, SealError):
        return Profile()


# -- answers ---------------------------------------------------------------------------------------


def redirect_303(path: str) -> Response:
    """Redirect a posted form to `path` with status 303, so that a reload does not post it again."""
    response = redirect(path, 303)
    return cast(Response, response)


async def respond(
    status: int = 200, /, *, view: str, page: str = "", to: str = "", **context: object
) -> Response:
    """Answer HTMX with a view, and other requests with a page, or with a redirect to `to`."""
    if is_fragment():
        return await render_template(view, status, **context)
    return await render_template(page, status, **context) if page else redirect_303(to)


def get_template(name: str) -> Template:
    """Return a template, to be rendered on any thread with the context of a request."""
    environment = cast(Environment, current_app.extensions[TEMPLATES_EXTENSION])
    return environment.get_template(name)


def render_to_string(template: str, **context: object) -> str:
    """Render a template with `context` alone, on the calling thread."""
    return get_template(template).render(context)


async def render_template(template: str, status: int = 200, **context: object) -> Response:
    """Render a page or a fragment as a response, in slices on the thread of the renderer.

    Adds to `context` what every page needs; `model` is looked up only when it is not given.
    """
    session, profile = sessions.get_session(), await _profile_or_default()
    services = get_services()
    if "model" not in context:
        context["model"] = await model_view(
            services.model, name=profile.endpoint, is_disabled=not profile.replies
        )
    pieces = get_template(template).generate(
        user=session.user if session else None,
        idle=services.sessions.idle_seconds(session) if session else 0,
        window_group=sessions.window_group(session) if session else "",
        settings_unreadable=profile.damaged,
        today_path=TODAY_PATH,
        html_attributes=html_attributes(profile),
        **context,
    )
    html = "".join(await get_renderer().run_in_slices(pieces))
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
