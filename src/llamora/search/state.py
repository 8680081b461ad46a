"""Hold what search knows of an unlocked user: the index, its thread, what is still to do."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from logging import getLogger
from typing import TYPE_CHECKING, TypeVar

from llamora.persistence.entries import Entry, fingerprint_weight
from llamora.search.index import UserIndex
from llamora.vault.keys import Keyring, KeyringClosed

if TYPE_CHECKING:
    from llamora.search.arrays import Vectors

logger = getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = (1.0, 300.0)  # before a failed batch is embedded again: at first, at most


@dataclass(slots=True, eq=False)
class UserIndexState:
    """Hold the index of one user, its thread, and what is still to do for it."""

    keys: Keyring
    index: UserIndex
    thread: ThreadPoolExecutor
    # Of every record, indexed or not.
    revisions: dict[bytes, int] = field(default_factory=dict[bytes, int])
    fingerprint_weight: int = 0  # the sum over `revisions`
    tags: dict[bytes, frozenset[bytes]] = field(default_factory=dict[bytes, frozenset[bytes]])
    tags_revision: int = -1  # at which `tags` were read
    tags_changed: set[bytes] = field(default_factory=set[bytes])  # entries to read tags of again
    unembedded: dict[bytes, None] = field(default_factory=dict[bytes, None])  # newest last
    query_vectors: OrderedDict[tuple[str, str], "Vectors"] = field(
        default_factory=OrderedDict[tuple[str, str], "Vectors"]
    )
    build_task: asyncio.Task[None] | None = None
    save_task: asyncio.Task[None] | None = None
    is_closed: bool = False
    is_loaded: bool = False
    is_complete: bool = False
    search_counter: tuple[int, int] | None = None
    running_count: int = 0
    unsaved_count: int = 0  # entries that differ from the snapshot
    changed_at: float = 0.0
    retry_at: float = 0.0
    retry_delay: float = RETRY_SECONDS[0]

    def set_revision(self, entry_id: bytes, revision: int) -> None:
        self.remove_revision(entry_id)
        self.revisions[entry_id] = revision
        self.fingerprint_weight += fingerprint_weight(entry_id, revision)

    def remove_revision(self, entry_id: bytes) -> None:
        old_revision = self.revisions.pop(entry_id, None)
        if old_revision is not None:
            self.fingerprint_weight -= fingerprint_weight(entry_id, old_revision)

    def clear_revisions(self) -> None:
        """Remove all revisions, so that every record is read again."""
        self.revisions.clear()
        self.fingerprint_weight = 0

    def mark_changed(self, count: int) -> None:
        """Count entries that differ from the snapshot."""
        self.unsaved_count += count
        self.changed_at = time.monotonic()

    async def run_in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` on the index's thread and return its result.

        Raises vault.keys.KeyringClosed when the user is locked meanwhile.
        """
        self.running_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)
        except Exception:
            if self.is_closed:  # whatever the error is, this caused it
                raise KeyringClosed("The journal was locked meanwhile.") from None
            raise
        finally:
            self.running_count -= 1

    def submit(self, work: Callable[..., object], *arguments: object) -> None:
        """Run `work` on the index's thread without waiting for it.

        A failure is logged, and the next build reads the store again.
        """
        self.running_count += 1
        future = asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)

        def on_done(future: "asyncio.Future[object]") -> None:
            self.running_count -= 1
            if not future.cancelled() and (error := future.exception()) is not None:
                logger.error("an index could not be updated (%s)", type(error).__name__)
                self.search_counter = None
                self.clear_revisions()

        future.add_done_callback(on_done)

    def close(self) -> None:
        """Cancel all work and forget everything."""
        self.is_closed = True
        for task in (self.build_task, self.save_task):
            if task is not None:
                task.cancel()
        self.unembedded.clear()
        self.query_vectors.clear()
        self.thread.submit(self.index.close)
        self.thread.shutdown(wait=False)

    @property
    def user_id(self) -> bytes:
        return self.keys.user_id


def is_searchable(entry: Entry) -> bool:
    """Return whether search shows an entry."""
    return entry.deleted is None and entry.state not in ("streaming", "unreadable")
