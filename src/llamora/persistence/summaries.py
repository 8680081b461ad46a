"""What a model said of a day, the line that opens it or its summary, or of a trace: one sealed record of each."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from logging import getLogger
from typing import Literal

from llamora.persistence.connection import Connections, Step, Transaction
from llamora.persistence.entries import record_bytes
from llamora.persistence.schema import SUMMARIES, SUMMARY_HASH
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

Kind = Literal["opening", "recap", "trace"]


@dataclass(slots=True, frozen=True)
class Digest:
    """Some sentences of a model's; `about` is the day, or for the kind "trace" the hash of the trace.

    `sources` are the entries they were drawn from, where the text cites by numbers in the order of these from 1, and
    `made_of` a digest of their texts in hex; `model` wrote it, `cut` is a sentence on what was left out for lack of
    room, or "", and `quoted` are its quotations that stand in the prompt letter by letter.
    """

    kind: Kind
    about: date | bytes
    text: str
    sources: tuple[bytes, ...]
    made_of: str
    model: str
    cut: str = ""
    quoted: tuple[str, ...] = ()


class Digests:
    """`db.digests`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def get(self, keys: Keyring, kind: Kind, about: date | bytes) -> Digest | None:
        """What there is of this kind; None also for one that does not open."""
        rows = await self._db.fetch(
            "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=? AND summary_key=?",
            (keys.user_id, place_of_digest(keys, kind, about)),
        )
        return _open(keys, *rows[0]) if rows else None

    async def put(self, keys: Keyring, digest: Digest, also: Sequence[Step] = ()) -> None:
        """Store it in place of an older one, with further steps of the same action, all or none."""
        async with self._db.write() as tx:
            await _put(tx, keys, digest)
            for step in also:
                await step(tx)

    async def put_unless(self, keys: Keyring, digest: Digest, stands: Callable[[Digest], bool]) -> bool:
        """Store it, unless in its place is one that `stands`; both in one transaction. Whether it is stored."""
        place = place_of_digest(keys, digest.kind, digest.about)
        async with self._db.write() as tx:
            rows = await tx.fetch(
                "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=? AND summary_key=?",
                (keys.user_id, place),
            )
            there = _open(keys, *rows[0]) if rows else None
            if there is not None and stands(there):
                return False
            await _put(tx, keys, digest)
        return True

    async def remove(self, keys: Keyring, kind: Kind, about: date | bytes) -> None:
        """Remove what there is of this kind."""
        async with self._db.write() as tx:
            await tx.execute(
                "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
                (keys.user_id, place_of_digest(keys, kind, about)),
            )

    def forgetting(self, keys: Keyring, gone: Collection[bytes]) -> Step:
        """The step that removes all that was drawn from these entries, and what does not open."""

        async def forget(tx: Transaction) -> None:
            rows = await tx.fetch(
                "SELECT summary_key, revision, sealed FROM summaries WHERE user_id=?", (keys.user_id,)
            )
            for place, revision, sealed in rows:
                digest = _open(keys, place, revision, sealed)
                if digest is None or set(digest.sources) & set(gone):
                    await tx.execute("DELETE FROM summaries WHERE user_id=? AND summary_key=?", (keys.user_id, place))

        return forget


async def _put(tx: Transaction, keys: Keyring, digest: Digest) -> None:
    place = place_of_digest(keys, digest.kind, digest.about)
    rows = await tx.fetch("SELECT revision FROM summaries WHERE user_id=? AND summary_key=?", (keys.user_id, place))
    revision = rows[0][0] + 1 if rows else 1
    sealed = SUMMARIES.seal(keys, place, revision, _packed(digest))
    await tx.execute(
        "INSERT INTO summaries (user_id, summary_key, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, place, keys.epoch, revision, sealed),
    )


def place_of_digest(keys: Keyring, kind: Kind, about: date | bytes) -> bytes:
    """Where the digest of a day or a trace is stored: a keyed hash."""
    return keys.blind(SUMMARY_HASH, f"{kind}:{_text_of(about)}".encode())


def _text_of(about: date | bytes) -> str:
    return about.hex() if isinstance(about, bytes) else about.isoformat()


def _packed(digest: Digest) -> bytes:
    return record_bytes(
        {
            "kind": digest.kind,
            "trace" if digest.kind == "trace" else "day": _text_of(digest.about),
            "text": digest.text,
            "sources": [source.hex() for source in digest.sources],
            "made_of": digest.made_of,
            "model": digest.model,
            "cut": digest.cut,
            "quoted": digest.quoted,
        }
    )


def _open(keys: Keyring, place: bytes, revision: int, sealed: bytes) -> Digest | None:
    try:
        record = json.loads(SUMMARIES.open(keys, place, revision, sealed))
    except SealError as error:
        # It can be made again; the page is shown without it.
        logger.error("a digest could not be opened (%s)", type(error).__name__)
        return None
    return Digest(
        record["kind"],
        bytes.fromhex(record["trace"]) if record["kind"] == "trace" else date.fromisoformat(record["day"]),
        record["text"],
        tuple(bytes.fromhex(source) for source in record["sources"]),
        record["made_of"],
        record["model"],
        record["cut"],
        tuple(record.get("quoted", ())),
    )
