"""Traces as the pages show them: on entries, in the index, on a page of their own; every change can be taken back."""

import re

import pytest

from tests.app.conftest import RunningApp, Start, Visitor

DAY = "/d/2026-11-20"
CHIP = re.compile(r'<a class="tag" href="(/traces/[0-9a-f]+)" data-tag>([^<]+)</a>')


async def settled(app: RunningApp, name: str = "Alice") -> None:
    await app.services.search.wait_until_idle(app.keys(name).user_id)


def chips(text: str) -> dict[str, str]:
    """The traces of a page: name and path."""
    return {name: path for path, name in CHIP.findall(text)}


async def test_an_entry_shows_its_traces_and_its_text_leads_to_them(
    app: RunningApp, alice: Visitor
) -> None:
    kept = await alice.post(f"{DAY}/entries", {"text": "At the #lake, not `#code`."}, fragment=True)
    assert list(chips(kept.text)) == ["#lake"]
    assert kept.text.count('class="tag"') == 2  # beside it and in it
    await settled(app)
    page = await alice.get(chips(kept.text)["#lake"])
    assert page.status == 200
    assert "On one entry, 20 November 2026" in page.visible_text
    assert "lake" not in chips(kept.text)["#lake"]


async def test_the_box_under_an_entry(app: RunningApp, alice: Visitor) -> None:
    entry = await alice.write("Rain.")
    assert (
        await alice.post(f"/e/{entry}/traces", {"name": "wet weather"})
    ).location == f"{DAY}#e-{entry}"
    part = await alice.post(f"/e/{entry}/traces", {"name": "🌧️"}, fragment=True)
    assert list(chips(part.text)) == ["#wet weather", "🌧️"]
    assert "<html" not in part.text
    refused = await alice.post(f"/e/{entry}/traces", {"name": "!!!"})
    assert refused.status == 422
    assert refused.error_sentence.startswith("A trace is a word")
    removed = await alice.post(
        f"/e{chips(part.text)['🌧️'].replace('/traces', f'/{entry}/traces')}/remove", fragment=True
    )
    assert list(chips(removed.text)) == ["#wet weather"]
    change = re.search(r'name="change" value="([0-9a-f]{32})"', removed.text)
    assert change is not None
    back = await alice.post(f"/e/{entry}/traces/undo", {"change": change[1]}, fragment=True)
    assert list(chips(back.text)) == ["#wet weather", "🌧️"]
    again = await alice.post(f"/e/{entry}/traces/undo", {"change": change[1]})
    assert again.status == 404


async def index(visitor: Visitor, **form: str) -> list[str]:
    answer = await visitor.post("/traces", form) if form else await visitor.get("/traces")
    return re.findall(r'<li><a class="tag" href="/traces/[0-9a-f]+">([^<]+)</a>', answer.text)


async def test_the_index(app: RunningApp, alice: Visitor) -> None:
    assert "No traces yet." in (await alice.get("/traces")).visible_text
    await alice.write("#alder #birch", "2024-05-03")
    await alice.write("#cedar #birch", "2025-05-03")
    await alice.write("#alder-tree", "2023-01-01")
    await settled(app)
    assert await index(alice) == ["#alder", "#alder-tree", "#birch", "#cedar"]
    assert await index(alice, q="ALDER") == ["#alder", "#alder-tree"]
    assert await index(alice, sort="count", q="") == ["#birch", "#alder", "#alder-tree", "#cedar"]
    assert await index(alice, sort="recent", q="") == ["#birch", "#cedar", "#alder", "#alder-tree"]
    assert await index(alice, sort="first", q="") == ["#alder-tree", "#alder", "#birch", "#cedar"]
    part = await alice.post("/traces", {"q": "nothing like it"}, fragment=True)
    assert "No trace has that in its name." in part.visible_text
    named = await alice.post("/traces/names", {"q": "Al"}, fragment=True)
    assert re.findall("<option>([^<]+)", named.text) == ["alder", "alder-tree"]


async def path_of(visitor: Visitor, name: str) -> str:
    text = (await visitor.get("/traces")).text
    found = re.search(rf'href="(/traces/[0-9a-f]+)">#{name}<', text)
    assert found is not None, f"no {name}"
    return found[1]


async def undo(visitor: Visitor, location: str) -> None:
    page = await visitor.get(location)
    change = re.search(r'name="change" value="([0-9a-f]{32})"', page.text)
    assert change is not None
    assert (await visitor.post("/traces/undo", {"change": change[1]})).status == 303


async def test_what_is_done_on_its_page_can_be_taken_back(app: RunningApp, alice: Visitor) -> None:
    await alice.write("#alder", "2024-05-03")
    await alice.write("#birch", "2025-05-03")
    await settled(app)
    renamed = await alice.post(f"{await path_of(alice, 'alder')}/name", {"name": "larch"})
    assert await index(alice) == ["#birch", "#larch"]
    assert "also called #alder" in (await alice.get(renamed.location)).visible_text
    await undo(alice, renamed.location)
    assert await index(alice) == ["#alder", "#birch"]

    merged = await alice.post(f"{await path_of(alice, 'alder')}/merge", {"into": "#Birch"})
    assert await index(alice) == ["#birch"]
    assert "On 2 entries" in (await alice.get(merged.location)).visible_text
    await undo(alice, merged.location)
    assert await index(alice) == ["#alder", "#birch"]

    called = await alice.post(f"{await path_of(alice, 'alder')}/aliases", {"name": "tree"})
    assert "also called #tree" in (await alice.get(called.location)).visible_text
    await undo(alice, called.location)
    assert "also called" not in (await alice.get(await path_of(alice, "alder"))).visible_text

    hidden = await alice.post(f"{await path_of(alice, 'alder')}/hidden", {"hidden": "yes"})
    assert await index(alice) == ["#birch"]
    assert "#alder" in (await alice.get("/traces?hidden=yes")).visible_text
    await undo(alice, hidden.location)
    assert await index(alice) == ["#alder", "#birch"]

    deleted = await alice.post(f"{await path_of(alice, 'birch')}/delete")
    assert await index(alice) == ["#alder"]
    await undo(alice, deleted.location)
    assert await index(alice) == ["#alder", "#birch"]


