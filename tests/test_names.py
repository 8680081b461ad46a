"""Identifiers and template variables are the field's words: none of the old private ones comes back."""

import ast
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, nodes

import llamora

SOURCES = Path(llamora.__file__).parent
# Old names that are not also ordinary words, and what replaced them: docs/adr/0034-field-words.md.
OLD_NAMES = frozenset(
    """
    trace traces traced trace_id trace_key trace_hash borne bears bearing posted_pen new_pen pen_id
    took_up noted retraced tended tend tend_seconds digests would_say made_of sum_up grounding
    recalled forgetting without_erased that_cite echoed mirror left_to_undo none_came erased_alone
    row_place lexicon nearness in_a_row foresee seal_anew know_writer look_of see_other sent_with
    model_hidden told_to_stop to_the_end keep_out_of_dumps give_up
    """.split()
)


def identifiers(source: str) -> Iterator[str]:
    """Yield every name that a module defines, reads or passes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case _:
                pass


def template_names(source: str) -> Iterator[str]:
    """Yield every variable, attribute and filter of a template."""
    tree = Environment(extensions=["jinja2.ext.i18n"]).parse(source)
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Filter)):
        yield node.attr if isinstance(node, nodes.Getattr) else node.name  # type: ignore[attr-defined]


def test_no_old_name_is_left() -> None:
    found = {
        (path.relative_to(SOURCES).as_posix(), name)
        for path in SOURCES.rglob("*.py")
        for name in identifiers(path.read_text(encoding="utf-8"))
        if name.strip("_") in OLD_NAMES
    }
    found |= {
        (path.relative_to(SOURCES).as_posix(), name)
        for path in (SOURCES / "app" / "templates").rglob("*.html")
        for name in template_names(path.read_text(encoding="utf-8"))
        if name in OLD_NAMES
    }
    assert found == set()
    assert set(identifiers("def f(x): return x.trace")) == {"f", "x", "trace"}
    assert "traces" in set(template_names("{% for each in traces %}{{ each }}{% endfor %}"))
