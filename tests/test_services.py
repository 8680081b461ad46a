"""The services of an app stop once, in time, whatever hangs."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llamora.persistence.connection import StorageError
from llamora.services import EXTRA_STOP_SECONDS, AppLifecycle, AppServices
from llamora.settings import ServerSettings
from tests.test_contract import quiet

SHUTDOWN_SECONDS = 0.2


async def started(folder: Path) -> tuple[AppServices, AppLifecycle]:
    server = ServerSettings(shutdown_seconds=SHUTDOWN_SECONDS)
    services = AppServices.create(replace(quiet(folder), server=server))
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    return services, lifecycle


@pytest.mark.parametrize(
    "hanging", [["replies.close"], ["search.stop", "model.stop"], ["replies.close", "search.stop"]]
)
async def test_one_deadline_holds_for_all_parts_and_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: list[str]
) -> None:
    services, lifecycle = await started(tmp_path)

    async def hang() -> None:
        await asyncio.Event().wait()

    for part in hanging:
        name, method = part.split(".")
        monkeypatch.setattr(getattr(services, name), method, hang)
    began = time.monotonic()
    await lifecycle.stop()
    assert time.monotonic() - began < SHUTDOWN_SECONDS + EXTRA_STOP_SECONDS
    with pytest.raises(StorageError, match="journal_closed"):
        await services.db.data_version()


async def test_every_part_stops_once_however_often_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, lifecycle = await started(tmp_path)
    stopped: list[str] = []

    def count(name: str, real: Callable[[], object]) -> Callable[[], object]:
        return lambda: (stopped.append(name), real())[1]

    for name in ("replies", "search", "model"):
        service = getattr(services, name)
        method = "close" if name == "replies" else "stop"
        monkeypatch.setattr(service, method, count(name, getattr(service, method)))
    await lifecycle.quiesce()
    await asyncio.gather(*(lifecycle.stop() for _ in range(3)))
    await lifecycle.stop()
    assert sorted(stopped) == ["model", "replies", "search"]
