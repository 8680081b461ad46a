"""What a reply may draw on from the whole journal: the passages that bear on what is asked, or none."""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import date
from itertools import zip_longest
from typing import NamedTuple

from llamora.journal.tags import Traces
from llamora.persistence.entries import UsedPassage
from llamora.persistence.local_db import LocalDB
from llamora.search.embedder import chunk_text
from llamora.search.rank import STOP_WORDS, normalize, strip_markdown, term_literals, tokenize
from llamora.search.service import SearchService
from llamora.search.vectors import NOT_COMPARED
from llamora.vault.keys import Keyring

PASSAGES = 6
TRACED = 2  # of them at most those that a trace brings
LOOKED_AT = 24  # entries that share a trace, of which some may be kept from the model
QUESTION_CHARACTERS = 600
WHOLE_WORDS = 150  # an entry up to this long is quoted whole
AROUND = 1  # passages before and after the nearest one that are quoted with it
# What bears on a question: measured on two conversations of LoCoMo, where these keep 97 % of the questions that a
# journal answers with something to draw on, and leave 81 % of those about somebody else's life with nothing.
NEAR = 0.4  # cosine
NEAR_WITH_WORDS = (0.25, 0.5)  # cosine, and share of the question's words
WORDS_ALONE = (0.5, 4)  # where meaning is not compared: share of the words, or so many

# Words of asking and remembering: "have I really never written about it before" is about it.
_ASKING = frozenset(
    "again already always anything before ever happened last mention mentioned much never often once really remember "
    "said say something tell think thought told too very wrote write written yet".split()
)
_ENDING = re.compile(r"(?<=\w{3})(?:'s|’s|ies|ing|ed|es|s|e|y)$")


class Drawn(NamedTuple):
    """A passage, and the revision at which its entry might be read by the model."""

    used: UsedPassage
    revision: int


async def related(
    search: SearchService,
    db: LocalDB,
    keys: Keyring,
    text: str,
    today: date,
    here: AbstractSet[bytes],
) -> list[Drawn]:
    """What the writer wrote before that bears on `text`, best first, numbered from 1; nothing where nothing does.

    Entries of `here`, deleted ones and those kept from the model are left out. Raises StorageError.
    """
    question = text[:QUESTION_CHARACTERS]
    hits = await search.find_passages(
        keys, question, today=today, excluded_ids=here, limit=2 * PASSAGES, wait_for_build=True
    )
    asked = content_words(question)
    entries = {entry.id: entry for entry in await db.entries.get_many(keys, [hit.entry_id for hit in hits])}
    found: list[Drawn] = []
    for hit in hits:
        entry = entries.get(hit.entry_id)
        if entry is None or entry.role != "me" or entry.state == "unreadable" or len(found) == PASSAGES:
            continue
        if entry.withheld or entry.deleted is not None:
            continue
        passage = excerpt(entry.text, hit.passage, asked)
        if bears(hit.cosine, asked, passage):
            used = UsedPassage(len(found) + 1, entry.id, entry.day, passage, round(hit.score, 4))
            found.append(Drawn(used, entry.revision))
    return found


async def recalled(
    traces: Traces,
    db: LocalDB,
    keys: Keyring,
    asked: Sequence[bytes],
    text: str,
    day: date,
    here: AbstractSet[bytes],
    found: Sequence[Drawn],
) -> list[Drawn]:
    """What search `found`, and between it what the traces of the `asked` entries bring from days before `day`.

    Those with the most traces in common come first, of them the newest. Entries of `here`, deleted ones and those kept
    from the model are left out. Raises StorageError.
    """
    away = here | {drawn.used.entry_id for drawn in found}
    sharing = [each for each in await traces.sharing(keys, asked) if each[2] < day and each[0] not in away][:LOOKED_AT]
    entries = {entry.id: entry for entry in await db.entries.get_many(keys, [each[0] for each in sharing])}
    words = content_words(text[:QUESTION_CHARACTERS])
    brought: list[Drawn] = []
    for entry_id, count, _ in sharing:
        entry = entries.get(entry_id)
        if entry is None or entry.role != "me" or entry.withheld or entry.deleted is not None or len(brought) == TRACED:
            continue
        passage = excerpt(entry.text, -1, words)
        brought.append(Drawn(UsedPassage(0, entry.id, entry.day, passage, float(count), from_tag=True), entry.revision))
    mixed = [drawn for pair in zip_longest(found, brought) for drawn in pair if drawn is not None][:PASSAGES]
    return [drawn._replace(passage=replace(drawn.used, number=number)) for number, drawn in enumerate(mixed, 1)]


def bears(likeness: float, asked: AbstractSet[str], passage: str) -> bool:
    """Whether a passage bears on a question of these words; `likeness` is their cosine, UNKNOWN where there is none."""
    shared = len(asked & content_words(passage))
    share = shared / len(asked) if asked else 0.0
    if likeness == NOT_COMPARED:
        return share >= WORDS_ALONE[0] or shared >= WORDS_ALONE[1]
    return likeness >= NEAR or (likeness >= NEAR_WITH_WORDS[0] and share >= NEAR_WITH_WORDS[1])


def excerpt(text: str, passage: int, asked: AbstractSet[str]) -> str:
    """A text, or of a long one the passage that is nearest and what stands around it.

    `passage` is its number as `chunks` counts; -1 when meaning was not compared: then the one with most of the
    words `asked` is taken.
    """
    if len(text.split()) <= WHOLE_WORDS and len(text) <= WHOLE_WORDS * 12:
        return text.strip()
    parts = chunk_text(strip_markdown(text))
    if not 0 <= passage < len(parts):
        passage = max(range(len(parts)), key=lambda n: len(asked & content_words(parts[n])), default=0)
    return _joined(parts[max(0, passage - AROUND) : passage + AROUND + 1])


def content_words(text: str) -> set[str]:
    """The words of a text that say what it is about, without their endings."""
    words = [word.lower() for word in tokenize(normalize(text)) if word.lower() not in STOP_WORDS | _ASKING]
    return {_ENDING.sub("", term.strip('"')) for word in words for term in term_literals(word)}


def _joined(parts: list[str]) -> str:
    """Passages that overlap, as one text."""
    text = parts[0] if parts else ""
    for part in parts[1:]:
        same = next((n for n in range(min(len(part), len(text)), 0, -1) if text.endswith(part[:n])), 0)
        text += part[same:] if same else " " + part
    return text
