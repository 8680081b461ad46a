"""Backups: whole, sealed, opened by passphrase or recovery code on an empty machine, and refused once changed."""

import asyncio
import json
import secrets
import sqlite3
import struct
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llamora.journal.backups import Backups
from llamora.persistence import LocalDB, backups, run_db_migrations
from llamora.persistence.backup_format import BackupError, BackupRecord, read_header
from llamora.persistence.backups import copy_database, restore_backup, verify_backup, write_backup
from llamora.persistence.connection import NotFound, StorageError
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.schema import RECORD_KINDS
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.users import NameTaken, User
from llamora.persistence.vectors import EntryVectors
from llamora.persistence.versions import Version
from llamora.settings import BackupSettings, resource
from llamora.vault import kdf
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import NewKeys, create_keys, renew_keys
from llamora.vault.keys import Keyring, KeyringClosed, new_data_key, open_keyring
from llamora.vault.recovery_code import WrongSecret
from tests.conftest import REAL_ARGON2ID
from tests.persistence.conftest import AT, DAY, entry, new_user
from tests.scan import find_words

PASSPHRASE = "seven quiet herons over the weir"
DECRYPTOR = Path(__file__).parents[2] / "scripts/open_backup.py"
TABLES = [kind.table for kind in RECORD_KINDS if not kind.derived]


