"""Break the program in small ways and see whether a test notices: `python -m scripts.mutants`.

One run of the suite without the browser learns which test runs which line (twenty minutes; `--map` keeps what it
learned). Each mutant then runs, in a copy of the checkout, only the tests that run its line, the quick ones first.
Prints a JSON line for each mutant and one with the sums. Which survivors change nothing that anybody could notice is
judged by reading.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vault", "persistence", "journal", "app", "search", "llm")
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "node_modules", "__pycache__", ".pytest_cache", "*.md"
)
RECORD = "JOURNAL_MUTANTS_RECORD"  # names the folder in which a run leaves what it learned
MOST_TESTS = 300
TIMEOUT_SECONDS = 240
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Mutant:
    """A change of one piece of source: `file` below the root, the line and bytes it stands at."""

    file: str
    line: int
    start: int
    end: int
    before: str
    after: str


def find_mutants(file: Path) -> list[Mutant]:
    """Return every mutant of a file, in the order of the source."""
    source = file.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutant] = {}
    for node, after in _mutations(ast.parse(source)):
        if ast.unparse(node) == after:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        found[start, end, after] = Mutant(
            file.relative_to(ROOT).as_posix(), node.lineno, start, end,
            source[start:end].decode(), after,
        )  # fmt: skip
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end))


def _mutations(tree: ast.AST) -> Iterator[tuple[Any, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
                yield node, _with(node, ops=[_COMPARISONS[type(operator)]()])
            case ast.BoolOp():
                yield node, _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
            case ast.UnaryOp(op=ast.Not()):
                yield node, ast.unparse(node.operand)
            case ast.BinOp() if type(node.op) in _OPERATORS and not _has_text(node):
                yield node, f"({_with(node, op=_OPERATORS[type(node.op)]())})"
            case ast.Constant(value=bool()):
                yield node, repr(not node.value)
            case ast.Constant(value=int() | float() as value):
                yield node, repr(value + 1)
            case ast.Return(value=ast.expr()):
                yield node, "return None"
            case ast.Expr(value=ast.Call() | ast.Await()) if not _logs(node.value):
                yield node, "pass"
            case ast.Raise():
                yield node, "pass"
            case _:
                pass


def _with(node: Any, **fields: Any) -> str:
    return ast.unparse(type(node)(**{name: getattr(node, name) for name in node._fields} | fields))


def _has_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in (node.left, node.right)
    )


def _logs(node: ast.expr) -> bool:
    return ast.unparse(node).startswith("logger.")


class Recorder:
    """A plugin of pytest that notes which test runs which line, and how long it takes."""

    def __init__(self, folder: Path) -> None:
        import coverage

        self._times: dict[str, float] = {}
        self._folder = folder
        self._coverage = coverage.Coverage(
            data_file=str(folder / "coverage"), data_suffix=True, source=[str(ROOT / "src")]
        )
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note lines under the name of the test that runs them."""
        self._coverage.switch_context(item.nodeid)
        begin = time.perf_counter()
        result = yield
        self._times[item.nodeid] = time.perf_counter() - begin
        self._coverage.switch_context("")
        return result

    def pytest_sessionfinish(self) -> None:
        """Leave what was noted in the folder."""
        self._coverage.stop()
        self._coverage.save()
        (self._folder / f"times-{os.getpid()}.json").write_text(json.dumps(self._times))


def pytest_configure(config: pytest.Config) -> None:
    """Record in the processes that run tests, when this module is a plugin of theirs."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(os.environ[RECORD])))


def record_lines(folder: Path) -> None:
    """Run the suite once and leave which test runs which line in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "scripts.mutants", "tests",
         "--ignore=tests/browser", "--ignore=tests/test_torture.py", "--ignore=tests/test_kill.py"],
        cwd=ROOT, env={**os.environ, RECORD: str(folder)}, check=False, stdout=sys.stderr,
    )  # fmt: skip


def read_lines(folder: Path) -> dict[tuple[str, int], list[str]]:
    """Return the tests that run a line, the quickest first, by file and line.

    Line 0 stands for the whole file: constants and defaults are read when it is imported, before
    any test.
    """
    import coverage

    times: dict[str, float] = {}
    for file in folder.glob("times-*.json"):
        times |= json.loads(file.read_text())
    data = coverage.CoverageData(str(folder / "combined"))
    for file in folder.glob("coverage.*"):
        part = coverage.CoverageData(str(file))
        part.read()
        data.update(part)
    tests_of: dict[tuple[str, int], list[str]] = {}
    for file in data.measured_files():
        name, of_file = Path(file).relative_to(ROOT).as_posix(), set[str]()
        for line, tests in data.contexts_by_lineno(file).items():
            tests_of[name, line] = sorted(
                filter(None, tests), key=lambda test: times.get(test, 0.0)
            )
            of_file.update(tests_of[name, line])
        tests_of[name, 0] = sorted(of_file, key=lambda test: times.get(test, 0.0))
    return tests_of


def is_noticed(mutant: Mutant, tests: list[str], copy: Path) -> bool:
    """Apply a mutant in a copy of the checkout and return whether a test fails; it is undone."""
    file = copy / mutant.file
    source = file.read_bytes()
    file.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
    try:
        (copy / "tests.txt").write_text("\n".join(tests))
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "@tests.txt"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy / "src")}, timeout=TIMEOUT_SECONDS,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        ).returncode != 0  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_bytes(source)


def main() -> int:
    """Sample mutants and print what became of them; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=120, help="how many, evenly over the packages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--map", type=Path, help="folder of what an earlier run learned, or for it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.map or Path(temporary, "map")
        if not folder.is_dir():
            record_lines(folder)
        lines = read_lines(folder)
        chance = random.Random(options.seed)  # noqa: S311 -- a sample
        sample: list[Mutant] = []
        for package in PACKAGES:
            files = sorted((ROOT / "src/llamora" / package).rglob("*.py"))
            mutants = [mutant for file in files for mutant in find_mutants(file)]
            sample += chance.sample(mutants, options.count // len(PACKAGES))
        copies = [Path(temporary, name) for name in ("one", "two")]
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
        noticed = 0
        with ThreadPoolExecutor(len(copies)) as pool:

            def judge(mutant: Mutant) -> tuple[Mutant, int, bool]:
                tests = lines.get((mutant.file, mutant.line)) or lines.get((mutant.file, 0), [])
                tests = tests[:MOST_TESTS]
                copy = copies.pop()
                try:
                    return mutant, len(tests), bool(tests) and is_noticed(mutant, tests, copy)
                finally:
                    copies.append(copy)

            for mutant, count, was_noticed in pool.map(judge, sample):
                noticed += was_noticed
                print(json.dumps({"noticed": was_noticed, "tests": count, "file": mutant.file,
                    "line": mutant.line, "before": mutant.before, "after": mutant.after}), flush=True)  # fmt: skip
        print(json.dumps({"seed": options.seed, "mutants": len(sample), "noticed": noticed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
