"""The model client against a scripted server."""

import pytest

from llamora.llm.client import ModelClient
from llamora.settings import LlmSettings
from tests.llm.asking import ASK, KEY, SECRET
from tests.scripted_model import Reply, ScriptedModel


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_streams_what_the_server_says(suffix: str) -> None:
    async with ScriptedModel(api_key=KEY) as model:
        model.script(Reply(["You ", "were", " out 🪶", ".\n"]))
        client = ModelClient(model.url + suffix, KEY, LlmSettings(temperature=0.3))
        pieces = [
            p
            async for p in client.stream(
                ASK, max_tokens=9, extra={"grammar": "g", "stop": ["END"], "temperature": 0.9}
            )
        ]
        await client.close()
    assert pieces == ["You ", "were", " out 🪶", ".\n"]
    [chat] = model.chat_requests
    assert chat.body["messages"] == [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": SECRET},
    ]
    assert chat.body["max_tokens"] == 9
    assert chat.body["stop"] == ["END"]
    assert chat.body["grammar"] == "g"
    assert chat.body["temperature"] == 0.9
    assert chat.body["model"] == "scripted"
