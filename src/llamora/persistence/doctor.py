"""An examination of the store: is the file whole, does every record open, is anything left lying about.

Everything here blocks: call it on a thread. Nothing is changed but by `mend`.
"""

import json
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from glob import escape
from pathlib import Path
from typing import Any, cast

from llamora.persistence.backups import reading, sealed_keys, writing
from llamora.persistence.connection import PRAGMAS, Row, StorageError
from llamora.persistence.entries import day_hash
from llamora.persistence.migrations import migration_status
from llamora.persistence.schema import DRAFT_HASH, KINDS, Kind
from llamora.persistence.tag_changes import trace_hash
from llamora.vault.envelope import SealError
from llamora.vault.keys import Keyring, SealedKeys, cipher_library, living_slots
from llamora.vault.memory import memory_lock, wipe

SAFE_SQLITE = (3, 51, 3)
"""From here on SQLite cannot corrupt a write-ahead log that two connections checkpoint at once; the lock file does."""


@dataclass(slots=True)
class Report:
    """What was found. `damage` and `notes` are sentences; a note is nothing broken.

    `records` and `unreadable` count by writer's name and table. `mendable` says in words what `mend` would do.
    """

    damage: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    mendable: list[str] = field(default_factory=list[str])
    pragmas: dict[str, int | str] = field(default_factory=dict[str, int | str])
    sqlite: str = sqlite3.sqlite_version
    openssl: str = field(default_factory=cipher_library)
    schema: int = 0
    swap: str = ""
    memory: str = ""
    modes: dict[str, str] = field(default_factory=dict[str, str])
    records: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    opened: dict[str, int] = field(default_factory=dict[str, int])
    unreadable: dict[str, int] = field(default_factory=dict[str, int])


def examine(database: Path, migrations: Path, keys: Keyring | None = None) -> Report:
    """Look at everything that can be seen, and with a writer's keys at everything they wrote."""
    report = Report(swap=swap(), memory=memory_lock())
    _look_at_files(report, database)
    _look_at_versions(report)
    try:
        applied = migration_status(database, migrations)
        with reading(database) as connection:
            if _look_at_database(report, connection):
                _count(report, connection)
                if keys is not None:
                    # Those of the instant that is looked at: they may have been changed while the passphrase was typed.
                    sealed = sealed_keys(connection, keys.user_id)
                    if not keys.take(sealed.data_keys):
                        raise StorageError("The key was changed elsewhere in the meantime. Try again.")
                    _look_at_slots(report, connection, keys, sealed)
                    _open_everything(report, connection, keys)
        report.schema = sum(each.applied_on is not None for each in applied)
        if report.schema < len(applied):
            report.notes.append("The schema is older than this program; the next start of the server brings it up.")
    except StorageError as error:
        report.damage.append(str(error))
    return report


def mend(database: Path, keys: Keyring | None = None) -> list[str]:
    """Do what `examine` found mendable and say what was done. Make a copy of the database before.

    Nothing that anybody wrote is removed: records without an owner, names of traces that no entry bears, and what
    is made again from the entries.
    """
    done: list[str] = []
    for path in _open_to_others(database):
        with suppress(FileNotFoundError):
            path.chmod(0o700 if path.is_dir() else 0o600)
            done.append(f"{path} is for its owner only.")
    with writing(database) as connection:
        orphans = _orphans(connection)
        while orphans:  # what pointed to a removed row is the next orphan
            for table, rowid in orphans:
                if rowid is None:
                    connection.execute(f"DELETE FROM {table} WHERE {_ownerless(connection, table)}")
                else:
                    connection.execute(f"DELETE FROM {table} WHERE rowid=?", (rowid,))
            done.append(f"{len(orphans):,} records that belong to nobody are gone.")
            orphans = _orphans(connection)
        if unused := connection.execute(f"DELETE FROM tags WHERE {_UNUSED}").rowcount:
            done.append(f"{unused:,} names of traces that no entry bears are gone.")
        if keys is not None:
            done += _mend_records(connection, keys)
    return done


def _mend_records(connection: sqlite3.Connection, keys: Keyring) -> list[str]:
    derived = moved = 0
    for kind, columns, sealed in list(_records(connection, keys.user_id)):
        text = _opened(keys, kind, columns, sealed)
        if text is None and kind.derived:
            where = " AND ".join(f"{name}=?" for name in kind.columns)
            derived += connection.execute(
                f"DELETE FROM {kind.table} WHERE user_id=? AND {where}", (keys.user_id, *columns.values())
            ).rowcount
        elif text is not None and kind.table == "entries" and (day := _day(keys, text)) != columns["day"]:
            moved += connection.execute("UPDATE entries SET day=? WHERE id=?", (day, columns["id"])).rowcount
    done: list[str] = []
    if derived:
        done.append(f"{derived:,} records that are made again by themselves are gone.")
    if moved:
        done.append(f"{moved:,} entries stand on their own day again.")
    return done


