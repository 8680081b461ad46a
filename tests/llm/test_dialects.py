"""What the servers that say they speak the OpenAI dialect send, and where: each kind is read and answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from llamora.llm.client import ModelClient
from llamora.settings import LlmSettings, load_settings
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


GOOD = encode_event("Good")
END = encode_event(None, finish_reason="stop")


def raw(*lines: bytes, content_type: str = "text/event-stream") -> Reply:
    """A body of these bytes alone."""
    return Reply([], preamble=lines, content_type=content_type, fault="cut_quietly")


def answer(message: object, **fields: object) -> bytes:
    """A whole answer, as without `stream`."""
    return json.dumps({"choices": [{"index": 0, "message": message, **fields}]}).encode()


STREAMS = {
    "an empty data line": Reply([" morning."], preamble=[GOOD, b"data:\n\n"]),
    "retry alone": Reply([MORNING], preamble=[b"retry: 3000\n\n"]),
    "id alone": Reply([" morning."], preamble=[GOOD, b"id: 7\n\n", b"id\n\n"]),
    "a byte-order mark": Reply([MORNING], preamble=[b"\xef", b"\xbb\xbf"]),
    "text/plain": Reply(["Good ", "morning."], content_type="text/plain; charset=utf-8"),
    "JSON as content type": Reply(["Good ", "morning."], content_type="application/json"),
    "no content type": Reply(["Good ", "morning."], content_type=""),
    "CRLF": raw(*(part.replace(b"\n", b"\r\n") for part in (encode_event(MORNING), END))),
    "CR, cut anywhere": raw(
        *(bytes([byte]) for byte in (encode_event(MORNING) + END).replace(b"\n", b"\r"))
    ),
    "several data lines": raw(
        GOOD, b'data: {"choices": [{"delta":\ndata: {"content": " morning."}}]}\n\n', END
    ),
    "no blank lines": raw(
        *(part.replace(b"\n\n", b"\n") for part in (GOOD, encode_event(" morning."), END)),
        b"data: [DONE]",
    ),
    "no space, and other events": raw(
        b"event: ping\ndata: {}\n\n",
        b"data: keep-alive\n\n",
        b"event: message\n" + encode_event(MORNING).replace(b"data: ", b"data:"),
        b"data:[DONE]\n\n",
    ),
    "empty choices": Reply([MORNING], preamble=[b'data: {"choices": [], "usage": null}\n\n']),
    "content in parts": Reply(
        [" morning."],
        preamble=[encode_event(THOUGHT), encode_event([{"type": "text", "text": "Good"}])],
    ),
    "a refusal": Reply([], preamble=[encode_event(MORNING, field="refusal")]),
    "the whole once more": Reply([MORNING], preamble=[], finish_reason="stop"),
    "reasons that are none": raw(
        encode_event("Good", finish_reason=""), encode_event(" morning.", finish_reason="null"), END
    ),
    "a whole answer": raw(
        answer({"content": MORNING}, finish_reason="stop"), content_type="application/json"
    ),
    "a whole answer in parts, without a reason": raw(
        json.dumps(
            json.loads(answer({"content": [{"type": "text", "text": MORNING}]})), indent=1
        ).encode(),
        content_type="application/json",
    ),
    "JSON, a line each": raw(
        GOOD.removeprefix(b"data: "),
        encode_event(" morning.").removeprefix(b"data: "),
        content_type="application/x-ndjson",
    ),
}


@pytest.mark.parametrize("reply", STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_read_as_the_server_sends_it(reply: Reply) -> None:
    async with ScriptedModel() as model:
        model.script(reply, Reply(HERON))
        client = ModelClient(model.url, "", QUICK, model="m")
        assert await say(client, max_tokens=400) == (MORNING, None)
        assert await say(client, max_tokens=400) == (HERON, None)  # letter by letter
        await client.close()


ERRORS = [
    (b'data: {"error": {"code": 429, "message": "PRIVATE"}}\n\n', "server_busy"),
    (b'data: {"error": "PRIVATE"}\n\n', "server_reported_error"),
    (b'error: {"code": 400, "type": "exceed_context_size_error"}\n\n', "server_text_too_long"),
    (b'event: error\ndata: {"message": "PRIVATE"}\n\n', "server_reported_error"),
    (b'{"object": "error", "message": "PRIVATE", "code": 402}', "server_wants_payment"),
    (b'{"detail": "PRIVATE"}', "server_reported_error"),
    (b'{"models": []}', "server_foreign"),
    (b"Welcome!\n", "server_foreign"),
]


@pytest.mark.parametrize(("body", "code"), ERRORS)
async def test_an_error_in_place_of_a_reply_is_told(body: bytes, code: str) -> None:
    async with ScriptedModel() as model:
        model.script(raw(body, content_type="text/plain"))
        client = ModelClient(model.url, "", QUICK, model="m")
        text, error = await say(client)
        await client.close()
    assert text == ""
    assert error is not None
    assert error.code == code


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        ("stop", []),
        ("eos_token", []),
        ("length", ["length"]),
        ("MAX_TOKENS", ["length"]),
        ("content_filter", ["filter"]),
        ("SAFETY", ["filter"]),
        ("tool_calls", ["tool"]),
        ("insufficient_system_resource", ["other"]),
    ],
)
async def test_why_a_reply_ended_is_told(reason: str, ends: list[str]) -> None:
    async with ScriptedModel() as model:
        model.script(Reply([MORNING], finish_reason=reason))
        client = ModelClient(model.url, "", QUICK, model="m")
        told: list[str] = []
        async for _ in client.stream(ASK, max_tokens=50, on_early_end=told.append):
            pass
        await client.close()
    assert told == ends


@pytest.mark.parametrize("life", [b": still here\n\n", encode_event(""), b"data:\n\n"])
async def test_signs_of_life_are_waited_for_as_long_as_the_settings_say(life: bytes) -> None:
    alive = Reply([MORNING], preamble=[life] * 4, preamble_delay=0.5)
    async with ScriptedModel() as model:
        model.script(alive)
        client = ModelClient(model.url, "", QUICK, model="m")
        assert await say(client) == (MORNING, None)
        await client.close()


async def test_what_is_asked_on_the_side_fails_no_reply() -> None:
    async with ScriptedModel() as model:
        model.list_delay = 3600
        client = ModelClient(model.url, "", QUICK)
        assert (await client.describe()).name == "default"
        assert await say(client) == ("It was a quiet day.", None)
        model.api_path = "/elsewhere"  # no list of models
        assert (await client.describe()).context_tokens == QUICK.context_tokens
        await client.close()


@pytest.mark.parametrize(
    ("api_path", "given"),
    [
        ("/v1beta/openai", "/v1beta/openai/"),
        ("/v1", "/v1/chat/completions"),
        ("/api/paas/v4", "/api/paas/v4"),
        ("", "/chat/completions/"),
        ("/llama/v1", "/llama"),
    ],
)
async def test_an_address_is_used_as_it_was_given(api_path: str, given: str) -> None:
    async with ScriptedModel(api_path=api_path) as model:
        model.default_reply = Reply([MORNING])
        client = ModelClient(model.url + given, "", QUICK)
        assert await say(client) == (MORNING, None)
        await client.close()


@pytest.mark.parametrize("by", ["SSL_CERT_FILE", "LLAMORA_LLM__CA_FILE"])
async def test_an_authority_that_this_machine_trusts_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    tls, authority = server_certificate(tmp_path)
    monkeypatch.setenv(by, str(authority))
    async with ScriptedModel(tls=tls) as model:
        model.default_reply = Reply([MORNING])
        client = ModelClient(model.url, KEY, load_settings().llm, model="m")
        assert await say(client) == (MORNING, None)
        await client.close()
        authority.write_text("no certificate")
        client = ModelClient(model.url, KEY, load_settings().llm, model="m")
        _, error = await say(client)
        assert error is not None
        assert error.code == "ca_file_unreadable"


async def test_what_stands_behind_an_address_goes_with_each_request() -> None:
    async with ScriptedModel(api_path="/openai/deployments/m") as model:
        given = f"{model.url}/openai/deployments/m/chat/completions?api-version=2024-10-21"
        client = ModelClient(given, KEY, QUICK)
        assert await say(client) == ("It was a quiet day.", None)
        model.script(Reply(fault="status", status=404))
        _, error = await say(client)
        await client.close()
    assert {request.query for request in model.requests} == {"api-version=2024-10-21"}
    assert {request.headers["api-key"] for request in model.requests} == {KEY}
    assert error is not None
    assert error.code == "server_lacks_route"
    assert error.params["place"] == f"{model.url}/openai/deployments/m/chat/completions"


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
