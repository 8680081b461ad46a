"""Help, and the page for when the server is away."""

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.pages import html_attributes, render_template, render_to_string
from llamora.journal.profile import Profile

blueprint = Blueprint("help", __name__)


@blueprint.get("/help")
async def show_help() -> Response:
    """Keys, Markdown, and how it goes."""
    security.require_session()
    return await render_template("pages/help.html")


@blueprint.get("/offline")
async def show_offline() -> Response:
    """What the service worker shows while the server is away. It is kept on the device, so it knows nobody."""
    html = render_to_string(
        "pages/offline.html", user=None, html_attributes=html_attributes(Profile())
    )
    return Response(
        html, mimetype="text/html", headers={"Cache-Control": "no-cache", "Vary": "Accept-Language"}
    )
