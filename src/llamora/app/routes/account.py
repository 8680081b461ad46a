"""The account page: model, time zone, passphrase, recovery code, sessions, key and backups."""

from contextlib import suppress
from datetime import datetime, time
from typing import Literal
from zoneinfo import ZoneInfo

from quart import (
    Blueprint,
    Response,
    request,
    send_file,  # pyright: ignore[reportUnknownVariableType] -- quart types it in part
)

from llamora.app import i18n, security
from llamora.app.i18n import describe, ngettext
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    field,
    get_profile,
    is_fragment,
    redirect_303,
    render_template,
    save_profile,
)
from llamora.app.routes.auth import recovery_code_page, throttle_subjects, verify_secret
from llamora.app.services.container import get_services
from llamora.app.views import model_view
from llamora.dates import day_of, parse_zone, utc_now, zone_names
from llamora.journal.backups import SUFFIX
from llamora.journal.credentials import AccountError, WrongCredentials
from llamora.journal.profile import LOCK_MINUTES, WEEK_STARTS
from llamora.journal.session_keys import OpenSession
from llamora.journal.throttle import TooManyAttempts
from llamora.llm.errors import ModelError
from llamora.persistence.connection import StaleRevision, StorageError

blueprint = Blueprint("account", __name__)

AccountSection = Literal[
    "", "page", "zone", "writing", "model", "replies", "openings",
    "passphrase", "recovery", "lock", "key", "backup", "end",
]  # fmt: skip
SAMPLE_TIME = time(19, 42)


@blueprint.get("/you")
async def show_account() -> Response:
    """Show the account page, with the settings that routes/preferences.py changes."""
    return await account_page(done=request.args.get("done", ""))


@blueprint.post("/you/replies")
async def set_replies() -> Response:
    """Turn the model on or off, which also removes every mention of it."""
    is_enabled = await field("replies") == "on"
    try:
        await save_profile(replies=is_enabled)
    except StaleRevision as error:
        return await account_page(error.status, "replies", describe(error))
    return redirect_303("/you")


@blueprint.post("/you/model")
async def choose_model() -> Response:
    """Choose one of the configured model servers, or test it."""
    services = get_services()
    endpoint = await field("endpoint")
    if endpoint and endpoint not in services.model.endpoint_names:
        return await account_page(
            422, "model", _("There is no model server of that name in the settings.")
        )
    if await field("test"):
        try:
            seconds = await services.model.test(endpoint)
        except ModelError as error:
            return await account_page(error.status, "model", describe(error), endpoint=endpoint)
        return await account_page(done=f"model {seconds:.1f}", endpoint=endpoint)
    try:
        await save_profile(endpoint=endpoint)
    except StaleRevision as error:
        return await account_page(error.status, "model", describe(error))
    return redirect_303("/you")


@blueprint.post("/you/openings")
async def set_openings() -> Response:
    """Turn on or off that new days open with a line about the last ones."""
    is_enabled = await field("openings") == "on"
    try:
        await save_profile(openings=is_enabled)
    except StaleRevision as error:
        return await account_page(error.status, "openings", describe(error))
    return redirect_303("/you")


