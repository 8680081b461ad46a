"""Suggested traces: on request, never put on an entry by themselves; one that was rejected stays rejected."""

import html
import json
import re

import pytest

from llamora.journal.suggestions import extract_keywords, parse_names
from tests.app.conftest import RunningApp, Start, Visitor, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

NAME = re.compile(r'name="name" value="([^"]*)"')


def suggested(text: str) -> list[str]:
    return [html.unescape(name) for name in NAME.findall(text)]


@pytest.fixture
async def connected(start: Start, model: ScriptedModel) -> RunningApp:
    return await start(llm=settings_for_model(model))


async def test_without_a_model_they_are_words_of_the_text_and_own_names(
    app: RunningApp, alice: Visitor
) -> None:
    await alice.write("#boats in the harbour", "2026-01-01")
    await app.services.search.wait_until_idle(app.keys().user_id)
    entry = await alice.write(
        "The boat lay in the harbour; Margaret mended the sail. The sail is old."
    )
    part = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    names = suggested(part.text)
    assert names[0] == "boats"
    assert {"Margaret", "sail", "harbour"} < set(names)
    assert len(names) == len({name.casefold() for name in names}) <= 6
    assert "named by" not in part.visible_text
    assert (
        "#Margaret" not in (await alice.get("/d/2026-11-20")).visible_text
    )  # nothing is put on it


async def test_one_is_taken_and_one_rejected(app: RunningApp, alice: Visitor) -> None:
    entry = await alice.write("Then Margaret mended the sail of the boat.")
    names = suggested((await alice.post(f"/e/{entry}/traces/suggested", fragment=True)).text)
    rest = "\n".join(names)
    part = await alice.post(f"/e/{entry}/traces", {"name": "sail", "rest": rest}, fragment=True)
    assert "#sail" in part.visible_text
    assert suggested(part.text) == [name for name in names if name != "sail"]
    part = await alice.post(
        f"/e/{entry}/traces/refused", {"name": "Margaret", "rest": rest}, fragment=True
    )
    assert "Margaret" not in suggested(part.text)
    again = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert not {"Margaret", "sail"} & set(suggested(again.text))
    other = await alice.write("And Margaret again.")
    assert "Margaret" in suggested((await alice.post(f"/e/{other}/traces/suggested")).text)
    charlie = await app.visitor("Charlie")
    assert (await charlie.post(f"/e/{entry}/traces/suggested")).status == 404
    assert (await charlie.post(f"/e/{entry}/traces/refused", {"name": "x"})).status == 404


async def test_the_model_is_asked_with_a_schema_and_checked(
    connected: RunningApp, model: ScriptedModel
) -> None:
    alice = await connected.visitor()
    model.default_reply = Reply([json.dumps({"tags": ["Sail", "sail", "!!", "repair", "x" * 80]})])
    entry = await alice.write("Then Margaret mended the sail.")
    assert model.chat_requests == []
    part = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert suggested(part.text)[:2] == ["Sail", "repair"]
    assert "some named by scripted" in part.visible_text
    assert model.chat_requests[-1].body["response_format"]["json_schema"]["name"] == "tags"
    model.default_reply = Reply(["I would rather talk about it."])
    part = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert {"Margaret", "sail"} <= set(suggested(part.text))


async def test_what_the_model_may_not_read_is_not_sent(
    connected: RunningApp, model: ScriptedModel
) -> None:
    alice = await connected.visitor()
    entry = await alice.write("Then Margaret mended the sail.")
    await alice.post(f"/e/{entry}/withheld", {"withheld": "yes"})
    part = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert "Margaret" in suggested(part.text)
    await alice.post(f"/e/{entry}/withheld", {"withheld": "no"})
    await alice.post("/you/replies", {"replies": "off"})
    part = await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    assert "Margaret" in suggested(part.text)
    assert "model" not in part.visible_text
    assert model.chat_requests == []


async def test_after_writing_only_where_switched_on(alice: Visitor) -> None:
    kept = await alice.post("/d/2026-11-20/entries", {"text": "A sail."}, fragment=True)
    assert 'hx-trigger="load"' not in kept.text
    await alice.post("/you/settings", {"section": "writing", "suggest": "on", "was-suggest": "off"})
    kept = await alice.post("/d/2026-11-20/entries", {"text": "A boat."}, fragment=True)
    assert 'traces/suggested" hx-trigger="load"' in kept.text


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", '{"tags": "x"}', '{"tags": [1, null, {}]}', "null", "{}"]
)
def test_an_answer_of_another_form_names_nothing(answer: str) -> None:
    assert parse_names(answer) == []


def test_keywords_are_words_of_the_text() -> None:
    assert extract_keywords("", 5) == []
    assert extract_keywords("It was and it is.", 5) == []
    found = extract_keywords("Walked with Anna. Anna’s garden, the gardens of Köln; http", 10)
    assert found[0] == "Anna"
    assert "Köln" in found


async def test_a_model_hears_no_name_that_only_stands_on_what_it_may_not_read(
    connected: RunningApp, model: ScriptedModel
) -> None:
    alice = await connected.visitor()
    secret = await alice.write("#heron at the weir", "2026-01-01")
    await alice.write("#boats in the harbour", "2026-01-02")
    await alice.post(f"/e/{secret}/withheld", {"withheld": "yes"})
    await connected.services.search.wait_until_idle(connected.keys().user_id)
    model.default_reply = Reply([json.dumps({"tags": ["sail"]})])
    entry = await alice.write("Then Margaret mended the sail.")
    await alice.post(f"/e/{entry}/traces/suggested", fragment=True)
    sent = str(model.chat_requests[-1].body["messages"])
    assert "boats" in sent
    assert "heron" not in sent


async def test_what_was_rejected_stays_so_under_another_name(
    app: RunningApp, alice: Visitor
) -> None:
    other = await alice.write("#swim", "2026-01-01")
    entry = await alice.write("A swim in the lake.")
    await app.services.search.wait_until_idle(app.keys().user_id)
    assert "swim" in suggested((await alice.post(f"/e/{entry}/traces/suggested")).text)
    await alice.post(f"/e/{entry}/traces/refused", {"name": "swim"})
    (trace,) = (await app.services.journal.tags.tags_of(app.keys(), [bytes.fromhex(other)]))[
        bytes.fromhex(other)
    ]
    await alice.post(f"/traces/{trace.id.hex()}/name", {"name": "water"})
    assert not {"swim", "water"} & set(
        suggested((await alice.post(f"/e/{entry}/traces/suggested")).text)
    )
    (trace,) = (await app.services.journal.tags.tags_of(app.keys(), [bytes.fromhex(other)]))[
        bytes.fromhex(other)
    ]
    await alice.post(f"/traces/{trace.id.hex()}/hidden", {"hidden": "yes"})
    fresh = await alice.write("Another swim.")
    assert not {"swim", "water"} & set(
        suggested((await alice.post(f"/e/{fresh}/traces/suggested")).text)
    )
