"""What the small model may say: only what was written."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.journal.citations import Checker
from llamora.llm.client import Message
from llamora.llm.embedded import EmbeddedServer
from llamora.llm.mirror import clauses, mirror_grammar
from llamora.llm.prompts import small_model_options
from llamora.settings import LlmSettings


def sayings(text: str) -> list[str]:
    return [
        re.sub(r"\\(.)", r"\1", s)
        for s in re.findall(r'^\w+ ::= "((?:[^"\\]|\\.)*)"', mirror_grammar(text), re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I was too tired to argue.", "You were too tired to argue."),
        ("I’m glad that my sister rang me.", "You’re glad that your sister rang you."),
        ("And I slept badly but I don't mind.", "You slept badly but you don't mind."),
        ("I am frightened.", "You are frightened."),
        ("Mum called about the hospital.", "You wrote “Mum called about the hospital”."),
        ("Should I write back to Tom?", "You wrote “Should I write back to Tom?”."),
        ("I want to die.", "You wrote “I want to die”."),
        ("I am a failure in all of this.", "You wrote “I am a failure in all of this”."),
        ("I to the office by water.", "You wrote “I to the office by water”."),
        ("I told you about our boat.", "You wrote “I told you about our boat”."),
        ("I went home and was tired.", "You wrote “I went home and was tired”."),
        ("Nice.", "You wrote “Nice”."),
        ("今日はとても寒い一日だった。", "You wrote “今日はとても寒い一日だった。”."),
    ],
)
def test_says_back_in_the_second_person_or_in_quotation_marks(text: str, said: str) -> None:
    assert sayings(text)[0] == said


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("Tom: I drank too much last night.", "I drank too much last night"),
        ('She said "Go away. I slept with Tom yesterday. Bye."', "I slept with Tom yesterday"),
        ("She said ‘Go away. I slept with Tom yesterday. Bye.’", "I slept with Tom yesterday"),
        ("Her note:\n“Go away.\nI slept with Tom yesterday.\nBye.”", "I slept with Tom yesterday"),
        ("> He wrote. I took the money last year.\n\nOdd.", "I took the money last year"),
        ("```\nI deleted the whole file\n```", "I deleted the whole file"),
        ("- [ ] I wrote to Anna about it", "I wrote to Anna about it"),
        ("Hardly, if she had won and I bought a house by the sea.", "I bought a house by the sea"),
        ("I told him I wasn't ready for it.", "I told him I wasn't ready for it"),
        ("I went to the World War I museum.", "I went to the World War I museum"),
        ("I know I often am wrong about this.", "I know I often am wrong about this"),
        ("I cut myself again.", "I cut myself again"),
        ("I want to disappear.", "I want to disappear"),
        ('I\'m "ok".', "I'm"),
        ("The ship is lost, which I hope is not true.", "I hope is not true"),
    ],
)
def test_what_may_not_be_so_or_is_grave_stays_the_writers_words(text: str, quoted: str) -> None:
    said = sayings(text)
    assert f"You wrote “{quoted}”." in said, said
    assert not any("You " in each and "“" not in each for each in said)


def test_what_is_said_after_speech_has_ended_is_said_back() -> None:
    assert "You went home without a word." in sayings('"I am tired." She left. I went home without a word.')


@pytest.mark.parametrize(
    "text",
    ["| a | b |\n|---|---|\n| Went home | x y z w |", '"One" and "two of them" and "x"', "- [x] Milk\n- [ ] Tea"],
)
def test_a_text_without_a_clause_is_quoted_as_it_stands(text: str) -> None:
    (quoted,) = set(re.findall("“(.*)”", "\n".join(sayings(text))))
    assert quoted in text


MAY_12, MAY_3 = date(2026, 5, 12), date(2026, 5, 3)
KNEE = "The knee hurts on stairs only. Physio says wait two more weeks before running."


def test_a_question_is_not_said_back_but_what_earlier_days_hold_about_it() -> None:
    earlier = [(1, MAY_12, KNEE), (2, MAY_3, "Physio says wait two more weeks. The physio was late.")]
    assert mirror_grammar("Was it too early to run, after what the physio said?", earlier).splitlines() == [
        'root ::= from0 (" " from1)?',
        'from0 ::= "On 12 May 2026 you wrote “Physio says wait two more weeks before running”.[1]"',
        'from1 ::= "And on 3 May 2026: “The physio was late”.[2]"',  # the other clause has four words of the first
    ]


def test_a_question_to_which_nothing_was_found_is_told_so_only_when_that_is_all() -> None:
    asked = "Was it too early to run again?"
    assert mirror_grammar(asked, searched=True) == 'root ::= "Nothing in your earlier pages bears on that."\n'
    assert "Was it too early" in mirror_grammar(asked)  # there was no room for what was found
    assert "Nothing" not in mirror_grammar("I ran along the canal. Was it too early?", searched=True)


@pytest.mark.parametrize(
    "odd",
    [
        "I got 5 of 7 right ¹ today",
        "Dad has ''two singles around'' his words",
        "I read &quot;a very long book&quot; now",
    ],
)
def test_no_true_quotation_is_one_that_the_check_takes_out(odd: str) -> None:
    text = f"{odd}. The garden is dry again."
    for said in (sayings(text), re.findall(r"“[^”]*”", mirror_grammar("And now?", [(1, MAY_12, text)]))):
        assert said
        assert all(Checker({1: text}, [text]).checked(each) == (each, 0) for each in said), said


@pytest.mark.parametrize(
    "asked",
    [
        "Did I see Anna? #friends",
        "**Did I see Anna?**",
        "__Did I see Anna?__",
        "Did I see Anna? 🙂",
        "Anna?!",
        "C# or F#?",
    ],
)
def test_a_question_is_one_whatever_stands_after_its_mark(asked: str) -> None:
    assert mirror_grammar(asked, searched=True) == 'root ::= "Nothing in your earlier pages bears on that."\n'


def test_a_short_passage_that_was_found_is_not_nothing() -> None:
    said = mirror_grammar("When did I see Anna?", [(1, MAY_12, "Saw Anna.")], searched=True)
    assert said.splitlines()[1] == 'from0 ::= "On 12 May 2026 you wrote “Saw Anna”.[1]"'


def test_german_is_answered_in_german() -> None:
    earlier = [(1, MAY_12, "Das Knie tut nur auf der Treppe weh. Zwei Wochen soll ich noch warten.")]
    assert sayings("Heute bin ich zum ersten Mal wieder gelaufen.")[0].startswith("Du hast geschrieben: „Heute bin ich")
    asked = "War es mit dem Knie zu früh?"
    assert mirror_grammar(asked, earlier).splitlines()[1:] == [
        'from0 ::= "Am 12. Mai 2026 stand da: „Das Knie tut nur auf der Treppe weh“.[1]"'
    ]
    assert mirror_grammar(asked, searched=True) == 'root ::= "Auf deinen früheren Seiten steht nichts dazu."\n'


def test_what_was_found_for_an_entry_is_said_after_it() -> None:
    grammar = mirror_grammar(
        "I ran along the canal. No pain in the knee.", [(1, MAY_3, "It rained all night long."), (2, MAY_12, KNEE)]
    )
    assert grammar.splitlines()[0] == "root ::= first0 earlier"
    assert 'earlier ::= " On 12 May 2026 you wrote “The knee hurts on stairs only”.[2]"' in grammar
    assert "earlier" not in mirror_grammar("I ran along the canal.", [(1, MAY_12, KNEE)])  # not a word in common


def test_a_clause_that_breaks_off_is_not_said_back() -> None:
    assert clauses("I am sorry for what he is sorry for. It rained on the roof.") == ["It rained on the roof"]


def test_titles_and_initials_do_not_end_a_sentence() -> None:
    assert clauses("I saw Mr. A. Moore at St. Paul’s today. It rained all day.") == [
        "I saw Mr. A. Moore at St. Paul’s today",
        "It rained all day",
    ]


def test_a_clause_that_repeats_four_words_is_left_out() -> None:
    text = "We walked up to the old mill. Ruth sat up to the old hour. On and on and on and on. The rain went on."
    assert clauses(text) == ["We walked up to the old mill", "The rain went on"]


@pytest.mark.parametrize("text", ["", " \n", "…", "***", "🙂"])
def test_nothing_said_nothing_said_back(text: str) -> None:
    assert mirror_grammar(text) == ""
    assert small_model_options(text)["grammar"] == 'root ::= " "\n'


@given(st.text(st.sampled_from('Iambe wt,.;!?\n“"\\—’é'), max_size=300))
def test_clauses_are_the_writers_own_and_share_no_four_words(text: str) -> None:
    plain = " ".join(text.split())
    seen: set[tuple[str, ...]] = set()
    for clause in clauses(text):
        assert clause in plain
        assert not set('"“”\\\n') & set(clause)
        words = re.findall(r"[\w'’]+", clause.lower())
        runs = {tuple(words[n : n + 4]) for n in range(len(words) - 3)}
        assert not runs & seen
        seen |= runs


@pytest.mark.skipif(bool(EmbeddedServer.available()), reason="needs the built-in model")
async def test_the_model_chooses_among_them() -> None:
    text = 'I walked to the river. The "heron" was back. Ruth said: we move in May, and I am glad of it. C:\\ is full.'
    earlier = [(1, date(2024, 5, 3), "We looked at a house near the river.")]
    server = EmbeddedServer(LlmSettings())
    await server.start()
    client = server.client()
    allowed = r"(?:You walked to the river|(?:You|Then you) wrote “[^”]+”|You are glad of it)\."
    for _ in range(5):
        reply = "".join(
            [
                piece
                async for piece in client.stream(
                    [Message("user", text)], max_tokens=200, extra=small_model_options(text, earlier)
                )
            ]
        )
        assert re.fullmatch(
            rf"{allowed}(?: {allowed})? On 3 May 2024 you wrote “We looked at a house near the river”\.\[1\]", reply
        ), "not among the sentences"
    wordless = client.stream([Message("user", "???")], max_tokens=200, extra=small_model_options("???"))
    assert "".join([piece async for piece in wordless]).strip() == ""
    await client.close()
    await server.stop()
