"""Quotations are told apart: the user's words, what is only said to be, and what is nobody's business."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.app.markdown import render_reply
from llamora.journal.quotations import QuoteVerifier, marks

TEXTS = (
    "So the only quarter of an hour\nthat was **mine** this week, and I spent it “looking at water”.",
    "Three herons after the storm. I didn't sleep; branches everywhere by the #lake.\n\n> said Ruth, we move in May",
    "It was all about the kids' future; we were only goin' home.",
)
VERIFIER = QuoteVerifier(TEXTS)


def told(text: str, *, growing: bool = False) -> list[str]:
    """What is marked: the words that are the user's with a plus, the others with a minus."""
    found = marks(text, VERIFIER.verified(text), growing=growing)
    return [("+" if verified else "-") + text[start:end] for start, end, verified in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "You called it “the only quarter of an hour that was mine”.[1]",
            "the only quarter of an hour that was mine",
        ),
        ("It was \"that was mine this week, and I spent it 'looking at water'\".", None),
        ("‘I didn’t sleep; branches everywhere’ [2]", "I didn’t sleep; branches everywhere"),
        (
            "«branches everywhere», „branches everywhere“, »branches everywhere«, ‹branches everywhere›.",
            None,
        ),
        ("'Three herons' stood in the boys' room; rock 'n' roll.", "Three herons"),
        ("three herons: “three herons after the storm”.", "three herons after the storm"),
        (
            "> the only quarter of an hour that was mine\n\nSo it was.",
            "the only quarter of an hour that was mine",
        ),
        ("- > Three herons after the storm. — 3 May 2026 [2]", "Three herons after the storm."),
        ("**“Three *herons* after the storm”**", "Three *herons* after the storm"),
        ("You wrote “it was all about the kids'”.", "it was all about the kids"),
        ("You wrote “everywhere by the lake”.", "everywhere by the lake"),
        ("You wrote “Three herons [2] after the storm”.", "Three herons [2] after the storm"),
        ("*three herons*, you wrote.", "three herons"),
    ],
)
def test_words_that_stand_in_the_prompt_letter_by_letter_are_verified(
    text: str, found: str | None
) -> None:
    shown = told(text)
    assert shown
    assert all(one.startswith("+") for one in shown)
    assert found is None or shown == ["+" + found]


LIE = "I want to leave Tobias"


@pytest.mark.parametrize(
    "text",
    [
        "You wrote “{}”.",
        "You have once written: “{}”.",
        "You also told her that “{}”.",
        "“{}”, you wrote.",
        "“{}”, as you put it.",
        "“{}” [1]",
        "“{}.” [1][2]",
        "In [2] you are clear: “{}”.",
        "On 3 May 2026: “{}”.",
        "On May 3 it was “{}”.",
        "“{}” (2026-05-03)",
        "Am 3. Mai: „{}“.",
        "Du schriebst: „{}“.",
        "Du hast „{}“ geschrieben.",
        "„{}“, schriebst du.",
        "„{}“, wie du geschrieben hast.",
        "Tu as écrit « {} ».",
        "In your own words: '{}'.",
        "Your entry of 3 May says “{}”.",
        "You wrote **“{}”** [1].",
        "You wrote *{}*.",
        "You wrote `{}`.",
        "You wrote:\n\n```\n{}\n```",
        "You wrote:\n\n> {}\n",
        "> {}\n\nThat is what you wrote.",
        "> {} — 3 May 2026\n",
        "# {}\n\nThat is what you wrote.",
        "You wrote:\n\n- {}\n",
        "You wrote: {}.",
        "You wrote:\n\n{}\n\nSo it was.",
        "You wrote — {} — in March.",
        "Du hast geschrieben: {}.",
    ],
)
def test_what_the_user_is_said_to_have_written_and_did_not_is_marked(text: str) -> None:
    (only,) = told(text.format(LIE))
    assert only.rstrip(".") == "-" + LIE


def test_one_after_the_other_is_told_apart() -> None:
    text = "You wrote “three herons”, “four storks” and “no branches anywhere”. A saying goes “so be it, then”."
    assert told(text) == ["+three herons", "-four storks", "-no branches anywhere"]


@pytest.mark.parametrize(
    "text",
    [
        "A proverb says “many hands make light work”.",
        "You read “Moby Dick in the Night”, a title.",
        "You wrote about “Moby Dick in the Night”.",
        "You could write “Dear Anna, I am sorry”.",
        "You said “no”.",
        "“Dune”, “Emma” and “War and Peace and Love”.",
        "“All is well that ends well.” You wrote that it rained.",
        "Use `for x in range of the list` and *stress what you mean*.",
        "```\nprint('hello to the world')\n```",
        "- milk and honey\n- bread and butter",
        "The boys' room and 'tis all, a 5\" nail and a 6\" nail.",
        "You wrote that it rained all day: no, all night.",
        "— so he said\n— and so did she",
        "",
    ],
)
def test_anything_else_is_left_alone(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    "quoted",
    [
        "the only quarter of hour that was mine",
        "the only quarter of an hour that really was mine",
        "the Only Quarter of an hour that was mine",
        "an hour of the only quarter that was mine",
        "the only quarter of an hour … that was mine",
        "the only quarter of an hou",
    ],
)
def test_a_letter_less_than_the_passage_is_not_the_passage(quoted: str) -> None:
    assert told(f"You wrote “{quoted}”.[1]") == ["-" + quoted]


@pytest.mark.parametrize(
    "text",
    ["You wrote: the on", "You wrote `the on", "You wrote “the on", "You wrote:\n\n> the on"],
)
def test_what_is_still_being_written_is_not_called_untrue(text: str) -> None:
    assert told(text, growing=True) == []


@given(
    st.lists(
        st.sampled_from(
            [
                "You wrote ",
                "“three herons”",
                "“no storks”",
                ": ",
                "\n\n",
                "> ",
                "`",
                "```\n",
                "*",
                "[1]",
                "'",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_the_page_shows_every_letter_and_marks_nothing_falsely(text: str) -> None:
    verified = VERIFIER.verified(text)
    spans = marks(text, verified)
    assert all(a < b for a, b, _ in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all("storks" not in text[a:b] for a, b, true in spans if true)
    page = render_reply(text, {}, spans)
    assert page.count("herons") == text.count("herons")
    assert page.count("storks") == text.count("storks")


UNITS = (
    "'a |'a' |a' |\"a |[|[ | |> a\n|“a”. |''|- |*a |_a_ |— a|*|`|``` |```\n|`a `` |“a |„a |«a |you wrote |you wrote: |"
    "you wrote: a|you wrote — |you wrote “a b” |du hast |“a b c” |\n\n|you a |that is what you wrote|\nthat is you|"
    "- a\n- |you wrote:\n- a\n|*a b* you wrote |“three herons” |1 May |~~~\n a\n|[1] “a b”. ".split(
        "|"
    )
)


@pytest.mark.parametrize("unit", UNITS)
def test_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """Forty thousand letters: with the square of that this test would take its time."""
    text = (unit * 40_000)[:40_000]
    assert marks(text, VERIFIER.verified(text)) is not None
