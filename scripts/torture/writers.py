"""What is done to a store while it is broken: the list of deeds, and processes that do them until they are killed.

A new kind of deed is a function that plans one, named in DEEDS; a new kind of work is one named in WORK.
"""

import asyncio
import os
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from llamora.app.services.container import AppLifecycle, AppServices
from llamora.journal import rotation
from llamora.journal.rotation import Rotation
from llamora.persistence.backups import copy_database, read_header, restore_backup
from llamora.persistence.connection import NotFound, StaleRevision
from llamora.persistence.drafts import FormToken
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.tag_changes import tag_hash
from llamora.settings import CryptoSettings, DataSettings, EmbeddingSettings, LlmSettings, Settings, resource
from llamora.text import tag_name
from llamora.vault.keys import Keyring
from scripts.torture.invariants import Line, keys_of

WORD = "quokkasaurus"
"""In every text and trace: no file may hold it."""
HANDS = 4
MOST_TRACES = 6  # of one hand: beyond, it takes one that is there
MOST_LINES = 40  # of one hand: beyond, it erases rather than writes

Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Deed:
    """What a hand is about to do to one entry, and to others `beside` it by the same action.

    Where it can be taken back, `do` returns what undoes it.
    """

    entry: bytes
    after: Line | None
    do: Callable[[], Awaitable[object]]
    beside: dict[bytes, Line] = field(default_factory=dict[bytes, Line])


@dataclass(slots=True)
class Hand:
    """One of several that work at once, each on entries of its own (by the first byte of the id)."""

    number: int
    services: AppServices
    keys: Keyring
    rng: random.Random
    lines: dict[bytes, Line]
    undo: tuple[bytes, dict[bytes, Line]] | None = None  # of the last deed, and how what it changed was before

    def fresh(self) -> str:
        """A name of a trace that no other hand uses and this one never used."""
        return tag_name(f"{WORD} {self.number} {self.rng.randrange(10**9)}")

    def traces(self) -> list[str]:
        """The traces that only this hand's entries bear."""
        borne = {name for line in self.lines.values() for name in line.traces}
        return sorted(name for name in borne if name.startswith(f"{WORD} {self.number} "))

    def words(self) -> str:
        """A text of any length, with the word that is looked for."""
        return f"{WORD} {self.rng.randrange(10**9)}" + " word" * self.rng.choice((0, 3, 30, 300))

    def one(self, *, deleted: bool = False) -> bytes | None:
        """An entry of this hand's at random."""
        entries = [entry for entry, line in self.lines.items() if line.deleted == deleted]
        return self.rng.choice(entries) if entries else None


