from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llamora.search.chunks import CHUNK_CHARS, CHUNK_WORDS, chunk_text


@given(st.text(alphabet=st.sampled_from("ab .!?\n。今日"), max_size=3000))
def test_chunks_lose_no_word_and_stay_short(text: str) -> None:
    found = chunk_text(text)
    assert all(passage.strip() for passage in found)
    assert set(" ".join(text.split())) - set(" ".join(found)) <= {" "}
    for passage in found:
        assert len(passage.split()) <= CHUNK_WORDS
        assert len(passage) <= CHUNK_CHARS + 1
    joined = iter("".join("".join(passage.split()) for passage in found))
    # Every letter is there, in order; what overlaps comes twice.
    assert all(letter in joined for letter in "".join(text.split()))


def test_chunks_overlap_by_whole_sentences() -> None:
    sentences = [f"Sentence number {number} has exactly seven words." for number in range(30)]
    found = chunk_text(" ".join(sentences))
    assert len(found) > 1
    for before, after in pairwise(found):
        assert after.startswith("Sentence number")
        assert after.split(". ")[0] in before


def test_no_text_gives_no_passage() -> None:
    assert chunk_text("") == chunk_text(" \n\t") == []