@pytest.mark.parametrize(
    ("what", "form", "sentence"),
    [
        ("name", {"name": "?!"}, "A trace is a word"),
        ("merge", {"into": "nobody"}, "There is no trace of that name."),
        ("merge", {"into": "erased"}, "There is no"),
        ("aliases", {"name": "ALDER"}, "That is its name already."),
    ],
)
async def test_what_cannot_be_done_is_said(
    app: RunningApp, alice: Visitor, what: str, form: dict[str, str], sentence: str
) -> None:
    await alice.write("#alder")
    erased = bytes.fromhex(await alice.write("#erased"))
    await settled(app)
    await alice.get("/traces")
    await app.services.trash.delete(app.keys(), erased)
    await app.services.trash.erase(app.keys(), erased)
    refused = await alice.post(f"{await path_of(alice, 'alder')}/{what}", form)
    assert refused.status == 422
    assert refused.error_sentence.startswith(sentence)


async def test_its_page_leads_back_through_years(app: RunningApp, alice: Visitor) -> None:
    for number in range(25):
        await alice.write(f"#alder number {number}.", f"2024-03-{number + 1:02}")
    await alice.write("#alder and #birch in winter.", "2022-12-31")
    await settled(app)
    path = await path_of(alice, "alder")
    page = await alice.get(path)
    assert page.text.count('class="hit"') == 20
    assert page.text.index("number 24") < page.text.index("number 23")
    assert page.text.count('<rect class="heat-1"') == 25
    assert "March 25 25" in page.visible_text
    assert list(chips(page.text)) == ["#birch"]
    older = await alice.get(f"{path}?from=20", fragment=True)
    assert older.text.count('class="hit"') == 6
    assert "in winter" in older.visible_text
    year = await alice.get(f"{path}/years?year=2022", fragment=True)
    assert year.text.count('<rect class="heat-1"') == 1
    assert "December 1 1" in year.visible_text
    for asked in ("020240000", "2023", "-1", "2024" + "0" * 5000, "%D9%A2%D9%A0%D9%A2%D9%A4", ""):
        other = await alice.get(f"{path}/years?year={asked}", fragment=True)
        assert (
            other.text.count('<rect class="heat-1"') == 25
        )  # the latest, where there is no such year
    brief = await alice.get(f"{path}/brief", fragment=True)
    assert "On 26 entries, last on 25 March 2024" in brief.visible_text


async def test_what_is_deleted_is_counted_no_more(app: RunningApp, alice: Visitor) -> None:
    entry = await alice.write("#alder")
    await alice.write("#alder again")
    await settled(app)
    path = await path_of(alice, "alder")
    await alice.post(f"/e/{entry}/delete")
    await settled(app)
    assert "On one entry" in (await alice.get(path)).visible_text
    await alice.post(f"/e/{entry}/restore")
    await settled(app)
    assert "On 2 entries" in (await alice.get(path)).visible_text


async def test_nobody_else_sees_them(app: RunningApp, alice: Visitor) -> None:
    entry = await alice.write("#alder")
    await settled(app)
    path = await path_of(alice, "alder")
    charlie = await app.visitor("Charlie")
    assert "alder" not in (await charlie.get("/traces")).text
    assert (await charlie.get(path)).status == 404
    assert (await charlie.get(f"{path}/brief")).status == 404
    assert (await charlie.post(f"/e/{entry}/traces", {"name": "mine"})).status == 404
    assert (await charlie.post(f"{path}/delete")).status == 404
    stranger = app.anonymous()
    for address in ("/traces", path, f"{path}/years", f"{path}/brief"):
        assert (await stranger.get(address)).status == 303


@pytest.mark.parametrize("address", ["xyz", "ABCD", "00", "0g", "ff" * 40])
async def test_an_address_that_is_no_trace(alice: Visitor, address: str) -> None:
    for end in ("", "/years", "/brief"):
        assert (await alice.get(f"/traces/{address}{end}")).status == 404


async def test_after_a_start_everything_is_as_it_was(start: Start) -> None:
    first = await start()
    alice = await first.visitor()
    await alice.write("#alder", "2024-05-03")
    await settled(first)
    await alice.post(f"{await path_of(alice, 'alder')}/name", {"name": "larch"})
    await first.stop()
    second = await start()
    alice = await second.visitor()
    await settled(second)
    assert await index(alice) == ["#larch"]
    assert list(chips((await alice.get("/d/2024-05-03")).text)) == [
        "#alder",
        "#larch",
    ]  # as it was written; beside it


async def test_nothing_is_changed_of_what_is_somebody_elses(app: RunningApp) -> None:
    alice, bob = await app.visitor("Alice"), await app.visitor("Bob")
    page = await alice.post(f"{DAY}/entries", {"text": "The #heron."}, fragment=True)
    tag = chips(page.text)["#heron"].rpartition("/")[2]
    entry = re.findall(r'id="e-([0-9a-f]{32})"', page.text)[0]
    for path in (f"/e/{entry}/traces/{tag}/remove", f"/traces/{tag}/aliases/{tag}/delete"):
        assert (await bob.post(path, {}, fragment=True)).status == 404
    changes = "SELECT count(*) FROM tag_changes WHERE user_id=?"
    stored = await app.services.db._connections.fetch(changes, (app.keys("Bob").user_id,))
    assert stored == [(0,)]
