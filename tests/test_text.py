"""Normal forms that a hostile text cannot make slow, and that change nothing in any other."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.text import MAX_COMBINING_MARKS, detect_language, normal_form, strip_markdown


@given(st.text(max_size=200))
def test_it_is_the_normal_form(text: str) -> None:
    assert normal_form("NFC", text) == unicodedata.normalize("NFC", text)
    assert normal_form("NFKC", text) == unicodedata.normalize("NFKC", text)


def test_marks_beyond_measure_are_dropped() -> None:
    # Two kinds in turn have to be sorted: half a million would take hours, and these take no time at all.
    found = normal_form("NFC", "a" + "\u0301\u0316" * 250_000 + "b")
    assert len(found) <= MAX_COMBINING_MARKS + 2
    assert found.endswith("b")


def test_long_rows_of_emoji_and_signs_stay() -> None:
    for text in ("\U0001f469\u200d\U0001f4bb" * 60, "\u2026" * 100, "\u0928\u093f" * 80):
        assert normal_form("NFC", text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Was it too early to run again?", "en"),
        ("War es mit dem Knie zu früh?", "de"),
        ("Früh am #fluss, noch im Dunkeln.", "de"),
        ("Die Hard was on, and I fell asleep.", "en"),
        ("", "en"),
        ("今日はとても寒い。", "en"),
    ],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_simple_markdown_loses_its_marks() -> None:
    text = "# Head\n\n> - [ ] *one* **two** `three` [four](https://example.org) snake_case 2 * 3\n\n---\n1. five"
    assert " ".join(strip_markdown(text).split()) == "Head one two three four snake_case 2 * 3 five"
