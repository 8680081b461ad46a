"""Start the server again when a file of the program changes."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from llamora.settings import resource


async def watch_files(stop: asyncio.Event) -> None:
    """Set `stop` when a Python file or template of the program changes."""
    root = resource("migrations").parent
    last_times = _modification_times(root)
    while True:
        await asyncio.sleep(1.0)
        times = await asyncio.to_thread(_modification_times, root)
        if times != last_times:
            stop.set()
            return


def _modification_times(root: Path) -> dict[str, float]:
    times: dict[str, float] = {}
    for folder, pattern in (
        ("src", "*.py"),
        ("src", "*.j2"),
        ("migrations", "*.sql"),
        ("config", "*.toml"),
    ):
        for file in (root / folder).rglob(pattern):
            with suppress(OSError):
                times[str(file)] = file.stat().st_mtime
    return times


def restart() -> None:
    """Become a new process of the same command."""
    os.execv(sys.executable, [sys.executable, "-m", "llamora", *sys.argv[1:]])  # noqa: S606 -- this very program
