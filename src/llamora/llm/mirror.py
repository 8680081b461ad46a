"""A grammar that lets the small built-in model say only what the writer wrote.

Left to itself a model of 135 million parameters invents: it copies its worked example, adds feelings, turns
people round. So the sentences it may say are made here from the clauses of the text it answers, in the second
person where that is safe and in quotation marks where it is not, and the model chooses among them. What it
says is therefore true, short and complete. It cannot answer a question: it says what earlier days hold about it.

The grammar is GBNF, as llama.cpp reads it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Final, NamedTuple

from llamora.text import language_of

MAX_CLAUSES: Final = 60
WORDS: Final = (4, 20)
"""Fewest and most words of a clause worth saying back."""
MAX_CHARS: Final = 160

# A full stop ends a sentence unless it follows a title or a single initial.
_SENTENCE_END: Final = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\b[A-Z]\.)(?<=[.!?…])[)\s]+"
    r"|(?<=[。！？])|[;:]\s+|\s*\n\s*|\s[–—-]\s|—"
)
_CLAUSE_END: Final = re.compile(
    r",\s+(?=(?:and|but|so|then|where|which|who|when|while|though|because)\b)"
    r"|\s+(?=and (?:I|then|so|there)\b)"
)
_OPENING_WORDS: Final = re.compile(
    r"(?:(?:and|but|so|then|thence|also|or|for|yet|that|which|where|who|when|while|though|because)\b[ ,]*)+",
    re.IGNORECASE,
)
# What the check of quotations reads as a mark, a number or an entity; a trace stays as it is written.
_UNQUOTABLE: Final = re.compile(r"[\"“”„«»\\\[\](){}*_<>|`~¹²³⁰⁴-⁹₀-₉]|['’‘]{2}|&(?:#|\w{2,32}(?:;|\Z))|#(?![^\W\d_])")

# When these occur the change of person would be wrong or unclear, and the clause is quoted instead.
_UNCLEAR: Final = re.compile(
    r"\b(?:we|us|our|ours|you|your|yours|ye|thou|thee)\b|\b(?:am|was|is) I\b"
    r"|\b(?:and|but|or|then|who|also|never|always|often|just|still|only|now)\s+(?:am|was)\b|,\s*(?:am|was)\b"
    r"|\b(?:wasn|ain)['’]?t\b|\b(?:war|part|phase|type|act|chapter|volume|level|class) I\b|(?-i:\b[A-Z]\w+ I\b)"
    r"|\bI (?:hope|think|thought|know|knew|feel|felt|believed?|said) (?:is|was|are|were|has|had|will|would|could)\b"
    r"|‘|(?<!\w)'(?=\w)",
    re.IGNORECASE,
)
# "I" may be somebody else here, or what follows may not have been so: speech, what was pasted, a task, and the rest
# of a sentence after a supposition. A whole clause of it stays in quotation marks.
_NOT_SO: Final = tuple(
    re.compile(each, re.IGNORECASE | re.MULTILINE)
    for each in (
        r"\"[^\"]*\"?",
        r"“[^”]*”?|„[^“”]*[“”]?|[«»][^«»]*[«»]?",
        r"(?:‘|(?<!\w)'(?=\w))[^\n]*",
        r":(?:[ \t]+|[ \t]*\n)[^\n]+",
        r"^[ ]{0,3}(?:```|~~~)(?:[^`~]|[`~](?![`~]))*",
        r"^[ ]{0,3}>[^\n]*(?:\n[ \t]*[^\s][^\n]*)*",
        r"~~[^~]+",
        r"\[[ xX]\][^\n]*",
        (
            r"\b(?:if|unless|whether|wish\w*|dream\w*|imagin\w*|pretend\w*|suppos\w*|as though|said|says?|told|tells?"
            r"|claim\w*|believ\w*|think\w*|thought|hop(?:e|es|ed|ing)|lie|lies|not true)\b[^.!?\n]*"
        ),
    )
)
_FIRST_PERSON: Final = re.compile(r"\bI (?:am|was)\b|\bI['’]m\b|\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b")
# Said back as a statement it would weigh more than it did, and sound like a verdict: it stays the writer's words.
_GRAVE: Final = re.compile(
    r"\b(?:die|died|dying|dead|death|kill\w*|suicid\w*|harm\w*|hurt\w*|hate\w*|worthless|useless|hopeless|failure|nobody"
    r"|alone|end it|give up|stupid|ugly|burden|cut|cutting|rape\w*|abus\w*|assault\w*|beat(?:en|s)?|overdos\w*"
    r"|relaps\w*|disappear\w*|forever|abortion|miscarr\w*|asham\w*|disgust\w*|cheat\w*|starv\w*|purg\w*"
    r"|(?:can['’]t|cannot|can not) (?:go on|stand|bear|take|cope))\b",
    re.IGNORECASE,
)
# What can follow "I" in a sentence that stands by itself; a diary leaves out many a verb ("I to the office").
_VERB: Final = re.compile(
    r"I(?:['’](?:m|ve|d|ll)|\s+(?:\w+ly\s+)?(?:\w{3,}ed|am|was|have|had|did|do|don['’]t|didn['’]t|will|would|can|could"
    r"|can['’]t|couldn['’]t|should|shall|may|might|must|went|came|took|made|gave|got|saw|said|told|thought|felt|found"
    r"|left|met|kept|slept|wrote|read|ate|drank|ran|sat|stood|rode|drove|bought|brought|began|spoke|spent|heard|knew"
    r"|forgot|lost|won|woke|rang|sang|swam|chose|broke|built|caught|fell|grew|held|hope|know|think|feel|like|love|miss"
    r"|need|want|wish|remember|like))\b"
)
_UNFINISHED: Final = re.compile(
    r"(?:^|\s)(?:a|an|the|of|to|for|with|at|from|as|than|and|or|but|my|his|their|very)$", re.IGNORECASE
)
# What may stand after a question mark that ends a text: traces, marks of Markdown, an emoji.
_AFTERTHOUGHT: Final = re.compile(r"(?:#\w[\w/-]*|[^\w?？]|_)+\Z")
# By their beginnings.
_COMMON: Final = frozenset(
    "the and was for but had not you she her his him our out all did has are can with from have what when where after "
    "again were been they them then than there that this about would could shoul too very ever never said just only "
    "some into more most much how who why its one two will might still until befor".split()
)


class _Frames(NamedTuple):
    """The words around what the writer wrote, in the writer's language; `when` is a date."""

    first: str
    second: str
    on: str
    also: str
    yesterday: str
    nothing: str
    months: tuple[str, ...]


