"""Traces: light labels on entries. What a writer does with them, and what they say about when and beside what."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from heapq import nsmallest
from itertools import chain, islice

from llamora.persistence.connection import NotFound, Step
from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import TagDelta, TagMeta, tag_hash
from llamora.persistence.tags import TagChangeResult, TagOperation, TagSnapshot, adding_tag, removing_tag
from llamora.search.index import DayCursor
from llamora.search.service import SearchService
from llamora.text import MAX_TAG_LENGTH, find_tags, is_emoji, tag_key, tag_name
from llamora.vault.keys import Keyring

NO_NAME = f"A trace is a word, a few words or one emoji, of at most {MAX_TAG_LENGTH} characters."


class TraceError(Exception):
    """What was asked of a trace cannot be done; `str()` is the sentence."""


@dataclass(slots=True, frozen=True)
class Trace:
    """A trace and when it was used. `id` is its keyed hash, `entries` counts what bears it on pages as they are."""

    id: bytes
    name: str
    entries: int = 0
    first: date | None = None
    last: date | None = None
    hidden: bool = False

    @property
    def hex(self) -> str:
        """Its id as addresses have it: no call, which costs more than all the rest of a line in a long list."""
        return self.id.hex()

    @property
    def shown(self) -> str:
        """The name as a page shows it."""
        return self.name if is_emoji(self.name) else f"#{self.name}"


@dataclass(slots=True, frozen=True)
class Borne:
    """The traces of one entry. `named` has the trace that each name in its text (text.trace_key) stands for."""

    traces: tuple[Trace, ...] = ()
    named: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


@dataclass(slots=True)
class _Known:
    """What the store says of a writer's traces at a revision of its book, kept in memory while they are here."""

    book: TagMeta
    names: dict[bytes, str]
    by_trace: dict[bytes, set[bytes]]
    by_entry: dict[bytes, set[bytes]]
    uses: dict[bytes, Trace] = field(default_factory=dict[bytes, Trace])
    uncounted: set[bytes] = field(default_factory=set[bytes])  # traces of which `uses` may be out of date
    mark: DayCursor | None = None  # the moment of the index at which `uses` were counted
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, done: TagChangeResult) -> None:
        """Do in memory what was done in the store."""
        for trace, entry_id in done.removed:
            self.by_trace.get(trace, set()).discard(entry_id)
            self.by_entry.get(entry_id, set()).discard(trace)
        for trace, entry_id in done.added:
            self.by_trace.setdefault(trace, set()).add(entry_id)
            self.by_entry.setdefault(entry_id, set()).add(trace)
        for trace, name in done.names.items():
            if name is None:
                self.names.pop(trace, None)
            else:
                self.names[trace] = name
        touched = {trace for trace, _ in done.removed | done.added}
        self.uncounted |= touched | done.names.keys() | (done.meta.hidden ^ self.book.hidden)
        self.book = done.meta


