"""What is written on disks may not change: these are literals here too, so that a rename shows."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llamora.persistence import schema
from llamora.persistence.drafts import Draft
from llamora.persistence.entries import Entry
from llamora.persistence.schema import PURPOSES, RECORD_KINDS, SEALED_KINDS
from llamora.persistence.search_history import PastQuery
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.tag_changes import TagDelta, TagMeta
from llamora.persistence.tags import RefusedNames
from llamora.persistence.trash import DeletedEntry
from llamora.persistence.versions import Version
from scripts.schema_docs import outdated, update_security

ROOT = Path(__file__).parents[2]

LABELS = {
    1: "entry",
    2: "tag",
    3: "vector",
    4: "query",
    5: "draft",
    6: "profile",
    7: "version",
    8: "summary",
    9: "index",
    10: "key",
    11: "session",
    13: "backup",
    14: "trash",
    15: "tagging",
    16: "checksum",
}
# Table, column bound by the envelope, column of the id, purpose.
PLACES = {
    ("profiles", "sealed", "user_id", 6),
    ("entries", "sealed", "id", 1),
    ("tags", "sealed", "tag", 2),
    ("tag_meta", "sealed", "user_id", 15),
    ("tag_changes", "sealed", "id", 15),
    ("tag_rejections", "sealed", "entry_id", 15),
    ("versions", "sealed", "id", 7),
    ("drafts", "sealed", "draft_key", 5),
    ("summaries", "sealed", "summary_key", 8),
    ("trash", "sealed", "user_id", 14),
    ("search_history", "sealed", "id", 4),
    ("vectors", "sealed", "entry_id", 3),
    ("devices", "sealed", "session_id", 11),
    ("search_snapshots", "sealed", "part", 9),
    ("checksums", "sealed", "part", 16),
    ("backup", "chunk", "digest", 13),
    ("backup", "last", "digest", 13),
}


def test_labels_and_places_are_what_they_were() -> None:
    assert {purpose.number: purpose.label for purpose in PURPOSES} == LABELS
    assert len(PURPOSES) == len(LABELS)
    kinds = [*RECORD_KINDS, schema.BACKUP_CHUNK, schema.BACKUP_LAST]
    assert {
        (each.table, each.column, each.id_column, each.purpose.number)
        for each in kinds
        if each.purpose
    } == PLACES
    hashes = (
        schema.DAY_HASH,
        schema.TAG_HASH,
        schema.DRAFT_HASH,
        schema.SUMMARY_HASH,
    )
    assert hashes == ("day", "tag", "draft", "summary")


RECORDS = {
    "entries": Entry,
    "tag_meta": TagMeta,
    "tag_changes": TagDelta,
    "tag_rejections": RefusedNames,
    "versions": Version,
    "drafts": Draft,
    "summaries": StoredSummary,
    "trash": DeletedEntry,
    "search_history": PastQuery,
}


def test_the_docs_say_what_is_in_each_record() -> None:
    page = (ROOT / "docs/encryption.md").read_text(encoding="utf-8")
    part = page.partition("### What the text of a record is")[2].partition("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE))
    assert rows.keys() == {kind.table for kind in SEALED_KINDS}
    for table, record in RECORDS.items():
        fields = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", rows[table]))
        assert fields == list(record.__struct_fields__), table


def test_the_tables_of_the_docs_are_those_of_the_declaration() -> None:
    assert outdated(ROOT, fix=False) == []
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    assert update_security(page.replace("| entries | day | keyed hash |\n", "")) == page


@pytest.mark.parametrize(
    "kind", [kind for kind in RECORD_KINDS if kind.purpose], ids=lambda kind: kind.table
)
def test_every_declared_kind_refuses_a_key_that_is_gone(
    path: Path, kind: schema.RecordKind
) -> None:
    values = dict.fromkeys(kind.columns, b"x" * 32) | {
        "user_id": b"u" * 16,
        "epoch": 1,
        kind.revision_column: 1,
    }
    values |= {name: b"i" * 16 for name in values if name in ("id", "entry_id")} | (
        {"rid": 1} if "rid" in values else {}
    )
    values |= {"part": 1} if "part" in values else {}

    def insert(connection: sqlite3.Connection, epoch: int) -> None:
        values["sealed"] = b"LL\1\1" + bytes(2) + epoch.to_bytes(4, "big") + bytes(400)
        marks = ", ".join("?" * len(values))
        connection.execute(
            f"INSERT INTO {kind.table} ({', '.join(values)}) VALUES ({marks})", [*values.values()]
        )

    with closing(sqlite3.connect(path)) as connection:  # foreign keys are off here
        connection.execute(
            "INSERT INTO data_keys VALUES (?, 2, ?)",
            (b"u" * 16, b"LL\1\1" + bytes(2) + (2).to_bytes(4, "big")),
        )
        with pytest.raises(sqlite3.IntegrityError, match="a key that is gone"):
            insert(connection, 1)
        insert(connection, 2)
        old = b"LL\1\1" + bytes(2) + (1).to_bytes(4, "big") + bytes(400)
        with pytest.raises(sqlite3.IntegrityError, match="a key that is gone"):
            connection.execute(f"UPDATE {kind.table} SET sealed=?", (old,))
