"""Time: an entry is on the day its writer's clock showed, for good, whatever clocks and zones do later."""

import asyncio
import os
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llamora.dates import day_edges
from llamora.events import EventBus
from llamora.journal import entries as entries_module
from llamora.journal.accounts import Accounts
from llamora.journal.context import UserContext
from llamora.journal.entries import MAX_CLOCK_CORRECTION, Journal
from llamora.journal.profile import Profile
from llamora.journal.sessions import Sessions
from llamora.journal.threads import build_threads
from llamora.persistence import LocalDB, run_db_migrations
from llamora.persistence.entries import Entry
from llamora.persistence.users import User
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import (
    CryptoSettings,
    EmbeddingSettings,
    EntrySettings,
    SearchSettings,
    SessionSettings,
    resource,
)
from llamora.vault.key_renewal import seal_new_keys
from llamora.vault.keys import Keyring, open_keyring
from tests.test_dates import ZONES

T = TypeVar("T")
TICK = timedelta(microseconds=1)
zones = st.sampled_from(ZONES)
days = st.dates(date(1971, 1, 1), date(2099, 12, 30))


@st.composite
def instants(draw: st.DrawFn, zone: str) -> datetime:
    """Any instant, those around the edges of days in a zone more often: that is where clocks are put on and back."""
    start, end = day_edges(draw(days), ZoneInfo(zone))
    around = draw(st.sampled_from([start, end]))
    near = st.timedeltas(timedelta(hours=-3), timedelta(hours=3))
    return draw(
        st.one_of(
            st.sampled_from([around - TICK, around, around + TICK]),
            near.map(lambda shift: around + shift),
            st.timedeltas(timedelta(), timedelta(days=1)).map(lambda shift: start + shift),
        )
    )


@dataclass
class Desk:
    """A journal on a loop of its own, so that a property can ask it many times."""

    runner: asyncio.Runner
    db: LocalDB
    search: SearchService
    accounts: Accounts

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def journal(self) -> Journal:
        """As after a start of the server: no instant was given out yet."""
        return Journal(self.db, self.search, EntrySettings())

    def writer(self) -> Keyring:
        """Somebody new, whose journal is empty; no slot is made, so no KDF is waited for."""
        user, master = User(secrets.token_bytes(16), secrets.token_hex(8), False), os.urandom(32)
        sealed = seal_new_keys(user.id, master)
        self.do(self.db.users.add(user, [], sealed))
        return open_keyring(user.id, master, sealed)

    def move(self, keys: Keyring, zone: str) -> str:
        """Set the writer's zone, and return the one that then is in force."""
        profile = self.do(self.accounts.get_profile(keys))
        self.do(self.accounts.save_profile(keys, replace(profile, zone=zone)))
        return self.do(self.accounts.get_profile(keys)).zone

    def write(
        self, journal: Journal, keys: Keyring, now: datetime, zone: str, day: date | None = None
    ) -> Entry:
        with patch.object(entries_module, "utc_now", lambda: now):
            user = UserContext(keys, Profile(zone), now.date())
            return self.do(journal.write(user, day, "a line"))

    def page(self, keys: Keyring, day: date) -> list[Entry]:
        return [thread.root for thread in self.do(self.journal().get_page(keys, day))]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    path = tmp_path_factory.mktemp("time") / "journal.sqlite3"
    run_db_migrations(path, resource("migrations"))
    with asyncio.Runner() as runner:
        db = runner.run(LocalDB.open(path))
        search = SearchService(
            db, Embedder(EmbeddingSettings(enabled=False), path.parent), SearchSettings()
        )
        sessions = Sessions(db, SessionSettings(), os.urandom(32), EventBus())
        accounts = Accounts(db, CryptoSettings(), sessions)
        yield Desk(runner, db, search, accounts)
        runner.run(db.close())


some = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_there_are_zones_of_every_kind() -> None:
    assert len(set(ZONES)) >= 40


@some
@given(zone=zones, data=st.data(), elsewhere=st.lists(zones, min_size=1, max_size=4))
def test_what_is_written_today_is_on_the_day_the_writer_s_clock_shows_and_stays_there(
    desk: Desk, zone: str, data: st.DataObject, elsewhere: list[str]
) -> None:
    keys = desk.writer()
    assert desk.move(keys, zone) == zone
    now = data.draw(instants(zone))
    entry = desk.write(desk.journal(), keys, now, zone)
    local = now.astimezone(ZoneInfo(zone))
    assert (entry.day, entry.at, entry.zone) == (local.date(), now, zone)
    assert desk.page(keys, local.date()) == [entry]
    # Travel: the entry stays on its page, and keeps the zone in which its time is shown.
    for place in elsewhere:
        desk.move(keys, place)
        assert desk.page(keys, local.date()) == [entry]
        for day in (local.date() - timedelta(1), local.date() + timedelta(1)):
            assert desk.page(keys, day) == []
    month = [local.date() + timedelta(shift) for shift in range(-2, 3)]
    assert desk.do(desk.journal().find_written_days(keys, month)) == {local.date()}


