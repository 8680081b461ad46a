"""Days on paper: those that were asked for, with replies or without, and nothing of anybody else."""

import re

import pytest

from tests.app.conftest import RunningApp


async def test_the_days_that_were_asked_for_and_no_others(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    for number in (1, 2, 3, 4):
        await alice.write(f"Heron number {number}.", f"2024-03-0{number}")
    await bob.write("Another's words.", "2024-03-02")
    page = await alice.get("/print?from=2024-03-02&to=2024-03-03")
    assert re.findall(r"Heron number (\d)", page.text) == ["2", "3"]
    assert "Another" not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert '<h1 class="date">2 March – 3 March 2024</h1>' in page.text
    assert 'class="actions"' not in page.text


async def test_it_begins_with_the_month(app: RunningApp) -> None:
    alice = await app.visitor()
    page = await alice.get("/print")
    first, last = re.findall(r'type="date" value="([\d-]+)"', page.text)
    assert first == f"{last[:7]}-01"
    assert "is no longer sealed" in page.visible_text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("from=2024-03-02&to=", "Choose the first day and the last."),
        ("from=2024-13-02&to=2024-12-01", "Choose the first day and the last."),
        (
            "from=2024-03-02&to=2024-03-01",
            "The last day comes before the first. Change one of them.",
        ),
        ("from=2023-03-02&to=2024-03-02", "That is more than a year. Print it year by year."),
        ("from=0001-01-01&to=9999-12-31", "That is more than a year. Print it year by year."),
    ],
)
async def test_days_that_cannot_be_shown(app: RunningApp, query: str, sentence: str) -> None:
    answer = await (await app.visitor()).get(f"/print?{query}")
    assert (answer.status, answer.error_sentence) == (422, sentence)


async def test_days_without_a_word(app: RunningApp) -> None:
    alice = await app.visitor()
    assert (
        "Nothing was written on these days."
        in (await alice.get("/print?from=9999-12-30&to=9999-12-31")).visible_text
    )
    assert (
        await app.anonymous().get("/print?from=2024-03-02&to=2024-03-03")
    ).location == "/sign-in"
