"""The facade over the encrypted store: one database file, one object per kind of record."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from llamora.persistence.attempts import Attempts, KnownDevices
from llamora.persistence.checksums import Checksums
from llamora.persistence.connection import Connections
from llamora.persistence.drafts import Drafts
from llamora.persistence.entries import Entries
from llamora.persistence.key_rotation import KeyRotation
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.search_history import SearchHistory
from llamora.persistence.sessions import Sessions
from llamora.persistence.snapshots import Snapshots
from llamora.persistence.summaries import StoredSummaries
from llamora.persistence.tags import Tags
from llamora.persistence.trash import Trash
from llamora.persistence.users import Profiles, Users
from llamora.persistence.vectors import Vectors
from llamora.persistence.versions import Versions
from llamora.settings import resource

VACUUM_PAGES = 250  # 1 MB given back to the system at a time
VACUUM_STEPS = 40  # at most, one after the other


class LocalDB:
    """The store. Private columns are sealed on the way in and opened on the way out.

    One user action is one transaction; when a method that writes returns, the change is on the
    disk. All methods raise persistence.connection.StorageError when SQLite refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = connections = Connections(path)
        self.checksums = Checksums(connections)
        self.users = Users(connections)
        self.profiles = Profiles(connections)
        self.key_rotation = KeyRotation(connections)
        self.sessions = Sessions(connections)
        self.attempts = Attempts(connections)
        self.known_devices = KnownDevices(connections)
        self.entries = Entries(connections)
        self.versions = Versions(connections)
        self.trash = Trash(connections)
        self.drafts = Drafts(connections)
        self.summaries = StoredSummaries(connections)
        self.tags = Tags(connections)
        self.vectors = Vectors(connections)
        self.snapshots = Snapshots(connections)
        self.search_history = SearchHistory(connections)

    @classmethod
    async def open(cls, path: Path) -> "LocalDB":
        """Open a database and migrate it to the newest schema. Raise StorageError."""
        db = cls(path)
        await db.open_connections()
        return db

    async def open_connections(self) -> None:
        """Migrate the schema and open the connections of an unopened facade. Raise StorageError."""
        await asyncio.to_thread(run_db_migrations, self.path, resource("migrations"))
        await self._connections.open()

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each commit of this process."""
        self._connections.on_commit = callback

    async def data_version(self) -> int:
        """Return a number that differs once this or another process committed anything."""
        return await self._connections.data_version()

    async def search_version(self) -> tuple[int, int]:
        """Return a value that differs once anything was committed that may concern search."""
        return await self._connections.search_version()

    async def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, so that deleted bytes are gone from both."""
        await self._connections.checkpoint()

    async def retry_checkpoint(self) -> None:
        """Make the last checkpoint again if a reader kept it from emptying the log."""
        if self._connections.checkpoint_pending:
            await self._connections.checkpoint()

    async def give_back_room(self) -> None:
        """Give pages that erasing left empty back to the system, a bounded number of them."""
        for _ in range(VACUUM_STEPS):
            if not (await self._connections.fetch("PRAGMA freelist_count"))[0][0]:
                return
            await self._connections.vacuum(VACUUM_PAGES)

    async def close(self) -> None:
        await self._connections.close()
