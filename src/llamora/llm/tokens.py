"""Count tokens: by the server's tokenizer where it is on this machine, else by an estimate."""

import time
from collections.abc import Sequence
from typing import Final, cast

from llamora.llm.addresses import is_loopback
from llamora.llm.connection import INFO_CACHE_SECONDS, ServerConnection
from llamora.llm.errors import ModelError

MAX_TOKENIZE_CHARS: Final = 200_000  # longer texts will be cut to a fraction, so they are estimated
_SEPARATOR: Final = -1  # no model's token
_NON_LETTERS: Final = bytes(code for code in range(128) if not chr(code).isalpha() and code != 32)


class TokenCounter:
    """Count tokens of texts for one server."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._no_tokenizer_until = 0.0

    @property
    def has_tokenizer(self) -> bool:
        """Return whether the server's tokenizer counts just now; else tokens are estimated.

        A server elsewhere never counts: what is only counted or shown does not leave this machine.
        """
        return time.monotonic() >= self._no_tokenizer_until and is_loopback(
            self._connection.address
        )

    async def count(self, text: str) -> int:
        return (await self.count_many([text]))[0]

    async def count_many(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, estimated where the one request fails."""
        if not texts:
            return []
        if not self.has_tokenizer or sum(map(len, texts)) > MAX_TOKENIZE_CHARS:
            return [estimate_tokens(text) for text in texts]
        try:
            counts = await self._tokenize(texts)
        except ModelError:
            counts = None
        if counts is None:
            self._no_tokenizer_until = time.monotonic() + INFO_CACHE_SECONDS
            return [estimate_tokens(text) for text in texts]
        return counts

    async def _tokenize(self, texts: Sequence[str]) -> list[int] | None:
        # llama.cpp's /tokenize takes texts mixed with token numbers, which are kept.
        content: list[str | int] = []
        for text in texts:
            content += [text, _SEPARATOR]
        response = await self._connection.request_json("POST", "/tokenize", {"content": content})
        tokens = response.get("tokens") if response is not None else None
        if not isinstance(tokens, list):
            return None
        counts = [0]
        for token in cast(list[object], tokens):
            if token == _SEPARATOR:
                counts.append(0)
            else:
                counts[-1] += 1
        return counts[:-1] if len(counts) == len(texts) + 1 else None


def estimate_tokens(text: str) -> int:
    """Return a cautious count without a tokenizer: too high more often than too low.

    Letters and spaces count a third of a token, digits, ASCII punctuation and other characters one,
    and two from U+2E80 on (CJK, emoji), where tokenizers fall back to bytes.
    """
    if text.isascii():
        letters = len(text.encode().translate(None, _NON_LETTERS))
        return -(-letters // 3) + len(text) - letters
    letters = others = wide = 0
    for c in text:
        if c == " " or (c.isascii() and c.isalpha()):
            letters += 1
        elif c >= "\u2e80":
            wide += 1
        else:
            others += 1
    return -(-letters // 3) + others + 2 * wide
