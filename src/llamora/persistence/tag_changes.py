"""The sealed book of a writer's traces, with other names and what is hidden; and what undoes the latest changes."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Any, TypeVar

from llamora.persistence.connection import NotFound, Row, Step, Transaction
from llamora.persistence.entries import record_bytes
from llamora.persistence.schema import TAG_CHANGES, TAG_HASH, TAG_META
from llamora.text import trace_key
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring

logger = getLogger(__name__)

CHANGES_KEPT = 20  # of a writer: so far back can be undone
LATEST_KEPT = 16  # changes of which the book says what they were about
MOST_TOUCHED = 64  # traces and entries of one of them; after a larger change everything is read again
Link = tuple[bytes, bytes]
"""A trace and an entry that bears it."""
Meant = TypeVar("Meant", bound=tuple[str, str] | None)


def trace_hash(keys: Keyring, name: str) -> bytes:
    """The keyed hash that stands for a trace's name, the same for every spelling of it (text.trace_key)."""
    # With blanks, as the first schema's names were hashed: what has them is found by the same hash.
    return keys.blind(TAG_HASH, trace_key(name).replace("-", " ").encode("utf-8", "surrogatepass"))


@dataclass(slots=True, frozen=True)
class Touched:
    """Which traces and entries the change that made a revision of the book was about."""

    revision: int
    traces: frozenset[bytes]
    entries: frozenset[bytes]


@dataclass(slots=True, frozen=True)
class Book:
    """What is said of a writer's traces beside their names.

    `aliases` has for the hash of another name that name as it was written and the name of the trace it stands for;
    `hidden` are traces that no list shows. `revision` is another one after every change of a name, a link or this;
    `latest` says what the latest changes were about, for whoever keeps a copy of it all in another process.
    """

    revision: int = 0
    aliases: Mapping[bytes, tuple[str, str]] = field(default_factory=dict[bytes, tuple[str, str]])
    hidden: frozenset[bytes] = frozenset()
    latest: tuple[Touched, ...] = ()

    def since(self, revision: int) -> Touched | None:
        """What was touched after an earlier revision, all of it together; None where that is not known any more."""
        later = [touched for touched in self.latest if touched.revision > revision]
        if revision > self.revision or len(later) != self.revision - revision:
            return None
        return Touched(
            self.revision,
            frozenset[bytes]().union(*(touched.traces for touched in later)),
            frozenset[bytes]().union(*(touched.entries for touched in later)),
        )

    def touching(self, traces: Collection[bytes], entries: Collection[bytes]) -> "Book":
        """The next revision, which a change of these makes."""
        known = len(traces) + len(entries) <= MOST_TOUCHED
        touched = Touched(self.revision + 1, frozenset(traces), frozenset(entries))
        return replace(
            self,
            revision=self.revision + 1,
            latest=(*self.latest, touched)[-LATEST_KEPT:] if known else (),
        )

    def meant(self, name: str, trace: bytes) -> str:
        """The name of the trace that a name stands for."""
        return self.aliases[trace][1] if trace in self.aliases else name


@dataclass(slots=True, frozen=True)
class Change:
    """What one action does to traces. Names that no entry bears any more go by themselves.

    `named` are names to be there, `linked` and `unlinked` what is borne and what is not any more; `aliases` has None
    for what is no alias any more, `hidden` False for what is shown again. In what undoes a change, `over` has the
    aliases as the change left them.
    """

    named: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    linked: frozenset[Link] = frozenset()
    unlinked: frozenset[Link] = frozenset()
    aliases: Mapping[bytes, tuple[str, str] | None] = field(default_factory=dict[bytes, tuple[str, str] | None])
    hidden: Mapping[bytes, bool] = field(default_factory=dict[bytes, bool])
    over: Mapping[bytes, tuple[str, str] | None] = field(default_factory=dict[bytes, tuple[str, str] | None])

    @property
    def relinked(self) -> set[bytes]:
        """The traces that entries are to bear."""
        return {trace for trace, _ in self.linked}


