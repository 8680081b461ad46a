"""You: the model that answers."""

import pytest

from llamora.settings import LlmSettings, UpstreamSettings
from tests.app.conftest import Start, settings_for_model
from tests.scripted_model import ScriptedModel


async def test_a_model_on_this_machine_is_named(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=settings_for_model(model))
    page = await (await app.visitor()).get("/you")
    assert "Replies come from scripted" in page.visible_text
    assert "It is on this machine: nothing you write leaves it." in page.visible_text
    assert f"127.0.0.1:{model.port}" in page.text


async def test_a_model_that_does_not_answer_is_said(start: Start, model: ScriptedModel) -> None:
    await model.stop()
    app = await start(llm=settings_for_model(model))
    alice = await app.visitor()
    page = await alice.get("/you")
    assert page.status == 200
    assert "the model you connected; 127.0.0.1 does not answer just now" in page.visible_text
    assert "Start the model server, then test it here." in page.visible_text
    assert (
        "It is on this machine" in page.visible_text
    )  # a silent one on this machine is still on it
    assert (await alice.get("/d/today")).status == 200


@pytest.mark.parametrize(
    ("llm", "sentence"),
    [
        (LlmSettings(enabled=False), "The model is switched off in the settings."),
        (LlmSettings(embedded=False), "No model is connected: set llm.upstream.host"),
        (
            LlmSettings(enabled=False, upstream=UpstreamSettings(host="http://127.0.0.1:9")),
            "switched off",
        ),
    ],
)
async def test_without_a_model_a_sentence_says_why(
    start: Start, llm: LlmSettings, sentence: str
) -> None:
    app = await start(llm=llm)
    alice = await app.visitor()
    assert sentence in (await alice.get("/you")).visible_text
    assert sentence in (await alice.get("/d/today")).visible_text


async def test_settings_that_cannot_be_read_keep_nobody_out_and_it_is_said(start: Start) -> None:
    app = await start()
    async with app.services.db._connections.write() as tx:
        await tx.execute(
            "UPDATE profiles SET sealed=CAST(substr(sealed, 1, length(sealed)-1) || X'00' AS BLOB)"
        )
    alice = app.anonymous()
    assert (await alice.sign_in()).status == 303
    for path in ("/d/2026-11-20", "/you", "/search"):
        page = await alice.get(path)
        assert page.status == 200
        assert "Your settings could not be read" in page.visible_text
    assert "UTC" in (await alice.get("/you")).visible_text
    assert (
        await alice.post("/you/lock-after", {"minutes": "15"})
    ).status == 303  # set anew, it is whole
    page = await alice.get("/you")
    assert "could not be read" not in page.visible_text
    assert 'value="15" selected' in page.text
