"""Fit the parts of a prompt into a budget of tokens.

What does not fit is left out in this order, and `PromptParts.omitted` counts it:

1. the oldest notes of the rest of the day;
2. the weakest passages (they come strongest first);
3. the oldest turns of the conversation between its first entry and what is to be answered;
4. the middle of the first entry, then the middle of what is to be answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final, NamedTuple, TypeVar

from llamora.llm.client import ModelClient
from llamora.llm.quoting import break_template_marks, quote, unquote
from llamora.llm.tokens import estimate_tokens
from llamora.text import Role

MESSAGE_TOKENS: Final = 8  # the frame of a message in a chat template (ChatML: 5)
LABEL_TOKENS: Final = 24  # the heading over a quoted passage or note
MAX_CHARS_PER_TOKEN: Final = 6  # a text with more per token of budget is cut before it is counted
# What is estimated at less of the budget fits: no text takes more than twice its estimate.
SAFE_ESTIMATE_SHARE: Final = 0.45
ELISION: Final = "\n[…]\n"


@dataclass(slots=True, frozen=True)
class Passage:
    """Hold a passage of an earlier entry. Sequences of them come strongest first."""

    number: int
    day: date
    text: str


@dataclass(slots=True, frozen=True)
class Turn:
    """Hold a text of a day or conversation; `day` is needed only where days are told apart."""

    role: Role
    text: str
    day: date | None = None


class OmittedCounts(NamedTuple):
    """Count what did not fit; `shortened`: nor did the middle of the entry."""

    notes: int
    passages: int
    turns: int
    shortened: bool


Quotable = TypeVar("Quotable", Passage, Turn)


@dataclass(slots=True)
class PromptParts:
    """Hold the parts of a prompt with their costs in tokens. Passages and notes are quoted."""

    turns: list[Turn] = field(default_factory=list[Turn])
    turn_costs: list[int] = field(default_factory=list[int])
    notes: list[Turn] = field(default_factory=list[Turn])
    note_costs: list[int] = field(default_factory=list[int])
    passages: list[Passage] = field(default_factory=list[Passage])
    passage_costs: list[int] = field(default_factory=list[int])
    fixed_tokens: int = 0
    notes_dropped: int = 0
    passages_dropped: int = 0
    turns_dropped: int = 0
    is_shortened: bool = False
    is_estimated: bool = False

    @property
    def omitted(self) -> OmittedCounts:
        return OmittedCounts(
            self.notes_dropped, self.passages_dropped, self.turns_dropped, self.is_shortened
        )

    def total_tokens(self) -> int:
        return (
            self.fixed_tokens
            + sum(self.turn_costs)
            + sum(self.note_costs)
            + sum(self.passage_costs)
        )


async def fit_thread(
    client: ModelClient,
    frame: Sequence[str],
    *,
    thread: Sequence[Turn],
    rest_of_day: Sequence[Turn],
    passages: Sequence[Passage],
    budget: int,
    count_exactly: bool,
) -> PromptParts:
    """Return what fits of a thread, the rest of its day and passages.

    All that has a chance to fit is counted with one request, or with none where it fits in any
    case. Raises ModelError.
    """
    max_chars = budget * MAX_CHARS_PER_TOKEN
    first, middle, last = _split_thread(thread)
    newest_middle = _newest_turns(middle, max_chars)
    notes = _newest_turns(rest_of_day, max_chars)
    turns = [
        replace(turn, text=break_template_marks(turn.text))
        for turn in (*first, *newest_middle, last)
    ]
    parts = PromptParts(
        turns=[replace(turn, text=_elide_middle(turn.text, max_chars)) for turn in turns],
        notes=[_quoted(note, max_chars) for note in notes],
        passages=[_quoted(passage, max_chars) for passage in passages],
        notes_dropped=len(rest_of_day) - len(notes),
        turns_dropped=len(middle) - len(newest_middle),
        is_shortened=any(len(turn.text) > max_chars for turn in turns),
    )
    await _count(client, parts, frame, budget, count_exactly)
    await _fit(client, parts, budget)
    return parts


async def _count(
    client: ModelClient, parts: PromptParts, frame: Sequence[str], budget: int, count_exactly: bool
) -> None:
    counted = (*parts.turns, *parts.passages, *parts.notes)
    texts = [*frame, *(part.text for part in counted)]
    estimates = [estimate_tokens(text) for text in texts]
    # A request to the server takes a third of the time until a reply is asked for.
    total = sum(estimates) + LABEL_TOKENS * len(texts)
    parts.is_estimated = not count_exactly and total <= SAFE_ESTIMATE_SHARE * budget
    counts = iter(estimates if parts.is_estimated else await client.tokens.count_many(texts))
    parts.fixed_tokens = sum(next(counts) + MESSAGE_TOKENS for _ in frame) + LABEL_TOKENS
    parts.turn_costs = [next(counts) + MESSAGE_TOKENS for _ in parts.turns]
    parts.passage_costs = [next(counts) + LABEL_TOKENS for _ in parts.passages]
    parts.note_costs = [next(counts) + LABEL_TOKENS for _ in parts.notes]


async def fit_notes(
    client: ModelClient, frame: str, turns: Sequence[Turn], budget: int
) -> PromptParts:
    """Return what fits of notes, oldest first; the newest is shortened rather than dropped.

    Raises ModelError.
    """
    max_chars = budget * MAX_CHARS_PER_TOKEN
    newest = _newest_turns(turns, max_chars) or [
        replace(turns[-1], text=_elide_middle(turns[-1].text, max_chars))
    ]
    notes = [replace(turn, text=quote(break_template_marks(turn.text))) for turn in newest]
    fixed, *costs = await client.tokens.count_many([frame, *(note.text for note in notes)])
    parts = PromptParts(
        notes=notes,
        note_costs=[cost + LABEL_TOKENS for cost in costs],
        fixed_tokens=fixed + 2 * MESSAGE_TOKENS,
        notes_dropped=len(turns) - len(notes),
    )
    while len(parts.notes) > 1 and parts.total_tokens() > budget:
        parts.notes.pop(0)
        parts.note_costs.pop(0)
        parts.notes_dropped += 1
    if parts.total_tokens() > budget:
        room = budget - parts.fixed_tokens - LABEL_TOKENS
        text, cost = await _shorten(client, unquote(parts.notes[0].text), room)
        parts.notes[0] = replace(parts.notes[0], text=quote(text))
        parts.note_costs[0] = cost + LABEL_TOKENS
        parts.is_shortened = True
    return parts


async def fit_passages(
    client: ModelClient, frame: str, passages: Sequence[Passage], budget: int
) -> PromptParts:
    """Return what fits of passages; the strongest is shortened rather than dropped.

    Raises ModelError.
    """
    quoted = [_quoted(passage, budget * MAX_CHARS_PER_TOKEN) for passage in passages]
    fixed, *costs = await client.tokens.count_many([frame, *(passage.text for passage in quoted)])
    fixed += 2 * MESSAGE_TOKENS
    parts = PromptParts(
        passages=quoted, passage_costs=[cost + LABEL_TOKENS for cost in costs], fixed_tokens=fixed
    )
    if fixed + parts.passage_costs[0] > budget:
        room = budget - fixed - LABEL_TOKENS
        text, cost = await _shorten(client, unquote(quoted[0].text), room)
        parts.passages[0] = replace(quoted[0], text=quote(text))
        parts.passage_costs[0] = min(cost + LABEL_TOKENS, budget - fixed)
        parts.is_shortened = True
    await _fit(client, parts, budget)
    return parts


async def _fit(client: ModelClient, parts: PromptParts, budget: int) -> None:
    # Leaves parts out in the order that the module says.
    total = parts.total_tokens()
    while parts.notes and total > budget:
        parts.notes.pop(0)
        total -= parts.note_costs.pop(0)
        parts.notes_dropped += 1
    while parts.passages and total > budget:
        parts.passages.pop()
        total -= parts.passage_costs.pop()
        parts.passages_dropped += 1
    dropped = 0
    while len(parts.turns) - dropped > 2 and total > budget:
        total -= parts.turn_costs[1 + dropped]
        dropped += 1
    del parts.turns[1 : 1 + dropped], parts.turn_costs[1 : 1 + dropped]
    parts.turns_dropped += dropped
    for index in range(len(parts.turns)):
        if total <= budget:
            return
        # Of two texts, the one to be answered keeps at least half of the room.
        other_tokens = total - parts.turn_costs[index]
        min_room = (budget - parts.fixed_tokens) // 2 if index == 0 and len(parts.turns) > 1 else 16
        room = max(min_room if other_tokens > budget else budget - other_tokens, 16)
        text, cost = await _shorten(client, parts.turns[index].text, room - MESSAGE_TOKENS)
        parts.turns[index] = replace(parts.turns[index], text=text)
        total = other_tokens + cost + MESSAGE_TOKENS
        parts.turn_costs[index] = cost + MESSAGE_TOKENS
        parts.is_shortened = True


async def _shorten(client: ModelClient, text: str, room: int) -> tuple[str, int]:
    """Return a text with as much of its middle left out as `room` tokens demand, and its tokens."""
    cost = await client.tokens.count(text)
    for _ in range(4):
        if cost <= room:
            return text, cost
        text = _elide_middle(text, int(len(text) * room / cost * 0.92))
        cost = await client.tokens.count(text)
    if cost > room:
        text = _elide_middle(text, room // 4)  # no character takes more tokens than its four bytes
        cost = await client.tokens.count(text)
    return text, cost


def _split_thread(thread: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn], Turn]:
    return (thread[:1], thread[1:-1], thread[-1]) if len(thread) > 1 else ((), (), thread[0])


def _newest_turns(turns: Sequence[Turn], max_chars: int) -> list[Turn]:
    """Return the newest turns that could fit; those before them are not even counted."""
    size = 0
    for index in range(len(turns) - 1, -1, -1):
        size += len(turns[index].text)
        if size > max_chars:
            return list(turns[index + 1 :])
    return list(turns)


def _elide_middle(text: str, max_chars: int) -> str:
    """Return the beginning and the end of a text, about 3:2, cut between words if any is near."""
    if len(text) <= max_chars:
        return text
    kept_chars = max(0, max_chars - len(ELISION))
    head, tail = text[: kept_chars * 3 // 5], text[len(text) - (kept_chars - kept_chars * 3 // 5) :]
    cut = head.rfind(" ", len(head) - 40)
    head = head[:cut] if cut > 0 else head
    cut = tail.find(" ", 0, 40)
    tail = tail[cut + 1 :] if cut >= 0 else tail
    return head + ELISION + tail


def _quoted(part: Quotable, max_chars: int) -> Quotable:
    return replace(part, text=quote(_elide_middle(break_template_marks(part.text), max_chars)))
