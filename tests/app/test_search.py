"""Search: what is asked for stays out of every address, and what is found leads to its place."""

import re

import pytest

from llamora.app.routes.search import MAX_QUERY_CHARACTERS
from llamora.persistence.connection import DiskFull
from llamora.persistence.search_history import SearchHistory
from llamora.settings import SearchSettings
from tests.app.conftest import PageResponse, RunningApp, Start, Visitor

PLACE = re.compile(r'class="hit" href="([^"]+)"')


async def ask(visitor: Visitor, query: str) -> PageResponse:
    """Search, and look at the page that the answer leads to."""
    answer = await visitor.post("/search", {"q": query})
    return await visitor.get(answer.location) if answer.status == 303 else answer


async def test_a_hit_leads_to_its_place_with_the_words_marked(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Long ago the <b>heron</b> stood & looked.", day="2019-03-14")
    page = await ask(alice, "heron")
    assert page.status == 200
    assert PLACE.findall(page.text) == [f"/d/2019-03-14#e-{entry}"]
    assert "<mark>heron</mark>" in page.text
    assert "14 March 2019" in page.visible_text
    assert "<b>" not in page.text
    assert 'value="heron"' in page.text


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The lesson 🎻 went well.", "🎻"),
        ("I began to learn C++ today.", '"C++"'),
        ("The dentist has time for me on 2027-03-19.", "2027-03-19"),
        ("We all 👩‍👩‍👧 went, 👍🏽", "👍🏽"),
        ("The old .NET machine", ".NET"),
        ("It costs 1,200 in all", "1,200"),
    ],
)
async def test_signs_and_dates_are_found_as_they_were_written(
    app: RunningApp, text: str, query: str
) -> None:
    alice = await app.visitor()
    await alice.write("The flat is on drive C: of the old machine.")
    entry = await alice.write(text)
    assert PLACE.findall((await ask(alice, query)).text) == [f"/d/2026-11-20#e-{entry}"]


async def test_words_of_a_search_are_in_no_address(app: RunningApp) -> None:
    alice = await app.visitor()
    for number in range(30):
        await alice.write(f"The heron, {number} times.")
    page = await ask(alice, "heron")
    for address in re.findall(r'(?:href|action|src|hx-post|hx-get)="([^"]*)"', page.text):
        assert "heron" not in address
    ignored = await alice.get("/search?q=heron")  # an address from outside asks for nothing
    assert "hit" not in ignored.text
    assert 'type="search" value="heron"' not in ignored.text


@pytest.mark.parametrize("fragment", [False, True])
async def test_more_is_shown_page_by_page_until_all_was(start: Start, fragment: bool) -> None:
    app = await start(search=SearchSettings(page_size=4))
    alice = await app.visitor()
    kept = {await alice.write(f"The heron, {number} times.") for number in range(10)}
    seen: list[str] = []
    offset = "0"
    while offset:
        page = await alice.post("/search", {"q": "heron", "offset": offset}, fragment=fragment)
        if page.status == 303:
            page = await alice.get(page.location)
        seen += [address.rpartition("#e-")[2] for address in PLACE.findall(page.text)]
        more = re.search(r'name="offset" value="(\d+)"', page.text)
        offset = more[1] if more else ""
    assert len(seen) == 10
    assert set(seen) == kept


@pytest.mark.parametrize("query", ["", "   ", "\r\n"])
async def test_nothing_asked_is_no_search(app: RunningApp, query: str) -> None:
    alice = await app.visitor()
    page = await ask(alice, query)
    assert page.status == 200
    assert 'class="count"' not in page.text


@pytest.mark.parametrize("offset", ["-1", "x", "²", "9" * 11, "9" * 40])
async def test_an_offset_that_is_none_is_harmless(app: RunningApp, offset: str) -> None:
    alice = await app.visitor()
    await alice.write("The heron.")
    assert (await alice.post("/search", {"q": "heron", "offset": offset})).status in (200, 303)


@pytest.mark.parametrize(
    "query",
    ['"', '"unclosed', "NEAR(", "-", "*", "a OR", "^", "tag:", "\x00", "'; --", "on:x", "(" * 500],
)
async def test_no_query_is_an_error(app: RunningApp, query: str) -> None:
    alice = await app.visitor()
    await alice.write("The heron.")
    assert (await ask(alice, query)).status == 200


async def test_nothing_found_is_a_sentence(app: RunningApp) -> None:
    alice = await app.visitor()
    page = await ask(alice, "pelican")
    assert "Nothing found. Fewer words, or other ones, may help." in page.visible_text


async def test_a_search_is_remembered_sealed_and_once(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("The heron.")
    for query in ("heron", "otter", "heron", "x" * 5000):
        await ask(alice, query)
    recent = await app.services.db.search_history.recent(app.keys())
    assert recent == ["x" * MAX_QUERY_CHARACTERS, "heron", "otter"]


async def test_a_full_disk_forgets_the_query_and_finds_all_the_same(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise DiskFull("disk_full")

    alice = await app.visitor()
    await alice.write("The heron.")
    monkeypatch.setattr(SearchHistory, "add", no_room)
    assert "One place." in (await ask(alice, "heron")).visible_text


async def test_a_misspelt_word_is_searched_corrected_and_the_page_says_so(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("The heron stood in the estuary.")
    page = await ask(alice, "estaury")
    assert PLACE.findall(page.text) == [f"/d/2026-11-20#e-{entry}"]
    assert "<mark>estuary</mark>" in page.text
    assert "No entry holds “estaury”; entries with estuary are shown." in page.visible_text
    assert "No entry holds" not in (await ask(alice, "estuary")).visible_text
