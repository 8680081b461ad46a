"""`doctor`: examine the journal, and with --user open every record of a user."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from llamora.cli.copy import name_copy
from llamora.cli.unlocking import CommandError, unlock
from llamora.cli.wording import join_with_and
from llamora.persistence.backups import copy_database
from llamora.persistence.doctor import Report, repair, run_checks
from llamora.settings import Settings, resource


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", default="", help="open every record of this writer; asks for the passphrase"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--mend", action="store_true", help="mend what can be mended, after a copy, without asking"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Examine and, if wanted, mend the journal; return 1 while something is damaged."""
    database, is_mending = settings.data.database, options.mend
    if not database.exists():
        raise CommandError("journal_missing", database=str(database))
    keys = asyncio.run(unlock(database, options.user))[1] if options.user else None
    report = run_checks(database, resource("migrations"), keys)
    if options.json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        _print_report(report, options.user)
    if report.mendable and not options.json:
        print(f"It could {join_with_and(report.mendable)}, after a copy of the whole database.")
        is_mending = is_mending or (
            sys.stdin.isatty() and input("Do that now? [y/N] ").strip().lower() in ("y", "yes")
        )
    if not report.mendable or not is_mending:
        return 1 if report.damage else 0
    copy_path = name_copy(database, "before-mending-", "%f")
    copy_database(database, copy_path)
    repairs = repair(database, keys)
    report_after = run_checks(database, resource("migrations"), keys)
    if not options.json:
        print(f"What was here is kept in {copy_path}.", *repairs, *report_after.damage, sep="\n")
    return 1 if report_after.damage else 0


def _print_report(report: Report, name: str) -> None:
    print(f"SQLite {report.sqlite}, {report.openssl}, schema {report.schema}.")
    print(f"Swap: {report.swap}; keys in memory: {report.memory}.")
    print(
        "In force: "
        + ", ".join(f"{pragma}={value}" for pragma, value in report.pragmas.items())
        + "."
    )
    for user_name, counts in report.records.items():
        print(
            f"{user_name}: "
            + (join_with_and([f"{n:,} {table}" for table, n in counts.items() if n]) or "nothing")
            + "."
        )
    if name and not report.damage:
        print(f"All {sum(report.opened.values()):,} records of {name} open.")
    print(
        *report.notes, *report.damage, sep="\n", end="\n" if report.notes or report.damage else ""
    )
    print("Something is damaged." if report.damage else "Nothing is damaged.")
