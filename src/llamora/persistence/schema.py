"""The kinds of sealed record and everything about them that is on the disk, declared once.

Purposes, table names, column names and labels go into envelopes and into key derivation: a record
sealed with one of them opens with no other. They are literals, so that no rename in the code can
lock anybody out. What the vault needs for itself (keys, sessions) is a literal there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from llamora.vault.envelope import KEY, SESSION, Purpose, SealError, WrongKey
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class RecordKind:
    """The place of the records of one kind.

    `id_column` is the column that names a record in its envelope's context. `purpose` is None for a
    table of links, which has nothing sealed. `derived` records can be made again from the rest and
    do not go into a backup. `column` is the name that the envelope binds.
    """

    table: str
    purpose: Purpose | None
    id_column: str
    extra_columns: tuple[str, ...] = ()
    revision_column: str = "revision"
    derived: bool = False
    column: str = "sealed"

    @property
    def columns(self) -> tuple[str, ...]:
        id_columns = () if self.id_column == "user_id" else (self.id_column,)
        return (
            *id_columns,
            *self.extra_columns,
            *(("epoch", self.revision_column) if self.purpose else ()),
        )

    def open(self, keys: Keyring, record_id: bytes | int, revision: int, sealed: bytes) -> bytes:
        """Open a record. Raise vault.envelope.SealError and vault.keys.KeyringClosed."""
        context_id = _context_id(record_id)
        try:
            return keys.open(self._purpose(), self.table, self.column, context_id, revision, sealed)
        except (OverflowError, TypeError, AttributeError):  # columns that no program of ours wrote
            raise WrongKey("no record has this revision or form") from None

    def try_open(
        self, keys: Keyring, columns: Mapping[str, bytes | int], sealed: bytes
    ) -> bytes | None:
        """Open a record that stands beside these columns; return None if it does not open."""
        record_id = columns.get(self.id_column, keys.user_id)
        revision = columns[self.revision_column]
        try:
            return self.open(keys, record_id, cast("int", revision), sealed)
        except SealError:
            return None

    def seal(self, keys: Keyring, record_id: bytes | int, revision: int, plaintext: bytes) -> bytes:
        """Seal a record in the current epoch. Raise vault.keys.KeyringClosed."""
        return keys.seal(
            self._purpose(), self.table, self.column, _context_id(record_id), revision, plaintext
        )

    def _purpose(self) -> Purpose:
        if self.purpose is None:
            raise ValueError(f"{self.table} has nothing sealed")
        return self.purpose


def _context_id(record_id: bytes | int) -> bytes:
    return record_id.to_bytes(4, "big", signed=True) if isinstance(record_id, int) else record_id


OPENS_UNRELEASED = "commit c4dda65"
"""The last commit that opens journals and backups of the schemas before the first release."""
OPENS_FORMER_RECORDS = "commit e9bf926"
"""The last commit that opens journals and backups of the records before the first release."""

# -- purposes ------------------------------------------------------------------------------------

ENTRY = Purpose(1, "entry")
TAG_NAME = Purpose(2, "tag")
VECTOR = Purpose(3, "vector")
QUERY = Purpose(4, "query")
DRAFT = Purpose(5, "draft")
PROFILE = Purpose(6, "profile")
VERSION = Purpose(7, "version")
SUMMARY = Purpose(8, "summary")
INDEX = Purpose(9, "index")
BACKUP = Purpose(13, "backup")
TRASH_LIST = Purpose(14, "trash")
TAGGING = Purpose(15, "tagging")
CHECKSUM = Purpose(16, "checksum")

PURPOSES = (
    ENTRY,
    TAG_NAME,
    VECTOR,
    QUERY,
    DRAFT,
    PROFILE,
    VERSION,
    SUMMARY,
    INDEX,
    KEY,
    SESSION,
    BACKUP,
    TRASH_LIST,
    TAGGING,
    CHECKSUM,
)

# -- tables --------------------------------------------------------------------------------------

PROFILES = RecordKind("profiles", PROFILE, "user_id")
ENTRIES = RecordKind("entries", ENTRY, "id", ("rid", "day"))
TAGS = RecordKind("tags", TAG_NAME, "tag")
ENTRY_TAGS = RecordKind("entry_tags", None, "entry_id", ("tag",))
TAG_META = RecordKind("tag_meta", TAGGING, "user_id")
TAG_CHANGES = RecordKind("tag_changes", TAGGING, "id")
TAG_REJECTIONS = RecordKind("tag_rejections", TAGGING, "entry_id")
VERSIONS = RecordKind("versions", VERSION, "id", ("rid", "entry_id"))
DRAFTS = RecordKind("drafts", DRAFT, "draft_key")
SUMMARIES = RecordKind("summaries", SUMMARY, "summary_key")
TRASH = RecordKind("trash", TRASH_LIST, "user_id")
SEARCH_HISTORY = RecordKind("search_history", QUERY, "id")
VECTORS = RecordKind("vectors", VECTOR, "entry_id", ("rid",), derived=True)
DEVICES = RecordKind("devices", SESSION, "session_id", derived=True)
SEARCH_SNAPSHOTS = RecordKind(
    "search_snapshots", INDEX, "part", revision_column="generation", derived=True
)
CHECKSUMS = RecordKind("checksums", CHECKSUM, "part", derived=True)

RECORD_KINDS = (  # in storage order: what is pointed to comes before what points
    PROFILES,
    ENTRIES,
    TAGS,
    ENTRY_TAGS,
    TAG_META,
    TAG_CHANGES,
    TAG_REJECTIONS,
    VERSIONS,
    DRAFTS,
    SUMMARIES,
    TRASH,
    SEARCH_HISTORY,
    VECTORS,
    DEVICES,
    SEARCH_SNAPSHOTS,
    CHECKSUMS,
)
"""Every table of records, for whatever goes over all of them: backups, checks, rotation.

