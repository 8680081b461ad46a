"""Checks of the store: is the file whole, does every record open, is anything orphaned.

Everything here blocks: call it on a thread. Only `repair` changes anything.
"""

import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, cast

import msgspec

from llamora.messages import sentence
from llamora.persistence import checksums
from llamora.persistence.backups import sealed_keys
from llamora.persistence.blocking import read_transaction, write_transaction
from llamora.persistence.connection import PRAGMAS, Row, StorageError
from llamora.persistence.drafts import Draft, hash_draft_key
from llamora.persistence.entries import Entry, day_hash
from llamora.persistence.migrations import migration_status
from llamora.persistence.schema import ENTRIES, RECORD_KINDS, SEALED_KINDS, RecordKind
from llamora.persistence.tag_changes import UNUSED_TAG, tag_hash
from llamora.persistence.versions import Version
from llamora.vault.envelope import SealError, sealed_epoch
from llamora.vault.key_renewal import living_slots
from llamora.vault.keys import Keyring, SealedDataKey, SealedKeys, cipher_library, open_data_keys
from llamora.vault.memory import memory_lock, wipe

SAFE_SQLITE_VERSION = (3, 51, 3)
"""From here on SQLite cannot corrupt a WAL that two connections checkpoint at once.

Before it, the lock file prevents that.
"""

_COMPARE = (
    "Compare with a backup: llamora-server verify counts what is in it, and restore brings it back."
)
SUM_DAMAGE = {
    "changed": "Records or tags were put back, removed or added by something other than Llamora. "
    + _COMPARE,
    "rolled_back": "A browser knows of later changes than are here: an older copy was put back, or"
    " the end of the write-ahead log was lost. " + _COMPARE,
    "gone": "The sum over the records was removed by something other than Llamora. " + _COMPARE,
    "damaged": "The sum over the records does not open. " + _COMPARE,
    "unknown": "The sum over the records is sealed under a key that is not here. " + _COMPARE,
}


@dataclass(slots=True)
class Report:
    """The findings of a check. `damage` and `notes` are sentences; a note is nothing broken.

    `records` and `unreadable` count by user's name and table. `mendable` says in words what
    `repair` would do.
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


def run_checks(database: Path, migrations: Path, keys: Keyring | None = None) -> Report:
    """Check everything visible without keys, and with a user's keys every record of theirs."""
    report = Report(swap=swap_state(), memory=memory_lock())
    _check_files(report, database)
    _check_versions(report)
    try:
        applied = migration_status(database, migrations)
        with read_transaction(database) as connection:
            if _check_database(report, connection):
                _count_records(report, connection)
                if keys is not None:
                    # The keys of the instant that is looked at: they may have changed while the
                    # passphrase was typed.
                    sealed = sealed_keys(connection, keys.user_id)
                    if not keys.take(sealed.data_keys):
                        raise StorageError("key_changed_elsewhere")
                    _look_at_slots(report, connection, keys, sealed)
                    _check_records(report, connection, keys)
                    _check_sum(report, connection, keys)
        report.schema = sum(status.applied_on is not None for status in applied)
        if report.schema < len(applied):
            report.notes.append(
                "The schema is older than this program; the next start of the server brings it up."
            )
    except StorageError as error:
        report.damage.append(sentence(error))
    return report


def repair(database: Path, keys: Keyring | None = None) -> list[str]:
    """Repair what `run_checks` found mendable and return what was done, in words.

    Make a copy of the database before. Nothing that anybody wrote is deleted: only records without
    an owner, names of tags that no entry has, and what is made again from the entries.
    """
    actions: list[str] = []
    for path in _exposed_paths(database):
        with suppress(FileNotFoundError):
            path.chmod(0o700 if path.is_dir() else 0o600)
            actions.append(f"{path} is for its owner only.")
    with write_transaction(database) as connection:
        orphans = _find_orphans(connection)
        while orphans:  # what pointed to a deleted row is the next orphan
            for table, rowid in orphans:
                if rowid is None:
                    connection.execute(
                        f"DELETE FROM {table} WHERE {_orphan_condition(connection, table)}"
                    )
                else:
                    connection.execute(f"DELETE FROM {table} WHERE rowid=?", (rowid,))
            actions.append(f"{len(orphans):,} records that belong to nobody are gone.")
            orphans = _find_orphans(connection)
        if unused := connection.execute(f"DELETE FROM tags WHERE {UNUSED_TAG}").rowcount:
            actions.append(f"{unused:,} names of traces that no entry bears are gone.")
        if keys is not None:
            actions += _repair_records(connection, keys)
            if checksums.check(keys, connection) not in ("right", "missing"):
                checksums.renew(keys, connection)
                actions.append("The records count as they are now.")
    return actions


