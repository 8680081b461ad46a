"""The script that breaks the program on purpose: what it breaks, and that a test is heard."""

from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import find_mutants, is_noticed

SOURCE = """\
def f(a: int, known: set[int]) -> bool:
    \"\"\"ü\"\"\"
    if not known or a < 3:
        print(a)
    return a in known
"""
TEST = """\
from code_under_test import f
def test_it() -> None:
    assert f(1, {1})
    assert not f(9, {1})
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one file and one test."""
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/code_under_test.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    return tmp_path


def test_each_way_to_break_a_file_is_found_once(checkout: Path) -> None:
    found = find_mutants(checkout / "src/code_under_test.py")
    assert {(mutant.before, mutant.after) for mutant in found} == {
        ("not known or a < 3", "not known and a < 3"),
        ("not known", "known"),
        ("a < 3", "a <= 3"),
        ("3", "4"),
        ("print(a)", "pass"),
        ("return a in known", "return None"),
        ("a in known", "a not in known"),
    }


def test_a_test_that_fails_notices_and_the_file_is_as_it_was(checkout: Path) -> None:
    file = checkout / "src/code_under_test.py"
    noticed = {
        mutant.after: is_noticed(mutant, ["test_it.py"], checkout)
        for mutant in find_mutants(file)
        if mutant.after in ("a <= 3", "a not in known")
    }
    assert noticed == {"a <= 3": False, "a not in known": True}
    assert file.read_text(encoding="utf-8") == SOURCE
