"""Take the reasoning of a model out of its text.

Most servers send reasoning apart (`reasoning_content`, or `reasoning`). Others leave it in the
text between marks, or, where the chat template writes the opening mark into the prompt (DeepSeek
R1, Qwen3 Thinking, GLM 4.7, MiniMax M2), before a closing mark alone: vLLM without a reasoning
parser, LM Studio with some models, and llama.cpp with a template that it does not know.
"""

import re
from typing import Final

_REASONING_WORDS: Final = "think|thinking|thoughts?|reasoning|reflection|scratchpad"
# Templates write <think>, [THINK] (Mistral) or ◁think▷ (Kimi); gpt-oss (Harmony) names the
# channel of each message.
_FINAL_CHANNEL: Final = r"<\|channel\|>\s*final[^<]{0,80}<\|message\|>"
REASONING_END: Final = re.compile(
    rf"(?:[<◁]\s{{0,8}}/\s{{0,8}}(?:{_REASONING_WORDS})\s{{0,8}}[>▷]|\[/(?-i:THINK|THINKING)\]|{_FINAL_CHANNEL})\s*",
    re.IGNORECASE,
)
_REASONING_START: Final = re.compile(
    rf"[<◁]\s{{0,8}}({_REASONING_WORDS})\s{{0,8}}[>▷]|\[((?-i:THINK|THINKING))\]"
    r"|<\|channel\|>\s*(?:analysis|commentary)[^<]{0,80}<\|message\|>",
    re.IGNORECASE,
)
# What a chat template puts before and after a turn, where a server lets it through. Elsewhere they are words.
_TURN_STARTS: Final = re.compile(
    r"\A(?:\s*(?:<\|(?:start|im_start)\|>(?:assistant|model|user)?\n*|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>\s*"
    rf"|<start_of_turn>(?:model)?\n*|{_FINAL_CHANNEL}|<\|(?:end|return|im_end|eot_id|eom_id|end_of_text|endoftext)\|>))+"
)
_TURN_END: Final = (
    r"(?:<\|(?:end|return|im_end|eot_id|eom_id|end_of_text|endoftext)\|>|<end_of_turn>|</s>)"
)
_TURN_ENDS: Final = re.compile(rf"(?:\s{{0,8}}{_TURN_END})+\s{{0,8}}\Z")
_HELD_END: Final = re.compile(rf"(?:\s{{0,8}}{_TURN_END})+\s{{0,8}}(?:<[|/a-z_]{{0,14}}\|?)?\Z")
_PARTIAL_MARK: Final = re.compile(  # may become a mark with the next piece
    r"(?:[<◁]\s{0,8}/?\s{0,8}[a-z]{0,10}\s{0,8}|\[/?(?-i:[A-Z]{0,8})|<\|[a-z_]{0,15}\|?|<\|(?:im_)?start\|>[a-z]{0,8}"
    r"|<\|start_header_id\|>[\sa-z]{0,12}(?:<\|?[a-z_]{0,13}\|?)?|<(?:start|end)(?:_[a-z_]{0,10})?|<start_of_turn>[a-z]{0,4}"
    r"|(?:\s{0,8}</s>)+\s{0,8}(?:<(?:/s?)?)?"
    r"|<\|channel\|>[^<]{0,90}(?:<(?:\|[a-z]{0,10}\|?)?)?)\Z",
    re.IGNORECASE,
)
_MAX_MARK_CHARS: Final = 128
_PAIRED_CODE: Final = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)

REASONING_CLOSED: Final = "\0"
"""Begins the piece of text after reasoning that only its closing mark told; no model says it."""
_OPEN_AT_END: Final = re.compile(rf"(?:{_REASONING_START.pattern})\s*\Z", re.IGNORECASE)


def ends_in_reasoning(prompt: str) -> bool:
    """Return whether a prompt that a chat template made ends inside reasoning."""
    return _OPEN_AT_END.search(prompt[-_MAX_MARK_CHARS:]) is not None


def has_reasoning_marks(template: str) -> bool:
    """Return whether a chat template writes marks that open reasoning, anywhere."""
    return _REASONING_START.search(template) is not None


def without_reasoning(text: str) -> str:
    """Return what follows the last REASONING_CLOSED."""
    return text.rpartition(REASONING_CLOSED)[2]


