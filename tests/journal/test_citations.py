"""No false citation is kept or shown, and no true one is lost."""

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.app.markdown import render_reply
from llamora.journal.citations import TAKEN_OUT, Checker, Guard, cited, that_cite, without
from llamora.journal.quotations import quotations, words

PASSAGES = {
    1: "So the only quarter of an hour\nthat was **mine** this week, and I spent it “looking at water”.",
    2: "Three herons after the storm. I didn't sleep; branches everywhere.\n\n> said Ruth, we move in May",
}
OWN = [
    "Have I really never written about a good morning before?",
    "The bus #9, Tom (9), my Galaxy Note 9 and the second passage of the hymn.",
]
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
    # Numbers of the sentence, and of the writer's own words.
    "After 9 years, at 9, at 9:30, on (9 March), in 2019 (2019), with 9 people (9 of them children) and 1) a list.",
    "The bus #9, Tom (9), your Galaxy Note 9, the second passage; H₂O, 10^9, 9 entries, entry 9 March, note 9 pm.",
    "He quotes 9 people, notes 9 things; the passage I mean; entry 9:30, vitamin B₁₂.",
    "*the only quarter of an hour that was mine* and **so it was**, _then_ 5*3*2 snake_case_of_many_words * end.",
    "“Dune”, “Emma”, “Ulysses”, “Middlemarch”. — branches everywhere",
]

# What a reference becomes that is none of the square brackets asked for, when its passage was in the prompt.
PUT_RIGHT = {
    "You saw herons (2).": "You saw herons [2].",
    "You saw herons ②, water ❶.": "You saw herons [2], water [1].",
    "You saw herons².": "You saw herons[2].",
    "You saw herons （２） and water {1}.": "You saw herons [2] and water [1].",
    "In passage 2 you saw herons; source 1 has water.": "In passage [2] you saw herons; source [1] has water.",
    "Passages 1 and 2; note 2 says so; Quelle 2; extrait 2; 来源2; 第2段.": (
        "Passages [1][2]; note [2] says so; Quelle [2]; extrait [2]; 来源[2]; 第2段[2]."
    ),
    "The first excerpt says so, passage two too.": "The first excerpt [1] says so, passage [2] too.",
    "Herons [[2]] and herons [two] and herons (see 2), #2, 2️⃣.": (
        "Herons [[2]] and herons [2] and herons [2], [2], [2]."
    ),
    "You wrote “Three herons after the storm” (2).": "You wrote “Three herons after the storm” [2].",
}

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
    "You were in Rome (9).": "You were in Rome.",
    "Nine (9) people came, (9) more.": "Nine people came, more.",
    "As you wrote in passage 9, it rained; see source nine.": "As you wrote, it rained;.",
    "It is so (passage 9, 12 March 2026), entry 9 too.": "It is so, too.",
    "Rome ⑨, Rome ❾, Rome ₉, Rome （９）, Rome {9}, Rome <9>, Rome ⟨9⟩.": "Rome, Rome, Rome, Rome, Rome, Rome, Rome.",
    "Rome #9, Rome ^9, Rome^9, Rome 9️⃣, Rome (no. 9), Rome (p. 9).": "Rome, Rome, Rome, Rome, Rome, Rome.",
    "Rome <sup>9</sup>, Rome &#40;9&#41;, Rome 9], Rome [9": "Rome, Rome, Rome, Rome",
    "The ninth passage, passage IX, passage-9, passage #9, Passage No. 9, **passage 9**.": ",,,,, ****.",
    "Quelle 9, Stelle 9, extrait 9, fuente 9, 来源9, 第9段.": ",,,,,.",
    "As in passage [9] and [nine] and (source 9).": "As and and.",
    "(1) You slept, (2) you ran.": "You slept, you ran.",
    "You wrote “Three herons after the storm” (1).": "You wrote “Three herons after the storm”.",
    "In passage 1 you wrote “Three herons after the storm”.": "you wrote “Three herons after the storm”.",
    "You wrote *I hate the whole of it*, _I hate the whole of it_.": "You wrote […], […].",
    "***I hate** it all so much* you said.": "[…] you said.",
    "You wrote <em>I hate the whole of it</em> <<I hate the whole of it>>.": "You wrote […] […].",
    "— I hate the whole of it\nand so on": "[…]\nand so on",
    "｢I hate the whole of it｣ ″I hate the whole of it″ »I hate the whole of it«": "[…] […] […]",
    ",,I hate the whole of it'' and ‚I hate the whole of it‘": "[…] and […]",
    "“I hate the” “whole of it” you said, “I hate the”[1] “whole of it”.": "[…] you said, […].",
    "“I hate\nthe whole\nof it” and “so he said: ‘I hate the whole of it’ to me”": "[…] and […]",
    "Rome [**9**], Rome ⁹, Rome⁹, Rome [Ⅸ], Rome [①, p. 9].": "Rome, Rome, Rome, Rome, Rome [1].",
}


@pytest.mark.parametrize("text", HONEST)
def test_what_is_true_stays_letter_by_letter(text: str) -> None:
    assert CHECK.checked(text) == (text, 0)


@pytest.mark.parametrize(
    "text",
    [
        "On that day you wrote “it was all about the kids'”.[1]",
        "You wrote “it was all about the kids’” [1]. You wrote “we were only goin' home” [1].",
        "You wrote \"it was all about the kids'\" [1] and „we were only goin'“ [1].",
        "Du schriebst „it was all about the kids'“ [1], tu as écrit «it was all about the kids'» [1].",
    ],
)
def test_a_quotation_that_ends_in_an_apostrophe_is_kept(text: str) -> None:
    check = Checker({1: "This week it was all about the kids' future; we were only goin' home."})
    assert check.checked(text) == (text, 0)
    guard = Guard(check)
    for letter in text:
        guard.feed(letter)
        assert TAKEN_OUT not in guard.text
    assert guard.finish() == text


