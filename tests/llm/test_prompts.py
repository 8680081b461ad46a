"""Templates are filled, and can be overridden."""

import re
from pathlib import Path

import pytest

from llamora.llm.budget import Turn
from llamora.llm.client import ModelClient
from llamora.llm.prompts import PROMPT_VERSION, PromptBuilder, PromptTemplateError
from tests.llm.prompting import DAY, SMALL_CONTEXT, build
from tests.scripted_model import ScriptedModel


async def test_a_folder_overrides_templates(tmp_path: Path) -> None:
    (tmp_path / "reply.system.j2").write_text("Answer like a sailor.")
    builder = PromptBuilder(SMALL_CONTEXT, tmp_path)
    assert builder.version.startswith(PROMPT_VERSION + "+")
    assert PromptBuilder(SMALL_CONTEXT, None).version == PROMPT_VERSION
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", SMALL_CONTEXT)
        prompt = await builder.build_reply(
            client, day=DAY, thread=[Turn("me", "Ahoy.")], rest_of_day=[], passages=[]
        )
        await client.close()
    assert prompt.messages[0].content == "Answer like a sailor."
    assert prompt.messages[1].content.endswith("Ahoy.")


@pytest.mark.parametrize("text", ["{{ nothing_of_the_kind }}", "{% if %}", "{{ 1 / 0 }}"])
def test_a_broken_override_is_named_at_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "reply.user.j2").write_text(text)
    with pytest.raises(PromptTemplateError, match=r"^template_unusable$") as caught:
        PromptBuilder(SMALL_CONTEXT, tmp_path)
    assert caught.value.params["name"] == "reply.user.j2"


async def test_an_empty_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="answer"):
        await build([])


def test_the_shipped_templates_hold_the_voice() -> None:
    text = (Path(__file__).parents[2] / "src/llamora/llm/templates/reply.system.j2").read_text()
    for rule in (
        "Mirror it",
        "Do not infer suffering, traits",
        "Do not end with a question",
        "instruction",
    ):
        assert re.search(re.escape(rule), text)
