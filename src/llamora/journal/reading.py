"""Decide what a model may read; every prompt is built from what passes here."""

from collections.abc import Iterable, Sequence

from llamora.journal.threads import Thread, build_threads
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring


def model_may_read(entry: Entry, root: Entry) -> bool:
    """Return True if a prompt may hold an entry of the thread that begins with `root`.

    A root that is withheld, deleted or unreadable excludes its whole thread, as later messages
    may lack a mark of their own.
    """
    return all(
        each.deleted is None and not each.withheld and each.state != "unreadable"
        for each in (entry, root)
    )


def readable_entries(page: Sequence[Thread]) -> list[Entry]:
    """Return the user's entries on a page that the model may read, oldest first."""
    entries = [
        entry
        for thread in page
        for entry in thread.messages
        if entry.role == "me" and model_may_read(entry, thread.root)
    ]
    return sorted(entries, key=lambda entry: (entry.at, entry.id))


async def find_readable(db: LocalDB, keys: Keyring, ids: Iterable[bytes]) -> dict[bytes, Entry]:
    """Return those of these entries that the user wrote and the model may read, by id.

    Raises StorageError.
    """
    entries = await db.entries.get_many(keys, list(ids))
    return await keep_readable(db, keys, [entry for entry in entries if entry.role == "me"])


async def keep_readable(db: LocalDB, keys: Keyring, entries: Sequence[Entry]) -> dict[bytes, Entry]:
    """Return those of these entries and replies that the model may read, by id.

    Opens the pages of those that are not roots, to find their roots. Raises StorageError.
    """
    roots = {entry.id: entry for entry in entries if entry.parent_id is None}
    for day in {entry.day for entry in entries if entry.parent_id is not None}:
        for thread in build_threads(await db.entries.list_day(keys, day)):
            roots |= dict.fromkeys((e.id for e in thread.descendants), thread.root)
            roots.setdefault(thread.root.id, thread.root)
    return {e.id: e for e in entries if e.id in roots and model_may_read(e, roots[e.id])}
