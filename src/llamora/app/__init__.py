"""The web app: `create_app` connects services, security, templates and routes."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from logging import getLogger
from typing import Any
from urllib.parse import quote

from jinja2 import StrictUndefined
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from llamora import dates
from llamora.app import assets, i18n, rendering, security
from llamora.app.i18n import gettext as _
from llamora.app.pages import (
    TEMPLATES_EXTENSION,
    field,
    is_fragment,
    load_profile,
    new_form_token,
    redirect_303,
    render_template,
)
from llamora.app.routes import blueprints
from llamora.app.services.container import EXTENSION, get_services
from llamora.errors import Notice, Problem
from llamora.events import Topic
from llamora.journal.profile import zone_or_utc
from llamora.services import AppLifecycle, AppServices, SharedState
from llamora.settings import Settings, load_settings, resource
from llamora.text import error_location, strip_markdown
from llamora.vault.envelope import SealError
from llamora.vault.keys import KeyringClosed

logger = getLogger(__name__)

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

FORM_ENCODING_FACTOR = 3  # a byte of text takes at most three in a posted form


def create_app(
    settings: Settings | None = None, *, dev: bool = False, shared: SharedState | None = None
) -> Quart:
    """Build the app. `dev` serves front-end sources; `shared` is set in workers of one server.

    Raises SettingsError when no settings are given and those found are invalid.
    """
    settings = settings or load_settings()
    app = Quart("llamora.app", static_folder=None, template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = settings.entries.max_bytes * FORM_ENCODING_FACTOR + 65_536
    app.config["TEMPLATES_AUTO_RELOAD"] = dev
    services = AppServices.create(settings, shared)
    app.extensions[EXTENSION] = services
    app.extensions[i18n.EXTENSION] = i18n.load()
    lifecycle = AppLifecycle(services)
    app.extensions["llamora.lifecycle"] = lifecycle
    app.before_serving(lifecycle.start)
    app.after_serving(lifecycle.stop)
    renderer = rendering.Renderer()
    app.extensions[rendering.EXTENSION] = renderer
    services.events.subscribe(Topic.SIGNED_OUT, lambda event: renderer.lock(event.user_id))
    services.events.subscribe(
        Topic.REWRITTEN, lambda event: renderer.forget(event.user_id, event.ids)
    )
    app.after_serving(renderer.close)
    assets_index = assets.Assets(resource("frontend"), native=dev)
    security.init_app(app)
    app.before_request(load_profile)
    _init_templates(app, assets_index)
    _init_error_handlers(app)
    app.register_blueprint(assets.create_blueprint(assets_index))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)

    @app.get("/healthz")
    async def healthz() -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        return Response("ok", mimetype="text/plain")

    app.asgi_app = reject_websockets(app.asgi_app)  # type: ignore[method-assign] -- Quart's hook
    return app


def reject_websockets(inner: ASGIApp) -> ASGIApp:
    """Wrap an ASGI app so that it closes WebSockets, which the security checks do not cover."""

    async def http_only_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await inner(scope, receive, send)

    return http_only_app


def _init_templates(app: Quart, assets_index: assets.Assets) -> None:
    app.add_template_global(assets_index.url, "asset")
    app.add_template_global(security.csrf_field, "csrf_field")
    app.add_template_global(new_form_token, "new_form_token")
    app.add_template_filter(_local_time, "local_time")
    app.add_template_filter(_local_day, "local_day")
    app.add_template_filter(i18n.day_words, "day_words")
    app.add_template_filter(i18n.short_day, "short_day")
    app.add_template_filter(i18n.weekday, "weekday")
    app.add_template_filter(i18n.full_day, "full_day")
    app.add_template_filter(i18n.month_words, "month_words")
    app.add_template_filter(i18n.month_name, "month_name")
    app.add_template_filter(i18n.month_short, "month_short")
    app.add_template_filter(i18n.number_words, "number")
    app.add_template_filter(strip_markdown, "plain")
    app.add_template_filter(_as_phrase, "phrase")
    app.add_template_global(i18n.range_words, "range_words")
    app.add_template_global(i18n.current_language, "language")
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    # Does what `install_gettext_callables(newstyle=True)` does at a third of the cost per message.
    app.jinja_env.newstyle_gettext = True  # type: ignore[attr-defined] -- set by the extension
    gettext_globals: dict[str, Any] = {
        "_": i18n.gettext_markup,
        "gettext": i18n.gettext_markup,
        "ngettext": i18n.ngettext_markup,
    }
    app.jinja_env.globals.update(gettext_globals)  # pyright: ignore[reportUnknownMemberType]
    # No template awaits anything: compiled as a plain function it takes two thirds of the time.
    app.extensions[TEMPLATES_EXTENSION] = app.jinja_env.overlay(enable_async=False)


def _local_time(instant: datetime, zone: str) -> str:
    return i18n.time_words(instant, dates.parse_zone(zone_or_utc(zone)))


def _as_phrase(sentence: str) -> str:
    """Turn a sentence into part of a line: without its capital and its full stop."""
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")


def _local_day(instant: datetime, zone: str) -> date:
    return dates.day_of(instant, dates.parse_zone(zone_or_utc(zone)))


def _init_error_handlers(app: Quart) -> None:
    """Answer every error with a sentence and give text that was posted back to the user."""

    @app.errorhandler(KeyringClosed)  # locked while the request was being handled
    @app.errorhandler(security.SignInRequired)
    async def sign_in_required(_error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        if request.method in security.UNSAFE_METHODS or is_fragment():
            return await _error_page(
                401,
                _("You were signed out"),
                _("Sign in again in another tab, then do this once more."),
            )
        return redirect_303(
            f"/sign-in?next={quote(request.path)}" if request.path.startswith("/d/") else "/sign-in"
        )

    @app.errorhandler(security.AlreadySignedIn)
    async def already_signed_in(_error: security.AlreadySignedIn) -> Response:  # pyright: ignore[reportUnusedFunction]
        return redirect_303("/you")

    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:  # pyright: ignore[reportUnusedFunction]
        is_body_readable = True
        if isinstance(error, security.RequestRejected):
            if error.status == 400:  # an unknown host gets no page and no cookie
                return Response(i18n.describe(error), status=400, mimetype="text/plain")
            is_body_readable = error.is_body_readable
        return await _error_page(
            error.status, _title(error.status), i18n.describe(error), is_body_readable
        )

    @app.errorhandler(SealError)
    async def seal_error(error: SealError) -> Response:  # pyright: ignore[reportUnusedFunction]
        logger.error("a record could not be opened (%s)", type(error).__name__)
        return await _error_page(
            500,
            _("A record could not be opened"),
            _("It is damaged or not where it belongs. Nothing was removed."),
        )

    @app.errorhandler(RequestEntityTooLarge)
    async def too_large(_error: RequestEntityTooLarge) -> Response:  # pyright: ignore[reportUnusedFunction]
        if not security.LARGE_BODY_PATHS.fullmatch(request.path):
            return await _error_page(
                413, _("Too long"), _("This is longer than anything that belongs here."), False
            )
        size = f"{get_services().settings.entries.max_bytes / 1_000_000:g} MB"
        return await _error_page(
            413, _("Too long"), i18n.describe(Notice("entry_too_long", {"size": size})), False
        )

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        code = error.code or 500
        if code == 404:
            return await _error_page(404, _("Not here"), i18n.describe("page_not_found"), False)
        sentence = _("The request was not one the journal understands (%(code)s).") % {"code": code}
        return await _error_page(code, _("Not carried out"), sentence, False)

    @app.errorhandler(Exception)
    async def unexpected_error(error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        logger.error("unexpected %s at %s", type(error).__name__, error_location(error))
        return await _error_page(
            500,
            _("Something went wrong"),
            _("Something went wrong inside Llamora. What was kept is safe; try again."),
            False,
        )


async def _error_page(status: int, title: str, sentence: str, with_text: bool = True) -> Response:
    """Show an error; with `with_text`, give a posted `text` back so that it is not lost.

    HTMX shows the sentence of the page beside the control that made the request.
    """
    is_form_post = request.method in security.UNSAFE_METHODS and not is_fragment()
    submitted_text = await field("text") if with_text and is_form_post else ""
    if submitted_text:
        form = await security.replayable_form("text")
        return await render_template(
            "pages/not_saved.html",
            status,
            sentence=sentence,
            words=submitted_text,
            path="",
            sign_in=status == 401,
            **form,
        )
    return await render_template(
        "pages/error.html", status=status, title=title, sentence=sentence, advice=_advice(status)
    )


def _title(status: int) -> str:
    match status:
        case 404:
            return _("Not here")
        case 409:
            return _("Changed elsewhere")
        case 503:
            return _("The journal cannot be reached")
        case 507:
            return _("The disk is full")
        case _:
            return _("Not carried out")


def _advice(status: int) -> str:
    match status:
        case 404:
            return _("Look for it with the search, or begin from today’s page.")
        case 409:
            return _("Go back and load the page again to see how it stands now.")
        case 405 | 413 | 415:
            return _("Go back and try once more.")
        case _:
            return _(
                "Go back and try again; if it stays so, whoever runs this journal can look at the server’s log."
            )