@pytest.fixture(scope="module", autouse=True)
def real_kdf_of_the_module() -> Iterator[None]:
    """The KDF that the decryptor, which is another program, has too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kdf, "argon2id", REAL_ARGON2ID)
        yield


@pytest.fixture(scope="module")
def made(real_kdf_of_the_module: None) -> tuple[bytes, NewKeys]:
    """Keys with both slots, made once: the KDF is meant to be slow."""
    user_id = secrets.token_bytes(16)
    return user_id, create_keys(user_id, PASSPHRASE, Argon2Params(65536, 3, 4))


@pytest.fixture
async def alice(db: LocalDB, made: tuple[bytes, NewKeys]) -> Keyring:
    """A writer with something of every kind, in two epochs."""
    user_id, new = made
    second = renew_keys(user_id, new.master, new.sealed)
    await db.users.add(User(user_id, "Alice", recovery_confirmed=True), second.slots, second.sealed)
    old = open_keyring(user_id, new.master, new.sealed)
    keys = open_keyring(user_id, second.master, second.sealed)
    kept = entry("the quokka at dusk")
    await db.entries.add(old, kept, entry("a broken \ufffd letter"))
    await db.entries.add(
        keys, *[entry(f"quokka {number} " + "x" * 900, minute=number) for number in range(1500)]
    )
    await db.profiles.save(keys, b'{"zone":"Europe/Berlin"}', revision=0)
    await db.tags.add(keys, kept.id, "quokkas")
    await db.tags.remove(keys, kept.id, await db.tags.add(keys, kept.id, "wombats"))
    await db.tags.refuse_suggestions(keys, kept.id, ["numbats"])
    version = Version(secrets.token_bytes(16), kept.id, "the quokka at dawn", AT, 1)
    await db.entries.update(keys, kept, [db.versions.saving_version(keys, version)])
    await db.drafts.save(
        keys, Draft(day_draft_key(DAY), "quokka on its way", secrets.token_bytes(16), 1), None
    )
    await db.summaries.save(
        keys, StoredSummary("recap", DAY, "A quokka day.", (kept.id,), "00", "m")
    )
    await db.trash.initialize(keys, [])
    await db.search_history.add(keys, "quokka", AT)
    await db.vectors.save(keys, [EntryVectors(kept.id, 1, "m", 96, secrets.token_bytes(384))])
    return keys


@pytest.fixture
def file(alice: Keyring, path: Path, tmp_path: Path) -> Path:
    target = tmp_path / "a.llamora"
    write_backup(path, alice, target)
    return target


def rows(
    database: Path, user_id: bytes, tables: list[str] = TABLES
) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return {
            table: sorted(
                connection.execute(f"SELECT * FROM {table} WHERE user_id=?", (user_id,)).fetchall(),
                key=repr,
            )
            for table in [*tables, "key_slots", "keyrings", "data_keys"]
        }


def empty_journal(folder: Path) -> Path:
    database = folder / "llamora.sqlite3"
    run_db_migrations(database, resource("migrations"))
    return database


DAMAGED = {
    "backup_damaged_or_short",
    "backup_record_damaged",
    "backup_part_changed",
    "backup_has_more",
}


def problem(file: Path, keys: Keyring) -> str:
    with pytest.raises(BackupError) as caught:
        verify_backup(file, read_header(file), keys)
    return caught.value.code


# -- what goes in --------------------------------------------------------------------------------------


def test_the_list_of_kinds_is_the_schema(path: Path) -> None:
    listed = {
        kind.table: {*kind.columns, "user_id", *(["sealed"] if kind.purpose else [])}
        for kind in RECORD_KINDS
    }
    others = {
        "users",
        "instance",
        "schema_migrations",
        "key_slots",
        "keyrings",
        "data_keys",
        "dek_sessions",
        "failed_attempts",
        "known_devices",
    }
    with closing(sqlite3.connect(path)) as connection:
        tables = {
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        } - others
        assert {
            table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for table in tables
        } == (listed)


@pytest.mark.parametrize("by", ["passphrase", "recovery code"])
async def test_everything_comes_back_on_an_empty_machine(
    by: str, file: Path, made: tuple[bytes, NewKeys], path: Path, tmp_path: Path
) -> None:
    header = read_header(file)
    keys = header.unlock(PASSPHRASE if by == "passphrase" else made[1].recovery_code)
    database = empty_journal(tmp_path / "elsewhere")
    manifest = restore_backup(database, file, header, keys)
    before = rows(path, keys.user_id)
    assert rows(database, keys.user_id) == before
    assert manifest.records == {table: len(before[table]) for table in TABLES}
    assert manifest.records["entries"] == 1502
    assert all(manifest.records.values())
    db = await LocalDB.open(database)
    user = await db.users.find_by_name("alice")
    assert user == User(keys.user_id, "Alice", recovery_confirmed=True)
    assert len(await db.entries.list_day(keys, DAY)) == 1502
    await db.close()


def test_a_wrong_secret_opens_nothing(file: Path) -> None:
    with pytest.raises(WrongSecret):
        read_header(file).unlock("another passphrase")


def test_the_file_shows_no_word_and_no_name(file: Path, tmp_path: Path) -> None:
    assert file.stat().st_size > 1_000_000
    assert file.stat().st_mode & 0o777 == 0o600
    folder = tmp_path / "only"
    folder.mkdir()
    file.rename(folder / file.name)
    assert find_words(folder, ["quokka", "alice", "Berlin", "2026-11"]) == []


async def test_it_is_one_instant_while_others_write(
    db: LocalDB, alice: Keyring, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "b.llamora"
    making = asyncio.create_task(asyncio.to_thread(write_backup, path, alice, target))
    pairs = 0
    while not making.done():
        await db.entries.add(alice, entry("left"), entry("right"))  # both or neither
        pairs += 1
    await making
    manifest = verify_backup(target, read_header(target), alice)
    assert (manifest.records["entries"] - 1502) % 2 == 0
    assert manifest.records["entries"] <= 1502 + 2 * pairs


def test_a_record_that_does_not_open_is_kept_as_it_is(
    alice: Keyring, path: Path, tmp_path: Path, damage: Callable[[str], None]
) -> None:
    damage("tags")
    target = tmp_path / "b.llamora"
    assert write_backup(path, alice, target).unreadable == 1
    database = empty_journal(tmp_path / "elsewhere")
    restore_backup(database, target, read_header(target), alice)
    assert rows(database, alice.user_id) == rows(path, alice.user_id)


def test_a_record_that_should_open_and_does_not_stops_the_restore(
    alice: Keyring,
    path: Path,
    tmp_path: Path,
    damage: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage("versions")
    target = tmp_path / "b.llamora"
    with monkeypatch.context() as blind:
        blind.setattr(BackupRecord, "can_open", lambda *_: True)
        write_backup(path, alice, target)
    assert problem(target, alice) == "backup_record_damaged"
    before = rows(path, alice.user_id)
    with pytest.raises(BackupError):
        restore_backup(path, target, read_header(target), alice, replace=True)
    assert rows(path, alice.user_id) == before


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen while a backup is made, after its first record was read."""

    def arrange(what: Callable[[], object]) -> None:
        real = backups._read_records

        def records(*given: Any) -> Any:
            found = real(*given)
            yield next(found)
            what()
            yield from found

        monkeypatch.setattr(backups, "_read_records", records)

    return arrange


def test_a_change_of_key_meanwhile_leaves_it_whole(
    alice: Keyring, made: tuple[bytes, NewKeys], path: Path, tmp_path: Path, meanwhile: Any
) -> None:
    third = new_data_key(alice.user_id, alice.master, 3)
    meanwhile(lambda: alice.take([third]))  # and everything older is gone
    target = tmp_path / "b.llamora"
    assert write_backup(path, alice, target).unreadable == 0
    header = read_header(target)
    assert verify_backup(target, header, header.unlock(PASSPHRASE)).records["entries"] == 1502


