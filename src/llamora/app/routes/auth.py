"""Registration, recovery code, sign-in, reset and sign-out."""

import asyncio
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from datetime import date

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.i18n import describe, gettext_noop
from llamora.app.i18n import gettext as _
from llamora.app.pages import TODAY_PATH as HOME
from llamora.app.pages import (
    field,
    html_attributes,
    parse_day_or_404,
    redirect_303,
    render_template,
    replies_disabled,
)
from llamora.app.routes.calendar import month_fingerprint, parse_month_or_404
from llamora.app.services.container import get_services
from llamora.app.streams import event_stream, format_event
from llamora.app.views import device_name, tags_fingerprint
from llamora.journal.credentials import AccountError, WrongCredentials, measure_strength
from llamora.journal.session_keys import OpenSession
from llamora.journal.throttle import TooManyAttempts
from llamora.persistence.connection import StorageError
from llamora.persistence.schema import RECOVERY_GROUPS
from llamora.persistence.users import NameTaken, User, name_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring
from llamora.vault.recovery_code import recovery_groups, same_group

blueprint = Blueprint("auth", __name__)

MONTH_EVENT_SECONDS = 2
ORDINALS = gettext_noop("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@blueprint.get("/")
async def home() -> Response:
    """Redirect to today's page, to sign-in, or to registration if there are no users yet."""
    if security.get_session():
        return redirect_303(HOME)
    return redirect_303("/sign-in" if await get_services().db.users.has_any() else "/register")


@blueprint.get("/register")
async def register_page() -> Response:
    """Show the registration form."""
    if security.get_session():
        return redirect_303(HOME)
    if await _is_registration_closed():
        return await _registration_closed_page()
    return await render_template("pages/register.html", name="", error="")


@blueprint.post("/register")
async def register() -> Response:
    """Create a user, sign them in and show the recovery code."""
    if await _is_registration_closed():
        return await _registration_closed_page()
    accounts = get_services().accounts
    name, passphrase = await field("name"), await field("passphrase")
    try:
        user, keys, code = await accounts.register(name, passphrase, await field("zone"))
    except (AccountError, NameTaken) as error:
        return await render_template(
            "pages/register.html", status=error.status, name=name, error=describe(error)
        )
    return await recovery_code_page(await _start_session(user, keys), code)


@blueprint.post("/register/strength")
async def rate_passphrase() -> Response:
    """Show how hard a passphrase is to guess."""
    session = security.get_session()
    name = session.user.name if session else await field("name")
    # A form that also asks for the old passphrase has the new one in `new`.
    passphrase = await field("new") or await field("passphrase")
    rating = await measure_strength(passphrase, name)
    return await render_template(
        "components/strength.html",
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
    """Check the group of the recovery code that the user typed back."""
    session = security.require_session()
    number, _separator, sealed = (await field("index")).partition(".")
    index = int(number) if number in map(str, range(len(ORDINALS))) else 0
    try:
        group = RECOVERY_GROUPS.open(
            session.keys, session.user.id, index, urlsafe_b64decode(sealed)
        ).decode()
    except (SealError, ValueError):
        return redirect_303(HOME)
    if not same_group(group, await field("part")):
        error = _("That is not the %(which)s group. Look at what you wrote down and type it again.")
        error %= {"which": _(ORDINALS[index])}
        return await render_template(
            "pages/recovery_code.html",
            status=422,
            code="",
            ordinal=_(ORDINALS[index]),
            index=f"{index}.{sealed}",
            error=error,
        )
    await get_services().accounts.confirm_recovery(session.user.id)
    return redirect_303(HOME)


@blueprint.get("/sign-in")
async def sign_in_page() -> Response:
    """Show the sign-in form."""
    if security.get_session():
        return redirect_303(HOME)
    return await render_template(
        "pages/sign_in.html", name="", error="", next=_safe_next_path(request.args.get("next", ""))
    )


@blueprint.post("/sign-in")
async def sign_in() -> Response:
    """Unlock the user's keys and start a session."""
    name, target = await field("name"), _safe_next_path(await field("next"))
    subjects = throttle_subjects(name)
    throttle = get_services().throttle
    try:
        await throttle.record_attempt(*subjects)
        user, keys = await get_services().accounts.sign_in(name, await field("passphrase"))
    except (WrongCredentials, TooManyAttempts) as error:
        return await render_template(
            "pages/sign_in.html", status=error.status, name=name, error=describe(error), next=target
        )
    await throttle.clear_attempts(*subjects)
    await _start_session(user, keys)
    return redirect_303(target or HOME)


@blueprint.post("/sign-out")
async def sign_out() -> Response:
    """End the session."""
    session = security.get_session()
    security.clear_session_cookie()  # first, so this browser is signed out even if the store fails
    if session is not None:
        await get_services().sessions.sign_out(session)
    return redirect_303("/sign-in")


@blueprint.post("/lock")
async def lock() -> Response:
    """Sign the user out everywhere: replies and streams end, keys and search index are locked."""
    session = security.require_session()
    security.clear_session_cookie()
    await get_services().sessions.lock(session.user.id)
    return redirect_303("/sign-in")


@blueprint.post("/session/here")
async def keep_session_alive() -> Response:
    """Extend the session of a user who reads or types; the request itself does so."""
    security.require_session()
    return Response(status=204)


@blueprint.get("/session/events")
async def session_events() -> Response:
    """Stream the events of an open page.

    They are the end of the session, changes to the messages of `day`, any change in `month`, and
    changes to how pages look, such as the theme or the text size.
    """
    session = security.get_session()
    if session is None:  # another content type would log an error in the browser's console
        return Response(format_event(name="out"), mimetype="text/event-stream")
    day = parse_day_or_404(request.args["day"]) if "day" in request.args else None
    month = parse_month_or_404(request.args["month"]) if "month" in request.args else None
    return event_stream(
        _page_events(day, month),
        get_services().shutting_down,
        session.ended,
        final_event=format_event(name="ended"),
    )


async def _page_events(day: date | None, month: date | None) -> AsyncGenerator[bytes]:
    """Yield the look of pages, and the messages of `day` or the fingerprint of `month`.

    Each is sent at first and whenever it changes. A message is [id, revision, root id, tags
    fingerprint]; a reply that is still being written has the revision 0, since its own stream
    reports on it. The fingerprint of a month is sent at most every MONTH_EVENT_SECONDS.
    """
    services, keys = get_services(), security.require_session().keys
    yield format_event(name="open")
    last_revisions = last_attributes = last_listing = last_fingerprint = None
    while True:
        next_change = services.changes.next_change
        attributes = html_attributes(await services.accounts.get_profile(keys))
        if attributes != last_attributes:
            last_attributes = attributes
            yield format_event(json.dumps(attributes), name="look")
        if day:
            revisions = (
                await services.db.entries.revisions_on(keys, [day]),
                await services.db.tags.get_revision(keys.user_id),
            )
            listing = (
                await _message_listing(keys, day) if revisions != last_revisions else last_listing
            )
            last_revisions = revisions
            if listing != last_listing:
                last_listing = listing
                yield format_event(json.dumps(listing), name="page")
        if month and (fingerprint := await month_fingerprint(keys, month)) != last_fingerprint:
            last_fingerprint = fingerprint
            yield format_event(fingerprint, name="month")
            await asyncio.sleep(MONTH_EVENT_SECONDS)  # a growing reply changes all the time
        await next_change.wait()


async def _message_listing(keys: Keyring, day: date) -> list[list[str | int]]:
    services = get_services()
    with_replies = not await replies_disabled()
    messages = [
        (entry, thread.root.id)
        for thread in await services.journal.get_page(keys, day)
        for entry in (thread.root, *thread.descendants)
        if with_replies or entry.role == "me"
    ]
    tags_by_entry = await services.journal.tags.tags_of(keys, [entry.id for entry, _ in messages])
    return [
        [
            entry.id.hex(),
            0 if entry.state == "streaming" else entry.revision,
            root.hex(),
            tags_fingerprint(tags_by_entry.get(entry.id, ())),
        ]
        for entry, root in messages
    ]


@blueprint.get("/reset")
async def reset_page() -> Response:
    """Show the form to set a new passphrase with the recovery code."""
    return await render_template("pages/reset.html", name="", error="")


@blueprint.post("/reset")
async def reset() -> Response:
    """Set a new passphrase with the recovery code, and show the new recovery code."""
    name = await field("name")
    subjects = throttle_subjects(name)
    throttle = get_services().throttle
    try:
        await throttle.record_attempt(*subjects)
        user, keys, code = await get_services().accounts.reset_passphrase(
            name, await field("code"), await field("passphrase")
        )
    except (AccountError, StorageError) as error:
        return await render_template(
            "pages/reset.html", status=error.status, name=name, error=describe(error)
        )
    await throttle.clear_attempts(*subjects)
    return await recovery_code_page(await _start_session(user, keys), code)


async def _is_registration_closed() -> bool:
    services = get_services()
    return not services.settings.server.registration and await services.db.users.has_any()


async def _registration_closed_page() -> Response:
    sentence = _(
        "Nobody new can begin here. Whoever runs this journal can open it again in the settings."
    )
    return await render_template(
        "pages/error.html", status=403, title=_("Closed"), sentence=sentence, advice=""
    )


async def _start_session(user: User, keys: Keyring) -> OpenSession:
    services = get_services()
    previous = security.get_session()
    if previous is not None:
        await services.sessions.sign_out(previous)
    cookie, session = await services.sessions.open_session(
        user, keys, device_name(request.user_agent.string)
    )
    security.set_session_cookie(cookie, session)
    await services.search.unlock(keys)
    services.journal.run_maintenance(keys)
    services.backups.start_daily_backup(keys)
    await services.rotation.resume_pending(session.keys)
    return session


async def recovery_code_page(session: OpenSession, code: str) -> Response:
    """Show a new recovery code, for this one time, and ask for one of its groups back."""
    groups = recovery_groups(code)
    index = secrets.randbelow(len(groups))
    # The group is sealed in the form, so any worker can check it without remembering it.
    sealed_group = RECOVERY_GROUPS.seal(
        session.keys, session.user.id, index, groups[index].encode()
    )
    group_token = f"{index}.{urlsafe_b64encode(sealed_group).decode()}"
    return await render_template(
        "pages/recovery_code.html",
        code=groups,
        ordinal=_(ORDINALS[index]),
        index=group_token,
        error="",
    )


def _safe_next_path(path: str) -> str:
    """Return `path` if it is that of a day, else "": a link must not redirect elsewhere."""
    return (
        path
        if path.startswith("/d/") and "\\" not in path and path.isascii() and path.isprintable()
        else ""
    )


async def verify_secret() -> None:
    """Check the passphrase or recovery code of the signed-in user, posted as `passphrase`.

    Guesses count as at sign-in. Raises WrongCredentials and TooManyAttempts.
    """
    session, services = security.require_session(), get_services()
    subjects = throttle_subjects(session.user.name)
    await services.throttle.record_attempt(*subjects)
    await services.accounts.verify_secret(session, await field("passphrase"))
    await services.throttle.clear_attempts(*subjects)


def throttle_subjects(name: str) -> tuple[str, str]:
    """Return what to count guesses at a secret by: the user name and the client address."""
    return name_key(name), security.client_address()