def test_an_apostrophe_at_the_end_of_a_false_quotation_saves_nothing_of_it() -> None:
    check = Checker({1: "This week it was all about the kids' future."})
    for marks in ("“{}”", '"{}"', "„{}“", "«{}»", "'{}'"):
        quoted = marks.format("I never loved any of the kids'")
        text, removed = check.checked(f"You wrote {quoted} once [1].")
        assert "loved" not in text, text
        assert removed


@pytest.mark.parametrize(("text", "left"), FALSE.items())
def test_what_is_false_is_taken_out_and_counted(text: str, left: str) -> None:
    checked, removed = CHECK.checked(text)
    assert checked.strip() == left
    assert removed >= 1
    assert CHECK.checked(checked) == (checked, 0)


@pytest.mark.parametrize(("text", "left"), PUT_RIGHT.items())
def test_a_reference_in_another_form_is_put_right(text: str, left: str) -> None:
    assert CHECK.checked(text) == (left, 0)
    assert CHECK.checked(left) == (left, 0)


def test_what_is_stressed_and_not_the_writers_is_stressed_no_more() -> None:
    assert CHECK.checked("You **said so very much today**, and **calm**.") == (
        "You said so very much today, and **calm**.",
        0,
    )


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
    st.sampled_from(
        [
            *HONEST,
            *FALSE,
            *PUT_RIGHT,
            *'"“’[]()*_9²#^ ',
            "\n\n",
            "[1]",
            "\n> ",
            "a word ",
            "passage ",
            "the ",
            "<<",
            "— ",
        ]
    ),
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


MARKS = re.compile("first|second|ninth|[\"'“”‘’„«»`>&\\n—｢」＇*_]")
WITHOUT_QUOTATIONS = [text for text in (*HONEST, *PUT_RIGHT, *FALSE) if not MARKS.search(text)]


@given(
    text=st.lists(
        st.sampled_from([*WITHOUT_QUOTATIONS, " ", ". ", "9", "(", "passage ", "in ", "the ", "²", "[", "]"]),
        min_size=1,
        max_size=5,
    ).map("".join),
    cuts=st.lists(st.integers(0, 2000), max_size=60),
)
def test_what_was_shown_of_a_reference_is_never_taken_back(text: str, cuts: list[int]) -> None:
    guard = Guard(CHECK)
    before = ""
    for piece in pieces(text, cuts):
        guard.feed(piece)
        assert guard.text.startswith(before), (before, guard.text)
        before = re.sub(r"\s*(\b\w)?$", "", guard.text)  # but for white space, and a letter that begins a word
    assert guard.finish().startswith(before)


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
    "unit",
    "'a |'a' |a' |\"a |[|[ | |&num;|> a\n|[1] “a”. |''|[9|\n- |(9|(9) |passage 9 |in the |*a |_a_ |#9|①|— a|passage ("
    "|9]|“a” |*|passage".split("|"),
)
def test_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """Forty thousand letters: with the square of that this test would take its time."""
    checked, _ = CHECK.checked((unit * 40_000)[:40_000])
    assert len(checked) <= 40_000 + len(TAKEN_OUT)


@pytest.mark.parametrize(("opened", "closed"), [("*a ", "b* "), ("_a ", "b_ "), ("**a _b ", "c_ d** ")])
def test_marks_nested_without_end_are_taken_out_in_no_time(opened: str, closed: str) -> None:
    """A model server that sends them would stop everybody's page: each span lies in all that stand around it."""
    guard = Guard(CHECK)
    guard.feed("You wrote: " + opened * 6_000 + closed * 6_000)
    assert guard.text in ("", TAKEN_OUT)
    assert guard.finish() == TAKEN_OUT


def test_numbers_without_end_are_checked_in_no_time() -> None:
    assert CHECK.checked("".join(f"[{number}]" for number in range(1, 6_001))) == ("[1][2]", 5_998)


def test_a_long_reply_is_checked_in_no_time() -> None:
    """Work grows with the text, not with its square: a reply of the longest kind is fed letter by letter."""
    guard = Guard(CHECK)
    for _ in range(500):
        for piece in ("You ", "wrote “", "that was mine", "”.[1]", "\n\n"):
            guard.feed(piece)
            assert guard.text is not None
    assert guard.finish().count("[1]") == 500


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


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("You saw it. [1] You were sad. It came back [2].", "You saw it. [1] It came back [2]."),
        ("It came [1]! You cried.", "It came [1]!"),
        ("You wrote […]. [1]", ""),
        ("You were 3. Then he came. [1]", "Then he came. [1]"),
        ("Am 3. Mai kam er [1]. Du warst froh.", "Am 3. Mai kam er [1]."),
        ("“Oh no!” said Dr. Noll. [2] And then [1] it", "“Oh no!” said Dr. Noll. [2]"),
        (
            "You wrote “it rained. It was cold all day”.  [1][2] Alas.",
            "You wrote “it rained. It was cold all day”.  [1][2]",
        ),
        ("# Herons\n- It came. [1]\n- It went.\n2. It stood [2]", "It came. [1] It stood [2]"),
        ("蒼鷺が来た。[1]悲しい。また来た[2]。", "蒼鷺が来た。[1] また来た[2]。"),
        ("[1]", ""),
    ],
)
def test_only_sentences_that_cite_stand(text: str, left: str) -> None:
    assert that_cite(text) == left
