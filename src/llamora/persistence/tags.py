"""Traces in the store: a sealed name under a keyed hash, and which entries carry it."""

from collections.abc import Iterable, Sequence
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound
from llamora.text import normal_form
from llamora.vault.envelope import Purpose, SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


def trace_hash(keys: Keyring, name: str) -> bytes:
    """The keyed hash that stands for a trace's name: compatibility-normalised and case-folded first."""
    folded = normal_form("NFKC", normal_form("NFKC", name).casefold())
    return keys.blind("trace", folded.encode("utf-8", "surrogatepass"))


class Tags:
    """`db.tags`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def add(self, keys: Keyring, entry_id: bytes, name: str) -> bytes:
        """Put a trace on an entry and return its hash; the first spelling of a name stays the shown one.

        Raises NotFound for an entry that is missing or another writer's.
        """
        trace = trace_hash(keys, name)
        sealed = keys.seal(Purpose.TAG, "tags", "sealed", trace, 1, name.encode("utf-8", "surrogatepass"))
        async with self._db.write() as tx:
            if not await tx.fetch("SELECT 1 FROM entries WHERE user_id=? AND id=?", (keys.user_id, entry_id)):
                raise NotFound("There is no such entry.")
            await tx.execute(
                "INSERT OR IGNORE INTO tags (user_id, trace, epoch, revision, sealed) VALUES (?, ?, ?, 1, ?)",
                (keys.user_id, trace, keys.epoch, sealed),
            )
            await tx.execute(
                "INSERT INTO entry_tags (user_id, trace, entry_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (keys.user_id, trace, entry_id),
            )
        return trace

    async def remove(self, keys: Keyring, entry_id: bytes, trace: bytes) -> None:
        """Take a trace off an entry; the name goes with its last entry."""
        async with self._db.write() as tx:
            await tx.execute(
                "DELETE FROM entry_tags WHERE user_id=? AND trace=? AND entry_id=?", (keys.user_id, trace, entry_id)
            )
            await tx.execute(
                "DELETE FROM tags WHERE user_id=? AND trace=? AND NOT EXISTS"
                " (SELECT 1 FROM entry_tags WHERE user_id=? AND trace=?)",
                (keys.user_id, trace, keys.user_id, trace),
            )
        await self._db.checkpoint()

    async def names(self, keys: Keyring) -> dict[bytes, str]:
        """Every trace of the writer, name by hash; unreadable ones are left out."""
        rows = await self._db.fetch("SELECT trace, revision, sealed FROM tags WHERE user_id=?", (keys.user_id,))
        names = {trace: self._open(keys, trace, revision, sealed) for trace, revision, sealed in rows}
        return {trace: name for trace, name in names.items() if name is not None}

    async def of_entries(self, keys: Keyring, ids: Sequence[bytes]) -> dict[bytes, list[str]]:
        """The names on each of these entries, in alphabetical order."""
        marks = ",".join("?" * len(ids))
        rows = await self._db.fetch(
            "SELECT entry_id, trace, revision, sealed FROM entry_tags JOIN tags USING (user_id, trace)"
            f" WHERE user_id=? AND entry_id IN ({marks})",
            (keys.user_id, *ids),
        )
        found: dict[bytes, list[str]] = {}
        for entry_id, trace, revision, sealed in rows:
            name = self._open(keys, trace, revision, sealed)
            if name is not None:
                found.setdefault(entry_id, []).append(name)
        return {entry_id: sorted(names, key=str.casefold) for entry_id, names in found.items()}

    async def by_entry(self, user_id: bytes) -> dict[bytes, frozenset[bytes]]:
        """The hashes of the traces on every entry of a writer that bears one."""
        rows = await self._db.fetch("SELECT entry_id, trace FROM entry_tags WHERE user_id=?", (user_id,))
        found: dict[bytes, set[bytes]] = {}
        for entry_id, trace in rows:
            found.setdefault(entry_id, set()).add(trace)
        return {entry_id: frozenset(traces) for entry_id, traces in found.items()}

    async def entries_with(self, keys: Keyring, traces: Iterable[bytes]) -> set[bytes]:
        """The ids of the entries that carry every one of these traces."""
        found: set[bytes] | None = None
        for trace in traces:
            rows = await self._db.fetch(
                "SELECT entry_id FROM entry_tags WHERE user_id=? AND trace=?", (keys.user_id, trace)
            )
            ids = {row[0] for row in rows}
            found = ids if found is None else found & ids
        return found or set()

    @staticmethod
    def _open(keys: Keyring, trace: bytes, revision: int, sealed: bytes) -> str | None:
        try:
            name = keys.open(Purpose.TAG, "tags", "sealed", trace, revision, sealed)
        except SealError as error:
            # One damaged name must not hide the others.
            logger.error("the name of a trace could not be opened (%s)", type(error).__name__)
            return None
        return name.decode("utf-8", "surrogatepass")