def _repair_records(connection: sqlite3.Connection, keys: Keyring) -> list[str]:
    derived = moved = epochs = 0
    for kind, columns, sealed in list(_read_records(connection, keys.user_id)):
        plaintext = kind.try_open(keys, columns, sealed)
        condition = " AND ".join(f"{name}=?" for name in kind.columns)
        if plaintext is not None and not _is_epoch(columns["epoch"]):
            epochs += connection.execute(
                f"UPDATE {kind.table} SET epoch=? WHERE user_id=? AND {condition}",
                (sealed_epoch(sealed), keys.user_id, *columns.values()),
            ).rowcount
        if plaintext is None and kind.derived:
            derived += connection.execute(
                f"DELETE FROM {kind.table} WHERE user_id=? AND {condition}",
                (keys.user_id, *columns.values()),
            ).rowcount
        if plaintext is not None and kind is ENTRIES:
            day = _expected_place(keys, kind, plaintext)
            if day is not None and day != columns["day"]:
                query = "UPDATE entries SET day=? WHERE id=?"
                moved += connection.execute(query, (day, columns["id"])).rowcount
    actions: list[str] = []
    if derived:
        actions.append(f"{derived:,} records that are made again by themselves are gone.")
    if epochs:
        actions.append(f"{epochs:,} epochs are written anew.")
    if moved:
        actions.append(f"{moved:,} entries stand on their own day again.")
    return actions


# -- the parts -------------------------------------------------------------------------------------


def _check_versions(report: Report) -> None:
    if sqlite3.sqlite_version_info < SAFE_SQLITE_VERSION:
        report.notes.append(
            f"SQLite {report.sqlite} needs the lock file beside the journal; Llamora holds it."
        )


def _check_files(report: Report, database: Path) -> None:
    if os.name != "posix":
        return
    for path, mode in _file_modes(database).items():
        report.modes[str(path)] = f"{mode:04o}"
        if mode & 0o077:
            report.notes.append(f"{path} can be read by others on this machine (mode {mode:04o}).")
            report.mendable.append(f"close {path} to others")
    if report.memory != "locked":
        report.notes.append(
            "This account may lock no memory, so keys can reach the swap while somebody is signed"
            " in. Raise the limit (ulimit -l), or see that swap is encrypted."
        )
    if report.swap == "not encrypted":
        report.notes.append(
            "Swap is not encrypted: keys and text in memory may reach the disk. Encrypt it, or use"
            " none."
        )


def _list_files(database: Path) -> Iterator[Path]:
    yield database.parent
    yield from sorted(database.parent.glob(f"{escape(database.name)}*"))
    if (backup_folder := database.parent / "backups").is_dir():
        yield backup_folder
        yield from sorted(backup_folder.rglob("*"))


def _file_modes(database: Path) -> dict[Path, int]:
    modes: dict[Path, int] = {}
    for path in _list_files(database):
        with suppress(FileNotFoundError):
            modes[path] = stat.S_IMODE(path.stat().st_mode)
    return modes


def _exposed_paths(database: Path) -> list[Path]:
    return (
        [path for path, mode in _file_modes(database).items() if mode & 0o077]
        if os.name == "posix"
        else []
    )


