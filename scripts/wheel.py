"""The first day against the wheel: `python -m scripts.wheel`.

Builds the wheel, installs it with the locked dependencies into an empty venv, and runs the browser test of the
first day against the server that this venv starts, in an empty folder, in `prod`: without a network where this
process may make a place without one (Linux, as root; see scripts/offline.py).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.offline import FIRST_DAY, may_go_offline

ROOT = Path(__file__).parents[1]


def _run(*command: str | Path, **env: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **env})


def main() -> int:
    """Build, install, test; returns the test's exit status."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        folder = Path(name)
        python = (
            folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        )
        _run("uv", "build", "-q", "--wheel", "--out-dir", folder / "dist")
        _run("uv", "venv", "-q", "--python", sys.executable, folder / "venv")
        (wheel,) = (folder / "dist").glob("*.whl")
        install = ("uv", "pip", "install", "-q", "--python", python, "--no-deps")
        _run(*install, "--require-hashes", "-r", ROOT / "requirements.lock")
        _run(*install, wheel)
        _run(
            python,
            "-c",
            f"import llamora; assert not llamora.__file__.startswith({str(ROOT / 'src')!r})",
        )
        test = ("scripts.offline",) if may_go_offline() else ("pytest", "-q", FIRST_DAY)
        sys.stderr.write(f"First day against the wheel: {' '.join(test)}\n")
        return subprocess.call(
            [sys.executable, "-m", *test, "-k", "prod"],
            cwd=ROOT,
            env={**os.environ, "JOURNAL_TEST_PYTHON": str(python)},
        )


if __name__ == "__main__":
    sys.exit(main())