# -- the parts -----------------------------------------------------------------------------------------


def _look_at_versions(report: Report) -> None:
    if sqlite3.sqlite_version_info < SAFE_SQLITE:
        report.notes.append(f"SQLite {report.sqlite} needs the lock file beside the journal; Llamora holds it.")


def _look_at_files(report: Report, database: Path) -> None:
    if os.name != "posix":
        return
    for path, mode in _modes(database).items():
        report.modes[str(path)] = f"{mode:04o}"
        if mode & 0o077:
            report.notes.append(f"{path} can be read by others on this machine (mode {mode:04o}).")
            report.mendable.append(f"close {path} to others")
    if report.memory != "locked":
        report.notes.append(
            "This account may lock no memory, so keys can reach the swap while somebody is signed in. Raise the limit"
            " (ulimit -l), or see that swap is encrypted."
        )
    if report.swap == "not encrypted":
        report.notes.append(
            "Swap is not encrypted: keys and text in memory may reach the disk. Encrypt it, or use none."
        )


def _files(database: Path) -> Iterator[Path]:
    yield database.parent
    yield from sorted(database.parent.glob(f"{escape(database.name)}*"))
    if (copies := database.parent / "backups").is_dir():
        yield copies
        yield from sorted(copies.rglob("*"))


def _modes(database: Path) -> dict[Path, int]:
    """The mode of each file; one that a running server removed since it was listed is left out."""
    found: dict[Path, int] = {}
    for path in _files(database):
        with suppress(FileNotFoundError):
            found[path] = stat.S_IMODE(path.stat().st_mode)
    return found


def _open_to_others(database: Path) -> list[Path]:
    return [path for path, mode in _modes(database).items() if mode & 0o077] if os.name == "posix" else []


def _look_at_slots(report: Report, connection: sqlite3.Connection, keys: Keyring, sealed: SealedKeys) -> None:
    """Whether the key slots are those that the sealed list names."""
    master = keys.master
    try:
        listed = {(slot.id, slot.kind, slot.salt, slot.params) for slot in living_slots(keys.user_id, master, sealed)}
    except SealError:
        report.damage.append("The list of the key slots does not open.")
        return
    finally:
        wipe(master)
    rows = connection.execute("SELECT id, kind, salt, params FROM key_slots WHERE user_id=?", (keys.user_id,))
    if wrong := len(listed ^ set(rows)):
        report.damage.append(
            f"{wrong:,} key slots are not as they were made, or gone. llamora-server rotate makes them anew."
        )


def _look_at_database(report: Report, connection: sqlite3.Connection) -> bool:
    """Whether the file itself is whole, so that the records in it can be looked at."""
    report.pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    if found != ["ok"]:
        report.damage.append(f"The file is damaged ({len(found)} faults, the first: {found[0]}).")
        return False
    if orphans := _orphans(connection):
        tables = Counter(table for table, _ in orphans)
        words = ", ".join(f"{count:,} in {table}" for table, count in sorted(tables.items()))
        report.damage.append(f"Records belong to nobody, or to an entry that is gone: {words}.")
        report.mendable.append("remove the records that belong to nobody")
    (unused,) = connection.execute(f"SELECT count(*) FROM tags WHERE {_UNUSED}").fetchone()
    if unused:
        report.damage.append(f"{unused:,} names of traces are left that no entry bears.")
        report.mendable.append("remove the names of traces that no entry bears")
    return True


_UNUSED = "NOT EXISTS (SELECT 1 FROM entry_tags WHERE entry_tags.user_id=tags.user_id AND entry_tags.tag=tags.tag)"


def _ownerless(connection: sqlite3.Connection, table: str) -> str:
    """What is wrong with the orphans of a table without row numbers: one of its references leads nowhere."""
    references: dict[int, tuple[str, list[str]]] = {}
    for number, _, parent, own, theirs, *_ in connection.execute(f"PRAGMA foreign_key_list({table})"):
        references.setdefault(number, (parent, []))[1].append(f"{parent}.{theirs}={table}.{own}")
    return " OR ".join(
        f"NOT EXISTS (SELECT 1 FROM {parent} WHERE {' AND '.join(same)})" for parent, same in references.values()
    )


