"""You: the model that answers."""

import pytest

from llamora.settings import LlmSettings, UpstreamSettings
from tests.app.conftest import Start, connected_to
from tests.scripted_model import ScriptedModel


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
