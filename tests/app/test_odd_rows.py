"""One row that no program of ours wrote: the others are shown and found, and the doctor says where it is."""

import asyncio
import secrets
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from llamora.app import create_app
from llamora.persistence import LocalDB
from llamora.persistence.backups import write_backup
from llamora.persistence.doctor import run_checks
from llamora.persistence.drafts import Draft, day_draft_key
from llamora.persistence.entries import Omitted
from llamora.persistence.schema import DEVICES, ENTRIES, SEALED_KINDS, RecordKind
from llamora.persistence.summaries import StoredSummary
from llamora.persistence.vectors import EntryVectors
from llamora.settings import resource
from llamora.vault.keys import Keyring
from tests.app.conftest import Journal, RunningApp, keys_of, settings_in

DAY = "2026-11-20"
ALICE = "(SELECT id FROM users WHERE name='Alice')"
OLD = datetime(2026, 11, 20, tzinfo=UTC)
DAMAGE = {
    "text": "sealed=CAST(sealed AS TEXT)",
    "hex": "sealed=hex(sealed)",
    "empty": "sealed=X''",
    "empty text": "sealed=''",
    "short": "sealed=substr(sealed, 1, 20)",
    "number": "sealed=7",
    "real": "sealed=0.5",
    "junk": "sealed=randomblob(346)",
    "junk with a header": "sealed=CAST(substr(sealed, 1, 10) || randomblob(336) AS BLOB)",
    "text revision": "{revision}='abc'",
    "text that begins as a number": "{revision}='1x'",
    "negative revision": "{revision}=-5",
    "huge revision": "{revision}=9223372036854775807",
    "real revision": "{revision}=1e300",
    "blob revision": "{revision}=X'FF00'",
    "text epoch": "epoch='abc'",
    "blob epoch": "epoch=X'00'",
    "negative epoch": "epoch=-1",
}


