"""Everything that breaks things on purpose, one after the other: `python -m scripts.torture [--share 1.0]`.

Each prints one JSON object, after its name. `--share` is the part of the full counts to run: at 1.0, hours. With
names, only those are run.
"""

import argparse
import subprocess
import sys

# What is run, with the counts of a full run: module, option, count. Where a larger number means less (every n-th
# byte, change or place), the count is 1 and the share divides it.
FULL_RUNS = (
    ("forgery", "--stride", 1),
    ("kill", "--kills", 2000),
    ("power", "--cuts", 300),
    ("faults", "--step", 1),
    ("disk_theft", "--every", 1),
    ("rotation", "--kills", 200),
    ("backup_rounds", "--rounds", 100),
    ("sums", "--trials", 1000),
    ("users", "--writes", 200),
    ("streams", "--actions", 200),
    ("tags", "--examples", 2000),
)
# Run by name only: what they ask for is not so yet.
WANTED_RUNS = ("limits",)


def scale_count(count: int, share: float) -> int:
    """The count of a share of a full run."""
    return max(1, round(1 / share)) if count == 1 else max(6, round(count * share))


def main() -> int:
    """Run all; fails when one does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name for name, _, _ in FULL_RUNS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*names, *WANTED_RUNS)))
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    failed = 0
    runs = [
        (name, [option, str(scale_count(count, options.share))])
        for name, option, count in FULL_RUNS
    ]
    for name, arguments in [*runs, *((name, []) for name in WANTED_RUNS)]:
        if name not in (options.names or names):
            continue
        print(name, end=" ", flush=True)
        command = [sys.executable, "-m", f"scripts.torture.{name}", *arguments]
        failed += subprocess.run(command, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
