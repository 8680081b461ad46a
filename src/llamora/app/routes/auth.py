"""Coming in and going out: register, recovery code, sign in, reset, sign out."""

import asyncio
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from datetime import date

from quart import Blueprint, Response, request

from llamora.app import security
from llamora.app.i18n import gettext as _
from llamora.app.i18n import marked
from llamora.app.pages import TODAY_PATH as HOME
from llamora.app.pages import field, known_day, look_of, model_hidden, page, see_other
from llamora.app.routes.calendar import known_month, month_mark
from llamora.app.services.container import get_services
from llamora.app.streams import event, event_stream
from llamora.app.views import device_name, traces_mark
from llamora.journal.accounts import AccountError, OpenSession, TooManyAttempts, WrongCredentials
from llamora.persistence.connection import StorageError
from llamora.persistence.schema import RECOVERY_GROUPS
from llamora.persistence.users import NameTaken, User, name_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring
from llamora.vault.slots import recovery_groups, same_group

blueprint = Blueprint("auth", __name__)

MONTH_REST = 2
ORDINALS = marked("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@blueprint.get("/")
async def home() -> Response:
    """To today's page, or to the door; where nobody ever wrote, to the first page of all."""
    if security.maybe_session():
        return see_other(HOME)
    return see_other("/sign-in" if await get_services().db.users.has_any() else "/register")


@blueprint.get("/register")
async def register_page() -> Response:
    """The first page of a new writer."""
    if security.maybe_session():
        return see_other(HOME)
    if await _closed():
        return await _no_registration()
    return await page("pages/register.html", name="", error="")


@blueprint.post("/register")
async def register() -> Response:
    """Make a writer, sign them in and show the recovery code."""
    if await _closed():
        return await _no_registration()
    accounts = get_services().accounts
    name, passphrase = await field("name"), await field("passphrase")
    try:
        user, keys, code = await accounts.register(name, passphrase, await field("zone"))
    except (AccountError, NameTaken) as error:
        return await page("pages/register.html", status=422, name=name, error=str(error))
    return await show_code(await _come_in(user, keys), code)


@blueprint.post("/register/strength")
async def strength() -> Response:
    """How hard the passphrase is to guess, in a sentence."""
    opened = security.maybe_session()
    name = opened.user.name if opened else await field("name")
    # Where the old passphrase is asked for too, the other field is the new one.
    passphrase = await field("new") or await field("passphrase")
    judged = await get_services().accounts.measure_strength(passphrase, name)
    return await page("components/strength.html", score=judged.score, sentence=judged.sentence, ok=judged.is_sufficient)


@blueprint.get("/recovery-code")
async def recovery_code_gone() -> Response:
    """The code was shown once; there is nothing here to come back to."""
    return see_other(HOME)


@blueprint.post("/recovery-code")
async def confirm_recovery_code() -> Response:
    """Check the group that the writer typed back."""
    session = security.session()
    number, _dot, sealed = (await field("index")).partition(".")
    index = int(number) if number in map(str, range(len(ORDINALS))) else 0
    try:
        group = RECOVERY_GROUPS.open(session.keys, session.user.id, index, urlsafe_b64decode(sealed)).decode()
    except (SealError, ValueError):
        return see_other(HOME)
    if not same_group(group, await field("part")):
        error = _("That is not the %(which)s group. Look at what you wrote down and type it again.")
        error %= {"which": _(ORDINALS[index])}
        return await page(
            "pages/recovery_code.html",
            status=422,
            code="",
            ask=_(ORDINALS[index]),
            index=f"{index}.{sealed}",
            error=error,
        )
    await get_services().accounts.confirm_recovery(session.user.id)
    return see_other(HOME)


@blueprint.get("/sign-in")
async def sign_in_page() -> Response:
    """The door."""
    if security.maybe_session():
        return see_other(HOME)
    return await page("pages/sign_in.html", name="", error="", next=_local(request.args.get("next", "")))


@blueprint.post("/sign-in")
async def sign_in() -> Response:
    """Open the writer's keys and begin a session."""
    name, target = await field("name"), _local(await field("next"))
    subjects = subjects_of(name)
    guard = get_services().throttle
    try:
        guard.record_attempt(*subjects)
        user, keys = await get_services().accounts.sign_in(name, await field("passphrase"))
    except WrongCredentials as error:
        return await page("pages/sign_in.html", status=403, name=name, error=str(error), next=target)
    except TooManyAttempts as error:
        return await page("pages/sign_in.html", status=429, name=name, error=str(error), next=target)
    guard.clear_attempts(*subjects)
    await _come_in(user, keys)
    return see_other(target or HOME)


@blueprint.post("/sign-out")
async def sign_out() -> Response:
    """End the session."""
    opened = security.maybe_session()
    security.end()  # first: whatever happens to the row, this browser is out
    if opened is not None:
        await get_services().accounts.sign_out(opened)
    return see_other("/sign-in")


@blueprint.post("/lock")
async def lock() -> Response:
    """Sign out everywhere at once: replies and streams end, keys and the search index go."""
    opened = security.session()
    security.end()
    await get_services().accounts.lock(opened.user.id)
    return see_other("/sign-in")


@blueprint.post("/session/here")
async def still_here() -> Response:
    """A sign of the writer, who reads or types: the session goes on. That it was asked is all there is to it."""
    security.session()
    return Response(status=204)


@blueprint.get("/session/events")
async def watch_session() -> Response:
    """What an open page listens to: the end of its session, and what changes of a `day`, or that a `month` did.

    Also how the writer wants pages to look: a change of theme or size is seen on all of them.
    """
    opened = security.maybe_session()
    if opened is None:  # an answer of another kind would be an error on the browser's console
        return Response(event(name="out"), mimetype="text/event-stream")
    day = known_day(request.args["day"]) if "day" in request.args else None
    month = known_month(request.args["month"]) if "month" in request.args else None
    return event_stream(_changes(day, month), get_services().shutting_down, opened.ended, last=event(name="ended"))


async def _changes(day: date | None, month: date | None) -> AsyncGenerator[bytes]:
    """Which messages stand on the page, in their order, at first and whenever that changes.

    Each is [id, revision, root, what its traces come to]. A reply that is being written has the revision 0: its own
    stream tells what becomes of it. Of a month only its mark is told, and not more often than every MONTH_REST seconds.
    """
    services, keys = get_services(), security.session().keys
    yield event(name="open")
    seen = shown = listed = told = None
    while True:
        beat = services.changes.next
        look = look_of(await services.accounts.get_profile(keys))
        if look != shown:
            shown = look
            yield event(json.dumps(look), name="look")
        if day:
            now = await services.db.entries.revisions_on(keys, [day]), await services.db.tags.get_revision(keys.user_id)
            listing = await _listing(keys, day) if now != seen else listed
            seen = now
            if listing != listed:
                listed = listing
                yield event(json.dumps(listing), name="page")
        if month and (mark := await month_mark(keys, month)) != told:
            told = mark
            yield event(mark, name="month")
            await asyncio.sleep(MONTH_REST)  # a reply that is being written changes all the time
        await beat.wait()


async def _listing(keys: Keyring, day: date) -> list[list[str | int]]:
    services = get_services()
    with_replies = not await model_hidden()
    shown = [
        (entry, thread.root.id)
        for thread in await services.journal.get_page(keys, day)
        for entry in (thread.root, *thread.descendants)
        if with_replies or entry.role == "me"
    ]
    traces = await services.journal.tags.tags_of(keys, [entry.id for entry, _ in shown])
    return [
        [
            entry.id.hex(),
            0 if entry.state == "streaming" else entry.revision,
            root.hex(),
            traces_mark(traces.get(entry.id, ())),
        ]
        for entry, root in shown
    ]


@blueprint.get("/reset")
async def reset_page() -> Response:
    """For who lost the passphrase and has the recovery code."""
    return await page("pages/reset.html", name="", error="")


@blueprint.post("/reset")
async def reset() -> Response:
    """Set a new passphrase with the recovery code, and show the code that takes its place."""
    name = await field("name")
    subjects = subjects_of(name)
    guard = get_services().throttle
    try:
        guard.record_attempt(*subjects)
        user, keys, code = await get_services().accounts.reset_passphrase(
            name, await field("code"), await field("passphrase")
        )
    except WrongCredentials as error:
        return await page("pages/reset.html", status=403, name=name, error=str(error))
    except TooManyAttempts as error:
        return await page("pages/reset.html", status=429, name=name, error=str(error))
    except (AccountError, StorageError) as error:
        return await page("pages/reset.html", status=422, name=name, error=str(error))
    guard.clear_attempts(*subjects)
    return await show_code(await _come_in(user, keys), code)


async def _closed() -> bool:
    services = get_services()
    return not services.settings.server.registration and await services.db.users.has_any()


async def _no_registration() -> Response:
    sentence = "Nobody new can begin here. Whoever runs this journal can open it again in the settings."
    return await page("pages/error.html", status=403, title=_("Closed"), sentence=sentence, what_to_do="")


async def _come_in(user: User, keys: Keyring) -> OpenSession:
    services = get_services()
    before = security.maybe_session()
    if before is not None:
        await services.accounts.sign_out(before)
    cookie, opened = await services.accounts.open_session(user, keys, device_name(request.user_agent.string))
    security.begin(cookie, opened)
    await services.search.unlock(keys)
    services.journal.run_maintenance(keys)
    services.backups.start_daily_backup(keys)
    await services.rotation.resume_pending(opened.keys)
    return opened


async def show_code(session: OpenSession, code: str) -> Response:
    """Show a new recovery code, this once, and ask for a part of it back."""
    groups = recovery_groups(code)
    index = secrets.randbelow(len(groups))
    # What is asked for travels sealed in the form, so that any worker can check it and none remembers it.
    sealed = RECOVERY_GROUPS.seal(session.keys, session.user.id, index, groups[index].encode())
    token = f"{index}.{urlsafe_b64encode(sealed).decode()}"
    return await page("pages/recovery_code.html", code=groups, ask=_(ORDINALS[index]), index=token, error="")


def _local(path: str) -> str:
    """A path of ours, or nothing: an address from outside never decides where a sign-in leads."""
    return path if path.startswith("/d/") and "\\" not in path and path.isascii() and path.isprintable() else ""


async def check_again() -> None:
    """Ask who is signed in for passphrase or recovery code once more; guesses count as at the door.

    Raises WrongCredentials and TooOften.
    """
    opened, services = security.session(), get_services()
    subjects = subjects_of(opened.user.name)
    services.throttle.record_attempt(*subjects)
    await services.accounts.verify_secret(opened, await field("passphrase"))
    services.throttle.clear_attempts(*subjects)


def subjects_of(name: str) -> tuple[str, str]:
    """Whom a guess at a secret is counted against: the name and the address it came from."""
    return f"name {name_key(name)}", f"address {security.client_address()}"