def test_a_lock_meanwhile_ends_it(
    alice: Keyring, path: Path, tmp_path: Path, meanwhile: Any
) -> None:
    meanwhile(alice.close)
    with pytest.raises(KeyringClosed):
        write_backup(path, alice, tmp_path / "some" / "b.llamora")
    assert list((tmp_path / "some").iterdir()) == []


async def test_none_is_left_of_a_journal_that_was_ended_meanwhile(
    db: LocalDB, alice: Keyring, path: Path, tmp_path: Path, meanwhile: Any
) -> None:
    loop = asyncio.get_running_loop()
    meanwhile(
        lambda: asyncio.run_coroutine_threadsafe(db.users.erase(alice.user_id), loop).result(60)
    )
    of_another_worker = Backups(db, BackupSettings(), tmp_path)
    with pytest.raises(NotFound):
        await of_another_worker.create(alice)
    assert not of_another_worker.folder_of_user(alice.user_id).exists()


# -- what was done to it -------------------------------------------------------------------------------


def chunks(file: Path) -> tuple[bytes, list[bytes]]:
    content = file.read_bytes()
    at = read_header(file).end_offset
    beginning, found = content[:at], []
    while at < len(content):
        end = at + 4 + struct.unpack_from(">I", content, at)[0]
        found.append(content[at:end])
        at = end
    return beginning, found


def test_flips_are_found(file: Path, alice: Keyring) -> None:
    whole = file.read_bytes()
    ends_at = read_header(file).end_offset
    places = [*range(0, ends_at, 97), *range(ends_at, len(whole), len(whole) // 60), len(whole) - 1]
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert problem(file, alice)


def test_a_cut_anywhere_is_found(file: Path, alice: Keyring) -> None:
    beginning, parts = chunks(file)
    assert len(parts) >= 3
    for count in range(len(parts)):
        file.write_bytes(beginning + b"".join(parts[:count]))
        assert problem(file, alice) == "backup_cut_short"
    whole = beginning + b"".join(parts)
    for size in (
        4,
        9,
        12,
        100,
        len(beginning) - 1,
        len(beginning) + 3,
        len(beginning) + 500,
        len(whole) - 1,
    ):
        file.write_bytes(whole[:size])
        assert problem(file, alice) in ("backup_cut_short", "backup_foreign")


def test_moved_repeated_and_foreign_chunks_are_found(
    file: Path, alice: Keyring, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.llamora"
    write_backup(path, alice, other)
    beginning, parts = chunks(file)
    foreign = chunks(other)[1]
    for changed in (
        [parts[1], parts[0], *parts[2:]],
        [parts[0], *parts],
        parts[1:],
        [foreign[0], *parts[1:]],
        [*parts[:-1], foreign[-1]],
        [*parts, parts[-1]],
    ):
        file.write_bytes(beginning + b"".join(changed))
        assert problem(file, alice) in DAMAGED
    file.write_bytes(chunks(other)[0] + b"".join(parts))
    assert problem(file, alice) in DAMAGED


def test_a_lowered_cost_is_refused(file: Path, made: tuple[bytes, NewKeys]) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b"m=65536,t=3,p=4", b"m=00008,t=1,p=1"))
    with pytest.raises(WrongSecret):
        read_header(file).unlock(PASSPHRASE)
    assert problem(file, read_header(file).unlock(made[1].recovery_code)) in DAMAGED
    file.write_bytes(content.replace(b"m=65536,t=3,p=4", b"m=65537,t=3,p=4"))
    with pytest.raises(WrongSecret):
        read_header(file).unlock(PASSPHRASE)


def test_the_code_opens_what_was_made_beside_a_spoiled_passphrase_slot(
    alice: Keyring, made: tuple[bytes, NewKeys], path: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE key_slots SET params='m=8,t=1,p=1' WHERE kind='passphrase'")
    target = tmp_path / "b.llamora"
    write_backup(path, alice, target)
    header = read_header(target)
    verify_backup(target, header, header.unlock(made[1].recovery_code))
    assert open_alone(target, made[1].recovery_code).returncode == 0


def test_a_later_version_is_said_to_be_one(file: Path, alice: Keyring) -> None:
    content = bytearray(file.read_bytes())
    for version, code in ((4, "newer"), (1, "unreleased"), (2, "unreleased")):
        content[8] = version
        file.write_bytes(content)
        assert problem(file, alice) == f"backup_{code}"


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "[" * 200_000,
        lambda fields: json.dumps(fields | {"data_keys": [{"epoch": float("inf"), "sealed": ""}]}),
        lambda fields: json.dumps(fields | {"data_keys": [fields["data_keys"][0] | {"epoch": -1}]}),
        lambda fields: json.dumps(
            fields | {"data_keys": [fields["data_keys"][0] | {"epoch": 1 << 32}]}
        ),
        lambda fields: json.dumps(fields | {"user": "0000" * 70_000}),
        lambda fields: json.dumps(fields | {"slots": 7}),
        lambda fields: json.dumps(fields | {"slots": [fields["slots"][0] | {"params": 7}]}),
        lambda fields: json.dumps(fields | {"keyring": []}),
    ],
)
def test_a_beginning_that_a_stranger_made_up_is_a_sentence(
    file: Path, change: Callable[[Any], str]
) -> None:
    fields = json.loads(file.read_bytes()[13 : read_header(file).end_offset])
    text = change(fields).encode()
    file.write_bytes(b"LLBACKUP\x03" + struct.pack(">I", len(text)) + text)
    with pytest.raises(BackupError, match=r"^backup_header_damaged$"):
        read_header(file)
    alone = open_alone(file, PASSPHRASE)
    assert alone.returncode == 1
    assert "Traceback" not in alone.stderr


