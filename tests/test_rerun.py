"""What `scripts.test` makes of tests that fail: a second time alone, and no mercy for anything else."""

from pathlib import Path

import pytest

from scripts.test import run

# Fails the first time only, wherever it runs.
ONCE = """
from pathlib import Path
def test_once():
    been = Path(__file__).with_name("been-{name}")
    before, _ = been.exists(), been.touch()
    assert before
"""
ALWAYS = "def test_always(): assert False"
FINE = "def test_fine(): pass"
DIES = """
import os
from pathlib import Path
def test_dies():
    been = Path(__file__).with_name("been-dead")
    before, _ = been.exists(), been.touch()
    if not before:
        os._exit(3)
"""
BROKEN_ONCE = """
from pathlib import Path
been = Path(__file__).with_name("been-collected")
before, _ = been.exists(), been.touch()
assert before
def test_it(): pass
"""
TEARDOWN = """
import pytest
from pathlib import Path
@pytest.fixture
def thing():
    yield
    been = Path(__file__).with_name("been-torn")
    before, _ = been.exists(), been.touch()
    assert before
def test_torn(thing): pass
"""
LATE = ["test_once.py::test_once"]


def once(name: str = "") -> str:
    return ONCE.replace("{name}", name)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        pytest.param(
            {"fine": FINE, "once": once()},
            "-n2",
            (True, LATE),
            id="what passes the second time is named",
        ),
        pytest.param(
            {"once": once(), "torn": TEARDOWN, "always": ALWAYS},
            "-n0",
            (False, [*LATE, "test_torn.py::test_torn"]),
            id="one of three fails twice",
        ),
        pytest.param(
            {"once": once(), "broken": BROKEN_ONCE},
            "-n0",
            (False, []),
            id="one cannot be collected",
        ),
        pytest.param(
            {"once": once(), "broken": BROKEN_ONCE}, "-n2", (False, []), id="nor on two processes"
        ),
        pytest.param({"once": once(), "dies": DIES}, "-n2", (False, []), id="a process dies"),
        pytest.param(
            {"a": once("a"), "b": once("b"), "c": ALWAYS}, "-x", (False, []), id="it ended early"
        ),
        pytest.param({}, "-n0", (False, []), id="there are none"),
    ],
)
def test_a_test_fails_when_it_fails_twice(
    files: dict[str, str], options: str, expected: tuple[bool, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name, source in files.items():
        (tmp_path / f"test_{name}.py").write_text(source, encoding="utf-8")
    assert run([str(tmp_path), options]) == expected
