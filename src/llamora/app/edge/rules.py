"""The declarations of a route: who may use it, and which bodies it takes.

The decorators stand below that of the blueprint. A route without any needs a signed-in user and
takes a small form.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from quart import current_app, request

from llamora.errors import Problem

SMALL_BODY_BYTES = 65_536
# A body without a type is empty. A multipart one could be spooled to disk in plain text.
FORM_TYPES = ("application/x-www-form-urlencoded", "")

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(slots=True, frozen=True)
class RouteRules:
    """The rules of one route; `max_bytes` limits its body, None to that of an entry."""

    public: bool = False
    signed_out: bool = False
    begins_session: bool = False
    with_replies: bool = False
    error_title: str = ""
    background: bool = False
    queued: bool = False
    body_types: tuple[str, ...] = FORM_TYPES
    max_bytes: int | None = SMALL_BODY_BYTES


class RequestRejected(Problem):
    """The request does not come from a page of this app; `status` is the HTTP status to answer."""

    def __init__(self, code: str, /, status: int, *, is_body_readable: bool = True) -> None:
        super().__init__(code)
        self.status = status
        self.is_body_readable = is_body_readable
        """The body may be read, to give its text back."""


def rules_of(view: Callable[..., Any] | None) -> RouteRules:
    """Return what a view function has declared; the defaults for None."""
    return getattr(view, "route_rules", RouteRules())


def current_rules() -> RouteRules:
    """Return the rules of the route of this request; the defaults where there is none."""
    return rules_of(current_app.view_functions.get(request.endpoint or ""))


def _declare(**changes: Any) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        view.route_rules = replace(rules_of(view), **changes)  # type: ignore[attr-defined] -- ours
        return view

    return decorate


public = _declare(public=True)
"""Serve the same to everybody: no session is read, no cookie set, and caches may keep it."""

signed_out = _declare(signed_out=True)
"""Serve users who are not signed in, too."""

begins_session = _declare(signed_out=True, begins_session=True)
"""A form that signs a user in; a signed-in user who sends an old one is led to the account page."""

with_replies = _declare(with_replies=True)
"""There is no such page for users who have turned the model off."""

background = _declare(background=True)
"""An open page makes this request by itself: it does not keep the session alive."""

queued = _declare(queued=True)
"""Requests wait for one another, so that many at once do not hold up the pages of others."""

large_body = _declare(max_bytes=None)
"""Take a form as large as the text of an entry."""


def titled(title: str) -> Callable[[View], View]:
    """Name the page of an error that this route raises; `title` is marked with gettext_noop."""
    return _declare(error_title=title)


def accepts(*media_types: str, max_bytes: int = SMALL_BODY_BYTES) -> Callable[[View], View]:
    """Take bodies of these types instead of forms; `bodies.stream` reads them in chunks.

    The CSRF token must come in its header.
    """
    return _declare(body_types=media_types, max_bytes=max_bytes)
