"""The edge: what is checked before a route runs, and what each response carries.

Routes declare what they need with the decorators of `edge.rules`; everything else is refused.
"""

from quart import Quart, g, request

from llamora.app.edge import bodies, csrf, headers, hosts, sessions
from llamora.app.edge.rules import RequestRejected, current_rules
from llamora.app.streams import forget_request

UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def init_app(app: Quart) -> None:
    """Install the checks before and after every request of `app`."""
    app.request_class = bodies.request_class_for(app)
    app.asgi_http_class = bodies.WaitingConnection
    app.extensions[bodies.QUEUE_EXTENSION] = bodies.RequestQueue()
    app.before_request(_admit)
    app.after_request(headers.finish)
    app.teardown_request(_forget)


async def _admit() -> None:
    hosts.check_host()
    g.admitted = True
    rules = current_rules()
    if rules.public:
        return
    await sessions.resume(extend_idle=not rules.background)
    if request.method in UNSAFE_METHODS:
        if rules.max_bytes is None and sessions.get_session() is None:
            bodies.refuse_large_body()
        bodies.admit_body()
        csrf.check_origin()
        if request.mimetype not in rules.body_types:
            raise RequestRejected("form_unknown_shape", 415, is_body_readable=False)
        await csrf.check_token(rules)
    if request.url_rule is not None and not rules.signed_out:
        sessions.require_session()


async def _forget(_error: BaseException | None) -> None:
    if not g.get("is_followed"):  # then a stream still needs it, and drops it at its end
        forget_request()
