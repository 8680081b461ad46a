import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from llamora.llm.client import ModelClient
from llamora.settings import LlmSettings
from tests.llm.asking import ASK, KEY, QUICK, say
from tests.scripted_model import Fault, Reply, ScriptedModel


@pytest.mark.parametrize("piece", ["word ", "word " * 50])
async def test_an_endless_reply_is_ended_and_what_came_is_kept(piece: str) -> None:
    async with ScriptedModel() as model:
        model.script(Reply([piece], fault="endless"))
        client = ModelClient(model.url, KEY, QUICK, model="m")
        text, error = await say(client, max_tokens=20)
        assert error is not None
        assert error.kind == "too_long"
        assert set(text.split()) == {"word"}
        assert len(text) <= 20 * 32
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        await client.close()


async def test_a_reply_that_said_its_last_word_is_complete() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["Done."], fault="no_done"), Reply(["Long"], finish_reason="length"))
        client = ModelClient(model.url, "", replace(QUICK, timeout_seconds=30), model="m")
        assert await say(client) == ("Done.", None)
        assert await say(client) == ("Long", None)
        await client.close()


async def test_words_that_look_like_the_end_are_not_the_end() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["It ends with", " [DONE]"], fault="cut_quietly"))
        client = ModelClient(model.url, "", QUICK, model="m")
        text, error = await say(client)
        assert text == "It ends with [DONE]"
        assert error is not None
        assert error.kind == "broken"
        await client.close()


async def test_characters_cut_in_two_are_joined() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a ", "\ud83e", "\udeb6", " b", "\udeb6"], ascii_json=True))
        client = ModelClient(model.url, "", QUICK, model="m")
        pieces = [p async for p in client.stream(ASK, max_tokens=50)]
        await client.close()
    for piece in pieces:
        piece.encode()
    assert "".join(pieces) == "a 🪶 b\ufffd"


async def test_closing_the_stream_frees_the_slot_at_once() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a"] * 500, piece_delay=0.05))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        async with aclosing(client.stream(ASK, max_tokens=600)) as pieces:
            async for _ in pieces:
                break
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        assert model.chat_requests[0].is_client_gone
        assert model.active_streams == 0
        await client.close()


@pytest.mark.parametrize("fault", ["hang_before_headers", "hang"])
async def test_cancelling_the_reader_frees_the_slot_at_once(fault: Fault) -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a"], fault=fault))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        reader = asyncio.create_task(say(client))
        await model.chat_started.wait()
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        assert model.chat_requests[0].is_client_gone
        await client.close()


async def test_twenty_replies_at_once_stay_apart() -> None:
    async with ScriptedModel() as model:
        model.script(*(Reply([f"{n}:", *("x" * 20)], piece_delay=0.001) for n in range(20)))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        said = await asyncio.gather(*(say(client) for _ in range(20)))
        await client.close()
    assert sorted(text for text, _ in said) == sorted(f"{n}:" + "x" * 20 for n in range(20))
