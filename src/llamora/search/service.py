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

from llamora.persistence.entries import Entry, Role
from llamora.persistence.local_db import LocalDB
from llamora.search.builder import Builder, document
from llamora.search.embed_queue import EmbedQueue
from llamora.search.embedder import Embedder, chunks
from llamora.search.index import Mark, Match, Matches, UserIndex
from llamora.search.pending import Noted
from llamora.search.rank import Query, opening, parse_query, pieces, plain, plain_query, relaxed
from llamora.search.state import Unlocked, findable, opened_entries
from llamora.search.vectors import UNKNOWN
from llamora.settings import SearchSettings
from llamora.vault.keys import Keyring, KeyringClosed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

logger = getLogger(__name__)
P = TypeVar("P")
T = TypeVar("T")

REFRESH_SECONDS = 0.15  # how long a query waits for what others wrote meanwhile
WHOLE_SECONDS = 20.0  # for which a reply waits until the index is built: it may say that nothing was found
POLL_SECONDS = 0.5  # how often is looked at what other processes wrote
UNFINISHED, FINISHED = "…", "."  # what a noted query begins with
UNLOCKED = 32  # indexes kept at a time; the one unused for longest makes room and is built again when asked for


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
    likeness: float = UNKNOWN
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
    complete: bool
    hint: str
    meaning: bool
    query: Query = field(repr=False)


