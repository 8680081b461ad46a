"""No false citation is kept or shown, and no true one is lost."""

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.app.markdown import render_reply
from llamora.journal.citations import TAKEN_OUT, Checker, Guard, cited, quotations, without, words

PASSAGES = {
    1: "So the only quarter of an hour\nthat was **mine** this week, and I spent it “looking at water”.",
    2: "Three herons after the storm. I didn't sleep; branches everywhere.\n\n> said Ruth, we move in May",
}
OWN = ["Have I really never written about a good morning before?"]
CHECK = Checker(PASSAGES, OWN)

HONEST = [
    "You called it “the only quarter of an hour that was mine”.[1] In August you counted three herons.[2]",
    'You wrote "Three herons after the storm." [2]',
    "It was “that was mine this week, and I spent it 'looking at water'” [1].",
    "You asked whether you had “really never written about a good morning” and you had.[1][2]",
    "> the only quarter of an hour that was mine this week\n\nThat is what you wrote [1].",
    "‘I didn’t sleep; branches everywhere’ [2]",
    "„Three herons after the storm“ [2] und «branches everywhere», wie du sagst.",
    "A 5\" nail, a 6\" nail, the boys' room and 'tis all.",
    "You said “so be it” and “no”. [link](https://example.org) and a[i] in `code`, [as it were].",
    "In [2] you saw herons; in [1] water.",
    "'Three herons after the storm' [2] stood in the boys' room; rock 'n' roll, goin' home, 12 m², 10⁹.",
    "- > Three herons after the storm.\n- > branches everywhere\n\n[2]",
    "As in [2] you wrote “Three herons after the storm”.",
]

FALSE = {
    "You were in Rome [7].": "You were in Rome.",
    "You were in Rome [0][3].": "You were in Rome.",
    "Herons [2, 9] and more [1-3].": "Herons [2] and more [1][2].",
    "You wrote “I hate the whole of it” once.": "You wrote […] once.",
    "You wrote “the only quarter of an hour that was yours”.[1]": "You wrote […].[1]",
    "You wrote “Three herons after the storm”.[1]": "You wrote “Three herons after the storm”.",
    "You saw “Three herons after the storm” in March [1].": "You saw “Three herons after the storm” in March.",
    "“looking at water”. Then “branches everywhere. said Ruth, we”.[1]": (
        "“looking at water”. Then “branches everywhere. said Ruth, we”."
    ),
    "You wrote “the only quarter of an hou”.[1]": "You wrote […].[1]",
    'And then: "I hate the whole of it': "And then: […]",
    "> I hate the whole of it\nand of you\n\nYou did.": "[…]\n\nYou did.",
    "I hate the whole of it” you wrote.": "[…] you wrote.",
    "You wrote &ldquo;I hate the whole of it&rdquo; &#91;7&#93;.": "You wrote […].",
    "Rome \\[7\\], Rome 【7】, Rome [^7], Rome [passage 7].": "Rome, Rome, Rome, Rome.",
    '“I hate "her" so very much”': "[…]",
    "‘I never liked my father’ you said.": "[…] you said.",
    "“I\u200bhate\u200bmy\u200bjob”": "[…]",
    "「私は彼をとても憎んでいる」": "[…]",
    "'I didn't sleep; branches everywhere' and I hate them deeply' [2]": "[…] [2]",
    "‘I hate the whole\n\nof it and always did’": "[…]\n\n[…]",
    "He said, 'I hate the whole of it.": "He said, […]",
    "- > I hate the whole of it\n- x": "[…]\n- x",
    "* item\n\n    > I hate the whole of it": "* item\n\n[…]",
    "1. > I hate the whole of it": "[…]",
    "text\n[9]> I hate the whole of it\nlazy": "text\n[…]",
    "❝I hate the whole of it❞ 〝I hate the whole of it〞": "[…] […]",
    "＇I hate the whole of it＇ ′I hate the whole of it′ ´I hate the whole of it´": "[…] […] […]",
    "``I hate the whole of it'' <q>I hate the whole of it</q>": "[…] […]",
    "&#10077;I hate the whole of it&#10078; &lt;q&gt;I hate the whole of it&lt;/q&gt;": "[…] […]",
    "“I_hate_the_whole_of_it” “I'hate'the'whole of'it'all”": "[…] […]",
    "“Three herons after the storm”[[8]1]": "“Three herons after the storm”",
    "You saw herons [9[2]] and water [1] [[1] 9 [2]].": "You saw herons [[2]] and water [1] [[1][2]].",
    "As in [1] you wrote “Three herons after the storm”": "As in you wrote “Three herons after the storm”",
    "Rome [&#57;], Rome [&#&#53;7;], Rome [9\u200b], Rome 〔9〕, Rome 【9†source】.": "Rome, Rome, Rome, Rome, Rome.",
    "Rome [Page 9], Rome [Passage #9], Rome [9, 12 March], Rome [see 9].": "Rome, Rome, Rome, Rome.",
    "Rome [**9**], Rome ⁹, Rome⁹, Rome [Ⅸ], Rome [①, p. 9].": "Rome, Rome, Rome, Rome, Rome [1].",
}