@blueprint.post("/you/passphrase")
async def change_passphrase() -> Response:
    """Change the passphrase and end all other sessions."""
    session, services = security.require_session(), get_services()
    subjects = throttle_subjects(session.user.name)
    try:
        await services.throttle.record_attempt(*subjects)
        renewed = await services.accounts.change_passphrase(
            session, await field("old"), await field("new")
        )
    except (AccountError, StaleRevision) as error:
        if not isinstance(error, WrongCredentials | TooManyAttempts):
            await services.throttle.clear_attempts(*subjects)  # the old one was right
        return await account_page(error.status, "passphrase", describe(error))
    await services.throttle.clear_attempts(*subjects)
    security.set_session_cookie(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return redirect_303("/you?done=passphrase")


@blueprint.post("/you/recovery-code")
async def renew_recovery_code() -> Response:
    """Replace the recovery code and show the new one once."""
    session, services = security.require_session(), get_services()
    subjects = throttle_subjects(session.user.name)
    try:
        await services.throttle.record_attempt(*subjects)
        renewed, code = await services.accounts.renew_recovery_code(
            session, await field("passphrase")
        )
    except (AccountError, StaleRevision) as error:
        return await account_page(error.status, "recovery", describe(error))
    await services.throttle.clear_attempts(*subjects)
    security.set_session_cookie(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return await recovery_code_page(renewed, code)


@blueprint.post("/you/sessions")
async def end_sessions() -> Response:
    """End one session of the user, or all but this one."""
    session, sessions = security.require_session(), get_services().sessions
    requested = await field("session")
    if requested == "others":
        await sessions.end_other_sessions(session)
    for other in await sessions.list_sessions(session):
        if other.id != session.id and requested == other.id.hex():
            await sessions.end_session(session.user.id, other.id)
    return redirect_303("/you?done=sessions#devices")


@blueprint.post("/you/lock-after")
async def set_lock_after() -> Response:
    """Set the idle minutes after which a session ends; 0 is as long as the server allows."""
    minutes = {str(each): each for each in LOCK_MINUTES}.get(await field("minutes"))
    if minutes is None:
        return await account_page(422, "lock", _("Choose one of the times in the list."))
    try:
        await save_profile(lock_after=minutes)
    except StaleRevision as error:
        return await account_page(error.status, "lock", describe(error))
    return saved_fragment() if is_fragment() else redirect_303("/you#devices")


@blueprint.post("/you/key")
async def change_key() -> Response:
    """Replace the data key, seal everything again in the background and end other sessions."""
    session, services = security.require_session(), get_services()
    try:
        await verify_secret()
        await services.backups.create(session.keys)  # in case the change goes wrong
        renewed = await services.accounts.change_key(session)
    except (AccountError, StorageError) as error:
        return await account_page(error.status, "key", describe(error))
    security.set_session_cookie(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return redirect_303("/you?done=key")


@blueprint.post("/you/end")
async def end_journal() -> Response:
    """Erase the user and all their data."""
    services, user_id = get_services(), security.require_session().user.id
    try:
        await verify_secret()
        await services.backups.delete_all(user_id)
    except (AccountError, StorageError) as error:
        return await account_page(error.status, "end", describe(error))
    security.clear_session_cookie()
    await services.sessions.lock(user_id)
    await services.db.users.erase(user_id)
    with suppress(StorageError):  # a backup may have been under way during the first call
        await services.backups.delete_all(user_id)
    return redirect_303("/sign-in")


@blueprint.post("/you/backup")
async def download_backup() -> Response:
    """Create a backup and send it, once the passphrase is verified, as a page may be left open."""
    try:
        await verify_secret()
        file = await get_services().backups.create(security.require_session().keys)
    except (AccountError, StorageError) as error:
        return await account_page(error.status, "backup", describe(error))
    name = f"llamora-{file.stem}{SUFFIX}"
    response = await send_file(
        file, "application/octet-stream", as_attachment=True, attachment_filename=name
    )
    response.timeout = None  # no limit: a slow connection may take long
    return response


def saved_fragment() -> Response:
    """Return the note to show beside a setting that was saved."""
    return Response(f"<span>{_('Kept.')}</span>", mimetype="text/html")


async def account_page(
    status: int = 200,
    about: AccountSection = "",
    error: str = "",
    *,
    done: str = "",
    endpoint: str | None = None,
) -> Response:
    """Show the account page.

    `error` is shown beside the form `about`, and `done` names an action to confirm. `endpoint`
    preselects a model server that is not saved.
    """
    services = get_services()
    session = security.require_session()
    user = await services.db.users.get(session.user.id)
    profile = await get_profile()
    return await render_template(
        "pages/account.html",
        status=status,
        name=user.name,
        recovery_confirmed=user.recovery_confirmed,
        profile=profile,
        languages=[(code, language.name) for code, language in i18n.available_languages().items()],
        hours=[
            ("24", i18n.time_of_day_words(SAMPLE_TIME)),
            ("12", i18n.time_of_day_words(SAMPLE_TIME, twelve_hours=True)),
        ],
        week_starts=[(day, i18n.weekday_names()[day][0]) for day in WEEK_STARTS],
        is_changing_key=await services.db.key_rotation.count_data_keys(user.id) > 1,
        unreadable_count=await services.db.key_rotation.unreadable_count(user.id),
        sessions=await _session_rows(session, profile.zone),
        lock_after=profile.lock_after,
        lock_choices=[
            each for each in LOCK_MINUTES if each * 60 < services.settings.session.idle_ttl
        ],
        max_idle_minutes=services.settings.session.idle_ttl // 60,
        backup_count=services.backups.retained_count,
        latest_backup=services.backups.find_latest_day(user.id),
        openings=profile.openings,
        zones=zone_names(),
        model=await model_view(
            services.model, name=profile.endpoint, with_name=True, is_disabled=not profile.replies
        ),
        endpoints=[
            (
                each,
                _("demonstration (tiny; it invents)") if services.model.is_built_in(each) else each,
            )
            for each in services.model.endpoint_names
        ],
        endpoint=profile.endpoint if endpoint is None else endpoint,
        default_endpoint=_("the server of the settings")
        if services.model.is_available
        else _("no model"),
        about=about,
        error=error,
        done=done,
    )


async def _session_rows(session: OpenSession, zone_name: str) -> list[dict[str, object]]:
    """Return the user's sessions in words, this one first."""
    tz, now = parse_zone(zone_name), utc_now()
    sessions: list[dict[str, object]] = []
    for listed in await get_services().sessions.list_sessions(session):
        minutes = int((now - listed.last_used_at).total_seconds()) // 60
        if minutes < 2:
            used = _("just now")
        elif minutes < 60:
            used = ngettext("%(num)s minute ago", "%(num)s minutes ago", minutes) % {"num": minutes}
        else:
            used = _("on %(when)s") % {"when": _format_when(listed.last_used_at, tz)}
        since = _format_when(listed.started_at, tz)
        browser, _separator, system = listed.device.partition(" on ")
        device = (
            _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
            if system
            else browser
        )
        sessions.append(
            {
                "id": listed.id.hex(),
                "is_current": listed.id == session.id,
                "device": device or _("A browser"),
                "since": since,
                "used": used,
            }
        )
    return sorted(sessions, key=lambda listed: not listed["is_current"])


def _format_when(instant: datetime, tz: ZoneInfo) -> str:
    day = i18n.day_words(day_of(instant, tz))
    return _("%(day)s at %(time)s") % {"day": day, "time": i18n.time_words(instant, tz)}
