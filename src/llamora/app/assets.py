"""Front-end files: the build of `build_assets.py` if there is one, else the sources."""

import asyncio
import json
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from logging import getLogger
from pathlib import Path, PurePosixPath

from quart import Blueprint, Response, request

from llamora.app.edge.rules import public

logger = getLogger(__name__)

ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
OFFLINE_PATH = "/offline"
FONT_FILES = ("fonts/vendor/literata.woff2", "fonts/vendor/instrument-sans.woff2")
IMMUTABLE_CACHE_CONTROL = "public, max-age=31536000, immutable"
MIMETYPES = {  # what the registry of a Windows machine may have otherwise
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


@dataclass(slots=True, frozen=True)
class Asset:
    """A file as it is sent. `etag` is a digest of `content`; `encoding` is empty or its packing."""

    content: bytes
    etag: str
    encoding: str


class Assets:
    """The front end's files: those that were built come before those that were written.

    They are listed once and kept in memory once read. With `native` the sources are served as they
    are on the disk at each request, so that an edit shows at once.
    """

    def __init__(self, frontend: Path, *, native: bool) -> None:
        static, dist = frontend / "static", frontend / "dist"
        self._native_folder = static if native else None
        self._manifest: dict[str, str] = {}
        if not native and (dist / "manifest.json").is_file():
            self._manifest = json.loads((dist / "manifest.json").read_text(encoding="utf-8"))
        elif not native:
            logger.warning("frontend/dist is not there; serving the modules as they are written")
        folders = (static,) if native else (static, dist)
        self._files = {name: file for folder in folders for name, file in _files_in(folder)}
        self._hashed = frozenset(self._manifest.values())
        self._assets: dict[Path, Asset] = {}

    def url(self, name: str) -> str:
        """Return the path to request for a file such as `js/main.js`."""
        return f"/static/{self._manifest.get(name, name)}"

    def load(self, name: str, accepted_encodings: str = "") -> Asset | None:
        """Return a file in the best accepted packing, or None; never one of another folder.

        Reads the disk the first time, with `native` each time: call it on a thread.
        """
        if self._native_folder is not None:
            self._files = dict(_files_in(self._native_folder))
            self._assets.clear()
        for encoding, suffix in ENCODINGS:
            file = self._files.get(name + suffix)
            if file is not None and encoding in accepted_encodings:
                return self._read(file, encoding)
        file = self._files.get(name)
        return None if file is None else self._read(file, "")

    def _read(self, file: Path, encoding: str) -> Asset:
        asset = self._assets.get(file)
        if asset is None:
            content = file.read_bytes()
            asset = Asset(content, sha256(content).hexdigest()[:32], encoding)
            self._assets[file] = asset
        return asset

    def shell_urls(self) -> list[str]:
        """Return the paths of the styles, fonts and icon that the offline page needs."""
        is_style = re.compile(r"css/[^/]+\.css").fullmatch
        styles = ["css/main.css"] if self._manifest else sorted(filter(is_style, self._files))
        return [self.url(name) for name in (*styles, *FONT_FILES, "favicon.svg")]

    def service_worker(self) -> str:
        """Return the script of the service worker, with its list of files to cache."""
        shell = self.shell_urls()
        digest = sha256()
        for path in shell:
            asset = self.load(path.removeprefix("/static/"))
            digest.update(path.encode() + (asset.content if asset else b""))
        source = self.load("sw.js")
        return (
            f"const NAME = {json.dumps(f'llamora-{digest.hexdigest()[:16]}')};\n"
            f"const SHELL = {json.dumps([OFFLINE_PATH, *shell])};\n"
            f"{source.content.decode() if source else ''}"
        )

    def is_hashed(self, name: str) -> bool:
        """Return True if the name contains a hash of the content, so it may be cached forever."""
        return name in self._hashed


def _files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    root = folder.resolve()
    for file in folder.rglob("*"):
        if file.is_file() and file.resolve().is_relative_to(root):  # no link leads out
            yield file.relative_to(folder).as_posix(), file


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
        """Serve the service worker at the root: its scope cannot reach above its own path."""
        script = await asyncio.to_thread(assets.service_worker)
        return Response(script, mimetype="text/javascript", headers={"Cache-Control": "no-cache"})

    @routes.get("/favicon.ico")
    @public
    async def favicon() -> Response:  # pyright: ignore[reportUnusedFunction] -- a route
        return await _send(assets, assets.url("favicon.svg").removeprefix("/static/"))

    return routes


async def _send(assets: Assets, name: str) -> Response:
    accepted = request.headers.get("Accept-Encoding", "")
    asset = await asyncio.to_thread(assets.load, name, accepted)
    if asset is None:
        return Response("There is no such file.", status=404, mimetype="text/plain")
    suffix = PurePosixPath(name).suffix
    mimetype = MIMETYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    response = Response(asset.content, mimetype=mimetype)
    if asset.encoding:
        response.headers["Content-Encoding"] = asset.encoding
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = (
        IMMUTABLE_CACHE_CONTROL if assets.is_hashed(name) else "no-cache"
    )
    response.set_etag(asset.etag)
    await response.make_conditional(request)
    return response
