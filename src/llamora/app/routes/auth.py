"""Registration, recovery code, sign-in, reset and sign-out."""

from quart import Blueprint, Response, request

from llamora.app.addresses import TODAY_PATH as HOME
from llamora.app.addresses import parse_entry_id, parse_iso_day, parse_month
from llamora.app.edge import sessions
from llamora.app.edge.clients import this_client
from llamora.app.edge.rules import background, begins_session, queued, signed_out, titled
from llamora.app.i18n import describe, gettext_noop
from llamora.app.i18n import gettext as _
from llamora.app.page_events import day_events, look_events, month_events
from llamora.app.pages import (
    current_user,
    field,
    parse_number,
    redirect_303,
    render_template,
)
from llamora.app.reply_events import reply_events
from llamora.app.services.container import get_services
from llamora.app.streams import event_stream, format_event
from llamora.app.views.recovery import ORDINALS, question_context, recovery_code_context
from llamora.errors import Problem
from llamora.journal.access import RegistrationClosed
from llamora.journal.credentials import AccountError
from llamora.journal.session_keys import OpenSession
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.users import NameTaken

blueprint = Blueprint("auth", __name__)
(CLOSED_TITLE,) = gettext_noop("Closed")


@blueprint.get("/")
@signed_out
async def home() -> Response:
    if sessions.get_session():
        return redirect_303(HOME)
    return redirect_303("/sign-in" if await get_services().access.has_users() else "/register")


@blueprint.get("/register")
@signed_out
@titled(CLOSED_TITLE)
async def register_page() -> Response:
    if sessions.get_session():
        return redirect_303(HOME)
    await get_services().access.require_registration()
    return await render_template("pages/register.html", name="", error="")


@blueprint.post("/register")
@begins_session
@titled(CLOSED_TITLE)
async def register() -> Response:
    name, passphrase, zone = await field("name"), await field("passphrase"), await field("zone")
    previous = sessions.get_session()
    try:
        session, code = await get_services().access.register(
            name, passphrase, zone, this_client(), previous
        )
    except RegistrationClosed:
        raise
    except (AccountError, NameTaken) as error:
        return await _form("pages/register.html", name, error)
    return await _show_code(session, code)


@blueprint.post("/register/strength")
@signed_out
@queued
async def rate_passphrase() -> Response:
    session = sessions.get_session()
    name = session.user.name if session else await field("name")
    # A form that also asks for the old passphrase has the new one in `new`.
    passphrase = await field("new") or await field("passphrase")
    rating = await get_services().access.measure_strength(passphrase, name, this_client(), session)
    return await render_template(
        "views/strength.html",
        score=rating.score,
        sentence=describe(rating.code),
        ok=rating.is_sufficient,
    )


@blueprint.get("/recovery-code")
async def redirect_recovery_code() -> Response:
    """Redirect to today's page: the code is shown only once, so a reload cannot show it."""
    return redirect_303(HOME)


@blueprint.post("/recovery-code")
async def confirm_recovery_code() -> Response:
    token = await field("index")
    wrong_index = await get_services().access.confirm_recovery(
        sessions.require_session(), token, await field("part")
    )
    if wrong_index < 0:
        return redirect_303(HOME)
    error = _("That is not the %(which)s group. Look at what you wrote down and type it again.")
    return await render_template(
        "pages/recovery_code.html",
        422,
        code="",
        error=error % {"which": _(ORDINALS[wrong_index])},
        **question_context(wrong_index, token),
    )


@blueprint.get("/sign-in")
@signed_out
async def sign_in_page() -> Response:
    if sessions.get_session():
        return redirect_303(HOME)
    target = _safe_next_path(request.args.get("next", ""))
    return await render_template("pages/sign_in.html", name="", error="", next=target)


@blueprint.post("/sign-in")
@begins_session
async def sign_in() -> Response:
    name, target = await field("name"), _safe_next_path(await field("next"))
    try:
        session = await get_services().access.sign_in(
            name, await field("passphrase"), this_client(), sessions.get_session()
        )
    except AccountError as error:
        return await _form("pages/sign_in.html", name, error, next=target)
    sessions.set_session(session)
    return redirect_303(target or HOME)


@blueprint.post("/sign-out")
@signed_out
async def sign_out() -> Response:
    session = sessions.get_session()
    sessions.clear_session()  # first, so this browser is signed out even if the store fails
    if session is not None:
        await get_services().sessions.sign_out(session)
    return redirect_303("/sign-in")


@blueprint.post("/lock")
async def lock() -> Response:
    """Sign the user out everywhere: replies and streams end, keys and search index are locked."""
    session = sessions.require_session()
    sessions.clear_session()
    await get_services().sessions.lock(session.user.id)
    return redirect_303("/sign-in")


@blueprint.post("/session/here")
async def keep_session_alive() -> Response:
    """Extend the session of a user who reads or types; the request itself does so."""
    return Response(status=204)


@blueprint.get("/session/events")
@signed_out
@background
async def session_events() -> Response:
    """Stream what concerns the open pages of a browser: one stream for all its windows.

    It tells of the end of the session and how pages look; for each `day` or `month` asked for, of
    its changes; and of each `reply`, which is an id with the length of the text that is shown. The
    windows of another session, of which `group` tells, are told that theirs has ended.
    """
    session, asked = sessions.get_session(), request.args
    if session is None or asked.get("group", "") not in ("", sessions.window_group(session)):
        # Another content type would log an error in the browser's console.
        return Response(format_event(name="out"), mimetype="text/event-stream")
    user = await current_user()
    try:
        more = [
            *(day_events(user, parse_iso_day(each)) for each in set(asked.getlist("day"))),
            *(month_events(user, parse_month(each)) for each in set(asked.getlist("month"))),
            *(reply_events(user, *each) for each in _shown_lengths().items()),
        ]
    except ValueError:
        raise NotFound("page_not_found") from None
    stopping, ended = get_services().shutting_down, session.ended
    return event_stream(look_events(user), stopping, ended, format_event(name="ended"), more)


def _shown_lengths() -> dict[bytes, int]:
    """Return the replies asked for, with the length that every window shows, -1 if they differ."""
    lengths: dict[bytes, int] = {}
    for each in request.args.getlist("reply"):
        hex_id, _separator, shown = each.partition("-")
        reply_id, length = parse_entry_id(hex_id), parse_number(shown, -1)
        lengths[reply_id] = length if lengths.get(reply_id, length) == length else -1
    return lengths


@blueprint.get("/reset")
@signed_out
async def reset_page() -> Response:
    return await render_template("pages/reset.html", name="", error="")


@blueprint.post("/reset")
@begins_session
async def reset() -> Response:
    name, code, passphrase = await field("name"), await field("code"), await field("passphrase")
    previous = sessions.get_session()
    try:
        session, new_code = await get_services().access.reset(
            name, code, passphrase, this_client(), previous
        )
    except (AccountError, StorageError) as error:
        return await _form("pages/reset.html", name, error)
    return await _show_code(session, new_code)


async def _show_code(session: OpenSession, code: str) -> Response:
    sessions.set_session(session)
    return await render_template("pages/recovery_code.html", **recovery_code_context(session, code))


async def _form(template: str, name: str, error: Problem, **context: object) -> Response:
    response = await render_template(
        template, error.status, name=name, error=describe(error), **context
    )
    response.headers.update(error.retry_after)
    return response


def _safe_next_path(path: str) -> str:
    """Return `path` if it is that of a day, else "": a link must not redirect elsewhere."""
    return (
        path
        if path.startswith("/d/") and "\\" not in path and path.isascii() and path.isprintable()
        else ""
    )
