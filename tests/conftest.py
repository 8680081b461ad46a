"""What all tests stand on: servers in folders of their own, with everything they print kept."""

import hmac
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from llamora.vault import kdf
from tests.server_process import HttpUser, Server, free_port

__all__ = ["HttpUser", "Server", "free_port"]

# A busy machine must not fail a property for being slow.
settings.register_profile("llamora", deadline=None)
settings.load_profile("llamora")

REAL_ARGON2ID = kdf.argon2id


@pytest.fixture(scope="session", autouse=True)
def cheap_kdf() -> Iterator[None]:
    """A KDF that costs nothing, for the many tests that are not about it; servers have the real one."""

    def cheap(secret: bytes, salt: bytes, params: kdf.Argon2Params) -> bytes:
        return hmac.digest(salt + params.to_text().encode(), secret, "sha256")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kdf, "argon2id", cheap)
        yield


@pytest.fixture
def real_kdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id itself, for tests of it and of records that were sealed with it."""
    monkeypatch.setattr(kdf, "argon2id", REAL_ARGON2ID)


# Built once and shared: the graph of the embedding model is public and takes a second to make.
CACHE_NAME = "model-cache"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of the embedding model, one for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = root / CACHE_NAME
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def serve(tmp_path: Path, cache: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers that are stopped when the test ends."""
    servers: list[Server] = []

    def start_server(**options: object) -> Server:
        server = Server(folder=tmp_path / f"server{len(servers)}", cache=cache, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield start_server
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
