from llamora.llm.client import ModelClient
from tests.llm.asking import KEY, QUICK
from tests.scripted_model import ScriptedModel


async def test_describes_the_server() -> None:
    async with ScriptedModel(models=["heron-8b"], context_tokens=2048) as model:
        client = ModelClient(model.url + "/v1", KEY, QUICK)
        info = await client.describe()
        assert await client.describe() == info
        await client.close()
    assert info.name == "heron-8b"
    assert info.endpoint == model.url
    assert info.is_local
    assert not info.is_embedded
    assert info.context_tokens == 2048
    assert len(model.requests) == 2  # remembered
    async with ScriptedModel(props=False) as model:
        client = ModelClient(model.url, KEY, QUICK, model="chosen")
        info = await client.describe()
        await client.close()
    assert (info.name, info.context_tokens) == ("chosen", QUICK.context_tokens)
