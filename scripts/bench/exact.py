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
from scripts.bench.retrieval import a_writer
from scripts.bench.search_scale import SEED, journal

PHRASE = 6  # words
OLD = 0.8  # of the entries, the oldest ones, are asked for
RUN = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)+")  # words with nothing but spaces between them


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and the place of the one entry that holds its words."""

    kind: str
    query: str
    place: int


def questions(texts: list[str], each: int) -> list[Asked]:
    """So many phrases and so many words, no two of one kind from the same entry."""
    dice = random.Random(SEED)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    entries_with = Counter(word for text in words for word in set(text))
    spoken = [f" {' '.join(text)} " for text in words]
    old = list(range(int(OLD * len(texts))))
    dice.shuffle(old)
    found: list[Asked] = []
    for place in old:
        runs = [run.split() for run in RUN.findall(texts[place]) if len(run.split()) >= PHRASE]
        if not runs:
            continue
        run = dice.choice(runs)
        start = dice.randrange(len(run) - PHRASE + 1)
        phrase = " ".join(run[start : start + PHRASE])
        if sum(f" {phrase.lower()} " in other for other in spoken) == 1:
            found.append(Asked("phrase", f'"{phrase}"', place))
        if len(found) == each:
            break
    dice.shuffle(old)
    for place in old:
        alone = [word for word in words[place] if entries_with[word] == 1 and len(word) > 3 and word.isalpha()]
        if alone:
            found.append(Asked("word", dice.choice(alone), place))
        if len(found) == 2 * each:
            break
    return found


async def run(texts: list[str], each: int, settings: Settings, embedder: Embedder, folder: Path) -> dict[str, object]:
    """Write, index with vectors, ask; `missed` counts what did not come first."""
    path = folder / "bench.sqlite3"
    run_db_migrations(path, resource("migrations"))
    db = await LocalDB.open(path)
    service = SearchService(db, embedder, settings.search)
    await service.start()
    try:
        keys = await a_writer(db, settings)
        days = [date(2026, 11, 20) - timedelta(days=len(texts) - place) for place in range(len(texts))]
        instants = [datetime(day.year, day.month, day.day, 9, tzinfo=UTC) for day in days]
        entries = [
            Entry(secrets.token_bytes(16), at.date(), "me", text, at, "UTC")
            for at, text in zip(instants, texts, strict=True)
        ]
        await db.entries.add(keys, *entries)
        began = time.perf_counter()
        await service.unlock(keys)
        await service.wait_until_idle(keys.user_id)
        result: dict[str, object] = {"entries": len(texts), "indexed_s": round(time.perf_counter() - began, 1)}
        asked = questions(texts, each)
        first: dict[str, int] = {"phrase": 0, "word": 0}
        meaning = True
        for question in asked:
            found = await service.search(keys, question.query, today=date(2026, 11, 20), limit=1)
            meaning = meaning and found.is_semantic
            first[question.kind] += bool(found.hits) and found.hits[0].entry_id == entries[question.place].id
        for kind, count in first.items():
            result |= {f"{kind}s": sum(question.kind == kind for question in asked), f"{kind}s_first": count}
        return result | {"meaning": meaning}
    finally:
        await service.stop()
        await db.close()


async def _measured(texts: list[str], each: int) -> dict[str, object]:
    settings = load_settings()
    embedder = Embedder(settings.embedding, settings.data.cache)
    await embedder.warm_up()
    try:
        with tempfile.TemporaryDirectory(prefix="llamora-bench-") as folder:
            return await run(texts, each, settings, embedder, Path(folder))
    finally:
        await embedder.close()


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="scripts.bench.exact", description=(__doc__ or "").partition("\n")[0])
    given_data = Path(os.environ.get("LLAMORA_EVAL_DATA", "../shared/data")) / "pepys"
    parser.add_argument("--data", type=Path, default=given_data, help="the folder with Pepys' diary")
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--each", type=int, default=40, help="how many phrases, and how many words")
    given = parser.parse_args()
    texts = [text for _, text in journal(given.data, given.entries)]
    print(json.dumps(asyncio.run(_measured(texts, given.each))))


if __name__ == "__main__":
    main()
