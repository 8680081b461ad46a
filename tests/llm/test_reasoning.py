"""What a model thinks aloud is neither shown nor kept, also where its chat template opened the thought."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.llm.client import Message, ModelClient
from llamora.llm.embedded import EmbeddedServer, find_model
from llamora.llm.errors import ModelError
from llamora.llm.reasoning import (
    REASONING_CLOSED,
    ReasoningFilter,
    ends_in_reasoning,
    without_reasoning,
)
from llamora.settings import LlmSettings
from tests.scripted_model import Reply, ScriptedModel

ALONE = ["They are ", "sad. I should…</thi", "nk>\n\nA quiet", " day."]
QUICK = LlmSettings(timeout_seconds=5)


async def said(client: ModelClient, pieces: list[str] | None = None) -> list[str]:
    """The pieces that came, put into `pieces` one by one."""
    pieces = [] if pieces is None else pieces
    await client.describe()  # as whoever makes a prompt does
    async for piece in client.stream([Message("user", "Well?")], max_tokens=50):
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("server", ["llama.cpp", "vLLM"])
@pytest.mark.parametrize(
    "end", ["<think>", "<|im_start|>assistant\n<think>\n", "[THINK]", "◁think▷"]
)
async def test_a_server_is_asked_whether_its_template_opens_a_thought(
    server: str, end: str
) -> None:
    async with ScriptedModel(props=server == "llama.cpp", prompt_end=end) as model:
        model.script(Reply(ALONE))
        client = ModelClient(model.url, "", QUICK)
        assert await said(client) == ["A quiet", " day."]
        assert all(
            "Well?" not in str(asked.body)
            for asked in model.requests
            if asked not in model.chat_requests
        )
        await client.close()


LLAMA_CPP = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.verbosity, params.model.path, params.n_ctx, params.offline = -1, sys.argv[1], 1024, True
params.hostnames, params.port, params.ui, params.use_jinja = ["127.0.0.1"], 0, False, True
params.chat_template = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant <think> {% endif %}"
)
server = xllamacpp.Server(params)
print("listens at", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.skipif(
    bool(EmbeddedServer.unavailable_reason()),
    reason=EmbeddedServer.unavailable_reason() or "available",
)
async def test_a_real_llama_cpp_tells_so_and_leaves_such_thoughts_in_the_text() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LLAMA_CPP, str(find_model())),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await child.stdout.readline()).startswith(b"listens at"):
                assert line, "it ended"
        client = ModelClient(line.decode().split()[-1], "", LlmSettings())
        thinks = {"grammar": 'root ::= "They are sad.</think>A quiet day."'}
        assert (await client.describe()).opens_reasoning
        pieces = [
            piece
            async for piece in client.stream(
                [Message("user", "Well?")], max_tokens=50, extra=thinks
            )
        ]
        assert "".join(pieces) == "A quiet day."
        await client.close()
    finally:
        child.stdin.close()
        await child.wait()


@pytest.mark.parametrize(
    "end", ["", "<|im_start|>assistant\n", "<think>\n\n</think>\n\n", "<thin ice>"]
)
async def test_a_template_that_opens_none_holds_nothing_back(end: str) -> None:
    async with ScriptedModel(prompt_end=end) as model:
        model.script(Reply(["A quiet", " day."]))
        client = ModelClient(model.url, "", QUICK)
        assert await said(client) == ["A quiet", " day."]
        await client.close()


async def test_what_the_settings_say_is_believed_and_else_the_first_reply() -> None:
    async with ScriptedModel() as model:
        model.default_reply = Reply(ALONE)
        told = ModelClient(model.url, "", QUICK, opens_reasoning=True)
        assert await said(told) == ["A quiet", " day."]
        await told.close()
        client = ModelClient(model.url, "", QUICK)
        first = await said(client)
        assert first[0] == "They are "  # nothing told of it
        assert without_reasoning("".join(first)) == "A quiet day."
        assert await said(client) == ["A quiet", " day."]
        await client.close()


async def test_a_belief_that_was_wrong_is_given_up_and_costs_no_word() -> None:
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", QUICK)
        model.script(Reply(["You wrote\n</think>", " today."]))
        await said(client)
        model.default_reply = Reply(["A quiet", " day."])
        assert await said(client) == ["A quiet day."]
        assert await said(client) == ["A quiet", " day."]
        await client.close()


async def test_where_thoughts_come_apart_the_answer_is_not_held_back() -> None:
    async with ScriptedModel(prompt_end="<think>\n") as model:
        model.script(Reply(["A quiet", " day."], reasoning=["They are ", "sad."]))
        client = ModelClient(model.url, "", QUICK)
        assert await said(client) == ["A quiet", " day."]
        await client.close()


async def test_a_thought_that_was_cut_off_is_no_answer() -> None:
    async with ScriptedModel(prompt_end="<think>\n") as model:
        model.script(Reply(ALONE[:1], finish_reason="length"), Reply(ALONE[:1], fault="cut"))
        client = ModelClient(model.url, "", QUICK)
        assert await said(client) == []
        pieces: list[str] = []
        with pytest.raises(ModelError):
            await said(client, pieces)
        assert pieces == []
        await client.close()


@pytest.mark.parametrize("end", ["<think>\n", ""])
async def test_an_answer_without_a_closing_mark_is_kept(end: str) -> None:
    async with ScriptedModel(prompt_end=end) as model:
        model.script(Reply(["A quiet", " day, <think>They are"]))
        client = ModelClient(model.url, "", QUICK)
        assert "".join(await said(client)) == "A quiet day, <think>They are"
        await client.close()


@pytest.mark.parametrize("size", [0, 1, 4])
@pytest.mark.parametrize(
    "pieces",
    [
        ["You could call it <reflection> in the file, ", "and go on as before."],
        ["Your note names the mark ", "`<think>`. ", "It begins a thought."],
        ["`<think>` opens it, and `</think>` closes it."],
        ["A thought ends with </think> there, and `[/THINK]` here."],
        ["Write:\n\n```\n<think>\nI am.\n</think>\n```\n\nThat is all."],
        ["Write:\n<thinking>\nI am.\n</thinking>\nThat is all."],
        ["ChatML ends a turn with `<|im_end|>` and HTML has <s> and </s> too."],
        ["Is it <|im_start|>user or <start_of_turn>? Ask."],
    ],
)
async def test_a_mark_named_in_words_is_words(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    async with ScriptedModel() as model:
        model.script(
            Reply([text[at : at + size] for at in range(0, len(text), size)] if size else pieces)
        )
        client = ModelClient(model.url, "", QUICK)
        assert "".join(await said(client)) == "".join(pieces)
        await client.close()


@given(st.text(), st.text(), st.sampled_from(["</think>", "[/THINK]", "◁/think▷"]), st.data())
def test_however_it_is_cut_nothing_comes_before_the_mark(
    thought: str, answer: str, mark: str, data: st.DataObject
) -> None:
    whole = thought + mark + answer
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
    got, plain = ReasoningFilter(starts_open=True), ReasoningFilter()
    shown = "".join(map(got.feed, pieces)) + got.finish(is_complete=True)
    assert shown.strip() == (plain.feed(answer) + plain.finish(is_complete=True)).strip()
    assert got.closed_without_opening


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    "text",
    [
        "They are sad.\n</think>\n\nA quiet day.",
        "They are sad.</think>A quiet day.",
        "◁think▷They are `sad.◁/think▷A quiet day.",
        "<think>Sad, as <think> may be.</think>\nA quiet day.",
        "[THINK]Sad.[/THINK]A quiet day.",
        "<think></think><thinking>Sad.</thinking>A quiet day.",
        "<|channel|>analysis<|message|>Sad.<|end|><|start|>assistant<|channel|>final<|message|>A quiet day.",
    ],
)
def test_a_thought_before_the_first_word_is_left_out(text: str, size: int) -> None:
    thoughts = ReasoningFilter()
    shown = "".join(thoughts.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert without_reasoning(shown + thoughts.finish(is_complete=True)).strip() == "A quiet day."


def test_no_model_says_the_mark_of_ours() -> None:
    thoughts = ReasoningFilter()
    assert thoughts.feed(f"A{REASONING_CLOSED}B") + thoughts.finish(is_complete=True) == "AB"


def test_only_the_end_of_a_prompt_counts() -> None:
    assert ends_in_reasoning("x" * 10_000 + "<think>\n")
    assert not ends_in_reasoning("<think>" + "x" * 10_000)
    assert not ends_in_reasoning("<think></think>")


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    "text",
    [
        "Good morning.</s>",
        "Good morning. </s></s>\n",
        "Good morning.<|im_end|>",
        "Good morning.<|eot_id|>",
        "Good morning.<|endoftext|>",
        "Good morning.<end_of_turn>\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\nGood morning.",
        "<|im_start|>assistant\nGood morning.<|im_end|>",
        "<start_of_turn>model\nGood morning.<end_of_turn>",
    ],
)
def test_what_a_template_puts_between_turns_is_not_said(text: str, size: int) -> None:
    thoughts = ReasoningFilter()
    shown = "".join(thoughts.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert (shown + thoughts.finish(is_complete=True)).strip() == "Good morning."


@pytest.mark.parametrize("text", ["Is 3 <4 or <s>this</s> so?", "A <start_of and <|x|>.", "<end"])
def test_what_only_looks_like_it_is_said(text: str) -> None:
    thoughts = ReasoningFilter()
    assert "".join(map(thoughts.feed, text)) + thoughts.finish(is_complete=True) == text
