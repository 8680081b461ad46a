"""The answers when something goes wrong: a sentence, and the text that was posted."""

from collections.abc import Awaitable, Callable
from logging import getLogger
from typing import Any
from urllib.parse import quote

from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from llamora.app import i18n
from llamora.app.addresses import NoSuchAddress
from llamora.app.edge import UNSAFE_METHODS
from llamora.app.edge.forms import form_field, replayable_form
from llamora.app.edge.rules import RequestRejected, current_rules
from llamora.app.edge.sessions import AlreadySignedIn, SignInRequired, get_session
from llamora.app.i18n import gettext as _
from llamora.app.i18n import gettext_noop
from llamora.app.pages import is_fragment, redirect_303, render_template
from llamora.app.services.container import get_services
from llamora.errors import Notice, Problem
from llamora.persistence.connection import StorageError
from llamora.text import error_location
from llamora.vault.envelope import SealError
from llamora.vault.keys import KeyringClosed

logger = getLogger(__name__)

TITLES: dict[int, tuple[str, ...]] = {
    404: gettext_noop("Not here"),
    409: gettext_noop("Changed elsewhere"),
    413: gettext_noop("Too long"),
    503: gettext_noop("The journal cannot be reached"),
    507: gettext_noop("The disk is full"),
}
OTHER_TITLE = gettext_noop("Not carried out")
_TRY_ONCE_MORE = gettext_noop("Go back and try once more.")
ADVICE: dict[int, tuple[str, ...]] = {
    404: gettext_noop("Look for it with the search, or begin from today’s page."),
    405: _TRY_ONCE_MORE,
    409: gettext_noop("Go back and load the page again to see how it stands now."),
    413: _TRY_ONCE_MORE,
    415: _TRY_ONCE_MORE,
}
OTHER_ADVICE = gettext_noop(
    "Go back and try again; if it stays so, whoever runs this journal can look at the server’s log."
)


def init_app(app: Quart) -> None:
    """Answer the errors of `app`."""
    for kind, handle in HANDLERS.items():
        app.register_error_handler(kind, handle)


async def _sign_in(_error: Exception, *, with_text: bool = True) -> Response:
    if request.method in UNSAFE_METHODS or is_fragment():
        sentence = _("Sign in again in another tab, then do this once more.")
        return await _page(401, sentence, title=_("You were signed out"), with_text=with_text)
    is_day = request.path.startswith("/d/")
    return redirect_303(f"/sign-in?next={quote(request.path)}" if is_day else "/sign-in")


async def _already_signed_in(_error: Exception) -> Response:
    return redirect_303("/you")


async def _problem(error: Problem) -> Response:
    sentence, title = i18n.describe(error), ""
    if not isinstance(error, StorageError | RequestRejected):
        title = current_rules().error_title
    advice = "" if title else None
    response = await _page(error.status, sentence, title=title and _(title), advice=advice)
    response.headers.update(error.retry_after)
    return response


async def _rejected(error: RequestRejected) -> Response:
    if error.status == 400:  # an unknown host gets no page and no cookie
        return Response(i18n.describe(error), status=400, mimetype="text/plain")
    sentence = i18n.describe(error)
    return await _page(error.status, sentence, with_text=error.is_body_readable)


async def _seal_error(error: SealError) -> Response:
    logger.error("a record could not be opened (%s)", type(error).__name__)
    sentence = _("It is damaged or not where it belongs. Nothing was removed.")
    return await _page(500, sentence, title=_("A record could not be opened"))


async def _too_large(error: RequestEntityTooLarge) -> Response:
    rules = current_rules()
    if not (rules.public or rules.signed_out) and get_session() is None:
        # No large body is read without a session, which may have ended while this was written.
        return await _sign_in(error, with_text=False)
    sentence = _("This is longer than anything that belongs here.")
    if rules.max_bytes is None:
        size = f"{get_services().settings.entries.max_bytes / 1_000_000:g} MB"
        sentence = i18n.describe(Notice("entry_too_long", {"size": size}))
    return await _page(413, sentence, with_text=False)


async def _no_such_address(error: NoSuchAddress) -> Response:
    return await _page(404, i18n.describe(error.message_code))


async def _http_error(error: HTTPException) -> Response:
    code = error.code or 500
    sentence = (
        i18n.describe("page_not_found")
        if code == 404
        else _("The request was not one the journal understands (%(code)s).") % {"code": code}
    )
    return await _page(code, sentence, with_text=False)


async def _unexpected(error: Exception) -> Response:
    logger.error("unexpected %s at %s", type(error).__name__, error_location(error))
    return await _page(
        500,
        _("Something went wrong inside Llamora. What was kept is safe; try again."),
        title=_("Something went wrong"),
        with_text=False,
    )


HANDLERS: dict[type[Exception], Callable[[Any], Awaitable[Response]]] = {
    KeyringClosed: _sign_in,  # locked while the request was being handled
    SignInRequired: _sign_in,
    AlreadySignedIn: _already_signed_in,
    Problem: _problem,
    RequestRejected: _rejected,
    SealError: _seal_error,
    RequestEntityTooLarge: _too_large,
    NoSuchAddress: _no_such_address,
    HTTPException: _http_error,
    Exception: _unexpected,
}


async def _page(
    status: int,
    sentence: str,
    *,
    title: str = "",
    advice: str | None = None,
    with_text: bool = True,
) -> Response:
    """Show an error; with `with_text`, give a posted `text` back so that it is not lost.

    HTMX shows the sentence of the page beside the control that made the request.
    """
    is_form_post = request.method in UNSAFE_METHODS and not is_fragment()
    text = await form_field("text") if with_text and is_form_post else ""
    if text:
        entry_id = (request.view_args or {}).get("entry_id")
        return await render_template(
            "pages/not_saved.html",
            status,
            sentence=sentence,
            words=text,
            path=f"/e/{entry_id.hex()}" if entry_id and status not in (401, 404) else "",
            sign_in=status == 401,
            **await replayable_form("text"),
        )
    return await render_template(
        "pages/error.html",
        status,
        title=title or _(TITLES.get(status, OTHER_TITLE)[0]),
        sentence=sentence,
        advice=_(ADVICE.get(status, OTHER_ADVICE)[0]) if advice is None else advice,
    )
