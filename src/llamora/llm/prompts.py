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
from llamora.text import Role

if TYPE_CHECKING:
    from llamora.settings import LlmSettings

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

_SAMPLE_VALUES: Final[Mapping[str, Any]] = {
    "day": "Friday, 20 November 2026",
    "passages": [{"number": 1, "day": "Sunday, 3 May 2026", "text": "> A passage."}],
    "notes": [{"role": "me", "day": "Thursday, 19 November 2026", "text": "> A note."}],
    "text": "An entry.",
}

MESSAGE_TOKENS: Final = 8
"""Cost of one message's frame in a chat template (ChatML: 5)."""
LABEL_TOKENS: Final = 24
"""Cost of the heading over a quoted passage or note."""
MARGIN_SHARE: Final = 0.04
"""Share of the budget kept back: parts joined together may count a little more than each alone."""
MAX_CHARS_PER_TOKEN: Final = 6
"""A text of more characters than this per token of budget cannot fit: it is cut before it is counted."""
SAFE_ESTIMATE_SHARE: Final = 0.45
"""Share of the budget: what is estimated at less fits. No text takes more than twice the tokens it is estimated at."""
ELISION: Final = "\n[…]\n"


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
    omitted: str
    user_texts: tuple[str, ...] = ()
    tokens: int = 0
    is_estimated: bool = False


class PromptTemplateError(Exception):
    """A template of the overrides folder cannot be used; the message names the file."""


@dataclass(slots=True)
class _PromptParts:
    """The parts of a prompt with their costs in tokens, while they are being fitted."""

    turns: list[Turn]
    turn_costs: list[int]
    notes: list[Turn]
    note_costs: list[int]
    passages: list[Passage]
    passage_costs: list[int]
    fixed_tokens: int
    notes_dropped: int = 0
    passages_dropped: int = 0
    turns_dropped: int = 0
    is_shortened: bool = False
    is_estimated: bool = False

    def total_tokens(self) -> int:
        return (
            self.fixed_tokens
            + sum(self.turn_costs)
            + sum(self.note_costs)
            + sum(self.passage_costs)
        )


