"""Check which passages replies draw on, and whether a model can cite falsely.

    uv run python -m scripts.bench.reply_passages --data ../shared/data/locomo/locomo.json

A journal is made from one sample of LoCoMo (an entry is what one speaker said in a session) and another user's from
the next one. Sixty questions, twenty of them unanswerable, and twenty about the other's life are each asked twice:
once of a scripted model that cites wrongly on purpose (numbers that were not given, quotations that are nearly right
or another user's), once of one that cites every passage honestly. All goes the way the app goes. What becomes a link
and what is marked as the user's words is judged by rules written here once more.
The last line printed is one JSON object.
"""

import asyncio
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from llamora.app.markdown import render_reply
from llamora.journal.quotations import marks
from llamora.persistence.entries import Entry
from llamora.services import AppServices
from llamora.vault.keys import Keyring
from scripts.bench import harness
from scripts.bench.locomo import UNANSWERABLE, Turn, evidence_of, read_turns
from scripts.command import run
from tests.scripted_model import RecordedRequest, Reply, ScriptedModel

PASSAGE = re.compile(r"^\[(\d+)\] [^\n]+\n((?:> ?.*\n?)+)", re.MULTILINE)
LINK = re.compile(r'aria-label="passage (\d+)"')


Question = tuple[str, list[str]]


@dataclass
class Conversation:
    """A conversation as a journal, and what is asked of it: questions with the turns that answer them."""

    entries: list[tuple[datetime, str]] = field(default_factory=list)
    answerable: list[Question] = field(default_factory=list)
    unanswerable: list[Question] = field(default_factory=list)


def parse_conversation(sample: dict[str, Any]) -> Conversation:
    """Read one sample of the file."""
    conversation, turns = Conversation(), read_turns(sample)
    groups: dict[tuple[int, str], list[Turn]] = {}
    for turn in turns:
        groups.setdefault((turn.session, turn.speaker), []).append(turn)
    conversation.entries = [
        (group[0].at, "\n\n".join(turn.text for turn in group)) for group in groups.values()
    ]
    texts = {turn.id: turn.text for turn in turns}
    for question in sample["qa"]:
        evidence = [texts[turn_id] for turn_id in evidence_of(question) if turn_id in texts]
        is_answerable = question["category"] != UNANSWERABLE
        if evidence:
            questions = conversation.answerable if is_answerable else conversation.unanswerable
            questions.append((question["question"], evidence))
    return conversation


def passages_in(chat: RecordedRequest) -> dict[int, str]:
    """Return the numbered passages of a prompt."""
    prompt = str(chat.body["messages"][-1]["content"])
    return {int(n): re.sub(r"(?m)^> ?", "", text) for n, text in PASSAGE.findall(prompt)}


def normalize(text: str) -> str:
    """Make white space single and quote marks alike."""
    return " ".join(re.sub("[“”„\"«»‘’']", "'", text).split())


class CitingModel(ScriptedModel):
    """Read the passages of its prompt and cite them, honestly or not."""

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
        text = " ".join(words[start : start + 8])
        is_there = normalize(text) in normalize(self.passages[number])
        return text if is_there else " ".join(self.passages[number].split()[:5])

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
    addresses = {passage.number: "/" for passage in saved.receipt.passages}
    links = LINK.findall(render_reply(saved.text, addresses, marked))
    known = [normalize(text) for text in (*passages.values(), own)]
    true_texts = [saved.text[start:end] for start, end, is_true in marked if is_true]
    verified = [normalize(text).rstrip(".,;:!?…") for text in true_texts]
    return {
        "links": len(links),
        "false_links": sum(int(number) not in passages for number in links),
        "verified": len(verified),
        "falsely_verified": sum(not any(words in text for text in known) for words in verified),
        "not_found": len(marked) - len(verified),
    }


