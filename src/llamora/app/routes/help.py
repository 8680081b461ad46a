"""The help page and the offline page."""

from quart import Blueprint, Response

from llamora.app.edge.rules import public
from llamora.app.pages import html_attributes, render_template, render_to_string
from llamora.journal.profile import Profile

blueprint = Blueprint("help", __name__)


@blueprint.get("/help")
async def show_help() -> Response:
    return await render_template("pages/help.html")


@blueprint.get("/offline")
@public
async def show_offline() -> Response:
    """Show the page that the service worker keeps for when the server cannot be reached.

    It is stored on the device, so it holds nothing of a user.
    """
    html = render_to_string(
        "pages/offline.html", user=None, html_attributes=html_attributes(Profile())
    )
    return Response(
        html, mimetype="text/html", headers={"Cache-Control": "no-cache", "Vary": "Accept-Language"}
    )
