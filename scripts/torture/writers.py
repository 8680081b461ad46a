"""What is done to a store while it is broken: actions, each on entries that one of several writers has to itself.

A new kind of action is a function that plans one, named in ACTION_PLANS.
"""

import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date

from llamora.journal.tags import Tags
from llamora.persistence.connection import NotFound, StaleRevision
from llamora.persistence.drafts import FormToken
from llamora.persistence.tag_changes import tag_hash
from llamora.services import AppServices
from llamora.text import tag_name
from llamora.vault.keys import Keyring
from scripts.bench.harness import context_of
from scripts.torture.harness import WORD
from scripts.torture.invariants import ExpectedEntry

WRITER_COUNT = 4
MAX_TAGS_PER_WRITER = 6  # beyond, it takes one that is there
MAX_ENTRIES_PER_WRITER = 40  # beyond, it erases rather than writes

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Action:
    """Say what a writer is about to do to one entry, and to others by the same action.

    Where it can be undone, `run` returns what undoes it.
    """

    entry: bytes
    expected: ExpectedEntry | None
    run: Callable[[], Awaitable[object]]
    also_changed: dict[bytes, ExpectedEntry] = field(default_factory=dict[bytes, ExpectedEntry])


@dataclass(slots=True)
class ConcurrentWriter:
    """Work beside others, each on entries of its own (by the first byte of the id)."""

    number: int
    services: AppServices
    keys: Keyring
    rng: random.Random
    entries: dict[bytes, ExpectedEntry]
    undo: tuple[bytes, dict[bytes, ExpectedEntry]] | None = None
    """Of the last action, and how what it changed was before."""

    @property
    def tags(self) -> Tags:
        """What changes tags."""
        return self.services.journal.tags

    def tag_id(self, name: str) -> bytes:
        """Return the id of a tag of this name."""
        return tag_hash(self.keys, name)

    def new_tag_name(self) -> str:
        """Return a name of a tag that no other writer uses and this one never used."""
        return tag_name(f"{WORD} {self.number} {self.rng.randrange(10**9)}")

    def own_tags(self) -> list[str]:
        """Return the tags that only this writer's entries bear."""
        tag_names = {name for line in self.entries.values() for name in line.tags}
        return sorted(name for name in tag_names if name.startswith(f"{WORD} {self.number} "))

    def random_text(self) -> str:
        """Return a text of any length, with the word that is looked for."""
        return f"{WORD} {self.rng.randrange(10**9)}" + " word" * self.rng.choice((0, 3, 30, 300))

    def random_entry(self, *, deleted: bool = False) -> bytes | None:
        """Return an entry of this writer's at random."""
        entries = [entry for entry, line in self.entries.items() if line.deleted == deleted]
        return self.rng.choice(entries) if entries else None


