"""What the model is sent: Jinja templates in, a token budget kept, messages out.

A folder given to :class:`PromptBuilder` may hold files of the same names that take the place of ours. The
templates see only what is listed in :data:`TEMPLATES`.

What does not fit is left out in this order, and :attr:`Prompt.cut` says so:

1. the oldest notes of the rest of the day;
2. the weakest passages (they come strongest first);
3. the oldest turns of the conversation between its first entry and what is to be answered;
4. the middle of the first entry, then the middle of what is to be answered.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from llamora.llm.client import Message, ModelClient, ModelError, estimate_tokens

if TYPE_CHECKING:
    from llamora.settings import LlmSettings

Role = Literal["me", "reply"]

PROMPT_VERSION: Final = "2"
"""Changes with every change of the shipped templates or of the way they are filled."""

TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "reply.system.j2": (),
    "reply.user.j2": ("day", "passages", "notes", "text"),
    "opening.system.j2": (),
    "opening.user.j2": ("day", "notes"),
    "recap.system.j2": (),
    "recap.user.j2": ("day", "notes"),
    "trace.system.j2": (),
    "trace.user.j2": ("passages", "text"),
    "traces.system.j2": (),
    "traces.user.j2": ("day", "notes"),
}
"""Each template and the names it is given. A passage has number, day and text, a note role, day and text."""

_SAMPLE: Final[Mapping[str, Any]] = {
    "day": "Friday, 20 November 2026",
    "passages": [{"number": 1, "day": "Sunday, 3 May 2026", "text": "> A passage."}],
    "notes": [{"role": "me", "day": "Thursday, 19 November 2026", "text": "> A note."}],
    "text": "An entry.",
}

MESSAGE_TOKENS: Final = 8
"""Cost of one message's frame in a chat template (ChatML: 5)."""
LABEL_TOKENS: Final = 24
"""Cost of the heading over a quoted passage or note."""
MARGIN: Final = 0.04
"""Share of the budget kept back: parts joined together may count a little more than each alone."""
CHARS_PER_TOKEN_MOST: Final = 6
"""A text of more characters than this per token of budget cannot fit: it is cut before it is counted."""
SURE: Final = 0.45
"""Share of the budget: what is estimated at less fits. No text takes more than twice the tokens it is estimated at."""
GAP: Final = "\n[…]\n"


@dataclass(slots=True, frozen=True)
class Passage:
    """An earlier entry that search brought. Sequences of them come strongest first."""

    number: int
    day: date
    text: str


@dataclass(slots=True, frozen=True)
class Turn:
    """One contribution to a day or a conversation. `day` is needed only where several days are told apart."""

    role: Role
    text: str
    day: date | None = None


@dataclass(slots=True, frozen=True)
class Prompt:
    """What to send. ``cut`` is ``""`` or a sentence saying what was left out for lack of room.

    ``passages`` are those that are in it and ``own`` the writer's words of the page, both as they stand there;
    ``tokens`` is what it takes, a little more rather than less. ``estimated``: they were not counted, since it fits
    in any case.
    """

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    cut: str
    own: tuple[str, ...] = ()
    tokens: int = 0
    estimated: bool = False


class PromptTemplateError(Exception):
    """A template of the overrides folder cannot be used; the message names the file."""


@dataclass(slots=True)
class _Draft:
    """The parts of a prompt with their costs in tokens, while they are being fitted."""

    turns: list[Turn]
    turn_costs: list[int]
    notes: list[Turn]
    note_costs: list[int]
    passages: list[Passage]
    passage_costs: list[int]
    fixed: int
    notes_dropped: int = 0
    passages_dropped: int = 0
    turns_dropped: int = 0
    shortened: bool = False
    estimated: bool = False

    def total(self) -> int:
        return self.fixed + sum(self.turn_costs) + sum(self.note_costs) + sum(self.passage_costs)


