"""Codes: each that is raised or kept has a sentence with the same blanks, and each sentence has a use."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import llamora
import llamora.__main__
import llamora.app  # with `__main__`, all that raises
from llamora.errors import Problem
from llamora.messages import MESSAGES, sentence

SOURCES = Path(llamora.__file__).parent
TREES = {
    file: ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted(SOURCES.rglob("*.py"))
    if file not in (SOURCES / "errors.py", SOURCES / "messages.py")
}
BLANK = re.compile(r"\{(\w+)\}")
NO_BLANKS = {"kind", "status", "is_body_readable"}  # what a constructor takes besides


def problem_names(kind: type[Problem] = Problem) -> set[str]:
    return {kind.__name__}.union(*map(problem_names, kind.__subclasses__()))


def raised_codes(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every text that is the code of a problem or a notice, where it stands as it is."""
    names = problem_names() | {"Notice", "code_error"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] in names
            and node.args
        ):
            first = node.args[0]
            for choice in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
                if isinstance(choice, ast.Constant) and isinstance(choice.value, str):
                    yield choice.value, node


def blanks_filled(call: ast.Call) -> set[str]:
    keywords = {keyword.arg for keyword in call.keywords if keyword.arg} - NO_BLANKS
    if len(call.args) > 1 and isinstance(call.args[1], ast.Dict):
        keywords |= {str(key.value) for key in call.args[1].keys if isinstance(key, ast.Constant)}
    return keywords


def test_what_is_raised_is_a_code_that_has_a_sentence_with_its_blanks() -> None:
    codes = [
        (file, code, call) for file, tree in TREES.items() for code, call in raised_codes(tree)
    ]
    assert len(codes) > 100
    assert [
        (file.name, code) for file, code, _ in codes if not re.fullmatch(r"[a-z_0-9]+", code)
    ] == []
    assert [(file.name, code) for file, code, _ in codes if code not in MESSAGES] == []
    assert [
        (file.name, code)
        for file, code, call in codes
        if not ast.unparse(call.func).endswith("code_error")  # it adds the place
        and blanks_filled(call) != set(BLANK.findall(MESSAGES[code]))
    ] == []


def test_every_sentence_is_used() -> None:
    texts = {
        node.value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(MESSAGES) - texts == set()


def test_a_problem_says_nothing_but_its_code() -> None:
    problem = Problem("tag_name_taken", name="heron")
    assert str(problem) == "tag_name_taken"
    assert "heron" not in repr(problem)
    assert sentence(problem) == "That name means the trace heron already."
