"""Traces that an entry might bear: the model's, the writer's own, and words of the text. Nothing is put on an entry."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from llamora.journal.entries import Journal
from llamora.journal.retrieval import content_words
from llamora.journal.tags import Trace
from llamora.llm.client import ModelError
from llamora.llm.model import Model
from llamora.llm.prompts import PromptBuilder, Turn
from llamora.llm.queue import Turns
from llamora.llm.reasoning import REASONING_END
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import tag_hash
from llamora.search.rank import STOP_WORDS, strip_markdown
from llamora.search.service import SearchService
from llamora.text import is_emoji, tag_key, tag_name
from llamora.vault.keys import Keyring

MOST = 6  # suggestions for an entry
OWN = 3  # of them at most the writer's own that stand in the text
NEAR = 2  # and of those that near entries bear
TOLD = 40  # of the writer's own names that the model is told
LOOKED_AT = 5  # entries that bear such a name, of which the model may read one
MAX_TOKENS = 120
TEMPERATURE = 0.2
NEAREST = 5  # entries whose traces are looked at

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ADDRESS = re.compile(r"\w{1,20}://\S+|www\.\S+")
_SENTENCE_START = re.compile(r"(?:^|[.!?:…]\s+|\n\s*)[\"“„‘'(]*$")
# Words that stand in every diary and say nothing of what an entry is about.
_EVERYDAY = frozenset(
    "about after again all almost also always another any anything away back because been before being better "
    "both came come comes could day days did done down each early else enough even evening every everything few "
    "first found full gave get give given gone good got great had half hand hard having here himself home hour "
    "hours however into just keep kept knew know known last late least left less let like little long look looked "
    "made make makes making many may maybe mind more morning most much must myself near never new next night nor "
    "not nothing now off often once one only other others out over own part people perhaps place put quite rather "
    "really said same saw say says see seem seems sent set several since small something sometimes soon still "
    "such sure take taken tell thence thing things think this though thought three through thus time times today "
    "together told tomorrow too took two under until upon very want wanted way week weeks well went whole within "
    "without word words work year years yesterday yet aber alle alles also auch auf aus bei bin bis bist dann das "
    "dass dem den der des die dies diese doch dort durch ein eine einem einen einer etwas euch für ganz gegen "
    "gehen habe haben hat hatte heute hier ich ihm ihn ihr immer ist jetzt kann kein keine können mal man mehr "
    "mein meine mich mir mit morgen muss nach nicht nichts noch nun nur oder schon sehr sein seine sich sie sind "
    "über und uns unter viel vom von vor war waren was weil wenn wie wieder wir wird wurde zum zur".split()
)


# The form of the model's answer.
_FORM: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "traces",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "traces": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": MOST - NEAR,
                    }
                },
                "required": ["traces"],
                "additionalProperties": False,
            },
        },
    }
}


@dataclass(slots=True, frozen=True)
class Suggested:
    """Names that an entry might bear, the likeliest first.

    `said` is all that the model named, as it did, and `model` its name; `note` says why it named nothing.
    """

    names: tuple[str, ...]
    said: tuple[str, ...] = ()
    model: str = ""
    note: str = ""


class Suggestions:
    """Makes them, on request only."""

    def __init__(
        self, db: LocalDB, journal: Journal, search: SearchService, model: Model, prompts: PromptBuilder, turns: Turns
    ) -> None:
        self._db = db
        self._journal = journal
        self._search = search
        self._model = model
        self._prompts = prompts
        self._turns = turns

    async def suggest(
        self, keys: Keyring, entry_id: bytes, endpoint: str = "", *, with_model: bool = True
    ) -> Suggested:
        """What an entry might bear that it does not bear and that was not rejected for it: at most MOST, each once.

        `with_model`: the model is asked, unless the entry is kept from it. Raises NotFound, StorageError.
        """
        entry = await self._journal.get(keys, entry_id)
        if entry.deleted is not None or entry.role != "me":
            raise NotFound("There is no such entry.")
        text = _ADDRESS.sub(" ", strip_markdown(entry.text))
        own = await self._journal.traces.all(keys)
        words = content_words(text)
        fitting = [trace for trace in own if fits(trace.name, words)]
        fitting.sort(key=lambda trace: (-trace.entries, trace.name))
        said: list[str] = []
        model = note = ""
        if with_model and not self._model.unavailable_reason(endpoint):
            try:
                said, model = await self._asked(keys, entry, text, own, endpoint)
            except ModelError as error:
                note = error.sentence
        names = [trace.name for trace in fitting[:OWN]] + said[: MOST - NEAR]
        if not said:
            names += keywords(text, MOST - NEAR)
        names += await self._near(keys, entry)
        names += [trace.name for trace in fitting[OWN:]] + keywords(text, 2 * MOST)
        return Suggested(await self._valid(keys, entry_id, names), tuple(said), model if said else "", note)

    async def refuse(self, keys: Keyring, entry_id: bytes, name: str) -> None:
        """Do not suggest a name for an entry again, by whichever of its names. Raises NotFound, StorageError."""
        book = await self._db.tags.get_meta(keys)
        await self._db.tags.refuse_suggestions(keys, entry_id, [name, book.canonical(name, tag_hash(keys, name))])

    async def _valid(self, keys: Keyring, entry_id: bytes, names: Sequence[str]) -> tuple[str, ...]:
        """Those of these names that can be given, each trace once, as it is called."""
        book = await self._db.tags.get_meta(keys)
        borne = (await self._journal.traces.on(keys, [entry_id])).get(entry_id, [])
        refused = await self._db.tags.refused_names(keys, entry_id)
        away = {tag_key(trace.name) for trace in borne} | refused
        away |= {tag_key(book.canonical(key, tag_hash(keys, key))) for key in refused}  # what it is called by now
        found: dict[str, str] = {}
        for written in names:
            name = tag_name(written)
            if not name or tag_key(name) in away:
                continue
            name = book.canonical(name, tag_hash(keys, name))
            if tag_key(name) not in away and tag_hash(keys, name) not in book.hidden:
                found.setdefault(tag_key(name), name)
        return tuple(found.values())[:MOST]

    async def _near(self, keys: Keyring, entry: Entry) -> list[str]:
        """The traces that the nearest entries bear."""
        hits = await self._search.find_related(keys, entry, limit=NEAREST)
        on = await self._journal.traces.on(keys, [hit.entry_id for hit in hits])
        counts = Counter(trace.name for traces in on.values() for trace in traces)
        return [name for name, _ in counts.most_common(NEAR)]

    async def _asked(
        self, keys: Keyring, entry: Entry, text: str, own: Sequence[Trace], endpoint: str
    ) -> tuple[list[str], str]:
        """What the model says, and its name; at its turn the entry is read again, which may be withheld by now."""
        async with self._turns.turn(keys.user_id, lambda _: None):
            thread = await self._journal.thread(keys, entry.id)
            now = await self._journal.get(keys, entry.id)
            if now.withheld or thread.root.withheld or now.deleted is not None or now.revision != entry.revision:
                return [], ""
            client = await self._model.client(endpoint)
            used = await self._told(keys, own)
            told = [Turn("me", ", ".join(used), entry.day)] if used else []
            written = [*told, Turn("me", text, entry.day)]
            prompt = await self._prompts.build_line(client, "traces", day=entry.day, turns=written)
            info = await client.describe()
            answer = ""
            pieces = client.stream(prompt.messages, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, extra=_FORM)
            async with aclosing(pieces):
                async for piece in pieces:
                    answer = REASONING_END.split(answer + piece)[-1]
        return names_in(answer), "small built-in model" if info.is_embedded else info.name

    async def _told(self, keys: Keyring, own: Sequence[Trace]) -> list[str]:
        """The names used most, of those that an entry bears which the model may read."""
        used = sorted(own, key=lambda trace: -trace.entries)[:TOLD]
        bearing = {t.id: sorted(await self._journal.traces.bearing(keys, t.id))[:LOOKED_AT] for t in used}
        entries = await self._db.entries.get_many(keys, list({each for ids in bearing.values() for each in ids}))
        read = {
            e.id for e in entries if e.role == "me" and e.parent_id is None and e.deleted is None and not e.withheld
        }
        return [trace.name for trace in used if not read.isdisjoint(bearing[trace.id])]


def names_in(answer: str) -> list[str]:
    """The names of a model's answer; none for an answer of another form."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        found: object = json.loads(answer[start : end + 1])
    except ValueError:
        return []
    listed = cast("dict[str, object]", found).get("traces") if isinstance(found, dict) else None
    return [name for name in cast("list[object]", listed) if isinstance(name, str)] if isinstance(listed, list) else []


