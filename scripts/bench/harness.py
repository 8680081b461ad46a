"""What the benches share: a journal seeded through the store, a server that runs on it, a clock.

What several benches need of Llamora's own modules is imported here, so that a move there is followed in one place.
"""

import asyncio
import os
import random
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from llamora.journal.context import UserContext
from llamora.journal.profile import Profile
from llamora.persistence.entries import Entry
from llamora.services import AppLifecycle, AppServices
from llamora.settings import Settings, load_settings
from llamora.vault.kdf import Argon2Params, kdf_milliseconds
from llamora.vault.keys import Keyring
from scripts.processes import cpu_seconds
from tests.scripted_model import ModelThread, RecordedRequest, ScriptedModel
from tests.server_process import HttpUser, Server

NAME, PASSPHRASE = "Bench", "a bench is for sitting and measuring"
SEED = 1660
DAY = date(2026, 3, 14)
BUSY_DAY = date(2026, 6, 1)  # of sixteen entries
KDF_FLOOR = Argon2Params(65_536, 3, 4)  # what the server of a bench uses
PEPYS = {
    "type": Path,
    "default": Path(os.environ.get("LLAMORA_EVAL_DATA", "../shared/data")) / "pepys",
    "help": "the folder with Pepys' diary",
}
COMMON_WORDS = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
WITHOUT_EMBEDDED_MODEL = {"LLAMORA_LLM__EMBEDDED": "false"}
WITHOUT_MODEL = {"LLAMORA_LLM__ENABLED": "false"}
WITHOUT_EMBEDDING = {"LLAMORA_EMBEDDING__ENABLED": "false"}


def print_progress(text: str) -> None:
    """Say how far it is, away from the JSON."""
    print(text, file=sys.stderr, flush=True)


# -- time ------------------------------------------------------------------------------------------


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median of some seconds, in milliseconds."""
    return round(statistics.median(seconds) * 1000, 2)


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """Return the value, in milliseconds, that a share of them does not exceed: one of them."""
    ordered = sorted(seconds)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 2)


@dataclass
class Timer:
    """Seconds of what is done again and again; the first `warm_up` times do not count."""

    warm_up: int = 0
    seconds: list[float] = field(default_factory=list[float])

    @contextmanager
    def lap(self) -> Iterator[None]:
        """Time what is done within."""
        started = time.perf_counter()
        yield
        self.add(time.perf_counter() - started)

    def add(self, seconds: float) -> None:
        """Take in what was timed elsewhere."""
        if self.warm_up:
            self.warm_up -= 1
        else:
            self.seconds.append(seconds)

    @property
    def median_ms(self) -> float:
        """The median, in milliseconds."""
        return median_ms(self.seconds)

    def quantiles(self) -> dict[str, float]:
        """Return median, 95th percentile and the most, in milliseconds."""
        return {
            "median_ms": self.median_ms,
            "p95_ms": percentile_ms(self.seconds, 0.95),
            "most_ms": percentile_ms(self.seconds, 1),
        }

    def percentiles(self) -> dict[str, float]:
        """Return median and 95th percentile, in milliseconds."""
        return {"p50": self.median_ms, "p95": percentile_ms(self.seconds, 0.95)}


def timed(work: Callable[[], object], runs: int, warm_up: int = 5) -> Timer:
    """Do it `runs` times after it is warm."""
    timer = Timer(warm_up)
    for _ in range(warm_up + runs):
        with timer.lap():
            work()
    return timer


def timed_on(
    server: Server, work: Callable[[], object], runs: int, warm_up: int = 5
) -> dict[str, float]:
    """Return the percentiles of `timed`, and as `cpu` what the server computed each time, a mean."""
    timed(work, 0, warm_up)
    before = cpu_seconds(server)
    percentiles = timed(work, runs, 0).percentiles()
    return {**percentiles, "cpu": round(1000 * (cpu_seconds(server) - before) / runs, 1)}


# -- a journal -------------------------------------------------------------------------------------


def make_settings(folder: Path, cache: Path | None = None, **sections: Any) -> Settings:
    """Return settings on the floor of the KDF and without a model, unless `sections` say otherwise."""
    return load_settings(
        overrides={
            "data": {"folder": str(folder), "cache": str(cache or shared_cache())},
            "crypto": {"kdf_target_ms": 0},
            "llm": {"enabled": False},
            **sections,
        }
    )


def shared_cache() -> Path:
    """Return the cache of this machine, where the embedding model is unpacked already."""
    return load_settings().data.cache


@asynccontextmanager
async def started_services(settings: Settings) -> AsyncIterator[AppServices]:
    """Start what an app is made of, without its web, and stop it at the end."""
    services = AppServices.create(settings)
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    try:
        yield services
    finally:
        await lifecycle.stop()


async def register(services: AppServices, name: str = NAME) -> Keyring:
    """Add a user and keep them signed in: the journal of somebody who is not is locked after a while."""
    user, keys, _ = await services.accounts.register(name, PASSPHRASE, "UTC")
    await services.sessions.open_session(user, keys)
    return keys


def context_of(keys: Keyring, day: date | None = None) -> UserContext:
    """Return what use cases know about a user, now or on a day."""
    return UserContext(keys, Profile(), day) if day else UserContext.now(keys, Profile())


def entry_at(at: datetime, text: str) -> Entry:
    """Make an entry of this moment."""
    return Entry(secrets.token_bytes(16), at.date(), "me", text, at, "UTC")


def entry_on(day: date, text: str, hour: int = 9) -> Entry:
    """Make an entry of this day."""
    return entry_at(datetime(day.year, day.month, day.day, hour, tzinfo=UTC), text)


async def add_entries(services: AppServices, keys: Keyring, entries: Sequence[Entry]) -> None:
    """Write entries as an import does, 500 in a transaction."""
    for start in range(0, len(entries), 500):
        await services.db.entries.add(keys, *entries[start : start + 500])


async def index_entries(services: AppServices, keys: Keyring) -> float:
    """Unlock a journal and wait until all of it is indexed; returns the seconds that took."""
    started = time.perf_counter()
    await services.search.unlock(keys)
    await services.search.wait_until_idle(keys.user_id)
    return time.perf_counter() - started


def make_texts(count: int) -> list[str]:
    """Return plain English of about eighty tokens each, the same in every run."""
    rng = random.Random(SEED)
    return [
        " ".join(rng.choice(COMMON_WORDS) for _ in range(60)).capitalize() + "."
        for _ in range(count)
    ]


async def _seed(server: Server, count: int, vectors: bool) -> None:
    texts, first_day = make_texts(count), DAY - timedelta(count // 4)
    entries = [
        entry_on(first_day + timedelta(number // 4), text, 6 + number % 4 * 3)
        for number, text in enumerate(texts)
    ]
    busy_morning = datetime(BUSY_DAY.year, BUSY_DAY.month, BUSY_DAY.day, 8, tzinfo=UTC)
    entries += [
        entry_at(busy_morning + timedelta(minutes=30 * number), text)
        for number, text in enumerate(texts[:16])
    ]
    settings = make_settings(server.data, server.cache, embedding={"enabled": vectors})
    async with started_services(settings) as services:
        keys = await register(services)
        await add_entries(services, keys, entries)
        print_progress(f"seeded {len(entries)} entries")
        if vectors:
            await services.embedder.warm_up()
        seconds = await index_entries(services, keys)
        if vectors:
            assert len(await services.db.vectors.revisions(keys.user_id)) == len(entries)
            print_progress(f"vectors: {seconds / len(entries) * 1000:.1f} ms an entry, in bulk")
        else:
            assert await services.search.save_snapshot(keys.user_id)


def seed(server: Server, count: int, *, vectors: bool = True) -> None:
    """Put a journal of `count` entries and a busy day into a server's store, with its index."""
    server.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_seed(server, count, vectors))


