"""What a model thinks aloud, taken out of what it says.

Most servers send thoughts apart (`reasoning_content`, or `reasoning`), and then nothing is to be done. Others leave
them in the text: between marks, or, where the chat template writes the opening mark into the prompt (DeepSeek R1,
Qwen3 Thinking, GLM 4.7, MiniMax M2), with a closing mark alone. vLLM without a reasoning parser, LM Studio with some
models and llama.cpp with a template it does not know do that.
"""

import re
from typing import Final

_THINKS: Final = "think|thinking|thoughts?|reasoning|reflection|scratchpad"
# Templates write <think>, [THINK] (Mistral), ◁think▷ (Kimi), and gpt-oss (Harmony) names a channel per message.
_FINAL: Final = r"<\|channel\|>\s*final[^<]{0,80}<\|message\|>"
THOUGHTS_END: Final = re.compile(
    rf"(?:[<◁]\s{{0,8}}/\s{{0,8}}(?:{_THINKS})\s{{0,8}}[>▷]|\[/(?-i:THINK|THINKING)\]|{_FINAL})\s*", re.IGNORECASE
)
_THOUGHTS_BEGIN: Final = re.compile(
    rf"[<◁]\s{{0,8}}({_THINKS})\s{{0,8}}[>▷]|\[((?-i:THINK|THINKING))\]"
    r"|<\|channel\|>\s*(?:analysis|commentary)[^<]{0,80}<\|message\|>",
    re.IGNORECASE,
)
# What a chat template puts between turns, where a server lets it through. `</s>` is such a mark at the end alone: in
# words it may be an element of HTML.
_CONTROL: Final = re.compile(
    r"<\|(?:start|im_start)\|>(?:assistant|model|user)?\n*|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>\s*"
    r"|<start_of_turn>(?:model)?\n*|<\|(?:end|return|im_end|eot_id|eom_id|end_of_text|endoftext|end_header_id)\|>"
    r"|<\|start_header_id\|>|<end_of_turn>|(?:\s{0,8}</s>)+\s{0,8}\Z"
)
_UNFINISHED: Final = re.compile(  # what the next piece may make a mark of
    r"(?:[<◁]\s{0,8}/?\s{0,8}[a-z]{0,10}\s{0,8}|\[/?(?-i:[A-Z]{0,8})|<\|[a-z_]{0,15}\|?|<\|(?:im_)?start\|>[a-z]{0,8}"
    r"|<\|start_header_id\|>[\sa-z]{0,12}(?:<\|?[a-z_]{0,13}\|?)?|<(?:start|end)(?:_[a-z_]{0,10})?|<start_of_turn>[a-z]{0,4}"
    r"|(?:\s{0,8}</s>)+\s{0,8}(?:<(?:/s?)?)?"
    r"|<\|channel\|>[^<]{0,90}(?:<(?:\|[a-z]{0,10}\|?)?)?)\Z",
    re.IGNORECASE,
)
_LONGEST_MARK: Final = 128  # characters
_OPENED: Final = re.compile(rf"(?:{_THOUGHTS_BEGIN.pattern})\s*\Z", re.IGNORECASE)


def opens_thought(prompt: str) -> bool:
    """Whether a prompt, as a chat template made it, ends inside a thought."""
    return _OPENED.search(prompt[-_LONGEST_MARK:]) is not None


def marks_thought(template: str) -> bool:
    """Whether a chat template writes marks that open thoughts, anywhere."""
    return _THOUGHTS_BEGIN.search(template) is not None


class Thoughts:
    """Takes thoughts out of a stream of text; a mark that came in two pieces is seen all the same.

    `opened`: the prompt ended inside a thought, so that nothing is said before the mark that closes it. Where that
    was not known, a closing mark alone is passed on in one piece, and all before it was thought; `closed_alone` tells.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._held = ""
        self._end: re.Pattern[str] | None = None  # of the thought that is open
        self._opened = opened
        self._before: list[str] = []  # what came while it is open, should it never close
        self.closed_alone = False

    @property
    def open(self) -> bool:
        """Whether what comes now is thought."""
        return self._opened or self._end is not None

    @property
    def unclosed(self) -> bool:
        """Whether all that came so far may be the thought that the prompt opened."""
        return self._opened

    def feed(self, piece: str) -> str:
        """The next piece of the stream; what of it may be shown."""
        if self._opened:
            text = self._held + piece
            ends = THOUGHTS_END.search(text)
            if not ends:
                self._before.append(piece)
                self._held = text[-_LONGEST_MARK:]
                return ""
            self._close()
            piece, self.closed_alone = text[ends.end() :], True
        return self._outside(piece)

    def apart(self) -> str:
        """The server sends thoughts apart from what is said: what was held back of that may be shown."""
        return self._outside(self._close()) if self._opened else ""

    def end(self, *, whole: bool) -> str:
        """No more comes. `whole`: the model ended by itself, so what it never marked as thought was its answer."""
        if self._opened:
            text = self._close()
            return self._outside(text) + self.end(whole=whole) if whole else ""
        held, self._held = self._held, ""
        return "" if self._end is not None else _CONTROL.sub("", held)

    def _close(self) -> str:
        text = "".join(self._before)
        self._held, self._opened = "", False
        self._before.clear()
        return text

    def _outside(self, piece: str) -> str:
        text, said = self._held + piece, ""
        self._held = ""
        while text:
            if self._end is not None:
                ends = self._end.search(text)
                if not ends:
                    self._held = text[-_LONGEST_MARK:]
                    break
                text, self._end = text[ends.end() :], None
            elif begins := _THOUGHTS_BEGIN.search(text):
                said += text[: begins.start()]
                text, self._end = text[begins.end() :], _end_of(begins)
            else:
                if unfinished := _UNFINISHED.search(text):
                    text, self._held = text[: unfinished.start()], unfinished[0]
                said += text
                break
        self.closed_alone = self.closed_alone or THOUGHTS_END.search(said) is not None
        return _CONTROL.sub("", said)


def _end_of(begins: "re.Match[str]") -> "re.Pattern[str]":
    if begins[1]:
        return re.compile(rf"[<◁]\s{{0,8}}/\s{{0,8}}{begins[1]}\s{{0,8}}[>▷]", re.IGNORECASE)
    return re.compile(rf"\[/{begins[2]}\]" if begins[2] else _FINAL)
