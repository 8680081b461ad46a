"""Suggest tags for a hundred days of Pepys: `uv run python -m scripts.bench.suggestions`.

The days are chosen at random from his diary (`--data`); every tenth of the days before bears a few tags of the
user's own. No model is asked. The last line printed is one JSON object: `valid`, names that can be given; `twice`,
entries with a tag twice; `own_or_text`, the share of all names that are the user's own or stand in the text.
"""

import html
import random
import re
import sys
from datetime import date
from pathlib import Path

from llamora.journal.suggestions import MAX_SUGGESTIONS
from llamora.text import tag_key, tag_name
from scripts.bench import harness
from scripts.command import run

OWN_TAGS = (
    *("navy", "theatre", "my wife", "music", "money", "Deptford", "church", "Sir W. Batten"),
    *("sermon", "🎻"),
)
_WORDS = re.compile(r"[^\W_]+")
_ARTICLE = re.compile(r"<article[^>]*diary-entry[^>]*>(.*?)</article>", re.DOTALL)
_DAY = re.compile(r'<time datetime="(\d{4}-\d\d-\d\d)"')


def read_paragraphs(folder: Path) -> list[tuple[date, str]]:
    """Return (day, text) of every dated entry, in order."""
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
    """Tell whether every word of a name is a word of a text, whatever its case."""
    words = {word.casefold() for word in _WORDS.findall(text)}
    name_words = [word.casefold() for word in _WORDS.findall(name)]
    return bool(name_words) and all(word in words for word in name_words)


async def measure(folder: Path, data: Path, entries: int) -> dict[str, object]:
    """Return what is suggested for so many of the days."""
    rng, days = random.Random(harness.SEED), read_paragraphs(data)[-1500:]
    names: list[str] = []
    valid = twice = own_or_text = most = 0
    own_keys = {tag_key(name) for name in OWN_TAGS}
    async with harness.started_services(
        harness.make_settings(folder, embedding={"enabled": False})
    ) as services:
        keys = await harness.register(services)
        written = [harness.entry_on(day, text) for day, text in days]
        await harness.add_entries(services, keys, written)
        await harness.index_entries(services, keys)
        for entry in written[::10]:
            for name in rng.sample(OWN_TAGS, 2):
                await services.journal.tags.add(keys, entry.id, name)
        others = [entry for place, entry in enumerate(written) if place % 10]
        for entry in rng.sample(others, entries):
            suggested = (
                await services.suggestions.suggest(harness.context_of(keys), entry.id)
            ).names
            names += suggested
            most = max(most, len(suggested))
            valid += sum(tag_name(name) == name for name in suggested)
            twice += len({tag_key(name) for name in suggested}) != len(suggested)
            own_or_text += sum(
                tag_key(name) in own_keys or is_name_in_text(name, entry.text) for name in suggested
            )
    return {
        "entries": entries,
        "names": len(names),
        "valid": valid,
        "twice": twice,
        "most": most,
        "within_most": most <= MAX_SUGGESTIONS,
        "own_or_text": round(own_or_text / max(len(names), 1), 3),
    }


if __name__ == "__main__":
    sys.exit(run(measure, data=harness.PEPYS, entries=100))
