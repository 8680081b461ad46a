import numpy as np
import pytest

from llamora.search.fusion import fuse_scores


def test_fusion_is_between_nothing_and_one_and_follows_the_weight() -> None:
    lexical, dense = np.array([4.0, 2.0, 0.0]), np.array([-0.1, 0.4, 0.8])
    scores = fuse_scores(lexical, dense, 0.5)
    assert scores == pytest.approx([0.5, 0.5, 0.5])
    assert fuse_scores(lexical, dense, 1.0) == pytest.approx([1, 0.5, 0])
    assert fuse_scores(lexical, None, 0.5) == pytest.approx([1, 0.5, 0])
    assert fuse_scores(np.zeros(3), np.zeros(3), 0.5) == pytest.approx([0, 0, 0])
