"""The queue of what is to be embedded: every open journal in turn, newest entries first. Questions too."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from logging import getLogger
from math import inf
from typing import TYPE_CHECKING

from llamora.persistence.local_db import LocalDB
from llamora.persistence.vectors import EntryVectors
from llamora.search.embedder import CHUNKING, Embedder, EmbedderUnavailable, chunks
from llamora.search.rank import plain
from llamora.search.state import RETRY_SECONDS, Unlocked, findable, opened_entries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

logger = getLogger(__name__)

EMBED_BATCH = 16  # entries whose vectors are stored in one transaction
AT_ONCE = 8_000  # bytes of sealed entries that are opened and cut within a millisecond
PAUSE_SECONDS = 0.1  # without another entry, before the vectors of what was just written are made, and
LONGEST_PAUSE_SECONDS = 0.3  # at most so long: they would take the processor from what is being written
ASKED = 32  # vectors of questions kept, for the pages and filters of what is looked for


class EmbedQueue:
    """Makes the vectors of the `users` whose journals are open. One for each SearchService."""

    def __init__(self, db: LocalDB, embedder: Embedder, users: Mapping[bytes, Unlocked]) -> None:
        self._db = db
        self._embedder = embedder
        self._users = users
        self._work = asyncio.Event()
        self._embedding: bytes | None = None  # whose entries are being embedded
        self._written = (-inf, -inf)  # when the first and the last entry of the present burst of writing came
        self._hurried = asyncio.Event()
        self.formers: dict[str, Embedder] = {}

    def busy_with(self, user: Unlocked) -> bool:
        """Whether entries of a writer are being embedded, or will be without anybody's doing."""
        waiting = user.unembedded and self.can_embed() and not user.retry_at
        return bool(waiting) or self._embedding == user.user_id

    async def close(self) -> None:
        """Let former models go."""
        for name in list(self.formers):
            await self.formers.pop(name).close()

    async def asked(self, user: Unlocked, text: str) -> "dict[str, Vectors]":
        """The vector of a question by every model whose vectors are in use, the one of the settings first."""
        asked: dict[str, Vectors] = {}
        if not text:
            return asked
        for model in sorted({self.model(), *user.index.models}, key=lambda model: model != self.model()):
            embedder = self.embedder_of(model)
            if embedder is None or not embedder.ready:
                continue
            with suppress(EmbedderUnavailable):
                known = user.asked.pop((model, text), None)
                asked[model] = await embedder.query(text) if known is None else known
                user.asked[model, text] = asked[model]
                while len(user.asked) > ASKED:
                    user.asked.popitem(last=False)
        return asked

    def model(self) -> str:
        """What the vectors are made with now."""
        return f"{self._embedder.name}/{CHUNKING}"

    def embedder_of(self, model: str) -> Embedder | None:
        """What made the vectors of a model, when it can be had; one used before is loaded in the background."""
        name = model.rpartition("/")[0]
        if name == self._embedder.name:
            return self._embedder
        known = self.formers.get(name)
        if known is None:
            if not self.can_embed() or not name:
                return None
            known = self.formers[name] = self._embedder.former(name)
        return None if known.state in ("off", "failed") else known

    def can_embed(self) -> bool:
        """Whether there is a model, or one that is still to be loaded."""
        return self._embedder.state not in ("off", "failed")

    def hurry(self) -> None:
        """Make the vectors of what was just written now."""
        self._hurried.set()

    def put(self, user: Unlocked, ids: Iterable[bytes], *, written: bool = False) -> None:
        """Have the vectors of entries made; the last come first. `written`: just now, and others may follow."""
        now = time.monotonic()
        if written:
            first, last = self._written
            self._written = (first if now - last < PAUSE_SECONDS else now, now)
            self._hurried.clear()
        if self.can_embed():
            for entry_id in ids:
                user.unembedded.pop(entry_id, None)
                user.unembedded[entry_id] = None
            self._work.set()

    async def run(self) -> None:
        """Embed what is queued, a batch per writer in turn, newest first; what failed is tried again later."""
        while True:
            for former in list(self.formers.values()):  # others may be asked for while one is loaded
                if former.state == "cold":
                    await former.warm_up()
            queued = [user for user in self._users.values() if user.unembedded]
            now = time.monotonic()
            waiting = [user for user in queued if user.retry_at <= now]
            if not waiting or not self.can_embed():
                await self._let_formers_go()
                self._work.clear()
                with suppress(TimeoutError):
                    soonest = min((user.retry_at - now for user in queued), default=None)
                    await asyncio.wait_for(self._work.wait(), soonest if self.can_embed() else None)
                continue
            await self._burst_over()
            for user in waiting:
                ids = [user.unembedded.popitem()[0] for _ in range(min(EMBED_BATCH, len(user.unembedded)))]
                self._embedding = user.user_id
                try:
                    await self._embed(user, ids)
                    user.retry_at, user.retry_after = 0.0, RETRY_SECONDS[0]
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    if self._users.get(user.user_id) is user:
                        logger.error("%d entries were not embedded (%s)", len(ids), type(error).__name__)
                        user.unembedded = dict.fromkeys(reversed(ids)) | user.unembedded
                        user.retry_at = time.monotonic() + user.retry_after
                        user.retry_after = min(2 * user.retry_after, RETRY_SECONDS[1])
                finally:
                    self._embedding = None
                await self._tidy(user)

    async def _burst_over(self) -> None:
        while not self._hurried.is_set():
            first, last = self._written
            wait = min(first + LONGEST_PAUSE_SECONDS, last + PAUSE_SECONDS) - time.monotonic()
            if wait <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), wait)

    async def _let_formers_go(self) -> None:
        """Close what made vectors that nobody has any more."""
        needed = {model.rpartition("/")[0] for user in self._users.values() for model in user.index.models}
        building = any(user.build is not None and not user.build.done() for user in self._users.values())
        for name in [name for name in self.formers if name not in needed and not building]:
            await self.formers.pop(name).close()

    async def _embed(self, user: Unlocked, ids: Sequence[bytes]) -> None:
        rows = await self._db.entries.get_sealed(user.user_id, ids)
        few = sum(len(sealed) for _, _, sealed in rows) <= AT_ONCE
        # What was just written does not wait on the index's thread until its words are indexed.
        passages = self._passages(user, rows) if few else await user.run(self._passages, user, rows)
        if not passages:
            return
        vectors = await self._embedder.passages([text for _, _, texts in passages for text in texts])
        made: list[EntryVectors] = []
        start = 0
        for entry_id, revision, texts in passages:
            own = vectors[start : start + len(texts)]
            start += len(texts)
            # An entry that was edited or erased meanwhile is queued again, or gone: nothing of it is kept.
            if self._users.get(user.user_id) is user and await user.run(
                user.index.put_vectors, entry_id, revision, own, self.model()
            ):
                data = own.astype("<f4").tobytes()
                made.append(EntryVectors(entry_id, revision, self.model(), self._embedder.dim, data))
        await self._db.vectors.save(user.keys, made)
        user.changed(len(made))

    async def _tidy(self, user: Unlocked) -> None:
        """Do what only makes searching faster; what is still to be embedded does not wait for it."""
        try:
            while self._users.get(user.user_id) is user and await user.run(user.index.tidy) and not user.unembedded:
                pass
        except Exception as error:
            if self._users.get(user.user_id) is user:
                logger.error("an index could not be tidied (%s)", type(error).__name__)

    def _passages(self, user: Unlocked, rows: Sequence[tuple[bytes, int, bytes]]) -> list[tuple[bytes, int, list[str]]]:
        entries, _ = opened_entries(self._db, user.keys, rows)
        return [(entry.id, entry.revision, chunks(plain(entry.text))) for entry in entries if findable(entry)]
