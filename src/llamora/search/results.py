"""Turn matches into results: records opened again, with snippets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from llamora.errors import Notice
from llamora.persistence.local_db import LocalDB
from llamora.persistence.table import Sealed
from llamora.search.chunks import chunk_text
from llamora.search.query import Query
from llamora.search.ranking import Match
from llamora.search.snippets import excerpt, split_marked
from llamora.search.state import UserIndexState, is_searchable
from llamora.search.vectors import NOT_COMPARED
from llamora.text import Role, strip_markdown


@dataclass(slots=True, frozen=True)
class Hit:
    """Hold a result. `snippet` is plain text in pieces: (text, is_match).

    `cosine` is that of the query and the entry, `passage` the number of its nearest passage as
    chunks.chunk_text cuts it; NOT_COMPARED and -1 where vectors were not compared.
    """

    entry_id: bytes
    day: date
    at: datetime
    zone: str
    role: Role
    snippet: tuple[tuple[str, bool], ...]
    score: float
    cosine: float = NOT_COMPARED
    passage: int = -1


@dataclass(slots=True, frozen=True)
class SearchResults:
    """Hold one page of results, best first, and the number of all of them.

    `is_complete`: every entry is indexed by now. `is_semantic`: vectors were compared too.
    `hints` say what was not understood. `query` is what was searched.
    """

    hits: tuple[Hit, ...]
    total: int
    is_complete: bool
    hints: tuple[Notice, ...]
    is_semantic: bool
    query: Query = field(repr=False)


def build_hits(
    db: LocalDB,
    state: UserIndexState,
    query: Query,
    page: Sequence[Match],
    rows: Sequence[Sealed],
) -> tuple[Hit, ...]:
    """Return the results for matches and their sealed rows, on the index's thread.

    A match is left out when its record does not open or is no longer searchable.
    """
    opened = db.entries.open_sealed(state.keys, rows)
    entries = {entry.id: entry for entry in opened if is_searchable(entry)}
    matches = [match for match in page if match.entry_id in entries]
    texts = [strip_markdown(entries[match.entry_id].text) for match in matches]
    snippets = state.index.build_snippets(query, texts)
    hits: list[Hit] = []
    for match, text, marked in zip(matches, texts, snippets, strict=True):
        entry = entries[match.entry_id]
        snippet = split_marked(marked or excerpt(_nearest_passage(text, match.passage)))
        position = (entry.id, entry.day, entry.at, entry.zone)
        hits.append(Hit(*position, entry.role, snippet, match.score, match.cosine, match.passage))
    return tuple(hits)


def _nearest_passage(text: str, number: int) -> str:
    passages = chunk_text(text)
    return passages[number] if 0 <= number < len(passages) else text
