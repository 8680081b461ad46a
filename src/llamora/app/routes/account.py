"""You: the model that answers, your zone, your passphrase and recovery code, your backups."""

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
from llamora.app.i18n import gettext as _
from llamora.app.i18n import ngettext
from llamora.app.pages import field, is_fragment, page, profile, save_profile, see_other
from llamora.app.routes.auth import check_again, show_code, subjects_of
from llamora.app.services.container import get_services
from llamora.app.views import model_view
from llamora.dates import day_of, parse_zone, utc_now, zone_names
from llamora.journal.accounts import AccountError, OpenSession, TooManyAttempts, WrongCredentials
from llamora.journal.backups import SUFFIX
from llamora.journal.profile import LOCK_MINUTES, WEEK_STARTS
from llamora.llm.client import ModelError
from llamora.persistence.connection import StaleRevision, StorageError

blueprint = Blueprint("profile", __name__)

Part = Literal[
    "", "page", "zone", "writing", "model", "replies", "openings",
    "passphrase", "recovery", "lock", "key", "backup", "end",
]  # fmt: skip
EVENING = time(19, 42)


@blueprint.get("/you")
async def you() -> Response:
    """What is yours to set (routes/settings.py), to keep and to end."""
    return await show_you(done=request.args.get("done", ""))


@blueprint.post("/you/replies")
async def set_replies() -> Response:
    """Turn the model on, or off with every mention of it."""
    wanted = await field("replies") == "on"
    try:
        await save_profile(replies=wanted)
    except StaleRevision as error:
        return await show_you(409, "replies", f"{error} Look again and keep once more.")
    return see_other("/you")


@blueprint.post("/you/model")
async def choose_model() -> Response:
    """Choose which of the operator's model servers answers, or try one."""
    services = get_services()
    wanted = await field("endpoint")
    if wanted and wanted not in services.model.endpoint_names:
        return await show_you(422, "model", "There is no model server of that name in the settings.")
    if await field("test"):
        try:
            seconds = await services.model.test(wanted)
        except ModelError as error:
            return await show_you(502, "model", error.sentence, endpoint=wanted)
        return await show_you(done=f"model {seconds:.1f}", endpoint=wanted)
    try:
        await save_profile(endpoint=wanted)
    except StaleRevision as error:
        return await show_you(409, "model", f"{error} Look again and keep once more.")
    return see_other("/you")


@blueprint.post("/you/openings")
async def set_openings() -> Response:
    """Let new days open with a line from the last ones, or not."""
    wanted = await field("openings") == "on"
    try:
        await save_profile(openings=wanted)
    except StaleRevision as error:
        return await show_you(409, "openings", f"{error} Look again and keep once more.")
    return see_other("/you")