@pytest.mark.parametrize("text", HONEST)
def test_what_is_true_stays_letter_by_letter(text: str) -> None:
    assert CHECK.checked(text) == (text, 0)


@pytest.mark.parametrize(("text", "left"), FALSE.items())
def test_what_is_false_is_taken_out_and_counted(text: str, left: str) -> None:
    checked, removed = CHECK.checked(text)
    assert checked == left
    assert removed >= 1
    assert CHECK.checked(checked) == (checked, 0)


def test_a_first_letter_in_the_case_of_its_sentence_is_put_right() -> None:
    text = "You counted “three herons after the storm”. “The only quarter of an hour that was mine”, you said."
    right = "You counted “Three herons after the storm”. “the only quarter of an hour that was mine”, you said."
    assert CHECK.checked(text) == (right, 0)


def test_without_passages_nothing_can_be_cited() -> None:
    assert Checker({}).checked("As you wrote [1], “it was a very good day” [1].") == ("As you wrote, […].", 3)


def test_a_letter_less_than_the_passage_is_not_the_passage() -> None:
    """Every way to be nearly right: a word less inside, a word more, another case, another order."""
    for quoted in (
        "the only quarter of hour that was mine",
        "the only quarter of an hour that really was mine",
        "the Only Quarter of an hour that was mine",
        "an hour of the only quarter that was mine",
        "the only quarter of an hour … that was mine",
    ):
        assert CHECK.checked(f"You wrote “{quoted}”.[1]")[0] == "You wrote […].[1]"


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(edges)]


TEXTS = st.lists(
    st.sampled_from([*HONEST, *FALSE, "\n\n", " ", "“", '"', "’", "[", "]", "[1]", "\n> ", "a word "]),
    min_size=1,
    max_size=6,
).map("".join)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 2000), max_size=40))
def test_however_it_comes_it_ends_the_same_and_never_shows_what_is_false(text: str, cuts: list[int]) -> None:
    guard = Guard(CHECK)
    for piece in pieces(text, cuts):
        guard.feed(piece)
        shown = guard.text
        assert set(cited(shown)) <= {1, 2}
        for quotation in quotations(shown.rpartition("\n\n")[2]):
            inner = re.sub(r"\[\d\]", "", shown.rpartition("\n\n")[2][slice(*quotation.inner)])
            if words(inner) >= 4 and "\n\n" not in shown:
                assert CHECK._known(inner), shown
    assert (guard.finish(), guard.removed) == CHECK.checked(text)


@given(st.text(max_size=200))
def test_any_text_is_checked_and_checking_again_changes_nothing(text: str) -> None:
    once, _ = CHECK.checked(text)
    assert CHECK.checked(once) == (once, 0)