@pytest.fixture(scope="module")
def lived(registered: Journal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Alice has something of every kind, of which `lived` is copied."""
    folder = tmp_path_factory.mktemp("lived") / "data"
    shutil.copytree(registered.folder, folder)

    async def live() -> None:
        app = create_app(settings_in(folder))
        async with app.test_app() as test_app:
            running = RunningApp(app, test_app, registered.accounts)
            alice = await running.visitor()
            ids = [await alice.write(f"kept {word} #boat") for word in ("first", "odd", "third")]
            db, keys = (
                running.services.db,
                await keys_of(running.services.db.users, registered.accounts["Alice"]),
            )
            number = bytes.fromhex(ids[0])
            await alice.post(f"/e/{ids[0]}", {"text": "kept first again #boat", "revision": "1"})
            await db.tags.remove(keys, number, await db.tags.add(keys, number, "oars"))
            await db.tags.refuse_suggestions(keys, number, ["sail"])
            draft = Draft(
                day_draft_key(date(2026, 11, 20)), "on its way", secrets.token_bytes(16), 1
            )
            await db.drafts.save(keys, draft, None)
            await db.trash.initialize(keys, [])
            await db.search_history.add(keys, "kept", OLD)
            await db.vectors.save(keys, [EntryVectors(number, 2, "m", 4, secrets.token_bytes(16))])
            await db.summaries.save(
                keys,
                StoredSummary(
                    "recap", date(2026, 11, 20), "a day", (number,), "00", "m", Omitted()
                ),
            )
            generation = await db.snapshots.begin(keys)
            for part in (1, 0):
                sealed = db.snapshots.seal_part(keys, generation, part, b"words")
                store = db.snapshots.add if part else db.snapshots.finish
                await store(keys, generation, 1, sealed)

    asyncio.run(live())
    return folder


def change(database: Path, sql: str) -> int:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            connection.execute(f"DROP TRIGGER {name}")
        return connection.execute(sql).rowcount


def damage_one(database: Path, kind: RecordKind, how: str) -> int:
    """Damage one record of a kind; of the entries the second."""
    place = f"user_id, {kind.id_column}, {kind.revision_column}"
    where = f"({place})=(SELECT {place} FROM {kind.table} WHERE user_id={ALICE} LIMIT 1)"
    return change(
        database,
        f"UPDATE {kind.table} SET {DAMAGE[how].format(revision=kind.revision_column)} WHERE {where}",
    )


async def use(folder: Path, registered: Journal, least: int) -> list[str]:
    """Sign in with the passphrase, open pages, write, search and back up; return what went wrong."""
    faults: list[str] = []
    app = create_app(settings_in(folder))
    async with app.test_app() as test_app:
        running = RunningApp(app, test_app, {})
        alice = running.anonymous()
        signed_in = await alice.sign_in()
        if signed_in.status != 303:
            faults.append(f"sign-in {signed_in.status} {signed_in.error_sentence}")
        page = await alice.get(f"/d/{DAY}")
        shown = page.text.count("kept ")
        if page.status != 200 or shown < least:
            faults.append(f"day {page.status}, {shown} shown")
        written = await alice.post(f"/d/{DAY}/entries", {"text": "kept today"}, fragment=True)
        if written.status != 200:
            faults.append(f"writing {written.status} {written.visible_text[:80]}")
        found = await alice.post("/search", {"q": "kept"}, fragment=True)
        for _ in range(100):  # the index may still be read
            if found.text.count('class="hit') > least:
                break
            await asyncio.sleep(0.02)
            found = await alice.post("/search", {"q": "kept"}, fragment=True)
        hits = found.text.count('class="hit')
        if found.status != 200 or hits < least + 1:
            faults.append(f"search {found.status}, {hits} found")
        for path in ("/search", "/settings", "/you", "/trash", "/tags"):
            seen = await alice.get(path)
            if seen.status >= 500:
                faults.append(f"{path} {seen.status}")
        keys = await keys_of(running.services.db.users, registered.accounts["Alice"])
        write_backup(folder / "llamora.sqlite3", keys, folder / "all.backup")
    return faults


ONE_ENTRY = "WHERE rid=(SELECT rid FROM entries LIMIT 1)"
EVERY_SUBJECT = ", ".join(
    f"(X'{byte:02X}', {count}, {day})"
    for byte, (count, day) in zip(
        range(256),
        [("'abc'", "X'FF'"), ("9223372036854775807", "'9999'"), ("X'00'", "7"), ("-9", "'9999'")]
        * 64,
        strict=True,
    )
)
ODD_ROWS = {
    "a data key of the next epoch": (
        "INSERT INTO data_keys VALUES ({alice}, 2, randomblob(138))",
        "data_keys",
    ),
    "a data key with a header": (
        "INSERT INTO data_keys SELECT user_id, 2, CAST(substr(sealed, 1, 9) || randomblob(337) AS BLOB) FROM data_keys",
        "data_keys",
    ),
    "a data key of epoch 0": (
        "INSERT INTO data_keys VALUES ({alice}, 0, randomblob(346))",
        "data_keys",
    ),
    "a data key of texts": ("INSERT INTO data_keys VALUES ({alice}, 'abc', 'def')", "data_keys"),
    "a data key of epoch 2^40": (
        "INSERT INTO data_keys VALUES ({alice}, 1 << 40, X'')",
        "data_keys",
    ),
    "a slot of junk": (
        "INSERT INTO key_slots SELECT substr(salt, 1, 16), user_id, kind, salt, params, X'4C' FROM key_slots",
        "key slots",
    ),
    "a slot of texts": (
        "INSERT INTO key_slots VALUES (zeroblob(16), {alice}, 'passphrase', 'salt', 7, 'sealed')",
        "key slots",
    ),
    "a slot of numbers": (
        "INSERT INTO key_slots VALUES (zeroblob(16), {alice}, X'00', 1, NULL, 2)",
        "key slots",
    ),
    "attempts of other types": (f"INSERT INTO failed_attempts VALUES {EVERY_SUBJECT}", ""),
    "a browser of another type": (
        "INSERT INTO known_devices VALUES (zeroblob(32), {alice}, X'FF')",
        "",
    ),
    "a name of bytes": ("UPDATE users SET name=CAST(name AS BLOB) WHERE name='Bob'", ""),
    "a sign-in on no day": ("UPDATE users SET signed_in_on=X'FF'", ""),
    "a cost of bytes": ("UPDATE instance SET value=X'FF00'", ""),
    "a link of texts": ("INSERT INTO entry_tags VALUES ({alice}, 'a', 'b')", "entry_tags"),
    "an id of text": (f"UPDATE entries SET id='sixteen letters.' {ONE_ENTRY}", "entries"),
    "a day of text": (f"UPDATE entries SET day=hex(randomblob(16)) {ONE_ENTRY}", "entries"),
}
"""What is done to other tables and columns, and a word of what the doctor must say ("" for nothing)."""


@pytest.mark.parametrize(
    "kind", [each for each in SEALED_KINDS if each is not DEVICES], ids=lambda kind: kind.table
)
async def test_an_odd_record_stays_the_trouble_of_itself(
    kind: RecordKind, lived: Path, registered: Journal, tmp_path: Path
) -> None:
    faults: list[str] = []
    # Everything is done to an entry; to the other kinds, which one reader reads, a part of it each.
    ways = list(DAMAGE)[:: 1 if kind is ENTRIES else 4]
    for how in ways:
        folder = copy(lived, tmp_path)
        database = folder / "llamora.sqlite3"
        assert damage_one(database, kind, how) == 1
        report = run_checks(database, resource("migrations"), await open_keys(database, registered))
        if not any(kind.table in each for each in report.damage):
            faults.append(f"{how}: the doctor says {report.damage}")
        said = await use(folder, registered, 2 if kind is ENTRIES else 3)
        faults += [f"{how}: {each}" for each in said]
    assert not faults, "\n".join(faults)


async def test_an_odd_row_elsewhere_keeps_nobody_out(
    lived: Path, registered: Journal, tmp_path: Path
) -> None:
    faults: list[str] = []
    for what, (sql, word) in ODD_ROWS.items():
        folder = copy(lived, tmp_path)
        database = folder / "llamora.sqlite3"
        assert change(database, sql.format(alice=ALICE)) > 0
        report = run_checks(database, resource("migrations"), await open_keys(database, registered))
        if not any(word in each for each in report.damage or ["" if not word else "\0"]):
            faults.append(f"{what}: the doctor says {report.damage}")
        said = await use(folder, registered, 2 if "entries" in sql else 3)
        faults += [f"{what}: {each}" for each in said]
    assert not faults, "\n".join(faults)


def copy(lived: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(lived, folder)
    return folder


async def open_keys(database: Path, registered: Journal) -> Keyring:
    db = await LocalDB.open(database)
    try:
        return await keys_of(db.users, registered.accounts["Alice"])
    finally:
        await db.close()
