"""The facade over the encrypted store: one database file, one object per kind of record."""

import asyncio
from pathlib import Path

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


class LocalDB:
    """The store. Every private column is sealed on the way in and opened on the way out, with the keys given.

    One user action is one transaction; when a method that writes returns, the change is on the disk.
    All methods raise persistence.connection.StorageError when SQLite refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = connections = Connections(path)
        self.users = Users(connections)
        self.profiles = Profiles(connections)
        self.key_rotation = KeyRotation(connections)
        self.sessions = Sessions(connections)
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
        """Open a database, brought to the newest schema. Raises StorageError."""
        db = cls(path)
        await db.open_connections()
        return db

    async def open_connections(self) -> None:
        """Bring the schema up and open the connections of a facade that was made without. Raises StorageError."""
        await asyncio.to_thread(run_db_migrations, self.path, resource("migrations"))
        await self._connections.open()

    async def data_version(self) -> int:
        """A number that differs once anything was committed, by this process or another."""
        return await self._connections.data_version()

    async def search_version(self) -> tuple[int, int]:
        """What differs once anything was committed that may concern what is searched, here or elsewhere."""
        return await self._connections.search_version()

    async def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, so that what was deleted is gone from both."""
        await self._connections.checkpoint()

    async def retry_checkpoint(self) -> None:
        """Make the last checkpoint again if somebody's reading kept it from emptying the log."""
        if self._connections.checkpoint_pending:
            await self._connections.checkpoint()

    async def close(self) -> None:
        """Close the connections after what is queued."""
        await self._connections.close()
