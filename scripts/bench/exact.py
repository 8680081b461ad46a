"""Are exact words of long ago found first? `uv run python -m scripts.bench.exact --entries 5000 --each 40`.

A journal of Pepys' days and, beyond them, entries of his sentences recombined (`search_scale.journal`), written through
the services the app is made of, with embeddings. Asked for are six-word phrases, quoted, and single words, each of
which stands in one entry only, from the older four fifths of the journal. The last line printed is one JSON object:
how many there were of each kind, and of how many the right entry came first.
"""

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import Settings, load_settings, resource
from scripts.bench.retrieval import create_user
from scripts.bench.search_scale import SEED, make_journal

PHRASE_WORDS = 6  # words
OLD_SHARE = 0.8  # of the entries, the oldest ones, are asked for
WORD_RUN = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)+")  # words with nothing but spaces between them


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the place of the one entry that holds its words."""

    kind: str
    query: str
    index: int


def make_questions(texts: list[str], count: int) -> list[Question]:
    """So many phrases and so many words, no two of one kind from the same entry."""
    rng = random.Random(SEED)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    entries_with = Counter(word for text in words for word in set(text))
    normalized = [f" {' '.join(text)} " for text in words]
    old_indexes = list(range(int(OLD_SHARE * len(texts))))
    rng.shuffle(old_indexes)
    questions_made: list[Question] = []
    for index in old_indexes:
        runs = [
            run.split()
            for run in WORD_RUN.findall(texts[index])
            if len(run.split()) >= PHRASE_WORDS
        ]
        if not runs:
            continue
        run = rng.choice(runs)
        start = rng.randrange(len(run) - PHRASE_WORDS + 1)
        phrase = " ".join(run[start : start + PHRASE_WORDS])
        if sum(f" {phrase.lower()} " in other for other in normalized) == 1:
            questions_made.append(Question("phrase", f'"{phrase}"', index))
        if len(questions_made) == count:
            break
    rng.shuffle(old_indexes)
    for index in old_indexes:
        unique_words = [
            word
            for word in words[index]
            if entries_with[word] == 1 and len(word) > 3 and word.isalpha()
        ]
        if unique_words:
            questions_made.append(Question("word", rng.choice(unique_words), index))
        if len(questions_made) == 2 * count:
            break
    return questions_made


async def run(
    texts: list[str], per_kind: int, settings: Settings, embedder: Embedder, folder: Path
) -> dict[str, object]:
    """Write, index with vectors, ask; `missed` counts what did not come first."""
    path = folder / "bench.sqlite3"
    run_db_migrations(path, resource("migrations"))
    db = await LocalDB.open(path)
    service = SearchService(db, embedder, settings.search)
    await service.start()
    try:
        keys = await create_user(db, settings)
        days = [
            date(2026, 11, 20) - timedelta(days=len(texts) - place) for place in range(len(texts))
        ]
        instants = [datetime(day.year, day.month, day.day, 9, tzinfo=UTC) for day in days]
        entries = [
            Entry(secrets.token_bytes(16), at.date(), "me", text, at, "UTC")
            for at, text in zip(instants, texts, strict=True)
        ]
        await db.entries.add(keys, *entries)
        started = time.perf_counter()
        await service.unlock(keys)
        await service.wait_until_idle(keys.user_id)
        result: dict[str, object] = {
            "entries": len(texts),
            "indexed_s": round(time.perf_counter() - started, 1),
        }
        questions = make_questions(texts, per_kind)
        first: dict[str, int] = {"phrase": 0, "word": 0}
        has_meaning = True
        for question in questions:
            results = await service.search(keys, question.query, today=date(2026, 11, 20), limit=1)
            has_meaning = has_meaning and results.is_semantic
            first[question.kind] += (
                bool(results.hits) and results.hits[0].entry_id == entries[question.index].id
            )
        for kind, count in first.items():
            result |= {
                f"{kind}s": sum(question.kind == kind for question in questions),
                f"{kind}s_first": count,
            }
        return result | {"meaning": has_meaning}
    finally:
        await service.stop()
        await db.close()


async def _measure(texts: list[str], count: int) -> dict[str, object]:
    settings = load_settings()
    embedder = Embedder(settings.embedding, settings.data.cache)
    await embedder.warm_up()
    try:
        with tempfile.TemporaryDirectory(prefix="llamora-bench-") as folder:
            return await run(texts, count, settings, embedder, Path(folder))
    finally:
        await embedder.close()


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.exact", description=(__doc__ or "").partition("\n")[0]
    )
    default_data = Path(os.environ.get("LLAMORA_EVAL_DATA", "../shared/data")) / "pepys"
    parser.add_argument(
        "--data", type=Path, default=default_data, help="the folder with Pepys' diary"
    )
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--each", type=int, default=40, help="how many phrases, and how many words")
    options = parser.parse_args()
    texts = [text for _, text in make_journal(options.data, options.entries)]
    print(json.dumps(asyncio.run(_measure(texts, options.each))))


if __name__ == "__main__":
    main()
