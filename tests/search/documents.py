"""Entries to index, and what a search for them finds."""

from datetime import UTC, date, datetime

import numpy as np

from llamora.search.index import Document, UserIndex
from llamora.search.query import parse_query

TODAY = date(2026, 11, 20)


def document(
    number: int, text: str, day: date = TODAY, mine: bool = True, revision: int = 1
) -> Document:
    at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    return Document(number.to_bytes(16, "big"), revision, day, at, mine, text)


def found(index: UserIndex, text: str, limit: int = 20, offset: int = 0) -> list[int]:
    matches = index.ranker.search(parse_query(text, TODAY), {}, 0.5, limit, offset)
    return [int.from_bytes(match.entry_id, "big") for match in matches.matches]


def clustered(rows: int, dim: int, seed: int) -> "np.ndarray":
    """Unit vectors in groups, like those of texts."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    made = centres[rng.integers(0, 40, rows)] + 0.7 * rng.normal(size=(rows, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
