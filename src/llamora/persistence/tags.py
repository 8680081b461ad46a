"""Traces in the store: sealed names under keyed hashes, which entries bear them, and what undoes a change."""

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger

from llamora.persistence.connection import Connections, NotFound, Row, Step, Transaction
from llamora.persistence.entries import record_bytes
from llamora.persistence.schema import TAG_REJECTIONS, TAGS
from llamora.persistence.summaries import place_of_digest
from llamora.persistence.tag_changes import (
    Book,
    Change,
    Link,
    book_of,
    open_book,
    put_book,
    settled,
    take_back,
    trace_hash,
)
from llamora.persistence.tag_changes import keep as keep_undo
from llamora.text import trace_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

BATCH = 500
_UNUSED = "NOT EXISTS (SELECT 1 FROM entry_tags WHERE user_id=tags.user_id AND tag=tags.tag)"


@dataclass(slots=True, frozen=True)
class Changed:
    """What was done, for whoever holds a copy of it all.

    `undo` names it for `Tags.undo`, `came` and `went` are links, `names` says what traces are called by now (None: such
    a trace is not there any more), `book` is the book as stored.
    """

    undo: bytes
    came: frozenset[Link]
    went: frozenset[Link]
    names: Mapping[bytes, str | None]
    book: Book


class Held:
    """The traces of a writer as one transaction sees them: what a change is planned from."""

    def __init__(self, tx: Transaction, keys: Keyring, book: Book) -> None:
        self._tx = tx
        self.keys = keys
        self.book = book

    async def name(self, trace: bytes) -> str | None:
        """The name of a trace, None when there is no such trace or its name does not open."""
        rows = await self._tx.fetch(
            "SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag=?", (self.keys.user_id, trace)
        )
        return _open_name(self.keys, *rows[0]) if rows else None

    async def entries(self, trace: bytes) -> frozenset[bytes]:
        """The entries that bear a trace."""
        rows = await self._tx.fetch(
            "SELECT entry_id FROM entry_tags WHERE user_id=? AND tag=?", (self.keys.user_id, trace)
        )
        return frozenset(row[0] for row in rows)

    async def has(self, entry_id: bytes) -> bool:
        """Whether the writer has such an entry."""
        return bool(await _standing(self._tx, self.keys, [entry_id]))

    async def missing(self, names: Mapping[bytes, str]) -> dict[bytes, str]:
        """Those of these names that no trace has by now: the first spelling stays the shown one."""
        there = await _names_of(self._tx, self.keys, names)
        return {trace: name for trace, name in names.items() if trace not in there}

    def meant(self, name: str) -> tuple[bytes, str]:
        """The trace that a written name stands for, and its name."""
        trace = trace_hash(self.keys, name)
        if trace not in self.book.aliases:
            return trace, name
        meant = self.book.meant(name, trace)
        return trace_hash(self.keys, meant), meant


Plan = Callable[[Held], Awaitable[Change]]


def adding(entry_id: bytes, name: str, put: dict[bytes, str]) -> Plan:
    """The plan that puts a trace on an entry, and says in `put` which that was; it raises NotFound without one."""

    async def plan(held: Held) -> Change:
        put.update([held.meant(name)])
        if not await held.has(entry_id):
            raise NotFound("There is no such entry.")
        return Change(await held.missing(put), frozenset((trace, entry_id) for trace in put))

    return plan


def removing(entry_id: bytes, trace: bytes) -> Plan:
    """The plan that takes a trace off an entry."""

    async def plan(_: Held) -> Change:
        return Change(unlinked=frozenset({(trace, entry_id)}))

    return plan


