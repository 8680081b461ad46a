"""Time on the page: midnight while a day is open, travel, clocks that are set, and what sessions make of it."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from llamora.app.edge import csrf
from llamora.app.views import days
from llamora.journal import context, entries, sessions
from llamora.settings import SessionSettings
from tests.app.conftest import PageResponse, RunningApp, Start


class Clock:
    """The one clock of everything under test."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def set(self, text: str) -> None:
        self.instant = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def now(self) -> datetime:
        return self.instant

    def time(self) -> float:
        return self.instant.timestamp()

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (context, days, entries):
        monkeypatch.setattr(module, "utc_now", clock.now)
    for module in (sessions, csrf):
        monkeypatch.setattr(module, "time", clock)
    return clock


def times(answer: PageResponse) -> list[str]:
    """What stands beside the entries, as read."""
    found = re.findall(r'<p class="when"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", each).split()) for each in found]


def heading(answer: PageResponse) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", answer.text, re.DOTALL)
    assert found is not None
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


# -- midnight --------------------------------------------------------------------------------------------


async def test_the_composer_writes_to_the_day_that_is_shown(clock: Clock, app: RunningApp) -> None:
    clock.set("2026-11-20T22:59:30")  # half a minute to midnight in Berlin
    alice = await app.visitor()
    page = await alice.get("/d/today")
    assert heading(page) == "Friday 20 November 2026"
    composer = re.search(r'<form id="composer"[^>]*>', page.text)
    assert composer is not None
    assert composer[0].count('"/d/2026-11-20/entries"') == 2  # with and without JavaScript

    clock.set("2026-11-20T23:05")
    answer = await alice.post("/d/2026-11-20/entries", {"text": "still up"})
    assert answer.location.startswith("/d/2026-11-20#")
    shown = await alice.get("/d/2026-11-20")
    assert times(shown) == ["0:05 21 November"]
    assert heading(await alice.get("/d/today")) == "Saturday 21 November 2026"
    await alice.post("/d/today/entries", {"text": "and up again"})
    assert times(await alice.get("/d/today")) == ["0:05"]


async def test_the_page_knows_when_its_day_is_over(clock: Clock, app: RunningApp) -> None:
    alice = await app.visitor()

    async def span(path: str) -> tuple[int, int] | None:
        found = re.search(r'data-now="(\d+)" data-ends="(\d+)"', (await alice.get(path)).text)
        return (int(found[1]), int(found[2])) if found else None

    def ms(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert await span("/d/today") == (ms("2026-11-20T12:00"), ms("2026-11-20T23:00"))
    assert await span("/d/2026-11-20") == await span("/d/today")
    assert (
        await span("/d/2026-11-19") is await span("/d/2026-11-21") is None
    )  # its day neither began nor will end
    clock.set("2026-10-25T00:30")  # the day of 25 hours
    assert await span("/d/today") == (ms("2026-10-25T00:30"), ms("2026-10-25T23:00"))


async def test_today_is_the_day_of_the_instant_that_the_entry_gets(
    clock: Clock, app: RunningApp
) -> None:
    """Posted to today, an entry is on the day of its own time, also when midnight passes on the way."""
    clock.set("2026-11-20T23:00")
    alice = await app.visitor()
    answer = await alice.post("/d/today/entries", {"text": "on the stroke"})
    assert answer.location.startswith("/d/2026-11-21#")


async def test_a_year_is_named_once_it_is_over_for_the_user(clock: Clock, app: RunningApp) -> None:
    clock.set("2026-12-31T22:55")  # five to midnight in Berlin
    alice = await app.visitor()
    await alice.write("written a day late", "2026-12-30")
    assert times(await alice.get("/d/2026-12-30")) == ["23:55 31 December"]
    clock.set("2026-12-31T23:05")
    assert times(await alice.get("/d/2026-12-30")) == ["23:55 31 December 2026"]


async def test_a_day_may_end_in_the_small_hours(clock: Clock, app: RunningApp) -> None:
    clock.set("2026-11-21T02:30")  # half past three in Berlin
    alice = await app.visitor()
    assert heading(await alice.get("/d/today")) == "Saturday 21 November 2026"
    assert (await alice.post("/you/settings", {"day_ends": "4"})).status == 303
    assert heading(await alice.get("/d/today")) == "Friday 20 November 2026"
    await alice.write("still awake", "today")
    assert times(await alice.get("/d/2026-11-20")) == ["3:30"]
    ends = re.search(r'data-ends="(\d+)"', (await alice.get("/d/today")).text)
    assert ends is not None
    assert int(ends[1]) == datetime(2026, 11, 21, 3, tzinfo=UTC).timestamp() * 1000
    clock.set("2026-11-21T03:00")
    assert heading(await alice.get("/d/today")) == "Saturday 21 November 2026"
    assert (await alice.post("/you/settings", {"day_ends": "6"})).status == 422


# -- travel ----------------------------------------------------------------------------------------------


async def test_travel_moves_no_entry(clock: Clock, app: RunningApp) -> None:
    clock.set("2026-11-20T22:30")
    alice = await app.visitor()
    await alice.write("half past eleven in Berlin", "today")
    assert (await alice.post("/you/settings", {"zone": "Pacific/Auckland"})).status == 303
    assert heading(await alice.get("/d/today")) == "Saturday 21 November 2026"
    await alice.write("half past eleven in Auckland", "today")
    assert times(await alice.get("/d/2026-11-20")) == ["23:30"]
    assert times(await alice.get("/d/2026-11-21")) == ["11:30"]
    await alice.post("/you/settings", {"zone": "America/Los_Angeles"})
    await alice.write("half past two in Los Angeles", "today")
    berlin = await alice.get("/d/2026-11-20")
    assert times(berlin) == ["23:30", "14:30"]
    assert times(await alice.get("/d/2026-11-21")) == ["11:30"]


async def test_a_zone_that_this_machine_does_not_know_hides_no_page(app: RunningApp) -> None:
    """A journal brought from a machine with newer zones, or older ones."""
    alice = await app.visitor()
    entry = await alice.write("a line")
    stored = await app.services.db.entries.get(app.keys(), bytes.fromhex(entry))
    await app.services.db.entries.update(app.keys(), replace(stored, zone="Mars/Olympus"))
    page = await alice.get("/d/2026-11-20")
    assert page.status == 200
    assert len(times(page)) == 1


UNKNOWN = "does not know the time zone Mars/Olympus, so your days follow UTC"


async def test_a_zone_that_this_machine_does_not_know_is_reported(app: RunningApp) -> None:
    alice = await app.visitor()
    await app.services.preferences.change(app.keys(), unknown_zone="Mars/Olympus")
    for path in ("/d/today", "/you"):
        assert UNKNOWN in (await alice.get(path)).visible_text
    await alice.post("/you/settings", {"theme": "dark"})
    assert UNKNOWN in (await alice.get("/you")).visible_text
    await alice.post("/you/settings", {"zone": "Asia/Tokyo"})
    for path in ("/d/today", "/you"):
        assert "Mars" not in (await alice.get(path)).visible_text


async def test_a_zone_of_a_browser_is_dismissed_once(app: RunningApp) -> None:
    alice = await app.visitor()
    assert 'data-dismissed=""' in (await alice.get("/d/today")).text
    answer = await alice.post(
        "/you/settings", {"section": "zone", "from_day": "1", "dismissed_zone": "Asia/Tokyo"}
    )
    assert (answer.status, answer.location) == (303, "/d/today")
    assert 'data-dismissed="Asia/Tokyo"' in (await alice.get("/d/today")).text
    assert (await alice.post("/you/settings", {"dismissed_zone": "A" * 65})).status == 422


# -- clocks that are set ---------------------------------------------------------------------------------


@pytest.fixture(params=["session", "cookie"])
async def kept(clock: Clock, request: pytest.FixtureRequest, start: Start) -> RunningApp:
    return await start(session=SessionSettings(mode=request.param, idle_ttl=600, absolute_ttl=3600))


@pytest.mark.parametrize("back", [timedelta(seconds=90), timedelta(hours=1), timedelta(days=400)])
async def test_a_clock_put_back_signs_nobody_out_and_loses_no_word(
    clock: Clock, kept: RunningApp, back: timedelta
) -> None:
    alice = await kept.visitor()
    page = await alice.get("/d/today")
    token = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert token is not None
    clock.instant -= back
    answer = await alice.post("/d/today/entries", {"csrf": token[1], "text": "from an open page"})
    assert answer.status == 303
    day = clock.instant.date()
    assert answer.location.startswith(f"/d/{day}#")
    assert "from an open page" in (await alice.get(f"/d/{day}")).visible_text


async def test_a_clock_put_back_makes_no_session_last_longer(
    clock: Clock, kept: RunningApp
) -> None:
    alice = await kept.visitor()
    clock.instant -= timedelta(days=400)
    assert (await alice.get("/you")).status == 200  # what counts is from now on
    clock.instant += timedelta(seconds=700)
    assert (await alice.get("/you")).status == 303


@pytest.mark.parametrize("on", [timedelta(hours=2), timedelta(days=365 * 50)])
async def test_a_clock_put_on_ends_sessions_in_a_sentence(
    clock: Clock, kept: RunningApp, on: timedelta
) -> None:
    alice = await kept.visitor()
    clock.instant += on
    assert (await alice.get("/d/today")).location.startswith("/sign-in")
    refused = await alice.post("/d/today/entries", {"text": "what I had written"})
    assert refused.status == 401
    assert refused.field("words").strip() == "what I had written"
    assert (await alice.sign_in()).status == 303
    assert (await alice.get("/d/today")).status == 200
    clock.instant -= on
    assert (await alice.get("/d/today")).status == 200


async def test_the_ends_of_the_calendar_are_days(clock: Clock, app: RunningApp) -> None:
    alice = await app.visitor()
    for day in (date.min, date.max):
        await alice.write("the end", str(day))
        page = await alice.get(f"/d/{day}")
        assert page.status == 200
        assert f'href="/calendar/{day.isoformat()[:7]}"' in page.text
