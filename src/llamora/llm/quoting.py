"""Quote what was written, so that nothing in it reads as an instruction. Pure."""

import re

_TEMPLATE_MARKS = re.compile(
    r"<(?=[|｜]|/?s>|/?(?:start|end)_of_\w+>|/?think>|\[?(?:bos|eos|sop)|</?SYS>>|/?tool_|seed:|/?SPECIAL_)"
    r"|\[(?=\||/?(?:INST|THINK|IMG|SYSTEM_\w+|TOOL_\w+|AVAILABLE_\w+|gMASK)\])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def quote(text: str) -> str:
    """Return a text with every line marked as quoted, so that none can seem to stand outside."""
    return "\n".join("> " + line for line in text.splitlines())


def unquote(text: str) -> str:
    """Return a quoted text without the marks of its lines."""
    return re.sub(r"^> ", "", text, flags=re.MULTILINE)


def break_template_marks(text: str) -> str:
    """Break the marks that chat templates put between turns: in a journal they are only text."""
    return _TEMPLATE_MARKS.sub(lambda m: m[0] + " ", _UNPRINTABLE.sub(" ", text)).strip()
