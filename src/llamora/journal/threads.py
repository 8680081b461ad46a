"""Group the entries of a day into threads."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date

from llamora.persistence.connection import NotFound, Step
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring


@dataclass(slots=True, frozen=True)
class Thread:
    """An entry of a day, and the replies and answers below it in the order they were written."""

    root: Entry
    descendants: tuple[Entry, ...]

    @property
    def messages(self) -> tuple[Entry, ...]:
        return self.root, *self.descendants

    def path_to(self, entry_id: bytes) -> list[Entry]:
        """Return the messages from the root to an entry, each answered by the next.

        Deleted ones are left out. Returns an empty list if the entry is not in the thread.
        """
        by_id = {entry.id: entry for entry in self.messages}
        path: list[Entry] = []
        current = by_id.get(entry_id)
        while current is not None and current not in path:
            path.append(current)
            current = by_id.get(current.parent_id) if current.parent_id else None
        return [entry for entry in reversed(path) if entry.deleted is None]


def build_threads(entries: Iterable[Entry]) -> list[Thread]:
    """Group the records of one day into threads, keeping their order.

    An answer whose parent is missing becomes a root, and so does the earliest entry of a cycle:
    inconsistent links never hide an entry.
    """
    ordered = list(entries)
    by_id = {entry.id: entry for entry in ordered}
    positions = {entry.id: number for number, entry in enumerate(ordered)}

    def find_root(entry: Entry) -> bytes:
        path = {entry.id: entry}
        while entry.parent_id is not None and entry.parent_id in by_id:
            entry = by_id[entry.parent_id]
            if entry.id in path:
                cycle = list(path)
                return min(cycle[cycle.index(entry.id) :], key=positions.__getitem__)
            path[entry.id] = entry
        return entry.id

    descendants: dict[bytes, list[Entry]] = {}
    roots: list[Entry] = []
    for entry in ordered:
        root = find_root(entry)
        if root == entry.id:
            roots.append(entry)
        else:
            descendants.setdefault(root, []).append(entry)
    return [Thread(root, _sort_after_parents(root, descendants.get(root.id, []))) for root in roots]


def find_thread(page: Iterable[Thread], entry_id: bytes) -> Thread:
    """Return the thread of a page that has this message. Raises NotFound."""
    for thread in page:
        if any(entry.id == entry_id for entry in thread.messages):
            return thread
    raise NotFound("entry_not_found")


def _sort_after_parents(root: Entry, descendants: list[Entry]) -> tuple[Entry, ...]:
    """Sort the messages of a thread after their parents, even if a clock was put back."""
    placed_by_id = {root.id: root}
    pending = descendants
    while pending:
        unplaced: list[Entry] = []
        for entry in pending:
            if entry.parent_id in placed_by_id:
                placed_by_id[entry.id] = entry
            else:
                unplaced.append(entry)
        if len(unplaced) == len(pending):  # their parents are missing, so they come last
            placed_by_id |= {entry.id: entry for entry in unplaced}
            break
        pending = unplaced
    return tuple(placed_by_id.values())[1:]


def descendants_of(entry_id: bytes, thread_entries: Iterable[Entry]) -> list[Entry]:
    """Return the direct and indirect answers to an entry."""
    descendants, ids = list[Entry](), {entry_id}
    for entry in thread_entries:  # in a thread no message comes before its parent
        if entry.parent_id in ids:
            ids.add(entry.id)
            descendants.append(entry)
    return descendants


def require_none_below(
    db: LocalDB, keys: Keyring, day: date, known_ids: AbstractSet[bytes], entries: Iterable[Entry]
) -> Step:
    """Return a step that checks that `entries` have no answers but those in `known_ids`.

    It raises AlreadyExists.
    """
    answered_ids = {entry.id for entry in entries}
    return db.entries.require_no_new(keys, day, known_ids, lambda e: e.parent_id in answered_ids)