def new_id(number: int) -> bytes:
    """A random id that belongs to a hand."""
    first = secrets.randbelow(256 // HANDS) * HANDS + number
    return bytes([first]) + secrets.token_bytes(15)


def _write(hand: Hand) -> Deed | None:
    if len(hand.lines) >= MOST_LINES:
        return _erase(hand) or _delete(hand)
    entry, text = new_id(hand.number), hand.words()
    day = date(2026, 1 + entry[1] % 12, 1 + entry[2] % 28)
    return Deed(
        entry, Line(text), lambda: hand.services.journal.write(hand.keys, day, text, "UTC", form_token=FormToken(entry))
    )


def _edit(hand: Hand) -> Deed | None:
    if (entry := hand.one()) is None:
        return None
    text, line = hand.words(), hand.lines[entry]
    return Deed(entry, line.edited(text), lambda: hand.services.journal.edit(hand.keys, entry, text, line.revision))


def _delete(hand: Hand) -> Deed | None:
    if (entry := hand.one()) is None:
        return None
    return Deed(entry, hand.lines[entry].marked(deleted=True), lambda: hand.services.journal.delete(hand.keys, entry))


def _restore(hand: Hand) -> Deed | None:
    if (entry := hand.one(deleted=True)) is None:
        return None
    return Deed(entry, hand.lines[entry].marked(deleted=False), lambda: hand.services.journal.restore(hand.keys, entry))


def _erase(hand: Hand) -> Deed | None:
    if (entry := hand.one(deleted=True)) is None:
        return None
    return Deed(entry, None, lambda: hand.services.journal.erase(hand.keys, entry))


def _trace(hand: Hand) -> Deed | None:
    if (entry := hand.one()) is None:
        return None
    own, line = hand.traces(), hand.lines[entry]
    name = hand.rng.choice(own) if own and hand.rng.random() < len(own) / MOST_TRACES else hand.fresh()
    traced = replace(line, traces=line.traces | {name})
    return Deed(entry, traced, lambda: hand.services.journal.tags.add(hand.keys, entry, name))


def _untrace(hand: Hand) -> Deed | None:
    if (entry := hand.one()) is None or not hand.lines[entry].traces:
        return None
    line = hand.lines[entry]
    name = min(line.traces)
    trace = tag_hash(hand.keys, name)
    traced = replace(line, traces=line.traces - {name})
    return Deed(entry, traced, lambda: hand.services.journal.tags.remove(hand.keys, entry, trace))


def _retraced(hand: Hand, name: str, into: frozenset[str], do: Callable[[], Awaitable[bytes]]) -> Deed:
    """A deed that puts other traces in place of one, on every entry that bears it, deleted ones too."""
    after = {
        entry: replace(line, traces=line.traces - {name} | into)
        for entry, line in hand.lines.items()
        if name in line.traces
    }
    entry = min(after)
    return Deed(entry, after.pop(entry), do, after)


def _rename_trace(hand: Hand) -> Deed | None:
    if not (own := hand.traces()):
        return None
    name, other = hand.rng.choice(own), hand.fresh()

    async def rename() -> bytes:
        return (await hand.services.journal.tags.rename(hand.keys, tag_hash(hand.keys, name), other))[1]

    return _retraced(hand, name, frozenset({other}), rename)


def _merge_traces(hand: Hand) -> Deed | None:
    if len(own := hand.traces()) < 2:
        return None
    name, other = hand.rng.sample(own, 2)
    trace, into = tag_hash(hand.keys, name), tag_hash(hand.keys, other)
    return _retraced(hand, name, frozenset({other}), lambda: hand.services.journal.tags.merge(hand.keys, trace, into))


def _delete_trace(hand: Hand) -> Deed | None:
    if not (own := hand.traces()):
        return None
    name = hand.rng.choice(own)
    trace = tag_hash(hand.keys, name)
    return _retraced(hand, name, frozenset(), lambda: hand.services.journal.tags.delete(hand.keys, trace))


def _undo(hand: Hand) -> Deed | None:
    """Take back what this hand did last, where that was done to traces."""
    if hand.undo is None:
        return None
    change, before = hand.undo

    async def undo() -> None:
        try:
            await hand.services.journal.tags.undo(hand.keys, change)
        except NotFound:  # the other hands have done so much meanwhile that it is not kept any more
            raise StaleRevision("This can not be undone any more.") from None

    entry = min(before)
    return Deed(entry, before[entry], undo, {other: line for other, line in before.items() if other != entry})


def _write_traced(hand: Hand) -> Deed | None:
    """A text that names its trace: the two are one action."""
    if len(hand.lines) >= MOST_LINES:
        return None
    entry, text = new_id(hand.number), f"{hand.words()} #{WORD}"
    line = Line(text, traces=frozenset({WORD}))
    day = date(2026, 1 + entry[1] % 12, 1 + entry[2] % 28)
    return Deed(
        entry, line, lambda: hand.services.journal.write(hand.keys, day, text, "UTC", form_token=FormToken(entry))
    )


DEEDS: tuple[Callable[[Hand], Deed | None], ...] = (
    *(_write, _write, _write_traced, _edit, _delete, _restore, _erase, _trace, _trace, _untrace),
    *(_rename_trace, _merge_traces, _delete_trace, _undo, _undo),
)
UNDOABLE = (_untrace, _rename_trace, _merge_traces, _delete_trace)


async def work_on(hand: Hand, tell: Tell) -> None:
    """One deed after the other, each told before it is done and after."""
    while True:
        plan = hand.rng.choice(DEEDS)
        deed = plan(hand)
        if deed is None:
            continue
        tell("begin", hand.number, deed.entry, deed.after, deed.beside)
        try:
            undo = await deed.do()
        except StaleRevision:  # an erasure while much else is written is refused in the end, with a sentence
            tell("refused", hand.number)
            hand.undo = None
            continue
        tell("done", hand.number)
        hand.undo = None
        if plan in UNDOABLE and isinstance(undo, bytes):
            hand.undo = undo, {entry: hand.lines[entry] for entry in (deed.entry, *deed.beside)}
        if deed.after is None:
            del hand.lines[deed.entry]
        else:
            hand.lines[deed.entry] = deed.after
        hand.lines.update(deed.beside)


def settings_in(folder: Path) -> Settings:
    """Real parts on the floor of the KDF, without any model."""
    return Settings(
        data=DataSettings(folder=folder, cache=folder.parent / "cache"),
        crypto=CryptoSettings(kdf_target_ms=0),
        llm=LlmSettings(enabled=False),
        embedding=EmbeddingSettings(enabled=False),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is told: where, whose, what it knows of the entries, and what chance it takes."""

    folder: Path
    user_id: bytes
    lines: dict[bytes, Line]
    seed: int
    files: tuple[Path, ...] = ()
    code: str = ""

    @property
    def database(self) -> Path:
        """The store."""
        return self.folder / "llamora.sqlite3"


async def _at_work(order: Order, tell: Tell, beside: Callable[[AppServices, Keyring], Awaitable[None]] | None) -> None:
    """The whole server but its web: all hands, and something beside them, until the kill."""
    services = AppServices.create(settings_in(order.folder))
    await AppLifecycle(services).start()
    keys = keys_of(order.database, order.user_id, order.code)
    hands = [
        Hand(
            number,
            services,
            keys,
            random.Random(order.seed + number),
            {entry: line for entry, line in order.lines.items() if entry[0] % HANDS == number},
        )
        for number in range(HANDS)
    ]
    tell("ready")
    extra = [beside(services, keys)] if beside else []
    await asyncio.gather(*(work_on(hand, tell) for hand in hands), *extra)


def entries(order: Order, tell: Tell) -> None:
    """Write, edit, delete, bring back, erase, trace, change traces and take that back."""
    asyncio.run(_at_work(order, tell, None))


def rotate(order: Order, tell: Tell) -> None:
    """The same while the data key is changed, again and again."""
    rotation.NOTICE_SECONDS = 0.01  # there is no other worker that has to notice

    async def change(services: AppServices, keys: Keyring) -> None:
        changing: Rotation = services.rotation
        while True:
            if await services.db.key_rotation.count_data_keys(keys.user_id) == 1:
                await changing.start(keys)
            await changing.finish(keys)
            tell("rotated")

    asyncio.run(_at_work(order, tell, change))


def backup(order: Order, tell: Tell) -> None:
    """The same while backups of the writer and copies of everything are made, again and again."""

    async def keep(services: AppServices, keys: Keyring) -> None:
        for number in range(10_000):
            made = await services.backups.create(keys)
            tell("file", made)
            copy = order.folder / "backups" / f"copy-{order.seed}-{number}.sqlite3"
            await asyncio.to_thread(copy_database, order.database, copy)
            tell("file", copy)

    asyncio.run(_at_work(order, tell, keep))


def migrate(order: Order, tell: Tell) -> None:
    """Bring an older schema up."""
    tell("ready")
    run_db_migrations(order.database, resource("migrations"))
    tell("migrated")


def restore(order: Order, tell: Tell) -> None:
    """Put one backup and then the other in the journal's place, again and again."""
    opened = []
    for file in order.files:
        header = read_header(file)
        opened.append((file, header, header.unlock(order.code)))
    tell("ready")
    rng = random.Random(order.seed)
    while True:
        number = rng.randrange(len(opened))
        file, header, keys = opened[number]
        tell("restoring", number)
        restore_backup(order.database, file, header, keys, replace=True)
        tell("restored", number)


WORK: dict[str, Callable[[Order, Tell], None]] = {
    "entries": entries,
    "rotate": rotate,
    "backup": backup,
    "migrate": migrate,
    "restore": restore,
}


def run(kind: str, order: Order, connection: Any) -> None:
    """What a process runs: the work, telling each step through a pipe, with the place in the log of a watched disk."""
    log = os.environ.get("TORTURE_LOG")

    def tell(*words: object) -> None:
        connection.send((Path(log).stat().st_size if log else 0, *words))

    WORK[kind](order, tell)
