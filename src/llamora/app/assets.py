"""Front-end files: the build of `build_assets.py` if there is one, else the sources."""

import json
import mimetypes
from hashlib import sha256
from logging import getLogger
from pathlib import Path

from quart import Blueprint, Response, request, send_file  # pyright: ignore[reportUnknownVariableType] -- typed in part

from llamora.app.edge.rules import public

logger = getLogger(__name__)

ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
OFFLINE_PATH = "/offline"
FONT_FILES = ("fonts/vendor/literata.woff2", "fonts/vendor/instrument-sans.woff2")
IMMUTABLE_CACHE_CONTROL = "public, max-age=31536000, immutable"


class Assets:
    """An index of front-end files. With `dev` it serves the sources, so that edits show at once."""

    def __init__(self, frontend: Path, *, dev: bool) -> None:
        dist = frontend / "dist"
        self._static = frontend / "static"
        self._folders = [frontend / "static"] if dev else [dist, frontend / "static"]
        self._manifest: dict[str, str] = {}
        if not dev and (dist / "manifest.json").is_file():
            self._manifest = json.loads((dist / "manifest.json").read_text(encoding="utf-8"))
        elif not dev:
            logger.warning("frontend/dist is not there; serving the modules as they are written")

    def url(self, name: str) -> str:
        """Return the path to request for a file such as `js/main.js`."""
        return f"/static/{self._manifest.get(name, name)}"

    def find(self, name: str) -> Path | None:
        """Return the file of that name, or None; never one outside the front end's folders."""
        for folder in self._folders:
            try:
                file = (folder / name).resolve()
                if file.is_file() and file.is_relative_to(folder.resolve()):
                    return file
            except (OSError, ValueError):
                return None  # too long, or not a name at all
        return None

    def shell_urls(self) -> list[str]:
        """Return the paths of the styles, fonts and icon that the offline page needs."""
        style_names = (
            sorted(file.name for file in self._static.glob("css/*.css"))
            if not self._manifest
            else ["main.css"]
        )
        names = [*(f"css/{name}" for name in style_names), *FONT_FILES, "favicon.svg"]
        return [self.url(name) for name in names]

    def content(self, address: str) -> bytes:
        """Return the bytes of a path that `url` returned, or b"" if there is no such file."""
        file = self.find(address.removeprefix("/static/"))
        return file.read_bytes() if file else b""

    def is_hashed(self, name: str) -> bool:
        """Return True if the name contains a hash of the content, so it may be cached forever."""
        return name in self._manifest.values()


def create_blueprint(assets: Assets) -> Blueprint:
    """Return a blueprint that serves the files."""
    routes = Blueprint("assets", __name__)

    @routes.get("/static/<path:name>")
    @public
    async def static(name: str) -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        return await _send(assets, name)

    @routes.get("/sw.js")
    @public
    async def service_worker() -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        """Serve the service worker with its list of files to cache.

        It is at the root because its scope cannot reach above its own path.
        """
        shell = assets.shell_urls()
        name = sha256(b"".join(path.encode() + assets.content(path) for path in shell)).hexdigest()[
            :16
        ]
        constants = (
            f"const NAME = {json.dumps(f'llamora-{name}')};\n"
            f"const SHELL = {json.dumps([OFFLINE_PATH, *shell])};\n"
        )
        source = assets.find("sw.js")
        script = constants + (source.read_text(encoding="utf-8") if source else "")
        return Response(script, mimetype="text/javascript", headers={"Cache-Control": "no-cache"})

    @routes.get("/favicon.ico")
    @public
    async def favicon() -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        return await _send(assets, assets.url("favicon.svg").removeprefix("/static/"))

    return routes


async def _send(assets: Assets, name: str) -> Response:
    file = assets.find(name)
    if file is None:
        return Response("There is no such file.", status=404, mimetype="text/plain")
    mimetype = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if file.suffix in (".js", ".mjs"):
        mimetype = "text/javascript"  # modules require it, and a Windows registry may differ
    elif file.suffix == ".webmanifest":
        mimetype = "application/manifest+json"
    elif file.suffix == ".woff2":
        mimetype = "font/woff2"
    encoding = ""
    for encoding_name, suffix in ENCODINGS:
        compressed_file = file.with_name(file.name + suffix)
        if (
            encoding_name in request.headers.get("Accept-Encoding", "")
            and compressed_file.is_file()
        ):
            file, encoding = compressed_file, encoding_name
            break
    response = await send_file(file, mimetype=mimetype, conditional=True)
    if encoding:
        response.headers["Content-Encoding"] = encoding
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = (
        IMMUTABLE_CACHE_CONTROL if assets.is_hashed(name) else "no-cache"
    )
    return response