class PromptBuilder:
    """Builds prompts for one server's settings. Raises PromptTemplateError for a template it cannot use."""

    def __init__(self, settings: "LlmSettings", overrides_folder: Path | None = None) -> None:
        self._settings = settings
        shipped_folder = Path(__file__).with_name("templates")
        folders = (
            [shipped_folder] if overrides_folder is None else [overrides_folder, shipped_folder]
        )
        environment = Environment(
            loader=FileSystemLoader(folders),
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701  # the result is read by a model, not by a browser
            trim_blocks=True,
            lstrip_blocks=True,
        )
        version_hash = hashlib.sha256()
        is_all_shipped = True
        self._templates: dict[str, Template] = {}
        for name, variables in TEMPLATES.items():
            try:
                template = environment.get_template(name)
                source = Path(str(template.filename)).read_bytes()
                # Try it once now: a mistake should be found at start, not in the first reply.
                template.render({key: _SAMPLE_VALUES[key] for key in variables})
            except Exception as error:  # a template may fail in any way that Python can
                raise PromptTemplateError(
                    f"The prompt template {name} cannot be used: {error}."
                ) from None
            version_hash.update(source)
            is_all_shipped = (
                is_all_shipped and Path(str(template.filename)).parent == shipped_folder
            )
            self._templates[name] = template
        self.version = (
            PROMPT_VERSION if is_all_shipped else f"{PROMPT_VERSION}+{version_hash.hexdigest()[:8]}"
        )

    async def build_reply(
        self,
        client: ModelClient,
        *,
        day: date,
        thread: Sequence[Turn],
        rest_of_day: Sequence[Turn],
        passages: Sequence[Passage],
        count_exactly: bool = False,
    ) -> Prompt:
        """The prompt that asks for a reply to the last turn of ``thread``.

        ``rest_of_day`` is oldest first, ``passages`` strongest first. The server counts its tokens with ``exact``,
        or where it may not fit. Raises ValueError for an empty thread, ModelError when the server cannot be reached.
        """
        if not thread:
            raise ValueError("a reply needs something to answer")
        budget = await self._budget(client)
        parts = await self._count_parts(
            client, thread, rest_of_day, passages, budget, count_exactly
        )
        await _fit(client, parts, budget)
        return Prompt(
            messages=self._assemble(parts, day),
            passages=tuple(replace(p, text=_unquote(p.text)) for p in parts.passages),
            omitted=_omission_sentence(parts),
            user_texts=_user_texts(parts),
            tokens=parts.total_tokens(),
            is_estimated=parts.is_estimated,
        )

    async def build_line(
        self,
        client: ModelClient,
        kind: Literal["opening", "recap", "traces"],
        *,
        day: date,
        turns: Sequence[Turn],
    ) -> Prompt:
        """The prompt for the line that opens ``day``, drawn from earlier days, or for a summary of the day itself.

        With "traces" it asks for names of what the last of ``written`` is about.
        ``written`` is oldest first, and the oldest is left out first. Raises ValueError when it is empty,
        ModelError when the server cannot be reached.
        """
        if not turns:
            raise ValueError("there is nothing to draw on")
        budget = await self._budget(client)
        max_chars = budget * MAX_CHARS_PER_TOKEN
        newest = _newest_turns(turns, max_chars) or [
            replace(turns[-1], text=_elide_middle(turns[-1].text, max_chars))
        ]
        notes = [replace(turn, text=_quote(_break_template_marks(turn.text))) for turn in newest]
        frame = [
            self._render(f"{kind}.system.j2"),
            self._render(f"{kind}.user.j2", _format_day(day)),
        ]
        fixed, *costs = await client.count_many(["\n".join(frame), *(note.text for note in notes)])
        parts = _PromptParts(
            turns=[],
            turn_costs=[],
            notes=notes,
            note_costs=[cost + LABEL_TOKENS for cost in costs],
            passages=[],
            passage_costs=[],
            fixed_tokens=fixed + 2 * MESSAGE_TOKENS,
            notes_dropped=len(turns) - len(notes),
        )
        while len(parts.notes) > 1 and parts.total_tokens() > budget:
            parts.notes.pop(0)
            parts.note_costs.pop(0)
            parts.notes_dropped += 1
        if parts.total_tokens() > budget:
            text, cost = await _shorten(
                client, _unquote(parts.notes[0].text), budget - parts.fixed_tokens - LABEL_TOKENS
            )
            parts.notes[0] = replace(parts.notes[0], text=_quote(text))
            parts.note_costs[0] = cost + LABEL_TOKENS
            parts.is_shortened = True
        note_values = [
            {"role": note.role, "day": _format_day(note.day or day), "text": note.text}
            for note in parts.notes
        ]
        messages = (
            Message("system", self._render(f"{kind}.system.j2")),
            Message("user", self._render(f"{kind}.user.j2", _format_day(day), notes=note_values)),
        )
        return Prompt(
            messages, (), _omission_sentence(parts), _user_texts(parts), parts.total_tokens()
        )

    async def build_tag_summary(
        self, client: ModelClient, tag: str, passages: Sequence[Passage]
    ) -> Prompt:
        """The prompt that asks what ``passages``, of entries that bear the trace of this name, say.

        They come strongest first, of which the last are left out first, and are shown by number. Raises ValueError
        when there are none, ModelError when the server cannot be reached.
        """
        if not passages:
            raise ValueError("there is nothing to draw on")
        budget = await self._budget(client)
        max_chars = budget * MAX_CHARS_PER_TOKEN
        quoted = [
            replace(p, text=_quote(_elide_middle(_break_template_marks(p.text), max_chars)))
            for p in passages
        ]
        system, name = self._render("trace.system.j2"), _break_template_marks(tag)
        frame = "\n".join([system, self._render("trace.user.j2", text=name)])
        fixed, *costs = await client.count_many([frame, *(passage.text for passage in quoted)])
        fixed += 2 * MESSAGE_TOKENS
        parts = _PromptParts([], [], [], [], quoted, [cost + LABEL_TOKENS for cost in costs], fixed)
        if fixed + parts.passage_costs[0] > budget:
            text, cost = await _shorten(
                client, _unquote(quoted[0].text), budget - fixed - LABEL_TOKENS
            )
            parts.passages[0] = replace(quoted[0], text=_quote(text))
            parts.passage_costs[0] = min(cost + LABEL_TOKENS, budget - fixed)
            parts.is_shortened = True
        await _fit(client, parts, budget)
        ordered = sorted(parts.passages, key=lambda passage: passage.number)
        passage_values = [
            {"number": p.number, "day": _format_day(p.day), "text": p.text} for p in ordered
        ]
        messages = (
            Message("system", system),
            Message("user", self._render("trace.user.j2", "", passage_values, (), name)),
        )
        included = tuple(replace(p, text=_unquote(p.text)) for p in ordered)
        return Prompt(messages, included, _omission_sentence(parts), tokens=parts.total_tokens())

    async def _budget(self, client: ModelClient) -> int:
        try:
            context = (await client.describe()).context_tokens
        except ModelError as error:
            if error.kind == "unreachable":
                raise
            context = self._settings.context_tokens
        room = context - min(self._settings.max_reply_tokens, context // 2)
        return max(64, int(room * (1 - MARGIN_SHARE)) - MESSAGE_TOKENS)

    async def _count_parts(
        self,
        client: ModelClient,
        thread: Sequence[Turn],
        rest_of_day: Sequence[Turn],
        passages: Sequence[Passage],
        budget: int,
        count_exactly: bool,
    ) -> _PromptParts:
        """Count every part that has a chance to fit, with one request, or none where all of it fits in any case."""
        max_chars = budget * MAX_CHARS_PER_TOKEN
        first, middle, last = _split_thread(thread)
        newest_middle = _newest_turns(middle, max_chars)
        notes = _newest_turns(rest_of_day, max_chars)
        turns = [
            replace(t, text=_break_template_marks(t.text)) for t in (*first, *newest_middle, last)
        ]
        lengths = [len(t.text) for t in turns]
        turns = [replace(t, text=_elide_middle(t.text, max_chars)) for t in turns]
        quoted_passages = [
            replace(p, text=_quote(_elide_middle(_break_template_marks(p.text), max_chars)))
            for p in passages
        ]
        quoted_notes = [
            replace(n, text=_quote(_elide_middle(_break_template_marks(n.text), max_chars)))
            for n in notes
        ]
        frame = [self._render("reply.system.j2"), self._render("reply.user.j2", "", [], [], "")]
        texts = [
            *frame,
            *(t.text for t in turns),
            *(p.text for p in quoted_passages),
            *(n.text for n in quoted_notes),
        ]
        estimates = [estimate_tokens(text) for text in texts]
        # A question to the server is a third of what a reply waits for before it is asked for.
        is_safe = (
            not count_exactly
            and sum(estimates) + LABEL_TOKENS * len(texts) <= SAFE_ESTIMATE_SHARE * budget
        )
        counts = iter(estimates if is_safe else await client.count_many(texts))
        return _PromptParts(
            is_estimated=is_safe,
            fixed_tokens=sum(next(counts) + MESSAGE_TOKENS for _ in frame) + LABEL_TOKENS,
            turns=turns,
            turn_costs=[next(counts) + MESSAGE_TOKENS for _ in turns],
            passages=quoted_passages,
            passage_costs=[next(counts) + LABEL_TOKENS for _ in quoted_passages],
            notes=quoted_notes,
            note_costs=[next(counts) + LABEL_TOKENS for _ in quoted_notes],
            notes_dropped=len(rest_of_day) - len(notes),
            turns_dropped=len(middle) - len(newest_middle),
            is_shortened=any(n > max_chars for n in lengths),
        )

    def _assemble(self, parts: _PromptParts, day: date) -> tuple[Message, ...]:
        last = self._render(
            "reply.user.j2",
            _format_day(day),
            [
                {"number": p.number, "day": _format_day(p.day), "text": p.text}
                for p in parts.passages
            ],
            [{"role": n.role, "text": n.text} for n in parts.notes],
            parts.turns[-1].text,
        )
        turns: list[Message] = []
        for turn in (*parts.turns[:-1], Turn("me", last)):
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
        return (
            self._templates[name].render(day=day, passages=passages, notes=notes, text=text).strip()
        )


async def _fit(client: ModelClient, parts: _PromptParts, budget: int) -> None:
    """Leave out, in the documented order, until the draft is within the budget."""
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
    """``text`` without its middle, so that it takes at most ``room`` tokens; and how many it takes."""
    cost = await client.count_tokens(text)
    for _ in range(4):
        if cost <= room:
            return text, cost
        text = _elide_middle(text, int(len(text) * room / cost * 0.92))
        cost = await client.count_tokens(text)
    if cost > room:
        text = _elide_middle(text, room // 4)  # no character takes more tokens than its four bytes
        cost = await client.count_tokens(text)
    return text, cost


def _split_thread(thread: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn], Turn]:
    return (thread[:1], thread[1:-1], thread[-1]) if len(thread) > 1 else ((), (), thread[0])


def _newest_turns(turns: Sequence[Turn], max_chars: int) -> list[Turn]:
    """The newest turns that could fit; what lies before them is not even counted."""
    size = 0
    for index in range(len(turns) - 1, -1, -1):
        size += len(turns[index].text)
        if size > max_chars:
            return list(turns[index + 1 :])
    return list(turns)


def _elide_middle(text: str, max_chars: int) -> str:
    """The beginning and the end of ``text``, about 3:2, cut between words where that is near."""
    if len(text) <= max_chars:
        return text
    kept_chars = max(0, max_chars - len(ELISION))
    head, tail = text[: kept_chars * 3 // 5], text[len(text) - (kept_chars - kept_chars * 3 // 5) :]
    cut = head.rfind(" ", len(head) - 40)
    head = head[:cut] if cut > 0 else head
    cut = tail.find(" ", 0, 40)
    tail = tail[cut + 1 :] if cut >= 0 else tail
    return head + ELISION + tail


def _quote(text: str) -> str:
    """Mark every line as quoted, so that no text can pretend to stand outside the quotation."""
    return "\n".join("> " + line for line in text.splitlines())


_TEMPLATE_MARKS = re.compile(
    r"<(?=[|｜]|/?s>|/?(?:start|end)_of_\w+>|/?think>|\[?(?:bos|eos|sop)|</?SYS>>|/?tool_|seed:|/?SPECIAL_)"
    r"|\[(?=\||/?(?:INST|THINK|IMG|SYSTEM_\w+|TOOL_\w+|AVAILABLE_\w+|gMASK)\])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _break_template_marks(text: str) -> str:
    """Break up the marks that chat templates use between turns: in a journal they are only characters."""
    return _TEMPLATE_MARKS.sub(lambda m: m[0] + " ", _UNPRINTABLE.sub(" ", text)).strip()


def _unquote(text: str) -> str:
    return re.sub(r"^> ", "", text, flags=re.MULTILINE)


def _user_texts(parts: _PromptParts) -> tuple[str, ...]:
    """The writer's own words of the page that are in a prompt."""
    turns = [turn.text for turn in parts.turns if turn.role == "me"]
    return (*turns, *(_unquote(note.text) for note in parts.notes if note.role == "me"))


def _format_day(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def _omission_sentence(parts: _PromptParts) -> str:
    omitted: list[str] = []
    for count, singular, plural in (
        (parts.notes_dropped, "note of the day", "notes of the day"),
        (parts.passages_dropped, "earlier passage", "earlier passages"),
        (parts.turns_dropped, "turn of the conversation", "turns of the conversation"),
    ):
        if count:
            omitted.append(f"{count} {singular if count == 1 else plural}")
    if parts.is_shortened:
        omitted.append("the middle of the entry")
    if not omitted:
        return ""
    listing = omitted[0] if len(omitted) == 1 else ", ".join(omitted[:-1]) + " and " + omitted[-1]
    return f"Left out for lack of room: {listing}."
