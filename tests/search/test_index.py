from datetime import date

import numpy as np

from llamora.search.index import UserIndex
from llamora.search.query import parse_query
from tests.search.documents import TODAY, document, found


def test_the_date_in_words_is_indexed(index: UserIndex) -> None:
    index.put([document(1, "a walk", date(2023, 5, 7)), document(2, "a walk", date(2023, 6, 9))])
    assert found(index, "the walk on 9 June 2023")[0] == 2
    assert found(index, "walk sunday")[0] == 1


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
    matches = index.ranker.search(parse_query("fruit", TODAY), {"": vector[0]}, 0.5, 10, 0)
    assert [match.entry_id for match in matches.matches] == []
    assert not index.put_vectors((1).to_bytes(16, "big"), 1, vector[:1])
    # The place is used again, without what was there.
    index.put([document(3, "plums")])
    assert found(index, "apples") == []
    assert found(index, "plums") == [3]
    leftovers = index._fulltext._db.execute(
        "SELECT count(*) FROM words WHERE words MATCH 'apple*'"
    ).fetchone()[0]
    assert leftovers == 0


def test_vectors_of_another_revision_are_refused(index: UserIndex) -> None:
    index.put([document(1, "apples", revision=2)])
    assert not index.put_vectors((1).to_bytes(16, "big"), 1, np.ones((1, 4), dtype=np.float32))


def test_every_change_makes_a_new_version_that_a_snapshot_compares(index: UserIndex) -> None:
    versions = [index.version]
    index.put([document(1, "apples"), document(2, "pears")])
    versions.append(index.version)
    assert index.put_vectors((1).to_bytes(16, "big"), 1, np.ones((1, 4), dtype=np.float32))
    versions.append(index.version)
    index.drop([(2).to_bytes(16, "big")])
    versions.append(index.version)
    assert len(set(versions)) == 4


def test_edits_use_slots_again(index: UserIndex) -> None:
    """However often entries are edited: the columns do not grow with the edits for ever."""
    for revision in range(1, 8):
        index.put([document(n, f"pears {n}", revision=revision) for n in range(300)])
        found(index, "pears")
    assert len(index) == 300
    assert len(index._slots) < 4 * 300
