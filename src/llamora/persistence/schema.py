"""The kinds of sealed record and everything about them that stands on the disk, declared once.

Purposes, table names, column names and labels go into envelopes and into the derivation of keys: a record sealed with
one of them opens with no other. They are literals, so that no rename in the code can lock anybody out. What the vault
needs for itself (keys, sessions) is a literal there.
"""

from dataclasses import dataclass

from llamora.vault.envelope import KEY, SESSION, Purpose
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Kind:
    """Where the records of one kind live. `id` is the column that names a record in its envelope's context.

    `purpose` is None for a table of links, which has nothing sealed. `beside` are further columns. What is
    `derived` can be made again from the rest and does not go into a backup. `column` is the name that the envelope
    binds.
    """

    table: str
    purpose: Purpose | None
    id: str
    beside: tuple[str, ...] = ()
    revision: str = "revision"
    derived: bool = False
    column: str = "sealed"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but `user_id` and `sealed`."""
        own = () if self.id == "user_id" else (self.id,)
        return (*own, *self.beside, *(("epoch", self.revision) if self.purpose else ()))

    def open(self, keys: Keyring, record_id: bytes | int, revision: int, sealed: bytes) -> bytes:
        """Open a record. Raises vault.envelope.SealError and vault.keys.KeyringClosed."""
        return keys.open(self._purpose(), self.table, self.column, _in_context(record_id), revision, sealed)

    def seal(self, keys: Keyring, record_id: bytes | int, revision: int, text: bytes) -> bytes:
        """Seal a record in the current epoch. Raises vault.keys.KeyringClosed."""
        return keys.seal(self._purpose(), self.table, self.column, _in_context(record_id), revision, text)

    def _purpose(self) -> Purpose:
        if self.purpose is None:
            raise ValueError(f"{self.table} has nothing sealed")
        return self.purpose


def _in_context(record_id: bytes | int) -> bytes:
    return record_id.to_bytes(4, "big", signed=True) if isinstance(record_id, int) else record_id


OPENS_UNRELEASED = "commit c4dda65"
"""The last commit that opens journals and backups of the schemas before the first release."""

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
)

# -- tables --------------------------------------------------------------------------------------

PROFILES = Kind("profiles", PROFILE, "user_id")
ENTRIES = Kind("entries", ENTRY, "id", ("rid", "day"))
TAGS = Kind("tags", TAG_NAME, "tag")
ENTRY_TAGS = Kind("entry_tags", None, "entry_id", ("tag",))
TAG_META = Kind("tag_meta", TAGGING, "user_id")
TAG_CHANGES = Kind("tag_changes", TAGGING, "id")
TAG_REJECTIONS = Kind("tag_rejections", TAGGING, "entry_id")
VERSIONS = Kind("versions", VERSION, "id", ("rid", "entry_id"))
DRAFTS = Kind("drafts", DRAFT, "draft_key")
SUMMARIES = Kind("summaries", SUMMARY, "summary_key")
TRASH = Kind("trash", TRASH_LIST, "user_id")
SEARCH_HISTORY = Kind("search_history", QUERY, "id")
VECTORS = Kind("vectors", VECTOR, "entry_id", ("rid",), derived=True)
DEVICES = Kind("devices", SESSION, "session_id", derived=True)
SEARCH_SNAPSHOTS = Kind("search_snapshots", INDEX, "part", revision="generation", derived=True)

KINDS = (  # in the order in which they can be stored: what is pointed to comes before what points
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
)
"""Every table of records, for whatever goes over all of them: backups, checks, rotation.

A test holds the list to the schema: a table with a `sealed` column that is not here does not get in."""

_EVENTS = {"new": "INSERT", "changed": "UPDATE OF sealed"}


def triggers(kind: Kind) -> list[str]:
    """Write the triggers that let a record be stored only under a data key that is there.

    Without them a change that was sealed just before an old key was erased, in another process, could be stored after
    it and would never open again. Which key a record was sealed with is in its envelope, and so it is in that of the
    key: bytes 7 to 10. While a backup is put back there are no keys yet, so records that did not open when it was made
    can come back as they were.
    """
    return [
        f"""CREATE TRIGGER IF NOT EXISTS {kind.table}_{when}_under_a_living_key BEFORE {event} ON {kind.table}
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END"""
        for when, event in _EVENTS.items()
        if kind.purpose is not None
    ]


# -- sealed elsewhere ----------------------------------------------------------------------------

BACKUP_CHUNK = Kind("backup", BACKUP, "digest", column="chunk")
BACKUP_LAST = Kind("backup", BACKUP, "digest", column="last")
"""Parts of a backup file."""
PENDING_QUERIES = Kind("noted", QUERY, "id")
"""Queries that an address names, in memory that the processes of a server share."""
RECOVERY_GROUPS = Kind("recovery", KEY, "user_id", column="group")
"""The group of a new recovery code that a form asks back, in that form."""

# -- labels of blind indexes ---------------------------------------------------------------------

DAY_HASH = "day"
TAG_HASH = "tag"
DRAFT_HASH = "draft"
SUMMARY_HASH = "summary"
QUERY_HASH = "query"
