"""The whole test suite: `python -m scripts.test [pytest options]`.

Brings a Chromium where there is none, runs what needs no browser on two processes, then tests/browser alone,
since a browser and a model want the processor for themselves.
"""

import subprocess
import sys

from scripts.browser import NoBrowser, find_or_bring

PARTS = (
    ("everything but the browser", ["-n", "2", "--ignore=tests/browser"]),
    ("the browser", ["tests/browser"]),
)


def main(options: list[str]) -> int:
    """Runs both parts, also when the first fails; returns the exit status."""
    try:
        sys.stderr.write(f"Browser: {find_or_bring()}\n")
    except NoBrowser as error:
        sys.stderr.write(f"{error}\n")
        return 1
    failed = [name for name, where in PARTS if subprocess.call([sys.executable, "-m", "pytest", *where, *options])]
    sys.stderr.write(f"Failed: {', '.join(failed)}.\n" if failed else "All tests passed.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
