"""Does what a writer does with entries and traces, in any order: `python -m scripts.torture.tags --examples 500`.

The machine of `tests/journal/test_tag_states.py`, of which the suite runs a few examples, with as many as are asked
for, each of up to 40 deeds. After each deed entries, search, counts and charts are compared with a plain model of them,
in two processes. Prints one JSON object; what went wrong is shown as the shortest row of deeds that leads to it.
"""

import argparse
import json
import sys

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.journal.test_tag_states import Desk, Traced

STEPS = 40


class CountingMachine(Traced):
    """Knows how many examples and comparisons there were."""

    examples = compared = 0

    def teardown(self) -> None:
        """At the end of an example."""
        CountingMachine.examples += 1
        super().teardown()

    async def agree(self, desk: Desk) -> None:
        """After every deed, in either process."""
        CountingMachine.compared += 1
        await super().agree(desk)


def main() -> int:
    """Run, print, and fail when anything disagreed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=500)
    options = parser.parse_args()
    run = settings(
        max_examples=options.examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
    failed = 0
    try:
        run_state_machine_as_test(CountingMachine, settings=run)  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:
        failed = 1
        print("\n".join([type(error).__name__, *getattr(error, "__notes__", [])]), file=sys.stderr)
    print(
        json.dumps(
            {
                "examples": CountingMachine.examples,
                "compared": CountingMachine.compared,
                "wrong": failed,
            }
        )
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
