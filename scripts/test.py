"""The whole test suite: `python -m scripts.test [pytest options]`.

Brings a Chromium where there is none and runs both parts on two processes. A test has one chance: one that passes the
second time is a fault to find.
"""

import subprocess
import sys

from scripts.browser import NoBrowser, find_or_install

PARTS = (
    ("everything but the browser", ["-n", "2", "--ignore=tests/browser"]),
    # A file's tests share servers, so they stay together.
    ("the browser", ["-n", "2", "--dist", "loadfile", "tests/browser"]),
)


def main(options: list[str]) -> int:
    """Runs both parts, also when the first fails; returns the exit status."""
    try:
        sys.stderr.write(f"Browser: {find_or_install()}\n")
    except NoBrowser as error:
        sys.stderr.write(f"{error}\n")
        return 1
    failed = [
        name
        for name, selection in PARTS
        if subprocess.call([sys.executable, "-m", "pytest", *selection, *options])
    ]
    sys.stderr.write(f"Failed: {', '.join(failed)}.\n" if failed else "All tests passed.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