# -- putting back --------------------------------------------------------------------------------------


def test_a_damaged_backup_replaces_nothing(file: Path, alice: Keyring, path: Path) -> None:
    before = rows(path, alice.user_id)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BackupError):
        restore_backup(path, file, read_header(file), alice, replace=True)
    assert rows(path, alice.user_id) == before


async def test_it_replaces_only_when_told_and_only_its_writer(
    db: LocalDB, file: Path, alice: Keyring, path: Path
) -> None:
    bob = await new_user(db, "Bob")
    await db.entries.add(bob, entry("bob's"))
    of_bob, then = rows(path, bob.user_id), rows(path, alice.user_id)
    await db.entries.add(alice, entry("written after the backup"))
    header = read_header(file)
    with pytest.raises(BackupError, match=r"^user_here_already$"):
        restore_backup(path, file, header, alice)
    restore_backup(path, file, header, alice, replace=True)
    assert rows(path, alice.user_id) == then
    assert rows(path, bob.user_id) == of_bob
    assert await db.vectors.revisions(alice.user_id) == {}  # made again from the entries


async def test_a_name_that_somebody_else_has(file: Path, alice: Keyring, tmp_path: Path) -> None:
    database = empty_journal(tmp_path / "elsewhere")
    db = await LocalDB.open(database)
    await new_user(db, "ALICE")
    with pytest.raises(NameTaken):
        restore_backup(database, file, read_header(file), alice)
    restore_backup(database, file, read_header(file), alice, name="Alice again")
    assert await db.users.find_by_name("alice again") is not None
    await db.close()


# -- without the program -------------------------------------------------------------------------------


def open_alone(file: Path, secret: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-I", str(DECRYPTOR), str(file)],
        input=secret + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_decryptor_needs_no_llamora(
    db: LocalDB, file: Path, alice: Keyring, made: tuple[bytes, NewKeys]
) -> None:
    on_the_page = {
        b64encode(each.id).decode(): each.text for each in await db.entries.list_day(alice, DAY)
    }
    await asyncio.to_thread(_read_alone, file, made[1].recovery_code, on_the_page)


def _read_alone(file: Path, code: str, on_the_page: dict[str, str]) -> None:
    source = DECRYPTOR.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 280
    assert "import llamora" not in source
    assert "from llamora" not in source
    answers = [open_alone(file, secret) for secret in (PASSPHRASE, code.lower().replace("-", " "))]
    assert [answer.returncode for answer in answers] == [0, 0], answers[0].stderr
    assert answers[0].stdout == answers[1].stdout
    found = [json.loads(line) for line in answers[0].stdout.splitlines()]
    assert found[-1]["record"]["name"] == "Alice"
    texts = {item["id"]: item["record"]["text"] for item in found if item["table"] == "entries"}
    assert texts == on_the_page
    assert [item["record"] for item in found if item["table"] == "tags"] == ["quokkas"]
    wrong = open_alone(file, "another passphrase")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    beginning, parts = chunks(file)
    for changed in (parts[:-1], [parts[1], parts[0], *parts[2:]], [parts[0], *parts]):
        file.write_bytes(beginning + b"".join(changed))
        assert open_alone(file, code).returncode == 1


# -- the whole database --------------------------------------------------------------------------------


def test_a_copy_of_everything(file: Path, alice: Keyring, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "sealed" / "all.sqlite3"
    copy_database(path, target)
    assert rows(target, alice.user_id) == rows(path, alice.user_id)
    assert [each.name for each in target.parent.iterdir()] == ["all.sqlite3"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copies").stat().st_mode & 0o777 == 0o700
    assert find_words(target.parent, ["quokka"]) == []
    with pytest.raises(StorageError, match=r"^target_exists$"):
        copy_database(path, target)