def _look_at_slots(
    report: Report, connection: sqlite3.Connection, keys: Keyring, sealed: SealedKeys
) -> None:
    master = keys.master
    stored = connection.execute(
        "SELECT epoch, sealed FROM data_keys WHERE user_id=?", (keys.user_id,)
    ).fetchall()
    if odd := sum(not _opens_data_key(keys.user_id, master, *row) for row in stored):
        report.damage.append(
            f"{odd:,} of {len(stored):,} keys in data_keys do not open, nor do records under them."
        )
    try:
        listed = {
            (slot.id, slot.kind, slot.salt, slot.params)
            for slot in living_slots(keys.user_id, master, sealed)
        }
    except SealError:
        report.damage.append("The list of the key slots does not open.")
        return
    finally:
        wipe(master)
    rows = connection.execute(
        "SELECT id, kind, salt, params FROM key_slots WHERE user_id=?", (keys.user_id,)
    )
    if wrong := len(listed ^ set(rows)):
        report.damage.append(
            f"{wrong:,} key slots are not as they were made, or gone. llamora-server rotate makes"
            " them anew."
        )


def _opens_data_key(user_id: bytes, master: bytearray, epoch: Any, sealed: Any) -> bool:
    try:
        opened = open_data_keys(user_id, master, [SealedDataKey(epoch, sealed)])
    except (SealError, TypeError, AttributeError, OverflowError):  # columns of another type
        return False
    wipe(*opened.values())
    return True


def _check_database(report: Report, connection: sqlite3.Connection) -> bool:
    """Check the file itself; return True if the records in it can be looked at."""
    report.pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    if faults != ["ok"]:
        report.damage.append(f"The file is damaged ({len(faults)} faults, the first: {faults[0]}).")
        return False
    if orphans := _find_orphans(connection):
        tables = Counter(table for table, _ in orphans)
        counts = ", ".join(f"{count:,} in {table}" for table, count in sorted(tables.items()))
        report.damage.append(f"Records belong to nobody, or to an entry that is gone: {counts}.")
        report.mendable.append("remove the records that belong to nobody")
    (unused,) = connection.execute(f"SELECT count(*) FROM tags WHERE {UNUSED_TAG}").fetchone()
    if unused:
        report.damage.append(f"{unused:,} names of traces are left that no entry bears.")
        report.mendable.append("remove the names of traces that no entry bears")
    return True


def _orphan_condition(connection: sqlite3.Connection, table: str) -> str:
    references: dict[int, tuple[str, list[str]]] = {}
    for number, _, parent, column, parent_column, *_ in connection.execute(
        f"PRAGMA foreign_key_list({table})"
    ):
        references.setdefault(number, (parent, []))[1].append(
            f"{parent}.{parent_column}={table}.{column}"
        )
    return " OR ".join(
        f"NOT EXISTS (SELECT 1 FROM {parent} WHERE {' AND '.join(conditions)})"
        for parent, conditions in references.values()
    )


def _find_orphans(connection: sqlite3.Connection) -> list[tuple[str, int | None]]:
    """Return (table, row number or None) of every record that points to a missing one."""
    return [(str(row[0]), row[1]) for row in connection.execute("PRAGMA foreign_key_check")]


def _count_records(report: Report, connection: sqlite3.Connection) -> None:
    for user_id, name in connection.execute(
        "SELECT id, name FROM users ORDER BY name_key"
    ).fetchall():
        report.records[name] = {
            kind.table: connection.execute(
                f"SELECT count(*) FROM {kind.table} WHERE user_id=?", (user_id,)
            ).fetchone()[0]
            for kind in RECORD_KINDS
        }


def _check_records(report: Report, connection: sqlite3.Connection, keys: Keyring) -> None:
    opened: Counter[str] = Counter({kind.table: 0 for kind in SEALED_KINDS})
    unreadable: Counter[str] = Counter()
    misplaced: Counter[str] = Counter()
    wrong_epochs: Counter[str] = Counter()
    for kind, columns, sealed in _read_records(connection, keys.user_id):
        plaintext = kind.try_open(keys, columns, sealed)
        if plaintext is None:
            unreadable[kind.table] += 1
        else:
            opened[kind.table] += 1
            misplaced[kind.table] += not _is_consistent(keys, kind, columns, plaintext)
            wrong_epochs[kind.table] += not _is_epoch(columns["epoch"])
    report.opened, report.unreadable = dict(opened), dict(unreadable)
    for table, count in sorted(unreadable.items()):
        report.damage.append(
            f"{count:,} of {count + opened[table]:,} records in {table} do not open."
        )
    for table, count in sorted(misplaced.items()):
        if count:
            report.damage.append(
                f"{count:,} records in {table} stand in a place that is not theirs."
            )
    for table, count in sorted((+wrong_epochs).items()):
        report.damage.append(f"{count:,} records in {table} have no number for their epoch.")
        report.mendable.append(f"write the epochs in {table} anew")
    if any(unreadable[kind.table] for kind in RECORD_KINDS if kind.derived):
        report.mendable.append("remove unreadable records that are made again by themselves")
    if misplaced["entries"]:
        report.mendable.append("put entries back on their own day")