def fits(name: str, words: set[str]) -> bool:
    """Whether every word of a name is among `words`, as grounding.content_words cuts both."""
    own = content_words(name.replace("-", " ").replace("_", " "))
    return bool(own) and own <= words and not is_emoji(name)


def keywords(text: str, limit: int) -> list[str]:
    """The words that a text seems to be about, in its own spelling, the likeliest first.

    What comes again counts more, and so does a name, which has a capital within a sentence. Everyday words are left
    out.
    """
    scores: dict[str, float] = {}
    spelt: dict[str, Counter[str]] = {}
    for place, match in enumerate(_WORD.finditer(text)):
        word = match[0].removesuffix("'s").removesuffix("’s")
        lower = word.lower()
        if (len(word) < 3 and word.isascii()) or lower in STOP_WORDS or lower in _EVERYDAY or len(word) > 30:
            continue
        begins = _SENTENCE_START.search(text, max(0, match.start() - 12), match.start()) is not None
        is_name = word[0].isupper() and not begins
        key = next(iter(content_words(lower)), lower)
        scores[key] = (
            scores.get(key, 0.0) + (1.6 if is_name else 1.0) + min(len(word), 10) / 20 - min(place, 400) / 2000
        )
        spelt.setdefault(key, Counter())[word if is_name else lower] += 1
    best = sorted(scores, key=lambda key: -scores[key])[:limit]
    return [spelt[key].most_common(1)[0][0] for key in best]
