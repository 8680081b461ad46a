"""Search over sealed records: builds each signed-in writer's index, keeps it true, answers queries."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from logging import getLogger
from typing import TYPE_CHECKING, TypeVar

from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.search.builder import IndexBuilder, make_document
from llamora.search.embed_queue import EmbedQueue
from llamora.search.embedder import Embedder, chunk_text
from llamora.search.index import DayCursor, UserIndex
from llamora.search.pending import PendingQueries
from llamora.search.query import Query, parse_query, query_from_text, relax_query
from llamora.search.ranking import Match, Matches
from llamora.search.snippets import excerpt, split_marked
from llamora.search.state import UserIndexState, is_searchable, open_entries
from llamora.search.vectors import NOT_COMPARED
from llamora.settings import SearchSettings
from llamora.text import Role, strip_markdown
from llamora.vault.keys import Keyring, KeyringClosed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

logger = getLogger(__name__)
P = TypeVar("P")
T = TypeVar("T")

REFRESH_SECONDS = 0.15  # how long a query waits for what others wrote meanwhile
BUILD_WAIT_SECONDS = (
    20.0  # for which a reply waits until the index is built: it may say that nothing was found
)
POLL_SECONDS = 0.5  # how often is looked at what other processes wrote
UNFINISHED_PREFIX, FINISHED_PREFIX = "…", "."  # what a noted query begins with
MAX_OPEN_INDEXES = 32  # indexes kept at a time; the one unused for longest makes room and is built again when asked for


@dataclass(slots=True, frozen=True)
class Hit:
    """A found entry. `snippet` is plain text in pieces: (text, whether it matched).

    `likeness` is the cosine of question and entry and `passage` the number of the passage (as embed.chunks cuts it)
    that is nearest; -2.0 and -1 where meaning was not compared.
    """

    entry_id: bytes
    day: date
    at: datetime
    zone: str
    role: Role
    snippet: tuple[tuple[str, bool], ...]
    score: float
    cosine: float = NOT_COMPARED
    passage: int = -1


@dataclass(slots=True, frozen=True)
class SearchResults:
    """A page of hits, best first.

    `total` counts all of them. `complete`: every entry is indexed by now. `meaning`: entries were compared by
    meaning too. `hint`: a sentence on what was not understood, or "".
    `query`: what was searched.
    """

    hits: tuple[Hit, ...]
    total: int
    is_complete: bool
    hint: str
    is_semantic: bool
    query: Query = field(repr=False)


class SearchService:
    """One per process. Methods are for the event loop; indexing and searching run on a thread per writer."""

    def __init__(
        self,
        db: LocalDB,
        embedder: Embedder,
        settings: SearchSettings,
        pending: PendingQueries | None = None,
    ) -> None:
        self._db = db
        self._settings = settings
        self._states: OrderedDict[bytes, UserIndexState] = OrderedDict()
        self._queue = EmbedQueue(db, embedder, self._states)
        self._builder = IndexBuilder(db, self._queue, self._states, settings)
        self._embed_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._pending = pending or PendingQueries()

    async def start(self) -> None:
        """Start the task that makes vectors."""
        if self._embed_task is None:
            self._embed_task = asyncio.create_task(self._queue.run())
            self._watch_task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Drop every index and end the task."""
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
        """Begin to build the writer's index, unless it is there, and return at once."""
        self._open_index(keys)

    def lock(self, user_id: bytes) -> None:
        """Forget the writer's index, and what they asked for."""
        self._pending.forget(user_id)
        state = self._states.pop(user_id, None)
        if state is not None:
            state.close()

    def unlocked_user_ids(self) -> list[bytes]:
        """The writers whose index is open."""
        return list(self._states)

    def put(self, keys: Keyring, entry: Entry) -> None:
        """Index an entry that was written, edited, or given other traces; its vectors follow."""
        if keys.user_id not in self._states:
            return  # what is not unlocked is read when it is
        state = self._open_index(keys)
        state.set_revision(entry.id, max(entry.revision, state.revisions.get(entry.id, 0)))
        state.mark_changed(1)
        if not is_searchable(entry):
            state.submit(state.index.drop, [entry.id])
            return
        # Its traces are read with the rest of what changed, a moment later.
        state.submit(state.index.put, [make_document(entry)])
        state.tags.pop(entry.id, None)
        state.tags_changed.add(entry.id)
        state.search_counter = (
            None  # a build may have read the entry before this was told: look again for its traces
        )
        state.retry_at = 0.0
        self._queue.enqueue(state, [entry.id], just_written=True)

    def mark_tags_changed(self, user_id: bytes, revision: int, entry_ids: Iterable[bytes]) -> None:
        """Read the traces of these entries again: a change that made this revision of their book was about them."""
        state = self._states.get(user_id)
        if state is not None:
            state.tags_changed.update(entry_ids)
            state.tags_revision = revision if state.tags_revision == revision - 1 else -1

    def drop(self, user_id: bytes, entry_ids: Iterable[bytes]) -> None:
        """Take deleted entries out of the index."""
        state = self._states.get(user_id)
        if state is not None:
            self._builder.drop(state, list(entry_ids))

    def remember_query(self, keys: Keyring, query: str, *, is_typing: bool = False) -> bytes:
        """Give a query a random name in memory, for the address of its results; every worker knows the latest."""
        return self._pending.add(
            keys, (UNFINISHED_PREFIX if is_typing else FINISHED_PREFIX) + query
        )

    def forget_queries(self, user_id: bytes) -> None:
        """Forget the queries that only memory knows."""
        self._pending.forget(user_id)
        if (state := self._states.get(user_id)) is not None:
            state.query_vectors.clear()

    def query_for(self, keys: Keyring, name: bytes) -> tuple[str, bool]:
        """The query of that name and whether it was still being typed; "" when it is not known any more."""
        stored = self._pending.get(keys, name)
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
        """The entries that match `query`, written as rank.parse_query reads it; `today` is the writer's own.

        Words are searched even while the index is being built or there is no embedding model. Every hit is read
        from the store again, so that nothing erased or foreign can be shown. `typing`: the last word of the query is
        not finished. `role` rules all but one out, whatever the query asks. Raises StorageError.
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
        """What the writer wrote that bears on `text`, best first, without the entries of `leave_out`.

        The text is taken by its words: no sign in it rules anything out. Days it speaks of count as in a search. It is
        what the index knows: what is erased or foreign is found out by who reads the entries. `whole`: an index that
        is being built is waited for.
        """
        parsed = replace(query_from_text(text, today), role="me")
        weight = self._settings.lexical_weight

        async def run_search(state: UserIndexState) -> Matches:
            if not state.is_complete:
                await self._refresh(
                    state
                )  # later the watch notices what others wrote: a reply does not wait for it
                if wait_for_build and not state.is_complete and state.build_task is not None:
                    await asyncio.wait([state.build_task], timeout=BUILD_WAIT_SECONDS)
            query_vectors = await self._queue.embed_query(state, parsed.semantic_text)
            return await state.run_in_thread(
                lambda: state.index.ranker.search(
                    parsed, query_vectors, weight, limit + len(excluded_ids), 0
                )
            )

        matches = await self._with_index(keys, run_search)
        return tuple(match for match in matches.matches if match.entry_id not in excluded_ids)[
            :limit
        ]

    async def find_related(
        self,
        keys: Keyring,
        entry: Entry,
        *,
        limit: int = 5,
        excluded_ids: AbstractSet[bytes] = frozenset(),
    ) -> tuple[Hit, ...]:
        """What the writer wrote that is nearest in meaning to an entry, by the vectors that are here already.

        Without vectors it goes by word. Raises StorageError.
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
        return await state.run_in_thread(self._build_hits, state, query, page, rows)

    async def days_of(self, keys: Keyring, ids: Sequence[bytes]) -> list[int]:
        """The day of each of these entries as date.toordinal() gives it; 0 for one that stands on no page.

        While the index is being built, that is one that was not read yet.
        """
        state = self._open_index(keys)
        return await state.run_in_thread(lambda: state.index.days_of(ids))

    async def days_changed_since(
        self, keys: Keyring, cursor: DayCursor | None
    ) -> tuple[DayCursor, list[bytes] | None]:
        """Of which entries `days_of` may say something else than at a mark, and the mark of now; None: of any."""
        state = self._open_index(keys)
        return await state.run_in_thread(lambda: state.index.days_changed_since(cursor))

    async def save_snapshot(self, user_id: bytes) -> bool:
        """Seal the writer's index as it is into the store. False when it changed meanwhile, or is not unlocked."""
        return await self._builder.save_snapshot(user_id)

    async def word_counts_by_day(
        self, keys: Keyring, first: date, last: date
    ) -> tuple[dict[date, int], bool]:
        """How many words the writer wrote on each day that has any, and whether all entries are known by now.

        Counted as the index cuts words: what the model said and what is deleted are left out. Raises StorageError.
        """
        state = self._open_index(keys)
        await self._refresh(state)
        is_complete = state.is_complete
        return await state.run_in_thread(
            lambda: state.index.word_counts_by_day(first, last)
        ), is_complete

    async def wait_until_idle(self, user_id: bytes) -> None:
        """Wait until all that was asked for so far is indexed, vectors too, at once. For tests and benchmarks."""
        self._queue.skip_debounce()
        while state := self._states.get(user_id):
            is_building = state.build_task is not None and not state.build_task.done()
            is_embedding = self._embed_task is not None and self._queue.is_busy_with(state)
            if not is_building and not is_embedding and not state.running_count:
                return
            await asyncio.sleep(0.001)

    # --- The index of a writer

    def _open_index(self, keys: Keyring) -> UserIndexState:
        state = self._states.get(keys.user_id)
        if state is None:
            while len(self._states) >= MAX_OPEN_INDEXES:
                self._states.popitem(last=False)[
                    1
                ].close()  # they are still signed in: what they asked for stays
            thread = ThreadPoolExecutor(1, "llamora-index")
            state = UserIndexState(keys, UserIndex(self._settings.hnsw_above), thread)
            self._states[keys.user_id] = state
            state.build_task = asyncio.create_task(self._builder.build(state))
        self._states.move_to_end(keys.user_id)
        # The keys of a session end with it, those of the latest one live longest.
        state.keys = keys
        return state

    async def _with_index(
        self, keys: Keyring, search: Callable[[UserIndexState], Awaitable[T]]
    ) -> T:
        """Look into the writer's index; where it is put away meanwhile for others' sake, once more."""
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
        matches: Matches = await state.run_in_thread(
            lambda: state.index.ranker.search(
                query, query_vectors, weight, limit, offset, allowed_ids
            )
        )
        if not matches.total and query.phrases and not query.is_impossible:
            query = relax_query(query)
            matches = await state.run_in_thread(
                lambda: state.index.ranker.search(
                    query, query_vectors, weight, limit, offset, allowed_ids
                )
            )
        rows = await self._db.entries.get_sealed(
            state.user_id, [match.entry_id for match in matches.matches]
        )
        hits = await state.run_in_thread(self._build_hits, state, query, matches.matches, rows)
        total = matches.total - (len(matches.matches) - len(hits))
        return SearchResults(hits, total, is_complete, query.hint, matches.is_semantic, query)

    async def _watch(self) -> None:
        """Notice what other processes write, and write snapshots when it is quiet."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._states:
                continue
            try:
                counter = await self._db.search_version()
            except Exception as error:
                logger.warning(
                    "the store could not be asked for changes (%s)", type(error).__name__
                )
                continue
            for state in list(self._states.values()):
                if (
                    state.build_task is not None
                    and state.build_task.done()
                    and state.search_counter != counter
                ):
                    state.build_task = asyncio.create_task(self._builder.build(state))
                elif self._builder.should_save_snapshot(state):
                    state.save_task = asyncio.create_task(self._builder.try_save_snapshot(state))

    async def _refresh(self, state: UserIndexState) -> None:
        """Notice what other processes (or the command line) wrote; wait for it a moment only."""
        if state.build_task is None or state.build_task.done():
            if await self._db.search_version() == state.search_counter:
                return
            if state.build_task is None or state.build_task.done():
                state.build_task = asyncio.create_task(self._builder.build(state))
        if not state.is_complete and state.revisions:
            return  # the first build goes on for a while, and its newest entries are there
        await asyncio.wait([state.build_task], timeout=REFRESH_SECONDS)

    # --- On the index's thread

    def _mean_vector(self, state: UserIndexState, entry_id: bytes) -> "dict[str, Vectors]":
        """The middle of an entry's passages, by the model in use."""
        vectors = state.index.vectors_of(entry_id, self._queue.current_model())
        if vectors is None:
            return {}
        import numpy as np

        mean = vectors.mean(axis=0)
        return {
            self._queue.current_model(): (mean / (np.linalg.norm(mean) or 1.0)).astype(np.float32)
        }

    def _build_hits(
        self,
        state: UserIndexState,
        query: Query,
        page: Sequence[Match],
        rows: Sequence[tuple[bytes, int, bytes]],
    ) -> tuple[Hit, ...]:
        opened, _ = open_entries(self._db, state.keys, rows)
        entries = {entry.id: entry for entry in opened if is_searchable(entry)}
        matches = [match for match in page if match.entry_id in entries]
        texts = [strip_markdown(entries[match.entry_id].text) for match in matches]
        hits: list[Hit] = []
        for match, text, marked in zip(
            matches, texts, state.index.build_snippets(query, texts), strict=True
        ):
            entry = entries[match.entry_id]
            snippet = marked
            if not marked:
                passages = chunk_text(text)
                snippet = excerpt(
                    passages[match.passage] if 0 <= match.passage < len(passages) else text
                )
            position = (entry.id, entry.day, entry.at, entry.zone)
            hits.append(
                Hit(
                    *position,
                    entry.role,
                    split_marked(snippet),
                    match.score,
                    match.cosine,
                    match.passage,
                )
            )
        return tuple(hits)
