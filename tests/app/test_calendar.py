"""The calendar: which days it marks, where it leads, what it makes of a typed date."""

import re
import secrets
from calendar import monthrange
from datetime import UTC, date, datetime

import pytest

from llamora.journal import context
from llamora.persistence.entries import Entry
from llamora.persistence.table import SealedTable
from tests.app.conftest import PageResponse, RunningApp, Visitor

LINK = re.compile(r'<a href="(/d/[0-9-]+)"([^>]*) aria-label="([^"]+)"><span>(\d+)</span></a>')


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """It is Friday 20 November 2026."""
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    monkeypatch.setattr(context, "utc_now", lambda: now)
    return now


def marked(answer: PageResponse) -> list[int]:
    return [
        int(number)
        for _, _, name, number in LINK.findall(answer.text)
        if name.endswith(", has entries")
    ]


async def go(visitor: Visitor, when: str) -> PageResponse:
    return await visitor.post("/go", {"when": when})


async def test_a_month_is_a_table_of_links_with_full_names(app: RunningApp, noon: datetime) -> None:
    alice = await app.visitor()
    await alice.write("a", "2026-11-19")
    await alice.write("b", "2026-11-20")
    page = await alice.get("/calendar/2026-11")
    assert page.status == 200
    assert re.findall(r'<th scope="col" abbr="(\w+)"', page.text) == (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
    )
    links = {
        int(number): (path, more, name) for path, more, name, number in LINK.findall(page.text)
    }
    assert sorted(links) == list(range(1, 31))
    assert links[18] == ("/d/2026-11-18", "", "Wednesday 18 November 2026")
    assert links[19] == (
        "/d/2026-11-19",
        ' class="written"',
        "Thursday 19 November 2026, has entries",
    )
    assert links[20][1:] == (
        ' class="written" aria-current="date"',
        "Friday 20 November 2026, today, has entries",
    )
    rows = re.findall(r"<tr>(.*?)</tr>", page.text, re.DOTALL)[1:]
    assert [len(re.findall(r"<td>", row)) for row in rows] == [7] * 6
    # 1 November 2026 is a Sunday.
    assert re.findall(r"<td>\s*(<a|</td>)", rows[0]) == ["</td>"] * 6 + ["<a"]
    assert "· Llamora</title>" in page.text
    assert "<h1" in page.text


