"""Do what users do with entries and tags, in any order: `python -m scripts.torture.tags --examples 500`.

The machine of `tests/journal/test_tag_states.py`, of which the suite runs a few examples, with as many as are asked
for, each of up to 40 actions. After each, entries, search, counts and charts are compared with a plain model of them,
in two processes. Prints one JSON object; what went wrong is shown as the shortest row of actions that leads to it.
"""

import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from scripts.command import run
from scripts.torture.harness import any_of
from tests.journal.test_tag_states import Desk, Traced

STEPS = 40


class CountingMachine(Traced):
    """Count examples and comparisons."""

    examples = compared = 0

    def teardown(self) -> None:
        """Count an example at its end."""
        CountingMachine.examples += 1
        super().teardown()

    async def agree(self, desk: Desk) -> None:
        """Count a comparison after an action, in either process."""
        CountingMachine.compared += 1
        await super().agree(desk)


def torture(folder: Path, examples: int) -> dict[str, int]:  # noqa: ARG001 -- it has its own
    """Run so many examples; print what disagreed."""
    health = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    many = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=health,
    )
    wrong = 0
    try:
        run_state_machine_as_test(CountingMachine, settings=many)  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:
        wrong = 1
        print("\n".join([type(error).__name__, *getattr(error, "__notes__", [])]), file=sys.stderr)
    return {
        "examples": CountingMachine.examples,
        "compared": CountingMachine.compared,
        "wrong": wrong,
    }


if __name__ == "__main__":
    sys.exit(run(torture, failed=any_of("wrong"), examples=500))
