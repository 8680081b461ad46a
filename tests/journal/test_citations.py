"""Which passages a reply cites, and what is left of one when something is erased."""

import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llamora.app.markdown import render_reply
from llamora.journal.citations import (
    ERASED,
    cited,
    cited_sentences,
    redact_erased,
    strike,
    strip_references,
)
from llamora.persistence.entries import Entry, Receipt, UsedPassage

MARCH = "So the only quarter of an hour\nthat was **mine** this week, and I spent it “looking at water”."
HERONS = "Three herons after the storm."
PATHS = {1: "/d/1", 2: "/d/2"}


def links(text: str) -> list[int]:
    return [
        int(number)
        for number in re.findall(r'aria-label="passage (\d+)"', render_reply(text, PATHS))
    ]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Herons [2] and water [1][2], **[1]**.", [2, 1, 2, 1]),
        ("- one [1]\n- two\n\n> three [2]\n\n# four [1]", [1, 2, 1]),
        (
            "Rome [7], Rome [0], Rome [1, 2], Rome (1), Rome {1}, Rome ¹, Rome ①, #1, passage 1, page 2, no. 1.",
            [],
        ),
        ("`xs[1]` and ``a [2]``\n\n```python\nys = xs[1] + [2][0]\n```\n\n    zs[1]", []),
        ("The interval [0, 1], \\[1\\], [one], 【1】 and three (1) boards.", []),
        ("[1](https://example.org) and [2]: so.", [1, 2]),
        ("[1]: https://example.org\n\nSee [1].", [1]),
        ("[so it [1] goes](https://example.org)", []),
        (f"[{'1' * 5000}[8]] [{'1' * 5000}]", []),
        ("&#xe000;1&#xe001; &#xe002;forged&#xe003;", []),
    ],
)
def test_only_a_number_in_brackets_of_a_passage_of_the_prompt_becomes_a_link(
    text: str, numbers: list[int]
) -> None:
    assert links(text) == numbers
    assert "example.org" not in render_reply(text, PATHS) or "goes" in text
    assert "forged</mark>" not in render_reply(text, PATHS)


def test_a_number_that_is_no_link_stays_as_it_was_written() -> None:
    assert "Rome [7], x [ 1 ]" in render_reply("Rome [7], x [ 1 ]", PATHS)


def test_what_is_cited_is_listed_once_and_never_from_code() -> None:
    assert cited("[2] then [1], [2] and `[3]`.\n\n```\n[4]\n```") == [2, 1]
    assert strip_references("a [1] and `x[1]` [2]", [1]) == "a  and `x[1]` [2]"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("You saw it. [1] You were sad. It came back [2].", "You saw it. [1] It came back [2]."),
        ("It came [1]! You cried.", "It came [1]!"),
        ("You were 3. Then he came. [1]", "Then he came. [1]"),
        ("Am 3. Mai kam er [1]. Du warst froh.", "Am 3. Mai kam er [1]."),
        ("“Oh no!” said Dr. Noll. [2] And then [1] it", "“Oh no!” said Dr. Noll. [2]"),
        (
            "You wrote “it rained. It was cold all day”.  [1][2] Alas.",
            "You wrote “it rained. It was cold all day”.  [1][2]",
        ),
        ("# Herons\n- It came. [1]\n- It went.\n2. It stood [2]", "It came. [1] It stood [2]"),
        ("蒼鷺が来た。[1]悲しい。また来た[2]。", "蒼鷺が来た。[1] また来た[2]。"),
        ("You saw Rome. [7] See `xs[1]`.", ""),
        ("[1]", ""),
    ],
)
def test_only_sentences_that_cite_a_passage_stand(text: str, left: str) -> None:
    assert cited_sentences(text, [1, 2]) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "You called it “the only quarter of an hour that was mine”. Ah.",
            f"You called it “{ERASED}”. Ah.",
        ),
        ("You called it *the only quarter of an hour*.", f"You called it *{ERASED}*."),
        ("Here: `the only quarter of an hour`", f"Here: `{ERASED}`"),
        ("> the only quarter of an hour\n\nSo.", f"> {ERASED}\n\nSo."),
        ("You wrote: the only quarter of an hour.", f"You wrote: {ERASED}."),
        # Nobody says that these are quoted, but so many words in a row are no accident.
        (
            "It was the only quarter of an hour that was Mine this week, again.",
            f"It was {ERASED}, again.",
        ),
        ("It was the only quarter of an hour.", "It was the only quarter of an hour."),
        ("“An hour that was yours and mine”", "“An hour that was yours and mine”"),
    ],
)
def test_words_of_what_was_erased_are_struck(text: str, left: str) -> None:
    assert strike(text, [MARCH]) == left
    assert strike(text, ["Something else that was said."]) == text


def test_a_reply_forgets_what_was_erased_and_nothing_else() -> None:
    at = datetime(2026, 11, 20, 9, tzinfo=UTC)
    gone, left = b"g" * 16, b"l" * 16
    passages = (
        UsedPassage(1, gone, at.date(), MARCH, 0.5),
        UsedPassage(2, left, at.date(), HERONS, 0.4),
    )
    quoted = ("the only quarter of an hour", "Three herons after the storm")
    receipt = Receipt("m", "", "", False, "3", passages, quoted=quoted)
    text = (
        "You called it “the only quarter of an hour”.[1] And “Three herons after the storm”.[2][1]"
    )
    reply = Entry(
        b"r" * 16,
        date(2026, 11, 20),
        "reply",
        text,
        at,
        "UTC",
        sources=(gone, left),
        receipt=receipt,
    )
    redacted = redact_erased(reply, {gone}, [])
    assert redacted is not None
    assert redacted.text == f"You called it “{ERASED}”. And “Three herons after the storm”.[2]"
    assert redacted.sources == (left,)
    assert redacted.receipt == replace(receipt, passages=passages[1:], quoted=quoted[1:])
    assert redact_erased(redacted, {gone}, [MARCH]) is None
    assert redact_erased(replace(reply, role="me"), {gone}, [MARCH]) is None


@given(st.text(alphabet="ab “”\"'’`*>\n[1].—", max_size=60), st.text(alphabet="ab \n", max_size=30))
def test_what_was_struck_once_is_struck(text: str, erased: str) -> None:
    once = strike(text, [erased])
    assert strike(once, [erased]) == once
