import numpy as np
import pytest

from llamora.search.vectors import VectorIndex
from tests.search.documents import clustered


def test_the_graph_agrees_with_exact_search_through_edits() -> None:
    pytest.importorskip(
        "hnswlib", reason="chroma-hnswlib has no wheel for this machine: search is exact there"
    )
    vectors = clustered(4000, 384, 1)
    queries = clustered(100, 384, 2)
    exact, graph = VectorIndex(384, 10**9), VectorIndex(384, 1000)
    for passages in (exact, graph):
        for slot in range(3000):
            passages.put(slot, vectors[slot : slot + 1])
    while graph.extend_graph():
        pass
    for passages in (exact, graph):
        for slot in range(0, 3000, 7):
            passages.drop(slot)
        for slot in range(0, 1000, 3):
            passages.put(slot, vectors[3000 + slot : 3001 + slot])
    assert not graph.is_graph_complete
    while graph.extend_graph():
        pass
    assert graph.is_graph_complete
    assert not exact.is_graph_complete
    same = 0
    for query in queries:
        best = [
            set(np.argsort(-p.nearest_cosines(query, 3000, None))[:10].tolist())
            for p in (exact, graph)
        ]
        same += len(best[0] & best[1])
    assert same / (10 * len(queries)) >= 0.99


def test_the_sketch_agrees_with_exact_search_through_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamora.search.vectors.SKETCH_MIN_ROWS", 1000)
    monkeypatch.setattr("llamora.search.vectors.SKETCH_POOL", 300)
    rng = np.random.default_rng(4)
    # Numbers of texts differ much in some directions and little in most.
    turned, _ = np.linalg.qr(rng.normal(size=(384, 384)))
    drawn = (rng.normal(size=(6100, 384)) * np.arange(1, 385) ** -0.3) @ turned
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    vectors, queries = vectors[:6000], vectors[6000:]
    passages = VectorIndex(384, 10**9)
    held: dict[int, slice] = {}

    def put(slot: int, rows: slice) -> None:
        passages.put(slot, vectors[rows])
        held[slot] = rows

    for slot in range(2000):
        put(slot, slice(2 * slot, 2 * slot + 2))
    while passages.extend_sketch():
        pass
    for slot in range(0, 2000, 7):
        passages.drop(slot)
        held.pop(slot, None)
    for slot in range(0, 1000, 3):
        put(slot, slice(4000 + 2 * slot, 4002 + 2 * slot))
    allowed = np.ones(2000, dtype=np.bool_)
    allowed[1::2] = False
    assert passages._sketched_count == passages.row_count
    for mask in (None, allowed):
        same = 0
        for query in queries:
            cosines = np.full(2000, -2.0)
            for slot, rows in held.items():
                if mask is None or mask[slot]:
                    each = vectors[rows] @ query
                    cosines[slot] = 0.7 * each.max() + 0.3 * each.mean()
            likeness = passages.nearest_cosines(query, 2000, mask)
            same += len(
                set(np.argsort(-likeness)[:10].tolist()) & set(np.argsort(-cosines)[:10].tolist())
            )
            assert likeness[likeness > -2] == pytest.approx(cosines[likeness > -2], abs=0.004)
        assert same / (10 * len(queries)) >= 0.99


def test_compaction_keeps_every_vector() -> None:
    vectors = clustered(900, 16, 3)
    passages = VectorIndex(16, 10**9)
    for slot in range(300):
        passages.put(slot, vectors[3 * slot : 3 * slot + 3])
    for slot in range(0, 300, 2):
        passages.drop(slot)
    before = passages.nearest_cosines(vectors[5], 300, None)
    assert passages.compact()
    assert passages.row_count == 450
    assert passages.nearest_cosines(vectors[5], 300, None) == pytest.approx(before, abs=1e-6)
    assert passages.nearest_passage(1, vectors[5]) == 2
    assert not passages.has_vectors(0)
    assert not passages.compact()
