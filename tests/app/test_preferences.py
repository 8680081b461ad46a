"""Settings: each is saved by itself, takes effect at once, and is the writer's on every device."""

import asyncio
import re

import pytest

from llamora.journal.profile import Profile, parse_profile, serialize_profile
from tests.app.conftest import PageResponse, RunningApp


def look(answer: PageResponse) -> dict[str, str]:
    head = re.search(r"<html ([^>]*)>", answer.text)
    assert head is not None
    return dict(re.findall(r'data-(\w+)="([^"]*)"', head[1]))


def chosen(answer: PageResponse, name: str) -> str:
    found = re.search(
        rf'<input type="radio" name="{name}" value="([^"]*)"[^>]* checked', answer.text
    )
    assert found is not None, name
    return found[1]


AS_IT_IS = {
    "theme": "system",
    "text_size": "100",
    "language": "",
    "hours": "24",
    "week_start": "0",
    "enter": "line",
    "letters": "on",
}


async def test_settings_begin_as_most_people_want_them(app: RunningApp) -> None:
    page = await (await app.visitor()).get("/you")
    assert {name: chosen(page, name) for name in AS_IT_IS} == AS_IT_IS
    assert look(page) == {"theme": "system", "size": "100", "enter": "line", "letters": "on"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theme", "contrast"),
        ("text_size", "132"),
        ("language", "de"),
        ("hours", "12"),
        ("week_start", "6"),
        ("enter", "keep"),
        ("letters", "off"),
    ],
)
async def test_a_setting_is_kept_for_every_device_of_its_writer_alone(
    app: RunningApp, name: str, value: str
) -> None:
    laptop, phone, bob = await app.visitor(), await app.visitor(), await app.visitor("Bob")
    answer = await laptop.post("/you/settings", {"section": "page", name: value})
    assert (answer.status, answer.location) == (303, "/you?done=page#h-page")
    page = await phone.get("/you")
    assert {each: chosen(page, each) for each in AS_IT_IS} == {**AS_IT_IS, name: value}
    assert chosen(await bob.get("/you"), name) == AS_IT_IS[name]


