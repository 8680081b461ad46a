"""Decide what a model may read; every prompt is made of what passes here."""

from collections.abc import Iterable, Sequence

from llamora.journal.entries import Thread, build_threads
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring


def model_may_read(entry: Entry, root: Entry) -> bool:
    """Tell whether a prompt may hold an entry of the thread that begins with `root`.

    What is kept from the model, deleted or does not open takes its whole thread along when it is
    the root: what hangs on it may have come too late to bear a mark of its own.
    """
    return all(
        each.deleted is None and not each.withheld and each.state != "unreadable"
        for each in (entry, root)
    )


def readable_entries(page: Sequence[Thread]) -> list[Entry]:
    """Return what the user wrote on a page and the model may read, oldest first."""
    entries = [
        entry
        for thread in page
        for entry in (thread.root, *thread.descendants)
        if entry.role == "me" and model_may_read(entry, thread.root)
    ]
    return sorted(entries, key=lambda entry: (entry.at, entry.id))


async def find_readable(db: LocalDB, keys: Keyring, ids: Iterable[bytes]) -> dict[bytes, Entry]:
    """Return those of these entries that the user wrote and the model may read, by id."""
    entries = await db.entries.get_many(keys, list(ids))
    return await keep_readable(db, keys, [entry for entry in entries if entry.role == "me"])


async def keep_readable(db: LocalDB, keys: Keyring, entries: Sequence[Entry]) -> dict[bytes, Entry]:
    """Return those of these entries that the model may read, by id; replies too.

    Opens the pages of those that are not roots, to find these.
    """
    roots = {entry.id: entry for entry in entries if entry.parent_id is None}
    for day in {entry.day for entry in entries if entry.parent_id is not None}:
        for thread in build_threads(await db.entries.list_day(keys, day)):
            roots |= dict.fromkeys((e.id for e in thread.descendants), thread.root)
            roots.setdefault(thread.root.id, thread.root)
    return {e.id: e for e in entries if e.id in roots and model_may_read(e, roots[e.id])}
