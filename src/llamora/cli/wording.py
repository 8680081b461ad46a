"""The words in which the commands beside the server report."""

from collections.abc import Sequence
from datetime import datetime

from llamora.dates import format_day
from llamora.persistence.backup_format import Manifest

# Names of counts: one, several. Tables that mean nothing to a user are left out.
COUNT_NAMES = {
    "entries": ("entry or reply", "entries and replies"),
    "versions": ("earlier version", "earlier versions"),
    "drafts": ("draft", "drafts"),
    "tags": ("trace", "traces"),
    "search_history": ("search", "searches"),
}


def format_instant(instant: datetime) -> str:
    """Return an instant in words, to the minute."""
    return f"{format_day(instant.date())} at {instant:%H:%M} UTC"


def describe_records(manifest: Manifest) -> str:
    """Return what a backup holds in words."""
    counts = [
        f"{manifest.records[table]:,} {words[manifest.records[table] != 1]}"
        for table, words in COUNT_NAMES.items()
        if manifest.records.get(table)
    ]
    description = join_with_and(counts) if counts else "nothing written yet"
    if manifest.unreadable:
        description += f", of which {manifest.unreadable:,} did not open when it was made and are in it as they were"
    return description


def join_with_and(parts: Sequence[str]) -> str:
    """Join words with commas and a final "and"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
