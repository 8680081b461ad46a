from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.errors import Notice
from llamora.messages import MESSAGES
from llamora.search.query import (
    MAX_QUERY,
    Query,
    filter_chips,
    parse_query,
    query_from_text,
    relax_query,
)

TODAY = date(2026, 11, 20)


def parsed(text: str) -> Query:
    return parse_query(text, TODAY)


# What queries are made of, so that chance puts operators, times and marks beside each other.
PIECES = st.sampled_from(
    [
        *"in: on: before: after: by: tag: -in: -by: -tag: me reply 2024 2024-13 9999-99-99 0001-01-01".split(),
        *"9999-12-31 : by:nobody".split(),
        *"last march may 3 monday tomorrow the of walrus -walrus ß \u0301 天気 שלום 😀 \x00 \ud800 ::".split(),
        *"“ » - *".split(),
        *('"old oak"', '"', '-"', '"walrus"', ""),
    ]
)


@given(
    st.text(max_size=300)
    | st.text(alphabet='"-:*abin by 2024()^+\\', max_size=60)
    | st.lists(PIECES).map(" ".join),
    st.dates(),
    st.booleans(),
)
def test_the_parser_never_raises_and_says_what_it_read(
    text: str, today: date, typing: bool
) -> None:
    query = parse_query(text, today, typing)
    for each in (query, relax_query(query)):
        assert all(MESSAGES[hint.code].format_map(hint.params).endswith(".") for hint in each.hints)
        assert len(each.words) <= 64
    for part, rest in filter_chips(text, today):
        # To take a chip off makes a query of less, and one that is no error either.
        assert part.strip()
        assert len(rest) < len(text) + 1
        parse_query(rest, today)
    if query.after and query.before and query.after > query.before:
        assert query.is_impossible
        assert query.hints


def test_words_phrases_and_exclusions() -> None:
    query = parsed('garden "the old oak" -rain -"two words" Rose*')
    assert query.words == ("garden", "rose*")
    assert query.phrases == ("the old oak",)
    assert query.excluded == ("rain", "two words")
    assert query.hints == ()


def test_the_words_of_a_question_are_pruned_but_never_all() -> None:
    assert parsed("What did I say about my mother's garden?").words == ("say", "mother", "garden")
    assert parsed("who was that").words == ("who", "was", "that")
    assert (
        parsed("What did I say about my mother's garden?").semantic_text
        == "What did I say about my mother's garden?"
    )


@pytest.mark.parametrize(
    ("text", "after", "before"),
    [
        ("in:2024 tea", date(2024, 1, 1), date(2024, 12, 31)),
        ("on:2026-11-02 tea", date(2026, 11, 2), date(2026, 11, 2)),
        ("before:2026-11-02 tea", None, date(2026, 11, 1)),
        ("after:2024 tea", date(2025, 1, 1), None),
        ('in:"last March" tea', date(2026, 3, 1), date(2026, 3, 31)),
        ("in:last-march tea", date(2026, 3, 1), date(2026, 3, 31)),
        ("on:yesterday tea", date(2026, 11, 19), date(2026, 11, 19)),
        ("after:2024 before:2026-02-01 in:2025", date(2025, 1, 1), date(2025, 12, 31)),
        ("before:0001-01-01 tea", None, date(1, 1, 1)),
        ("after:9999-12-31 tea", date(9999, 12, 31), None),
        ("on:3 May 2024 tea", date(2024, 5, 3), date(2024, 5, 3)),
        ("in:march 2024 tea", date(2024, 3, 1), date(2024, 3, 31)),
        ("before:last march tea", None, date(2026, 2, 28)),
        ("in:2024 may I have tea", date(2024, 1, 1), date(2024, 12, 31)),
        ("in:may-2024 tea", date(2024, 5, 1), date(2024, 5, 31)),
        ("in:2024-2025 tea", date(2024, 1, 1), date(2025, 12, 31)),
        ("in:1663 tea", date(1663, 1, 1), date(1663, 12, 31)),
        ("on:monday tea", date(2026, 11, 16), date(2026, 11, 16)),
        ("tomorrow tomorrow", date(2026, 11, 21), date(2026, 11, 21)),
    ],
)
def test_times(text: str, after: date | None, before: date | None) -> None:
    query = parsed(text)
    assert (query.after, query.before) == (after, before)
    assert query.hints == ()


