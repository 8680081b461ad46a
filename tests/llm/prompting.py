"""Build prompts with a scripted server."""

from datetime import date

from llamora.llm.budget import MESSAGE_TOKENS, Passage, Turn
from llamora.llm.client import ModelClient
from llamora.llm.prompts import Prompt, PromptBuilder
from llamora.llm.tokens import estimate_tokens
from llamora.settings import LlmSettings
from tests.scripted_model import ScriptedModel, tokenize

DAY = date(2026, 11, 20)
SMALL_CONTEXT = LlmSettings(context_tokens=1200, max_reply_tokens=200)


async def build(
    thread: list[Turn],
    *,
    rest: list[Turn] | None = None,
    passages: list[Passage] | None = None,
    with_settings: LlmSettings = SMALL_CONTEXT,
    tokenizer: bool = True,
) -> Prompt:
    async with ScriptedModel(tokenizer=tokenizer, context_tokens=1 << 20) as model:
        client = ModelClient(model.url, "", with_settings)
        builder = PromptBuilder(with_settings, None)
        try:
            return await builder.build_reply(
                client, day=DAY, thread=thread, rest_of_day=rest or [], passages=passages or []
            )
        finally:
            await client.close()


def size(prompt: Prompt, *, tokenizer: bool = True) -> int:
    count = (lambda text: len(tokenize(text))) if tokenizer else estimate_tokens
    return sum(count(m.content) + MESSAGE_TOKENS for m in prompt.messages)


def sent(prompt: Prompt) -> str:
    return "\n\n".join(m.content for m in prompt.messages)


def filler(name: str, words: int = 120) -> str:
    return f"{name} " + "word " * words
