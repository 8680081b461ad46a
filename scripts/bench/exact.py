"""Search for exact words of long ago: `uv run python -m scripts.bench.exact --entries 5000 --each 40`.

A journal of Pepys' days and, beyond them, entries of his sentences recombined, written through the services the app is
made of, with embeddings. Asked for are six-word phrases, quoted, and single words, each of which stands in one entry
only, from the older four fifths of the journal. The last line printed is one JSON object: how many there were of each
kind, and of how many the right entry came first.
"""

import itertools
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from llamora.services import AppServices
from scripts.bench import harness
from scripts.bench.search_scale import make_journal
from scripts.command import run

TODAY = date(2026, 11, 20)
PHRASE_WORDS = 6  # words
OLD_SHARE = 0.8  # of the entries, the oldest ones, are asked for
WORD_RUN = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)+")  # words with nothing but spaces between them


@dataclass(frozen=True, slots=True)
class Question:
    """Pair a query with the index of the one entry that holds its words."""

    kind: str
    query: str
    index: int


def make_questions(texts: list[str], count: int) -> list[Question]:
    """Make so many phrases and so many words, no two of one kind from the same entry."""
    rng = random.Random(harness.SEED)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    entries_with = Counter(word for text in words for word in set(text))
    normalized = [f" {' '.join(text)} " for text in words]

    def phrase(index: int) -> str | None:
        runs = [each.split() for each in WORD_RUN.findall(texts[index])]
        if not (runs := [each for each in runs if len(each) >= PHRASE_WORDS]):
            return None
        words_of_run = rng.choice(runs)
        start = rng.randrange(len(words_of_run) - PHRASE_WORDS + 1)
        chosen = " ".join(words_of_run[start : start + PHRASE_WORDS])
        is_unique = sum(f" {chosen.lower()} " in other for other in normalized) == 1
        return f'"{chosen}"' if is_unique else None

    def word(index: int) -> str | None:
        unique = [each for each in words[index] if entries_with[each] == 1]
        unique = [each for each in unique if len(each) > 3 and each.isalpha()]
        return rng.choice(unique) if unique else None

    questions: list[Question] = []
    makers: dict[str, Callable[[int], str | None]] = {"phrase": phrase, "word": word}
    old_indexes = list(range(int(OLD_SHARE * len(texts))))
    for kind, make in makers.items():
        rng.shuffle(old_indexes)
        made = ((make(index), index) for index in old_indexes)
        of_kind = (Question(kind, query, index) for query, index in made if query)
        questions += itertools.islice(of_kind, count)
    return questions


async def ask(services: AppServices, texts: list[str], per_kind: int) -> dict[str, object]:
    """Write, index with vectors, ask; return how many entries came first."""
    await services.embedder.warm_up()
    keys = await harness.register(services)
    first_day = TODAY - timedelta(days=len(texts))
    entries = [
        harness.entry_on(first_day + timedelta(days=n), text) for n, text in enumerate(texts)
    ]
    await harness.add_entries(services, keys, entries)
    seconds = await harness.index_entries(services, keys)
    asked, first, has_meaning = Counter[str](), Counter[str](), True
    for question in make_questions(texts, per_kind):
        results = await services.search.search(keys, question.query, today=TODAY, limit=1)
        has_meaning = has_meaning and results.is_semantic
        asked[question.kind] += 1
        best = [hit.entry_id for hit in results.hits]
        first[question.kind] += best[:1] == [entries[question.index].id]
    result: dict[str, object] = {"entries": len(texts), "indexed_s": round(seconds, 1)}
    for kind in ("phrase", "word"):
        result |= {f"{kind}s": asked[kind], f"{kind}s_first": first[kind]}
    return result | {"meaning": has_meaning}


async def measure(folder: Path, data: Path, entries: int, each: int) -> dict[str, object]:
    """Ask about so many of Pepys' days."""
    texts = [text for _, text in make_journal(data, entries)]
    async with harness.started_services(
        harness.make_settings(folder, embedding={"enabled": True})
    ) as services:
        return await ask(services, texts, each)


if __name__ == "__main__":
    each = {"type": int, "default": 40, "help": "how many phrases, and how many words"}
    sys.exit(run(measure, data=harness.PEPYS, entries=5000, each=each))
