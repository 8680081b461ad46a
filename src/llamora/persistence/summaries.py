"""Summaries and opening lines that a model wrote of a day or a tag, one sealed record each."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from logging import getLogger
from typing import Literal

from llamora.persistence.connection import Connections, Step, Transaction
from llamora.persistence.entries import Omitted, encode_record
from llamora.persistence.schema import SUMMARIES, SUMMARY_HASH
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

SummaryKind = Literal["opening", "recap", "trace"]


@dataclass(slots=True, frozen=True)
class StoredSummary:
    """A text that a model wrote about a day or a tag.

    `subject` is the day or, for a tag's summary, the hash of the tag. `sources` are the entries it
    was drawn from: the text cites them by number, in this order from 1. `content_hash` is a digest
    of their texts in hex. `model` wrote it, `omitted` counts what was left out for lack of room,
    `length_limited` is set when the model was cut off, and `quoted` are the quotations that stand
    in the prompt letter by letter.
    """

    kind: SummaryKind
    subject: date | bytes
    text: str
    sources: tuple[bytes, ...]
    content_hash: str
    model: str
    omitted: Omitted = field(default_factory=Omitted)
    length_limited: bool = False
    quoted: tuple[str, ...] = ()


class StoredSummaries:
    """The store of summaries, reached as `db.summaries`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def get(
        self, keys: Keyring, kind: SummaryKind, subject: date | bytes
    ) -> StoredSummary | None:
        """Return the summary of this kind and subject, or None if it is missing or unreadable."""
        rows = await self._db.fetch(
            "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=? AND summary_key=?",
            (keys.user_id, summary_hash(keys, kind, subject)),
        )
        return _open(keys, *rows[0]) if rows else None

    async def save(self, keys: Keyring, summary: StoredSummary, steps: Sequence[Step] = ()) -> None:
        """Store a summary over an older one, with further steps of the same action, all or none."""
        async with self._db.write() as tx:
            await _save(tx, keys, summary)
            for step in steps:
                await step(tx)

    async def save_unless(
        self, keys: Keyring, summary: StoredSummary, is_current: Callable[[StoredSummary], bool]
    ) -> bool:
        """Store a summary unless `is_current` accepts the stored one; return True if it was stored.

        The check and the save are one transaction.
        """
        key_hash = summary_hash(keys, summary.kind, summary.subject)
        async with self._db.write() as tx:
            rows = await tx.fetch(
                "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=? AND summary_key=?",
                (keys.user_id, key_hash),
            )
            existing = _open(keys, *rows[0]) if rows else None
            if existing is not None and is_current(existing):
                return False
            await _save(tx, keys, summary)
        return True

    async def delete(self, keys: Keyring, kind: SummaryKind, subject: date | bytes) -> None:
        """Delete the summary of this kind and subject."""
        async with self._db.write() as tx:
            await tx.execute(
                "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
                (keys.user_id, summary_hash(keys, kind, subject)),
            )

    def deleting_for_sources(self, keys: Keyring, deleted_ids: Collection[bytes]) -> Step:
        """Return the step that deletes summaries drawn from these entries, and unreadable ones."""

        async def delete_summaries(tx: Transaction) -> None:
            rows = await tx.fetch(
                "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=?",
                (keys.user_id,),
            )
            for key_hash, revision, sealed in rows:
                summary = _open(keys, key_hash, revision, sealed)
                if summary is None or set(summary.sources) & set(deleted_ids):
                    await tx.execute(
                        "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
                        (keys.user_id, key_hash),
                    )

        return delete_summaries


async def _save(tx: Transaction, keys: Keyring, summary: StoredSummary) -> None:
    key_hash = summary_hash(keys, summary.kind, summary.subject)
    rows = await tx.fetch(
        "SELECT revision FROM summaries WHERE user_id=? AND summary_key=?", (keys.user_id, key_hash)
    )
    revision = rows[0][0] + 1 if rows else 1
    sealed = SUMMARIES.seal(keys, key_hash, revision, _encode(summary))
    await tx.execute(
        "INSERT INTO summaries (user_id, summary_key, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, key_hash, keys.epoch, revision, sealed),
    )


def summary_hash(keys: Keyring, kind: SummaryKind, subject: date | bytes) -> bytes:
    """Return the keyed hash a summary of a day or a tag is stored under."""
    return keys.blind(SUMMARY_HASH, f"{kind}:{_subject_text(subject)}".encode())


def _subject_text(subject: date | bytes) -> str:
    return subject.hex() if isinstance(subject, bytes) else subject.isoformat()


def _encode(summary: StoredSummary) -> bytes:
    return encode_record(
        {
            "kind": summary.kind,
            "trace" if summary.kind == "trace" else "day": _subject_text(summary.subject),
            "text": summary.text,
            "sources": [source_id.hex() for source_id in summary.sources],
            "made_of": summary.content_hash,
            "model": summary.model,
            "cut": asdict(summary.omitted),
            "limited": summary.length_limited,
            "quoted": summary.quoted,
        }
    )


def _open(keys: Keyring, key_hash: bytes, revision: int, sealed: bytes) -> StoredSummary | None:
    try:
        record = json.loads(SUMMARIES.open(keys, key_hash, revision, sealed))
    except SealError as error:
        # It can be made again; the page is shown without it.
        logger.error("a digest could not be opened (%s)", type(error).__name__)
        return None
    return StoredSummary(
        record["kind"],
        bytes.fromhex(record["trace"])
        if record["kind"] == "trace"
        else date.fromisoformat(record["day"]),
        record["text"],
        tuple(bytes.fromhex(source_id) for source_id in record["sources"]),
        record["made_of"],
        record["model"],
        Omitted(**record["cut"]),
        record["limited"],
        tuple(record.get("quoted", ())),
    )
