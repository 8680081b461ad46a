"""You: the zone in which days begin and end, and the model that answers."""

import pytest

from llamora.settings import LlmSettings, UpstreamSettings
from tests.app.conftest import Running, Start, connected_to
from tests.scripted_model import ScriptedModel


async def test_the_zone_is_shown_and_set(app: Running) -> None:
    alice, bob = await app.visitor(), await app.visitor("Bob")
    page = await alice.get("/you")
    assert "<h1>Alice</h1>" in page.text
    assert '<option value="Europe/Berlin" selected>' in page.text
    answer = await alice.post("/you/zone", {"zone": "Asia/Kathmandu"})
    assert (answer.status, answer.location) == (303, "/you")
    assert '<option value="Asia/Kathmandu" selected>' in (await alice.get("/you")).text
    assert '<option value="Europe/Berlin" selected>' in (await bob.get("/you")).text


@pytest.mark.parametrize("zone", ["", "Europe/Atlantis", "../../etc/passwd", "europe/berlin ", "\x00"])
async def test_a_zone_that_is_none_is_refused_with_a_sentence(app: Running, zone: str) -> None:
    alice = await app.visitor()
    answer = await alice.post("/you/zone", {"zone": zone})
    assert answer.status == 422
    assert answer.problem == "That is not a zone this machine knows. Choose one of the list."
    assert '<option value="Europe/Berlin" selected>' in answer.text


async def test_another_zone_leaves_what_was_written_where_it_stands(app: Running) -> None:
    alice = await app.visitor()
    entry = await alice.write("Here.", day="2026-11-20")
    await alice.post("/you/zone", {"zone": "Pacific/Apia"})
    assert (await alice.get("/d/2026-11-20")).ids == [entry]


async def test_a_model_on_this_machine_is_named(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=connected_to(model))
    page = await (await app.visitor()).get("/you")
    assert "Replies come from scripted" in page.words
    assert "It is on this machine: nothing you write leaves it." in page.words
    assert f"127.0.0.1:{model.port}" in page.text


async def test_a_model_that_does_not_answer_is_said(start: Start, model: ScriptedModel) -> None:
    await model.stop()
    app = await start(llm=connected_to(model))
    alice = await app.visitor()
    page = await alice.get("/you")
    assert page.status == 200
    assert "the model you connected; 127.0.0.1 does not answer just now" in page.words
    assert (await alice.get("/d/today")).status == 200


@pytest.mark.parametrize(
    ("llm", "sentence"),
    [
        (LlmSettings(enabled=False), "The model is switched off in the settings."),
        (LlmSettings(embedded=False), "No model is connected: set llm.upstream.host"),
        (LlmSettings(enabled=False, upstream=UpstreamSettings(host="http://127.0.0.1:9")), "switched off"),
    ],
)
async def test_without_a_model_a_sentence_says_why(start: Start, llm: LlmSettings, sentence: str) -> None:
    app = await start(llm=llm)
    alice = await app.visitor()
    assert sentence in (await alice.get("/you")).words
    assert sentence in (await alice.get("/d/today")).words