def settled(keys: Keyring, aliases: Mapping[bytes, tuple[str, str] | None]) -> dict[bytes, tuple[str, str]]:
    """Aliases of which each means a trace and none another alias; one that means itself in the end is left out."""
    there = {alias: meant for alias, meant in aliases.items() if meant is not None}
    found: dict[bytes, tuple[str, str]] = {}
    for alias, (name, first) in there.items():
        passed, meant = {alias}, first
        while (trace := trace_hash(keys, meant)) in there and trace not in passed:
            passed.add(trace)
            meant = there[trace][1]
        if trace not in passed:
            found[alias] = (name, meant)
    return found


async def book_of(tx: Transaction, keys: Keyring) -> Book:
    """The book as a transaction sees it."""
    return open_book(keys, await tx.fetch("SELECT revision, sealed FROM tag_meta WHERE user_id=?", (keys.user_id,)))


def open_book(keys: Keyring, rows: Sequence[Row]) -> Book:
    """The book of the (revision, sealed) that a writer has, or has not."""
    if not rows:
        return Book()
    revision, sealed = rows[0]
    try:
        record = json.loads(TAG_META.open(keys, keys.user_id, revision, sealed))
    except SealError as error:
        # Names and links are records of their own: what is lost are aliases and what was hidden.
        logger.error("the book of traces could not be opened (%s)", type(error).__name__)
        return Book(revision)
    return Book(
        revision,
        {bytes.fromhex(alias): (name, meant) for alias, (name, meant) in record["aliases"].items()},
        frozenset(bytes.fromhex(trace) for trace in record["hidden"]),
        tuple(
            Touched(number, frozenset(map(bytes.fromhex, traces)), frozenset(map(bytes.fromhex, entries)))
            for number, traces, entries in record.get("latest", ())
        ),
    )


async def put_book(tx: Transaction, keys: Keyring, book: Book) -> None:
    """Store a book under its revision."""
    record = record_bytes(
        {
            "aliases": {alias.hex(): list(meant) for alias, meant in book.aliases.items()},
            "hidden": sorted(trace.hex() for trace in book.hidden),
            "latest": [
                [each.revision, sorted(map(bytes.hex, each.traces)), sorted(map(bytes.hex, each.entries))]
                for each in book.latest
            ],
        }
    )
    sealed = TAG_META.seal(keys, keys.user_id, book.revision, record)
    await tx.execute(
        "INSERT INTO tag_meta (user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision, sealed=excluded.sealed",
        (keys.user_id, keys.epoch, book.revision, sealed),
    )


async def keep(tx: Transaction, keys: Keyring, change: bytes, inverse: Change) -> None:
    """Store what undoes a change; the oldest beyond CHANGES_KEPT goes. Its revision says how old it is."""
    rows = await tx.fetch("SELECT id, revision FROM tag_changes WHERE user_id=?", (keys.user_id,))
    latest = max((revision for _, revision in rows), default=0)
    sealed = TAG_CHANGES.seal(keys, change, latest + 1, _packed(inverse))
    await tx.execute(
        "INSERT INTO tag_changes (id, user_id, epoch, revision, sealed) VALUES (?, ?, ?, ?, ?)",
        (change, keys.user_id, keys.epoch, latest + 1, sealed),
    )
    await tx.execute(
        "DELETE FROM tag_changes WHERE user_id=? AND revision<=?", (keys.user_id, latest + 1 - CHANGES_KEPT)
    )


