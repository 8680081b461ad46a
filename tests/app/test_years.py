"""Looking back: on this day, a month read as one page, a year by its words."""

import re
from datetime import UTC, date, datetime
from itertools import islice

import pytest

from llamora.journal import context
from llamora.journal.years import anniversaries
from tests.app.conftest import PageResponse, RunningApp

DAY_LINK = re.compile(r'<td class="shade-(\d)">\s*<a href="/d/([0-9-]+)"[^>]*aria-label="([^"]+)">')
AGAIN = re.compile(
    r'<a class="when" href="/d/([0-9-]+)" aria-label="[^"]+">(\d+)</a> <p class="body">([^<]*)</p>'
)


def shaded(page: PageResponse) -> dict[str, tuple[int, str]]:
    return {day: (int(shade), name) for shade, day, name in DAY_LINK.findall(page.text)}


def test_the_same_date_of_earlier_years() -> None:
    assert list(islice(anniversaries(date(2026, 11, 20)), 2)) == [
        date(2025, 11, 20),
        date(2024, 11, 20),
    ]
    assert list(islice(anniversaries(date(2024, 2, 29)), 2)) == [
        date(2020, 2, 29),
        date(2016, 2, 29),
    ]
    # The leap day comes back in years that have none, on the last day of February, and on no other.
    assert list(islice(anniversaries(date(2026, 2, 28)), 4)) == [
        date(2025, 2, 28),
        date(2024, 2, 29),
        date(2024, 2, 28),
        date(2023, 2, 28),
    ]
    assert date(2024, 2, 29) not in anniversaries(date(2028, 2, 28))
    assert date(2024, 2, 29) not in anniversaries(date(2026, 3, 1))
    assert list(anniversaries(date(1, 1, 1))) == []
    assert list(anniversaries(date(1, 2, 28))) == []


async def test_on_this_day(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    assert "On this day" not in (await alice.get("/d/2026-11-20")).text
    gone = await alice.write("It was **deleted**.", "2025-11-20")
    await alice.write("The *heron* <again>.", "2025-11-20")
    await alice.write("Later that day.", "2025-11-20")
    await alice.write("Long ago.", "1999-11-20")
    await alice.write("The day before.", "2025-11-19")
    await bob.write("Somebody else.", "2024-11-20")
    await alice.post(f"/e/{gone}/delete", {"revision": "1"})
    page = await alice.get("/d/2026-11-20")
    assert AGAIN.findall(page.text) == [
        ("2025-11-20", "2025", "The heron &lt;again&gt;."),
        ("1999-11-20", "1999", "Long ago."),
    ]
    assert [year for _, year, _ in AGAIN.findall((await alice.get("/d/2025-11-20")).text)] == [
        "1999"
    ]


async def test_a_month_reads_as_one_page(app: RunningApp) -> None:
    alice = await app.visitor()
    first = await alice.write("On the **third**.", "2026-11-03")
    await alice.write("First of the twelfth.", "2026-11-12")
    await alice.write("Second of the twelfth.", "2026-11-12")
    await alice.write("In December.", "2026-12-01")
    await alice.add_answer(first, "An answer to the third.")
    page = await alice.get("/m/2026-11")
    assert page.status == 200
    words = page.visible_text
    order = [
        words.index(part)
        for part in (
            "Tuesday 3 November",
            "On the third .",
            "An answer to the third.",
            "Thursday 12 November",
            "First of the twelfth.",
            "Second of the twelfth.",
        )
    ]
    assert order == sorted(order)
    assert "In December" not in words
    assert 'href="/m/2026-10" rel="prev"' in page.text
    assert 'href="/m/2026-12" rel="next"' in page.text
    assert "Nothing was written in this month." in (await alice.get("/m/2026-10")).visible_text
    for wrong in ("/m/2026-13", "/m/2026", "/m/x"):
        assert (await alice.get(wrong)).status == 404
    assert 'rel="prev"' not in (await alice.get("/m/0001-01")).text
    assert 'rel="next"' not in (await alice.get("/m/9999-12")).text


async def test_a_year_is_shaded_by_its_words(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "utc_now", lambda: datetime(2026, 11, 20, 12, tzinfo=UTC))
    alice, bob = await app.visitor(), await app.visitor("Bob")
    await alice.write("one heron", "2026-03-01")
    await alice.write("and another **one**", "2026-03-01")
    await alice.write("word " * 100, "2026-03-02")
    await alice.write("word " * 300, "2026-07-03")
    long = await alice.write("word " * 700, "2026-12-31")
    await alice.write("another year", "2025-03-01")
    await bob.write("not hers", "2026-03-04")
    page = await alice.get("/calendar/2026")
    assert page.status == 200
    assert shaded(page) == {
        "2026-03-01": (1, "Sunday 1 March 2026, 5 words"),
        "2026-03-02": (2, "Monday 2 March 2026, 100 words"),
        "2026-07-03": (3, "Friday 3 July 2026, 300 words"),
        "2026-12-31": (4, "Thursday 31 December 2026, 700 words"),
    }
    assert page.text.count("<table") == 12
    assert "March 105 words" in page.visible_text
    assert '<span aria-current="date">20</span>' in page.text
    # What is edited, deleted and brought back counts as it stands; so does a change while the page is known.
    await alice.post(f"/e/{long}", {"text": "one", "revision": "1"})
    assert shaded(await alice.get("/calendar/2026"))["2026-12-31"] == (
        1,
        "Thursday 31 December 2026, one word",
    )
    await alice.post(f"/e/{long}/delete", {"revision": "2"})
    assert "2026-12-31" not in shaded(await alice.get("/calendar/2026"))
    assert list(shaded(await alice.get("/calendar/2025"))) == ["2025-03-01"]
    assert shaded(await bob.get("/calendar/2025")) == {}
    for wrong in ("/calendar/0000", "/calendar/999", "/calendar/12345"):
        assert (await alice.get(wrong)).status == 404
    for edge in ("/calendar/0001", "/calendar/9999"):
        assert (await alice.get(edge)).status == 200


async def test_a_typed_year_leads_to_it(app: RunningApp) -> None:
    alice = await app.visitor()
    assert (await alice.post("/go", {"when": "2024"})).location == "/calendar/2024"
    assert (await alice.post("/go", {"when": "March 2024"})).location == "/calendar/2024-03"
