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
    ("users", "--writes", 200),
    ("streams", "--actions", 200),
    ("tags", "--examples", 2000),
)


def scale_count(count: int, share: float) -> int:
    """The count of a share of a full run."""
    return max(1, round(1 / share)) if count == 1 else max(6, round(count * share))


def main() -> int:
    """Run all; fails when one does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(name for name, _, _ in FULL_RUNS))
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    failed = 0
    for name, option, count in FULL_RUNS:
        if options.names and name not in options.names:
            continue
        print(name, end=" ", flush=True)
        command = [sys.executable, "-m", f"scripts.torture.{name}", option, str(scale_count(count, options.share))]
        failed += subprocess.run(command, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
