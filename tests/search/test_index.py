import random
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.search import index as module
from llamora.search.index import Document, UserIndex
from llamora.search.rank import MATCH_START, MATCH_STOP, parse_query
from llamora.search.vectors import VectorIndex
from llamora.text import normalize

TODAY = date(2026, 11, 20)


@pytest.fixture
def index() -> Iterator[UserIndex]:
    made = UserIndex(graph_above=10**9)
    yield made
    made.close()


def document(number: int, text: str, day: date = TODAY, mine: bool = True, revision: int = 1) -> Document:
    at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    return Document(number.to_bytes(16, "big"), revision, day, at, mine, text)


def found(index: UserIndex, text: str, limit: int = 20, offset: int = 0) -> list[int]:
    matches = index.search(parse_query(text, TODAY), {}, 0.5, limit, offset)
    return [int.from_bytes(match.entry_id, "big") for match in matches.matches]


def test_words_are_found_by_stem_and_without_diacritics(index: UserIndex) -> None:
    index.put([document(1, "We were running to the café"), document(2, "Nothing here"), document(3, "Über Ängste")])
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
    index.put([document(1, text), document(2, "other words"), document(3, "東京 ソウル 서울 กรุงเทพ")])
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
def test_each_way_to_write_a_letter_finds_the_others(index: UserIndex, written: str, typed: str) -> None:
    index.put([document(1, f"Long before that. {written}, she said."), document(2, "other words")])
    assert found(index, typed) == [1]
    (shown,) = index.build_snippets(parse_query(typed, TODAY), [f"Long before that. {written}, she said."])
    marked = "".join(re.findall(f"{MATCH_START}([^{MATCH_STOP}]*){MATCH_STOP}", shown))
    assert marked
    assert set(marked) <= set(written)  # the letters are the writer's
    assert written in shown.replace(MATCH_START, "").replace(MATCH_STOP, "")


