"""Run the tests without a browser on awkward dates: `python -m scripts.dates [DATE …] [--dated]`.

Only pytest and what it starts see the false clock, so installing, by whatever called this, goes by the true one.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.browser import install_from_debian

ROOT = Path(__file__).resolve().parents[1]
# Zone of the machine and its clock at the start. Most tests are about users in Berlin.
DATES = {
    "new-year": ("Europe/Berlin", "2028-01-01 00:10:00"),  # in UTC the old year still runs
    "leap-day": ("UTC", "2028-02-29 12:00:00"),
    "clock-change": ("Europe/Berlin", "2027-03-28 01:59:00"),  # at two it becomes three
    "new-years-eve": ("UTC", "2028-12-31 23:50:00"),  # in Berlin the new year has begun
}
# The files with tests that look at the clock.
DATED = (
    "tests/app/test_backups.py",
    "tests/app/test_calendar.py",
    "tests/app/test_days.py",
    "tests/app/test_summaries.py",
    "tests/app/test_i18n.py",
    "tests/app/test_palette.py",
    "tests/app/test_replies.py",
    "tests/app/test_sessions.py",
    "tests/app/test_time.py",
    "tests/app/test_trash.py",
    "tests/app/test_years.py",
    "tests/journal/test_time.py",
    "tests/journal/test_trash.py",
    "tests/search/test_service.py",
)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Run the tests without a browser on awkward dates."
    )
    parser.add_argument(
        "date", nargs="*", help=f"which ones, all if none is named: {', '.join(DATES)}"
    )
    parser.add_argument(
        "--dated", action="store_true", help="only the tests that look at the clock"
    )
    given = parser.parse_args()
    if unknown := set(given.date) - DATES.keys():
        parser.error(f"no such date: {', '.join(sorted(unknown))}")
    if shutil.which("faketime") is None:
        install_from_debian("faketime")
    if shutil.which("faketime") is None:
        sys.exit("faketime is not on this machine and could not be installed.")
    tests = DATED if given.dated else ("tests", "--ignore=tests/browser")
    failed: list[str] = []
    for name in given.date or DATES:
        zone, start = DATES[name]
        sys.stderr.write(f"{name}: {start} {zone}\n")
        command = [
            "faketime",
            start,
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        if subprocess.call(command, cwd=ROOT, env={**os.environ, "TZ": zone}) != 0:
            failed.append(name)
    if failed:
        sys.stderr.write(f"Failed on: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
