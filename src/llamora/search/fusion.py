"""Fuse lexical and dense scores into one. Pure."""

from typing import TYPE_CHECKING

from llamora.search.query import Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

LOOKUP_MAX_WORDS = 2  # a query of so few words looks something up rather than asks a question
LOOKUP_WEIGHT = 0.75  # least weight of lexical scores in a look-up


def lexical_weight(query: Query, default: float) -> float:
    """Return the weight of lexical against dense scores, 0..1: higher for a look-up."""
    return max(default, LOOKUP_WEIGHT) if len(query.words) <= LOOKUP_MAX_WORDS else default


def fuse_scores(lexical: "Scores", dense: "Scores | None", weight: float) -> "Scores":
    """Return the weighted sum, 0..1, of lexical and dense scores of the same entries.

    `lexical` holds BM25 (0 for no match), `dense` cosines; each is divided by its maximum, and a
    negative cosine counts as 0. Spreading cosines between their minimum and maximum measured as
    well on small journals and worse on large ones, and depends on which cosines are known.
    """
    import numpy as np

    best_lexical = float(lexical.max(initial=0.0))
    word_scores = lexical / best_lexical if best_lexical > 0 else lexical
    if dense is None:
        return word_scores
    best_cosine = float(dense.max(initial=0.0))
    dense_scores = (
        np.clip(dense, 0.0, None) / best_cosine if best_cosine > 0 else np.zeros_like(dense)
    )
    return weight * word_scores + (1.0 - weight) * dense_scores
