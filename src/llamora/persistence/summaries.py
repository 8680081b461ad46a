"""Summaries and opening lines that a model wrote of a day or a tag, one sealed record each."""

from collections.abc import Callable, Collection, Sequence
from datetime import date
from typing import Literal

import msgspec

from llamora.persistence.connection import Connections, Step, Transaction
from llamora.persistence.entries import Omitted
from llamora.persistence.schema import SUMMARIES, SUMMARY_HASH
from llamora.persistence.table import SealedTable
from llamora.vault.keys import Keyring

SummaryKind = Literal["opening", "recap", "tag"]


class StoredSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text that a model wrote about a day or a tag.

    `day` is the day it is about, None for the summary of a tag, whose hash `tag_id` is. `sources`
    are the entries it was drawn from: the text cites them by number, in this order from 1.
    `content_hash` is a digest of their texts in hex. `model` wrote it, `omitted` counts what was
    left out for lack of room, `length_limited` is set when the model was cut off, and `quoted` are
    the quotations that stand in the prompt letter by letter.
    """

    kind: SummaryKind
    day: date | None
    text: str
    sources: tuple[bytes, ...]
    content_hash: str
    model: str
    omitted: Omitted = Omitted()
    length_limited: bool = False
    quoted: tuple[str, ...] = ()
    tag_id: bytes = b""


class StoredSummaries:
    """The store of summaries, reached as `db.summaries`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._table = SealedTable(connections, SUMMARIES, StoredSummary)

    async def get(
        self, keys: Keyring, kind: SummaryKind, subject: date | bytes
    ) -> StoredSummary | None:
        """Return the summary of this kind and subject, or None if it is missing or unreadable."""
        return await self._table.get_value(keys, summary_hash(keys, kind, subject))

    async def save(self, keys: Keyring, summary: StoredSummary, steps: Sequence[Step] = ()) -> None:
        """Store a summary over an older one, with further steps of the same action, all or none."""
        async with self._db.write(keys=keys) as tx:
            await self._table.put(tx, keys, {_hash_of(keys, summary): summary})
            for step in steps:
                await step(tx)

    async def save_unless(
        self, keys: Keyring, summary: StoredSummary, is_current: Callable[[StoredSummary], bool]
    ) -> bool:
        """Store a summary unless `is_current` accepts the stored one; return True if it was stored.

        The check and the save are one transaction.
        """
        key_hash = _hash_of(keys, summary)
        async with self._db.write(keys=keys) as tx:
            existing = await self._table.get_value(keys, key_hash, tx)
            if existing is not None and is_current(existing):
                return False
            await self._table.put(tx, keys, {key_hash: summary})
        return True

    async def delete(self, keys: Keyring, kind: SummaryKind, subject: date | bytes) -> None:
        async with self._db.write(keys=keys) as tx:
            await self._table.delete(tx, keys.user_id, [summary_hash(keys, kind, subject)])

    def deleting_for_sources(self, keys: Keyring, deleted_ids: Collection[bytes]) -> Step:
        """Return the step that deletes summaries drawn from these entries, and unreadable ones."""

        async def delete_summaries(tx: Transaction) -> None:
            outdated = [
                stored.id
                for stored in await self._table.fetch(keys, reader=tx)
                if stored.value is None or set(stored.value.sources) & set(deleted_ids)
            ]
            await self._table.delete(tx, keys.user_id, outdated)

        return delete_summaries


def summary_hash(keys: Keyring, kind: SummaryKind, subject: date | bytes) -> bytes:
    """Return the keyed hash a summary of a day or a tag is stored under."""
    text = subject.hex() if isinstance(subject, bytes) else subject.isoformat()
    return keys.blind(SUMMARY_HASH, f"{kind}:{text}".encode())


def _hash_of(keys: Keyring, summary: StoredSummary) -> bytes:
    return summary_hash(keys, summary.kind, summary.day or summary.tag_id)
