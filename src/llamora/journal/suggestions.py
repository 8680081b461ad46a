"""Suggest tags for an entry: the model's, the user's own, and words of the text."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from llamora.errors import Notice
from llamora.journal.context import UserContext
from llamora.journal.entries import Journal
from llamora.journal.reading import find_readable, model_may_read
from llamora.journal.retrieval import content_words
from llamora.journal.tag_cache import Tag
from llamora.llm.budget import Turn
from llamora.llm.errors import ModelError
from llamora.llm.model import Model
from llamora.llm.reasoning import without_reasoning
from llamora.persistence.connection import NotFound
from llamora.persistence.entries import BUILT_IN_MODEL, Entry
from llamora.persistence.local_db import LocalDB
from llamora.persistence.tag_changes import tag_hash
from llamora.search.service import SearchService
from llamora.text import COMMON_WORDS, STOP_WORDS, is_emoji, strip_markdown, tag_key, tag_name
from llamora.vault.keys import Keyring

MAX_SUGGESTIONS = 6  # per entry
MAX_OWN_TAGS = 3  # of these, the user's own tags found in the text
MAX_NEARBY_TAGS = 2  # and those of similar entries
MAX_TAGS_IN_PROMPT = 40  # the user's own tags listed in the prompt
MAX_ENTRIES_PER_TAG = 5  # checked for one that the model may read
MAX_TOKENS = 120
TEMPERATURE = 0.2
NEAREST_ENTRIES = 5  # similar entries whose tags are counted

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_URL = re.compile(r"\w{1,20}://\S+|www\.\S+")
_SENTENCE_START = re.compile(r"(?:^|[.!?:…]\s+|\n\s*)[\"“„‘'(]*$")


# The JSON schema of the model's answer.
_FORM: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "tags",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "tags": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": MAX_SUGGESTIONS - MAX_NEARBY_TAGS,
                    }
                },
                "required": ["tags"],
                "additionalProperties": False,
            },
        },
    }
}


@dataclass(slots=True, frozen=True)
class SuggestedTags:
    """Tag names suggested for an entry, likeliest first.

    `model_names` are all those that the model gave, literally, and `model` is its name; `note` says
    why the model gave none.
    """

    names: tuple[str, ...]
    model_names: tuple[str, ...] = ()
    model: str = ""
    note: Notice | None = None


@dataclass(slots=True, frozen=True)
class Suggestions:
    """Suggest tags on request; never puts one on an entry."""

    _db: LocalDB
    _journal: Journal
    _search: SearchService
    _model: Model

    async def suggest(self, user: UserContext, entry_id: bytes) -> SuggestedTags:
        """Suggest tags that an entry does not have and that were not rejected for it.

        Returns MAX_SUGGESTIONS at most, without duplicates. Also asks the model, unless the user
        has turned it off or the entry is withheld from it. Raises NotFound and StorageError.
        """
        keys = user.keys
        entry = await self._journal.get(keys, entry_id)
        if entry.deleted is not None or entry.role != "me":
            raise NotFound("entry_not_found")
        text = _URL.sub(" ", strip_markdown(entry.text))
        own_tags = await self._journal.tags.list_tags(keys)
        words = content_words(text)
        matching_tags = [tag for tag in own_tags if is_name_in_words(tag.name, words)]
        matching_tags.sort(key=lambda tag: (-tag.entry_count, tag.name))
        model_names: list[str] = []
        model_name = ""
        note: Notice | None = None
        if user.profile.replies and not self._model.unavailable_reason(user.endpoint):
            try:
                model_names, model_name = await self._ask_model(user, entry, text, own_tags)
            except ModelError as error:
                note = error.notice
        names = [tag.name for tag in matching_tags[:MAX_OWN_TAGS]] + model_names[
            : MAX_SUGGESTIONS - MAX_NEARBY_TAGS
        ]
        if not model_names:
            names += extract_keywords(text, MAX_SUGGESTIONS - MAX_NEARBY_TAGS)
        names += await self._nearby_tag_names(keys, entry)
        names += [tag.name for tag in matching_tags[MAX_OWN_TAGS:]] + extract_keywords(
            text, 2 * MAX_SUGGESTIONS
        )
        return SuggestedTags(
            await self._filter_names(keys, entry_id, names),
            tuple(model_names),
            model_name if model_names else "",
            note,
        )

    async def reject(self, keys: Keyring, entry_id: bytes, name: str) -> None:
        """Never suggest a tag for an entry again, under any of its names.

        Raises NotFound and StorageError.
        """
        meta = await self._db.tags.get_meta(keys)
        await self._db.tags.refuse_suggestions(
            keys, entry_id, [name, meta.canonical(name, tag_hash(keys, name))]
        )

    async def _filter_names(
        self, keys: Keyring, entry_id: bytes, names: Sequence[str]
    ) -> tuple[str, ...]:
        meta = await self._db.tags.get_meta(keys)
        tags = (await self._journal.tags.tags_of(keys, [entry_id])).get(entry_id, [])
        rejected_keys = await self._db.tags.refused_names(keys, entry_id)
        excluded_keys = {tag_key(tag.name) for tag in tags} | rejected_keys
        excluded_keys |= {
            tag_key(meta.canonical(key, tag_hash(keys, key))) for key in rejected_keys
        }  # the tag may have been renamed since
        names_by_key: dict[str, str] = {}
        for candidate in names:
            name = tag_name(candidate)
            if not name or tag_key(name) in excluded_keys:
                continue
            name = meta.canonical(name, tag_hash(keys, name))
            if tag_key(name) not in excluded_keys and tag_hash(keys, name) not in meta.hidden:
                names_by_key.setdefault(tag_key(name), name)
        return tuple(names_by_key.values())[:MAX_SUGGESTIONS]

    async def _nearby_tag_names(self, keys: Keyring, entry: Entry) -> list[str]:
        hits = await self._search.find_related(keys, entry, limit=NEAREST_ENTRIES)
        tags_by_entry = await self._journal.tags.tags_of(keys, [hit.entry_id for hit in hits])
        counts = Counter(tag.name for tags in tags_by_entry.values() for tag in tags)
        return [name for name, _ in counts.most_common(MAX_NEARBY_TAGS)]

    async def _ask_model(
        self, user: UserContext, entry: Entry, text: str, own_tags: Sequence[Tag]
    ) -> tuple[list[str], str]:
        """Return the names that the model gives, and its own name.

        The entry is read again once a slot is free, as it may have been withheld meanwhile; if so,
        or if it has changed, the model is not asked.
        """
        keys = user.keys
        async with self._model.queue.slot(keys.user_id, lambda _: None):
            current = (await find_readable(self._db, keys, [entry.id])).get(entry.id)
            if current is None or current.revision != entry.revision:
                return [], ""
            client = await self._model.client(user.endpoint)
            used_names = await self._names_for_prompt(keys, own_tags)
            names_turn = [Turn("me", ", ".join(used_names), entry.day)] if used_names else []
            turns = [*names_turn, Turn("me", text, entry.day)]
            prompt = await self._model.prompts.build_line(
                client, "tags", day=entry.day, turns=turns
            )
            info = await client.describe()
            answer = ""
            chunks = client.stream(
                prompt.messages, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, extra=_FORM
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    answer = without_reasoning(answer + chunk)
        return parse_names(answer), BUILT_IN_MODEL if info.is_embedded else info.name

    async def _names_for_prompt(self, keys: Keyring, own_tags: Sequence[Tag]) -> list[str]:
        most_used = sorted(own_tags, key=lambda tag: -tag.entry_count)[:MAX_TAGS_IN_PROMPT]
        entries_by_tag = {
            t.id: sorted(await self._journal.tags.all_ids_with_tag(keys, t.id))[
                :MAX_ENTRIES_PER_TAG
            ]
            for t in most_used
        }
        entries = await self._db.entries.get_many(
            keys, list({entry_id for ids in entries_by_tag.values() for entry_id in ids})
        )
        # Roots only: checking an answer would require opening its page.
        readable_ids = {
            e.id for e in entries if e.role == "me" and e.parent_id is None and model_may_read(e, e)
        }
        return [
            tag.name for tag in most_used if not readable_ids.isdisjoint(entries_by_tag[tag.id])
        ]


def parse_names(answer: str) -> list[str]:
    """Return the names in a model's answer; none if it has another form."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        parsed: object = json.loads(answer[start : end + 1])
    except ValueError:
        return []
    items = cast("dict[str, object]", parsed).get("tags") if isinstance(parsed, dict) else None
    return (
        [name for name in cast("list[object]", items) if isinstance(name, str)]
        if isinstance(items, list)
        else []
    )