@blueprint.post("/you/passphrase")
async def change_passphrase() -> Response:
    """Put a new passphrase in place of the old one; everywhere else the writer is signed out."""
    opened, services = security.session(), get_services()
    subjects = subjects_of(opened.user.name)
    try:
        services.throttle.record_attempt(*subjects)
        renewed = await services.accounts.change_passphrase(opened, await field("old"), await field("new"))
    except (AccountError, StaleRevision) as error:
        if not isinstance(error, WrongCredentials | TooManyAttempts):
            services.throttle.clear_attempts(*subjects)  # the old one was right
        return await show_you(_status(error), "passphrase", str(error))
    services.throttle.clear_attempts(*subjects)
    security.begin(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return see_other("/you?done=passphrase")


@blueprint.post("/you/recovery-code")
async def renew_recovery_code() -> Response:
    """Make a new recovery code and show it once; the old one opens nothing any more."""
    opened, services = security.session(), get_services()
    subjects = subjects_of(opened.user.name)
    try:
        services.throttle.record_attempt(*subjects)
        renewed, code = await services.accounts.renew_recovery_code(opened, await field("passphrase"))
    except (AccountError, StaleRevision) as error:
        return await show_you(_status(error), "recovery", str(error))
    services.throttle.clear_attempts(*subjects)
    security.begin(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return await show_code(renewed, code)


@blueprint.post("/you/sessions")
async def end_sessions() -> Response:
    """End one session of the writer, or all but this one."""
    opened, accounts = security.session(), get_services().accounts
    wanted = await field("session")
    if wanted == "others":
        await accounts.end_other_sessions(opened)
    for session in await accounts.list_sessions(opened):
        if session.id != opened.id and wanted == session.id.hex():
            await accounts.end_session(opened.user.id, session.id)
    return see_other("/you?done=sessions#devices")


@blueprint.post("/you/lock-after")
async def set_lock_after() -> Response:
    """Set after how many minutes without a sign of the writer a session ends; 0: as long as the server allows."""
    minutes = {str(each): each for each in LOCK_MINUTES}.get(await field("minutes"))
    if minutes is None:
        return await show_you(422, "lock", "Choose one of the times in the list.")
    try:
        await save_profile(lock_after=minutes)
    except StaleRevision as error:
        return await show_you(409, "lock", f"{error} Look again and keep once more.")
    return kept() if is_fragment() else see_other("/you#devices")


@blueprint.post("/you/key")
async def change_key() -> Response:
    """Seal everything under a new key, in the background; everywhere else the writer is signed out."""
    opened, services = security.session(), get_services()
    try:
        await check_again()
        await services.backups.create(opened.keys)  # of the moment before, should anything go wrong
        renewed = await services.accounts.change_key(opened)
    except (AccountError, StaleRevision) as error:
        return await show_you(_status(error), "key", str(error))
    except StorageError as error:
        return await show_you(507, "key", str(error))
    security.begin(renewed.cookie, renewed)
    await services.rotation.resume_pending(renewed.keys)
    return see_other("/you?done=key")


@blueprint.post("/you/end")
async def end_journal() -> Response:
    """Erase the writer and everything of theirs that is here."""
    services, user_id = get_services(), security.session().user.id
    try:
        await check_again()
        await services.backups.delete_all(user_id)
    except AccountError as error:
        return await show_you(_status(error), "end", str(error))
    except StorageError as error:
        return await show_you(507, "end", str(error))
    security.end()
    await services.accounts.lock(user_id)
    await services.db.users.erase(user_id)
    with suppress(StorageError):  # one that was being made when the first were removed
        await services.backups.delete_all(user_id)
    return see_other("/sign-in")


@blueprint.post("/you/backup")
async def download_backup() -> Response:
    """Make a backup of this moment and hand it over, after the passphrase: a page left open gives nothing away."""
    try:
        await check_again()
        file = await get_services().backups.create(security.session().keys)
    except AccountError as error:
        return await show_you(_status(error), "backup", str(error))
    except StorageError as error:
        return await show_you(507, "backup", str(error))
    name = f"llamora-{file.stem}{SUFFIX}"
    response = await send_file(file, "application/octet-stream", as_attachment=True, attachment_filename=name)
    response.timeout = None  # as long as the line takes
    return response


def _status(error: AccountError | StaleRevision) -> int:
    if isinstance(error, StaleRevision):
        return 409
    return 403 if isinstance(error, WrongCredentials) else 429 if isinstance(error, TooManyAttempts) else 422


def kept() -> Response:
    """What is said beside a setting that was saved as soon as it was chosen."""
    return Response(f"<span>{_('Kept.')}</span>", mimetype="text/html")


async def show_you(
    status: int = 200, about: Part = "", error: str = "", *, done: str = "", endpoint: str | None = None
) -> Response:
    """The page of what is the writer's own, with a sentence beside the form it is `about`, or what was `done`."""
    services = get_services()
    opened = security.session()
    user = await services.db.users.get(opened.user.id)
    writer = await profile()
    return await page(
        "pages/you.html",
        status=status,
        name=user.name,
        recovery_confirmed=user.recovery_confirmed,
        writer=writer,
        languages=[(code, language.name) for code, language in i18n.known().items()],
        hours=[("24", i18n.clock_words(EVENING)), ("12", i18n.clock_words(EVENING, twelve_hours=True))],
        week_starts=[(day, i18n.weekday_names()[day][0]) for day in WEEK_STARTS],
        changing_key=await services.db.key_rotation.count_data_keys(user.id) > 1,
        set_aside=await services.db.key_rotation.unreadable_count(user.id),
        sessions=await _sessions(opened, writer.zone),
        lock_after=writer.lock_after,
        lock_times=[each for each in LOCK_MINUTES if each * 60 < services.settings.session.idle_ttl],
        longest=services.settings.session.idle_ttl // 60,
        backups_kept=services.backups.retained_count,
        backup_of=services.backups.find_latest_day(user.id),
        openings=writer.openings,
        zones=zone_names(),
        model=await model_view(services.model, name=writer.endpoint, full=True, hidden=not writer.replies),
        endpoints=[
            (each, _("demonstration (tiny; it invents)") if services.model.is_built_in(each) else each)
            for each in services.model.endpoint_names
        ],
        endpoint=writer.endpoint if endpoint is None else endpoint,
        default_endpoint=_("the server of the settings") if services.model.is_available else _("no model"),
        about=about,
        error=error,
        done=done,
    )


async def _sessions(opened: OpenSession, zone_name: str) -> list[dict[str, object]]:
    """Where the writer is signed in, in words, this browser first."""
    here, now = parse_zone(zone_name), utc_now()
    found: list[dict[str, object]] = []
    for session in await get_services().accounts.list_sessions(opened):
        minutes = int((now - session.last_used_at).total_seconds()) // 60
        if minutes < 2:
            used = _("just now")
        elif minutes < 60:
            used = ngettext("%(num)s minute ago", "%(num)s minutes ago", minutes) % {"num": minutes}
        else:
            used = _("on %(when)s") % {"when": _when(session.last_used_at, here)}
        since = _when(session.started_at, here)
        browser, _on, system = session.device.partition(" on ")
        device = _("%(browser)s on %(system)s") % {"browser": browser, "system": system} if system else browser
        found.append(
            {
                "id": session.id.hex(),
                "here": session.id == opened.id,
                "device": device or _("A browser"),
                "since": since,
                "used": used,
            }
        )
    return sorted(found, key=lambda session: not session["here"])


def _when(instant: datetime, here: ZoneInfo) -> str:
    day = i18n.day_words(day_of(instant, here))
    return _("%(day)s at %(time)s") % {"day": day, "time": i18n.time_words(instant, here)}
