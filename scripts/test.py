"""The whole test suite: `python -m scripts.test [pytest options]`.

Brings a Chromium where there is none, runs what needs no browser on two processes, then tests/browser on two. What
fails runs a second time, alone: a test counts as failed when it fails twice, and what passes only then is named.
Nothing else is given a second chance: neither an error while tests are collected, nor a process that dies, nor a run
that ends early.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.browser import NoBrowser, find_or_install

PARTS = (
    ("everything but the browser", ["-n", "2", "--ignore=tests/browser"]),
    # A file's tests share servers, so they stay together.
    ("the browser", ["-n", "2", "--dist", "loadfile", "tests/browser"]),
)
RECORD = "JOURNAL_TEST_RECORD"  # names the file in which a run leaves its Record


@dataclass(slots=True, eq=False)  # pytest wants to hash its plugins
class RunRecord:
    """What a run of pytest came to: ids of tests, and whether all of them could have their say."""

    passed: list[str]
    failed: list[str]
    is_complete: bool = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected hides tests."""
        self.is_complete = self.is_complete and not report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test, or that its process died, which xdist reports as a phase of its own."""
        self.is_complete = self.is_complete and report.when in ("setup", "call", "teardown")
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave the record; a run that stopped early (`-x`, say) has not asked every test."""
        self.is_complete = self.is_complete and not (session.shouldfail or session.shouldstop)
        Path(os.environ[RECORD]).write_text(
            json.dumps([self.passed, self.failed, self.is_complete]), encoding="utf-8"
        )


def pytest_configure(config: pytest.Config) -> None:
    """This module is also the plugin that keeps the record, in the process that hears of every test."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(RunRecord([], []))


def run(options: Sequence[str]) -> tuple[bool, list[str]]:
    """Run pytest, and what failed of it once more; return whether all passed, and what did so only then."""
    with tempfile.TemporaryDirectory() as folder:
        cache = ("-p", "scripts.test", "-o", f"cache_dir={Path(folder, 'cache')}")
        first_status, first = _pytest([*options, *cache], Path(folder, "first"))
        failed = set(first.failed)
        if first_status != pytest.ExitCode.TESTS_FAILED or not first.is_complete or not failed:
            return first_status == pytest.ExitCode.OK, []
        sys.stderr.write(f"Once more, alone: {_format_list(failed)}\n")
        status, second = _pytest(
            [*options, *cache, "-n", "0", "--last-failed"], Path(folder, "second")
        )
        passed_on_rerun = failed & set(second.passed) - set(second.failed)
        return (
            status == pytest.ExitCode.OK and second.is_complete and passed_on_rerun == failed,
            sorted(passed_on_rerun),
        )


def _pytest(options: Sequence[str], record: Path) -> tuple[int, RunRecord]:
    status = subprocess.call(
        [sys.executable, "-m", "pytest", *options], env={**os.environ, RECORD: str(record)}
    )
    if not record.exists():  # it did not come as far as a first test, or died
        return status, RunRecord([], [], is_complete=False)
    return status, RunRecord(*json.loads(record.read_text(encoding="utf-8")))


def _format_list(tests: Sequence[str] | set[str]) -> str:
    return "".join(f"\n  {test}" for test in sorted(tests))


def main(options: list[str]) -> int:
    """Runs both parts, also when the first fails; returns the exit status."""
    try:
        sys.stderr.write(f"Browser: {find_or_install()}\n")
    except NoBrowser as error:
        sys.stderr.write(f"{error}\n")
        return 1
    failed: list[str] = []
    for name, selection in PARTS:
        passed, passed_on_rerun = run([*selection, *options])
        if passed_on_rerun:
            sys.stderr.write(f"Passed only the second time: {_format_list(passed_on_rerun)}\n")
        if not passed:
            failed.append(name)
    sys.stderr.write(f"Failed: {', '.join(failed)}.\n" if failed else "All tests passed.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