def is_name_in_words(name: str, words: set[str]) -> bool:
    """Return True if all words of a name are in `words`, as `content_words` returns them."""
    name_words = content_words(name.replace("-", " ").replace("_", " "))
    return bool(name_words) and name_words <= words and not is_emoji(name)


def extract_keywords(text: str, limit: int) -> list[str]:
    """Return the likely topics of a text, in its own spelling, likeliest first.

    Repeated words and names (capitalized within a sentence) score higher. Everyday words are left
    out.
    """
    scores: dict[str, float] = {}
    spellings: dict[str, Counter[str]] = {}
    for position, match in enumerate(_WORD.finditer(text)):
        word = match[0].removesuffix("'s").removesuffix("’s")
        lower = word.lower()
        if (
            (len(word) < 3 and word.isascii())
            or lower in STOP_WORDS
            or lower in COMMON_WORDS
            or len(word) > 30
        ):
            continue
        starts_sentence = (
            _SENTENCE_START.search(text, max(0, match.start() - 12), match.start()) is not None
        )
        is_name = word[0].isupper() and not starts_sentence
        key = next(iter(content_words(lower)), lower)
        scores[key] = (
            scores.get(key, 0.0)
            + (1.6 if is_name else 1.0)
            + min(len(word), 10) / 20
            - min(position, 400) / 2000
        )
        spellings.setdefault(key, Counter())[word if is_name else lower] += 1
    best = sorted(scores, key=lambda key: -scores[key])[:limit]
    return [spellings[key].most_common(1)[0][0] for key in best]
