import random
from datetime import date

import numpy as np
import pytest

from llamora.search import ranking
from llamora.search.index import UserIndex
from llamora.search.query import parse_query
from tests.search.documents import TODAY, clustered, document, found


def test_everyday_words_of_any_language_let_the_others_speak(index: UserIndex) -> None:
    rng = random.Random(5)
    everyday = "und die der ich habe mit dem das war wann wie ist ein nicht zu".split()
    index.put(
        document(n, " ".join([*rng.choices(everyday, k=60), "Regen" if n % 7 else "Schnee"]))
        for n in range(2, 400)
    )
    index.put([document(1, "Der Leuchtturm. " + "Etwas anderes, Kaffee. " * 10)])
    asked = "wann war das mit dem leuchtturm und wie ist das ich habe die"
    assert found(index, asked, 1000) == [1]
    # Where nothing but everyday words is asked for, they are what is asked for.
    assert len(found(index, "das mit dem und", 1000)) == 398


def test_the_writers_own_words_come_before_a_reply_that_is_as_good(index: UserIndex) -> None:
    later = date(2026, 11, 21)
    index.put(
        [
            document(1, "the heron by the weir"),
            document(2, "the heron by the weir", later, mine=False),
        ]
    )
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


def test_the_question_word_for_word_comes_first(index: UserIndex) -> None:
    filler = [
        document(n, "lantern lantern harbour harbour under the green " * 3) for n in range(2, 30)
    ]
    index.put(
        [
            document(
                1, "and so the green lantern under the harbour was out" + " and more text" * 40
            ),
            *filler,
        ]
    )
    assert found(index, "green lantern under the harbour")[0] == 1


def test_a_question_of_another_dimension_goes_by_word(index: UserIndex) -> None:
    index.put([document(1, "apples"), document(2, "pears")])
    assert index.put_vectors((1).to_bytes(16, "big"), 1, np.ones((1, 4), dtype=np.float32), "m")
    asked = {"m": np.ones(8, dtype=np.float32)}
    matches = index.ranker.search(parse_query("apples", TODAY), asked, 0.5, 5, 0)
    assert [match.entry_id[-1] for match in matches.matches] == [1]
    assert not matches.is_semantic
    assert index.ranker.find_nearest(asked, 5, frozenset()) == ()


def test_paging_gives_each_match_once(index: UserIndex) -> None:
    rng = random.Random(1)
    index.put(
        document(n, "tea " * rng.randint(1, 9) + "cup " * rng.randint(0, 9)) for n in range(1, 251)
    )
    everything = found(index, "tea", limit=1000)
    assert sorted(everything) == list(range(1, 251))
    assert [n for start in range(0, 250, 20) for n in found(index, "tea", 20, start)] == everything


def test_total_counts_beyond_the_pool(index: UserIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "LEXICAL_POOL", 10)
    index.put(document(n, "tea" if n % 2 else "tea cup", mine=n % 5 == 0) for n in range(1, 101))
    assert index.ranker.search(parse_query("tea", TODAY), {}, 0.5, 5, 0).total == 100
    assert index.ranker.search(parse_query("tea by:me", TODAY), {}, 0.5, 5, 0).total == 20


@pytest.mark.parametrize("meaning", [False, True])
def test_each_match_is_on_one_page_also_beyond_the_pool(
    index: UserIndex, monkeypatch: pytest.MonkeyPatch, meaning: bool
) -> None:
    monkeypatch.setattr(ranking, "LEXICAL_POOL", 20)
    monkeypatch.setattr(ranking, "DENSE_POOL", 30)
    rng = random.Random(2)
    texts = [
        " ".join(rng.choices(["tea", "cup", "filler", "word", "spoon"], k=rng.randint(9, 90)))
        for _ in range(200)
    ]
    index.put(document(n, f"tea {text}") for n, text in enumerate(texts, 1))
    vectors = clustered(200, 8, 3)
    asked = {"m": vectors[0]} if meaning else {}
    for n in range(200 if meaning else 0):
        assert index.put_vectors((n + 1).to_bytes(16, "big"), 1, vectors[n : n + 1], "m")
    query = parse_query("tea cup spoon", TODAY)
    pages = [index.ranker.search(query, asked, 0.5, 7, offset) for offset in range(0, 200, 7)]
    assert {page.total for page in pages} == {200}
    shown = [match.entry_id for page in pages for match in page.matches]
    assert len(shown) == len(set(shown)) == 200


def test_the_very_form_of_a_word_comes_before_its_kin(index: UserIndex) -> None:
    index.put(
        [
            document(1, "a night of vomiting, and of much else that was long to tell"),
            document(2, "vomit " * 5),
        ]
    )
    assert found(index, "vomiting") == [1, 2]
    assert found(index, "vomit") == [2, 1]


def test_the_very_form_of_a_word_is_found_among_thousands_of_its_kin(index: UserIndex) -> None:
    # More than are weighed at all, each better by its stem than the one that is wanted.
    index.put(document(n, "business " * 3) for n in range(2, ranking.LEXICAL_POOL + 300))
    index.put([document(1, "All the morning busying myself " + "with one thing and another " * 30)])
    assert found(index, "busying")[:1] == [1]
    assert found(index, "Busyin*")[:1] == [1]
    index.put([document(1, "All the morning abed", revision=2)])
    assert 1 not in found(index, "busying", 2000)
    index.drop([(1).to_bytes(16, "big")])
    assert index._fulltext._db.execute(
        "SELECT count(*) FROM forms WHERE forms MATCH 'abed OR busying'"
    ).fetchone() == (0,)
