"""A trace summed up on request: only sentences that cite its entries, gone when one of them changes."""

import html
import re

import pytest

from tests.app.conftest import RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

HERON = "You saw a heron at the weir. [1] It came again in summer.[2]"


@pytest.fixture
async def app(start: Start, model: ScriptedModel) -> RunningApp:
    return await start(llm=settings_for_model(model))


async def lake(app: RunningApp, alice: Visitor) -> tuple[str, list[str]]:
    """Two entries about a #lake: the address of its page, and their ids."""
    ids = [
        await alice.write("At the #lake: a heron stood on the weir all morning.", "2025-03-01"),
        await alice.write("The heron of the #lake came back today.", "2026-07-02"),
    ]
    await app.services.search.wait_until_idle(app.keys().user_id)
    return (await app.services.journal.tags.find_by_name(app.keys(), "lake")).id.hex(), ids


async def digests(app: RunningApp) -> int:
    return (await app.services.db._connections.fetch("SELECT count(*) FROM summaries", ()))[0][0]


async def test_a_trace_is_summed_up_with_links_to_its_entries(
    app: RunningApp, alice: Visitor, model: ScriptedModel
) -> None:
    trace, ids = await lake(app, alice)
    secret = await alice.write("The secret of the #lake.")
    await alice.post(f"/e/{secret}/withheld", {"withheld": "yes"})
    await app.services.search.wait_until_idle(app.keys().user_id)
    model.script(Reply([HERON]))
    assert 'hx-post="/traces/' + trace + '/summary"' in (await alice.get(f"/traces/{trace}")).text
    assert model.chat_requests == []  # looking starts nothing
    shown = await alice.get(f"/traces/{trace}/summary/prompt")
    assert model.chat_requests == []
    assert (await alice.post(f"/traces/{trace}/summary")).location == f"/traces/{trace}#summary"
    for _ in range(2):
        page = await alice.get(f"/traces/{trace}")
        assert "You saw a heron at the weir." in page.visible_text
        assert "summed up by scripted" in page.visible_text
        assert f'href="/d/2025-03-01#e-{ids[0]}" aria-label="passage 1"' in page.text
        assert f'href="/d/2026-07-02#e-{ids[1]}" aria-label="passage 2"' in page.text
        assert f'hx-post="/traces/{trace}/summary"' not in page.text
    assert len(model.chat_requests) == 1
    sent = model.chat_requests[0].body["messages"][-1]["content"]
    assert "[1] Saturday, 1 March 2025\n> At the #lake" in sent
    assert "secret" not in sent
    *told, _ = re.findall(r"<pre[^>]*>(.*?)</pre>", shown.text, re.DOTALL)
    assert [html.unescape(text) for text in told] == [
        m["content"] for m in model.chat_requests[0].body["messages"]
    ]
    gone = await alice.post(f"/traces/{trace}/summary/delete", fragment=True)
    assert f'hx-post="/traces/{trace}/summary"' in gone.text
    assert "You saw a heron" not in (await alice.get(f"/traces/{trace}")).text
    assert await digests(app) == 0


@pytest.mark.parametrize(
    "said",
    [
        "You love herons.",
        "You saw a heron. [7]",
        "You saw `xs[1]`.",
    ],
)
async def test_a_sentence_that_rests_on_nothing_is_left_out(
    app: RunningApp, alice: Visitor, model: ScriptedModel, said: str
) -> None:
    trace, _ = await lake(app, alice)
    model.script(Reply([f"You saw a heron. [1] {said} It came back. [2] And then"]), Reply([said]))
    part = await alice.post(f"/traces/{trace}/summary", fragment=True)
    assert re.sub(r"\s+", " ", part.visible_text).startswith(
        "You saw a heron. 1 It came back. 2 summed up by"
    )
    await alice.post(f"/traces/{trace}/summary/delete")
    refused = await alice.post(f"/traces/{trace}/summary", fragment=True)
    assert refused.status == 503
    assert refused.error_sentence.startswith("The model said nothing that your entries bear out")
    assert await digests(app) == 0


