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

from llamora.journal import rotation
from llamora.journal.rotation import Rotation
from llamora.persistence.backup_format import read_header
from llamora.persistence.backups import copy_database, restore_backup
from llamora.persistence.connection import NotFound, StaleRevision
from llamora.persistence.drafts import FormToken
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.tag_changes import tag_hash
from llamora.services import AppLifecycle, AppServices
from llamora.settings import (
    CryptoSettings,
    DataSettings,
    EmbeddingSettings,
    LlmSettings,
    Settings,
    resource,
)
from llamora.text import tag_name
from llamora.vault.keys import Keyring
from scripts.torture.invariants import ExpectedEntry, load_keys

WORD = "quokkasaurus"
"""In every text and trace: no file may hold it."""
WRITER_COUNT = 4
MAX_TAGS_PER_WRITER = 6  # of one hand: beyond, it takes one that is there
MAX_ENTRIES_PER_WRITER = 40  # of one hand: beyond, it erases rather than writes

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Action:
    """What a hand is about to do to one entry, and to others `beside` it by the same action.

    Where it can be taken back, `do` returns what undoes it.
    """

    entry: bytes
    expected: ExpectedEntry | None
    run: Callable[[], Awaitable[object]]
    also_changed: dict[bytes, ExpectedEntry] = field(default_factory=dict[bytes, ExpectedEntry])


@dataclass(slots=True)
class ConcurrentWriter:
    """One of several that work at once, each on entries of its own (by the first byte of the id)."""

    number: int
    services: AppServices
    keys: Keyring
    rng: random.Random
    entries: dict[bytes, ExpectedEntry]
    undo: tuple[bytes, dict[bytes, ExpectedEntry]] | None = (
        None  # of the last deed, and how what it changed was before
    )

    def new_tag_name(self) -> str:
        """A name of a trace that no other hand uses and this one never used."""
        return tag_name(f"{WORD} {self.number} {self.rng.randrange(10**9)}")

    def own_tags(self) -> list[str]:
        """The traces that only this hand's entries bear."""
        tag_names = {name for line in self.entries.values() for name in line.tags}
        return sorted(name for name in tag_names if name.startswith(f"{WORD} {self.number} "))

    def random_text(self) -> str:
        """A text of any length, with the word that is looked for."""
        return f"{WORD} {self.rng.randrange(10**9)}" + " word" * self.rng.choice((0, 3, 30, 300))

    def random_entry(self, *, deleted: bool = False) -> bytes | None:
        """An entry of this hand's at random."""
        entries = [entry for entry, line in self.entries.items() if line.deleted == deleted]
        return self.rng.choice(entries) if entries else None


