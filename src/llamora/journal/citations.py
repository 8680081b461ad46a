"""Find citations `[n]` in text from a model, and redact erased entries from replies.

Nothing is removed from a reply for being untrue: `[n]` becomes a link if passage n was in the
prompt, and quotations are marked (`quotations`). Only words of erased entries are removed.

Pure functions.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from llamora.journal.quotations import CODE, WORD, holds, plain, quotations
from llamora.persistence.entries import Entry

ERASED: Final = "[…]"
QUOTED_WORDS: Final = 4  # a quotation this long is recognized
COPIED_WORDS: Final = 8  # and so is an unmarked run this long

_CITATION: Final = re.compile(
    rf"{CODE}|\[(?P<number>\d{{1,6}})\]", re.MULTILINE
)  # code has no citations
_CITED_SENTENCE: Final = re.compile(  # numbers may follow the stop
    r"[.!?…][\"”’»)]*(?:[ \t]*\[\d{1,6}\])*+(?:\s++(?!\[\d)|\Z)"
    r"|[。！？][\"”’」』）]*(?:\s*\[\d{1,6}\])*+"
)
_WHOLE: Final = re.compile(r"(?:[.!?…。！？][\"”’»)」』）]*|\[\d{1,6}\])\Z")
_MONTHS: Final = (
    r"(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember)\b"
)
_GOES_ON: Final = re.compile(  # a stop in mid-sentence, and what follows
    r"(?<!\w)(?:Mr|Mrs|Ms|Dr|St|Prof|[A-HJ-Z])\.\s+(?P<at>)"
    rf"|\b\d{{1,2}}\.\s+(?P<day>){_MONTHS}"
    r"|[!?…][\"”’»]\s+(?P<low>)[a-zà-þ]"
)
_LISTED: Final = re.compile(rf"^\s*(?:[-*+]|\d{{1,2}}[.)](?!\s+{_MONTHS})|#+)\s+")


def cited(text: str) -> list[int]:
    """Return the distinct passage numbers that a text cites, in order."""
    return list(
        dict.fromkeys(int(found["number"]) for found in _CITATION.finditer(text) if found["number"])
    )


def strip_references(text: str, numbers: Collection[int]) -> str:
    """Return a text without its citations of these numbers."""
    gone = set(numbers)
    return _CITATION.sub(lambda found: "" if int(found["number"] or -1) in gone else found[0], text)


def redact_erased(reply: Entry, gone: Collection[bytes], texts: Iterable[str]) -> Entry | None:
    """Return a reply without citations of the entries `gone` and without the words of `texts`.

    Words of its passages from these entries are removed too. Returns None if nothing changes.
    """
    if reply.role != "reply":
        return None
    passages = reply.receipt.passages if reply.receipt else ()
    lost = [used for used in passages if used.entry_id in gone]
    text = strip_references(reply.text, [used.number for used in lost])
    text = strike(text, [*texts, *(used.text for used in lost)])
    receipt = reply.receipt
    if receipt is not None:
        left = tuple(used for used in passages if used.entry_id not in gone)
        receipt = replace(
            receipt, passages=left, quoted=tuple(words for words in receipt.quoted if words in text)
        )
    changed = replace(
        reply,
        text=text,
        sources=tuple(source for source in reply.sources if source not in gone),
        also_answers=tuple(other for other in reply.also_answers if other not in gone),
        receipt=receipt,
    )
    return changed if changed != reply else None


def strike(text: str, erased: Iterable[str]) -> str:
    """Return a text with quotations and longer runs of words of `erased` replaced by ERASED."""
    sources = [(plain(each), _joined(WORD.findall(each))) for each in erased]
    words = list(WORD.finditer(text))
    spans = [
        (quoted.start, quoted.end)
        for quoted in quotations(text, anyone=True)
        if len(WORD.findall(inner := text[quoted.start : quoted.end])) >= QUOTED_WORDS
        and any(holds(source, inner) for source, _ in sources)
    ]
    for at in range(len(words) - COPIED_WORDS + 1):
        run = words[at : at + COPIED_WORDS]
        if any(_joined([word[0] for word in run]) in source for _, source in sources):
            spans.append((run[0].start(), run[-1].end()))
    parts: list[str] = []
    reach = 0
    for start, end in _merged(spans):
        parts += [text[reach:start], ERASED]
        reach = end
    return "".join([*parts, text[reach:]])


def cited_sentences(text: str, numbers: Collection[int]) -> str:
    """Return the complete sentences of a text that cite one of these passages, joined by spaces.

    Returns "" if there are none.
    """
    sentences: list[str] = []
    for line in (_LISTED.sub("", line).strip() for line in text.splitlines()):
        at = 0
        for end in [*_sentence_ends(line), len(line)]:
            sentence = line[at:end].strip()
            at = end
            says = WORD.search(_CITATION.sub("", sentence)) is not None
            if says and _WHOLE.search(sentence) and not set(numbers).isdisjoint(cited(sentence)):
                sentences.append(sentence)
    return " ".join(sentences)


def whole_sentences(text: str) -> str:
    """Return a truncated text without its incomplete last sentence.

    Returns "" if that is all there is.
    """
    ends = _sentence_ends(text)
    return text[: ends[-1]].strip() if ends else ""


def _sentence_ends(text: str) -> list[int]:
    """Return the offsets at which sentences end; stops inside quotations do not count."""
    goes_on = {
        place for found in _GOES_ON.finditer(text) for place in map(found.end, ("at", "day", "low"))
    }
    quoted = [(each.start, each.end) for each in quotations(text)]
    ends = [found.end() for found in _CITED_SENTENCE.finditer(text)]
    return [end for end in ends if end not in goes_on and not any(a < end <= b for a, b in quoted)]


def _joined(words: Iterable[str]) -> str:
    return f" {' '.join(words).lower().replace('’', chr(39))} "


def _merged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    reach: tuple[int, int] | None = None
    for start, end in sorted(spans):
        if reach is None or start > reach[1]:
            if reach is not None:
                yield reach
            reach = (start, end)
        else:
            reach = (reach[0], max(reach[1], end))
    if reach is not None:
        yield reach
