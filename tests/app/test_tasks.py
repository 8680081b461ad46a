"""Task boxes in what one wrote: how they stand on the page, and what ticking one does to the text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.app.markdown import has_tasks, render, set_checkboxes
from tests.app.conftest import RunningApp

LIST = (
    "Today:\n\n- [ ] ring **the** plumber\n- [x] measure `it`\n  1. [X] twice\n\n> - [ ] quoted\n\n"
    "```\n- [ ] code\n```\n"
)
BOX = re.compile(
    r'<input type="checkbox" aria-label="([^"]*)" name="box" value="(\d+)" autocomplete="off"([^>]*)>'
)


def test_every_box_has_a_number_and_a_name() -> None:
    assert BOX.findall(render(LIST, interactive=True)) == [
        ("ring the plumber", "0", ""),
        ("measure it", "1", ' checked=""'),
        ("twice", "2", ' checked=""'),
        ("quoted", "3", ""),
    ]
    shown = render(LIST)
    assert 'name="box"' not in shown
    assert shown.count("disabled") == 4


@pytest.mark.parametrize(
    "text", ["no boxes", "[ ] not in a list", "- [] a", "a - [ ] b", "    - [ ] code", "- \\[ ] a"]
)
def test_what_is_no_task_has_no_box(text: str) -> None:
    assert not has_tasks(text)
    assert set_checkboxes(text, {0}) == text


def test_ticking_changes_the_one_letter() -> None:
    assert set_checkboxes(LIST, {0, 1, 2}) == LIST.replace("[ ] ring", "[x] ring").replace(
        "[X]", "[x]"
    )
    assert set_checkboxes(LIST, set()) == LIST.replace("[x]", "[ ]").replace("[X]", "[ ]")
    assert set_checkboxes("- a\n\n  [ ] no\n- b", {0}) == "- a\n\n  [ ] no\n- b"


LINES = st.sampled_from(
    [
        "- [ ] a",
        "- [x] b [ ] c",
        "  - [ ] d",
        "1. [ ] e",
        "> - [x] f",
        "text",
        "",
        "```",
        "\t- [ ] g",
    ]
)


@given(st.lists(LINES), st.sets(st.integers(0, 8)))
def test_the_boxes_on_the_page_are_those_that_were_ticked(
    lines: list[str], boxes: set[int]
) -> None:
    text = "\n".join(lines)
    before = BOX.findall(render(text, interactive=True))
    after = set_checkboxes(text, boxes)
    shown = BOX.findall(render(after, interactive=True))
    assert [(name, number) for name, number, _ in shown] == [
        (name, number) for name, number, _ in before
    ]
    assert {int(number) for _, number, checked in shown if checked} == boxes & set(
        range(len(before))
    )
    assert re.sub(r"\[[ xX]\]", "[]", after) == re.sub(r"\[[ xX]\]", "[]", text)


async def test_a_tick_is_an_edit(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    entry = await alice.write("- [ ] one\n- [ ] two")
    page = await alice.get("/d/2026-11-20")
    assert f'action="/e/{entry}/tasks"' in page.text
    assert (await bob.post(f"/e/{entry}/tasks", {"revision": "1", "box": "0"})).status == 404

    answer = await alice.post(f"/e/{entry}/tasks", {"revision": "1", "box": "1"}, fragment=True)
    assert answer.status == 200
    assert [checked for _, _, checked in BOX.findall(answer.text)] == ["", ' checked=""']
    assert 'name="revision" value="2"' in answer.text
    assert "edited" in answer.text
    assert (await alice.get(f"/e/{entry}/edit")).field("text") == "- [ ] one\n- [x] two"
    assert "Bring back" in (await alice.get(f"/e/{entry}/versions")).text

    # Without a script it is a form with a button.
    answer = await alice.post(f"/e/{entry}/tasks", {"revision": "2"})
    assert (answer.status, answer.location) == (303, f"/d/2026-11-20#e-{entry}")
    assert (await alice.get(f"/e/{entry}/edit")).field("text") == "- [ ] one\n- [ ] two"


async def test_a_tick_over_another_text_changes_nothing_and_says_so(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("- [ ] one\n- [ ] two")
    await alice.post(f"/e/{entry}", {"text": "- [ ] zero\n- [ ] one\n- [ ] two", "revision": "1"})
    answer = await alice.post(f"/e/{entry}/tasks", {"revision": "1", "box": "0"}, fragment=True)
    assert answer.status == 409
    assert answer.error_sentence.startswith("This entry was changed elsewhere")
    assert [(name, checked) for name, _, checked in BOX.findall(answer.text)] == [
        ("zero", ""),
        ("one", ""),
        ("two", ""),
    ]
    assert (
        await alice.post(f"/e/{entry}/tasks", {"revision": "2", "box": "0"}, fragment=True)
    ).status == 200
    assert (await alice.get(f"/e/{entry}/edit")).field("text") == "- [x] zero\n- [ ] one\n- [ ] two"
