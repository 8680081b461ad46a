"""Read dated conversations in LoCoMo's format: turns, and questions with the turns that answer them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

EVIDENCE = re.compile(r"D:?(\d+):(\d+)")  # some ids are written "D:11:26", "D9:1 D4:4" or "D30:05"
UNANSWERABLE = 5  # LoCoMo's category

TurnId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that somebody said in a session; `text` begins with their name."""

    id: TurnId
    session: int
    at: datetime
    speaker: str
    text: str


def read_turns(sample: dict[str, Any]) -> list[Turn]:
    """Return the turns of a sample, in order."""
    conversation: dict[str, Any] = sample["conversation"]
    turns: list[Turn] = []
    for session in sorted(int(n[8:]) for n in conversation if re.fullmatch(r"session_\d+", n)):
        written = conversation[f"session_{session}_date_time"]
        at = datetime.strptime(written, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for turn in conversation[f"session_{session}"]:
            (turn_id,) = _ids_in(turn["dia_id"])
            photo = f" [photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            text = f"{turn['speaker']}: {turn['text']}{photo}"
            turns.append(Turn(turn_id, session, at, turn["speaker"], text))
    return turns


def evidence_of(question: dict[str, Any]) -> list[TurnId]:
    """Return the ids of the turns that answer a question; some samples name turns that are not there."""
    return [turn_id for text in question["evidence"] for turn_id in _ids_in(text)]


def _ids_in(text: str) -> list[TurnId]:
    return [(int(session), int(turn)) for session, turn in EVIDENCE.findall(text)]
