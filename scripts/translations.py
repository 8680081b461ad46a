"""Collects what the interface says into the catalogues: `python -m scripts.translations`.

From templates: what is marked with `_`, `ngettext` or `{% trans %}`. From Python: the same, what is `marked`, and
every sentence as it stands, since those that are made below `app/` are translated only where they are shown
(`llamora.app.i18n.said`). A sentence is text that begins with a capital or a blank and ends with a mark. The
blanks of an f-string keep the names of what fills them.

A new message is put into each `.po` without a translation, one that is gone is removed. tests/app/test_i18n.py
says what is still missing.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from llamora.app.i18n import CATALOGUE_FOLDER

SOURCES = Path(__file__).resolve().parents[1] / "src" / "llamora"
LAYERS = ("app", "journal", "search", "persistence", "llm", "vault")
# Said at the command line or to the model, and in English there.
SKIPPED_MODULES = (
    "app/i18n.py",
    "persistence/backups.py",
    "persistence/doctor.py",
    "persistence/migrations.py",
    "search/embedder.py",
    "search/minilm.py",
)
# Not sentences; told to whoever starts the server; an example for the model; put together anew (`app.views.translate_omitted`).
SKIPPED_TEXT = re.compile(
    r"SELECT |INSERT |UPDATE |DELETE |CREATE |PRAGMA |SQLite |Another Llamora|The data folder|The prompt |An entry\."
    r"|Left out for lack of room: "
)
SENTENCE = re.compile(r"[A-Z“{][^\n]* [^\n]*[.…?]", re.DOTALL)
MARKER_FUNCTIONS = frozenset({"_", "gettext", "gettext_noop"})
MESSAGE_PART_FUNCTIONS = frozenset({"_error"})  # llm/errors.py puts what happened and what to do together
# What begins such a sentence and ends it where the model is our own, and its name as receipts keep it.
EXTRA_MESSAGES = ("The model server at {place}", "The built-in model", "small built-in model", "ask again in a moment")
FIXED_DATE = datetime(2026, 1, 1, tzinfo=UTC)  # a date that moved would be a difference in every file

Message = str | tuple[str, ...]


def messages() -> dict[Message, None]:
    """Everything the interface says, in the order of the sources."""
    messages_found: dict[Message, None] = {}
    for template in sorted((SOURCES / "app" / "templates").rglob("*.html")):
        with template.open("rb") as source:
            for _, message, _, _ in extract("jinja2.ext:babel_extract", source, options={"trimmed": "true"}):
                messages_found[message] = None
    for layer in LAYERS:
        for file in sorted((SOURCES / layer).rglob("*.py")):
            if not file.relative_to(SOURCES).as_posix().endswith(SKIPPED_MODULES):
                messages_found.update(dict.fromkeys(extract_messages(file.read_text(encoding="utf-8"))))
    return messages_found | dict.fromkeys(EXTRA_MESSAGES)


def extract_messages(source: str) -> Iterator[Message]:
    """The messages of a Python module: what is marked, and what is a sentence."""
    tree = ast.parse(source)
    skipped_nodes = set(_skipped_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if name == "ngettext":
                yield (texts[0], texts[1])
            elif name in MARKER_FUNCTIONS:
                yield from texts
            elif name in MESSAGE_PART_FUNCTIONS:
                yield from filter(None, map(_message_text, node.args[1:3]))
        elif (
            node not in skipped_nodes
            and SENTENCE.fullmatch(text := _message_text(node))
            and not SKIPPED_TEXT.match(text)
        ):
            yield text


def _skipped_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, what goes to the log, and the parts of f-strings, which are taken as a whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield from (part for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Call) and _is_log_or_marker_call(ast.unparse(node.func)):
            yield from (arg for arg in node.args if isinstance(arg, ast.Constant))


def _is_log_or_marker_call(callee: str) -> bool:
    return callee.startswith("logger.") or callee in {*MARKER_FUNCTIONS, "ngettext"}


def _message_text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts: list[str] = []
    names: list[str] = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            name_nodes = [n for n in ast.walk(part.value) if isinstance(n, ast.Name | ast.Attribute)]
            name = (getattr(name_nodes[0], "attr", "") or getattr(name_nodes[0], "id", "")) if name_nodes else "value"
            name = name.strip("_").lower()
            names.append(name)
            parts.append(f"{{{name}{names.count(name) if names.count(name) > 1 else ''}}}")
        else:
            parts.append(str(getattr(part, "value", "")))
    return "".join(parts)


def update_catalogue(file: Path) -> Catalog:
    """The catalogue of a file with the messages of now, its translations kept."""
    code = file.stem.replace("-", "_")
    old_catalogue = read_po(BytesIO(file.read_bytes()), locale=code) if file.is_file() else Catalog(locale=code)
    new_catalogue = Catalog(locale=code, project="Llamora", version="1", charset="utf-8", fuzzy=False)
    new_catalogue.creation_date = FIXED_DATE
    new_catalogue.revision_date = FIXED_DATE
    new_catalogue.header_comment = f"# What the interface says, in {Locale.parse(code).english_name}."
    new_catalogue.last_translator = new_catalogue.language_team = new_catalogue.msgid_bugs_address = "Llamora"
    for message in messages():
        old_message = old_catalogue.get(message if isinstance(message, str) else message[0])
        new_catalogue.add(message, old_message.string if old_message and old_message.id == message else "")
    return new_catalogue


def find_faults(catalogue: Catalog) -> Iterator[str]:
    """What a translator still has to do: no translation, one in doubt, or blanks that differ."""
    for message in catalogue:
        source, target = _plural_forms(message.id), _plural_forms(message.string)
        if not source[0]:
            continue  # the head of the file
        if not all(target):
            yield f"not translated: {source[0]}"
        elif message.fuzzy:
            yield f"in doubt: {source[0]}"
        # Where one thing is counted, the number may be said in words.
        elif _placeholders(target[-1]) != _placeholders(source[-1]) or any(
            _placeholders(t) - _placeholders(source[-1]) for t in target
        ):
            yield f"other blanks: {source[0]}"


def _plural_forms(text: str | Sequence[str] | None) -> list[str]:
    return [text] if isinstance(text, str) else list(text or [""])


def _placeholders(text: str) -> Counter[str]:
    return Counter(re.findall(r"%\(\w+\)s|%%|\{\w+\}|</?[a-z]+[^>]*>", text))


def write_catalogue(file: Path) -> Catalog:
    """Bring a catalogue up to date and return it."""
    catalogue = update_catalogue(file)
    buffer = BytesIO()
    write_po(buffer, catalogue, width=110, no_location=True, sort_output=True)
    text = buffer.getvalue()
    if not file.is_file() or file.read_bytes() != text:
        file.write_bytes(text)
    return catalogue


def main() -> int:
    """Update every catalogue; the status is 1 while something is left to translate."""
    problems = [
        f"{file.name}: {fault}"
        for file in sorted(CATALOGUE_FOLDER.glob("*.po"))
        for fault in find_faults(write_catalogue(file))
    ]
    sys.stderr.writelines(f"{line}\n" for line in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
