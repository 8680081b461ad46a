"""Cut text into passages to embed. Pure."""

import re

CHUNKING_VERSION = 1  # raise when the way text is cut changes: entries are embedded again
CHUNK_WORDS = 60  # measured on long dated conversations: shorter and longer passages find less
OVERLAP_WORDS = 15
CHUNK_CHARS = 1200  # a passage of a script without spaces is one "word", and cut all the same

# Sentences end by marks of scripts with and without spaces, or with the line.
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


def chunk_text(text: str) -> list[str]:
    """Return a text as overlapping passages of whole sentences, about CHUNK_WORDS words each.

    A longer sentence is cut between words. Every word is in at least one passage; text without a
    visible character has no passage.
    """
    pieces: list[list[str]] = []
    for sentence in _SENTENCE_END.split(text):
        words = [
            word[start : start + CHUNK_CHARS]
            for word in sentence.split()
            for start in range(0, len(word), CHUNK_CHARS)
        ]
        pieces += [
            words[start : start + CHUNK_WORDS] for start in range(0, len(words), CHUNK_WORDS)
        ]
    passages: list[str] = []
    passage: list[list[str]] = []
    for piece in pieces:
        if passage and (
            sum(map(len, passage)) + len(piece) > CHUNK_WORDS
            or _count_chars(passage) + _count_chars([piece]) > CHUNK_CHARS
        ):
            passages.append(_join_words(passage))
            passage = _take_overlap(passage)
            if _count_chars(passage) + _count_chars([piece]) > CHUNK_CHARS:
                passage = []
        passage.append(piece)
    if passage:
        passages.append(_join_words(passage))
    return passages


def _count_chars(pieces: list[list[str]]) -> int:
    return sum(len(word) + 1 for piece in pieces for word in piece)


def _join_words(pieces: list[list[str]]) -> str:
    return " ".join(word for piece in pieces for word in piece)


def _take_overlap(pieces: list[list[str]]) -> list[list[str]]:
    overlap: list[list[str]] = []
    for piece in reversed(pieces):
        if sum(map(len, overlap)) + len(piece) > OVERLAP_WORDS:
            break
        overlap.insert(0, piece)
    return overlap
