"""The command line that scripts/bench and scripts/torture share: options in, one JSON object last."""

import argparse
import asyncio
import inspect
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = {
    "entries": "entries of the journal",
    "runs": "counted runs of each request",
    "seed": "of all that is left to chance",
    "seconds": "stop after so long; the number reached is printed",
}


class Unavailable(Exception):
    """Say why this machine cannot run it, in a sentence."""


def run(
    work: Callable[..., Any],
    *,
    failed: Callable[[dict[str, Any]], object] = lambda _: False,
    **options: Any,
) -> int:
    """Call `work` with a folder and what the command line says; print its result as JSON.

    An option is its default, or a dictionary of what `add_argument` takes. `work`, plain or async, gets each by
    name and returns a dictionary. Return the exit status: 1 where `failed` says so of the result.
    """
    program = sys.modules["__main__"]
    parser = argparse.ArgumentParser(
        prog=f"python -m {program.__spec__.name}" if program.__spec__ else None,
        description=program.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, option in options.items():
        plain = {"type": type(option), "default": option, "help": HELP.get(name)}
        parser.add_argument(
            f"--{name.replace('_', '-')}", **(option if isinstance(option, dict) else plain)
        )
    arguments = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="llamora-", ignore_cleanup_errors=True) as name:
        try:
            result = work(folder=Path(name), **arguments)
            if inspect.isawaitable(result):
                result = asyncio.run(_wait(result))
        except Unavailable as reason:
            print(json.dumps({"skipped": str(reason)}))
            return 0
    print(json.dumps(result))
    return int(bool(failed(result)))


async def _wait(result: Any) -> Any:
    return await result