def _check_sum(report: Report, connection: sqlite3.Connection, keys: Keyring) -> None:
    state = checksums.check(keys, connection)
    if state in SUM_DAMAGE:
        # Rows that are damaged themselves explain why the sum is another.
        is_explained = state == "changed" and bool(report.damage)
        (report.notes if is_explained else report.damage).append(SUM_DAMAGE[state])
        report.mendable.append("take the records as they are now for right")
    elif state == "missing":
        report.notes.append("No sum says which records there are; the next sign-in makes one.")


def _is_epoch(value: object) -> bool:
    """Return True for a number of a key, whether or not it is the one in the envelope.

    A process that began writing before a change of the key may have stored the two apart.
    """
    return isinstance(value, int) and 0 < value < 1 << 32


def _read_records(
    connection: sqlite3.Connection, user_id: bytes
) -> Iterator[tuple[RecordKind, dict[str, Any], bytes]]:
    for kind in SEALED_KINDS:
        rows = connection.execute(
            f"SELECT {', '.join(kind.columns)}, sealed FROM {kind.table} WHERE user_id=?",
            (user_id,),
        )
        for row in cast("Iterator[Row]", rows):
            yield kind, dict(zip(kind.columns, row, strict=False)), row[-1]


# What the keyed hash or the id beside a record must be: the column, and how the record tells it.
_PLACES: dict[str, tuple[str, Callable[[Keyring, bytes], bytes]]] = {
    "entries": (
        "day",
        lambda keys, text: day_hash(keys, msgspec.json.decode(text, type=Entry).day),
    ),
    "tags": ("tag", lambda keys, text: tag_hash(keys, msgspec.json.decode(text, type=str))),
    "drafts": (
        "draft_key",
        lambda keys, text: hash_draft_key(keys, msgspec.json.decode(text, type=Draft).draft_key),
    ),
    "versions": ("entry_id", lambda _, text: msgspec.json.decode(text, type=Version).entry_id),
}


def _expected_place(keys: Keyring, kind: RecordKind, plaintext: bytes) -> bytes | None:
    """Return the value that belongs beside a record, or None for an unknown content."""
    try:
        return _PLACES[kind.table][1](keys, plaintext)
    except (msgspec.MsgspecError, ValueError):
        return None


def _is_consistent(
    keys: Keyring, kind: RecordKind, columns: dict[str, Any], plaintext: bytes
) -> bool:
    if kind.table not in _PLACES:
        return True
    return columns[_PLACES[kind.table][0]] == _expected_place(keys, kind, plaintext)


def swap_state(proc_root: Path = Path("/proc"), sys_root: Path = Path("/sys")) -> str:
    """Return how memory may reach a disk: "none", "encrypted", "not encrypted" or "not known"."""
    try:
        lines = (proc_root / "swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return "not known"
    states = {
        _swap_device_state(Path(line.split()[0].encode().decode("unicode_escape")), sys_root)
        for line in lines
        if line.split()
    }
    for state in ("not encrypted", "not known", "encrypted"):
        if state in states:
            return state
    return "none"


def _swap_device_state(path: Path, sys_root: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "not known"
    device = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    folder = sys_root / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
    if "zram" in path.name:  # compressed memory, unless it writes back to a disk
        return "encrypted"
    try:
        return (
            "encrypted"
            if (folder / "dm/uuid").read_text().startswith("CRYPT-")
            else "not encrypted"
        )
    except OSError:
        return "not encrypted" if folder.exists() else "not known"
