import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.search import tokens
from llamora.search.index import UserIndex
from llamora.search.query import parse_query
from llamora.search.snippets import MATCH_START, MATCH_STOP
from llamora.text import normalize
from tests.search.documents import TODAY, document, found


def test_words_are_found_by_stem_and_without_diacritics(index: UserIndex) -> None:
    index.put(
        [
            document(1, "We were running to the café"),
            document(2, "Nothing here"),
            document(3, "Über Ängste"),
        ]
    )
    for query in ("run", "cafe", "CAFÉ", "caf*"):
        assert found(index, query) == [1]
    assert found(index, "uber") == [3]


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("今日は良い天気ですね", ["天気", "良い天気", '"天気です"', "気"]),
        ("我今天去了北京大学", ["北京", "大学", "北京大学"]),
        ("วันนี้อากาศดีมาก", ["อากาศ", '"อากาศดี"']),
        ("학교에서 친구를 만났다", ["학교", "친구"]),
        ("आज मौसम अच्छा है", ["मौसम", "अच्छा"]),
        ("Сегодня шёл снег", ["снег", "ШЁЛ"]),
        ("היום ירד גשם", ["גשם"]),
    ],
)
def test_every_script_is_found(index: UserIndex, text: str, queries: list[str]) -> None:
    index.put(
        [document(1, text), document(2, "other words"), document(3, "東京 ソウル 서울 กรุงเทพ")]
    )
    for query in queries:
        assert found(index, query)[:1] == [1], query


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("Die Straße ist naß", "strasse"),
        ("In der Bahnhofstrasse", "bahnhofstraße"),
        ("J'ai le cœur brisé", '"coeur brise"'),
        ("Le coeur est là", "cœur"),
        ("Wir fuhren nach Łódź", "lodz"),
        ("Sommer in København", "kobenhavn"),
        ("Сегодня шёл снег", "шел"),
        ("Все ели мед", "мёд"),
        ("Ήπια έναν καφές", "ΚΑΦΕΣ"),
        ("שָׁלוֹם לכולם", "שלום"),
        ("ذهبتُ إلى المَدرسة", "المدرسه"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "width"),
        ("Die Änderung über Nacht", "anderung uber"),
        ("un nin\u0303o pequen\u0303o", "niño"),
    ],
)
def test_each_way_to_write_a_letter_finds_the_others(
    index: UserIndex, written: str, typed: str
) -> None:
    index.put([document(1, f"Long before that. {written}, she said."), document(2, "other words")])
    assert found(index, typed) == [1]
    (shown,) = index.build_snippets(
        parse_query(typed, TODAY), [f"Long before that. {written}, she said."]
    )
    marked = "".join(re.findall(f"{MATCH_START}([^{MATCH_STOP}]*){MATCH_STOP}", shown))
    assert marked
    assert set(marked) <= set(written)  # the letters are the writer's
    assert written in shown.replace(MATCH_START, "").replace(MATCH_STOP, "")


@given(
    st.lists(
        st.sampled_from(
            [
                "œuvre",
                "Straße",
                "the",
                "łódź",
                "天気",
                "שָׁלוֹם",
                "…",
                "…ß",
                "x",
                "\n",
                "😀",
                "ﬃ",
                "e\u0301",
            ]
        ),
        max_size=200,
    ),
    st.sampled_from(["oeuvre", "strasse", "lodz the", "天気", "שלום", "x"]),
)
def test_a_snippet_is_a_piece_of_the_text_itself(words: list[str], asked: str) -> None:
    index = UserIndex(graph_above=10**9)
    text = normalize(" ".join(words))
    (shown,) = index.build_snippets(parse_query(asked, TODAY), [text])
    index.close()
    bare = shown.replace(MATCH_START, "").replace(MATCH_STOP, "")
    assert any(piece in text for piece in (bare, bare[1:], bare[:-1], bare[1:-1]))
    assert bool(shown) == (MATCH_START in shown)


def test_snippets_mark_what_matches(index: UserIndex) -> None:
    query = parse_query("running 天気", TODAY)
    long = "word " * 200 + "she runs fast" + " word" * 200
    first, second, third = index.build_snippets(query, [long, "no match", "今日は天気"])
    assert "she \x01runs\x02 fast" in first
    assert len(first) < 400
    assert second == ""
    assert "".join(third.split("\x01")).replace("\x02", "") == "今日は天気"
    assert index.build_snippets(query, ["no"]) == [""]


