"""The commands beside serving, as a person types them, while the server runs."""

import json
import os
import pty
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llamora.cli import unlocking
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.users import User
from llamora.settings import resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import create_keys
from llamora.vault.recovery_code import WrongSecret
from tests.server_process import FAST_KDF, HttpUser, Server

NO_MODELS = {"LLAMORA_LLM__ENABLED": "false", "LLAMORA_EMBEDDING__ENABLED": "false"}
DAY = "2026-11-20"


def run(data: Path, *options: str, secret: str = "") -> tuple[int, str, str]:
    """Run `llamora-server` on a data folder with a secret piped in: exit status, standard output, standard error."""
    ran = subprocess.run(
        [sys.executable, "-m", "llamora", *options],
        env={**os.environ, **NO_MODELS, **FAST_KDF, "LLAMORA_DATA__FOLDER": str(data)},
        input=secret + "\n" if secret else "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=data.parent,
    )
    assert "Traceback" not in ran.stderr
    if secret:
        assert secret not in ran.stdout + ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


def test_a_backup_made_beside_the_server_opens_on_an_empty_machine(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    kept = alice.write("the heron again", DAY)
    file = tmp_path / "alice.llamora"
    code, said, _ = run(server.data, "backup", "--to", str(file), secret=alice.passphrase)
    assert (code, said) == (0, f"{file} holds 1 entry or reply.\n")
    assert run(server.data, "verify", str(file), secret=alice.recovery_code)[:2][0] == 0

    empty = tmp_path / "empty" / "data"
    empty.mkdir(parents=True)
    code, said, _ = run(empty, "restore", str(file), secret=alice.recovery_code)
    assert code == 0
    assert "Alice is here again" in said
    second = Server(tmp_path / "empty", server.cache, env=NO_MODELS).start()
    again = HttpUser(second.url)
    assert again.sign_in().status_code == 303
    assert "the heron again" in again.get(f"/e/{kept}/edit").text
    second.stop()


def test_restoring_beside_the_server_ends_what_it_replaces(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    alice.write("before", DAY)
    file = tmp_path / "alice.llamora"
    assert run(server.data, "backup", "--to", str(file), secret=alice.passphrase)[0] == 0
    later = alice.write("after", DAY)
    refused = run(server.data, "restore", str(file), secret=alice.passphrase)
    assert refused[0] == 2
    assert "--replace" in refused[2]
    code, said, _ = run(server.data, "restore", "--replace", str(file), secret=alice.passphrase)
    assert code == 0, said
    assert len(list((server.data / "backups").glob("llamora-before-restore-*.sqlite3"))) == 1
    assert alice.get(f"/d/{DAY}").status_code == 303  # signed out
    assert alice.sign_in().status_code == 303
    assert alice.get(f"/e/{later}/edit").status_code == 404
    assert "before" in alice.get(f"/d/{DAY}").text


def test_what_cannot_be_done_is_a_sentence(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    file = tmp_path / "a.llamora"
    for options, secret, words in (
        (
            ("backup", "--to", str(file)),
            "not the passphrase",
            "neither the passphrase nor the recovery code",
        ),
        (("backup", "--to", str(file)), "", "has to be typed, or piped in"),
        (("backup", "--user", "Nobody"), alice.passphrase, "There is no such writer here"),
        (("verify", str(server.log)), alice.passphrase, "not a Llamora backup"),
        (("restore", str(tmp_path / "none")), alice.passphrase, "no such file"),
        (("backup", "--to", "/proc/a.llamora"), alice.passphrase, "cannot be used"),
    ):
        code, said, errors = run(server.data, *options, secret=secret)
        assert (code, said) == (2, "")
        assert words in errors
        assert errors.count("\n") == 1
    assert not file.exists()
    assert list(tmp_path.glob("*.part")) == []
    assert run(tmp_path / "nowhere", "backup", secret="no secret of anybody")[0] == 2


def test_the_passphrase_is_not_shown_when_it_is_typed(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    parent, child = pty.openpty()
    ran = subprocess.Popen(
        [sys.executable, "-m", "llamora", "backup", "--to", str(tmp_path / "a.llamora")],
        env={**os.environ, **NO_MODELS, "LLAMORA_DATA__FOLDER": str(server.data)},
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    )
    shown = b""
    while b"recovery code: " not in shown:
        shown += os.read(parent, 1000)
    while termios.tcgetattr(child)[3] & termios.ECHO:  # until the question is asked
        assert ran.poll() is None
        time.sleep(0.01)
    os.write(parent, alice.passphrase.encode() + b"\n")
    while b"holds" not in shown:
        shown += os.read(parent, 1000)
    assert ran.wait(60) == 0
    assert alice.passphrase.encode() not in shown
    os.close(parent)
    os.close(child)


def test_a_copy_of_the_whole_instance(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    alice.write("the heron again", DAY)
    other = tmp_path / "other" / "data"
    code, said, _ = run(server.data, "copy", str(other / "llamora.sqlite3"))
    assert code == 0
    assert "sealed" in said
    second = Server(tmp_path / "other", server.cache, env=NO_MODELS).start()
    again = HttpUser(second.url)
    assert again.sign_in().status_code == 303
    assert "the heron again" in again.get(f"/d/{DAY}").text
    second.stop()


def test_backups_round_after_round(tmp_path: Path) -> None:
    from scripts.torture.backup_rounds import torture

    result = torture(tmp_path, 2, entries=120, seed=3)
    assert result["records"]
    assert (result["different"], result["plain"]) == (0, 0)
    json.dumps(result)


def test_the_doctor(serve: Callable[..., Server]) -> None:
    server = serve(env=NO_MODELS).start()
    alice = HttpUser(server.url).register()
    alice.write("the heron again", DAY)
    code, said, _ = run(server.data, "doctor", "--user", "Alice", secret=alice.passphrase)
    assert code == 0
    assert "records of Alice open." in said
    assert said.endswith("Nothing is damaged.\n")
    assert "heron" not in said
    server.stop()
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection, connection:
        (sealed,) = connection.execute("SELECT sealed FROM entries").fetchone()
        connection.execute("UPDATE entries SET day=zeroblob(32)")
    code, said, _ = run(
        server.data, "doctor", "--json", "--user", "alice", secret=alice.recovery_code
    )
    assert code == 1
    found = json.loads(said)
    assert found["damage"] == ["1 records in entries stand in a place that is not theirs."]
    assert found["mendable"]
    code, said, _ = run(server.data, "doctor", "--mend", "--user", "Alice", secret=alice.passphrase)
    assert code == 0
    (copy,) = (server.data / "backups").glob("*-before-mending-*.sqlite3")
    assert str(copy) in said
    server.start()
    alice.sign_in()
    assert "the heron again" in alice.get(f"/d/{DAY}").text
    server.stop()
    with closing(sqlite3.connect(server.data / "llamora.sqlite3")) as connection, connection:
        connection.execute("UPDATE entries SET sealed=?", (sealed[:-1] + bytes([sealed[-1] ^ 1]),))
    code, said, _ = run(server.data, "doctor", "--user", "Alice", secret=alice.passphrase)
    assert code == 1
    assert "1 of 1 records in entries do not open." in said
    assert run(server.data, "doctor")[0] == 0


async def test_the_code_opens_beside_a_spoiled_passphrase_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database, user_id = tmp_path / "llamora.sqlite3", bytes(16)
    run_db_migrations(database, resource("migrations"))
    made = create_keys(user_id, "seven quiet herons", Argon2Params(65536, 3, 4))
    db = await LocalDB.open(database)
    await db.users.add(User(user_id, "Alice", recovery_confirmed=True), made.slots, made.sealed)
    async with db._connections.write() as tx:
        await tx.execute("UPDATE key_slots SET params='m=8,t=1,p=1' WHERE kind='passphrase'")
    await db.close()
    monkeypatch.setattr(unlocking, "ask_secret", lambda: made.recovery_code)
    assert (await unlocking.unlock(database, "Alice"))[1].master == made.master
    assert "is not trusted" in capsys.readouterr().err
    monkeypatch.setattr(unlocking, "ask_secret", lambda: "seven quiet herons")
    with pytest.raises(WrongSecret):
        await unlocking.unlock(database, "Alice")