async def take_back(tx: Transaction, keys: Keyring, change: bytes) -> Change:
    """What undoes a change; it is not known any more then. Raises NotFound, SealError."""
    rows = await tx.fetch("SELECT revision, sealed FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, change))
    if not rows:
        raise NotFound("This can not be undone any more.")
    await tx.execute("DELETE FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, change))
    return _unpacked(TAG_CHANGES.open(keys, change, *rows[0]))


def forgetting(keys: Keyring, gone: Collection[bytes], borne: Collection[bytes]) -> Step:
    """The step that forgets erased entries, which bore the traces of `borne`, in a transaction that has erased them.

    A trace that nothing bears since leaves no name behind: neither in the book nor in what could be undone.
    """

    async def forget(tx: Transaction) -> None:
        there = {row[0] for row in await tx.fetch("SELECT tag FROM tags WHERE user_id=?", (keys.user_id,))}
        rows = await tx.fetch("SELECT id, revision, sealed FROM tag_changes WHERE user_id=?", (keys.user_id,))
        changes = {row[0]: _opened(keys, *row) for row in rows}
        links = {link for change in changes.values() for link in change.linked | change.unlinked}
        dead = {trace for trace, entry_id in links if entry_id in gone} | set(borne)
        dead -= there | {link[0] for change in changes.values() for link in change.linked if link[1] not in gone}
        book = await book_of(tx, keys)
        left = replace(book, aliases=_without(keys, book.aliases, dead), hidden=book.hidden - dead)
        if left != book:
            await put_book(tx, keys, replace(left, revision=book.revision + 1, latest=()))
        elif any(not touched.entries.isdisjoint(gone) for touched in book.latest):
            await put_book(tx, keys, replace(book, latest=()))
        for change, revision, _ in rows:
            known = changes[change]
            kept = _forgotten(keys, known, gone, dead)
            if kept == Change():
                await tx.execute("DELETE FROM tag_changes WHERE user_id=? AND id=?", (keys.user_id, change))
            elif kept != known:
                again = TAG_CHANGES.seal(keys, change, revision, _packed(kept))
                await tx.execute(
                    "UPDATE tag_changes SET epoch=?, sealed=? WHERE user_id=? AND id=?",
                    (keys.epoch, again, keys.user_id, change),
                )

    return forget


def _opened(keys: Keyring, change: bytes, revision: int, sealed: bytes) -> Change:
    """What undoes a change; nothing where that does not open."""
    try:
        return _unpacked(TAG_CHANGES.open(keys, change, revision, sealed))
    except SealError as error:
        logger.error("what undoes a change of traces could not be opened (%s)", type(error).__name__)
        return Change()


def _forgotten(keys: Keyring, change: Change, gone: Collection[bytes], dead: Collection[bytes]) -> Change:
    """A change without entries that are gone, and without the names that only they bore."""
    return Change(
        {trace: name for trace, name in change.named.items() if trace not in dead},
        frozenset(link for link in change.linked if link[1] not in gone),
        frozenset(link for link in change.unlinked if link[1] not in gone),
        _without(keys, change.aliases, dead),
        {trace: hidden for trace, hidden in change.hidden.items() if trace not in dead},
        _without(keys, change.over, dead),
    )


def _without(keys: Keyring, aliases: Mapping[bytes, Meant], dead: Collection[bytes]) -> dict[bytes, Meant]:
    return {a: meant for a, meant in aliases.items() if meant is None or trace_hash(keys, meant[1]) not in dead}


def _packed(change: Change) -> bytes:
    return record_bytes(
        {
            "named": {trace.hex(): name for trace, name in change.named.items()},
            "linked": sorted((trace.hex(), entry_id.hex()) for trace, entry_id in change.linked),
            "unlinked": sorted((trace.hex(), entry_id.hex()) for trace, entry_id in change.unlinked),
            "aliases": {alias.hex(): meant for alias, meant in change.aliases.items()},
            "hidden": {trace.hex(): is_hidden for trace, is_hidden in change.hidden.items()},
            "over": {alias.hex(): meant for alias, meant in change.over.items()},
        }
    )


def _unpacked(record: bytes) -> Change:
    fields: dict[str, Any] = json.loads(record)
    return Change(
        {bytes.fromhex(trace): name for trace, name in fields["named"].items()},
        frozenset((bytes.fromhex(trace), bytes.fromhex(entry_id)) for trace, entry_id in fields["linked"]),
        frozenset((bytes.fromhex(trace), bytes.fromhex(entry_id)) for trace, entry_id in fields["unlinked"]),
        _unpacked_aliases(fields["aliases"]),
        {bytes.fromhex(trace): is_hidden for trace, is_hidden in fields["hidden"].items()},
        _unpacked_aliases(fields.get("over", {})),
    )


def _unpacked_aliases(fields: Mapping[str, Sequence[str] | None]) -> dict[bytes, tuple[str, str] | None]:
    return {bytes.fromhex(alias): (meant[0], meant[1]) if meant else None for alias, meant in fields.items()}
