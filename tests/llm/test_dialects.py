"""What the servers that say they speak the OpenAI dialect send, and where: each kind is read and answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from llamora.llm.client import ModelClient
from llamora.settings import LlmSettings
from tests.llm.asking import ASK, KEY, QUICK, say
from tests.llm.test_errors import server_certificate
from tests.scripted_model import Reply, ScriptedModel, encode_event

MORNING = "Good morning."
HERON = ("The heron stood by the river for a long while and did not move at all. " * 20)[:1200]
THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "They walked."}]}]
VLLM_TOO_LONG = {
    "object": "error",
    "message": "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens",
    "type": "BadRequestError",
    "code": 400,
}


def wanted(*values: object, test_id: str, reason: str) -> Any:
    """A row of a table that does not hold yet."""
    return pytest.param(*values, id=test_id, marks=pytest.mark.xfail(strict=True, reason=reason))


STREAMS = [
    wanted(
        Reply([" morning."], preamble=[encode_event("Good"), b"data:\n\n"]),
        MORNING,
        test_id="an empty data line",
        reason="issue 14, item 3: a line that only keeps the stream open ends the reply",
    ),
    wanted(
        Reply([MORNING], preamble=[b"retry: 3000\n\n"]),
        MORNING,
        test_id="retry alone",
        reason="issue 14, item 3: a gateway's first event is taken for one of the model",
    ),
    wanted(
        Reply(["Good ", "morning."], content_type="text/plain; charset=utf-8"),
        MORNING,
        test_id="text/plain",
        reason="issue 14, item 3: only text/event-stream is read",
    ),
    wanted(
        Reply(
            [" morning."],
            preamble=[encode_event(THOUGHT), encode_event([{"type": "text", "text": "Good"}])],
        ),
        MORNING,
        test_id="content in parts",
        reason="issue 14, item 3: content is taken for text only",
    ),
    wanted(
        Reply(HERON),
        HERON,
        test_id="letter by letter",
        reason="issue 14, item 3: an event is counted as a token",
    ),
]


@pytest.mark.parametrize(("reply", "text"), STREAMS)
async def test_a_stream_is_read_as_the_server_sends_it(reply: Reply, text: str) -> None:
    async with ScriptedModel() as model:
        model.script(reply)
        client = ModelClient(model.url, "", QUICK, model="m")
        assert await say(client, max_tokens=400) == (text, None)
        await client.close()


@pytest.mark.xfail(strict=True, reason="issue 14, item 5: /v1 is put behind every address")
@pytest.mark.parametrize(
    ("api_path", "given"), [("/v1beta/openai", "/v1beta/openai/"), ("/v1", "/v1/chat/completions")]
)
async def test_an_address_is_used_as_it_was_given(api_path: str, given: str) -> None:
    async with ScriptedModel(api_path=api_path) as model:
        model.default_reply = Reply([MORNING])
        client = ModelClient(model.url + given, "", QUICK)
        assert await say(client) == (MORNING, None)
        await client.close()


@pytest.mark.xfail(strict=True, reason="issue 14, item 9: only public authorities are trusted")
async def test_an_authority_that_this_machine_trusts_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = server_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with ScriptedModel(tls=tls) as model:
        model.default_reply = Reply([MORNING])
        client = ModelClient(model.url, KEY, QUICK, model="m")
        assert await say(client) == (MORNING, None)
        await client.close()


@pytest.mark.xfail(strict=True, reason="issue 16, item 4: max_model_len of /v1/models is not read")
async def test_the_context_that_vllm_lists_is_the_context() -> None:
    async with ScriptedModel(models=[{"id": "m", "max_model_len": 1600}], props=False) as model:
        client = ModelClient(model.url, "", QUICK)
        assert (await client.describe()).context_tokens == 1600
        await client.close()


def refuse(status: int, error: object) -> Reply:
    return Reply(fault="status", status=status, body=json.dumps(error))


@pytest.mark.xfail(
    strict=True, reason="issue 16, item 4: vLLM's words for a text too long are not known"
)
async def test_a_text_that_vllm_finds_too_long_is_said_to_be_so() -> None:
    async with ScriptedModel() as model:
        model.script(refuse(400, VLLM_TOO_LONG))
        client = ModelClient(model.url, "", QUICK, model="m")
        _, error = await say(client)
        await client.close()
    assert error is not None
    assert (error.kind, error.code) == ("too_long", "server_text_too_long")


def without_embedding(body: dict[str, Any]) -> Reply:
    """Ollama lists the newest model first, whatever it is for."""
    if "embed" in body["model"]:
        return refuse(400, {"error": {"message": f'"{body["model"]}" does not support chat'}})
    return Reply([MORNING])


def without_system(body: dict[str, Any]) -> Reply:
    """Chat templates of Gemma 2 and some of Mistral's."""
    if any(message["role"] == "system" for message in body["messages"]):
        return refuse(
            500, {"error": {"code": 500, "message": "Jinja Exception: System role not supported"}}
        )
    return Reply([MORNING])


PARTICULAR = [
    wanted(
        ["nomic-embed-text:latest", "llama3.2:3b"],
        without_embedding,
        test_id="an embedding model first",
        reason="issue 16, item 4: the first model of the list is taken for one that talks",
    ),
    wanted(
        ["gemma-2"],
        without_system,
        test_id="no system role",
        reason="issue 16, item 4: instructions are sent as a system message alone",
    ),
]


@pytest.mark.parametrize(("models", "answer"), PARTICULAR)
async def test_a_server_with_a_peculiar_model_answers(models: list[str], answer: Any) -> None:
    async with ScriptedModel(models=models) as model:
        model.default_reply = answer
        client = ModelClient(model.url, "", LlmSettings())
        assert await say(client) == (MORNING, None)
        await client.close()
    assert ASK[0].content in str(model.chat_requests[-1].body["messages"])
