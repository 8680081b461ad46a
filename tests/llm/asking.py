"""Ask a model server for a reply, and see that an error quotes nothing."""

from llamora.llm.client import Message, ModelClient
from llamora.llm.errors import ModelError
from llamora.messages import sentence
from llamora.settings import LlmSettings

SECRET = "the affair at Brampton"
KEY = "sk-very-private"
ASK = [Message("system", "Answer."), Message("user", SECRET)]
QUICK = LlmSettings(timeout_seconds=1.0)


async def say(client: ModelClient, max_tokens: int = 50) -> tuple[str, ModelError | None]:
    """The text that came, and how it failed."""
    text = ""
    try:
        async for piece in client.stream(ASK, max_tokens=max_tokens):
            text += piece
    except ModelError as error:
        return text, error
    return text, None


def assert_discreet(error: ModelError) -> None:
    chain: BaseException | None = error
    while chain is not None:
        for private in (SECRET, KEY, "Answer."):
            assert private not in repr(chain)
            assert private not in str(getattr(chain, "__dict__", ""))
        chain = chain.__cause__ or chain.__context__
    assert sentence(error).endswith(".")
    assert "\n" not in sentence(error)
