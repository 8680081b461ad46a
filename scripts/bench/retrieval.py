"""Does search find the right entry? Writes journals, seals and indexes them, asks their questions.

    uv run python -m scripts.bench.retrieval --data ../shared/data/locomo/locomo.json --unit diary
    uv run python -m scripts.bench.retrieval --data ../shared/data/cacm

`--data` is a file of dated conversations in LoCoMo's format (one journal per conversation; an entry is a turn, what
one speaker said in a session, or a session) or a folder with the CACM collection. Everything goes the way the app
goes: entries are sealed into a database by `db.entries`, indexed and searched by `SearchService`. The last line
printed is one JSON object. Relevance is binary; the ideal ranking of nDCG@10 has min(10, relevant) hits.
"""

import argparse
import asyncio
import html
import json
import re
import secrets
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import log2
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.migrations import run_db_migrations
from llamora.persistence.users import User
from llamora.search.embedder import Embedder
from llamora.search.service import SearchService
from llamora.settings import Settings, load_settings, resource
from llamora.vault.kdf import Argon2Params
from llamora.vault.key_renewal import create_keys
from llamora.vault.keys import Keyring, open_keyring

Unit = Literal["diary", "turn", "session"]
DEPTH = 100  # results looked at; of later ones the reciprocal rank counts as nothing
EVIDENCE = re.compile(r"D:?(\d+):(\d+)")  # some ids are written "D:11:26", "D9:1 D4:4" or "D30:05"


@dataclass
class Journal:
    """Texts with their instants, and questions with the places of the texts that answer them."""

    texts: list[tuple[datetime, str]] = field(default_factory=list)
    questions: list[tuple[str, frozenset[int]]] = field(default_factory=list)


def read_conversations(path: Path, unit: Unit) -> Iterator[Journal]:
    """One journal per conversation of a file in LoCoMo's format; questions without usable evidence are left out."""
    for sample in json.loads(path.read_text("utf-8")):
        talk: dict[str, Any] = sample["conversation"]
        journal = Journal()
        index_of: dict[tuple[int, int], int] = {}
        sessions = sorted(int(name[8:]) for name in talk if re.fullmatch(r"session_\d+", name))
        for session in sessions:
            at = datetime.strptime(
                talk[f"session_{session}_date_time"], "%I:%M %p on %d %B, %Y"
            ).replace(tzinfo=UTC)
            groups: dict[object, list[tuple[tuple[int, int], str]]] = {}
            for turn in talk[f"session_{session}"]:
                turn_id = _turn_id(turn["dia_id"])
                owner = {"turn": turn_id, "diary": turn["speaker"], "session": session}[unit]
                groups.setdefault(owner, []).append((turn_id, _turn_text(turn)))
            for turns in groups.values():
                index_of.update((turn_id, len(journal.texts)) for turn_id, _ in turns)
                journal.texts.append((at, "\n\n".join(said for _, said in turns)))
        for question in sample["qa"]:
            turn_ids = {
                _turn_id(found[0])
                for text in question["evidence"]
                for found in EVIDENCE.finditer(text)
            }
            answers = frozenset(index_of[turn_id] for turn_id in turn_ids if turn_id in index_of)
            if answers:
                journal.questions.append((question["question"], answers))
        yield journal


def _turn_id(text: str) -> tuple[int, int]:
    match = EVIDENCE.search(text)
    if match is None:
        raise ValueError(f"no turn is named by {text!r}")
    return int(match[1]), int(match[2])


def _turn_text(turn: dict[str, Any]) -> str:
    photo = turn.get("blip_caption")
    return f"{turn['speaker']}: {turn['text']}" + (f" [photo: {photo}]" if photo else "")


def read_cacm(folder: Path) -> Iterator[Journal]:
    """The CACM collection as one journal: title, abstract, authors; without the table of citation numbers."""
    journal = Journal()
    index_of: dict[int, int] = {}
    with tarfile.open(folder / "cacm.tar.gz") as archive:
        for member in archive.getmembers():
            number = re.search(r"CACM-(\d+)", member.name)
            file = archive.extractfile(member) if number else None
            if number is None or file is None:
                continue
            text = html.unescape(re.sub(r"<[^>]*>", "", file.read().decode("latin-1")))
            text = re.sub(r"(?m)^\d+\s+\d+\s+\d+\s*$", "", text).strip()
            published = re.search(r"CACM (\w+), (\d{4})", text)
            month, year = published.groups() if published else ("January", "1970")
            at = datetime.strptime(f"{month} {year} +0000", "%B %Y %z")
            index_of[int(number[1])] = len(journal.texts)
            journal.texts.append((at, text))
    relevant: dict[int, set[int]] = {}
    for line in (folder / "qrels.cacm.txt").read_text().splitlines():
        topic, _, document, grade = line.split()
        if int(grade) > 0:
            relevant.setdefault(int(topic), set()).add(
                index_of[int(document.removeprefix("CACM-"))]
            )
    topics = (folder / "topics.cacm.txt").read_text()
    for topic in re.finditer(r"<DOCNO>\s*(\d+)\s*</DOCNO>(.*?)</DOC>", topics, re.DOTALL):
        if int(topic[1]) in relevant:
            journal.questions.append(
                (" ".join(topic[2].split()), frozenset(relevant[int(topic[1])]))
            )
    yield journal


