"""What was written long ago comes first for its very words; in full: `python -m scripts.bench.exact`."""

from pathlib import Path

from scripts.bench.exact import ask
from scripts.bench.harness import make_settings, started_services
from scripts.bench.search_scale import read_pepys
from tests.evaluation import evaluation_data

SHORT = 600  # letters; entries of one passage, so that the vectors of 300 take seconds


async def test_exact_phrases_and_words_of_old_entries_come_first(
    tmp_path: Path, cache: Path
) -> None:
    texts = [text for _, text in read_pepys(evaluation_data("pepys")) if len(text) < SHORT][:300]
    async with started_services(
        make_settings(tmp_path, cache, embedding={"enabled": True})
    ) as services:
        result = await ask(services, texts, 10)
    del result["indexed_s"]
    assert result == {
        "entries": 300,
        "phrases": 10,
        "phrases_first": 10,
        "words": 10,
        "words_first": 10,
        "meaning": True,
    }
