from hypothesis import given
from hypothesis import strategies as st

from llamora.search.snippets import MATCH_START, MATCH_STOP, excerpt, split_marked
from llamora.text import strip_markdown


@given(st.text(max_size=500))
def test_plain_and_opening_take_anything(text: str) -> None:
    assert len(excerpt(strip_markdown(text))) <= 241


@given(
    st.lists(
        st.tuples(st.text(alphabet="ab c<", min_size=1, max_size=8), st.booleans()), max_size=8
    )
)
def test_pieces_keep_every_letter(parts: list[tuple[str, bool]]) -> None:
    marked = "".join(f"{MATCH_START}{text}{MATCH_STOP}" if mark else text for text, mark in parts)
    found = split_marked(marked)
    squeezed = "".join("".join(text for text, _ in parts).split())
    assert "".join("".join(text for text, _ in found).split()) == squeezed
    assert all(text for text, _ in found)


def test_marks_are_told_apart() -> None:
    assert split_marked(f"the {MATCH_START}red{MATCH_STOP}  house") == (
        ("the ", False),
        ("red", True),
        (" house", False),
    )


def test_an_excerpt_ends_with_a_word() -> None:
    words = "heron " * 100
    assert excerpt(words).endswith(" heron…")
    assert len(excerpt(words)) > 200
    assert excerpt("x" * 500) == "x" * 240 + "…"
