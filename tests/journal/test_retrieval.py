"""What counts as relevant to a question, and what of a long entry is shown to the model."""

import pytest

from llamora.journal.retrieval import content_words, excerpt, is_relevant
from llamora.search.chunks import chunk_text
from llamora.search.vectors import NOT_COMPARED

QUESTION = content_words("heron river fog bridge morning walk")


@pytest.mark.parametrize(
    ("cosine", "passage", "expected"),
    [
        (0.4, "Nothing in common.", True),
        (0.39, "Nothing in common.", False),
        (0.25, "A heron by the river in fog.", True),
        (0.24, "A heron by the river in fog.", False),
        (0.25, "A heron by the river.", False),
        (NOT_COMPARED, "A heron by the river in fog.", True),
        (NOT_COMPARED, "A heron by the river.", False),
    ],
)
def test_what_is_relevant(cosine: float, passage: str, *, expected: bool) -> None:
    """Near alone, or less near with half of the words; without vectors half of them, or four."""
    assert is_relevant(cosine, QUESTION, passage) is expected


def test_four_words_are_enough_of_a_long_question_without_vectors() -> None:
    many = content_words("heron river fog bridge morning walk ferry gull reed otter")
    assert is_relevant(NOT_COMPARED, many, "heron, river, fog, bridge")
    assert not is_relevant(NOT_COMPARED, many, "heron, river, fog")
    assert not is_relevant(NOT_COMPARED, set(), "heron")


def test_a_passage_stands_among_its_neighbours_and_nothing_is_said_twice() -> None:
    text = " ".join(f"word{number}" for number in range(2000))
    middle = len(chunk_text(text)) // 2
    passage = excerpt(text, middle, set())
    assert passage in text
    assert chunk_text(text)[middle] in passage
    assert len(chunk_text(text)[middle]) < len(passage) < len(text) / 2


def test_without_vectors_the_passage_with_most_of_the_words_is_taken() -> None:
    text = " ".join([*["sand"] * 1500, "heron", "river", *["sand"] * 1500])
    assert "heron river" in excerpt(text, -1, content_words("the heron and the river"))


def test_a_short_text_is_taken_whole() -> None:
    assert excerpt("  Fog.\n\n*No one* about.  ", 5, set()) == "Fog.\n\n*No one* about."