def _orphans(connection: sqlite3.Connection) -> list[tuple[str, int | None]]:
    """(table, row number or None) of every record that points to something that is not there."""
    return [(str(row[0]), row[1]) for row in connection.execute("PRAGMA foreign_key_check")]


def _count(report: Report, connection: sqlite3.Connection) -> None:
    for user_id, name in connection.execute("SELECT id, name FROM users ORDER BY name_key").fetchall():
        report.records[name] = {
            kind.table: connection.execute(f"SELECT count(*) FROM {kind.table} WHERE user_id=?", (user_id,)).fetchone()[
                0
            ]
            for kind in KINDS
        }


def _open_everything(report: Report, connection: sqlite3.Connection, keys: Keyring) -> None:
    opened: Counter[str] = Counter({kind.table: 0 for kind in KINDS if kind.purpose})
    shut: Counter[str] = Counter()
    misplaced: Counter[str] = Counter()
    for kind, columns, sealed in _records(connection, keys.user_id):
        text = _opened(keys, kind, columns, sealed)
        if text is None:
            shut[kind.table] += 1
        else:
            opened[kind.table] += 1
            misplaced[kind.table] += not _in_its_place(keys, kind, columns, text)
    report.opened, report.unreadable = dict(opened), dict(shut)
    for table, count in sorted(shut.items()):
        report.damage.append(f"{count:,} of {count + opened[table]:,} records in {table} do not open.")
    for table, count in sorted(misplaced.items()):
        if count:
            report.damage.append(f"{count:,} records in {table} stand in a place that is not theirs.")
    if any(shut[kind.table] for kind in KINDS if kind.derived):
        report.mendable.append("remove unreadable records that are made again by themselves")
    if misplaced["entries"]:
        report.mendable.append("put entries back on their own day")


def _records(connection: sqlite3.Connection, user_id: bytes) -> Iterator[tuple[Kind, dict[str, Any], bytes]]:
    for kind in KINDS:
        if kind.purpose is not None:
            # Part 0 of an index copy that is being made is empty.
            rows = connection.execute(
                f"SELECT {', '.join(kind.columns)}, sealed FROM {kind.table} WHERE user_id=? AND length(sealed) > 0",
                (user_id,),
            )
            for row in cast("Iterator[Row]", rows):
                yield kind, dict(zip(kind.columns, row, strict=False)), row[-1]


def _opened(keys: Keyring, kind: Kind, columns: dict[str, Any], sealed: bytes) -> bytes | None:
    try:
        return kind.open(keys, columns.get(kind.id, keys.user_id), columns[kind.revision], sealed)
    except (SealError, OverflowError):
        return None


def _day(keys: Keyring, text: bytes) -> bytes:
    return day_hash(keys, date.fromisoformat(json.loads(text)["day"]))


def _in_its_place(keys: Keyring, kind: Kind, columns: dict[str, Any], text: bytes) -> bool:
    """Whether a keyed hash or an id beside a record is what the record itself says."""
    checks: dict[str, Callable[[], bool]] = {
        "entries": lambda: columns["day"] == _day(keys, text),
        "tags": lambda: columns["tag"] == trace_hash(keys, text.decode("utf-8", "surrogatepass")),
        "drafts": lambda: columns["draft_key"] == keys.blind(DRAFT_HASH, json.loads(text)["place"].encode()),
        "versions": lambda: columns["entry_id"].hex() == json.loads(text)["entry"],
    }
    try:
        return kind.table not in checks or checks[kind.table]()
    except (ValueError, LookupError, TypeError):
        return False


def swap(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> str:
    """Whether what is in memory may reach a disk as it is: "none", "encrypted", "not encrypted" or "not known"."""
    try:
        lines = (proc / "swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return "not known"
    found = {_swap_of(Path(line.split()[0].encode().decode("unicode_escape")), sys) for line in lines if line.split()}
    for worst in ("not encrypted", "not known", "encrypted"):
        if worst in found:
            return worst
    return "none"


def _swap_of(place: Path, sys: Path) -> str:
    try:
        about = place.stat()
    except OSError:
        return "not known"
    device = about.st_rdev if stat.S_ISBLK(about.st_mode) else about.st_dev
    folder = sys / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
    if "zram" in place.name:  # compressed memory, unless it writes back to a disk
        return "encrypted"
    try:
        return "encrypted" if (folder / "dm/uuid").read_text().startswith("CRYPT-") else "not encrypted"
    except OSError:
        return "not encrypted" if folder.exists() else "not known"
