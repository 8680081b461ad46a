"""Answer searches over sealed records, from an index per unlocked user that it keeps up to date."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from logging import getLogger
from typing import TYPE_CHECKING, TypeVar

from llamora.errors import Notice
from llamora.events import ChangeSignal, EventBus
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.search.builder import IndexBuilder, make_document
from llamora.search.embed_queue import EmbedQueue
from llamora.search.embedder import Embedder
from llamora.search.index import DayCursor, UserIndex
from llamora.search.pending import PendingQueries
from llamora.search.query import Query, parse_query, query_from_text, relax_query
from llamora.search.ranking import Match, Matches
from llamora.search.results import Hit, SearchResults, build_hits
from llamora.search.snapshot_store import SnapshotStore
from llamora.search.state import UserIndexState, is_searchable
from llamora.settings import SearchSettings
from llamora.text import Role, strip_markdown
from llamora.vault.keys import Keyring, KeyringClosed

if TYPE_CHECKING:
    from llamora.search.arrays import Vectors

logger = getLogger(__name__)
T = TypeVar("T")

REFRESH_SECONDS = 0.15  # a query waits so long for what other processes wrote
BUILD_WAIT_SECONDS = 20.0  # a reply waits so long for a build: it may say that nothing was found
WATCH_SECONDS = 1.0  # between two looks at the store when no event says that it changed
UNFINISHED_PREFIX, FINISHED_PREFIX = "…", "."  # of a remembered query
MAX_OPEN_INDEXES = 32  # the least recently used is dropped, and built again when it is needed


class SearchService:
    """Search the journals of unlocked users. One per process.

    Methods are for the event loop; indexing and searching run on a thread per user.
    """

    def __init__(
        self,
        db: LocalDB,
        embedder: Embedder,
        settings: SearchSettings,
        pending: PendingQueries | None = None,
        changes: ChangeSignal | None = None,
    ) -> None:
        self._db = db
        self._settings = settings
        self._states: OrderedDict[bytes, UserIndexState] = OrderedDict()
        self._queue = EmbedQueue(db, embedder, self._states)
        self._snapshots = SnapshotStore(db, self._states, settings)
        self._builder = IndexBuilder(db, self._queue, self._snapshots)
        self._embed_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._pending = pending or PendingQueries()
        self._changes = changes or ChangeSignal(EventBus())
        self._is_unlocked = asyncio.Event()

    async def start(self) -> None:
        if self._embed_task is None:
            self._embed_task = asyncio.create_task(self._queue.run())
            self._watch_task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        tasks = [task for task in (self._embed_task, self._watch_task) if task is not None]
        self._embed_task = self._watch_task = None
        for state in self._states.values():
            tasks += [task for task in (state.build_task, state.save_task) if task is not None]
        for task in tasks:
            task.cancel()
        for user_id in list(self._states):
            self.lock(user_id)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._queue.close()

    async def unlock(self, keys: Keyring) -> None:
        """Begin to build the user's index, unless it is there, and return at once."""
        self._open_index(keys)

    def lock(self, user_id: bytes) -> None:
        self._pending.forget(user_id)
        state = self._states.pop(user_id, None)
        if state is not None:
            state.close()

    def unlocked_user_ids(self) -> list[bytes]:
        return list(self._states)

    def put(self, keys: Keyring, entry: Entry) -> None:
        """Index an entry that was added, edited or tagged; its vectors follow."""
        if keys.user_id not in self._states:
            return  # it is read at unlock
        state = self._open_index(keys)
        state.set_revision(entry.id, max(entry.revision, state.revisions.get(entry.id, 0)))
        state.mark_changed(1)
        if not is_searchable(entry):
            state.submit(state.index.drop, [entry.id])
            return
        # The next build reads its tags, a moment later.
        state.submit(state.index.put, [make_document(entry)])
        state.tags.pop(entry.id, None)
        state.tags_changed.add(entry.id)
        state.search_counter = None  # a running build may have read the entry before this change
        state.retry_at = 0.0
        self._queue.enqueue(state, [entry.id], just_written=True)

    def mark_tags_changed(self, user_id: bytes, revision: int, entry_ids: Iterable[bytes]) -> None:
        """Have the tags of entries read again after the change that led to `revision`."""
        state = self._states.get(user_id)
        if state is not None:
            state.tags_changed.update(entry_ids)
            state.tags_revision = revision if state.tags_revision == revision - 1 else -1

    def drop(self, user_id: bytes, entry_ids: Iterable[bytes]) -> None:
        state = self._states.get(user_id)
        if state is not None:
            self._builder.drop(state, list(entry_ids))

    async def remember_query(self, keys: Keyring, query: str, *, is_typing: bool = False) -> bytes:
        return await self._pending.add(
            keys, (UNFINISHED_PREFIX if is_typing else FINISHED_PREFIX) + query
        )

    def forget_queries(self, user_id: bytes) -> None:
        """Forget the user's pending queries and the vectors of queries."""
        self._pending.forget(user_id)
        if (state := self._states.get(user_id)) is not None:
            state.query_vectors.clear()

    async def query_for(self, keys: Keyring, name: bytes) -> tuple[str, bool]:
        """Return the query of a name, "" for an unknown one, and whether it was unfinished."""
        stored = await self._pending.get(keys, name)
        return stored[1:], stored.startswith(UNFINISHED_PREFIX)

    async def search(
        self,
        keys: Keyring,
        query: str,
        *,
        today: date,
        limit: int = 20,
        offset: int = 0,
        is_typing: bool = False,
        role: Role | None = None,
        language: str = "en",
    ) -> SearchResults:
        """Return the entries that match a query, which query.parse_query parses.

        `today` is the user's. Words are searched even while the index is being built or without an
        embedding model. Every result is read from the store again, so nothing erased or foreign is
        shown. With `is_typing` the last word is unfinished. `role` allows one author only, whatever
        the query asks for. Raises StorageError.
        """
        parsed = parse_query(query, today, is_typing, language)
        if role is not None:
            parsed = replace(
                parsed,
                role=role,
                is_impossible=parsed.is_impossible or parsed.role not in (None, role),
            )

        async def run_search(state: UserIndexState) -> SearchResults:
            _, query_vectors = await asyncio.gather(
                self._refresh(state), self._queue.embed_query(state, parsed.semantic_text)
            )
            allowed_ids = None
            if parsed.tags:
                allowed_ids = await self._db.tags.entries_with_tags(keys, parsed.tags)
            return await self._search_index(
                state, parsed, query_vectors, allowed_ids, limit, offset
            )

        return await self._with_index(keys, run_search)

    async def find_passages(
        self,
        keys: Keyring,
        text: str,
        *,
        today: date,
        excluded_ids: AbstractSet[bytes] = frozenset(),
        limit: int = 3,
        wait_for_build: bool = False,
    ) -> tuple[Match, ...]:
        """Return matches among the user's own entries for the words of a text, best first.

        No sign in the text is an operator; days it mentions score as in a search. The index may
        know less or more than the store: whoever reads the entries must check them. With
        `wait_for_build` an incomplete index is waited for, BUILD_WAIT_SECONDS at most.
        """
        parsed = replace(query_from_text(text, today), role="me")
        weight = self._settings.lexical_weight

        async def run_search(state: UserIndexState) -> Matches:
            if not state.is_complete:
                # A complete index is kept up to date by `_watch`, and a reply does not wait for it.
                await self._refresh(state)
                if wait_for_build and not state.is_complete and state.build_task is not None:
                    await asyncio.wait([state.build_task], timeout=BUILD_WAIT_SECONDS)
            query_vectors = await self._queue.embed_query(state, parsed.semantic_text)
            return await state.run_in_thread(
                lambda: state.index.ranker.search(
                    parsed, query_vectors, weight, limit + len(excluded_ids), 0
                )
            )

        matches = (await self._with_index(keys, run_search)).matches
        return tuple(match for match in matches if match.entry_id not in excluded_ids)[:limit]

    async def find_related(
        self,
        keys: Keyring,
        entry: Entry,
        *,
        limit: int = 5,
        excluded_ids: AbstractSet[bytes] = frozenset(),
    ) -> tuple[Hit, ...]:
        """Return the user's own entries nearest to an entry, by vectors that are indexed already.

        Without vectors its words are searched. Raises StorageError.
        """
        state = self._open_index(keys)
        await self._refresh(state)
        ignored_ids = {entry.id, *excluded_ids}
        vectors = await state.run_in_thread(self._mean_vector, state, entry.id)
        if vectors:
            page: Sequence[Match] = await state.run_in_thread(
                lambda: state.index.ranker.find_nearest(vectors, limit, ignored_ids)
            )
        else:
            page = await self.find_passages(
                keys,
                strip_markdown(entry.text),
                today=entry.day,
                excluded_ids=ignored_ids,
                limit=limit,
            )
        rows = await self._db.entries.get_sealed(state.user_id, [match.entry_id for match in page])
        query = Query() if vectors else query_from_text(strip_markdown(entry.text), entry.day)
        return await state.run_in_thread(build_hits, self._db, state, query, page, rows)

    async def days_of(self, keys: Keyring, ids: Sequence[bytes]) -> list[int]:
        state = self._open_index(keys)
        return await state.run_in_thread(lambda: state.index.days_of(ids))

    async def days_changed_since(
        self, keys: Keyring, cursor: DayCursor | None
    ) -> tuple[DayCursor, list[bytes] | None]:
        """Return the cursor of now, and whose day may differ since `cursor`; None means any."""
        state = self._open_index(keys)
        return await state.run_in_thread(lambda: state.index.days_changed_since(cursor))

    async def save_snapshot(self, user_id: bytes) -> bool:
        """Seal the user's index into the store; see SnapshotStore.save."""
        return await self._snapshots.save(user_id)

    async def word_counts_by_day(
        self, keys: Keyring, first: date, last: date
    ) -> tuple[dict[date, int], bool]:
        """Return the words of the user's own entries by day, and whether the index is complete.

        Words are counted as the index cuts them; replies and deleted entries are left out. Raises
        StorageError.
        """
        state = self._open_index(keys)
        await self._refresh(state)
        is_complete = state.is_complete
        counts = await state.run_in_thread(lambda: state.index.word_counts_by_day(first, last))
        return counts, is_complete

    async def wait_until_idle(self, user_id: bytes) -> None:
        """Wait until all that was put so far is indexed and embedded. For tests and benchmarks."""
        self._queue.skip_debounce()
        while state := self._states.get(user_id):
            is_building = state.build_task is not None and not state.build_task.done()
            is_embedding = self._embed_task is not None and self._queue.is_busy_with(state)
            if not is_building and not is_embedding and not state.running_count:
                return
            await asyncio.sleep(0.001)

    def _open_index(self, keys: Keyring) -> UserIndexState:
        state = self._states.get(keys.user_id)
        if state is None:
            while len(self._states) >= MAX_OPEN_INDEXES:
                # Its user is still signed in, so pending queries stay.
                self._states.popitem(last=False)[1].close()
            thread = ThreadPoolExecutor(1, "llamora-index")
            state = UserIndexState(keys, UserIndex(self._settings.hnsw_above), thread)
            self._states[keys.user_id] = state
            self._is_unlocked.set()
            state.build_task = asyncio.create_task(self._builder.build(state))
        self._states.move_to_end(keys.user_id)
        # Keys end with their session, and the latest session most likely ends last.
        state.keys = keys
        return state

    async def _with_index(
        self, keys: Keyring, search: Callable[[UserIndexState], Awaitable[T]]
    ) -> T:
        """Search the user's index, once more when it was closed meanwhile to make room."""
        try:
            return await search(self._open_index(keys))
        except KeyringClosed:
            if keys.closed:
                raise
            return await search(self._open_index(keys))

    async def _search_index(
        self,
        state: UserIndexState,
        query: Query,
        query_vectors: "dict[str, Vectors]",
        allowed_ids: AbstractSet[bytes] | None,
        limit: int,
        offset: int,
    ) -> SearchResults:
        weight = self._settings.lexical_weight
        is_complete = state.is_complete

        async def rank(query: Query) -> Matches:
            return await state.run_in_thread(
                lambda: state.index.ranker.search(
                    query, query_vectors, weight, limit, offset, allowed_ids
                )
            )

        matches = await rank(query)
        if not matches.total and query.phrases and not query.is_impossible:
            matches = await rank(query := relax_query(query))
        rows = await self._db.entries.get_sealed(
            state.user_id, [match.entry_id for match in matches.matches]
        )
        hits = await state.run_in_thread(build_hits, self._db, state, query, matches.matches, rows)
        total = matches.total - (len(matches.matches) - len(hits))
        corrected = matches.corrected.items() if hits else ()
        hints = (*query.hints, *map(_correction_hint, corrected))
        return SearchResults(hits, total, is_complete, hints, matches.is_semantic, query)

    async def _watch(self) -> None:
        """Notice what other processes write, and save snapshots that are due."""
        change = self._changes.next_change
        while True:
            if not self._states:
                self._is_unlocked.clear()
                await self._is_unlocked.wait()
            await self._changes.wait(change, WATCH_SECONDS)
            change = self._changes.next_change
            try:
                counter = await self._db.search_version()
            except Exception as error:
                logger.warning("the store was not read for changes (%s)", type(error).__name__)
                continue
            for state in list(self._states.values()):
                if (
                    state.build_task is not None
                    and state.build_task.done()
                    and state.search_counter != counter
                ):
                    state.build_task = asyncio.create_task(self._builder.build(state))
                elif self._snapshots.is_due(state):
                    state.save_task = asyncio.create_task(self._snapshots.try_save(state))

    async def _refresh(self, state: UserIndexState) -> None:
        """Notice what other processes wrote; wait REFRESH_SECONDS at most until it is indexed."""
        if state.build_task is None or state.build_task.done():
            if await self._db.search_version() == state.search_counter:
                return
            if state.build_task is None or state.build_task.done():
                state.build_task = asyncio.create_task(self._builder.build(state))
        if not state.is_complete and state.revisions:
            return  # the first build takes a while, and the newest entries come first
        await asyncio.wait([state.build_task], timeout=REFRESH_SECONDS)

    def _mean_vector(self, state: UserIndexState, entry_id: bytes) -> "dict[str, Vectors]":
        """Return the unit mean of an entry's vectors by the model in use, on the index's thread."""
        model = self._queue.current_model()
        vectors = state.index.vectors_of(entry_id, model)
        if vectors is None:
            return {}
        import numpy as np

        mean = vectors.mean(axis=0)
        return {model: (mean / (np.linalg.norm(mean) or 1.0)).astype(np.float32)}


def _correction_hint(correction: tuple[str, tuple[str, ...]]) -> Notice:
    typed, words = correction
    return Notice("query_word_corrected", {"typed": typed, "words": ", ".join(words)})