WHITE = st.sampled_from(["", "", " ", "\n", "\u200b", "*", "_", "\\", "[1]", "&"])
REFERENCES = st.tuples(
    st.sampled_from(["[", "【", "&#91;", "[[", "[1, "]),
    WHITE,
    st.sampled_from(["", "see ", "p. ", "#", "passage "]),
    st.sampled_from(["9", "&#57;", "&num;57;", "9, 1", "1-9", "⁹"]),
    WHITE,
    st.sampled_from(["]", "]]", "†x]", ", 3 May]", "&rbrack;"]),
).map("".join)
QUOTED = st.tuples(
    st.sampled_from(["“", '"', "‘", "'", "‟", "&ldquo;", "<q>", "\n> ", "\n- > ", "\n[9]> ", "❝", "``", "´"]),
    WHITE,
    st.sampled_from(["I hate it all", "I_hate_it_all", "Three herons after the storm", "the boys' and"]),
    WHITE,
    st.sampled_from(["”", '"', "’", "'", "&rdquo;", "</q>", "\n", "\n\n", "❞", "''", "´"]),
).map("".join)
SAID = st.lists(REFERENCES | QUOTED | WHITE | st.sampled_from([" you said ", ". ", "\n\n"]), max_size=8).map("".join)


@given(said=SAID)
def test_whatever_a_model_says_the_page_shows_no_number_and_no_quotation_that_is_not_in_the_prompt(said: str) -> None:
    checked, _ = CHECK.checked(said)
    assert CHECK.checked(checked) == (checked, 0)
    page = render_reply(checked, {1: "/d/1", 2: "/d/2"})
    seen = html.unescape(re.sub(r"<(?!/?blockquote)[^>]*>", "", re.sub(r"<sup.*?</sup>", "", page)))
    assert not re.search(r"[\[【][^\[\]【]*[9⁹][^\[\]【]*\]", seen), seen
    shown = re.findall("“([^“”\n]*)”|<q>(.*?)</q>|❝([^❝❞\n]*)❞|‘([^‘’'\n]*)’|´([^´]*)´", seen)
    shown += re.findall(r"<blockquote>(.*?)</blockquote>()()()()", seen, re.DOTALL)
    assert not [quoted for one in shown for quoted in one if re.search("I.?hate.?it.?all", quoted)], seen


@pytest.mark.parametrize(
    "unit", ["'a ", "'a' ", "a' ", '"a ', "[", "[ ", " ", "&num;", "> a\n", "[1] “a”. ", "''", "[9", "\n- "]
)
def test_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """A quarter of a million letters: with the square of that this test would not end."""
    checked, _ = CHECK.checked((unit * 250_000)[:250_000])
    assert len(checked) <= 250_000 + len(TAKEN_OUT)


def test_numbers_without_end_are_checked_in_no_time() -> None:
    assert CHECK.checked("".join(f"[{number}]" for number in range(1, 60_001))) == ("[1][2]", 59_998)


def test_a_long_reply_is_checked_in_no_time() -> None:
    """Work grows with the text, not with its square: a reply of the longest kind is fed letter by letter."""
    guard = Guard(CHECK)
    for _ in range(2000):
        for piece in ("You ", "wrote “", "that was mine", "”.[1]", "\n\n"):
            guard.feed(piece)
            assert guard.text is not None
    assert guard.finish().count("[1]") == 2000


def test_what_is_erased_leaves_the_replies_that_cited_it() -> None:
    text = "You called it “the only quarter of an hour that was mine”.[1] In August, three herons.[2][1]"
    left = without(text, [1], [PASSAGES[1]])
    assert left == f"You called it {TAKEN_OUT}. In August, three herons.[2]"
    assert without(text, [], ["something else"]) == text


@pytest.mark.parametrize(
    "text", [f"Hello [{'1' * 5000}[8]]", f"[{'1' * 5000}]", "[9[9[9[9[9[9[9[9[9[8]]]]]]]]]]", "[[8]9]"]
)
def test_no_number_of_a_model_is_too_long_or_too_deep(text: str) -> None:
    """A page and an erasure read what is kept: neither may fail for what one reply says."""
    checked, _ = CHECK.checked(text)
    assert CHECK.checked(checked) == (checked, 0)
    for kept in (checked, text):
        assert set(cited(kept)) <= {8, 9}
        assert without(kept, [1], ["something else that was said"]) == kept
    assert cited(checked) == []