A test holds the list to the schema: every table with a `sealed` column must be in it.
"""

SEALED_KINDS = tuple(kind for kind in RECORD_KINDS if kind.purpose is not None)
BACKUP_KINDS = tuple(kind for kind in RECORD_KINDS if not kind.derived)
"""The kinds that cannot be made again from the rest."""
SUMMED_KINDS = tuple(kind for kind in BACKUP_KINDS if kind is not SEARCH_HISTORY)
"""The kinds whose rows are in the sum of persistence/checksums.py."""
RESEALED_KINDS = tuple(kind for kind in SEALED_KINDS if kind is not SEARCH_SNAPSHOTS)
"""The kinds that a change of the data key seals anew. A snapshot is made anew instead."""

COLUMN_SHOWS = {
    "user_id": "owner",
    "id": "random",
    "entry_id": "random",
    "rid": "place from the random id",
    "session_id": "hash of a random token",
    "day": "keyed hash",
    "tag": "keyed hash",
    "draft_key": "keyed hash",
    "summary_key": "keyed hash",
    "part": "number of a part",
    "generation": "revision",
    "epoch": "epoch",
    "revision": "revision",
    "sealed": "sealed",
}
"""The columns, and what each tells whoever has the file: docs/security.md is written from this."""

DATA_KEY = (
    "typeof(epoch)='integer' AND epoch>0 AND printf('%08X', epoch) <= hex(substr("
    "(SELECT index_key FROM keyrings WHERE user_id=data_keys.user_id), 7, 4))"
)
"""The SQL condition for a row of data_keys that this program may have written.

The key of the blind indexes is sealed in the epoch of the newest data key.
"""

_EVENTS = {"new": "INSERT", "changed": "UPDATE OF sealed"}


def triggers(kind: RecordKind) -> list[str]:
    """Return the SQL of triggers that refuse a record sealed under a data key that is gone.

    Without them a change sealed just before another process erased an old key could be stored after
    it and would never open again. The epochs of record and key are read from their envelopes: bytes
    7 to 10. While a backup is restored there are no keys yet, so records that did not open when it
    was made can come back as they were.
    """
    return [
        f"""CREATE TRIGGER IF NOT EXISTS {kind.table}_{when}_under_a_living_key
BEFORE {event} ON {kind.table}
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys
        WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END"""
        for when, event in _EVENTS.items()
        if kind.purpose is not None
    ]


# -- sealed elsewhere ----------------------------------------------------------------------------

BACKUP_CHUNK = RecordKind("backup", BACKUP, "digest", column="chunk")
BACKUP_LAST = RecordKind("backup", BACKUP, "digest", column="last")
"""Parts of a backup file."""
PENDING_QUERIES = RecordKind("noted", QUERY, "id")
"""Queries that a URL names, in memory that the processes of a server share."""
RECOVERY_GROUPS = RecordKind("recovery", KEY, "user_id", column="group")
"""The group of a new recovery code that a form asks back, sealed in that form."""

# -- labels of blind indexes ---------------------------------------------------------------------

DAY_HASH = "day"
TAG_HASH = "tag"
DRAFT_HASH = "draft"
SUMMARY_HASH = "summary"
CHECKSUM_LABEL = "checksum"
