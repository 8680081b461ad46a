"""Search over sealed records: builds each signed-in writer's index, keeps it true, answers queries."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, TypeVar

from llamora.clock import utc_now
from llamora.persistence.entries import Entry, Role, weighed
from llamora.persistence.local_db import LocalDB
from llamora.persistence.snapshots import Snapshots
from llamora.persistence.vectors import EntryVectors
from llamora.search.embed import CHUNKING, Embedder, EmbedderUnavailable, chunks
from llamora.search.index import Document, Match, Matches, UserIndex
from llamora.search.passages import UNKNOWN
from llamora.search.rank import Query, opening, parse_query, pieces, plain, plain_query, relaxed
from llamora.search.snapshot import Reader, Unusable, Writer
from llamora.settings import SearchSettings
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

logger = getLogger(__name__)
P = TypeVar("P")
T = TypeVar("T")

READ_BATCH = 250  # records opened in one go: some 15 ms of an index's thread, for which a query may have to wait
EMBED_BATCH = 16  # entries whose vectors are stored in one transaction
RECENT_DAYS = (31, 1096)  # an index goes newest first through the last month and three years, then takes the rest
REFRESH_SECONDS = 0.15  # how long a query waits for what others wrote meanwhile
POLL_SECONDS = 0.5  # how often is looked at what other processes wrote
SNAPSHOT_FROM = 1_000  # entries; fewer are read as fast as a snapshot would be
SNAPSHOT_SHARE = 0.05  # of the entries must have changed before a snapshot is written anew
SNAPSHOT_QUIET = 20.0  # seconds without a change before it is
RETRY_SECONDS = (1.0, 300.0)  # the first wait after a batch was not embedded, and the longest
ASKED = 32  # vectors of questions kept, for the pages and filters of what is looked for
NOTED = 100  # queries of a writer that addresses in memory stand for
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


@dataclass(slots=True, eq=False)
class _Unlocked:
    """The index of one writer, its thread, and what is still to do for it."""

    keys: Keyring
    index: UserIndex
    thread: ThreadPoolExecutor
    seen: dict[bytes, int] = field(default_factory=dict[bytes, int])  # every record's revision, indexed or not
    total: int = 0  # of what the records of `seen` weigh
    traces: dict[bytes, frozenset[bytes]] = field(default_factory=dict[bytes, frozenset[bytes]])
    unembedded: dict[bytes, None] = field(default_factory=dict[bytes, None])  # newest last
    asked: OrderedDict[tuple[str, str], "Vectors"] = field(default_factory=OrderedDict[tuple[str, str], "Vectors"])
    build: asyncio.Task[None] | None = None
    saving: asyncio.Task[None] | None = None
    loaded: bool = False
    complete: bool = False
    counter: tuple[int, int] | None = None
    running: int = 0
    unsaved: int = 0  # entries that a snapshot does not hold as they are
    changed_at: float = 0.0
    retry_at: float = 0.0
    retry_after: float = RETRY_SECONDS[0]

    def know(self, entry_id: bytes, revision: int) -> None:
        """Note the revision of a record."""
        self.forget(entry_id)
        self.seen[entry_id] = revision
        self.total += weighed(entry_id, revision)

    def forget(self, entry_id: bytes) -> None:
        """Note that a record is gone."""
        known = self.seen.pop(entry_id, None)
        if known is not None:
            self.total -= weighed(entry_id, known)

    def forget_all(self) -> None:
        """Know nothing of any record, so that all are read again."""
        self.seen.clear()
        self.total = 0

    def changed(self, count: int) -> None:
        """Note that the index differs from its snapshot by so many entries more."""
        self.unsaved += count
        self.changed_at = time.monotonic()

    @property
    def user_id(self) -> bytes:
        return self.keys.user_id


class SearchService:
    """One per process. Methods are for the event loop; indexing and searching run on a thread per writer."""

    def __init__(self, db: LocalDB, embedder: Embedder, settings: SearchSettings) -> None:
        self._db = db
        self._embedder = embedder
        self._settings = settings
        self._users: OrderedDict[bytes, _Unlocked] = OrderedDict()
        self._work = asyncio.Event()
        self._embedding: bytes | None = None  # whose entries are being embedded
        self._worker: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._formers: dict[str, Embedder] = {}
        self._noted: dict[bytes, OrderedDict[bytes, str]] = {}

    async def start(self) -> None:
        """Start the task that makes vectors."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._embed_forever())
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
        for name in list(self._formers):
            await self._formers.pop(name).close()

    async def unlock(self, keys: Keyring) -> None:
        """Begin to build the writer's index, unless it is there, and return at once."""
        self._opened(keys)

    def lock(self, user_id: bytes) -> None:
        """Forget the writer's index, and what they asked for."""
        self._noted.pop(user_id, None)
        user = self._users.pop(user_id, None)
        if user is None:
            return
        for task in (user.build, user.saving):
            if task is not None:
                task.cancel()
        user.unembedded.clear()
        user.asked.clear()
        user.thread.submit(user.index.close)
        user.thread.shutdown(wait=False)

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
        if not _findable(entry):
            self._later(user, user.index.drop, [entry.id])
            return
        # Its traces are read with the rest of what changed, a moment later.
        self._later(user, user.index.put, [_document(entry)])
        user.traces.pop(entry.id, None)
        user.retry_at = 0.0
        self._queue(user, [entry.id])

    def drop(self, user_id: bytes, entry_ids: Iterable[bytes]) -> None:
        """Take deleted entries out of the index."""
        user = self._users.get(user_id)
        if user is None:
            return
        gone = list(entry_ids)
        for entry_id in gone:
            user.forget(entry_id)
            user.traces.pop(entry_id, None)
            user.unembedded.pop(entry_id, None)
        user.changed(len(gone))
        self._later(user, user.index.drop, gone)

    def note(self, keys: Keyring, query: str) -> bytes:
        """Give a query a random name in memory, for the address of its results; the latest NOTED are known."""
        noted = self._noted.setdefault(keys.user_id, OrderedDict())
        name = secrets.token_bytes(16)
        noted[name] = query
        while len(noted) > NOTED:
            noted.popitem(last=False)
        return name

    def forget(self, user_id: bytes) -> None:
        """Forget the queries that only memory knows."""
        self._noted.pop(user_id, None)

    def noted(self, keys: Keyring, name: bytes) -> str:
        """The query of that name, "" when it is not known any more."""
        return self._noted.get(keys.user_id, OrderedDict[bytes, str]()).get(name, "")

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
    ) -> SearchResults:
        """The entries that match `query`, written as rank.parse_query reads it; `today` is the writer's own.

        Words are searched even while the index is being built or there is no embedding model. Every hit is read
        from the store again, so that nothing erased or foreign can be shown. `typing`: the last word of the query is
        not finished. `role` rules all but one out, whatever the query asks. Raises StorageError.
        """
        wanted = parse_query(query, today, typing)
        if role is not None:
            wanted = replace(wanted, role=role, impossible=wanted.impossible or wanted.role not in (None, role))
        user = self._opened(keys)
        _, asked = await asyncio.gather(self._refresh(user), self._asked(user, wanted.meaning))
        only = None
        if wanted.tags:
            only = await self._db.tags.entries_with(keys, wanted.tags)
        return await self._found(user, wanted, asked, only, limit, offset)

    async def passages(
        self, keys: Keyring, text: str, *, today: date, leave_out: AbstractSet[bytes] = frozenset(), limit: int = 3
    ) -> tuple[Hit, ...]:
        """What the writer wrote that bears on `text`, best first, without the entries of `leave_out`.

        The text is taken by its words: no sign in it rules anything out. Days it speaks of count as in a search.
        Raises StorageError.
        """
        user = self._opened(keys)
        if not user.complete:
            await self._refresh(user)  # later the watch notices what others wrote: a reply does not wait for it
        wanted = replace(plain_query(text, today), role="me")
        asked = await self._asked(user, wanted.meaning)
        found = await self._found(user, wanted, asked, None, limit + len(leave_out), 0)
        return tuple(hit for hit in found.hits if hit.entry_id not in leave_out)[:limit]

    async def related(
        self, keys: Keyring, entry: Entry, *, limit: int = 5, leave_out: AbstractSet[bytes] = frozenset()
    ) -> tuple[Hit, ...]:
        """What the writer wrote that is nearest in meaning to an entry, by the vectors that are here already.

        Without vectors it goes by word. Raises StorageError.
        """
        user = self._opened(keys)
        await self._refresh(user)
        away = {entry.id, *leave_out}
        asked = await self._run(user, self._vectors_of, user, entry.id)
        if not asked:
            return await self.passages(keys, plain(entry.text), today=entry.day, leave_out=away, limit=limit)
        page = await self._run(user, lambda: user.index.nearest(asked, limit, away))
        rows = await self._db.entries.sealed_many(user.user_id, [match.entry_id for match in page])
        return await self._run(user, self._hits, user, Query(), page, rows)

    async def days_of(self, keys: Keyring, ids: Sequence[bytes]) -> list[int]:
        """The day of each of these entries as date.toordinal() gives it; 0 for one that stands on no page.

        While the index is being built, that is one that was not read yet.
        """
        user = self._opened(keys)
        return await self._run(user, lambda: user.index.days_of(ids))

    def version(self, keys: Keyring) -> int:
        """Another number once `days_of` may say something else."""
        return self._opened(keys).index.version

    async def settled(self, user_id: bytes) -> None:
        """Wait until all that was asked for so far is indexed, vectors too. For tests and benchmarks."""
        while user := self._users.get(user_id):
            building = user.build is not None and not user.build.done()
            waiting = user.unembedded and self._worker and self._can_embed() and not user.retry_at
            if not building and not waiting and self._embedding != user_id and not user.running:
                return
            await asyncio.sleep(0.001)

    # --- The index of a writer

    def _opened(self, keys: Keyring) -> _Unlocked:
        user = self._users.get(keys.user_id)
        if user is None:
            while len(self._users) >= UNLOCKED:
                self.lock(next(iter(self._users)))
            thread = ThreadPoolExecutor(1, "llamora-index")
            user = _Unlocked(keys, UserIndex(self._settings.hnsw_above), thread)
            self._users[keys.user_id] = user
            user.build = asyncio.create_task(self._build(user))
        self._users.move_to_end(keys.user_id)
        # The keys of a session end with it, those of the latest one live longest.
        user.keys = keys
        return user

    async def _run(self, user: _Unlocked, work: Callable[..., T], *arguments: object) -> T:
        user.running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(user.thread, work, *arguments)
        finally:
            user.running -= 1

    def _later(self, user: _Unlocked, work: Callable[..., object], *arguments: object) -> None:
        """Do something on the index's thread in its turn; a failure costs freshness, and the next refresh mends it."""
        user.running += 1
        future = asyncio.get_running_loop().run_in_executor(user.thread, work, *arguments)

        def done(future: "asyncio.Future[object]") -> None:
            user.running -= 1
            if not future.cancelled() and (error := future.exception()) is not None:
                logger.error("an index could not be updated (%s)", type(error).__name__)
                user.counter = None
                user.forget_all()

        future.add_done_callback(done)

    async def _found(
        self,
        user: _Unlocked,
        wanted: Query,
        asked: "dict[str, Vectors]",
        only: AbstractSet[bytes] | None,
        limit: int,
        offset: int,
    ) -> SearchResults:
        weight = self._settings.lexical_weight
        complete = user.complete
        found: Matches = await self._run(user, lambda: user.index.search(wanted, asked, weight, limit, offset, only))
        if not found.total and wanted.phrases and not wanted.impossible:
            wanted = relaxed(wanted)
            found = await self._run(user, lambda: user.index.search(wanted, asked, weight, limit, offset, only))
        rows = await self._db.entries.sealed_many(user.user_id, [match.entry_id for match in found.page])
        hits = await self._run(user, self._hits, user, wanted, found.page, rows)
        total = found.total - (len(found.page) - len(hits))
        return SearchResults(hits, total, complete, wanted.hint, found.meaning, wanted)

    async def _asked(self, user: _Unlocked, text: str) -> "dict[str, Vectors]":
        """The vector of a question by every model whose vectors are in use, the one of the settings first."""
        asked: dict[str, Vectors] = {}
        if not text:
            return asked
        for model in sorted({self._model(), *user.index.models}, key=lambda model: model != self._model()):
            embedder = self._embedder_of(model)
            if embedder is None or not embedder.ready:
                continue
            with suppress(EmbedderUnavailable):
                known = user.asked.pop((model, text), None)
                asked[model] = await embedder.query(text) if known is None else known
                user.asked[model, text] = asked[model]
                while len(user.asked) > ASKED:
                    user.asked.popitem(last=False)
        return asked

    async def _build(self, user: _Unlocked) -> None:
        """Read all that is in the store and differs from the index; again when others wrote meanwhile."""
        try:
            counter = await self._db.search_counter()
            first = not user.loaded
            if first:
                await self._load(user)
                user.loaded = True
            read: list[bytes] = []
            traces = await self._db.tags.by_entry(user.user_id)
            if await self._db.entries.fingerprint(user.user_id) != (len(user.seen), user.total):
                read = await self._catch_up(user, traces)
            elif traces != user.traces:
                read = [i for i in _differing(traces, user.traces) if i in user.seen]
                await self._read(user, read, traces)
            user.complete = True
            user.counter = counter
            missing = await self._run(user, user.index.without_vectors, self._model()) if first else read
            for start in range(0, len(missing), READ_BATCH):
                await self._read_vectors(user, missing[start : start + READ_BATCH])
            while await self._run(user, user.index.tidy):
                pass
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.error("an index could not be built (%s)", type(error).__name__)
            user.counter = None

    async def _catch_up(self, user: _Unlocked, traces: dict[bytes, frozenset[bytes]]) -> list[bytes]:
        """Read the records that differ from what is known of them, and return which they were."""
        revisions = await self._db.entries.revisions(user.user_id)
        known = dict(user.seen)
        changed, gone = await asyncio.to_thread(_changes, revisions, known)
        if gone:
            self.drop(user.user_id, gone)
        other = _differing(traces, user.traces)
        changed += [
            entry_id for entry_id in other if entry_id in revisions and revisions[entry_id] == known.get(entry_id)
        ]
        if len(changed) > READ_BATCH:
            changed = await self._newest_first(user, changed)
        await self._read(user, changed, traces)
        return changed

    async def _read(self, user: _Unlocked, ids: Sequence[bytes], traces: dict[bytes, frozenset[bytes]]) -> None:
        names = await self._db.tags.names(user.keys) if traces else {}
        parts = [ids[start : start + READ_BATCH] for start in range(0, len(ids), READ_BATCH)]
        async for part, rows in _ahead(parts, lambda part: self._db.entries.sealed_many(user.user_id, part)):
            spoken = {i: tuple(sorted(names[t] for t in traces[i] if t in names)) for i in part if i in traces}
            await self._run(user, self._index_entries, user, rows, spoken)
            for entry_id, revision, _ in rows:
                user.know(entry_id, revision)
                if entry_id in traces:
                    user.traces[entry_id] = traces[entry_id]
                else:
                    user.traces.pop(entry_id, None)
            user.changed(len(rows))

    async def _newest_first(self, user: _Unlocked, ids: Sequence[bytes]) -> list[bytes]:
        tomorrow = utc_now().date() + timedelta(days=1)
        ordered: dict[bytes, None] = {}
        wanted = set(ids)
        done = 0
        for days in RECENT_DAYS:
            span = [tomorrow - timedelta(days=back) for back in range(done, days)]
            recent = await self._db.entries.recent_ids(user.keys, span)
            ordered.update((entry_id, None) for entry_id in recent if entry_id in wanted)
            done = days
        ordered.update((entry_id, None) for entry_id in ids)
        return list(ordered)

    async def _read_vectors(self, user: _Unlocked, ids: Sequence[bytes]) -> None:
        """Take over the stored vectors of entries and queue the others for embedding."""
        rows = await self._db.vectors.sealed_many(user.user_id, ids)
        taken = await self._run(user, self._index_vectors, user, rows)
        self._queue(user, [entry_id for entry_id in reversed(ids) if entry_id not in taken and entry_id in user.seen])

    # --- Snapshots

    async def _load(self, user: _Unlocked) -> None:
        """Begin with the writer's snapshot, where there is one that can be used."""
        latest = await self._db.snapshots.latest(user.user_id)
        if latest is None:
            return
        generation, sealed = latest
        fresh = UserIndex(self._settings.hnsw_above)
        try:
            header = await self._run(user, Snapshots.open_part, user.keys, generation, 0, sealed)
            reader = await self._run(user, Reader, fresh, header)
            fetch = partial(self._db.snapshots.part, user.user_id, generation)
            async for part, sealed in _ahead(range(1, reader.parts + 1), fetch):
                await self._run(user, _feed, reader, user.keys, generation, part, sealed)
            if not reader.done:
                raise Unusable
            revisions = await self._run(user, lambda: fresh.revisions)
        except asyncio.CancelledError:
            fresh.close()
            raise
        except Exception as error:  # whatever was put there: it is made anew from the records
            fresh.close()
            logger.warning("the snapshot of an index was not used (%s)", type(error).__name__)
            await self._db.snapshots.drop(user.user_id)
            return
        # What was written meanwhile went into the old index, and is read again: the store has a later revision.
        old, user.index = user.index, fresh
        await self._run(user, old.close)
        user.forget_all()
        for entry_id, revision in (revisions | reader.others).items():
            user.know(entry_id, revision)
        user.traces = {
            entry_id: frozenset(bytes.fromhex(trace) for trace in traces) for entry_id, traces in reader.traces.items()
        }
        user.unsaved = 0

    def _worth_saving(self, user: _Unlocked) -> bool:
        busy = user.saving is not None or user.build is None or not user.build.done() or user.running
        return (
            user.complete
            and not busy
            and not user.unembedded
            and len(user.seen) >= SNAPSHOT_FROM
            and user.unsaved > SNAPSHOT_SHARE * len(user.seen)
            and time.monotonic() - user.changed_at >= SNAPSHOT_QUIET
        )

    async def save(self, user_id: bytes) -> bool:
        """Seal the writer's index as it is into the store. False when it changed meanwhile, or is not unlocked."""
        user = self._users.get(user_id)
        if user is None or not user.complete:
            return False
        keys, index = user.keys, user.index
        version, unsaved = index.version, user.unsaved
        latest = await self._db.snapshots.latest(user_id)
        kept = latest[0] if latest else 0
        generation = await self._db.snapshots.begin(keys)
        try:
            indexed = await self._run(user, lambda: index.revisions)
            others = {entry_id: revision for entry_id, revision in user.seen.items() if entry_id not in indexed}
            traces = {entry_id: tuple(trace.hex() for trace in marks) for entry_id, marks in user.traces.items()}
            writer = Writer(index, others, traces)
            parts = writer.parts()
            part = 0
            while True:
                sealed = await self._run(user, _next_part, parts, keys, generation, part + 1)
                if index.version != version or self._users.get(user_id) is not user:
                    return False
                if not sealed:
                    break
                part += 1
                await self._db.snapshots.add(keys, generation, part, sealed)
            header = Snapshots.seal_part(keys, generation, 0, writer.header)
            if await self._db.snapshots.finish(keys, generation, part, header):
                kept = generation
                user.unsaved -= unsaved
            return kept == generation
        finally:
            if kept != generation:
                await self._db.snapshots.keep(user_id, kept)

    async def _save_quietly(self, user: _Unlocked) -> None:
        try:
            await self.save(user.user_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.warning("a snapshot could not be written (%s)", type(error).__name__)
            user.changed_at = time.monotonic()
        finally:
            user.saving = None

    async def _watch(self) -> None:
        """Notice what other processes write, and write snapshots when it is quiet."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._users:
                continue
            try:
                counter = await self._db.search_counter()
            except Exception as error:
                logger.warning("the store could not be asked for changes (%s)", type(error).__name__)
                continue
            for user in list(self._users.values()):
                if user.build is not None and user.build.done() and user.counter != counter:
                    user.build = asyncio.create_task(self._build(user))
                elif self._worth_saving(user):
                    user.saving = asyncio.create_task(self._save_quietly(user))

    async def _refresh(self, user: _Unlocked) -> None:
        """Notice what other processes (or the command line) wrote; wait for it a moment only."""
        if user.build is None or user.build.done():
            if await self._db.search_counter() == user.counter:
                return
            if user.build is None or user.build.done():
                user.build = asyncio.create_task(self._build(user))
        if not user.complete and user.seen:
            return  # the first build goes on for a while, and its newest entries are there
        await asyncio.wait([user.build], timeout=REFRESH_SECONDS)

    # --- On the index's thread

    def _index_entries(
        self,
        user: _Unlocked,
        rows: Sequence[tuple[bytes, int, bytes]],
        traces: Mapping[bytes, tuple[str, ...]],
    ) -> None:
        entries, damaged = _opened_entries(self._db, user.keys, rows)
        if damaged:
            logger.error("%d records could not be opened for the index", damaged)
        user.index.put([_document(entry, traces.get(entry.id, ())) for entry in entries if _findable(entry)])
        user.index.drop([entry.id for entry in entries if not _findable(entry)])

    def _index_vectors(self, user: _Unlocked, rows: Sequence[tuple[bytes, int, bytes]]) -> set[bytes]:
        """Put stored vectors in; returns whose were of the model in use, the others serve until they are made anew."""
        import numpy as np

        taken: set[bytes] = set()
        for entry_id, revision, sealed in rows:
            try:
                record = self._db.vectors.open_record(user.keys, entry_id, revision, sealed)
            except (SealError, ValueError, KeyError):
                continue  # made anew, like a missing one
            if len(record.data) % (4 * record.dim or 1) or self._embedder_of(record.model) is None:
                continue
            vectors = np.frombuffer(record.data, dtype="<f4").reshape(-1, record.dim or 1)
            placed = user.index.put_vectors(entry_id, record.entry_revision, vectors, record.model)
            if placed and record.model == self._model():
                taken.add(entry_id)
        return taken

    def _vectors_of(self, user: _Unlocked, entry_id: bytes) -> "dict[str, Vectors]":
        """The middle of an entry's passages, by the model in use."""
        vectors = user.index.vectors_of(entry_id, self._model())
        if vectors is None:
            return {}
        import numpy as np

        middle = vectors.mean(axis=0)
        return {self._model(): (middle / (np.linalg.norm(middle) or 1.0)).astype(np.float32)}

    def _hits(
        self, user: _Unlocked, query: Query, page: Sequence[Match], rows: Sequence[tuple[bytes, int, bytes]]
    ) -> tuple[Hit, ...]:
        opened, _ = _opened_entries(self._db, user.keys, rows)
        entries = {entry.id: entry for entry in opened if _findable(entry)}
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

    # --- Vectors

    def _model(self) -> str:
        return f"{self._embedder.name}/{CHUNKING}"

    def _embedder_of(self, model: str) -> Embedder | None:
        """What made the vectors of a model, when it can be had; one used before is loaded in the background."""
        name = model.rpartition("/")[0]
        if name == self._embedder.name:
            return self._embedder
        known = self._formers.get(name)
        if known is None:
            if not self._can_embed() or not name:
                return None
            known = self._formers[name] = self._embedder.former(name)
        return None if known.state in ("off", "failed") else known

    def _can_embed(self) -> bool:
        return self._embedder.state not in ("off", "failed")

    def _queue(self, user: _Unlocked, ids: Iterable[bytes]) -> None:
        if self._can_embed():
            for entry_id in ids:
                user.unembedded.pop(entry_id, None)
                user.unembedded[entry_id] = None
            self._work.set()

    async def _embed_forever(self) -> None:
        """Embed what is queued, a batch per writer in turn, newest first; what failed is tried again later."""
        while True:
            for former in self._formers.values():
                if former.state == "cold":
                    await former.warm_up()
            queued = [user for user in self._users.values() if user.unembedded]
            now = time.monotonic()
            waiting = [user for user in queued if user.retry_at <= now]
            if not waiting or not self._can_embed():
                await self._let_formers_go()
                self._work.clear()
                with suppress(TimeoutError):
                    soonest = min((user.retry_at - now for user in queued), default=None)
                    await asyncio.wait_for(self._work.wait(), soonest if self._can_embed() else None)
                continue
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

    async def _let_formers_go(self) -> None:
        """Close what made vectors that nobody has any more."""
        needed = {model.rpartition("/")[0] for user in self._users.values() for model in user.index.models}
        building = any(user.build is not None and not user.build.done() for user in self._users.values())
        for name in [name for name in self._formers if name not in needed and not building]:
            await self._formers.pop(name).close()

    async def _embed(self, user: _Unlocked, ids: Sequence[bytes]) -> None:
        rows = await self._db.entries.sealed_many(user.user_id, ids)
        passages = await self._run(user, self._passages, user, rows)
        if not passages:
            return
        vectors = await self._embedder.passages([text for _, _, texts in passages for text in texts])
        made: list[EntryVectors] = []
        start = 0
        for entry_id, revision, texts in passages:
            own = vectors[start : start + len(texts)]
            start += len(texts)
            # An entry that was edited or erased meanwhile is queued again, or gone: nothing of it is kept.
            if self._users.get(user.user_id) is user and await self._run(
                user, user.index.put_vectors, entry_id, revision, own, self._model()
            ):
                data = own.astype("<f4").tobytes()
                made.append(EntryVectors(entry_id, revision, self._model(), self._embedder.dim, data))
        await self._db.vectors.put(user.keys, made)
        user.changed(len(made))
        # What is still to be embedded does not wait for what only makes searching faster.
        while await self._run(user, user.index.tidy) and not user.unembedded:
            pass

    def _passages(
        self, user: _Unlocked, rows: Sequence[tuple[bytes, int, bytes]]
    ) -> list[tuple[bytes, int, list[str]]]:
        entries, _ = _opened_entries(self._db, user.keys, rows)
        return [(entry.id, entry.revision, chunks(plain(entry.text))) for entry in entries if _findable(entry)]


def _findable(entry: Entry) -> bool:
    return entry.deleted is None and entry.state not in ("streaming", "unreadable")


def _document(entry: Entry, traces: tuple[str, ...] = ()) -> Document:
    return Document(entry.id, entry.revision, entry.day, entry.at, entry.role == "me", entry.text, traces)


def _changes(revisions: dict[bytes, int], known: dict[bytes, int]) -> tuple[list[bytes], list[bytes]]:
    """The records of the store that differ from what is known, and what is known and not there."""
    changed = [entry_id for entry_id, revision in revisions.items() if known.get(entry_id) != revision]
    return changed, [entry_id for entry_id in known if entry_id not in revisions]


def _differing(traces: dict[bytes, frozenset[bytes]], known: dict[bytes, frozenset[bytes]]) -> list[bytes]:
    return [entry_id for entry_id in {*traces, *known} if traces.get(entry_id) != known.get(entry_id)]


async def _ahead(places: Iterable[P], fetch: Callable[[P], Coroutine[Any, Any, T]]) -> AsyncGenerator[tuple[P, T]]:
    """What `fetch` finds at each place; while the caller works on one, the next is under way."""
    waiting: tuple[P, asyncio.Task[T]] | None = None
    try:
        for place in places:
            following = (place, asyncio.create_task(fetch(place)))
            if waiting is not None:
                here, waiting = waiting, following
                yield here[0], await here[1]
            waiting = following
        if waiting is not None:
            yield waiting[0], await waiting[1]
    finally:
        if waiting is not None:
            waiting[1].cancel()


def _feed(reader: Reader, keys: Keyring, generation: int, part: int, sealed: bytes) -> None:
    if not sealed:
        raise Unusable
    reader.feed(Snapshots.open_part(keys, generation, part, sealed))


def _next_part(parts: Iterator[bytes], keys: Keyring, generation: int, part: int) -> bytes:
    content = next(parts, b"")
    return Snapshots.seal_part(keys, generation, part, content) if content else b""


def _opened_entries(db: LocalDB, keys: Keyring, rows: Sequence[tuple[bytes, int, bytes]]) -> tuple[list[Entry], int]:
    """The entries of sealed rows, and how many did not open."""
    opened: list[Entry] = []
    for entry_id, revision, sealed in rows:
        try:
            opened.append(db.entries.open_record(keys, entry_id, revision, sealed))
        except (SealError, ValueError, KeyError):
            continue
    return opened, len(rows) - len(opened)