class SearchService:
    """One per process. Methods are for the event loop; indexing and searching run on a thread per writer."""

    def __init__(self, db: LocalDB, embedder: Embedder, settings: SearchSettings, noted: Noted | None = None) -> None:
        self._db = db
        self._settings = settings
        self._users: OrderedDict[bytes, Unlocked] = OrderedDict()
        self._queue = EmbedQueue(db, embedder, self._users)
        self._builder = Builder(db, self._queue, self._users, settings)
        self._worker: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._noted = noted or Noted()

    async def start(self) -> None:
        """Start the task that makes vectors."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._queue.run())
            self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Drop every index and end the task."""
        running = [task for task in (self._worker, self._watcher) if task is not None]
        self._worker = self._watcher = None
        for user in self._users.values():
            running += [task for task in (user.build, user.saving) if task is not None]
        for task in running:
            task.cancel()
        for user_id in list(self._users):
            self.lock(user_id)
        await asyncio.gather(*running, return_exceptions=True)
        await self._queue.close()

    async def unlock(self, keys: Keyring) -> None:
        """Begin to build the writer's index, unless it is there, and return at once."""
        self._opened(keys)

    def lock(self, user_id: bytes) -> None:
        """Forget the writer's index, and what they asked for."""
        self._noted.forget(user_id)
        user = self._users.pop(user_id, None)
        if user is not None:
            user.close()

    def unlocked(self) -> list[bytes]:
        """The writers whose index is open."""
        return list(self._users)

    def put(self, keys: Keyring, entry: Entry) -> None:
        """Index an entry that was written, edited, or given other traces; its vectors follow."""
        if keys.user_id not in self._users:
            return  # what is not unlocked is read when it is
        user = self._opened(keys)
        user.know(entry.id, max(entry.revision, user.seen.get(entry.id, 0)))
        user.changed(1)
        if not findable(entry):
            user.later(user.index.drop, [entry.id])
            return
        # Its traces are read with the rest of what changed, a moment later.
        user.later(user.index.put, [document(entry)])
        user.traces.pop(entry.id, None)
        user.retraced.add(entry.id)
        user.counter = None  # a build may have read the entry before this was told: look again for its traces
        user.retry_at = 0.0
        self._queue.put(user, [entry.id], written=True)

    def retraced(self, user_id: bytes, revision: int, entry_ids: Iterable[bytes]) -> None:
        """Read the traces of these entries again: a change that made this revision of their book was about them."""
        user = self._users.get(user_id)
        if user is not None:
            user.retraced.update(entry_ids)
            user.traces_at = revision if user.traces_at == revision - 1 else -1

    def drop(self, user_id: bytes, entry_ids: Iterable[bytes]) -> None:
        """Take deleted entries out of the index."""
        user = self._users.get(user_id)
        if user is not None:
            self._builder.drop(user, list(entry_ids))

    def note(self, keys: Keyring, query: str, *, typing: bool = False) -> bytes:
        """Give a query a random name in memory, for the address of its results; every worker knows the latest."""
        return self._noted.add(keys, (UNFINISHED if typing else FINISHED) + query)

    def forget(self, user_id: bytes) -> None:
        """Forget the queries that only memory knows."""
        self._noted.forget(user_id)
        if (user := self._users.get(user_id)) is not None:
            user.asked.clear()

    def noted(self, keys: Keyring, name: bytes) -> tuple[str, bool]:
        """The query of that name and whether it was still being typed; "" when it is not known any more."""
        kept = self._noted.get(keys, name)
        return kept[1:], kept.startswith(UNFINISHED)

    async def search(
        self,
        keys: Keyring,
        query: str,
        *,
        today: date,
        limit: int = 20,
        offset: int = 0,
        typing: bool = False,
        role: Role | None = None,
        language: str = "en",
    ) -> SearchResults:
        """The entries that match `query`, written as rank.parse_query reads it; `today` is the writer's own.

        Words are searched even while the index is being built or there is no embedding model. Every hit is read
        from the store again, so that nothing erased or foreign can be shown. `typing`: the last word of the query is
        not finished. `role` rules all but one out, whatever the query asks. Raises StorageError.
        """
        wanted = parse_query(query, today, typing, language)
        if role is not None:
            wanted = replace(wanted, role=role, is_impossible=wanted.impossible or wanted.role not in (None, role))

        async def look(user: Unlocked) -> SearchResults:
            _, asked = await asyncio.gather(self._refresh(user), self._queue.asked(user, wanted.meaning))
            only = None
            if wanted.tags:
                only = await self._db.tags.entries_with_tags(keys, wanted.tags)
            return await self._found(user, wanted, asked, only, limit, offset)

        return await self._with_index(keys, look)

    async def passages(
        self,
        keys: Keyring,
        text: str,
        *,
        today: date,
        leave_out: AbstractSet[bytes] = frozenset(),
        limit: int = 3,
        whole: bool = False,
    ) -> tuple[Match, ...]:
        """What the writer wrote that bears on `text`, best first, without the entries of `leave_out`.

        The text is taken by its words: no sign in it rules anything out. Days it speaks of count as in a search. It is
        what the index knows: what is erased or foreign is found out by who reads the entries. `whole`: an index that
        is being built is waited for.
        """
        wanted = replace(plain_query(text, today), role="me")
        weight = self._settings.lexical_weight

        async def look(user: Unlocked) -> Matches:
            if not user.complete:
                await self._refresh(user)  # later the watch notices what others wrote: a reply does not wait for it
                if whole and not user.complete and user.build is not None:
                    await asyncio.wait([user.build], timeout=WHOLE_SECONDS)
            asked = await self._queue.asked(user, wanted.meaning)
            return await user.run(lambda: user.index.search(wanted, asked, weight, limit + len(leave_out), 0))

        found = await self._with_index(keys, look)
        return tuple(match for match in found.page if match.entry_id not in leave_out)[:limit]

    async def related(
        self, keys: Keyring, entry: Entry, *, limit: int = 5, leave_out: AbstractSet[bytes] = frozenset()
    ) -> tuple[Hit, ...]:
        """What the writer wrote that is nearest in meaning to an entry, by the vectors that are here already.

        Without vectors it goes by word. Raises StorageError.
        """
        user = self._opened(keys)
        await self._refresh(user)
        away = {entry.id, *leave_out}
        asked = await user.run(self._vectors_of, user, entry.id)
        if asked:
            page: Sequence[Match] = await user.run(lambda: user.index.nearest(asked, limit, away))
        else:
            page = await self.passages(keys, plain(entry.text), today=entry.day, leave_out=away, limit=limit)
        rows = await self._db.entries.get_sealed(user.user_id, [match.entry_id for match in page])
        query = Query() if asked else plain_query(plain(entry.text), entry.day)
        return await user.run(self._hits, user, query, page, rows)

    async def days_of(self, keys: Keyring, ids: Sequence[bytes]) -> list[int]:
        """The day of each of these entries as date.toordinal() gives it; 0 for one that stands on no page.

        While the index is being built, that is one that was not read yet.
        """
        user = self._opened(keys)
        return await user.run(lambda: user.index.days_of(ids))

    async def moved_since(self, keys: Keyring, mark: Mark | None) -> tuple[Mark, list[bytes] | None]:
        """Of which entries `days_of` may say something else than at a mark, and the mark of now; None: of any."""
        user = self._opened(keys)
        return await user.run(lambda: user.index.moved_since(mark))

    async def save(self, user_id: bytes) -> bool:
        """Seal the writer's index as it is into the store. False when it changed meanwhile, or is not unlocked."""
        return await self._builder.save(user_id)

    async def words_on(self, keys: Keyring, first: date, last: date) -> tuple[dict[date, int], bool]:
        """How many words the writer wrote on each day that has any, and whether all entries are known by now.

        Counted as the index cuts words: what the model said and what is deleted are left out. Raises StorageError.
        """
        user = self._opened(keys)
        await self._refresh(user)
        complete = user.complete
        return await user.run(lambda: user.index.words_on(first, last)), complete

    async def settled(self, user_id: bytes) -> None:
        """Wait until all that was asked for so far is indexed, vectors too, at once. For tests and benchmarks."""
        self._queue.hurry()
        while user := self._users.get(user_id):
            building = user.build is not None and not user.build.done()
            embedding = self._worker is not None and self._queue.busy_with(user)
            if not building and not embedding and not user.running:
                return
            await asyncio.sleep(0.001)

    # --- The index of a writer

    def _opened(self, keys: Keyring) -> Unlocked:
        user = self._users.get(keys.user_id)
        if user is None:
            while len(self._users) >= UNLOCKED:
                self._users.popitem(last=False)[1].close()  # they are still signed in: what they asked for stays
            thread = ThreadPoolExecutor(1, "llamora-index")
            user = Unlocked(keys, UserIndex(self._settings.hnsw_above), thread)
            self._users[keys.user_id] = user
            user.build = asyncio.create_task(self._builder.build(user))
        self._users.move_to_end(keys.user_id)
        # The keys of a session end with it, those of the latest one live longest.
        user.keys = keys
        return user

    async def _with_index(self, keys: Keyring, look: Callable[[Unlocked], Awaitable[T]]) -> T:
        """Look into the writer's index; where it is put away meanwhile for others' sake, once more."""
        try:
            return await look(self._opened(keys))
        except KeyringClosed:
            if keys.closed:
                raise
            return await look(self._opened(keys))

    async def _found(
        self,
        user: Unlocked,
        wanted: Query,
        asked: "dict[str, Vectors]",
        only: AbstractSet[bytes] | None,
        limit: int,
        offset: int,
    ) -> SearchResults:
        weight = self._settings.lexical_weight
        complete = user.complete
        found: Matches = await user.run(lambda: user.index.search(wanted, asked, weight, limit, offset, only))
        if not found.total and wanted.phrases and not wanted.impossible:
            wanted = relaxed(wanted)
            found = await user.run(lambda: user.index.search(wanted, asked, weight, limit, offset, only))
        rows = await self._db.entries.get_sealed(user.user_id, [match.entry_id for match in found.page])
        hits = await user.run(self._hits, user, wanted, found.page, rows)
        total = found.total - (len(found.page) - len(hits))
        return SearchResults(hits, total, complete, wanted.hint, found.meaning, wanted)

    async def _watch(self) -> None:
        """Notice what other processes write, and write snapshots when it is quiet."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._users:
                continue
            try:
                counter = await self._db.search_version()
            except Exception as error:
                logger.warning("the store could not be asked for changes (%s)", type(error).__name__)
                continue
            for user in list(self._users.values()):
                if user.build is not None and user.build.done() and user.counter != counter:
                    user.build = asyncio.create_task(self._builder.build(user))
                elif self._builder.worth_saving(user):
                    user.saving = asyncio.create_task(self._builder.save_quietly(user))

    async def _refresh(self, user: Unlocked) -> None:
        """Notice what other processes (or the command line) wrote; wait for it a moment only."""
        if user.build is None or user.build.done():
            if await self._db.search_version() == user.counter:
                return
            if user.build is None or user.build.done():
                user.build = asyncio.create_task(self._builder.build(user))
        if not user.complete and user.seen:
            return  # the first build goes on for a while, and its newest entries are there
        await asyncio.wait([user.build], timeout=REFRESH_SECONDS)

    # --- On the index's thread

    def _vectors_of(self, user: Unlocked, entry_id: bytes) -> "dict[str, Vectors]":
        """The middle of an entry's passages, by the model in use."""
        vectors = user.index.vectors_of(entry_id, self._queue.model())
        if vectors is None:
            return {}
        import numpy as np

        middle = vectors.mean(axis=0)
        return {self._queue.model(): (middle / (np.linalg.norm(middle) or 1.0)).astype(np.float32)}

    def _hits(
        self, user: Unlocked, query: Query, page: Sequence[Match], rows: Sequence[tuple[bytes, int, bytes]]
    ) -> tuple[Hit, ...]:
        opened, _ = opened_entries(self._db, user.keys, rows)
        entries = {entry.id: entry for entry in opened if findable(entry)}
        matches = [match for match in page if match.entry_id in entries]
        texts = [plain(entries[match.entry_id].text) for match in matches]
        hits: list[Hit] = []
        for match, text, marked in zip(matches, texts, user.index.snippets(query, texts), strict=True):
            entry = entries[match.entry_id]
            shown = marked
            if not marked:
                passages = chunks(text)
                shown = opening(passages[match.passage] if 0 <= match.passage < len(passages) else text)
            place = (entry.id, entry.day, entry.at, entry.zone)
            hits.append(Hit(*place, entry.role, pieces(shown), match.score, match.likeness, match.passage))
        return tuple(hits)
