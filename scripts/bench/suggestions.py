"""Which traces are suggested for a hundred days of Pepys: `uv run python -m scripts.bench.suggestions`.

The days are chosen at random from his diary (`--data`); every tenth of the days before bears a few traces of the
writer's own. No model is asked. The last line printed is one JSON object: `valid`, names that can be given; `twice`,
entries with a trace twice; `own_or_text`, the share of all names that are the writer's own or stand in the text.
"""

import argparse
import asyncio
import html
import json
import os
import random
import re
import secrets
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

from llamora.journal.suggestions import MAX_SUGGESTIONS
from llamora.persistence.entries import Entry
from llamora.services import AppLifecycle, AppServices
from llamora.settings import load_settings
from llamora.text import tag_key, tag_name
from scripts.bench.latency import PASSPHRASE

SEED = 1660
OWN_TAGS = (
    "navy",
    "theatre",
    "my wife",
    "music",
    "money",
    "Deptford",
    "church",
    "Sir W. Batten",
    "sermon",
    "🎻",
)
_WORDS = re.compile(r"[^\W_]+")
_ARTICLE = re.compile(r"<article[^>]*diary-entry[^>]*>(.*?)</article>", re.DOTALL)
_DAY = re.compile(r'<time datetime="(\d{4}-\d\d-\d\d)"')


def diary(folder: Path) -> list[tuple[date, str]]:
    """(day, text) of every dated entry, in order."""
    found: list[tuple[date, str]] = []
    for file in sorted(
        (folder / "text").glob("chapter-*.xhtml"), key=lambda f: int(re.sub(r"\D", "", f.stem))
    ):
        for article in _ARTICLE.findall(file.read_text("utf-8")):
            day = _DAY.search(article)
            paragraphs = re.findall(r"<p[^>]*>(.*?)</p>", article, re.DOTALL)
            clean = [
                re.sub(r"<a[^>]*noteref.*?</a>|<[^>]+>", "", paragraph) for paragraph in paragraphs
            ]
            text = "\n\n".join(" ".join(html.unescape(paragraph).split()) for paragraph in clean)
            if day and text.strip():
                found.append((date.fromisoformat(day[1]), text.strip().replace("\u2060", "")))
    return found


def is_name_in_text(name: str, text: str) -> bool:
    """Whether every word of a name is a word of a text, whatever its case."""
    words = {word.casefold() for word in _WORDS.findall(text)}
    name_words = [word.casefold() for word in _WORDS.findall(name)]
    return bool(name_words) and all(word in words for word in name_words)


async def measure_suggestions(
    folder: Path, days: list[tuple[date, str]], count: int
) -> dict[str, object]:
    """What is suggested for `count` of the days, reckoned."""
    settings = load_settings(
        overrides={
            "data": {"folder": str(folder), "cache": str(load_settings().data.cache)},
            "crypto": {"kdf_target_ms": 0},
            "llm": {"enabled": False},
            "embedding": {"enabled": False},
        }
    )
    services = AppServices.create(settings)
    lifecycle = AppLifecycle(services)
    await lifecycle.start()
    rng = random.Random(SEED)
    names = valid = with_duplicates = own_or_in_text = max_count = 0
    try:
        _, keys, _ = await services.accounts.register("Alice", PASSPHRASE, "UTC")
        entries = [
            Entry(
                secrets.token_bytes(16),
                d,
                "me",
                text,
                datetime(d.year, d.month, d.day, 9, tzinfo=UTC),
                "UTC",
            )
            for d, text in days
        ]
        await services.db.entries.add(keys, *entries)
        await services.search.unlock(keys)
        await services.search.wait_until_idle(keys.user_id)
        for entry in entries[::10]:
            for name in rng.sample(OWN_TAGS, 2):
                await services.journal.tags.add(keys, entry.id, name)
        own_keys = {tag_key(name) for name in OWN_TAGS}
        for entry in rng.sample(
            [entry for place, entry in enumerate(entries) if place % 10], count
        ):
            suggestions = await services.suggestions.suggest(keys, entry.id)
            names += len(suggestions.names)
            max_count = max(max_count, len(suggestions.names))
            valid += sum(tag_name(name) == name for name in suggestions.names)
            with_duplicates += len({tag_key(name) for name in suggestions.names}) != len(
                suggestions.names
            )
            own_or_in_text += sum(
                tag_key(name) in own_keys or is_name_in_text(name, entry.text)
                for name in suggestions.names
            )
    finally:
        await lifecycle.stop()
    return {
        "entries": count,
        "names": names,
        "valid": valid,
        "twice": with_duplicates,
        "most": max_count,
        "within_most": max_count <= MAX_SUGGESTIONS,
        "own_or_text": round(own_or_in_text / max(names, 1), 3),
    }


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.suggestions", description=(__doc__ or "").partition("\n")[0]
    )
    default_data = Path(os.environ.get("LLAMORA_EVAL_DATA", "../shared/data")) / "pepys"
    parser.add_argument(
        "--data", type=Path, default=default_data, help="the folder with Pepys' diary"
    )
    parser.add_argument("--entries", type=int, default=100)
    options = parser.parse_args()
    days = diary(options.data)[-1500:]
    with tempfile.TemporaryDirectory(prefix="llamora-bench-") as name:
        print(json.dumps(asyncio.run(measure_suggestions(Path(name), days, options.entries))))


if __name__ == "__main__":
    main()
