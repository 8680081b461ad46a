"""Collects what the interface says into the catalogues: `python -m scripts.translations`.

From templates and Python: what is marked with `_`, `ngettext`, `gettext_noop` or `{% trans %}`; and all of
`llamora.messages` that a page may say.

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
from llamora.messages import PAGE_MESSAGES

SOURCES = Path(__file__).resolve().parents[1] / "src" / "llamora"
MARKER_FUNCTIONS = frozenset({"_", "gettext", "gettext_noop"})
FIXED_DATE = datetime(
    2026, 1, 1, tzinfo=UTC
)  # a date that moved would be a difference in every file

Message = str | tuple[str, ...]


def messages() -> dict[Message, None]:
    """Everything the interface says, in the order of the sources."""
    messages_found: dict[Message, None] = {}
    for template in sorted((SOURCES / "app" / "templates").rglob("*.html")):
        with template.open("rb") as source:
            for _, message, _, _ in extract(
                "jinja2.ext:babel_extract", source, options={"trimmed": "true"}
            ):
                messages_found[message] = None
    for file in sorted((SOURCES / "app").rglob("*.py")):
        messages_found.update(dict.fromkeys(extract_messages(file.read_text(encoding="utf-8"))))
    return messages_found | dict.fromkeys(PAGE_MESSAGES.values())


def extract_messages(source: str) -> Iterator[Message]:
    """The messages that are marked in a Python module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            texts = [
                arg.value
                for arg in node.args
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            ]
            if node.func.id == "ngettext":
                yield (texts[0], texts[1])
            elif node.func.id in MARKER_FUNCTIONS:
                yield from texts


def update_catalogue(file: Path) -> Catalog:
    """The catalogue of a file with the messages of now, its translations kept."""
    code = file.stem.replace("-", "_")
    old_catalogue = (
        read_po(BytesIO(file.read_bytes()), locale=code) if file.is_file() else Catalog(locale=code)
    )
    new_catalogue = Catalog(
        locale=code, project="Llamora", version="1", charset="utf-8", fuzzy=False
    )
    new_catalogue.creation_date = FIXED_DATE
    new_catalogue.revision_date = FIXED_DATE
    new_catalogue.header_comment = (
        f"# What the interface says, in {Locale.parse(code).english_name}."
    )
    new_catalogue.last_translator = new_catalogue.language_team = (
        new_catalogue.msgid_bugs_address
    ) = "Llamora"
    for message in messages():
        old_message = old_catalogue.get(message if isinstance(message, str) else message[0])
        new_catalogue.add(
            message, old_message.string if old_message and old_message.id == message else ""
        )
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
