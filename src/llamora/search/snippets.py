"""Cut passages into what a result shows, with the matches marked. Pure."""

import re

from llamora.search.tokens import TOKEN_SEPARATOR, fold, fold_offsets

MATCH_START, MATCH_STOP = "\x01", "\x02"  # stand around each match in marked text
SNIPPET_CHARS = 240
SEGMENT_CHARS = 3000  # FTS5 makes a snippet of so much text in less than a millisecond
SEGMENT_OVERLAP_CHARS = 300  # so that a phrase across an edge is whole in one of two segments


def split_segments(text: str) -> list[str]:
    """Return a text as overlapping segments."""
    last = max(len(text) - SEGMENT_OVERLAP_CHARS, 1)
    step = SEGMENT_CHARS - SEGMENT_OVERLAP_CHARS
    return [text[start : start + SEGMENT_CHARS] for start in range(0, last, step)]


def unfold_snippet(snippet: str, text: str) -> str:
    """Return a marked snippet of `fold(text)` in the letters of `text`."""
    folded_text = fold(text)
    if folded_text == text:
        return snippet
    unmarked = snippet.replace(MATCH_START, "").replace(MATCH_STOP, "")
    has_lead, has_tail = unmarked.startswith("…"), unmarked.endswith("…")
    # An ellipsis may be FTS5's or the text's own.
    for head, tail in ((0, 0), (has_lead, 0), (0, has_tail), (has_lead, has_tail)):
        start = folded_text.find(unmarked[head : len(unmarked) - tail])
        if start >= 0:
            break
    else:
        return snippet
    offsets = fold_offsets(text)
    parts, position = ["…" * head], start
    for piece in re.split(f"([{MATCH_START}{MATCH_STOP}])", snippet[head : len(snippet) - tail]):
        if piece in (MATCH_START, MATCH_STOP):
            parts.append(piece)
        else:
            parts.append(text[offsets[position] : offsets[position + len(piece)]])
            position += len(piece)
    return "".join(parts) + "…" * tail


def split_marked(marked: str) -> tuple[tuple[str, bool], ...]:
    """Split marked text into (text, is_match), white space squeezed."""
    squeezed = re.sub(r"\s+", " ", marked.replace(TOKEN_SEPARATOR, "")).strip()
    parts: list[tuple[str, bool]] = []
    for index, part in enumerate(squeezed.split(MATCH_START)):
        inside, stop, outside = part.partition(MATCH_STOP) if index else ("", "", part)
        if stop and parts and parts[-1][1] and inside:
            parts[-1] = (parts[-1][0] + inside, True)  # adjacent letters are one match
        elif inside:
            parts.append((inside, True))
        if outside:
            parts.append((outside, False))
    return tuple(parts)


def excerpt(text: str) -> str:
    """Return the first SNIPPET_CHARS of a text, cut between words where it can be."""
    squeezed = re.sub(r"\s+", " ", text).strip()
    if len(squeezed) <= SNIPPET_CHARS:
        return squeezed
    shortened = squeezed[: SNIPPET_CHARS + 1].rpartition(" ")[0]
    return (shortened if len(shortened) > SNIPPET_CHARS // 2 else squeezed[:SNIPPET_CHARS]) + "…"