def test_phrases_are_found_by_where_their_words_stand(index: UserIndex) -> None:
    rng = random.Random(3)
    words = ["heron", "otter", "weir", "the", "was", "of", "moss"]
    texts = {n: " ".join(rng.choices(words, k=rng.randint(1, 40))) for n in range(1, 200)}
    index.put([document(n, text) for n, text in texts.items()])
    for _ in range(200):
        phrase = " ".join(rng.choices(words, k=rng.randint(2, 4)))
        expected = sorted(n for n, text in texts.items() if f" {phrase} " in f" {text} ")
        assert sorted(found(index, f'"{phrase}"', 300)) == expected, phrase
    assert len(found(index, '"20 November 2026"', 300)) == len(
        texts
    )  # the date stands beside the text


@pytest.mark.parametrize("typed", ["runnin", "RUNNI", "happines", "cafeter", "naïvet", "busyin"])
def test_what_is_typed_is_found_before_its_last_letter(index: UserIndex, typed: str) -> None:
    text = "Running in happiness to the cafétéria of naivety, busying myself"
    index.put([document(1, text), document(2, "nothing of all that")])
    query = parse_query(typed, TODAY, is_typing=True)
    assert [match.entry_id[-1] for match in index.ranker.search(query, {}, 0.5, 5, 0).matches] == [
        1
    ]
    assert MATCH_START in index.build_snippets(query, [text])[0]


def test_postings_that_are_kept_follow_what_is_written_edited_and_dropped(index: UserIndex) -> None:
    rng = random.Random(2)
    texts: dict[int, str] = {}
    for step in range(300):
        number = rng.randint(1, 40)
        if rng.random() < 0.3:
            index.drop([number.to_bytes(16, "big")])
            texts.pop(number, None)
        else:
            texts[number] = " ".join(
                rng.choices(["heron", "otter", "weir", "rain", "moss"], k=rng.randint(1, 60))
            )
            index.put([document(number, texts[number], revision=step + 1)])
        word = rng.choice(["heron", "otter", "weir", "rain", "moss"])
        assert sorted(found(index, word, 100)) == sorted(
            n for n, text in texts.items() if word in text
        ), step
        phrase = f"{word} rain"
        assert sorted(found(index, f'"{phrase}"', 100)) == sorted(
            n for n, t in texts.items() if phrase in t
        ), step


def test_the_best_stretch_of_a_very_long_text_is_shown(index: UserIndex) -> None:
    # A megabyte in which the words of the question are everywhere, and all of them in one place.
    filler = "The quick brown cat sleeps all day. "
    text = filler * 15_000 + "Here the quick fox met a weasel. " + filler * 15_000
    (marked,) = index.build_snippets(parse_query("quick fox weasel", TODAY), [text])
    assert f"{MATCH_START}fox{MATCH_STOP}" in marked
    assert f"{MATCH_START}weasel{MATCH_STOP}" in marked
    assert len(marked) < 1000


