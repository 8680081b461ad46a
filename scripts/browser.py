"""Finds a Chromium for the tests, and brings one where there is none.

`python -m scripts.browser` prints its path. In this order: any Chromium, Chrome or Edge on the machine, one
that Playwright brought earlier, Debian's package (as root, or where sudo asks for nothing), Playwright's own.
"""

import os
import platform
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

_COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "google-chrome-beta",
    "microsoft-edge",
    "microsoft-edge-stable",
)
_MAC_APPS = ("Chromium", "Google Chrome", "Google Chrome Beta", "Microsoft Edge")
_WINDOWS_PROGRAMS = ("Chromium/Application/chrome.exe", "Google/Chrome/Application/chrome.exe")
_WINDOWS_EDGE = "Microsoft/Edge/Application/msedge.exe"


class NoBrowser(Exception):
    """There is no Chromium and none could be brought; the message says what to do."""


@cache
def find_browser() -> Path | None:
    """A Chromium that starts, or None."""
    return next((path for path in _candidates() if _starts(path)), None)


def find_or_install() -> Path:
    """A Chromium that starts, installed first where there is none. Raises NoBrowser."""
    for install in (None, partial(install_from_debian, "chromium"), _install_from_playwright):
        if install is not None:
            install()
            find_browser.cache_clear()
        if browser := find_browser():
            return browser
    raise NoBrowser(
        "No Chromium was found and none could be installed; install Chromium or Chrome and try again."
    )


def _candidates() -> list[Path]:
    paths = [Path(found) for name in _COMMANDS if (found := shutil.which(name))]
    if sys.platform == "darwin":
        folders = (Path("/Applications"), Path.home() / "Applications")
        paths += [
            folder / f"{app}.app/Contents/MacOS/{app}" for folder in folders for app in _MAC_APPS
        ]
    if sys.platform == "win32":
        roots = [
            os.environ.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        ]
        paths += [
            Path(root) / program
            for root in roots
            if root
            for program in (*_WINDOWS_PROGRAMS, _WINDOWS_EDGE)
        ]
    return [path for path in [*paths, _playwright_path()] if path is not None and path.is_file()]


def _playwright_path() -> Path | None:
    """Where Playwright's own Chromium lies or would lie."""
    source = (
        "from playwright.sync_api import sync_playwright as start\n"
        "with start() as p: print(p.chromium.executable_path)"
    )
    # A process of its own: the synchronous interface refuses to run inside an event loop.
    process = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    return (
        Path(process.stdout.strip()) if process.returncode == 0 and process.stdout.strip() else None
    )


def _starts(path: Path) -> bool:
    """Whether it is a browser, and not Ubuntu's stand-in that asks for a snap."""
    if sys.platform == "win32":  # there it would open a window instead of telling its version
        return True
    try:
        process = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0


def install_from_debian(package: str) -> None:
    """Install a package on Debian, as root or where sudo asks for nothing; elsewhere do nothing."""
    apt = shutil.which("apt-get")
    if apt is None or platform.freedesktop_os_release().get("ID") != "debian":
        return
    as_root: list[str] = []
    if os.geteuid() != 0:
        as_root = ["sudo", "-n"]
        if (
            not shutil.which("sudo")
            or subprocess.run([*as_root, "true"], capture_output=True, check=False).returncode
        ):
            return
    quiet = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", apt, "-qq"]
    sys.stderr.write(f"Installing Debian's {package} for the tests.\n")
    subprocess.run([*quiet, "update"], stdout=sys.stderr, check=False)
    subprocess.run(
        [*quiet, "install", "-y", "--no-install-recommends", package],
        stdout=sys.stderr,
        check=False,
    )


def _install_from_playwright() -> None:
    sys.stderr.write("Installing Playwright's Chromium for the tests.\n")
    subprocess.run(
        [sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr, check=False
    )


if __name__ == "__main__":
    try:
        print(find_or_install())
    except NoBrowser as error:
        sys.exit(str(error))
