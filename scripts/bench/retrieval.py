"""Ask questions whose answers are known: how often search finds the right entry, and how high.

    uv run python -m scripts.bench.retrieval --data ../shared/data/locomo/locomo.json --unit diary
    uv run python -m scripts.bench.retrieval --data ../shared/data/cacm

`--data` is a file of dated conversations in LoCoMo's format (one journal per conversation; an entry is a turn, what
one speaker said in a session, or a session) or a folder with the CACM collection. Everything goes the way the app
goes: entries are written, indexed and searched by the services of the app. The last line
printed is one JSON object. Relevance is binary; the ideal ranking of nDCG@10 has min(10, relevant) hits.
"""

import asyncio
import html
import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import log2
from pathlib import Path
from typing import Literal

from llamora.services import AppServices
from llamora.settings import Settings
from scripts.bench import harness
from scripts.bench.locomo import Turn, TurnId, evidence_of, read_turns
from scripts.command import run

Unit = Literal["diary", "turn", "session"]
DEPTH = 100  # results looked at; of later ones the reciprocal rank counts as nothing


@dataclass
class Journal:
    """Hold texts with their instants, and questions with the places of the texts that answer them."""

    texts: list[tuple[datetime, str]] = field(default_factory=list)
    questions: list[tuple[str, frozenset[int]]] = field(default_factory=list)


def read_conversations(path: Path, unit: Unit) -> Iterator[Journal]:
    """Make a journal of each conversation of LoCoMo, without questions that have no usable evidence."""
    for sample in json.loads(path.read_text("utf-8")):
        journal = Journal()
        index_of: dict[TurnId, int] = {}
        groups: dict[tuple[object, ...], list[Turn]] = {}
        for turn in read_turns(sample):
            owner = {"turn": turn.id, "diary": turn.speaker, "session": ""}[unit]
            groups.setdefault((turn.session, owner), []).append(turn)
        for turns in groups.values():
            index_of.update((turn.id, len(journal.texts)) for turn in turns)
            journal.texts.append((turns[0].at, "\n\n".join(turn.text for turn in turns)))
        for question in sample["qa"]:
            ids = evidence_of(question)
            answers = frozenset(index_of[turn_id] for turn_id in ids if turn_id in index_of)
            if answers:
                journal.questions.append((question["question"], answers))
        yield journal


def read_cacm(folder: Path) -> Iterator[Journal]:
    """Make one journal of the CACM collection: title, abstract, authors; without the table of citation numbers."""
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
    """Return the measures of one question."""
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


async def _ask(
    services: AppServices, name: str, journal: Journal, timer: harness.Timer
) -> list[dict[str, float]]:
    """Write, index and ask one journal; return the measures of each question."""
    keys = await harness.register(services, name)
    entries = [harness.entry_at(at, text) for at, text in journal.texts]
    await harness.add_entries(services, keys, entries)
    seconds = await harness.index_entries(services, keys)
    print(f"{len(entries)} entries indexed, with vectors, in {seconds:.2f} s")
    index_of = {entry.id: place for place, entry in enumerate(entries)}
    today = max(entry.day for entry in entries) + timedelta(days=1)
    measures: list[dict[str, float]] = []
    for question, answers in journal.questions:
        with timer.lap():
            results = await services.search.search(keys, question, today=today, limit=DEPTH)
        ranking = [index_of[hit.entry_id] for hit in results.hits]
        measures.append(measure_ranking(ranking, answers))
    services.search.lock(keys.user_id)
    return measures


async def _ask_all(journals: Iterator[Journal], settings: Settings) -> dict[str, float]:
    timer, sums = harness.Timer(), Counter[str]()
    async with harness.started_services(settings) as services:
        await services.embedder.warm_up()
        for number, journal in enumerate(journals):
            for measures in await _ask(services, f"Writer {number}", journal, timer):
                sums.update(measures)
    print(
        f"a question took {timer.median_ms:.1f} ms (median), "
        f"{harness.percentile_ms(timer.seconds, 0.95):.1f} ms (p95), {DEPTH} hits each"
    )
    count = len(timer.seconds)
    return {name: round(total / count, 4) for name, total in sums.items()} | {"questions": count}


def measure(folder: Path, data: Path, unit: Unit, lexical_weight: float | None) -> dict[str, float]:
    """Ask all questions; prints speeds and returns the means of the measures."""
    journals = read_cacm(data) if data.is_dir() else read_conversations(data, unit)
    search = {} if lexical_weight is None else {"lexical_weight": lexical_weight}
    settings = harness.make_settings(folder, embedding={"enabled": True}, search=search)
    return asyncio.run(_ask_all(journals, settings))


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            data={"type": Path, "required": True, "help": "LoCoMo's file, or the CACM folder"},
            unit={"choices": ["diary", "turn", "session"], "default": "diary"},
            lexical_weight={"type": float, "help": "in place of search.lexical_weight"},
        )
    )