class Tags:
    """`db.tags`."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections

    # -- changing ----------------------------------------------------------------------------------

    async def change(self, keys: Keyring, plan: Plan, *, keep: bool = True) -> Changed:
        """Do in one transaction what `plan` makes of what is there; `keep` stores what undoes it, sealed.

        Entries that are missing, or another writer's, are passed over. Raises StorageError and what `plan` raises.
        """
        undo = secrets.token_bytes(16) if keep else b""
        async with self._db.write() as tx:
            book = await book_of(tx, keys)
            done, inverse = await _apply(tx, keys, book, await plan(Held(tx, keys, book)))
            if keep:
                await keep_undo(tx, keys, undo, inverse)
        if done.went:
            await self._db.checkpoint()
        return replace(done, undo=undo)

    async def undo(self, keys: Keyring, change: bytes) -> Changed:
        """Take back one of the latest changes, as far as what it was about is still there; once.

        Raises NotFound for one that is not known any more, StorageError and SealError.
        """
        async with self._db.write() as tx:
            held = Held(tx, keys, await book_of(tx, keys))
            left = await _left_to_undo(held, await take_back(tx, keys, change))
            done, _ = await _apply(tx, keys, held.book, left)
        await self._db.checkpoint()
        return done

    def retracing(
        self,
        keys: Keyring,
        entry_id: bytes,
        added: Sequence[str],
        removed: Collection[str],
        staying: Collection[str],
        told: Callable[[Changed], None],
    ) -> Step:
        """The step that puts named traces on an entry and takes others off, in the transaction that writes it.

        A trace that one of the `staying` names means is not taken off, whatever its other names. `told` hears of it
        once that is committed.
        """

        async def step(tx: Transaction) -> None:
            book = await book_of(tx, keys)
            held = Held(tx, keys, book)
            put = dict(held.meant(name) for name in added)
            off = {held.meant(name)[0] for name in removed} - {held.meant(name)[0] for name in staying}
            change = Change(
                await held.missing(put),
                frozenset((trace, entry_id) for trace in put),
                frozenset((trace, entry_id) for trace in off),
            )
            done, _ = await _apply(tx, keys, book, change)
            tx.afterwards.append(lambda: told(done))

        return step

    async def add(self, keys: Keyring, entry_id: bytes, name: str) -> bytes:
        """Put a trace on an entry and return its hash; the first spelling of a name stays the shown one.

        Raises NotFound for an entry that is missing or another writer's.
        """
        put: dict[bytes, str] = {}
        await self.change(keys, adding(entry_id, name, put), keep=False)
        return next(iter(put))

    async def remove(self, keys: Keyring, entry_id: bytes, trace: bytes) -> None:
        """Take a trace off an entry; the name goes with its last entry. Undone as any change."""
        await self.change(keys, removing(entry_id, trace))

    # -- what an entry is not to get again -----------------------------------------------------------

    async def refuse(self, keys: Keyring, entry_id: bytes, names: Iterable[str]) -> None:
        """Note that these are not to be suggested for an entry again. Raises NotFound, StorageError."""
        async with self._db.write() as tx:
            if not await tx.fetch("SELECT 1 FROM entries WHERE user_id=? AND id=?", (keys.user_id, entry_id)):
                raise NotFound("There is no such entry.")
            revision, refused = await _refused(keys, tx.fetch, entry_id)
            kept = sorted(refused | {trace_key(name) for name in names})
            sealed = TAG_REJECTIONS.seal(keys, entry_id, revision + 1, record_bytes({"names": kept}))
            await tx.execute(
                "INSERT INTO tag_rejections (entry_id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
                (entry_id, keys.user_id, keys.epoch, revision + 1, sealed),
            )

    async def refused(self, keys: Keyring, entry_id: bytes) -> set[str]:
        """The keys (text.trace_key) of the names that are not to be suggested for an entry."""
        return (await _refused(keys, self._db.fetch, entry_id))[1]

    # -- reading -------------------------------------------------------------------------------------

    async def book(self, keys: Keyring) -> Book:
        """What is said of the writer's traces."""
        return open_book(
            keys, await self._db.fetch("SELECT revision, sealed FROM tag_meta WHERE user_id=?", (keys.user_id,))
        )

    async def revision(self, user_id: bytes) -> int:
        """Another number after every change of a name or a link; 0 before the first."""
        rows = await self._db.fetch("SELECT revision FROM tag_meta WHERE user_id=?", (user_id,))
        return rows[0][0] if rows else 0

    async def names(self, keys: Keyring) -> dict[bytes, str]:
        """Every trace of the writer, name by hash; unreadable ones are left out."""
        rows = await self._db.fetch("SELECT tag, revision, sealed FROM tags WHERE user_id=?", (keys.user_id,))
        return _names(keys, rows)

    async def of_entries(self, keys: Keyring, ids: Sequence[bytes]) -> dict[bytes, dict[bytes, str]]:
        """The traces of each of these entries that bears any, name by hash, in alphabetical order."""
        links = await self.links_of(keys.user_id, ids)
        names = await self.named(keys, {trace for traces in links.values() for trace in traces})
        found = {entry_id: {t: names[t] for t in traces if t in names} for entry_id, traces in links.items()}
        return {
            entry_id: dict(sorted(traces.items(), key=lambda item: item[1].casefold()))
            for entry_id, traces in found.items()
            if traces
        }

    async def named(self, keys: Keyring, traces: Collection[bytes]) -> dict[bytes, str]:
        """The names of these traces; those that are not there or do not open are left out."""
        wanted = list(traces)
        found: dict[bytes, str] = {}
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            marks = ",".join("?" * len(part))
            found |= _names(
                keys,
                await self._db.fetch(
                    f"SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag IN ({marks})",
                    (keys.user_id, *part),
                ),
            )
        return found

    async def by_entry(self, user_id: bytes) -> dict[bytes, frozenset[bytes]]:
        """The hashes of the traces on every entry of a writer that bears one."""
        rows = await self._db.fetch("SELECT entry_id, tag FROM entry_tags WHERE user_id=?", (user_id,))
        found: dict[bytes, set[bytes]] = {}
        for entry_id, trace in rows:
            found.setdefault(entry_id, set()).add(trace)
        return {entry_id: frozenset(traces) for entry_id, traces in found.items()}

    async def links_of(self, user_id: bytes, ids: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
        """As `by_entry`, of these entries."""
        wanted = list(ids)
        found: dict[bytes, set[bytes]] = {}
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            marks = ",".join("?" * len(part))
            # The "+" keeps SQLite from walking all links of the writer.
            rows = await self._db.fetch(
                f"SELECT entry_id, tag FROM entry_tags WHERE +user_id=? AND entry_id IN ({marks})", (user_id, *part)
            )
            for entry_id, trace in rows:
                found.setdefault(entry_id, set()).add(trace)
        return {entry_id: frozenset(traces) for entry_id, traces in found.items()}

    async def entries_with(self, keys: Keyring, names: Iterable[str]) -> set[bytes]:
        """The ids of the entries that bear every one of these traces, by whichever of its names each is called."""
        book = await self.book(keys)
        found: set[bytes] | None = None
        for name in names:
            trace = trace_hash(keys, book.meant(name, trace_hash(keys, name)))
            rows = await self._db.fetch(
                "SELECT entry_id FROM entry_tags WHERE user_id=? AND tag=?", (keys.user_id, trace)
            )
            ids = {row[0] for row in rows}
            found = ids if found is None else found & ids
        return found or set()


async def _left_to_undo(held: Held, inverse: Change) -> Change:
    """What there is to undo of a change after others: no name that entries bear means another trace in the end."""
    keys, book = held.keys, held.book
    aliases = {
        alias: meant
        for alias, meant in inverse.aliases.items()
        if alias in inverse.relinked or book.aliases.get(alias) == inverse.over.get(alias, book.aliases.get(alias))
    }
    for alias, meant in list(aliases.items()):
        if meant and any((alias, entry_id) not in inverse.unlinked for entry_id in await held.entries(alias)):
            del aliases[alias]
    after = settled(keys, {**book.aliases, **aliases})

    def now(trace: bytes) -> bytes:
        return trace_hash(keys, after[trace][1]) if trace in after else trace

    moved = inverse.relinked | {trace for trace, _ in inverse.unlinked}
    names = {now(trace): after[trace][1] if trace in after else name for trace, name in inverse.named.items()}
    spelt = {trace: name for trace, name in inverse.named.items() if trace not in moved and trace not in after}
    alone = not (
        moved or inverse.aliases
    )  # nothing but what is hidden is changed: that follows a trace to its new name
    return Change(
        await held.missing(names) | spelt,
        frozenset((now(trace), entry_id) for trace, entry_id in inverse.linked),
        inverse.unlinked,
        aliases,
        {now(trace): hidden for trace, hidden in inverse.hidden.items() if alone or trace not in after},
    )


async def _apply(tx: Transaction, keys: Keyring, book: Book, change: Change) -> tuple[Changed, Change]:
    """Do a change; returns what was done and what undoes it."""
    wanted = change.linked - change.unlinked
    there = await _links(tx, keys, wanted | change.unlinked)
    standing = await _standing(tx, keys, {entry_id for _, entry_id in wanted - there})
    new = frozenset(link for link in wanted - there if link[1] in standing)
    gone = there & change.unlinked
    traces = {trace for trace, _ in new | gone} | change.named.keys()
    before = await _names_of(tx, keys, traces)
    # A trace that an entry is to bear has a name: one that has none by now cannot come back.
    new = frozenset(link for link in new if link[0] in before or link[0] in change.named)
    await _put_names(tx, keys, change.named)
    await tx.execute_many(
        "INSERT INTO entry_tags (user_id, tag, entry_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(keys.user_id, *link) for link in new],
    )
    await tx.execute_many(
        "DELETE FROM entry_tags WHERE user_id=? AND tag=? AND entry_id=?", [(keys.user_id, *link) for link in gone]
    )
    await tx.execute_many(
        f"DELETE FROM tags WHERE user_id=? AND tag=? AND {_UNUSED}", [(keys.user_id, trace) for trace in traces]
    )
    # What a model said of a trace was drawn from other entries than bear it now.
    changed = {trace for trace, _ in new | gone}
    await tx.execute_many(
        "DELETE FROM summaries WHERE user_id=? AND summary_key=?",
        [(keys.user_id, place_of_digest(keys, "trace", trace)) for trace in changed],
    )
    aliases = settled(keys, {**book.aliases, **change.aliases}) if change.aliases else book.aliases
    turned = {alias for alias, _ in aliases.items() ^ book.aliases.items()}
    inverse = Change(
        before,
        gone,
        new,
        {alias: book.aliases.get(alias) for alias in turned},
        {trace: trace in book.hidden for trace in change.hidden},
        {alias: aliases.get(alias) for alias in turned},
    )
    hidden = dict.fromkeys(book.hidden, True) | dict(change.hidden)
    after = replace(
        book.touching(traces, {entry_id for _, entry_id in new | gone}),
        aliases=aliases,
        hidden=frozenset(trace for trace, is_hidden in hidden.items() if is_hidden),
    )
    await put_book(tx, keys, after)
    names = await _names_of(tx, keys, traces)
    return Changed(b"", new, gone, {trace: names.get(trace) for trace in traces}, after), inverse


async def _links(tx: Transaction, keys: Keyring, links: Collection[Link]) -> frozenset[Link]:
    """Which of these links there are: asked for by trace or by entry, of whichever there are fewer."""
    by_entry = len({entry_id for _, entry_id in links}) < len({trace for trace, _ in links})
    one, other = ("entry_id", "tag") if by_entry else ("tag", "entry_id")
    groups: dict[bytes, list[bytes]] = {}
    for trace, entry_id in links:
        place, bound = (entry_id, trace) if by_entry else (trace, entry_id)
        groups.setdefault(place, []).append(bound)
    found: set[Link] = set()
    for place, bound in groups.items():
        for start in range(0, len(bound), BATCH):
            part = bound[start : start + BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT tag, entry_id FROM entry_tags WHERE user_id=? AND {one}=? AND {other} IN ({marks})"
            found |= {(row[0], row[1]) for row in await tx.fetch(query, (keys.user_id, place, *part))}
    return frozenset(found)


async def _standing(tx: Transaction, keys: Keyring, ids: Collection[bytes]) -> set[bytes]:
    """Which of these entries the writer has."""
    wanted = list(ids)
    found: set[bytes] = set()
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        marks = ",".join("?" * len(part))
        rows = await tx.fetch(f"SELECT id FROM entries WHERE +user_id=? AND id IN ({marks})", (keys.user_id, *part))
        found |= {row[0] for row in rows}
    return found


async def _rows_of(tx: Transaction, keys: Keyring, traces: Iterable[bytes]) -> list[Row]:
    wanted = list(traces)
    found: list[Row] = []
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        marks = ",".join("?" * len(part))
        query = f"SELECT tag, revision, sealed FROM tags WHERE user_id=? AND tag IN ({marks})"
        found += await tx.fetch(query, (keys.user_id, *part))
    return found


async def _names_of(tx: Transaction, keys: Keyring, traces: Iterable[bytes]) -> dict[bytes, str]:
    return _names(keys, await _rows_of(tx, keys, traces))


async def _put_names(tx: Transaction, keys: Keyring, names: Mapping[bytes, str]) -> None:
    """Store names where there are none; the same name spelt otherwise by a rename takes the place of the old one."""
    rows = await _rows_of(tx, keys, names)
    revisions = {trace: revision for trace, revision, _ in rows}
    there = _names(keys, rows)
    put: list[Row] = []
    for trace, name in names.items():
        if there.get(trace) != name:
            revision = revisions.get(trace, 0) + 1
            text = name.encode("utf-8", "surrogatepass")
            sealed = TAGS.seal(keys, trace, revision, text)
            put.append((keys.user_id, trace, keys.epoch, revision, sealed))
    await tx.execute_many(
        "INSERT INTO tags (user_id, tag, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        put,
    )


async def _refused(
    keys: Keyring, fetch: Callable[[str, Sequence[object]], Awaitable[list[Row]]], entry_id: bytes
) -> tuple[int, set[str]]:
    rows = await fetch(
        "SELECT revision, sealed FROM tag_rejections WHERE user_id=? AND entry_id=?", (keys.user_id, entry_id)
    )
    if not rows:
        return 0, set()
    revision, sealed = rows[0]
    try:
        record = json.loads(TAG_REJECTIONS.open(keys, entry_id, revision, sealed))
    except SealError as error:
        logger.error("what an entry is not to be given could not be opened (%s)", type(error).__name__)
        return revision, set()
    return revision, set(record["names"])


def _names(keys: Keyring, rows: Iterable[Row]) -> dict[bytes, str]:
    names = {trace: _open_name(keys, trace, revision, sealed) for trace, revision, sealed in rows}
    return {trace: name for trace, name in names.items() if name is not None}


def _open_name(keys: Keyring, trace: bytes, revision: int, sealed: bytes) -> str | None:
    try:
        name = TAGS.open(keys, trace, revision, sealed)
    except SealError as error:
        # One damaged name must not hide the others.
        logger.error("the name of a trace could not be opened (%s)", type(error).__name__)
        return None
    return name.decode("utf-8", "surrogatepass")
