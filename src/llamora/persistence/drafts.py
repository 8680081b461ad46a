"""What is being written and not kept yet, sealed under a keyed hash of the place where it belongs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound, Step, Transaction
from llamora.persistence.entries import record_bytes
from llamora.persistence.schema import DRAFT_HASH, DRAFTS
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Pen:
    """One sitting at one form. `id` is random and becomes the id of what the form keeps.

    So a save that is late is known by its pen, for as long as what it wrote exists, on every worker and after
    every start. `took_up` is the pen of the draft that the form was filled with: keeping the form settles it too.
    """

    id: bytes
    took_up: bytes | None = None


@dataclass(slots=True, frozen=True)
class Draft:
    """Words on their way. `count` grows with every save of one pen; `revision` is the entry's that is edited."""

    place: str
    text: str
    pen: bytes
    count: int
    revision: int = 0


def day_place(day: date) -> str:
    """Where the composer of a day keeps its draft."""
    return f"day:{day.isoformat()}"


def edit_place(entry_id: bytes) -> str:
    """Where the edit of an entry keeps its draft."""
    return f"entry:{entry_id.hex()}"


def answer_place(entry_id: bytes) -> str:
    """Where an answer to a reply keeps its draft."""
    return f"answer:{entry_id.hex()}"


class Drafts:
    """`db.drafts`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    async def save(self, keys: Keyring, draft: Draft, about: bytes | None) -> bool:
        """Store a draft over the one in its place, or remove that when there is no text.

        False, and nothing is stored, when what this pen wrote has been kept meanwhile, or a later save of the
        same pen is here already. Raises NotFound when the entry that it is `about` is gone.
        """
        place = _hash(keys, draft.place)
        async with self._db.write(aside=True) as tx:
            own = (keys.user_id, about)
            if about is not None and not await tx.fetch("SELECT 1 FROM entries WHERE user_id=? AND id=?", own):
                raise NotFound("There is no such entry.")
            if await tx.fetch(
                "SELECT 1 FROM entries WHERE user_id=?1 AND id=?2"
                " UNION ALL SELECT 1 FROM versions WHERE user_id=?1 AND id=?2",
                (keys.user_id, draft.pen),
            ):
                return False
            revision, stored = await self._stored(tx, keys, place)
            if stored is not None and stored.pen == draft.pen and stored.count >= draft.count:
                return False
            if not draft.text.strip():
                await tx.execute("DELETE FROM drafts WHERE user_id=? AND draft_key=?", (keys.user_id, place))
                return True
            sealed = DRAFTS.seal(keys, place, revision + 1, _packed(draft))
            await tx.execute(
                "INSERT INTO drafts (user_id, draft_key, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
                (keys.user_id, place, keys.epoch, revision + 1, sealed),
            )
        return True

    async def at(self, keys: Keyring, places: Iterable[str]) -> dict[str, Draft]:
        """The drafts in these places, by place; unreadable ones are left out."""
        rows = await self._db.fetch("SELECT draft_key, revision, sealed FROM drafts WHERE user_id=?", (keys.user_id,))
        found: dict[str, Draft] = {}
        if rows:
            wanted = {_hash(keys, place): place for place in places}
            for place, revision, sealed in rows:
                if place in wanted and (draft := _open(keys, place, revision, sealed)) is not None:
                    found[wanted[place]] = draft
        return found

    async def remove(self, keys: Keyring, place: str) -> None:
        """Remove the draft of a place."""
        async with self._db.write(aside=True) as tx:
            await self.removing(keys, [place])(tx)

    def removing(self, keys: Keyring, places: Iterable[str]) -> Step:
        """The step that removes the drafts of these places, whoever wrote them."""
        rows = [(keys.user_id, _hash(keys, place)) for place in places]

        async def remove(tx: Transaction) -> None:
            await tx.execute_many("DELETE FROM drafts WHERE user_id=? AND draft_key=?", rows)

        return remove

    def settling(self, keys: Keyring, place: str, pen: Pen) -> Step:
        """The step that removes the draft of what the same transaction keeps; another sitting's draft stays."""

        async def settle(tx: Transaction) -> None:
            hashed = _hash(keys, place)
            _, stored = await self._stored(tx, keys, hashed)
            if stored is not None and stored.pen in (pen.id, pen.took_up):
                await tx.execute("DELETE FROM drafts WHERE user_id=? AND draft_key=?", (keys.user_id, hashed))

        return settle

    @staticmethod
    async def _stored(tx: Transaction, keys: Keyring, place: bytes) -> tuple[int, Draft | None]:
        rows = await tx.fetch(
            "SELECT revision, sealed FROM drafts WHERE user_id=? AND draft_key=?", (keys.user_id, place)
        )
        if not rows:
            return 0, None
        revision, sealed = rows[0]
        return revision, _open(keys, place, revision, sealed)


def _hash(keys: Keyring, place: str) -> bytes:
    return keys.blind(DRAFT_HASH, place.encode())


def _packed(draft: Draft) -> bytes:
    return record_bytes(
        {
            "place": draft.place,
            "text": draft.text,
            "pen": draft.pen.hex(),
            "count": draft.count,
            "revision": draft.revision,
        }
    )


def _open(keys: Keyring, place: bytes, revision: int, sealed: bytes) -> Draft | None:
    try:
        record = json.loads(DRAFTS.open(keys, place, revision, sealed))
    except SealError as error:
        # A damaged draft must not take the page away; the next save stands in its place.
        logger.error("a draft could not be opened (%s)", type(error).__name__)
        return None
    return Draft(record["place"], record["text"], bytes.fromhex(record["pen"]), record["count"], record["revision"])
