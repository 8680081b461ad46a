"""A grammar that lets the small built-in model say only what the writer wrote.

Left to itself a model of 135 million parameters invents: it copies its worked example, adds feelings, turns
people round. So the sentences it may say are made here from the clauses of the text it answers, in the second
person where that is safe and in quotation marks where it is not, and the model chooses among them. What it
says is therefore true, short and complete; what it cannot do is answer a question.

The grammar is GBNF, as llama.cpp reads it.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

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
_UNQUOTABLE: Final = re.compile(r"[\"“”„«»\\\[\](){}*_<>|`~]|#(?![^\W\d_])")  # a trace stays as it is written

# When these occur the change of person would be wrong or unclear, and the clause is quoted instead.
_UNCLEAR: Final = re.compile(
    r"\b(?:we|us|our|ours|you|your|yours|ye|thou|thee)\b|\b(?:am|was|is) I\b"
    r"|\b(?:and|but|or|then|who|also|never|always|just|still|only|now)\s+(?:am|was)\b|,\s*(?:am|was)\b",
    re.IGNORECASE,
)
_FIRST_PERSON: Final = re.compile(r"\bI (?:am|was)\b|\bI['’]m\b|\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b")
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


def mirror_grammar(text: str, earlier: Sequence[tuple[int, date, str]] = ()) -> str:
    """GBNF for one or two sentences that say back ``text``, then perhaps one from an earlier day, with its number.

    ``""`` when ``text`` has nothing that can be said back (no word at all).
    """
    said = clauses(text) or _anything(text)
    if not said:
        return ""
    rules = [
        *_choice("first", said, lambda c: _spoken(c) or f"You wrote “{c}”.", follow="second"),
        *_choice("second", said, lambda c: _spoken(c) or f"Then you wrote “{c}”."),
    ]
    known = set(said)
    quotes = [
        f"On {day.day} {day:%B} {day.year} you wrote “{c}”.[{number}]"
        for number, day, passage in earlier
        for c in clauses(passage)[: MAX_CLAUSES // 3]
        if c not in known
    ]
    rules.append("earlier ::= " + " | ".join(_literal(text) for text in [*(" " + q for q in quotes), ""]))
    return "root ::= first0 earlier\n" + "\n".join(rules) + "\n"


def recall_grammar(texts: Sequence[tuple[str, str]]) -> str:
    """GBNF for one sentence: (when, text) becomes "When you wrote …" with a clause of the text. ``""`` without any."""
    said = [f"{when} you wrote “{clause}”." for when, text in texts for clause in clauses(text) or _anything(text)]
    return "root ::= " + " | ".join(_literal(sentence) for sentence in said[:MAX_CLAUSES]) + "\n" if said else ""


def summary_grammar(passages: Sequence[tuple[int, date, str]]) -> str:
    """GBNF for one sentence from each numbered and dated text, with its number. ``""`` without a word in any."""
    rules: list[str] = []
    for number, day, text in passages:
        said = (clauses(text) or _anything(text))[: MAX_CLAUSES // 3]
        quotes = [f"On {day.day} {day:%B} {day.year} you wrote “{clause}”.[{number}]" for clause in said]
        if quotes:
            rules.append(f"from{number} ::= " + " | ".join(_literal(quote) for quote in quotes))
    root = ' " " '.join(rule.partition(" ")[0] for rule in rules)
    return "\n".join([f"root ::= {root}", *rules, ""]) if rules else ""


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
            if _UNQUOTABLE.search(clause):
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
    """The beginning of a text too short or too odd to have clauses."""
    words = _UNQUOTABLE.sub(" ", text).split()[: WORDS[1]]
    start = " ".join(words)[:MAX_CHARS].rstrip(".,;: ")
    return [start] if any(c.isalnum() for c in start) else []


def _spoken(clause: str) -> str:
    """The clause said to the writer, or ``""`` when it has to be quoted."""
    if not re.match(r"I\b", clause) or _UNCLEAR.search(clause) or clause[-1] in "!?":
        return ""

    def other_person(match: re.Match[str]) -> str:
        word = match[0]
        return _SECOND_PERSON.get(word) or _SECOND_PERSON[word.lower()]

    said = _FIRST_PERSON.sub(other_person, clause)
    return f"{said[0].upper()}{said[1:]}."


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
