"""Fill Jinja templates into the messages that a model is sent.

A folder given to PromptBuilder may hold files of the same names that replace ours. Templates see
only what TEMPLATES lists.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from llamora.errors import Problem
from llamora.llm.budget import (
    MESSAGE_TOKENS,
    OmittedCounts,
    Passage,
    PromptParts,
    Turn,
    fit_notes,
    fit_passages,
    fit_thread,
)
from llamora.llm.client import Message, ModelClient
from llamora.llm.quoting import break_template_marks, unquote

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
    "tag.system.j2": (),
    "tag.user.j2": ("passages", "text"),
    "tags.system.j2": (),
    "tags.user.j2": ("day", "notes"),
}
"""The names that each template is given.

A passage has number, day and text, a note role, day and text.
"""

_SAMPLE_VALUES: Final[Mapping[str, Any]] = {
    "day": "Friday, 20 November 2026",
    "passages": [{"number": 1, "day": "Sunday, 3 May 2026", "text": "> A passage."}],
    "notes": [{"role": "me", "day": "Thursday, 19 November 2026", "text": "> A note."}],
    "text": "An entry.",
}

MARGIN_SHARE: Final = 0.04
"""Share of the budget kept back: parts joined together may count a little more than alone."""


@dataclass(slots=True, frozen=True)
class Prompt:
    """Hold what to send.

    `omitted` counts what was left out for lack of room. `passages` are those in the prompt and
    `user_texts` the user's words of the page, both as they stand there. `tokens` is what it takes,
    a little more rather than less; estimated, not counted, where it fits in any case.
    """

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    omitted: OmittedCounts
    user_texts: tuple[str, ...] = ()
    tokens: int = 0
    is_estimated: bool = False


class PromptTemplateError(Problem):
    """Report that an override of a template cannot be used."""


class PromptBuilder:
    """Build prompts for one server's settings.

    Raises PromptTemplateError for a template that cannot be used.
    """

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
                # Rendered once, so that a mistake shows at start and not in the first reply.
                template.render({key: _SAMPLE_VALUES[key] for key in variables})
            except Exception as error:  # a template may fail in any way that Python can
                raise PromptTemplateError(
                    "template_unusable", name=name, reason=str(error)
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
        """Build the prompt for a reply to the last turn of `thread`.

        `rest_of_day` is oldest first, `passages` strongest first. The server counts tokens with
        `count_exactly`, or where the prompt may not fit. Raises ValueError for an empty thread,
        ModelError for an unreachable server.
        """
        if not thread:
            raise ValueError("a reply needs something to answer")
        parts = await fit_thread(
            client,
            [self._render("reply.system.j2"), self._render("reply.user.j2", "", [], [], "")],
            thread=thread,
            rest_of_day=rest_of_day,
            passages=passages,
            budget=await self._budget(client),
            count_exactly=count_exactly,
        )
        return Prompt(
            messages=self._assemble(parts, day),
            passages=tuple(replace(p, text=unquote(p.text)) for p in parts.passages),
            omitted=parts.omitted,
            user_texts=_user_texts(parts),
            tokens=parts.total_tokens(),
            is_estimated=parts.is_estimated,
        )

    async def build_line(
        self,
        client: ModelClient,
        kind: Literal["opening", "recap", "tags"],
        *,
        day: date,
        turns: Sequence[Turn],
    ) -> Prompt:
        """Build the prompt for a line about a day, or for tags.

        "opening" asks for the line that opens `day`, from earlier days, "recap" for a summary of
        the day, "tags" for names of what the last turn is about. `turns` is oldest first, and the
        oldest is left out first. Raises ValueError when it is empty, ModelError for an unreachable
        server.
        """
        if not turns:
            raise ValueError("there is nothing to draw on")
        system = self._render(f"{kind}.system.j2")
        frame = "\n".join([system, self._render(f"{kind}.user.j2", _format_day(day))])
        parts = await fit_notes(client, frame, turns, await self._budget(client))
        note_values = [
            {"role": note.role, "day": _format_day(note.day or day), "text": note.text}
            for note in parts.notes
        ]
        user = self._render(f"{kind}.user.j2", _format_day(day), notes=note_values)
        messages = (Message("system", system), Message("user", user))
        return Prompt(messages, (), parts.omitted, _user_texts(parts), parts.total_tokens())

    async def build_tag_summary(
        self, client: ModelClient, tag: str, passages: Sequence[Passage]
    ) -> Prompt:
        """Build the prompt for a summary of passages of the entries with a tag.

        They come strongest first, of which the last are left out first, and are shown by number.
        Raises ValueError when there are none, ModelError for an unreachable server.
        """
        if not passages:
            raise ValueError("there is nothing to draw on")
        system, name = self._render("tag.system.j2"), break_template_marks(tag)
        frame = "\n".join([system, self._render("tag.user.j2", text=name)])
        parts = await fit_passages(client, frame, passages, await self._budget(client))
        ordered = sorted(parts.passages, key=lambda passage: passage.number)
        passage_values = [
            {"number": p.number, "day": _format_day(p.day), "text": p.text} for p in ordered
        ]
        messages = (
            Message("system", system),
            Message("user", self._render("tag.user.j2", "", passage_values, (), name)),
        )
        included = tuple(replace(p, text=unquote(p.text)) for p in ordered)
        return Prompt(messages, included, parts.omitted, tokens=parts.total_tokens())

    async def _budget(self, client: ModelClient) -> int:
        context = (await client.describe()).context_tokens
        room = context - min(self._settings.max_reply_tokens, context // 2)
        return max(64, int(room * (1 - MARGIN_SHARE)) - MESSAGE_TOKENS)

    def _assemble(self, parts: PromptParts, day: date) -> tuple[Message, ...]:
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
            # Chat templates want the two sides to take turns, and the user to begin.
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


def _user_texts(parts: PromptParts) -> tuple[str, ...]:
    turns = [turn.text for turn in parts.turns if turn.role == "me"]
    return (*turns, *(unquote(note.text) for note in parts.notes if note.role == "me"))


def _format_day(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B} {day.year}"