@some
@given(zone=zones, data=st.data(), steps=st.lists(st.integers(-40, 40), min_size=2, max_size=6))
def test_a_clock_that_jumps_loses_nothing_and_puts_nothing_on_a_wrong_day(
    desk: Desk, zone: str, data: st.DataObject, steps: list[int]
) -> None:
    """Jumps of hours and days, forwards and backwards."""
    keys, journal = desk.writer(), desk.journal()
    now = data.draw(instants(zone))
    written: list[Entry] = []
    for step in steps:
        now += timedelta(hours=step)
        written.append(desk.write(journal, keys, now, zone))
    for entry in written:
        assert entry.day == entry.at.astimezone(ZoneInfo(zone)).date()
    for day in {entry.day for entry in written}:
        page = desk.page(keys, day)
        assert [e.at for e in page] == sorted(e.at for e in page)
        assert {e.id for e in page} == {e.id for e in written if e.day == day}


@some
@given(
    steps=st.lists(
        st.timedeltas(-MAX_CLOCK_CORRECTION / 8, timedelta(minutes=3)), min_size=2, max_size=8
    )
)
@example(steps=[timedelta(), timedelta(), timedelta(seconds=-1), -TICK])
def test_a_clock_put_right_by_moments_keeps_the_order_of_writing(
    desk: Desk, steps: list[timedelta]
) -> None:
    keys, journal = desk.writer(), desk.journal()
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    written: list[Entry] = []
    for step in steps:
        now += step
        written.append(desk.write(journal, keys, now, "UTC"))
        assert abs(written[-1].at - now) < MAX_CLOCK_CORRECTION
    assert all(before.at < after.at for before, after in pairwise(written))
    assert desk.page(keys, date(2026, 11, 20)) == written


def test_a_clock_that_was_far_ahead_is_not_followed(desk: Desk) -> None:
    keys, journal = desk.writer(), desk.journal()
    right = datetime(2026, 11, 20, 12, tzinfo=UTC)
    ahead = desk.write(journal, keys, right + timedelta(days=365), "UTC")
    after = desk.write(journal, keys, right, "UTC")
    assert (ahead.day, after.day, after.at) == (date(2027, 11, 20), date(2026, 11, 20), right)


def test_what_is_written_after_midnight_on_the_page_that_is_open_stays_on_that_page(
    desk: Desk,
) -> None:
    keys, journal = desk.writer(), desk.journal()
    now = datetime(2026, 11, 20, 23, 5, tzinfo=UTC)  # five past midnight in Berlin
    entry = desk.write(journal, keys, now, "Europe/Berlin", date(2026, 11, 20))
    assert (entry.day, entry.at) == (date(2026, 11, 20), now)
    assert desk.page(keys, date(2026, 11, 20)) == [entry]
    assert desk.page(keys, date(2026, 11, 21)) == []


@pytest.mark.parametrize(
    ("zone", "now", "day"),
    [
        # The hour that is left out, and the one that comes twice.
        ("Europe/Berlin", "2026-03-29T00:59:59.999999", "2026-03-29"),
        ("Europe/Berlin", "2026-03-29T22:00", "2026-03-30"),
        ("Europe/Berlin", "2026-10-25T00:30", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25T01:30", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25T22:59:59.999999", "2026-10-25"),
        # Midnight does not exist; midnight comes twice.
        ("Asia/Beirut", "2022-03-26T21:59:59.999999", "2022-03-26"),
        ("Asia/Beirut", "2022-03-26T22:00", "2022-03-27"),
        ("America/Havana", "2024-11-03T04:30", "2024-11-03"),
        ("America/Havana", "2024-11-03T05:30", "2024-11-03"),
        # A day that was left out.
        ("Pacific/Apia", "2011-12-30T09:59:59.999999", "2011-12-29"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31"),
        # The dateline.
        ("Pacific/Kiritimati", "2026-11-20T10:00", "2026-11-21"),
        ("Pacific/Marquesas", "2026-11-20T09:29", "2026-11-19"),
    ],
)
def test_where_days_are_not_24_hours(desk: Desk, zone: str, now: str, day: str) -> None:
    entry = desk.write(
        desk.journal(), desk.writer(), datetime.fromisoformat(now).replace(tzinfo=UTC), zone
    )
    assert entry.day == date.fromisoformat(day)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=9),
    st.permutations(range(10)),
)
def test_in_a_thread_nothing_stands_before_what_it_answers(
    shape: list[tuple[int, int]], names: list[int]
) -> None:
    """Whatever the times say: a clock may have been put back between a question and its answer."""
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def made(minutes: int, to: bytes | None) -> Entry:
        at = noon + timedelta(minutes=minutes)
        return Entry(
            names[len(made_so_far)].to_bytes(16, "big"),
            date(2026, 11, 20),
            "me",
            "",
            at,
            "UTC",
            parent_id=to,
        )

    made_so_far: list[Entry] = []
    made_so_far.append(made(4, None))
    for to, minutes in shape:
        made_so_far.append(made(minutes, made_so_far[to % len(made_so_far)].id))
    (thread,) = build_threads(sorted(made_so_far, key=lambda entry: (entry.at, entry.id)))
    order = [entry.id for entry in (thread.root, *thread.descendants)]
    assert sorted(order) == sorted(entry.id for entry in made_so_far)
    assert thread.root.parent_id is None
    for entry in thread.descendants:
        assert entry.parent_id is not None
        assert order.index(entry.parent_id) < order.index(entry.id)