_ENGLISH: Final = _Frames(
    "You wrote “{}”.",
    "Then you wrote “{}”.",
    "On {when} you wrote “{}”.",
    "And on {when}: “{}”.",
    "Yesterday you wrote “{}”.",
    "Nothing in your earlier pages bears on that.",
    tuple("January February March April May June July August September October November December".split()),
)
# No two of them have two words before what is quoted in common: four words in a row come once in a reply.
_GERMAN: Final = _Frames(
    "Du hast geschrieben: „{}“.",
    "Und dann: „{}“.",
    "Am {when} stand da: „{}“.",
    "Und am {when}: „{}“.",
    "Gestern stand da: „{}“.",
    "Auf deinen früheren Seiten steht nichts dazu.",
    tuple("Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()),
)
_SECOND_PERSON: Final = {
    "I am": "you are",
    "I was": "you were",
    "I'm": "you're",
    "I’m": "you’re",
    "I": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
}


def mirror_grammar(text: str, earlier: Sequence[tuple[int, date, str]] = (), *, searched: bool = False) -> str:
    """GBNF for one or two sentences that say back ``text``, then one from an earlier day, with its number.

    A question is not said back: it gets a sentence from each of one or two earlier days, or, when all that was found
    is in ``earlier`` (``searched``) and nothing is, that there is nothing. ``""`` when ``text`` has nothing that can
    be said back (no word at all).
    """
    said = clauses(text) or _anything(text)
    if not said:
        return ""
    frames = _frames(text)
    asks = _AFTERTHOUGHT.sub("", text[-500:]).endswith(("?", "？"))
    if asks and (recalled := _recalled(text, earlier)):
        rules = [
            _either(f"from{at}", [_dated(frames, *each, also=at > 0) for each in found])
            for at, found in enumerate(recalled)
        ]
        more = ' (" " from1)?' if len(recalled) > 1 else ""
        return "\n".join([f"root ::= from0{more}", *rules, ""])
    told = [clause for clause in clauses(text) if not _AFTERTHOUGHT.sub("", clause).endswith(("?", "？"))]
    if asks and searched and not told:
        return f"root ::= {_literal(frames.nothing)}\n"
    not_so = "\n".join(" ".join(found.split()) for each in _NOT_SO for found in each.findall(text))
    if _UNQUOTABLE.search(text) and not clauses(text):
        not_so += said[0]  # what stands between two marks is no sentence

    def speak(clause: str, frame: str) -> str:
        return (_spoken(clause) if clause not in not_so else "") or frame.format(clause)

    rules = [
        *_choice("first", told or said, lambda c: speak(c, frames.first), follow="second"),
        *_choice("second", told or said, lambda c: speak(c, frames.second)),
    ]
    quotes = [_dated(frames, *each) for found in _recalled(text, earlier, told or said, least=1) for each in found]
    if quotes:
        rules.append(_either("earlier", [" " + quote for quote in quotes]))
    return "\n".join(["root ::= first0" + (" earlier" if quotes else ""), *rules, ""])


def _recalled(
    text: str, earlier: Sequence[tuple[int, date, str]], said: Iterable[str] = (), *, least: int = 0
) -> list[list[tuple[int, date, str]]]:
    """For each earlier day the clauses with the most words of ``text`` in them, if these are ``least`` or more.

    No two of different days, and none of ``said``, have four words in a row in common.
    """
    asked = _roots(text)
    seen = {run for clause in said for run in _runs(clause)}
    found: list[list[tuple[int, date, str]]] = []
    for number, day, passage in earlier:
        whole = clauses(passage) or ([] if least else _anything(passage))
        new = [clause for clause in whole if seen.isdisjoint(_runs(clause))]
        shared = [len(asked & _roots(clause)) for clause in new]
        most = max(shared, default=-1)
        if most < least:
            continue
        best = [clause for clause, count in zip(new, shared, strict=True) if count == most][: MAX_CLAUSES // 3]
        seen.update(run for clause in best for run in _runs(clause))
        found.append([(number, day, clause) for clause in best])
    return found


def _frames(text: str) -> _Frames:
    """The words to put around a text: German where more of its words are, else English."""
    return _GERMAN if language_of(text) == "de" else _ENGLISH


def _dated(frames: _Frames, number: int, day: date, clause: str, *, also: bool = False) -> str:
    said = (frames.also if also else frames.on).format(clause, when=f"{_day_words(frames, day)} {day.year}")
    return f"{said}[{number}]"


def _day_words(frames: _Frames, day: date) -> str:
    return f"{day.day}{'.' if frames is _GERMAN else ''} {frames.months[day.month - 1]}"


def _roots(text: str) -> set[str]:
    """What a text is about, roughly: its less common words by their beginnings, so that "runs" is near "running"."""
    return {word[:5] for word in re.findall(r"\w{3,}", text.lower())} - _COMMON


def recall_grammar(day: date, texts: Sequence[str], *, yesterday: bool) -> str:
    """GBNF for one sentence that says when, and quotes a clause of the texts of that day. ``""`` without any."""
    said: list[str] = []
    for text in texts:
        frames = _frames(text)
        frame = frames.yesterday if yesterday else frames.on
        said += [frame.format(c, when=_day_words(frames, day)) for c in clauses(text) or _anything(text)]
    return _either("root", said[:MAX_CLAUSES]) + "\n" if said else ""


def summary_grammar(passages: Sequence[tuple[int, date, str]]) -> str:
    """GBNF for one sentence from each numbered and dated text, with its number. ``""`` without a word in any."""
    rules: list[str] = []
    for number, day, text in passages:
        said = (clauses(text) or _anything(text))[: MAX_CLAUSES // 3]
        if said:
            rules.append(_either(f"from{number}", [_dated(_frames(text), number, day, clause) for clause in said]))
    root = ' " " '.join(rule.partition(" ")[0] for rule in rules)
    return "\n".join([f"root ::= {root}", *rules, ""]) if rules else ""


def _either(name: str, sentences: Iterable[str]) -> str:
    return f"{name} ::= " + " | ".join(_literal(sentence) for sentence in sentences)


def _choice(name: str, said: Sequence[str], speak: Callable[[str], str], follow: str = "") -> list[str]:
    """Rules for a sentence made from one clause; ``follow`` names the sentence for one of the later clauses."""
    rules: list[str] = []
    last = len(said) - 1
    for at, clause in enumerate(said):
        here = _literal(speak(clause))
        if follow and at < last:
            here += f' " " {follow}{at + 1}'
        # The last clause may open only when it is the only one: two sentences are wanted where two are there.
        more = f" | {name}{at + 1}" if at < (last - 1 if follow else last) else ""
        rules.append(f"{name}{at} ::= {here}{more}")
    return rules


def clauses(text: str) -> list[str]:
    """The parts of ``text`` that stand by themselves, in order, no two with four words in a row in common."""
    found: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for sentence in _SENTENCE_END.split(text):
        for part in _CLAUSE_END.split(sentence or ""):
            clause = _trimmed(part)
            words = clause.split()
            while len(words) > WORDS[1] and "," in clause:
                clause = clause.rsplit(",", 1)[0].strip()
                words = clause.split()
            spaceless = len(words) == 1 and not clause.isascii() and len(clause) >= 4
            fewest = WORDS[0] - 1 if words[:1] == ["I"] else WORDS[0]
            if not (spaceless or fewest <= len(words) <= WORDS[1]) or len(clause) > MAX_CHARS:
                continue
            if _UNQUOTABLE.search(clause) or _UNFINISHED.search(clause):
                continue
            runs = _runs(clause)
            if len(runs) != len(set(runs)) or seen.intersection(runs):
                continue
            seen.update(runs)
            found.append(clause)
            if len(found) == MAX_CLAUSES:
                return found
    return found


def _runs(clause: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[\w'’]+", clause.lower())
    # The opening counts with the words before it ("you wrote …").
    words = ["you", "wrote", *words]
    return [tuple(words[at : at + 4]) for at in range(len(words) - 3)]


def _trimmed(part: str) -> str:
    clause = " ".join(part.split()).strip(" ,;:-–—")
    clause = clause.rstrip(".… ")
    opening = _OPENING_WORDS.match(clause)
    return clause[opening.end() :] if opening is not None else clause


def _anything(text: str) -> list[str]:
    """The beginning of a text too short or too odd to have clauses: what is longest between two marks."""
    parts = (" ".join(part.split()[: WORDS[1]]) for part in re.split(rf"{_UNQUOTABLE.pattern}|\n", text))
    starts = [part[:MAX_CHARS].rstrip(".,;: ") for part in parts]
    start = max(starts, key=lambda start: len(re.findall(r"\w+", start)))
    return [start] if any(c.isalnum() for c in start) else []


def _spoken(clause: str) -> str:
    """The clause said to the writer, or ``""`` when it has to be quoted."""
    if not _VERB.match(clause) or _UNCLEAR.search(clause) or _GRAVE.search(clause) or clause[-1] in "!?":
        return ""

    def other_person(match: re.Match[str]) -> str:
        word = match[0]
        return _SECOND_PERSON.get(word) or _SECOND_PERSON[word.lower()]

    said = _FIRST_PERSON.sub(other_person, clause)
    return f"{said[0].upper()}{said[1:]}."


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