@given(
    st.lists(
        st.sampled_from(["œuvre", "Straße", "the", "łódź", "天気", "שָׁלוֹם", "…", "…ß", "x", "\n", "😀", "ﬃ", "e\u0301"]),
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


def test_everyday_words_of_any_language_let_the_others_speak(index: UserIndex) -> None:
    rng = random.Random(5)
    everyday = "und die der ich habe mit dem das war wann wie ist ein nicht zu".split()
    index.put(
        document(n, " ".join([*rng.choices(everyday, k=60), "Regen" if n % 7 else "Schnee"])) for n in range(2, 400)
    )
    index.put([document(1, "Der Leuchtturm. " + "Etwas anderes, Kaffee. " * 10)])
    asked = "wann war das mit dem leuchtturm und wie ist das ich habe die"
    assert found(index, asked, 1000) == [1]
    # Where nothing but everyday words is asked for, they are what is asked for.
    assert len(found(index, "das mit dem und", 1000)) == 398


def test_the_writers_own_words_come_before_a_reply_that_is_as_good(index: UserIndex) -> None:
    later = date(2026, 11, 21)
    index.put([document(1, "the heron by the weir"), document(2, "the heron by the weir", later, mine=False)])
    assert found(index, "heron weir") == [1, 2]
    assert found(index, "by:reply heron") == [2]
    # A reply that is better by far stays first.
    index.put(
        [
            document(3, "the heron " + "and much else beside it " * 40),
            document(2, "heron weir", later, mine=False, revision=2),
        ]
    )
    index.drop([(1).to_bytes(16, "big")])
    assert found(index, "heron weir") == [2, 3]


def test_a_phrase_must_be_there_word_for_word(index: UserIndex) -> None:
    index.put([document(1, "the old oak by the river"), document(2, "an oak, old and by a river")])
    assert found(index, '"old oak"') == [1]
    assert found(index, '"oak old"') == [2]


def test_filters(index: UserIndex) -> None:
    index.put(
        [
            document(1, "tea in spring", date(2024, 4, 2)),
            document(2, "tea in autumn", date(2025, 10, 2)),
            document(3, "tea, said the model", date(2025, 10, 2), mine=False),
        ]
    )
    assert found(index, "tea in:2024") == [1]
    assert sorted(found(index, "tea after:2024")) == [2, 3]
    assert found(index, "tea by:reply") == [3]
    assert sorted(found(index, "tea -autumn")) == [1, 3]
    assert found(index, "by:me") == [2, 1]
    assert found(index, "October 2025 by:me") == [2]
    assert found(index, "coffee") == []


def test_the_date_in_words_is_indexed(index: UserIndex) -> None:
    index.put([document(1, "a walk", date(2023, 5, 7)), document(2, "a walk", date(2023, 6, 9))])
    assert found(index, "the walk on 9 June 2023")[0] == 2
    assert found(index, "walk sunday")[0] == 1


def test_the_question_word_for_word_comes_first(index: UserIndex) -> None:
    filler = [document(n, "lantern lantern harbour harbour under the green " * 3) for n in range(2, 30)]
    index.put([document(1, "and so the green lantern under the harbour was out" + " and more text" * 40), *filler])
    assert found(index, "green lantern under the harbour")[0] == 1


def test_an_edit_replaces_and_an_older_revision_does_not(index: UserIndex) -> None:
    index.put([document(1, "apples", revision=1)])
    index.put([document(1, "pears", revision=2)])
    index.put([document(1, "apples", revision=1)])
    assert found(index, "apples") == []
    assert found(index, "pears") == [1]
    assert len(index) == 1


def test_what_is_dropped_is_gone_with_words_and_vectors(index: UserIndex) -> None:
    vector = np.eye(4, dtype=np.float32)
    index.put([document(1, "apples"), document(2, "pears")])
    for number in (1, 2):
        assert index.put_vectors(number.to_bytes(16, "big"), 1, vector[number - 1 : number])
    index.drop([(1).to_bytes(16, "big")])
    assert found(index, "apples") == []
    matches = index.search(parse_query("fruit", TODAY), {"": vector[0]}, 0.5, 10, 0)
    assert [match.entry_id for match in matches.matches] == []
    assert not index.put_vectors((1).to_bytes(16, "big"), 1, vector[:1])
    # The place is used again, without what was there.
    index.put([document(3, "plums")])
    assert found(index, "apples") == []
    assert found(index, "plums") == [3]
    leftovers = index._fulltext._db.execute("SELECT count(*) FROM words WHERE words MATCH 'apple*'").fetchone()[0]
    assert leftovers == 0


def test_vectors_of_another_revision_are_refused(index: UserIndex) -> None:
    index.put([document(1, "apples", revision=2)])
    assert not index.put_vectors((1).to_bytes(16, "big"), 1, np.ones((1, 4), dtype=np.float32))


def test_a_question_of_another_dimension_goes_by_word(index: UserIndex) -> None:
    index.put([document(1, "apples"), document(2, "pears")])
    assert index.put_vectors((1).to_bytes(16, "big"), 1, np.ones((1, 4), dtype=np.float32), "m")
    asked = {"m": np.ones(8, dtype=np.float32)}
    matches = index.search(parse_query("apples", TODAY), asked, 0.5, 5, 0)
    assert [match.entry_id[-1] for match in matches.matches] == [1]
    assert not matches.is_semantic
    assert index.find_nearest(asked, 5, frozenset()) == []


def test_paging_gives_each_match_once(index: UserIndex) -> None:
    rng = random.Random(1)
    index.put(document(n, "tea " * rng.randint(1, 9) + "cup " * rng.randint(0, 9)) for n in range(1, 251))
    everything = found(index, "tea", limit=1000)
    assert sorted(everything) == list(range(1, 251))
    assert [n for start in range(0, 250, 20) for n in found(index, "tea", 20, start)] == everything


def test_total_counts_beyond_the_pool(index: UserIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEXICAL_POOL", 10)
    index.put(document(n, "tea" if n % 2 else "tea cup", mine=n % 5 == 0) for n in range(1, 101))
    assert index.search(parse_query("tea", TODAY), {}, 0.5, 5, 0).total == 100
    assert index.search(parse_query("tea by:me", TODAY), {}, 0.5, 5, 0).total == 20


@pytest.mark.parametrize("meaning", [False, True])
def test_each_match_is_on_one_page_also_beyond_the_pool(
    index: UserIndex, monkeypatch: pytest.MonkeyPatch, meaning: bool
) -> None:
    monkeypatch.setattr(module, "LEXICAL_POOL", 20)
    monkeypatch.setattr(module, "DENSE_POOL", 30)
    rng = random.Random(2)
    texts = [" ".join(rng.choices(["tea", "cup", "filler", "word", "spoon"], k=rng.randint(9, 90))) for _ in range(200)]
    index.put(document(n, f"tea {text}") for n, text in enumerate(texts, 1))
    vectors = clustered(200, 8, 3)
    asked = {"m": vectors[0]} if meaning else {}
    for n in range(200 if meaning else 0):
        assert index.put_vectors((n + 1).to_bytes(16, "big"), 1, vectors[n : n + 1], "m")
    query = parse_query("tea cup spoon", TODAY)
    pages = [index.search(query, asked, 0.5, 7, offset) for offset in range(0, 200, 7)]
    assert {page.total for page in pages} == {200}
    shown = [match.entry_id for page in pages for match in page.matches]
    assert len(shown) == len(set(shown)) == 200


def test_snippets_mark_what_matches(index: UserIndex) -> None:
    query = parse_query("running 天気", TODAY)
    long = "word " * 200 + "she runs fast" + " word" * 200
    first, second, third = index.build_snippets(query, [long, "no match", "今日は天気"])
    assert "she \x01runs\x02 fast" in first
    assert len(first) < 400
    assert second == ""
    assert "".join(third.split("\x01")).replace("\x02", "") == "今日は天気"
    assert index.build_snippets(query, ["no"]) == [""]


def clustered(rows: int, dim: int, seed: int) -> "np.ndarray":
    """Unit vectors in groups, like those of texts."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    made = centres[rng.integers(0, 40, rows)] + 0.7 * rng.normal(size=(rows, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_the_graph_agrees_with_exact_search_through_edits() -> None:
    pytest.importorskip("hnswlib", reason="chroma-hnswlib has no wheel for this machine: search is exact there")
    vectors = clustered(4000, 384, 1)
    queries = clustered(100, 384, 2)
    exact, graph = VectorIndex(384, 10**9), VectorIndex(384, 1000)
    for passages in (exact, graph):
        for slot in range(3000):
            passages.put(slot, vectors[slot : slot + 1])
    while graph.extend_graph():
        pass
    for passages in (exact, graph):
        for slot in range(0, 3000, 7):
            passages.drop(slot)
        for slot in range(0, 1000, 3):
            passages.put(slot, vectors[3000 + slot : 3001 + slot])
    assert not graph.is_graph_complete
    while graph.extend_graph():
        pass
    assert graph.is_graph_complete
    assert not exact.is_graph_complete
    same = 0
    for query in queries:
        best = [set(np.argsort(-p.nearest_cosines(query, 3000, None))[:10].tolist()) for p in (exact, graph)]
        same += len(best[0] & best[1])
    assert same / (10 * len(queries)) >= 0.99


def test_the_sketch_agrees_with_exact_search_through_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamora.search.vectors.SKETCH_MIN_ROWS", 1000)
    monkeypatch.setattr("llamora.search.vectors.SKETCH_POOL", 300)
    rng = np.random.default_rng(4)
    # Numbers of texts differ much in some directions and little in most.
    turned, _ = np.linalg.qr(rng.normal(size=(384, 384)))
    drawn = (rng.normal(size=(6100, 384)) * np.arange(1, 385) ** -0.3) @ turned
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    vectors, queries = vectors[:6000], vectors[6000:]
    passages = VectorIndex(384, 10**9)
    held: dict[int, slice] = {}

    def put(slot: int, rows: slice) -> None:
        passages.put(slot, vectors[rows])
        held[slot] = rows

    for slot in range(2000):
        put(slot, slice(2 * slot, 2 * slot + 2))
    while passages.extend_sketch():
        pass
    for slot in range(0, 2000, 7):
        passages.drop(slot)
        held.pop(slot, None)
    for slot in range(0, 1000, 3):
        put(slot, slice(4000 + 2 * slot, 4002 + 2 * slot))
    allowed = np.ones(2000, dtype=np.bool_)
    allowed[1::2] = False
    assert passages._sketched_count == passages.row_count
    for mask in (None, allowed):
        same = 0
        for query in queries:
            cosines = np.full(2000, -2.0)
            for slot, rows in held.items():
                if mask is None or mask[slot]:
                    each = vectors[rows] @ query
                    cosines[slot] = 0.7 * each.max() + 0.3 * each.mean()
            likeness = passages.nearest_cosines(query, 2000, mask)
            same += len(set(np.argsort(-likeness)[:10].tolist()) & set(np.argsort(-cosines)[:10].tolist()))
            assert likeness[likeness > -2] == pytest.approx(cosines[likeness > -2], abs=0.004)
        assert same / (10 * len(queries)) >= 0.99


def test_phrases_are_found_by_where_their_words_stand(index: UserIndex) -> None:
    rng = random.Random(3)
    words = ["heron", "otter", "weir", "the", "was", "of", "moss"]
    texts = {n: " ".join(rng.choices(words, k=rng.randint(1, 40))) for n in range(1, 200)}
    index.put([document(n, text) for n, text in texts.items()])
    for _ in range(200):
        phrase = " ".join(rng.choices(words, k=rng.randint(2, 4)))
        expected = sorted(n for n, text in texts.items() if f" {phrase} " in f" {text} ")
        assert sorted(found(index, f'"{phrase}"', 300)) == expected, phrase
    assert len(found(index, '"20 November 2026"', 300)) == len(texts)  # the date stands beside the text


def test_compaction_keeps_every_vector() -> None:
    vectors = clustered(900, 16, 3)
    passages = VectorIndex(16, 10**9)
    for slot in range(300):
        passages.put(slot, vectors[3 * slot : 3 * slot + 3])
    for slot in range(0, 300, 2):
        passages.drop(slot)
    before = passages.nearest_cosines(vectors[5], 300, None)
    assert passages.compact()
    assert passages.row_count == 450
    assert passages.nearest_cosines(vectors[5], 300, None) == pytest.approx(before, abs=1e-6)
    assert passages.nearest_passage(1, vectors[5]) == 2
    assert not passages.has_vectors(0)
    assert not passages.compact()


def test_the_very_form_of_a_word_comes_before_its_kin(index: UserIndex) -> None:
    index.put([document(1, "a night of vomiting, and of much else that was long to tell"), document(2, "vomit " * 5)])
    assert found(index, "vomiting") == [1, 2]
    assert found(index, "vomit") == [2, 1]


def test_the_very_form_of_a_word_is_found_among_thousands_of_its_kin(index: UserIndex) -> None:
    # More than are weighed at all, each better by its stem than the one that is wanted.
    index.put(document(n, "business " * 3) for n in range(2, module.LEXICAL_POOL + 300))
    index.put([document(1, "All the morning busying myself " + "with one thing and another " * 30)])
    assert found(index, "busying")[:1] == [1]
    assert found(index, "Busyin*")[:1] == [1]
    index.put([document(1, "All the morning abed", revision=2)])
    assert 1 not in found(index, "busying", 2000)
    index.drop([(1).to_bytes(16, "big")])
    assert index._fulltext._db.execute("SELECT count(*) FROM forms WHERE forms MATCH 'abed OR busying'").fetchone() == (
        0,
    )


@pytest.mark.parametrize("typed", ["runnin", "RUNNI", "happines", "cafeter", "naïvet", "busyin"])
def test_what_is_typed_is_found_before_its_last_letter(index: UserIndex, typed: str) -> None:
    text = "Running in happiness to the cafétéria of naivety, busying myself"
    index.put([document(1, text), document(2, "nothing of all that")])
    query = parse_query(typed, TODAY, is_typing=True)
    assert [match.entry_id[-1] for match in index.search(query, {}, 0.5, 5, 0).matches] == [1]
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
            texts[number] = " ".join(rng.choices(["heron", "otter", "weir", "rain", "moss"], k=rng.randint(1, 60)))
            index.put([document(number, texts[number], revision=step + 1)])
        word = rng.choice(["heron", "otter", "weir", "rain", "moss"])
        assert sorted(found(index, word, 100)) == sorted(n for n, text in texts.items() if word in text), step
        phrase = f"{word} rain"
        assert sorted(found(index, f'"{phrase}"', 100)) == sorted(n for n, t in texts.items() if phrase in t), step


def test_the_best_stretch_of_a_very_long_text_is_shown(index: UserIndex) -> None:
    # A megabyte in which the words of the question are everywhere, and all of them in one place.
    filler = "The quick brown cat sleeps all day. "
    text = filler * 15_000 + "Here the quick fox met a weasel. " + filler * 15_000
    (marked,) = index.build_snippets(parse_query("quick fox weasel", TODAY), [text])
    assert f"{MATCH_START}fox{MATCH_STOP}" in marked
    assert f"{MATCH_START}weasel{MATCH_STOP}" in marked
    assert len(marked) < 1000