class Traces:
    """`journal.traces`. A method that changes returns when the change is on the disk."""

    def __init__(self, db: LocalDB, search: SearchService) -> None:
        self._db = db
        self._search = search
        self._kept: dict[bytes, _Known] = {}

    def lock(self, user_id: bytes) -> None:
        """Forget what is known of a writer's traces."""
        self._kept.pop(user_id, None)

    # -- changing ----------------------------------------------------------------------------------

    async def add(self, keys: Keyring, entry_id: bytes, written: str) -> Trace:
        """Put a trace on an entry. Raises TraceError for what is no name, NotFound, StorageError."""
        name = tag_name(written)
        if not name:
            raise TraceError(NO_NAME)
        entry = await self._db.entries.get(keys, entry_id)
        if entry.deleted is not None:
            raise NotFound("This entry was deleted.")
        if entry.role != "me":
            raise NotFound("There is no such entry.")
        put: dict[bytes, str] = {}
        await self._do(keys, adding_tag(entry_id, name, put), keep=False)
        return Trace(*next(iter(put.items())))

    async def remove(self, keys: Keyring, entry_id: bytes, trace: bytes) -> bytes:
        """Take a trace off an entry; returns what undoes it."""
        return await self._do(keys, removing_tag(entry_id, trace))

    async def rename(self, keys: Keyring, trace: bytes, written: str) -> tuple[bytes, bytes]:
        """Give a trace another name; the old one goes on to mean it. Under the name of another trace they become one.

        Returns the id of the trace that it is now, and what undoes it. Raises TraceError, NotFound, StorageError.
        """
        name = tag_name(written)
        if not name:
            raise TraceError(NO_NAME)
        target = tag_hash(keys, name)

        async def plan(held: TagSnapshot) -> TagDelta:
            nonlocal target
            old = await _called(held, trace)
            if target == trace:
                return TagDelta({trace: name})
            led, meant = held.canonical(name)
            if led not in (target, trace) and await held.get_name(led) is not None:
                target = led
                return await _moved(held, trace, old, led, meant)
            return await _moved(held, trace, old, target, name)

        undo = await self._do(keys, plan)
        return target, undo

    async def merge(self, keys: Keyring, trace: bytes, into: bytes) -> bytes:
        """Make one trace part of another, whose name stays; returns what undoes it. Raises NotFound, StorageError."""

        async def plan(held: TagSnapshot) -> TagDelta:
            old, meant = await _called(held, trace), await _called(held, into)
            return TagDelta() if trace == into else await _moved(held, trace, old, into, meant)

        return await self._do(keys, plan)

    async def alias(self, keys: Keyring, trace: bytes, written: str) -> bytes:
        """Let another name mean a trace; a trace of that name becomes part of it. Returns what undoes it.

        Raises TraceError, NotFound, StorageError.
        """
        name = tag_name(written)
        if not name:
            raise TraceError(NO_NAME)
        other = tag_hash(keys, name)

        async def plan(held: TagSnapshot) -> TagDelta:
            meant = await _called(held, trace)
            if other == trace:
                raise TraceError("That is its name already.")
            led, called = held.canonical(name)
            if led not in (other, trace) and await held.get_name(led) is not None:
                raise TraceError(f"That name means the trace {called} already.")
            if (old := await held.get_name(other)) is not None:
                return await _moved(held, other, old, trace, meant)
            return TagDelta(aliases={other: (name, meant)})

        return await self._do(keys, plan)

    async def unalias(self, keys: Keyring, alias: bytes) -> bytes:
        """Let another name of a trace mean it no more; returns what undoes it."""

        async def plan(held: TagSnapshot) -> TagDelta:
            return TagDelta(aliases={alias: None} if alias in held.meta.aliases else {})

        return await self._do(keys, plan)

    async def hide(self, keys: Keyring, trace: bytes, *, hidden: bool) -> bytes:
        """Leave a trace out of lists, or show it there again; returns what undoes it."""

        async def plan(held: TagSnapshot) -> TagDelta:
            await _called(held, trace)
            return TagDelta(hidden={trace: hidden})

        return await self._do(keys, plan)

    async def delete(self, keys: Keyring, trace: bytes) -> bytes:
        """Take a trace off every entry, with its other names; returns what undoes it. Raises NotFound, StorageError."""

        async def plan(held: TagSnapshot) -> TagDelta:
            name = await _called(held, trace)
            return TagDelta(
                unlinked=frozenset((trace, entry_id) for entry_id in await held.entries_with_tag(trace)),
                aliases=dict.fromkeys(_aliases_of(held.meta, name)),
                hidden={trace: False},
            )

        return await self._do(keys, plan)

    async def undo(self, keys: Keyring, change: bytes) -> None:
        """Take back one of the latest changes. Raises NotFound, StorageError."""
        self._take(keys, await self._db.tags.undo(keys, change))

    def writing(self, keys: Keyring, entry_id: bytes, before: str, after: str) -> list[Step]:
        """The steps that belong to an entry's text as it changes.

        What is new in it (`#like-this`) comes, what is not in it any more goes; what stays is as the writer has it.
        """
        old = {tag_key(name): name for name in find_tags(before)}
        new = {tag_key(name): name for name in find_tags(after)}
        added = [name for key, name in new.items() if key not in old]
        removed = [name for key, name in old.items() if key not in new]
        if not added and not removed:
            return []
        staying = list(new.values())
        return [
            self._db.tags.updating_entry_tags(
                keys, entry_id, added, removed, staying, lambda done: self._take(keys, done)
            )
        ]

    # -- reading -----------------------------------------------------------------------------------

    async def on(self, keys: Keyring, ids: Iterable[bytes]) -> dict[bytes, list[Trace]]:
        """The traces of each of these entries that bears any, in alphabetical order; hidden ones are among them."""
        found = await self._db.tags.tags_of_entries(keys, list(ids))
        return {entry_id: [Trace(trace, name) for trace, name in names.items()] for entry_id, names in found.items()}

    async def borne(self, keys: Keyring, texts: Mapping[bytes, str]) -> dict[bytes, Borne]:
        """The traces of these entries, of which the texts are given, and what the names in each text stand for."""
        found: dict[bytes, Borne] = {}
        book: TagMeta | None = None
        for entry_id, traces in (await self.on(keys, texts)).items():
            named = {tag_key(trace.name): trace.id for trace in traces}
            own = set(named.values())
            for name in find_tags(texts[entry_id]):
                if (key := tag_key(name)) not in named:
                    book = book or await self._db.tags.get_meta(keys)
                    trace = tag_hash(keys, book.canonical(name, tag_hash(keys, name)))
                    named.update({key: trace} if trace in own else {})
            found[entry_id] = Borne(tuple(traces), named)
        return found

    async def of_name(self, keys: Keyring, written: str) -> Trace:
        """The trace that a name means, by whichever of its names. Raises NotFound."""
        known = await self._known(keys)
        trace = tag_hash(keys, known.book.canonical(written, tag_hash(keys, written)))
        if trace not in known.names:
            raise NotFound("There is no trace of that name.")
        return Trace(trace, known.names[trace], hidden=trace in known.book.hidden)

    async def all(self, keys: Keyring, *, hidden: bool = False) -> list[Trace]:
        """Every trace that stands on a page, by name; `hidden`: those that are hidden instead."""
        known = await self._uses(keys)
        found = [use for use in known.uses.values() if use.hidden == hidden]
        return sorted(found, key=lambda trace: (trace.name.casefold(), trace.name))

    async def get(self, keys: Keyring, trace: bytes) -> Trace:
        """One trace. Raises NotFound for one that stands on no page."""
        known = await self._known(keys)
        days = await self._search.days_of(keys, list(known.by_trace.get(trace, ())))
        found = _use(trace, known, days)
        if found is None:
            raise NotFound("There is no such trace.")
        return found

    async def aliases(self, keys: Keyring, trace: bytes) -> list[Trace]:
        """The other names of a trace."""
        known = await self._known(keys)
        found = _aliases_of(known.book, known.names.get(trace, ""))
        return [Trace(alias, known.book.aliases[alias][0]) for alias in found]

    async def entries(self, keys: Keyring, trace: bytes) -> list[tuple[bytes, date]]:
        """What bears a trace on pages as they are, and its days, newest day first."""
        known = await self._known(keys)
        return await self._dated(keys, known.by_trace.get(trace, ()))

    async def bearing(self, keys: Keyring, trace: bytes) -> frozenset[bytes]:
        """All that bears a trace, on pages or deleted."""
        return frozenset((await self._known(keys)).by_trace.get(trace, ()))

    async def beside(self, keys: Keyring, trace: bytes, limit: int = 12) -> list[tuple[Trace, int]]:
        """The traces that stand on the same entries, and how often; most often first, hidden ones left out."""
        known = await self._known(keys)
        counts: Counter[bytes] = Counter()
        for entry_id, _ in await self._dated(keys, known.by_trace.get(trace, ())):
            counts.update(known.by_entry.get(entry_id, ()))
        del counts[trace]
        shown = [
            (Trace(other, known.names[other]), count)
            for other, count in counts.items()
            if other in known.names and other not in known.book.hidden
        ]
        return nsmallest(limit, shown, key=lambda pair: (-pair[1], pair[0].name.casefold()))

    async def sharing(self, keys: Keyring, ids: Sequence[bytes]) -> list[tuple[bytes, int, date]]:
        """The entries that bear traces of these, how many, and their days; most first, newest among equals."""
        if not await self._db.tags.tag_ids_of(keys.user_id, ids):
            return []
        known = await self._known(keys)
        counts: Counter[bytes] = Counter()
        for trace in {trace for entry_id in ids for trace in known.by_entry.get(entry_id, ())}:
            counts.update(known.by_trace.get(trace, ()))
        for entry_id in ids:
            del counts[entry_id]
        dated = await self._dated(keys, counts)
        return sorted(((other, counts[other], day) for other, day in dated), key=lambda found: -found[1])

    # -- inside ------------------------------------------------------------------------------------

    async def _do(self, keys: Keyring, plan: TagOperation, *, keep: bool = True) -> bytes:
        done = await self._db.tags.change(keys, plan, undoable=keep)
        self._take(keys, done)
        return done.undo_id

    def _take(self, keys: Keyring, done: TagChangeResult) -> None:
        self._search.mark_tags_changed(
            keys.user_id, done.meta.revision, {entry_id for _, entry_id in done.added | done.removed}
        )
        known = self._kept.get(keys.user_id)
        if known is not None and done.meta.revision == known.book.revision + 1:
            known.take(done)
        else:
            self._kept.pop(keys.user_id, None)

    async def _known(self, keys: Keyring) -> _Known:
        known = self._kept.get(keys.user_id)
        if known is not None and known.book.revision != await self._db.tags.get_revision(keys.user_id):
            known = await self._caught_up(keys, known)
        if known is None:
            book = await self._db.tags.get_meta(keys)
            names = await self._db.tags.names(keys)
            by_entry = await self._db.tags.tag_ids_by_entry(keys.user_id)
            known = _Known(book, names, {}, {entry_id: set(traces) for entry_id, traces in by_entry.items()})
            for entry_id, traces in by_entry.items():
                for trace in traces:
                    known.by_trace.setdefault(trace, set()).add(entry_id)
            self._kept[keys.user_id] = known
        return known

    async def _caught_up(self, keys: Keyring, known: _Known) -> _Known | None:
        """What is known, with what other processes did since; None where that was too much to be told one by one."""
        before = known.book.revision
        book = await self._db.tags.get_meta(keys)
        touched = book.touched_since(before)
        if touched is None:
            return None
        names = await self._db.tags.names_of(keys, touched.tag_ids)
        links = await self._db.tags.tag_ids_of(keys.user_id, touched.entry_ids)
        if known.book.revision != before:  # somebody else has caught up meanwhile, or something was done here
            return known if known.book.revision >= book.revision else None
        there = {(trace, entry_id) for entry_id, traces in links.items() for trace in traces}
        had = {(trace, entry_id) for entry_id in touched.entry_ids for trace in known.by_entry.get(entry_id, ())}
        called = {trace: names.get(trace) for trace in touched.tag_ids}
        known.take(TagChangeResult(b"", frozenset(there - had), frozenset(had - there), called, book))
        return known

    async def _dated(self, keys: Keyring, ids: Iterable[bytes]) -> list[tuple[bytes, date]]:
        """Those of these entries that stand on pages, with their days, newest day first."""
        wanted = list(ids)
        days = await self._search.days_of(keys, wanted)
        found = [(entry_id, day) for entry_id, day in zip(wanted, days, strict=True) if day]
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return [(entry_id, date.fromordinal(day)) for entry_id, day in found]

    async def _uses(self, keys: Keyring) -> _Known:
        """What is known, with how often and when each trace was used: counted again where something changed."""
        known = await self._known(keys)
        async with known.counting:
            known.mark, moved = await self._search.days_changed_since(keys, known.mark)
            if moved is None:
                known.uncounted.update(known.names, known.uses)
            else:
                known.uncounted.update(trace for entry_id in moved for trace in known.by_entry.get(entry_id, ()))
            counting, known.uncounted = known.uncounted, set()
            try:
                bearing = {trace: list(known.by_trace.get(trace, ())) for trace in counting}
                days = iter(await self._search.days_of(keys, list(chain.from_iterable(bearing.values()))))
            except BaseException:
                known.uncounted |= counting
                raise
            for trace, ids in bearing.items():
                if use := _use(trace, known, islice(days, len(ids))):
                    known.uses[trace] = use
                else:
                    known.uses.pop(trace, None)
        return known


