"""Retrieve the passages of the whole journal that are relevant to a question, if any."""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from itertools import zip_longest
from typing import NamedTuple

from msgspec.structs import replace

from llamora.journal.reading import find_readable
from llamora.journal.tags import Tags
from llamora.persistence.entries import UsedPassage
from llamora.persistence.local_db import LocalDB
from llamora.search.chunks import chunk_text
from llamora.search.service import SearchService
from llamora.search.tokens import term_literals, tokenize
from llamora.search.vectors import NOT_COMPARED
from llamora.text import QUESTION_WORDS, STOP_WORDS, normalize, strip_markdown
from llamora.vault.keys import Keyring

MAX_PASSAGES = 6
MAX_TAG_PASSAGES = 2  # of these, those found by tag
MAX_TAG_CANDIDATES = 24  # more than needed, as some may be withheld from the model
MAX_QUESTION_CHARACTERS = 600
MAX_WHOLE_WORDS = 150  # longer entries are excerpted
NEIGHBOR_PASSAGES = 1  # on each side of the nearest passage
# Relevance thresholds, measured on two conversations of LoCoMo: with these, 97 % of the questions
# that a journal answers find a passage, and 81 % of those about somebody else's life find none.
MIN_COSINE = 0.4
MIN_COSINE_AND_WORD_SHARE = (0.25, 0.5)  # and the share of the question's words, 0 to 1
MIN_WORD_SHARE_OR_COUNT = (0.5, 4)  # without vectors: share of the words, or their number

_SUFFIX = re.compile(r"(?<=\w{3})(?:'s|’s|ies|ing|ed|es|s|e|y)$")


class Candidate(NamedTuple):
    """A passage, and the revision at which the model was allowed to read its entry."""

    passage: UsedPassage
    revision: int


async def from_search(
    search: SearchService,
    db: LocalDB,
    keys: Keyring,
    text: str,
    today: date,
    same_page_ids: AbstractSet[bytes],
) -> list[Candidate]:
    """Return the passages relevant to `text`, best first and numbered from 1.

    They come from entries that the user wrote and the model may read, except `same_page_ids`.
    Only the first MAX_QUESTION_CHARACTERS of `text` are used. Raises StorageError.
    """
    question = text[:MAX_QUESTION_CHARACTERS]
    hits = await search.find_passages(
        keys,
        question,
        today=today,
        excluded_ids=same_page_ids,
        limit=2 * MAX_PASSAGES,
        wait_for_build=True,
    )
    question_words = content_words(question)
    entries = await find_readable(db, keys, [hit.entry_id for hit in hits])
    candidates: list[Candidate] = []
    for hit in hits:
        entry = entries.get(hit.entry_id)
        if entry is None or len(candidates) == MAX_PASSAGES:
            continue
        passage = excerpt(entry.text, hit.passage, question_words)
        if is_relevant(hit.cosine, question_words, passage):
            source = UsedPassage(
                len(candidates) + 1, entry.id, entry.day, passage, round(hit.score, 4)
            )
            candidates.append(Candidate(source, entry.revision))
    return candidates


async def from_tags(
    tags: Tags,
    db: LocalDB,
    keys: Keyring,
    answered_ids: Sequence[bytes],
    text: str,
    day: date,
    same_page_ids: AbstractSet[bytes],
    searched: Sequence[Candidate],
) -> list[Candidate]:
    """Interleave the `searched` passages with those of entries that share tags with `answered_ids`.

    The latter come from days before `day`, those with the most tags in common first, then the
    newest. Entries in `same_page_ids` and those that the model may not read are left out. Returns
    MAX_PASSAGES at most, numbered from 1. Raises StorageError.
    """
    excluded_ids = same_page_ids | {candidate.passage.entry_id for candidate in searched}
    sharing_entries = [
        shared
        for shared in await tags.entries_sharing_tags(keys, answered_ids)
        if shared[2] < day and shared[0] not in excluded_ids
    ][:MAX_TAG_CANDIDATES]
    entries = await find_readable(db, keys, [shared[0] for shared in sharing_entries])
    question_words = content_words(text[:MAX_QUESTION_CHARACTERS])
    tagged: list[Candidate] = []
    for entry_id, shared_count, _ in sharing_entries:
        entry = entries.get(entry_id)
        if entry is None or len(tagged) == MAX_TAG_PASSAGES:
            continue
        text = excerpt(entry.text, -1, question_words)
        passage = UsedPassage(0, entry.id, entry.day, text, float(shared_count), from_tag=True)
        tagged.append(Candidate(passage, entry.revision))
    merged = [each for pair in zip_longest(searched, tagged) for each in pair if each is not None]
    return [
        candidate._replace(passage=replace(candidate.passage, number=number))
        for number, candidate in enumerate(merged[:MAX_PASSAGES], 1)
    ]


def is_relevant(cosine: float, question_words: AbstractSet[str], passage: str) -> bool:
    """Return True if a passage is relevant to a question of these words.

    `cosine` is their similarity, NOT_COMPARED if there are no vectors.
    """
    shared_count = len(question_words & content_words(passage))
    shared_fraction = shared_count / len(question_words) if question_words else 0.0
    if cosine == NOT_COMPARED:
        return (
            shared_fraction >= MIN_WORD_SHARE_OR_COUNT[0]
            or shared_count >= MIN_WORD_SHARE_OR_COUNT[1]
        )
    return cosine >= MIN_COSINE or (
        cosine >= MIN_COSINE_AND_WORD_SHARE[0] and shared_fraction >= MIN_COSINE_AND_WORD_SHARE[1]
    )


def excerpt(text: str, passage_index: int, question_words: AbstractSet[str]) -> str:
    """Return a short text as a whole, or the nearest passage of a long one with its neighbours.

    `passage_index` counts as `chunk_text` does; with -1, when meaning was not compared, the passage
    with the most of `question_words` is taken.
    """
    if len(text.split()) <= MAX_WHOLE_WORDS and len(text) <= MAX_WHOLE_WORDS * 12:
        return text.strip()
    parts = chunk_text(strip_markdown(text))
    if not 0 <= passage_index < len(parts):
        passage_index = max(
            range(len(parts)),
            key=lambda n: len(question_words & content_words(parts[n])),
            default=0,
        )
    return _join_overlapping(
        parts[max(0, passage_index - NEIGHBOR_PASSAGES) : passage_index + NEIGHBOR_PASSAGES + 1]
    )


def content_words(text: str) -> set[str]:
    """Return the words of a text that carry its meaning, without their endings."""
    words = [
        word.lower()
        for word in tokenize(normalize(text))
        if word.lower() not in STOP_WORDS | QUESTION_WORDS
    ]
    return {_SUFFIX.sub("", term.strip('"')) for word in words for term in term_literals(word)}


def _join_overlapping(parts: list[str]) -> str:
    text = parts[0] if parts else ""
    for part in parts[1:]:
        overlap = next(
            (n for n in range(min(len(part), len(text)), 0, -1) if text.endswith(part[:n])), 0
        )
        text += part[overlap:] if overlap else " " + part
    return text
