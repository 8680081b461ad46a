"""The search for plain text finds it when sealing is switched off, and finds none as things are."""

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.vectors import EntryVectors
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import EmbeddingSettings, SearchSettings, resource
from llamora.vault.keys import Keyring
from tests.persistence.conftest import AT, entry, new_user
from tests.scan import encodings, find_bytes, find_words, float_encodings
from tests.server_process import HttpUser, Server

NO_MODELS = {"LLAMORA_LLM__ENABLED": "false"}
# A server that stores what it is given as it is: whatever it seals, the marks stand where an envelope's would.
UNSEALED = """
import sys
from llamora.vault.keys import Keyring
def seal(self, purpose, table, column, record_id, revision, plaintext):
    return plaintext
def opened(self, purpose, table, column, record_id, revision, sealed):
    return sealed
Keyring.seal, Keyring.open = seal, opened
from llamora.__main__ import main
sys.exit(main())
"""
ENTRY, EDITED, QUERY = "quokkaentry", "quokkaedited", "quokkaquery"


def write_and_search(server: Server) -> None:
    writer = HttpUser(server.url).register()
    entry_id = writer.write(f"The {ENTRY} came by. " * 3)
    edited = writer.post(
        f"/e/{entry_id}", {"text": f"The {EDITED} came by.", "revision": "1"}, fragment=True
    )
    assert edited.status_code == 200
    found = writer.post("/search", {"q": QUERY})
    assert found.status_code == 303
    assert writer.get(found.headers["location"]).status_code == 200
    assert server.stop() == 0


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "sealing off"])
def test_a_server_leaves_words_only_when_sealing_is_off(
    sealed: bool, tmp_path: Path, cache: Path
) -> None:
    wrapper = tmp_path / "unsealed.py"
    wrapper.write_text(UNSEALED, encoding="utf-8")
    command = ("-m", "llamora") if sealed else (str(wrapper),)
    env = {**NO_MODELS, "LLAMORA_EMBEDDING__ENABLED": "false", "LLAMORA_LOG__LEVEL": "DEBUG"}
    server = Server(folder=tmp_path / "server", cache=cache, env=env, command=command).start()
    try:
        write_and_search(server)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
    found = {word for _, word, _ in find_words(server.folder, [ENTRY, EDITED, QUERY])}
    assert found == (set() if sealed else {ENTRY, EDITED, QUERY})


@pytest.mark.parametrize("off", ["", "entries", "tags", "vectors", "search_history", "profiles"])
async def test_each_kind_of_record_is_found_when_it_is_unsealed(
    off: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = Keyring.seal

    def leaking(self: Keyring, purpose: object, table: str, column: str, *rest: object) -> bytes:
        return rest[-1] if table == off else seal(self, purpose, table, column, *rest)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(Keyring, "seal", leaking)
    path = tmp_path / "journal" / "llamora.sqlite3"
    run_db_migrations(path, resource("migrations"))
    db = await LocalDB.open(path)
    keys = await new_user(db, "Alice")
    made = entry("quokkaentries")
    floats = [0.0123 * number - 0.5 for number in range(32)]
    await db.entries.add(keys, made)
    await db.tags.add(keys, made.id, "quokkatags")
    await db.vectors.save(keys, [EntryVectors(made.id, 1, "m", 32, struct.pack("<32f", *floats))])
    await db.search_history.add(keys, "quokkasearch_history", AT)
    await db.profiles.save(keys, b"quokkaprofiles", revision=0)
    words = [f"quokka{table}" for table in ("entries", "tags", "search_history", "profiles")]
    # While it runs: the write-ahead log is searched too.
    hits = {word.removeprefix("quokka") for _, word, _ in find_words(tmp_path, words)}
    hits |= {name for _, name, _ in find_bytes(tmp_path, float_encodings("vectors", floats))}
    assert hits == ({off} if off else set())
    await db.close()


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
async def test_vectors_in_a_snapshot_are_found_when_it_is_unsealed(
    sealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal" / "llamora.sqlite3"
    run_db_migrations(path, resource("migrations"))
    db = await LocalDB.open(path)
    keys = await new_user(db, "Alice")
    made = entry("quokkaentries")
    await db.entries.add(keys, made)
    search = SearchService(
        db, Embedder(EmbeddingSettings(enabled=False), tmp_path), SearchSettings()
    )
    await search.unlock(keys)
    await search.wait_until_idle(keys.user_id)
    vectors = np.random.default_rng(1).normal(size=(1, 384)).astype(np.float32)
    user = search._states[keys.user_id]
    assert await user.run_in_thread(user.index.put_vectors, made.id, made.revision, vectors, "m/1")
    if not sealed:
        monkeypatch.setattr(Keyring, "seal", lambda *arguments: arguments[-1])
    assert await search.save_snapshot(keys.user_id)
    forms = {
        form for _, _, form in find_bytes(tmp_path, float_encodings("vectors", vectors[0].tolist()))
    }
    assert forms == (set() if sealed else {"int8"})
    await search.stop()
    await db.close()


@pytest.mark.parametrize("form", [name for name, _ in encodings("a heron & its lake")])
def test_every_form_is_found(form: str, tmp_path: Path) -> None:
    needle = dict(encodings("a heron & its lake"))[form]
    (tmp_path / "file.bin").write_bytes(bytes(1000) + needle + bytes(1000))
    assert form in {found for _, _, found in find_words(tmp_path, ["a heron & its lake"])}


@pytest.mark.parametrize("place", range(6))
def test_base64_is_found_wherever_the_word_stands(place: int, tmp_path: Path) -> None:
    for number, encode in enumerate((base64.b64encode, base64.urlsafe_b64encode)):
        (tmp_path / str(number)).write_bytes(
            encode(b"?" * place + b"a heron & its lake" + b"!" * place)
        )
    assert {file for file, _, _ in find_words(tmp_path, ["a heron & its lake"])} == {"0", "1"}


def test_what_is_compressed_is_found(tmp_path: Path) -> None:
    packed = zlib.compress(b"Nothing else: a heron & its lake. " * 3, 1)
    (tmp_path / "page").write_bytes(bytes(100) + b"x\x01not a stream" + packed + bytes(100))
    assert [word for _, word, _ in find_words(tmp_path, ["a heron & its lake"])] == [
        "a heron & its lake"
    ]


def test_floats_are_found_in_every_width(tmp_path: Path) -> None:
    floats = [0.0123 * number - 0.5 for number in range(32)]
    for kind in ("<f4", ">f4", "<f8", "<f2"):
        (tmp_path / kind[1:]).mkdir(exist_ok=True)
        (tmp_path / kind[1:] / "vectors").write_bytes(b"x" + np.array(floats, dtype=kind).tobytes())
        assert find_bytes(tmp_path / kind[1:], float_encodings("v", floats)), kind
    # 0.0123 * 0 - 0.5 is the largest of them, and stands as -127.
    codes = [round((0.0123 * number - 0.5) * 127 / 0.5) for number in range(32)]
    (tmp_path / "eight").mkdir()
    (tmp_path / "eight" / "vectors").write_bytes(b"x" + struct.pack("32b", *codes))
    assert find_bytes(tmp_path / "eight", float_encodings("v", floats))
