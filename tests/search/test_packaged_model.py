from pathlib import Path

import pytest

from llamora.search.embedder import Embedder
from llamora.search.packaged_model import is_intact
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