def new_id(writer_number: int) -> bytes:
    """A random id that belongs to a hand."""
    first = secrets.randbelow(256 // WRITER_COUNT) * WRITER_COUNT + writer_number
    return bytes([first]) + secrets.token_bytes(15)


def _plan_write(writer: ConcurrentWriter) -> Action | None:
    if len(writer.entries) >= MAX_ENTRIES_PER_WRITER:
        return _plan_erase(writer) or _plan_delete(writer)
    entry, text = new_id(writer.number), writer.random_text()
    day = date(2026, 1 + entry[1] % 12, 1 + entry[2] % 28)
    return Action(
        entry,
        ExpectedEntry(text),
        lambda: writer.services.journal.write(
            writer.keys, day, text, "UTC", form_token=FormToken(entry)
        ),
    )


def _plan_edit(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    text, expected = writer.random_text(), writer.entries[entry]
    return Action(
        entry,
        expected.after_edit(text),
        lambda: writer.services.journal.edit(writer.keys, entry, text, expected.revision),
    )


def _plan_delete(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    return Action(
        entry,
        writer.entries[entry].with_deleted(deleted=True),
        lambda: writer.services.journal.delete(writer.keys, entry),
    )


def _plan_restore(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry(deleted=True)) is None:
        return None
    return Action(
        entry,
        writer.entries[entry].with_deleted(deleted=False),
        lambda: writer.services.journal.restore(writer.keys, entry),
    )


def _plan_erase(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry(deleted=True)) is None:
        return None
    return Action(entry, None, lambda: writer.services.journal.erase(writer.keys, entry))


def _plan_add_tag(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None:
        return None
    own_tags, before = writer.own_tags(), writer.entries[entry]
    name = (
        writer.rng.choice(own_tags)
        if own_tags and writer.rng.random() < len(own_tags) / MAX_TAGS_PER_WRITER
        else writer.new_tag_name()
    )
    after = replace(before, tags=before.tags | {name})
    return Action(entry, after, lambda: writer.services.journal.tags.add(writer.keys, entry, name))


def _plan_remove_tag(writer: ConcurrentWriter) -> Action | None:
    if (entry := writer.random_entry()) is None or not writer.entries[entry].tags:
        return None
    before = writer.entries[entry]
    name = min(before.tags)
    tag_id = tag_hash(writer.keys, name)
    after = replace(before, tags=before.tags - {name})
    return Action(
        entry, after, lambda: writer.services.journal.tags.remove(writer.keys, entry, tag_id)
    )


def _plan_tag_change(
    writer: ConcurrentWriter,
    name: str,
    new_names: frozenset[str],
    run: Callable[[], Awaitable[bytes]],
) -> Action:
    """A deed that puts other traces in place of one, on every entry that bears it, deleted ones too."""
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
        return (
            await writer.services.journal.tags.rename(
                writer.keys, tag_hash(writer.keys, name), new_name
            )
        )[1]

    return _plan_tag_change(writer, name, frozenset({new_name}), rename)


def _plan_merge_tags(writer: ConcurrentWriter) -> Action | None:
    if len(own_tags := writer.own_tags()) < 2:
        return None
    name, target_name = writer.rng.sample(own_tags, 2)
    tag_id, target_id = tag_hash(writer.keys, name), tag_hash(writer.keys, target_name)
    return _plan_tag_change(
        writer,
        name,
        frozenset({target_name}),
        lambda: writer.services.journal.tags.merge(writer.keys, tag_id, target_id),
    )


def _plan_delete_tag(writer: ConcurrentWriter) -> Action | None:
    if not (own_tags := writer.own_tags()):
        return None
    name = writer.rng.choice(own_tags)
    tag_id = tag_hash(writer.keys, name)
    return _plan_tag_change(
        writer, name, frozenset(), lambda: writer.services.journal.tags.delete(writer.keys, tag_id)
    )


def _plan_undo(writer: ConcurrentWriter) -> Action | None:
    """Take back what this hand did last, where that was done to traces."""
    if writer.undo is None:
        return None
    change, before = writer.undo

    async def undo() -> None:
        try:
            await writer.services.journal.tags.undo(writer.keys, change)
        except NotFound:  # the other hands have done so much meanwhile that it is not kept any more
            raise StaleRevision("undo_expired") from None

    entry = min(before)
    return Action(
        entry,
        before[entry],
        undo,
        {other: line for other, line in before.items() if other != entry},
    )


def _plan_write_with_tag(writer: ConcurrentWriter) -> Action | None:
    """A text that names its trace: the two are one action."""
    if len(writer.entries) >= MAX_ENTRIES_PER_WRITER:
        return None
    entry, text = new_id(writer.number), f"{writer.random_text()} #{WORD}"
    expected = ExpectedEntry(text, tags=frozenset({WORD}))
    day = date(2026, 1 + entry[1] % 12, 1 + entry[2] % 28)
    return Action(
        entry,
        expected,
        lambda: writer.services.journal.write(
            writer.keys, day, text, "UTC", form_token=FormToken(entry)
        ),
    )


ACTION_PLANS: tuple[Callable[[ConcurrentWriter], Action | None], ...] = (
    *(
        _plan_write,
        _plan_write,
        _plan_write_with_tag,
        _plan_edit,
        _plan_delete,
        _plan_restore,
        _plan_erase,
        _plan_add_tag,
        _plan_add_tag,
        _plan_remove_tag,
    ),
    *(_plan_rename_tag, _plan_merge_tags, _plan_delete_tag, _plan_undo, _plan_undo),
)
UNDOABLE_PLANS = (_plan_remove_tag, _plan_rename_tag, _plan_merge_tags, _plan_delete_tag)


async def run_actions(writer: ConcurrentWriter, report: Report) -> None:
    """One deed after the other, each told before it is done and after."""
    while True:
        plan = writer.rng.choice(ACTION_PLANS)
        action = plan(writer)
        if action is None:
            continue
        report("begin", writer.number, action.entry, action.expected, action.also_changed)
        try:
            undo = await action.run()
        except (
            StaleRevision
        ):  # an erasure while much else is written is refused in the end, with a sentence
            report("refused", writer.number)
            writer.undo = None
            continue
        report("done", writer.number)
        writer.undo = None
        if plan in UNDOABLE_PLANS and isinstance(undo, bytes):
            writer.undo = (
                undo,
                {entry: writer.entries[entry] for entry in (action.entry, *action.also_changed)},
            )
        if action.expected is None:
            del writer.entries[action.entry]
        else:
            writer.entries[action.entry] = action.expected
        writer.entries.update(action.also_changed)


def settings_in(folder: Path) -> Settings:
    """Real parts on the floor of the KDF, without any model."""
    return Settings(
        data=DataSettings(folder=folder, cache=folder.parent / "cache"),
        crypto=CryptoSettings(kdf_target_ms=0),
        llm=LlmSettings(enabled=False),
        embedding=EmbeddingSettings(enabled=False),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is told: where, whose, what it knows of the entries, and what chance it takes."""

    folder: Path
    user_id: bytes
    entries: dict[bytes, ExpectedEntry]
    seed: int
    files: tuple[Path, ...] = ()
    recovery_code: str = ""

    @property
    def database(self) -> Path:
        """The store."""
        return self.folder / "llamora.sqlite3"


async def _run_writers(
    job: Job, report: Report, alongside: Callable[[AppServices, Keyring], Awaitable[None]] | None
) -> None:
    """The whole server but its web: all hands, and something beside them, until the kill."""
    services = AppServices.create(settings_in(job.folder))
    await AppLifecycle(services).start()
    keys = load_keys(job.database, job.user_id, job.recovery_code)
    writers = [
        ConcurrentWriter(
            number,
            services,
            keys,
            random.Random(job.seed + number),
            {
                entry: line
                for entry, line in job.entries.items()
                if entry[0] % WRITER_COUNT == number
            },
        )
        for number in range(WRITER_COUNT)
    ]
    report("ready")
    extra_tasks = [alongside(services, keys)] if alongside else []
    await asyncio.gather(*(run_actions(hand, report) for hand in writers), *extra_tasks)


def work_on_entries(job: Job, report: Report) -> None:
    """Write, edit, delete, bring back, erase, trace, change traces and take that back."""
    asyncio.run(_run_writers(job, report, None))


def work_with_rotation(job: Job, report: Report) -> None:
    """The same while the data key is changed, again and again."""
    rotation.NOTICE_SECONDS = 0.01  # there is no other worker that has to notice

    async def change(services: AppServices, keys: Keyring) -> None:
        running_rotation: Rotation = services.rotation
        while True:
            if await services.db.key_rotation.count_data_keys(keys.user_id) == 1:
                await running_rotation.start(keys)
            await running_rotation.finish(keys)
            report("rotated")

    asyncio.run(_run_writers(job, report, change))


def work_with_backups(job: Job, report: Report) -> None:
    """The same while backups of the writer and copies of everything are made, again and again."""

    async def make_backups(services: AppServices, keys: Keyring) -> None:
        for number in range(10_000):
            backup_path = await services.backups.create(keys)
            report("file", backup_path)
            copy_path = job.folder / "backups" / f"copy-{job.seed}-{number}.sqlite3"
            await asyncio.to_thread(copy_database, job.database, copy_path)
            report("file", copy_path)

    asyncio.run(_run_writers(job, report, make_backups))


def work_on_migration(job: Job, report: Report) -> None:
    """Bring an older schema up."""
    report("ready")
    run_db_migrations(job.database, resource("migrations"))
    report("migrated")


def work_on_restores(job: Job, report: Report) -> None:
    """Put one backup and then the other in the journal's place, again and again."""
    backups = []
    for file in job.files:
        header = read_header(file)
        backups.append((file, header, header.unlock(job.recovery_code)))
    report("ready")
    rng = random.Random(job.seed)
    while True:
        number = rng.randrange(len(backups))
        file, header, keys = backups[number]
        report("restoring", number)
        restore_backup(job.database, file, header, keys, replace=True)
        report("restored", number)


JOBS: dict[str, Callable[[Job, Report], None]] = {
    "entries": work_on_entries,
    "rotate": work_with_rotation,
    "backup": work_with_backups,
    "migrate": work_on_migration,
    "restore": work_on_restores,
}


def run_job(kind: str, job: Job, connection: Any) -> None:
    """What a process runs: the work, telling each step through a pipe, with the place in the log of a watched disk."""
    log = os.environ.get("TORTURE_LOG")

    def report(*words: object) -> None:
        connection.send((Path(log).stat().st_size if log else 0, *words))

    JOBS[kind](job, report)
