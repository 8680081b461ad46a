"""A day's page: any day, in the writer's zone, and what is written on it whatever goes wrong."""

import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from llamora.app.views import days
from llamora.journal import context, entries
from llamora.persistence.connection import Connections, DiskFull, StorageError
from llamora.persistence.entries import Entries
from llamora.settings import EntrySettings, SessionSettings
from tests.app.conftest import RunningApp, Start

FULL = "The disk is full. Nothing was lost: make some room and try again."


def no_room(*_: object, **__: object) -> None:
    raise DiskFull("disk_full")


@pytest.mark.parametrize(
    ("zone", "instant", "day"),
    [
        ("Europe/Berlin", datetime(2026, 11, 20, 23, 30, tzinfo=UTC), "21 November 2026"),
        ("America/New_York", datetime(2026, 11, 21, 4, 30, tzinfo=UTC), "20 November 2026"),
        ("Pacific/Kiritimati", datetime(2026, 12, 31, 10, 0, tzinfo=UTC), "1 January 2027"),
    ],
)
async def test_today_is_the_day_in_the_writers_zone(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch, zone: str, instant: datetime, day: str
) -> None:
    alice = await app.visitor()
    await alice.write("Before.", "2020-01-01")
    await alice.post("/you/settings", {"zone": zone})
    for module in (context, days, entries):
        monkeypatch.setattr(module, "utc_now", lambda: instant)
    page = await alice.get("/d/today")
    assert f"</span> {day}</h1>" in page.text
    assert "A new page. Begin anywhere." in page.visible_text
    kept = await alice.post("/d/today/entries", {"text": "late"})
    assert f"</span> {day}</h1>" in (await alice.get(kept.location.partition("#")[0])).text


@pytest.mark.parametrize(
    "day", ["0001-01-01", "0001-01-02", "1600-02-29", "2026-11-20", "9999-12-30", "9999-12-31"]
)
async def test_any_day_can_be_read_and_written(app: RunningApp, day: str) -> None:
    alice = await app.visitor()
    page = await alice.get(f"/d/{day}")
    assert page.status == 200
    assert ('rel="prev"' in page.text) == (day != "0001-01-01")
    assert ('rel="next"' in page.text) == (day != "9999-12-31")
    kept = await alice.post(f"/d/{day}/entries", {"text": "A line for the ages."})
    assert kept.status == 303
    assert kept.location.startswith(f"/d/{day}#e-")
    assert "A line for the ages." in (await alice.get(f"/d/{day}")).text


async def test_a_page_leads_to_the_days_beside_it(app: RunningApp) -> None:
    alice = await app.visitor()
    page = await alice.get("/d/2024-03-01")
    assert 'href="/d/2024-02-29" rel="prev"' in page.text
    assert 'href="/d/2024-03-02" rel="next"' in page.text
    assert 'class="wordmark" href="/d/today"' in page.text


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29",
        "2026-13-01",
        "0000-01-01",
        "10000-01-01",
        "2026-1-1",
        "tomorrow",
        "-2026-01-01",
        "２０２６-11-20",
    ],
)
async def test_a_day_that_is_none_is_a_sentence(app: RunningApp, text: str) -> None:
    alice = await app.visitor()
    page = await alice.get(f"/d/{text}")
    assert page.status == 404
    assert page.error_sentence == "There is no such day. A day’s address looks like /d/2026-11-20."
    posted = await alice.post(f"/d/{text}/entries", {"text": "kept on screen"})
    assert posted.status == 404
    assert posted.field("words") == "kept on screen"