async def test_only_the_writer_s_own_days_are_marked(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    await alice.write("a", "2026-11-03")
    await bob.write("b", "2026-11-04")
    assert marked(await alice.get("/calendar/2026-11")) == [3]
    assert marked(await bob.get("/calendar/2026-11")) == [4]
    assert marked(await alice.get("/calendar/2026-10")) == []


async def test_a_day_counts_while_its_page_shows_something(app: RunningApp) -> None:
    alice = await app.visitor()
    first = await alice.write("first", "2026-11-03")
    second = await alice.write("second", "2026-11-03")
    answer = await alice.add_answer(first, "an answer")
    await alice.write("another day", "2026-11-04")

    async def days() -> list[int]:
        return marked(await alice.get("/calendar/2026-11"))

    async def post(entry: str, what: str) -> None:
        assert (
            await alice.post(f"/e/{entry}/{what}", {"revision": "1"}, fragment=True)
        ).status == 200

    assert await days() == [3, 4]
    await post(answer, "delete")
    await post(first, "delete")
    assert await days() == [3, 4]
    await post(second, "delete")
    assert await days() == [4]
    await post(first, "restore")
    assert await days() == [3, 4]


async def test_it_marks_what_the_pages_show_however_records_lie(app: RunningApp) -> None:
    """Every kind of thread: a deleted root over a live answer, an answer whose root is gone, and their like."""
    keys, services = app.keys(), app.services
    gone = datetime(2026, 11, 2, tzinfo=UTC)

    def record(day: int, to: bytes | None = None, deleted: bool = False) -> Entry:
        at = datetime(2026, 11, day, 9, tzinfo=UTC)
        when = gone if deleted else None
        return Entry(
            secrets.token_bytes(16),
            date(2026, 11, day),
            "me",
            "words",
            at,
            "UTC",
            parent_id=to,
            deleted=when,
        )

    records = [
        record(2, deleted=True),
        record(3, to=secrets.token_bytes(16)),
        record(4, secrets.token_bytes(16), True),
    ]
    roots = [record(5, deleted=True), record(6), record(7, deleted=True)]
    records += roots
    records += [record(root.day.day, to=root.id) for root in roots for _ in range(6)]
    records += [record(8, deleted=True) for _ in range(30)] + [record(8)]
    await services.db.entries.add(keys, *records)
    days = [date(2026, 11, day) for day in range(1, 31)]
    shown = {day for day in days if await services.journal.get_page(keys, day)}
    assert await services.journal.find_written_days(keys, days) == shown
    assert {day.day for day in shown} == {3, 6, 8}


async def test_a_damaged_record_is_a_day_too(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("a", "2026-11-03")
    async with app.services.db.entries._db.write() as tx:
        await tx.execute(
            "UPDATE entries SET sealed=zeroblob(400) WHERE id=?", (bytes.fromhex(entry),)
        )
    assert marked(await alice.get("/calendar/2026-11")) == [3]


async def test_a_full_month_takes_few_records(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, opened = app.keys(), []
    entries = [
        Entry(
            secrets.token_bytes(16), date(2026, 11, n % 30 + 1), "me", "x", datetime.now(UTC), "UTC"
        )
        for n in range(500)
    ]
    await app.services.db.entries.add(keys, *entries)
    real = SealedTable.open

    def counted(*given: object) -> object:
        opened.append(1)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(SealedTable, "open", counted)
    days = [date(2026, 11, day) for day in range(1, 31)]
    assert await app.services.journal.find_written_days(keys, days) == set(days)
    assert 0 < len(opened) <= 30


async def test_the_months_beside_it_and_the_ends_of_the_calendar(app: RunningApp) -> None:
    alice = await app.visitor()

    async def beside(month: str) -> list[str]:
        page = await alice.get(f"/calendar/{month}")
        assert page.status == 200
        year, number = map(int, month.split("-"))
        assert len(LINK.findall(page.text)) == monthrange(year, number)[1]
        return re.findall(r'href="/calendar/([^"]+)" rel', page.text)

    assert await beside("2026-11") == ["2026-10", "2026-12"]
    assert await beside("2026-12") == ["2026-11", "2027-01"]
    assert await beside("0001-01") == ["0001-02"]
    assert await beside("9999-12") == ["9999-11"]
    assert await beside("2024-02") == ["2024-01", "2024-03"]


@pytest.mark.parametrize(
    "month", "2026-13 2026-00 226 2026-1 11-2026 2026-11-20 x 2026-11- 0000-01".split()
)
async def test_there_is_no_such_month(app: RunningApp, month: str) -> None:
    answer = await (await app.visitor()).get(f"/calendar/{month}")
    assert answer.status == 404
    assert "A month’s address looks like /calendar/2026-11." in answer.visible_text


async def test_without_a_month_it_is_this_one_where_the_writer_is(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half an hour into December in Berlin.
    monkeypatch.setattr(context, "utc_now", lambda: datetime(2026, 11, 30, 23, 30, tzinfo=UTC))
    page = await (await app.visitor()).get("/calendar")
    assert "Tuesday 1 December 2026, today" in page.text


async def test_a_part_of_it_stands_over_the_day(app: RunningApp) -> None:
    alice = await app.visitor()
    day = await alice.get("/d/2026-11-12")
    assert 'href="/calendar/2026-11" hx-get="/calendar/2026-11"' in day.text
    part = await alice.get("/calendar/2026-11", fragment=True)
    assert "<html" not in part.text
    assert part.text.count('hx-target="#calendar"') == 2
    assert len(LINK.findall(part.text)) == 30


async def test_strangers_see_no_calendar(app: RunningApp) -> None:
    stranger = app.anonymous()
    for path in ("/calendar", "/calendar/2026-11", "/go?day=2026-11-20"):
        answer = await stranger.get(path)
        assert (answer.status, answer.location.split("?")[0]) == (303, "/sign-in")
    assert (await stranger.post("/go", {"when": "today"})).status == 401


# -- any date --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "place"),
    [
        ("12 March 2024", "/d/2024-03-12"),
        ("March 12, 2024", "/d/2024-03-12"),
        ("  2024-03-12 ", "/d/2024-03-12"),
        ("12.3.2024", "/d/2024-03-12"),
        ("last Friday", "/d/2026-11-13"),
        ("Wednesday", "/d/2026-11-18"),
        ("today", "/d/2026-11-20"),
        ("tomorrow", "/d/2026-11-21"),
        ("3 days ago", "/d/2026-11-17"),
        ("29 February", "/d/2024-02-29"),
        ("March 2024", "/calendar/2024-03"),
        ("March", "/calendar/2026-03"),
        ("2019", "/calendar/2019"),
        ("summer 2023", "/calendar/2023-06"),
        ("before 2020", "/calendar/2019-12"),
        ("last week", "/calendar/2026-11"),
        ("31 February 2024", "/calendar/2024-02"),  # there is no such day, but there is its month
    ],
)
async def test_a_date_typed_is_a_date_reached(
    app: RunningApp, noon: datetime, when: str, place: str
) -> None:
    answer = await go(await app.visitor(), when)
    assert (answer.status, answer.location) == (303, place)


@pytest.mark.parametrize("when", ["", "heron", "99", "<b>", "x" * 5000, "\0", "٣ مارس"])
async def test_what_is_no_date_is_said_and_stays(
    app: RunningApp, noon: datetime, when: str
) -> None:
    answer = await go(await app.visitor(), when)
    assert answer.status == 422
    assert 'id="when-problem">That is not a date the calendar knows.' in answer.text
    assert "Friday 20 November 2026, today" in answer.text
    if when == "heron":
        assert 'name="when" value="heron"' in answer.text
    assert "<b>" not in answer.text


async def test_a_day_picked(app: RunningApp, noon: datetime) -> None:
    alice = await app.visitor()
    picked = await alice.get("/go?day=2024-03-12")
    assert (picked.status, picked.location) == (303, "/d/2024-03-12")
    for query in ("", "?day=", "?day=tomorrow", "?day=//example.org", "?day=2024-02-31"):
        answer = await alice.get(f"/go{query}")
        assert answer.status == 422
        assert 'id="day-problem">Choose a day first.' in answer.text