def measure_ranking(ranking: list[int], answers: frozenset[int]) -> dict[str, float]:
    """The measures of one question."""
    hits = [index in answers for index in ranking]
    gain = sum(1 / log2(rank + 2) for rank, hit in enumerate(hits[:10]) if hit)
    ideal = sum(1 / log2(rank + 2) for rank in range(min(10, len(answers))))
    return {
        "hit@1": float(any(hits[:1])),
        "hit@5": float(any(hits[:5])),
        "recall@5": sum(hits[:5]) / len(answers),
        "recall@10": sum(hits[:10]) / len(answers),
        "mrr": 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        "ndcg@10": gain / ideal,
    }


async def create_user(db: LocalDB, settings: Settings) -> Keyring:
    """A new user with keys of their own."""
    user_id = secrets.token_bytes(16)
    crypto = settings.crypto
    params = Argon2Params(crypto.kdf_memory_kib, crypto.kdf_time_cost, crypto.kdf_parallelism)
    new_keys = create_keys(user_id, secrets.token_hex(16), params)
    await db.users.add(
        User(user_id, user_id.hex(), recovery_confirmed=True), new_keys.slots, new_keys.sealed
    )
    return open_keyring(user_id, new_keys.master, new_keys.sealed)


async def run(journals: list[Journal], settings: Settings) -> dict[str, float]:
    """Write, index and ask; prints speeds and returns the means of the measures."""
    embedder = Embedder(settings.embedding, settings.data.cache)
    sums: dict[str, float] = {}
    question_count = 0
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="llamora-bench-") as folder:
        path = Path(folder) / "bench.sqlite3"
        run_db_migrations(path, resource("migrations"))
        db = await LocalDB.open(path)
        service = SearchService(db, embedder, settings.search)
        await embedder.warm_up()
        await service.start()
        try:
            for journal in journals:
                keys = await create_user(db, settings)
                entries = [
                    Entry(secrets.token_bytes(16), at.date(), "me", text, at, "UTC")
                    for at, text in journal.texts
                ]
                await db.entries.add(keys, *entries)
                started = time.perf_counter()
                await service.unlock(keys)
                await service.wait_until_idle(keys.user_id)
                duration = time.perf_counter() - started
                print(f"{len(entries)} entries indexed, with vectors, in {duration:.2f} s")
                index_of = {entry.id: place for place, entry in enumerate(entries)}
                today = max(entry.day for entry in entries) + timedelta(days=1)
                for question, answers in journal.questions:
                    started = time.perf_counter()
                    results = await service.search(keys, question, today=today, limit=DEPTH)
                    seconds.append(time.perf_counter() - started)
                    for name, value in measure_ranking(
                        [index_of[hit.entry_id] for hit in results.hits], answers
                    ).items():
                        sums[name] = sums.get(name, 0.0) + value
                    question_count += 1
                service.lock(keys.user_id)
        finally:
            await service.stop()
            await embedder.close()
            await db.close()
    percentiles = quantiles(seconds, n=100)
    print(
        f"a question took {1000 * percentiles[49]:.1f} ms (median), "
        f"{1000 * percentiles[94]:.1f} ms (p95), {DEPTH} hits each"
    )
    return {name: round(total / question_count, 4) for name, total in sums.items()} | {
        "questions": question_count
    }


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.retrieval", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="a file in LoCoMo's format, or the CACM folder"
    )
    parser.add_argument(
        "--unit", choices=["diary", "turn", "session"], default="diary", help="what an entry is"
    )
    parser.add_argument(
        "--lexical-weight", type=float, help="in place of the setting search.lexical_weight"
    )
    options = parser.parse_args()
    journals = list(
        read_cacm(options.data)
        if options.data.is_dir()
        else read_conversations(options.data, options.unit)
    )
    settings = load_settings()
    if options.lexical_weight is not None:
        settings = replace(
            settings, search=replace(settings.search, lexical_weight=options.lexical_weight)
        )
    print(json.dumps(asyncio.run(run(journals, settings))))


if __name__ == "__main__":
    main()