def new_id(writer_number: int) -> bytes:
    """Return a random id that belongs to a writer."""
    first = secrets.randbelow(256 // WRITER_COUNT) * WRITER_COUNT + writer_number
    return bytes([first]) + secrets.token_bytes(15)


def own_entries(entries: dict[bytes, ExpectedEntry], number: int) -> dict[bytes, ExpectedEntry]:
    """Return those that belong to a writer."""
    return {entry: line for entry, line in entries.items() if entry[0] % WRITER_COUNT == number}


def day_of(entry: bytes) -> date:
    """Return the day that an entry of this id is written on."""
    return date(2026, 1 + entry[1] % 12, 1 + entry[2] % 28)


def _plan_new(
    writer: ConcurrentWriter, end: str = "", tags: frozenset[str] = frozenset()
) -> Action:
    entry, text = new_id(writer.number), writer.random_text() + end

    async def write() -> None:
        await writer.services.journal.write(
            context_of(writer.keys), day_of(entry), text, form_token=FormToken(entry)
        )

    return Action(entry, ExpectedEntry(text, tags=tags), write)


def _plan_write(writer: ConcurrentWriter) -> Action | None:
    if len(writer.entries) >= MAX_ENTRIES_PER_WRITER:
        return _plan_erase(writer) or _plan_delete(writer)
    return _plan_new(writer)


def _plan_edit(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    text, before, journal = writer.random_text(), writer.entries[entry], writer.services.journal
    after = before.after_edit(text)
    return Action(entry, after, lambda: journal.edit(writer.keys, entry, text, before.revision))


def _plan_delete(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    after = writer.entries[entry].with_deleted(deleted=True)
    return Action(entry, after, lambda: writer.services.trash.delete(writer.keys, entry))


def _plan_restore(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry(deleted=True)) is None:
        return None
    after = writer.entries[entry].with_deleted(deleted=False)
    return Action(entry, after, lambda: writer.services.trash.restore(writer.keys, entry))


def _plan_erase(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry(deleted=True)) is None:
        return None
    return Action(entry, None, lambda: writer.services.trash.erase(writer.keys, entry))


def _plan_add_tag(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    own_tags, before = writer.own_tags(), writer.entries[entry]
    is_old = own_tags and writer.rng.random() < len(own_tags) / MAX_TAGS_PER_WRITER
    name = writer.rng.choice(own_tags) if is_old else writer.new_tag_name()
    after = replace(before, tags=before.tags | {name})
    return Action(entry, after, lambda: writer.tags.add(writer.keys, entry, name))


def _plan_remove_tag(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None or not writer.entries[entry].tags:
        return None
    before = writer.entries[entry]
    tag_id = writer.tag_id(name := min(before.tags))
    after = replace(before, tags=before.tags - {name})
    return Action(entry, after, lambda: writer.tags.remove(writer.keys, entry, tag_id))


def _plan_tag_change(
    writer: ConcurrentWriter,
    name: str,
    new_names: frozenset[str],
    run: Callable[[], Awaitable[bytes]],
) -> Action:
    """Put other tags in place of one, on every entry that bears it, deleted ones too."""
    expected_by_entry = {
        entry: replace(line, tags=line.tags - {name} | new_names)
        for entry, line in writer.entries.items()
        if name in line.tags
    }
    entry = min(expected_by_entry)
    return Action(entry, expected_by_entry.pop(entry), run, expected_by_entry)


def _plan_rename_tag(writer: ConcurrentWriter) -> Action | None:
    if not (own_tags := writer.own_tags()):
        return None
    name, new_name = writer.rng.choice(own_tags), writer.new_tag_name()

    async def rename() -> bytes:
        return (await writer.tags.rename(writer.keys, writer.tag_id(name), new_name))[1]

    return _plan_tag_change(writer, name, frozenset({new_name}), rename)


def _plan_merge_tags(writer: ConcurrentWriter) -> Action | None:
    if len(own_tags := writer.own_tags()) < 2:
        return None
    name, target = writer.rng.sample(own_tags, 2)
    ids = writer.tag_id(name), writer.tag_id(target)
    names = frozenset({target})
    return _plan_tag_change(writer, name, names, lambda: writer.tags.merge(writer.keys, *ids))


def _plan_delete_tag(writer: ConcurrentWriter) -> Action | None:
    if not (own_tags := writer.own_tags()):
        return None
    tag_id = writer.tag_id(name := writer.rng.choice(own_tags))
    none = frozenset[str]()
    return _plan_tag_change(writer, name, none, lambda: writer.tags.delete(writer.keys, tag_id))


def _plan_undo(writer: ConcurrentWriter) -> Action | None:
    """Undo what this writer did last, where that was done to tags."""
    if writer.undo is None:
        return None
    change, before = writer.undo

    async def undo() -> None:
        try:
            await writer.tags.undo(writer.keys, change)
        except NotFound:  # the others have done so much meanwhile that it is not kept any more
            raise StaleRevision("undo_expired") from None

    others = dict(before)
    entry = min(others)
    return Action(entry, others.pop(entry), undo, others)


def _plan_write_with_tag(writer: ConcurrentWriter) -> Action | None:
    """Write a text that names its tag: the two are one action."""
    if len(writer.entries) >= MAX_ENTRIES_PER_WRITER:
        return None
    return _plan_new(writer, f" #{WORD}", frozenset({WORD}))


ACTION_PLANS: tuple[Callable[[ConcurrentWriter], Action | None], ...] = (
    *(_plan_write, _plan_write, _plan_write_with_tag, _plan_edit, _plan_delete, _plan_restore),
    *(_plan_erase, _plan_add_tag, _plan_add_tag, _plan_remove_tag),
    *(_plan_rename_tag, _plan_merge_tags, _plan_delete_tag, _plan_undo, _plan_undo),
)
UNDOABLE_PLANS = (_plan_remove_tag, _plan_rename_tag, _plan_merge_tags, _plan_delete_tag)


async def run_actions(writer: ConcurrentWriter, report: Report) -> None:
    """Do one action after the other, each told before it is done and after."""
    while True:
        plan = writer.rng.choice(ACTION_PLANS)
        action = plan(writer)
        if action is None:
            continue
        report("begin", writer.number, action.entry, action.expected, action.also_changed)
        try:
            undo = await action.run()
        # An erasure while much else is written is refused in the end, with a sentence.
        except StaleRevision:
            report("refused", writer.number)
            writer.undo = None
            continue
        report("done", writer.number)
        writer.undo = None
        changed = (action.entry, *action.also_changed)
        if plan in UNDOABLE_PLANS and isinstance(undo, bytes):
            writer.undo = undo, {entry: writer.entries[entry] for entry in changed}
        if action.expected is None:
            del writer.entries[action.entry]
        else:
            writer.entries[action.entry] = action.expected
        writer.entries.update(action.also_changed)