async def test_without_a_script_the_form_says_that_it_is_kept(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/settings", {"section": "writing", "letters": "off"})
    assert answer.location == "/you?done=writing#h-writing"
    assert (
        '<p class="saved-note" id="saved-writing" role="status">Kept.</p>'
        in (await alice.get("/you?done=writing")).text
    )
    assert (
        await alice.post("/you/settings", {"letters": "on"}, fragment=True)
    ).text == "<span>Kept.</span>"


async def test_a_page_wears_the_theme_and_the_size(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.post("/you/settings", {"theme": "dark", "text_size": "152"})
    for path in ("/d/2026-11-20", "/search", "/you", "/nowhere"):
        page = await alice.get(path)
        assert look(page) == {"theme": "dark", "size": "152", "enter": "line", "letters": "on"}
        assert '<meta name="color-scheme" content="dark">' in page.text
    await alice.post("/sign-out")
    page = await alice.get("/sign-in")
    assert look(page)["theme"] == "system", "nobody's choice is known before sign-in"
    assert '<meta name="color-scheme" content="light dark">' in page.text


async def test_a_whole_form_changes_only_what_was_changed_in_it(app: RunningApp) -> None:
    """Two devices with the same page open: the second form still holds what the first one changed since."""
    laptop, phone = await app.visitor(), await app.visitor()
    before = {"was-theme": "system", "was-text_size": "100"}
    await laptop.post("/you/settings", {"theme": "dark", "text_size": "100", **before})
    await phone.post("/you/settings", {"theme": "system", "text_size": "115", **before})
    assert look(await laptop.get("/you")) == {
        "theme": "dark",
        "size": "115",
        "enter": "line",
        "letters": "on",
    }


async def test_settings_changed_at_the_same_time_are_all_kept(app: RunningApp) -> None:
    alice = [await app.visitor() for _ in range(4)]
    wanted = [("theme", "light"), ("text_size", "88"), ("enter", "keep"), ("letters", "off")]
    answers = await asyncio.gather(
        *(
            one.post("/you/settings", {n: v}, fragment=True)
            for one, (n, v) in zip(alice, wanted, strict=True)
        )
    )
    assert [answer.status for answer in answers] == [200] * 4
    assert look(await alice[0].get("/you")) == {
        "theme": "light",
        "size": "88",
        "enter": "keep",
        "letters": "off",
    }


@pytest.mark.parametrize(
    "form",
    [
        {"theme": "neon"},
        {"text_size": "1000"},
        {"hours": ""},
        {"language": "tlh"},
        {"week_start": "1"},
        {"zone": "x"},
    ],
)
async def test_what_is_no_choice_is_refused_with_a_sentence(
    app: RunningApp, form: dict[str, str]
) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/settings", form)
    assert answer.status == 422
    assert "That is not one of the choices. Choose one of the list." in answer.visible_text
    page = await alice.get("/you")
    assert {name: chosen(page, name) for name in AS_IT_IS} == AS_IT_IS


async def test_the_language_turns_every_page(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/settings", {"language": "de"}, fragment=True)
    assert answer.headers["HX-Redirect"] == "/you?done=language"
    assert '<html lang="de"' in (await alice.get("/search")).text
    assert (
        await alice.get("/nowhere")
    ).error_sentence == "Unter dieser Adresse gibt es keine Seite."


async def test_the_clock_shows_twelve_hours(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("An hour.")
    shown = re.compile(r"<time [^>]*>([^<]*)</time>")
    usual = shown.search((await alice.get("/d/2026-11-20")).text)
    await alice.post("/you/settings", {"hours": "12"})
    twelve = shown.search((await alice.get("/d/2026-11-20")).text)
    assert usual is not None
    assert twelve is not None
    assert re.fullmatch(r"\d{1,2}:\d\d", usual[1])
    assert re.fullmatch(r"(?:1[0-2]|[1-9]):\d\d [ap]m", twelve[1]), entry


async def test_weeks_begin_on_the_chosen_day(app: RunningApp) -> None:
    alice = await app.visitor()
    for start, first in (("0", "Monday"), ("6", "Sunday"), ("5", "Saturday")):
        await alice.post("/you/settings", {"week_start": start})
        page = (await alice.get("/calendar/2026-11")).text
        days = re.findall(r'<th scope="col" abbr="(\w+)"', page)
        assert (len(set(days)), days[0]) == (7, first)
        rows = [
            re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
            for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        ]
        column = next(row for row in rows if any("/d/2026-11-20" in cell for cell in row))
        at = next(index for index, cell in enumerate(column) if "/d/2026-11-20" in cell)
        assert days[at] == "Friday"


async def test_the_zone_is_shown_and_set(app: RunningApp) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    assert '<option value="Europe/Berlin" selected>' in (await alice.get("/you")).text
    answer = await alice.post("/you/settings", {"section": "zone", "zone": "Asia/Kathmandu"})
    assert (answer.status, answer.location) == (303, "/you?done=zone#h-zone")
    assert '<option value="Asia/Kathmandu" selected>' in (await alice.get("/you")).text
    assert '<option value="Europe/Berlin" selected>' in (await bob.get("/you")).text


@pytest.mark.parametrize(
    "zone", ["", "Europe/Atlantis", "../../etc/passwd", "europe/berlin ", "\x00"]
)
async def test_a_zone_that_is_none_is_refused(app: RunningApp, zone: str) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/settings", {"section": "zone", "zone": zone})
    assert answer.status == 422
    assert '<option value="Europe/Berlin" selected>' in answer.text


async def test_another_zone_leaves_what_was_written_where_it_stands(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Here.", day="2026-11-20")
    await alice.post("/you/settings", {"zone": "Pacific/Apia"})
    assert (await alice.get("/d/2026-11-20")).ids == [entry]


# -- the record --------------------------------------------------------------------------------------


def test_a_record_of_settings_is_read_as_it_was_written() -> None:
    there = Profile(
        zone="Asia/Tokyo", revision=3, theme="dark", text_size=115, letter_keys=False, language="de"
    )
    assert parse_profile(serialize_profile(there), 3) == there
    assert parse_profile(b"", 7) == Profile(revision=7, damaged=True)


def test_what_a_record_cannot_say_is_as_it_was_never_set() -> None:
    strange = b'{"theme": "neon", "text_size": true, "week_start": 3, "zone": 5, "replies": "no", "of_later": 1}'
    assert parse_profile(strange, 2) == Profile(revision=2)
