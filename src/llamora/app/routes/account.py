"""The account page: model, passphrase, recovery code, sessions, key and backups."""

from quart import (
    Blueprint,
    Response,
    request,
    send_file,  # pyright: ignore[reportUnknownVariableType] -- quart types it in part
)

from llamora.app.account_pages import account_page, save_setting
from llamora.app.edge import sessions
from llamora.app.edge.clients import this_client
from llamora.app.i18n import gettext as _
from llamora.app.pages import field, redirect_303, render_template
from llamora.app.services.container import get_services
from llamora.app.views.recovery import recovery_code_context
from llamora.journal.backups import SUFFIX
from llamora.journal.credentials import AccountError
from llamora.journal.profile import LOCK_MINUTES
from llamora.llm.errors import ModelError
from llamora.persistence.connection import StaleRevision, StorageError

blueprint = Blueprint("account", __name__)

SECRET_PROBLEMS = (AccountError, StorageError)


@blueprint.get("/you")
async def show_account() -> Response:
    return await account_page(done=request.args.get("done", ""))


@blueprint.post("/you/replies")
async def set_replies() -> Response:
    """Turn the model on or off, which also removes every mention of it."""
    return await save_setting("replies", replies=await field("replies") == "on")


@blueprint.post("/you/model")
async def choose_model() -> Response:
    return await save_setting("model", endpoint=await field("endpoint"))


@blueprint.post("/you/model/test")
async def test_model() -> Response:
    endpoint = await field("endpoint")
    try:
        seconds = await get_services().model.test(endpoint)
    except ModelError as error:
        return await account_page("model", error, endpoint=endpoint)
    return await account_page(done=f"model {seconds:.1f}", endpoint=endpoint)


@blueprint.post("/you/openings")
async def set_openings() -> Response:
    return await save_setting("openings", openings=await field("openings") == "on")


@blueprint.post("/you/passphrase")
async def change_passphrase() -> Response:
    try:
        renewed = await get_services().access.change_passphrase(
            sessions.require_session(), await field("old"), await field("new"), this_client()
        )
    except (AccountError, StaleRevision) as error:
        return await account_page("passphrase", error)
    sessions.set_session(renewed)
    return redirect_303("/you?done=passphrase")


@blueprint.post("/you/recovery-code")
async def renew_recovery_code() -> Response:
    try:
        renewed, code = await get_services().access.renew_recovery_code(
            sessions.require_session(), await field("passphrase"), this_client()
        )
    except (AccountError, StaleRevision) as error:
        return await account_page("recovery", error)
    sessions.set_session(renewed)
    return await render_template("pages/recovery_code.html", **recovery_code_context(renewed, code))


@blueprint.post("/you/sessions")
async def end_sessions() -> Response:
    await get_services().access.end_sessions(sessions.require_session(), await field("session"))
    return redirect_303("/you?done=sessions#devices")


@blueprint.post("/you/lock-after")
async def set_lock_after() -> Response:
    """Set the idle minutes after which a session ends; 0 is as long as the server allows."""
    minutes = {str(each): each for each in LOCK_MINUTES}.get(await field("minutes"))
    if minutes is None:
        return await account_page("lock", _("Choose one of the times in the list."))
    return await save_setting("lock", "/you#devices", lock_after=minutes)


@blueprint.post("/you/key")
async def change_key() -> Response:
    try:
        renewed = await get_services().access.change_key(
            sessions.require_session(), await field("passphrase"), this_client()
        )
    except SECRET_PROBLEMS as error:
        return await account_page("key", error)
    sessions.set_session(renewed)
    return redirect_303("/you?done=key")


@blueprint.post("/you/end")
async def end_journal() -> Response:
    try:
        await get_services().access.end_journal(
            sessions.require_session(), await field("passphrase")
        )
    except SECRET_PROBLEMS as error:
        return await account_page("end", error)
    sessions.clear_session()
    return redirect_303("/sign-in")


@blueprint.post("/you/backup")
async def download_backup() -> Response:
    """Create a backup and send it, once the passphrase is verified, as a page may be left open."""
    try:
        file = await get_services().access.create_backup(
            sessions.require_session(), await field("passphrase")
        )
    except SECRET_PROBLEMS as error:
        return await account_page("backup", error)
    name = f"llamora-{file.stem}{SUFFIX}"
    response = await send_file(
        file, "application/octet-stream", as_attachment=True, attachment_filename=name
    )
    response.timeout = None  # no limit: a slow connection may take long
    return response
