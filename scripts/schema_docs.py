"""The tables of the docs that say what is declared in persistence/schema.py, written from there.

`python -m scripts.check` finds them out of date, and with `--fix` writes them anew.
"""

import re
from itertools import zip_longest
from pathlib import Path

from llamora.persistence.schema import (
    BACKUP_KINDS,
    COLUMN_SHOWS,
    PURPOSES,
    RECORD_KINDS,
    RecordKind,
)

PURPOSE_COLUMNS = 3


def shown(kind: RecordKind) -> list[tuple[str, str]]:
    """Every column of a kind, and what it shows to somebody who stole the file."""
    columns = ["user_id", *kind.columns, *(["sealed"] if kind.purpose else [])]
    return [(column, COLUMN_SHOWS[column]) for column in columns]


def update_security(page: str) -> str:
    """Write the rows of the declared kinds of "What a stolen database shows"."""
    rows = "".join(
        f"| {kind.table} | {column} | {shows} |\n"
        for kind in RECORD_KINDS
        for column, shows in shown(kind)
    )
    tables = "|".join(kind.table for kind in RECORD_KINDS)
    return re.sub(rf"(?:^\| (?:{tables}) \| .*\n)+", rows, page, count=1, flags=re.MULTILINE)


def update_encryption(page: str) -> str:
    """Write the table of purposes and the order of tables in a backup."""
    labels = {purpose.number: f"`{purpose.label}`" for purpose in PURPOSES}
    cells = [f"{number} | {labels.get(number, 'unused')}" for number in range(1, max(labels) + 1)]
    height = -(-len(cells) // PURPOSE_COLUMNS)
    columns = [cells[start : start + height] for start in range(0, len(cells), height)]
    rows = "".join(f"| {' | '.join(row)} |\n" for row in zip_longest(*columns, fillvalue=" | "))
    page = re.sub(
        r"(?:^\| \d+ \| (?:`\w+`|unused) \| .*\n)+", rows, page, count=1, flags=re.MULTILINE
    )
    order = ", ".join(kind.table for kind in BACKUP_KINDS)
    return re.sub(r"Tables come in the order [\w, ]+\.", f"Tables come in the order {order}.", page)


PAGES = {"docs/security.md": update_security, "docs/encryption.md": update_encryption}


def outdated(tree: Path, *, fix: bool) -> list[str]:
    """Return the pages that say something else than the declaration; with `fix` write them."""
    found: list[str] = []
    for name, update in PAGES.items():
        page = (tree / name).read_text(encoding="utf-8")
        if (updated := update(page)) != page:
            found.append(name)
            if fix:
                (tree / name).write_text(updated, encoding="utf-8", newline="\n")
    return found
