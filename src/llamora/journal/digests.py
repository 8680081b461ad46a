"""A day summed up, on request only: kept under a digest of its entries, and dropped when they change."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import date

from llamora.journal.citations import TAKEN_OUT, Checker, Guard
from llamora.journal.entries import EntryError, Journal, Thread
from llamora.journal.turns import Turns
from llamora.llm.client import THOUGHTS_END, ModelClient, ModelError, ModelInfo
from llamora.llm.model import Model
from llamora.llm.prompts import Prompt, PromptBuilder, Turn
from llamora.persistence.connection import StaleRevision, StorageError
from llamora.persistence.digests import Digest, Kind
from llamora.persistence.entries import Entry
from llamora.persistence.local_db import LocalDB
from llamora.vault.keys import Keyring

MAX_TOKENS = 200  # three sentences at most
CHANGED = "What this is about was changed while the model read it. Ask again."
NOTHING = "The model had nothing to say of it that stands in your pages. Ask again later."

EMPTY: Mapping[Kind, str] = {
    "recap": "There is nothing on this page that the model may read.",
    "opening": "There is nothing on the last days that the model may read.",
}


@dataclass(slots=True, frozen=True)
class Asked:
    """A prompt, and who would get it."""

    prompt: Prompt
    client: ModelClient
    info: ModelInfo


class Digests:
    """Asks the model for a few sentences about a day, and keeps them as long as they are about what is there."""

    def __init__(self, db: LocalDB, journal: Journal, model: Model, prompts: PromptBuilder, turns: Turns) -> None:
        self._db = db
        self._journal = journal
        self._model = model
        self._prompts = prompts
        self._turns = turns

    async def recap(self, keys: Keyring, day: date, page: Sequence[Thread]) -> Digest | None:
        """The summary of a page as it stands; one of what has changed since is removed."""
        kept = await self._db.digests.get(keys, "recap", day)
        if kept is not None and kept.made_of != made_of(readable(page)):
            with suppress(StorageError):  # a full disk keeps nobody from reading
                await self._db.digests.remove(keys, "recap", day)
            return None
        return kept

    async def sum_up(self, keys: Keyring, day: date, endpoint: str = "") -> Digest:
        """Sum a day up now. Raises EntryError when there is nothing to sum up, ModelError, StorageError."""
        entries = readable(await self._journal.page(keys, day))
        if not entries:
            raise EntryError(EMPTY["recap"])
        return await self.say(keys, "recap", day, entries, endpoint)

    async def preview(self, keys: Keyring, day: date, endpoint: str = "") -> "Asked":
        """What would be sent to sum a day up, exactly. Raises as `sum_up`."""
        return await self.would_say("recap", day, readable(await self._journal.page(keys, day)), endpoint)

    async def would_say(self, kind: Kind, day: date, entries: Sequence[Entry], endpoint: str) -> "Asked":
        """What `say` would send. Raises EntryError where there is nothing to send, ModelError."""
        if not entries:
            raise EntryError(EMPTY[kind])
        if why_not := self._model.why_not(endpoint):
            raise ModelError("unreachable", why_not)
        return await self._asked(kind, day, entries, endpoint)

    async def _asked(self, kind: Kind, day: date, entries: Sequence[Entry], endpoint: str) -> "Asked":
        client = await self._model.client(endpoint)
        written = [Turn("me", entry.text, entry.day) for entry in entries]
        small = self._model.small(endpoint)
        prompt = await self._prompts.line(client, kind, day=day, written=written, small=small)
        return Asked(prompt, client, await client.describe())

    async def say(self, keys: Keyring, kind: Kind, day: date, entries: Sequence[Entry], endpoint: str) -> Digest:
        """Ask for a line about `entries`, check it as replies are checked, and keep it.

        Raises EntryError when one of them has changed: then nothing is sent, or what was said is not kept.
        """
        read = {entry.id: entry.revision for entry in entries}
        if why_not := self._model.why_not(endpoint):
            raise ModelError("unreachable", why_not)
        async with self._turns.turn(keys.user_id, lambda _: None):
            asked = await self._asked(kind, day, entries, endpoint)
            prompt, client = asked.prompt, asked.client
            if await self._db.entries.revisions_of(keys.user_id, read) != read:
                raise EntryError(CHANGED)
            said = ""
            pieces = client.stream(prompt.messages, max_tokens=MAX_TOKENS, extra=prompt.options or None)
            async with aclosing(pieces):
                async for piece in pieces:
                    said = THOUGHTS_END.split(said + piece)[-1]
        guard = Guard(Checker({}, prompt.own))
        guard.feed(said.strip())
        text = guard.finish().strip()
        if kind == "opening":
            text = text.partition("\n")[0].strip()
        if not text or TAKEN_OUT in text:  # so short a thing with a hole in it says nothing
            raise ModelError("broken", NOTHING)
        digest = Digest(
            kind,
            day,
            text,
            tuple(entry.id for entry in entries),
            made_of(entries),
            "small built-in model" if asked.info.embedded else asked.info.name,
            prompt.cut,
        )
        try:
            await self._db.digests.put(keys, digest, [self._db.entries.standing(keys.user_id, read)])
        except StaleRevision:
            raise EntryError(CHANGED) from None
        return digest


def readable(page: Sequence[Thread]) -> list[Entry]:
    """What the writer wrote on a page and does not keep from the model, oldest first."""
    found = [
        entry
        for thread in page
        if not thread.root.withheld
        for entry in (thread.root, *thread.later)
        if entry.role == "me" and entry.deleted is None and not entry.withheld and entry.state == "done"
    ]
    return sorted(found, key=lambda entry: (entry.at, entry.id))


def made_of(entries: Sequence[Entry]) -> str:
    """A digest of entries and their texts, in hex: another one once any of them changes, comes or goes."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.id):
        digest.update(entry.id + hashlib.sha256(entry.text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