class ReasoningFilter:
    """Take reasoning out of a stream of text, also where a mark comes in two pieces.

    Reasoning opens only before the first visible word; later, marks are words. With `starts_open`
    the prompt ended inside reasoning: nothing is said before the closing mark. Where that was not
    known, a closing mark alone becomes REASONING_CLOSED if it stands as templates write it, not as
    sentences and code do; `closed_without_opening` tells.
    """

    def __init__(self, *, starts_open: bool = False) -> None:
        self._buffer = ""
        self._end_pattern: re.Pattern[str] | None = None  # of open reasoning
        self._is_prompt_open = starts_open
        self._unclosed_pieces: list[str] = []  # since it is open, should it never close
        self._shown: list[str] = []
        self._has_spoken = False
        self._may_close = not starts_open  # a closing mark alone may come
        self.closed_without_opening = False

    @property
    def is_open(self) -> bool:
        """Return whether what comes next is reasoning."""
        return self._is_prompt_open or self._end_pattern is not None

    @property
    def is_unclosed(self) -> bool:
        """Return whether all so far may be the reasoning that the prompt opened."""
        return self._is_prompt_open

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that may be shown."""
        if self._is_prompt_open:
            text = self._buffer + piece
            end_match = REASONING_END.search(text)
            if not end_match:
                self._unclosed_pieces.append(piece)
                self._buffer = text[-_MAX_MARK_CHARS:]
                return ""
            self._take_unclosed()
            self._may_close = False
            piece, self.closed_without_opening = text[end_match.end() :], True
        return self._filter_text(piece)

    def release_held(self) -> str:
        """Return the text that was held back, to be shown.

        To call when the server turns out to send reasoning apart.
        """
        held = self._take_unclosed() if self._is_prompt_open else ""
        self._may_close = False
        return self._filter_text(held)

    def finish(self, *, is_complete: bool) -> str:
        """End the stream; return the rest of the text that may be shown.

        With `is_complete` the model ended by itself, so text that it never marked is its answer.
        """
        if self._is_prompt_open:
            text = self._take_unclosed()
            return (
                self._filter_text(text) + self.finish(is_complete=is_complete)
                if is_complete
                else ""
            )
        buffered, self._buffer = self._buffer, ""
        if self._end_pattern is not None:
            return ""
        return _TURN_ENDS.sub("", self._without_opening_tokens(buffered))

    def _take_unclosed(self) -> str:
        text = "".join(self._unclosed_pieces)
        self._buffer, self._is_prompt_open = "", False
        self._unclosed_pieces.clear()
        return text

    def _filter_text(self, piece: str) -> str:
        text, self._buffer = self._buffer + piece.replace(REASONING_CLOSED, ""), ""
        while not self._has_spoken:
            if self._end_pattern is not None:
                end_match = self._end_pattern.search(text)
                if not end_match:
                    self._buffer = text[-_MAX_MARK_CHARS:]
                    return ""
                text, self._end_pattern = text[end_match.end() :], None
            if _PARTIAL_MARK.fullmatch(text.lstrip()):
                self._buffer = text
                return ""
            text = self._without_opening_tokens(text)
            bare = text.lstrip()
            if start_match := _REASONING_START.match(bare):
                self._may_close = False
                text, self._end_pattern = (
                    bare[start_match.end() :],
                    _end_pattern_for(start_match),
                )
            elif not bare or _PARTIAL_MARK.fullmatch(bare):
                self._buffer = text
                return ""
            else:
                self._has_spoken = True
        return self._pass_on(text)

    def _without_opening_tokens(self, text: str) -> str:
        return text if self._has_spoken else _TURN_STARTS.sub("", text)

    def _pass_on(self, text: str) -> str:
        """Return text after the first word, but what may be a mark with the next piece."""
        found = REASONING_END.search(text) if self._may_close else None
        if found and found.end() == len(text):  # what follows tells what it is
            self._buffer = text[found.start() :]
            text = text[: found.start()]
        elif found and self._closes(text, found):
            self._may_close, self.closed_without_opening = False, True
            self._shown.clear()
            return REASONING_CLOSED + self._pass_on(text[found.end() :])
        elif partial := (_HELD_END.search(text) or _PARTIAL_MARK.search(text)):
            text, self._buffer = text[: partial.start()], partial[0]
        if self._may_close:
            self._shown.append(text)
        return text

    def _closes(self, text: str, found: "re.Match[str]") -> bool:
        before = "".join(self._shown) + text[: found.start()]
        outside = _PAIRED_CODE.sub("", before)
        line = outside.rpartition("\n")[2]
        is_word = (
            "`" in outside  # in code
            or _REASONING_START.search(before) is not None  # it closes what was named there
            or (line.strip() and line[-1:] in "\"'“„«‘([{")
            or (line.strip() and line[-1:] in " \t" and "\n" not in found[0])
            or text[found.end() :][:1] in "`\"'”“»’.,;:!?)]}"
        )
        return not is_word


def _end_pattern_for(start_match: "re.Match[str]") -> "re.Pattern[str]":
    if start_match[1]:
        return re.compile(rf"[<◁]\s{{0,8}}/\s{{0,8}}{start_match[1]}\s{{0,8}}[>▷]", re.IGNORECASE)
    return re.compile(rf"\[/{start_match[2]}\]" if start_match[2] else _FINAL_CHANNEL)