async def test_a_summary_tells_the_writers_words_from_what_it_makes_up(
    app: RunningApp, alice: Visitor, model: ScriptedModel
) -> None:
    trace, _ = await lake(app, alice)
    model.script(
        Reply(["You wrote “the heron of the lake came back” [2] and “I hate every heron” [1]."])
    )
    part = await alice.post(f"/traces/{trace}/summary", fragment=True)
    assert '“<mark class="verified">the heron of the lake came back</mark>”' in part.text
    assert '“<span class="not-found">I hate every heron</span>”' in part.text


@pytest.mark.parametrize(
    "how", ["edited", "withheld", "deleted", "removed", "added", "renamed", "erased"]
)
async def test_it_goes_when_its_entries_change(
    app: RunningApp, alice: Visitor, model: ScriptedModel, how: str
) -> None:
    model.default_reply = Reply([HERON])
    trace, ids = await lake(app, alice)
    await alice.post(f"/traces/{trace}/summary")
    assert await digests(app) == 1
    keys, first = app.keys(), bytes.fromhex(ids[0])
    if how == "edited":
        await app.services.journal.edit(keys, first, "At the #lake: a gull.", 1)
    elif how == "withheld":
        await alice.post(f"/e/{ids[0]}/withheld", {"withheld": "yes"})
    elif how in ("deleted", "erased"):
        await alice.post(f"/e/{ids[0]}/delete")
    elif how == "removed":
        await alice.post(f"/e/{ids[0]}/traces/{trace}/remove")
    elif how == "added":
        await alice.write("Rain on the #lake.")
    else:
        await alice.post(f"/traces/{trace}/name", {"name": "mere"})
    if how == "erased":
        await app.services.trash.erase(keys, first)
    if how in ("erased", "removed", "added", "renamed"):
        assert await digests(app) == 0  # at once, not only when somebody looks
    await app.services.search.wait_until_idle(keys.user_id)
    page = await alice.get(f"/traces/{trace}")
    assert page.status == (404 if how == "renamed" else 200)
    assert "You saw a heron" not in page.text
    assert await digests(app) == 0


async def test_with_replies_off_there_is_none(
    app: RunningApp, alice: Visitor, model: ScriptedModel
) -> None:
    model.default_reply = Reply([HERON])
    trace, _ = await lake(app, alice)
    await alice.post(f"/traces/{trace}/summary")
    await alice.post("/you/replies", {"replies": "off"})
    page = await alice.get(f"/traces/{trace}")
    assert f"{trace}/summary" not in page.text
    assert "You saw a heron" not in page.text
    assert (await alice.post(f"/traces/{trace}/summary")).status == 404
    assert (await alice.get(f"/traces/{trace}/summary/prompt")).status == 404
    assert len(model.chat_requests) == 1


async def test_many_entries_are_read_from_both_ends(
    app: RunningApp, alice: Visitor, model: ScriptedModel
) -> None:
    for number in range(1, 16):
        await alice.write(f"Entry {number} at the #lake.", f"2026-01-{number:02}")
    await app.services.search.wait_until_idle(app.keys().user_id)
    trace = (await app.services.journal.tags.find_by_name(app.keys(), "lake")).id.hex()
    model.default_reply = Reply(["It began. [1] It ended. [12]"])
    part = await alice.post(f"/traces/{trace}/summary", fragment=True)
    assert re.findall(r'href="/d/([\d-]+)#', part.text) == ["2026-01-01", "2026-01-15"]
    sent = model.chat_requests[0].body["messages"][-1]["content"]
    assert re.findall(r"> Entry (\d+)", sent) == [str(n) for n in (*range(1, 7), *range(10, 16))]
    middle = (
        await app.services.journal.get_page(
            app.keys(),
            (await app.services.journal.tags.entries_with_tag(app.keys(), bytes.fromhex(trace)))[7][
                1
            ],
        )
    )[0].root
    await app.services.journal.edit(app.keys(), middle.id, "Entry 8 of the #lake.", middle.revision)
    assert "It began." not in (await alice.get(f"/traces/{trace}")).text
