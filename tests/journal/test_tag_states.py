"""Whatever a writer does with entries and traces, in whatever order: what is shown agrees with a plain model of it.

The model is a few dictionaries. Compared are what entries bear, `tag:` in search, counts, days and other names; also
in a second process that knows nothing yet, and in one that knew how it was before.
"""

import asyncio
import contextlib
import secrets
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llamora.events import EventBus
from llamora.journal.context import UserContext
from llamora.journal.entries import Journal
from llamora.journal.profile import Profile
from llamora.journal.replies import Replies
from llamora.journal.tags import TagError
from llamora.journal.trash import Trash
from llamora.llm.model import Model
from llamora.persistence.connection import NotFound
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.tag_changes import tag_hash
from llamora.persistence.users import User
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import EmbeddingSettings, EntrySettings, LlmSettings, SearchSettings, resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import NewKeys, create_keys
from llamora.vault.keys import open_keyring

NAMES = ("lake", "Lake", "sea-shore", "Sea Shore", "🎻", "Straße", "strasse", "quokka")
IN_TEXTS = tuple(name for name in NAMES if " " not in name and name != "quokka")
DAYS = [date(2026, 1, 1) + timedelta(days=number) for number in range(3)]
T = TypeVar("T")
USER = secrets.token_bytes(16)
_MADE: list[NewKeys] = []


def key(name: str) -> str:
    """What is one name, written down anew and not by the code that is tested."""
    return {
        "Lake": "lake",
        "sea-shore": "sea shore",
        "Sea Shore": "sea shore",
        "Straße": "strasse",
    }.get(name, name)


@dataclass
class Paper:
    """What should be: entries with their day and whether they are deleted, links and other names, by key."""

    days: dict[bytes, date] = field(default_factory=dict)
    texts: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    links: set[tuple[str, bytes]] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def meant(self, name: str) -> str:
        return self.aliases.get(key(name), key(name))

    def there(self) -> set[str]:
        return {trace for trace, _ in self.links}

    def bears(self, trace: str) -> set[bytes]:
        return {entry for other, entry in self.links if other == trace}

    def shown(self, trace: str) -> list[date]:
        return sorted(self.days[entry] for entry in self.bears(trace) if entry not in self.deleted)

    def move(self, old: str, new: str) -> None:
        for entry in self.bears(old):
            self.links.discard((old, entry))
            self.links.add((new, entry))
        for alias, meant in list(self.aliases.items()):
            if meant == old:
                self.aliases[alias] = new
        self.called(old, new)
        self.aliases.pop(new, None)

    def called(self, other: str, trace: str) -> None:
        """A name means a trace, and with it all that meant what is called by it."""
        self.aliases = {
            alias: trace if meant == other else meant for alias, meant in self.aliases.items()
        }
        self.aliases[other] = trace


class Desk:
    """One process."""

    async def open(self, path: Path) -> "Desk":
        made = _MADE[0]
        self.db = await LocalDB.open(path)
        self.search = SearchService(
            self.db, Embedder(EmbeddingSettings(enabled=False), path.parent), SearchSettings()
        )
        self.journal = Journal(self.db, self.search, EntrySettings())
        llm = LlmSettings(enabled=False)
        model = Model(llm)
        replies = Replies(self.db, self.journal, self.search, model, "first.0")
        self.trash = Trash(self.db, self.journal, self.search, replies, EventBus())
        self.keys = open_keyring(USER, made.master, made.sealed)
        self.user = UserContext(self.keys, Profile(), DAYS[0])
        self.traces = self.journal.tags
        await self.search.start()
        await self.search.unlock(self.keys)
        return self

    async def close(self) -> None:
        await self.search.stop()
        await self.db.close()


