"""Where the evaluation data lies: real texts nobody here wrote, read at run time, never copied into the project."""

import os
from pathlib import Path

import pytest


def evaluation_data(name: str) -> Path:
    """A file or folder of the evaluation data; skips the test where a machine does not have it."""
    root = Path(
        os.environ.get("LLAMORA_EVAL_DATA") or Path(__file__).parents[2] / "shared" / "data"
    )
    path = root / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine: set LLAMORA_EVAL_DATA")
    return path
