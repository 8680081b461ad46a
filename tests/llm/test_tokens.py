import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.llm.client import ModelClient
from llamora.llm.tokens import estimate_tokens
from tests.llm.asking import QUICK
from tests.scripted_model import ScriptedModel


async def test_counts_with_the_servers_own_tokenizer_in_one_request() -> None:
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", QUICK)
        assert await client.tokens.count_many(["one two three", "", "four."]) == [3, 0, 2]
        assert await client.tokens.count("one two") == 2
        await client.close()
    assert [a.path for a in model.requests] == ["/tokenize", "/tokenize"]


async def test_what_is_only_counted_is_sent_to_no_other_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamora.llm.tokens.is_loopback", lambda address: False)
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", QUICK)
        assert await client.tokens.count_many(["one two three", ""]) == [
            estimate_tokens("one two three"),
            0,
        ]
        assert not client.tokens.has_tokenizer
        await client.close()
    assert model.requests == []


async def test_estimates_where_there_is_no_tokenizer_and_does_not_ask_again() -> None:
    async with ScriptedModel(tokenizer=False) as model:
        client = ModelClient(model.url, "", QUICK)
        text = "We walked along the river until the rain came. " * 3
        assert await client.tokens.count(text) == estimate_tokens(text)
        await client.tokens.count("again")
        await client.close()
    assert len(model.requests) == 1


async def test_counting_never_fails() -> None:
    client = ModelClient("http://127.0.0.1:9", "", QUICK)
    assert await client.tokens.count("a few words") > 0
    await client.close()


@given(st.text())
def test_the_estimate_grows_with_the_text(text: str) -> None:
    assert 0 <= estimate_tokens(text) <= 2 * len(text)
    assert estimate_tokens(text + " and a heron") > estimate_tokens(text)