class Traced(RuleBasedStateMachine):
    desk: Desk
    other: Desk

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = contextlib.ExitStack()
        self.path = (
            Path(self.folder.enter_context(tempfile.TemporaryDirectory())) / "journal.sqlite3"
        )
        self.paper = Paper()
        self.undos: list[tuple[bytes, Paper]] = []
        self.older: list[bytes] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What an undo does after this is not written down here."""
        self.undos.clear()
        return self.run(work)

    @initialize()
    def begin(self) -> None:
        if not _MADE:
            _MADE.append(create_keys(USER, "a passphrase for tests", Argon2Params(65536, 3, 4)))
        run_db_migrations(self.path, resource("migrations"))

        async def begin() -> None:
            self.desk = await Desk().open(self.path)
            await self.desk.db.users.add(
                User(USER, "Writer", recovery_confirmed=True), _MADE[0].slots, _MADE[0].sealed
            )
            self.other = await Desk().open(self.path)

        self.run(begin())

    def teardown(self) -> None:
        async def end() -> None:
            for desk in (self.other, self.desk):
                await desk.close()

        if hasattr(self, "other"):
            self.run(end())
        self.loop.close()
        self.folder.close()

    # -- what a writer does ------------------------------------------------------------------------

    def entry(self, data: st.DataObject, *, deleted: bool = False) -> bytes | None:
        # In the order they were written in: that of random ids would be another one each time the same is tried.
        there = [entry for entry in self.paper.days if (entry in self.paper.deleted) == deleted]
        return data.draw(st.sampled_from(there)) if there else None

    def trace(self, data: st.DataObject) -> str | None:
        there = sorted(self.paper.there())
        return data.draw(st.sampled_from(there)) if there else None

    def hashed(self, trace: str) -> bytes:
        return tag_hash(self.desk.keys, trace)

    def retrace(self, entry: bytes, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        """Names that come into a text come, names that leave it go; a text is a row of names.

        What leaves stays where another name in the text means the same by now.
        """
        old, new = {key(name) for name in before}, {key(name) for name in after}
        put = {self.paper.meant(name) for name in new - old}
        off = {self.paper.meant(name) for name in old - new}
        off -= {self.paper.meant(name) for name in new}
        self.paper.links -= {(trace, entry) for trace in off}
        self.paper.links |= {(trace, entry) for trace in put}

    texts = st.lists(st.sampled_from(IN_TEXTS), max_size=2).map(tuple)

    @rule(day=st.sampled_from(DAYS), names=texts)
    def write(self, day: date, names: tuple[str, ...]) -> None:
        text = "Rain. " + " ".join(f"#{name}" for name in names)
        entry = self.do(self.desk.journal.write(self.desk.user, day, text))
        self.paper.days[entry.id], self.paper.texts[entry.id] = day, names
        self.retrace(entry.id, (), names)

    @rule(data=st.data(), names=texts)
    def edit(self, data: st.DataObject, names: tuple[str, ...]) -> None:
        if (entry_id := self.entry(data)) is None:
            return
        text = f"Rain {secrets.token_hex(4)}. " + " ".join(f"#{name}" for name in names)

        async def edit() -> None:
            entry = await self.desk.journal.get(self.desk.keys, entry_id)
            await self.desk.journal.edit(self.desk.keys, entry_id, text, entry.revision)

        self.do(edit())
        self.retrace(entry_id, self.paper.texts[entry_id], names)
        self.paper.texts[entry_id] = names

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if (entry_id := self.entry(data)) is not None:
            self.do(self.desk.trash.delete(self.desk.keys, entry_id))
            self.paper.deleted.add(entry_id)

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        if (entry_id := self.entry(data, deleted=True)) is not None:
            self.do(self.desk.trash.restore(self.desk.keys, entry_id))
            self.paper.deleted.discard(entry_id)

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        if (entry_id := self.entry(data, deleted=True)) is not None:
            self.do(self.desk.trash.erase(self.desk.keys, entry_id))
            self.paper.deleted.discard(entry_id)
            del self.paper.days[entry_id]
            self.paper.links = {link for link in self.paper.links if link[1] != entry_id}
            before = self.copy()
            self.read_back()
            assert self.paper.links == before.links
            # Names that only it bore are left behind nowhere; nothing else is forgotten.
            assert self.paper.aliases.items() <= before.aliases.items()
            assert self.paper.hidden <= before.hidden
            lost = {
                before.aliases[alias] for alias in before.aliases.keys() - self.paper.aliases.keys()
            }
            assert not (lost | before.hidden - self.paper.hidden) & self.paper.there()

    def read_back(self) -> None:
        """Write down what entries bear and names mean as the store has it."""
        known = {self.hashed(key(name)): key(name) for name in NAMES}
        book = self.run(self.desk.db.tags.get_meta(self.desk.keys))
        links = self.run(self.desk.db.tags.tag_ids_by_entry(USER))
        self.paper.links = {
            (known[trace], entry) for entry, traces in links.items() for trace in traces
        }
        self.paper.aliases = {
            known[alias]: key(meant) for alias, (_, meant) in book.aliases.items()
        }
        self.paper.hidden = {known[trace] for trace in book.hidden}

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def add(self, data: st.DataObject, name: str) -> None:
        if (entry_id := self.entry(data)) is not None:
            self.do(self.desk.traces.add(self.desk.keys, entry_id, name))
            self.paper.links.add((self.paper.meant(name), entry_id))

    def changed(self, before: Paper, undo: bytes) -> None:
        self.undos = [(undo, before)]
        self.older.append(undo)

    def copy(self) -> Paper:
        p = self.paper
        return Paper(
            dict(p.days),
            dict(p.texts),
            set(p.deleted),
            set(p.links),
            dict(p.aliases),
            set(p.hidden),
        )

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.paper.links:
            place = {entry: number for number, entry in enumerate(self.paper.days)}
            links = sorted(self.paper.links, key=lambda link: (link[0], place[link[1]]))
            trace, entry_id = data.draw(st.sampled_from(links))
            before = self.copy()
            self.changed(
                before,
                self.run(self.desk.traces.remove(self.desk.keys, entry_id, self.hashed(trace))),
            )
            self.paper.links.discard((trace, entry_id))

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def rename(self, data: st.DataObject, name: str) -> None:
        if (trace := self.trace(data)) is None:
            return
        before = self.copy()
        _, undo = self.run(self.desk.traces.rename(self.desk.keys, self.hashed(trace), name))
        self.changed(before, undo)
        target = key(name)
        if target == trace:
            return
        # A name that is given to a trace which nothing bears any more is free.
        if (
            self.paper.aliases.get(target, trace) != trace
            and self.paper.aliases[target] in self.paper.there()
        ):
            target = self.paper.aliases[target]
        self.moved(trace, target)

    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        trace, into = self.trace(data), self.trace(data)
        if trace is None or into is None:
            return
        before = self.copy()
        self.changed(
            before,
            self.run(self.desk.traces.merge(self.desk.keys, self.hashed(trace), self.hashed(into))),
        )
        if trace != into:
            self.moved(trace, into)

    def moved(self, trace: str, target: str) -> None:
        was_hidden, was_there = trace in self.paper.hidden, target in self.paper.there()
        self.paper.move(trace, target)
        self.paper.hidden.discard(trace)
        if was_hidden and not was_there:
            self.paper.hidden.add(target)

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def alias(self, data: st.DataObject, name: str) -> None:
        if (trace := self.trace(data)) is None:
            return
        before, other = self.copy(), key(name)
        try:
            undo = self.run(self.desk.traces.add_alias(self.desk.keys, self.hashed(trace), name))
        except TagError:
            assert other == trace or self.paper.aliases.get(other, trace) in self.paper.there() - {
                trace
            }
            return
        assert other != trace
        self.changed(before, undo)
        if other in self.paper.there():
            self.moved(other, trace)
        else:
            self.paper.called(other, trace)

    @rule(data=st.data(), hidden=st.booleans())
    def hide(self, data: st.DataObject, hidden: bool) -> None:
        if (trace := self.trace(data)) is not None:
            before = self.copy()
            self.changed(
                before,
                self.run(
                    self.desk.traces.set_hidden(self.desk.keys, self.hashed(trace), hidden=hidden)
                ),
            )
            (self.paper.hidden.add if hidden else self.paper.hidden.discard)(trace)

    @rule(data=st.data())
    def delete_trace(self, data: st.DataObject) -> None:
        if (trace := self.trace(data)) is not None:
            before = self.copy()
            self.changed(
                before, self.run(self.desk.traces.delete(self.desk.keys, self.hashed(trace)))
            )
            self.paper.links = {link for link in self.paper.links if link[0] != trace}
            self.paper.aliases = {
                alias: meant for alias, meant in self.paper.aliases.items() if meant != trace
            }
            self.paper.hidden.discard(trace)

    @precondition(lambda self: self.undos)
    @rule()
    def undo(self) -> None:
        """All is as it was before the latest change, and that cannot be taken back twice."""
        change, self.paper = self.undos.pop()
        self.run(self.desk.traces.undo(self.desk.keys, change))
        try:
            self.run(self.desk.traces.undo(self.desk.keys, change))
        except NotFound:
            return
        raise AssertionError("undone twice")

    @precondition(lambda self: self.older)
    @rule(data=st.data())
    def undo_an_older_one(self, data: st.DataObject) -> None:
        """After other changes it takes back what is left of it, which is not written down here.

        But no name that an entry bears means another trace, and every list agrees with what the entries bear.
        """
        change = data.draw(st.sampled_from(self.older))
        self.older.remove(change)
        with contextlib.suppress(NotFound):
            self.do(self.desk.traces.undo(self.desk.keys, change))
        self.read_back()
        assert not self.paper.aliases.keys() & {*self.paper.there(), *self.paper.aliases.values()}

    @rule()
    def open_anew(self) -> None:
        """The second process ends, and another one begins that knows nothing."""

        async def anew() -> None:
            await self.other.close()
            self.other = await Desk().open(self.path)

        self.run(anew())

    # -- what has to agree -------------------------------------------------------------------------

    @invariant()
    def all_agree(self) -> None:
        if hasattr(self, "other"):
            self.run(self.agree(self.desk))
            self.run(self.agree(self.other))

    async def agree(self, desk: Desk) -> None:
        await desk.search.search(
            desk.keys, "rain", today=DAYS[-1]
        )  # takes up what another process wrote
        await desk.search.wait_until_idle(desk.keys.user_id)
        paper, keys = self.paper, desk.keys
        on = await desk.traces.tags_of(keys, list(paper.days))
        expected = {(tag_hash(keys, trace), entry) for trace, entry in paper.links}
        assert {(trace.id, entry) for entry, traces in on.items() for trace in traces} == expected
        uses = [*await desk.traces.list_tags(keys), *await desk.traces.list_tags(keys, hidden=True)]
        counted = {
            use.id: (use.entry_count, use.first_day, use.last_day, use.hidden) for use in uses
        }
        assert len(counted) == len(uses)
        assert counted == {
            tag_hash(keys, trace): (len(days), days[0], days[-1], trace in paper.hidden)
            for trace in paper.there()
            if (days := paper.shown(trace))
        }
        for trace in paper.there():
            heat = Counter(
                day for _, day in await desk.traces.entries_with_tag(keys, tag_hash(keys, trace))
            )
            assert heat == Counter(paper.shown(trace))
        for name in ("lake", "Straße", "quokka"):
            found = await desk.search.search(keys, f"tag:{name}", today=DAYS[-1], limit=50)
            assert {hit.entry_id for hit in found.hits} == paper.bears(
                paper.meant(name)
            ) - paper.deleted
        # It stands in no text: what is found by the word bears it.
        found = await desk.search.search(keys, "quokka", today=DAYS[-1], limit=50)
        assert {hit.entry_id for hit in found.hits} == paper.bears("quokka") - paper.deleted


Traced.TestCase.settings = settings(
    max_examples=8,  # many under scripts.torture.tags
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
)
TestTraced = Traced.TestCase


@given(data=st.data())
@settings(max_examples=1, database=None, deadline=None)
def test_of_two_names_for_one_trace_the_one_that_stays_keeps_it(data: st.DataObject) -> None:
    """As the machine found once. Wherever something is drawn there is but one to draw."""
    machine = Traced()
    try:
        machine.begin()
        machine.write(DAYS[0], ("lake",))
        machine.alias(data, "strasse")
        machine.edit(data, ("lake", "Straße"))
        machine.edit(data, ("lake",))
        assert [trace for trace, _ in machine.paper.links] == ["lake"]
        machine.all_agree()
        machine.edit(data, ("Straße",))
        assert [trace for trace, _ in machine.paper.links] == ["lake"]
        machine.all_agree()
        machine.edit(data, ())
        assert not machine.paper.links
        machine.all_agree()
    finally:
        machine.teardown()