@dataclass
class Tally:
    """Count what replies of one kind held, and what was found for each group of questions."""

    counts: Counter[str] = field(default_factory=Counter[str])
    found: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])

    def add(self, saved: Entry, model: CitingModel, question: str) -> None:
        """Count one reply."""
        self.counts["replies"] += 1
        self.counts["quotations"] += len(re.findall('“|"[^"]+"', model.reply_text))
        self.counts["altered"] += saved.text != model.reply_text.strip()
        self.counts.update(judged(saved, model.passages, question))

    def add_found(self, group: str, model: CitingModel, evidence: list[str]) -> None:
        """Count what of the evidence was in the prompt."""
        texts = [normalize(text) for text in model.passages.values()]
        hits = [any(normalize(turn) in text for text in texts) for turn in evidence]
        self.found.setdefault(group, Counter()).update(
            questions=1,
            gold_in_prompt=any(hits),
            all_gold_in_prompt=bool(hits) and all(hits),
            told_nothing_relevant=not texts,
        )

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the shares of each group."""
        return {
            group: {
                name: count if name == "questions" else round(count / counts["questions"], 3)
                for name, count in counts.items()
            }
            for group, counts in self.found.items()
        }


async def _create_journal(services: AppServices, name: str, conversation: Conversation) -> Keyring:
    keys = await harness.register(services, name)
    await harness.add_entries(
        services, keys, [harness.entry_at(at, text) for at, text in conversation.entries]
    )
    return keys


async def _ask(services: AppServices, keys: Keyring, day: date, question: str) -> Entry:
    """Ask on a page of its own, so that no question is in the prompt of another one; leave nothing there."""
    user = harness.context_of(keys, day)
    entry = await services.journal.write(user, day, question)
    reply = await services.replies.ask(user, entry.id)
    async for _ in services.replies.follow(keys, reply.id):
        pass
    saved = await services.db.entries.get(keys, reply.id)
    await services.db.entries.erase(keys, [entry.id, reply.id])
    services.search.drop(keys.user_id, [entry.id, reply.id])
    return saved


async def _ask_all(
    folder: Path, mine: Conversation, other: Conversation, groups: dict[str, list[Question]]
) -> dict[str, Any]:
    day, timer = max(at for at, _ in mine.entries).date() + timedelta(days=2), harness.Timer()
    tallies = {False: Tally(), True: Tally()}  # by whether the model is honest
    async with CitingModel() as model:
        llm = {"upstream": {"host": model.url}}
        settings = harness.make_settings(
            folder, folder / "cache", embedding={"enabled": True}, llm=llm
        )
        async with harness.started_services(settings) as services:
            await services.embedder.warm_up()
            keys = await _create_journal(services, "Alice", mine)
            await _create_journal(services, "Bob", other)
            model.foreign_texts = [" ".join(text.split()[4:12]) for _, text in other.entries]
            await harness.index_entries(services, keys)
            questions = [(group, *each) for group, asked in groups.items() for each in asked]
            for group, question, evidence in questions:
                for model.is_honest, tally in tallies.items():
                    day += timedelta(days=1)
                    with timer.lap():
                        saved = await _ask(services, keys, day, question)
                    tally.add(saved, model, question)
                tallies[True].add_found(group, model, evidence)
    return {
        "seconds_a_reply": round(sum(timer.seconds) / len(timer.seconds), 4),
        "wrong_on_purpose": tallies[False].counts,
        "honest": tallies[True].counts,
        **tallies[True].shares(),
    }


def measure(
    folder: Path, data: Path, sample: int, answerable: int, unanswerable: int
) -> dict[str, Any]:
    """Ask everything; return the figures."""
    samples, rng = json.loads(data.read_text("utf-8")), random.Random(1)
    mine = parse_conversation(samples[sample])
    other = parse_conversation(samples[(sample + 1) % len(samples)])
    groups = {"answerable": rng.sample(mine.answerable, answerable)}
    groups["unanswerable"] = rng.sample(mine.unanswerable, unanswerable)
    # Not counted among the sixty: what somebody else would ask of their own life.
    foreign = rng.sample(other.answerable, unanswerable)
    groups["of_another_life"] = [(question, []) for question, _ in foreign]
    counts = {"questions": answerable + unanswerable, "entries": len(mine.entries)}
    return counts | asyncio.run(_ask_all(folder, mine, other, groups))


def is_wrong(figures: dict[str, Any]) -> bool:
    """Tell whether a false link or mark was made or a reply was altered."""
    bad = ("false_links", "falsely_verified", "altered")
    replies = (figures["wrong_on_purpose"], figures["honest"])
    return any(counts[name] for counts in replies for name in bad) or (
        figures["honest"]["not_found"] > 0
    )


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            failed=is_wrong,
            data={"type": Path, "required": True, "help": "a file in LoCoMo's format"},
            sample={"type": int, "default": 0, "help": "which conversation"},
            answerable=40,
            unanswerable=20,
        )
    )