async def test_line_ends_become_newlines_and_blank_edges_go(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("\r\n  indented\r\nsecond\rthird  \r\n\r\n")
    kept = await app.services.journal.get(app.keys(), bytes.fromhex(entry))
    assert kept.text == "  indented\nsecond\nthird"


async def test_a_megabyte_is_kept_and_shown(app: RunningApp) -> None:
    alice = await app.visitor()
    text = "Every line of this long day says something. \n\n" * 22_000
    entry = await alice.write(text)
    kept = await app.services.journal.get(app.keys(), bytes.fromhex(entry))
    assert len(kept.text) > 1_000_000
    assert kept.text == text.strip()
    page = await alice.get("/d/2026-11-20")
    assert page.status == 200
    shown = [page.text]
    while following := re.search(rf"/e/{entry}/parts/\d+", shown[-1]):
        shown.append((await alice.get(following[0], fragment=True)).text)
    assert "".join(shown).count("Every line of this long day says something.") == 22_000


@pytest.mark.parametrize("text", ["", " ", "\r\n\r\n", "\t \n\u00a0"])
@pytest.mark.parametrize("fragment", [False, True])
async def test_an_empty_entry_is_refused_with_a_sentence(
    app: RunningApp, text: str, fragment: bool
) -> None:
    alice = await app.visitor()
    answer = await alice.post("/d/2026-11-20/entries", {"text": text}, fragment=fragment)
    assert answer.status == 422
    assert answer.error_sentence == "There is nothing to keep yet. Write a line first."
    assert (await alice.get("/d/2026-11-20")).ids == []


@pytest.mark.parametrize("fragment", [False, True])
async def test_too_long_an_entry_stays_on_screen(start: Start, fragment: bool) -> None:
    app = await start(entries=EntrySettings(max_bytes=1000))
    alice = await app.visitor()
    text = "ü" * 501
    answer = await alice.post("/d/2026-11-20/entries", {"text": text}, fragment=fragment)
    assert answer.status == 422
    assert (
        answer.error_sentence
        == "This is longer than the 0.001 MB an entry can hold. Keep it as two."
    )
    assert answer.field("text") == text
    assert (
        await alice.post("/d/2026-11-20/entries", {"text": "ü" * 500}, fragment=fragment)
    ).status in (200, 303)


async def test_far_too_long_a_body_is_a_sentence(start: Start) -> None:
    app = await start(entries=EntrySettings(max_bytes=1000))
    alice = await app.visitor()
    answer = await alice.post("/d/2026-11-20/entries", {"text": "x" * 100_000}, fragment=True)
    assert answer.status == 413
    assert "longer than the 0.001 MB" in answer.error_sentence


@pytest.mark.parametrize("fragment", [False, True])
async def test_a_full_disk_keeps_the_words_on_screen(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch, fragment: bool
) -> None:
    alice = await app.visitor()
    with monkeypatch.context() as full:
        full.setattr(Entries, "add", no_room)
        answer = await alice.post(
            "/d/2026-11-20/entries", {"text": "not lost & <safe>"}, fragment=fragment
        )
    assert answer.status == 507
    assert answer.error_sentence == FULL
    assert answer.field("text") == "not lost & <safe>"
    await alice.write("there is room again")


async def test_a_store_that_refuses_keeps_the_words_on_screen(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StorageError("journal_busy")

    alice = await app.visitor()
    monkeypatch.setattr(Entries, "add", refuse)
    answer = await alice.post("/d/2026-11-20/entries", {"text": "patience"})
    assert answer.status == 503
    assert answer.error_sentence.startswith("The journal’s file is in use")
    assert answer.field("text") == "patience"


async def test_a_full_disk_keeps_nobody_from_reading(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(session=SessionSettings(cookie_touch_interval=1))
    alice = await app.visitor()
    await alice.write("The heron again.")
    now = time.time()
    monkeypatch.setattr(
        "llamora.journal.sessions.time.time", lambda: now + 30
    )  # time to refresh the session
    monkeypatch.setattr(Connections, "write", no_room)
    assert "The heron again." in (await alice.get("/d/2026-11-20")).text
    found = await alice.get((await alice.post("/search", {"q": "heron"})).location)
    assert "One place." in found.visible_text


async def test_without_a_model_the_page_says_so_and_everything_else_works(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Written without a model.")
    page = await alice.get("/d/2026-11-20")
    assert "The model is switched off in the settings." in page.visible_text
    assert ">Reply</button>" not in page.text
    asked = await alice.post(f"/e/{entry}/replies")
    assert asked.status == 200
    assert "The model is switched off in the settings." in asked.visible_text
    assert (await alice.get("/d/2026-11-20")).ids == [entry]


async def test_who_is_signed_out_is_led_to_the_door_and_back(app: RunningApp) -> None:
    stranger = app.anonymous()
    answer = await stranger.get("/d/2026-11-20")
    assert answer.status == 303
    assert answer.location == "/sign-in?next=/d/2026-11-20"


@pytest.mark.parametrize("fragment", [False, True])
async def test_words_posted_after_the_session_ended_stay_on_screen(
    app: RunningApp, fragment: bool
) -> None:
    alice = await app.visitor()
    await app.services.db.sessions.clear()
    answer = await alice.post("/d/2026-11-20/entries", {"text": "still mine"}, fragment=fragment)
    assert answer.status == 401
    assert answer.error_sentence == "Sign in again in another tab, then do this once more."
    if not fragment:
        assert answer.field("words") == "still mine"


@pytest.mark.parametrize("change", ["revision='abc'", "revision=-5", "sealed=CAST(sealed AS TEXT)"])
async def test_one_odd_row_takes_nothing_else_with_it(start: Start, change: str) -> None:
    app = await start()
    alice = await app.visitor()
    first, odd, third = [
        await alice.write(f"The {number} heron.") for number in ("first", "odd", "third")
    ]
    await app.stop()
    with closing(sqlite3.connect(app.services.settings.data.database)) as connection, connection:
        connection.execute(f"UPDATE entries SET {change} WHERE id=?", (bytes.fromhex(odd),))
    alice = await (await start()).visitor()
    page = await alice.get("/d/2026-11-20")
    assert [name for name in ("first", "third") if f"The {name} heron." in page.text] == [
        "first",
        "third",
    ]
    found = await alice.post("/search", {"q": "heron"}, fragment=True)
    hits = re.findall(r'class="hit" href="[^"]+#e-([0-9a-f]+)"', found.text)
    # The same bytes in a cell of another type are the same record, and it opens.
    assert sorted(hits) == sorted([first, third, odd] if "CAST" in change else [first, third])
