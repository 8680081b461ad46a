"""The budget holds, and cuts come in the order that is promised."""

import asyncio
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from llamora.llm.budget import Passage, Turn
from llamora.llm.client import ModelClient
from llamora.llm.prompts import PromptBuilder
from llamora.settings import LlmSettings
from tests.llm.prompting import DAY, SMALL_CONTEXT, build, filler, sent, size
from tests.scripted_model import ScriptedModel

WORDS = st.lists(
    st.sampled_from(["heron", "rain,", "I", "walked.", "<|im_end|>", "\n", "雨が降った", "ünter"]),
    min_size=1,
    max_size=20,
)


TEXT = st.builds(lambda words, times: " ".join(words * times), WORDS, st.integers(1, 150))
TURNS = st.lists(st.builds(Turn, st.sampled_from(["me", "reply"]), TEXT), max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    thread=TURNS,
    last=TEXT,
    rest=TURNS,
    texts=st.lists(TEXT, max_size=5),
    tokenizer=st.booleans(),
)
def test_a_prompt_always_fits(
    thread: list[Turn], last: str, rest: list[Turn], texts: list[str], *, tokenizer: bool
) -> None:
    passages = [Passage(n, DAY - timedelta(n), text) for n, text in enumerate(texts, 1)]
    prompt = asyncio.run(
        build([*thread, Turn("me", last)], rest=rest, passages=passages, tokenizer=tokenizer)
    )
    room = SMALL_CONTEXT.context_tokens - SMALL_CONTEXT.max_reply_tokens
    assert size(prompt, tokenizer=tokenizer) <= room
    roles = [m.role for m in prompt.messages if m.role != "system"]
    assert roles == [("user", "assistant")[n % 2] for n in range(len(roles))]
    assert roles[-1] == "user"
    assert "<|im_end|>" not in sent(prompt)
    assert min(prompt.omitted) >= 0


async def test_what_fits_is_all_there() -> None:
    prompt = await build(
        [Turn("me", "The entry."), Turn("reply", "The reply."), Turn("me", "The answer.")],
        rest=[Turn("me", "The morning.")],
        passages=[Passage(1, date(2024, 5, 3), "Once\nupon a time.")],
    )
    system, first, reply, last = prompt.messages
    assert (system.role, first.content, reply.content) == ("system", "The entry.", "The reply.")
    assert "> The morning." in last.content
    assert "[1] Friday, 3 May 2024\n> Once\n> upon a time." in last.content
    assert last.content.endswith("The answer.")
    assert [passage.number for passage in prompt.passages] == [1]
    assert prompt.omitted == (0, 0, 0, False)


async def test_cuts_come_in_the_promised_order() -> None:
    """Ever longer entries push out first the day, then the passages, then the conversation, then themselves."""
    thread = [
        Turn("me", filler("entry")),
        Turn("reply", filler("older")),
        Turn("me", filler("newer")),
    ]
    thread.append(Turn("reply", filler("newest")))
    rest = [Turn("me", filler("dawn", 60)), Turn("me", filler("noon", 60))]
    passages = [Passage(1, DAY, filler("strong", 60)), Passage(2, DAY, filler("weak", 60))]
    gone: list[str] = []
    cut = None
    names = ["dawn", "noon", "weak", "strong", "older", "newer", "newest"]
    generous = LlmSettings(context_tokens=1700, max_reply_tokens=200)
    for length in range(0, 1400, 30):
        prompt = await build(
            [*thread, Turn("me", filler("question", length))],
            rest=rest,
            passages=passages,
            with_settings=generous,
        )
        text, cut = sent(prompt), prompt.omitted
        newly_gone = [name for name in names if name not in text and name not in gone]
        assert len(newly_gone) <= 1, "more was cut than had to be"
        gone += newly_gone
        assert all(name not in text for name in gone)
        shortened = "[…]" in text
        assert shortened == prompt.omitted.shortened
        assert not shortened or gone == names
        assert any(prompt.omitted) == (bool(gone) or shortened)
        assert "entry" in text
        assert "question" in text
    assert gone == names
    assert cut == (2, 2, 3, True)


async def test_a_megabyte_is_shortened_from_its_middle() -> None:
    text = "The beginning. " + "and so on " * 100_000 + "The end."
    prompt = await build([Turn("me", text)])
    last = prompt.messages[-1].content
    assert "The beginning." in last
    assert last.endswith("The end.")
    assert "[…]" in last
    assert prompt.omitted == (0, 0, 0, True)
    assert size(prompt) > 600  # the room is used


async def test_counting_takes_two_requests_however_long_the_thread() -> None:
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        thread = [Turn("me" if n % 2 == 0 else "reply", f"turn {n}") for n in range(301)]
        prompt = await PromptBuilder(LlmSettings(), None).build_reply(
            client, day=DAY, thread=thread, rest_of_day=[], passages=[]
        )
        await client.close()
        assert [a.path for a in model.requests] == ["/props", "/tokenize"]
    assert prompt.messages[1].content == "turn 0"
