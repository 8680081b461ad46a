"""Help, and the page for when the server is away."""

from quart import Blueprint, Response

from llamora.app import security
from llamora.app.pages import look_of, page, rendered
from llamora.journal.profile import Profile

blueprint = Blueprint("guide", __name__)


@blueprint.get("/help")
async def show() -> Response:
    """Keys, Markdown, and how it goes."""
    security.session()
    return await page("pages/help.html")


@blueprint.get("/offline")
async def offline() -> Response:
    """What the service worker shows while the server is away. It is kept on the device, so it knows nobody."""
    html = rendered("pages/offline.html", user=None, look=look_of(Profile()))
    return Response(html, mimetype="text/html", headers={"Cache-Control": "no-cache", "Vary": "Accept-Language"})
