"""Do replies draw on the right passages, and can a model cite falsely?

    uv run python -m scripts.bench.reply_passages --data ../shared/data/locomo/locomo.json

A journal is made from one sample of LoCoMo (an entry is what one speaker said in a session) and another writer's from
the next one. Sixty questions, twenty of them unanswerable, and twenty about the other's life are each asked twice:
once of a scripted model that cites wrongly on purpose (numbers that were not given, quotations that are nearly right
or another writer's), once of one that cites every passage honestly. All goes the way the app goes. What becomes a link
and what is marked as the writer's words is judged by rules written here once more.
The last line printed is one JSON object.
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llamora.app.markdown import render_reply
from llamora.journal.quotations import marks
from llamora.persistence.entries import Entry
from llamora.services import AppLifecycle, AppServices
from llamora.settings import load_settings
from llamora.vault.keys import Keyring
from tests.scripted_model import RecordedRequest, Reply, ScriptedModel

EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
UNANSWERABLE = 5  # LoCoMo's category
PASSAGE = re.compile(r"^\[(\d+)\] [^\n]+\n((?:> ?.*\n?)+)", re.MULTILINE)
LINK = re.compile(r'aria-label="passage (\d+)"')
PASSPHRASE = "a bench is for sitting and measuring"


@dataclass
class Conversation:
    """A conversation as a journal, and what is asked of it: the question and the turns that answer it."""

    entries: list[tuple[datetime, str]] = field(default_factory=list)
    answerable: list[tuple[str, list[str]]] = field(default_factory=list)
    unanswerable: list[tuple[str, list[str]]] = field(default_factory=list)


def parse_conversation(sample: dict[str, Any]) -> Conversation:
    """One sample of the file."""
    talk, turn_texts = Conversation(), dict[tuple[int, int], str]()
    conversation = sample["conversation"]
    for name in sorted(
        (n for n in conversation if re.fullmatch(r"session_\d+", n)), key=lambda n: int(n[8:])
    ):
        at = datetime.strptime(conversation[f"{name}_date_time"], "%I:%M %p on %d %B, %Y").replace(
            tzinfo=UTC
        )
        by_speaker: dict[str, list[str]] = {}
        for turn in conversation[name]:
            turn_id = EVIDENCE.search(turn["dia_id"])
            assert turn_id is not None
            photo = f" [photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            text = f"{turn['speaker']}: {turn['text']}{photo}"
            turn_texts[int(turn_id[1]), int(turn_id[2])] = text
            by_speaker.setdefault(turn["speaker"], []).append(text)
        talk.entries += [(at, "\n\n".join(turns)) for turns in by_speaker.values()]
    for question in sample["qa"]:
        turn_ids = [
            (int(a), int(b)) for text in question["evidence"] for a, b in EVIDENCE.findall(text)
        ]
        evidence = [turn_texts[spot] for spot in turn_ids if spot in turn_texts]
        if evidence:
            questions = (
                talk.unanswerable if question["category"] == UNANSWERABLE else talk.answerable
            )
            questions.append((question["question"], evidence))
    return talk


def passages_in(chat: RecordedRequest) -> dict[int, str]:
    """The numbered passages of a prompt."""
    prompt = str(chat.body["messages"][-1]["content"])
    return {int(n): re.sub(r"(?m)^> ?", "", text) for n, text in PASSAGE.findall(prompt)}


def normalize(text: str) -> str:
    """White space single, quote marks alike."""
    return " ".join(re.sub("[“”„\"«»‘’']", "'", text).split())


class CitingModel(ScriptedModel):
    """Reads the passages of its prompt and cites them, honestly or not."""

    def __init__(self) -> None:
        super().__init__(context_tokens=4096)
        self.is_honest = False
        self.foreign_texts: list[str] = []
        self.rng = random.Random(7)
        self.passages: dict[int, str] = {}
        self.reply_text = ""

    async def _respond_to_chat(
        self, request: RecordedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.passages = passages_in(request)
        self.reply_text = self._honest_reply() if self.is_honest else self._dishonest_reply()
        pieces = [self.reply_text[at : at + 7] for at in range(0, len(self.reply_text), 7)]
        self.script(Reply(pieces or ["Nothing."]))
        return await super()._respond_to_chat(request, reader, writer)

    def _honest_reply(self) -> str:
        lines = [f"On that day you wrote “{self._quotation(n)}”.[{n}]" for n in self.passages]
        return " ".join(lines) or "Nothing that I was given bears on it."

    def _quotation(self, number: int) -> str:
        words = re.sub('[“”"]', " ", self.passages[number]).split()
        # A quotation in quotation marks: words with marks of their own would end it.
        start = self.rng.randrange(max(1, len(words) - 8))
        run = words[start : start + 8]
        text = " ".join(run)
        return (
            text
            if normalize(text) in normalize(self.passages[number])
            else " ".join(self.passages[number].split()[:5])
        )

    def _dishonest_reply(self) -> str:
        top = max(self.passages, default=0)
        lines = [f"You were in Rome [{top + 1}], in Oslo [99] and at sea [0][{top + 7}]."]
        for number in self.passages:
            words = self._quotation(number).split()
            words[len(words) // 2] = "zeppelin"
            lines.append(f"You wrote “{' '.join(words)}”.[{number}]")
            lines.append(f'You wrote "{self._quotation(number)} and never again" [{number}].')
        lines += [
            f"You wrote “{text}”.[{max(1, top)}]" for text in self.rng.sample(self.foreign_texts, 2)
        ]
        lines.append("> I never trusted any of them and I never will\n")
        self.rng.shuffle(lines)
        return "\n\n".join([" ".join(lines), "And you closed with “what was never written down"])


def judged(saved: Entry, passages: dict[int, str], own: str) -> dict[str, int]:
    """Count what is linked and marked in a stored reply, and what of it may not be."""
    assert saved.receipt is not None
    marked = marks(saved.text, saved.receipt.quoted)
    links = LINK.findall(
        render_reply(saved.text, {p.number: "/" for p in saved.receipt.passages}, marked)
    )
    known = [normalize(text) for text in (*passages.values(), own)]
    verified = [
        normalize(saved.text[start:end]).rstrip(".,;:!?…") for start, end, true in marked if true
    ]
    return {
        "links": len(links),
        "false_links": sum(int(number) not in passages for number in links),
        "verified": len(verified),
        "falsely_verified": sum(not any(words in text for text in known) for words in verified),
        "not_found": len(marked) - len(verified),
    }


async def create_journal(services: AppServices, name: str, conversation: Conversation) -> Keyring:
    """A writer with a journal of these entries, indexed."""
    user, keys, _ = await services.accounts.register(name, PASSPHRASE, "UTC")
    await services.sessions.open_session(
        user, keys
    )  # what nobody is signed in for is locked after a while
    entries = [
        Entry(random.randbytes(16), at.date(), "me", text, at, "UTC")
        for at, text in conversation.entries
    ]
    await services.db.entries.add(keys, *entries)
    return keys


async def run(data: Path, sample: int, answerable: int, unanswerable: int) -> dict[str, Any]:
    """Ask everything; returns the figures."""
    samples = json.loads(await asyncio.to_thread(data.read_text, "utf-8"))
    conversation, other_conversation = (
        parse_conversation(samples[sample]),
        parse_conversation(samples[(sample + 1) % len(samples)]),
    )
    rng = random.Random(1)
    groups = {"answerable": rng.sample(conversation.answerable, answerable)}
    groups["unanswerable"] = rng.sample(conversation.unanswerable, unanswerable)
    # Not counted among the sixty: what somebody else would ask of their own life.
    groups["of_another_life"] = [
        (question, []) for question, _ in rng.sample(other_conversation.answerable, unanswerable)
    ]
    questions = [
        (name, question, evidence) for name, group in groups.items() for question, evidence in group
    ]
    figures: dict[str, Any] = {
        "questions": answerable + unanswerable,
        "entries": len(conversation.entries),
    }
    errors, honest_counts = Counter[str](), Counter[str]()
    found_counts = {
        name: [0, 0, 0] for name in groups
    }  # any evidence, all evidence, nothing relevant
    with tempfile.TemporaryDirectory(prefix="grounding-", ignore_cleanup_errors=True) as folder:
        async with CitingModel() as model:
            settings = load_settings(
                overrides={
                    "data": {"folder": folder, "cache": str(Path(folder) / "cache")},
                    "crypto": {"kdf_target_ms": 0},
                    "llm": {"upstream": {"host": model.url}},
                }
            )
            services = AppServices.create(settings)
            lifecycle = AppLifecycle(services)
            await lifecycle.start()
            await services.embedder.warm_up()
            keys = await create_journal(services, "Alice", conversation)
            await create_journal(services, "Bob", other_conversation)
            model.foreign_texts = [
                " ".join(text.split()[4:12]) for _, text in other_conversation.entries
            ]
            await services.search.unlock(keys)
            await services.search.wait_until_idle(keys.user_id)
            day = max(at for at, _ in conversation.entries).date() + timedelta(days=2)
            started = time.perf_counter()
            for group, question, evidence in questions:
                for model.is_honest in (False, True):
                    # Each on a page of its own, so that no question is in the prompt of another one.
                    day += timedelta(days=1)
                    entry = await services.journal.write(keys, day, question, "UTC")
                    reply = await services.replies.ask(keys, entry.id, "UTC", day)
                    async for _ in services.replies.follow(keys, reply.id):
                        pass
                    saved = await services.db.entries.get(keys, reply.id)
                    counts = honest_counts if model.is_honest else errors
                    counts["replies"] += 1
                    counts["quotations"] += len(re.findall('“|"[^"]+"', model.reply_text))
                    counts["altered"] += saved.text != model.reply_text.strip()
                    counts.update(judged(saved, model.passages, question))
                    if model.is_honest:
                        texts = [normalize(text) for text in model.passages.values()]
                        hits = [any(normalize(turn) in text for text in texts) for turn in evidence]
                        found_counts[group][0] += any(hits)
                        found_counts[group][1] += bool(hits) and all(hits)
                        found_counts[group][2] += not texts
                    await services.db.entries.erase(keys, [entry.id, reply.id])
                    services.search.drop(keys.user_id, [entry.id, reply.id])
            figures["seconds_a_reply"] = round(
                (time.perf_counter() - started) / len(questions) / 2, 4
            )
            await lifecycle.stop()
    figures |= {"wrong_on_purpose": errors, "honest": honest_counts}
    for name, (any_found, all_found, no_passages) in found_counts.items():
        size = len(groups[name])
        figures[name] = {
            "questions": size,
            "gold_in_prompt": round(any_found / size, 3),
            "all_gold_in_prompt": round(all_found / size, 3),
            "told_nothing_relevant": round(no_passages / size, 3),
        }
    return figures


def main() -> int:
    """Read the command line, run, print; fails when a false link or mark was made or a reply was altered."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.reply_passages", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="a file in LoCoMo's format")
    parser.add_argument("--sample", type=int, default=0, help="which conversation")
    parser.add_argument("--answerable", type=int, default=40)
    parser.add_argument("--unanswerable", type=int, default=20)
    options = parser.parse_args()
    figures = asyncio.run(
        run(options.data, options.sample, options.answerable, options.unanswerable)
    )
    print(json.dumps(figures))
    dishonest, honest = figures["wrong_on_purpose"], figures["honest"]
    bad = ("false_links", "falsely_verified", "altered")
    return int(
        any(counts[name] for counts in (dishonest, honest) for name in bad)
        or honest["not_found"] > 0
    )


if __name__ == "__main__":
    raise SystemExit(main())