# -- a server --------------------------------------------------------------------------------------


@contextmanager
def started(server: Server, *, sign_in: bool = True) -> Iterator[HttpUser]:
    """Start a server, sign in the user of its journal, and stop it at the end."""
    server.start(timeout=120)
    try:
        user = HttpUser(server.url, NAME, PASSPHRASE)
        if sign_in:
            user.sign_in()
        yield user
    finally:
        server.stop()


def time_sign_in(user: HttpUser, pause: float, path: str = "") -> tuple[float, float]:
    """Sign out, wait `pause` seconds for the index to go, and sign in, up to the page of `path`.

    Return the milliseconds of a derivation of the key alone, made just before, and of the sign-in.
    """
    user.post("/sign-out", {})
    user.http.cookies.clear()
    time.sleep(pause)
    user.get("/sign-in")
    kdf_ms = kdf_milliseconds(KDF_FLOOR)
    form = {"name": NAME, "passphrase": PASSPHRASE} | ({"next": path} if path else {})
    timer = Timer()
    with timer.lap():
        response = user.post("/sign-in", form)
        assert response.status_code == 303, response.status_code
        if path:
            assert user.get(response.headers["Location"]).text.count('id="e-') >= 16
    return kdf_ms, timer.median_ms


def follow_reply(user: HttpUser, reply: str, word: str = "word0") -> float:
    """Read the events of a reply to their end; returns when the word first came (time.monotonic)."""
    first = 0.0
    with user.http.stream("GET", f"/session/events?reply={reply}") as stream:
        for line in stream.iter_lines():
            if not first and word in line:
                first = time.monotonic()
            if line == "event: done":
                break
    return first


class TimestampedChunks(list[str]):
    """The pieces of a reply with the moment each was sent (time.monotonic)."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_at: list[float] = []

    def append(self, piece: str, /) -> None:
        """Add a piece, now."""
        self.sent_at.append(time.monotonic())
        super().append(piece)


class TimedModel(ScriptedModel):
    """A scripted model that notes when a request for a reply came, and when each piece was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.received_at: list[float] = []

    async def _respond_to_chat(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.received_at.append(time.monotonic())
        request.sent = TimestampedChunks()
        return await super()._respond_to_chat(request, reader, writer)

    def first_sent_at(self) -> float:
        """Return when the first piece of the last reply was sent."""
        sent = self.chat_requests[-1].sent
        assert isinstance(sent, TimestampedChunks)
        return sent.sent_at[0]


@contextmanager
def timed_model() -> Iterator[TimedModel]:
    """Run such a model on a thread of its own."""
    model = TimedModel()
    with closing(ModelThread(model)):
        yield model
