"""What all tests stand on: servers in folders of their own, with everything they print kept."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.server_process import HttpUser, Server, free_port

__all__ = ["HttpUser", "Server", "free_port"]

# A busy machine must not fail a property for being slow.
settings.register_profile("llamora", deadline=None)
settings.load_profile("llamora")

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
