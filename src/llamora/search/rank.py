"""Queries in, plain decisions out: parsing, fusion of scores, snippets. Pure."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from llamora.clock import DateRange, UnknownDay, day_in_words, parse_day, parse_phrase
from llamora.text import normal_form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

Role = Literal["me", "reply"]

MAX_QUERY = 2000  # letters; a longer question is cut, with a hint
MAX_TERMS = 64  # words and phrases; every one costs a look into the index
LOOKUP_WORDS = 2  # so few words are a look-up rather than a question: the words themselves count more
LOOKUP_WEIGHT = 0.75
EXACT = 0.5  # what an entry gains that holds the words of a look-up as they are written, not another form of them
QUESTION_WORDS = 5  # with so many words beside it, a quotation is part of a question: it is wanted, not demanded
QUOTED = 0.2  # what an entry gains that holds such a quotation
WHOLE_PHRASE = 1.0  # what an entry gains that holds the whole question word for word: it comes first
IN_TIME = 0.2  # what an entry gains that stands on the days a question speaks of
DENSE_FLOOR = 0.2  # cosine; what shares no word and is further off than this is no result

START, STOP, JOINT = "\x01", "\x02", "\x1f"  # marks of a match, and what parts letters of a script without spaces
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# English function words and question words, and what an apostrophe leaves behind: they say how a question is asked,
# not what it is about. A question of nothing else is searched as it stands.
STOP_WORDS = frozenset(
    "a about am an and any are as at be been being but by can could d did do does doing for from had has have having "
    "he her hers him his how i if in into is it its ll m me mine my of on or our ours re s shall she should so some t "
    "than that the their theirs them then there these they this those to us ve was we were what when where which who "
    "whom whose why will with would you your yours".split()
)

# Letters of scripts written without spaces, and Hangul, whose words take endings: each is a token of its own, and
# two in a row are what a word is found by (as in Lucene's CJKAnalyzer).
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and Han
    "\uac00-\ud7af"  # Hangul
    "\U00020000-\U0003ffff"
)
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")

TYPED = re.compile(r"\w{3}$")  # fewer letters begin too many words
_PIECE = re.compile(r'(?P<minus>-)?(?:(?P<key>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"]+))')


@dataclass(slots=True, frozen=True)
class Query:
    """What a search asks for. Words and phrases are normalised text without operators.

    `words` score; one that ends in `*` is a prefix. `phrases` must all be there, `excluded` none; `quoted` are phrases
    inside a longer question, whose words score. `tags` are names of traces, all of which an entry must bear. `after`
    and `before` are the first and last day wanted. `when` are days the question only speaks of. `meaning` is the text
    for the embedding model, "" when there is nothing to compare. `hint` is a sentence, or "".
    """

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    role: Role | None = None
    after: date | None = None
    before: date | None = None
    when: DateRange | None = None
    meaning: str = ""
    whole: str = ""
    hint: str = ""

    @property
    def filtered(self) -> bool:
        """Whether some entries are ruled out, whatever their score."""
        return bool(self.phrases or self.excluded or self.tags or self.role or self.after or self.before)

    @property
    def terms(self) -> tuple[str, ...]:
        """All that a matching entry may be marked with."""
        return self.words + self.phrases


def normalised(text: str) -> str:
    """Text as it is indexed and searched: NFC, without control characters or lone surrogates."""
    clean = text.encode("utf-8", "replace").decode()
    return normal_form("NFC", _CONTROL.sub(" ", clean))


def spaced(text: str) -> str:
    """Part the letters of scripts without spaces by JOINT, which the tokenizer takes for a space."""
    return _UNSPACED_LETTER.sub(lambda letter: f"{JOINT}{letter[0]}{JOINT}", text)


def tokens(text: str) -> list[str]:
    """The words of a text as the index would cut them, case kept."""
    kept = "".join(letter if _is_letter(letter) else " " for letter in text)
    return kept.split()


def _is_letter(letter: str) -> bool:
    # The categories of the tokenizer in index.py: letters, numbers, private use, and marks that belong to a letter.
    return letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc", "Nl", "No", "Co")


def match_terms(word: str) -> list[str]:
    """The FTS5 string literals that find `word`: itself, or each pair of letters of a script without spaces."""
    prefix = word.endswith("*")
    found: list[str] = []
    for part in tokens(word):
        runs = _UNSPACED_RUN.findall(part)
        rest = _UNSPACED_RUN.sub(" ", part).split()
        for run in runs:
            letters = tokens(spaced(run))
            pairs = [" ".join(pair) for pair in pairwise(letters)]
            found += [f'"{pair}"' for pair in pairs or letters]
        found += [f'"{piece}"' for piece in rest]
    if prefix and found and not _UNSPACED_LETTER.search(word):
        found[-1] += "*"
    return found


def match_phrase(phrase: str) -> str:
    """The FTS5 string literal that finds `phrase` word by word, or ""."""
    return '"' + " ".join(tokens(spaced(phrase))) + '"' if tokens(phrase) else ""


def parse_query(text: str, today: date, typing: bool = False) -> Query:
    """Read a query; what is not understood is searched as words, with a hint. Never raises.

    Bare words, `"exact phrase"`, `-word` and `-"phrase"`, `prefix*`, `tag:x`, `by:me` and `by:reply`, `before:`,
    `after:`, `on:` and `in:` with a day or a time in words (`in:2024`, `on:"3 May"`), and times in plain words.
    `before:` and `after:` leave out the time they name. `typing`: the last word is not finished.
    """
    hints: list[str] = []
    clean = re.sub("[“”„«»]", '"', normalised(text)).strip()
    if len(clean) > MAX_QUERY:
        clean = clean[:MAX_QUERY]
        hints.append(f"Only the first {MAX_QUERY} letters were searched.")
    if clean.count('"') % 2:
        place = clean.rindex('"')
        clean = clean[:place] + " " + clean[place + 1 :]
        hints.append("A quotation mark has no partner, so it was left out.")

    bare: list[str] = []
    phrases: list[str] = []
    excluded: list[str] = []
    tags: list[str] = []
    role: Role | None = None
    after: date | None = None
    before: date | None = None
    for piece in _PIECE.finditer(clean):
        minus, key, quoted, plain = piece["minus"], (piece["key"] or "").lower(), piece["quoted"], piece["bare"]
        value = quoted if quoted is not None else plain
        if key == "by" and not minus and value.lower() in ("me", "reply"):
            role = "me" if value.lower() == "me" else "reply"
            continue
        if key == "tag" and not minus and value.strip():
            tags.append(value.strip())
            continue
        if key in ("before", "after", "on", "in") and not minus:
            span = _span(value, today)
            if span is not None:
                first, last = _edges(key, *span)
                after = max(filter(None, (after, first)), default=None)
                before = min(filter(None, (before, last)), default=None)
                continue
            hints.append(f"There is no date after “{key}:”, so it was searched as a word.")
        elif key == "by" and not minus:
            hints.append("“by:” knows “me” and “reply”; it was searched as a word.")
        whole = f"{piece['key']}:{value}" if key else value
        if not tokens(whole):
            continue
        if minus:
            excluded.append(whole)
        elif quoted is not None and not key:
            phrases.append(value)
        else:
            bare.append(whole)
    if typing and bare and clean.endswith(bare[-1]) and TYPED.search(bare[-1]):
        bare[-1] += "*"
    return _assembled(
        bare,
        phrases,
        excluded,
        Query(tags=tuple(dict.fromkeys(tags)), role=role, after=after, before=before),
        hints,
        today,
    )


def chips(text: str, today: date) -> tuple[tuple[str, str], ...]:
    """The parts of a query that rule entries out, as they were written, each with the query without it."""
    clean = re.sub("[“”„«»]", '"', normalised(text)).strip()[:MAX_QUERY]
    if clean.count('"') % 2:
        return ()
    found: list[tuple[str, str]] = []
    for piece in _PIECE.finditer(clean):
        alone = parse_query(piece[0], today)
        # A date in plain words is no operator: on its own it would rule entries out, in a question it does not.
        operator = piece["key"] or piece["minus"] or piece["quoted"] is not None
        if operator and alone.filtered:
            found.append((piece[0], " ".join((clean[: piece.start()] + clean[piece.end() :]).split())))
    return tuple(found)


def said(query: Query) -> str:
    """What a query asks for, in words."""
    parts: list[str] = []
    if query.words:
        parts.append(", ".join(word.removesuffix("*") for word in query.words))
    parts += [f"“{phrase}”" for phrase in query.phrases + query.quoted]
    parts += [f"the trace {tag}" for tag in query.tags]
    if query.role is not None:
        parts.append("by you" if query.role == "me" else "by the model")
    if query.after is not None and query.after == query.before:
        parts.append(f"on {day_in_words(query.after)}")
    else:
        if query.after is not None:
            parts.append(f"from {day_in_words(query.after)}")
        if query.before is not None:
            parts.append(f"until {day_in_words(query.before)}")
    if query.excluded:
        parts.append("without " + ", ".join(query.excluded))
    return "; ".join(parts)


def _assembled(
    bare: list[str], phrases: list[str], excluded: list[str], filters: Query, hints: list[str], today: date
) -> Query:
    question = " ".join(word.rstrip("*") for word in bare)
    after, before = filters.after, filters.before
    when = parse_phrase(question, today)
    if when is not None and not phrases and not _content(tokens(question.replace(when.matched, " ", 1))):
        # Nothing but a time was asked for: then it is the time that is wanted.
        after = max(filter(None, (after, when.start)))
        before = min(filter(None, (before, when.end)))
        when, question, bare = None, "", []
    words = list(dict.fromkeys(_words(bare)))
    words = _content(words) or words
    quoted: list[str] = []
    if phrases and len(_content(words)) >= QUESTION_WORDS:
        quoted, phrases = phrases, []
        words = list(dict.fromkeys([*words, *_content(_words(quoted))]))
    if len(words) + len(phrases) + len(excluded) > MAX_TERMS:
        hints.append(f"Only the first {MAX_TERMS} words were searched.")
    return Query(
        words=tuple(words[:MAX_TERMS]),
        phrases=tuple(phrases[:MAX_TERMS]),
        excluded=tuple(excluded[:MAX_TERMS]),
        quoted=tuple(quoted[:MAX_TERMS]),
        tags=filters.tags,
        role=filters.role,
        after=after,
        before=before,
        when=when,
        meaning=" ".join([question, *phrases, *quoted]).strip(),
        whole=question if not phrases and not quoted and len(_content(tokens(question))) > 1 else "",
        hint=" ".join(dict.fromkeys(hints)),
    )


def plain_query(text: str, today: date) -> Query:
    """The query that asks for the words of a text, whatever signs are in it."""
    words = tokens(normalised(text)[:MAX_QUERY])
    question = " ".join(words)
    asked = list(dict.fromkeys(word.lower() for word in words))
    asked = _content(asked) or asked
    return Query(words=tuple(asked[:MAX_TERMS]), when=parse_phrase(question, today), meaning=question)


def relaxed(query: Query) -> Query:
    """The same query with its phrases as words: for when no entry holds them word for word."""
    words = dict.fromkeys([*query.words, *_content(_words(query.phrases))])
    hint = "No entry holds the quoted words in that order, so they were searched one by one."
    return replace(
        query,
        words=tuple(words)[:MAX_TERMS] or tuple(_words(query.phrases)),
        phrases=(),
        hint=f"{query.hint} {hint}".strip(),
    )


def _words(pieces: Iterable[str]) -> Iterable[str]:
    for piece in pieces:
        found = [word.lower() for word in tokens(piece)]
        if piece.endswith("*") and found and len(found[-1]) > 1:
            found[-1] += "*"
        yield from found


def _content(words: Iterable[str]) -> list[str]:
    return [word for word in words if word.lower() not in STOP_WORDS]


def _span(text: str, today: date) -> tuple[date, date] | None:
    try:
        day = parse_day(text)
        return day, day
    except UnknownDay:
        pass
    for wording in (text, f"in {text}", re.sub(r"[-_./]+", " ", text), "in " + re.sub(r"[-_./]+", " ", text)):
        found = parse_phrase(wording, today)
        # The phrase must be all there is: "in:garden 2024" names no time.
        if found is not None and len(tokens(found.matched)) >= len(tokens(text)):
            return found.start, found.end
    return None


def _edges(key: str, start: date, end: date) -> tuple[date | None, date | None]:
    """The first and last day that `key:` with these days lets through."""
    if key == "before":
        return None, start - timedelta(days=1) if start > date.min else start
    if key == "after":
        return end + timedelta(days=1) if end < date.max else end, None
    return start, end


# --- Scores -------------------------------------------------------------------------------------


def lexical_weight(query: Query, usual: float) -> float:
    """How much words count against meaning: more where a word or two are looked up."""
    return max(usual, LOOKUP_WEIGHT) if len(query.words) <= LOOKUP_WORDS else usual


def fused(lexical: "Scores", dense: "Scores | None", weight: float) -> "Scores":
    """One score of two, 0..1: a sum of the two normalised scores, weighted.

    `lexical` holds BM25 (larger is better, 0 for no match), `dense` cosines, of the same entries. Each is divided by
    the best of its kind; a negative cosine counts as none. Measured against spreading the cosines between the least
    and the best, this is as good on small journals, better on large ones, and the same whether all cosines are known
    or the nearest only.
    """
    import numpy as np

    top = float(lexical.max(initial=0.0))
    words = lexical / top if top > 0 else lexical
    if dense is None:
        return words
    best = float(dense.max(initial=0.0))
    near = np.clip(dense, 0.0, None) / best if best > 0 else np.zeros_like(dense)
    return weight * words + (1.0 - weight) * near


# --- Snippets -----------------------------------------------------------------------------------

_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_LINE_START = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+(?:\[[ xX]\][ \t]+)?|\d{1,9}[.)][ \t]+)", re.MULTILINE
)
_RULE = re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:[ \t]+\"[^\"\n]*\")?\)")
_STRONG = re.compile(r"(\*{1,3}|~~)(?=\S)([^*~\n]+?)(?<=\S)\1")
_UNDERLINED = re.compile(r"(?<!\w)(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_CODE = re.compile(r"`+([^`\n]+)`+")

SNIPPET_LETTERS = 240


def plain(text: str) -> str:
    """The text of simple Markdown without its marks. What is not clearly a mark stays."""
    bare = _RULE.sub("", _FENCE.sub("", normalised(text)))
    bare = _LINE_START.sub("", _LINE_START.sub("", bare))
    bare = _CODE.sub(r"\1", _LINK.sub(r"\1", bare))
    return _UNDERLINED.sub(r"\2", _STRONG.sub(r"\2", bare))


def pieces(marked: str) -> tuple[tuple[str, bool], ...]:
    """Cut text with START and STOP around matches into (text, marked), white space squeezed."""
    squeezed = re.sub(r"\s+", " ", marked.replace(JOINT, "")).strip()
    found: list[tuple[str, bool]] = []
    for number, part in enumerate(squeezed.split(START)):
        inside, stop, outside = part.partition(STOP) if number else ("", "", part)
        if stop and found and found[-1][1] and inside:
            found[-1] = (found[-1][0] + inside, True)  # two marked letters in a row are one mark
        elif inside:
            found.append((inside, True))
        if outside:
            found.append((outside, False))
    return tuple(found)


def opening(text: str) -> str:
    """The first SNIPPET_LETTERS of a passage, cut between words."""
    squeezed = re.sub(r"\s+", " ", text).strip()
    if len(squeezed) <= SNIPPET_LETTERS:
        return squeezed
    cut = squeezed[: SNIPPET_LETTERS + 1].rpartition(" ")[0]
    return (cut if len(cut) > SNIPPET_LETTERS // 2 else squeezed[:SNIPPET_LETTERS]) + "…"
