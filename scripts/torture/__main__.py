"""Everything that breaks things on purpose, one after the other: `python -m scripts.torture [--share 1.0]`.

Each prints one JSON object, after its name. `--share` is the part of the full counts to run: at 1.0, hours.
"""

import argparse
import subprocess
import sys

# What is run, with the counts of a full run: module, option, count.
FULL = (
    ("kill", "--kills", 2000),
    ("rotation", "--kills", 200),
    ("rounds", "--rounds", 100),
    ("users", "--writes", 200),
)


def main() -> int:
    """Run all; fails when one does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0)
    options = parser.parse_args()
    failed = 0
    for name, option, count in FULL:
        print(name, end=" ", flush=True)
        run = [sys.executable, "-m", f"scripts.torture.{name}", option, str(max(2, round(count * options.share)))]
        failed += subprocess.run(run, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