class PromptBuilder:
    """Builds prompts for one server's settings. Raises PromptTemplateError for a template it cannot use."""

    def __init__(self, settings: "LlmSettings", overrides_folder: Path | None = None) -> None:
        self._settings = settings
        shipped = Path(__file__).with_name("templates")
        folders = [shipped] if overrides_folder is None else [overrides_folder, shipped]
        environment = Environment(
            loader=FileSystemLoader(folders),
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701  # the result is read by a model, not by a browser
            trim_blocks=True,
            lstrip_blocks=True,
        )
        digest = hashlib.sha256()
        own = True
        self._templates: dict[str, Template] = {}
        for name, given in TEMPLATES.items():
            try:
                template = environment.get_template(name)
                source = Path(str(template.filename)).read_bytes()
                # Try it once now: a mistake should be found at start, not in the first reply.
                template.render({key: _SAMPLE[key] for key in given})
            except Exception as error:  # a template may fail in any way that Python can
                raise PromptTemplateError(f"The prompt template {name} cannot be used: {error}.") from None
            digest.update(source)
            own = own and Path(str(template.filename)).parent == shipped
            self._templates[name] = template
        self.version = PROMPT_VERSION if own else f"{PROMPT_VERSION}+{digest.hexdigest()[:8]}"

    async def reply(
        self,
        client: ModelClient,
        *,
        day: date,
        thread: Sequence[Turn],
        rest_of_day: Sequence[Turn],
        passages: Sequence[Passage],
        exact: bool = False,
    ) -> Prompt:
        """The prompt that asks for a reply to the last turn of ``thread``.

        ``rest_of_day`` is oldest first, ``passages`` strongest first. The server counts its tokens with ``exact``,
        or where it may not fit. Raises ValueError for an empty thread, ModelError when the server cannot be reached.
        """
        if not thread:
            raise ValueError("a reply needs something to answer")
        budget = await self._budget(client)
        draft = await self._count(client, thread, rest_of_day, passages, budget, exact)
        await _fit(client, draft, budget)
        return Prompt(
            messages=self._assemble(draft, day),
            passages=tuple(replace(p, text=_unquoted(p.text)) for p in draft.passages),
            cut=_cut_sentence(draft),
            own=_written(draft),
            tokens=draft.total(),
            estimated=draft.estimated,
        )

    async def line(
        self,
        client: ModelClient,
        kind: Literal["opening", "recap", "traces"],
        *,
        day: date,
        written: Sequence[Turn],
    ) -> Prompt:
        """The prompt for the line that opens ``day``, drawn from earlier days, or for a summary of the day itself.

        With "traces" it asks for names of what the last of ``written`` is about.
        ``written`` is oldest first, and the oldest is left out first. Raises ValueError when it is empty,
        ModelError when the server cannot be reached.
        """
        if not written:
            raise ValueError("there is nothing to draw on")
        budget = await self._budget(client)
        most = budget * CHARS_PER_TOKEN_MOST
        newest = _newest(written, most) or [replace(written[-1], text=_without_middle(written[-1].text, most))]
        notes = [replace(turn, text=_quote(_inert(turn.text))) for turn in newest]
        frame = [self._render(f"{kind}.system.j2"), self._render(f"{kind}.user.j2", _in_words(day))]
        fixed, *costs = await client.count_many(["\n".join(frame), *(note.text for note in notes)])
        draft = _Draft(
            turns=[],
            turn_costs=[],
            notes=notes,
            note_costs=[cost + LABEL_TOKENS for cost in costs],
            passages=[],
            passage_costs=[],
            fixed=fixed + 2 * MESSAGE_TOKENS,
            notes_dropped=len(written) - len(notes),
        )
        while len(draft.notes) > 1 and draft.total() > budget:
            draft.notes.pop(0)
            draft.note_costs.pop(0)
            draft.notes_dropped += 1
        if draft.total() > budget:
            text, cost = await _shorten(client, _unquoted(draft.notes[0].text), budget - draft.fixed - LABEL_TOKENS)
            draft.notes[0] = replace(draft.notes[0], text=_quote(text))
            draft.note_costs[0] = cost + LABEL_TOKENS
            draft.shortened = True
        given = [{"role": note.role, "day": _in_words(note.day or day), "text": note.text} for note in draft.notes]
        messages = (
            Message("system", self._render(f"{kind}.system.j2")),
            Message("user", self._render(f"{kind}.user.j2", _in_words(day), notes=given)),
        )
        return Prompt(messages, (), _cut_sentence(draft), _written(draft), draft.total())

    async def summary(self, client: ModelClient, trace: str, passages: Sequence[Passage]) -> Prompt:
        """The prompt that asks what ``passages``, of entries that bear the trace of this name, say.

        They come strongest first, of which the last are left out first, and are shown by number. Raises ValueError
        when there are none, ModelError when the server cannot be reached.
        """
        if not passages:
            raise ValueError("there is nothing to draw on")
        budget = await self._budget(client)
        most = budget * CHARS_PER_TOKEN_MOST
        quoted = [replace(p, text=_quote(_without_middle(_inert(p.text), most))) for p in passages]
        system, name = self._render("trace.system.j2"), _inert(trace)
        frame = "\n".join([system, self._render("trace.user.j2", text=name)])
        fixed, *costs = await client.count_many([frame, *(passage.text for passage in quoted)])
        fixed += 2 * MESSAGE_TOKENS
        draft = _Draft([], [], [], [], quoted, [cost + LABEL_TOKENS for cost in costs], fixed)
        if fixed + draft.passage_costs[0] > budget:
            text, cost = await _shorten(client, _unquoted(quoted[0].text), budget - fixed - LABEL_TOKENS)
            draft.passages[0] = replace(quoted[0], text=_quote(text))
            draft.passage_costs[0] = min(cost + LABEL_TOKENS, budget - fixed)
            draft.shortened = True
        await _fit(client, draft, budget)
        shown = sorted(draft.passages, key=lambda passage: passage.number)
        given = [{"number": p.number, "day": _in_words(p.day), "text": p.text} for p in shown]
        messages = (Message("system", system), Message("user", self._render("trace.user.j2", "", given, (), name)))
        drawn = tuple(replace(p, text=_unquoted(p.text)) for p in shown)
        return Prompt(messages, drawn, _cut_sentence(draft), tokens=draft.total())

    async def _budget(self, client: ModelClient) -> int:
        try:
            context = (await client.describe()).context_tokens
        except ModelError as error:
            if error.kind == "unreachable":
                raise
            context = self._settings.context_tokens
        room = context - min(self._settings.max_reply_tokens, context // 2)
        return max(64, int(room * (1 - MARGIN)) - MESSAGE_TOKENS)

    async def _count(
        self,
        client: ModelClient,
        thread: Sequence[Turn],
        rest_of_day: Sequence[Turn],
        passages: Sequence[Passage],
        budget: int,
        exact: bool,
    ) -> _Draft:
        """Count every part that has a chance to fit, with one request, or none where all of it fits in any case."""
        most = budget * CHARS_PER_TOKEN_MOST
        first, middle, last = _ends(thread)
        kept_middle = _newest(middle, most)
        notes = _newest(rest_of_day, most)
        turns = [replace(t, text=_inert(t.text)) for t in (*first, *kept_middle, last)]
        whole = [len(t.text) for t in turns]
        turns = [replace(t, text=_without_middle(t.text, most)) for t in turns]
        quoted = [replace(p, text=_quote(_without_middle(_inert(p.text), most))) for p in passages]
        noted = [replace(n, text=_quote(_without_middle(_inert(n.text), most))) for n in notes]
        frame = [self._render("reply.system.j2"), self._render("reply.user.j2", "", [], [], "")]
        texts = [*frame, *(t.text for t in turns), *(p.text for p in quoted), *(n.text for n in noted)]
        estimates = [estimate_tokens(text) for text in texts]
        # A question to the server is a third of what a reply waits for before it is asked for.
        sure = not exact and sum(estimates) + LABEL_TOKENS * len(texts) <= SURE * budget
        counts = iter(estimates if sure else await client.count_many(texts))
        return _Draft(
            estimated=sure,
            fixed=sum(next(counts) + MESSAGE_TOKENS for _ in frame) + LABEL_TOKENS,
            turns=turns,
            turn_costs=[next(counts) + MESSAGE_TOKENS for _ in turns],
            passages=quoted,
            passage_costs=[next(counts) + LABEL_TOKENS for _ in quoted],
            notes=noted,
            note_costs=[next(counts) + LABEL_TOKENS for _ in noted],
            notes_dropped=len(rest_of_day) - len(notes),
            turns_dropped=len(middle) - len(kept_middle),
            shortened=any(n > most for n in whole),
        )

    def _assemble(self, draft: _Draft, day: date) -> tuple[Message, ...]:
        last = self._render(
            "reply.user.j2",
            _in_words(day),
            [{"number": p.number, "day": _in_words(p.day), "text": p.text} for p in draft.passages],
            [{"role": n.role, "text": n.text} for n in draft.notes],
            draft.turns[-1].text,
        )
        turns: list[Message] = []
        for turn in (*draft.turns[:-1], Turn("me", last)):
            role: Literal["user", "assistant"] = "user" if turn.role == "me" else "assistant"
            # Chat templates want the two sides to take turns, and the writer to begin.
            if turns and turns[-1].role == role:
                turns[-1] = Message(role, f"{turns[-1].content}\n\n{turn.text}")
            elif turns or role == "user":
                turns.append(Message(role, turn.text))
            else:
                turns += [Message("user", "(The page is open.)"), Message(role, turn.text)]
        return (Message("system", self._render("reply.system.j2")), *turns)

    def _render(
        self,
        name: str,
        day: str = "",
        passages: Sequence[Mapping[str, Any]] = (),
        notes: Sequence[Mapping[str, Any]] = (),
        text: str = "",
    ) -> str:
        return self._templates[name].render(day=day, passages=passages, notes=notes, text=text).strip()


async def _fit(client: ModelClient, draft: _Draft, budget: int) -> None:
    """Leave out, in the documented order, until the draft is within the budget."""
    total = draft.total()
    while draft.notes and total > budget:
        draft.notes.pop(0)
        total -= draft.note_costs.pop(0)
        draft.notes_dropped += 1
    while draft.passages and total > budget:
        draft.passages.pop()
        total -= draft.passage_costs.pop()
        draft.passages_dropped += 1
    dropped = 0
    while len(draft.turns) - dropped > 2 and total > budget:
        total -= draft.turn_costs[1 + dropped]
        dropped += 1
    del draft.turns[1 : 1 + dropped], draft.turn_costs[1 : 1 + dropped]
    draft.turns_dropped += dropped
    for at in range(len(draft.turns)):
        if total <= budget:
            return
        # Of two texts, the one to be answered keeps at least half of the room.
        others = total - draft.turn_costs[at]
        least = (budget - draft.fixed) // 2 if at == 0 and len(draft.turns) > 1 else 16
        room = max(least if others > budget else budget - others, 16)
        text, cost = await _shorten(client, draft.turns[at].text, room - MESSAGE_TOKENS)
        draft.turns[at] = replace(draft.turns[at], text=text)
        total = others + cost + MESSAGE_TOKENS
        draft.turn_costs[at] = cost + MESSAGE_TOKENS
        draft.shortened = True


async def _shorten(client: ModelClient, text: str, room: int) -> tuple[str, int]:
    """``text`` without its middle, so that it takes at most ``room`` tokens; and how many it takes."""
    cost = await client.count_tokens(text)
    for _ in range(4):
        if cost <= room:
            return text, cost
        text = _without_middle(text, int(len(text) * room / cost * 0.92))
        cost = await client.count_tokens(text)
    if cost > room:
        text = _without_middle(text, room // 4)  # no character takes more tokens than its four bytes
        cost = await client.count_tokens(text)
    return text, cost


def _ends(thread: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn], Turn]:
    return (thread[:1], thread[1:-1], thread[-1]) if len(thread) > 1 else ((), (), thread[0])


def _newest(turns: Sequence[Turn], most_chars: int) -> list[Turn]:
    """The newest turns that could fit; what lies before them is not even counted."""
    size = 0
    for at in range(len(turns) - 1, -1, -1):
        size += len(turns[at].text)
        if size > most_chars:
            return list(turns[at + 1 :])
    return list(turns)


def _without_middle(text: str, chars: int) -> str:
    """The beginning and the end of ``text``, about 3:2, cut between words where that is near."""
    if len(text) <= chars:
        return text
    keep = max(0, chars - len(GAP))
    head, tail = text[: keep * 3 // 5], text[len(text) - (keep - keep * 3 // 5) :]
    at = head.rfind(" ", len(head) - 40)
    head = head[:at] if at > 0 else head
    at = tail.find(" ", 0, 40)
    tail = tail[at + 1 :] if at >= 0 else tail
    return head + GAP + tail


def _quote(text: str) -> str:
    """Mark every line as quoted, so that no text can pretend to stand outside the quotation."""
    return "\n".join("> " + line for line in text.splitlines())


_CONTROL = re.compile(
    r"<(?=[|｜]|/?s>|/?(?:start|end)_of_\w+>|/?think>|\[?(?:bos|eos|sop)|</?SYS>>|/?tool_|seed:|/?SPECIAL_)"
    r"|\[(?=\||/?(?:INST|THINK|IMG|SYSTEM_\w+|TOOL_\w+|AVAILABLE_\w+|gMASK)\])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _inert(text: str) -> str:
    """Break up the marks that chat templates use between turns: in a journal they are only characters."""
    return _CONTROL.sub(lambda m: m[0] + " ", _UNPRINTABLE.sub(" ", text)).strip()


def _unquoted(text: str) -> str:
    return re.sub(r"^> ", "", text, flags=re.MULTILINE)


def _written(draft: _Draft) -> tuple[str, ...]:
    """The writer's own words of the page that are in a prompt."""
    turns = [turn.text for turn in draft.turns if turn.role == "me"]
    return (*turns, *(_unquoted(note.text) for note in draft.notes if note.role == "me"))


def _in_words(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def _cut_sentence(draft: _Draft) -> str:
    left: list[str] = []
    for count, one, more in (
        (draft.notes_dropped, "note of the day", "notes of the day"),
        (draft.passages_dropped, "earlier passage", "earlier passages"),
        (draft.turns_dropped, "turn of the conversation", "turns of the conversation"),
    ):
        if count:
            left.append(f"{count} {one if count == 1 else more}")
    if draft.shortened:
        left.append("the middle of the entry")
    if not left:
        return ""
    listing = left[0] if len(left) == 1 else ", ".join(left[:-1]) + " and " + left[-1]
    return f"Left out for lack of room: {listing}."
