"""What the small built-in model says to fifty days of Pepys: writes docs/built-in-model.md, good and bad.

    uv run python -m scripts.bench.builtin --data ../shared/data/pepys --out docs/built-in-model.md

A journal is made of the diary up to each chosen day, and a reply asked for the way the app does it: retrieval, the
prompt for the built-in model, its grammar, the check of citations. A reply counts when each of its sentences is whole
(a capital or a quotation mark first, an end mark last) and no four words in a row come twice. The last line printed is
one JSON object.
"""

import argparse
import asyncio
import html
import json
import random
import re
import statistics
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from llamora.app.services.container import AppLifecycle, AppServices
from llamora.persistence.entries import Entry
from llamora.settings import load_settings
from scripts.bench.latency import PASSPHRASE

ARTICLE = re.compile(r"<article[^>]*diary-entry[^>]*>(.*?)</article>", re.DOTALL)
DAY = re.compile(r'<time datetime="(\d{4}-\d\d-\d\d)"')
SHOWN_WORDS = 60
HEAD = """# What the small built-in model says

The model that comes with Llamora, {model}, is very small. Left free it invents; so it may
only choose among sentences that are made of the writer's own clauses (`llm/mirror.py`): one or two about the entry and,
where search found something, one from an earlier day, with its number. To a question it says what one or two earlier
days hold about it, or that there is nothing; it cannot answer it. What it picks is often not what mattered. For replies
that think along, connect a larger model.

These are its replies to {count} days of Samuel Pepys' diary (public domain), chosen at random with the seed {seed} and
asked for as the app does it, over a journal of {entries} earlier days: all of them, good and bad. {good} are of
complete sentences without any four words in a row twice; {cited} cite an earlier day; the first word came after
{first:.1f} s in the middle case, on the machine that made this page. These days are long: {cut} of the {count} prompts
had no room for passages of earlier days. Written by `scripts/bench/builtin.py`.
"""


def diary(folder: Path) -> list[tuple[date, str]]:
    """(day, text) of every dated entry, in order."""
    found: list[tuple[date, str]] = []
    for file in sorted((folder / "text").glob("chapter-*.xhtml"), key=lambda f: int(re.sub(r"\D", "", f.stem))):
        for article in ARTICLE.findall(file.read_text("utf-8")):
            day = DAY.search(article)
            paragraphs = re.findall(r"<p[^>]*>(.*?)</p>", article, re.DOTALL)
            clean = [re.sub(r"<a[^>]*noteref.*?</a>|<[^>]+>", "", paragraph) for paragraph in paragraphs]
            text = "\n\n".join(" ".join(html.unescape(paragraph).split()) for paragraph in clean)
            if day and text.strip():
                found.append((date.fromisoformat(day[1]), text.strip().replace("\u2060", "")))
    return found


def faults(reply: str) -> list[str]:
    """What is wrong with a reply, by the rule of the issue."""
    wrong: list[str] = []
    bare = re.sub(r"\[\d+\]", "", reply)
    for sentence in re.split(r"(?<=[.!?])[”\"’]?\s+(?=[A-Z“])", bare.strip()):
        if not re.match(r"[A-Z“\"]", sentence) or not re.search(r"[.!?][”\"’]?$", sentence.strip()):
            wrong.append("a sentence that is not whole")
            break
    words = re.findall(r"[\w'’]+", bare.lower())
    runs = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    if len(runs) != len(set(runs)):
        wrong.append("four words twice")
    return wrong if reply else ["nothing"]


async def run(data: Path, count: int, seed: int, out: Path | None) -> dict[str, Any]:
    """Ask fifty times; writes the page."""
    entries = await asyncio.to_thread(diary, data)
    journal, later = entries[:400], entries[400:]
    chosen = sorted(random.Random(seed).sample(later, count))
    without_room, model = 0, ""
    told: list[tuple[date, str, str, list[str], float]] = []
    with tempfile.TemporaryDirectory(prefix="builtin-", ignore_cleanup_errors=True) as folder:
        settings = load_settings(
            overrides={
                "data": {"folder": folder, "cache": str(Path(folder) / "cache")},
                "crypto": {"kdf_target_ms": 0},
                "llm": {"embedded": True, "upstream": {"host": ""}},
            }
        )
        services = AppServices.create(settings)
        lifecycle = AppLifecycle(services)
        await lifecycle.start()
        await services.embedder.warm_up()
        _, keys, _ = await services.accounts.register("Samuel", PASSPHRASE, "UTC")
        made = [
            Entry(random.randbytes(16), day, "me", text, datetime(day.year, day.month, day.day, 21, tzinfo=UTC), "UTC")
            for day, text in journal
        ]
        await services.db.entries.add(keys, *made)
        await services.search.unlock(keys)
        await services.search.settled(keys.user_id)
        for day, text in chosen:
            entry = await services.journal.write(keys, day, text, "UTC")
            began = time.monotonic()
            reply = begun = await services.replies.ask(keys, entry.id, "UTC", day)
            first = 0.0
            async for state, _ in services.replies.follow(keys, begun.id):
                reply, first = state, first or (time.monotonic() - began if state.text else 0.0)
            receipt = reply.receipt
            model = receipt.file if receipt else model
            without_room += bool(receipt and not receipt.passages and "passage" in receipt.cut)
            wrong = faults(reply.text) if reply.state == "done" else [reply.note]
            told.append((day, text, reply.text, wrong, first))
        await lifecycle.stop()
    good = sum(not wrong for *_, wrong, _ in told)
    figures: dict[str, Any] = {
        "replies": len(told),
        "whole_sentences_no_repeats": good,
        "cite_an_earlier_day": sum("[" in reply for _, _, reply, _, _ in told),
        "without_room_for_passages": without_room,
        "first_word_median_s": round(statistics.median(first for *_, first in told), 2),
    }
    if out is not None:
        head = HEAD.format(
            model=f"`{model}`",
            count=len(told),
            seed=seed,
            entries=len(journal),
            good=good,
            cited=figures["cite_an_earlier_day"],
            first=figures["first_word_median_s"],
            cut=figures["without_room_for_passages"],
        )
        parts = [head]
        for day, text, reply, wrong, _ in told:
            words = text.split()
            shown = " ".join(words[:SHOWN_WORDS]) + (" …" if len(words) > SHOWN_WORDS else "")
            parts.append(f"## {day.day} {day:%B} {day.year}\n\n> {shown}\n\n{reply or '(nothing)'}\n")
            if wrong:
                parts.append(f"*Not as it should be: {'; '.join(wrong)}.*\n")
        await asyncio.to_thread(out.write_text, "\n".join(parts), "utf-8")
    return figures


def main() -> int:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with Pepys' diary")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the page to write")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(given.data, given.count, given.seed, given.out))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