def test_who_wrote_it() -> None:
    assert parsed("by:me tea").role == "me"
    assert parsed("BY:reply tea").role == "reply"


def test_plain_times_filter_alone_and_weigh_beside_words() -> None:
    alone = parsed("last March")
    assert (alone.after, alone.before, alone.words) == (date(2026, 3, 1), date(2026, 3, 31), ())
    beside = parsed("the garden last March")
    assert beside.mentioned_dates is not None
    assert (beside.mentioned_dates.start, beside.after) == (date(2026, 3, 1), None)
    assert "garden" in beside.words


@pytest.mark.parametrize(
    "text",
    [
        'an "open quote',
        "in:nowhere tea",
        "by:nobody tea",
        "in: 2024",
        "in:2024-13",
        "after:2024-00",
        "on:2024-02-30",
        "before:9999-99-99",
        "before:9999-99-99 tea",
        'before:"before 2020" tea',
        "tea -in:2024",
        "tea -tag:harbour",
        "a" * (MAX_QUERY + 1),
    ],
)
def test_what_is_not_understood_is_searched_with_a_hint(text: str) -> None:
    query = parsed(text)
    assert query.words
    assert query.hints
    assert (query.after, query.before, query.role, query.tags) == (None, None, None, ())


@pytest.mark.parametrize(
    "text", ["heron in:20", "heron by:", "heron in:", 'heron "the', "heron on:tomo"]
)
def test_nothing_is_complained_of_while_it_is_typed(text: str) -> None:
    query = parse_query(text, TODAY, is_typing=True)
    assert query.hints == ()
    assert query.words[0].startswith("heron")
    assert len(query.words) <= 1 or text.endswith("the")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("in:march in:april tea", Notice("query_no_day", {"times": "“in:march”, “in:april”"})),
        ("in:2024 last march", Notice("query_no_day", {"times": "“in:2024”, “last march”"})),
        ("by:me by:reply tea", Notice("query_two_authors")),
        ("by:me -by:me tea", Notice("query_two_authors")),
        ('"walrus" -walrus', Notice("query_contradiction", {"unwanted": "walrus"})),
        (
            '"the old walrus" -"Old walrus"',
            Notice("query_contradiction", {"unwanted": "Old walrus"}),
        ),
    ],
)
def test_what_contradicts_itself_is_said(text: str, hint: Notice) -> None:
    query = parsed(text)
    assert query.is_impossible
    assert query.hints == (hint,)
    assert len(filter_chips(text, TODAY)) == (1 if "last march" in text else 2)


def test_what_is_asked_for_twice_is_asked_for_once() -> None:
    assert filter_chips('in:2024 tea IN:2024 "a b" "a b"', TODAY) == (
        ("in:2024", 'tea "a b" "a b"'),
        ('"a b"', "in:2024 tea IN:2024"),
    )
    assert parsed('"a b" "a b" -c -c tag:x tag:x') == Query(
        phrases=("a b",), excluded=("c",), tags=("x",), semantic_text="a b"
    )


def test_nothing_asks_for_nothing() -> None:
    for text in ("", "  ", "?!", '""', "-"):
        assert parsed(text).terms == ()


def test_relaxed_phrases_are_words() -> None:
    query = relax_query(parsed('tea "the green cup"'))
    assert query.phrases == ()
    assert query.words == ("tea", "green", "cup")
    assert query.hints == (Notice("query_phrases_relaxed"),)


def test_a_question_is_asked_of_its_days_in_english_and_in_german() -> None:
    for text, day in (
        ("What was it about last Tuesday?", date(2026, 11, 17)),
        ("Was war am 12. März 2024 mit dem Fluss?", date(2024, 3, 12)),
    ):
        found = query_from_text(text, date(2026, 11, 20)).mentioned_dates
        assert found is not None
        assert found.start == found.end == day
