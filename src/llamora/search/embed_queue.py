"""Queue entries to embed, each open journal in turn and newest first; embed queries too."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from logging import getLogger
from math import inf
from typing import TYPE_CHECKING

from llamora.persistence.local_db import LocalDB
from llamora.persistence.table import Sealed
from llamora.persistence.vectors import EntryVectors
from llamora.search.chunks import CHUNKING_VERSION, chunk_text
from llamora.search.embedder import Embedder, EmbedderUnavailable
from llamora.search.state import RETRY_SECONDS, UserIndexState, is_searchable
from llamora.text import strip_markdown

if TYPE_CHECKING:
    from llamora.search.arrays import Vectors

logger = getLogger(__name__)

EMBED_BATCH = 16  # entries whose vectors are stored in one transaction
INLINE_BYTES = 8_000  # of sealed entries, which are opened and cut within a millisecond
# Embedding waits until so long after the last entry of a burst, since it would take the processor
# from what is being written, but no longer than the second after the first entry.
DEBOUNCE_SECONDS = 0.1
MAX_DEBOUNCE_SECONDS = 0.3
MAX_QUERY_VECTORS = 32  # kept per user, for further pages and filters of a query


class EmbedQueue:
    """Embed the entries of unlocked users. One for each SearchService."""

    def __init__(
        self, db: LocalDB, embedder: Embedder, states: Mapping[bytes, UserIndexState]
    ) -> None:
        self._db = db
        self._embedder = embedder
        self._states = states
        self._has_work = asyncio.Event()
        self._embedding_user_id: bytes | None = None
        self._burst = (-inf, -inf)  # when the first and the last entry of the latest burst came
        self._debounce_skipped = asyncio.Event()
        self.previous_embedders: dict[str, Embedder] = {}

    def is_busy_with(self, state: UserIndexState) -> bool:
        """Return whether a user's entries are being embedded, or will be without a retry."""
        has_pending = state.unembedded and self.can_embed() and not state.retry_at
        return bool(has_pending) or self._embedding_user_id == state.user_id

    async def close(self) -> None:
        """Close the embedders of former models."""
        for name in list(self.previous_embedders):
            await self.previous_embedders.pop(name).close()

    async def embed_query(self, state: UserIndexState, text: str) -> "dict[str, Vectors]":
        """Return a query's vector by each model whose vectors are in use, the current one first."""
        vectors: dict[str, Vectors] = {}
        if not text:
            return vectors
        for model in sorted(
            {self.current_model(), *state.index.models},
            key=lambda model: model != self.current_model(),
        ):
            embedder = self.embedder_for(model)
            if embedder is None or not embedder.is_ready:
                continue
            with suppress(EmbedderUnavailable):
                cached = state.query_vectors.pop((model, text), None)
                vectors[model] = await embedder.embed_query(text) if cached is None else cached
                state.query_vectors[model, text] = vectors[model]
                while len(state.query_vectors) > MAX_QUERY_VECTORS:
                    state.query_vectors.popitem(last=False)
        return vectors

    def current_model(self) -> str:
        """Return the name of the current model, with the version of the chunking."""
        return f"{self._embedder.name}/{CHUNKING_VERSION}"

    def embedder_for(self, model: str) -> Embedder | None:
        """Return the embedder of a model, None where there is none.

        That of a former model is loaded in the background.
        """
        name = model.rpartition("/")[0]
        if name == self._embedder.name:
            return self._embedder
        embedder = self.previous_embedders.get(name)
        if embedder is None:
            if not self.can_embed() or not name:
                return None
            embedder = self.previous_embedders[name] = self._embedder.with_model(name)
        return None if embedder.state in ("off", "failed") else embedder

    def can_embed(self) -> bool:
        """Return whether there is a model, loaded or not."""
        return self._embedder.state not in ("off", "failed")

    def skip_debounce(self) -> None:
        """Embed just written entries now."""
        self._debounce_skipped.set()

    def enqueue(
        self, state: UserIndexState, ids: Iterable[bytes], *, just_written: bool = False
    ) -> None:
        """Queue entries, of which the last are embedded first.

        With `just_written` more may follow, and embedding waits for the end of the burst.
        """
        now = time.monotonic()
        if just_written:
            first, last = self._burst
            self._burst = (first if now - last < DEBOUNCE_SECONDS else now, now)
            self._debounce_skipped.clear()
        if self.can_embed():
            for entry_id in ids:
                state.unembedded.pop(entry_id, None)
                state.unembedded[entry_id] = None
            self._has_work.set()

    async def run(self) -> None:
        """Embed what is queued, a batch per user in turn; a failed batch is retried later.

        Runs until it is cancelled.
        """
        while True:
            # Copied, since others may be added while one is loaded.
            for embedder in list(self.previous_embedders.values()):
                if embedder.state == "cold":
                    await embedder.warm_up()
            queued = [state for state in self._states.values() if state.unembedded]
            now = time.monotonic()
            due = [state for state in queued if state.retry_at <= now]
            if not due or not self.can_embed():
                await self._close_unused_embedders()
                self._has_work.clear()
                with suppress(TimeoutError):
                    delay = min((state.retry_at - now for state in queued), default=None)
                    await asyncio.wait_for(
                        self._has_work.wait(), delay if self.can_embed() else None
                    )
                continue
            await self._wait_for_burst_end()
            for state in due:
                await self._embed_batch(state)
                await self._optimize_index(state)

    async def _embed_batch(self, state: UserIndexState) -> None:
        batch_size = min(EMBED_BATCH, len(state.unembedded))
        ids = [state.unembedded.popitem()[0] for _ in range(batch_size)]
        self._embedding_user_id = state.user_id
        try:
            await self._embed_entries(state, ids)
            state.retry_at, state.retry_delay = 0.0, RETRY_SECONDS[0]
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self._states.get(state.user_id) is state:
                logger.error("%d entries were not embedded (%s)", len(ids), type(error).__name__)
                state.unembedded = dict.fromkeys(reversed(ids)) | state.unembedded
                state.retry_at = time.monotonic() + state.retry_delay
                state.retry_delay = min(2 * state.retry_delay, RETRY_SECONDS[1])
        finally:
            self._embedding_user_id = None

    async def _wait_for_burst_end(self) -> None:
        while not self._debounce_skipped.is_set():
            first, last = self._burst
            remaining = (
                min(first + MAX_DEBOUNCE_SECONDS, last + DEBOUNCE_SECONDS) - time.monotonic()
            )
            if remaining <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._debounce_skipped.wait(), remaining)

    async def _close_unused_embedders(self) -> None:
        """Close the embedders of former models of which no index has a vector any more."""
        needed_names = {
            model.rpartition("/")[0]
            for user in self._states.values()
            for model in user.index.models
        }
        is_building = any(
            user.build_task is not None and not user.build_task.done()
            for user in self._states.values()
        )
        for name in [
            name for name in self.previous_embedders if name not in needed_names and not is_building
        ]:
            await self.previous_embedders.pop(name).close()

    async def _embed_entries(self, state: UserIndexState, ids: Sequence[bytes]) -> None:
        rows = await self._db.entries.get_sealed(state.user_id, ids)
        is_small = sum(len(sealed) for _, _, sealed in rows) <= INLINE_BYTES
        # A few short entries are not worth waiting for the index's thread.
        passages = (
            self._chunk_entries(state, rows)
            if is_small
            else await state.run_in_thread(self._chunk_entries, state, rows)
        )
        if not passages:
            return
        vectors = await self._embedder.embed_passages(
            [text for _, _, texts in passages for text in texts]
        )
        records: list[EntryVectors] = []
        start = 0
        for entry_id, revision, texts in passages:
            entry_vectors = vectors[start : start + len(texts)]
            start += len(texts)
            # Vectors of an entry that was edited or erased meanwhile are not kept.
            if self._states.get(state.user_id) is state and await state.run_in_thread(
                state.index.put_vectors, entry_id, revision, entry_vectors, self.current_model()
            ):
                data = entry_vectors.astype("<f4").tobytes()
                records.append(
                    EntryVectors(entry_id, revision, self.current_model(), self._embedder.dim, data)
                )
        await self._db.vectors.save(state.keys, records)
        state.mark_changed(len(records))

    async def _optimize_index(self, state: UserIndexState) -> None:
        """Optimize an index until it is done or more entries are to be embedded."""
        try:
            while (
                self._states.get(state.user_id) is state
                and await state.run_in_thread(state.index.optimize_step)
                and not state.unembedded
            ):
                pass
        except Exception as error:
            if self._states.get(state.user_id) is state:
                logger.error("an index could not be tidied (%s)", type(error).__name__)

    def _chunk_entries(
        self, state: UserIndexState, rows: Sequence[Sealed]
    ) -> list[tuple[bytes, int, list[str]]]:
        entries = self._db.entries.open_sealed(state.keys, rows)
        return [
            (entry.id, entry.revision, chunk_text(strip_markdown(entry.text)))
            for entry in entries
            if is_searchable(entry)
        ]
