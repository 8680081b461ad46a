from pathlib import Path

import pytest

from llamora.search.embedder import Embedder
from llamora.search.packaged_model import (
    MODEL_PACKAGE,
    PACKAGE_DIGESTS,
    find_package_folder,
    is_intact,
)
from llamora.settings import EmbeddingSettings


async def test_a_damaged_cache_is_built_again(
    cache: Path, embedder: Embedder, tmp_path: Path
) -> None:
    built = next((cache / "models").glob("minilm-*"))
    folder = tmp_path / "models" / built.name
    folder.mkdir(parents=True)
    for file in built.iterdir():
        (folder / file.name).write_bytes(
            file.read_bytes()[: 1000 if file.name == "weights.bin" else None]
        )
    assert is_intact(built)
    assert not is_intact(folder)
    again = Embedder(EmbeddingSettings(), tmp_path)
    await again.warm_up()
    assert again.is_ready
    assert is_intact(folder)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [built.name]
    assert await again.embed_query("the same") @ await embedder.embed_query(
        "the same"
    ) == pytest.approx(1, abs=1e-5)
    await again.close()


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json", "config.json"])
async def test_weights_of_a_stranger_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    known = find_package_folder()
    if known is None:
        pytest.skip("the package is not installed")
    folder = tmp_path / MODEL_PACKAGE / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for name in PACKAGE_DIGESTS:
        content = (known / name).read_bytes()
        (folder / name).write_bytes(content + b" " if name == changed else content)
    monkeypatch.syspath_prepend(str(tmp_path))
    stranger = Embedder(EmbeddingSettings(), tmp_path / "cache")
    await stranger.warm_up()
    assert (stranger.state, "digest" in stranger.reason) == ("off", True)
    assert not (tmp_path / "cache").exists()
    await stranger.close()