@pytest.mark.parametrize(
    ("text", "query", "others"),
    [
        ("The lesson 🎻 went well", "🎻", ["The lesson went well 🎺"]),
        ("Well done 👍🏽!", "👍🏽", ["Well done 👍", "Well done 👍🏿"]),
        ("Us👩‍👩‍👧here", "👩‍👩‍👧", ["She 👩 and 👧", "They 👩‍👩‍👦"]),
        ("To 🇫🇷🇩🇪 by train", "🇩🇪", ["To 🇫🇷🇮🇹", "To 🇪🇩"]),
        ("First 1️⃣ then", "1️⃣", ["First 1 then 2️⃣"]),
        ("With ❤ from", "❤️", ["With 💙 from"]),
        ("Flag 🏴󠁧󠁢󠁳󠁣󠁴󠁿 up", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", ["Flag 🏴 up", "Flag 🏴󠁧󠁢󠁷󠁬󠁳󠁿 up"]),
        ("I learn C++17 now", "C++", ["Drive C: is full", "C# and C", "Grade C+"]),
        ("I learn c# now", "C#", ["C++", "Drive C:"]),
        ("I learn .NET, too", ".NET", ["A net for fishing", "The price net.Then"]),
        ("It rose by 3.5 degrees", "3.5", ["3 and 5", "3,5", "3.57", "35"]),
        ("We paid 1,200 for it", "1,200", ["1 and 200", "1.200", "1200"]),
        ("Due on 20.11.2031", "20.11.2031", ["20 eggs, 11 pans, 2031"]),
        ("Due on 20.11.2031", "20.11", ["20 eggs, 11 pans", "20:11"]),
        ("See you 20/11 there", "20/11", ["20 11", "20-11"]),
        ("The train at 18:30 left", "18:30", ["18 or 30", "18.30"]),
        ("Pages 5–7 and 9", "5-7", ["5 7", "5/7"]),
    ],
)
def test_signs_are_found_as_written_and_marked(
    index: UserIndex, text: str, query: str, others: list[str]
) -> None:
    index.put([document(1, text), *(document(n, t) for n, t in enumerate(others, 2))])
    as_phrase = parse_query(f'"{query}"', TODAY)
    assert found(index, query) == found(index, f'"{query}"') == [1]
    (snippet,) = index.build_snippets(as_phrase, [text])
    marked = re.findall(f"{MATCH_START}(.*?){MATCH_STOP}", snippet)
    assert [tokens.fold(mark).lower() for mark in marked] == [tokens.fold(query).lower()]
    assert snippet.replace(MATCH_START, "").replace(MATCH_STOP, "") == text


@pytest.mark.parametrize("query", ["net", "12", "C", "lesson", "LGBTQ", "LGBTQ+"])
def test_words_beside_signs_are_found_without_them(index: UserIndex, query: str) -> None:
    index.put(
        [
            document(1, ".NET and C++ on 20.12.2031, the lesson🎻 of LGBTQ+ people"),
            document(2, "Nothing"),
        ]
    )
    assert found(index, query) == [1]


@pytest.mark.parametrize(
    ("query", "appointment"),
    [
        ("2027-03-19", "The dentist has time for me on 2027-03-19."),
        ("19.3.2027", "Am 19.3.2027, endlich"),
        ("3 May 2027", "We marry on 3 May 2027!"),
    ],
)
def test_a_date_alone_finds_it_in_texts_first_and_then_its_days(
    index: UserIndex, query: str, appointment: str
) -> None:
    (dates,) = {parse_query(query, TODAY).after, parse_query(query, TODAY).before}
    assert dates is not None
    index.put(
        [
            document(1, "Written on that day", dates),
            document(2, appointment),
            document(3, "19 guests in 3 rooms, from May 2027"),
            document(4, "On the day itself", dates),
        ]
    )
    assert found(index, query)[0] == 2
    assert sorted(found(index, query)) == [1, 2, 4]
    assert sorted(found(index, f"on:{query}")) == [1, 4]
    (snippet,) = index.build_snippets(parse_query(query, TODAY), [appointment])
    assert f"{MATCH_START}{query}{MATCH_STOP}" in snippet


@pytest.mark.parametrize(
    ("text", "typed", "marked"),
    [
        ("Weeds in the garden", "gardne", "garden"),
        ("Weeds in the garden", "gaarden", "garden"),
        ("Weeds in the garden", "arden", "garden"),
        ("Weeds in the garden", "hgarden", "garden"),
        ("Wir saßen im Café Müller", "muler", "Müller"),
        ("Сегодня падает снежинка", "снижинка", "снежинка"),
        ("Ein Spaziergang im Regen", "Spazirgang", "Spaziergang"),
    ],
)
def test_a_word_of_no_entry_finds_those_one_edit_away(
    index: UserIndex, text: str, typed: str, marked: str
) -> None:
    index.put([document(1, text), document(2, "Nothing else")])
    assert found(index, typed) == [1]
    (snippet,) = index.build_snippets(parse_query(typed, TODAY), [text])
    assert f"{MATCH_START}{marked}{MATCH_STOP}" in snippet


@pytest.mark.parametrize("typed", ["gadrne", "grdn", "graen", "wed", "weds", '-"gardne" weeeeds'])
def test_short_words_and_two_edits_are_not_corrected(index: UserIndex, typed: str) -> None:
    index.put([document(1, "Weeds in the garden"), document(2, "Nothing else")])
    assert found(index, typed) == []


def test_words_as_typed_come_before_corrected_ones(index: UserIndex) -> None:
    index.put(
        [
            document(1, "The garden"),
            *(document(n, f"A lighthouse in the fog, {n} times seen") for n in range(2, 8)),
            document(8, "The lighthouse has a garden of its own and much more to be told of it"),
            document(9, "The house by the sea"),
        ]
    )
    order = found(index, "lighthouse gardne")
    assert order[-1] == 1
    assert sorted(order) == [1, 2, 3, 4, 5, 6, 7, 8]
    index.put([document(10, "The gardne gnome")])
    assert found(index, "gardne") == [10]
