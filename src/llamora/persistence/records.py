"""The kinds of sealed record that a writer has, for whatever goes over all of them: backups, checks, rotation.

A test holds the list to the schema: a table with a `sealed` column that is not here does not get in.
"""

from dataclasses import dataclass

from llamora.vault.envelope import Purpose
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Kind:
    """One table of records. `id` is the column that names a record in its envelope's context.

    `purpose` is None for a table of links, which has nothing sealed. `beside` are further columns. What is
    `derived` can be made again from the rest and does not go into a backup.
    """

    table: str
    purpose: Purpose | None
    id: str
    beside: tuple[str, ...] = ()
    revision: str = "revision"
    derived: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns but `user_id` and `sealed`."""
        own = () if self.id == "user_id" else (self.id,)
        return (*own, *self.beside, *(("epoch", self.revision) if self.purpose else ()))

    def open(self, keys: Keyring, record_id: bytes | int, revision: int, sealed: bytes) -> bytes:
        """The text of a record. Raises vault.envelope.SealError and vault.keys.KeyringClosed."""
        return keys.open(self._purpose(), self.table, "sealed", _in_context(record_id), revision, sealed)

    def seal(self, keys: Keyring, record_id: bytes | int, revision: int, text: bytes) -> bytes:
        """The envelope of a record in the current epoch. Raises vault.keys.KeyringClosed."""
        return keys.seal(self._purpose(), self.table, "sealed", _in_context(record_id), revision, text)

    def _purpose(self) -> Purpose:
        if self.purpose is None:
            raise ValueError(f"{self.table} has nothing sealed")
        return self.purpose


def _in_context(record_id: bytes | int) -> bytes:
    return record_id.to_bytes(4, "big") if isinstance(record_id, int) else record_id


# In the order in which they can be stored: what is pointed to comes before what points.
KINDS: tuple[Kind, ...] = (
    Kind("profiles", Purpose.PROFILE, "user_id"),
    Kind("entries", Purpose.ENTRY, "id", ("rid", "day")),
    Kind("tags", Purpose.TAG, "trace"),
    Kind("entry_tags", None, "entry_id", ("trace",)),
    Kind("trace_books", Purpose.TRACE, "user_id"),
    Kind("trace_changes", Purpose.TRACE, "id"),
    Kind("trace_refusals", Purpose.TRACE, "entry_id"),
    Kind("versions", Purpose.VERSION, "id", ("rid", "entry_id")),
    Kind("drafts", Purpose.DRAFT, "place"),
    Kind("digests", Purpose.RECEIPT, "place"),
    Kind("trash", Purpose.TRASH, "user_id"),
    Kind("search_history", Purpose.QUERY, "id"),
    Kind("vectors", Purpose.VECTOR, "entry_id", ("rid",), derived=True),
    Kind("devices", Purpose.SESSION, "session_id", derived=True),
    Kind("search_snapshots", Purpose.INDEX, "part", revision="generation", derived=True),
)
