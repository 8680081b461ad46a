"""The web app: `create_app` connects services, security, templates and routes."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from logging import getLogger
from typing import Any

from jinja2 import StrictUndefined
from quart import Quart, Response, g
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.exceptions import BadHost
from werkzeug.routing import MapAdapter

from llamora import dates
from llamora.app import addresses, assets, edge, error_pages, i18n, rendering
from llamora.app.edge.csrf import csrf_field
from llamora.app.edge.hosts import CSRF_COOKIE, cookie_name
from llamora.app.edge.rules import public
from llamora.app.message_parts import message_parts
from llamora.app.pages import TEMPLATES_EXTENSION, load_user, new_form_token
from llamora.app.routes import blueprints
from llamora.app.services.container import EXTENSION
from llamora.events import EventBus, Topic
from llamora.journal.profile import zone_or_utc
from llamora.services import AppLifecycle, AppServices, SharedState
from llamora.settings import Settings, load_settings, resource
from llamora.text import error_location, strip_markdown

logger = getLogger(__name__)

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

FORM_ENCODING_FACTOR = 3  # a byte of text takes at most three in a posted form


class _App(Quart):
    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Bind a request for a host that can be no name to another, so that it is refused below."""
        try:
            return super().create_url_adapter(request)
        except BadHost:  # an empty or very long label
            return self.url_map.bind("invalid")

    def log_exception(self, exception_info: Any) -> None:
        """Log an exception that no handler took, or that one raised, by class and place only."""
        error = exception_info[1]
        logger.error("unexpected %s at %s", type(error).__name__, error_location(error))


def create_app(
    settings: Settings | None = None, *, reload: bool = False, shared: SharedState | None = None
) -> Quart:
    """Build the app. `reload` serves sources as they are edited; `shared` is set in workers of one server.

    Raises SettingsError when no settings are given and those found are invalid.
    """
    settings = settings or load_settings()
    app = _App("llamora.app", static_folder=None, template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = settings.entries.max_bytes * FORM_ENCODING_FACTOR + 65_536
    app.config["TEMPLATES_AUTO_RELOAD"] = reload
    services = AppServices.create(settings, shared)
    app.extensions[EXTENSION] = services
    app.extensions[i18n.EXTENSION] = i18n.load()
    lifecycle = AppLifecycle(services)
    app.extensions["llamora.lifecycle"] = lifecycle
    app.before_serving(rendering.favour_event_loop)
    app.before_serving(lifecycle.start)
    app.after_serving(lifecycle.stop)
    _init_renderer(app, services.events)
    assets_index = assets.Assets(resource("frontend"), native=reload)
    addresses.init_app(app)
    edge.init_app(app)
    app.before_request(load_user)
    _init_templates(app, assets_index)
    error_pages.init_app(app)
    app.register_blueprint(assets.create_blueprint(assets_index))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)

    @app.get("/healthz")
    @public
    async def healthz() -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        return Response("ok", mimetype="text/plain")

    app.asgi_app = reject_websockets(app.asgi_app)  # type: ignore[method-assign] -- Quart's hook
    return app


def _init_renderer(app: Quart, events: EventBus) -> None:
    renderer = rendering.Renderer()
    app.extensions[rendering.EXTENSION] = renderer
    events.subscribe(Topic.SIGNED_OUT, lambda event: renderer.lock(event.user_id))
    events.subscribe(Topic.REWRITTEN, lambda event: renderer.forget(event.user_id, event.ids))
    app.after_serving(renderer.close)


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
    app.add_template_global(csrf_field, "csrf_field")
    app.add_template_global(lambda: cookie_name(CSRF_COOKIE), "csrf_cookie")
    app.add_template_global(new_form_token, "new_form_token")
    app.add_template_global(message_parts, "message_parts")
    app.add_template_filter(_local_time, "local_time")
    app.add_template_filter(_local_day, "local_day")
    app.add_template_filter(_is_other_day, "is_other_day")
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


def _is_other_day(instant: datetime, zone: str, day: date) -> bool:
    """Return False for an instant of `day`, by the calendar or by when the user's days end."""
    tz = dates.parse_zone(zone_or_utc(zone))
    return dates.day_of(instant, tz) != day != dates.day_of(instant, tz, g.get("day_ends_at", 0))


def _local_day(instant: datetime, zone: str) -> date:
    return dates.day_of(instant, dates.parse_zone(zone_or_utc(zone)))