def _use(trace: bytes, known: _Known, days: Iterable[int]) -> Trace | None:
    """How a trace was used on these days; 0 is no page. None for one that stands on none."""
    on = [day for day in days if day]
    if not on or trace not in known.names:
        return None
    first, last = date.fromordinal(min(on)), date.fromordinal(max(on))
    return Trace(trace, known.names[trace], len(on), first, last, trace in known.book.hidden)


async def _called(held: TagSnapshot, trace: bytes) -> str:
    """The name of a trace. Raises NotFound."""
    name = await held.get_name(trace)
    if name is None:
        raise NotFound("There is no such trace.")
    return name


def _aliases_of(book: TagMeta, name: str) -> list[bytes]:
    key = tag_key(name)
    return [alias for alias, (_, meant) in book.aliases.items() if tag_key(meant) == key]


async def _moved(held: TagSnapshot, trace: bytes, old: str, target: bytes, name: str) -> TagDelta:
    """The change that lets all that bears a trace bear another one, and the old name mean it, and its other names."""
    ids = await held.entries_with_tag(trace)
    aliases: dict[bytes, tuple[str, str] | None] = {
        alias: (held.meta.aliases[alias][0], name) for alias in _aliases_of(held.meta, old)
    }
    aliases[trace] = (old, name)
    aliases[target] = None
    hidden = {trace: False}
    if trace in held.meta.hidden and await held.get_name(target) is None:
        hidden[target] = True
    return TagDelta(
        await held.missing_names({target: name}),
        frozenset((target, entry_id) for entry_id in ids),
        frozenset((trace, entry_id) for entry_id in ids),
        aliases,
        hidden,
    )
